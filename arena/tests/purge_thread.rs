//! Memory goes back while every thread of the program sleeps.
//!
//! What could go wrong: the purge thread is not started, misses what was freed while it
//! went to sleep, leaves what sleeping threads hold in their caches, runs the program's
//! signal handlers, keeps waking a program that rests, or is missing in a forked child.
//! The program here sleeps and looks at its own resident memory.

#![cfg(all(not(loom), target_os = "linux"))]

use core::time::Duration;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, sleep};
use std::time::Instant;

use brickyard_arena::Arena;

#[global_allocator]
static GLOBAL: Arena = Arena::builder().purge_thread(true).build();

/// One test at a time: the figures are those of the process.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let mut words = line.expect("the kernel says VmRSS").split_whitespace();
    let figure = words.nth(1).expect("VmRSS has a figure");
    figure.parse().expect("the figure is a number")
}

/// Waits without allocating until `check` holds, for `limit` at most.
fn within(limit: Duration, check: impl Fn() -> bool) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if check() {
            return true;
        }
        sleep(Duration::from_millis(100));
    }
    check()
}

/// A thread's directory of the purge thread, if it runs.
fn purge_thread() -> Option<std::path::PathBuf> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("proc is mounted");
    tasks.flatten().map(|task| task.path()).find(|task| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "brickyard-purge\n")
    })
}

/// Blocks of many sizes, `mib` MiB in all, every byte written.
fn build(mib: usize) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    let mut left = mib << 20;
    let mut size = 16;
    while left > 0 {
        size = if size > 300_000 { 16 } else { size * 2 + 7 };
        blocks.push(vec![0x5a; size]);
        left = left.saturating_sub(size);
    }
    blocks
}

#[test]
fn resident_memory_falls_while_all_threads_sleep() {
    let _alone = alone();
    let before = resident_kib();
    let blocks = build(250);
    let peak = resident_kib() - before;
    assert!(peak > 200 << 10, "{peak} KiB at the peak");
    drop(blocks);
    // No call to the allocator but the file reading of `resident_kib`.
    sleep(Duration::from_secs(3));
    let left = resident_kib().saturating_sub(before);
    assert!(left * 20 <= peak, "{left} KiB of {peak} are left");
}

#[test]
fn what_sleeping_threads_hold_in_their_caches_goes_back() {
    const THREADS: usize = 16;
    let _alone = alone();
    let (go, done): (Vec<Sender<()>>, Vec<Receiver<()>>) = {
        let starts: Vec<(Sender<()>, Receiver<()>)> = (0..THREADS).map(|_| channel()).collect();
        starts.into_iter().unzip()
    };
    let threads: Vec<_> = done
        .into_iter()
        .map(|inbox| {
            thread::spawn(move || {
                for round in 0..3 {
                    drop(build(4));
                    // Sleeps here until the main thread says so, three times.
                    inbox.recv().expect("the main thread lives");
                    let sum: usize = (0..200).map(|size| vec![round; size].len()).sum();
                    assert_eq!(sum, 199 * 200 / 2);
                }
            })
        })
        .collect();
    for round in 0..3 {
        sleep(Duration::from_millis(300));
        let cached = Arena::stats().cached;
        // A block a class and thread is left, at most, and what is not worth it.
        assert!(
            within(Duration::from_secs(8), || Arena::stats().cached
                < THREADS * (64 << 10)),
            "round {round}: {cached} then\n{}",
            Arena::stats()
        );
        go.iter().for_each(|go| go.send(()).expect("it listens"));
    }
    threads
        .into_iter()
        .for_each(|thread| thread.join().expect("no block changed"));
}

#[test]
fn threads_that_work_meanwhile_lose_no_block() {
    let _alone = alone();
    let end = Instant::now() + Duration::from_secs(4);
    let threads: Vec<_> = (0..4_u64)
        .map(|tag| {
            thread::spawn(move || {
                let mut kept: Vec<Vec<u64>> = Vec::new();
                let mut step = tag;
                while Instant::now() < end {
                    for _ in 0..500 {
                        step = step.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let words = usize::try_from(step >> 33).expect("31 bits") % 200 + 1;
                        kept.push(vec![step; words]);
                        if kept.len() > 400 {
                            let block = kept.swap_remove(words);
                            assert!(block.iter().all(|&word| word == block[0]));
                        }
                    }
                }
            })
        })
        .collect();
    while Instant::now() < end {
        // Freezes every thread, whatever it is doing.
        Arena::trim();
    }
    threads
        .into_iter()
        .for_each(|thread| thread.join().expect("no block changed"));
}

