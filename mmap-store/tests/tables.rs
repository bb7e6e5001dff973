//! Tables as things: their options, their list, and taking them out whole.
//!
//! What could go wrong: a table is opened as what it is not, options are lost by a crash,
//! a dropped table keeps pages or comes back. How it is seen: stores are closed, or copied
//! while open, as a crash leaves them, and looked at again; `check` finds lost pages.
#![cfg(not(loom))]

use std::fs;
use std::path::Path;

use brickyard_store::{MAX_TYPE_NAME_BYTES, Options, Store, TableError, TableOptions, WriteError};

fn in_memory() -> Store {
    Options::new().open_in_memory().expect("address space")
}

fn typed() -> TableOptions {
    TableOptions::new().key_type("u64").value_type("town 1")
}

/// A copy of the files of an open store: what a crash of its process leaves.
fn crashed(from: &Path, to: &Path) {
    for name in ["tree", "ring"] {
        fs::copy(from.join(name), to.join(name)).expect("room");
    }
}

#[test]
fn a_table_is_opened_with_its_own_options_only() {
    let store = in_memory();
    let mut write = store.write().expect("sound");
    write.table_with("typed", &typed()).expect("new");
    write
        .table("plain")
        .expect("new")
        .put(b"k", b"v")
        .expect("sound");
    let other = typed().value_type("town 2");
    let error = write.table_with("typed", &other).expect_err("another type");
    let WriteError::Table(TableError::Mismatch {
        table,
        recorded,
        asked,
    }) = &error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (&**table, &**recorded, &**asked),
        ("typed", &typed(), &other)
    );
    assert_eq!(
        error.to_string(),
        "table `typed` is a table from `u64` to `town 1`, not a table from `u64` to `town 2`; \
         open it as what it is"
    );
    assert!(write.table_with("plain", &typed()).is_err());
    write.table_with("typed", &typed()).expect("the same");
    write.table("typed").expect("bytes under bytes");
    write.commit().expect("memory");
    let read = store.read();
    assert!(
        read.table_with("typed", &typed())
            .expect("the same")
            .is_some()
    );
    assert!(read.table_with("typed", &other).is_err());
    assert!(
        read.table_with("plain", &TableOptions::new())
            .expect("sound")
            .is_some()
    );
    assert!(read.table_with("none", &other).expect("sound").is_none());
}

#[test]
fn options_that_no_table_can_have_create_none() {
    let store = in_memory();
    let mut write = store.write().expect("sound");
    let long = "n".repeat(MAX_TYPE_NAME_BYTES + 1);
    let wrong = [
        TableOptions::new().alignment(0),
        TableOptions::new().alignment(3),
        TableOptions::new().alignment(8192),
        TableOptions::new().key_type(&long),
        TableOptions::new().value_type(&long),
    ];
    for options in &wrong {
        let error = write.table_with("t", options).expect_err("wrong options");
        assert!(matches!(
            error,
            WriteError::Table(TableError::Options { .. })
        ));
    }
    assert!(write.table("t").expect("plain").is_empty());
    write.commit().expect("memory");
    assert_eq!(store.read().tables().expect("sound"), []);
}

#[test]
fn the_longest_name_takes_the_longest_names_of_types() {
    let store = in_memory();
    let long = "t".repeat(MAX_TYPE_NAME_BYTES);
    let name = "n".repeat(brickyard_store::MAX_KEY_BYTES);
    let options = TableOptions::new().key_type(&long).value_type(&long);
    let mut write = store.write().expect("sound");
    write
        .table_with(&name, &options)
        .expect("new")
        .put(b"k", b"v")
        .expect("sound");
    write.commit().expect("memory");
    assert_eq!(store.check().problems, []);
    let read = store.read();
    assert!(read.table_with(&name, &options).expect("sound").is_some());
}

#[test]
fn tables_are_listed_by_name_with_their_options() {
    let store = in_memory();
    let mut write = store.write().expect("sound");
    for name in ["b", "c", "a"] {
        write
            .table(name)
            .expect("sound")
            .put(b"k", b"v")
            .expect("sound");
    }
    write
        .table("c")
        .expect("sound")
        .put(b"l", b"v")
        .expect("sound");
    write.table_with("bb", &typed()).expect("new");
    write.table("never filled").expect("sound");
    write.commit().expect("memory");
    let tables = store.read().tables().expect("sound");
    let found: Vec<_> = tables
        .iter()
        .map(|table| (&*table.name, table.entries))
        .collect();
    assert_eq!(found, [("a", 1), ("b", 1), ("bb", 0), ("c", 2)]);
    assert_eq!(tables[2].options, typed());
    assert_eq!(tables[3].options, TableOptions::new());
}

