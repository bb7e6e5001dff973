//! Models of what a thread leaves: in its cache when a pop was in vain, and as it exits.

use alloc::vec::Vec;
use core::ptr::NonNull;

use loom::thread;

use super::{World, model};
use crate::shared::Shared;
use crate::sync::{Step, without};

fn exit_against_get() {
    model(|| {
        let world = World::new(1);
        let cache = world.filled(1);
        let leaver = {
            thread::spawn(move || {
                // SAFETY: the world outlives both threads.
                unsafe { Shared::abandon(NonNull::from(&world.shared), &cache) };
            })
        };
        let cache = world.cache();
        let slot = world.get(&cache);
        leaver.join().unwrap();
        assert!(!world.put(&cache, slot));
        world.get(&cache);
    });
}

#[test]
fn loom_what_an_exiting_thread_leaves_is_found() {
    exit_against_get();
}

#[test]
#[should_panic(expected = "an object is idle")]
fn loom_without_emptied_caches_what_an_exiting_thread_has_is_not_found() {
    without(Step::EmptyCaches, exit_against_get);
}

/// A thread whose pops are undone, for another one empties its cache, and that does not come
/// to the slow path afterwards.
fn in_vain(exits: bool) {
    model(move || {
        let world = World::new(2);
        let cache = world.filled(2);
        let other = {
            thread::spawn(move || {
                let mut got = Vec::with_capacity(2);
                cache.pop_many(2, |slots| got.extend(slots));
                if exits {
                    // SAFETY: the world outlives both threads.
                    unsafe { Shared::abandon(NonNull::from(&world.shared), &cache) };
                } else {
                    world.shared.surrender(&cache);
                }
                got.into_iter().for_each(|slot| {
                    world.objects.use_one(slot);
                    world.shared.put_shared(slot, &mut Vec::new());
                });
            })
        };
        let mine = world.cache();
        let mut found = usize::from(world.try_get(&mine).is_some());
        other.join().unwrap();
        while found < 2 && world.try_get(&mine).is_some() {
            found += 1;
        }
        assert_eq!(found, 2, "a slot is idle, and nobody finds it");
    });
}

#[test]
fn loom_who_popped_in_vain_leaves_nothing_behind() {
    in_vain(false);
}

#[test]
#[should_panic(expected = "nobody finds it")]
fn loom_without_surrender_slots_stay_in_a_frozen_cache() {
    without(Step::Surrender, || in_vain(false));
}

#[test]
fn loom_who_exits_after_it_popped_in_vain_leaves_loose_slots() {
    in_vain(true);
}

#[test]
#[should_panic(expected = "nobody finds it")]
fn loom_without_loose_slots_at_exit_a_magazine_hides_them() {
    without(Step::LooseAtExit, || in_vain(true));
}
