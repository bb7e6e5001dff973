//! loom models of a file that becomes shorter under readers.
//!
//! The page of the old version lies at the end of the file, that of the new one below it.
//! A page that is cut off is gone: its cell is written to, which loom reports if a reader
//! may be looking at it, and a reader that comes later finds it outside the file.

use loom::cell::UnsafeCell;
use loom::sync::Arc;

use super::{NEW, OLD};
use crate::file_len::FileLen;
use crate::ids::Child;
use crate::versions::{Trace, Version, Versions};

/// Where the pages of the versions are.
const OLD_PAGE: u32 = 2;
const NEW_PAGE: u32 = 1;
/// What a page holds that was cut off.
const GONE: u64 = 99;

fn version(txn: u64, page: u32) -> Version {
    Version {
        txn,
        root: Child { page, crc: page },
    }
}

struct World {
    versions: Versions,
    pages: [UnsafeCell<u64>; 3],
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
            versions: Versions::new(version(OLD, OLD_PAGE)),
            pages: core::array::from_fn(|_| UnsafeCell::new(0)),
            len: FileLen::new(3),
        };
        world.write(OLD_PAGE, OLD);
        Arc::new(world)
    }

    fn write(&self, page: u32, value: u64) {
        // SAFETY: loom checks that nobody reads or writes at the same time.
        self.pages[page as usize].with_mut(|page| unsafe { *page = value });
    }

    /// What a reader does.
    fn read(&self) {
        let (version, slot) = self.versions.begin(Trace::default());
        let page = version.root.page;
        assert!(page < self.len.get(), "a reader stays inside the file");
        // SAFETY: as in `write`.
        let value = self.pages[page as usize].with(|page| unsafe { *page });
        assert_eq!(value, version.txn, "a snapshot is what it was");
        slot.end();
    }

    /// Copies the page down and publishes the copy.
    fn move_down(&self) {
        self.write(NEW_PAGE, NEW);
        self.versions.publish(version(NEW, NEW_PAGE));
    }

    fn is_seen(&self) -> bool {
        let mut snapshots = Vec::new();
        self.versions.snapshots(&mut snapshots);
        snapshots.contains(&OLD)
    }

    /// Cuts the old page off, as `Shared::trim`.
    fn cut(&self) {
        self.len.set(2);
        self.write(OLD_PAGE, GONE);
    }

    /// The file grows over the same place, for a third version.
    fn grow_again(&self) {
        self.write(OLD_PAGE, 3);
        self.len.set(3);
        self.versions.publish(version(3, OLD_PAGE));
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

/// The end of the file is cut off only when no reader reaches it, nor will: one that is
/// about to begin finds the version whose pages lie below.
#[test]
fn loom_a_file_is_cut_above_what_readers_reach() {
    race(|world| {
        world.move_down();
        if !world.is_seen() {
            world.cut();
        }
    });
}

/// The same, and the file grows again: whoever gets the third version finds the file as
/// long as that needs, although its length went down in between.
#[test]
fn loom_a_file_that_was_cut_grows_before_it_is_needed() {
    race(|world| {
        world.move_down();
        if !world.is_seen() {
            world.cut();
            world.grow_again();
        }
    });
}

/// A writer that does not look at the slots.
#[test]
#[should_panic]
fn loom_cutting_without_looking_is_caught() {
    race(|world| {
        world.move_down();
        world.cut();
    });
}

/// A writer that looks before it publishes the copy: a reader may come between.
#[test]
#[should_panic]
fn loom_cutting_after_an_early_look_is_caught() {
    race(|world| {
        let mut readers = Vec::new();
        world.versions.held(&mut readers);
        world.move_down();
        if readers.is_empty() {
            world.cut();
        }
    });
}

/// A version in the part that grew again, published before the file is long enough.
#[test]
#[should_panic(expected = "inside the file")]
fn loom_publishing_before_growing_again_is_caught() {
    race(|world| {
        world.move_down();
        if !world.is_seen() {
            world.cut();
            world.write(OLD_PAGE, 3);
            world.versions.publish(version(3, OLD_PAGE));
            world.len.set(3);
        }
    });
}
