//! Runs of free blocks that serve as blocks of a larger class.
//!
//! What could go wrong: a guest overlaps a block that somebody uses, or another guest; it is
//! not aligned; it is given back as a block of its host, so that the rest of its run is lost;
//! memory grows although there are runs; statistics count a guest twice or not at all.

#![cfg(not(loom))]

use core::alloc::{GlobalAlloc, Layout};
use std::sync::{Mutex, PoisonError};

use brickyard_arena::{Arena, ClassStats, Heap, HeapCache};

#[global_allocator]
static GLOBAL: Arena = Arena::new();

/// One test at a time: two of them look at the statistics of the process.
static ALONE: Mutex<()> = Mutex::new(());

/// Blocks of 64 bytes to begin with: 8 MiB, of which one in so many stays.
const SMALL_BLOCKS: usize = 8 << 14;
const STAYS_ONE_IN: u64 = 16;

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn layout(bytes: usize) -> Layout {
    let align = 1 << bytes.trailing_zeros();
    Layout::from_size_align(bytes, align).expect("a small layout")
}

/// A block, filled with a byte of its own.
struct Filled {
    block: *mut u8,
    bytes: usize,
    tag: u8,
}

impl Filled {
    fn new(block: *mut u8, bytes: usize, tag: u8) -> Self {
        assert!(!block.is_null());
        assert_eq!(block.addr() % layout(bytes).align(), 0, "{bytes} bytes");
        // SAFETY: a block of that size, just allocated.
        unsafe { block.write_bytes(tag, bytes) };
        Self { block, bytes, tag }
    }

    fn check(&self) {
        // SAFETY: the block is live and was written whole.
        let bytes = unsafe { core::slice::from_raw_parts(self.block, self.bytes) };
        assert!(bytes.iter().all(|&byte| byte == self.tag), "it changed");
    }
}

/// Lets one in [`STAYS_ONE_IN`] stay, at random.
fn thin_out(random: &mut Random, blocks: Vec<Filled>, mut free: impl FnMut(Filled)) -> Vec<Filled> {
    let mut stay = Vec::new();
    for block in blocks {
        block.check();
        match random.below(STAYS_ONE_IN) {
            0 => stay.push(block),
            _ => free(block),
        }
    }
    stay
}

fn alloc(cache: &mut HeapCache<'_>, bytes: usize, tag: u8) -> Filled {
    Filled::new(cache.alloc(layout(bytes)), bytes, tag)
}

fn free(cache: &mut HeapCache<'_>, filled: &Filled) {
    filled.check();
    // SAFETY: allocated with this layout, and not used any more.
    unsafe { cache.dealloc(filled.block, layout(filled.bytes)) };
}

fn sum(heap: &Heap, figure: impl Fn(&ClassStats) -> usize) -> usize {
    heap.validate().expect("the heap is whole");
    heap.stats().classes.iter().map(figure).sum()
}

/// A heap in which 64-byte blocks have gone but for a few at random.
fn thinned<'h>(heap: &'h Heap, random: &mut Random) -> (HeapCache<'h>, Vec<Filled>) {
    let mut cache = heap.cache().expect("memory");
    let small = (0..SMALL_BLOCKS)
        .map(|_| alloc(&mut cache, 64, 1))
        .collect();
    let stay = thin_out(random, small, |block| free(&mut cache, &block));
    (cache, stay)
}

#[test]
fn freed_small_blocks_serve_larger_ones_before_the_heap_grows() {
    let heap = Heap::new().expect("few heaps live");
    let mut random = Random(1);
    let (mut cache, stay) = thinned(&heap, &mut random);
    let before = heap.stats().committed;
    let large: Vec<Filled> = (0..2 << 10).map(|_| alloc(&mut cache, 512, 2)).collect();
    assert!(sum(&heap, |class| class.guest_blocks) > 1000);
    let grown = heap.stats().committed.saturating_sub(before);
    assert!(grown < 256 << 10, "it grew by {grown} bytes for 1 MiB");
    stay.iter().chain(&large).for_each(Filled::check);
    for block in large.iter().chain(&stay) {
        free(&mut cache, block);
    }
    drop(cache);
    assert_eq!(sum(&heap, |class| class.guest_blocks), 0);
    assert_eq!(sum(&heap, |class| class.lent_blocks), 0);
    assert_eq!(heap.stats().live, 0);
    heap.trim();
    assert_eq!(heap.stats().committed, 0, "spans that lent come back whole");
}

