//! Freed blocks above 32 KiB that a thread keeps.
//!
//! What could go wrong: a kept run is not found again, or found by two; a zeroed block has
//! the bytes of its last user; more is kept than the limits say; it is kept for ever, after
//! the thread's end, or while the heap has nothing for others.

#![cfg(not(loom))]

use core::alloc::Layout;
use core::slice;

use brickyard_arena::{Arena, Heap, HeapCache};

fn layout(kib: usize) -> Layout {
    Layout::from_size_align(kib << 10, 64).expect("a small layout")
}

/// Allocates a block and writes to all of it.
fn alloc(cache: &mut HeapCache<'_>, kib: usize) -> *mut u8 {
    let block = cache.alloc(layout(kib));
    assert!(!block.is_null());
    // SAFETY: a block of that size, just allocated.
    unsafe { block.write_bytes(0xa5, kib << 10) };
    block
}

fn free(cache: &mut HeapCache<'_>, kib: usize, block: *mut u8) {
    // SAFETY: allocated in `alloc` with this layout, and not used any more.
    unsafe { cache.dealloc(block, layout(kib)) };
}

fn kept(heap: &Heap) -> usize {
    heap.validate().expect("the heap is whole");
    heap.stats().cached_large
}

#[test]
fn the_block_freed_last_is_the_next_one_of_its_size() {
    let heap = Heap::new().expect("few heaps live");
    let mut cache = heap.cache().expect("memory");
    let (one, other) = (alloc(&mut cache, 64), alloc(&mut cache, 200));
    free(&mut cache, 64, one);
    free(&mut cache, 200, other);
    assert_eq!(kept(&heap), 264 << 10);
    assert_eq!(alloc(&mut cache, 190), other, "an eighth less will do");
    assert_eq!(alloc(&mut cache, 60), one);
    assert_eq!(kept(&heap), 0);
    let third = alloc(&mut cache, 64);
    assert!(third != one && third != other, "one block has two users");
    for (kib, block) in [(190, other), (60, one), (64, third)] {
        free(&mut cache, kib, block);
    }
}

#[test]
fn a_zeroed_block_is_zero() {
    let heap = Heap::new().expect("few heaps live");
    let mut cache = heap.cache().expect("memory");
    let block = alloc(&mut cache, 100);
    free(&mut cache, 100, block);
    let again = cache.alloc_zeroed(layout(100));
    assert_eq!(again, block);
    // SAFETY: a block of 100 KiB, initialised by the call.
    let bytes = unsafe { slice::from_raw_parts(again, 100 << 10) };
    assert!(bytes.iter().all(|&byte| byte == 0));
    free(&mut cache, 100, again);
}

#[test]
fn no_more_is_kept_than_half_a_mebibyte_or_than_the_option_says() {
    for (option, most) in [(1 << 20, 512 << 10), (100 << 10, 100 << 10), (0, 0)] {
        let options = Arena::builder().thread_cache(option);
        let heap = Heap::with_options(&options).expect("few heaps live");
        let mut cache = heap.cache().expect("memory");
        let blocks: Vec<_> = (0..40).map(|_| alloc(&mut cache, 48)).collect();
        for block in blocks {
            free(&mut cache, 48, block);
            assert!(kept(&heap) <= most);
        }
        assert!(
            kept(&heap) + (48 << 10) > most.min((8 * 48) << 10),
            "{most}"
        );
    }
}

#[test]
fn a_thread_that_ends_leaves_no_run() {
    let heap = Heap::new().expect("few heaps live");
    let mut cache = heap.cache().expect("memory");
    let block = alloc(&mut cache, 64);
    free(&mut cache, 64, block);
    assert_eq!(kept(&heap), 64 << 10);
    drop(cache);
    assert_eq!(kept(&heap), 0);
    heap.trim();
    assert_eq!(heap.stats().committed, 0);
}

#[test]
fn what_is_not_wanted_for_a_while_goes_back() {
    let heap = Heap::new().expect("few heaps live");
    let mut cache = heap.cache().expect("memory");
    let block = alloc(&mut cache, 300);
    free(&mut cache, 300, block);
    // Many slow paths, for other blocks.
    let small = Layout::new::<[u64; 512]>();
    let mut blocks = Vec::new();
    for _ in 0..20_000 {
        blocks.push(cache.alloc(small));
    }
    assert_eq!(kept(&heap), 0);
    for block in blocks {
        // SAFETY: allocated above with this layout.
        unsafe { cache.dealloc(block, small) };
    }
}

#[test]
fn under_a_limit_what_the_thread_keeps_serves_other_sizes() {
    let options = Arena::builder().memory_limit(1 << 20);
    let heap = Heap::with_options(&options).expect("few heaps live");
    let mut cache = heap.cache().expect("memory");
    for kib in [900, 500] {
        let blocks: Vec<_> = (0..5).map(|_| alloc(&mut cache, 64)).collect();
        for block in blocks {
            free(&mut cache, 64, block);
        }
        assert_eq!(kept(&heap), 320 << 10);
        let big = alloc(&mut cache, kib);
        free(&mut cache, kib, big);
    }
    // And small blocks.
    let blocks: Vec<_> = (0..8).map(|_| alloc(&mut cache, 60)).collect();
    for block in blocks {
        free(&mut cache, 60, block);
    }
    let small = Layout::new::<[u64; 2048]>();
    let blocks: Vec<_> = (0..50).map(|_| cache.alloc(small)).collect();
    assert!(
        blocks.iter().all(|block| !block.is_null()),
        "800 KiB of 1024"
    );
    for block in blocks {
        // SAFETY: allocated above with this layout.
        unsafe { cache.dealloc(block, small) };
    }
}
