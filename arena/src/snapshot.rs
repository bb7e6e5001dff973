//! Figures of a heap, and the check of its invariants.

use core::fmt;

use crate::block_state::STATES_BYTES;
use crate::depot;
use crate::guest_table::TABLE_BYTES;
use crate::heap_core::HeapCore;
use crate::lend::Fit;
use crate::segment::{HEADER_GRANULES, Segment};
use crate::size_class::{block_size, span_blocks};
use crate::span::{Kind, Span, count_free, full_word};
use crate::stats::Stats;
use crate::sync::{AtomicU64, Ordering};
use crate::thread_cache::{OWN_BYTES, free_entries};
use crate::units::{CLASS_COUNT, ClassIndex, GRANULE_BYTES, GRANULE_SHIFT, SEGMENT_GRANULES};

/// An invariant that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Number of the invariant, as in the source, and what it says.
    what: &'static str,
    /// Where: an address, a class index or a count.
    place: usize,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "invariant {} does not hold at {:#x}",
            self.what, self.place
        )
    }
}

impl core::error::Error for Violation {}

fn check(holds: bool, what: &'static str, place: usize) -> Result<(), Violation> {
    if holds {
        Ok(())
    } else {
        Err(Violation { what, place })
    }
}

impl HeapCore {
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = Stats::new();
        let mut cached = [0; CLASS_COUNT];
        let mut caches = 0;
        let mut kept = 0;
        let mut aside = 0;
        self.caches.with(|store| {
            caches = store.caches();
            store.for_each(|cache| {
                kept += cache.runs.bytes();
                aside += cache.depot.touched() * depot::SLOTS_BYTES;
                for class in ClassIndex::all() {
                    if let Some(slot) = cached.get_mut(class.get()) {
                        *slot += cache.len(class) + cache.depot.blocks(class);
                    }
                }
                cache.quarantine.for_each_class(|class| {
                    if let Some(slot) = cached.get_mut(class.get()) {
                        *slot += 1;
                    }
                });
            });
        });
        let tiers = stats.classes.iter_mut().zip(&self.centrals).zip(cached);
        for (class, ((out, central), cached)) in ClassIndex::all().zip(tiers) {
            let outside = central.outside();
            out.spans = central.spans();
            out.lent_blocks = central.lent().min(outside);
            out.guest_blocks = central.guests();
            let handed_out = outside - out.lent_blocks + out.guest_blocks;
            // Magazines may hold samples, which are outside of no span.
            out.cached_blocks = cached.min(handed_out);
            out.live_blocks = handed_out - out.cached_blocks;
            out.free_blocks = (out.spans * span_blocks(class)).saturating_sub(outside);
            stats.cached += out.cached_blocks * out.block_size;
            stats.live += out.live_blocks * out.block_size;
            stats.requested += central.requested(out.live_blocks, out.block_size);
        }
        // Relaxed: numbers.
        stats.large = self.large.load(Ordering::Relaxed).saturating_sub(kept);
        stats.cached_large = kept;
        stats.cached += kept;
        stats.live += stats.large;
        stats.requested += stats.large;
        stats.committed = self.committed.load(Ordering::Relaxed) << GRANULE_SHIFT;
        stats.purged = self.purged.load(Ordering::Relaxed) << GRANULE_SHIFT;
        let segments = self.pages.with(|pages| pages.segments());
        // Relaxed: a number.
        let tables = self.lending.tables.load(Ordering::Relaxed) * TABLE_BYTES;
        let headers = segments * HEADER_GRANULES * GRANULE_BYTES;
        stats.metadata = headers + tables + caches * OWN_BYTES + aside;
        if self.hardened {
            stats.metadata += segments * STATES_BYTES;
        }
        stats
    }

    /// Checks every invariant that can be checked. No other thread is inside the heap.
    pub(crate) fn validate(&self) -> Result<(), Violation> {
        let mut tally = Tally::default();
        self.pages.with(|pages| {
            let mut result = Ok(());
            let mut dirty = 0;
            pages.for_each(|segment| {
                if result.is_ok() {
                    result = validate_segment(segment, &mut tally, &mut dirty);
                }
            });
            result?;
            check(
                dirty == pages.dirty(),
                "H2: dirty granules are counted",
                dirty,
            )?;
            tally.committed += dirty;
            Ok(())
        })?;
        for (class, central) in ClassIndex::all().zip(&self.centrals) {
            let (spans, free) = tally.classes.get(class.get()).copied().unwrap_or_default();
            check(
                spans == central.spans(),
                "C2: spans are counted",
                class.get(),
            )?;
            let (lent, guests) = tally.lending.get(class.get()).copied().unwrap_or_default();
            check(lent == central.lent(), "L2: lent blocks are counted", lent)?;
            check(guests == central.guests(), "L1: guests are counted", guests)?;
            let outside = spans * span_blocks(class) - free;
            check(
                outside == central.outside(),
                "C2: outside blocks are counted",
                class.get(),
            )?;
        }
        tally.committed += self.big_granules() + (self.guards.opened() >> GRANULE_SHIFT);
        let committed = self.committed.load(Ordering::Relaxed);
        check(
            committed == tally.committed,
            "committed granules are counted",
            tally.committed,
        )?;
        self.validate_caches(tally.kept)
    }

    fn big_granules(&self) -> usize {
        use crate::page_map::{Entry, PAGE_MAP};
        let mut granules = 0;
        PAGE_MAP.for_each_of(self.id, |_, entry| {
            if let Entry::Big { granules: len, .. } = entry {
                granules += len;
            }
        });
        granules + (self.big.with(|big| big.bytes()) >> GRANULE_SHIFT)
    }

    fn validate_caches(&self, kept: usize) -> Result<(), Violation> {
        let mut result = Ok(());
        let (mut allowed, mut runs) = (0, 0);
        self.caches.with(|store| {
            store.for_each(|cache| {
                let bytes: usize = ClassIndex::all()
                    .map(|class| cache.len(class) * block_size(class))
                    .sum();
                let free: usize = ClassIndex::all()
                    .map(|class| free_entries(class) * block_size(class))
                    .sum();
                let others = cache.runs.room() + cache.depot.room();
                let most = cache.allowed().saturating_sub(others) + free;
                allowed += cache.allowed();
                runs += cache.runs.len();
                if result.is_ok() {
                    result = check(bytes <= most, "T1: caches are bounded", bytes);
                }
                let (bytes, room) = (cache.runs.bytes(), cache.runs.room());
                if result.is_ok() {
                    result = check(bytes <= room, "R2: kept runs are bounded", bytes);
                }
                let bytes: usize = ClassIndex::all()
                    .map(|class| cache.depot.blocks(class) * block_size(class))
                    .sum();
                let (counted, room) = (cache.depot.bytes(), cache.depot.room());
                if result.is_ok() {
                    let holds = bytes == counted && bytes <= room;
                    result = check(holds, "D3: the depot is counted and bounded", bytes);
                    let whole = check(cache.depot.is_whole(), "D1: batches are in one list", 0);
                    result = result.and(whole);
                }
            });
        });
        // Relaxed: nobody is inside.
        let counted = self.cacheable.load(Ordering::Relaxed);
        check(runs == kept, "R1: kept runs are labelled", runs)?;
        result.and(check(
            allowed == counted,
            "T1: the room of all caches is counted",
            counted,
        ))
    }
}

