//! Many objects at once.
//!
//! What could go wrong: a batch is returned to a pool that its guards are not from; a panic
//! in one object's reset loses those that were waiting beside it or come after it; two
//! that want more than there is hold half each and wait for ever; more is asked for than can
//! ever exist; a reset uses the pool while a batch is on its way.

#![cfg(not(loom))]

use core::cell::Cell;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::{OnceLock, mpsc};
use std::thread;

use brickyard_pool::{CreateReset, DropReason, Pool, Recycle, TryGetError};

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
    let (one, other) = (
        Pool::builder().capacity(50).build(make),
        Pool::builder().capacity(50).build(make),
    );
    let mut held = Vec::new();
    assert!(one.try_get_many(50, &mut held).is_ok());
    assert!(other.try_get_many(50, &mut held).is_ok());
    one.put_many(held);
    assert_eq!((idle(&one), idle(&other)), (50, 50));
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
        let Ok(pool) = Pool::builder().capacity(100).build_with(recycler);
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
    let (tell, told) = mpsc::channel();
    let work = thread::spawn(move || {
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
        let _ = tell.send(());
    });
    let waited = told.recv_timeout(Duration::from_secs(60));
    assert_ne!(
        waited,
        Err(mpsc::RecvTimeoutError::Timeout),
        "they wait for each other"
    );
    work.join().expect("no panic");
}
