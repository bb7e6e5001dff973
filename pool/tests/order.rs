//! In which order things happen: who waits is served in turn, objects go before their
//! recycler, and an object stays where it is.
//!
//! What could go wrong: a later waiter, or a get that does not wait, takes the object of an
//! earlier one; a destructor or a late return meets a recycler that is gone; an object that
//! must not move does.

#![cfg(not(loom))]

use core::convert::Infallible;
use core::future::Future;
use core::marker::PhantomPinned;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use std::sync::{Arc, Mutex};

use brickyard_pool::{Place, Placed, Pool, Recycle, TryGetError};

/// What happened, in order.
type Log = Arc<Mutex<Vec<&'static str>>>;

struct Noted(&'static str, Log);

impl Drop for Noted {
    fn drop(&mut self) {
        self.1.lock().expect("no panic").push(self.0);
    }
}

/// A recycler that notes what it does, and its own end.
struct Notes(Noted);

impl Recycle<Noted> for Notes {
    type Error = Infallible;

    fn create<'p>(&self, place: Place<'p, Noted>) -> Result<Placed<'p, Noted>, Infallible> {
        Ok(place.write(Noted("object", Arc::clone(&self.0.1))))
    }

    fn reset(&self, object: Pin<&mut Noted>) {
        object.1.lock().expect("no panic").push("reset");
    }
}

fn noting() -> (Log, Pool<Noted, Notes>) {
    let log = Log::default();
    let pool = Pool::with(Notes(Noted("recycler", Arc::clone(&log))));
    (log, pool)
}

fn noted(log: &Log) -> Vec<&'static str> {
    log.lock().expect("no panic").clone()
}

#[test]
fn idle_objects_go_before_the_recycler() {
    let (log, pool) = noting();
    let Ok(one) = pool.get();
    drop(one);
    drop(pool);
    assert_eq!(noted(&log), ["reset", "object", "recycler"]);
}

#[test]
fn the_recycler_waits_for_the_last_owned_guard() {
    let (log, pool) = noting();
    let Ok(one) = pool.get();
    let Ok(two) = pool.get();
    let (one, two) = (one.into_owned(), two.into_owned());
    drop(pool);
    assert!(noted(&log).is_empty());
    drop(two);
    assert_eq!(noted(&log), ["reset", "object"]);
    drop(one);
    assert_eq!(
        noted(&log),
        ["reset", "object", "reset", "object", "recycler"]
    );
}

#[test]
fn a_detached_object_is_dropped_by_its_owner_alone() {
    let (log, pool) = noting();
    let Ok(one) = pool.get();
    let object = one.detach();
    drop(pool);
    assert_eq!(noted(&log), ["recycler"]);
    drop(object);
    assert_eq!(noted(&log), ["recycler", "object"]);
}

/// An object that knows where it is.
#[derive(Default)]
struct Rooted {
    home: usize,
    _pin: PhantomPinned,
}

struct Settle;

impl Recycle<Rooted> for Settle {
    type Error = Infallible;

    fn create<'p>(&self, place: Place<'p, Rooted>) -> Result<Placed<'p, Rooted>, Infallible> {
        Ok(place.write(Rooted::default()))
    }

    fn reset(&self, object: Pin<&mut Rooted>) {
        assert_eq!(object.home, core::ptr::from_ref(&*object).addr());
    }
}

#[test]
fn an_object_that_must_not_move_stays_where_it_is() {
    let pool = Pool::builder()
        .capacity(50)
        .build_with(Settle)
        .unwrap_or_else(|never| match never {});
    for round in 0..100 {
        let mut held = Vec::new();
        assert!(pool.try_get_many(50, &mut held).is_ok());
        for one in &mut held {
            let here = core::ptr::from_ref(&**one).addr();
            assert!(one.home == here || one.home == 0, "it moved");
            // SAFETY: nothing is moved out of the pinned object.
            unsafe { one.as_pin_mut().get_unchecked_mut() }.home = here;
        }
        if round % 2 == 0 {
            pool.put_many(held);
        } else {
            held.into_iter().for_each(|one| drop(one.into_owned()));
        }
    }
    assert_eq!(pool.metrics().created, 50);
}

#[test]
fn who_came_first_is_served_first_and_nobody_passes() {
    let pool = Pool::builder().capacity(1).build(|| 0_u8);
    let Ok(only) = pool.get();
    let mut context = Context::from_waker(Waker::noop());
    let mut futures: Vec<_> = (0..8).map(|_| Box::pin(pool.get_async())).collect();
    for future in &mut futures {
        assert!(future.as_mut().poll(&mut context).is_pending());
    }
    drop(only);
    while !futures.is_empty() {
        // Whoever polls: the object belongs to the first.
        for late in &mut futures[1..] {
            assert!(late.as_mut().poll(&mut context).is_pending());
        }
        assert!(matches!(pool.try_get(), Err(TryGetError::Empty)));
        let mut newcomer = pin!(pool.get_async());
        assert!(newcomer.as_mut().poll(&mut context).is_pending());
        match futures.remove(0).as_mut().poll(&mut context) {
            Poll::Ready(Ok(one)) => drop(one),
            Poll::Pending => panic!("the first was not served"),
        }
    }
    assert!(pool.try_get().is_ok());
}

#[test]
fn a_dropped_future_gives_its_turn_and_its_object_to_the_next() {
    let pool = Pool::builder().capacity(1).build(|| 0_u8);
    let Ok(only) = pool.get();
    let mut context = Context::from_waker(Waker::noop());
    let mut futures: Vec<_> = (0..3).map(|_| Box::pin(pool.get_async())).collect();
    for future in &mut futures {
        assert!(future.as_mut().poll(&mut context).is_pending());
    }
    // The first leaves before an object comes, the second after it was given one.
    drop(futures.remove(0));
    drop(only);
    drop(futures.remove(0));
    assert!(futures[0].as_mut().poll(&mut context).is_ready());
}
