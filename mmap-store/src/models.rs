//! loom models of the protocols between threads: readers against reuse (`versions`), and
//! group commit (`group`).
//!
//! One model a hazard, each with a twin in which one step is broken: the twin shows that
//! the model would see it.

use std::io;

use loom::cell::UnsafeCell;
use loom::sync::Arc;

use crate::group::Group;
use crate::ids::Child;
use crate::sync::{AtomicU64, Ordering};
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
        let mut readers = Vec::new();
        world.versions.held(&mut readers);
        world.versions.publish(version(NEW));
        if readers.is_empty() {
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

/// Two committers and a disk that remembers what it was given. True if one of them, in
/// any interleaving, was told that a transaction lasts before it did. Noted, not
/// asserted, in the model: a committer that dies would take the other one's locks along.
fn a_committer_is_lied_to(writes_first: bool) -> bool {
    let lied = std::sync::Arc::new(std::sync::Mutex::new(false));
    let outcome = std::sync::Arc::clone(&lied);
    loom::model(move || {
        let group = Arc::new(Group::new(OLD));
        let disk = Arc::new(AtomicU64::new(OLD));
        let settle = {
            let lied = std::sync::Arc::clone(&lied);
            move |group: &Group, disk: &AtomicU64, txn: u64| {
                let write = |records: &[(u64, Vec<u8>)]| {
                    if let (Some((at, bytes)), true) = (records.last(), writes_first) {
                        // AcqRel: what the committers look for below.
                        disk.fetch_max(at + bytes.len() as u64, Ordering::AcqRel);
                    }
                    io::Result::Ok(())
                };
                group.settle(txn, write, |_| {}).expect("the disk works");
                // Acquire: pairs with the write above.
                if disk.load(Ordering::Acquire) < txn {
                    *lied.lock().expect("nobody panics with it") = true;
                }
            }
        };
        // Transactions 2 and 3 are appended in order, under the writer's lock.
        group.append(vec![(1, vec![0])], version(2));
        group.append(vec![(2, vec![0])], version(3));
        let other = {
            let (group, disk, settle) = (Arc::clone(&group), Arc::clone(&disk), settle.clone());
            loom::thread::spawn(move || settle(&group, &disk, 2))
        };
        settle(&group, &disk, 3);
        other.join().unwrap();
    });
    *outcome.lock().expect("nobody panics with it")
}

/// Whoever is told that a transaction lasts is told the truth, leader or not, and nobody
/// waits for ever (loom reports a deadlock).
#[test]
fn loom_a_shared_barrier_comes_before_each_acknowledgement() {
    assert!(!a_committer_is_lied_to(true));
}

/// The same with a leader that acknowledges what it has not written.
#[test]
fn loom_acknowledging_without_a_barrier_is_caught() {
    assert!(a_committer_is_lied_to(false));
}

/// A checkpoint that ends while a committer leads or waits: the committer gets away, and
/// what the checkpoint made durable is not written to the ring any more.
#[test]
fn loom_a_checkpoint_lets_committers_go() {
    loom::model(|| {
        let group = Arc::new(Group::new(OLD));
        group.append(vec![(1, vec![0])], version(2));
        let other = {
            let group = Arc::clone(&group);
            loom::thread::spawn(move || group.note_durable(2))
        };
        let write = |_: &[(u64, Vec<u8>)]| io::Result::Ok(());
        group.settle(2, write, |_| {}).expect("the disk works");
        other.join().unwrap();
        assert_eq!(group.buffered_bytes(), 0, "nothing is kept");
    });
}
