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
/// Memory that the heap unmaps must not stay poisoned, for the next mapping there
/// may be the heap's own metadata, or a thread's stack. So blocks with a mapping of
/// their own are not poisoned when they are freed (touching them is a segmentation
/// fault soon enough), and everything is opened before a trim.
///
/// The heap is compiled with `ASan` too and writes into free blocks by right in
/// two places: where it zeroes a block and where it copies into one. Around
/// those calls everything poisoned is opened with [`suspend`](Self::suspend)
/// and closed again afterwards.
#[derive(Debug, Default)]
pub struct PoisonedRanges {
    /// Start and end of each range; disjoint.
    ranges: BTreeMap<usize, usize>,
    /// Nothing is poisoned any more.
    stopped: bool,
}

/// Blocks with a mapping of their own start at multiples of this, and no other
/// block does: there every segment has its header.
const SEGMENT_BYTES: usize = 4 << 20;

/// Whether the block at `start` has a mapping of its own. Its size does not tell: a
/// block may have shrunk in its place.
#[must_use]
pub fn has_own_mapping(start: usize) -> bool {
    start.is_multiple_of(SEGMENT_BYTES)
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
        self.forget(start, start + block);
        if block > 0 && !has_own_mapping(start) {
            self.insert(start, start + block);
        }
    }

    /// Opens everything for good: the heap is about to unmap memory, who knows
    /// which.
    pub fn clear(&mut self) {
        self.suspend();
        self.ranges.clear();
    }

    /// From now on poisons nothing: this heap may unmap memory at any time.
    pub fn stop(&mut self) {
        self.clear();
        self.stopped = true;
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
        if self.stopped {
            return;
        }
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
