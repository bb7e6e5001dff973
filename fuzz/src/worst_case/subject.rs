//! What a program runs on: a heap of the arena, or the allocator of the process.

use core::alloc::{GlobalAlloc, Layout};
use std::alloc::System;

use brickyard_arena::{Arena, Builder, Heap};

use crate::handles::Handles;
use crate::op::{CacheSlot, Via};

/// An allocator that a program can run on.
pub trait Subject {
    /// Allocates; null when memory is short.
    fn alloc(&mut self, via: CacheSlot, layout: Layout) -> *mut u8;

    /// Frees a block.
    ///
    /// # Safety
    ///
    /// It came from the subject with this layout, and was not freed since.
    unsafe fn dealloc(&mut self, via: CacheSlot, block: *mut u8, layout: Layout);

    /// Changes a block's size; null when memory is short.
    ///
    /// # Safety
    ///
    /// As for [`Self::dealloc`], and `size` makes a valid layout.
    unsafe fn realloc(
        &mut self,
        via: CacheSlot,
        block: *mut u8,
        layout: Layout,
        size: usize,
    ) -> *mut u8;

    /// Empties a cache.
    fn flush(&mut self, via: CacheSlot);

    /// Whatever is resident now is no part of what is held.
    fn begin(&mut self) {}

    /// Bytes that are resident for the blocks, or may be, metadata included.
    fn held(&mut self) -> usize;

    /// Block sizes of the size classes, in whose words programs name sizes.
    fn block_sizes(&self) -> &[usize];
}

/// Options of the heaps that are searched: no time passes, as in a program that does all of it at
/// once. What decay would give back stays.
pub fn timeless() -> Builder {
    Arena::builder().decay(core::time::Duration::MAX)
}

impl Subject for Handles<'_> {
    fn alloc(&mut self, via: CacheSlot, layout: Layout) -> *mut u8 {
        self.alloc(Via::Cache(via), layout)
    }

    unsafe fn dealloc(&mut self, via: CacheSlot, block: *mut u8, layout: Layout) {
        // SAFETY: by contract.
        unsafe { self.dealloc(Via::Cache(via), block, layout) };
    }

    unsafe fn realloc(
        &mut self,
        via: CacheSlot,
        block: *mut u8,
        layout: Layout,
        size: usize,
    ) -> *mut u8 {
        // SAFETY: by contract.
        unsafe { self.realloc(Via::Cache(via), block, layout, size) }
    }

    fn flush(&mut self, via: CacheSlot) {
        self.flush(via);
    }

    fn held(&mut self) -> usize {
        let stats = self.heap().stats();
        stats.committed + stats.metadata
    }

    fn block_sizes(&self) -> &[usize] {
        self.block_sizes()
    }
}

/// The C library's allocator, or the one preloaded in its place. What is held is measured: the
/// process's resident memory, beyond what it was at first. So each block is written whole.
#[derive(Debug)]
pub struct Process {
    block_sizes: Vec<usize>,
    before: usize,
}

impl Process {
    /// Nothing is held yet.
    ///
    /// # Panics
    ///
    /// Panics when the operating system has no memory for a heap.
    #[must_use]
    pub fn new() -> Self {
        let heap = Heap::new().expect("memory for a heap");
        let block_sizes = Handles::new(&heap).block_sizes().to_vec();
        Self {
            block_sizes,
            before: 0,
        }
    }
}

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}

impl Subject for Process {
    fn alloc(&mut self, _: CacheSlot, layout: Layout) -> *mut u8 {
        // SAFETY: programs ask for no size of 0.
        let block = unsafe { System.alloc(layout) };
        if !block.is_null() {
            // SAFETY: a block of that size.
            unsafe { block.write_bytes(1, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&mut self, _: CacheSlot, block: *mut u8, layout: Layout) {
        // SAFETY: by contract.
        unsafe { System.dealloc(block, layout) };
    }

    unsafe fn realloc(
        &mut self,
        _: CacheSlot,
        block: *mut u8,
        layout: Layout,
        size: usize,
    ) -> *mut u8 {
        // SAFETY: by contract.
        let block = unsafe { System.realloc(block, layout, size) };
        if !block.is_null() {
            // SAFETY: a block of that size.
            unsafe { block.write_bytes(1, size) };
        }
        block
    }

    fn flush(&mut self, _: CacheSlot) {}

    fn begin(&mut self) {
        self.before = resident();
    }

    fn held(&mut self) -> usize {
        resident().saturating_sub(self.before)
    }

    fn block_sizes(&self) -> &[usize] {
        &self.block_sizes
    }
}

/// Resident memory of the process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse::<usize>().ok());
    pages.unwrap_or(0) * crate::handles::OS_PAGE_BYTES
}
