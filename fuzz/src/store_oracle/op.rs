//! What a test does to a store. What is picked ("the third snapshot") is resolved against
//! what there is, so every sequence of operations is a legal program.

use brickyard_store::Durability;

use super::args::{Key, PACKED, PAIRS, Span, Turns, Value, View, choose_table, tiny};

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
    /// `reserve`, filled with a value.
    Reserve {
        /// The table.
        table: u8,
        /// The key.
        key: Key,
        /// The value.
        value: Value,
    },
    /// `appender`, of every fourth key from one on, in order; or `bulk_load` of the same.
    Load {
        /// The table.
        table: u8,
        /// The first key.
        first: Key,
        /// How many keys.
        count: u8,
        /// Whether they are sorted, and keys that are not above the last are refused.
        sorted: bool,
    },
    /// A cursor in the transaction, and its steps from the first key that is not below one.
    Walk {
        /// The table.
        table: u8,
        /// Where it starts.
        key: Key,
        /// Three bits a step; see [`Step`](super::walk::Step).
        steps: u32,
        /// What is put.
        value: Value,
    },
    /// `insert` into the multi-map.
    AddPair {
        /// The key.
        key: Key,
        /// One of its values.
        value: Value,
    },
    /// `remove` from the multi-map.
    RemovePair {
        /// The key.
        key: Key,
        /// One of its values.
        value: Value,
    },
    /// `remove_all` from the multi-map.
    RemoveKey(Key),
    /// `range` of the multi-map.
    Pairs {
        /// Who looks.
        view: View,
        /// Which keys.
        span: Span,
        /// From which end.
        turns: Turns,
    },
    /// `get` of the multi-map.
    Values {
        /// Who looks.
        view: View,
        /// The key.
        key: Key,
        /// From which end.
        turns: Turns,
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
    /// `commit_async`, not waited for.
    CommitAsync,
    /// Waits for all of those; done before anybody looks from outside, who sees them from then
    /// on.
    Await,
    /// Undoes the transaction.
    Abort,
    /// `checkpoint`.
    Checkpoint,
    /// `compact`, of so many pages.
    Compact(u8),
    /// A backup, and a transaction that puts something into the first table meanwhile.
    Backup {
        /// By an increment to the last one, if there is one.
        since: bool,
        /// The key that is put.
        key: Key,
        /// Its value.
        value: Value,
    },
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
    /// The kinds of operation that change something, or that make it last.
    pub const WRITING: [&'static str; 21] = [
        "Put",
        "Insert",
        "Swap",
        "Delete",
        "DeleteRange",
        "Reserve",
        "Load",
        "Walk",
        "AddPair",
        "RemovePair",
        "RemoveKey",
        "DropTable",
        "Savepoint",
        "RollBack",
        "Release",
        "Commit",
        "CommitAsync",
        "Abort",
        "Checkpoint",
        "Compact",
        "Backup",
    ];

    /// The next operation, by choices below the numbers that are asked for. Zeros give puts.
    pub fn choose(choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let kind = choose(96);
        let table = choose_table(choose);
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
            41..65 => Self::choose_event(kind, table, choose),
            65..74 => Self::choose_many(kind, table, choose),
            74..83 => Self::choose_pair(kind, choose),
            _ => Self::Put {
                table,
                key: Key::choose(choose),
                value: Value::choose(choose),
            },
        }
    }

    fn choose_event(kind: usize, table: u8, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        match kind {
            41 => Self::Keep,
            42 => Self::Forget(tiny(choose(8))),
            43..50 => Self::Commit(Durability::Durable),
            50..54 => Self::Commit(Durability::Visible),
            54 => [Self::CommitAsync, Self::Await][choose(2)].clone(),
            55 => Self::Abort,
            56..58 => Self::Checkpoint,
            58 => match choose(4) {
                0 => Self::Check,
                1 => Self::Reopen(End::choose(choose)),
                2 => Self::Compact(tiny(choose(256))),
                _ => Self::Backup {
                    since: choose(2) == 1,
                    key: Key::choose(choose),
                    value: Value::choose(choose),
                },
            },
            59 if choose(6) == 0 => Self::DropTable([table, PAIRS][choose(2)]),
            59..62 => Self::Savepoint,
            62 => Self::RollBack(tiny(choose(8))),
            63 => Self::Release(tiny(choose(8))),
            _ => Self::Tables(View::choose(choose)),
        }
    }

    fn choose_many(kind: usize, table: u8, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let key = Key::choose(choose);
        match kind {
            65..68 => Self::Reserve {
                table,
                key,
                value: Value::choose(choose),
            },
            68..70 => Self::Load {
                table,
                first: key,
                count: tiny(choose(40)),
                sorted: choose(2) == 0,
            },
            _ => Self::Walk {
                table,
                key,
                steps: u32::try_from(choose(1 << 24)).unwrap_or(0),
                value: Value::choose(choose),
            },
        }
    }

    fn choose_pair(kind: usize, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let (key, value) = (Key::choose_few(choose), Value::choose_few(choose));
        match kind {
            78..80 => Self::RemovePair { key, value },
            80 => Self::RemoveKey(key),
            81 => Self::Pairs {
                view: View::choose(choose),
                span: Span::choose(choose),
                turns: Turns::choose(choose),
            },
            82 => Self::Values {
                view: View::choose(choose),
                key,
                turns: Turns::choose(choose),
            },
            _ => Self::AddPair { key, value },
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

    /// What kind of operation it is.
    #[must_use]
    pub fn kind(&self) -> String {
        let text = format!("{self:?}");
        text.split([' ', '(']).next().unwrap_or_default().to_owned()
    }

    /// Whether the store does it only while no write transaction is open.
    #[must_use]
    pub fn needs_no_writer(&self) -> bool {
        matches!(
            self,
            Self::Checkpoint
                | Self::Compact(_)
                | Self::Backup { .. }
                | Self::Check
                | Self::Reopen(_)
        )
    }

    /// Whether it may show which transactions are published.
    #[must_use]
    pub fn looks_from_outside(&self) -> bool {
        match self {
            Self::Reopen(_) => false,
            Self::Keep => true,
            _ => self.needs_no_writer() || self.view().is_some_and(|view| view != View::Txn),
        }
    }

    /// This, or what is done instead: compressed tables have fewer operations, and batches and
    /// the list of tables are read through snapshots only.
    #[must_use]
    pub fn possible(&self) -> Self {
        let mut op = self.clone();
        if let Self::Swap { table, .. }
        | Self::GetMany { table, .. }
        | Self::Prefix { table, .. }
        | Self::Ends { table, .. }
        | Self::Reserve { table, .. }
        | Self::Load { table, .. }
        | Self::Walk { table, .. } = &mut op
            && *table == PACKED
        {
            *table = 0;
        }
        if let Self::GetMany { view, .. }
        | Self::Tables(view)
        | Self::Range {
            view,
            table: PACKED,
            ..
        } = &mut op
        {
            *view = view.outside();
        }
        op
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
            Self::Load { .. } => "how many were loaded",
            Self::Walk { .. } => "what a cursor met",
            Self::AddPair { .. } => "whether a pair is new",
            Self::RemovePair { .. } => "whether a pair was there",
            Self::RemoveKey(_) => "how many pairs were taken",
            Self::Pairs { .. } => "the pairs of a range",
            Self::Values { .. } => "the values of one key",
            Self::Backup { .. } => "what a backup has, and its check finds",
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

    /// The table that it is about, if it is about one and not about pairs.
    #[must_use]
    pub fn table(&self) -> Option<u8> {
        match self {
            Self::Put { table, .. }
            | Self::Insert { table, .. }
            | Self::Swap { table, .. }
            | Self::Delete { table, .. }
            | Self::DeleteRange { table, .. }
            | Self::Get { table, .. }
            | Self::GetMany { table, .. }
            | Self::Range { table, .. }
            | Self::Prefix { table, .. }
            | Self::Ends { table, .. }
            | Self::Reserve { table, .. }
            | Self::Load { table, .. }
            | Self::Walk { table, .. } => Some(*table),
            _ => None,
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
            | Self::Pairs { view, .. }
            | Self::Values { view, .. }
            | Self::Tables(view) => Some(*view),
            _ => None,
        }
    }
}
