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
use crate::error::OpenError;
use crate::shared::Durability;
use crate::simulation::crash::{MAP_BYTES, RING_BYTES, ops, run};
use crate::simulation::oracle::dump::dump;
use crate::simulation::oracle::forge::Image;
use crate::simulation::oracle::model::Model;
use crate::simulation::oracle::op::Op;
use crate::simulation::oracle::probe::{read_all, write_beside_reader};
use crate::simulation::oracle::random::Random;
use crate::store::{Options, Store};

/// Without optimisation a share of the cases is enough: a release build does all of them.
pub(crate) const SHARE: usize = if cfg!(debug_assertions) { 3 } else { 1 };

/// A store with a history: its files, closed or as the power cut leaves them, and the states
/// it went through.
pub(crate) fn sound(random: &mut Random, closed: bool) -> (Image, Model) {
    let backing = Arc::new(MemoryBacking::new(MAP_BYTES, RING_BYTES).expect("address space"));
    let store = Options::new().open_backing(Arc::clone(&backing) as _, true);
    let store = store.expect("a new store");
    let mut model = Model::default();
    let mut ops = ops(random, 1500);
    ops.push(Op::Commit(Durability::Durable));
    run(&mut model, &store, &ops).expect("a sound disk");
    if closed {
        store.checkpoint().expect("a sound disk");
    }
    let Wreck { tree, ring, .. } = backing.wreck();
    (Image { tree, ring }, model)
}

pub(crate) fn open(image: &Image, options: &Options) -> Result<Store, OpenError> {
    let disk = Wreck::with_files(image.tree.clone(), image.ring.clone());
    let backing = MemoryBacking::with_content(MAP_BYTES, &disk);
    options.open_backing(Arc::new(backing), true)
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
        let ((whole, model), options) = if number % 2 == 0 {
            (&cut, options)
        } else {
            (&closed, &read_only)
        };
        let mut disk = whole.clone();
        disk.damage(true, &mut |n| random.below(n));
        if random.below(8) == 0 {
            let len = random.below(disk.tree.len());
            disk.tree.truncate(len / 4096 * 4096);
        }
        let Ok(store) = open(&disk, options) else {
            outcome.refused += 1;
            continue;
        };
        let walked = dump(&store);
        outcome.noticed += usize::from(walked.is_err() || !store.check().problems.is_empty());
        // A damaged ring may end early, and a damaged slot let the one before it be used.
        if walked.is_ok_and(|state| !model.states.contains(&state)) {
            outcome.wrong += 1;
            continue;
        }
        write_beside_reader(&store, &mut random);
    }
    outcome
}

/// What is read is right, or it is an error; nothing panics or hangs.
#[test]
fn damaged_files_give_errors() {
    let outcome = damaged_stores(1_500 / SHARE, &Options::new());
    let Outcome {
        refused,
        noticed,
        wrong,
    } = outcome;
    assert!(refused > 10 / SHARE && noticed > 100 / SHARE, "{outcome:?}");
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
    for _ in 0..1_500 / SHARE {
        let mut disk = whole.clone();
        disk.damage(false, &mut |n| random.below(n));
        let Ok(store) = open(&disk, &options) else {
            refused += 1;
            continue;
        };
        used += 1;
        dump(&store).expect("the check found nothing");
        assert!(write_beside_reader(&store, &mut random), "a slice changed");
        store.checkpoint().expect("a sound store");
        assert!(write_beside_reader(&store, &mut random), "a slice changed");
        assert_eq!(store.check().problems, [], "still sound");
    }
    assert!(
        used > 100 / SHARE && refused > 100 / SHARE,
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
    for _ in 0..1_500 / SHARE {
        let mut disk = whole.clone();
        disk.damage(false, &mut |n| random.below(n));
        let Ok(store) = open(&disk, &options) else {
            continue;
        };
        failed += read_all(&store, &mut random);
        failed += usize::from(!store.check().problems.is_empty());
    }
    assert!(failed > 100, "{failed} errors");
}
