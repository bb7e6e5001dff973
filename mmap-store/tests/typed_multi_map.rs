//! Typed multi-maps against a map of sets.
//!
//! What could go wrong: values come in another order than their type's, or with another
//! key; a map of other types is opened; a value does not start where its type wants; bytes
//! that are none of the type give a value or a panic.
#![cfg(not(loom))]

use core::ops::Bound;
use std::collections::{BTreeMap, BTreeSet};

use brickyard_store::{
    DecodeError, MAX_KEY_BYTES, Options, Store, TypedError, TypedPairs, TypedValues, WriteError,
};
use proptest::prelude::*;

type Key = (String, i16);
type Value = (i32, String);
type Model = BTreeMap<Key, BTreeSet<Value>>;

fn in_memory() -> Store {
    Options::new().open_in_memory().expect("address space")
}

/// Few of them, so that keys meet, with zeros, and near the middle of the range.
fn key() -> impl Strategy<Value = Key> {
    ("[\0a]{0,2}", -2..2_i16)
}

fn value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![-2..2_i32, Just(i32::MIN), Just(i32::MAX)];
    (number, "[\0ab]{0,3}")
}

#[derive(Clone, Debug)]
enum Op {
    Insert(Key, Value),
    Remove(Key, Value),
    RemoveAll(Key),
    Commit,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (key(), value()).prop_map(|(key, value)| Op::Insert(key, value)),
        4 => (key(), value()).prop_map(|(key, value)| Op::Remove(key, value)),
        1 => key().prop_map(Op::RemoveAll),
        1 => Just(Op::Commit),
    ]
}

/// The values, taken in turns from both ends.
fn values(mut values: TypedValues<'_, Value>) -> Result<Vec<Value>, TypedError> {
    let (mut front, mut back) = (Vec::new(), Vec::new());
    while let Some(value) = values.next()? {
        front.push(value);
        match values.next_back()? {
            Some(value) => back.push(value),
            None => break,
        }
    }
    front.extend(back.into_iter().rev());
    Ok(front)
}

fn pairs(
    mut pairs: TypedPairs<'_, Key, Value>,
    forwards: bool,
) -> Result<Vec<(Key, Value)>, TypedError> {
    let mut found = Vec::new();
    while let Some(pair) = if forwards {
        pairs.next()?
    } else {
        pairs.next_back()?
    } {
        found.push(pair);
    }
    if !forwards {
        found.reverse();
    }
    Ok(found)
}

