//! The file becomes shorter, readers present; who keeps it long is told.
//!
//! What could go wrong: the file never shrinks, or it shrinks under a reader (which ends
//! the process), or what was moved is lost. How it is seen: lengths before and after, and
//! every entry compared with what it must be, by snapshots from before, during and after.
#![cfg(not(loom))]

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use brickyard_store::{Durability, Options, ReadTxn, Store};

const ENTRIES: u32 = 20_000;

fn options() -> Options {
    Options::new().ring_bytes(1 << 20)
}

fn key(number: u32) -> [u8; 8] {
    let mixed = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_be_bytes()
}

fn value(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(40)
}

/// A store in which every tenth entry is a large value, if `large` says so.
fn filled(dir: &Path, large: bool) -> Store {
    let store = options().open(dir).expect("a new store");
    for batch in 0..ENTRIES / 1000 {
        let mut write = store.write().expect("nothing failed yet");
        let mut table = write.table("t").expect("sound");
        for number in batch * 1000..(batch + 1) * 1000 {
            let mut value = value(number);
            if large && number.is_multiple_of(10) {
                value = value.repeat(60);
            }
            table.put(&key(number), &value).expect("sound");
        }
        write.commit_with(Durability::Visible).expect("room");
    }
    store.checkpoint().expect("room");
    store
}

/// Keeps one entry of four, or none of the large ones.
fn thin_out(store: &Store, kept: impl Fn(u32) -> bool) {
    for batch in 0..ENTRIES / 1000 {
        let mut write = store.write().expect("nothing failed yet");
        let mut table = write.table("t").expect("sound");
        for number in (batch * 1000..(batch + 1) * 1000).filter(|&number| !kept(number)) {
            table.delete(&key(number)).expect("sound");
        }
        write.commit_with(Durability::Visible).expect("room");
    }
}

fn verify(read: &ReadTxn<'_>, kept: impl Fn(u32) -> bool) {
    let table = read.table("t").expect("sound").expect("it was made");
    for number in 0..ENTRIES {
        let found = table.get(&key(number)).expect("sound");
        assert_eq!(found.is_some(), kept(number), "entry {number}");
        if let Some(found) = found {
            let value = value(number);
            assert!(found.chunks(value.len()).all(|part| part == value));
        }
    }
}

fn length(dir: &Path) -> u64 {
    fs::metadata(dir.join("tree")).expect("it is there").len()
}

fn quarter(number: u32) -> bool {
    number.is_multiple_of(4)
}

#[test]
fn checkpoints_make_the_file_shorter_while_readers_come_and_go() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = filled(dir.path(), false);
    let before = length(dir.path());
    thin_out(&store, quarter);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    verify(&store.read(), quarter);
                }
            });
        }
        for _ in 0..10 {
            store.checkpoint().expect("room");
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
    });
    store.checkpoint().expect("room");
    let after = length(dir.path());
    assert!(after < before / 2, "{after} after {before}");
    assert_eq!(store.check().problems, []);
    store.close().expect("room");
    let store = Store::open(dir.path()).expect("a sound store");
    verify(&store.read(), quarter);
    assert_eq!(store.check().problems, []);
}

#[test]
fn a_reader_keeps_its_version_and_no_longer_than_it_lives() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = filled(dir.path(), true);
    let before = length(dir.path());
    let old = store.read();
    thin_out(&store, quarter);
    for _ in 0..4 {
        store.checkpoint().expect("room");
    }
    verify(&old, |_| true);
    assert!(length(dir.path()) >= before / 2, "its pages are there");
    let report = store.compact(u64::MAX).expect("room");
    assert!(report.held_pages > 0, "{report:?}");
    verify(&old, |_| true);
    drop(old);
    let report = store.compact(u64::MAX).expect("room");
    assert!(report.done && report.held_pages == 0, "{report:?}");
    verify(&store.read(), quarter);
    let report = store.check();
    assert_eq!(report.problems, []);
    let pages = length(dir.path()) / 4096;
    assert!(
        pages <= report.live_pages + report.live_pages / 50 + 16,
        "{pages} pages and {} live ones",
        report.live_pages
    );
}

