//! A checkpoint against commits: pages and places in the ring are used anew only when
//! recovery does not need them (`lasting`).

use super::{NEW, OLD, leaked, version};
use crate::lasting::{Lasts, await_end, has_room, kept, take_notice};
use crate::sync::{Mutex, Step, without};
use crate::versions::Versions;

/// Records that the ring takes; each is one long.
const RING: u64 = 3;

#[derive(Clone, Copy, Debug)]
struct Checkpoint {
    txn: u64,
}

impl Lasts for Checkpoint {
    fn txn(&self) -> u64 {
        self.txn
    }

    /// The record of transaction `n` has the position `n - 1`.
    fn ring_start(&self) -> u64 {
        self.txn
    }
}

/// What a power cut leaves. Each step is one change of it, and after each one recovery
/// must work.
struct Disk {
    /// The version that the slot names, and its page.
    slot: (u64, usize),
    /// Which version's page each one is.
    pages: [u64; 6],
    ring: [u64; 3],
    /// The last transaction that was acknowledged.
    acknowledged: u64,
}

impl Disk {
    fn record(&mut self, txn: u64) -> &mut u64 {
        &mut self.ring[usize::try_from(txn % RING).expect("small")]
    }

    fn recovers(&mut self) {
        let (txn, page) = self.slot;
        assert_eq!(self.pages[page], txn, "recovery finds the tree");
        for txn in txn + 1..=self.acknowledged {
            assert_eq!(*self.record(txn), txn, "recovery finds the record");
        }
    }
}

struct Head {
    durable: Checkpoint,
    pinned: Option<u64>,
    /// The newest version.
    version: u64,
    /// Which page each version has.
    homes: [usize; 6],
}

struct World {
    versions: Versions,
    head: Mutex<Head>,
    checkpointing: Mutex<()>,
    done: Mutex<Option<Checkpoint>>,
    disk: Mutex<Disk>,
}

impl World {
    /// Version 1 is in the slot, version 2 in the ring; each has the page of its number.
    fn new() -> Self {
        let mut disk = Disk {
            slot: (OLD, 1),
            pages: [0, 1, 2, 0, 0, 0],
            ring: [0; 3],
            acknowledged: NEW,
        };
        *disk.record(NEW) = NEW;
        let head = Head {
            durable: Checkpoint { txn: OLD },
            pinned: None,
            version: NEW,
            homes: [0, 1, 2, 0, 0, 0],
        };
        Self {
            versions: Versions::new(version(NEW)),
            head: Mutex::new(head),
            checkpointing: Mutex::new(()),
            done: Mutex::new(None),
            disk: Mutex::new(disk),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Disk)) {
        let mut disk = self.disk.lock();
        change(&mut disk);
        disk.recovers();
    }

    /// A checkpoint of the newest version.
    fn checkpoint(&self, slot_first: bool) {
        let mut head = self.head.lock();
        let one = self.checkpointing.lock();
        let txn = head.version;
        let page = head.homes[usize::try_from(txn).expect("small")];
        head.pinned = Some(txn);
        drop(head);
        let done = || *self.done.lock() = Some(Checkpoint { txn });
        if !slot_first {
            done();
        }
        self.change(|disk| disk.slot = (txn, page));
        if slot_first {
            done();
        }
        drop(one);
    }

    /// Transaction `txn`, which replaces the version before it: takes the page of the
    /// version before that, if it is free, or a new one.
    fn commit(&self, txn: u64) {
        let mut guard = self.head.lock();
        let head = &mut *guard;
        take_notice(&self.done, &mut head.durable, &mut head.pinned);
        let mut snapshots = Vec::new();
        self.versions.snapshots(&mut snapshots);
        snapshots.extend(kept(&head.durable, head.pinned));
        if !has_room(&head.durable, txn, RING) {
            if head.pinned.is_none() {
                return;
            }
            await_end(&self.checkpointing);
            take_notice(&self.done, &mut head.durable, &mut head.pinned);
            let has_room = has_room(&head.durable, txn, RING);
            assert!(has_room, "a checkpoint makes room");
        }
        let [replaced, own] = [txn - 2, txn].map(|txn| usize::try_from(txn).expect("small"));
        let page = if snapshots.contains(&(txn - 2)) {
            own
        } else {
            head.homes[replaced]
        };
        (head.version, head.homes[own]) = (txn, page);
        self.change(|disk| disk.pages[page] = txn);
        self.change(|disk| {
            *disk.record(txn) = txn;
            disk.acknowledged = txn;
        });
        self.versions.publish(version(txn));
    }
}

fn race(slot_first: bool) {
    loom::model(move || {
        let world: &World = leaked(World::new());
        let other = loom::thread::spawn(move || world.checkpoint(slot_first));
        (3..6).for_each(|txn| world.commit(txn));
        other.join().unwrap();
    });
}

/// Whenever the power goes while a checkpoint and commits are on their way, recovery
/// finds a whole tree and all records after it. A commit that finds the ring full goes on
/// when the checkpoint ends.
#[test]
fn loom_a_checkpoint_beside_commits_leaves_what_recovery_needs() {
    race(true);
}

/// The same with a checkpoint that says it lasts before it does.
#[test]
#[should_panic(expected = "recovery finds")]
fn loom_a_checkpoint_that_speaks_too_early_is_caught() {
    race(false);
}

/// The same with a writer that does not keep the version of a checkpoint on its way.
#[test]
#[should_panic(expected = "recovery finds the tree")]
fn loom_a_pinned_version_that_is_not_kept_is_caught() {
    without(Step::KeepPinned, || race(true));
}

/// The same with a writer that finds the ring full and does not wait for the checkpoint on
/// its way.
#[test]
#[should_panic(expected = "makes room")]
fn loom_a_full_ring_that_nobody_waits_for_is_caught() {
    without(Step::AwaitCheckpoint, || race(true));
}

/// The same with a writer that does not ask where the ring starts.
#[test]
#[should_panic(expected = "recovery finds the record")]
fn loom_a_ring_that_is_used_too_early_is_caught() {
    without(Step::KeepRing, || race(true));
}
