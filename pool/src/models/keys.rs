//! Models of keys.

use loom::sync::Arc;
use loom::thread;

use super::{Objects, model};
use crate::key::KeyState;
use crate::sync::{Step, without};

fn key_removal() {
    model(|| {
        let state = Arc::new(KeyState::default());
        let objects = Arc::new(Objects::new());
        let key = state.publish(0);
        let user = {
            let (state, objects) = (Arc::clone(&state), Arc::clone(&objects));
            thread::spawn(move || {
                if !state.enter(key) {
                    return false;
                }
                // SAFETY: loom checks that nobody writes meanwhile.
                objects.0[0].with(|object| unsafe { *object });
                state.leave()
            })
        };
        let mine = state.remove(key).expect("removed once");
        if mine {
            // SAFETY: as above.
            objects.0[0].with_mut(|object| unsafe { *object += 1 });
        }
        let theirs = user.join().unwrap();
        assert!(mine ^ theirs, "one gets the slot");
    });
}

#[test]
fn loom_a_removed_object_is_returned_after_its_last_user() {
    key_removal();
}

#[test]
#[should_panic(expected = "ausality violation")]
fn loom_without_release_a_removed_object_is_changed_under_its_user() {
    without(Step::ReleaseReader, key_removal);
}

fn stale_key(state: fn() -> KeyState) {
    model(move || {
        let state = Arc::new(state());
        let old = state.publish(0);
        let other = {
            let state = Arc::clone(&state);
            thread::spawn(move || state.remove(old).is_some())
        };
        // Whoever removes the object publishes the next one in its slot.
        if state.remove(old).is_some() {
            let new = state.publish(0);
            assert!(
                !other.join().unwrap(),
                "a stale key removed the next object"
            );
            assert!(state.enter(new), "the new key is good");
        } else {
            assert!(other.join().unwrap(), "nobody removed it");
        }
    });
}

#[test]
fn loom_a_stale_key_does_not_reach_the_next_object() {
    stale_key(KeyState::default);
}

#[test]
#[should_panic(expected = "a stale key removed the next object")]
fn loom_without_a_raised_generation_a_stale_key_reaches_the_next_object() {
    without(Step::RaiseGeneration, || stale_key(KeyState::default));
}

#[test]
fn loom_a_stale_key_of_the_last_generation_does_not_reach_the_first() {
    stale_key(KeyState::of_last_generation);
}

#[test]
#[should_panic(expected = "a stale key removed the next object")]
fn loom_without_a_wrap_the_last_key_reaches_the_next_object() {
    without(Step::WrapGeneration, || {
        stale_key(KeyState::of_last_generation);
    });
}