#[test]
fn large_values_move_down_too() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = filled(dir.path(), true);
    let kept = |number: u32| !number.is_multiple_of(10) || number.is_multiple_of(20);
    let before = length(dir.path());
    thin_out(&store, kept);
    let report = store.compact(u64::MAX).expect("room");
    assert!(report.done && report.moved_pages > 0 && report.cut_pages > 0);
    assert!(length(dir.path()) < before * 3 / 4, "{report:?}");
    verify(&store.read(), kept);
    assert_eq!(store.check().problems, []);
    // Nothing is left to be done, and doing it costs nothing.
    let again = store.compact(u64::MAX).expect("room");
    assert_eq!((again.moved_pages, again.cut_pages), (0, 0));
}

#[test]
fn a_compaction_keeps_to_its_budget() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = options().checkpoint_budget(0);
    let store = {
        drop(filled(dir.path(), false));
        store.open(dir.path()).expect("a sound store")
    };
    thin_out(&store, quarter);
    let length_before = length(dir.path());
    store.checkpoint().expect("room");
    let mut rounds = 0;
    loop {
        let report = store.compact(40).expect("room");
        // The nodes above the last page that is moved come along.
        assert!(report.moved_pages <= 50, "{report:?}");
        verify(&store.read(), quarter);
        if report.done {
            break;
        }
        rounds += 1;
    }
    assert!(rounds > 2, "{rounds} rounds");
    assert!(length(dir.path()) < length_before / 2);
    assert_eq!(store.check().problems, []);
}

/// A pinned end keeps the file long; its free pages give their blocks back.
#[test]
fn free_pages_below_a_pinned_end_take_no_room_on_the_disk() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = filled(dir.path(), false);
    thin_out(&store, |number| number.is_multiple_of(16));
    // This one sees little, and some of it lies at the end.
    let pin = store.read();
    for _ in 0..3 {
        store.checkpoint().expect("room");
    }
    let file = fs::metadata(dir.path().join("tree")).expect("it is there");
    let blocks = file.blocks() * 512;
    assert!(blocks < file.len() * 3 / 4, "{blocks} of {}", file.len());
    verify(&pin, |number| number.is_multiple_of(16));
    drop(pin);
    verify(&store.read(), |number| number.is_multiple_of(16));
    assert_eq!(store.check().problems, []);
}

#[test]
fn a_slow_reader_is_reported() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    drop(filled(dir.path(), false));
    let store = options().trace_readers(true).open(dir.path());
    let store = store.expect("a sound store");
    assert_eq!(store.readers(), []);
    let slow = std::thread::scope(|scope| {
        let slow = std::thread::Builder::new().name("slow".into());
        let slow = slow.spawn_scoped(scope, || store.read());
        let slow = slow.expect("a thread").join().expect("it reads");
        thin_out(&store, quarter);
        slow
    });
    let named = std::thread::Builder::new().name("here".into());
    let reports = std::thread::scope(|scope| {
        let named = named.spawn_scoped(scope, || {
            let here = store.read();
            let reports = store.readers();
            drop(here);
            reports
        });
        named.expect("a thread").join().expect("it reads")
    });
    let [old, new] = &reports[..] else {
        panic!("two readers: {reports:?}")
    };
    assert_eq!(old.txn, slow.txn());
    assert_eq!(old.behind, u64::from(ENTRIES / 1000));
    assert!(old.held_pages.is_some_and(|pages| pages > 100), "{old:?}");
    assert!(old.thread != new.thread && old.thread_name.is_none());
    assert_eq!(new.thread_name.as_deref(), Some("here"));
    assert_eq!((new.behind, new.held_pages), (0, Some(0)));
    assert!(old.age >= new.age && new.age.is_some());
    let place = old.location.expect("it was asked for");
    assert!(place.file().ends_with("space.rs"), "{place}");
    drop(slow);
    assert_eq!(store.readers(), []);
}