/// Sums over all segments.
#[derive(Debug)]
struct Tally {
    /// Spans and free blocks of each class.
    classes: [(usize, usize); CLASS_COUNT],
    /// Blocks that are lent, and guests, of each class.
    lending: [(usize, usize); CLASS_COUNT],
    committed: usize,
    /// Runs that are labelled as kept by a thread.
    kept: usize,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            classes: [(0, 0); CLASS_COUNT],
            lending: [(0, 0); CLASS_COUNT],
            committed: 0,
            kept: 0,
        }
    }
}

/// Checks what the granules of `span` say about it.
fn validate_labels(segment: &Segment, span: &Span, tally: &mut Tally) -> Result<(), Violation> {
    let run = segment.run_of(span);
    for index in run.start..run.end() {
        let addr = segment.addr_of(index);
        let owner = segment.span_at(addr).map(core::ptr::from_ref);
        check(
            owner == Some(core::ptr::from_ref(span)),
            "G1: granules know their span",
            addr,
        )?;
        let is_kept = index == run.start
            && (segment.kind_at(addr), span.kind()) == (Kind::Cached, Kind::Whole);
        tally.kept += usize::from(is_kept);
        let is_lent = match (segment.kind_at(addr), span.kind()) {
            (Kind::Lent(host), Kind::Blocks(class)) => host == class,
            _ => false,
        };
        check(
            is_kept || is_lent || segment.kind_at(addr) == span.kind(),
            "G2: granules know their kind",
            addr,
        )?;
    }
    Ok(())
}

