//! `brickyard store` as its user sees it.
//!
//! What could go wrong: a dump, a backup or an increment does not come back as what it was, a
//! look changes files, what failed half way is left as if it were whole, or a script cannot
//! tell an absent key from a damaged store. How it is seen: output, exit codes and bytes of
//! the files.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use brickyard_store::{Compression, Options, Store, TableOptions};

/// Runs `brickyard store` with these arguments and this input.
fn store(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brickyard"));
    command.arg("store").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    // It may end without reading.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn code(arguments: &[&str]) -> i32 {
    let output = store(arguments, b"");
    output.status.code().expect("it was not killed")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder's path is UTF-8")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A closed store with a plain table, one with options, and one with a long value.
fn filled(dir: &Path) {
    let store = Options::new().ring_bytes(1 << 14).open(dir);
    let store = store.expect("a new store");
    let mut write = store.write().expect("nothing failed yet");
    let mut towns = write.table("towns").expect("sound");
    towns.put(b"Ulm", b"128000").expect("sound");
    towns.put(b"", b"a\tb\n\\\xff").expect("sound");
    let options = TableOptions::new().alignment(64).value_type("map 2");
    let mut maps = write.table_with("maps", &options).expect("sound");
    maps.put(b"\x00\x01", &[7; 10_000]).expect("sound");
    write.commit().expect("room");
    store.close().expect("a working disk");
}

#[test]
fn a_dump_that_is_loaded_is_the_same_store() {
    let (from, to) = (tempfile::tempdir(), tempfile::tempdir());
    let (from, to) = (from.expect("a folder"), to.expect("a folder"));
    filled(from.path());
    let dump = store(&["dump", text(from.path())], b"");
    assert!(dump.status.success());
    let lines = stdout(&dump);
    let head = "brickyard store dump 1\ntable\tmaps\t1\talign=64\tvalue=map 2\n";
    assert!(lines.starts_with(head), "{lines}");
    assert!(
        lines.contains("\n\ta\\tb\\n\\\\\\xff\nUlm\t128000\nend\n"),
        "{lines}"
    );
    let load = store(&["load", text(to.path())], &dump.stdout);
    assert!(load.status.success(), "{load:?}");
    let again = store(&["dump", text(to.path())], b"");
    assert_eq!(stdout(&again), lines);
    let read_only = Options::new().read_only(true).open(to.path());
    let read_only = read_only.expect("a sound store");
    let read = read_only.read();
    let options = TableOptions::new().alignment(64).value_type("map 2");
    let maps = read.table_with("maps", &options).expect("as it was");
    assert_eq!(maps.expect("as it was").len(), 1);
    drop(read);
    drop(read_only);
    let only = store(&["dump", "--table", "towns", text(from.path())], b"");
    assert!(!stdout(&only).contains("maps"));
}

#[test]
fn a_dump_that_was_cut_or_changed_is_refused() {
    let (from, to) = (tempfile::tempdir(), tempfile::tempdir());
    let (from, to) = (from.expect("a folder"), to.expect("a folder"));
    filled(from.path());
    let dump = stdout(&store(&["dump", text(from.path())], b""));
    let cut = dump.strip_suffix("end\n").expect("its end");
    for bad in [cut, "", "a table\n", &dump.replace("towns\t2", "towns\t3")] {
        let output = store(&["load", text(to.path())], bad.as_bytes());
        assert_eq!(output.status.code(), Some(2), "{bad}");
    }
}

#[test]
fn entries_are_put_got_and_deleted() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("value");
    fs::write(&file, [0, 255, 10]).expect("room");
    let place = dir.path().join("a.store");
    let place = text(&place);
    let value = format!("@{}", text(&file));
    assert_eq!(code(&["put", place, "t", "hex:00ff", &value]), 0);
    assert_eq!(code(&["put", place, "t", "text:@key", "plain"]), 0);
    assert_eq!(
        store(&["get", place, "t", "hex:00ff"], b"").stdout,
        [0, 255, 10]
    );
    assert_eq!(
        store(&["get", place, "t", "text:@key"], b"").stdout,
        b"plain"
    );
    assert_eq!(code(&["get", place, "t", "absent"]), 1);
    assert_eq!(code(&["get", place, "no table", "absent"]), 1);
    assert_eq!(code(&["delete", place, "t", "hex:00ff"]), 0);
    assert_eq!(code(&["delete", place, "t", "hex:00ff"]), 1);
    assert_eq!(code(&["get", place, "t", "hex:00ff"]), 1);
    assert_eq!(code(&["get", place, "t", "hex:0"]), 2);
}

