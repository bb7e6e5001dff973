//! The heap profile estimates what the program holds, without bias, and sees every free.
//!
//! What could go wrong: a sample's free is missed, so that the profile shows a leak that is
//! none; small blocks are sampled too often or too seldom; a sampled block is shorter or
//! less aligned than asked for, or is freed to the wrong place; the statistics drift.
//! The tests run one at a time, as they look at the one profile of the process.

#![cfg(all(not(loom), target_env = "gnu"))]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use brickyard_arena::{Arena, Resize};

/// Small, so that there are many samples.
const MEAN_BYTES: usize = 16 << 10;

#[global_allocator]
static GLOBAL: Arena = Arena::builder().profile(MEAN_BYTES).build();

/// The same heap, by a name that knows of no profile.
static PLAIN: Arena = Arena::new();

fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Figures of a profile, scaled to what they stand for.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    live: f64,
    allocated: f64,
    /// Live samples, not scaled.
    samples: f64,
}

fn figures() -> Figures {
    let mut text = String::new();
    Arena::write_profile(&mut text).expect("strings take all");
    let mut sum = Figures::default();
    for line in text
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
    {
        let (numbers, stack) = line.split_once(" @").expect("a stack");
        assert!(stack.contains("0x"), "{line}");
        let numbers: Vec<f64> = numbers
            .split(|c: char| !c.is_ascii_digit())
            .filter(|word| !word.is_empty())
            .map(|word| word.parse().expect("digits"))
            .collect();
        let [live_blocks, live_bytes, blocks, bytes] = numbers[..] else {
            panic!("{line}")
        };
        let scaled = |blocks: f64, bytes: f64| {
            if blocks == 0.0 {
                return 0.0;
            }
            bytes / (1.0 - (-bytes / blocks / MEAN_BYTES as f64).exp())
        };
        sum.samples += live_blocks;
        sum.live += scaled(live_blocks, live_bytes);
        sum.allocated += scaled(blocks, bytes);
    }
    sum
}

#[track_caller]
fn assert_near(found: f64, wanted: f64, share: f64) {
    assert!(
        (found / wanted - 1.0).abs() < share,
        "{found} instead of {wanted}"
    );
}

/// Some thousand samples each: five standard deviations are below 10 %.
#[test]
fn live_bytes_are_estimated_for_every_size() {
    let _alone = alone();
    for size in [24, 200, 3000, 30_000, 100_000, 3 << 20] {
        let count = (64 << 20) / size;
        let before = figures();
        let blocks: Vec<Vec<u8>> = (0..count).map(|_| vec![1; size]).collect();
        let held = figures();
        let bytes = (count * size + count * size_of::<Vec<u8>>()) as f64;
        assert_near(held.live - before.live, bytes, 0.1);
        drop(blocks);
        let after = figures();
        assert!(
            (after.live - before.live).abs() < 1e6,
            "{size}: {before:?}, then {after:?}"
        );
        Arena::trim();
    }
}

/// Samples so far of blocks of exactly `size` bytes.
fn samples_of(size: f64) -> f64 {
    let mut text = String::new();
    Arena::write_profile(&mut text).expect("strings take all");
    let mut samples = 0.0;
    for line in text
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
    {
        let (_, allocated) = line.split_once('[').expect("sums");
        let (sums, _) = allocated.split_once(']').expect("sums");
        let (blocks, bytes) = sums.split_once(": ").expect("blocks and bytes");
        let [blocks, bytes] = [blocks, bytes].map(|sum| sum.parse::<f64>().expect("digits"));
        if bytes == blocks * size {
            samples += blocks;
        }
    }
    samples
}

/// A block as the C library asks for it with a profile.
fn short_profiled(size: usize) -> *mut u8 {
    assert!(size <= Arena::SHORT_BYTES);
    // SAFETY: just compared.
    let block = unsafe { Arena::alloc_short_profiled(size) };
    if block.is_null() {
        return Arena::alloc_unsized_profiled(size, 16, false);
    }
    block
}

/// The short ways of the C library sample each size of a mix with the chance that readers divide by,
/// whether it comes from `malloc` or from a `realloc` that moves.
///
/// Of *n* blocks *np* are samples, give or take √(*np*(1 − *p*)): five of these are exceeded once in a
/// million runs and a half.
#[test]
fn short_ways_sample_every_size_with_its_chance() {
    const ROUNDS: usize = 100_000;
    // Each needs a block of its own, and is less than half of the next.
    const SIZES: [usize; 4] = [37, 107, 331, 1009];
    let _alone = alone();
    let sizes = SIZES.map(|size| size as f64);
    let before = sizes.map(samples_of);
    let live = figures().live;
    for _ in 0..ROUNDS {
        let mut block = short_profiled(SIZES[0]);
        for new_size in [SIZES[1], SIZES[2], SIZES[3], SIZES[2], SIZES[1]] {
            let moved = match Arena::resize_short(block, new_size) {
                // SAFETY: the block is live and ours; the sizes are short.
                Resize::Moves(small) => unsafe {
                    Arena::move_short_profiled(small, block, new_size)
                },
                Resize::Unknown => ptr::null_mut(),
                Resize::Stays => panic!("{new_size} bytes stay"),
            };
            block = if moved.is_null() {
                // SAFETY: as above.
                unsafe { Arena::realloc_unsized_profiled(block, new_size) }
            } else {
                moved
            };
            assert!(!block.is_null());
        }
        // SAFETY: live and ours, and used no more.
        unsafe { Arena::dealloc_unsized(block) };
    }
    for ((size, before), times) in sizes.into_iter().zip(before).zip([1.0, 2.0, 2.0, 1.0]) {
        let chance = 1.0 - (-size / MEAN_BYTES as f64).exp();
        let blocks = times * ROUNDS as f64;
        let deviation = (blocks * chance * (1.0 - chance)).sqrt();
        let found = samples_of(size) - before;
        assert!(
            (found - blocks * chance).abs() < 5.0 * deviation,
            "{size} bytes: {found} samples instead of {} ± {deviation}",
            blocks * chance,
        );
    }
    assert!((figures().live - live).abs() < 1e6, "frees were missed");
}

