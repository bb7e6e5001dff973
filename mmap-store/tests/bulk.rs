//! Loading: sorted entries appended, unsorted ones sorted outside of memory, and values
//! written in place.
//!
//! What could go wrong: an entry is lost or stands in the wrong place where a load meets
//! what was there; pages written before the commit are lost, or used twice, when the
//! transaction ends otherwise or the process dies. How it is seen: a sorted map takes the
//! same entries, `check` accounts for every page, and copies of the files made half way
//! are opened.
#![cfg(not(loom))]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use brickyard_store::{LoadError, LoadOptions, Options, Store, TableOptions, WriteError};
use proptest::collection::vec;
use proptest::prelude::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn assert_holds(store: &Store, model: &Model) {
    let read = store.read();
    let mut found = Model::new();
    if let Some(table) = read.table("t").expect("sound") {
        assert_eq!(table.len(), model.len() as u64);
        let mut range = table.range::<[u8]>(..).expect("sound");
        while let Some((key, value)) = range.next().expect("sound") {
            found.insert(key.to_vec(), value.to_vec());
        }
        for (key, value) in model {
            assert_eq!(table.get(key).expect("sound"), Some(value.as_slice()));
        }
    }
    assert!(found == *model, "{} entries, {}", found.len(), model.len());
    assert_eq!(store.check().problems, []);
}

/// A store opened from the files as they are: what a crash leaves.
fn crashed(dir: &Path) -> (tempfile::TempDir, Store) {
    let copy = tempfile::tempdir().expect("a temporary folder");
    for name in ["tree", "ring", "lock"] {
        fs::copy(dir.join(name), copy.path().join(name)).expect("room for a copy");
    }
    let store = Store::open(copy.path()).expect("it opens");
    (copy, store)
}

fn number(n: u32) -> Vec<u8> {
    format!("key {n:08}").into_bytes()
}

#[derive(Clone, Debug)]
enum Step {
    /// Appends so many entries, of this length, above all others.
    Append(u32, usize),
    /// Begins to append, and lets go.
    Forget(u32, usize),
    Put(u32, usize),
    Delete(u32),
    Load(Vec<(u32, usize)>),
    Reserve(u32, usize),
    /// All since the last one of these is undone.
    RollBack,
    Save,
    Commit,
    Abort,
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0..300_usize, 1 => 1300..6000_usize]
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..3_000_u32;
    let many = prop_oneof![3 => 1..40_u32, 1 => 1..2_000_u32];
    prop_oneof![
        5 => (many.clone(), len()).prop_map(|(n, len)| Step::Append(n, len)),
        1 => (many, len()).prop_map(|(n, len)| Step::Forget(n, len)),
        5 => (n.clone(), len()).prop_map(|(n, len)| Step::Put(n, len)),
        4 => n.clone().prop_map(Step::Delete),
        3 => vec((n.clone(), len()), 0..200).prop_map(Step::Load),
        3 => (n, len()).prop_map(|(n, len)| Step::Reserve(n, len)),
        1 => Just(Step::RollBack),
        1 => Just(Step::Save),
        2 => Just(Step::Commit),
        1 => Just(Step::Abort),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn loads_among_other_changes_are_a_sorted_map(steps in vec(step(), 1..40), small in any::<bool>()) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let ring = if small { 16 << 10 } else { 4 << 20 };
        let store = Options::new().ring_bytes(ring).open(dir.path()).expect("a new store");
        let (mut model, mut committed) = (Model::new(), Model::new());
        let mut byte = 0_u8;
        let mut txn = store.write().expect("nothing failed yet");
        let mut saved = None;
        for step in steps {
            byte = byte.wrapping_add(1);
            let mut table = txn.table("t").expect("sound");
            match step {
                Step::Append(count, len) | Step::Forget(count, len) => {
                    let forgets = matches!(step, Step::Forget(..));
                    let above = model.last_key_value().map_or(0, |(key, _)| {
                        let digits = core::str::from_utf8(&key[4..]).expect("digits");
                        digits.parse::<u32>().expect("digits") + 1
                    });
                    let mut appender = table.appender().expect("sound");
                    let value = vec![byte; len];
                    for n in above..above + count {
                        appender.append(&number(n), &value).expect("room");
                    }
                    if forgets {
                        core::mem::forget(appender);
                    } else {
                        prop_assert_eq!(appender.finish().expect("room"), u64::from(count));
                        model.extend((above..above + count).map(|n| (number(n), value.clone())));
                    }
                }
                Step::Put(n, len) => {
                    table.put(&number(n), &vec![byte; len]).expect("sound");
                    model.insert(number(n), vec![byte; len]);
                }
                Step::Delete(n) => {
                    table.delete(&number(n)).expect("sound");
                    model.remove(&number(n));
                }
                Step::Load(entries) => {
                    let entries = entries.iter().zip(0_u8..);
                    let entries: Vec<_> = entries
                        .map(|(&(n, len), value)| (number(n), vec![value; len]))
                        .collect();
                    let options = LoadOptions::new().memory_bytes(4 << 10);
                    let loaded = table.bulk_load_with(&options, entries.clone());
                    let news: Model = entries.into_iter().collect();
                    prop_assert_eq!(loaded.expect("room"), news.len() as u64);
                    model.extend(news);
                }
                Step::Reserve(n, len) => {
                    let memory = table.reserve(&number(n), len).expect("sound");
                    prop_assert_eq!(&*memory, &vec![0; len][..]);
                    memory.fill(byte);
                    model.insert(number(n), vec![byte; len]);
                }
                Step::Save => {
                    let savepoint = txn.savepoint().expect("sound");
                    saved = Some((savepoint, model.clone()));
                }
                Step::RollBack => {
                    if let Some((savepoint, state)) = &saved {
                        txn.roll_back(savepoint).expect("it lives");
                        model.clone_from(state);
                    }
                }
                Step::Commit | Step::Abort => {
                    saved = None;
                    if matches!(step, Step::Commit) {
                        txn.commit().expect("room");
                        committed.clone_from(&model);
                        let (_copy, crashed) = crashed(dir.path());
                        assert_holds(&crashed, &committed);
                    } else {
                        drop(txn);
                        model.clone_from(&committed);
                    }
                    assert_holds(&store, &committed);
                    txn = store.write().expect("nothing failed yet");
                }
            }
            let table = txn.table("t").expect("sound");
            prop_assert_eq!(table.len(), model.len() as u64);
        }
        // A crash in the middle of it all.
        let (_copy, crashed) = crashed(dir.path());
        assert_holds(&crashed, &committed);
        drop(txn);
        assert_holds(&store, &committed);
    }
}

