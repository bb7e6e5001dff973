//! Group commit: one barrier for all who wait.
//!
//! Transactions put their records in a buffer, in order, under the writer's lock. Who
//! wants to be durable and finds nobody at it becomes the leader: it takes the whole
//! buffer, writes and syncs it without a lock, publishes, and wakes the others. Whoever
//! came meanwhile is in the next buffer. What a checkpoint has made durable leaves the
//! buffer unwritten: its place in the ring is free from then on.
//!
//! Who does not want to wait in a thread of its own asks ([`Group::ask`]) and looks later
//! ([`Group::poll`]). A thread that has nothing else to do waits for that
//! ([`Group::next_asked`]) and leads like any other.

use core::task::{Poll, Waker};
use std::io;

use crate::backing::Segment;
use crate::sync::{Condvar, Mutex, MutexGuard, Step, left_out, wait};
use crate::versions::Version;

/// See the module.
#[derive(Debug)]
pub(crate) struct Group {
    state: Mutex<State>,
    /// For those who wait for another leader.
    wake: Condvar,
    /// For the thread that waits to be asked.
    asked: Condvar,
}

#[derive(Debug)]
struct State {
    /// Records not written yet, in order, with the transaction that each belongs to.
    buffer: Vec<(u64, Segment)>,
    /// The version after the last record of the buffer.
    buffered: Option<Version>,
    /// Every transaction up to this one is durable.
    durable: u64,
    /// Somebody is writing.
    leading: bool,
    /// A barrier failed: nothing is durable any more that was not before.
    poisoned: bool,
    /// Bytes of records there have been.
    appended: u64,
    /// The last transaction that somebody asked for.
    asked: u64,
    /// Nobody asks any more.
    ending: bool,
    watchers: Vec<Watcher>,
    /// Watchers there have been.
    tickets: u64,
}

/// A future that wants to be woken.
#[derive(Debug)]
struct Watcher {
    ticket: u64,
    txn: u64,
    waker: Waker,
}

/// Why a transaction is not known to be durable.
#[derive(Debug)]
pub(crate) enum GroupError {
    /// This thread's barrier failed.
    Io(io::Error),
    /// Somebody else's did.
    Poisoned,
}

impl Group {
    pub(crate) fn new(durable: u64) -> Self {
        Self {
            state: Mutex::new(State {
                buffer: Vec::new(),
                buffered: None,
                durable,
                leading: false,
                poisoned: false,
                appended: 0,
                asked: durable,
                ending: false,
                watchers: Vec::new(),
                tickets: 0,
            }),
            wake: Condvar::new(),
            asked: Condvar::new(),
        }
    }

    /// Appends the records of the transaction that made `version`.
    pub(crate) fn append(&self, segments: Vec<Segment>, version: Version) {
        let mut state = self.state.lock();
        for segment in segments {
            state.appended += segment.1.len() as u64;
            state.buffer.push((version.txn, segment));
        }
        state.buffered = Some(version);
    }

    /// Waits until transaction `txn`, which was appended, is durable. `write` writes and
    /// syncs records, `publish` lets readers have a version that is durable.
    pub(crate) fn settle(
        &self,
        txn: u64,
        write: impl Fn(&[Segment]) -> io::Result<()>,
        publish: impl Fn(Version),
    ) -> Result<(), GroupError> {
        let mut state = self.state.lock();
        loop {
            if state.durable >= txn {
                return Ok(());
            }
            if state.poisoned {
                return Err(GroupError::Poisoned);
            }
            if state.leading {
                state = wait(&self.wake, state);
                continue;
            }
            state.leading = true;
            let records = core::mem::take(&mut state.buffer);
            let mut version = state.buffered;
            drop(state);
            let result = write(&join(records));
            if let (Ok(()), Some(version)) = (&result, version) {
                publish(version);
            }
            state = self.state.lock();
            state.leading = false;
            if left_out(Step::AcknowledgeWritten) {
                version = state.buffered;
            }
            match (result, version) {
                (Ok(()), Some(version)) => state.durable = state.durable.max(version.txn),
                (Ok(()), None) => {}
                (Err(error), _) => {
                    state.poisoned = true;
                    self.wake_all(state);
                    return Err(GroupError::Io(error));
                }
            }
            self.wake_all(state);
            state = self.state.lock();
        }
    }

    /// Wakes everybody who may have something to learn from `state`.
    fn wake_all(&self, mut state: MutexGuard<'_, State>) {
        let State {
            durable, poisoned, ..
        } = *state;
        let mut woken = Vec::new();
        if !left_out(Step::WakeFutures) {
            let knows = |watcher: &mut Watcher| poisoned || watcher.txn <= durable;
            woken.extend(state.watchers.extract_if(.., knows));
        }
        drop(state);
        if !left_out(Step::WakeCommitters) {
            self.wake.notify_all();
        }
        // Without the lock, as in `poll`.
        woken.into_iter().for_each(|watcher| watcher.waker.wake());
    }

