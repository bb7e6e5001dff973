//! Whether a block may be one that the heap profile sampled: one load for every block that
//! is not, so that frees need not ask the table and its lock.
//!
//! ```text
//! counts  | 0 | 0 | 2 | 0 | 1 | … |     counts[hash(address)]: samples with that hash
//! ```
//!
//! Invariants:
//! - F1: while a block is in the table, its count is not zero: it was raised before the
//!   block was handed out, and is lowered by the removal of this very block only.
//! - F2: a count that reached its maximum stays there, since nobody knows any more how
//!   many samples it stands for.

use crate::sync::{AtomicU8, Ordering};

/// log2 of the counts.
#[cfg(not(loom))]
const BITS: u32 = 16;
#[cfg(loom)]
const BITS: u32 = 1;

/// See the module.
#[derive(Debug)]
pub(crate) struct Filter {
    counts: [AtomicU8; 1 << BITS],
}

impl Filter {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            counts: [const { AtomicU8::new(0) }; 1 << BITS],
        }
    }

    #[cfg(loom)]
    fn new() -> Self {
        Self {
            counts: core::array::from_fn(|_| AtomicU8::new(0)),
        }
    }

    /// Whether the block at `addr` may be a sample. Whoever frees it asks.
    #[inline]
    pub(crate) fn may_hold(&self, addr: usize) -> bool {
        // Relaxed: the count was raised before the block was handed out, so whoever has
        // the block has got the raised count with it (F1); nothing is read through it.
        self.count(addr)
            .is_some_and(|count| count.load(Ordering::Relaxed) != 0)
    }

    /// Counts a sample, before its block is handed out.
    pub(crate) fn add(&self, addr: usize) {
        if let Some(count) = self.count(addr) {
            // Relaxed: as in `may_hold`; a failed update is a count at its maximum (F2).
            let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(1));
        }
    }

    /// Uncounts a sample that [`Self::add`] counted.
    pub(crate) fn remove(&self, addr: usize) {
        if let Some(count) = self.count(addr) {
            // Relaxed: as in `add`.
            let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n != u8::MAX && n != 0).then(|| n - 1)
            });
        }
    }

    #[inline]
    fn count(&self, addr: usize) -> Option<&AtomicU8> {
        // Samples start at granules, so the lowest 12 bits say nothing.
        let mixed = (addr >> 12).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.counts.get(mixed >> (usize::BITS - BITS))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_held_until_it_is_removed() {
        let filter = Filter::new();
        let addr = 0x7f00_1234_5000;
        assert!(!filter.may_hold(addr));
        filter.add(addr);
        filter.add(addr);
        filter.remove(addr);
        assert!(filter.may_hold(addr));
        filter.remove(addr);
        assert!(!filter.may_hold(addr));
    }

    #[test]
    fn a_full_count_stays_full() {
        let filter = Filter::new();
        for _ in 0..300 {
            filter.add(0);
        }
        for _ in 0..300 {
            filter.remove(0);
        }
        assert!(filter.may_hold(0));
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::sync::AtomicUsize;
    use loom::sync::Arc;

    /// One thread samples a block and hands it to a second, which frees it; a third
    /// removes a sample of the same hash meanwhile. The second must not take the block
    /// for one that was never sampled.
    fn model(remove: fn(&Filter, usize)) {
        loom::model(move || {
            let filter = Arc::new(Filter::new());
            let block = Arc::new(AtomicUsize::new(0));
            filter.add(1);
            let remover = {
                let filter = Arc::clone(&filter);
                loom::thread::spawn(move || remove(&filter, 1))
            };
            let owner = {
                let (filter, block) = (Arc::clone(&filter), Arc::clone(&block));
                loom::thread::spawn(move || {
                    filter.add(2);
                    // Release: how a program hands a block on; pairs with the Acquire below.
                    block.store(2, Ordering::Release);
                })
            };
            // Acquire: pairs with the Release above.
            if block.load(Ordering::Acquire) == 2 {
                assert!(filter.may_hold(2), "a sample was missed");
            }
            remover.join().unwrap();
            owner.join().unwrap();
        });
    }

    #[test]
    fn loom_a_sampled_block_is_seen_when_it_is_freed() {
        model(Filter::remove);
    }

    /// The same with a removal that clears the count.
    #[test]
    #[should_panic(expected = "a sample was missed")]
    fn loom_a_removal_that_clears_is_caught() {
        model(|filter, addr| {
            if let Some(count) = filter.count(addr) {
                count.store(0, Ordering::Relaxed);
            }
        });
    }
}