#[test]
fn keys_that_do_not_ascend_are_refused() {
    let store = Options::new().open_in_memory().expect("address space");
    let mut txn = store.write().expect("nothing failed yet");
    let mut table = txn.table("t").expect("sound");
    table.put(b"m", b"there").expect("sound");
    let mut appender = table.appender().expect("sound");
    for key in [&b"m"[..], b"a", b""] {
        let refused = appender.append(key, b"");
        assert!(
            matches!(refused, Err(LoadError::Order { entry: 0 })),
            "{refused:?}"
        );
    }
    appender.append(b"n", b"1").expect("above");
    let refused = appender.append(b"n", b"2");
    assert!(
        matches!(refused, Err(LoadError::Order { entry: 1 })),
        "{refused:?}"
    );
    let long = appender.append(&[b'z'; 2049], b"");
    assert!(matches!(
        long,
        Err(LoadError::Write(WriteError::KeyTooLong { .. }))
    ));
    appender.append(b"o", b"3").expect("it goes on");
    assert_eq!(appender.finish().expect("room"), 2);
    assert_eq!(table.get(b"n").expect("sound"), Some(&b"1"[..]));
}

/// A load into an empty table fills its pages; LMDB's file for the same is 1.11 times
/// what it holds.
#[test]
fn a_sorted_load_leaves_no_holes() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(dir.path()).expect("a new store");
    let mut txn = store.write().expect("nothing failed yet");
    let mut table = txn.table("t").expect("sound");
    let mut appender = table.appender().expect("sound");
    let entries = 100_000_u32;
    for n in 0..entries {
        let key = format!("user:{n:015}");
        appender.append(key.as_bytes(), &[7; 150]).expect("room");
    }
    appender.finish().expect("room");
    txn.commit().expect("room");
    let report = store.check();
    assert_eq!(report.problems, []);
    let logical = u64::from(entries) * (20 + 150);
    let ratio = report.live_pages as f64 * 4096.0 / logical as f64;
    assert!(ratio < 1.10, "{ratio}");
}

