//! A store as a list of maps: simpler than what it is compared with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use brickyard_store::{Durability, MAX_KEY_BYTES};

use super::args::{PAIRS, Turns, View, many_keys, table_name};
use super::op::{End, Op};
use super::outcome::{Failure, Outcome, Pair};
use super::walk::walk;

/// The entries of a table.
pub type Table = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The tables that have entries, by number.
    pub tables: BTreeMap<u8, Arc<Table>>,
    /// The multi-map.
    pub pairs: Arc<BTreeSet<Pair>>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Model {
    /// The state after each commit, from the first on.
    pub states: Vec<State>,
    /// Index of the last state that was acknowledged as durable.
    pub durable: usize,
    /// Index of the last state that was asked for, and not waited for yet.
    asked_for: Option<usize>,
    /// What the open transaction sees.
    open: Option<State>,
    /// What it saw at its savepoints.
    saved: Vec<State>,
    /// What kept snapshots see.
    kept: Vec<State>,
}

/// A place in the history, to which a failed commit goes back.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    states: usize,
    durable: usize,
}

impl Default for Model {
    fn default() -> Self {
        Self::from(State::default())
    }
}

impl From<State> for Model {
    fn from(state: State) -> Self {
        Self {
            states: vec![state],
            durable: 0,
            asked_for: None,
            open: None,
            saved: Vec::new(),
            kept: Vec::new(),
        }
    }
}

impl Model {
    /// The newest committed state.
    ///
    /// # Panics
    ///
    /// Never: the first state is always there.
    #[must_use]
    pub fn now(&self) -> &State {
        self.states.last().expect("the first is always there")
    }

