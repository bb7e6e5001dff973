//! A table against a `BTreeMap`.
//!
//! Promises that are checked: every look-up, both ends, ranges with all kinds of bounds
//! and prefixes, forwards, backwards and from both ends at once, give what the map gives;
//! within the writing transaction, and after the commit.
#![cfg(not(loom))]

use core::ops::Bound;
use std::collections::BTreeMap;

use brickyard_store::{Options, Range, Table};
use proptest::collection::vec;
use proptest::prelude::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u8>, Vec<u8>),
    Insert(Vec<u8>, Vec<u8>),
    Swap(Vec<u8>, Option<Vec<u8>>),
    Delete(Vec<u8>),
    Commit,
}

/// Few different bytes, so that keys share prefixes and meet; some are long.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0_u8), Just(1), Just(0x80), Just(255)];
    prop_oneof![
        8 => vec(byte.clone(), 0..7),
        3 => (0..200_u32).prop_map(|n| format!("https://example.org/{n}").into_bytes()),
        1 => (byte, 1500..2048_usize).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![6 => 0..100_usize, 2 => 1000..2000_usize, 1 => 4000..9000_usize];
    (any::<u8>(), len).prop_map(|(byte, len)| vec![byte; len])
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (key(), value()).prop_map(|(key, value)| Op::Put(key, value)),
        2 => (key(), value()).prop_map(|(key, value)| Op::Insert(key, value)),
        2 => (key(), prop::option::of(value())).prop_map(|(key, new)| Op::Swap(key, new)),
        5 => key().prop_map(Op::Delete),
        1 => Just(Op::Commit),
    ]
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![
        key().prop_map(Bound::Included),
        key().prop_map(Bound::Excluded),
        Just(Bound::Unbounded),
    ]
}

fn slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// What lies between the bounds; nothing if they are the wrong way round, for which
/// `BTreeMap::range` has a panic.
fn between(model: &Model, from: &Bound<Vec<u8>>, to: &Bound<Vec<u8>>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let after = |key: &Vec<u8>| match from {
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
        Bound::Unbounded => true,
    };
    let before = |key: &Vec<u8>| match to {
        Bound::Included(to) => key <= to,
        Bound::Excluded(to) => key < to,
        Bound::Unbounded => true,
    };
    let within = model.iter().filter(|(key, _)| after(key) && before(key));
    within
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Reads a range; `turns` says from which end, over and over.
fn collect(mut range: Range<'_>, turns: &[bool]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut front, mut back) = (Vec::new(), Vec::new());
    for &turn in turns.iter().cycle() {
        let next = if turn {
            range.next()
        } else {
            range.next_back()
        };
        let Some((key, value)) = next.expect("sound") else {
            break;
        };
        let entry = (key.to_vec(), value.to_vec());
        if turn {
            front.push(entry);
        } else {
            back.push(entry);
        }
    }
    front.extend(back.into_iter().rev());
    front
}

fn compare(table: &Table<'_>, model: &Model) {
    assert_eq!(table.len(), model.len() as u64);
    assert_eq!(table.is_empty(), model.is_empty());
    let owned = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
    let ours = |entry: Option<(Vec<u8>, &[u8])>| entry.map(|(key, value)| (key, value.to_vec()));
    let (first, last) = (table.first().expect("sound"), table.last().expect("sound"));
    assert_eq!(ours(first), model.first_key_value().map(owned));
    assert_eq!(ours(last), model.last_key_value().map(owned));
    let keys: Vec<&[u8]> = model.keys().map(Vec::as_slice).collect();
    for (key, value) in keys.iter().zip(table.get_many(&keys).expect("sound")) {
        assert_eq!(value, model.get(*key).map(Vec::as_slice));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_table_is_a_sorted_map(
        ops in vec(op(), 1..300),
        ranges in vec((bound(), bound(), vec(any::<bool>(), 1..5)), 1..12),
        probes in vec(key(), 1..30),
    ) {
        let store = Options::new().open_in_memory().expect("address space");
        let mut model = Model::new();
        let mut txn = store.write().expect("nothing failed yet");
        for op in ops {
            let mut table = txn.table("t").expect("sound");
            match op {
                Op::Put(key, value) => {
                    let new = table.put(&key, &value).expect("sound");
                    prop_assert_eq!(new, model.insert(key, value).is_none());
                }
                Op::Insert(key, value) => {
                    let new = table.insert_if_absent(&key, &value).expect("sound");
                    prop_assert_eq!(new, !model.contains_key(&key));
                    model.entry(key).or_insert(value);
                }
                Op::Swap(key, new) => {
                    let old = model.get(&key).cloned();
                    let wrong = Some(&b"never stored"[..]);
                    prop_assert!(!table.compare_and_swap(&key, wrong, None).expect("sound"));
                    let swapped = table.compare_and_swap(&key, old.as_deref(), new.as_deref());
                    prop_assert!(swapped.expect("sound"));
                    match new {
                        Some(value) => drop(model.insert(key, value)),
                        None => drop(model.remove(&key)),
                    }
                }
                Op::Delete(key) => {
                    let existed = table.delete(&key).expect("sound");
                    prop_assert_eq!(existed, model.remove(&key).is_some());
                }
                Op::Commit => {
                    txn.commit().expect("memory");
                    txn = store.write().expect("nothing failed yet");
                }
            }
        }
        let table = txn.table("t").expect("sound");
        for probe in &probes {
            let found = table.get(probe).expect("sound");
            prop_assert_eq!(found, model.get(probe).map(Vec::as_slice));
        }
        txn.commit().expect("memory");
        prop_assert_eq!(store.check().problems, vec![]);
        let read = store.read();
        let Some(table) = read.table("t").expect("sound") else {
            prop_assert!(model.is_empty());
            return Ok(());
        };
        compare(&table, &model);
        for (from, to, turns) in &ranges {
            let range = table.range::<[u8]>((slice(from), slice(to))).expect("sound");
            prop_assert_eq!(collect(range, turns), between(&model, from, to));
        }
        for probe in &probes {
            prop_assert_eq!(table.get(probe).expect("sound"), model.get(probe).map(Vec::as_slice));
            let with: Vec<_> = model
                .iter()
                .filter(|(key, _)| key.starts_with(probe))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            prop_assert_eq!(collect(table.prefix(probe).expect("sound"), &[true]), with.clone());
            prop_assert_eq!(collect(table.prefix(probe).expect("sound"), &[false]), with);
        }
    }
}
