//! One kind of operation, one model and one machine for every test of the store.
//!
//! ```text
//!   bytes, seeds ──choose──┐           ┌── Machine: a Store, its open transaction, kept readers
//!                          ├─► [Op] ─►─┤                                          equal Outcomes?
//!   proptest ────strategy──┘           └── Model: maps, and the list of the states they had
//! ```
//!
//! Compiled twice: here, and by its path within the unit tests of `brickyard-store`, where
//! the model of a disk is; that crate calls itself `brickyard_store` there. So the crash
//! simulation and the fuzz targets have one oracle and not two of one kind.

pub mod args;
pub mod backups;
pub mod dump;
pub mod forge;
pub mod machine;
pub mod model;
pub mod op;
pub mod outcome;
pub mod probe;
pub mod random;
pub mod reach;
pub mod walk;

use machine::Machine;
use model::Model;
use op::Op;
use outcome::Outcome;

/// Why a program did not go on.
#[derive(Clone, Debug)]
pub enum Stop {
    /// The store could not do an operation, and said so.
    Failed(outcome::Failure),
    /// The store did what it promises not to.
    Broken(String),
}

/// Does the operations on both, up to the first difference, the first failure or the end of
/// the store's life ([`Op::Reopen`]); how many were done. `step` does one on the machine.
///
/// # Errors
///
/// Why it stopped. After a failure of a commit the model's newest state may or may not last.
pub fn drive(
    model: &mut Model,
    machine: &mut Machine<'_>,
    ops: &[Op],
    step: &mut dyn FnMut(&mut Machine<'_>, &Op) -> Outcome,
) -> Result<usize, Stop> {
    for (done, op) in ops.iter().map(Op::possible).enumerate() {
        // These wait for the writer, which is this thread itself.
        if op.needs_no_writer() && model.is_open() {
            one(
                model,
                machine,
                &Op::Commit(brickyard_store::Durability::Visible),
                step,
            )?;
        }
        if op.looks_from_outside() && model.is_awaited() {
            one(model, machine, &Op::Await, step)?;
        }
        one(model, machine, &op, step)?;
        if matches!(op, Op::Reopen(_)) {
            return Ok(done + 1);
        }
    }
    Ok(ops.len())
}

/// As [`drive`], and the machine does what it is told.
///
/// # Errors
///
/// As [`drive`].
pub fn drive_honestly(
    model: &mut Model,
    machine: &mut Machine<'_>,
    ops: &[Op],
) -> Result<usize, Stop> {
    drive(model, machine, ops, &mut |machine, op| machine.step(op))
}

/// Most bytes of what a report says that was found: whole stores are long.
const BRIEF_BYTES: usize = 600;

/// A value in a report.
pub fn brief(value: &dyn core::fmt::Debug) -> String {
    let mut text = format!("{value:?}");
    if let Some((end, _)) = text.char_indices().nth(BRIEF_BYTES) {
        text.truncate(end);
        text.push('…');
    }
    text
}

fn one(
    model: &mut Model,
    machine: &mut Machine<'_>,
    op: &Op,
    step: &mut dyn FnMut(&mut Machine<'_>, &Op) -> Outcome,
) -> Result<(), Stop> {
    let before = model.mark();
    let expected = model.step(op);
    let found = step(machine, op);
    if let Outcome::Failed(failure) = found {
        model.failed(before, &failure);
        return Err(Stop::Failed(failure));
    }
    if found != expected {
        let promise = op.promise();
        let (expected, found) = (brief(&expected), brief(&found));
        let text = format!("{promise}: {op:?}\n  expected {expected}\n  found    {found}");
        return Err(Stop::Broken(text));
    }
    Ok(())
}
