//! SIGKILL at any moment, over and over, on real files.
//!
//! What could go wrong: a commit that was acknowledged is gone, half of one is there, or
//! the store does not open. How it is seen: this program starts itself as a child that
//! commits numbered transactions and says which ones are acknowledged; it is killed, and
//! what the files hold is compared with what it said. (A killed process loses nothing that
//! it wrote: what a power cut does is the part of the simulation, in `src/simulation`, and of
//! `tests/images.sh`, which uses this program as its writer and its reader.)
//!
//! The ring is small, so that a checkpoint is mostly on its way; a log grows the file and
//! is emptied again.
#![cfg(not(loom))]

use core::time::Duration;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use brickyard_store::{Durability, Options, Store};

/// The folder in which to write until killed.
const CHILD: &str = "BRICKYARD_KILL_CHILD";
/// Set for a writer that waits for no barrier and still says that commits last.
const LIAR: &str = "BRICKYARD_KILL_LIAR";
/// The folder whose last transaction is printed.
const READER: &str = "BRICKYARD_KILL_READER";
const ROUNDS: u64 = 40;
/// Entries that each transaction changes in each of two tables.
const WIDTH: u64 = 5;
/// The log is emptied by every so manieth transaction.
const LOG: u64 = 150;

fn open(dir: &Path) -> Store {
    let options = Options::new().ring_bytes(1 << 14);
    options
        .open(dir)
        .expect("it opens, however its writer died")
}

/// The number of the last transaction in the store, after a look at all that it wrote.
fn last(store: &Store) -> u64 {
    let read = store.read();
    let mut last = None;
    for name in ["one", "two"] {
        let number = read.table(name).expect("sound").map_or(0, |table| {
            for slot in 0..WIDTH {
                let value = table.get(&slot.to_be_bytes()).expect("sound");
                let value = value.expect("each transaction writes all of them");
                let first = table.get(&0_u64.to_be_bytes()).expect("sound");
                assert_eq!(value.get(..8), first.and_then(|first| first.get(..8)));
            }
            let value = table.get(&0_u64.to_be_bytes()).expect("sound");
            let number = value.and_then(|value| value.get(..8)?.try_into().ok());
            u64::from_le_bytes(number.expect("eight bytes and more"))
        });
        assert!(last.is_none_or(|last| last == number), "half a transaction");
        last = Some(number);
    }
    let last = last.expect("two tables were looked at");
    let logged = read.table("log").expect("sound").map_or(0, |log| {
        let mut range = log.range::<[u8]>(..).expect("sound");
        let mut expected = last / LOG * LOG;
        while let Some((key, value)) = range.next().expect("sound") {
            expected += 1;
            assert_eq!(key, expected.to_be_bytes());
            assert_eq!(value, entry(expected));
        }
        log.len()
    });
    assert_eq!(logged, last % LOG, "the log has every transaction since");
    last
}

/// What the log has of a transaction: about a page.
fn entry(number: u64) -> Vec<u8> {
    vec![number.to_le_bytes()[0]; 4000]
}

/// Commits until it is killed; says the number of each commit that lasts.
fn child(dir: &Path) {
    let lies = std::env::var_os(LIAR).is_some();
    let ring_bytes = if lies { 16 << 20 } else { 1 << 14 };
    let store = Options::new().ring_bytes(ring_bytes).open(dir);
    let store = store.expect("it opens, however its writer died");
    let mut number = last(&store);
    let mut out = std::io::stdout();
    loop {
        number += 1;
        let mut write = store.write().expect("a working disk");
        for name in ["one", "two"] {
            let mut table = write.table(name).expect("sound");
            for slot in 0..WIDTH {
                let mut value = number.to_le_bytes().to_vec();
                value.resize(8 + usize::try_from(number * 31 % 700).expect("small"), 1);
                table.put(&slot.to_be_bytes(), &value).expect("sound");
            }
        }
        let mut log = write.table("log").expect("sound");
        log.put(&number.to_be_bytes(), &entry(number))
            .expect("sound");
        if number.is_multiple_of(LOG) {
            log.delete_range::<[u8]>(..).expect("sound");
        }
        let visible = lies || number.is_multiple_of(3);
        let durability = if visible {
            Durability::Visible
        } else {
            Durability::Durable
        };
        write.commit_with(durability).expect("a working disk");
        if lies || !visible {
            writeln!(out, "lasts {number}").expect("a reader");
        }
    }
}

#[test]
fn a_killed_writer_loses_no_acknowledged_commit() {
    if let Some(dir) = std::env::var_os(CHILD) {
        child(Path::new(&dir));
    }
    if let Some(dir) = std::env::var_os(READER) {
        let store = open(Path::new(&dir));
        assert_eq!(store.check().problems, []);
        writeln!(std::io::stdout(), "found {}", last(&store)).expect("a reader");
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let program = std::env::current_exe().expect("this program");
    let mut acknowledged: u64 = 0;
    for round in 0..ROUNDS {
        let child = Command::new(&program)
            .args([
                "--nocapture",
                "--exact",
                "a_killed_writer_loses_no_acknowledged_commit",
            ])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.expect("it starts");
        std::thread::sleep(Duration::from_millis(5 + round * 37 % 90));
        child.kill().expect("it was running");
        child.wait().expect("it is gone");
        let (mut said, mut out) = (String::new(), child.stdout.take().expect("piped"));
        out.read_to_string(&mut said).expect("what it said");
        // Whole lines only; the test harness says one of its own first.
        let lines = said.split_inclusive('\n');
        let mut lines = lines.filter_map(|line| line.strip_prefix("lasts ")?.strip_suffix('\n'));
        let number = lines
            .next_back()
            .map(|number| number.parse().expect("a number"));
        acknowledged = number.unwrap_or(acknowledged);
        let store = open(dir.path());
        let found = last(&store);
        assert!(
            found >= acknowledged && found < acknowledged + 1_000_000,
            "round {round}: {acknowledged} acknowledged, {found} found"
        );
        assert_eq!(store.check().problems, [], "round {round}");
        acknowledged = found;
    }
    assert!(acknowledged > ROUNDS, "{acknowledged} commits in all");
}
