//! Crashes, by the thousand.
//!
//! What could go wrong: an acknowledged commit is gone after a power cut, half of one is
//! there, or the store does not open. How it is seen: a run of operations dies at a chosen
//! call to the disk; from what was synced and any subset of what was not, disks are made,
//! opened, and compared with the states that the model had. Then work goes on and dies
//! again, also while it is being opened.
//!
//! The errors planted at the end show that the driver would see them.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

use crate::backing::memory::{Failure, MemoryBacking, Wreck};
use crate::shared::{Durability, Sabotage};
use crate::simulation::damage::SHARE;
use crate::simulation::oracle::args::{Key, PAIRS, Value};
use crate::simulation::oracle::dump::dump;
use crate::simulation::oracle::machine::Machine;
use crate::simulation::oracle::model::{Model, State};
use crate::simulation::oracle::op::Op;
use crate::simulation::oracle::random::Random;
use crate::simulation::oracle::{Stop, drive_honestly};
use crate::store::{Options, Store};

pub(crate) const MAP_BYTES: u64 = 8 << 20;
pub(crate) const RING_BYTES: u64 = 16 << 10;
/// Times that one store dies.
const LIVES: usize = 3;
/// Disks that are made of one wreck and looked at.
const IMAGES: usize = 2;

/// What is wrong with the store under test.
#[derive(Clone, Copy, Debug, Default)]
struct Planted {
    sabotage: Sabotage,
    lazy_tree: bool,
    lazy_ring: bool,
}

impl Planted {
    fn open(&self, backing: &Arc<MemoryBacking>) -> Result<Store, crate::error::OpenError> {
        backing.be_lazy(self.lazy_tree, self.lazy_ring);
        let mut options = Options::new();
        options.sabotage = self.sabotage;
        let backing: Arc<MemoryBacking> = Arc::clone(backing);
        options.open_backing(backing, true)
    }
}

/// Operations of one life, which ends by itself.
pub(crate) fn ops(random: &mut Random, count: usize) -> Vec<Op> {
    let ops = (0..count).map(|_| random.op());
    ops.filter(|op| !matches!(op, Op::Reopen(_))).collect()
}

/// Does the operations up to the first failure, whose text it returns.
pub(crate) fn run(model: &mut Model, store: &Store, ops: &[Op]) -> Result<(), String> {
    match drive_honestly(model, &mut Machine::new(store), ops) {
        Ok(_) => Ok(()),
        Err(Stop::Failed(failure)) => Err(failure.text),
        Err(Stop::Broken(text)) => panic!("{text}"),
    }
}

/// Opens a disk; what it holds must be one of the allowed states. Gives the state.
fn survivor(planted: &Planted, disk: &Wreck, allowed: &[State]) -> State {
    let backing = Arc::new(MemoryBacking::with_content(MAP_BYTES, disk));
    let store = planted.open(&backing).expect("a crashed store opens");
    let state = dump(&store).expect("a crashed store is whole");
    assert!(
        allowed.contains(&state),
        "none of the {} states that may have survived",
        allowed.len()
    );
    let report = store.check();
    assert_eq!(report.problems, [], "a crashed store is sound");
    state
}

/// One store, dying several times; the number of disks looked at.
fn lives(seed: u64, planted: &Planted) -> usize {
    let mut random = Random::new(seed);
    let mut backing = Arc::new(MemoryBacking::new(MAP_BYTES, RING_BYTES).expect("address space"));
    let mut allowed = vec![State::default()];
    let mut looked_at = 0;
    for life in 0..LIVES {
        // The first calls are those of opening; dying there is the recovery's test.
        let dies_at = 1 + random.below(if life == 0 { 120 } else { 60 }) as u64;
        backing.fail(dies_at, Failure::Dies);
        if let Ok(store) = planted.open(&backing) {
            let state = dump(&store).expect("an opened store is whole");
            assert!(allowed.contains(&state), "opened with a state of its own");
            let mut model = Model::from(state);
            let count = 20 + random.below(160);
            // The error is the power cut, or there was none.
            let _ = run(&mut model, &store, &ops(&mut random, count));
            allowed = model.states.split_off(model.durable);
        }
        let wreck = backing.wreck();
        let mut left = Vec::new();
        for _ in 0..IMAGES {
            let disk = wreck.image(&mut |n| random.below(n));
            left.push((survivor(planted, &disk, &allowed), disk));
            looked_at += 1;
        }
        let (state, disk) = left.swap_remove(random.below(left.len()));
        // The disk as it was found, not as recovery left it; but only this state is it.
        allowed = vec![state];
        backing = Arc::new(MemoryBacking::with_content(MAP_BYTES, &disk));
    }
    looked_at
}

