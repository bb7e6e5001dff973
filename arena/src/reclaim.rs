//! Memory on its way back: from spans to the page heap, and from there to the system.
//! `purge.rs` decides, this module acts.

use crate::big::BigCache;
use crate::bitmap::Bits;
use crate::heap_core::HeapCore;
use crate::os;
use crate::purge;
use crate::segment::Segment;
use crate::size_class::{block_at, block_size, span_blocks, span_granules};
use crate::span::Span;
use crate::sync::{AtomicU64, Ordering};
use crate::units::{CLASS_COUNT, ClassIndex, GRANULE_BYTES, GRANULE_SHIFT, Run};

/// Granules that are purged while the page-heap lock is held at once: 4 MiB.
const PURGE_BATCH: usize = 1024;

impl HeapCore {
    /// Lets the decay policy look at the heap, if it is time. Called from slow paths.
    pub(crate) fn tick(&self) {
        let now = os::now_ms();
        // Relaxed: the exchange only elects one thread; no data hangs on it.
        let last = self.ticked_ms.load(Ordering::Relaxed);
        let elapsed = now.saturating_sub(last);
        if elapsed < purge::TICK_MS
            || self
                .ticked_ms
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        if last == 0 {
            return;
        }
        self.retire_empties();
        let idle = self.pages.with(|pages| pages.take_idle());
        let half_life = self.options.decay_ms();
        let excess = idle - purge::retained(idle, elapsed, half_life).min(idle);
        self.purge_dirty(excess);
        while self.drop_next_kept(|big| big.take_expired(now, half_life)) {}
    }

    /// All threads but one have ended: gives back what they left, if it is time. The one may wait for
    /// long now, and then nobody else would.
    #[cold]
    pub(crate) fn settle(&self) {
        let now = os::now_ms();
        // Relaxed, here and below: a time and counts for the policy.
        if now < self.settle_from_ms.load(Ordering::Relaxed) || self.options.decay_ms() == u64::MAX
        {
            return;
        }
        let before = self.purged.load(Ordering::Relaxed);
        let committed = self.committed.load(Ordering::Relaxed);
        let free = self.free_granules();
        let swept = self.swept.fetch_min(free, Ordering::Relaxed);
        // What was free before the others came is the one's own, which may be about to use it.
        let own = self.free_before.swap(usize::MAX, Ordering::Relaxed);
        if purge::sweep_is_due(committed, free, swept.max(own), 0) {
            self.sweep(free - own);
        } else {
            self.retire_empties();
        }
        let dirty = self.pages.with(|pages| pages.dirty());
        self.purge_dirty(dirty.saturating_sub(purge::KEEP_GRANULES));
        while self.drop_next_kept(BigCache::take_oldest) {}
        let given = self.purged.load(Ordering::Relaxed).wrapping_sub(before);
        let from = now.saturating_add(purge::settled_ms(given));
        // Two threads may be here at a time.
        self.settle_from_ms.fetch_max(from, Ordering::Relaxed);
    }

    /// Gives up to `amount` dirty granules back to the system; returns how many.
    fn purge_dirty(&self, amount: usize) -> usize {
        let os_page = self.os_page();
        let mut left = amount;
        while left > 0 {
            let batch = left.min(PURGE_BATCH);
            let got = self.pages.with(|pages| {
                let keep = pages.dirty().saturating_sub(batch);
                let got = pages.purge(self.os, os_page, keep, batch);
                // Under the lock, so that no fork comes between, and a child counts them for ever.
                self.note_purged(got);
                got
            });
            if got == 0 {
                break;
            }
            left = left.saturating_sub(got);
        }
        amount - left
    }

    /// Returns wholly free spans to the page heap.
    pub(crate) fn retire_empties(&self) {
        // Relaxed: a hint; a bit that is set again meanwhile is seen next time.
        let classes = self.empties.swap(0, Ordering::Relaxed);
        for class in ClassIndex::all().filter(|class| classes >> class.get() & 1 == 1) {
            self.sweep_class(class, |_| {});
        }
    }

    /// Returns wholly free spans to the page heap, and the free OS pages inside the others to the
    /// system, until `most` granules are: the rest may be wanted again before the heap has grown by
    /// as much, and then costs a page fault each.
    pub(crate) fn sweep(&self, most: usize) {
        // Relaxed: a hint, and a count for the policy.
        let empties = self.empties.swap(0, Ordering::Relaxed);
        let from = self.sweep_from.load(Ordering::Relaxed);
        let (mut left, mut last) = (most, from);
        let classes = ClassIndex::all().cycle().skip(from);
        for class in classes.take(CLASS_COUNT) {
            if left > 0 {
                last = class.get();
                self.sweep_class(class, |span| {
                    if left > 0 {
                        left = left.saturating_sub(self.purge_inside(class, span));
                    }
                });
            } else if empties >> class.get() & 1 == 1 {
                self.sweep_class(class, |_| {});
            }
        }
        if left > 0 {
            // Nothing is left to find before more is freed.
            self.swept.store(self.free_granules(), Ordering::Relaxed);
        }
        // Relaxed: two threads that sweep at the same time begin where one of them stopped.
        self.sweep_from.store(last, Ordering::Relaxed);
    }

    /// [`Self::sweep`] before the heap grows: until the policy is asked again.
    pub(crate) fn sweep_for_growth(&self) {
        self.sweeping.look();
        // Relaxed: a count for the policy.
        let committed = self.committed.load(Ordering::Relaxed);
        self.sweep(purge::next_look(committed) - committed);
    }