/// Enough for a tree of three levels, with large values.
fn fill(store: &Store, name: &str) {
    let mut write = store.write().expect("sound");
    let mut table = write.table(name).expect("sound");
    for number in 0..400_u32 {
        let key = [&[7; 300][..], &number.to_be_bytes()].concat();
        let len = if number % 50 == 0 { 9000 } else { 300 };
        table.put(&key, &vec![1; len]).expect("sound");
    }
    write.commit().expect("room");
}

#[test]
fn a_dropped_table_gives_all_its_pages_back() {
    let store = in_memory();
    let mut write = store.write().expect("sound");
    write
        .table("stays")
        .expect("sound")
        .put(b"k", b"v")
        .expect("sound");
    write.commit().expect("memory");
    let before = store.check();
    fill(&store, "goes");
    let mut write = store.write().expect("sound");
    assert!(write.delete_table("goes").expect("sound"));
    assert!(!write.delete_table("goes").expect("sound"), "it is gone");
    assert!(!write.delete_table("never was").expect("sound"));
    write.commit().expect("memory");
    store.checkpoint().expect("memory");
    let after = store.check();
    assert_eq!(after.problems, []);
    assert_eq!((after.tables, after.live_pages), (1, before.live_pages));
    assert_eq!(after.held_pages, 0);
}

#[test]
fn the_last_table_can_go() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(dir.path()).expect("new");
    fill(&store, "only");
    let mut write = store.write().expect("sound");
    assert!(write.delete_table("only").expect("sound"));
    write.commit().expect("room");
    assert_eq!(store.read().tables().expect("sound"), []);
    assert_eq!(store.check().problems, []);
    fill(&store, "next");
    assert_eq!(store.check().problems, []);
    store.close().expect("room");
    let store = Store::open(dir.path()).expect("closed");
    assert_eq!(store.check().tables, 1);
}

#[test]
fn a_table_dropped_and_made_again_in_one_transaction_has_only_the_new() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(dir.path()).expect("new");
    fill(&store, "t");
    store.checkpoint().expect("room");
    let mut write = store.write().expect("sound");
    write
        .table("t")
        .expect("sound")
        .put(b"old", b"o")
        .expect("sound");
    assert!(write.delete_table("t").expect("sound"));
    write
        .table_with("t", &typed())
        .expect("new")
        .put(b"new", b"n")
        .expect("sound");
    write
        .table("other")
        .expect("sound")
        .put(b"k", b"v")
        .expect("sound");
    assert!(write.delete_table("other").expect("sound"));
    write.commit().expect("room");
    let copy = tempfile::tempdir().expect("a temporary folder");
    crashed(dir.path(), copy.path());
    for store in [store, Store::open(copy.path()).expect("replayed")] {
        let read = store.read();
        let tables = read.tables().expect("sound");
        assert_eq!(tables.len(), 1);
        assert_eq!((tables[0].entries, &tables[0].options), (1, &typed()));
        let table = read.table("t").expect("sound").expect("made");
        assert_eq!(table.get(b"new").expect("sound"), Some(&b"n"[..]));
        assert_eq!(store.check().problems, []);
    }
}

#[test]
fn an_abort_undoes_options_and_drops() {
    let store = in_memory();
    fill(&store, "t");
    let mut write = store.write().expect("sound");
    assert!(write.delete_table("t").expect("sound"));
    write.table_with("u", &typed()).expect("new");
    drop(write);
    let read = store.read();
    assert_eq!(read.table("t").expect("sound").expect("made").len(), 400);
    assert!(read.table("u").expect("sound").is_none());
    assert_eq!(store.check().problems, []);
}

#[test]
fn a_savepoint_brings_a_dropped_table_and_its_options_back() {
    let store = in_memory();
    fill(&store, "t");
    let mut write = store.write().expect("sound");
    write.table_with("typed", &typed()).expect("new");
    let mut table = write.table("t").expect("sound");
    table.put(b"more", b"m").expect("sound");
    let savepoint = write.savepoint().expect("sound");
    assert!(write.delete_table("t").expect("sound"));
    assert!(write.delete_table("typed").expect("sound"));
    write.table_with("t", &typed()).expect("new");
    write.roll_back(&savepoint).expect("it lives");
    assert_eq!(write.table("t").expect("sound").len(), 401);
    write.commit().expect("memory");
    assert_eq!(store.check().problems, []);
    let tables = store.read().tables().expect("sound");
    assert_eq!(
        (tables[0].entries, &tables[0].options),
        (401, &TableOptions::new())
    );
    assert_eq!((tables[1].entries, &tables[1].options), (0, &typed()));
}