/// Loads and values in place keep the alignment of their table.
#[test]
fn loaded_values_are_aligned() {
    for alignment in [8, 64, 4096] {
        let store = Options::new().open_in_memory().expect("address space");
        let options = TableOptions::new().alignment(alignment);
        let mut txn = store.write().expect("nothing failed yet");
        let mut table = txn.table_with("t", &options).expect("a new table");
        let mut appender = table.appender().expect("sound");
        for n in 0..500 {
            let value = vec![1; n as usize * 7 % 90];
            appender.append(&number(n), &value).expect("room");
        }
        assert_eq!(appender.finish().expect("room"), 500);
        let entries = (300..700).map(|n| (number(n), vec![2; n as usize % 50]));
        assert_eq!(table.bulk_load(entries).expect("room"), 400);
        for n in 650..750 {
            let memory = table.reserve(&number(n), n as usize % 40).expect("sound");
            assert!(memory.is_empty() || memory.as_ptr().addr().is_multiple_of(alignment));
            memory.fill(3);
        }
        txn.commit().expect("memory");
        assert_eq!(store.check().problems, []);
        let read = store.read();
        let table = read.table("t").expect("sound").expect("it was made");
        assert_eq!(table.len(), 750);
        let mut range = table.range::<[u8]>(..).expect("sound");
        while let Some((_, value)) = range.next().expect("sound") {
            assert!(value.is_empty() || value.as_ptr().addr().is_multiple_of(alignment));
        }
        let value = table.get(&number(700)).expect("sound");
        assert_eq!(value, Some(&[3; 20][..]));
    }
}

/// One load after another must not leave a leaf each.
#[test]
fn short_loads_share_leaves() {
    let store = Options::new().open_in_memory().expect("address space");
    for n in 0..2_000_u32 {
        let mut txn = store.write().expect("nothing failed yet");
        let mut table = txn.table("t").expect("sound");
        let mut appender = table.appender().expect("sound");
        appender.append(&number(n), &[1; 20]).expect("room");
        appender.finish().expect("room");
        txn.commit().expect("memory");
    }
    let report = store.check();
    assert_eq!(report.problems, []);
    assert!(report.live_pages < 40, "{} pages", report.live_pages);
}

/// What a load took and did not use comes back, whatever ends the transaction.
#[test]
fn an_aborted_load_costs_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(dir.path()).expect("a new store");
    let mut sizes = Vec::new();
    for _ in 0..5 {
        let mut txn = store.write().expect("nothing failed yet");
        let mut table = txn.table("t").expect("sound");
        let entries = (0..40_000).map(|n| (number(n * 7_919 % 40_000), [1; 200]));
        assert_eq!(table.bulk_load(entries).expect("room"), 40_000);
        drop(txn);
        assert_eq!(store.check().problems, []);
        sizes.push(fs::metadata(dir.path().join("tree")).expect("a file").len());
    }
    assert_eq!(sizes[0], sizes[4], "{sizes:?}");
    let left: Vec<_> = fs::read_dir(dir.path()).expect("a folder").collect();
    assert_eq!(left.len(), 3, "the temporary files are gone: {left:?}");
}

/// A failure half way leaves the table as it was, and the transaction usable.
#[test]
fn a_load_that_fails_is_undone() {
    let store = Options::new()
        .address_space(4 << 20)
        .open_in_memory()
        .expect("address space");
    let mut txn = store.write().expect("nothing failed yet");
    let mut table = txn.table("t").expect("sound");
    table.put(&number(20), b"before").expect("sound");
    let entries = (0..100_000).map(|n| (number(n), [1; 200]));
    let failed = table.bulk_load(entries);
    assert!(matches!(failed, Err(LoadError::Pages(_))), "{failed:?}");
    assert_eq!(table.len(), 1);
    assert_eq!(table.get(&number(20)).expect("sound"), Some(&b"before"[..]));
    let missing = LoadOptions::new()
        .memory_bytes(0)
        .temporary_dir("/nowhere/at/all");
    let failed = table.bulk_load_with(&missing, [(b"a", b"1"), (b"b", b"2")]);
    assert!(matches!(failed, Err(LoadError::Io { .. })), "{failed:?}");
    txn.commit().expect("room");
    assert_holds(&store, &Model::from([(number(20), b"before".to_vec())]));
}

#[test]
fn a_value_that_fits_nowhere_is_an_error() {
    let store = Options::new().open_in_memory().expect("address space");
    let mut txn = store.write().expect("nothing failed yet");
    let mut table = txn.table("t").expect("sound");
    let refused = table.reserve(b"k", usize::MAX).map(|_| ());
    assert_eq!(refused, Err(WriteError::ValueTooLong { bytes: usize::MAX }));
    table.put(b"k", b"v").expect("the transaction goes on");
    txn.commit().expect("memory");
}