    /// Whether a write transaction is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether a commit was asked for and not waited for yet.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.asked_for.is_some()
    }

    /// What kept snapshots see, in the order of their age.
    #[must_use]
    pub fn kept(&self) -> &[State] {
        &self.kept
    }

    /// Where the history stands.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            states: self.states.len(),
            durable: self.durable,
        }
    }

    /// The operation that was done since `mark` failed: nothing that it says lasts for
    /// certain, and its state is there only if that is not known.
    pub fn failed(&mut self, mark: Mark, failure: &Failure) {
        self.durable = mark.durable;
        if !failure.is_unknown {
            self.states.truncate(mark.states);
        }
        self.end_txn();
    }

    fn end_txn(&mut self) {
        self.open = None;
        self.saved.clear();
    }

    /// The store's life has ended, and what is open and kept with it. False if what is found
    /// then is none of the states that may have lasted; else it is the first of the next life.
    pub fn begin_life(&mut self, found: State) -> bool {
        let lasted = self.states[self.durable..].contains(&found);
        *self = Self::from(found);
        lasted
    }

    fn open(&mut self) -> &mut State {
        let now = self.states.last().expect("the first is always there");
        self.open.get_or_insert_with(|| now.clone())
    }

    fn table_mut(&mut self, table: u8) -> &mut Table {
        Arc::make_mut(self.open().tables.entry(table).or_default())
    }

    fn pairs_mut(&mut self) -> &mut BTreeSet<Pair> {
        Arc::make_mut(&mut self.open().pairs)
    }

    fn view(&mut self, view: View) -> &State {
        match view {
            View::Txn => self.open(),
            View::Kept(pick) if !self.kept.is_empty() => {
                &self.kept[usize::from(pick) % self.kept.len()]
            }
            View::Kept(_) | View::Fresh => self.now(),
        }
    }

    fn look(&mut self, view: View, table: u8) -> Arc<Table> {
        let found = self.view(view).tables.get(&table).map(Arc::clone);
        found.unwrap_or_default()
    }

    /// Does the operation; what the store must say of it.
    ///
    /// # Panics
    ///
    /// Never: what is changed is there.
    pub fn step(&mut self, op: &Op) -> Outcome {
        match *op {
            Op::Put { table, key, value } => {
                let old = self.table_mut(table).insert(key.bytes(), value.bytes());
                Outcome::Is(old.is_none())
            }
            Op::Insert { table, key, value } => {
                let table = self.table_mut(table);
                let new = !table.contains_key(&key.bytes());
                table.entry(key.bytes()).or_insert_with(|| value.bytes());
                Outcome::Is(new)
            }
            Op::Swap {
                table,
                key,
                right,
                new,
            } => {
                let table = self.table_mut(table);
                match new.filter(|_| right) {
                    Some(new) => drop(table.insert(key.bytes(), new.bytes())),
                    None if right => drop(table.remove(&key.bytes())),
                    None => {}
                }
                Outcome::Is(right)
            }
            Op::Delete { table, key } => {
                let old = self.table_mut(table).remove(&key.bytes());
                Outcome::Is(old.is_some())
            }
            Op::DeleteRange { table, span } => {
                let table = self.table_mut(table);
                let before = table.len();
                table.retain(|key, _| !span.holds(key));
                Outcome::Count((before - table.len()) as u64)
            }
            Op::Keep => {
                self.kept.push(self.now().clone());
                Outcome::Done
            }
            Op::Forget(pick) => {
                if !self.kept.is_empty() {
                    self.kept.remove(usize::from(pick) % self.kept.len());
                }
                Outcome::Done
            }
            Op::Commit(durability) => self.commit(durability),
            Op::Abort => {
                self.end_txn();
                Outcome::Done
            }
            Op::DropTable(PAIRS) => {
                self.pairs_mut().clear();
                Outcome::Done
            }
            Op::DropTable(table) => {
                self.open().tables.remove(&table);
                Outcome::Done
            }
            Op::Reserve { table, key, value } => {
                self.table_mut(table).insert(key.bytes(), value.bytes());
                Outcome::Done
            }
            Op::Load {
                table,
                first,
                count,
                sorted,
            } => Outcome::Count(load(self.table_mut(table), many_keys(first, count), sorted)),
            Op::Walk {
                table,
                key,
                steps,
                value,
            } => {
                let table = self.table_mut(table);
                Outcome::Steps(walk(table, key, steps, &value.bytes()))
            }
            Op::AddPair { .. } | Op::RemovePair { .. } | Op::RemoveKey(_) => self.step_pairs(op),
            Op::CommitAsync => {
                self.commit(Durability::Visible);
                self.asked_for = Some(self.states.len() - 1);
                Outcome::Done
            }
            Op::Await => {
                let asked_for = self.asked_for.take();
                self.durable = self.durable.max(asked_for.unwrap_or(0));
                Outcome::Done
            }
            Op::Backup { key, value, .. } => {
                let then = self.now().clone();
                self.durable = self.states.len() - 1;
                self.table_mut(0).insert(key.bytes(), value.bytes());
                self.commit(Durability::Visible);
                Outcome::Checked(Vec::new(), then)
            }
            Op::Savepoint | Op::RollBack(_) | Op::Release(_) => self.step_saved(op),
            Op::Reopen(End::Die) => Outcome::Done,
            Op::Checkpoint | Op::Reopen(_) => {
                self.durable = self.states.len() - 1;
                Outcome::Done
            }
            Op::Check => Outcome::Checked(Vec::new(), self.now().clone()),
            _ => self.step_look(op),
        }
    }

    fn step_pairs(&mut self, op: &Op) -> Outcome {
        let pairs = self.pairs_mut();
        match *op {
            Op::AddPair { key, value } => {
                let (key, value) = (key.bytes(), value.short());
                if is_too_long(&key, &value) {
                    return Outcome::TooLong;
                }
                Outcome::Is(pairs.insert((key, value)))
            }
            Op::RemovePair { key, value } => {
                Outcome::Is(pairs.remove(&(key.bytes(), value.short())))
            }
            Op::RemoveKey(key) => {
                let before = pairs.len();
                pairs.retain(|(other, _)| *other != key.bytes());
                Outcome::Count((before - pairs.len()) as u64)
            }
            _ => Outcome::Done,
        }
    }

    fn step_saved(&mut self, op: &Op) -> Outcome {
        let state = self.open().clone();
        match *op {
            Op::RollBack(pick) if !self.saved.is_empty() => {
                let index = usize::from(pick) % self.saved.len();
                self.saved.truncate(index + 1);
                self.open = self.saved.last().cloned();
            }
            Op::Release(pick) if !self.saved.is_empty() => {
                self.saved.truncate(usize::from(pick) % self.saved.len());
            }
            Op::Savepoint => self.saved.push(state),
            _ => {}
        }
        Outcome::Done
    }

    fn step_look(&mut self, op: &Op) -> Outcome {
        match *op {
            Op::Get { view, table, key } => {
                Outcome::Value(self.look(view, table).get(&key.bytes()).cloned())
            }
            Op::GetMany {
                view,
                table,
                first,
                count,
            } => {
                let table = self.look(view, table);
                let keys = many_keys(first, count);
                Outcome::Values(keys.iter().map(|key| table.get(key).cloned()).collect())
            }
            Op::Range {
                view,
                table,
                span,
                turns,
            } => {
                let table = self.look(view, table);
                let inside = table.iter().filter(|(key, _)| span.holds(key));
                Outcome::Entries(taken(inside.map(of_own), turns))
            }
            Op::Prefix {
                view,
                table,
                key,
                keep,
                turns,
            } => {
                let table = self.look(view, table);
                let (key, keep) = (key.bytes(), usize::from(keep));
                let prefix = key.get(..keep).unwrap_or(&key);
                let inside = table.iter().filter(|(key, _)| key.starts_with(prefix));
                Outcome::Entries(taken(inside.map(of_own), turns))
            }
            Op::Pairs { view, span, turns } => {
                let pairs = Arc::clone(&self.view(view).pairs);
                let inside = pairs.iter().filter(|(key, _)| span.holds(key));
                Outcome::Entries(taken(inside.cloned(), turns))
            }
            Op::Values { view, key, turns } => {
                let pairs = Arc::clone(&self.view(view).pairs);
                let inside = pairs.iter().filter(|(other, _)| *other == key.bytes());
                Outcome::Entries(taken(inside.cloned(), turns))
            }
            Op::Ends { view, table } => {
                let table = self.look(view, table);
                Outcome::Ends {
                    first: table.first_key_value().map(of_own),
                    last: table.last_key_value().map(of_own),
                    len: table.len() as u64,
                }
            }
            Op::Tables(view) => {
                let State { tables, pairs } = self.view(view);
                let tables = tables
                    .iter()
                    .map(|(&table, entries)| (table, entries.len()));
                let filled = tables
                    .chain([(PAIRS, pairs.len())])
                    .filter(|&(_, len)| len > 0);
                let named = filled.map(|(table, len)| (table_name(table), len as u64));
                Outcome::Tables(named.collect())
            }
            _ => Outcome::Done,
        }
    }

    fn commit(&mut self, durability: Durability) -> Outcome {
        let mut state = self.open().clone();
        self.end_txn();
        state.tables.retain(|_, table| !table.is_empty());
        self.states.push(state);
        if durability == Durability::Durable {
            self.durable = self.states.len() - 1;
        }
        Outcome::Done
    }
}

