//! Defects that other pools have had, each with the test that would find it here.
//!
//! | defect | seen in | test |
//! |---|---|---|
//! | one object with two owners | nexus-pool, untagged stacks | `two_that_get_at_the_same_time_never_have_one_object`, loom's `aba` |
//! | shared although its objects may not change threads | lockfree-object-pool, opool | `types.rs` |
//! | a panicking reset takes the slot | sharded-slab, lockfree-object-pool, nexus-pool | `robust.rs`: a million of them |
//! | a panic with 4,200 live threads | sharded-slab | `robust.rs`: 5,000 |
//! | 64 KiB overflow the stack | lockfree-object-pool | `an_object_larger_than_the_stack_is_made_in_its_place` |
//! | a stale key finds the next object | slabs without generations | `keys.rs` |
//! | link words overlap the object | heapless, intrusive lists | `an_idle_object_is_not_written_to` |
//! | a limit that holds for powers of two only | Netty | `a_bound_of_any_number_is_exact` |
//! | 22,440 objects for 100 threads that use one each | Jackson | `threads_that_use_one_object_each_make_no_more_than_that` |
//! | the list of a thread that only returns grows | HikariCP, dynamic lists | `a_thread_that_only_returns_does_not_hoard` |
//! | living threads keep the objects of a dead pool | HikariCP, thread locals | `a_dropped_pool_leaves_nothing_with_living_threads` |
//! | the coldest object first | rings: opool, objectpool | `the_object_returned_last_is_got_first` |
//! | requests of mixed sizes throw each other out | byte-pool | `buffers_of_mixed_sizes_are_made_once` |
//! | one giant buffer stays for ever | Go, `sync.Pool` | `buffer.rs`: outgrown buffers go |
//! | a burst stays for ever | most | `robust.rs`: gone after two epochs |
//! | a future that is dropped loses a wake-up | early asynchronous pools | `order.rs`, `robust.rs` |
//! | the limit is passed while holders panic, or places leak | r2d2, bb8 | `panics.rs` |
//! | a forgotten guard blocks more than its place | | `a_forgotten_guard_costs_its_place_and_nothing_else` |
//! | use in a thread's destructors panics | sharded-slab | `exit.rs` |

#![cfg(not(loom))]

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use brickyard_pool::{BufferPool, InPlace, Place, Pool, TryGetError};

#[test]
fn two_that_get_at_the_same_time_never_have_one_object() {
    for capacity in [3, usize::MAX] {
        let pool = Pool::builder()
            .capacity(capacity)
            .build(|| AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..30_000 {
                        let Ok(one) = pool.get();
                        assert!(!one.swap(true, SeqCst), "two have it");
                        one.store(false, SeqCst);
                    }
                });
            }
        });
    }
}

#[test]
fn an_object_larger_than_the_stack_is_made_in_its_place() {
    const BYTES: usize = 64 * 1024;
    let body = || {
        let create = InPlace::new(|place: Place<'_, [u8; BYTES]>| place.fill(|_| 7));
        let pool = Pool::builder().capacity(2).build_with(create);
        let Ok(pool) = pool;
        for _ in 0..3 {
            let (Ok(one), Ok(other)) = (pool.get(), pool.get());
            assert!(one.iter().chain(other.iter()).all(|&byte| byte == 7));
            one.discard(brickyard_pool::DropReason::Broken);
        }
    };
    let small = thread::Builder::new().stack_size(BYTES - 8 * 1024);
    let ended = small.spawn(body).expect("a thread").join();
    assert!(ended.is_ok());
}

#[test]
fn an_idle_object_is_not_written_to() {
    const PATTERN: [u8; 40] = *b"every byte of it is the user's own, ever";
    for capacity in [8, usize::MAX] {
        let pool = Pool::builder().capacity(capacity).build(|| [0; 40]);
        // From cache to magazine or loose stack at each thread's end, and back.
        for round in 0..4 {
            thread::scope(|scope| {
                let user = scope.spawn(|| {
                    let mut all = pool.batch();
                    assert!(all.try_get(8).is_ok());
                    assert!(round == 0 || all.iter().all(|bytes| *bytes == PATTERN));
                    all.iter_mut().for_each(|bytes| *bytes = PATTERN);
                });
                // Unlike the end of the scope, waits for the thread's destructors.
                user.join().expect("no panic");
            });
        }
        assert_eq!(pool.metrics().created, 8);
    }
}

#[test]
fn a_bound_of_any_number_is_exact() {
    for capacity in 0..150 {
        let pool = Pool::builder().capacity(capacity).build(|| 0_u8);
        for _ in 0..2 {
            let all: Vec<_> = (0..capacity).map(|_| pool.try_get()).collect();
            assert!(all.iter().all(Result::is_ok), "{capacity}");
            assert!(matches!(pool.try_get(), Err(TryGetError::Empty)));
        }
        assert_eq!(pool.metrics().live, capacity);
    }
}

#[test]
fn threads_that_use_one_object_each_make_no_more_than_that() {
    const THREADS: usize = 100;
    let pool = Pool::new(|| 0_u64);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for round in 0..500 {
                    let Ok(one) = pool.get();
                    if round % 10 == 0 {
                        thread::yield_now();
                    }
                    drop(one);
                }
            });
        }
    });
    let created = pool.metrics().created;
    assert!(created <= THREADS as u64, "{created} for {THREADS} threads");
}