    /// Waits until nobody writes records. True if somebody did, or had done since the
    /// last call with the same `seen`; and how many bytes of records there have been.
    pub(crate) fn give_way(&self, seen: &mut u64) -> (bool, u64) {
        let mut state = self.state.lock();
        let busy = state.leading || state.durable > *seen;
        while state.leading {
            state = wait(&self.wake, state);
        }
        *seen = state.durable;
        (busy, state.appended)
    }

    /// A checkpoint made every transaction up to `txn` durable.
    pub(crate) fn note_durable(&self, txn: u64) {
        let mut state = self.state.lock();
        state.durable = state.durable.max(txn);
        if !left_out(Step::DropDurable) {
            state.buffer.retain(|&(of, _)| of > txn);
        }
        self.wake_all(state);
    }

    /// Bytes that wait to be written.
    #[cfg(test)]
    pub(crate) fn buffered_bytes(&self) -> usize {
        let state = self.state.lock();
        state.buffer.iter().map(|(_, (_, bytes))| bytes.len()).sum()
    }

    /// Nothing may be written any more.
    pub(crate) fn poison(&self) {
        let mut state = self.state.lock();
        state.poisoned = true;
        self.wake_all(state);
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.state.lock().poisoned
    }

    /// Asks whoever waits in [`Group::next_asked`] to make `txn`, which was appended,
    /// durable.
    pub(crate) fn ask(&self, txn: u64) {
        let mut state = self.state.lock();
        state.asked = state.asked.max(txn);
        self.asked.notify_all();
    }

    /// The next transaction to be made durable; `None` when there will be none any more.
    pub(crate) fn next_asked(&self) -> Option<u64> {
        let mut state = self.state.lock();
        loop {
            if state.ending && left_out(Step::FinishBeforeEnd) {
                return None;
            }
            // After a failed barrier nothing can be done for those who ask.
            if state.asked > state.durable && !state.poisoned {
                return Some(state.asked);
            }
            if state.ending {
                return None;
            }
            state = wait(&self.asked, state);
        }
    }

    /// Nobody asks any more.
    pub(crate) fn end_asking(&self) {
        self.state.lock().ending = true;
        self.asked.notify_all();
    }

    /// Whether `txn` is durable. If not, `waker` is woken when that may have changed;
    /// `ticket` is the caller's, and names the waker that it left last time.
    pub(crate) fn poll(
        &self,
        ticket: &mut Option<u64>,
        txn: u64,
        waker: &Waker,
    ) -> Poll<Result<(), GroupError>> {
        // Cloned before and dropped after the lock is held: a waker may do anything.
        let mut waker = waker.clone();
        let mut state = self.state.lock();
        if state.durable >= txn {
            return Poll::Ready(Ok(()));
        }
        if state.poisoned {
            return Poll::Ready(Err(GroupError::Poisoned));
        }
        let known = |watcher: &&mut Watcher| Some(watcher.ticket) == *ticket;
        if let Some(watcher) = state.watchers.iter_mut().find(known) {
            core::mem::swap(&mut watcher.waker, &mut waker);
        } else {
            state.tickets += 1;
            let ticket = *ticket.insert(state.tickets);
            state.watchers.push(Watcher { ticket, txn, waker });
            return Poll::Pending;
        }
        drop(state);
        Poll::Pending
    }

    /// The future with this ticket is gone.
    pub(crate) fn leave(&self, ticket: u64) {
        let mut state = self.state.lock();
        let place = |watcher: &Watcher| watcher.ticket == ticket;
        let place = state.watchers.iter().position(place);
        let left = place.map(|place| state.watchers.swap_remove(place));
        drop(state);
        // Its waker goes without the lock, as in `poll`.
        drop(left);
    }
}

/// What is to be written, in order; segments that touch become one.
fn join(records: Vec<(u64, Segment)>) -> Vec<Segment> {
    let mut joined: Vec<Segment> = Vec::with_capacity(1);
    for (_, (at, bytes)) in records {
        match joined.last_mut() {
            Some((last, held)) if *last + held.len() as u64 == at => held.extend(bytes),
            _ => joined.push((at, bytes)),
        }
    }
    joined
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::ids::Child;

    fn version(txn: u64) -> Version {
        let root = Child::NONE;
        Version { txn, root }
    }

    /// Without that, a program that never waits for the disk would keep every record.
    #[test]
    fn a_checkpoint_takes_what_it_made_durable_out_of_the_buffer() {
        let group = Group::new(1);
        group.append(vec![(0, vec![2; 8])], version(2));
        group.append(vec![(8, vec![3; 8]), (64, vec![3; 16])], version(3));
        group.note_durable(2);
        assert_eq!(group.buffered_bytes(), 24, "the records of transaction 3");
        group.note_durable(3);
        assert_eq!(group.buffered_bytes(), 0);
    }

    #[test]
    fn records_that_touch_are_written_together() {
        let group = Group::new(1);
        group.append(vec![(0, vec![2; 8])], version(2));
        group.append(vec![(8, vec![3; 8]), (64, vec![3; 16])], version(3));
        let write = |segments: &[Segment]| {
            let places: Vec<_> = segments.iter().map(|(at, b)| (*at, b.len())).collect();
            assert_eq!(places, [(0, 16), (64, 16)]);
            Ok(())
        };
        group.settle(3, write, |_| {}).expect("the disk works");
    }
}