#[test]
fn guests_of_every_size_keep_their_contents_and_come_back() {
    let heap = Heap::new().expect("few heaps live");
    let mut random = Random(2);
    let (mut cache, mut live) = thinned(&heap, &mut random);
    let sizes = [96, 128, 192, 320, 512, 640, 1024, 1792, 2048, 3072, 4096];
    for round in 0..24 {
        for _ in 0..400 {
            let bytes = sizes[usize::try_from(random.below(11)).expect("below 11")];
            live.push(alloc(&mut cache, bytes, round));
        }
        heap.validate().expect("the heap is whole");
        live = thin_out(&mut random, live, |block| free(&mut cache, &block));
        heap.validate().expect("the heap is whole");
    }
    for block in &live {
        free(&mut cache, block);
    }
    drop(cache);
    assert_eq!(sum(&heap, |class| class.guest_blocks), 0);
}

#[test]
fn a_heap_whose_blocks_are_all_in_use_lends_nothing() {
    let heap = Heap::new().expect("few heaps live");
    let mut cache = heap.cache().expect("memory");
    let all: Vec<Filled> = (0..SMALL_BLOCKS)
        .map(|_| alloc(&mut cache, 64, 1))
        .chain([])
        .collect();
    let large: Vec<Filled> = (0..512).map(|_| alloc(&mut cache, 512, 2)).collect();
    assert_eq!(sum(&heap, |class| class.guest_blocks), 0);
    for block in all.iter().chain(&large) {
        free(&mut cache, block);
    }
}

/// As C does: `free`, `malloc_usable_size` and `realloc` know only the address.
#[test]
fn guests_are_known_by_their_address() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let guests = || {
        let classes = Arena::stats().classes;
        classes
            .iter()
            .map(|class| class.guest_blocks)
            .sum::<usize>()
    };
    let mut random = Random(3);
    let alloc = |bytes, tag| Filled::new(Arena::alloc_unsized(bytes, 1), bytes, tag);
    let free = |block: Filled| {
        block.check();
        // SAFETY: it came from the arena and is not used any more.
        unsafe { Arena::dealloc_unsized(block.block) };
    };
    let small = (0..SMALL_BLOCKS).map(|_| alloc(64, 1)).collect();
    let stay = thin_out(&mut random, small, free);
    let large: Vec<Filled> = (0..4 << 10).map(|_| alloc(512, 2)).collect();
    assert!(guests() > 1000);
    for block in &large {
        // SAFETY: the block is live.
        assert_eq!(unsafe { Arena::usable_size(block.block) }, 512);
    }
    let longer: Vec<Filled> = large
        .into_iter()
        .map(|block| {
            // SAFETY: the block is live, and used by its new address only.
            let moved = unsafe { Arena::realloc_unsized(block.block, 700) };
            let moved = Filled {
                block: moved,
                ..block
            };
            moved.check();
            moved
        })
        .collect();
    stay.into_iter().chain(longer).for_each(free);
    Arena::collect();
    assert_eq!(guests(), 0);
}

/// Guests are freed by another thread than the one that borrowed them, while that thread
/// allocates on.
#[test]
fn guests_may_be_freed_by_other_threads() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    const LARGE: Layout = Layout::new::<[u64; 64]>();
    let mut random = Random(4);
    let small: Vec<Box<[u8; 64]>> = (0..SMALL_BLOCKS).map(|_| Box::new([7; 64])).collect();
    let stay: Vec<_> = small
        .into_iter()
        .filter(|_| random.below(STAYS_ONE_IN) == 0)
        .collect();
    std::thread::scope(|scope| {
        let (send, receive) = std::sync::mpsc::sync_channel::<usize>(64);
        scope.spawn(move || {
            for addr in receive {
                let block: *mut u8 = core::ptr::with_exposed_provenance_mut(addr);
                // SAFETY: allocated below with this layout, and sent here for good.
                unsafe { GLOBAL.dealloc(block, LARGE) };
            }
        });
        for _ in 0..40_000 {
            // SAFETY: the layout has a size.
            let block = unsafe { GLOBAL.alloc(LARGE) };
            let filled = Filled::new(block, LARGE.size(), 3);
            filled.check();
            send.send(block.expose_provenance())
                .expect("the thread lives");
        }
    });
    assert!(stay.iter().all(|block| **block == [7; 64]), "one changed");
}
