//! A store that breaks its promises on demand: what the oracle must find.
//!
//! [`Liar`] does operations on a machine. With a [`Lie`] planted one of them goes wrong after
//! some honest ones, as a defect in the store would make it.

use brickyard_store::Durability;

use crate::store_oracle::args::{Edge, Key, Span, View};
use crate::store_oracle::machine::Machine;
use crate::store_oracle::op::Op;
use crate::store_oracle::outcome::Outcome;

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// None.
    Honest,
    /// A put says that an old key is new, or the reverse.
    SaysNew,
    /// A put changes nothing.
    LostPut,
    /// `insert_if_absent` replaces what is there.
    GreedyInsert,
    /// A delete changes nothing.
    LostDelete,
    /// A range is deleted and one more is counted.
    GreedyRange,
    /// A swap happens whatever was expected.
    BlindSwap,
    /// A look-up does not find what is there.
    Forgetful,
    /// Two values of a batch are exchanged.
    MixedMany,
    /// A range leaves its last entry out.
    ShortRange,
    /// Two entries of a range come in the wrong order.
    Disorder,
    /// A prefix gives all entries.
    LongPrefix,
    /// The number of entries is too high.
    WrongLen,
    /// A kept snapshot shows what is new.
    MovingSnapshot,
    /// A dropped transaction is committed.
    AbortCommits,
    /// Going back to a savepoint does nothing.
    LazyRollBack,
    /// The list of tables leaves one out.
    ShortList,
    /// `check` finds a problem in a sound store.
    CheckCries,
    /// A checkpoint loses a table.
    LossyCheckpoint,
    /// Opening a store again loses a table.
    LossyOpen,
    /// What was written in place is not there.
    LostReserve,
    /// A load counts one too many.
    GreedyLoad,
    /// A cursor is on nothing at the end of its way.
    LostCursor,
    /// A pair that is new is said to be old, or the reverse.
    SaysNewPair,
    /// A pair that was there is said not to have been, or the reverse.
    SaysNoPair,
    /// One pair more than there were is said to be taken.
    GreedyKey,
    /// A range of pairs leaves its last one out.
    ShortPairs,
    /// The values of a key leave the last one out.
    ShortValues,
    /// An asynchronous commit is dropped.
    LostAsync,
    /// Compacting loses a table.
    LossyCompact,
    /// A backup lacks a table.
    ShortBackup,
}

impl Lie {
    /// Every lie, with words of the oracle's report of it.
    pub const ALL: [(Self, &'static str); 30] = [
        (Self::SaysNew, "what put says"),
        (Self::LostPut, "and everything"),
        (Self::GreedyInsert, "and everything"),
        (Self::LostDelete, "and everything"),
        (Self::GreedyRange, "how many delete_range took"),
        (Self::BlindSwap, "what compare_and_swap says"),
        (Self::Forgetful, "the value of a key"),
        (Self::MixedMany, "the values of many keys"),
        (Self::ShortRange, "the entries of a range"),
        (Self::Disorder, "the entries of a range"),
        (Self::LongPrefix, "the entries of a prefix"),
        (Self::WrongLen, "first, last and number"),
        (Self::MovingSnapshot, "in a kept snapshot"),
        (Self::AbortCommits, "and everything"),
        (Self::LazyRollBack, "and everything"),
        (Self::ShortList, "the list of tables"),
        (Self::CheckCries, "what check finds"),
        (Self::LossyCheckpoint, "and everything"),
        (Self::LossyOpen, "opened again"),
        (Self::LostReserve, "and everything"),
        (Self::GreedyLoad, "how many were loaded"),
        (Self::LostCursor, "what a cursor met"),
        (Self::SaysNewPair, "whether a pair is new"),
        (Self::SaysNoPair, "whether a pair was there"),
        (Self::GreedyKey, "how many pairs were taken"),
        (Self::ShortPairs, "the pairs of a range"),
        (Self::ShortValues, "the values of one key"),
        (Self::LostAsync, "and everything"),
        (Self::LossyCompact, "and everything"),
        (Self::ShortBackup, "what a backup has"),
    ];
}

/// See the module. Lies are told from the third occasion on.
#[derive(Debug)]
pub struct Liar {
    lie: Lie,
    occasions: usize,
}

impl Liar {
    /// Honest up to the third occasion.
    #[must_use]
    pub fn new(lie: Lie) -> Self {
        Self { lie, occasions: 0 }
    }

    fn tells(&mut self, lie: Lie) -> bool {
        self.occasions += usize::from(self.lie == lie);
        self.lie == lie && self.occasions > 2
    }

