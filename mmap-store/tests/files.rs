//! A store in real files: closed, opened again, held by others, cut, foreign, damaged.
//!
//! What could go wrong: opening takes what is not a store for an empty one, or says
//! nothing that helps. How it is seen: each case has its own error, and the error names
//! the file, or the page and the reason.
#![cfg(not(loom))]

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use brickyard_store::{
    BeginError, Durability, Flaw, OpenError, Options, PAGE_BYTES, ReadTxn, Store, TableError,
    WriteError,
};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn options() -> Options {
    Options::new().ring_bytes(1 << 16)
}

fn key(number: u32) -> Vec<u8> {
    format!("key {number:06}").into_bytes()
}

fn value(number: u32) -> Vec<u8> {
    vec![(number % 251) as u8; 10 + (number as usize * 37) % 300]
}

/// A closed store with some hundred entries in two tables.
fn filled(dir: &Path) {
    let store = options().open(dir).expect("a new store");
    for batch in 0..10 {
        let mut write = store.write().expect("nothing failed yet");
        let mut table = write.table("numbers").expect("sound");
        for number in batch * 100..batch * 100 + 100 {
            table.put(&key(number), &value(number)).expect("sound");
        }
        let mut blobs = write.table("blobs").expect("sound");
        blobs.put(&key(batch), &vec![7; 20_480]).expect("sound");
        write.commit().expect("room on the disk");
    }
    store.close().expect("a working disk");
}

/// Reads everything; what is read must be what was written.
fn verify(read: &ReadTxn<'_>) -> Result<(), TableError> {
    let table = read.table("numbers")?.expect("it was made");
    let (mut range, mut number) = (table.range::<[u8]>(..)?, 0);
    while let Some((found, bytes)) = range.next()? {
        assert_eq!((found, bytes), (&key(number)[..], &value(number)[..]));
        number += 1;
    }
    assert_eq!(number, 1000);
    let blobs = read.table("blobs")?.expect("it was made");
    for batch in 0..10 {
        let blob = blobs.get(&key(batch))?.expect("it was put");
        assert!(blob.len() == 20_480 && blob.iter().all(|&byte| byte == 7));
    }
    Ok(())
}

fn error(dir: &Path) -> OpenError {
    options().open(dir).expect_err("it must not open")
}

#[test]
fn a_store_holds_what_was_committed_after_it_is_opened_again() {
    let dir = folder();
    filled(dir.path());
    for _ in 0..3 {
        let store = Store::open(dir.path()).expect("a sound store");
        verify(&store.read()).expect("a sound store");
        assert_eq!(store.check().problems, []);
    }
}

#[test]
fn a_dropped_transaction_leaves_nothing() {
    let dir = folder();
    let store = options().open(dir.path()).expect("a new store");
    let mut write = store.write().expect("nothing failed yet");
    write
        .table("t")
        .expect("sound")
        .put(b"k", b"v")
        .expect("sound");
    drop(write);
    assert!(store.read().table("t").expect("sound").is_none());
}

#[test]
fn a_snapshot_stays_what_it_was() {
    let dir = folder();
    let store = options().open(dir.path()).expect("a new store");
    let put = |value: &[u8]| {
        let mut write = store.write().expect("nothing failed yet");
        write
            .table("t")
            .expect("sound")
            .put(b"k", value)
            .expect("sound");
        write.commit().expect("room on the disk");
    };
    put(b"before");
    let old = store.read();
    for round in 0..500_u32 {
        put(&round.to_le_bytes());
    }
    let table = old.table("t").expect("sound").expect("it was made");
    assert_eq!(table.get(b"k").expect("sound"), Some(&b"before"[..]));
}

/// A reader that never ends keeps its version and not every page written since.
#[test]
fn a_forgotten_reader_costs_one_copy() {
    let dir = folder();
    filled(dir.path());
    let store = options().open(dir.path()).expect("a sound store");
    let length = || {
        fs::metadata(dir.path().join("tree"))
            .expect("it is there")
            .len()
    };
    let before = length();
    let forgotten = store.read();
    for round in 0..400_u32 {
        let mut write = store.write().expect("nothing failed yet");
        let mut table = write.table("numbers").expect("sound");
        for number in 0..10 {
            let number = (round * 10 + number) % 1000;
            table.put(&key(number), &value(number)).expect("sound");
        }
        write.commit_with(Durability::Visible).expect("room");
    }
    verify(&forgotten).expect("its version is still there");
    assert!(length() <= 3 * before, "{} after {before}", length());
}

