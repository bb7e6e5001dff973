//! Lets `AddressSanitizer` see the blocks of a heap.
//!
//! `ASan` knows the blocks of `malloc` only; to it, a heap's segments are memory
//! that the program mapped and may use throughout. So a harness says itself
//! what is out of bounds: it poisons a block that was freed, and the room
//! between the size that was asked for and the size of the block:
//!
//! ```text
//!        live block                     freed block
//!   |aaaaaaaaaaaaaaaa|ppp|         |ppppppppppppppppppp|
//!   ptr           size  block     ptr                block
//! ```
//!
//! Built with `--cfg brickyard_asan`; otherwise each function here is empty.

use core::alloc::Layout;
use std::collections::BTreeMap;

#[cfg(brickyard_asan)]
mod runtime {
    use core::ffi::c_void;

    // SAFETY: the names and signatures of sanitizer/asan_interface.h; both only
    // change shadow memory, whatever the arguments are.
    unsafe extern "C" {
        safe fn __asan_poison_memory_region(start: *const c_void, size: usize);
        safe fn __asan_unpoison_memory_region(start: *const c_void, size: usize);
    }

    pub(super) fn poison(start: usize, size: usize) {
        __asan_poison_memory_region(core::ptr::without_provenance(start), size);
    }

    pub(super) fn unpoison(start: usize, size: usize) {
        __asan_unpoison_memory_region(core::ptr::without_provenance(start), size);
    }
}

/// Forbids the program to touch `size` bytes at `start`.
pub fn poison(start: usize, size: usize) {
    #[cfg(brickyard_asan)]
    runtime::poison(start, size);
    #[cfg(not(brickyard_asan))]
    let _ = (start, size);
}

/// Allows the program to touch `size` bytes at `start` again.
pub fn unpoison(start: usize, size: usize) {
    #[cfg(brickyard_asan)]
    runtime::unpoison(start, size);
    #[cfg(not(brickyard_asan))]
    let _ = (start, size);
}

/// What one heap's driver has poisoned.
///
/// The heap is compiled with `ASan` too and writes into free blocks by right in
/// two places: where it zeroes a block and where it copies into one. Around
/// those calls everything poisoned is opened with [`suspend`](Self::suspend)
/// and closed again afterwards.
#[derive(Debug, Default)]
pub struct PoisonedRanges {
    /// Start and end of each range; disjoint.
    ranges: BTreeMap<usize, usize>,
}

impl PoisonedRanges {
    /// Whether this build poisons at all.
    #[must_use]
    pub const fn enabled() -> bool {
        cfg!(brickyard_asan)
    }

    /// A block of `layout` was given out at `start`; it is part of a block of
    /// `block_size` bytes where that is known.
    pub fn allocated(&mut self, start: usize, layout: Layout, block_size: Option<usize>) {
        if !Self::enabled() {
            return;
        }
        let block = block_size.unwrap_or(layout.size()).max(layout.size());
        self.forget(start, start + block);
        unpoison(start, layout.size());
        if block > layout.size() {
            self.insert(start + layout.size(), start + block);
        }
    }

    /// The block of `layout` at `start` is about to be freed.
    pub fn freed(&mut self, start: usize, layout: Layout, block_size: Option<usize>) {
        if !Self::enabled() {
            return;
        }
        let block = block_size.unwrap_or(layout.size()).max(layout.size());
        if block > 0 {
            self.forget(start, start + block);
            self.insert(start, start + block);
        }
    }

    /// Opens all ranges for the heap.
    pub fn suspend(&self) {
        for (&start, &end) in &self.ranges {
            unpoison(start, end - start);
        }
    }

    /// Closes what [`suspend`](Self::suspend) opened.
    pub fn resume(&self) {
        for (&start, &end) in &self.ranges {
            poison(start, end - start);
        }
    }

    fn insert(&mut self, start: usize, end: usize) {
        poison(start, end - start);
        self.ranges.insert(start, end);
    }

    /// Opens `start..end` and cuts it out of the ranges.
    fn forget(&mut self, start: usize, end: usize) {
        let touched: Vec<(usize, usize)> = self
            .ranges
            .range(..end)
            .rev()
            .take_while(|&(_, &range_end)| range_end > start)
            .map(|(&from, &to)| (from, to))
            .collect();
        for (from, to) in touched {
            self.ranges.remove(&from);
            unpoison(from.max(start), to.min(end) - from.max(start));
            if from < start {
                self.ranges.insert(from, start);
            }
            if to > end {
                self.ranges.insert(end, to);
            }
        }
    }
}

impl Drop for PoisonedRanges {
    /// The addresses belong to somebody else when the heap is gone.
    fn drop(&mut self) {
        self.suspend();
    }
}
