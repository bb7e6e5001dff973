//! Models of waiting, of the change of mode, and of closing.

use alloc::vec::Vec;
use core::alloc::Layout;
use core::task::Waker;

use loom::sync::Arc;
use loom::thread;

use super::{Sent, World, model};
use crate::chunk::Storage;
use crate::live::Live;
use crate::stack::IndexStack;
use crate::sync::{Step, without};
use crate::wait::Grant;

fn wake_up() {
    model(|| {
        let world = World::new(1);
        let cache = world.cache();
        let slot = world.get(&cache);
        world.shared.become_scarce();
        let waits = { thread::spawn(move || world.shared.wait(Waker::noop(), &mut Vec::new())) };
        let mut wake = Vec::new();
        world.shared.put_shared(slot, &mut wake);
        let waiter = waits.join().unwrap();
        assert!(waiter.poll(Waker::noop()).is_some(), "a wake-up is lost");
    });
}

#[test]
fn loom_a_return_wakes_who_waits() {
    wake_up();
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn loom_without_the_fence_a_wake_up_is_lost() {
    without(Step::ServeFence, wake_up);
}

fn cancel(pass_on: bool) {
    model(move || {
        let world = World::new(1);
        let cache = world.cache();
        let slot = world.get(&cache);
        let waiter = world.shared.wait(Waker::noop(), &mut Vec::new());
        let returns = {
            let slot = Sent(slot);
            thread::spawn(move || {
                let Sent(slot) = { slot };
                world.shared.put_shared(slot, &mut Vec::new());
            })
        };
        if let Some(Grant::Idle(slot)) = world.shared.stop_waiting(&waiter)
            && pass_on
        {
            world.shared.put_shared(slot, &mut Vec::new());
        }
        returns.join().unwrap();
        world.get(&cache);
    });
}

#[test]
fn loom_a_grant_that_nobody_wants_any_more_is_passed_on() {
    cancel(true);
}

#[test]
#[should_panic(expected = "an object is idle")]
fn loom_without_passing_it_on_a_grant_is_lost() {
    cancel(false);
}

fn close() {
    model(|| {
        let world = World::new(2);
        let cache = world.cache();
        let slot = world.get(&cache);
        let returns = {
            let slot = Sent(slot);
            thread::spawn(move || {
                let Sent(slot) = { slot };
                if !world.put(&cache, slot) {
                    return false;
                }
                world.objects.use_one(slot);
                world.release_permit()
            })
        };
        world.shared.close(|slot| {
            world.objects.use_one(slot);
            assert!(!world.release_permit());
        });
        let mine = world.shared.live.release();
        let theirs = returns.join().unwrap();
        assert!(mine ^ theirs, "the pool is freed by one");
    });
}

#[test]
fn loom_a_closed_pool_is_freed_once() {
    close();
}

#[test]
#[should_panic(expected = "the pool is freed by one")]
fn loom_without_marked_caches_a_return_is_lost() {
    without(Step::MarkClosed, close);
}

fn plenty_against_wait() {
    model(|| {
        let world = World::new(2);
        let cache = world.cache();
        let (held, idle) = (world.get(&cache), world.get(&cache));
        world.shared.become_scarce();
        world.shared.put_shared(idle, &mut Vec::new());
        let waits = {
            thread::spawn(move || {
                let slot = world.shared.take_slow(None).is_some();
                (slot, world.shared.wait(Waker::noop(), &mut Vec::new()))
            })
        };
        let returns = {
            let held = Sent(held);
            thread::spawn(move || {
                let Sent(held) = { held };
                assert!(!world.put(&cache, held));
            })
        };
        // A get that tries plenty again, finds nothing, and makes objects scarce again.
        let tried = world.shared.take_slow(None).is_some();
        let (slot, waiter) = waits.join().unwrap();
        returns.join().unwrap();
        let granted = waiter.poll(Waker::noop()).is_some();
        let users = usize::from(tried) + usize::from(slot);
        assert!(
            granted || users == 2,
            "a waiter sleeps beside an idle object"
        );
    });
}

#[test]
fn loom_the_mode_does_not_change_under_a_waiter() {
    plenty_against_wait();
}

#[test]
#[should_panic(expected = "a waiter sleeps beside an idle object")]
fn loom_without_asking_the_queue_a_waiter_sleeps_on() {
    without(Step::AskQueue, plenty_against_wait);
}

/// One of two objects is idle, or may be created, at every moment. Steps as in
/// `take_scarce`, from the second look on.
fn never_empty() {
    model(|| {
        let storage = Arc::new(Storage::new(Layout::new::<u32>(), 2));
        let (loose, live) = (Arc::new(IndexStack::new()), Arc::new(Live::new()));
        for _ in 0..2 {
            assert!(live.reserve(2).is_ok());
        }
        storage.push(&loose, storage.take_vacant().expect("two"));
        let other = {
            let (storage, loose, live) =
                (Arc::clone(&storage), Arc::clone(&loose), Arc::clone(&live));
            thread::spawn(move || {
                live.release();
                if let Some(idle) = storage.pop(&loose) {
                    storage.push(&loose, idle);
                }
                let _ = live.reserve(2);
            })
        };
        if let Err(full) = live.reserve(2) {
            let idle = storage.pop(&loose);
            assert!(idle.is_some() || !live.is_still(full), "empty is a lie");
        }
        other.join().unwrap();
    });
}

#[test]
fn loom_empty_is_said_of_one_moment() {
    never_empty();
}

#[test]
#[should_panic(expected = "empty is a lie")]
fn loom_without_counting_releases_empty_is_said_of_two_moments() {
    without(Step::CountReleases, never_empty);
}
