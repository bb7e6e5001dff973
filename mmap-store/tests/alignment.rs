//! Values of tables with an alignment.
//!
//! Promises that are checked: in the writing transaction and in snapshots each value, of
//! any length, also of none, starts at a multiple of its table's alignment, whether it
//! comes from a look-up, a batch, a range or an end; and the table is a sorted map as
//! others are. Lengths are chosen so that values are replaced in place, moved, and cross
//! the border between leaves and pages of their own; leaves split and join.
#![cfg(not(loom))]

use std::collections::BTreeMap;

use brickyard_store::{Options, Store, TableOptions};
use proptest::collection::vec;
use proptest::prelude::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Commit,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (0..120_u32).prop_map(|number| format!("item/{number}").into_bytes()),
        2 => vec(any::<u8>(), 0..6),
        1 => (0..4_u8, 1000..2048_usize).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![
        6 => 0..70_usize,
        2 => prop_oneof![Just(64_usize), Just(128), Just(512)],
        2 => 1400..1700_usize,
        1 => 4000..9000_usize,
    ];
    let value = (any::<u8>(), len).prop_map(|(byte, len)| vec![byte; len]);
    prop_oneof![
        8 => (key(), value).prop_map(|(key, value)| Op::Put(key, value)),
        4 => key().prop_map(Op::Delete),
        1 => Just(Op::Commit),
    ]
}

fn is_aligned(value: &[u8], alignment: usize) -> bool {
    value.as_ptr().addr().is_multiple_of(alignment)
}

/// Everything the newest snapshot shows is the model's, and aligned.
fn compare(store: &Store, options: &TableOptions, model: &Model) {
    let alignment = options.value_alignment();
    assert_eq!(store.check().problems, []);
    let read = store.read();
    let Some(table) = read.table_with("t", options).expect("sound") else {
        // A plain one comes into being with its first entry.
        assert!(model.is_empty() && *options == TableOptions::new());
        return;
    };
    assert_eq!(table.len(), model.len() as u64);
    let bytes: usize = model.values().map(Vec::len).sum();
    let stat = store.stat().expect("sound");
    assert_eq!(stat.tables[0].value_bytes, bytes as u64);
    let (mut range, mut expected) = (table.range::<[u8]>(..).expect("sound"), model.iter());
    while let Some((key, value)) = range.next().expect("sound") {
        assert!(is_aligned(value, alignment));
        assert_eq!(expected.next(), Some((&key.to_vec(), &value.to_vec())));
    }
    assert_eq!(expected.next(), None);
    let keys: Vec<&[u8]> = model.keys().map(Vec::as_slice).collect();
    for (key, found) in keys.iter().zip(table.get_many(&keys).expect("sound")) {
        let value = table.get(key).expect("sound").expect("it is there");
        assert!(is_aligned(value, alignment));
        assert_eq!(found, Some(value));
    }
    let last = table.last().expect("sound");
    assert!(last.is_none_or(|(_, value)| is_aligned(value, alignment)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn values_are_aligned_wherever_they_are_read(
        shift in 0..13_u32,
        ops in vec(op(), 1..250),
    ) {
        let alignment = 1_usize << shift;
        let options = TableOptions::new().alignment(alignment);
        let store = Options::new().open_in_memory().expect("address space");
        let mut model = Model::new();
        let mut txn = store.write().expect("nothing failed yet");
        txn.table_with("t", &options).expect("new");
        for op in ops {
            // The plain name opens it as well.
            let mut table = txn.table("t").expect("sound");
            match op {
                Op::Put(key, value) => {
                    table.put(&key, &value).expect("sound");
                    let found = table.get(&key).expect("sound").expect("just put");
                    prop_assert!(is_aligned(found, alignment));
                    prop_assert_eq!(found, &value[..]);
                    model.insert(key, value);
                }
                Op::Delete(key) => {
                    let existed = table.delete(&key).expect("sound");
                    prop_assert_eq!(existed, model.remove(&key).is_some());
                }
                Op::Commit => {
                    txn.commit().expect("memory");
                    compare(&store, &options, &model);
                    txn = store.write().expect("nothing failed yet");
                }
            }
        }
        let table = txn.table("t").expect("sound");
        for (key, value) in &model {
            let found = table.get(key).expect("sound").expect("it is there");
            prop_assert!(is_aligned(found, alignment));
            prop_assert_eq!(found, &value[..]);
        }
        txn.commit().expect("memory");
        compare(&store, &options, &model);
    }
}

/// Leaves whose entries are mostly room between values are full, not nearly empty: they
/// must not be joined over and over.
#[test]
fn a_table_of_short_aligned_values_shrinks_as_it_empties() {
    let options = TableOptions::new().alignment(64);
    let store = Options::new().open_in_memory().expect("address space");
    let mut model = Model::new();
    let mut write = store.write().expect("sound");
    let mut table = write.table_with("t", &options).expect("new");
    for number in 0..5000_u32 {
        let value = vec![7; (number % 3) as usize];
        table.put(&number.to_be_bytes(), &value).expect("sound");
        model.insert(number.to_be_bytes().to_vec(), value);
    }
    write.commit().expect("memory");
    let full = store.check().live_pages;
    compare(&store, &options, &model);
    let mut write = store.write().expect("sound");
    let mut table = write.table("t").expect("sound");
    for number in (0..5000_u32).filter(|number| number % 50 != 0) {
        assert!(table.delete(&number.to_be_bytes()).expect("sound"));
        model.remove(&number.to_be_bytes()[..]);
    }
    write.commit().expect("memory");
    compare(&store, &options, &model);
    let live = store.check().live_pages;
    assert!(
        live * 8 < full,
        "{full} pages, and {live} of them for a fiftieth"
    );
}

#[test]
fn aligned_values_survive_a_close() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for alignment in [16, 64, 512] {
        let options = TableOptions::new().alignment(alignment);
        let name = format!("aligned to {alignment}");
        let store = Store::open(dir.path()).expect("sound");
        let mut write = store.write().expect("sound");
        let mut table = write.table_with(&name, &options).expect("new");
        table.put(b"empty", b"").expect("sound");
        table.put(b"short", b"abc").expect("sound");
        table.put(b"long", &[5; 10_000]).expect("sound");
        write.commit().expect("room");
        store.close().expect("room");
        let store = Store::open(dir.path()).expect("sound");
        let read = store.read();
        let table = read.table(&name).expect("sound").expect("made");
        assert_eq!(table.options(), options);
        for (key, value) in [
            ("empty", &b""[..]),
            ("short", b"abc"),
            ("long", &[5; 10_000]),
        ] {
            let found = table.get(key.as_bytes()).expect("sound").expect("put");
            assert!(is_aligned(found, alignment));
            assert_eq!(found, value);
        }
    }
}
