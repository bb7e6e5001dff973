//! What a test does to a store, and what comes of it.
//!
//! Keys, values and bounds are small numbers that stand for bytes: few different keys, so
//! that operations meet, and of all kinds. What is picked ("the third snapshot") is resolved
//! against what there is, so every sequence of operations is a legal program.

use brickyard_store::{
    BeginError, CommitError, Durability, ReadError, TableError, TableOptions, WriteError,
};

/// Tables that programs use.
pub const TABLES: u8 = 4;

/// The name of a table.
#[must_use]
pub fn table_name(table: u8) -> String {
    format!("table {}", table % TABLES)
}

/// The options of a table: none, but for the last one's.
pub fn table_options(table: u8) -> TableOptions {
    if table % TABLES + 1 < TABLES {
        return TableOptions::new();
    }
    TableOptions::new()
        .alignment(64)
        .key_type("oracle key")
        .value_type("oracle value 1")
}

/// A key, by number; small numbers are plain ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub u16);

impl Key {
    /// One of the keys.
    pub fn choose(choose: &mut dyn FnMut(usize) -> usize) -> Self {
        Self(small(choose(480)))
    }

    /// The key itself: numbers, addresses with a long common prefix, prefixes of one another,
    /// and some as long as keys may be.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        let number = usize::from(self.0 / 8) % 60;
        match self.0 % 8 {
            0..4 => format!("{number:04}").into_bytes(),
            4..6 => format!("https://example.org/item/{number}").into_bytes(),
            6 => vec![[0, 1, 0x80, 255][number % 4]; number % 7],
            _ if number.is_multiple_of(3) => {
                vec![[0, 1, 255][number / 3 % 3]; 1900 + number * 148 / 59]
            }
            _ => format!("https://example.org/{number}/").into_bytes(),
        }
    }
}

/// A value, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(pub u16);

impl Value {
    /// One of the values.
    pub fn choose(choose: &mut dyn FnMut(usize) -> usize) -> Self {
        Self(small(choose(1 << 16)))
    }

    /// The value itself: mostly short, some about as long as fits into a leaf, some longer.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        let number = usize::from(self.0 / 20);
        let len = match self.0 % 20 {
            0..18 => number % 200,
            18 => 1400 + number % 300,
            _ => number * 3 % 9000,
        };
        let mark = self.0.to_le_bytes();
        let fill = mark.iter().copied().cycle();
        fill.take(len).collect()
    }
}

/// One end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// No bound.
    Open,
    /// The key, too.
    At(Key),
    /// Not the key itself.
    Past(Key),
}

impl Edge {
    fn choose(choose: &mut dyn FnMut(usize) -> usize) -> Self {
        match choose(4) {
            0 => Self::Open,
            1 => Self::Past(Key::choose(choose)),
            _ => Self::At(Key::choose(choose)),
        }
    }

    /// As a bound with bytes of its own.
    #[must_use]
    pub fn bound(self) -> core::ops::Bound<Vec<u8>> {
        match self {
            Self::Open => core::ops::Bound::Unbounded,
            Self::At(key) => core::ops::Bound::Included(key.bytes()),
            Self::Past(key) => core::ops::Bound::Excluded(key.bytes()),
        }
    }
}

/// What lies between two edges, perhaps the wrong way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The lower one.
    pub from: Edge,
    /// The upper one.
    pub to: Edge,
}

impl Span {
    fn choose(choose: &mut dyn FnMut(usize) -> usize) -> Self {
        Self {
            from: Edge::choose(choose),
            to: Edge::choose(choose),
        }
    }

    /// Mostly a narrow one, so that tables do not stay empty.
    fn choose_narrow(choose: &mut dyn FnMut(usize) -> usize) -> Self {
        if choose(6) == 0 {
            return Self::choose(choose);
        }
        let first = Key::choose(choose);
        let last = Key(first.0 + 8 * small(choose(6)));
        Self {
            from: Edge::At(first),
            to: Edge::At(last),
        }
    }

    /// Whether a key lies in it.
    #[must_use]
    pub fn holds(&self, key: &[u8]) -> bool {
        let after = match self.from {
            Edge::Open => true,
            Edge::At(from) => key >= from.bytes().as_slice(),
            Edge::Past(from) => key > from.bytes().as_slice(),
        };
        let before = match self.to {
            Edge::Open => true,
            Edge::At(to) => key <= to.bytes().as_slice(),
            Edge::Past(to) => key < to.bytes().as_slice(),
        };
        after && before
    }
}

/// From which end a range is read at each step: bit by bit, over and over; 0 from the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns(pub u8);

impl Turns {
    fn choose(choose: &mut dyn FnMut(usize) -> usize) -> Self {
        Self([0, 255, tiny(choose(256))][choose(3)])
    }

