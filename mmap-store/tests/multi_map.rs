//! A multi-map against a map of sets.
//!
//! Promises that are checked: what `insert`, `remove` and `remove_all` return; the values
//! of each key from either end, `contains`, `count`, `len`, ranges with all kinds of
//! bounds; within the writing transaction, after the commit, and after a crash. Bytes are
//! few, zero among them, so that keys are prefixes of one another and of pairs.
#![cfg(not(loom))]

use core::ops::Bound;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use brickyard_store::{
    MAX_KEY_BYTES, MultiMap, Options, Pairs, ReadError, Store, TableError, Values, WriteError,
};
use proptest::collection::vec;
use proptest::prelude::*;

type Model = BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>;

#[derive(Clone, Debug)]
enum Op {
    Insert(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>, Vec<u8>),
    RemoveAll(Vec<u8>),
    Commit,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => Just(0_u8), 2 => Just(1), 1 => Just(255), 1 => Just(7)];
    prop_oneof![
        12 => vec(byte.clone(), 0..4),
        1 => (byte, 300..500_usize).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (bytes(), bytes()).prop_map(|(key, value)| Op::Insert(key, value)),
        4 => (bytes(), bytes()).prop_map(|(key, value)| Op::Remove(key, value)),
        1 => bytes().prop_map(Op::RemoveAll),
        1 => Just(Op::Commit),
    ]
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![
        bytes().prop_map(Bound::Included),
        bytes().prop_map(Bound::Excluded),
        Just(Bound::Unbounded),
    ]
}

fn slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

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
    let pairs = within.flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
    pairs
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The values, taken in turns from both ends.
fn collect(mut values: Values<'_>) -> Result<Vec<Vec<u8>>, ReadError> {
    let (mut front, mut back) = (Vec::new(), Vec::new());
    while let Some(value) = values.next()? {
        front.push(value.to_vec());
        let Some(value) = values.next_back()? else {
            break;
        };
        back.push(value.to_vec());
    }
    front.extend(back.into_iter().rev());
    Ok(front)
}

fn collect_pairs(mut pairs: Pairs<'_>, forwards: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    loop {
        let next = if forwards {
            pairs.next()
        } else {
            pairs.next_back()
        };
        let Some((key, value)) = next.expect("sound") else {
            break;
        };
        found.push((key.to_vec(), value.to_vec()));
    }
    if !forwards {
        found.reverse();
    }
    found
}

fn len(model: &Model) -> u64 {
    model.values().map(|values| values.len() as u64).sum()
}

