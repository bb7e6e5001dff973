//! Cursors and ranges of a write transaction against a sorted map.
//!
//! What could go wrong: a cursor that wrote goes on along a path that is no more; one that
//! is found again skips an entry or gives one twice; a range misses what the transaction
//! has not committed. How it is seen: the model is a map and a place in it, and after each
//! step both are on the same entry.
#![cfg(not(loom))]

use core::ops::Bound;
use std::collections::BTreeMap;

use brickyard_store::{Options, TableMut};
use proptest::collection::vec;
use proptest::prelude::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Op {
    Seek(Vec<u8>),
    First,
    Last,
    Next,
    Prev,
    Put(Vec<u8>),
    Insert(Vec<u8>, Vec<u8>),
    Delete,
    /// Let go of the cursor, change the table, and come back to the position.
    Elsewhere(Vec<u8>, Option<Vec<u8>>),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (0..300_u32).prop_map(|n| format!("item/{n:04}").into_bytes()),
        1 => vec(any::<u8>(), 0..3),
        1 => (any::<u8>(), 1500..2000_usize).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![8 => 0..400_usize, 1 => 1400..7000_usize];
    (any::<u8>(), len).prop_map(|(byte, len)| vec![byte; len])
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => key().prop_map(Op::Seek),
        1 => Just(Op::First),
        1 => Just(Op::Last),
        6 => Just(Op::Next),
        6 => Just(Op::Prev),
        3 => value().prop_map(Op::Put),
        4 => (key(), value()).prop_map(|(key, value)| Op::Insert(key, value)),
        3 => Just(Op::Delete),
        3 => (key(), prop::option::of(value())).prop_map(|(key, new)| Op::Elsewhere(key, new)),
    ]
}

/// Where the cursor should be: on a key, or where one was, or at an end.
#[derive(Clone, Debug, PartialEq)]
enum Spot {
    Start,
    Entry(Vec<u8>),
    Gap(Vec<u8>),
    End,
}

fn after(model: &Model, bound: Bound<&Vec<u8>>) -> Spot {
    let mut range = model.range::<Vec<u8>, _>((bound, Bound::Unbounded));
    range
        .next()
        .map_or(Spot::End, |(key, _)| Spot::Entry(key.clone()))
}

fn before(model: &Model, key: Option<&Vec<u8>>) -> Spot {
    let end = key.map_or(Bound::Unbounded, Bound::Excluded);
    let mut range = model.range::<Vec<u8>, _>((Bound::Unbounded, end));
    range
        .next_back()
        .map_or(Spot::Start, |(key, _)| Spot::Entry(key.clone()))
}

fn owned(entry: Option<(&[u8], &[u8])>) -> Option<(Vec<u8>, Vec<u8>)> {
    entry.map(|(key, value)| (key.to_vec(), value.to_vec()))
}