    /// Whether step number `step` is at the back.
    #[must_use]
    pub fn is_back(self, step: usize) -> bool {
        self.0 & (1 << (step % 8)) != 0
    }
}

/// Through whose eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The write transaction's; one begins if there is none.
    Txn,
    /// A new snapshot's.
    Fresh,
    /// A kept snapshot's, if there is one, else a new one's.
    Kept(u8),
}

impl View {
    fn choose(choose: &mut dyn FnMut(usize) -> usize) -> Self {
        match choose(3) {
            0 => Self::Txn,
            1 => Self::Fresh,
            _ => Self::Kept(tiny(choose(8))),
        }
    }
}

/// One step of a program. What changes something begins a transaction if there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// `put`.
    Put {
        /// The table.
        table: u8,
        /// The key.
        key: Key,
        /// The value.
        value: Value,
    },
    /// `insert_if_absent`.
    Insert {
        /// The table.
        table: u8,
        /// The key.
        key: Key,
        /// The value.
        value: Value,
    },
    /// `compare_and_swap`, with the right expectation or a wrong one.
    Swap {
        /// The table.
        table: u8,
        /// The key.
        key: Key,
        /// Whether the expectation is right.
        right: bool,
        /// The new value, or none.
        new: Option<Value>,
    },
    /// `delete`.
    Delete {
        /// The table.
        table: u8,
        /// The key.
        key: Key,
    },
    /// `delete_range`.
    DeleteRange {
        /// The table.
        table: u8,
        /// Which keys.
        span: Span,
    },
    /// `get`.
    Get {
        /// Who looks.
        view: View,
        /// The table.
        table: u8,
        /// The key.
        key: Key,
    },
    /// `get_many`, of every fourth key from one on.
    GetMany {
        /// Who looks.
        view: View,
        /// The table.
        table: u8,
        /// The first key.
        first: Key,
        /// How many keys.
        count: u8,
    },
    /// `range`, read to its end.
    Range {
        /// Who looks.
        view: View,
        /// The table.
        table: u8,
        /// Which keys.
        span: Span,
        /// From which end.
        turns: Turns,
    },
    /// `prefix`, of the first bytes of a key.
    Prefix {
        /// Who looks.
        view: View,
        /// The table.
        table: u8,
        /// The key.
        key: Key,
        /// Length of the prefix.
        keep: u8,
        /// From which end.
        turns: Turns,
    },
    /// `first`, `last` and `len`.
    Ends {
        /// Who looks.
        view: View,
        /// The table.
        table: u8,
    },
    /// `delete_table`.
    DropTable(u8),
    /// `savepoint`.
    Savepoint,
    /// `roll_back`, to a savepoint if there is one.
    RollBack(u8),
    /// `release`, of a savepoint if there is one.
    Release(u8),
    /// `tables`: those with entries.
    Tables(View),
    /// Takes a snapshot and keeps it.
    Keep,
    /// Drops a kept snapshot.
    Forget(u8),
    /// Ends the transaction.
    Commit(Durability),
    /// Undoes the transaction.
    Abort,
    /// `checkpoint`.
    Checkpoint,
    /// `check`, and a comparison of everything.
    Check,
    /// Ends the store's life, and opens it again.
    Reopen(End),
}

/// How a store's life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `close`.
    Close,
    /// The handle is dropped.
    Drop,
    /// The process dies: what it wrote to the files is all that is left.
    Die,
}

impl End {
    fn choose(choose: &mut dyn FnMut(usize) -> usize) -> Self {
        [Self::Close, Self::Drop, Self::Die][choose(3)]
    }
}

impl Op {
    /// The next operation, by choices below the numbers that are asked for. Zeros give puts.
    pub fn choose(choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let kind = choose(72);
        let table = tiny(choose(usize::from(TABLES)));
        match kind {
            // Mostly puts: 0 to 15, and what is left.
            16..18 => Self::Insert {
                table,
                key: Key::choose(choose),
                value: Value::choose(choose),
            },
            18..20 => Self::Swap {
                table,
                key: Key::choose(choose),
                right: choose(4) > 0,
                new: (choose(3) > 0).then(|| Value::choose(choose)),
            },
            20..28 => Self::Delete {
                table,
                key: Key::choose(choose),
            },
            28 => Self::DeleteRange {
                table,
                span: Span::choose_narrow(choose),
            },
            29..41 => Self::choose_look(kind, table, choose),
            41..43 => Self::Keep,
            43 => Self::Forget(tiny(choose(8))),
            44..52 => Self::Commit(Durability::Durable),
            52..57 => Self::Commit(Durability::Visible),
            57..59 => Self::Abort,
            59..61 => Self::Checkpoint,
            61 => Self::Check,
            62 if choose(6) == 0 => Self::DropTable(table),
            63..66 => Self::Savepoint,
            66..68 => Self::RollBack(tiny(choose(8))),
            68 => Self::Release(tiny(choose(8))),
            69 => Self::Tables(View::choose(choose)),
            70 => Self::Reopen(End::choose(choose)),
            _ => Self::Put {
                table,
                key: Key::choose(choose),
                value: Value::choose(choose),
            },
        }
    }

