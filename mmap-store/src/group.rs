//! Group commit: one barrier for all who wait.
//!
//! Transactions put their records in a buffer, in order, under the writer's lock. Who
//! wants to be durable and finds nobody at it becomes the leader: it takes the whole
//! buffer, writes and syncs it without a lock, publishes, and wakes the others. Whoever
//! came meanwhile is in the next buffer. What a checkpoint has made durable leaves the
//! buffer unwritten: its place in the ring is free from then on.

use std::io;

use crate::backing::Segment;
use crate::sync::{Condvar, Mutex, wait};
use crate::versions::Version;

/// See the module.
#[derive(Debug)]
pub(crate) struct Group {
    state: Mutex<State>,
    wake: Condvar,
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
            }),
            wake: Condvar::new(),
        }
    }

    /// Appends the records of the transaction that made `version`.
    pub(crate) fn append(&self, segments: Vec<Segment>, version: Version) {
        let mut state = self.state.lock();
        let segments = segments.into_iter();
        state
            .buffer
            .extend(segments.map(|segment| (version.txn, segment)));
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
            let version = state.buffered;
            drop(state);
            let result = write(&join(records));
            if let (Ok(()), Some(version)) = (&result, version) {
                publish(version);
            }
            state = self.state.lock();
            state.leading = false;
            match (result, version) {
                (Ok(()), Some(version)) => state.durable = state.durable.max(version.txn),
                (Ok(()), None) => {}
                (Err(error), _) => {
                    state.poisoned = true;
                    self.wake.notify_all();
                    return Err(GroupError::Io(error));
                }
            }
            self.wake.notify_all();
        }
    }

    /// Waits until nobody writes records. True if somebody did, or had done since the
    /// last call with the same `seen`.
    pub(crate) fn give_way(&self, seen: &mut u64) -> bool {
        let mut state = self.state.lock();
        let busy = state.leading || state.durable > *seen;
        while state.leading {
            state = wait(&self.wake, state);
        }
        *seen = state.durable;
        busy
    }

    /// A checkpoint made every transaction up to `txn` durable.
    pub(crate) fn note_durable(&self, txn: u64) {
        let mut state = self.state.lock();
        state.durable = state.durable.max(txn);
        state.buffer.retain(|&(of, _)| of > txn);
        self.wake.notify_all();
    }

    /// Bytes that wait to be written.
    #[cfg(test)]
    pub(crate) fn buffered_bytes(&self) -> usize {
        let state = self.state.lock();
        state.buffer.iter().map(|(_, (_, bytes))| bytes.len()).sum()
    }

    /// Nothing may be written any more.
    pub(crate) fn poison(&self) {
        self.state.lock().poisoned = true;
        self.wake.notify_all();
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.state.lock().poisoned
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
