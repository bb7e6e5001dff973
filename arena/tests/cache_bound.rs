//! Thread caches are bounded in total, and the three calls that give memory back differ.
//!
//! What could go wrong: a thousand threads that each used forty sizes hold a MiB each in
//! free blocks, more than the program ever asked for. No purge thread here: the bound
//! holds while all of them are awake.

#![cfg(all(not(loom), target_os = "linux"))]

use core::alloc::{GlobalAlloc, Layout};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use brickyard_arena::{Arena, Stats};

#[global_allocator]
static GLOBAL: Arena = Arena::new();

static ALONE: Mutex<()> = Mutex::new(());

const THREADS: usize = 1000;
/// What all caches may hold together in a small heap.
const FLOOR: usize = 32 << 20;
/// What every cache may hold besides.
const FREE_EACH: usize = 4 << 10;

/// A size for each of the classes, smallest first.
fn sizes() -> Vec<usize> {
    let stats = Arena::stats();
    stats.classes.iter().map(|class| class.block_size).collect()
}

/// Allocates `count` blocks of each size, frees them all, and does it again.
fn use_all(sizes: &[usize], count: usize) {
    for _ in 0..2 {
        for &size in sizes {
            let layout = Layout::from_size_align(size, 8).expect("a small layout");
            let mut blocks = [core::ptr::null_mut::<u8>(); 64];
            for block in blocks.iter_mut().take(count) {
                // SAFETY: the size is not zero.
                *block = unsafe { GLOBAL.alloc(layout) };
                assert!(!block.is_null());
                // SAFETY: a block of at least eight bytes, just allocated.
                unsafe { block.write_bytes(1, 8) };
            }
            for block in blocks.into_iter().take(count) {
                // SAFETY: allocated just above with this layout.
                unsafe { GLOBAL.dealloc(block, layout) };
            }
        }
    }
}

/// Runs `work` on `threads` threads, and `look` while all of them live and rest.
fn with_threads(threads: usize, work: fn(&[usize]), look: impl FnOnce() -> Stats) -> Stats {
    let barrier = Arc::new(Barrier::new(threads + 1));
    let sizes = Arc::new(sizes());
    let handles: Vec<_> = (0..threads)
        .map(|_| {
            let (barrier, sizes) = (Arc::clone(&barrier), Arc::clone(&sizes));
            thread::Builder::new()
                .stack_size(128 << 10)
                .spawn(move || {
                    work(&sizes);
                    barrier.wait();
                    barrier.wait();
                })
                .expect("the thread starts")
        })
        .collect();
    barrier.wait();
    let stats = look();
    barrier.wait();
    handles
        .into_iter()
        .for_each(|handle| handle.join().expect("no block changed"));
    stats
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let words = line.and_then(|line| line.split_whitespace().nth(1));
    words
        .and_then(|kib| kib.parse().ok())
        .expect("the kernel says VmRSS")
}

#[test]
fn a_thousand_threads_with_forty_sizes_hold_a_bounded_share() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let start = Instant::now();
    let look = || {
        eprintln!("{} KiB resident, {:.2?}", resident_kib(), start.elapsed());
        Arena::stats()
    };
    let stats = with_threads(THREADS, |sizes| use_all(sizes, 30), look);
    let most = FLOOR.max(stats.committed / 8) + THREADS * FREE_EACH;
    eprintln!(
        "{THREADS} threads: {} KiB cached, {} KiB committed, {} KiB metadata",
        stats.cached >> 10,
        stats.committed >> 10,
        stats.metadata >> 10
    );
    assert!(stats.cached <= most, "above {most} bytes\n{stats}");
    assert!(stats.cached > FLOOR / 2, "caches are not used\n{stats}");
    let after = Arena::stats();
    assert!(
        after.cached < 4 << 20,
        "threads left blocks behind\n{after}"
    );
    // Room that exited threads had is there again.
    let few = with_threads(8, |sizes| use_all(sizes, 30), Arena::stats);
    assert!(few.cached > 1 << 20, "room was lost\n{few}");
}

#[test]
fn collect_purge_and_trim_take_what_they_say() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    with_threads(
        8,
        |sizes| use_all(sizes, 20),
        || {
            use_all(&sizes(), 20);
            let full = Arena::stats();
            assert!(full.cached > 2 << 20, "caches are not used\n{full}");
            Arena::purge();
            let purged = Arena::stats();
            assert!(
                purged.cached * 10 >= full.cached * 9,
                "purge took from caches\n{purged}"
            );
            let before = purged.purged;
            Arena::collect();
            let collected = Arena::stats();
            let own = purged.cached - collected.cached;
            assert!(own > 100 << 10, "collect took {own} bytes");
            assert!(
                collected.cached > 1 << 20,
                "collect took from others\n{collected}"
            );
            assert_eq!(collected.purged, before, "collect gave to the system");
            assert!(Arena::purge() > 0, "there was nothing to purge");
            Arena::trim();
            let trimmed = Arena::stats();
            assert!(
                trimmed.cached < 8 * (256 << 10),
                "trim left the caches of others\n{trimmed}"
            );
            trimmed
        },
    );
}
