//! The steps that have to do with keys, and what the oracle knows of keys.

use brickyard_pool::{Key, Keyed};

use crate::op::Pick;
use crate::pool_driver::{Driver, Held};
use crate::pool_object::{Recycler, Tracked};
use crate::pool_op::{On, PutFault};
use crate::pool_promise::{promise, promise_eq};

/// References that a program keeps at once.
const MOST_READERS: usize = 24;
/// Stale keys that are remembered.
const MOST_STALE: usize = 64;

/// An object that is under a key, or was and still has readers.
#[derive(Debug)]
struct Entry {
    key: Key,
    /// [`Tracked::id`] of the object.
    id: usize,
    readers: usize,
    removed: bool,
}

/// What the oracle knows of keys.
#[derive(Debug, Default)]
pub(crate) struct Keys<'p> {
    entries: Vec<Entry>,
    readers: Vec<Keyed<'p, Tracked, Recycler>>,
    stale: Vec<Key>,
}

impl Keys<'_> {
    /// Objects under keys or in the hands of readers.
    pub(crate) fn objects(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn has_readers(&self) -> bool {
        !self.readers.is_empty()
    }

    fn add(&mut self, key: Key, id: usize) {
        promise!(
            self.entries.iter().all(|one| one.key != key) && !self.stale.contains(&key),
            "a key came twice"
        );
        self.entries.push(Entry {
            key,
            id,
            readers: 0,
            removed: false,
        });
    }

    /// The key's place among the entries that are not removed.
    fn pick_valid(&self, pick: Pick) -> Option<usize> {
        let valid = (0..self.entries.len()).filter(|&at| !self.entries[at].removed);
        let valid: Vec<_> = valid.collect();
        pick.index(valid.len()).map(|index| valid[index])
    }
}

impl<'p> Driver<'_, 'p> {
    pub(crate) fn insert(&mut self, on: On) {
        let (fits, object) = self.foreign();
        object.begin_use();
        let id = object.id();
        let pool = self.pool.pool();
        let key = self.threads.run(on, move || pool.insert(object).ok());
        let key = key.expect("no fault is armed");
        promise_eq!(key.is_some(), fits, "insert within the bound");
        if let Some(key) = key {
            self.attached += 1;
            self.keys.add(key, id);
        }
    }

    pub(crate) fn publish(&mut self, on: On, pick: Pick) {
        match self.pick_held(pick) {
            Some(Held::Borrowed(guard)) => {
                let id = guard.id();
                let key = self.threads.run(on, move || guard.publish());
                self.keys.add(key.expect("no fault is armed"), id);
            }
            // Without the pool there is no key.
            Some(owned) => self.held.push(owned),
            None => {}
        }
    }

    pub(crate) fn lookup(&mut self, on: On, pick: Pick) {
        let Some(at) = self.keys.pick_valid(pick) else {
            return;
        };
        if self.keys.readers.len() == MOST_READERS {
            return;
        }
        let (pool, key) = (self.pool, self.keys.entries[at].key);
        let bits = key.to_bits();
        let found = self
            .threads
            .run(on, move || pool.lookup(Key::from_bits(bits)));
        let Some(reader) = found.expect("no fault is armed") else {
            promise!(false, "a valid key found nothing");
            return;
        };
        let entry = &mut self.keys.entries[at];
        promise_eq!(
            (reader.key(), reader.id()),
            (key, entry.id),
            "a key's object"
        );
        promise!(reader.is_in_use(), "an object under a key was reset");
        entry.readers += 1;
        self.keys.readers.push(reader);
    }

    pub(crate) fn leave(&mut self, on: On, pick: Pick, fault: PutFault) {
        let Some(index) = pick.index(self.keys.readers.len()) else {
            return;
        };
        let reader = self.keys.readers.remove(index);
        promise!(reader.is_in_use(), "an object was reset under its reader");
        let key = reader.key();
        let at = self.keys.entries.iter().position(|one| one.key == key);
        let at = at.expect("the oracle knows the key of each reader");
        let entry = &mut self.keys.entries[at];
        entry.readers -= 1;
        let last = entry.removed && entry.readers == 0;
        self.give_up(on, fault, last.then_some(at), move || drop(reader));
    }

    pub(crate) fn remove(&mut self, on: On, pick: Pick, fault: PutFault) {
        let Some(at) = self.keys.pick_valid(pick) else {
            return;
        };
        let (pool, entry) = (self.pool, &mut self.keys.entries[at]);
        entry.removed = true;
        let (key, last) = (entry.key, entry.readers == 0);
        if self.keys.stale.len() == MOST_STALE {
            self.keys.stale.remove(0);
        }
        self.keys.stale.push(key);
        self.give_up(on, fault, last.then_some(at), move || {
            promise!(pool.remove(key), "a valid key was not removed");
        });
    }

    /// Runs `step`, which returns the object of the entry `last` if there is one, and else
    /// nothing.
    fn give_up(
        &mut self,
        on: On,
        fault: PutFault,
        last: Option<usize>,
        step: impl FnOnce() + Send + 'p,
    ) {
        let before = self.before();
        if last.is_some() {
            self.ledger.arm_put(fault);
        }
        let ended = self.threads.run(on, step);
        match last {
            Some(at) => {
                self.keys.entries.remove(at);
                self.expect_return(before, fault, ended.is_err());
            }
            None => {
                promise_eq!(ended, Ok(()));
                self.expect_resets(before, 0);
                promise_eq!(self.dropped_since(before), 0, "dropped under a reader");
            }
        }
    }

    pub(crate) fn stale(&mut self, on: On, pick: Pick) {
        let Some(index) = pick.index(self.keys.stale.len()) else {
            return;
        };
        let (pool, key) = (self.pool, self.keys.stale[index]);
        let found = self
            .threads
            .run(on, move || (pool.lookup(key).is_some(), pool.remove(key)));
        let (found, removed) = found.expect("no fault is armed");
        promise!(!found, "a stale key found an object");
        promise!(!removed, "a stale key was removed again");
    }

    pub(crate) fn list_keys(&mut self, on: On) {
        let pool = self.pool;
        let listed = self.threads.run(on, move || {
            let mut listed: Vec<_> = pool.keyed().map(|one| one.key()).collect();
            listed.sort();
            listed
        });
        let valid = self.keys.entries.iter().filter(|one| !one.removed);
        let mut valid: Vec<_> = valid.map(|one| one.key).collect();
        valid.sort();
        promise_eq!(listed, Ok(valid), "keys are listed");
    }
}
