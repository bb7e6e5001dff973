//! Many objects at once.
//!
//! What could go wrong: a batch is returned to a pool that its guards are not from; a panic
//! in one object's reset loses those that were waiting beside it or come after it; two
//! that want more than there is hold half each and wait for ever; more is asked for than can
//! ever exist; a reset, a creator or the iterator uses the pool while a batch is on its way;
//! one slow creation holds up others.

#![cfg(not(loom))]

use core::cell::Cell;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;

use brickyard_pool::{CreateReset, DropReason, Pool, Recycle, TryGetError};

/// Whether `work` ends (if not, its thread is left behind).
fn ends(work: impl FnOnce() + Send + 'static) -> bool {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        work();
        let _ = tell.send(());
    });
    told.recv_timeout(Duration::from_secs(60)) != Err(mpsc::RecvTimeoutError::Timeout)
}

/// Every idle object, counted by taking them all.
fn idle<T, R: Recycle<T>>(pool: &Pool<T, R>) -> usize {
    let mut all = Vec::new();
    while let Ok(one) = pool.try_get() {
        all.push(one);
    }
    all.len()
}

#[test]
fn all_come_back_whatever_the_batch_and_the_caches_size() {
    for capacity in [1, 2, 7, 64, 300] {
        let pool = Pool::builder().capacity(capacity).build(|| 0_u64);
        let mut held = Vec::new();
        for count in (0..=capacity).rev().chain(0..=capacity) {
            assert!(pool.try_get_many(count, &mut held).is_ok());
            assert_eq!(held.len(), count);
            pool.put_many(held.drain(..));
        }
        assert_eq!(pool.metrics().in_use, 0);
        assert_eq!(idle(&pool), capacity);
    }
    let pool = Pool::new(|| 0_u64);
    let mut held = Vec::new();
    for count in (0..300).rev().chain(0..=300) {
        assert!(pool.get_many(count, &mut held).is_ok());
        assert_eq!(held.len(), count);
        pool.put_many(held.drain(..));
    }
    let metrics = pool.metrics();
    assert_eq!((metrics.live, metrics.idle), (300, 300));
}

#[test]
fn none_are_got_when_not_all_can_be() {
    let pool = Pool::builder().capacity(40).build(|| 0_u64);
    let Ok(one) = pool.get();
    let mut held = Vec::new();
    assert!(matches!(
        pool.try_get_many(40, &mut held),
        Err(TryGetError::Empty)
    ));
    assert!(matches!(
        pool.get_many(41, &mut held),
        Err(TryGetError::Empty)
    ));
    assert!(held.is_empty());
    drop(one);
    assert!(pool.get_many(40, &mut held).is_ok());
    assert_eq!(held.len(), 40);
}

#[test]
fn each_guard_goes_back_to_its_own_pool() {
    let make: fn() -> u8 = || 0;
    for capacity in [50, usize::MAX] {
        let builder = Pool::builder().capacity(capacity);
        let (one, other) = (builder.build(make), builder.build(make));
        let mut held = Vec::new();
        assert!(one.try_get_many(50, &mut held).is_ok());
        assert!(other.try_get_many(50, &mut held).is_ok());
        one.put_many(held);
        assert_eq!((one.metrics().idle, other.metrics().idle), (50, 50));
    }
}

#[test]
fn a_panicking_reset_takes_no_other_object_with_it() {
    for bad in 0..100 {
        let resets = AtomicUsize::new(0);
        let recycler = CreateReset::new(
            || 0_u8,
            |_: &mut u8| {
                if resets.fetch_add(1, Ordering::Relaxed) == bad {
                    resume_unwind(Box::new("a bad reset"));
                }
            },
        );
        let capacity = if bad % 2 == 0 { 100 } else { usize::MAX };
        let Ok(pool) = Pool::builder().capacity(capacity).build_with(recycler);
        let mut held = Vec::new();
        assert!(pool.try_get_many(100, &mut held).is_ok());
        let put = catch_unwind(AssertUnwindSafe(|| pool.put_many(held)));
        assert!(put.is_err());
        assert_eq!(resets.load(Ordering::Relaxed), 100);
        let metrics = pool.metrics();
        assert_eq!((metrics.live, metrics.idle), (99, 99));
        assert_eq!(metrics.dropped.by(DropReason::Panicked), 1);
    }
}

type Functions = CreateReset<fn() -> u32, fn(&mut u32)>;

/// A pool whose reset gets and returns other objects of it.
static NESTED: OnceLock<Pool<u32, Functions>> = OnceLock::new();

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// An object in use is 1.
fn reset_that_uses_the_pool(object: &mut u32) {
    assert_eq!(core::mem::take(object), 1, "an object has two owners");
    let Some(pool) = NESTED.get() else { return };
    if !INSIDE.replace(true) {
        let mut some = Vec::new();
        assert!(pool.try_get_many(3, &mut some).is_ok());
        for one in &mut some {
            assert_eq!(core::mem::replace(&mut **one, 1), 0, "of two owners");
        }
        pool.put_many(some);
        INSIDE.set(false);
    }
}

