//! A store as a list of maps: simpler than what it is compared with.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use brickyard_store::Durability;

use super::op::{Edge, End, Failure, Op, Outcome, Pair, Span, Turns, View, many_keys, table_name};

/// The entries of a table.
pub type Table = BTreeMap<Vec<u8>, Vec<u8>>;

/// The tables that have entries, by number.
pub type State = BTreeMap<u8, Arc<Table>>;

/// See the module.
#[derive(Clone, Debug)]
pub struct Model {
    /// The state after each commit, from the first on.
    pub states: Vec<State>,
    /// Index of the last state that was acknowledged as durable.
    pub durable: usize,
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
        Self::from(State::new())
    }
}

impl From<State> for Model {
    fn from(state: State) -> Self {
        Self {
            states: vec![state],
            durable: 0,
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
        Arc::make_mut(self.open().entry(table).or_default())
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
        let found = self.view(view).get(&table).map(Arc::clone);
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
            Op::DropTable(table) => {
                self.open().remove(&table);
                Outcome::Done
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
        let all = Span {
            from: Edge::Open,
            to: Edge::Open,
        };
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
                let table = self.look(view.outside(), table);
                let keys = many_keys(first, count);
                Outcome::Values(keys.iter().map(|key| table.get(key).cloned()).collect())
            }
            Op::Range {
                view,
                table,
                span,
                turns,
            } => {
                let table = self.look(view.outside(), table);
                Outcome::Entries(entries(&table, turns, |key| span.holds(key)))
            }
            Op::Prefix {
                view,
                table,
                key,
                keep,
                turns,
            } => {
                let table = self.look(view.outside(), table);
                let (key, keep) = (key.bytes(), usize::from(keep));
                let prefix = key.get(..keep).unwrap_or(&key);
                Outcome::Entries(entries(&table, turns, |key| key.starts_with(prefix)))
            }
            Op::Ends { view, table } => {
                let table = self.look(view.outside(), table);
                let mut found = entries(&table, Turns(0), |key| all.holds(key));
                let len = found.len() as u64;
                let first = found.first().cloned();
                Outcome::Ends {
                    first,
                    last: found.pop(),
                    len,
                }
            }
            Op::Tables(view) => {
                let state = self.view(view.outside()).iter();
                let filled = state.filter(|(_, table)| !table.is_empty());
                let named =
                    filled.map(|(&table, entries)| (table_name(table), entries.len() as u64));
                Outcome::Tables(named.collect())
            }
            _ => Outcome::Done,
        }
    }

    fn commit(&mut self, durability: Durability) -> Outcome {
        let mut state = self.open().clone();
        self.end_txn();
        state.retain(|_, table| !table.is_empty());
        self.states.push(state);
        if durability == Durability::Durable {
            self.durable = self.states.len() - 1;
        }
        Outcome::Done
    }
}

impl View {
    /// Ranges and batches are read through snapshots only.
    #[must_use]
    pub fn outside(self) -> Self {
        match self {
            Self::Txn => Self::Fresh,
            other => other,
        }
    }
}

/// The entries that `holds` lets through, in the order in which `turns` takes them.
fn entries(table: &Table, turns: Turns, holds: impl Fn(&[u8]) -> bool) -> Vec<Pair> {
    let inside = table.iter().filter(|(key, _)| holds(key));
    let mut left: VecDeque<Pair> = inside
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
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
