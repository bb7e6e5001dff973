//! loom models of the protocols by which slots change hands.
//!
//! One model a hazard, named as a claim, with a twin in which one step is left out
//! ([`Step`]): the twin shows that the model would see it. The objects are cells that loom
//! watches: two users at once, or one who does not see what the last did, is an error.

mod exit;
mod keys;
mod waiting;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr::NonNull;

use loom::sync::Arc;
use loom::thread;

use crate::cache::Cache;
use crate::chunk::{Object, Storage};
use crate::depot::Depot;
use crate::metrics::Metrics;
use crate::shared::{Bounds, Limits, Put, Shared};
use crate::stack::IndexStack;
use crate::sync::{Step, UnsafeCell, without};
use crate::wait::Grant;

type Slot = NonNull<Object>;

/// A slot on its way to another thread of a model.
struct Sent(Slot);
// SAFETY: the slot is owned, as a guard owns it.
unsafe impl Send for Sent {}

/// Objects by index of their slot.
struct Objects([UnsafeCell<u32>; 4]);
// SAFETY: loom checks every access.
unsafe impl Sync for Objects {}
// SAFETY: as above.
unsafe impl Send for Objects {}

impl Objects {
    fn new() -> Self {
        Self(core::array::from_fn(|_| UnsafeCell::new(0)))
    }

    /// What a user does: changes the object.
    fn use_one(&self, slot: Slot) {
        // SAFETY: loom checks that nobody else does it at the same time.
        self.0[Storage::index(slot) as usize].with_mut(|object| unsafe { *object += 1 });
    }
}

/// A pool without types: what `inner` and `pool` do, by hand.
struct World {
    shared: Shared,
    objects: Objects,
}

impl World {
    /// Leaked: a model that fails must not run destructors outside of loom.
    fn new(capacity: usize) -> &'static Self {
        let limits = Limits::new(Bounds {
            capacity,
            retain: usize::MAX,
            weight: 4,
            caches: true,
        });
        Box::leak(Box::new(Self {
            shared: Shared::new(Layout::new::<u32>(), limits),
            objects: Objects::new(),
        }))
    }

    fn cache(&self) -> alloc::sync::Arc<Cache> {
        self.shared.attach().expect("the pool is open")
    }

    fn redeem(&self, grant: Grant) -> Slot {
        match grant {
            Grant::Idle(slot) => slot,
            Grant::Permit => self
                .shared
                .storage()
                .take_vacant()
                .expect("within the bound"),
        }
    }

    fn try_get(&self, cache: &Cache) -> Option<Slot> {
        let slot = match cache.pop() {
            Some(slot) => slot,
            None => self.redeem(self.shared.take_slow(Some(cache))?),
        };
        self.objects.use_one(slot);
        Some(slot)
    }

    fn get(&self, cache: &Cache) -> Slot {
        self.try_get(cache).expect("an object is idle")
    }

    /// Returns a slot; whether it stays with the caller, for the pool is closed.
    fn put(&self, cache: &Cache, slot: Slot) -> bool {
        self.objects.use_one(slot);
        if let Err(refused) = cache.push(slot)
            && cache.settle_push(refused)
        {
            let mut wake = Vec::new();
            let put = self
                .shared
                .put_locked(cache, &mut cache.lock(), slot, &mut wake);
            return put == Put::Closed;
        }
        false
    }

    /// An object is gone. Whether it was the last one of a closed pool.
    fn release_permit(&self) -> bool {
        // SAFETY: a world lives for ever.
        unsafe { Shared::release_permit(NonNull::from(&self.shared), &mut Vec::new()) }
    }

    /// A cache of `count` slots, open.
    fn filled(&self, count: usize) -> alloc::sync::Arc<Cache> {
        let cache = self.cache();
        let slots: Vec<Slot> = (0..count).map(|_| self.get(&cache)).collect();
        for slot in slots {
            assert!(!self.put(&cache, slot));
        }
        cache
    }

    fn drain(&self, cache: &Cache) -> Vec<Slot> {
        let mut slots = Vec::new();
        cache.drain(&mut cache.lock(), |slot| slots.push(slot));
        slots
    }
}

fn model(body: impl Fn() + Sync + Send + 'static) {
    loom::model(body);
}

