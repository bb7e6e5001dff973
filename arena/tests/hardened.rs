//! A hardened process works like another: threads come and go, memory goes back, it forks.
//!
//! What could go wrong: a thread that ends leaves its quarantine behind; the purge thread
//! takes what a thread is working on, or does not come to it; a child hangs on a lock; a
//! program's own handler of SIGSEGV is lost. What a hardened heap stops is the matter of
//! `arena/preload/tests/attacks`.

#![cfg(not(loom))]

use core::alloc::Layout;
use core::hint::black_box;
use core::time::Duration;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use brickyard_arena::{Arena, Heap};

#[global_allocator]
static GLOBAL: Arena = Arena::builder()
    .hardened(true)
    // None: the first guarded block brings the handler, which a test wants to do itself.
    .guard_every(0)
    .purge_thread(true)
    .idle_after(Duration::from_millis(50))
    .decay(Duration::from_millis(50))
    .build();

/// Set in the child that faults.
const CHILD: &str = "BRICKYARD_HARDENED_CHILD";

/// Allocates and frees blocks of many sizes, and checks what is in them.
fn work(rounds: usize) {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for round in 0..rounds {
        let byte = u8::try_from(round % 251).unwrap();
        kept.push(vec![byte; 1 + round * 37 % 3000]);
        let zeroed = vec![0_u8; 1 + round * 61 % 5000];
        assert!(zeroed.iter().all(|byte| *byte == 0));
        if round % 3 == 0 {
            let old = kept.swap_remove(round * 7 % kept.len());
            assert!(old.iter().all(|byte| *byte == old[0]));
        }
    }
}

#[test]
fn the_process_is_hardened_before_main() {
    assert!(Arena::is_hardened());
    // It stays so, and for threads that come later.
    Arena::builder().hardened(false).purge_thread(true).apply();
    assert!(thread::spawn(Arena::is_hardened).join().unwrap());
}

#[test]
fn threads_share_work_and_leave_nothing_behind() {
    let (send, receive) = mpsc::channel::<Vec<u8>>();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let send = send.clone();
            thread::spawn(move || {
                work(3000);
                (1..200).for_each(|size| send.send(vec![7; size * 11]).unwrap());
            })
        })
        .collect();
    drop(send);
    assert_eq!(receive.iter().count(), 8 * 199);
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    Arena::collect();
    // What the other tests' threads hold, at most.
    assert!(Arena::stats().cached < 4 << 20, "{}", Arena::stats());
}

#[test]
fn the_quarantine_of_a_sleeping_thread_goes_back() {
    let (wake, sleep) = mpsc::channel::<()>();
    let (ready, is_ready) = mpsc::channel();
    let thread = thread::spawn(move || {
        // 48 KiB in a size that no other test uses.
        let blocks: Vec<Box<[u8; 26_000]>> = (0..40).map(|_| Box::new([1; 26_000])).collect();
        drop(blocks);
        ready.send(cached_of_this_size()).unwrap();
        let _ = sleep.recv();
        work(500);
    });
    assert!(is_ready.recv().unwrap() > 0, "nothing was cached");
    let start = Instant::now();
    while cached_of_this_size() > 0 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{}",
            Arena::stats()
        );
        thread::sleep(Duration::from_millis(20));
        // The bell has to ring: an allocation somewhere.
        work(10);
    }
    drop(wake);
    thread.join().unwrap();
}

fn cached_of_this_size() -> usize {
    let stats = Arena::stats();
    let class = stats
        .classes
        .iter()
        .find(|class| class.block_size >= 26_000);
    class.unwrap().cached_blocks
}

#[test]
fn a_child_of_a_threaded_program_allocates_and_exits() {
    let threads: Vec<_> = (0..2).map(|_| thread::spawn(|| work(30_000))).collect();
    for _ in 0..20 {
        // SAFETY: the child allocates, frees and ends at once.
        match unsafe { libc::fork() } {
            0 => {
                work(300);
                // SAFETY: ends the child without handlers of the parent.
                unsafe { libc::_exit(0) };
            }
            child => {
                assert!(child > 0);
                let mut status = 1;
                // SAFETY: our child, and a valid pointer.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0);
            }
        }
    }
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}

extern "C" fn on_fault(_: i32) {
    // SAFETY: ends the process.
    unsafe { libc::_exit(42) };
}

/// Also the child of itself.
#[test]
fn an_earlier_handler_gets_the_signal_after_the_report() {
    if std::env::var_os(CHILD).is_some() {
        let heap = Heap::with_options(&Arena::builder().hardened(true).guard_every(1)).unwrap();
        // SAFETY: the handler does nothing but end the process.
        unsafe {
            libc::signal(
                libc::SIGSEGV,
                on_fault as extern "C" fn(i32) as libc::sighandler_t,
            )
        };
        let layout = Layout::new::<[u64; 3]>();
        let block = heap.alloc(layout);
        // SAFETY: freed once; the read is the misuse, and ends the process.
        unsafe {
            heap.dealloc(block, layout);
            black_box(black_box(block).read_volatile());
        }
        std::process::exit(0);
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "an_earlier_handler_gets_the_signal_after_the_report",
        ])
        .args(["--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(42),
        "{}: {stderr}",
        output.status
    );
}

#[test]
fn a_hardened_heap_as_a_value_is_whole_and_gives_all_back() {
    let heap = Heap::with_options(&Arena::builder().hardened(true).guard_every(10)).unwrap();
    let layout = |n: usize| Layout::from_size_align(1 + n * 97 % 60_000, 1 << (n % 8)).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut cache = heap.cache().unwrap();
                let blocks: Vec<_> = (0..2000).map(|n| (cache.alloc(layout(n)), n)).collect();
                for (block, n) in blocks {
                    assert!(!block.is_null() && block.addr() % layout(n).align() == 0);
                    // SAFETY: allocated above with this layout.
                    unsafe { cache.dealloc(block, layout(n)) };
                }
            });
        }
    });
    heap.validate().unwrap();
    heap.trim();
    heap.validate().unwrap();
    let stats = heap.stats();
    assert_eq!(
        (stats.live, stats.requested, stats.committed),
        (0, 0, 0),
        "{stats}"
    );
}

/// What a block loses when it shrinks is as zero as what is freed.
#[test]
fn the_end_that_a_shrinking_block_gives_back_is_zero() {
    let heap = Heap::with_options(&Arena::builder().hardened(true).guard_every(0)).unwrap();
    let layout = |size| Layout::from_size_align(size, 8).unwrap();
    let (long, short) = (layout(900_000), layout(40_000));
    let block = heap.alloc(long);
    // SAFETY: allocated with these layouts, and freed once.
    unsafe {
        block.write_bytes(7, long.size());
        let kept = heap.realloc(block, long, short.size());
        assert_eq!(kept, block, "it shrinks where it is");
        assert!((0..short.size()).all(|at| kept.add(at).read() == 7));
        let next = heap.alloc(layout(800_000));
        assert!(next.addr().abs_diff(block.addr()) < long.size());
        // Volatile: whatever is there.
        assert!((0..800_000).all(|at| next.add(at).read_volatile() == 0));
        heap.dealloc(next, layout(800_000));
        heap.dealloc(kept, short);
    }
}