#[test]
fn the_purge_thread_takes_no_signals_and_rests() {
    let _alone = alone();
    drop(build(20));
    assert!(within(Duration::from_secs(5), || purge_thread().is_some()));
    let task = purge_thread().expect("it runs");
    let status = std::fs::read_to_string(task.join("status")).expect("the thread lives");
    let field = |name: &str| -> String {
        let line = status.lines().find(|line| line.starts_with(name));
        line.expect("the kernel says it")[name.len()..]
            .trim()
            .to_owned()
    };
    let blocked = u64::from_str_radix(&field("SigBlk:"), 16).expect("a mask");
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGCHLD] {
        assert!(blocked >> (signal - 1) & 1 == 1, "signal {signal} is taken");
    }
    // When everything went back, it sleeps for good: no further switch.
    let switches = || -> String {
        let status = std::fs::read_to_string(task.join("status")).expect("the thread lives");
        let line = status.lines().find(|line| line.starts_with("voluntary"));
        line.expect("the kernel says it").to_owned()
    };
    assert!(
        within(Duration::from_secs(15), || {
            let before = switches();
            sleep(Duration::from_millis(1500));
            before == switches()
        }),
        "it keeps waking up"
    );
}

#[test]
fn a_forked_child_starts_a_purge_thread_of_its_own() {
    let _alone = alone();
    drop(build(20));
    assert!(within(Duration::from_secs(5), || purge_thread().is_some()));
    // SAFETY: the child calls the allocator under test, reads files, and leaves by
    // `_exit`; the harness's threads hold no lock that it needs.
    match unsafe { libc::fork() } {
        0 => {
            let inherited = purge_thread().is_some();
            let before = resident_kib();
            drop(build(60));
            sleep(Duration::from_secs(2));
            let left = resident_kib().saturating_sub(before);
            let verdict = match (inherited, purge_thread().is_some()) {
                (true, _) => 3,
                (_, false) => 4,
                _ if left > 12 << 10 => 5,
                _ => 0,
            };
            // SAFETY: `_exit` has no preconditions.
            unsafe { libc::_exit(verdict) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: the pointer is to a live integer.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            assert!(libc::WIFEXITED(status), "the child died: {status}");
            assert_eq!(libc::WEXITSTATUS(status), 0);
        }
    }
}

/// What could go wrong: a process ends when its last thread does, and the purge thread is
/// a thread. (Python's own tests fork in a thread and let that thread return.)
#[test]
fn a_process_ends_with_its_last_thread() {
    extern "C" fn fork_and_return(status: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: as in the test above; the child ends by returning from here.
        match unsafe { libc::fork() } {
            0 => {
                drop(build(20));
                let started = within(Duration::from_secs(5), || purge_thread().is_some());
                // SAFETY: alarm and `_exit` have no preconditions.
                unsafe {
                    libc::alarm(20);
                    if !started {
                        libc::_exit(4);
                    }
                }
            }
            pid => {
                // SAFETY: the pointer is to the integer of the thread that joins us.
                unsafe { libc::waitpid(pid, status.cast(), 0) };
            }
        }
        core::ptr::null_mut()
    }
    let _alone = alone();
    let mut status = -1;
    let mut thread = core::mem::MaybeUninit::<libc::pthread_t>::uninit();
    // SAFETY: the function takes the pointer that it is given, which outlives the join; the
    // thread was created if 0 was returned.
    unsafe {
        let failed = libc::pthread_create(
            thread.as_mut_ptr(),
            core::ptr::null(),
            fork_and_return,
            (&raw mut status).cast(),
        );
        assert_eq!(failed, 0);
        libc::pthread_join(thread.assume_init(), core::ptr::null_mut());
    }
    assert!(libc::WIFEXITED(status), "the child hung or died: {status}");
    assert_eq!(libc::WEXITSTATUS(status), 0);
}

#[test]
fn its_options_can_be_changed_while_it_runs() {
    let _alone = alone();
    let default = Arena::builder().purge_thread(true);
    let (go, inbox) = channel::<()>();
    default.idle_after(Duration::MAX).apply();
    let thread = thread::spawn(move || {
        drop(build(8));
        inbox.recv()
    });
    sleep(Duration::from_secs(2));
    let kept = Arena::stats().cached;
    default.idle_after(Duration::from_millis(100)).apply();
    // Something to do, so that it looks again.
    drop(build(8));
    let taken = within(Duration::from_secs(5), || Arena::stats().cached * 3 < kept);
    assert!(kept > 100 << 10, "{kept} bytes: taken before their time");
    assert!(taken, "{kept} bytes, then\n{}", Arena::stats());
    go.send(()).expect("it listens");
    thread.join().expect("it ends").expect("it was told");

    default.purge_thread(false).apply();
    drop(build(60));
    sleep(Duration::from_millis(1500));
    let left = Arena::stats().committed;
    default.apply();
    drop(build(8));
    let fell = within(Duration::from_secs(5), || {
        Arena::stats().committed < 10 << 20
    });
    assert!(left > 40 << 20, "{left} bytes: it works when it is off");
    assert!(fell, "{}", Arena::stats());
}
