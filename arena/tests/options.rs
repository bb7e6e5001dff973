//! Every option of the builder does what it says.
//!
//! What could go wrong: an option is stored and never looked at. Each test compares a
//! heap that has the option with one that has not, and fails when both do the same.

#![cfg(not(loom))]

use core::alloc::Layout;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::thread::sleep;
use std::time::Instant;

use brickyard_arena::{Arena, Builder, Heap, HugePages};

fn heap(options: &Builder) -> Heap {
    Heap::with_options(options).expect("few heaps live")
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).expect("a small layout")
}

/// Allocates blocks of `bytes` until null, `most` at most, and writes to each.
fn fill(heap: &Heap, bytes: usize, most: usize) -> Vec<*mut u8> {
    let mut blocks = Vec::new();
    while blocks.len() < most {
        let block = heap.alloc(layout(bytes));
        if block.is_null() {
            break;
        }
        // SAFETY: a block of at least `bytes` bytes, just allocated.
        unsafe { block.write_bytes(0xa5, bytes) };
        blocks.push(block);
    }
    blocks
}

fn free(heap: &Heap, bytes: usize, blocks: Vec<*mut u8>) {
    for block in blocks {
        // SAFETY: allocated by `fill` with this layout.
        unsafe { heap.dealloc(block, layout(bytes)) };
    }
}

#[test]
fn a_heap_at_its_memory_limit_answers_null_and_recovers() {
    const LIMIT: usize = 8 << 20;
    for bytes in [16, 48, 1000, 5000, 30_000, 100_000, 700_000, 3 << 20] {
        let heap = heap(&Arena::builder().memory_limit(LIMIT));
        let most = 2 * LIMIT / bytes;
        let mut first = 0;
        for round in 0..3 {
            let blocks = fill(&heap, bytes, most);
            let stats = heap.stats();
            assert!(blocks.len() < most, "{bytes} bytes: no limit\n{stats}");
            assert!(stats.committed <= LIMIT, "{bytes} bytes: above\n{stats}");
            assert!(
                stats.live * 10 >= (LIMIT - (4 << 20).min(bytes * 2)) * 8,
                "{bytes} bytes: null too early\n{stats}"
            );
            first = if round == 0 { blocks.len() } else { first };
            assert!(
                blocks.len() * 10 >= first * 9,
                "{bytes} bytes: round {round} got {} after {first}",
                blocks.len()
            );
            free(&heap, bytes, blocks);
            heap.validate().expect("the heap is whole");
        }
        // What one size gave back another may have.
        let other = fill(&heap, 320, 2 * LIMIT / 320);
        assert!(other.len() * 320 * 10 > LIMIT * 8, "after {bytes} bytes");
        free(&heap, 320, other);
    }
    let free_heap = heap(&Arena::builder());
    assert_eq!(fill(&free_heap, 1000, 16_000).len(), 16_000);
}

/// Every eighth block is free, and no OS page is: who asks for as many finds them all.
#[test]
fn a_heap_at_its_memory_limit_hands_out_what_is_free_in_it() {
    for bytes in [48, 1000, 3000] {
        let heap = heap(&Arena::builder().memory_limit(8 << 20));
        let blocks = fill(&heap, bytes, usize::MAX);
        // In the order in which they were handed out, neighbours are side by side.
        let freed: Vec<_> = blocks.iter().copied().step_by(8).collect();
        let blocks: Vec<_> = (blocks.chunks(8))
            .flat_map(|eight| eight[1..].to_vec())
            .collect();
        let count = freed.len();
        free(&heap, bytes, freed);
        heap.trim();
        let again = fill(&heap, bytes, count);
        assert_eq!(again.len(), count, "{bytes} bytes\n{}", heap.stats());
        assert!(heap.stats().committed <= 8 << 20);
        heap.validate().expect("the heap is whole");
        free(&heap, bytes, blocks);
        free(&heap, bytes, again);
    }
}