    fn choose_look(kind: usize, table: u8, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let view = View::choose(choose);
        match kind {
            29..33 => Self::Get {
                view,
                table,
                key: Key::choose(choose),
            },
            33..35 => Self::GetMany {
                view,
                table,
                first: Key::choose(choose),
                count: tiny(choose(40)),
            },
            35..38 => Self::Range {
                view,
                table,
                span: Span::choose(choose),
                turns: Turns::choose(choose),
            },
            38..40 => Self::Prefix {
                view,
                table,
                key: Key::choose(choose),
                keep: tiny(choose(26)),
                turns: Turns::choose(choose),
            },
            _ => Self::Ends { view, table },
        }
    }

    /// Whether the store does it only while no write transaction is open.
    #[must_use]
    pub fn needs_no_writer(&self) -> bool {
        matches!(self, Self::Checkpoint | Self::Check | Self::Reopen(_))
    }

    /// What the store promises about it.
    #[must_use]
    pub fn promise(&self) -> String {
        let what = match self {
            Self::Put { .. } => "what put says is new",
            Self::Insert { .. } => "what insert_if_absent says is new",
            Self::Swap { .. } => "what compare_and_swap says",
            Self::Delete { .. } => "what delete says was there",
            Self::DeleteRange { .. } => "how many delete_range took",
            Self::Get { .. } => "the value of a key",
            Self::GetMany { .. } => "the values of many keys",
            Self::Range { .. } => "the entries of a range",
            Self::Prefix { .. } => "the entries of a prefix",
            Self::Tables(_) => "the list of tables",
            Self::Ends { .. } => "first, last and number",
            Self::Check => "what check finds, and everything",
            _ => "it is done",
        };
        match self.view() {
            Some(View::Kept(_)) => format!("{what}, in a kept snapshot"),
            _ => what.to_owned(),
        }
    }

    /// Through whose eyes it looks.
    #[must_use]
    pub fn view(&self) -> Option<View> {
        match self {
            Self::Get { view, .. }
            | Self::GetMany { view, .. }
            | Self::Range { view, .. }
            | Self::Prefix { view, .. }
            | Self::Ends { view, .. }
            | Self::Tables(view) => Some(*view),
            _ => None,
        }
    }
}

/// The keys of [`Op::GetMany`]; of a run of keys some are there.
#[must_use]
pub fn many_keys(first: Key, count: u8) -> Vec<Vec<u8>> {
    let numbers = (0..u16::from(count)).map(|step| first.0.wrapping_add(step * 4));
    numbers.map(|number| Key(number).bytes()).collect()
}

/// A key and a value of their own.
pub type Pair = (Vec<u8>, Vec<u8>);

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// Yes or no.
    Is(bool),
    /// How many.
    Count(u64),
    /// A value.
    Value(Option<Vec<u8>>),
    /// Several.
    Values(Vec<Option<Vec<u8>>>),
    /// Names and numbers of entries.
    Tables(Vec<(String, u64)>),
    /// Entries, in the order they were read.
    Entries(Vec<Pair>),
    /// The ends of a table.
    Ends {
        /// The first entry.
        first: Option<Pair>,
        /// The last one.
        last: Option<Pair>,
        /// How many there are.
        len: u64,
    },
    /// What `check` found, and all entries.
    Checked(Vec<String>, super::model::State),
    /// The store could not.
    Failed(Failure),
}

/// A failure that the store reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it said.
    pub text: String,
    /// Whether a commit that failed may have happened.
    pub is_unknown: bool,
}

impl Failure {
    /// A failure after which nothing happened.
    #[must_use]
    pub fn nothing(error: &dyn core::fmt::Display) -> Self {
        Self {
            text: error.to_string(),
            is_unknown: false,
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::nothing(&error)
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Self::nothing(&error)
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        Self::nothing(&error)
    }
}

impl From<BeginError> for Failure {
    fn from(error: BeginError) -> Self {
        Self::nothing(&error)
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        let nothing = matches!(
            error,
            CommitError::Aborted { .. }
                | CommitError::Full { .. }
                | CommitError::Broken
                | CommitError::Read(_)
        );
        Self {
            text: error.to_string(),
            is_unknown: !nothing,
        }
    }
}

/// A choice as it is stored; those of keys and values are below 2¹⁶.
fn small(choice: usize) -> u16 {
    u16::try_from(choice).unwrap_or(u16::MAX)
}

/// The others are below 256.
fn tiny(choice: usize) -> u8 {
    u8::try_from(choice).unwrap_or(u8::MAX)
}
