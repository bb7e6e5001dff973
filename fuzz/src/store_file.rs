//! Target `store_file`: the files of a store after somebody was at them.
//!
//! The promises:
//!
//! 1. Opening, reading everything and `check` give what is right or an error: no panic, no
//!    end that does not come, no touch outside of the files.
//! 2. Damage by accident never shows as a wrong value. (What was forged may.)
//! 3. Whatever a file says, nothing that a reader holds changes when somebody writes.
//! 4. What passes the check at its opening can be read and written and stays sound.
//!
//! Bytes of an input choose what is changed; they never are what is written, or a fuzzer that
//! looks at comparisons would find the checksum that belongs to its damage.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use arbitrary::Unstructured;
use brickyard_store::{Options, Store};
use tempfile::TempDir;

use crate::store_oracle::backups::folder;
use crate::store_oracle::drive_honestly;
use crate::store_oracle::dump::dump;
use crate::store_oracle::forge::{Forgery, Image};
use crate::store_oracle::machine::Machine;
use crate::store_oracle::model::{Model, State};
use crate::store_oracle::op::Op;
use crate::store_oracle::probe::{read_all, write_beside_reader};
use crate::store_oracle::random::Random;

/// Operations that a store has behind it before its files are changed.
const HISTORY: usize = 300;
/// Address space of the stores.
const MAP_BYTES: u64 = 64 << 20;

/// A sound store: its files, and the states that it went through.
#[derive(Debug)]
struct Base {
    image: Image,
    states: Vec<State>,
}

/// Two histories, each closed and as a process leaves it that dies.
static BASES: LazyLock<Vec<Base>> = LazyLock::new(|| {
    let seeds = [(1, true), (1, false), (2, true), (2, false)];
    seeds.map(|(seed, is_closed)| base(seed, is_closed)).into()
});

fn options() -> Options {
    Options::new().ring_bytes(1 << 14).address_space(MAP_BYTES)
}

fn image(dir: &Path) -> Image {
    let read = |name| fs::read(dir.join(name)).expect("a file of the store");
    Image {
        tree: read("tree"),
        ring: read("ring"),
    }
}

fn base(seed: u64, is_closed: bool) -> Base {
    let dir = folder().expect("a temporary folder");
    let store = options().open(dir.path()).expect("a new store");
    let (mut model, mut random) = (Model::default(), Random::new(seed));
    let ops = core::iter::repeat_with(|| random.op()).filter(|op| !matches!(op, Op::Reopen(_)));
    let mut ops: Vec<Op> = ops.take(HISTORY).collect();
    ops.push(Op::Commit(brickyard_store::Durability::Durable));
    let mut machine = Machine::new(&store);
    let done = drive_honestly(&mut model, &mut machine, &ops);
    assert_eq!(done.expect("a sound store"), ops.len());
    drop(machine);
    let open = image(dir.path());
    store.close().expect("a working disk");
    Base {
        image: if is_closed { image(dir.path()) } else { open },
        states: model.states,
    }
}

thread_local! {
    /// The folder for all inputs of a thread.
    static HOME: TempDir = folder().expect("a temporary folder");
}

/// Changes the files of a store as `data` says, and uses what is left.
///
/// # Panics
///
/// Panics when the store breaks a promise.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut choose = |n| input.choose_index(n).unwrap_or(0);
    let base = &BASES[choose(BASES.len())];
    let is_forged = choose(2) == 1;
    let checks = choose(2) == 1;
    let seed = choose(1 << 16) as u64;
    let image = if is_forged {
        let mut forgery = Forgery::new(base.image.clone());
        for _ in 0..1 + choose(6) {
            forgery.forge(&mut choose);
        }
        forgery.seal();
        forgery.image
    } else {
        let mut image = base.image.clone();
        image.damage(true, &mut choose);
        if choose(8) == 7 {
            image.cut(&mut choose);
        }
        image
    };
    HOME.with(|home| {
        let dir = home.path();
        let write = |name, bytes: &[u8]| fs::write(dir.join(name), bytes);
        write("tree", &image.tree).expect("room for the tree");
        write("ring", &image.ring).expect("room for the ring");
        write("lock", &[]).expect("room for the lock");
        let states = (!is_forged).then_some(base.states.as_slice());
        let mut random = Random::new(seed);
        read_only(dir, states, &mut random);
        for_writing(dir, states, checks, &mut random);
    });
}

/// Promise 2: without `states` anything goes.
fn expect_one_of(store: &Store, states: Option<&[State]>) {
    if let Some(states) = states
        && let Ok(found) = dump(store)
    {
        assert!(states.contains(&found), "damage shows as {found:?}");
    }
}

fn read_only(dir: &Path, states: Option<&[State]>, random: &mut Random) {
    let Ok(store) = options().read_only(true).open(dir) else {
        return;
    };
    read_all(&store, random);
    expect_one_of(&store, states);
    store.check();
}

fn for_writing(dir: &Path, states: Option<&[State]>, checks: bool, random: &mut Random) {
    let Ok(store) = options().create(false).check(checks).open(dir) else {
        return;
    };
    expect_one_of(&store, states);
    if checks {
        assert_eq!(read_all(&store, random), 0, "what was checked can be read");
    }
    assert!(
        write_beside_reader(&store, random),
        "what a reader holds has changed"
    );
    read_all(&store, random);
    let problems = store.check().problems;
    assert!(
        !checks || problems.is_empty(),
        "no longer sound: {problems:?}"
    );
}