fn aba() {
    model(|| {
        let storage = Arc::new(Storage::new(Layout::new::<u32>(), 2));
        let objects = Arc::new(Objects::new());
        let stack = Arc::new(IndexStack::new());
        for _ in 0..2 {
            storage.push(&stack, storage.take_vacant().expect("two"));
        }
        let other = {
            let (storage, stack) = (Arc::clone(&storage), Arc::clone(&stack));
            let objects = Arc::clone(&objects);
            thread::spawn(move || {
                let first = storage.pop(&stack);
                let second = storage.pop(&stack);
                if let Some(first) = first {
                    storage.push(&stack, first);
                }
                if let Some(second) = second {
                    objects.use_one(second);
                }
                second.map(Sent)
            })
        };
        let mine = storage.pop(&stack);
        if let Some(mine) = mine {
            objects.use_one(mine);
        }
        let theirs = other.join().unwrap().map(|Sent(slot)| slot);
        let rest = storage.pop(&stack);
        let all: Vec<Slot> = [mine, theirs, rest].into_iter().flatten().collect();
        assert!(
            all.iter()
                .enumerate()
                .all(|(at, one)| !all[..at].contains(one)),
            "two have one slot"
        );
        assert_eq!(all.len(), 2, "a slot is lost");
    });
}

#[test]
fn loom_a_popped_slot_is_owned_once() {
    aba();
}

#[test]
#[should_panic(expected = "two have one slot")]
fn loom_without_a_raised_tag_two_own_a_slot() {
    without(Step::RaiseTag, aba);
}

fn exchange() {
    model(|| {
        let storage = Arc::new(Storage::new(Layout::new::<u32>(), 2));
        let objects = Arc::new(Objects::new());
        let depot = Arc::new(Depot::new());
        let taker = {
            let (storage, depot) = (Arc::clone(&storage), Arc::clone(&depot));
            let objects = Arc::clone(&objects);
            thread::spawn(move || depot.take(&storage, |slot| objects.use_one(slot)))
        };
        let magazine = depot.empty();
        for _ in 0..2 {
            let slot = storage.take_vacant().expect("two");
            objects.use_one(slot);
            depot.load(&magazine, slot);
        }
        depot.put(magazine);
        let mut taken = taker.join().unwrap();
        taken += depot.take(&storage, |slot| objects.use_one(slot));
        assert_eq!(taken, 2, "a slot is lost");
    });
}

#[test]
fn loom_a_magazine_brings_what_was_written() {
    exchange();
}

#[test]
#[should_panic(expected = "the element was made before")]
fn loom_without_publication_a_magazine_brings_old_objects() {
    without(Step::Publish, exchange);
}

fn drain_against_pops() {
    model(|| {
        let world = World::new(4);
        let cache = world.filled(2);
        let thief = {
            let cache = alloc::sync::Arc::clone(&cache);
            thread::spawn(move || {
                let slots = world.drain(&cache);
                slots.iter().for_each(|&slot| world.objects.use_one(slot));
                slots.len()
            })
        };
        let mut mine = 0;
        for _ in 0..2 {
            if let Some(slot) = cache.pop() {
                world.objects.use_one(slot);
                mine += 1;
            }
        }
        let theirs = thief.join().unwrap();
        let mut held = cache.lock();
        cache.normalise(&mut held);
        while let Some(slot) = cache.pop_locked(&mut held) {
            world.objects.use_one(slot);
            mine += 1;
        }
        assert_eq!(mine + theirs, 2, "a slot is lost or doubled");
    });
}

