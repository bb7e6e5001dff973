//! Blocks of two threads and cache lines.
//!
//! What could go wrong: two threads that allocate are given blocks of one line though there
//! are others; a thread that is given a block and frees it has it next, beside those of the
//! thread that it came from.

#![cfg(not(loom))]

use core::alloc::Layout;
use std::collections::HashSet;

use brickyard_arena::{Heap, HeapCache};

const LINE_BYTES: usize = 64;

fn alloc(cache: &mut HeapCache<'_>, layout: Layout) -> usize {
    let block = cache.alloc(layout);
    assert!(!block.is_null());
    block.expose_provenance()
}

fn free(cache: &mut HeapCache<'_>, layout: Layout, block: usize) {
    // SAFETY: allocated in `alloc` from the same heap with this layout, freed once.
    unsafe { cache.dealloc(core::ptr::with_exposed_provenance_mut(block), layout) };
}

fn lines(blocks: &[usize]) -> HashSet<usize> {
    blocks.iter().map(|block| block / LINE_BYTES).collect()
}

#[test]
fn threads_that_allocate_share_no_line() {
    for bytes in [8, 16, 32] {
        let layout = Layout::from_size_align(bytes, 8).expect("a small layout");
        let heap = Heap::new().expect("few heaps live");
        let mut caches = [heap.cache(), heap.cache()].map(|cache| cache.expect("memory"));
        let mut blocks = [Vec::new(), Vec::new()];
        for _ in 0..300 {
            for (cache, blocks) in caches.iter_mut().zip(&mut blocks) {
                blocks.push(alloc(cache, layout));
            }
        }
        let [one, other] = &blocks;
        assert!(lines(one).is_disjoint(&lines(other)), "{bytes} bytes");
        for (cache, blocks) in caches.iter_mut().zip(&blocks) {
            blocks.iter().for_each(|&block| free(cache, layout, block));
        }
    }
}

#[test]
fn a_thread_that_begins_with_a_free_does_not_get_the_block_next() {
    let layout = Layout::new::<u64>();
    let heap = Heap::new().expect("few heaps live");
    let mut giver = heap.cache().expect("memory");
    let gifts = [alloc(&mut giver, layout), alloc(&mut giver, layout)];
    assert_eq!(lines(&gifts).len(), 1, "neighbours");
    let mut takers = [heap.cache(), heap.cache()].map(|cache| cache.expect("memory"));
    let mut own = Vec::new();
    for (cache, gift) in takers.iter_mut().zip(gifts) {
        free(cache, layout, gift);
        own.push(alloc(cache, layout));
    }
    assert_eq!(lines(&own).len(), 2, "two threads write to one line");
    for (cache, block) in takers.iter_mut().zip(own) {
        free(cache, layout, block);
    }
    heap.validate().expect("the heap is whole");
}
