//! Format 1, as it was when it was fixed.
//!
//! What could go wrong: a change of the code changes what the bytes mean, and files of
//! yesterday are refused or misread. How it is seen: `golden/format-1.txt` is a store
//! whose writer died, as bytes; it must open, replay its ring, and hold what it held. Its
//! bytes are also read here by hand, along `docs/format.md`, with none of the library's
//! code.
//!
//! `BRICKYARD_NEW_GOLDEN=1` writes the file anew. That is right only as long as no version
//! with this format was published.
#![cfg(not(loom))]

use core::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use brickyard_store::{Options, Store, TableOptions};

const PAGE: usize = 4096;
/// Bytes in a line of the golden file; lines of zeros are left out.
const ROW: usize = 32;
const ENTRIES: u32 = 60;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-1.txt")
}

fn key(number: u32) -> Vec<u8> {
    format!("https://example.org/{number:04}").into_bytes()
}

fn value(number: u32) -> Vec<u8> {
    vec![(number % 200) as u8 + 1; 100]
}

fn options() -> TableOptions {
    TableOptions::new().key_type("town").value_type("vector 1")
}

/// A store with a tree of two levels, a large value, a table with options, an older
/// checkpoint, and four records in the ring that no checkpoint covers.
fn make(dir: &Path) -> Store {
    let store = Options::new()
        .ring_bytes(4096)
        .open(dir)
        .expect("a new store");
    let mut write = store.write().expect("sound");
    let mut numbers = write.table("numbers").expect("sound");
    for number in 0..ENTRIES {
        numbers.put(&key(number), &value(number)).expect("sound");
    }
    write.commit().expect("room");
    let mut write = store.write().expect("sound");
    let mut blobs = write.table("blobs").expect("sound");
    blobs.put(b"large", &[0xab; 5000]).expect("sound");
    blobs.put(b"", b"under the empty key").expect("sound");
    let vectors = write.table_with("vectors", &options());
    vectors.expect("new").put(b"k", b"v").expect("sound");
    write.commit().expect("room");
    store.checkpoint().expect("room");
    let mut write = store.write().expect("sound");
    let mut numbers = write.table("numbers").expect("sound");
    numbers.put(&key(9999), b"from the ring").expect("sound");
    numbers.delete(&key(7)).expect("sound");
    write.commit().expect("room");
    let mut write = store.write().expect("sound");
    write
        .table("late")
        .expect("sound")
        .put(b"k", b"v")
        .expect("sound");
    write.commit().expect("room");
    let mut write = store.write().expect("sound");
    write.table_with("empty", &options()).expect("new");
    write.commit().expect("room");
    let mut write = store.write().expect("sound");
    assert!(write.delete_table("vectors").expect("sound"));
    write.commit().expect("room");
    store
}

fn dump(dir: &Path) -> String {
    let mut text = String::new();
    for name in ["tree", "ring"] {
        let bytes = fs::read(dir.join(name)).expect("a file");
        writeln!(text, "{name} {}", bytes.len()).expect("memory");
        for (row, bytes) in bytes.chunks(ROW).enumerate() {
            if bytes.iter().any(|&byte| byte != 0) {
                write!(text, "{:06x} ", row * ROW).expect("memory");
                bytes
                    .iter()
                    .for_each(|byte| write!(text, "{byte:02x}").expect("memory"));
                text.push('\n');
            }
        }
    }
    text
}

/// The two files of the golden store.
fn undump(text: &str) -> [Vec<u8>; 2] {
    let mut files: Vec<Vec<u8>> = Vec::new();
    for line in text.lines() {
        let (first, rest) = line.split_once(' ').expect("two columns");
        if matches!(first, "tree" | "ring") {
            files.push(vec![0; rest.parse().expect("a length")]);
            continue;
        }
        let at = usize::from_str_radix(first, 16).expect("an offset");
        let file = files.last_mut().expect("a file's name comes first");
        for index in 0..rest.len() / 2 {
            let byte = u8::from_str_radix(&rest[2 * index..2 * index + 2], 16);
            file[at + index] = byte.expect("two digits");
        }
    }
    files.try_into().expect("two files")
}