fn between(model: &Model, bounds: (Bound<Key>, Bound<Key>)) -> Vec<(Key, Value)> {
    let within = model.range(bounds);
    let pairs = within.flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
    pairs
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_typed_multi_map_is_a_map_of_sets(
        ops in prop::collection::vec(op(), 1..80),
        probes in prop::collection::vec((key(), value()), 1..8),
        bounds in (key(), key()),
    ) {
        let store = in_memory();
        let mut model = Model::new();
        let mut write = store.write().expect("sound");
        for op in ops {
            let mut map = write.typed_multi_map::<Key, Value>("m").expect("ours");
            match op {
                Op::Insert(key, value) => {
                    let new = map.insert(&(key.0.as_str(), key.1), &value).expect("short");
                    prop_assert_eq!(new, model.entry(key).or_default().insert(value));
                }
                Op::Remove(key, value) => {
                    let gone = map.remove(&key, &value).expect("sound");
                    let values = model.get_mut(&key);
                    prop_assert_eq!(gone, values.is_some_and(|values| values.remove(&value)));
                }
                Op::RemoveAll(key) => {
                    let gone = map.remove_all(&key).expect("sound");
                    prop_assert_eq!(gone, model.remove(&key).map_or(0, |all| all.len() as u64));
                }
                Op::Commit => {
                    write.commit().expect("memory");
                    write = store.write().expect("sound");
                }
            }
        }
        model.retain(|_, values| !values.is_empty());
        let map = write.typed_multi_map::<Key, Value>("m").expect("ours");
        let bounds = (bounds.0.clone().min(bounds.1.clone()), bounds.0.max(bounds.1));
        let half = (Bound::Included(bounds.0.clone()), Bound::Excluded(bounds.1.clone()));
        let expected = between(&model, half.clone());
        prop_assert_eq!(pairs(map.range(half.clone()).expect("sound"), true).expect("sound"), expected.clone());
        for (key, value) in &probes {
            let of_key = model.get(key).cloned().unwrap_or_default();
            prop_assert_eq!(map.contains(key, value).expect("sound"), of_key.contains(value));
            prop_assert_eq!(map.count(key).expect("sound"), of_key.len() as u64);
            let found = values(map.get(key).expect("sound")).expect("sound");
            prop_assert_eq!(found, of_key.into_iter().collect::<Vec<_>>());
        }
        write.commit().expect("memory");

        let read = store.read();
        let map = read.typed_multi_map::<Key, Value>("m").expect("sound").expect("made");
        let all = between(&model, (Bound::Unbounded, Bound::Unbounded));
        prop_assert_eq!((map.len(), map.is_empty()), (all.len() as u64, all.is_empty()));
        prop_assert_eq!(pairs(map.iter().expect("sound"), true).expect("sound"), all.clone());
        prop_assert_eq!(pairs(map.iter().expect("sound"), false).expect("sound"), all);
        prop_assert_eq!(pairs(map.range(half).expect("sound"), false).expect("sound"), expected);
        for (key, value) in &probes {
            let of_key = model.get(key).cloned().unwrap_or_default();
            prop_assert_eq!(map.contains(key, value).expect("sound"), of_key.contains(value));
            prop_assert_eq!(map.count(key).expect("sound"), of_key.len() as u64);
            let found = values(map.get(key).expect("sound")).expect("sound");
            prop_assert_eq!(found, of_key.into_iter().collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_multi_map_of_other_types_is_not_opened() {
    let store = in_memory();
    let mut write = store.write().expect("sound");
    let mut map = write.typed_multi_map::<u64, str>("m").expect("new");
    map.insert(&1_u64, "one").expect("short");
    write.typed::<u64, str>("table").expect("new");
    write.multi_map("bytes").expect("new");
    let error = write.typed_multi_map::<i64, str>("m").expect_err("signed");
    assert_eq!(
        error.to_string(),
        "table `m` is a multi-map from `u64` to `str`, not a multi-map from `i64` to `str`; open it \
         as what it is"
    );
    assert!(write.typed_multi_map::<u64, u64>("m").is_err());
    assert!(write.typed_multi_map::<u64, str>("table").is_err());
    assert!(write.typed_multi_map::<u64, str>("bytes").is_err());
    assert!(write.typed::<u64, str>("m").is_err() && write.table("m").is_err());
    write.typed_multi_map::<u64, String>("m").expect("the same");
    // Its bytes are there for all who want bytes.
    let mut raw = write.multi_map("m").expect("bytes");
    assert!(raw.insert(&2_u64.to_be_bytes(), b"two").expect("short"));
    write.commit().expect("memory");
    let read = store.read();
    assert!(read.typed_multi_map::<u64, u64>("m").is_err());
    assert!(read.typed_multi_map::<u64, str>("bytes").is_err());
    let none = read.typed_multi_map::<u64, str>("none").expect("sound");
    assert!(none.is_none());
    let map = read.typed_multi_map::<u64, str>("m").expect("sound");
    let map = map.expect("made");
    let mut values = map.get(&2_u64).expect("sound");
    assert_eq!(values.next().expect("sound"), Some("two"));
    let raw = read.multi_map("m").expect("bytes").expect("made");
    assert!(raw.contains(&1_u64.to_be_bytes(), b"one").expect("sound"));
    let options = &read.tables().expect("sound")[1].options;
    assert_eq!(
        (options.key_type_name(), options.value_type_name()),
        ("u64", "str")
    );
    assert!(options.is_multi_map() && options.value_alignment() == 1);
}

#[test]
fn bytes_that_are_not_of_the_types_give_errors_that_name_them() {
    let store = in_memory();
    let mut write = store.write().expect("sound");
    write.typed_multi_map::<u16, str>("m").expect("new");
    let mut raw = write.multi_map("m").expect("bytes");
    for (key, value) in [
        (&b"\0\x01"[..], &b"\xff"[..]),
        (b"\0\x01", b"\xff\0"),
        (b"long", b"x"),
    ] {
        raw.insert(key, value).expect("short");
    }
    raw.insert(b"\0\x01", b"fine").expect("short");
    write.commit().expect("memory");
    let read = store.read();
    let map = read.typed_multi_map::<u16, str>("m").expect("sound");
    let map = map.expect("made");
    let mut values = map.get(&1_u16).expect("sound");
    assert_eq!(values.next().expect("valid"), Some("fine"));
    let refused = Some(TypedError::Value {
        type_name: "str".into(),
        source: DecodeError::Utf8,
    });
    assert_eq!(values.next().err(), refused);
    assert_eq!(values.next_back().err(), refused);
    assert_eq!(values.next().expect("the end"), None);
    let mut pairs = map.iter().expect("sound");
    assert_eq!(pairs.next().expect("valid"), Some((1, "fine")));
    let last = pairs.next_back().expect_err("four bytes");
    assert!(matches!(last, TypedError::Key { .. }), "{last}");
}

#[test]
fn a_pair_that_is_too_long_is_an_error() {
    let store = in_memory();
    let mut write = store.write().expect("sound");
    let mut map = write.typed_multi_map::<u8, str>("m").expect("new");
    let longest = "x".repeat(MAX_KEY_BYTES - 3);
    assert!(map.insert(&1_u8, &longest).expect("it fits"));
    let error = map.insert(&1_u8, &(longest + "x"));
    assert!(matches!(
        error,
        Err(TypedError::Write(WriteError::PairTooLong { .. }))
    ));
    assert_eq!(map.len(), 1);
}

/// Values at an alignment of their own, and of any length.
#[cfg(all(feature = "zerocopy", feature = "rkyv"))]
mod of_crates {
    use super::in_memory;
    use brickyard_store::{Archive, Named, Plain};
    use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

    #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Debug, PartialEq)]
    #[repr(C, align(16))]
    struct Point([u64; 2]);

    impl Named for Point {
        const NAME: &'static str = "point";
    }

    #[derive(rkyv::Archive, rkyv::Serialize)]
    struct Town {
        name: String,
        people: u128,
    }

    impl Named for Town {
        const NAME: &'static str = "town";
        const VERSION: u32 = 2;
    }

    #[test]
    fn values_start_where_their_types_want() {
        let store = in_memory();
        let mut write = store.write().expect("sound");
        let mut points = write
            .typed_multi_map::<str, Plain<Point>>("p")
            .expect("new");
        for (number, key) in (0..9_u64).flat_map(|number| ["", "a", "ab"].map(|key| (number, key)))
        {
            let point = Point([number.to_be(), 7]);
            assert!(points.insert(key, &point).expect("short"));
        }
        let mut towns = write
            .typed_multi_map::<str, Archive<Town>>("t")
            .expect("new");
        for key in ["", "a", "ab", "abc"] {
            let name = format!("a town of the key {key}");
            let people = 1 << 99;
            assert!(towns.insert(key, &Town { name, people }).expect("short"));
        }
        write.commit().expect("memory");
        let read = store.read();
        let points = read.typed_multi_map::<str, Plain<Point>>("p");
        let points = points.expect("sound").expect("made");
        for key in ["", "a", "ab"] {
            let mut values = points.get(key).expect("sound");
            for number in 0..9_u64 {
                let found = values.next().expect("valid");
                assert_eq!(found, Some(&Point([number.to_be(), 7])));
            }
        }
        let towns = read.typed_multi_map::<str, Archive<Town>>("t");
        let towns = towns.expect("sound").expect("made");
        let (mut pairs, mut count) = (towns.iter().expect("sound"), 0);
        while let Some((key, town)) = pairs.next().expect("valid") {
            assert_eq!(*town.name, format!("a town of the key {key}"));
            assert_eq!(town.people, 1 << 99);
            count += 1;
        }
        assert_eq!(count, 4);
        let options = &read.tables().expect("sound")[1].options;
        assert_eq!(options.value_type_name(), "archive town version 2");
    }
}