#[test]
fn looking_changes_nothing_and_damage_has_its_own_code() {
    let dir = tempfile::tempdir().expect("a folder");
    filled(dir.path());
    let tree = dir.path().join("tree");
    let before = fs::read(&tree).expect("a file");
    let check = store(&["check", text(dir.path())], b"");
    assert!(check.status.success(), "{check:?}");
    assert!(stdout(&check).contains("2 tables, 3 entries"), "{check:?}");
    assert!(check.stderr.is_empty(), "no bar where there is no terminal");
    let stat = stdout(&store(&["stat", text(dir.path())], b""));
    let row = stat.lines().find(|line| line.starts_with("maps"));
    let row = row.expect("a row a table").split_whitespace();
    let row: Vec<&str> = row.collect();
    assert_eq!(
        row,
        ["maps", "1", "1", "0", "1", "3", "2", "10000"],
        "{stat}"
    );
    assert_eq!(fs::read(&tree).expect("a file"), before);
    let long = before.windows(64).position(|bytes| bytes == [7; 64]);
    let mut damaged = before;
    damaged[long.expect("the long value") + 10] ^= 1;
    fs::write(&tree, damaged).expect("room");
    let check = store(&["check", text(dir.path())], b"");
    assert_eq!(check.status.code(), Some(1));
    assert!(stdout(&check).contains("checksum"), "{check:?}");
    assert_eq!(code(&["dump", text(dir.path())]), 1);
    assert_eq!(code(&["check", "/no/such/folder"]), 2);
    assert_eq!(code(&["melt", text(dir.path())]), 2);
}

#[test]
fn a_store_that_was_not_closed_is_opened_for_writing_on_request_only() {
    let (open, copy) = (tempfile::tempdir(), tempfile::tempdir());
    let (open, copy) = (open.expect("a folder"), copy.expect("a folder"));
    let live = Store::open(open.path()).expect("a new store");
    let mut write = live.write().expect("nothing failed yet");
    write
        .table("t")
        .expect("sound")
        .put(b"k", b"v")
        .expect("sound");
    write.commit().expect("room");
    for name in ["tree", "ring", "lock"] {
        fs::copy(open.path().join(name), copy.path().join(name)).expect("room");
    }
    let place = text(copy.path());
    let refused = store(&["get", place, "t", "k"], b"");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--recover"));
    let found = store(&["get", "--recover", place, "t", "k"], b"");
    assert_eq!(found.stdout, b"v");
    assert_eq!(code(&["check", place]), 0);
}

/// The dump of the store in `dir`.
fn dump(dir: &Path) -> String {
    let output = store(&["dump", text(dir)], b"");
    assert!(output.status.success(), "{output:?}");
    stdout(&output)
}

#[test]
fn multi_maps_and_compressed_tables_come_back_from_a_dump() {
    let dir = tempfile::tempdir().expect("a folder");
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let live = Store::open(&from).expect("a new store");
    let mut write = live.write().expect("nothing failed yet");
    let mut tags = write.multi_map("tags").expect("new");
    for value in [&b"red"[..], b"", b"fruit\0"] {
        tags.insert(b"apple\0", value).expect("sound");
    }
    let long = b"all work and no play ".repeat(500);
    let mut texts = write.compressed("texts", Compression::Lz4, 64);
    let texts = texts.as_mut().expect("new");
    texts.put(b"long", &long).expect("sound");
    texts.put(b"short", b"text").expect("sound");
    write.commit().expect("room");
    live.close().expect("a working disk");
    let lines = dump(&from);
    assert!(
        lines.contains(
            "table\ttags\t3\tmulti\napple\\x00\t\napple\\x00\tfruit\\x00\napple\\x00\tred\n"
        ),
        "{lines}"
    );
    assert!(
        lines.contains("table\ttexts\t2\tlz4=64\nlong\tall work"),
        "{lines}"
    );
    let load = store(&["load", text(&to)], lines.as_bytes());
    assert!(load.status.success(), "{load:?}");
    assert_eq!(dump(&to), lines);
    let options = Options::new().read_only(true);
    let again = options.open(&to).expect("a sound store");
    let stat = again.stat().expect("sound");
    let stored = stat.tables.iter().find(|table| &*table.name == "texts");
    let stored = stored.expect("it was loaded").value_bytes;
    assert!(stored < 1000, "{stored} bytes: compressed again");
    for bad in ["multi\talign=8", "lz4=x", "lz4=64\tkey=u64", "shoes"] {
        let lines = format!("brickyard store dump 1\ntable\tt\t0\t{bad}\nend\n");
        let load = store(&["load", text(&to)], lines.as_bytes());
        assert_eq!(load.status.code(), Some(2), "{bad}");
    }
}

