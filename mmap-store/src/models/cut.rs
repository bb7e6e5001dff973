//! loom models of a file that becomes shorter under readers.
//!
//! The page of the old version lies at the end of the file, that of the new one below it.
//! A page that is cut off is gone: its cell is written to, which loom reports if a reader
//! may be looking at it, and a reader that comes later finds it outside the file.

use super::world::{GONE, World};
use super::{NEW, OLD, version_at};

/// Where the pages of the versions are.
const OLD_PAGE: u32 = 2;
const NEW_PAGE: u32 = 1;

/// The old version in the last page of the file.
fn race(writer: fn(&World)) {
    World::race(version_at(OLD, OLD_PAGE), 3, writer);
}

/// Copies the page down and publishes the copy.
fn move_down(world: &World) {
    world.write(NEW_PAGE, NEW);
    world.versions.publish(version_at(NEW, NEW_PAGE));
}

/// Cuts the old page off, as `Shared::trim`.
fn cut(world: &World) {
    world.len.set(2);
    world.write(OLD_PAGE, GONE);
}

/// The file grows over the same place, for a third version.
fn grow_again(world: &World) {
    world.write(OLD_PAGE, 3);
    world.len.set(3);
    world.versions.publish(version_at(3, OLD_PAGE));
}

/// The end of the file is cut off only when no reader reaches it, nor will: one that is
/// about to begin finds the version whose pages lie below.
#[test]
fn loom_a_file_is_cut_above_what_readers_reach() {
    race(|world| {
        move_down(world);
        if !world.is_seen(OLD) {
            cut(world);
        }
    });
}

/// The same, and the file grows again: whoever gets the third version finds the file as
/// long as that needs, although its length went down in between.
#[test]
fn loom_a_file_that_was_cut_grows_before_it_is_needed() {
    race(|world| {
        move_down(world);
        if !world.is_seen(OLD) {
            cut(world);
            grow_again(world);
        }
    });
}

/// A writer that does not look at the slots.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_cutting_without_looking_is_caught() {
    race(|world| {
        move_down(world);
        cut(world);
    });
}

/// A writer that looks before it publishes the copy: a reader may come between.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_cutting_after_an_early_look_is_caught() {
    race(|world| {
        let mut readers = Vec::new();
        world.versions.held(&mut readers);
        move_down(world);
        if readers.is_empty() {
            cut(world);
        }
    });
}

/// A version in the part that grew again, published before the file is long enough.
#[test]
#[should_panic(expected = "inside the file")]
fn loom_publishing_before_growing_again_is_caught() {
    race(|world| {
        move_down(world);
        if !world.is_seen(OLD) {
            cut(world);
            world.write(OLD_PAGE, 3);
            world.versions.publish(version_at(3, OLD_PAGE));
            world.len.set(3);
        }
    });
}
