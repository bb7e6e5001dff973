//! Readers and committing writers at the same time, on real files.
//!
//! What could go wrong: a page is reused under a reader, a snapshot mixes two
//! transactions, or a commit of one thread is lost to another. How it is seen: writers
//! move amounts between accounts of two tables; whatever a snapshot sees, the sum is the
//! same, and it sees the same again later, and so does each backup, whole or brought up to
//! date; meanwhile the file is compacted, too. At the end every writer's own counter stands
//! at what it committed.
//!
//! `BRICKYARD_SOAK_SECONDS` says for how long (2 s without it).
#![cfg(not(loom))]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::path::Path;
use std::time::Instant;

use brickyard_store::{Durability, Options, ReadTxn, Store, TableError};

const ACCOUNTS: u64 = 300;
const EACH: u64 = 1000;
const WRITERS: u64 = 4;
const READERS: u64 = 8;
const TABLES: [&str; 2] = ["left", "right"];

/// Small numbers from a seed (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

/// An account's value: the amount, and a tail whose length changes with it.
fn encode(amount: u64) -> Vec<u8> {
    let mut value = amount.to_le_bytes().to_vec();
    let tail = u8::try_from(amount % 200).expect("below 200");
    value.resize(8 + usize::from(tail), tail);
    value
}

fn decode(value: &[u8]) -> u64 {
    let amount = value.get(..8).and_then(|bytes| bytes.try_into().ok());
    let amount = u64::from_le_bytes(amount.expect("eight bytes at least"));
    assert_eq!(value, encode(amount), "a value is whole");
    amount
}

fn sum(read: &ReadTxn<'_>) -> Result<u64, TableError> {
    let mut sum = 0;
    for name in TABLES {
        let table = read.table(name)?.expect("it was filled");
        assert_eq!(table.len(), ACCOUNTS);
        let mut range = table.range::<[u8]>(..)?;
        while let Some((_, value)) = range.next()? {
            sum += decode(value);
        }
    }
    Ok(sum)
}

fn fill(store: &Store) {
    let mut write = store.write().expect("nothing failed yet");
    for name in TABLES {
        let mut table = write.table(name).expect("sound");
        for account in 0..ACCOUNTS {
            let key = account.to_be_bytes();
            table.put(&key, &encode(EACH)).expect("sound");
        }
    }
    write.commit().expect("room");
}

/// Moves amounts until told to stop; the number of commits.
fn write(store: &Store, writer: u64, stop: &AtomicBool) -> u64 {
    let mut random = Random(writer * 7919 + 1);
    let mut commits = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut txn = store.write().expect("a working disk");
        for _ in 0..1 + random.below(8) {
            let from = (
                usize::from(random.below(2) == 1),
                random.below(ACCOUNTS).to_be_bytes(),
            );
            let to = (
                usize::from(random.below(2) == 1),
                random.below(ACCOUNTS).to_be_bytes(),
            );
            let mut table = txn.table(TABLES[from.0]).expect("sound");
            let held = decode(table.get(&from.1).expect("sound").expect("filled"));
            let amount = random.below(held + 1);
            table.put(&from.1, &encode(held - amount)).expect("sound");
            let mut table = txn.table(TABLES[to.0]).expect("sound");
            let held = decode(table.get(&to.1).expect("sound").expect("filled"));
            table.put(&to.1, &encode(held + amount)).expect("sound");
        }
        let aborts = random.below(10) == 0;
        commits += u64::from(!aborts);
        let mut counters = txn.table("counters").expect("sound");
        let counter = commits.to_le_bytes();
        counters
            .put(&writer.to_be_bytes(), &counter)
            .expect("sound");
        match random.below(3) {
            _ if aborts => drop(txn),
            0 => txn
                .commit_with(Durability::Visible)
                .expect("a working disk"),
            _ => txn.commit().expect("a working disk"),
        }
    }
    commits
}

/// Looks at snapshots until told to stop; how many.
fn read(store: &Store, stop: &AtomicBool) -> u64 {
    let mut seen = 0;
    let mut last = 0;
    while !stop.load(Ordering::Relaxed) {
        let snapshot = store.read();
        assert!(snapshot.txn() >= last, "time does not go back");
        last = snapshot.txn();
        let total = 2 * ACCOUNTS * EACH;
        assert_eq!(sum(&snapshot).expect("sound"), total);
        if seen % 4 == 0 {
            std::thread::sleep(Duration::from_millis(3));
            assert_eq!(sum(&snapshot).expect("sound"), total, "a little later");
        }
        seen += 1;
    }
    seen
}

/// Takes a backup, brings it up to date a little later, and looks at it both times.
fn back_up(store: &Store, copy: &Path) {
    let look = || {
        let copy = Options::new().read_only(true).open(copy);
        let copy = copy.expect("a sound copy");
        assert_eq!(copy.check().problems, []);
        assert_eq!(sum(&copy.read()).expect("sound"), 2 * ACCOUNTS * EACH);
    };
    let mark = store.backup(copy, |_| {}).expect("room").mark;
    look();
    let mut stream = Vec::new();
    let report = store.backup_since(mark, &mut stream, |_| {});
    report.expect("its own backup");
    Store::apply_increment(copy, stream.as_slice(), |_| {}).expect("it fits");
    look();
    std::fs::remove_dir_all(copy).expect("a folder");
}

#[test]
fn every_snapshot_is_of_one_moment() {
    let seconds = std::env::var("BRICKYARD_SOAK_SECONDS").ok();
    let seconds = seconds.map_or(2, |text| text.parse().expect("a number of seconds"));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let home = dir.path().join("store");
    let options = Options::new().ring_bytes(1 << 16);
    let store = options.open(&home).expect("a new store");
    fill(&store);
    let (stop, looked) = (AtomicBool::new(false), AtomicU64::new(0));
    let end = Instant::now() + Duration::from_secs(seconds);
    let commits: Vec<u64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn({
                    let (store, stop) = (&store, &stop);
                    move || write(store, writer, stop)
                })
            })
            .collect();
        for _ in 0..READERS {
            scope.spawn(|| looked.fetch_add(read(&store, &stop), Ordering::Relaxed));
        }
        scope.spawn(|| {
            let copy = dir.path().join("copy");
            for turn in 0.. {
                match turn % 40 {
                    0 => back_up(&store, &copy),
                    20 => drop(store.compact(1000).expect("a working disk")),
                    _ => store.checkpoint().expect("a working disk"),
                }
                if Instant::now() > end {
                    break;
                }
                std::thread::sleep(Duration::from_millis(7));
            }
            stop.store(true, Ordering::Relaxed);
        });
        let join = |writer: std::thread::ScopedJoinHandle<'_, u64>| writer.join().expect("sound");
        writers.into_iter().map(join).collect()
    });
    assert!(commits.iter().sum::<u64>() > 20 && looked.into_inner() > 20);
    assert_eq!(store.check().problems, []);
    store.close().expect("a working disk");
    let store = options.open(&home).expect("a sound store");
    let snapshot = store.read();
    assert_eq!(sum(&snapshot).expect("sound"), 2 * ACCOUNTS * EACH);
    let counters = snapshot.table("counters").expect("sound").expect("made");
    for (writer, commits) in (0..WRITERS).zip(commits) {
        let counter = counters.get(&writer.to_be_bytes()).expect("sound");
        assert_eq!(
            counter,
            Some(&commits.to_le_bytes()[..]),
            "no commit is lost"
        );
    }
}
