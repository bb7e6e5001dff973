//! Backups, whole and incremental, of a store that is written to meanwhile.
//!
//! What could go wrong: the copy is of no one moment, lacks pages, or is taken for a store
//! although it is not whole; an increment is applied to what it does not fit, or damages a
//! backup. How it is seen: copies are opened, checked and compared entry by entry with the
//! state they are of; streams are cut and changed at every place that means something.
#![cfg(not(loom))]

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use brickyard_store::{BackupError, BackupMark, OpenError, Options, ReadTxn, Store};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn options() -> Options {
    Options::new().ring_bytes(1 << 18)
}

fn dump(read: &ReadTxn<'_>) -> Model {
    let mut model = Model::new();
    for name in ["one", "two"] {
        let Some(table) = read.table(name).expect("sound") else {
            continue;
        };
        let mut range = table.range::<[u8]>(..).expect("sound");
        while let Some((key, value)) = range.next().expect("sound") {
            model.insert([name.as_bytes(), key].concat(), value.to_vec());
        }
    }
    model
}

fn dump_of(dir: &Path) -> Model {
    let store = options().read_only(true).open(dir).expect("a sound store");
    assert_eq!(store.check().problems, []);
    dump(&store.read())
}

/// Some entries, of which the `round` changes some; every twentieth is a large value.
fn write(store: &Store, round: u32, count: u32) {
    let mut txn = store.write().expect("nothing failed yet");
    for number in 0..count {
        let number = (number * 7 + round * 13) % 3000;
        let name = if number.is_multiple_of(2) {
            "one"
        } else {
            "two"
        };
        let mut table = txn.table(name).expect("sound");
        let key = format!("{number:05}").into_bytes();
        let len = if number.is_multiple_of(20) { 9000 } else { 100 };
        let value = round.to_le_bytes().repeat(len / 4);
        if (number + round).is_multiple_of(11) {
            table.delete(&key).expect("sound");
        } else {
            table.put(&key, &value).expect("sound");
        }
    }
    txn.commit().expect("room");
}

fn filled(dir: &Path) -> Store {
    let store = options().open(dir).expect("a new store");
    for round in 0..5 {
        write(&store, round, 3000);
    }
    store
}

#[test]
fn a_backup_is_a_store_of_one_moment_while_others_write() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = filled(&dir.path().join("store"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 10..2000 {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                write(&store, round, 50);
            }
        });
        for number in 0..3 {
            let to = dir.path().join(format!("backup {number}"));
            let (mut seen, mut all) = (0, None);
            let report = store.backup(&to, |progress| {
                assert!(progress.pages > seen, "it goes on");
                (seen, all) = (progress.pages, progress.of);
            });
            let report = report.expect("room");
            assert!(Some(seen) == all && report.pages > seen, "{report:?}");
            assert_eq!(BackupMark::of(&to).expect("a backup"), report.mark);
            let copied = dump_of(&to);
            assert!(copied.len() > 2000);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let last = dir.path().join("last");
    store.backup(&last, |_| {}).expect("room");
    assert_eq!(dump_of(&last), dump(&store.read()));
    // It can be written to, as any store.
    let copy = options().open(&last).expect("a sound store");
    write(&copy, 99, 500);
    assert_eq!(copy.check().problems, []);
}

#[test]
fn a_backup_takes_the_room_of_what_is_in_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = options()
        .checkpoint_budget(0)
        .open(dir.path().join("store"));
    let store = store.expect("a new store");
    write(&store, 0, 3000);
    let mut txn = store.write().expect("nothing failed yet");
    txn.table("one")
        .expect("sound")
        .delete_range::<[u8]>(..)
        .expect("sound");
    txn.commit().expect("room");
    let to = dir.path().join("backup");
    let report = store.backup(&to, |_| {}).expect("room");
    let blocks = fs::metadata(to.join("tree")).expect("a file").blocks() * 512;
    assert!(
        blocks <= (report.pages + 16) * 4096,
        "{blocks} for {report:?}"
    );
}

