//! A store that does operations and says what came of them.

use core::ops::Bound;
use std::collections::BTreeMap;
use std::sync::Arc;

use brickyard_store::{Range, ReadError, ReadTxn, Savepoint, Store, Table, TableMut, WriteTxn};

use super::model::State;
use super::op::{
    Failure, Op, Outcome, Pair, Span, TABLES, Turns, View, many_keys, table_name, table_options,
};

/// Entries of a range that has no end.
const MOST_ENTRIES: usize = 1 << 20;

/// A life of a store: its open transaction and the snapshots that are kept.
#[derive(Debug)]
pub struct Machine<'s> {
    store: &'s Store,
    txn: Option<WriteTxn<'s>>,
    saved: Vec<Savepoint>,
    kept: Vec<ReadTxn<'s>>,
}

impl<'s> Machine<'s> {
    /// Nothing open, nothing kept.
    #[must_use]
    pub fn new(store: &'s Store) -> Self {
        Self {
            store,
            txn: None,
            saved: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// Does the operation.
    pub fn step(&mut self, op: &Op) -> Outcome {
        self.run(op).unwrap_or_else(Outcome::Failed)
    }

    /// Everything that kept snapshots see, in the order of their age.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub fn dump_kept(&self) -> Result<Vec<State>, Failure> {
        self.kept.iter().map(dump_snapshot).collect()
    }

    fn txn(&mut self) -> Result<&mut WriteTxn<'s>, Failure> {
        if self.txn.is_none() {
            self.txn = Some(self.store.write()?);
        }
        Ok(self.txn.as_mut().expect("just begun"))
    }

    fn run(&mut self, op: &Op) -> Result<Outcome, Failure> {
        Ok(match *op {
            Op::Put { .. }
            | Op::Insert { .. }
            | Op::Swap { .. }
            | Op::Delete { .. }
            | Op::DeleteRange { .. }
            | Op::Get {
                view: View::Txn, ..
            } => return self.change(op),
            Op::Get { view, .. }
            | Op::GetMany { view, .. }
            | Op::Range { view, .. }
            | Op::Prefix { view, .. }
            | Op::Ends { view, .. }
            | Op::Tables(view) => return self.look(view, op),
            Op::Keep => {
                self.kept.push(self.store.read());
                Outcome::Done
            }
            Op::Forget(pick) => {
                if !self.kept.is_empty() {
                    self.kept.remove(usize::from(pick) % self.kept.len());
                }
                Outcome::Done
            }
            Op::Commit(durability) => {
                self.txn()?;
                self.saved.clear();
                let txn = self.txn.take().expect("just begun");
                txn.commit_with(durability)?;
                Outcome::Done
            }
            Op::Abort => {
                self.saved.clear();
                self.txn = None;
                Outcome::Done
            }
            Op::DropTable(table) => {
                self.txn()?.delete_table(&table_name(table))?;
                Outcome::Done
            }
            Op::Savepoint | Op::RollBack(_) | Op::Release(_) => return self.save(op),
            Op::Checkpoint => {
                self.store.checkpoint()?;
                Outcome::Done
            }
            Op::Check => {
                let report = self.store.check();
                let problems = report.problems.iter().map(ToString::to_string);
                Outcome::Checked(problems.collect(), dump(self.store)?)
            }
            // The end of this life is for whoever has the store.
            Op::Reopen(_) => Outcome::Done,
        })
    }

    fn save(&mut self, op: &Op) -> Result<Outcome, Failure> {
        self.txn()?;
        let Some(txn) = &mut self.txn else {
            return Ok(Outcome::Done);
        };
        let place = |pick: u8| usize::from(pick) % self.saved.len();
        match *op {
            Op::RollBack(pick) if !self.saved.is_empty() => {
                let index = place(pick);
                txn.roll_back(&self.saved[index])?;
                self.saved.truncate(index + 1);
            }
            Op::Release(pick) if !self.saved.is_empty() => {
                let index = place(pick);
                txn.release(self.saved.swap_remove(index))?;
                self.saved.truncate(index);
            }
            Op::Savepoint => self.saved.push(txn.savepoint()?),
            _ => {}
        }
        Ok(Outcome::Done)
    }

    fn change(&mut self, op: &Op) -> Result<Outcome, Failure> {
        let (Op::Put { table, .. }
        | Op::Insert { table, .. }
        | Op::Swap { table, .. }
        | Op::Delete { table, .. }
        | Op::DeleteRange { table, .. }
        | Op::Get { table, .. }) = *op
        else {
            return Ok(Outcome::Done);
        };
        let mut table = open(self.txn()?, table)?;
        Ok(match *op {
            Op::Put { key, value, .. } => Outcome::Is(table.put(&key.bytes(), &value.bytes())?),
            Op::Insert { key, value, .. } => {
                Outcome::Is(table.insert_if_absent(&key.bytes(), &value.bytes())?)
            }
            Op::Swap {
                key, right, new, ..
            } => {
                let (key, new) = (key.bytes(), new.map(super::op::Value::bytes));
                let old = table.get(&key)?.map(<[u8]>::to_vec);
                let expected = if right {
                    old.as_deref()
                } else {
                    Some(&b"never stored"[..])
                };
                Outcome::Is(table.compare_and_swap(&key, expected, new.as_deref())?)
            }
            Op::Delete { key, .. } => Outcome::Is(table.delete(&key.bytes())?),
            Op::DeleteRange { span, .. } => Outcome::Count(table.delete_range(bounds(span))?),
            Op::Get { key, .. } => Outcome::Value(table.get(&key.bytes())?.map(<[u8]>::to_vec)),
            _ => Outcome::Done,
        })
    }

