//! Files that are cut under their readers, with and without `Options::guard_sigbus`.
//!
//! What could go wrong: the process dies although the guard is asked for; zeros are taken
//! for what was written, or are written to the disk as if they were; signals that are not
//! ours are swallowed. How it is seen: files are cut while they are open and everything is
//! called that reads or writes; what ends a process happens in a process of its own.
#![cfg(not(loom))]

use core::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate};

use brickyard_store::{CommitError, Options, ReadError, Store, WriteError};

const ENTRIES: u32 = 20_000;

fn options() -> Options {
    Options::new().ring_bytes(1 << 16).guard_sigbus(true)
}

fn filled(dir: &Path, options: &Options) -> Store {
    let store = options.open(dir).expect("a new store");
    let mut write = store.write().expect("nothing failed yet");
    let mut table = write.table("t").expect("new");
    for number in 0..ENTRIES {
        table.put(&number.to_be_bytes(), &[7; 100]).expect("sound");
    }
    let mut typed = write.typed::<u32, u32>("typed").expect("new");
    typed.put(&1_u32, &1).expect("sound");
    let mut map = write.multi_map("map").expect("new");
    map.insert(b"k", b"v").expect("sound");
    write.commit().expect("room");
    store.checkpoint().expect("a working disk");
    store
}

/// Leaves so many bytes of the tree.
fn cut(dir: &Path, bytes: u64) {
    let tree = OpenOptions::new().write(true).open(dir.join("tree"));
    tree.and_then(|tree| tree.set_len(bytes)).expect("ours");
}

fn assert_vanished<T>(read: Result<T, ReadError>) {
    assert_eq!(read.err(), Some(ReadError::Vanished));
}

#[test]
fn every_read_of_a_file_that_was_cut_is_an_error() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = filled(dir.path(), &options());
    let read = store.read();
    let table = read.table("t").expect("sound").expect("it was made");
    let lent = table.get(&7_u32.to_be_bytes()).expect("sound");
    let mut range = table.range::<[u8]>(..).expect("sound");
    range.next().expect("sound").expect("there are many");
    assert!(!store.has_vanished());
    cut(dir.path(), 8192);
    assert_vanished(table.get(&ENTRIES.to_be_bytes()));
    assert!(store.has_vanished());
    assert_vanished(table.get_many(&[&1_u32.to_be_bytes()]));
    assert_vanished(range.next().map(|_| ()));
    assert_vanished(range.next_back().map(|_| ()));
    assert_vanished(table.first());
    assert_vanished(read.tables());
    assert_vanished(store.stat());
    assert!(read.table("t").is_err() && read.multi_map("map").is_err());
    assert!(read.typed::<u32, u32>("typed").is_err());
    assert_eq!(lent, Some(&[0; 100][..]), "what was lent is zeros");
    assert!(!store.check().problems.is_empty());
    assert!(store.backup(dir.path().join("copy"), |_| ()).is_err());
    assert!(store.checkpoint().is_err() && store.compact(100).is_err());
    let mut write = store.write().expect("nothing failed to be written");
    if let Ok(mut table) = write.table("t") {
        let found = table.get(&1_u32.to_be_bytes());
        assert_eq!(found, Err(WriteError::Read(ReadError::Vanished)));
        let _ = table.put(b"new", b"value");
    }
    write.commit().expect_err("nothing is made of zeros");
    drop(read);
    drop(store);
    // A store beside it is none the worse.
    let other = dir.path().join("other");
    let other = filled(&other, &options());
    assert_eq!(other.check().problems, []);
}

#[test]
fn a_transaction_that_read_zeros_is_not_committed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = filled(dir.path(), &options());
    let mut write = store.write().expect("nothing failed yet");
    let mut table = write.table("t").expect("it is there");
    table.put(&0_u32.to_be_bytes(), b"first").expect("sound");
    cut(dir.path(), 8192);
    let _ = table.put(&(ENTRIES - 1).to_be_bytes(), b"last");
    let error = write.commit().expect_err("a leaf was read that is gone");
    assert!(
        matches!(
            error,
            CommitError::Read(ReadError::Vanished) | CommitError::Broken
        ),
        "{error}"
    );
}

/// The file is cut behind all that the transaction reads: only its length shows it.
#[test]
fn a_guarded_commit_looks_at_the_length_of_the_file() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = filled(dir.path(), &options());
    let mut write = store.write().expect("nothing failed yet");
    let mut table = write.table("t").expect("it is there");
    table.put(&0_u32.to_be_bytes(), b"first").expect("sound");
    let tree = dir.path().join("tree").metadata().expect("ours");
    cut(dir.path(), tree.len() - 4096);
    let error = write.commit().expect_err("a page is missing");
    assert!(
        matches!(error, CommitError::Read(ReadError::Vanished)),
        "{error}"
    );
}

