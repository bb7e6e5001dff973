//! Free OS pages inside part-used spans, when the heap grows elsewhere.
//!
//! What could go wrong: the heap grows although there are some; more of them go back to the system
//! than the heap grows by, and fault in again when their class wants them; they go again and again
//! although they are always wanted; blocks are damaged that share a span with them.

#![cfg(not(loom))]

use core::alloc::Layout;
use core::time::Duration;

use brickyard_arena::{Arena, Heap, HeapCache};

const MIB: usize = 1 << 20;
/// Blocks of 1 KiB to begin with: 32 MiB, of which one in 48 stays.
const BLOCKS: usize = 32 << 10;
const STAYS_ONE_IN: usize = 48;
/// Too large to be lent room.
const OTHER: usize = 8 << 10;

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).expect("a small layout")
}

fn alloc(cache: &mut HeapCache<'_>, bytes: usize) -> *mut u8 {
    let block = cache.alloc(layout(bytes));
    assert!(!block.is_null());
    // SAFETY: a block of that size, just allocated.
    unsafe { block.write_bytes(0xa5, bytes) };
    block
}

#[test]
fn growth_is_paid_with_free_pages_and_with_no_more_than_it_needs() {
    let options = Arena::builder().decay(Duration::MAX);
    let heap = Heap::with_options(&options).expect("few heaps live");
    let mut cache = heap.cache().expect("memory");
    let blocks: Vec<_> = (0..BLOCKS).map(|_| alloc(&mut cache, 1024)).collect();
    let mut stay = Vec::new();
    for (index, block) in blocks.into_iter().enumerate() {
        if index % STAYS_ONE_IN == 0 {
            stay.push(block);
        } else {
            // SAFETY: allocated with this layout, and not used any more.
            unsafe { cache.dealloc(block, layout(1024)) };
        }
    }
    cache.flush();
    let before = heap.stats();
    for step in 1..=8 {
        for _ in 0..MIB / OTHER {
            // It stays until the heap is dropped.
            alloc(&mut cache, OTHER);
        }
        heap.validate().expect("the heap is whole");
        let now = heap.stats();
        // The policy looks after each thirty-second of the heap.
        let slack = before.committed / 32 + MIB;
        assert!(now.committed <= before.committed + slack, "it grows");
        let paid = now.purged - before.purged;
        assert!(paid <= step * MIB + slack, "{paid} bytes for {step} MiB");
        assert!(paid + slack >= step * MIB, "{paid} bytes for {step} MiB");
    }
    for block in stay {
        // SAFETY: such a block was never freed.
        let bytes = unsafe { core::slice::from_raw_parts(block, 1024) };
        assert!(bytes.iter().all(|&byte| byte == 0xa5), "it changed");
    }
}

/// A table of blocks of four kinds of sizes in turn, each in place of another at random; returns what
/// went back to the system in each turn.
fn churn(cache: &mut HeapCache<'_>, heap: &Heap, turns: usize) -> Vec<usize> {
    const KINDS: [(usize, usize); 4] = [(800, 4000), (4000, 16_000), (200, 800), (40, 200)];
    const TABLE_BYTES: usize = 12 * MIB;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |end: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % end as u64).expect("less than `end`")
    };
    let mut table: Vec<(*mut u8, usize)> = Vec::new();
    let mut bytes = 0;
    let mut purged = Vec::new();
    for turn in 0..turns {
        let (least, most) = KINDS[turn % KINDS.len()];
        let before = heap.stats().purged;
        let mut turned = 0;
        while turned < 2 * TABLE_BYTES {
            let size = least + below(most - least);
            table.push((alloc(cache, size), size));
            bytes += size;
            turned += size;
            while bytes > TABLE_BYTES {
                let (block, size) = table.swap_remove(below(table.len()));
                bytes -= size;
                // SAFETY: allocated with this layout, and not used any more.
                unsafe { cache.dealloc(block, layout(size)) };
            }
        }
        purged.push(heap.stats().purged - before);
    }
    heap.validate().expect("the heap is whole");
    purged
}

#[test]
fn what_comes_back_is_not_swept_again_and_again() {
    let options = Arena::builder().decay(Duration::MAX);
    let heap = Heap::with_options(&options).expect("few heaps live");
    let mut cache = heap.cache().expect("memory");
    let purged = churn(&mut cache, &heap, 24);
    // All kinds have been: it is 30 MiB when each sweep is as ready as the first.
    let later: usize = purged.iter().skip(4).sum();
    assert!(later <= 8 * MIB, "{purged:?}");
    assert!(heap.stats().committed <= 45 * MIB);
}
