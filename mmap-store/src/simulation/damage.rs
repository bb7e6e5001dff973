//! Files that are not what was written: damaged by accident, and forged.
//!
//! What could go wrong: reading leaves the mapping, panics or never ends; or wrong bytes
//! are shown as if they were right. How it is seen: bytes of a sound store are changed at
//! random, and everything that can be read is read, checked, and written to.
//!
//! The planted error, pages believed without their checksums, shows that the comparison
//! of contents would see wrong bytes.

use std::sync::Arc;

use crate::backing::memory::{MemoryBacking, Wreck};
use crate::shared::Durability;
use crate::simulation::crash::{MAP_BYTES, RING_BYTES, TABLES};
use crate::simulation::oracle::{Op, Oracle, Random, dump};
use crate::store::{Options, Store};

/// A store with a history: its disk, closed or as the power cut leaves it, and the states
/// it went through.
fn sound(random: &mut Random, closed: bool) -> (Wreck, Oracle) {
    let backing = Arc::new(MemoryBacking::new(MAP_BYTES, RING_BYTES).expect("address space"));
    let store = Options::new().open_backing(Arc::clone(&backing) as _, true);
    let store = store.expect("a new store");
    let mut oracle = Oracle::new();
    let mut ops: Vec<Op> = (0..400).map(|_| random.op()).collect();
    ops.push(Op::Commit(Durability::Durable));
    oracle.drive(&store, &ops).expect("a sound disk");
    if closed {
        store.checkpoint().expect("a sound disk");
    }
    (backing.wreck(), oracle)
}

/// Changes some bytes of the tree, or in one of five cases of the ring.
fn damage(random: &mut Random, disk: &mut Wreck, ring_too: bool) {
    for _ in 0..1 + random.below(8) {
        let file = if ring_too && random.below(5) == 0 {
            &mut disk.ring
        } else {
            &mut disk.tree
        };
        let at = random.below(file.len());
        let len = [1, 1, 2, 16, 600][random.below(5)].min(file.len() - at);
        let byte = [0, 1, 0x7f, 0xff][random.below(4)];
        file[at..at + len].fill(byte);
    }
}

fn open(disk: &Wreck, options: &Options) -> Result<Store, crate::error::OpenError> {
    let backing = MemoryBacking::with_content(MAP_BYTES, disk);
    options.open_backing(Arc::new(backing), true)
}

/// Changes every table here and there. Errors are fine.
fn scribble(store: &Store, random: &mut Random) {
    let Ok(mut txn) = store.write() else {
        return;
    };
    for table in 0..TABLES {
        let Ok(mut table) = txn.table(&format!("table {table}")) else {
            continue;
        };
        for number in 0..20 {
            let key = random.key();
            let _ = table.delete(&key);
            let _ = table.put(&key, &[number; 90]);
        }
    }
    let _ = txn.commit();
}

/// What became of damaged stores.
#[derive(Debug, Default)]
struct Outcome {
    refused: usize,
    noticed: usize,
    /// Read without an error, and never committed so.
    wrong: usize,
}

fn damaged_stores(count: usize, options: &Options) -> Outcome {
    let mut random = Random::new(5);
    let cut = sound(&mut random, false);
    let closed = sound(&mut random, true);
    let read_only = options.clone().read_only(true);
    let mut outcome = Outcome::default();
    for number in 0..count {
        // Opening for writing walks every node, opening for reading none.
        let ((whole, oracle), options) = if number % 2 == 0 {
            (&cut, options)
        } else {
            (&closed, &read_only)
        };
        let mut disk = whole.clone();
        damage(&mut random, &mut disk, true);
        if random.below(8) == 0 {
            let len = random.below(disk.tree.len());
            disk.tree.truncate(len / 4096 * 4096);
        }
        let Ok(store) = open(&disk, options) else {
            outcome.refused += 1;
            continue;
        };
        let walked = dump(&store, TABLES);
        outcome.noticed += usize::from(walked.is_err() || !store.check().problems.is_empty());
        // A damaged ring may end early, and a damaged slot let the one before it be used.
        if walked.is_ok_and(|state| !oracle.states.contains(&state)) {
            outcome.wrong += 1;
            continue;
        }
        scribble(&store, &mut random);
    }
    outcome
}

/// What is read is right, or it is an error; nothing panics or hangs.
#[test]
fn damaged_files_give_errors() {
    let outcome = damaged_stores(1_500, &Options::new());
    let Outcome {
        refused,
        noticed,
        wrong,
    } = outcome;
    assert!(refused > 10 && noticed > 100, "{outcome:?}");
    assert_eq!(wrong, 0, "{outcome:?}");
}

/// The same with pages that are believed without their checksums. The dump itself may
/// stumble over what it reads, which is seen, too.
#[test]
fn a_missing_checksum_of_pages_is_caught() {
    let mut options = Options::new();
    options.sabotage.believe_pages = true;
    let caught = std::panic::catch_unwind(|| damaged_stores(200, &options).wrong > 0);
    assert!(caught.unwrap_or(true));
}

/// Forged: every checksum fits. A store that passes the check at its opening can be read
/// and written; the others are refused.
#[test]
fn forged_files_that_pass_the_check_can_be_used() {
    let mut random = Random::new(8);
    let (whole, _) = sound(&mut random, false);
    let mut options = Options::new().check(true);
    options.sabotage.believe_pages = true;
    let (mut used, mut refused) = (0, 0);
    for _ in 0..1_500 {
        let mut disk = whole.clone();
        damage(&mut random, &mut disk, false);
        let Ok(store) = open(&disk, &options) else {
            refused += 1;
            continue;
        };
        used += 1;
        dump(&store, TABLES).expect("the check found nothing");
        scribble(&store, &mut random);
        store.checkpoint().expect("a sound store");
        scribble(&store, &mut random);
        assert_eq!(store.check().problems, [], "still sound");
    }
    assert!(
        used > 100 && refused > 100,
        "{used} used, {refused} refused"
    );
}

/// Forged and opened for reading only, without the check: errors or nonsense, and no
/// read outside of the file, no panic, no end that does not come.
#[test]
fn forged_files_can_be_read_without_the_check() {
    let mut random = Random::new(9);
    let (whole, _) = sound(&mut random, true);
    let mut options = Options::new().read_only(true);
    options.sabotage.believe_pages = true;
    let mut failed = 0;
    for _ in 0..1_500 {
        let mut disk = whole.clone();
        damage(&mut random, &mut disk, false);
        let Ok(store) = open(&disk, &options) else {
            continue;
        };
        let read = store.read();
        for table in 0..TABLES {
            let Ok(Some(table)) = read.table(&format!("table {table}")) else {
                failed += 1;
                continue;
            };
            let (mut forwards, mut steps) = (table.range::<[u8]>(..), 0);
            while let Ok(range) = &mut forwards
                && let Ok(Some(_)) = range.next()
            {
                steps += 1;
                assert!(steps < 1 << 20, "the walk ends");
            }
            let (mut backwards, mut steps) = (table.range::<[u8]>(..), 0);
            while let Ok(range) = &mut backwards
                && let Ok(Some(_)) = range.next_back()
            {
                steps += 1;
                assert!(steps < 1 << 20, "the walk ends");
            }
            for _ in 0..20 {
                let key = random.key();
                failed += usize::from(table.get(&key).is_err());
                failed += usize::from(table.get_many(&[&key, &[]]).is_err());
            }
        }
        drop(read);
        failed += usize::from(!store.check().problems.is_empty());
    }
    assert!(failed > 100, "{failed} errors");
}
