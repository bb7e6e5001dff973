//! What a cursor does, in the words of the model.

use super::args::Key;
use super::model::Table;
use super::outcome::Pair;

/// One step of a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `next`.
    Next,
    /// `prev`.
    Prev,
    /// `put`.
    Put,
    /// `delete`.
    Delete,
    /// `insert`, of a key that belongs to the step.
    Insert(Key),
    /// `first`.
    First,
    /// `last`.
    Last,
    /// The table takes the key out at which the walk began, and the cursor goes on at its
    /// `position`.
    Aside,
}

/// The steps that a number stands for.
pub fn steps(from: Key, bits: u32) -> impl Iterator<Item = Step> {
    (0..8_u16).map(move |step| match bits >> (3 * step) & 7 {
        0 => Step::Next,
        1 => Step::Prev,
        2 => Step::Put,
        3 => Step::Delete,
        4 => Step::Insert(Key(from.0.wrapping_add(step * 8))),
        5 => Step::First,
        6 => Step::Last,
        _ => Step::Aside,
    })
}

/// Where a cursor is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Spot {
    Start,
    End,
    On(Vec<u8>),
    /// Where the entry of a key was.
    Gap(Vec<u8>),
}

/// What the cursor is on after each step.
pub fn walk(table: &mut Table, from: Key, bits: u32, value: &[u8]) -> Vec<Option<Pair>> {
    let start = from.bytes();
    let mut spot = at_or_after(table, &start);
    let mut met = vec![entry(table, &spot)];
    for step in steps(from, bits) {
        spot = match (step, spot) {
            (Step::Next, Spot::Start) => at_or_after(table, &[]),
            (Step::Next, Spot::Gap(key)) => at_or_after(table, &key),
            (Step::Next, Spot::On(mut key)) => {
                // The key that follows it at once.
                key.push(0);
                at_or_after(table, &key)
            }
            (Step::First, _) => at_or_after(table, &[]),
            (Step::Last, _) | (Step::Prev, Spot::End) => {
                let last = table.keys().next_back();
                last.map_or(Spot::Start, |key| Spot::On(key.clone()))
            }
            (Step::Prev, Spot::On(key) | Spot::Gap(key)) => {
                let before = table.range(..key).next_back();
                before.map_or(Spot::Start, |(key, _)| Spot::On(key.clone()))
            }
            (Step::Put, Spot::On(key)) => {
                table.insert(key.clone(), value.to_vec());
                Spot::On(key)
            }
            (Step::Delete, Spot::On(key)) => {
                table.remove(&key);
                Spot::Gap(key)
            }
            (Step::Insert(key), _) => {
                table.insert(key.bytes(), value.to_vec());
                Spot::On(key.bytes())
            }
            (Step::Aside, spot) => {
                table.remove(&start);
                match spot {
                    Spot::On(key) if key == start => Spot::Gap(key),
                    spot => spot,
                }
            }
            (_, spot) => spot,
        };
        met.push(entry(table, &spot));
    }
    met
}

fn at_or_after(table: &Table, key: &[u8]) -> Spot {
    let found = table.range(key.to_vec()..).next();
    found.map_or(Spot::End, |(key, _)| Spot::On(key.clone()))
}

fn entry(table: &Table, spot: &Spot) -> Option<Pair> {
    let Spot::On(key) = spot else {
        return None;
    };
    Some((key.clone(), table.get(key)?.clone()))
}
