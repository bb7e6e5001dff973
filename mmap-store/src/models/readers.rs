//! Readers against the writer: publication, reuse of pages, growth of the file
//! (`versions`, `file_len`).

use loom::sync::Arc;

use super::world::{GONE, World};
use super::{NEW, OLD, version};
use crate::sync::{Step, without};
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
