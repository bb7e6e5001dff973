//! Reading and writing a store of which nothing is known: its files were damaged or forged.

use brickyard_store::{ReadTxn, Store};

use super::args::{Edge, PAIRS, Span, TABLES, Turns, table_name};
use super::random::Random;
use super::reach::{Map, MapMut, each_of_prefix, each_pair, open_pairs};

const ALL: Span = Span {
    from: Edge::Open,
    to: Edge::Open,
};
/// Values that are held while somebody writes.
const MOST_HELD: usize = 2000;

/// Reads whatever can be read, both ways; the number of errors.
///
/// # Panics
///
/// Panics if a walk does not end.
pub fn read_all(store: &Store, random: &mut Random) -> usize {
    let (read, mut errors) = (store.read(), 0);
    for table in 0..TABLES {
        errors += match Map::open(&read, table) {
            Ok(Some(table)) => read_table(&table, random),
            Ok(None) => 0,
            Err(_) => 1,
        };
    }
    errors + read_pairs(&read, random)
}

fn read_table(table: &Map<'_>, random: &mut Random) -> usize {
    let mut errors = 0;
    for turns in [Turns(0), Turns(255)] {
        errors += usize::from(table.each(ALL, turns, &mut |_, _| {}).is_err());
    }
    for _ in 0..10 {
        let key = random.key();
        errors += usize::from(table.get(&key).is_err());
        if let Map::Plain(table) = table {
            errors += usize::from(table.get_many(&[&key, &[]]).is_err());
            errors += usize::from(each_of_prefix(table, &key, Turns(0), &mut |_, _| {}).is_err());
        }
    }
    if let Map::Plain(table) = table {
        errors += usize::from(table.first().is_err()) + usize::from(table.last().is_err());
    }
    errors
}

fn read_pairs(read: &ReadTxn<'_>, random: &mut Random) -> usize {
    let pairs = match open_pairs(read) {
        Ok(Some(pairs)) => pairs,
        Ok(None) => return 0,
        Err(_) => return 1,
    };
    let mut errors = 0;
    for turns in [Turns(0), Turns(255)] {
        errors += usize::from(each_pair(&pairs, ALL, turns, &mut |_, _| {}).is_err());
    }
    for _ in 0..10 {
        errors += usize::from(pairs.count(&random.key()).is_err());
    }
    errors
}

/// Changes every table here and there and commits, several times, with a checkpoint between,
/// beside a reader. False if a slice that the reader holds has changed. Errors are fine.
pub fn write_beside_reader(store: &Store, random: &mut Random) -> bool {
    let read = store.read();
    let held = hold(&read);
    for round in 0..4 {
        let Ok(mut txn) = store.write() else {
            break;
        };
        for table in 0..TABLES {
            let Ok(mut table) = MapMut::open(&mut txn, table) else {
                continue;
            };
            for number in 0..12 {
                let _ = table.delete(&random.key());
                let value = vec![number; 40 + random.below(4) * 900];
                let _ = table.put(&random.key(), &value);
            }
        }
        if let Ok(mut pairs) = txn.multi_map(&table_name(PAIRS)) {
            for number in 0..12 {
                let _ = pairs.remove_all(&random.key());
                let _ = pairs.insert(&random.key(), &[number; 5]);
            }
        }
        let _ = txn.commit();
        if round == 2 {
            let _ = store.checkpoint();
        }
    }
    held.iter().all(|(slice, copy)| *slice == copy.as_slice())
}

/// Values that a reader sees, with their copies.
fn hold<'r>(read: &'r ReadTxn<'_>) -> Vec<(&'r [u8], Vec<u8>)> {
    let mut held = Vec::new();
    for number in 0..TABLES {
        let Ok(Some(Map::Plain(table))) = Map::open(read, number) else {
            continue;
        };
        let Ok(mut range) = table.range::<[u8]>(..) else {
            continue;
        };
        while let Ok(Some((_, value))) = range.next()
            && held.len() < MOST_HELD
        {
            held.push((value, value.to_vec()));
        }
    }
    held
}
