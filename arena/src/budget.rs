//! The memory limits: what the heap may commit, and whom it tells.

use crate::alarm::{Figures, Task};
use crate::bitmap::{below, lowest};
use crate::heap_core::{HeapCore, write_addresses};
use crate::size_class::block_size;
use crate::sync::Ordering;
use crate::thread_cache::ThreadCache;
use crate::units::{ClassIndex, GRANULE_SHIFT};

impl HeapCore {
    /// Counts `granules` as committed; `false` when the memory limit forbids it even
    /// after everything free was given back.
    pub(crate) fn reserve(&self, granules: usize) -> bool {
        if self.reserve_at_once(granules) {
            return true;
        }
        self.purge();
        self.reserve_at_once(granules)
    }

    fn reserve_at_once(&self, granules: usize) -> bool {
        // Relaxed: a sum of numbers; threads that reserve at the same time add up in the
        // one variable, so together they stay below the limit.
        let before = self.committed.fetch_add(granules, Ordering::Relaxed);
        let limit = self.options.memory_limit().unwrap_or(usize::MAX);
        if granules > 0 && before.saturating_add(granules) > limit {
            self.unreserve(granules);
            return false;
        }
        true
    }

    /// Takes back a [`Self::reserve`], or what of it was committed before.
    pub(crate) fn unreserve(&self, granules: usize) {
        // Relaxed: as in `reserve`.
        self.committed.fetch_sub(granules, Ordering::Relaxed);
    }

    /// Takes blocks from the spans as far as the memory limit allows. The most that they
    /// can make resident is reserved while they are taken; what they do is counted there.
    #[cold]
    pub(crate) fn take_reserved_blocks(&self, class: ClassIndex, out: &mut [*mut u8]) -> usize {
        // A block of `n` granules and a bit overlaps `n + 2` at most.
        let per_block = (block_size(class) >> GRANULE_SHIFT) + 2;
        let most = per_block * out.len();
        if self.reserve_at_once(most) {
            let got = self.take_any_blocks(class, out);
            self.unreserve(most);
            return got;
        }
        // One by one near the limit, and only at it does a look for more go through all spans.
        if !self.reserve_at_once(per_block) {
            let got = self.take_resident_blocks(class, out);
            if got > 0 {
                return got;
            }
            if !self.reserve(per_block) {
                return 0;
            }
        }
        let Some(first) = out.get_mut(..1) else {
            self.unreserve(per_block);
            return 0;
        };
        let got = self.take_any_blocks(class, first);
        self.unreserve(per_block);
        got
    }

    /// Takes free blocks with which nothing becomes resident, so that no limit forbids them.
    fn take_resident_blocks(&self, class: ClassIndex, out: &mut [*mut u8]) -> usize {
        let (size, want) = (block_size(class), out.len());
        let mut got = 0;
        if let Some(central) = self.centrals.get(class.get()) {
            central.take_picked(class, want, |span, word, free| {
                let mask = lowest(resident(span.fresh(), size, word, free), want - got);
                let start = span.start() + word * 64 * size;
                let room = out.get_mut(got..).unwrap_or_default();
                got += write_addresses(start, size, mask, room);
                mask
            });
        }
        got
    }

    /// What is left to do when an operation is over and no lock is held: the program may
    /// be called, and a thread started, both of which may allocate.
    pub(crate) fn after_slow_path(&self, cache: Option<&ThreadCache>) {
        if cache.is_some_and(ThreadCache::is_shared) {
            // The lock of the shared cache is held; its holder calls again without.
            return;
        }
        // Relaxed: a number for the policy.
        let committed = self.committed.load(Ordering::Relaxed);
        if committed > self.options.soft_limit() || !self.alarm.is_armed() {
            self.watch(cache);
        }
        self.ring(committed);
    }

