//! Many objects behind one guard.
//!
//! What could go wrong: an object of a batch is returned twice, or not at all, above all when
//! the reset or the destructor of one panics; a batch that cannot have all keeps some; an object
//! of another pool gets in; what was in a batch is not found afterwards. Objects count
//! themselves.

#![cfg(not(loom))]

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::panic::{catch_unwind, resume_unwind};
use std::sync::Arc;

use brickyard_pool::{Batch, CreateReset, DropReason, Pool, Recycle, TryGetError};
use static_assertions::{assert_impl_all, assert_not_impl_any};

type Make<T> = fn() -> T;

assert_impl_all!(Batch<'static, u8, Make<u8>>: Send, Sync, Unpin);
assert_impl_all!(Batch<'static, core::cell::Cell<u8>, Make<core::cell::Cell<u8>>>: Send);
assert_not_impl_any!(Batch<'static, core::cell::Cell<u8>, Make<core::cell::Cell<u8>>>: Sync);
assert_not_impl_any!(Batch<'static, std::rc::Rc<u8>, Make<std::rc::Rc<u8>>>: Send, Sync);

/// Every idle object, counted by taking them all out of a pool with a bound.
fn idle<T, R: Recycle<T>>(pool: &Pool<T, R>) -> usize {
    let mut all = pool.batch();
    while all.try_get(1).is_ok() {}
    all.len()
}

#[test]
fn all_come_back_whatever_the_size_of_batch_and_cache() {
    for capacity in [1, 2, 7, 64, 300] {
        let pool = Pool::builder().capacity(capacity).build(|| 0_u64);
        let mut batch = pool.batch();
        for count in (0..=capacity).rev().chain(0..=capacity) {
            assert!(batch.try_get(count).is_ok());
            assert_eq!(batch.len(), count);
            batch.clear();
        }
        assert_eq!((pool.metrics().in_use, idle(&pool)), (0, capacity));
    }
    let pool = Pool::new(|| 0_u64);
    let mut batch = pool.batch();
    for count in (0..300).rev().chain(0..=300) {
        assert!(batch.get(count).is_ok());
        assert_eq!(batch.len(), count);
        batch.clear();
    }
    let metrics = pool.metrics();
    assert_eq!((metrics.live, metrics.idle), (300, 300));
}

#[test]
fn no_object_is_in_a_batch_twice() {
    let pool = Pool::new(|| 0_u32);
    let (mut one, mut other) = (pool.batch(), pool.batch());
    for round in 0..200 {
        assert!(one.try_get(round % 70).is_ok() && other.try_get(round % 50).is_ok());
        one.iter_mut().chain(other.iter_mut()).for_each(|object| {
            assert_eq!(core::mem::replace(object, 1), 0, "two have it");
        });
        one.iter_mut()
            .chain(other.iter_mut())
            .for_each(|object| *object = 0);
        one.clear();
        if round % 3 == 0 {
            other.clear();
        }
    }
}

#[test]
fn none_more_are_got_when_not_all_can_be() {
    let pool = Pool::builder().capacity(40).build(|| 0_u64);
    let Ok(one) = pool.get();
    let mut batch = pool.batch();
    assert!(batch.try_get(10).is_ok());
    assert!(matches!(batch.try_get(30), Err(TryGetError::Empty)));
    // Which would wait for what it holds itself.
    assert!(matches!(batch.get(31), Err(TryGetError::Empty)));
    assert!(matches!(batch.get(usize::MAX), Err(TryGetError::Empty)));
    assert_eq!(batch.len(), 10);
    drop(one);
    assert!(batch.get(30).is_ok());
    assert_eq!(batch.len(), 40);
}

#[test]
fn one_that_waits_is_served_by_a_batch_that_is_cleared() {
    let pool = Pool::builder().capacity(8).build(|| 0_u64);
    let most = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut batch = pool.batch();
                for _ in 0..2_000 {
                    assert!(batch.get(5).is_ok());
                    assert!(most.fetch_add(5, Ordering::SeqCst) + 5 <= 8, "the bound");
                    most.fetch_sub(5, Ordering::SeqCst);
                    batch.clear();
                }
            });
        }
    });
    assert_eq!(idle(&pool), 8);
}

