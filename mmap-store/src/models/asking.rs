//! Commits that wait in no thread of their own: the thread that leads for them, the
//! futures that it wakes, and the close that ends it (`group`).

use core::task::{Poll, Waker};
use std::io;
use std::sync::Arc as StdArc;
use std::task::Wake;

use loom::thread::JoinHandle;

use super::{OLD, leaked, version};
use crate::backing::Segment;
use crate::group::Group;
use crate::sync::{AtomicU64, Condvar, Mutex, Ordering, Step, wait, without};

/// The store's thread, and the disk that it writes to.
fn leader(group: &'static Group, disk: &'static AtomicU64) -> JoinHandle<()> {
    loom::thread::spawn(move || {
        while let Some(txn) = group.next_asked() {
            let write = |records: &[Segment]| {
                for (at, bytes) in records {
                    // AcqRel: pairs with the loads of the models.
                    disk.fetch_max(at + bytes.len() as u64, Ordering::AcqRel);
                }
                io::Result::Ok(())
            };
            group.settle(txn, write, |_| {}).expect("the disk works");
        }
    })
}

/// Wakes the thread of the model that polls.
#[derive(Debug)]
struct Bell {
    rung: Mutex<bool>,
    wake: Condvar,
}

impl Wake for Bell {
    fn wake(self: StdArc<Self>) {
        *self.rung.lock() = true;
        self.wake.notify_all();
    }
}

/// Polls until the transaction is durable.
fn block_on(group: &Group, txn: u64) {
    let bell = StdArc::new(Bell {
        rung: Mutex::new(false),
        wake: Condvar::new(),
    });
    let waker = Waker::from(StdArc::clone(&bell));
    let mut ticket = None;
    loop {
        if let Poll::Ready(result) = group.poll(&mut ticket, txn, &waker) {
            result.expect("the disk works");
            return;
        }
        let mut rung = bell.rung.lock();
        while !*rung {
            rung = wait(&bell.wake, rung);
        }
        *rung = false;
    }
}

/// A commit that is asked for, with a future that waits for it.
fn a_future_waits() {
    loom::model(|| {
        let group = leaked(Group::new(OLD));
        let disk = leaked(AtomicU64::new(OLD));
        let thread = leader(group, disk);
        group.append(vec![(1, vec![0])], version(2));
        group.ask(2);
        block_on(group, 2);
        // Acquire: pairs with the write of the leader.
        assert!(disk.load(Ordering::Acquire) >= 2, "it lasts");
        group.end_asking();
        thread.join().unwrap();
    });
}

/// A future resolves, and only when its transaction lasts.
#[test]
fn loom_a_future_resolves_when_its_commit_lasts() {
    a_future_waits();
}

/// The same with a leader that wakes no futures.
#[test]
#[should_panic(expected = "deadlock")]
fn loom_a_future_that_is_not_woken_is_caught() {
    without(Step::WakeFutures, a_future_waits);
}

/// A checkpoint makes durable what a future waits for.
fn a_checkpoint_ends() {
    loom::model(|| {
        let group = leaked(Group::new(OLD));
        group.append(vec![(1, vec![0])], version(2));
        let other = loom::thread::spawn(move || group.note_durable(2));
        block_on(group, 2);
        other.join().unwrap();
    });
}

/// A future is woken by a checkpoint, too.
#[test]
fn loom_a_checkpoint_wakes_futures() {
    a_checkpoint_ends();
}

/// The same with a checkpoint that wakes none.
#[test]
#[should_panic(expected = "deadlock")]
fn loom_a_checkpoint_that_wakes_no_future_is_caught() {
    without(Step::WakeFutures, a_checkpoint_ends);
}

/// The store is closed while the thread may not have begun: readers and committers are
/// gone, since they borrow the store, and what they asked for is left.
fn close_comes_at_once() {
    loom::model(|| {
        let group = leaked(Group::new(OLD));
        let disk = leaked(AtomicU64::new(OLD));
        let thread = leader(group, disk);
        group.append(vec![(1, vec![0])], version(2));
        group.ask(2);
        group.end_asking();
        thread.join().unwrap();
        // Acquire: pairs with the write of the leader.
        assert!(disk.load(Ordering::Acquire) >= 2, "close keeps promises");
    });
}

/// The thread does what it was asked for before it ends, and it ends.
#[test]
fn loom_close_settles_what_was_asked_for() {
    close_comes_at_once();
}

/// The same with a thread that ends as soon as it may.
#[test]
#[should_panic(expected = "close keeps promises")]
fn loom_a_thread_that_ends_too_early_is_caught() {
    without(Step::FinishBeforeEnd, close_comes_at_once);
}

/// A future that is dropped while it may be woken leaves nothing behind, and the other
/// one that shares its barrier resolves.
#[test]
fn loom_a_dropped_future_disturbs_nobody() {
    loom::model(|| {
        let group = leaked(Group::new(OLD));
        let disk = leaked(AtomicU64::new(OLD));
        let thread = leader(group, disk);
        group.append(vec![(1, vec![0])], version(2));
        group.append(vec![(2, vec![0])], version(3));
        let mut ticket = None;
        let polled = group.poll(&mut ticket, 2, Waker::noop());
        assert!(polled.is_pending(), "nobody was asked yet");
        group.ask(3);
        group.leave(ticket.expect("a pending future has one"));
        block_on(group, 3);
        group.end_asking();
        thread.join().unwrap();
    });
}