#[test]
fn loom_a_slot_is_popped_or_drained() {
    drain_against_pops();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn loom_without_the_owners_barrier_a_slot_is_popped_and_drained() {
    without(Step::LightBarrier, drain_against_pops);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn loom_without_the_drainers_barrier_a_slot_is_popped_and_drained() {
    without(Step::HeavyBarrier, drain_against_pops);
}

#[test]
#[should_panic(expected = "a slot is lost or doubled")]
fn loom_without_a_note_of_what_was_drained_a_slot_is_doubled() {
    without(Step::NoteDrained, drain_against_pops);
}

fn drain_against_push() {
    model(|| {
        let world = World::new(4);
        let cache = world.filled(1);
        let mine = cache.pop().expect("it was filled");
        let thief = {
            let cache = alloc::sync::Arc::clone(&cache);
            thread::spawn(move || {
                let slots = world.drain(&cache);
                slots.iter().for_each(|&slot| world.objects.use_one(slot));
                slots.len()
            })
        };
        world.objects.use_one(mine);
        let kept = match cache.push(mine) {
            Ok(()) => false,
            Err(refused) => cache.settle_push(refused),
        };
        if kept {
            world.objects.use_one(mine);
        }
        let theirs = thief.join().unwrap();
        let mut held = cache.lock();
        cache.normalise(&mut held);
        let left = usize::from(cache.pop_locked(&mut held).is_some());
        assert_eq!(
            theirs + left + usize::from(kept),
            1,
            "the slot is lost or doubled"
        );
        assert!(
            left == 0 || !cache.is_frozen(&held),
            "a slot lies in a frozen cache"
        );
    });
}

#[test]
fn loom_a_pushed_slot_is_drained_or_comes_back() {
    drain_against_push();
}

#[test]
#[should_panic(expected = "a slot lies in a frozen cache")]
fn loom_without_the_owners_barrier_a_push_goes_unseen() {
    without(Step::LightBarrier, drain_against_push);
}

fn drain_against_push_many() {
    model(|| {
        let world = World::new(4);
        let cache = world.filled(2);
        let mut mine = Vec::new();
        cache.pop_many(2, |slots| mine.extend(slots));
        let thief = {
            let cache = alloc::sync::Arc::clone(&cache);
            thread::spawn(move || {
                let slots = world.drain(&cache);
                slots.iter().for_each(|&slot| world.objects.use_one(slot));
                slots.len()
            })
        };
        mine.iter().for_each(|&slot| world.objects.use_one(slot));
        let kept = match cache.push_many(&mine) {
            Ok(pushed) => !pushed,
            Err(refused) => cache.settle_push(refused),
        };
        if kept {
            mine.iter().for_each(|&slot| world.objects.use_one(slot));
        }
        let theirs = thief.join().unwrap();
        let mut held = cache.lock();
        cache.normalise(&mut held);
        let mut left = 0;
        while cache.pop_locked(&mut held).is_some() {
            left += 1;
        }
        assert_eq!(
            theirs + left + 2 * usize::from(kept),
            2,
            "slots are lost or doubled"
        );
        assert!(
            left == 0 || !cache.is_frozen(&held),
            "a slot lies in a frozen cache"
        );
    });
}

#[test]
fn loom_slots_pushed_together_are_drained_or_come_back() {
    drain_against_push_many();
}

#[test]
#[should_panic(expected = "a slot lies in a frozen cache")]
fn loom_without_the_owners_barrier_a_push_of_many_goes_unseen() {
    without(Step::LightBarrier, drain_against_push_many);
}

fn no_false_empty() {
    model(|| {
        let world = World::new(2);
        let cache = world.filled(2);
        let owner = {
            thread::spawn(move || {
                if let Some(slot) = world.try_get(&cache) {
                    world.put(&cache, slot);
                }
            })
        };
        let mine = world.cache();
        world.get(&mine);
        owner.join().unwrap();
    });
}

#[test]
fn loom_an_idle_object_is_found_in_any_cache() {
    no_false_empty();
}

#[test]
#[should_panic(expected = "an object is idle")]
fn loom_without_emptied_caches_empty_is_a_lie() {
    without(Step::EmptyCaches, no_false_empty);
}

fn bound() {
    model(|| {
        let world = World::new(1);
        let other = { thread::spawn(move || world.shared.reserve()) };
        let mine = world.shared.reserve();
        assert!(mine ^ other.join().unwrap(), "the bound is not exact");
    });
}

#[test]
fn loom_the_bound_is_exact() {
    bound();
}

#[test]
#[should_panic(expected = "the bound is not exact")]
fn loom_a_bound_counted_in_two_steps_is_passed() {
    without(Step::CountAtOnce, bound);
}

fn decay() {
    model(|| {
        let world = World::new(1);
        let cache = world.filled(1);
        let decays = {
            thread::spawn(move || {
                for _ in 0..2 {
                    world.shared.decay(0);
                }
                assert!(!world.shared.has_excess(), "nothing was idle twice");
            })
        };
        let slot = world.get(&cache);
        assert!(!world.put(&cache, slot));
        decays.join().unwrap();
        world.get(&cache);
        assert!(world.try_get(&cache).is_none(), "a slot is doubled");
    });
}

#[test]
fn loom_decay_loses_no_slot() {
    decay();
}

#[test]
#[should_panic(expected = "a slot is doubled")]
fn loom_decay_without_a_note_of_what_was_drained_doubles_a_slot() {
    without(Step::NoteDrained, decay);
}

fn hits() {
    model(|| {
        let world = World::new(2);
        let cache = world.filled(1);
        cache.normalise(&mut cache.lock());
        let before = cache.lock().hits;
        let reader = {
            thread::spawn(move || {
                let mut metrics = Metrics::default();
                world.shared.read_metrics(&mut metrics);
                metrics.hits
            })
        };
        let slot = cache.pop();
        cache.normalise(&mut cache.lock());
        cache.normalise(&mut cache.lock());
        let seen = reader.join().unwrap();
        let after = cache.lock().hits;
        assert_eq!(
            after - before,
            u64::from(slot.is_some()),
            "hits are counted once"
        );
        assert!((before..=after).contains(&seen));
    });
}

#[test]
fn loom_a_hit_is_counted_once() {
    hits();
}

#[test]
#[should_panic(expected = "hits are counted once")]
fn loom_without_a_renewed_budget_hits_are_counted_twice() {
    without(Step::RenewBudget, hits);
}
