//! Savepoints against a stack of sorted maps.
//!
//! What could go wrong: going back leaves a change behind, or undoes one too many; a node
//! that a savepoint keeps is changed in place; what was given up is given up twice, or
//! never. How it is seen: after each step the table is the model's, after the commit
//! `check` finds every page used once, and the ring, replayed elsewhere, gives the same.
#![cfg(not(loom))]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use brickyard_store::{Options, Savepoint, Store, WriteError, WriteTxn};
use proptest::collection::vec;
use proptest::prelude::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
    Save,
    /// To the savepoint with this index, modulo how many there are.
    RollBack(usize),
    Release(usize),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0..400_u32).prop_map(|n| format!("item/{n:04}").into_bytes()),
        vec(any::<u8>(), 0..4),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => (any::<u8>(), 0..300_usize).prop_map(|(byte, len)| vec![byte; len]),
        1 => (any::<u8>(), 1400..6000_usize).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (key(), value()).prop_map(|(key, value)| Op::Put(key, value)),
        5 => key().prop_map(Op::Delete),
        1 => (key(), key()).prop_map(|(from, to)| Op::DeleteRange(from, to)),
        3 => Just(Op::Save),
        2 => any::<usize>().prop_map(Op::RollBack),
        1 => any::<usize>().prop_map(Op::Release),
    ]
}

/// The model: the state now, and those at the savepoints that live.
#[derive(Debug, Default)]
struct Stack {
    now: Model,
    saved: Vec<(Savepoint, Model)>,
}

impl Stack {
    fn apply(&mut self, txn: &mut WriteTxn<'_>, op: Op) {
        match op {
            Op::Put(key, value) => {
                let mut table = txn.table("t").expect("sound");
                let new = table.put(&key, &value).expect("sound");
                assert_eq!(new, self.now.insert(key, value).is_none());
            }
            Op::Delete(key) => {
                let existed = txn.table("t").expect("sound").delete(&key);
                assert_eq!(existed, Ok(self.now.remove(&key).is_some()));
            }
            Op::DeleteRange(from, to) => {
                let mut table = txn.table("t").expect("sound");
                let gone = table.delete_range::<Vec<u8>>(&from..&to);
                let before = self.now.len();
                self.now.retain(|key, _| *key < from || *key >= to);
                assert_eq!(gone, Ok((before - self.now.len()) as u64));
            }
            Op::Save => {
                let savepoint = txn.savepoint().expect("nothing failed");
                self.saved.push((savepoint, self.now.clone()));
            }
            Op::RollBack(index) if !self.saved.is_empty() => {
                let index = index % self.saved.len();
                self.saved.truncate(index + 1);
                let (savepoint, state) = &self.saved[index];
                txn.roll_back(savepoint).expect("it lives");
                self.now.clone_from(state);
            }
            Op::Release(index) if !self.saved.is_empty() => {
                let index = index % self.saved.len();
                let mut given_up = self.saved.drain(index..);
                let (first, _) = given_up.next().expect("the index is below the length");
                txn.release(first).expect("it lives");
                for (later, _) in given_up {
                    assert_eq!(txn.roll_back(&later), Err(WriteError::NoSavepoint));
                }
            }
            Op::RollBack(_) | Op::Release(_) => {}
        }
        let table = txn.table("t").expect("sound");
        assert_eq!(table.len(), self.now.len() as u64);
    }
}

fn assert_holds(store: &Store, model: &Model) {
    let read = store.read();
    let mut found = Model::new();
    if let Some(table) = read.table("t").expect("sound") {
        let mut range = table.range::<[u8]>(..).expect("sound");
        while let Some((key, value)) = range.next().expect("sound") {
            found.insert(key.to_vec(), value.to_vec());
        }
    }
    assert!(found == *model, "{} entries, {}", found.len(), model.len());
    assert_eq!(store.check().problems, []);
}

/// What opening finds after a power cut right now: the files as they are.
fn assert_replays(dir: &Path, model: &Model) {
    let copy = tempfile::tempdir().expect("a temporary folder");
    for name in ["tree", "ring", "lock"] {
        fs::copy(dir.join(name), copy.path().join(name)).expect("room for a copy");
    }
    assert_holds(&Store::open(copy.path()).expect("it opens"), model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn going_back_undoes_what_was_done_since_and_nothing_else(
        txns in vec((vec(op(), 1..120), any::<bool>()), 1..5),
        // With the small ring long transactions have no record, or lose it half way.
        small in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let ring = if small { 16 << 10 } else { 1 << 20 };
        let store = Options::new().ring_bytes(ring).open(dir.path()).expect("a new store");
        let mut stack = Stack::default();
        for (ops, commits) in txns {
            let before = stack.now.clone();
            let mut txn = store.write().expect("nothing failed yet");
            for op in ops {
                stack.apply(&mut txn, op);
            }
            for (key, value) in &stack.now {
                let table = txn.table("t").expect("sound");
                prop_assert_eq!(table.get(key).expect("sound"), Some(value.as_slice()));
            }
            stack.saved.clear();
            if commits {
                txn.commit().expect("room");
            } else {
                drop(txn);
                stack.now = before;
            }
            assert_holds(&store, &stack.now);
        }
        assert_replays(dir.path(), &stack.now);
    }
}

#[test]
fn a_savepoint_of_another_transaction_is_an_error() {
    let (one, other) = (Options::new(), Options::new());
    let (one, other) = (one.open_in_memory(), other.open_in_memory());
    let (one, other) = (one.expect("address space"), other.expect("address space"));
    let mut txn = one.write().expect("nothing failed yet");
    let savepoint = txn.savepoint().expect("nothing failed yet");
    let mut stranger = other.write().expect("nothing failed yet");
    let _own = stranger.savepoint().expect("nothing failed yet");
    assert_eq!(stranger.roll_back(&savepoint), Err(WriteError::NoSavepoint));
    drop(txn);
    let mut txn = one.write().expect("nothing failed yet");
    let _own = txn.savepoint().expect("nothing failed yet");
    assert_eq!(txn.roll_back(&savepoint), Err(WriteError::NoSavepoint));
    assert_eq!(txn.release(savepoint), Err(WriteError::NoSavepoint));
}

/// Going back must not cost a copy of the transaction: ten thousand savepoints around
/// single changes of a large one would take minutes.
#[test]
fn going_back_costs_what_was_done_since() {
    let store = Options::new().open_in_memory().expect("address space");
    let mut txn = store.write().expect("nothing failed yet");
    for n in 0..50_000_u32 {
        let mut table = txn.table("t").expect("sound");
        table.put(&n.to_be_bytes(), &[7; 100]).expect("sound");
    }
    let begin = std::time::Instant::now();
    for n in 0..10_000_u32 {
        let savepoint = txn.savepoint().expect("nothing failed yet");
        let key = (n * 5).to_be_bytes();
        let mut table = txn.table("t").expect("sound");
        table.delete(&key).expect("sound");
        txn.roll_back(&savepoint).expect("it lives");
        txn.release(savepoint).expect("it lives");
    }
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
    txn.commit().expect("memory");
    let read = store.read();
    let table = read.table("t").expect("sound").expect("it was made");
    assert_eq!(table.len(), 50_000);
    assert_eq!(store.check().problems, []);
}