#[test]
fn a_second_writer_is_told_who_is_in_the_way() {
    let dir = folder();
    let store = options().open(dir.path()).expect("a new store");
    let second = error(dir.path());
    assert!(matches!(&second, OpenError::InUse { path } if path.ends_with("lock")));
    assert!(second.to_string().contains("in use"), "{second}");
    let reader = options().read_only(true).open(dir.path());
    assert!(matches!(reader, Err(OpenError::InUse { .. })));
    drop(store);
    options().open(dir.path()).expect("the lock is free again");
}

#[test]
fn readers_only_share_a_store_and_write_nothing() {
    let dir = folder();
    filled(dir.path());
    let files = ["tree", "ring", "lock"].map(|name| dir.path().join(name));
    let bytes = || files.each_ref().map(|path| fs::read(path).expect("a file"));
    let before = bytes();
    let open = || options().read_only(true).open(dir.path()).expect("sound");
    let (one, two) = (open(), open());
    verify(&one.read()).expect("sound");
    verify(&two.read()).expect("sound");
    assert_eq!(one.check().problems, []);
    assert!(matches!(one.write(), Err(BeginError::ReadOnly)));
    assert!(matches!(error(dir.path()), OpenError::InUse { .. }));
    drop((one, two));
    assert!(before == bytes(), "a read-only open wrote to the files");
}

