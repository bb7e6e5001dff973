//! Wakers are foreign code: cloning, waking or dropping one may use the pool, or panic.
//!
//! What could go wrong: the pool drops or calls a waker while it holds one of its locks; the
//! waker owns an object of the same pool (a task that holds one guard and waits for another)
//! and its return waits for that very lock: a thread that hangs. Or a waker panics and the
//! grant of somebody else is lost with it. Each test runs on a thread of its own, so that a
//! hang is a failure.

#![cfg(not(loom))]

use core::future::Future;
use core::panic::AssertUnwindSafe;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::{Arc, mpsc};
use std::task::Wake;
use std::thread;

use brickyard_pool::{Pool, PooledOwned};

type Small = Pool<u8, fn() -> u8>;

/// The only object of a pool.
type Only = PooledOwned<u8, fn() -> u8>;

/// A pool of one object, which is in use.
fn drained() -> (Arc<Small>, Only) {
    let make: fn() -> u8 = || 7;
    let pool = Arc::new(Pool::builder().capacity(1).build(make));
    let Ok(only) = pool.get();
    let only = only.into_owned();
    (pool, only)
}

/// Fails if `test` hangs.
fn in_time(test: impl FnOnce() + Send + 'static) {
    let (tell, told) = mpsc::channel();
    let runs = thread::spawn(move || {
        test();
        let _ = tell.send(());
    });
    match told.recv_timeout(Duration::from_secs(20)) {
        Ok(()) => runs.join().expect("no panic"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            runs.join().expect("no panic");
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the thread hangs"),
    }
}

/// A waker that holds an object until it is dropped.
struct Holds {
    _object: PooledOwned<u8, fn() -> u8>,
}

impl Wake for Holds {
    fn wake(self: Arc<Self>) {}
}

fn poll<F: Future>(future: &mut Pin<Box<F>>, waker: &Waker) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(waker))
}

#[test]
fn a_waker_may_return_an_object_as_its_future_is_dropped() {
    in_time(|| {
        let (pool, only) = drained();
        let holds = Waker::from(Arc::new(Holds { _object: only }));
        let mut first = Box::pin(pool.get_async());
        let mut second = Box::pin(pool.get_async());
        assert!(poll(&mut first, &holds).is_pending());
        assert!(poll(&mut second, Waker::noop()).is_pending());
        drop(holds);
        drop(first);
        assert!(poll(&mut second, Waker::noop()).is_ready());
    });
}

#[test]
fn a_waker_may_return_an_object_as_another_takes_its_place() {
    in_time(|| {
        let (pool, only) = drained();
        let holds = Waker::from(Arc::new(Holds { _object: only }));
        let mut waits = Box::pin(pool.get_async());
        assert!(poll(&mut waits, &holds).is_pending());
        drop(holds);
        assert!(
            poll(&mut waits, Waker::noop()).is_ready(),
            "the object came back while the future was polled"
        );
    });
}

/// A waker that gets and returns an object as it is woken.
struct Uses(Arc<Small>);

impl Wake for Uses {
    fn wake(self: Arc<Self>) {
        let _ = self.0.try_get();
        let _ = self.0.metrics();
    }
}

#[test]
fn a_waker_may_use_the_pool_as_it_is_woken() {
    in_time(|| {
        let (pool, only) = drained();
        let uses = Waker::from(Arc::new(Uses(Arc::clone(&pool))));
        let mut waits = Box::pin(pool.get_async());
        assert!(poll(&mut waits, &uses).is_pending());
        drop(only);
        assert!(poll(&mut waits, &uses).is_ready());
    });
}

/// A waker that panics as it is woken.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker's own");
    }
}

#[test]
fn a_panicking_waker_takes_neither_its_own_nor_anothers_grant_away() {
    in_time(|| {
        let make: fn() -> u8 = || 7;
        let pool = Pool::builder().capacity(2).build(make);
        let panics = Waker::from(Arc::new(Panics));
        for _ in 0..100 {
            let (one, two) = (pool.try_get().unwrap(), pool.try_get().unwrap());
            let mut first = Box::pin(pool.get_async());
            let mut second = Box::pin(pool.get_async());
            assert!(poll(&mut first, &panics).is_pending());
            assert!(poll(&mut second, Waker::noop()).is_pending());
            assert!(catch_unwind(AssertUnwindSafe(|| drop(one))).is_err());
            drop(two);
            let Poll::Ready(Ok(granted)) = poll(&mut first, Waker::noop()) else {
                panic!("the first waiter's grant is lost");
            };
            assert!(poll(&mut second, Waker::noop()).is_ready());
            drop(granted);
        }
        assert_eq!((pool.metrics().live, pool.metrics().in_use), (2, 0));
    });
}

#[test]
fn a_future_that_moves_between_tasks_wakes_the_last_one_that_polled_it() {
    struct Counts(core::sync::atomic::AtomicUsize);
    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, core::sync::atomic::Ordering::SeqCst);
        }
    }
    let count = |of: &Arc<Counts>| of.0.load(core::sync::atomic::Ordering::SeqCst);
    let tasks: [_; 2] = core::array::from_fn(|_| Arc::new(Counts(0.into())));
    let (pool, only) = drained();
    let mut waits = Box::pin(pool.get_async());
    for task in &tasks {
        assert!(poll(&mut waits, &Waker::from(Arc::clone(task))).is_pending());
    }
    drop(only);
    assert_eq!((count(&tasks[0]), count(&tasks[1])), (0, 1));
    assert!(poll(&mut waits, Waker::noop()).is_ready());
}