#[test]
fn a_backup_and_its_increments_restore_the_store() {
    let dir = tempfile::tempdir().expect("a folder");
    let place = |name: &str| dir.path().join(name);
    let (live, base, restored) = (place("live"), place("base"), place("restored"));
    let (first, second) = (place("first.inc"), place("second.inc"));
    filled(&live);
    let copied = store(&["backup", text(&live), text(&base)], b"");
    assert!(copied.status.success(), "{copied:?}");
    assert!(stdout(&copied).contains("pages written"), "{copied:?}");
    assert!(
        copied.stderr.is_empty(),
        "no bar where there is no terminal"
    );
    assert_eq!(dump(&base), dump(&live));
    let before = dump(&live);
    assert_eq!(code(&["put", text(&live), "towns", "Bonn", "340000"]), 0);
    let since = ["backup", text(&live), text(&first), "--since", text(&base)];
    assert_eq!(code(&since), 0);
    assert_eq!(code(&since), 2, "no file is written over");
    let middle = dump(&live);
    assert_eq!(
        code(&["restore", text(&base), text(&restored), text(&first)]),
        0
    );
    assert_eq!(dump(&restored), middle);
    assert_eq!(
        dump(&base),
        before,
        "a backup that is restored stays as it is"
    );
    assert_eq!(code(&["apply", text(&base), text(&first)]), 0);
    assert_eq!(dump(&base), middle);
    assert_eq!(code(&["delete", text(&live), "towns", "Ulm"]), 0);
    let streamed = store(&["backup", text(&live), "-", "--since", text(&base)], b"");
    assert!(streamed.status.success(), "{streamed:?}");
    fs::write(&second, &streamed.stdout).expect("room");
    assert_eq!(code(&["apply", text(&base), text(&second)]), 0);
    assert_eq!(dump(&base), dump(&live));
    assert_eq!(code(&["check", text(&base)]), 0);
}

#[test]
fn what_cannot_be_restored_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let place = |name: &str| dir.path().join(name);
    let (live, base, restored) = (place("live"), place("base"), place("restored"));
    let (good, bad) = (place("good.inc"), place("bad.inc"));
    filled(&live);
    assert_eq!(code(&["backup", text(&live), text(&base)]), 0);
    assert_eq!(
        code(&["backup", text(&live), text(&base)]),
        2,
        "it is there"
    );
    assert_eq!(code(&["put", text(&live), "towns", "Bonn", "340000"]), 0);
    let since = ["backup", text(&live), text(&good), "--since", text(&base)];
    assert_eq!(code(&since), 0);
    let bytes = fs::read(&good).expect("written");
    let before = dump(&base);
    for (len, at) in [(bytes.len() - 1, None), (bytes.len(), Some(100)), (3, None)] {
        let mut changed = bytes[..len].to_vec();
        if let Some(at) = at {
            changed[at] ^= 1;
        }
        fs::write(&bad, changed).expect("room");
        let arguments = ["restore", text(&base), text(&restored), text(&bad)];
        let output = store(&arguments, b"");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("bad.inc"));
        assert!(!restored.exists());
        assert_eq!(code(&["apply", text(&base), text(&bad)]), 1);
        assert_eq!(dump(&base), before);
    }
    // One that builds on a later state than the backup has.
    let later = place("later");
    assert_eq!(code(&["backup", text(&live), text(&later)]), 0);
    assert_eq!(code(&["put", text(&live), "towns", "Bonn", "0"]), 0);
    fs::remove_file(&good).expect("written above");
    let since = ["backup", text(&live), text(&good), "--since", text(&later)];
    assert_eq!(code(&since), 0);
    assert_eq!(code(&["apply", text(&base), text(&good)]), 2);
    assert_eq!(dump(&base), before);
    let missing = [
        "backup",
        text(&live),
        text(&bad),
        "--since",
        text(&restored),
    ];
    assert_eq!(code(&missing), 2);
}

#[test]
fn a_store_is_compacted() {
    let dir = tempfile::tempdir().expect("a folder");
    let live = Options::new().checkpoint_budget(0).open(dir.path());
    let live = live.expect("a new store");
    for step in [0_u32, 1] {
        let mut write = live.write().expect("nothing failed yet");
        let mut table = write.table("t").expect("sound");
        for number in 0..20_000_u32 {
            let key = number.to_be_bytes();
            if step == 0 {
                table.put(&key, &[7; 100]).expect("sound");
            } else if !number.is_multiple_of(10) {
                table.delete(&key).expect("sound");
            }
        }
        write.commit().expect("room");
    }
    live.close().expect("a working disk");
    let tree = dir.path().join("tree");
    let len = || fs::metadata(&tree).expect("a file").len();
    let (lines, before) = (dump(dir.path()), len());
    let some = store(&["compact", text(dir.path()), "--pages", "10"], b"");
    assert!(some.status.success(), "{some:?}");
    assert!(stdout(&some).contains("more can be moved"), "{some:?}");
    let all = store(&["compact", text(dir.path())], b"");
    assert!(all.status.success(), "{all:?}");
    assert!(!stdout(&all).contains("more can be moved"), "{all:?}");
    assert!(len() < before / 2, "{before} -> {}", len());
    assert_eq!(dump(dir.path()), lines);
    assert_eq!(code(&["compact", text(dir.path()), "--pages", "0"]), 2);
    assert_eq!(code(&["compact", "/no/such/folder"]), 2);
}
