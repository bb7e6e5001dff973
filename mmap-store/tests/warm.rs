//! `Options::warm` on real files.
//!
//! What could go wrong: a note that is missing, damaged or foreign keeps a store from being
//! opened or changes what is read; it is written where nothing was asked for, or where
//! nothing may be written. How it is seen: stores are opened with all kinds of notes. That
//! the right pages are loaded is tested where the note is made (`backing/warm.rs`).
#![cfg(not(loom))]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use brickyard_store::{Options, Store};

fn options() -> Options {
    Options::new().ring_bytes(1 << 14).warm(true)
}

fn filled(dir: &Path) {
    let store = options().open(dir).expect("a new store");
    let mut write = store.write().expect("nothing failed yet");
    let mut table = write.table("t").expect("new");
    for number in 0..3000_u32 {
        table.put(&number.to_be_bytes(), &[7; 100]).expect("sound");
    }
    write.commit().expect("room");
    store.close().expect("a working disk");
}

fn verify(store: &Store) {
    let read = store.read();
    let table = read.table("t").expect("sound").expect("it was made");
    assert_eq!(table.len(), 3000);
    assert_eq!(store.check().problems, []);
}

#[test]
fn whatever_the_note_is_the_store_opens() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    filled(dir.path());
    let path = dir.path().join("warm");
    let note = fs::read(&path).expect("it was written at close");
    let mode = fs::metadata(&path).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut changed = note.clone();
    changed[20] ^= 1;
    let far = [&note[..], &[0xff; 64]].concat();
    let notes = [
        &note[..],
        &[],
        b"foreign",
        &note[..note.len() - 1],
        &changed,
        &far,
    ];
    for note in notes {
        for read_only in [true, false] {
            fs::write(&path, note).expect("room");
            let store = options().read_only(read_only).open(dir.path());
            verify(&store.expect("a note is a hint"));
        }
    }
    assert_eq!(fs::read(&path).expect("written anew").len() % 8, 0);
    fs::remove_file(&path).expect("it is there");
    fs::create_dir(&path).expect("room");
    let store = options().open(dir.path()).expect("a note is a hint");
    verify(&store);
    store.close().expect("a note is a hint");
    let names = fs::read_dir(dir.path()).expect("ours").count();
    assert_eq!(names, 4, "nothing else is left");
}

#[test]
fn no_note_is_written_unasked_or_where_nothing_may_be() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    filled(dir.path());
    let path = dir.path().join("warm");
    fs::remove_file(&path).expect("it was written at close");
    drop(options().warm(false).open(dir.path()).expect("sound"));
    assert!(!path.exists());
    let reader = || options().read_only(true).open(dir.path()).expect("sound");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).expect("ours");
    drop(reader());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("ours");
    drop(reader());
    assert!(path.exists(), "a reader notes, where it may");
    let names = fs::read_dir(dir.path()).expect("ours").count();
    assert_eq!(names, 4, "nothing else is left");
}