/// Zeros are neither edited nor called damage.
#[test]
fn a_put_into_a_page_that_is_gone_says_so() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = filled(dir.path(), &options());
    let mut write = store.write().expect("nothing failed yet");
    let mut table = write.table("t").expect("it is there");
    cut(dir.path(), 8192);
    let error = table.put(&0_u32.to_be_bytes(), b"first");
    assert_eq!(error, Err(WriteError::Read(ReadError::Vanished)));
    let again = table.put(&1_u32.to_be_bytes(), b"second");
    assert_eq!(again, Err(WriteError::Broken));
}

/// A load that makes the file longer, or writes behind its new end, does not hide the cut.
#[test]
fn a_guarded_load_looks_at_the_length_of_the_file() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = options().open(dir.path()).expect("a new store");
    let put = |table: &str, key: u32, bytes: usize| {
        let mut write = store.write().expect("sound");
        let mut table = write.table(table).expect("sound");
        let key = key.to_be_bytes();
        match bytes {
            0 => assert!(table.delete(&key).expect("sound")),
            _ => assert!(table.put(&key, &vec![7; bytes]).is_ok()),
        }
        write.commit().expect("room");
    };
    (0..20).for_each(|key| put("t", key, 12_000));
    put("t", 100, 1 << 20);
    // Holes below it, into which the nodes move.
    (0..20).step_by(2).for_each(|key| put("t", key, 0));
    for key in 200..206 {
        put("t", key, 1);
        put("other", key, 1);
        store.checkpoint().expect("a working disk");
    }
    let pages = dir.path().join("tree").metadata().expect("ours").len() / 4096;
    let mut write = store.write().expect("sound");
    cut(dir.path(), (pages / 2) * 4096);
    let mut table = write.table("other").expect("not cut off");
    let mut appender = table.appender().expect("not cut off");
    let mut appended = (1000..5000_u32).try_for_each(|key| {
        appender
            .append(&key.to_be_bytes(), &[1; 1000])
            .map_err(drop)
    });
    appended = appended.and(appender.finish().map(drop).map_err(drop));
    assert!(
        appended.is_err() && dir.path().join("tree").metadata().expect("ours").len() / 4096 < pages
    );
    drop(write);
    store.checkpoint().expect_err("bytes are gone");
}

#[test]
fn more_stores_than_can_be_guarded_are_an_error() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let open = |number: u32| {
        let options = options().address_space(1 << 20);
        options.open(dir.path().join(number.to_string()))
    };
    let mut stores: Vec<Store> = (0..200).map_while(|number| open(number).ok()).collect();
    assert!((30..=64).contains(&stores.len()), "{}", stores.len());
    let error = open(300).expect_err("there is no room").to_string();
    assert!(error.contains("guard_sigbus"), "{error}");
    // One that is closed makes room for another.
    stores.pop();
    open(301).expect("there is room");
}

/// The pages of a file are there, and some of them cannot be read: what a disk that fails
/// does. Here it is a full `tmpfs`, which has no memory for a page that was given back.
/// Without the right to mount one, there is nothing to test.
#[test]
fn pages_that_cannot_be_read_are_errors_in_a_file_of_its_length() {
    if !is_child() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let script = "mount -t tmpfs -o size=16m tmpfs \"$1\" || exit 0; touch \"$1/mounted\"; \
                      exec \"$0\" --exact pages_that_cannot_be_read_are_errors_in_a_file_of_its_length";
        let mut child = Command::new("unshare");
        let program = std::env::current_exe().expect("a program has a path");
        child.args(["-m", "sh", "-c", script]).arg(program);
        child.arg(dir.path()).env(CHILD, dir.path());
        let Ok(output) = child.output() else { return };
        let refused = String::from_utf8_lossy(&output.stderr).contains("unshare failed");
        assert!(output.status.success() || refused, "{output:?}");
        return;
    }
    let dir = std::env::var_os(CHILD).expect("the parent said so");
    let dir = Path::new(&dir);
    assert!(dir.join("mounted").exists());
    let folder = dir.join("store");
    filled(&folder, &options()).close().expect("room");
    let store = options().open(&folder).expect("sound");
    let tree = OpenOptions::new().write(true).open(folder.join("tree"));
    let tree = tree.expect("ours");
    let length = tree.metadata().expect("ours").len();
    // All but the slots and the last pages, which are part of no longer file.
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&tree, flags, 8192, length - 3 * 8192).expect("tmpfs has holes");
    let mut rest = File::create(dir.join("rest")).expect("room");
    while rest.write_all(&[1; 4096]).is_ok() {}
    let read = store.read();
    assert!(read.table("t").is_err());
    assert!(store.has_vanished());
    assert_vanished(read.tables());
    assert!(read.typed::<u32, u32>("typed").is_err());
    assert!(!store.check().problems.is_empty());
    assert!(store.checkpoint().is_err());
    assert_eq!(tree.metadata().expect("ours").len(), length);
}