/// Puts keys under themselves; how many were taken.
fn load(table: &mut Table, mut keys: Vec<Vec<u8>>, sorted: bool) -> u64 {
    keys.sort();
    keys.dedup();
    let mut taken = 0;
    for key in keys {
        if sorted && table.keys().next_back().is_some_and(|last| *last >= key) {
            continue;
        }
        taken += 1;
        table.insert(key.clone(), key);
    }
    taken
}

/// Whether a multi-map refuses a pair: a zero takes two bytes, and two lie between.
fn is_too_long(key: &[u8], value: &[u8]) -> bool {
    let zeros = key.iter().filter(|&&byte| byte == 0).count();
    key.len() + zeros + 2 + value.len() > MAX_KEY_BYTES
}

fn of_own((key, value): (&Vec<u8>, &Vec<u8>)) -> Pair {
    (key.clone(), value.clone())
}

/// The entries in the order in which `turns` takes them.
fn taken(entries: impl Iterator<Item = Pair>, turns: Turns) -> Vec<Pair> {
    let mut left: VecDeque<Pair> = entries.collect();
    let mut out = Vec::with_capacity(left.len());
    for step in 0.. {
        let next = if turns.is_back(step) {
            left.pop_back()
        } else {
            left.pop_front()
        };
        let Some(next) = next else {
            break;
        };
        out.push(next);
    }
    out
}