/// Does `ops` with a cursor and with the model.
fn walk(table: &mut TableMut<'_, '_>, model: &mut Model, ops: Vec<Op>) {
    let mut spot = Spot::Start;
    let mut position = table.cursor().position();
    let mut ops = ops.into_iter().peekable();
    while ops.peek().is_some() {
        let mut cursor = table.cursor_at(position.clone());
        let mut elsewhere = None;
        for op in ops.by_ref() {
            let given = match op {
                Op::Seek(key) => {
                    spot = after(model, Bound::Included(&key));
                    owned(cursor.seek(&key).expect("sound"))
                }
                Op::First => {
                    spot = after(model, Bound::Unbounded);
                    owned(cursor.first().expect("sound"))
                }
                Op::Last => {
                    spot = before(model, None);
                    owned(cursor.last().expect("sound"))
                }
                Op::Next => {
                    spot = match &spot {
                        Spot::Start => after(model, Bound::Unbounded),
                        Spot::Entry(key) => after(model, Bound::Excluded(key)),
                        Spot::Gap(key) => after(model, Bound::Included(key)),
                        Spot::End => Spot::End,
                    };
                    owned(cursor.next().expect("sound"))
                }
                Op::Prev => {
                    spot = match &spot {
                        Spot::Start => Spot::Start,
                        Spot::Entry(key) | Spot::Gap(key) => before(model, Some(key)),
                        Spot::End => before(model, None),
                    };
                    owned(cursor.prev().expect("sound"))
                }
                Op::Put(value) => {
                    let there = cursor.put(&value).expect("sound");
                    assert_eq!(there, matches!(spot, Spot::Entry(_)));
                    if let Spot::Entry(key) = &spot {
                        model.insert(key.clone(), value);
                    }
                    owned(cursor.current().expect("sound"))
                }
                Op::Insert(key, value) => {
                    let new = cursor.insert(&key, &value).expect("sound");
                    assert_eq!(new, model.insert(key.clone(), value).is_none());
                    spot = Spot::Entry(key);
                    owned(cursor.current().expect("sound"))
                }
                Op::Delete => {
                    let there = cursor.delete().expect("sound");
                    assert_eq!(there, matches!(spot, Spot::Entry(_)));
                    if let Spot::Entry(key) = spot.clone() {
                        model.remove(&key);
                        spot = Spot::Gap(key);
                    }
                    owned(cursor.current().expect("sound"))
                }
                Op::Elsewhere(key, new) => {
                    position = cursor.position();
                    elsewhere = Some((key, new));
                    break;
                }
            };
            let expected = match &spot {
                Spot::Entry(key) => Some((key.clone(), model[key].clone())),
                _ => None,
            };
            assert_eq!(given, expected);
            assert_eq!(owned(cursor.current().expect("sound")), expected);
        }
        match elsewhere {
            Some((key, Some(value))) => {
                table.put(&key, &value).expect("sound");
                model.insert(key, value);
            }
            Some((key, None)) => {
                table.delete(&key).expect("sound");
                model.remove(&key);
            }
            None => {}
        }
        // The entry of the position may be gone, and come back.
        if let Spot::Entry(key) = &spot
            && !model.contains_key(key)
        {
            let mut cursor = table.cursor_at(position.clone());
            assert_eq!(cursor.current().expect("sound"), None);
            position = cursor.position();
            spot = Spot::Gap(key.clone());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_cursor_that_writes_is_a_place_in_a_sorted_map(
        committed in vec((key(), value()), 0..150),
        walks in vec(vec(op(), 1..120), 1..3),
        ranges in vec((key(), key(), vec(any::<bool>(), 1..4)), 1..6),
    ) {
        let store = Options::new().open_in_memory().expect("address space");
        let mut model = Model::new();
        let mut txn = store.write().expect("nothing failed yet");
        for (key, value) in committed {
            txn.table("t").expect("sound").put(&key, &value).expect("sound");
            model.insert(key, value);
        }
        txn.commit().expect("memory");
        let mut txn = store.write().expect("nothing failed yet");
        for ops in walks {
            walk(&mut txn.table("t").expect("sound"), &mut model, ops);
        }
        let table = txn.table("t").expect("sound");
        for (from, to, turns) in &ranges {
            let mut range = table.range::<Vec<u8>>(from..to).expect("sound");
            let inside = model.iter().filter(|(key, _)| *key >= from && *key < to);
            let mut inside = inside.map(|(key, value)| (key.as_slice(), value.as_slice()));
            for &turn in turns.iter().cycle() {
                let (ours, theirs) = if turn {
                    (range.next(), inside.next())
                } else {
                    (range.next_back(), inside.next_back())
                };
                prop_assert_eq!(ours.expect("sound"), theirs);
                if theirs.is_none() {
                    break;
                }
            }
            let mut range = table.prefix(from).expect("sound");
            let with: Vec<_> = model.keys().filter(|key| key.starts_with(from)).collect();
            let mut found = Vec::new();
            while let Some((key, _)) = range.next().expect("sound") {
                found.push(key.to_vec());
            }
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), with);
        }
        let first = table.first().expect("sound");
        let last = table.last().expect("sound");
        let ends = (model.first_key_value(), model.last_key_value());
        prop_assert_eq!(first.as_ref().map(|(key, value)| (key, *value)), ends.0.map(|(key, value)| (key, value.as_slice())));
        prop_assert_eq!(last.as_ref().map(|(key, value)| (key, *value)), ends.1.map(|(key, value)| (key, value.as_slice())));
        txn.commit().expect("memory");
        prop_assert_eq!(store.check().problems, vec![]);
    }
}

/// The loop that everybody writes: it must see each entry once, whatever it does to it.
#[test]
fn a_loop_may_delete_replace_and_insert_behind_itself() {
    let store = Options::new().open_in_memory().expect("address space");
    let mut txn = store.write().expect("nothing failed yet");
    let mut table = txn.table("t").expect("sound");
    for n in 0..5_000_u32 {
        table.put(&n.to_be_bytes(), &[1; 90]).expect("sound");
    }
    let (mut cursor, mut seen) = (table.cursor(), 0);
    while let Some((key, value)) = cursor.next().expect("sound") {
        assert_eq!(value, [1; 90], "an entry was met twice");
        let n = u32::from_be_bytes(key.try_into().expect("four bytes"));
        assert_eq!(n, seen);
        seen += 1;
        match n % 3 {
            0 => assert_eq!(cursor.delete(), Ok(true)),
            1 => assert_eq!(cursor.put(&[2; 700]), Ok(true)),
            _ => {
                let mut copy = n.to_be_bytes().to_vec();
                copy.insert(0, 255);
                assert_eq!(cursor.insert(&copy, &[1; 90]), Ok(true));
                assert!(cursor.seek(&n.to_be_bytes()).expect("sound").is_some());
            }
        }
        if seen == 5_000 {
            break;
        }
    }
    assert_eq!(seen, 5_000);
    txn.commit().expect("memory");
    assert_eq!(store.check().problems, []);
}