    fn look(&self, view: View, op: &Op) -> Result<Outcome, Failure> {
        let fresh;
        let snapshot = match view {
            View::Kept(pick) if !self.kept.is_empty() => {
                &self.kept[usize::from(pick) % self.kept.len()]
            }
            _ => {
                fresh = self.store.read();
                &fresh
            }
        };
        if let Op::Tables(_) = op {
            let tables = snapshot.tables()?.into_iter();
            let filled = tables.filter(|table| table.entries > 0);
            let named = filled.map(|table| (table.name.to_string(), table.entries));
            return Ok(Outcome::Tables(named.collect()));
        }
        let (Op::Get { table, .. }
        | Op::GetMany { table, .. }
        | Op::Range { table, .. }
        | Op::Prefix { table, .. }
        | Op::Ends { table, .. }) = *op
        else {
            return Ok(Outcome::Done);
        };
        match snapshot.table(&table_name(table))? {
            Some(table) => Ok(look_into(&table, op)?),
            None => Ok(nothing(op)),
        }
    }
}

/// A table as it was created, or to be created.
fn open<'t, 's>(txn: &'t mut WriteTxn<'s>, table: u8) -> Result<TableMut<'t, 's>, Failure> {
    let (name, options) = (table_name(table), table_options(table));
    Ok(txn.table_with(&name, &options)?)
}

/// What a look at an empty table gives.
fn nothing(op: &Op) -> Outcome {
    match *op {
        Op::Get { .. } => Outcome::Value(None),
        Op::GetMany { count, .. } => Outcome::Values(vec![None; usize::from(count)]),
        Op::Ends { .. } => Outcome::Ends {
            first: None,
            last: None,
            len: 0,
        },
        _ => Outcome::Entries(Vec::new()),
    }
}

fn look_into(table: &Table<'_>, op: &Op) -> Result<Outcome, ReadError> {
    Ok(match *op {
        Op::Get { key, .. } => Outcome::Value(table.get(&key.bytes())?.map(<[u8]>::to_vec)),
        Op::GetMany { first, count, .. } => {
            let keys = many_keys(first, count);
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let values = table.get_many(&keys)?.into_iter();
            Outcome::Values(values.map(|value| value.map(<[u8]>::to_vec)).collect())
        }
        Op::Range { span, turns, .. } => collect(table.range(bounds(span))?, turns)?,
        Op::Prefix {
            key, keep, turns, ..
        } => {
            let key = key.bytes();
            let prefix = key.get(..usize::from(keep)).unwrap_or(&key);
            collect(table.prefix(prefix)?, turns)?
        }
        _ => {
            let pair = |(key, value): (Vec<u8>, &[u8])| -> Pair { (key, value.to_vec()) };
            Outcome::Ends {
                first: table.first()?.map(pair),
                last: table.last()?.map(pair),
                len: table.len(),
            }
        }
    })
}

fn bounds(span: Span) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    (span.from.bound(), span.to.bound())
}

/// Reads a range to its end.
fn collect(mut range: Range<'_>, turns: Turns) -> Result<Outcome, ReadError> {
    let mut out = Vec::new();
    for step in 0..MOST_ENTRIES {
        let next = if turns.is_back(step) {
            range.next_back()?
        } else {
            range.next()?
        };
        let Some((key, value)) = next else {
            return Ok(Outcome::Entries(out));
        };
        out.push((key.to_vec(), value.to_vec()));
    }
    panic!("a range of some hundred entries has no end");
}

/// Everything that a store shows.
///
/// # Errors
///
/// What the store says.
///
/// # Panics
///
/// As [`dump_snapshot`].
pub fn dump(store: &Store) -> Result<State, Failure> {
    dump_snapshot(&store.read())
}

/// Everything that a snapshot shows.
///
/// # Errors
///
/// What the store says.
///
/// # Panics
///
/// Panics if reading backwards, single or batched look-ups or the number of entries show
/// something else than reading forwards.
pub fn dump_snapshot(read: &ReadTxn<'_>) -> Result<State, Failure> {
    let mut state = State::new();
    for number in 0..TABLES {
        let Some(table) = read.table(&table_name(number))? else {
            continue;
        };
        let (mut model, mut range) = (BTreeMap::new(), table.range::<[u8]>(..)?);
        while let Some((key, value)) = range.next()? {
            model.insert(key.to_vec(), value.to_vec());
        }
        assert_eq!(
            model.len() as u64,
            table.len(),
            "as many entries as recorded"
        );
        let (mut back, mut backwards) = (table.range::<[u8]>(..)?, model.iter().rev());
        while let Some((key, value)) = back.next_back()? {
            assert_eq!(backwards.next(), Some((&key.to_vec(), &value.to_vec())));
        }
        assert_eq!(backwards.next(), None, "backwards as many as forwards");
        let keys: Vec<&[u8]> = model.keys().map(Vec::as_slice).collect();
        for (key, value) in keys.iter().zip(table.get_many(&keys)?) {
            assert_eq!(value, model.get(*key).map(Vec::as_slice));
            assert_eq!(table.get(key)?, value);
        }
        if !model.is_empty() {
            state.insert(number, Arc::new(model));
        }
    }
    Ok(state)
}