/// A number from the environment.
fn asked<T: core::str::FromStr>(name: &str, default: T) -> T {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| match text.parse() {
        Ok(number) => number,
        Err(_) => panic!("{name} is no number"),
    })
}

#[test]
fn no_crash_loses_an_acknowledged_commit_or_leaves_half_of_one() {
    let crashes: usize = asked("BRICKYARD_CRASHES", 4_000 / SHARE);
    let (mut seed, mut looked_at) = (asked("BRICKYARD_SEED", 0_u64), 0);
    while looked_at < crashes {
        seed += 1;
        let result = catch_unwind(AssertUnwindSafe(|| lives(seed, &Planted::default())));
        looked_at += result.unwrap_or_else(|_| panic!("seed {seed}"));
    }
    assert!(looked_at >= crashes);
}

/// Whether the driver sees a planted error within so many seeds.
fn is_caught(planted: &Planted) -> bool {
    (1..=400).any(|seed| catch_unwind(AssertUnwindSafe(|| lives(seed, planted))).is_err())
}

#[test]
fn a_missing_barrier_of_the_tree_is_caught() {
    assert!(is_caught(&Planted {
        lazy_tree: true,
        ..Planted::default()
    }));
}

#[test]
fn a_missing_barrier_of_the_ring_is_caught() {
    assert!(is_caught(&Planted {
        lazy_ring: true,
        ..Planted::default()
    }));
}

#[test]
fn a_missing_checksum_of_records_is_caught() {
    let sabotage = Sabotage {
        believe_records: true,
        ..Sabotage::default()
    };
    assert!(is_caught(&Planted {
        sabotage,
        ..Planted::default()
    }));
}

#[test]
fn reusing_pages_of_the_last_checkpoint_is_caught() {
    let sabotage = Sabotage {
        reuse_early: true,
        ..Sabotage::default()
    };
    assert!(is_caught(&Planted {
        sabotage,
        ..Planted::default()
    }));
}

#[test]
fn cutting_the_file_before_its_slot_lasts_is_caught() {
    let sabotage = Sabotage {
        cut_early: true,
        ..Sabotage::default()
    };
    assert!(is_caught(&Planted {
        sabotage,
        ..Planted::default()
    }));
}

/// Operations that four hundred random ones may lack.
fn rare() -> [Op; 8] {
    let backup = |since| Op::Backup {
        since,
        key: Key(3),
        value: Value(19),
    };
    [
        Op::Commit(Durability::Visible),
        Op::Compact(40),
        backup(false),
        Op::CommitAsync,
        Op::DropTable(PAIRS),
        Op::CommitAsync,
        backup(true),
        Op::Compact(255),
    ]
}

/// Operations that write, and are not among these.
fn missing(ops: &[Op]) -> Vec<&'static str> {
    let kinds: Vec<String> = ops.iter().map(Op::kind).collect();
    let is_missing = |name: &&str| !kinds.iter().any(|kind| kind == name);
    Op::WRITING.into_iter().filter(is_missing).collect()
}

/// Every call to the disk fails once: nothing acknowledged is lost, nothing panics, and a
/// handle that cannot know what lasts writes no more.
#[test]
fn every_failing_call_leaves_a_store_that_opens() {
    let mut random = Random::new(77);
    let mut ops = ops(&mut random, 400);
    ops.extend(rare());
    assert_eq!(missing(&ops), Vec::<&str>::new(), "each operation fails");
    let calls = {
        let backing = Arc::new(MemoryBacking::new(MAP_BYTES, RING_BYTES).expect("address space"));
        let store = Planted::default().open(&backing).expect("a new store");
        run(&mut Model::default(), &store, &ops).expect("no call fails");
        drop(store);
        backing.calls()
    };
    assert!(calls > 40, "{calls} calls are not worth the name");
    for call in 1..=calls {
        let backing = Arc::new(MemoryBacking::new(MAP_BYTES, RING_BYTES).expect("address space"));
        backing.fail(call, Failure::Once);
        let mut model = Model::default();
        if let Ok(store) = Planted::default().open(&backing) {
            if let Err(error) = run(&mut model, &store, &ops) {
                assert!(
                    error.contains("planted") || error.contains("sync"),
                    "{error}"
                );
            }
            // What readers see was committed, whatever failed.
            let state = dump(&store).expect("reading goes on");
            assert!(
                model.states[model.durable..].contains(&state),
                "call {call}"
            );
        }
        // What is in the disk's cache, and also what is left without it.
        let wreck = backing.wreck();
        for _ in 0..IMAGES {
            let disk = wreck.image(&mut |n| random.below(n));
            survivor(&Planted::default(), &disk, &model.states[model.durable..]);
        }
    }
}