    /// The soft limit is passed, or was.
    #[cold]
    #[inline(never)]
    fn watch(&self, cache: Option<&ThreadCache>) {
        let figures = self.figures();
        match self.alarm.look(figures, || self.small_granules()) {
            Task::Nothing => {}
            Task::GiveBack(rest) => {
                self.purge();
                self.alarm.rest(rest);
            }
            Task::Tell(rest) => {
                if let Some(cache) = cache.filter(|cache| cache.depot.room() > 0) {
                    // What lies there pins spans all over the heap.
                    cache.alone(|| self.empty_depot(cache));
                }
                self.purge();
                let now = self.figures();
                if now.committed > now.soft {
                    self.options.on_soft_limit()(now.committed << GRANULE_SHIFT);
                    self.alarm.told();
                } else {
                    self.alarm.rest(rest);
                }
            }
        }
    }

    fn figures(&self) -> Figures {
        // Relaxed: numbers for the policy.
        Figures {
            committed: self.committed.load(Ordering::Relaxed),
            large: self.large.load(Ordering::Relaxed) >> GRANULE_SHIFT,
            soft: self.options.soft_limit(),
        }
    }

    /// Granules' worth of small blocks that are not free in their spans.
    fn small_granules(&self) -> usize {
        let classes = ClassIndex::all().zip(&self.centrals);
        let bytes = classes.map(|(class, central)| central.outside() * block_size(class));
        bytes.sum::<usize>() >> GRANULE_SHIFT
    }
}

/// The blocks of `free`, bits of word `word` of a span of blocks of `size` bytes, that overlap no granule of
/// `fresh`.
fn resident(fresh: u64, size: usize, word: usize, free: u64) -> u64 {
    let word_bytes = 64 * size;
    let whole = below((((word + 1) * word_bytes - 1) >> GRANULE_SHIFT) + 1)
        & !below((word * word_bytes) >> GRANULE_SHIFT);
    if fresh & whole == whole {
        return 0;
    }
    if fresh & whole == 0 {
        return free;
    }
    let (mut rest, mut out) = (free, free);
    while rest != 0 {
        let index = word * 64 + rest.trailing_zeros() as usize;
        let first = (index * size) >> GRANULE_SHIFT;
        let last = ((index + 1) * size - 1) >> GRANULE_SHIFT;
        let bit = rest & rest.wrapping_neg();
        if fresh & below(last + 1) & !below(first) != 0 {
            out &= !bit;
        }
        rest &= !bit;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_overlaps_no_more_granules_than_are_reserved() {
        for class in ClassIndex::all() {
            let size = block_size(class);
            let granules = crate::size_class::span_granules(class);
            for index in 0..crate::size_class::span_blocks(class) {
                let first = (index * size) >> GRANULE_SHIFT;
                let last = ((index + 1) * size - 1) >> GRANULE_SHIFT;
                assert!(last < granules);
                assert!(last - first < (size >> GRANULE_SHIFT) + 2);
            }
        }
    }

    #[test]
    fn blocks_that_overlap_a_fresh_granule_are_not_resident() {
        for size in [16, 48, 640, 5120, 20_480] {
            for fresh in [0, 1, 0b110, u64::MAX, 0xf0f0] {
                let is_resident = |index: usize| {
                    let bytes = index * size..(index + 1) * size;
                    bytes
                        .step_by(8)
                        .all(|at| fresh >> (at >> GRANULE_SHIFT) & 1 == 0)
                };
                let most = (64 << GRANULE_SHIFT) / size;
                for word in 0..most.div_ceil(64).min(3) {
                    let free = 0xfff7_ffff_ffff_fffb & below(most - word * 64);
                    let found = resident(fresh, size, word, free);
                    for bit in 0..64 {
                        let wanted = free >> bit & 1 == 1 && is_resident(word * 64 + bit);
                        assert_eq!(
                            found >> bit & 1 == 1,
                            wanted,
                            "{size} {fresh:x} {word} {bit}"
                        );
                    }
                }
            }
        }
    }
}