/// Near its limit, a large heap whose free blocks are not resident does not look at all of them each time.
#[test]
fn near_its_memory_limit_a_heap_is_not_slow() {
    const RUN: usize = 64 << 10;
    let heap = heap(&Arena::builder().memory_limit(96 << 20));
    let (mut kept, mut freed) = (Vec::new(), Vec::new());
    for (index, block) in fill(&heap, 64, 1 << 20).into_iter().enumerate() {
        let is_kept = index / 64 % 16 == 0;
        if is_kept { &mut kept } else { &mut freed }.push(block);
    }
    free(&heap, 64, freed);
    heap.trim();
    let mut runs = fill(&heap, RUN, usize::MAX);
    free(&heap, RUN, runs.split_off(runs.len() - 10));
    let start = Instant::now();
    let last = fill(&heap, 64, usize::MAX);
    let elapsed = start.elapsed();
    assert!(last.len() > 5000, "{}", last.len());
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
    free(&heap, 64, kept);
    free(&heap, 64, last);
    free(&heap, RUN, runs);
}

#[test]
fn a_block_grows_up_to_the_memory_limit_in_place_or_not() {
    let heap = heap(&Arena::builder().memory_limit(16 << 20));
    let mut bytes = 2 << 20;
    let mut block = heap.alloc(layout(bytes));
    loop {
        // SAFETY: the block is live and has this layout.
        let new = unsafe { heap.realloc(block, layout(bytes), bytes + (1 << 20)) };
        if new.is_null() {
            break;
        }
        block = new;
        bytes += 1 << 20;
        assert!(heap.stats().committed <= 16 << 20);
    }
    assert!(bytes >= 8 << 20, "null at {bytes} bytes");
    free(&heap, bytes, vec![block]);
    heap.validate().expect("the heap is whole");
}

#[test]
fn the_program_is_told_once_when_the_soft_limit_is_passed() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    static HELD: AtomicUsize = AtomicUsize::new(0);
    fn told(held: usize) {
        CALLS.fetch_add(1, Ordering::Relaxed);
        HELD.store(held, Ordering::Relaxed);
    }
    const SOFT: usize = 8 << 20;
    let heap = heap(&Arena::builder().soft_limit(SOFT, told));
    // Free memory is given back before anybody is told.
    let big = fill(&heap, 3 << 20, 2);
    free(&heap, 3 << 20, big);
    let small = fill(&heap, 64, (5 << 20) / 64);
    free(&heap, 64, small);
    assert_eq!(CALLS.load(Ordering::Relaxed), 0, "{}", heap.stats());
    assert!(heap.stats().purged > 0, "nothing was given back");
    for round in 1..=2 {
        let blocks = fill(&heap, 1024, 12 << 10);
        assert_eq!(CALLS.load(Ordering::Relaxed), round);
        assert!(HELD.load(Ordering::Relaxed) > SOFT);
        free(&heap, 1024, blocks);
        heap.trim();
        // The next slow path sees that the heap has fallen.
        free(&heap, 100_000, fill(&heap, 100_000, 1));
    }
}

#[test]
fn a_program_that_frees_when_it_is_told_is_told_again() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    fn told(_: usize) {
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
    const SOFT: usize = 8 << 20;
    // Small and large blocks; of some, one in so many is kept.
    for (bytes, kept_one_in) in [
        (100, usize::MAX),
        (100, 10),
        (1000, 3),
        (2 << 20, usize::MAX),
    ] {
        CALLS.store(0, Ordering::Relaxed);
        let heap = heap(&Arena::builder().soft_limit(SOFT, told));
        let mut blocks = Vec::new();
        let (mut shrunk, mut most) = (0, 0);
        for _ in 0..(10 * SOFT) / bytes {
            blocks.extend(fill(&heap, bytes, 1));
            most = most.max(blocks.len() * bytes);
            if CALLS.load(Ordering::Relaxed) > shrunk {
                shrunk += 1;
                let (kept, dropped) = (blocks.into_iter().enumerate())
                    .partition::<Vec<_>, _>(|(index, _)| index % kept_one_in == 1);
                free(
                    &heap,
                    bytes,
                    dropped.into_iter().map(|(_, block)| block).collect(),
                );
                blocks = kept.into_iter().map(|(_, block)| block).collect();
                assert_eq!(CALLS.load(Ordering::Relaxed), shrunk, "told as it frees");
            }
        }
        assert!((5..=20).contains(&shrunk), "{bytes} bytes: {shrunk} times");
        assert!(
            most < SOFT + SOFT / 4 + bytes,
            "{bytes} bytes: {most} in use"
        );
        heap.validate().expect("the heap is whole");
        free(&heap, bytes, blocks);
    }
}