/// Pairs that never leave the thread's magazine are counted like any others.
#[test]
fn allocations_that_are_freed_at_once_are_counted() {
    let _alone = alone();
    let before = figures();
    for _ in 0..1_000_000 {
        drop(core::hint::black_box(Box::new([0u64; 8])));
    }
    let after = figures();
    assert_near(after.allocated - before.allocated, 64e6, 0.1);
    assert!((after.live - before.live).abs() < 1e6);
}

#[test]
fn frees_on_another_thread_are_seen() {
    let _alone = alone();
    let before = figures();
    let blocks: Vec<Box<[u64; 6]>> = (0..200_000).map(|n| Box::new([n; 6])).collect();
    assert!(figures().samples > before.samples + 300.0);
    thread::spawn(move || {
        for (n, block) in (0..).zip(&blocks) {
            assert_eq!(**block, [n; 6]);
        }
        drop(blocks);
    })
    .join()
    .expect("contents are kept");
    let after = figures();
    assert!(
        after.samples <= before.samples + 5.0,
        "{before:?}, {after:?}"
    );
}

/// A buffer that grows in place is sampled with the chance of its whole length.
#[test]
fn growth_in_place_counts() {
    let _alone = alone();
    let before = figures();
    let layout = |size| Layout::from_size_align(size, 8).expect("a layout");
    let mut held = Vec::new();
    for _ in 0..200 {
        // SAFETY: the layout is not empty.
        let mut block = unsafe { GLOBAL.alloc(layout(40_000)) };
        let mut size = 40_000;
        while size < 320_000 {
            // SAFETY: the block has this layout, and the new size is not zero.
            block = unsafe { GLOBAL.realloc(block, layout(size), size * 2) };
            assert!(!block.is_null());
            size *= 2;
        }
        held.push((block, layout(size)));
    }
    assert_near(figures().live - before.live, 200.0 * 320_000.0, 0.05);
    for (block, layout) in held {
        // SAFETY: allocated above with this layout.
        unsafe { GLOBAL.dealloc(block, layout) };
    }
    assert!((figures().live - before.live).abs() < 1e6);
}

/// Sampled blocks are blocks: aligned, zeroed, and freed by whoever has them. A name
/// without a profile sees a sample when it leaves the magazine.
#[test]
fn samples_may_be_freed_by_a_name_without_a_profile() {
    let _alone = alone();
    let (before, live) = (figures(), Arena::stats().live);
    let layouts = [(8, 8), (100, 16), (640, 128), (5000, 8), (32_768, 4096)];
    let mut held: Vec<(*mut u8, Layout)> = Vec::with_capacity(50_000);
    for (size, align) in layouts.into_iter().cycle().take(50_000) {
        let layout = Layout::from_size_align(size, align).expect("a layout");
        // SAFETY: the layout is not empty.
        let block = unsafe { GLOBAL.alloc_zeroed(layout) };
        assert_eq!(block.addr() % align, 0);
        // SAFETY: just allocated with this layout.
        unsafe {
            assert_eq!((block.read(), block.add(size - 1).read()), (0, 0));
            block.write_bytes(1, size);
        }
        held.push((block, layout));
    }
    assert!(figures().samples > before.samples + 1000.0);
    for &(block, layout) in &held {
        // SAFETY: allocated above with this layout; both names are of one heap.
        unsafe { PLAIN.dealloc(block, layout) };
    }
    held.clear();
    Arena::collect();
    let after = figures();
    assert!(
        after.samples <= before.samples + 5.0,
        "{before:?}, {after:?}"
    );
    let drift = Arena::stats().live.abs_diff(live);
    assert!(drift < 2 << 20, "{drift} bytes");
}

#[test]
fn threads_that_sample_at_once_agree() {
    let _alone = alone();
    let before = figures();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(|| {
                let mut held = Vec::new();
                for step in 0..100_000usize {
                    held.push(vec![0u8; 1 + step % 700]);
                    if held.len() > 100 {
                        held.swap_remove(step % 100);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    let after = figures();
    let asked = 4.0 * 100_000.0 * 350.5;
    assert_near(after.allocated - before.allocated, asked, 0.1);
    assert!((after.live - before.live).abs() < 1e6);
}
