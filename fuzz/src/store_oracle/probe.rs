//! Reading and writing a store of which nothing is known: its files were damaged or forged.

use brickyard_store::{ReadTxn, Store, Table};

use super::op::{TABLES, table_name};
use super::random::Random;

/// More steps than that and a walk has no end.
const MOST_STEPS: usize = 1 << 22;
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
        let Ok(Some(table)) = read.table(&table_name(table)) else {
            errors += 1;
            continue;
        };
        for backwards in [false, true] {
            errors += usize::from(walk(&table, backwards).is_err());
        }
        errors += usize::from(table.first().is_err()) + usize::from(table.last().is_err());
        for _ in 0..10 {
            let key = random.key();
            errors += usize::from(table.get(&key).is_err());
            errors += usize::from(table.get_many(&[&key, &[]]).is_err());
            errors += usize::from(table.prefix(&key).is_err());
        }
    }
    errors
}

/// Reads a table to its end.
fn walk(table: &Table<'_>, backwards: bool) -> Result<(), brickyard_store::ReadError> {
    let mut range = table.range::<[u8]>(..)?;
    for _ in 0..MOST_STEPS {
        let next = if backwards {
            range.next_back()?
        } else {
            range.next()?
        };
        if next.is_none() {
            return Ok(());
        }
    }
    panic!("the walk does not end");
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
            let Ok(mut table) = txn.table(&table_name(table)) else {
                continue;
            };
            for number in 0..12 {
                let _ = table.delete(&random.key());
                let value = vec![number; 40 + random.below(4) * 900];
                let _ = table.put(&random.key(), &value);
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
        let Ok(Some(table)) = read.table(&table_name(number)) else {
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
