//! One kind of operation and one model for every test: a `BTreeMap` of tables, and the
//! list of all the states it had after a commit.

use std::collections::BTreeMap;

use crate::error::CommitError;
use crate::shared::Durability;
use crate::store::Store;

/// Table → key → value.
pub(crate) type State = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// What a test does to a store.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Put {
        table: u8,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Insert {
        table: u8,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        table: u8,
        key: Vec<u8>,
    },
    /// Ends the transaction.
    Commit(Durability),
    /// Undoes the transaction.
    Abort,
    Checkpoint,
}

/// Small numbers from a seed (xorshift64*, Vigna 2016).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    /// Few different keys, so that they meet; some long, many sharing a prefix.
    pub(crate) fn key(&mut self) -> Vec<u8> {
        let number = self.below(60);
        match self.below(12) {
            0 => vec![u8::try_from(number % 3).expect("small"); 1900 + number],
            1 => vec![0; number % 6],
            2..6 => format!("https://example.org/item/{number}").into_bytes(),
            _ => format!("{number:04}").into_bytes(),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let byte = u8::try_from(self.below(256)).expect("below 256");
        let len = match self.below(20) {
            0 => 1400 + self.below(300),
            1 => self.below(9000),
            _ => self.below(200),
        };
        vec![byte; len]
    }

    pub(crate) fn op(&mut self) -> Op {
        let table = u8::try_from(self.below(3)).expect("below 3");
        match self.below(40) {
            0..18 => Op::Put {
                table,
                key: self.key(),
                value: self.value(),
            },
            18..20 => Op::Insert {
                table,
                key: self.key(),
                value: self.value(),
            },
            20..30 => Op::Delete {
                table,
                key: self.key(),
            },
            30..35 => Op::Commit(Durability::Durable),
            35..38 => Op::Commit(Durability::Visible),
            38 => Op::Abort,
            _ => Op::Checkpoint,
        }
    }
}

/// The model of a store: what it must hold now, and what it may hold after a crash.
#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    /// The state after each commit; the first is empty.
    pub(crate) states: Vec<State>,
    /// Index of the last state that was acknowledged as durable.
    pub(crate) durable: usize,
    working: State,
}

impl Oracle {
    pub(crate) fn new() -> Self {
        Self::from(State::new())
    }

    pub(crate) fn from(state: State) -> Self {
        Self {
            states: vec![state.clone()],
            durable: 0,
            working: state,
        }
    }

    pub(crate) fn now(&self) -> &State {
        self.states.last().expect("the first is always there")
    }

    fn settle(&mut self) {
        self.durable = self.states.len() - 1;
    }

    /// Does the operations up to the first failure of the store, of a commit or a
    /// checkpoint, whose error is returned. After it the newest state may or may not last.
    pub(crate) fn drive(&mut self, store: &Store, ops: &[Op]) -> Result<(), String> {
        let mut rest = ops;
        while !rest.is_empty() {
            let end = rest
                .iter()
                .position(|op| matches!(op, Op::Commit(_) | Op::Abort | Op::Checkpoint));
            let (front, back) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
            rest = back;
            let mut txn = store.write().map_err(|error| error.to_string())?;
            self.working = self.now().clone();
            for op in front {
                self.apply(&mut txn, op);
            }
            let result = match front.last() {
                Some(Op::Commit(durability)) => {
                    let result = txn.commit_with(*durability);
                    self.committed(*durability, &result);
                    result
                }
                Some(Op::Checkpoint) => {
                    drop(txn);
                    let result = store.checkpoint();
                    if result.is_ok() {
                        self.settle();
                    }
                    result
                }
                _ => Ok(()),
            };
            result.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn committed(&mut self, durability: Durability, result: &Result<(), CommitError>) {
        let nothing = matches!(
            result,
            Err(CommitError::Aborted { .. } | CommitError::Full { .. })
        );
        if nothing {
            return;
        }
        self.working.retain(|_, table| !table.is_empty());
        self.states.push(self.working.clone());
        if result.is_ok() && durability == Durability::Durable {
            self.settle();
        }
    }

    fn apply(&mut self, txn: &mut crate::txn::write::WriteTxn<'_>, op: &Op) {
        let (Op::Put { table, .. } | Op::Insert { table, .. } | Op::Delete { table, .. }) = op
        else {
            return;
        };
        let name = format!("table {table}");
        let model = self.working.entry(name.clone()).or_default();
        let mut table = txn.table(&name).expect("a sound store");
        match op.clone() {
            Op::Put { key, value, .. } => {
                let new = table.put(&key, &value).expect("a sound store");
                assert_eq!(
                    new,
                    model.insert(key, value).is_none(),
                    "put says what is new"
                );
            }
            Op::Insert { key, value, .. } => {
                let new = table.insert_if_absent(&key, &value).expect("a sound store");
                assert_eq!(new, !model.contains_key(&key), "insert says what is new");
                model.entry(key).or_insert(value);
            }
            Op::Delete { key, .. } => {
                let existed = table.delete(&key).expect("a sound store");
                assert_eq!(
                    existed,
                    model.remove(&key).is_some(),
                    "delete says what was there"
                );
            }
            _ => {}
        }
        assert_eq!(
            table.len(),
            model.len() as u64,
            "len within the transaction"
        );
    }
}

/// Everything that a store shows, read forwards, compared with reading backwards, with
/// single and with batched look-ups.
pub(crate) fn dump(store: &Store, tables: u8) -> Result<State, crate::error::ReadError> {
    let read = store.read();
    let mut state = State::new();
    for table in 0..tables {
        let name = format!("table {table}");
        let Some(table) = read.raw_table(&name)? else {
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
            state.insert(name, model);
        }
    }
    Ok(state)
}