#[test]
fn a_program_that_cannot_shrink_is_told_once() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    fn told(_: usize) {
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
    const SOFT: usize = 4 << 20;
    let heap = heap(&Arena::builder().soft_limit(SOFT, told));
    let live = fill(&heap, 100, (6 << 20) / 100);
    for bytes in [48, 1000, 30_000, 100_000, 2 << 20] {
        for _ in 0..20 {
            let passing = fill(&heap, bytes, (6 << 20) / bytes);
            free(&heap, bytes, passing);
        }
    }
    assert_eq!(CALLS.load(Ordering::Relaxed), 1);
    free(&heap, 100, live);
}

/// Flags of the mapping that holds `addr`, as the kernel names them.
fn flags_of(addr: usize) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
    let mut here = false;
    for line in maps.lines() {
        let range = line.split(' ').next().and_then(|word| word.split_once('-'));
        if let Some((start, end)) = range
            && let (Ok(start), Ok(end)) = (
                usize::from_str_radix(start, 16),
                usize::from_str_radix(end, 16),
            )
        {
            here = start <= addr && addr < end;
        }
        if here && let Some(flags) = line.strip_prefix("VmFlags:") {
            return Some(format!("{flags} "));
        }
    }
    None
}

#[test]
fn huge_pages_are_asked_for_or_refused() {
    if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        eprintln!("skipped: this kernel has no huge pages");
        return;
    }
    for (policy, wanted, refused) in [
        (HugePages::System, false, false),
        (HugePages::Never, false, true),
        (HugePages::Always, true, false),
    ] {
        let heap = heap(&Arena::builder().huge_pages(policy));
        for bytes in [64, 100_000, 5 << 20] {
            let blocks = fill(&heap, bytes, 1);
            let flags = flags_of(blocks[0].addr()).expect("smaps has the mapping");
            assert_eq!(flags.contains(" hg "), wanted, "{policy:?}: {flags}");
            assert_eq!(flags.contains(" nh "), refused, "{policy:?}: {flags}");
            free(&heap, bytes, blocks);
        }
    }
}

#[test]
fn a_thread_keeps_no_more_free_blocks_than_it_may() {
    let cached = |options: &Builder| {
        let heap = heap(options);
        let mut most = 0;
        for bytes in [64, 512, 1024, 2048, 4096, 8192, 16_384] {
            let blocks = fill(&heap, bytes, (2 << 20) / bytes);
            free(&heap, bytes, blocks);
            most = most.max(heap.stats().cached);
        }
        heap.validate().expect("the heap is whole");
        most
    };
    let default = cached(&Arena::builder());
    assert!((200_000..=(1 << 20) + 4096).contains(&default), "{default}");
    let small = cached(&Arena::builder().thread_cache(32 << 10));
    assert!((10_000..=(32 << 10) + 4096).contains(&small), "{small}");
    let none = cached(&Arena::builder().thread_cache(0));
    assert!(none <= 4096, "{none}");
}

#[test]
fn decay_says_how_fast_free_memory_goes_back() {
    let left = |half_life: Duration| {
        let heap = heap(&Arena::builder().decay(half_life));
        // Runs of granules, and mappings of their own.
        for (bytes, count) in [(200_000, 100), (3 << 20, 5)] {
            let blocks = fill(&heap, bytes, count);
            free(&heap, bytes, blocks);
        }
        for _ in 0..12 {
            sleep(Duration::from_millis(60));
            // A slow path: the heap looks.
            free(&heap, 64 << 10, fill(&heap, 64 << 10, 1));
        }
        heap.stats().committed
    };
    let at_once = left(Duration::ZERO);
    let default = left(Duration::from_millis(250));
    let never = left(Duration::MAX);
    assert!(at_once <= 1 << 20, "{at_once}");
    assert!((at_once..20 << 20).contains(&default), "{default}");
    assert!(never >= 30 << 20, "{never}");
}

#[test]
fn a_reallocation_moves_between_small_and_large() {
    let heap = heap(&Arena::builder());
    let mut block: *mut u8 = ptr::null_mut();
    let mut bytes = 0;
    for next in [10, 1000, 40_000, 2 << 20, 50_000, 700, 8] {
        block = match bytes {
            0 => heap.alloc(layout(next)),
            // SAFETY: the block is live and has this layout.
            _ => unsafe { heap.realloc(block, layout(bytes), next) },
        };
        // SAFETY: live, of `next` bytes, of which the first was written before.
        unsafe {
            assert!(bytes == 0 || block.read() == 7);
            block.write(7);
        }
        bytes = next;
    }
    free(&heap, bytes, vec![block]);
}