    /// Does the operation, in its way.
    pub fn step(&mut self, machine: &mut Machine<'_>, op: &Op) -> Outcome {
        match *op {
            Op::Put { table, key, value } => {
                if self.tells(Lie::LostPut) {
                    return Outcome::Is(!is_there(machine, table, key));
                }
                let new = machine.step(&Op::Put { table, key, value });
                self.tampered(Lie::SaysNew, new)
            }
            Op::Insert { table, key, value } => {
                let new = machine.step(op);
                // There are few of these: it is told at each.
                if new == Outcome::Is(false) && self.lie == Lie::GreedyInsert {
                    machine.step(&Op::Put { table, key, value });
                }
                new
            }
            Op::Delete { table, key } if self.tells(Lie::LostDelete) => {
                Outcome::Is(is_there(machine, table, key))
            }
            Op::Swap {
                table, key, new, ..
            } if self.tells(Lie::BlindSwap) => machine.step(&Op::Swap {
                table,
                key,
                right: true,
                new,
            }),
            Op::RollBack(_) if self.tells(Lie::LazyRollBack) => Outcome::Done,
            Op::Abort if self.tells(Lie::AbortCommits) => {
                machine.step(&Op::Commit(Durability::Durable))
            }
            Op::Reserve { .. } if self.tells(Lie::LostReserve) => Outcome::Done,
            Op::CommitAsync if self.tells(Lie::LostAsync) => machine.step(&Op::Abort),
            Op::Checkpoint if self.tells(Lie::LossyCheckpoint) => {
                lose(machine);
                machine.step(op)
            }
            Op::Compact(_) if self.tells(Lie::LossyCompact) => {
                lose(machine);
                machine.step(op)
            }
            Op::Reopen(_) if self.tells(Lie::LossyOpen) => {
                lose(machine);
                machine.step(op)
            }
            _ => self.look(machine, op),
        }
    }

    fn look(&mut self, machine: &mut Machine<'_>, op: &Op) -> Outcome {
        let mut op = op.clone();
        if let (
            Lie::MovingSnapshot,
            Op::Get { view, .. } | Op::Range { view, .. } | Op::Ends { view, .. },
        ) = (self.lie, &mut op)
        {
            *view = view.outside();
            if matches!(view, View::Kept(_)) {
                *view = View::Fresh;
            }
        }
        if let Op::Prefix { keep, .. } = &mut op
            && self.tells(Lie::LongPrefix)
        {
            *keep = 0;
        }
        let outcome = machine.step(&op);
        let lie = match op {
            Op::DeleteRange { .. } => Lie::GreedyRange,
            Op::Get { .. } => Lie::Forgetful,
            Op::GetMany { .. } => Lie::MixedMany,
            Op::Range { .. } if self.lie == Lie::Disorder => Lie::Disorder,
            Op::Range { .. } => Lie::ShortRange,
            Op::Ends { .. } => Lie::WrongLen,
            Op::Tables(_) => Lie::ShortList,
            Op::Check => Lie::CheckCries,
            Op::Load { .. } => Lie::GreedyLoad,
            Op::Walk { .. } => Lie::LostCursor,
            Op::AddPair { .. } => Lie::SaysNewPair,
            Op::RemovePair { .. } => Lie::SaysNoPair,
            Op::RemoveKey(_) => Lie::GreedyKey,
            Op::Pairs { .. } => Lie::ShortPairs,
            Op::Values { .. } => Lie::ShortValues,
            Op::Backup { .. } => Lie::ShortBackup,
            _ => return outcome,
        };
        self.tampered(lie, outcome)
    }

    /// The outcome, changed if it is the lie's turn.
    fn tampered(&mut self, lie: Lie, mut outcome: Outcome) -> Outcome {
        if !self.tells(lie) {
            return outcome;
        }
        match &mut outcome {
            Outcome::Is(yes) => *yes = !*yes,
            Outcome::Count(count) => *count += 1,
            Outcome::Value(value) => *value = None,
            Outcome::Values(values) => values.reverse(),
            Outcome::Entries(entries) if lie == Lie::Disorder => entries.reverse(),
            Outcome::Entries(entries) => drop(entries.pop()),
            Outcome::Steps(met) => drop(met.last_mut().and_then(Option::take)),
            Outcome::Checked(_, state) if lie == Lie::ShortBackup => {
                state.tables.pop_first();
            }
            Outcome::Tables(tables) => drop(tables.pop()),
            Outcome::Ends { len, .. } => *len += 1,
            Outcome::Checked(problems, _) => problems.push("nothing is wrong".to_owned()),
            _ => {}
        }
        outcome
    }
}

fn is_there(machine: &mut Machine<'_>, table: u8, key: Key) -> bool {
    let view = View::Txn;
    machine.step(&Op::Get { view, table, key }) != Outcome::Value(None)
}

/// A committed table is gone.
fn lose(machine: &mut Machine<'_>) {
    let span = Span {
        from: Edge::Open,
        to: Edge::Open,
    };
    machine.step(&Op::DeleteRange { table: 0, span });
    machine.step(&Op::Commit(Durability::Durable));
}
