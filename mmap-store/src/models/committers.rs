//! Committers who share a barrier, and checkpoints that end meanwhile (`group`).

use std::io;

use super::{OLD, leaked, version};
use crate::backing::Segment;
use crate::group::Group;
use crate::sync::{AtomicU64, Ordering, Step, without};

/// Two committers and a disk that remembers what it was given. True if one of them, in
/// any interleaving, was told that a transaction lasts before it did. Noted, not
/// asserted, in the model: a committer that dies would take the other one's locks along.
fn a_committer_is_lied_to(writes_first: bool) -> bool {
    let lied = std::sync::Arc::new(std::sync::Mutex::new(false));
    let outcome = std::sync::Arc::clone(&lied);
    loom::model(move || {
        let group = leaked(Group::new(OLD));
        let disk = leaked(AtomicU64::new(OLD));
        let settle = {
            let lied = std::sync::Arc::clone(&lied);
            move |group: &Group, disk: &AtomicU64, txn: u64| {
                let write = |records: &[Segment]| {
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
        group.append(vec![(1, vec![0])], version(2));
        let other = {
            let settle = settle.clone();
            loom::thread::spawn(move || settle(group, disk, 2))
        };
        // Transaction 3 may come while 2 is being written.
        group.append(vec![(2, vec![0])], version(3));
        settle(group, disk, 3);
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

/// The same with a leader that acknowledges what came while it wrote.
#[test]
fn loom_acknowledging_what_came_meanwhile_is_caught() {
    without(Step::AcknowledgeWritten, || {
        assert!(a_committer_is_lied_to(true));
    });
}

/// The same with a leader that wakes nobody.
#[test]
#[should_panic(expected = "deadlock")]
fn loom_a_lost_wake_up_is_caught() {
    without(Step::WakeCommitters, || {
        a_committer_is_lied_to(true);
    });
}

/// A checkpoint that ends while a committer leads or waits.
fn a_checkpoint_ends() {
    loom::model(|| {
        let group = leaked(Group::new(OLD));
        group.append(vec![(1, vec![0])], version(2));
        let other = loom::thread::spawn(move || group.note_durable(2));
        let write = |_: &[Segment]| io::Result::Ok(());
        group.settle(2, write, |_| {}).expect("the disk works");
        other.join().unwrap();
        assert_eq!(group.buffered_bytes(), 0, "nothing is kept");
    });
}

/// The committer gets away, and what the checkpoint made durable is not written to the
/// ring any more: its place may have another owner.
#[test]
fn loom_a_checkpoint_lets_committers_go() {
    a_checkpoint_ends();
}

/// The same with a checkpoint that leaves in the buffer what it made durable.
#[test]
#[should_panic(expected = "nothing is kept")]
fn loom_records_left_by_a_checkpoint_are_caught() {
    without(Step::DropDurable, a_checkpoint_ends);
}