#[test]
fn a_backup_goes_to_a_place_of_its_own() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = filled(&dir.path().join("store"));
    let to = dir.path().join("backup");
    fs::create_dir(&to).expect("room");
    // What an attempt left that was cut short is no store, and in nobody's way.
    let part = dir.path().join("backup.partial");
    fs::create_dir(&part).expect("room");
    fs::write(part.join("tree"), [0; 4096]).expect("room");
    store.backup(&to, |_| {}).expect("an empty folder will do");
    assert!(!part.exists());
    let again = store.backup(&to, |_| {});
    assert!(
        matches!(again, Err(BackupError::Exists { .. })),
        "{again:?}"
    );
    let nowhere = store.backup("/proc/no/such/place", |_| {});
    assert!(
        matches!(nowhere, Err(BackupError::Io { .. })),
        "{nowhere:?}"
    );
}

#[test]
fn increments_bring_a_backup_up_to_date() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = filled(&dir.path().join("store"));
    let to = dir.path().join("backup");
    let whole = store.backup(&to, |_| {}).expect("room");
    let mut mark = whole.mark;
    for round in 0..12 {
        write(&store, 100 + round, if round == 5 { 3000 } else { 20 });
        if round % 4 == 3 {
            // Pages move, and the file becomes shorter.
            store.compact(u64::MAX).expect("room");
        }
        if round == 8 {
            let mut txn = store.write().expect("nothing failed yet");
            assert!(txn.delete_table("two").expect("sound"));
            txn.commit().expect("room");
        }
        let (mut stream, told) = (Vec::new(), Cell::new(0));
        let report = store.backup_since(mark, &mut stream, |at| told.set(at.pages));
        let report = report.expect("memory");
        assert_eq!(told.get(), report.pages);
        if round < 3 {
            assert!(report.pages < whole.pages / 2, "{report:?} of {whole:?}");
        }
        let applied = Store::apply_increment(&to, &stream[..], |_| {}).expect("room");
        assert_eq!(applied.mark, report.mark);
        assert_eq!(dump_of(&to), dump(&store.read()), "round {round}");
        // Once more changes nothing.
        Store::apply_increment(&to, &stream[..], |_| {}).expect("nothing to do");
        mark = report.mark;
        assert_eq!(BackupMark::of(&to).expect("a backup"), mark);
    }
}

#[test]
fn a_stream_that_is_not_whole_leaves_the_backup_as_it_was() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = filled(&dir.path().join("store"));
    let to = dir.path().join("backup");
    let mark = store.backup(&to, |_| {}).expect("room").mark;
    let before = dump_of(&to);
    write(&store, 50, 40);
    let mut stream = Vec::new();
    store
        .backup_since(mark, &mut stream, |_| {})
        .expect("memory");
    let apply = |stream: &[u8]| Store::apply_increment(&to, stream, |_| {}).map(|_| ());
    for len in [0, 63, 64, 70, 76, 4000, stream.len() - 9, stream.len() - 1] {
        let result = apply(&stream[..len]);
        assert!(
            matches!(result, Err(BackupError::Truncated)),
            "{len}: {result:?}"
        );
    }
    for at in (0..200).chain((200..stream.len()).step_by(997)) {
        let mut bad = stream.clone();
        bad[at] ^= 0x40;
        let result = apply(&bad);
        let fits = match at {
            0..8 => matches!(result, Err(BackupError::Foreign)),
            8..12 => matches!(result, Err(BackupError::Version { .. })),
            12..64 => matches!(result, Err(BackupError::Corrupt { block: 0 })),
            _ => matches!(
                result,
                Err(BackupError::Corrupt { .. } | BackupError::Truncated)
            ),
        };
        assert!(fits, "byte {at}: {result:?}");
    }
    assert_eq!(dump_of(&to), before);
    apply(&stream).expect("the whole one fits");
    assert_eq!(dump_of(&to), dump(&store.read()));
}