#[test]
fn a_thread_that_only_returns_does_not_hoard() {
    let pool = Pool::new(|| 0_u64);
    let (send, receive) = mpsc::sync_channel(16);
    thread::scope(|scope| {
        scope.spawn(move || receive.into_iter().for_each(drop));
        for _ in 0..50_000 {
            let Ok(one) = pool.get();
            assert!(send.send(one.into_owned()).is_ok());
        }
        drop(send);
    });
    // Its cache, half a cache of ours, and what was under way.
    let created = pool.metrics().created;
    assert!(created <= 128 + 64 + 16 + 2, "{created} objects");
}

/// Counts the living.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, SeqCst);
        Self(Arc::clone(live))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[test]
fn a_dropped_pool_leaves_nothing_with_living_threads() {
    const THREADS: usize = 8;
    let live = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&live);
    let pool = Arc::new(Pool::new(move || Counted::new(&counts)));
    let (used, over) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let pool = Arc::clone(&pool);
            let (used, over) = (&used, &over);
            scope.spawn(move || {
                let mut all = pool.batch();
                assert!(all.try_get(50).is_ok());
                drop(all);
                drop(pool);
                used.wait();
                over.wait();
            });
        }
        used.wait();
        assert!(live.load(SeqCst) >= 50);
        drop(pool);
        let left = live.load(SeqCst);
        over.wait();
        assert_eq!(left, 0);
    });
}

#[test]
fn the_object_returned_last_is_got_first() {
    let next = AtomicUsize::new(0);
    let pool = Pool::new(|| next.fetch_add(1, SeqCst));
    // As many as a thread's cache holds.
    let all: Vec<_> = (0..100).map(|_| pool.get()).collect();
    let returned: Vec<usize> = all.iter().flatten().map(|one| **one).collect();
    all.into_iter().for_each(drop);
    let again: Vec<_> = (0..100).map(|_| pool.get()).collect();
    let got: Vec<usize> = again.iter().flatten().map(|one| **one).collect();
    let expected: Vec<usize> = returned.into_iter().rev().collect();
    assert_eq!(got, expected);
}

#[test]
fn buffers_of_mixed_sizes_are_made_once() {
    let buffers = BufferPool::new();
    for round in 0..2_000_usize {
        let sizes = [100, 5_000, 70_000, 1_000].map(|bytes| bytes + round % 7);
        let held = sizes.map(|bytes| buffers.get(bytes));
        assert!(
            held.iter()
                .zip(sizes)
                .all(|(one, bytes)| one.capacity() >= bytes)
        );
    }
    let created: u64 = buffers.metrics().map(|(_, metrics)| metrics.created).sum();
    assert_eq!(created, 4);
}

// It leaks on purpose, which AddressSanitizer would report.
#[cfg(not(brickyard_asan))]
#[test]
fn a_forgotten_guard_costs_its_place_and_nothing_else() {
    let live = Arc::new(AtomicUsize::new(0));
    let pool = Pool::builder().capacity(3).build(|| Counted::new(&live));
    for _ in 0..2 {
        core::mem::forget(pool.try_get());
    }
    for _ in 0..1_000 {
        let one = pool.try_get().map_err(|_| ()).expect("one place is left");
        assert!(matches!(pool.try_get(), Err(TryGetError::Empty)));
        drop(one);
    }
    assert_eq!((pool.metrics().in_use, pool.trim()), (2, 1));
    drop(pool);
    assert_eq!(live.load(SeqCst), 2, "leaked, as it was asked for");
}
