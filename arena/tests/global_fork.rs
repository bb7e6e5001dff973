//! `fork` in a program whose other threads are inside the allocator.
//!
//! What could go wrong: the child inherits a lock that a thread held which does
//! not exist in it, or a list half changed by that thread, and hangs or crashes at
//! its first allocation; or the handlers around `fork` take the locks in another
//! order than the heap does, and the parent hangs. Four threads hammer the heap
//! while the main thread forks a thousand times; every child allocates, checks and
//! frees blocks of all kinds, then leaves by `_exit`. A child that hangs is ended
//! by its own alarm, which the parent sees as death by `SIGALRM`; a parent that
//! hangs is ended by a watchdog.

#![cfg(not(loom))]

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::thread;

use brickyard_arena::Arena;

#[global_allocator]
static GLOBAL: Arena = Arena::new();

const FORKS: usize = 1000;

/// After this a child counts as hanging.
const CHILD_SECONDS: u32 = 20;

/// After this the test counts as hanging.
const TEST_SECONDS: u64 = 240;

#[test]
fn children_of_a_threaded_program_allocate_at_once() {
    static OVER: AtomicBool = AtomicBool::new(false);
    thread::spawn(|| {
        for _ in 0..TEST_SECONDS {
            thread::sleep(Duration::from_secs(1));
            if OVER.load(Ordering::Relaxed) {
                return;
            }
        }
        eprintln!("the parent hangs in fork, or a child that its alarm did not end");
        std::process::abort();
    });
    let hammers: Vec<_> = (0..4)
        .map(|number| {
            thread::spawn(move || {
                let mut kept = Vec::new();
                while !OVER.load(Ordering::Relaxed) {
                    hammer(number, &mut kept);
                }
            })
        })
        .collect();
    for round in 0..FORKS {
        fork_once(round);
    }
    OVER.store(true, Ordering::Relaxed);
    hammers
        .into_iter()
        .for_each(|hammer| hammer.join().unwrap());
}

/// Goes through refills, flushes, large and big blocks, and purges.
fn hammer(number: usize, kept: &mut Vec<Vec<u8>>) {
    for step in 0..400 {
        let size = 1 + (step * 37 + number * 1009) % 3000;
        kept.push(vec![0xa5; size]);
    }
    kept.push(vec![0xa5; 100_000]);
    if kept.len() > 2000 {
        drop(Vec::<u8>::with_capacity(2 << 20));
        Arena::trim();
        for block in kept.drain(..) {
            assert!(ends_are(0xa5, &block), "a block changed");
        }
    }
}

/// Whether the first and last bytes of a block are `byte`: a neighbour that runs over,
/// or a second owner, changes those, and a thousand children are to stay quick.
fn ends_are(byte: u8, block: &[u8]) -> bool {
    let end = block.len().min(32);
    let (head, tail) = (&block[..end], &block[block.len() - end..]);
    head.iter().chain(tail).all(|&found| found == byte)
}

fn fork_once(round: usize) {
    // SAFETY: the child calls nothing but the allocator under test, `alarm` and
    // `_exit`; everything else that a forked child of a threaded program must not
    // do, it does not.
    match unsafe { libc::fork() } {
        0 => child(),
        -1 => panic!("fork {round} failed: {}", std::io::Error::last_os_error()),
        pid => {
            let mut status = 0;
            // SAFETY: the pointer is to a live integer.
            let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
            assert_eq!(waited, pid);
            let verdict = if libc::WIFSIGNALED(status) {
                match libc::WTERMSIG(status) {
                    libc::SIGALRM => "hung in the allocator".to_owned(),
                    signal => format!("died by signal {signal}"),
                }
            } else {
                match libc::WEXITSTATUS(status) {
                    0 => return,
                    code => format!("left with {code}"),
                }
            };
            panic!("child {round} {verdict}");
        }
    }
}

/// Allocates blocks of all kinds, checks and frees them.
fn child() -> ! {
    // SAFETY: alarm has no preconditions.
    unsafe { libc::alarm(CHILD_SECONDS) };
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    for step in 0..300_usize {
        blocks.push(vec![0x3c; 1 + step * 31]);
    }
    blocks.push(vec![0x3c; 200_000]);
    blocks.push(vec![0x3c; 3 << 20]);
    let whole = blocks.iter().all(|block| ends_are(0x3c, block));
    drop(blocks);
    Arena::trim();
    // SAFETY: `_exit` has no preconditions, and runs nothing of the parent's.
    unsafe { libc::_exit(if whole { 0 } else { 3 }) }
}

#[test]
fn a_child_forks_and_allocates_in_its_turn() {
    // SAFETY: as in `fork_once`; the second fork is the child's only extra call.
    match unsafe { libc::fork() } {
        0 => {
            fork_once(0);
            child()
        }
        pid => {
            let mut status = 0;
            // SAFETY: the pointer is to a live integer.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            assert_eq!(status, 0, "the child or its child failed");
        }
    }
}