fn files() -> [Vec<u8>; 2] {
    if std::env::var_os("BRICKYARD_NEW_GOLDEN").is_some() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = make(dir.path());
        fs::write(golden(), dump(dir.path())).expect("the golden file");
        drop(store);
    }
    undump(&fs::read_to_string(golden()).expect("the golden file"))
}

#[test]
fn a_store_of_format_1_is_read_and_recovered() {
    let [tree, ring] = files();
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::write(dir.path().join("tree"), tree).expect("room");
    fs::write(dir.path().join("ring"), ring).expect("room");
    let store = Store::open(dir.path()).expect("format 1 is read");
    assert_eq!(store.check().problems, []);
    let read = store.read();
    let numbers = read.table("numbers").expect("sound").expect("made");
    assert_eq!(numbers.len(), u64::from(ENTRIES));
    for number in (0..ENTRIES).filter(|&number| number != 7) {
        let found = numbers.get(&key(number)).expect("sound");
        assert_eq!(found, Some(&value(number)[..]));
    }
    assert_eq!(numbers.get(&key(7)).expect("sound"), None);
    let late = numbers.get(&key(9999)).expect("sound");
    assert_eq!(late, Some(&b"from the ring"[..]));
    let blobs = read.table("blobs").expect("sound").expect("made");
    assert_eq!(blobs.get(b"large").expect("sound"), Some(&[0xab; 5000][..]));
    assert_eq!(
        blobs.get(b"").expect("sound"),
        Some(&b"under the empty key"[..])
    );
    let late = read.table("late").expect("sound").expect("made");
    assert_eq!(late.get(b"k").expect("sound"), Some(&b"v"[..]));
    let empty = read.table("empty").expect("sound").expect("made");
    assert_eq!(empty.options(), options());
    assert!(read.table("vectors").expect("sound").is_none());
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let bytes = bytes[at..at + len].iter().rev();
    bytes.fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn small(bytes: &[u8], at: usize, len: usize) -> usize {
    usize::try_from(number(bytes, at, len)).expect("a small number")
}

/// Reads the entries under a page by hand: sorted, with whole keys.
fn entries(
    tree: &[u8],
    page: usize,
    crc: u64,
    level: Option<u64>,
    out: &mut Vec<(Vec<u8>, Vec<u8>)>,
) {
    let bytes = &tree[page * PAGE..][..PAGE];
    assert_eq!(u64::from(crc32c::crc32c(bytes)), crc, "page {page}");
    let (kind, own) = (bytes[0], number(bytes, 1, 1));
    assert_eq!(kind, if own == 0 { 1 } else { 2 });
    assert!(level.is_none_or(|level| level == own));
    let (count, prefix) = (small(bytes, 2, 2), small(bytes, 4, 2));
    let heads = 24 + prefix.next_multiple_of(4);
    let slots = heads + 4 * count;
    for index in 0..count {
        let at = small(bytes, slots + 2 * index, 2);
        let key_len = small(bytes, at, 2);
        if own > 0 {
            let (child, crc) = (small(bytes, at + 2, 4), number(bytes, at + 6, 4));
            entries(tree, child, crc, Some(own - 1), out);
            continue;
        }
        let head = u32::try_from(number(bytes, heads + 4 * index, 4)).expect("four bytes");
        let head = (head ^ 0x8000_0000).to_be_bytes();
        let rest = key_len.saturating_sub(4);
        let mut key = bytes[24..24 + prefix].to_vec();
        key.extend(&head[..key_len.min(4)]);
        key.extend(&bytes[at + 4..at + 4 + rest]);
        let value_len = small(bytes, at + 2, 2);
        let value = &bytes[at + 4 + rest..][..value_len & 0x7fff];
        let value = if value_len & 0x8000 == 0 {
            value.to_vec()
        } else {
            let (first, len) = (small(value, 0, 4), small(value, 8, 8));
            let large = &tree[first * PAGE..][..len];
            assert_eq!(u64::from(crc32c::crc32c(large)), number(value, 4, 4));
            large.to_vec()
        };
        out.push((key, value));
    }
}

#[test]
fn the_golden_file_is_what_the_specification_says() {
    let [tree, ring] = files();
    let slot = [0, PAGE].into_iter().map(|at| &tree[at..at + PAGE]);
    let slot = slot
        .max_by_key(|slot| number(slot, 16, 8))
        .expect("two slots");
    assert_eq!(&slot[..8], b"BrickSt\x1a");
    assert_eq!(number(slot, 8, 4), 1, "the format");
    assert_eq!(
        number(slot, 12, 4),
        u64::from(crc32c::crc32c(&slot[16..80]))
    );
    assert_eq!(number(slot, 56, 4), (tree.len() / PAGE) as u64, "pages");
    assert_eq!(number(slot, 72, 8), ring.len() as u64);
    let map = &tree[small(slot, 60, 4) * PAGE..][..small(slot, 64, 4) * PAGE];
    assert_eq!(number(slot, 68, 4), u64::from(crc32c::crc32c(map)));

    let mut tables = Vec::new();
    entries(
        &tree,
        small(slot, 48, 4),
        number(slot, 52, 4),
        None,
        &mut tables,
    );
    let names: Vec<&[u8]> = tables.iter().map(|(name, _)| &name[..]).collect();
    assert_eq!(names, [&b"blobs"[..], b"numbers", b"vectors"]);
    let schema = [&[0; 8][..], &[4, 0], b"town", &[8, 0], b"vector 1"].concat();
    assert_eq!(tables[2].1[16..], schema);
    assert_eq!(tables[0].1.len(), 16, "a plain table has no schema");
    for (name, record) in &tables {
        let mut found = Vec::new();
        entries(
            &tree,
            small(record, 0, 4),
            number(record, 4, 4),
            None,
            &mut found,
        );
        assert_eq!(number(record, 8, 8), found.len() as u64);
        if name == b"numbers" {
            let expected = (0..ENTRIES).map(|number| (key(number), value(number)));
            assert!(found.into_iter().eq(expected));
        } else if name == b"vectors" {
            assert_eq!(found, [(b"k".to_vec(), b"v".to_vec())]);
        } else {
            assert_eq!(found[0], (vec![], b"under the empty key".to_vec()));
            assert_eq!(found[1], (b"large".to_vec(), vec![0xab; 5000]));
        }
    }

    let (mut at, mut txn) = (small(slot, 40, 8) % ring.len(), number(slot, 24, 8));
    let mut operations = Vec::new();
    for _ in 0..4 {
        let record = &ring[at..];
        let len = small(record, 4, 4);
        assert_eq!(
            number(record, 0, 4),
            u64::from(crc32c::crc32c(&record[4..24 + len]))
        );
        assert_eq!(number(record, 8, 8), number(slot, 32, 8), "the salt");
        txn += 1;
        assert_eq!(number(record, 16, 8), txn);
        operations.push(record[24..24 + len].to_vec());
        at += (24 + len).next_multiple_of(8);
    }
    let last = [
        &[1_u8, 4, 0, 0, 0][..],
        b"late",
        &[1, 0, 0, 0],
        b"k",
        &[1, 0, 0, 0],
        b"v",
    ];
    assert_eq!(operations[1], last.concat());
    let define = [
        &[3_u8, 5, 0, 0, 0][..],
        b"empty",
        &[24, 0, 0, 0],
        &schema[..],
    ];
    assert_eq!(operations[2], define.concat());
    assert_eq!(
        operations[3],
        [&[4_u8, 7, 0, 0, 0][..], b"vectors"].concat()
    );
}
