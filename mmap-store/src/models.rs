//! loom models of the protocols between threads: readers against reuse (`versions`), and
//! group commit (`group`).
//!
//! One model a hazard, each with a twin in which one step is broken: the twin shows that
//! the model would see it.

use std::io;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};

use crate::group::Group;
use crate::ids::Child;
use crate::versions::{Version, Versions};

/// Two versions, each with a root page of its own.
const OLD: u64 = 1;
const NEW: u64 = 2;

fn version(txn: u64) -> Version {
    let page = u32::try_from(txn).expect("small");
    Version {
        txn,
        root: Child { page, crc: page },
    }
}

/// A store of one page a version; a cell in the place of each page's bytes.
struct World {
    versions: Versions,
    pages: [UnsafeCell<u64>; 4],
    /// Length of the file, in pages.
    len: AtomicU64,
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
            len: AtomicU64::new(2),
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
        let (version, slot) = self.versions.begin(0);
        let page = version.root.page;
        // Acquire: pairs with the writer's growth.
        let len = self.len.load(Ordering::Acquire);
        assert!(u64::from(page) < len, "a reader stays inside the file");
        // SAFETY: as in `write`.
        let value = self.pages[page as usize].with(|page| unsafe { *page });
        assert_eq!(value, version.txn, "a snapshot is what it was");
        slot.end();
    }

    /// What the writer does: a new version, and then the old page is written anew unless
    /// a snapshot sees it.
    fn replace(&self, look: bool) {
        self.len.store(3, Ordering::Release);
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
        world.len.store(3, Ordering::Release);
        world.write(2, NEW);
        let mut snapshots = Vec::new();
        world.versions.snapshots(&mut snapshots);
        world.versions.publish(version(NEW));
        snapshots.retain(|&snapshot| snapshot != OLD);
        if snapshots.is_empty() {
            world.write(1, 99);
        }
    });
}

/// A version that reaches new pages is published after the file has them.
#[test]
#[should_panic(expected = "inside the file")]
fn loom_publishing_before_growing_is_caught() {
    race(|world| {
        world.write(2, NEW);
        world.versions.publish(version(NEW));
        world.len.store(3, Ordering::Release);
    });
}

/// Two readers take different slots, and both are seen.
#[test]
fn loom_two_readers_hold_two_slots() {
    loom::model(|| {
        let world = World::new();
        let other = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || world.read())
        };
        let (_, slot) = world.versions.begin(0);
        other.join().unwrap();
        let mut snapshots = Vec::new();
        world.versions.publish(version(NEW));
        world.versions.snapshots(&mut snapshots);
        assert_eq!(snapshots, [OLD, NEW], "the first reader is still there");
        slot.end();
    });
}

/// Two committers and a disk that remembers what it was given.
fn commit_race(barrier_first: bool) {
    loom::model(move || {
        let group = Arc::new(Group::new(OLD));
        let disk = Arc::new(AtomicU64::new(OLD));
        let settle = move |group: &Group, disk: &AtomicU64, txn: u64| {
            let write = |records: &[(u64, Vec<u8>)]| {
                if let (Some((at, bytes)), true) = (records.last(), barrier_first) {
                    disk.fetch_max(at + bytes.len() as u64, Ordering::AcqRel);
                }
                io::Result::Ok(())
            };
            group.settle(txn, write, |_| {}).expect("the disk works");
            let lasting = disk.load(Ordering::Acquire);
            assert!(lasting >= txn, "acknowledged after the barrier");
        };
        // Transactions 2 and 3 are appended in order, under the writer's lock.
        group.append(vec![(1, vec![0])], version(2));
        group.append(vec![(2, vec![0])], version(3));
        let other = {
            let (group, disk) = (Arc::clone(&group), Arc::clone(&disk));
            loom::thread::spawn(move || settle(&group, &disk, 2))
        };
        settle(&group, &disk, 3);
        other.join().unwrap();
    });
}

/// Whoever is told that a transaction lasts is told the truth, leader or not, and nobody
/// waits for ever (loom reports a deadlock).
#[test]
fn loom_a_shared_barrier_comes_before_each_acknowledgement() {
    commit_race(true);
}

/// The same with a leader that acknowledges what it has not written.
#[test]
#[should_panic(expected = "acknowledged after the barrier")]
fn loom_acknowledging_without_a_barrier_is_caught() {
    commit_race(false);
}