#[test]
fn an_object_of_another_pool_is_given_back() {
    let make: Make<u8> = || 0;
    let (one, other) = (Pool::with(make), Pool::with(make));
    let mut batch = one.batch();
    let (Ok(mine), Ok(foreign)) = (one.get(), other.get());
    assert!(batch.push(mine).is_ok());
    let refused = batch.push(foreign).expect_err("it is another pool's");
    drop((refused, batch));
    assert_eq!((one.metrics().idle, other.metrics().idle), (1, 1));
}

#[test]
fn an_object_taken_out_goes_its_own_way() {
    let pool = Pool::new(|| 1_u8);
    let mut batch = pool.batch();
    assert!(batch.try_get(3).is_ok());
    let Some(one) = batch.pop() else {
        panic!("three are in it");
    };
    drop(batch);
    assert_eq!((*one, pool.metrics().in_use), (1, 1));
    assert_eq!(one.detach(), 1);
    assert!(pool.batch().pop().is_none());
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
        let mut batch = pool.batch();
        assert!(batch.try_get(100).is_ok());
        let put = catch_unwind(AssertUnwindSafe(|| drop(batch)));
        assert!(put.is_err());
        assert_eq!(resets.load(Ordering::Relaxed), 100, "once a return");
        let metrics = pool.metrics();
        assert_eq!((metrics.live, metrics.idle), (99, 99));
        assert_eq!(metrics.dropped.by(DropReason::Panicked), 1);
    }
}

/// Panics once as it is dropped.
struct Bad(Arc<AtomicUsize>);

impl Drop for Bad {
    fn drop(&mut self) {
        if self.0.fetch_add(1, Ordering::SeqCst) == 5 {
            resume_unwind(Box::new("a bad destructor"));
        }
    }
}

/// Of 300 objects, at most 64 + 128 are retained: the others are dropped as they are shared,
/// when they have been reset already.
#[test]
fn a_destructor_that_panics_while_a_batch_is_shared_takes_no_object_with_it() {
    let (drops, resets) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let recycler = CreateReset::new(
        || Bad(Arc::clone(&drops)),
        |_: &mut Bad| {
            resets.fetch_add(1, Ordering::SeqCst);
        },
    );
    let Ok(pool) = Pool::builder().retain(0).build_with(recycler);
    let mut batch = pool.batch();
    assert!(batch.try_get(300).is_ok());
    assert!(catch_unwind(AssertUnwindSafe(|| batch.clear())).is_err());
    assert!(batch.is_empty());
    assert_eq!(resets.load(Ordering::SeqCst), 300, "once a return");
    let (dropped, metrics) = (drops.load(Ordering::SeqCst), pool.metrics());
    assert!(dropped > 5, "{dropped}");
    assert_eq!((metrics.idle, metrics.in_use), (300 - dropped, 0));
    drop(batch);
    drop(pool);
    assert_eq!(drops.load(Ordering::SeqCst), 300);
}

#[test]
fn what_is_not_kept_leaves_the_batch_as_it_is_cleared() {
    let pool = Pool::<Vec<u8>, _>::with(brickyard_pool::Cleared::new().retain_up_to(100));
    let mut batch = pool.batch();
    assert!(batch.try_get(40).is_ok());
    for (number, bytes) in batch.iter_mut().enumerate() {
        bytes.reserve_exact(if number % 2 == 0 { 50 } else { 150 });
    }
    batch.clear();
    let metrics = pool.metrics();
    assert_eq!((metrics.idle, metrics.in_use), (20, 0));
    assert_eq!(metrics.dropped.by(DropReason::TooBig), 20);
}

// It leaks on purpose, which AddressSanitizer would report.
#[cfg(not(brickyard_asan))]
#[test]
fn a_forgotten_batch_leaks_its_objects_and_nothing_else() {
    let pool = Pool::builder().capacity(8).build(|| 0_u8);
    let mut batch = pool.batch();
    assert!(batch.try_get(5).is_ok());
    core::mem::forget(batch);
    assert_eq!((pool.metrics().in_use, idle(&pool)), (5, 3));
}
