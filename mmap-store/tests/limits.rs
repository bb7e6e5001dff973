//! What the operating system refuses: files, address space, room on the disk, folders.
//!
//! What could go wrong: a limit ends the process, breaks the store, or is reported so that
//! nobody knows what to do. How it is seen: this program starts itself under a shell's
//! `ulimit`, and the child says which error it got.
#![cfg(not(loom))]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use brickyard_store::{CommitError, OpenError, Options, Store};

const CHILD: &str = "BRICKYARD_LIMITS_CHILD";

fn options() -> Options {
    Options::new().ring_bytes(1 << 16)
}

fn put(store: &Store, key: &[u8], bytes: usize) -> Result<(), CommitError> {
    let mut txn = store.write().expect("nothing failed yet");
    let mut table = txn.table("t").expect("sound");
    table.put(key, &vec![7; bytes]).expect("sound");
    txn.commit()
}

/// Runs the test `name` of this program again, after the shell's `limit`.
fn under(limit: &str, name: &str, dir: &Path) {
    let program = std::env::current_exe().expect("this program");
    let script = format!("{limit} && exec \"$0\" --exact {name} --nocapture --test-threads 1");
    let child = Command::new("sh")
        .args(["-c", &script])
        .arg(program)
        .env(CHILD, dir)
        .output()
        .expect("a shell");
    let text = String::from_utf8_lossy(&child.stdout);
    let error = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{text}\n{error}");
    assert!(text.contains("1 passed"), "it ran: {text}");
}

/// The folder, in the child.
fn child() -> Option<std::path::PathBuf> {
    std::env::var_os(CHILD).map(Into::into)
}

#[test]
fn too_many_open_files_are_reported() {
    let Some(dir) = child() else {
        let dir = tempfile::tempdir().expect("a temporary folder");
        drop(options().open(dir.path()).expect("a new store"));
        return under(
            "ulimit -n 24",
            "too_many_open_files_are_reported",
            dir.path(),
        );
    };
    // Each takes one descriptor; the store needs three.
    let mut held = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        held.push(file);
    }
    for free in 0..3 {
        let error = options().open(&dir).expect_err("no descriptor is left");
        assert!(matches!(error, OpenError::TooManyFiles { .. }), "{error:?}");
        assert!(error.to_string().contains("ulimit -n"), "{error}");
        drop(held.pop());
        assert!(free < 3);
    }
    put(&options().open(&dir).expect("enough"), b"k", 10).expect("room");
}

#[test]
fn too_little_address_space_is_reported() {
    let Some(dir) = child() else {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = options().open(dir.path()).expect("a new store");
        put(&store, b"k", 300 << 20).expect("room");
        drop(store);
        let name = "too_little_address_space_is_reported";
        return under("ulimit -v 400000", name, dir.path());
    };
    let error = options().read_only(true).open(&dir);
    let error = error.expect_err("the file alone takes 300 MiB, and its growth as much");
    assert!(matches!(error, OpenError::AddressSpace { .. }), "{error:?}");
    assert!(error.to_string().contains("ulimit -v"), "{error}");
}

/// The limit on the length of files stands for a full disk: the commit that meets it is
/// refused whole, and smaller ones go on.
#[test]
fn a_file_that_cannot_grow_refuses_a_commit_whole() {
    let Some(dir) = child() else {
        let dir = tempfile::tempdir().expect("a temporary folder");
        drop(options().open(dir.path()).expect("a new store"));
        let name = "a_file_that_cannot_grow_refuses_a_commit_whole";
        // The signal that comes with it would end the process.
        return under("trap '' XFSZ; ulimit -f 4096", name, dir.path());
    };
    let store = options().open(&dir).expect("a sound store");
    let error = put(&store, b"big", 8 << 20).expect_err("4 MiB at most");
    assert!(matches!(error, CommitError::Aborted { .. }), "{error:?}");
    for number in 0..20_u8 {
        put(&store, &[number % 4], 100_000).expect("it fits");
    }
    assert_eq!(store.check().problems, []);
    store.close().expect("a working disk");
    let store = options().open(&dir).expect("a sound store");
    let read = store.read();
    let table = read.table("t").expect("sound").expect("made");
    assert_eq!(table.len(), 4);
}

#[test]
fn a_new_store_takes_nobody_elses_place() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let new = || options().create_new(true).open(dir.path());
    put(&new().expect("there is none"), b"k", 10).expect("room");
    let error = new().expect_err("there is one");
    assert!(matches!(error, OpenError::Exists { .. }), "{error:?}");
    let store = options().open(dir.path()).expect("a sound store");
    assert!(store.read().table("t").expect("sound").is_some());
}

#[test]
fn files_get_the_mode_that_was_asked_for() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    drop(
        options()
            .file_mode(0o640)
            .open(dir.path())
            .expect("a new store"),
    );
    for name in ["tree", "ring", "lock"] {
        let file = fs::metadata(dir.path().join(name)).expect("it is there");
        // The process's umask may take bits away, and adds none.
        let mode = file.permissions().mode() & 0o777;
        assert!(
            mode & !0o640 == 0 && mode & 0o600 == 0o600,
            "{name}: {mode:o}"
        );
    }
    for bad in [0o040, 0o4600, 0o1777] {
        let refused = options().file_mode(bad).open(dir.path());
        let named = matches!(
            refused,
            Err(OpenError::Option {
                option: "file_mode",
                ..
            })
        );
        assert!(named, "{bad:o}");
    }
}
