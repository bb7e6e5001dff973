//! Readers against the writer: publication, reuse of pages, growth of the file
//! (`versions`, `file_len`).

use loom::cell::UnsafeCell;
use loom::sync::Arc;

use super::{NEW, OLD, version};
use crate::file_len::FileLen;
use crate::sync::{Step, without};
use crate::versions::{Trace, Versions};

/// A store of one page a version; a cell in the place of each page's bytes.
struct World {
    versions: Versions,
    pages: [UnsafeCell<u64>; 4],
    /// Length of the file.
    len: FileLen,
}

// SAFETY: the cells are what loom watches: an access that the protocol does not order is
// reported and not undefined.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn new() -> Arc<Self> {
        let world = Self {
            versions: Versions::new(version(OLD)),
            pages: core::array::from_fn(|_| UnsafeCell::new(0)),
            len: FileLen::new(2),
        };
        world.write(1, OLD);
        Arc::new(world)
    }

    fn write(&self, page: u32, value: u64) {
        // SAFETY: loom checks that nobody reads or writes at the same time.
        self.pages[page as usize].with_mut(|page| unsafe { *page = value });
    }

    /// What a reader does: begins, reads its version's page, ends.
    fn read(&self) {
        let (version, slot) = self.versions.begin(Trace::default());
        let page = version.root.page;
        assert!(page < self.len.get(), "a reader stays inside the file");
        // SAFETY: as in `write`.
        let value = self.pages[page as usize].with(|page| unsafe { *page });
        assert_eq!(value, version.txn, "a snapshot is what it was");
        slot.end();
    }

    /// What the writer does: a new version, and then the old page is written anew unless
    /// a snapshot sees it.
    fn replace(&self, look: bool) {
        self.len.set(3);
        self.write(2, NEW);
        self.versions.publish(version(NEW));
        let mut snapshots = Vec::new();
        self.versions.snapshots(&mut snapshots);
        if !look || !snapshots.contains(&OLD) {
            self.write(1, 99);
        }
    }
}

fn race(writer: fn(&World)) {
    loom::model(move || {
        let world = World::new();
        let other = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || writer(&world))
        };
        world.read();
        other.join().unwrap();
    });
}

/// A page is written anew only if no reader can reach it.
#[test]
fn loom_a_page_in_a_snapshot_is_not_reused() {
    race(|world| world.replace(true));
}

/// The same with a writer that does not look at the slots.
#[test]
#[should_panic]
fn loom_reuse_without_looking_is_caught() {
    race(|world| world.replace(false));
}

/// The same with a writer that looks before it publishes: a reader may come between.
#[test]
#[should_panic]
fn loom_looking_before_publishing_is_caught() {
    race(|world| {
        world.len.set(3);
        world.write(2, NEW);
        let mut readers = Vec::new();
        world.versions.held(&mut readers);
        world.versions.publish(version(NEW));
        if readers.is_empty() {
            world.write(1, 99);
        }
    });
}

/// The same with a reader that believes what was published when it came.
#[test]
#[should_panic]
fn loom_a_reader_that_does_not_look_again_is_caught() {
    without(Step::LookAgain, || race(|world| world.replace(true)));
}

/// A version is published after its pages are written.
#[test]
#[should_panic]
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
        let world = World::new();
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
            // SAFETY: as in `write`.
            world.pages[3].with(|page| unsafe { assert_eq!(*page, NEW, "the file has it") });
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
#[should_panic]
fn loom_announcing_before_growing_is_caught() {
    growth(true);
}

/// Two readers, of which one goes while the writer replaces the page of both.
fn two_readers() {
    loom::model(|| {
        let world = World::new();
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