    /// Whether the policy wants a sweep before the heap grows.
    pub(crate) fn sweep_is_due(&self) -> bool {
        // Relaxed: counts for the policy.
        let committed = self.committed.load(Ordering::Relaxed);
        if committed < self.look_at.load(Ordering::Relaxed) {
            return false;
        }
        self.look_at
            .store(purge::next_look(committed), Ordering::Relaxed);
        let free = self.free_granules();
        // Relaxed: a count for the policy.
        let swept = self.swept.fetch_min(free, Ordering::Relaxed);
        purge::sweep_is_due(committed, free, swept, self.sweeping.patience())
    }

    /// Granules' worth of resident free blocks in spans.
    pub(crate) fn free_granules(&self) -> usize {
        let classes = ClassIndex::all().zip(&self.centrals);
        let bytes = classes.map(|(class, central)| {
            let blocks = central.spans() * span_blocks(class);
            blocks.saturating_sub(central.outside()) * block_size(class)
        });
        // Relaxed: a count for the policy.
        let fresh = self.fresh.load(Ordering::Relaxed);
        (bytes.sum::<usize>() >> GRANULE_SHIFT).saturating_sub(fresh)
    }

    fn sweep_class(&self, class: ClassIndex, visit: impl FnMut(&Span)) {
        let Some(central) = self.centrals.get(class.get()) else {
            return;
        };
        central.sweep(class, visit, |span| {
            // SAFETY: a span's start lies in its segment, of this heap.
            let segment = unsafe { Segment::containing(span.start()) };
            let run = segment.run_of(span);
            let mut fresh = Bits::new();
            for index in 0..run.len {
                if span.fresh() >> index & 1 == 1 {
                    fresh.assign(
                        Run {
                            start: run.start + index,
                            len: 1,
                        },
                        true,
                    );
                }
            }
            // Relaxed: a count for the policy.
            self.fresh
                .fetch_sub(span.fresh().count_ones() as usize, Ordering::Relaxed);
            // SAFETY: every block of the span is free and the class has let go of it.
            self.pages
                .with(|pages| unsafe { pages.free(segment, span, &fresh) });
        });
    }

    /// Purges the OS pages of a part-used span on which every block is free; returns how many
    /// granules. The class lock is held: nobody takes blocks, and free ones stay free.
    fn purge_inside(&self, class: ClassIndex, span: &Span) -> usize {
        // SAFETY: the class lock is held and the span is of this class.
        let words = unsafe { span.words(class) };
        if crate::span::all_free(words, class) {
            // It goes to the page heap whole, which purges it in its time.
            return 0;
        }
        let step = (self.os_page() >> GRANULE_SHIFT).max(1);
        let (mut fresh, mut swept) = (span.fresh(), span.swept());
        let (mut first, mut purged) = (0, 0);
        while first + step <= span_granules(class) {
            let mut len = 0;
            while first + len + step <= span_granules(class)
                && pages_are_free(class, words, first + len, step)
            {
                len += step;
            }
            let mask = crate::bitmap::below(first + len) & !crate::bitmap::below(first);
            let resident = (mask & !fresh).count_ones() as usize;
            let addr = span.start() + (first << GRANULE_SHIFT);
            // SAFETY: whole OS pages of a span of ours on which every block is free, and
            // stays free as long as the class lock is held.
            if resident > 0 && unsafe { self.os.purge(addr, len << GRANULE_SHIFT) } {
                swept |= mask & !fresh;
                fresh |= mask;
                // Relaxed: a count for the policy.
                self.fresh.fetch_add(resident, Ordering::Relaxed);
                self.note_purged(resident);
                purged += resident;
            }
            first += len + step;
        }
        span.set_fresh(fresh, swept);
        self.sweeping.note_gone(purged);
        purged
    }

    fn note_purged(&self, granules: usize) {
        // Relaxed: counts for statistics and for the policy.
        let committed = self.committed.fetch_sub(granules, Ordering::Relaxed) - granules;
        self.look_at
            .fetch_min(purge::next_look(committed), Ordering::Relaxed);
        self.purged.fetch_add(granules, Ordering::Relaxed);
    }

    /// Memory or address space is exhausted: gives back what can be given back at once.
    #[cold]
    pub(crate) fn relieve(&self) {
        self.retire_empties();
        while self.drop_next_kept(BigCache::take_oldest) {}
        self.pages.with(|pages| {
            let before = pages.dirty();
            pages.hollow_out(self.os);
            self.note_purged(before - pages.dirty());
        });
    }

    /// Gives everything back to the system that neither a block nor a cache pins; returns
    /// bytes.
    pub(crate) fn purge(&self) -> usize {
        // Relaxed: a count.
        let before = self.purged.load(Ordering::Relaxed);
        self.sweep(usize::MAX);
        self.purge_dirty(usize::MAX);
        while self.drop_next_kept(BigCache::take_oldest) {}
        self.purged.load(Ordering::Relaxed).wrapping_sub(before) * GRANULE_BYTES
    }
}

/// Whether every block that overlaps granules `first .. first + len` is free.
fn pages_are_free(class: ClassIndex, words: &[AtomicU64], first: usize, len: usize) -> bool {
    let blocks = span_blocks(class);
    let from = block_at(class, first << GRANULE_SHIFT);
    let last = block_at(class, ((first + len) << GRANULE_SHIFT) - 1).min(blocks - 1);
    // A tail without blocks has `from > last`: trivially free.
    (from..=last).all(|index| {
        // Acquire: the freeing thread's last accesses come before the purge.
        let word = words
            .get(index / 64)
            .map_or(0, |word| word.load(Ordering::Acquire));
        word >> (index % 64) & 1 == 1
    })
}