/// Runs one of the tests below on its own, in the role of the child.
fn signal_of(test: &str) -> Option<i32> {
    let program = std::env::current_exe().expect("a program has a path");
    let mut child = Command::new(program);
    child.args(["--exact", test, "--nocapture"]).env(CHILD, "1");
    let output = child.output().expect("it starts");
    let status = output.status;
    assert!(status.success() || status.signal().is_some(), "{output:?}");
    status.signal()
}

const CHILD: &str = "BRICKYARD_VANISHED_CHILD";

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

#[test]
fn without_the_guard_the_system_ends_the_process() {
    if !is_child() {
        let test = "without_the_guard_the_system_ends_the_process";
        assert_eq!(signal_of(test), Some(libc::SIGBUS));
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = filled(dir.path(), &options().guard_sigbus(false));
    cut(dir.path(), 8192);
    let _ = store.read().table("t");
}

#[test]
fn faults_elsewhere_end_a_process_with_guarded_stores() {
    if !is_child() {
        let test = "faults_elsewhere_end_a_process_with_guarded_stores";
        assert_eq!(signal_of(test), Some(libc::SIGBUS));
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (guarded, bare) = (dir.path().join("guarded"), dir.path().join("bare"));
    let _guarded = filled(&guarded, &options());
    let bare_store = filled(&bare, &options().guard_sigbus(false));
    cut(&bare, 8192);
    let _ = bare_store.read().table("t");
}

#[test]
fn a_signal_that_is_sent_ends_a_process_with_guarded_stores() {
    if !is_child() {
        let test = "a_signal_that_is_sent_ends_a_process_with_guarded_stores";
        assert_eq!(signal_of(test), Some(libc::SIGBUS));
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let _store = filled(dir.path(), &options());
    // Rust's own handler, which was there before, makes the first one the default's.
    for _ in 0..2 {
        // SAFETY: a signal to this thread.
        unsafe { libc::raise(libc::SIGBUS) };
    }
}

/// Rust's own handler makes the default the next one's when a signal is sent.
#[test]
fn a_signal_that_is_sent_leaves_the_guard_where_it_is() {
    if !is_child() {
        let test = "a_signal_that_is_sent_leaves_the_guard_where_it_is";
        assert_eq!(signal_of(test), None);
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = filled(dir.path(), &options());
    // SAFETY: a signal to this thread.
    unsafe { libc::raise(libc::SIGBUS) };
    cut(dir.path(), 8192);
    assert!(store.read().table("t").is_err());
}

std::thread_local! {
    static SEEN: Cell<u32> = const { Cell::new(0) };
}

extern "C" fn count(_: libc::c_int) {
    SEEN.set(SEEN.get() + 1);
}

#[test]
fn the_handler_that_was_there_before_gets_what_is_not_ours() {
    if !is_child() {
        let test = "the_handler_that_was_there_before_gets_what_is_not_ours";
        assert_eq!(signal_of(test), None);
        return;
    }
    let handler: extern "C" fn(libc::c_int) = count;
    // SAFETY: the handler adds to a number of its own thread.
    unsafe { libc::signal(libc::SIGBUS, handler as libc::sighandler_t) };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = filled(dir.path(), &options());
    // SAFETY: a signal to this thread.
    unsafe { libc::raise(libc::SIGBUS) };
    assert_eq!(SEEN.get(), 1);
    cut(dir.path(), 8192);
    assert!(store.read().table("t").is_err());
    assert_eq!(SEEN.get(), 1, "that one was ours");
}

/// Nobody has touched what was cut, so there is no fault to see.
#[test]
fn a_checkpoint_keeps_the_ring_of_a_file_that_was_cut() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    // Large enough that no commit makes a checkpoint.
    let options = Options::new().ring_bytes(8 << 20).checkpoint_thread(false);
    let store = filled(dir.path(), &options);
    let length = || dir.path().join("tree").metadata().expect("ours").len();
    let lasting = length();
    let mut write = store.write().expect("nothing failed yet");
    let mut table = write.table("t").expect("sound");
    for number in ENTRIES..ENTRIES + 3000 {
        table.put(&number.to_be_bytes(), &[8; 100]).expect("sound");
    }
    write.commit().expect("room");
    assert!(length() > lasting, "the new pages lie behind the old");
    cut(dir.path(), lasting);
    let failed = store.checkpoint().expect_err("pages are missing");
    assert!(
        matches!(failed, CommitError::Read(ReadError::Vanished)),
        "{failed}"
    );
    drop(store);
    let store = options.open(dir.path()).expect("the ring has it all");
    let read = store.read();
    let table = read.table("t").expect("sound").expect("it was made");
    assert_eq!(table.len(), u64::from(ENTRIES) + 3000);
}