/// Checks the guests of a span of `host` with the bits `words`.
fn validate_guests(
    segment: &Segment,
    span: &Span,
    host: ClassIndex,
    words: &[AtomicU64],
    tally: &mut Tally,
) -> Result<(), Violation> {
    if segment.kind_at(span.start()) != Kind::Lent(host) {
        return Ok(());
    }
    let mut end = 0;
    for index in 0..span_blocks(host) {
        let addr = span.start() + index * block_size(host);
        let Some(guest) = segment.guests.get(addr) else {
            continue;
        };
        let Some(fit) = Fit::new(host, guest) else {
            return check(false, "L2: guests fit", addr);
        };
        let word = words
            .get(index / 64)
            .map_or(0, |word| word.load(Ordering::Relaxed));
        check(
            word & fit.run_at(index % 64) == 0,
            "L2: guests are outside",
            addr,
        )?;
        check(index >= end, "L2: guests do not overlap", addr)?;
        end = index + fit.blocks;
        if let Some((lent, _)) = tally.lending.get_mut(host.get()) {
            *lent += fit.blocks;
        }
        if let Some((_, guests)) = tally.lending.get_mut(guest.get()) {
            *guests += 1;
        }
    }
    Ok(())
}

/// Checks one segment. The page-heap lock is held.
fn validate_segment(
    segment: &'static Segment,
    tally: &mut Tally,
    dirty: &mut usize,
) -> Result<(), Violation> {
    let at = segment.expose();
    let mut owned = 0;
    // SAFETY: the page-heap lock is held by the caller.
    for span in unsafe { segment.spans() } {
        let run = segment.run_of(span);
        owned += run.len;
        validate_labels(segment, span, tally)?;
        match span.kind() {
            Kind::Whole => tally.committed += run.len,
            Kind::Unused | Kind::Cached | Kind::Lent(_) => {
                check(false, "spans in use have a kind", span.start())?;
            }
            Kind::Blocks(class) => {
                // SAFETY: the span is of this class, and nobody else is inside the heap.
                let words = unsafe { span.words(class) };
                for (index, word) in words.iter().enumerate() {
                    let beyond = word.load(Ordering::Relaxed) & !full_word(class, index);
                    check(
                        beyond == 0,
                        "S1: no bits beyond the last block",
                        span.start(),
                    )?;
                }
                let free = count_free(words);
                let listed = span.listed.load(Ordering::Relaxed);
                check(
                    free == 0 || listed,
                    "S3: spans with free blocks are listed",
                    span.start(),
                )?;
                check(
                    span.swept() & !span.fresh() == 0,
                    "S5: what a sweep gave back is fresh",
                    span.start(),
                )?;
                tally.committed += run.len - span.fresh().count_ones() as usize;
                validate_guests(segment, span, class, words, tally)?;
                if let Some((spans, sum)) = tally.classes.get_mut(class.get()) {
                    *spans += 1;
                    *sum += free;
                }
            }
        }
    }
    // SAFETY: the page-heap lock is held by the caller.
    unsafe {
        segment.with_state(|state| {
            let whole = crate::units::Run {
                start: 0,
                len: SEGMENT_GRANULES,
            };
            let used = state.used.count(whole);
            check(
                used == owned + HEADER_GRANULES,
                "G1: used granules have an owner",
                at,
            )?;
            check(
                state.longest == state.longest_available(),
                "G4: longest free run",
                at,
            )?;
            *dirty += SEGMENT_GRANULES - used - state.fresh.and_not(&state.used).count(whole);
            Ok(())
        })
    }
}
