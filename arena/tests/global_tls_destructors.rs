//! Destructors of thread-locals allocate and free like everybody else.
//!
//! What could go wrong: the thread's cache is gone when they run, so they reach
//! for freed memory, register another destructor and recurse for ever, or leak
//! what they allocate. The destructors here run before and after the allocator's
//! own (thread-locals of the standard library, and a POSIX key with several
//! rounds), fill blocks and check them, free blocks of the thread's life, and
//! leave some to another thread. Leaks show in the statistics: after some thousand
//! threads no more is asked for than before.

#![cfg(not(loom))]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::RefCell;
use core::ffi::c_void;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use brickyard_arena::Arena;

#[global_allocator]
static GLOBAL: Arena = Arena::new();

/// One test at a time: the statistics are those of the process.
static ALONE: Mutex<()> = Mutex::new(());

static DESTROYED: AtomicUsize = AtomicUsize::new(0);
static ROUNDS: AtomicUsize = AtomicUsize::new(0);

/// Blocks that exiting threads left behind, for the main thread to check and free.
static LEFT: Mutex<Vec<Vec<u64>>> = Mutex::new(Vec::new());

#[derive(Default)]
struct AllocatesWhenDropped {
    kept: Vec<Vec<u64>>,
}

impl Drop for AllocatesWhenDropped {
    fn drop(&mut self) {
        allocate_and_check();
        for (index, words) in self.kept.drain(..).enumerate() {
            assert!(
                words.iter().all(|&word| word == index as u64),
                "a block changed"
            );
        }
        LEFT.lock().unwrap().push(vec![77; 50]);
        DESTROYED.fetch_add(1, Ordering::Relaxed);
    }
}

thread_local! {
    static KEPT: RefCell<AllocatesWhenDropped> = RefCell::default();
}

/// Blocks of many sizes, each filled, checked and freed.
fn allocate_and_check() {
    let blocks: Vec<Vec<u8>> = (0..60_u8)
        .map(|n| vec![n; usize::from(n) * 37 + 1])
        .collect();
    for (block, n) in blocks.iter().zip(0..) {
        assert!(block.iter().all(|&byte| byte == n), "a block changed");
    }
    let mut grown = Vec::new();
    for n in 0..3000_u32 {
        grown.push(n);
    }
    assert_eq!(grown.iter().sum::<u32>(), 2999 * 3000 / 2);
}

fn live() -> usize {
    Arena::stats().live
}

#[test]
fn destructors_of_thread_locals_allocate_and_free() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let run = |threads: usize| {
        for _ in 0..threads / 4 {
            let four: Vec<_> = (0..4)
                .map(|_| {
                    thread::spawn(|| {
                        KEPT.with_borrow_mut(|kept| {
                            kept.kept = (0..20).zip(30..).map(|(n, len)| vec![n; len]).collect();
                        });
                    })
                })
                .collect();
            four.into_iter().for_each(|thread| thread.join().unwrap());
            for words in core::mem::take(&mut *LEFT.lock().unwrap()) {
                assert!(
                    words.iter().all(|&word| word == 77),
                    "a block left behind changed"
                );
            }
        }
    };
    run(100);
    let (before, destroyed) = (live(), DESTROYED.load(Ordering::Relaxed));
    run(2000);
    assert_eq!(DESTROYED.load(Ordering::Relaxed), destroyed + 2000);
    let after = live();
    assert!(
        after <= before + 4096,
        "{before} bytes before 2000 threads, {after} after"
    );
}

/// Runs in the rounds of POSIX keys, which come after the thread-locals of the
/// standard library and before, between and after the allocator's own key.
unsafe extern "C" fn key_destructor(value: *mut c_void) {
    allocate_and_check();
    ROUNDS.fetch_add(1, Ordering::Relaxed);
    let layout = Layout::new::<u64>();
    // SAFETY: the value is the block that `set_key` or the round before put there.
    let left = unsafe { value.cast::<u64>().read() };
    // SAFETY: allocated with this layout, and only the key referred to it.
    unsafe { GLOBAL.dealloc(value.cast(), layout) };
    if left > 0 {
        set_key(left - 1);
    }
}

fn key() -> libc::pthread_key_t {
    static KEY: OnceLock<libc::pthread_key_t> = OnceLock::new();
    *KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: the key is valid for writes, and the destructor is a function.
        let failed = unsafe { libc::pthread_key_create(&raw mut key, Some(key_destructor)) };
        assert_eq!(failed, 0);
        key
    })
}

/// Stores a block with `rounds` in it, for the destructor.
fn set_key(rounds: u64) {
    // SAFETY: the layout has a size.
    let block = unsafe { GLOBAL.alloc(Layout::new::<u64>()) }.cast::<u64>();
    assert!(!block.is_null());
    // SAFETY: a new block for a `u64`.
    unsafe { block.write(rounds) };
    // SAFETY: the key exists.
    assert_eq!(unsafe { libc::pthread_setspecific(key(), block.cast()) }, 0);
}

#[test]
fn destructors_of_posix_keys_allocate_in_every_round() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    const EXTRA_ROUNDS: u64 = 2;
    let run = |threads: usize| {
        for _ in 0..threads {
            thread::spawn(|| set_key(EXTRA_ROUNDS)).join().unwrap();
        }
    };
    key();
    run(50);
    let (before, rounds) = (live(), ROUNDS.load(Ordering::Relaxed));
    run(1000);
    assert_eq!(ROUNDS.load(Ordering::Relaxed) - rounds, 3000);
    let after = live();
    assert!(
        after <= before + 4096,
        "{before} bytes before 1000 threads, {after} after"
    );
}
