//! Checkpoints that nobody asked for.
//!
//! What could go wrong: none is made and every commit that finds the ring full pays for
//! one; the thread that makes them is missed, outlives its store, or never moves pages and
//! cuts the file; what was committed meanwhile is lost. How it is seen: the ring's use, the
//! file's length, and every entry after the store was opened again.
#![cfg(not(loom))]

use core::time::Duration;
use std::fs;
use std::path::Path;
use std::time::Instant;

use brickyard_store::{Durability, Options, Store};

const RING_BYTES: u64 = 1 << 18;
const VALUE: [u8; 1000] = [7; 1000];

fn open(dir: &Path, thread: bool) -> Store {
    let options = Options::new().ring_bytes(RING_BYTES);
    options.checkpoint_thread(thread).open(dir).expect("sound")
}

fn put(store: &Store, keys: impl Iterator<Item = u32>) {
    let mut txn = store.write().expect("nothing failed yet");
    let mut table = txn.table("t").expect("sound");
    for key in keys {
        table.put(&key.to_be_bytes(), &VALUE).expect("sound");
    }
    txn.commit_with(Durability::Visible).expect("room");
}

fn ring_used(store: &Store) -> u64 {
    store.stat().expect("sound").ring_used
}

/// Waits until `done`, since a thread of the store is at it.
fn soon(done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(60), "it never comes");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_thread_empties_the_ring_while_commits_go_on() {
    let dir = tempfile::tempdir().expect("room");
    let store = open(dir.path(), true);
    // Many times what the ring holds, and faster than a disk can be written to: commits
    // find it half full, and full.
    (0..3000).for_each(|key| put(&store, key..key + 1));
    soon(|| ring_used(&store) <= RING_BYTES / 2);
    assert_eq!(store.check().problems, []);
    drop(store);
    let store = open(dir.path(), true);
    let read = store.read();
    let table = read.table("t").expect("sound").expect("there");
    assert_eq!(table.len(), 3000);
    assert_eq!(
        table.get(&2999_u32.to_be_bytes()).expect("sound"),
        Some(&VALUE[..])
    );
}

#[test]
fn without_the_thread_the_commit_that_finds_the_ring_half_full_empties_it() {
    let dir = tempfile::tempdir().expect("room");
    let store = open(dir.path(), false);
    for key in 0..1000 {
        put(&store, key..key + 1);
        assert!(ring_used(&store) <= RING_BYTES / 2);
    }
}

#[test]
fn checkpoints_between_asynchronous_commits_make_the_file_shorter() {
    let dir = tempfile::tempdir().expect("room");
    let store = open(dir.path(), true);
    (0..40).for_each(|batch| put(&store, batch * 100..batch * 100 + 100));
    store.checkpoint().expect("room");
    let length = || fs::metadata(dir.path().join("tree")).expect("there").len();
    let full = length();
    let mut txn = store.write().expect("nothing failed yet");
    let mut table = txn.table("t").expect("sound");
    for key in 100..4000_u32 {
        table.delete(&key.to_be_bytes()).expect("sound");
    }
    txn.commit().expect("room");
    soon(|| {
        let mut txn = store.write().expect("nothing failed yet");
        let mut table = txn.table("t").expect("sound");
        table.put(b"k", &VALUE).expect("sound");
        drop(txn.commit_async().expect("room"));
        length() < full / 4
    });
}
