//! Target `store_ops`: any program, on a store in memory or in files.
//!
//! The promises, checked at every step by comparison with maps:
//!
//! 1. Every operation says what the model says, within the transaction and outside of it.
//! 2. A snapshot shows what was committed when it was taken, until it is dropped.
//! 3. An aborted transaction leaves nothing.
//! 4. A store that is opened again, closed or not, has what was committed.
//! 5. `check` finds nothing; reading backwards, singly, in batches and forwards is one.
//! 6. A backup has what was committed when it began, whole or as an increment to one of an
//!    earlier life.

use arbitrary::Unstructured;
use brickyard_store::{Options, Store};
use tempfile::TempDir;

use crate::store_lies::{Liar, Lie};
use crate::store_oracle::backups::{Backups, folder};
use crate::store_oracle::dump::dump;
use crate::store_oracle::machine::Machine;
use crate::store_oracle::model::Model;
use crate::store_oracle::op::{End, Op};
use crate::store_oracle::outcome::Outcome;
use crate::store_oracle::{Stop, brief, drive};

/// Steps of one input; a longer one would be slow and teach nothing new.
const MAX_STEPS: usize = 300;
/// Address space of the store: some hundred entries need no more.
const MAP_BYTES: u64 = 64 << 20;

/// Which store.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Files, in the place of memory.
    pub is_file: bool,
    /// Length of the ring.
    pub ring_pages: u8,
}

impl Setup {
    fn options(self) -> Options {
        Options::new()
            .ring_bytes(4096 * u64::from(self.ring_pages.clamp(1, 8)))
            .address_space(MAP_BYTES)
    }

    fn home(self) -> std::io::Result<Home> {
        Ok(if self.is_file {
            Home::Folder(folder()?)
        } else {
            Home::Memory
        })
    }

    fn open(self, home: &Home) -> Result<Store, String> {
        let opened = match home {
            Home::Memory => self.options().open_in_memory(),
            Home::Folder(dir) => self.options().open(dir.path()),
        };
        opened.map_err(|error| error.to_string())
    }
}

/// Where the store is.
#[derive(Debug)]
enum Home {
    Memory,
    Folder(TempDir),
}

/// Runs the program that `data` encodes.
///
/// # Panics
///
/// Panics when the store breaks a promise.
pub fn run(data: &[u8]) {
    let (setup, ops) = program(data);
    if let Err(failure) = run_ops(setup, &ops, Lie::Honest) {
        panic!("{setup:?}, program: {ops:#?}\n{failure}");
    }
}

/// The store and the program that `data` encodes.
#[must_use]
pub fn program(data: &[u8]) -> (Setup, Vec<Op>) {
    let mut input = Unstructured::new(data);
    let choose = |input: &mut Unstructured<'_>, n| input.choose_index(n).unwrap_or(0);
    let setup = Setup {
        is_file: choose(&mut input, 4) == 1,
        ring_pages: 1 + u8::try_from(choose(&mut input, 8)).unwrap_or(0),
    };
    let mut ops = Vec::new();
    while !input.is_empty() && ops.len() < MAX_STEPS {
        ops.push(Op::choose(&mut |n| choose(&mut input, n)));
    }
    (setup, ops)
}

/// Runs a program on a new store. With a [`Lie`] the store is not itself.
///
/// # Errors
///
/// The first promise that the store breaks.
pub fn run_ops(setup: Setup, ops: &[Op], lie: Lie) -> Result<(), String> {
    let text = |error: &dyn core::fmt::Display| error.to_string();
    let mut home = setup.home().map_err(|error| text(&error))?;
    // A store in memory ends with its handle.
    let staying = |op: &Op| match op {
        Op::Reopen(_) if !setup.is_file => Op::Checkpoint,
        op => op.clone(),
    };
    let ops: Vec<Op> = ops.iter().map(staying).collect();
    let (mut model, mut liar) = (Model::default(), Liar::new(lie));
    let (mut rest, mut backups) = (ops.as_slice(), Backups::default());
    loop {
        let store = setup.open(&home)?;
        let found = dump(&store).map_err(|failure| failure.text)?;
        if !model.begin_life(found.clone()) {
            let found = brief(&found);
            return Err(format!(
                "what lasted is no state of the store that was opened again: {found}"
            ));
        }
        let done = live(&store, rest, &mut backups, &mut model, &mut liar)?;
        let (lived, left) = rest.split_at(done);
        rest = left;
        match lived.last() {
            Some(Op::Reopen(End::Die)) => {
                home = left_behind(&home).map_err(|error| text(&error))?;
            }
            Some(Op::Reopen(End::Drop)) => {}
            _ => store.close().map_err(|error| text(&error))?,
        }
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// What is left when the process dies now: the files, and neither its lock nor its memory.
fn left_behind(home: &Home) -> std::io::Result<Home> {
    let Home::Folder(old) = home else {
        return Ok(Home::Memory);
    };
    let new = folder()?;
    for name in ["tree", "ring"] {
        std::fs::copy(old.path().join(name), new.path().join(name))?;
    }
    Ok(Home::Folder(new))
}

/// One life of the store; how many operations were done.
fn live(
    store: &Store,
    ops: &[Op],
    backups: &mut Backups,
    model: &mut Model,
    liar: &mut Liar,
) -> Result<usize, String> {
    let mut machine = Machine::new(store);
    machine.backups = core::mem::take(backups);
    let mut step = |machine: &mut Machine<'_>, op: &Op| -> Outcome { liar.step(machine, op) };
    let told = |stop| match stop {
        Stop::Failed(failure) => format!("nothing fails here: {}", failure.text),
        Stop::Broken(text) => text,
    };
    let done = drive(model, &mut machine, ops, &mut step).map_err(told)?;
    let kept = machine.dump_kept().map_err(|failure| failure.text)?;
    if kept != model.kept() {
        return Err(format!("at the end, in a kept snapshot: {}", brief(&kept)));
    }
    if !matches!(ops.get(done.wrapping_sub(1)), Some(Op::Reopen(_))) {
        drive(model, &mut machine, &[Op::Check], &mut step).map_err(told)?;
    }
    *backups = machine.backups;
    Ok(done)
}
