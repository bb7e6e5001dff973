//! Which table, key, value and snapshot: small numbers that stand for bytes, few of them, so
//! that operations meet, and of all kinds.

use brickyard_store::TableOptions;

use super::random::Random;

/// Tables with one value per key: plain ones, aligned ones, and at the end a compressed one.
pub const TABLES: u8 = 6;
/// The number of the multi-map.
pub const PAIRS: u8 = TABLES;
/// The number of the compressed table.
pub const PACKED: u8 = TABLES - 1;
/// Its values are compressed above so many bytes.
pub const PACKED_ABOVE: u32 = 100;

/// The name of a table, by number.
#[must_use]
pub fn table_name(table: u8) -> String {
    format!("table {table}")
}

/// The options of a table that is not compressed: none, or an alignment.
pub fn table_options(table: u8) -> TableOptions {
    match table {
        3 => TableOptions::new()
            .alignment(64)
            .key_type("oracle key")
            .value_type("oracle value 1"),
        4 => TableOptions::new().alignment(4096),
        _ => TableOptions::new(),
    }
}

/// One of the tables, mostly a plain one: small trees teach less.
pub fn choose_table(choose: &mut dyn FnMut(usize) -> usize) -> u8 {
    [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, PACKED][choose(12)]
}

/// A key, by number; small numbers are plain ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub u16);

impl Key {
    /// One of the keys.
    pub fn choose(choose: &mut dyn FnMut(usize) -> usize) -> Self {
        Self(small(choose(480)))
    }

    /// One of a few, of all kinds, so that several values meet under one.
    pub fn choose_few(choose: &mut dyn FnMut(usize) -> usize) -> Self {
        Self(21 * small(choose(23)))
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

    /// One of a few, so that some of them are there.
    pub fn choose_few(choose: &mut dyn FnMut(usize) -> usize) -> Self {
        Self(771 * small(choose(12)))
    }

    /// The value itself: mostly short, some about as long as fits into a leaf, some longer,
    /// half of those such that no compression makes them shorter.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        let number = usize::from(self.0 / 20);
        let len = match self.0 % 20 {
            0..18 => number % 200,
            18 => 1400 + number % 300,
            _ => number * 3 % 9000,
        };
        if self.0 % 40 == 39 {
            let mut random = Random::new(u64::from(self.0));
            return (0..len).map(|_| random.byte()).collect();
        }
        let mark = self.0.to_le_bytes();
        let fill = mark.iter().copied().cycle();
        fill.take(len).collect()
    }

    /// A value of a multi-map, which is a part of a key: a short one.
    #[must_use]
    pub fn short(self) -> Vec<u8> {
        let mut bytes = self.bytes();
        bytes.truncate(usize::from(self.0 % 64));
        bytes
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
    pub(super) fn choose(choose: &mut dyn FnMut(usize) -> usize) -> Self {
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
    pub(super) fn choose(choose: &mut dyn FnMut(usize) -> usize) -> Self {
        Self {
            from: Edge::choose(choose),
            to: Edge::choose(choose),
        }
    }

    /// Mostly a narrow one, so that tables do not stay empty.
    pub(super) fn choose_narrow(choose: &mut dyn FnMut(usize) -> usize) -> Self {
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
    pub(super) fn choose(choose: &mut dyn FnMut(usize) -> usize) -> Self {
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
    pub(super) fn choose(choose: &mut dyn FnMut(usize) -> usize) -> Self {
        match choose(3) {
            0 => Self::Txn,
            1 => Self::Fresh,
            _ => Self::Kept(tiny(choose(8))),
        }
    }
}

impl View {
    /// A new snapshot's in the place of the transaction's.
    #[must_use]
    pub fn outside(self) -> Self {
        match self {
            Self::Txn => Self::Fresh,
            other => other,
        }
    }
}

/// The keys of [`Op::GetMany`](super::op::Op::GetMany) and of loads; of a run of keys some are
/// there.
#[must_use]
pub fn many_keys(first: Key, count: u8) -> Vec<Vec<u8>> {
    let numbers = (0..u16::from(count)).map(|step| first.0.wrapping_add(step * 4));
    numbers.map(|number| Key(number).bytes()).collect()
}

/// A choice as it is stored; those of keys and values are below 2¹⁶.
pub(super) fn small(choice: usize) -> u16 {
    u16::try_from(choice).unwrap_or(u16::MAX)
}

/// The others are below 256.
pub(super) fn tiny(choice: usize) -> u8 {
    u8::try_from(choice).unwrap_or(u8::MAX)
}