#[test]
fn files_belong_to_their_owner_alone() {
    let dir = folder();
    filled(dir.path());
    for name in ["tree", "ring", "lock"] {
        let metadata = fs::metadata(dir.path().join(name)).expect("a file");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_folder_without_a_store_is_not_one_unless_asked_for() {
    let dir = folder();
    let without = options().create(false).open(dir.path());
    assert!(matches!(without, Err(OpenError::Missing { .. })));
    let reader = options().read_only(true).open(dir.path());
    assert!(matches!(reader, Err(OpenError::Missing { .. })));
    let below = dir.path().join("a/b");
    drop(options().open(&below).expect("folders are made"));
    options()
        .create(false)
        .open(&below)
        .expect("it is there now");
}

/// A creation that dies leaves no file `ring`: the next one starts anew.
#[test]
fn a_creation_that_died_is_repeated() {
    let dir = folder();
    fs::write(dir.path().join("lock"), b"").expect("a file");
    fs::write(dir.path().join("ring.new"), [0; 999]).expect("a file");
    fs::write(dir.path().join("tree"), vec![0; 3 * PAGE_BYTES]).expect("a file");
    let reader = options().read_only(true).open(dir.path());
    assert!(matches!(reader, Err(OpenError::Missing { .. })));
    filled(dir.path());
    let store = options().open(dir.path()).expect("a sound store");
    verify(&store.read()).expect("sound");
}

#[test]
fn a_missing_file_is_a_loss_and_not_a_new_store() {
    for name in ["tree", "ring"] {
        let dir = folder();
        filled(dir.path());
        fs::remove_file(dir.path().join(name)).expect("it was there");
        let error = error(dir.path());
        assert!(
            matches!(&error, OpenError::Incomplete { path } if path.ends_with(name)),
            "{error}"
        );
    }
}

#[test]
fn a_cut_file_is_refused_with_both_lengths() {
    for (name, keep) in [
        ("tree", 0),
        ("tree", 1),
        ("tree", 2),
        ("tree", 40),
        ("ring", 3),
    ] {
        let dir = folder();
        filled(dir.path());
        let path = dir.path().join(name);
        let file = fs::OpenOptions::new()
            .write(true)
            .open(path)
            .expect("a file");
        file.set_len(keep * PAGE_BYTES as u64)
            .expect("a shorter file");
        let error = error(dir.path());
        match error {
            OpenError::Truncated {
                file,
                found,
                expected,
            } => assert!(file == name && found == keep && expected > keep),
            other => panic!("{name} cut to {keep} pages: {other}"),
        }
    }
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("a file");
    file.write_all_at(bytes, at).expect("a working disk");
}

#[test]
fn a_foreign_file_is_not_taken_for_a_store() {
    let dir = folder();
    filled(dir.path());
    let tree = dir.path().join("tree");
    for page in 0..2 {
        overwrite(&tree, page * 4096, b"SQLite format 3\0");
    }
    assert!(matches!(error(dir.path()), OpenError::Foreign));
    fs::write(&tree, vec![0; 100 * PAGE_BYTES]).expect("zeros");
    assert!(matches!(error(dir.path()), OpenError::Foreign));
}

#[test]
fn a_later_format_is_named() {
    let dir = folder();
    filled(dir.path());
    for page in 0..2 {
        overwrite(
            &dir.path().join("tree"),
            page * 4096 + 8,
            &7_u32.to_le_bytes(),
        );
    }
    let error = error(dir.path());
    assert!(matches!(error, OpenError::Version { found: 7, known: 1 }));
    assert!(error.to_string().contains("format 7"), "{error}");
}

#[test]
fn two_damaged_slots_are_one_error_and_one_is_none() {
    let dir = folder();
    filled(dir.path());
    let tree = dir.path().join("tree");
    let whole = fs::read(&tree).expect("a file");
    // The older of the two: the one with the smaller generation.
    let generation = |page: usize| whole[page * PAGE_BYTES + 16..][..8].to_vec();
    let older = u64::from(generation(0)[0] > generation(1)[0]);
    overwrite(&tree, older * 4096 + 20, &[0xee]);
    let store = options().open(dir.path()).expect("the newer slot is whole");
    verify(&store.read()).expect("sound");
    drop(store);
    for page in 0..2 {
        overwrite(&tree, page * 4096 + 30, &[0xee; 4]);
    }
    let error = error(dir.path());
    let flaw = matches!(
        error,
        OpenError::Meta {
            flaw: Flaw::Checksum
        }
    );
    assert!(flaw, "{error}");
}

/// One byte of each page in turn: nothing wrong is ever shown, and the error names the
/// page and the reason.
#[test]
fn a_flipped_byte_is_found_and_its_page_named() {
    let dir = folder();
    filled(dir.path());
    let tree = dir.path().join("tree");
    let whole = fs::read(&tree).expect("a file");
    let store = options().read_only(true).open(dir.path());
    let live = store.expect("sound").check().live_pages;
    let (mut named, mut of_blobs) = (0, 0);
    for page in 2..whole.len() / PAGE_BYTES {
        fs::write(&tree, &whole).expect("room");
        let at = page * PAGE_BYTES + (page * 997) % PAGE_BYTES;
        overwrite(&tree, at as u64, &[whole[at] ^ 0x10]);
        let text = match options().read_only(true).open(dir.path()) {
            // The map of free pages is needed at once.
            Err(error) => error.to_string(),
            Ok(store) => match verify(&store.read()) {
                Ok(()) => continue,
                Err(error) => {
                    let problems = store.check().problems;
                    assert!(!problems.is_empty(), "check sees page {page}");
                    error.to_string()
                }
            },
        };
        let expected = format!("page {page} is damaged: the checksum does not fit");
        // A blob's five pages have one checksum, and the first one's name.
        let checksum = text.contains("the checksum does not fit");
        assert!(checksum, "{text}");
        named += u64::from(text.contains(&expected));
        of_blobs += u64::from(!text.contains(&expected));
    }
    assert_eq!(of_blobs, 10 * 4, "the other pages of the blobs");
    assert_eq!(
        named,
        live - of_blobs + 1,
        "nodes, blobs, map of free pages"
    );
}

#[test]
fn a_key_that_is_too_long_changes_nothing() {
    let store = options().open_in_memory().expect("address space");
    let mut write = store.write().expect("nothing failed yet");
    let mut table = write.table("t").expect("sound");
    let long = vec![1; brickyard_store::MAX_KEY_BYTES];
    table.put(&long, b"as long as it may be").expect("it fits");
    let result = table.put(&[&long[..], &[1]].concat(), b"");
    assert!(matches!(
        result,
        Err(WriteError::KeyTooLong { bytes: 2049, .. })
    ));
    write.commit().expect("memory");
    let read = store.read();
    assert_eq!(read.table("t").expect("sound").expect("made").len(), 1);
}

#[test]
fn an_option_that_cannot_work_is_refused() {
    let dir = folder();
    let ring = Options::new().ring_bytes(5000).open(dir.path());
    assert!(matches!(
        ring,
        Err(OpenError::Option {
            option: "ring_bytes",
            ..
        })
    ));
    let space = Options::new().address_space(1).open(dir.path());
    assert!(matches!(
        space,
        Err(OpenError::Option {
            option: "address_space",
            ..
        })
    ));
}

/// The address space that was asked for bounds the file; the transaction that would
/// outgrow it is refused whole, and smaller ones go on.
#[test]
fn a_full_map_refuses_a_commit_whole() {
    let dir = folder();
    let store = options().address_space(1 << 20).open(dir.path());
    let store = store.expect("a new store");
    let mut write = store.write().expect("nothing failed yet");
    write
        .table("t")
        .expect("sound")
        .put(b"big", &vec![1; 2 << 20])
        .expect("memory");
    let error = write.commit().expect_err("it cannot fit");
    assert!(error.to_string().contains("address_space"), "{error}");
    let mut write = store.write().expect("the store goes on");
    write
        .table("t")
        .expect("sound")
        .put(b"small", b"1")
        .expect("memory");
    write.commit().expect("it fits");
    assert_eq!(store.check().problems, []);
}

/// A transaction longer than the ring is its own checkpoint, and lasts all the same.
#[test]
fn a_transaction_longer_than_the_ring_lasts() {
    let dir = folder();
    let blob = vec![9; 3 << 20];
    let store = options().open(dir.path()).expect("a new store");
    let mut write = store.write().expect("nothing failed yet");
    write
        .table("t")
        .expect("sound")
        .put(b"blob", &blob)
        .expect("memory");
    write.commit().expect("room");
    drop(store);
    let store = options().open(dir.path()).expect("a sound store");
    let read = store.read();
    let table = read.table("t").expect("sound").expect("made");
    assert_eq!(table.get(b"blob").expect("sound"), Some(&blob[..]));
}

/// Transactions may end on another thread than they began on; readers go anywhere.
#[test]
fn readers_move_between_threads() {
    fn moves<T: Send>(_: &T) {}
    fn is_shared<T: Send + Sync>(_: &T) {}
    let store = options().open_in_memory().expect("address space");
    is_shared(&store);
    let read = store.read();
    moves(&read);
    std::thread::scope(|scope| {
        scope.spawn(move || drop(read));
    });
}

/// A range is taken out whole, and nothing beside it, whatever its ends are.
#[test]
fn a_deleted_range_takes_what_lies_in_it() {
    use core::ops::Bound::{Excluded, Included, Unbounded};
    let dir = folder();
    let (low, high) = (key(300), key(1700));
    let bounds = [
        (Included(&low[..]), Excluded(&high[..]), 300..1700),
        (Excluded(&low[..]), Included(&high[..]), 301..1701),
        (Unbounded, Included(&low[..]), 0..301),
        (Included(&high[..]), Unbounded, 1700..2000),
        (Unbounded, Unbounded, 0..2000),
        (Included(&high[..]), Included(&low[..]), 0..0),
    ];
    for (start, end, gone) in bounds {
        let store = options().open(dir.path()).expect("opens");
        let mut txn = store.write().expect("the only writer");
        let mut table = txn.table("ranges").expect("sound");
        for number in 0..2000 {
            table.put(&key(number), &value(number)).expect("sound");
        }
        let count = table.delete_range::<[u8]>((start, end)).expect("sound");
        assert_eq!(count, gone.len() as u64);
        txn.commit().expect("room");
        store.close().expect("room");
        let store = options().open(dir.path()).expect("opens");
        let read = store.read();
        let table = read.table("ranges").expect("sound").expect("made above");
        for number in 0..2000 {
            let found = table.get(&key(number)).expect("sound").is_some();
            assert_eq!(found, !gone.contains(&number), "key {number}");
        }
        drop(read);
        assert_eq!(store.check().problems, []);
    }
}
