//! A store that does operations and says what came of them.

use core::future::Future;
use core::task::{Context, Poll, Waker};
use std::sync::Arc;
use std::task::Wake;

use brickyard_store::{
    CommitFuture, Durability, LoadError, ReadTxn, Savepoint, Store, Table, TableMut, WriteError,
    WriteTxn,
};

use super::args::{Key, PAIRS, View, many_keys, table_name};
use super::backups::Backups;
use super::dump::{dump, dump_snapshot};
use super::model::State;
use super::op::Op;
use super::outcome::{Failure, Outcome, Pair};
use super::reach::{
    Map, MapMut, collect, each_of_prefix, each_open, each_open_of_prefix, each_open_pair,
    each_pair, open_pairs, open_plain, values_of,
};
use super::walk::{Step, steps};

/// A life of a store: its open transaction and the snapshots that are kept.
#[derive(Debug)]
pub struct Machine<'s> {
    store: &'s Store,
    txn: Option<WriteTxn<'s>>,
    saved: Vec<Savepoint>,
    kept: Vec<ReadTxn<'s>>,
    /// Commits that nobody has waited for yet.
    asked_for: Vec<CommitFuture>,
    /// Taken in this life and, if they are passed on, in those before.
    pub backups: Backups,
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
            asked_for: Vec::new(),
            backups: Backups::default(),
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

    /// The transaction, to be ended.
    fn take_txn(&mut self) -> Result<WriteTxn<'s>, Failure> {
        self.txn()?;
        self.saved.clear();
        Ok(self.txn.take().expect("just begun"))
    }

    fn run(&mut self, op: &Op) -> Result<Outcome, Failure> {
        match *op {
            Op::Commit(durability) => self.take_txn()?.commit_with(durability)?,
            Op::CommitAsync => {
                let future = self.take_txn()?.commit_async()?;
                self.asked_for.push(future);
            }
            Op::Await => {
                for future in self.asked_for.drain(..) {
                    block_on(future)?;
                }
            }
            Op::Abort => {
                self.saved.clear();
                self.txn = None;
            }
            Op::DropTable(table) => {
                self.txn()?.delete_table(&table_name(table))?;
            }
            Op::Savepoint | Op::RollBack(_) | Op::Release(_) => self.save(op)?,
            Op::Keep => self.kept.push(self.store.read()),
            Op::Forget(pick) => {
                if !self.kept.is_empty() {
                    self.kept.remove(usize::from(pick) % self.kept.len());
                }
            }
            Op::Checkpoint => self.store.checkpoint()?,
            Op::Compact(pages) => {
                self.store.compact(pages.into())?;
            }
            // The end of this life is for whoever has the store.
            Op::Reopen(_) => {}
            Op::Backup { since, key, value } => return self.back_up(since, key, &value.bytes()),
            Op::Check => return self.check(),
            Op::AddPair { .. } | Op::RemovePair { .. } | Op::RemoveKey(_) => {
                return self.change_pairs(op);
            }
            _ => {
                return match op.view() {
                    None | Some(View::Txn) => self.change(op),
                    Some(view) => self.look(view, op),
                };
            }
        }
        Ok(Outcome::Done)
    }

    fn save(&mut self, op: &Op) -> Result<(), Failure> {
        self.txn()?;
        let Some(txn) = &mut self.txn else {
            return Ok(());
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
        Ok(())
    }

    fn check(&mut self) -> Result<Outcome, Failure> {
        let report = self.store.check();
        let mut problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
        let stat = self.store.stat()?;
        let counted = stat.tables.iter().map(|table| (&table.name, table.entries));
        let listed = self.store.read().tables()?;
        if !counted.eq(listed.iter().map(|table| (&table.name, table.entries))) {
            problems.push(format!("{stat:?} is not {listed:?}"));
        }
        let readers = self.store.readers();
        if readers.len() != self.kept.len() {
            problems.push(format!(
                "{} snapshots are kept: {readers:?}",
                self.kept.len()
            ));
        }
        Ok(Outcome::Checked(problems, dump(self.store)?))
    }

    fn back_up(&mut self, since: bool, key: Key, value: &[u8]) -> Result<Outcome, Failure> {
        let store = self.store;
        self.backups.take(store, since, &mut || {
            let mut txn = store.write()?;
            open_plain(&mut txn, 0)?.put(&key.bytes(), value)?;
            Ok(txn.commit_with(Durability::Visible)?)
        })
    }

    fn change_pairs(&mut self, op: &Op) -> Result<Outcome, Failure> {
        let mut pairs = self.txn()?.multi_map(&table_name(PAIRS))?;
        Ok(match *op {
            Op::AddPair { key, value } => match pairs.insert(&key.bytes(), &value.short()) {
                Err(WriteError::PairTooLong { .. }) => Outcome::TooLong,
                new => Outcome::Is(new?),
            },
            Op::RemovePair { key, value } => {
                Outcome::Is(pairs.remove(&key.bytes(), &value.short())?)
            }
            Op::RemoveKey(key) => Outcome::Count(pairs.remove_all(&key.bytes())?),
            Op::Pairs { span, turns, .. } => {
                Outcome::Entries(collect(|visit| each_open_pair(&pairs, span, turns, visit))?)
            }
            Op::Values { key, turns, .. } => {
                let values = values_of(pairs.get(&key.bytes())?, turns)?;
                Outcome::Entries(under(key, values))
            }
            _ => Outcome::Done,
        })
    }

    /// What changes a table, and what looks at it within the transaction.
    fn change(&mut self, op: &Op) -> Result<Outcome, Failure> {
        if let Op::Pairs { .. } | Op::Values { .. } = op {
            return self.change_pairs(op);
        }
        let Some(number) = op.table() else {
            return Ok(Outcome::Done);
        };
        let mut table = MapMut::open(self.txn()?, number)?;
        Ok(match *op {
            Op::Put { key, value, .. } => Outcome::Is(table.put(&key.bytes(), &value.bytes())?),
            Op::Insert { key, value, .. } => {
                Outcome::Is(table.insert(&key.bytes(), &value.bytes())?)
            }
            Op::Delete { key, .. } => Outcome::Is(table.delete(&key.bytes())?),
            Op::DeleteRange { span, .. } => Outcome::Count(table.delete_range(span)?),
            Op::Get { key, .. } => Outcome::Value(table.get(&key.bytes())?),
            _ => match table {
                MapMut::Plain(mut table) => change_plain(&mut table, op)?,
                // Such programs are not possible.
                MapMut::Packed(_) => Outcome::Done,
            },
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
        match *op {
            Op::Tables(_) => {
                let tables = snapshot.tables()?.into_iter();
                let filled = tables.filter(|table| table.entries > 0);
                let named = filled.map(|table| (table.name.to_string(), table.entries));
                Ok(Outcome::Tables(named.collect()))
            }
            Op::Pairs { span, turns, .. } => Ok(Outcome::Entries(match open_pairs(snapshot)? {
                Some(pairs) => collect(|visit| each_pair(&pairs, span, turns, visit))?,
                None => Vec::new(),
            })),
            Op::Values { key, turns, .. } => Ok(Outcome::Entries(match open_pairs(snapshot)? {
                Some(pairs) => under(key, values_of(pairs.get(&key.bytes())?, turns)?),
                None => Vec::new(),
            })),
            _ => look_into(snapshot, op),
        }
    }
}

/// The values of a key as pairs.
fn under(key: Key, values: Vec<Vec<u8>>) -> Vec<Pair> {
    let pairs = values.into_iter().map(|value| (key.bytes(), value));
    pairs.collect()
}

fn change_plain(table: &mut TableMut<'_, '_>, op: &Op) -> Result<Outcome, Failure> {
    Ok(match *op {
        Op::Swap {
            key, right, new, ..
        } => {
            let (key, new) = (key.bytes(), new.map(super::args::Value::bytes));
            let old = table.get(&key)?.map(<[u8]>::to_vec);
            let expected = if right {
                old.as_deref()
            } else {
                Some(&b"never stored"[..])
            };
            Outcome::Is(table.compare_and_swap(&key, expected, new.as_deref())?)
        }
        Op::Reserve { key, value, .. } => {
            let value = value.bytes();
            let room = table.reserve(&key.bytes(), value.len())?;
            room.copy_from_slice(&value);
            Outcome::Done
        }
        Op::Load {
            first,
            count,
            sorted,
            ..
        } => Outcome::Count(load(table, many_keys(first, count), sorted)?),
        Op::Walk {
            key, steps, value, ..
        } => Outcome::Steps(walk(table, key, steps, &value.bytes())?),
        Op::Range { span, turns, .. } => {
            Outcome::Entries(collect(|visit| each_open(table, span, turns, visit))?)
        }
        Op::Prefix {
            key, keep, turns, ..
        } => {
            let key = key.bytes();
            let prefix = key.get(..usize::from(keep)).unwrap_or(&key);
            let each =
                |visit: super::reach::Visit<'_>| each_open_of_prefix(table, prefix, turns, visit);
            Outcome::Entries(collect(each)?)
        }
        _ => Outcome::Ends {
            first: table.first()?.map(of_own),
            last: table.last()?.map(of_own),
            len: table.len(),
        },
    })
}

fn of_own((key, value): (Vec<u8>, &[u8])) -> Pair {
    (key, value.to_vec())
}

/// Puts keys under themselves, by an appender or a load; how many were taken.
fn load(table: &mut TableMut<'_, '_>, keys: Vec<Vec<u8>>, sorted: bool) -> Result<u64, Failure> {
    if !sorted {
        return Ok(table.bulk_load(keys.iter().map(|key| (key, key)))?);
    }
    let mut keys = keys;
    keys.sort();
    keys.dedup();
    let mut appender = table.appender()?;
    for key in keys {
        match appender.append(&key, &key) {
            Ok(()) | Err(LoadError::Order { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(appender.finish()?)
}

/// What a cursor is on after each of its steps.
fn walk(
    table: &mut TableMut<'_, '_>,
    from: Key,
    bits: u32,
    value: &[u8],
) -> Result<Vec<Option<Pair>>, Failure> {
    let pair = |(key, value): (&[u8], &[u8])| (key.to_vec(), value.to_vec());
    let mut cursor = table.cursor();
    let mut met = vec![cursor.seek(&from.bytes())?.map(pair)];
    for step in steps(from, bits) {
        match step {
            Step::Next => drop(cursor.next()?),
            Step::Prev => drop(cursor.prev()?),
            Step::First => drop(cursor.first()?),
            Step::Last => drop(cursor.last()?),
            Step::Put => drop(cursor.put(value)?),
            Step::Delete => drop(cursor.delete()?),
            Step::Insert(key) => drop(cursor.insert(&key.bytes(), value)?),
            Step::Aside => {
                let position = cursor.position();
                table.delete(&from.bytes())?;
                cursor = table.cursor_at(position);
            }
        }
        met.push(cursor.current()?.map(pair));
    }
    Ok(met)
}

/// Waits for a future on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let (mut future, mut context) = (core::pin::pin!(future), Context::from_waker(&waker));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Looks at a table of a snapshot; one that is not there is empty.
fn look_into(snapshot: &ReadTxn<'_>, op: &Op) -> Result<Outcome, Failure> {
    let map = match op.table() {
        Some(number) => Map::open(snapshot, number)?,
        None => None,
    };
    Ok(match (op, map) {
        (Op::Get { key, .. }, Some(map)) => Outcome::Value(map.get(&key.bytes())?),
        (Op::Range { span, turns, .. }, Some(map)) => {
            Outcome::Entries(collect(|visit| map.each(*span, *turns, visit))?)
        }
        (_, Some(Map::Plain(table))) => look_into_plain(&table, op)?,
        (Op::Get { .. }, _) => Outcome::Value(None),
        (Op::GetMany { count, .. }, _) => Outcome::Values(vec![None; usize::from(*count)]),
        (Op::Ends { .. }, _) => Outcome::Ends {
            first: None,
            last: None,
            len: 0,
        },
        _ => Outcome::Entries(Vec::new()),
    })
}

fn look_into_plain(table: &Table<'_>, op: &Op) -> Result<Outcome, Failure> {
    Ok(match *op {
        Op::GetMany { first, count, .. } => {
            let keys = many_keys(first, count);
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let values = table.get_many(&keys)?.into_iter();
            Outcome::Values(values.map(|value| value.map(<[u8]>::to_vec)).collect())
        }
        Op::Prefix {
            key, keep, turns, ..
        } => {
            let key = key.bytes();
            let prefix = key.get(..usize::from(keep)).unwrap_or(&key);
            Outcome::Entries(collect(|visit| {
                each_of_prefix(table, prefix, turns, visit)
            })?)
        }
        _ => Outcome::Ends {
            first: table.first()?.map(of_own),
            last: table.last()?.map(of_own),
            len: table.len(),
        },
    })
}
