//! Everything that a store shows, read in every way that there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use brickyard_store::{ReadTxn, Store};

use super::args::{Edge, Span, TABLES, Turns};
use super::model::State;
use super::outcome::{Failure, Pair};
use super::reach::{Map, collect, each_pair, open_pairs, values_of};

const ALL: Span = Span {
    from: Edge::Open,
    to: Edge::Open,
};
const FORWARDS: Turns = Turns(0);
const BACKWARDS: Turns = Turns(255);

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
    let mut state = State::default();
    for number in 0..TABLES {
        let Some(table) = Map::open(read, number)? else {
            continue;
        };
        let entries = collect(|visit| table.each(ALL, FORWARDS, visit))?;
        let model: BTreeMap<_, _> = entries.iter().cloned().collect();
        assert_eq!(
            (model.len(), model.len() as u64),
            (entries.len(), table.entries()),
            "as many entries as recorded, each once"
        );
        let back = collect(|visit| table.each(ALL, BACKWARDS, visit))?;
        assert!(
            model
                .iter()
                .eq(entries.iter().map(|(key, value)| (key, value)))
                && back.iter().rev().eq(&entries),
            "in order, and backwards the same"
        );
        look_up(&table, &entries)?;
        if !model.is_empty() {
            state.tables.insert(number, Arc::new(model));
        }
    }
    state.pairs = Arc::new(dump_pairs(read)?);
    Ok(state)
}

/// Looks each key up, alone and with the others.
fn look_up(table: &Map<'_>, entries: &[Pair]) -> Result<(), Failure> {
    for (key, value) in entries {
        assert_eq!(table.get(key)?.as_ref(), Some(value), "looked up");
    }
    if let Map::Plain(table) = table {
        let keys: Vec<&[u8]> = entries.iter().map(|(key, _)| key.as_slice()).collect();
        for ((_, value), found) in entries.iter().zip(table.get_many(&keys)?) {
            assert_eq!(found, Some(value.as_slice()), "looked up with others");
        }
    }
    Ok(())
}

fn dump_pairs(read: &ReadTxn<'_>) -> Result<BTreeSet<Pair>, Failure> {
    let Some(map) = open_pairs(read)? else {
        return Ok(BTreeSet::new());
    };
    let forwards = collect(|visit| each_pair(&map, ALL, FORWARDS, visit))?;
    let pairs: BTreeSet<Pair> = forwards.iter().cloned().collect();
    assert_eq!(
        (pairs.len(), pairs.len() as u64),
        (forwards.len(), map.len()),
        "as many pairs as recorded, each once"
    );
    let back = collect(|visit| each_pair(&map, ALL, BACKWARDS, visit))?;
    assert!(
        pairs.iter().eq(&forwards) && back.iter().rev().eq(&forwards),
        "in order, and backwards the same"
    );
    for of_one in forwards.chunk_by(|(one, _), (other, _)| one == other) {
        let key = of_one[0].0.as_slice();
        let values = of_one.iter().map(|(_, value)| value);
        assert!(
            values.eq(&values_of(map.get(key)?, FORWARDS)?),
            "the values of a key are those of its pairs"
        );
        assert_eq!(map.count(key)?, of_one.len() as u64, "and so many");
        assert!(map.contains(key, &of_one[0].1)?, "and contained");
    }
    Ok(pairs)
}
