//! A live set that is larger than a magazine goes through the thread's depot, and the depot goes
//! back when something else wants the memory.
//!
//! What could go wrong: one block comes back twice, or never; blocks stay in the depot while the
//! heap grows, or for ever; a thread that frees what others allocate hoards it; a block that looks as
//! if it had been set aside already ends a program that did nothing wrong; room that a depot had stays
//! taken, so that magazines cannot grow; an allocation fails although the depot has the memory; a
//! hardened heap's blocks are not zero when they come back.

#![cfg(not(loom))]

use core::alloc::Layout;
use core::slice;
use core::time::Duration;
use std::collections::HashSet;
use std::thread::sleep;

use brickyard_arena::{Arena, FaultPlan, Heap, HeapCache};

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

/// Allocates and frees `count` blocks of `layout`, of which nothing is written.
fn use_many(cache: &mut HeapCache<'_>, layout: Layout, count: usize) {
    let blocks = allocate(cache, layout, count);
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
    use_many(&mut cache, SMALL, BLOCKS);
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

/// No block is written to while it is set aside: one that holds anything but zeroes when it comes
/// back ends the process, as written to after its free.
#[test]
fn what_a_hardened_heap_sets_aside_comes_back_once_and_zero() {
    let heap = Heap::with_options(&Arena::builder().hardened(true).guard_every(0))
        .expect("few heaps live");
    let mut cache = heap.cache().expect("memory");
    for round in 0..3 {
        let blocks = allocate(&mut cache, SMALL, BLOCKS);
        let different: HashSet<_> = blocks.iter().collect();
        assert_eq!(different.len(), BLOCKS, "one block has two users");
        for &block in &blocks {
            // SAFETY: ours, of that many bytes.
            let bytes = unsafe { slice::from_raw_parts_mut(block, SMALL.size()) };
            assert!(round == 0 || bytes.iter().all(|&byte| byte == 0));
            bytes.fill(0xa5);
        }
        free(&mut cache, SMALL, blocks);
        let aside = cached(&heap);
        assert!(aside > (BLOCKS - 256) * SMALL.size(), "{aside} bytes only");
    }
    let committed = heap.stats().committed;
    use_many(&mut cache, OTHER, BLOCKS / 4);
    assert!(heap.stats().committed <= committed, "{}", heap.stats());
    cache.flush();
    assert_eq!(cached(&heap), 0);
}

#[test]
fn it_goes_back_before_another_size_makes_the_heap_grow() {
    let heap = Heap::new().expect("few heaps live");
    let mut cache = heap.cache().expect("memory");
    use_many(&mut cache, SMALL, BLOCKS);
    let committed = heap.stats().committed;
    let others = allocate(&mut cache, OTHER, BLOCKS / 4);
    assert!(heap.stats().committed <= committed, "{}", heap.stats());
    free(&mut cache, OTHER, others);
    use_many(&mut cache, SMALL, BLOCKS);
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
    use_many(&mut cache, SMALL, BLOCKS);
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

/// More blocks than a depot has places for.
const MANY: usize = 12_000;
const KIB: Layout = Layout::new::<[u64; 128]>();

/// How many blocks of `layout`, of which the spans have many, the magazine comes to hold.
fn grown(heap: &Heap, cache: &mut HeapCache<'_>, layout: Layout) -> usize {
    let mut most = 0;
    for _ in 0..16 {
        let blocks = allocate(cache, layout, 128);
        let before = cached(heap);
        free(cache, layout, blocks);
        most = most.max(cached(heap).saturating_sub(before) / layout.size());
    }
    most
}

#[test]
fn a_depot_leaves_magazines_their_room() {
    /// More than what is left of the room when no batch finds any, and than a magazine gives up.
    const WIDE: [Layout; 3] = [
        Layout::new::<[u64; 112]>(),
        Layout::new::<[u64; 96]>(),
        Layout::new::<[u64; 80]>(),
    ];
    const NARROW: [Layout; 3] = [
        Layout::new::<[u64; 64]>(),
        Layout::new::<[u64; 56]>(),
        Layout::new::<[u64; 48]>(),
    ];
    // The depots of four threads could have 8 MiB each, and all caches together 32.
    let options = Arena::builder().thread_cache(16 << 20);
    let heap = Heap::with_options(&options).expect("few heaps live");
    for layout in WIDE.into_iter().chain(NARROW) {
        // Spans with free blocks, and one that stays: nobody has to empty a depot for more.
        let mut other = heap.cache().expect("memory");
        let mut blocks = allocate(&mut other, layout, 2000);
        let mut at = 0;
        blocks.retain(|_| {
            at += 1;
            at % 8 != 0
        });
        free(&mut other, layout, blocks);
    }
    let mut caches: Vec<_> = (0..5).map(|_| heap.cache().expect("memory")).collect();
    for cache in &mut caches {
        use_many(cache, KIB, MANY);
    }
    assert!(cached(&heap) > 31 << 20, "{}", heap.stats());
    // All that one has comes back and is kept: its depot has nothing left, and needs no room.
    let cache = &mut caches[0];
    let blocks = allocate(cache, KIB, MANY);
    assert!(cached(&heap) < 25 << 20, "{}", heap.stats());
    for layout in WIDE {
        let entries = grown(&heap, cache, layout);
        assert!(entries > 100, "{entries} entries beside an empty depot");
    }
    free(cache, KIB, blocks);
    assert!(cached(&heap) > 31 << 20, "{}", heap.stats());
    for layout in NARROW {
        let entries = grown(&heap, cache, layout);
        assert!(entries > 100, "{entries} entries beside a full depot");
    }
    assert!(cached(&heap) > 30 << 20, "all of the depot went");
}

#[test]
fn memory_in_a_depot_serves_a_mapping_under_a_limit() {
    let heap = Heap::with_options(&Arena::builder().memory_limit(8 << 20)).expect("few heaps");
    let mut cache = heap.cache().expect("memory");
    let big = Layout::from_size_align(6 << 20, 4096).expect("a layout");
    use_many(&mut cache, KIB, 6_000);
    assert!(cached(&heap) > 3 << 20);
    let mapping = allocate(&mut cache, big, 1);
    free(&mut cache, big, mapping);
    heap.validate().expect("the heap is whole");
}

#[test]
fn memory_in_a_depot_is_there_when_the_system_has_none() {
    static PLAN: FaultPlan = FaultPlan::new();
    let heap = Heap::with_faults(&PLAN).expect("few heaps live");
    let mut cache = heap.cache().expect("memory");
    use_many(&mut cache, KIB, 3_500);
    assert!(cached(&heap) > 3 << 20);
    PLAN.fail_nth(1, true);
    let others = allocate(&mut cache, OTHER, 20_000);
    free(&mut cache, OTHER, others);
    let runs = allocate(
        &mut cache,
        Layout::from_size_align(1 << 20, 4096).expect("a layout"),
        2,
    );
    PLAN.succeed();
    free(
        &mut cache,
        Layout::from_size_align(1 << 20, 4096).expect("a layout"),
        runs,
    );
    heap.validate().expect("the heap is whole");
}

#[test]
fn caches_of_a_heap_share_what_one_alone_may_have() {
    let heap = Heap::new().expect("few heaps live");
    let mut caches: Vec<_> = (0..4).map(|_| heap.cache().expect("memory")).collect();
    for cache in &mut caches {
        use_many(cache, KIB, 3_500);
    }
    let most = (4 << 20) + 4 * 128 * KIB.size();
    assert!(cached(&heap) <= most, "{}", heap.stats());
    drop(caches);
    assert_eq!(cached(&heap), 0);
    let mut alone = heap.cache().expect("memory");
    use_many(&mut alone, KIB, 3_500);
    assert!(cached(&heap) > 3 << 20, "those that went still count");
}

#[test]
fn a_cache_forgets_what_its_last_thread_fetched() {
    let heap = Heap::new().expect("few heaps live");
    let mut producer = heap.cache().expect("memory");
    let blocks = allocate(&mut producer, SMALL, BLOCKS);
    let kept = {
        let mut other = heap.cache().expect("memory");
        allocate(&mut other, SMALL, BLOCKS)
    };
    let mut consumer = heap.cache().expect("memory");
    free(&mut consumer, SMALL, blocks);
    assert!(cached(&heap) <= 2 * MAGAZINE, "it hoards");
    free(&mut consumer, SMALL, kept);
}

/// What one cache of a hardened heap keeps does not make the allocations of another fail.
#[test]
fn what_another_has_aside_comes_back_before_a_limit_forbids() {
    const LIMIT: usize = 8 << 20;
    let options = Arena::builder()
        .hardened(true)
        .guard_every(0)
        .memory_limit(LIMIT);
    let heap = Heap::with_options(&options).expect("few heaps live");
    for layout in [SMALL, Layout::new::<[u8; 100_000]>()] {
        let mut other = heap.cache().expect("memory");
        // On a machine with much else to do it may be there too long, and go back.
        let is_aside = (0..20).any(|_| {
            use_many(&mut other, SMALL, LIMIT / 8 / SMALL.size());
            cached(&heap) > LIMIT / 16
        });
        assert!(is_aside, "nothing is aside");
        let mut cache = heap.cache().expect("memory");
        let blocks: Vec<_> = core::iter::from_fn(|| {
            let block = cache.alloc(layout);
            (!block.is_null()).then_some(block)
        })
        .collect();
        assert!(heap.stats().cached < 64 << 10, "{}", heap.stats());
        heap.validate().expect("the heap is whole");
        free(&mut cache, layout, blocks);
    }
}
