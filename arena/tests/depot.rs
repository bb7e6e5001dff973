//! A live set that is larger than a magazine goes through the thread's depot, and the depot goes
//! back when something else wants the memory.
//!
//! What could go wrong: one block comes back twice, or never; blocks stay in the depot while the
//! heap grows, or for ever; a thread that frees what others allocate hoards it; a block that looks as
//! if it had been set aside already ends a program that did nothing wrong.

#![cfg(not(loom))]

use core::alloc::Layout;
use core::time::Duration;
use std::collections::HashSet;
use std::thread::sleep;

use brickyard_arena::{Heap, HeapCache};

const SMALL: Layout = Layout::new::<[u64; 8]>();
const OTHER: Layout = Layout::new::<[u64; 14]>();
const BLOCKS: usize = 8_000;
/// What one magazine may hold, and its blocks take.
const MAGAZINE: usize = 128 * SMALL.size();

fn allocate(cache: &mut HeapCache<'_>, layout: Layout, count: usize) -> Vec<*mut u8> {
    let blocks: Vec<_> = (0..count).map(|_| cache.alloc(layout)).collect();
    assert!(blocks.iter().all(|block| !block.is_null()));
    blocks
}

fn free(cache: &mut HeapCache<'_>, layout: Layout, blocks: Vec<*mut u8>) {
    for block in blocks {
        // SAFETY: allocated with this layout, and not used any more.
        unsafe { cache.dealloc(block, layout) };
    }
}

/// Allocates and frees `BLOCKS` blocks of `layout`, of which nothing is written.
fn use_many(cache: &mut HeapCache<'_>, layout: Layout) {
    let blocks = allocate(cache, layout, BLOCKS);
    free(cache, layout, blocks);
}

fn cached(heap: &Heap) -> usize {
    heap.validate().expect("the heap is whole");
    heap.stats().cached
}

#[test]
fn what_is_set_aside_comes_back_once() {
    let heap = Heap::new().expect("few heaps live");
    let mut cache = heap.cache().expect("memory");
    use_many(&mut cache, SMALL);
    let aside = cached(&heap);
    assert!(aside > (BLOCKS - 256) * SMALL.size(), "{aside} bytes only");
    let committed = heap.stats().committed;
    let blocks = allocate(&mut cache, SMALL, BLOCKS);
    let different: HashSet<_> = blocks.iter().collect();
    assert_eq!(different.len(), BLOCKS, "one block has two users");
    assert_eq!(heap.stats().committed, committed, "the heap grew");
    assert!(cached(&heap) <= MAGAZINE);
    free(&mut cache, SMALL, blocks);
    cache.flush();
    assert_eq!(cached(&heap), 0);
}

#[test]
fn it_goes_back_before_another_size_makes_the_heap_grow() {
    let heap = Heap::new().expect("few heaps live");
    let mut cache = heap.cache().expect("memory");
    use_many(&mut cache, SMALL);
    let committed = heap.stats().committed;
    let others = allocate(&mut cache, OTHER, BLOCKS / 4);
    assert!(heap.stats().committed <= committed, "{}", heap.stats());
    free(&mut cache, OTHER, others);
    use_many(&mut cache, SMALL);
    let run = Layout::from_size_align(200 << 10, 64).expect("a layout");
    let committed = heap.stats().committed;
    let runs = allocate(&mut cache, run, 1);
    assert!(heap.stats().committed <= committed, "{}", heap.stats());
    free(&mut cache, run, runs);
    heap.validate().expect("the heap is whole");
}

#[test]
fn a_thread_that_frees_what_another_allocates_keeps_a_magazine() {
    let heap = Heap::new().expect("few heaps live");
    let mut producer = heap.cache().expect("memory");
    let mut consumer = heap.cache().expect("memory");
    let blocks = allocate(&mut producer, SMALL, BLOCKS);
    free(&mut consumer, SMALL, blocks);
    assert!(cached(&heap) <= 2 * MAGAZINE);
}

#[test]
fn what_nobody_wants_for_a_while_goes_back() {
    let heap = Heap::new().expect("few heaps live");
    let mut cache = heap.cache().expect("memory");
    use_many(&mut cache, SMALL);
    let aside = cached(&heap);
    // Slow paths, over some ticks: each round empties and fills the magazine some times, and
    // wants few of the batches.
    for _ in 0..8 {
        sleep(Duration::from_millis(60));
        for _ in 0..40 {
            let blocks = allocate(&mut cache, SMALL, 512);
            free(&mut cache, SMALL, blocks);
        }
    }
    let left = cached(&heap);
    assert!(left < aside / 4, "{left} of {aside} bytes are left");
}

#[test]
fn a_block_that_looks_set_aside_is_not_lost() {
    let heap = Heap::new().expect("few heaps live");
    let mut cache = heap.cache().expect("memory");
    let blocks = allocate(&mut cache, SMALL, BLOCKS);
    let block = blocks[100].cast::<u64>();
    free(&mut cache, SMALL, blocks);
    // SAFETY: not owned any more, but mapped: the block is in the depot, and its first word is what
    // the depot wrote there.
    let mark = unsafe { block.read_volatile() };
    for round in 0..3 {
        let blocks = allocate(&mut cache, SMALL, BLOCKS);
        if blocks.contains(&block.cast()) {
            // SAFETY: it is ours again.
            let left = unsafe { block.read_volatile() };
            assert!(round > 0 || left != mark, "the mark was left");
            // SAFETY: as above.
            unsafe { block.write_volatile(mark) };
        } else {
            assert!(round > 0, "it did not come back");
        }
        free(&mut cache, SMALL, blocks);
        heap.validate().expect("the heap is whole");
    }
    cache.flush();
    assert_eq!(cached(&heap), 0);
}
