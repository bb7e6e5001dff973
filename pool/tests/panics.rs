//! A panic in anything that a user wrote loses no slot and harms no other object.
//!
//! What could go wrong: the place under the bound is taken for ever; the object is dropped twice
//! or never; the panic ends in the pool instead of with the caller; a lock stays locked. The
//! callbacks are listed in [`Where`]; each panics in turn, on a pool of two places of which the
//! other is in use, and afterwards both can be had.

#![cfg(not(loom))]

use core::panic::AssertUnwindSafe;
use core::pin::Pin;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::panic::{catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

use brickyard_pool::{DropReason, InPlace, Keep, Place, Placed, Pool, Recycle};

/// The callback that panics, or fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Nowhere,
    CreateFails,
    Create,
    /// When the object is in its slot.
    CreateAfterwards,
    Reset,
    Keep,
    /// The destructor of one that is not kept.
    DropNotKept,
    DropDiscarded,
    DropTrimmed,
}

const ALL: [Where; 8] = [
    Where::CreateFails,
    Where::Create,
    Where::CreateAfterwards,
    Where::Reset,
    Where::Keep,
    Where::DropNotKept,
    Where::DropDiscarded,
    Where::DropTrimmed,
];

#[derive(Debug)]
struct World {
    bad: Mutex<Where>,
    live: AtomicUsize,
}

impl World {
    /// Once.
    fn is(&self, place: Where) -> bool {
        let mut bad = self.bad.lock().expect("nobody panics with the lock");
        let now = *bad == place;
        if now {
            *bad = Where::Nowhere;
        }
        now
    }

    fn panic_at(&self, place: Where) {
        if self.is(place) {
            resume_unwind(Box::new(place));
        }
    }
}

struct Object(Arc<World>);

impl Object {
    fn new(world: &Arc<World>) -> Self {
        world.live.fetch_add(1, SeqCst);
        Self(Arc::clone(world))
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, SeqCst);
        for place in [Where::DropDiscarded, Where::DropTrimmed] {
            self.0.panic_at(place);
        }
    }
}

struct Recycler(Arc<World>);

impl Recycle<Object> for Recycler {
    type Error = Where;

    fn create<'p>(&self, place: Place<'p, Object>) -> Result<Placed<'p, Object>, Where> {
        if self.0.is(Where::CreateFails) {
            return Err(Where::CreateFails);
        }
        self.0.panic_at(Where::Create);
        let placed = place.write(Object::new(&self.0));
        self.0.panic_at(Where::CreateAfterwards);
        Ok(placed)
    }

    fn reset(&self, _: Pin<&mut Object>) {
        self.0.panic_at(Where::Reset);
    }

    fn keep(&self, _: &Object) -> Keep {
        self.0.panic_at(Where::Keep);
        if self.0.is(Where::DropNotKept) {
            *self.0.bad.lock().expect("no panic") = Where::DropDiscarded;
            return Keep::Drop(DropReason::Expired);
        }
        Keep::Keep
    }
}

/// What meets the callback, with the payload of its panic.
fn meet(pool: &Pool<Object, Recycler>, bad: Where) -> Result<(), Where> {
    let met = catch_unwind(AssertUnwindSafe(|| {
        let one = pool.get()?;
        match bad {
            Where::DropDiscarded => one.discard(DropReason::Broken),
            Where::DropTrimmed => {
                drop(one);
                pool.trim();
            }
            _ => drop(one),
        }
        Ok(())
    }));
    met.unwrap_or_else(|payload| Err(payload.downcast_ref().copied().expect("our panic")))
}

#[test]
fn a_panic_in_any_callback_loses_no_slot() {
    for bad in ALL {
        let world = Arc::new(World {
            bad: Mutex::new(Where::Nowhere),
            live: AtomicUsize::new(0),
        });
        let pool = Pool::builder()
            .capacity(2)
            .build_with(Recycler(Arc::clone(&world)))
            .expect("nothing is created yet");
        let other = pool.get().expect("it is sane");
        for round in 0..100 {
            pool.trim();
            *world.bad.lock().expect("no panic") = bad;
            let told = match bad {
                Where::DropNotKept => Where::DropDiscarded,
                bad => bad,
            };
            assert_eq!(meet(&pool, bad), Err(told), "{bad:?}, round {round}");
            assert_eq!(pool.metrics().live, world.live.load(SeqCst), "{bad:?}");
        }
        drop(pool.get().expect("the place is free"));
        drop(other);
        let both = [pool.try_get(), pool.try_get()].iter().all(Result::is_ok);
        assert!(both, "{bad:?}");
        assert_eq!(pool.metrics().in_use, 0, "{bad:?}");
        drop(pool);
        assert_eq!(world.live.load(SeqCst), 0, "{bad:?}: dropped once each");
    }
}

#[test]
fn a_panic_in_a_destructor_as_the_pool_closes_leaves_no_other_object() {
    struct Bad(Arc<AtomicUsize>);
    impl Drop for Bad {
        fn drop(&mut self) {
            if self.0.fetch_add(1, SeqCst) == 3 {
                resume_unwind(Box::new("a bad destructor"));
            }
        }
    }
    let drops = Arc::new(AtomicUsize::new(0));
    let pool = Pool::new(|| Bad(Arc::clone(&drops)));
    let mut all = pool.batch();
    assert!(all.try_get(10).is_ok());
    drop(all);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(pool))).is_err());
    assert_eq!(drops.load(SeqCst), 10);
}

#[test]
fn a_panic_between_two_elements_of_an_array_drops_those_that_were_made() {
    let live = AtomicUsize::new(0);
    struct Element<'l>(&'l AtomicUsize);
    impl Drop for Element<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, SeqCst);
        }
    }
    let bad = AtomicUsize::new(5);
    let create = InPlace::new(|place: Place<'_, [Element<'_>; 8]>| {
        place.fill(|number| {
            if number == bad.load(SeqCst) {
                resume_unwind(Box::new("a bad element"));
            }
            live.fetch_add(1, SeqCst);
            Element(&live)
        })
    });
    let Ok(pool) = Pool::builder().capacity(1).build_with(create);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(pool.get()))).is_err());
    assert_eq!((live.load(SeqCst), pool.metrics().live), (0, 0));
    bad.store(8, SeqCst);
    assert!(pool.try_get().is_ok());
    assert_eq!(live.load(SeqCst), 8);
    pool.trim();
    assert_eq!(live.load(SeqCst), 0);
}