#[test]
fn an_increment_fits_one_state_only() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = filled(&dir.path().join("store"));
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let first = store.backup(&one, |_| {}).expect("room").mark;
    write(&store, 50, 40);
    let second = store.backup(&two, |_| {}).expect("room").mark;
    write(&store, 51, 40);
    let mut stream = Vec::new();
    store
        .backup_since(second, &mut stream, |_| {})
        .expect("memory");
    let wrong = Store::apply_increment(&one, &stream[..], |_| {});
    assert!(
        matches!(&wrong, Err(BackupError::WrongBase { expected, found })
            if (*expected, *found) == (second.txn(), first.txn())),
        "{wrong:?}"
    );
    // A backup that was written to since is another store.
    let copy = options().open(&two).expect("a sound store");
    write(&copy, 52, 40);
    let ahead = Store::apply_increment(&two, &stream[..], |_| {});
    assert!(
        matches!(ahead, Err(BackupError::Unsound { .. })),
        "{ahead:?}"
    );
    drop(copy);
    let ahead = Store::apply_increment(&two, &stream[..], |_| {});
    assert!(
        matches!(ahead, Err(BackupError::WrongBase { .. })),
        "{ahead:?}"
    );
    // Nor can a store build on a state that is not its own.
    let other = options()
        .open(dir.path().join("other"))
        .expect("a new store");
    let none = other.backup_since(first, &mut Vec::new(), |_| {});
    assert!(matches!(none, Err(BackupError::Base { .. })), "{none:?}");
}

/// The machine stops while an increment is applied: no store is there until it is applied
/// once more.
#[test]
fn a_backup_that_is_half_up_to_date_is_no_store() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = filled(&dir.path().join("store"));
    let to = dir.path().join("backup");
    let mark = store.backup(&to, |_| {}).expect("room").mark;
    write(&store, 50, 400);
    let mut stream = Vec::new();
    store
        .backup_since(mark, &mut stream, |_| {})
        .expect("memory");
    // What the death in the middle leaves: the ring's other name, and some of the pages.
    fs::rename(to.join("ring"), to.join("ring.applying")).expect("a file");
    let opened = options().open(&to);
    assert!(
        matches!(opened, Err(OpenError::Incomplete { .. })),
        "{opened:?}"
    );
    let opened = options().read_only(true).open(&to);
    assert!(opened.is_err(), "{opened:?}");
    Store::apply_increment(&to, &stream[..], |_| {}).expect("room");
    assert_eq!(dump_of(&to), dump(&store.read()));
}

/// What the ring holds is done anew after a death, and then lies in other pages than before;
/// what a backup has must not.
#[test]
fn an_increment_fits_a_backup_of_before_the_writer_died() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let first = dir.path().join("store");
    let store = filled(&first);
    store.checkpoint().expect("room");
    // Pages that these readers hold are not used now, and will be after the death.
    let mut readers = Vec::new();
    for round in 50..56 {
        write(&store, round, 60);
        readers.push(store.read());
    }
    drop(readers);
    let to = dir.path().join("backup");
    let mark = store.backup(&to, |_| {}).expect("room").mark;
    write(&store, 60, 30);
    let next = dir.path().join("next");
    fs::create_dir(&next).expect("room");
    for name in ["tree", "ring"] {
        fs::copy(first.join(name), next.join(name)).expect("room");
    }
    let store = options().open(&next).expect("a sound store");
    write(&store, 61, 30);
    let mut stream = Vec::new();
    store
        .backup_since(mark, &mut stream, |_| {})
        .expect("memory");
    Store::apply_increment(&to, &stream[..], |_| {}).expect("it fits");
    assert_eq!(dump_of(&to), dump(&store.read()));
}
