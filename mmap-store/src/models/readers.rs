//! Readers against the writer: publication, reuse of pages, growth of the file
//! (`versions`, `file_len`); what is known of the values in a page (`validated`).

use loom::sync::Arc;

use super::world::{GONE, World};
use super::{NEW, OLD, version, version_at};
use crate::ids::Extent;
use crate::sync::{Step, without};
use crate::validated::{Remembered, Validated};
use crate::versions::Trace;

/// The old version in page 1, and a file that ends behind it.
fn race(writer: fn(&World)) {
    World::race(version(OLD), 2, writer);
}

/// What the writer does: a new version, and then the old page is written anew unless
/// a snapshot sees it.
fn replace(world: &World, look: bool) {
    world.len.set(3);
    world.write(2, NEW);
    world.versions.publish(version(NEW));
    if !look || !world.is_seen(OLD) {
        world.write(1, GONE);
    }
}

/// A page is written anew only if no reader can reach it.
#[test]
fn loom_a_page_in_a_snapshot_is_not_reused() {
    race(|world| replace(world, true));
}

/// The same with a writer that does not look at the slots.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_reuse_without_looking_is_caught() {
    race(|world| replace(world, false));
}

/// The same with a writer that looks before it publishes: a reader may come between.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_looking_before_publishing_is_caught() {
    race(|world| {
        world.len.set(3);
        world.write(2, NEW);
        let mut readers = Vec::new();
        world.versions.held(&mut readers);
        world.versions.publish(version(NEW));
        if readers.is_empty() {
            world.write(1, GONE);
        }
    });
}

/// The same with a reader that believes what was published when it came.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_a_reader_that_does_not_look_again_is_caught() {
    without(Step::LookAgain, || race(|world| replace(world, true)));
}

/// A version is published after its pages are written.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_publishing_before_writing_is_caught() {
    race(|world| {
        world.len.set(3);
        world.versions.publish(version(NEW));
        world.write(2, NEW);
    });
}

/// A version that reaches new pages is published after the file has them.
#[test]
#[should_panic(expected = "inside the file")]
fn loom_publishing_before_growing_is_caught() {
    race(|world| {
        world.write(2, NEW);
        world.versions.publish(version(NEW));
        world.len.set(3);
    });
}

/// The pages of a file that grows are touched after it has grown: the cell stands for
/// the file's end, which the growing writes and a reader of the new page needs.
fn growth(announces_first: bool) {
    loom::model(move || {
        let world = World::new(version(OLD), 2);
        let other = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || {
                if announces_first {
                    world.len.set(4);
                }
                world.write(3, NEW);
                world.len.set(4);
            })
        };
        if world.len.get() > 3 {
            assert_eq!(world.page(3), NEW, "the file has it");
        }
        other.join().unwrap();
    });
}

/// Whoever sees a length finds the file as long.
#[test]
fn loom_the_file_is_as_long_as_announced() {
    growth(false);
}

/// The same with a length that is announced before the file has grown.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_announcing_before_growing_is_caught() {
    growth(true);
}

/// Two readers, of which one goes while the writer replaces the page of both.
fn two_readers() {
    loom::model(|| {
        let world = World::new(version(OLD), 2);
        let other = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || world.read())
        };
        let (_, slot) = world.versions.begin(Trace::default());
        other.join().unwrap();
        let mut snapshots = Vec::new();
        world.versions.publish(version(NEW));
        world.versions.snapshots(&mut snapshots);
        assert_eq!(snapshots, [OLD, NEW], "the first reader is still there");
        slot.end();
    });
}

/// Two readers take different slots, and both are seen.
#[test]
fn loom_two_readers_hold_two_slots() {
    two_readers();
}

/// The same with readers that look whether a slot is free, and then take it.
#[test]
#[should_panic(expected = "still there")]
fn loom_two_readers_in_one_slot_are_caught() {
    without(Step::TakeSlot, two_readers);
}

/// A reader remembers the value of page 1, which is written anew for a third version once
/// no snapshot sees it: what was known of it is not believed of what is there then.
fn remembering() {
    const NEWER: u64 = 3;
    loom::model(|| {
        let world = World::new(version(OLD), 2);
        let validated = Arc::new(Validated::default());
        let value = Remembered::new(1, 0, 8, 0).expect("short");
        let read = |world: &World, validated: &Validated| {
            let (version, slot) = world.versions.begin(Trace::default());
            if version.root.page == 1 {
                let known = validated.knows(value);
                assert!(!known || version.txn == OLD, "known of the bytes before");
                if version.txn == OLD {
                    validated.remember(value);
                }
            }
            slot.end();
        };
        let other = {
            let (world, validated) = (Arc::clone(&world), Arc::clone(&validated));
            loom::thread::spawn(move || {
                replace_and_forget(&world, &validated, NEWER);
            })
        };
        read(&world, &validated);
        read(&world, &validated);
        other.join().unwrap();
        read(&world, &validated);
    });
}

/// Publishes a version in page 2, and then one in page 1 if no snapshot sees the first.
fn replace_and_forget(world: &World, validated: &Validated, newer: u64) {
    world.len.set(3);
    world.write(2, NEW);
    world.versions.publish(version(NEW));
    if !world.is_seen(OLD) {
        let page = Extent { first: 1, pages: 1 };
        validated.forget(page);
        world.write(1, newer);
        world.versions.publish(version_at(newer, 1));
    }
}

/// A page that is written anew is validated anew.
#[test]
fn loom_what_is_written_anew_is_not_known() {
    remembering();
}

/// The same with a writer that does not forget.
#[test]
#[should_panic(expected = "known of the bytes before")]
fn loom_not_forgetting_what_was_valid_is_caught() {
    without(Step::ForgetValidated, remembering);
}