#[test]
fn a_reset_may_use_the_pool_while_a_batch_is_on_its_way() {
    let recycler: Functions = CreateReset::new(|| 0, reset_that_uses_the_pool);
    let pool = NESTED.get_or_init(|| Pool::with(recycler));
    let mut held = Vec::new();
    for round in 0..2_000 {
        assert!(pool.try_get_many(round % 70, &mut held).is_ok());
        for one in &mut held {
            assert_eq!(core::mem::replace(&mut **one, 1), 0, "of two owners");
        }
        pool.put_many(held.drain(..));
    }
    let metrics = pool.metrics();
    assert_eq!((metrics.in_use, metrics.idle), (0, metrics.live));
}

#[test]
fn two_that_want_more_than_half_get_it_one_after_the_other() {
    assert!(
        ends(|| {
            let pool = Pool::builder().capacity(8).build(|| 0_u64);
            let most = AtomicUsize::new(0);
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let mut held = Vec::new();
                        for _ in 0..2_000 {
                            assert!(pool.get_many(5, &mut held).is_ok());
                            let now = most.fetch_add(5, Ordering::SeqCst) + 5;
                            assert!(now <= 8, "the bound is exact");
                            most.fetch_sub(5, Ordering::SeqCst);
                            pool.put_many(held.drain(..));
                        }
                    });
                }
            });
            assert_eq!(idle(&pool), 8);
        }),
        "they wait for each other"
    );
}

#[test]
fn more_than_can_ever_be_is_empty() {
    let bounded = Pool::builder().capacity(8).build(|| 0_u8);
    let mut held = Vec::new();
    for count in [9, 1 << 40, usize::MAX] {
        let got = bounded.try_get_many(count, &mut held);
        assert!(matches!(got, Err(TryGetError::Empty)));
        let got = bounded.get_many(count, &mut held);
        assert!(matches!(got, Err(TryGetError::Empty)));
    }
    let unbounded = Pool::new(|| 0_u8);
    let got = unbounded.get_many(usize::MAX, &mut Vec::new());
    assert!(matches!(got, Err(TryGetError::Empty)), "2³² − 2 at most");
}

#[test]
fn a_creator_may_get_many_from_its_own_pool() {
    type Own = Pool<u8, fn() -> u8>;
    static POOLS: [OnceLock<Own>; 2] = [const { OnceLock::new() }; 2];
    fn create<const POOL: usize>() -> u8 {
        if !INSIDE.replace(true) {
            let pool = POOLS[POOL].get().expect("made");
            assert!(pool.get_many(2, &mut Vec::new()).is_ok());
            INSIDE.set(false);
        }
        0
    }
    let [bounded, unbounded] = &POOLS;
    bounded.get_or_init(|| Pool::builder().capacity(4).build(create::<0>));
    unbounded.get_or_init(|| Pool::with(create::<1>));
    for pool in [bounded, unbounded] {
        let pool = pool.get().expect("made");
        let got = || assert!(pool.get_many(2, &mut Vec::new()).is_ok());
        assert!(ends(got), "get_many in a creator waits for its own turn");
    }
}

#[test]
fn without_a_bound_a_slow_creation_holds_up_nobody() {
    let slow = AtomicBool::new(true);
    let (in_creation, creates) = mpsc::sync_channel(0);
    let (finish, finished) = mpsc::channel();
    let finished = Mutex::new(finished);
    let pool = Pool::new(|| {
        if slow.swap(false, Ordering::SeqCst) {
            in_creation.send(()).expect("it listens");
            let longest = Duration::from_secs(60);
            let finished = finished.lock().expect("one thread");
            finished.recv_timeout(longest).expect("the others wait");
        }
        0_u8
    });
    thread::scope(|scope| {
        scope.spawn(|| assert!(pool.get_many(1, &mut Vec::new()).is_ok()));
        creates.recv().expect("it creates");
        assert!(pool.get_many(1, &mut Vec::new()).is_ok());
        finish.send(()).expect("it listens");
    });
}

#[test]
fn with_a_bound_what_was_put_is_found_while_the_iterator_goes_on() {
    let pool = Pool::builder().capacity(2).build(|| 0_u8);
    let mut held = Vec::new();
    assert!(pool.try_get_many(2, &mut held).is_ok());
    let mut found = Vec::new();
    pool.put_many(
        held.into_iter()
            .inspect(|_| found.push(pool.metrics().idle)),
    );
    assert_eq!(found, [0, 1]);
    assert!(
        ends(|| {
            let pool = Pool::builder().capacity(4).build(|| 0_u8);
            pool.put_many((0..10).map(|_| {
                let Ok(one) = pool.get();
                one
            }));
        }),
        "the iterator waits for what it has handed over"
    );
}