fn compare(map: &MultiMap<'_>, model: &Model, probes: &[(Vec<u8>, Vec<u8>)]) {
    assert_eq!(map.len(), len(model));
    assert_eq!(map.is_empty(), model.is_empty());
    for (key, value) in probes {
        let expected: Vec<_> = model.get(key).into_iter().flatten().cloned().collect();
        assert_eq!(map.count(key).expect("sound"), expected.len() as u64);
        assert_eq!(
            map.contains(key, value).expect("sound"),
            expected.contains(value)
        );
        assert_eq!(
            collect(map.get(key).expect("sound")).expect("sound"),
            expected
        );
    }
    let all = between(model, &Bound::Unbounded, &Bound::Unbounded);
    assert_eq!(
        collect_pairs(map.range::<[u8]>(..).expect("sound"), true),
        all
    );
    assert_eq!(
        collect_pairs(map.range::<[u8]>(..).expect("sound"), false),
        all
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_multi_map_is_a_map_of_sets(
        ops in vec(op(), 1..250),
        probes in vec((bytes(), bytes()), 1..20),
        ranges in vec((bound(), bound()), 1..12),
    ) {
        let store = Options::new().open_in_memory().expect("address space");
        let mut model = Model::new();
        let mut txn = store.write().expect("nothing failed yet");
        for op in ops {
            let mut map = txn.multi_map("m").expect("sound");
            match op {
                Op::Insert(key, value) => {
                    let new = map.insert(&key, &value).expect("sound");
                    prop_assert_eq!(new, model.entry(key).or_default().insert(value));
                }
                Op::Remove(key, value) => {
                    let existed = map.remove(&key, &value).expect("sound");
                    let values = model.get_mut(&key);
                    prop_assert_eq!(existed, values.is_some_and(|values| values.remove(&value)));
                }
                Op::RemoveAll(key) => {
                    let removed = map.remove_all(&key).expect("sound");
                    let values = model.remove(&key).unwrap_or_default();
                    prop_assert_eq!(removed, values.len() as u64);
                }
                Op::Commit => {
                    txn.commit().expect("memory");
                    txn = store.write().expect("nothing failed yet");
                }
            }
        }
        model.retain(|_, values| !values.is_empty());
        let map = txn.multi_map("m").expect("sound");
        prop_assert_eq!(map.len(), len(&model));
        for (key, value) in &probes {
            let expected: Vec<_> = model.get(key).into_iter().flatten().cloned().collect();
            prop_assert_eq!(map.count(key).expect("sound"), expected.len() as u64);
            prop_assert_eq!(map.contains(key, value).expect("sound"), expected.contains(value));
            let found = collect(map.get(key).expect("sound")).expect("sound");
            prop_assert_eq!(found, expected);
        }
        for (from, to) in &ranges {
            let pairs = map.range::<[u8]>((slice(from), slice(to))).expect("sound");
            prop_assert_eq!(collect_pairs(pairs, true), between(&model, from, to));
        }
        txn.commit().expect("memory");
        prop_assert_eq!(store.check().problems, vec![]);
        let read = store.read();
        let map = read.multi_map("m").expect("sound").expect("made");
        compare(&map, &model, &probes);
        for (from, to) in &ranges {
            let pairs = map.range::<[u8]>((slice(from), slice(to))).expect("sound");
            prop_assert_eq!(collect_pairs(pairs, false), between(&model, from, to));
        }
    }
}

#[test]
fn a_multi_map_and_a_table_are_not_taken_for_one_another() {
    let store = Options::new().open_in_memory().expect("address space");
    let mut write = store.write().expect("sound");
    write.multi_map("m").expect("new");
    write
        .table("t")
        .expect("new")
        .put(b"k", b"v")
        .expect("sound");
    let error = write.table("m").expect_err("a multi-map");
    assert!(matches!(
        error,
        WriteError::Table(TableError::Mismatch { .. })
    ));
    assert_eq!(
        error.to_string(),
        "table `m` is a multi-map from bytes to bytes, not a table from bytes to bytes; open \
         it as what it is"
    );
    assert!(write.multi_map("t").is_err());
    write.commit().expect("memory");
    let read = store.read();
    assert!(read.table("m").is_err());
    assert!(read.multi_map("t").is_err());
    assert!(read.multi_map("none").expect("sound").is_none());
    let tables = read.tables().expect("sound");
    assert!(tables[0].options.is_multi_map() && !tables[1].options.is_multi_map());
}

#[test]
fn the_longest_pair_fits_and_a_longer_one_is_an_error() {
    let store = Options::new().open_in_memory().expect("address space");
    let mut write = store.write().expect("sound");
    let mut map = write.multi_map("m").expect("new");
    // Each zero of the key takes two bytes, and its end two.
    let key = [0; 100];
    let longest = vec![9; MAX_KEY_BYTES - 202];
    assert!(map.insert(&key, &longest).expect("it fits"));
    let error = map.insert(&key, &[&longest[..], b"x"].concat());
    let error = error.expect_err("a byte too much");
    let most = MAX_KEY_BYTES;
    assert_eq!(
        error,
        WriteError::PairTooLong {
            bytes: most + 1,
            most
        }
    );
    assert!(!map.contains(&key, &[0; 3000]).expect("sound"));
    assert_eq!(map.count(&[0; 3000]).expect("sound"), 0);
    write.commit().expect("the error left it as it was");
    let read = store.read();
    let map = read.multi_map("m").expect("sound").expect("made");
    assert!(map.contains(&key, &longest).expect("sound"));
    assert_eq!(map.len(), 1);
}

#[test]
fn a_multi_map_comes_back_from_the_ring() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let copy = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(dir.path()).expect("new");
    let mut write = store.write().expect("sound");
    let mut map = write.multi_map("m").expect("new");
    for value in 0..100_u8 {
        map.insert(&[value % 3], &[value]).expect("sound");
    }
    write.commit().expect("room");
    let mut write = store.write().expect("sound");
    let mut map = write.multi_map("m").expect("made");
    assert_eq!(map.remove_all(&[1]).expect("sound"), 33);
    write.commit().expect("room");
    for name in ["tree", "ring"] {
        fs::copy(dir.path().join(name), copy.path().join(name)).expect("room");
    }
    drop(store);
    let store = Store::open(copy.path()).expect("replayed");
    assert_eq!(store.check().problems, []);
    let read = store.read();
    let map = read.multi_map("m").expect("sound").expect("made");
    assert_eq!(map.len(), 67);
    let counts = [0, 1, 2].map(|key| map.count(&[key]).expect("sound"));
    assert_eq!(counts, [34, 0, 33]);
}
