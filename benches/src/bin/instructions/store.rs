//! Reads of the store, in memory. The making of the key is in what a get takes.

use core::hint::black_box;

use brickyard_store::{Options, Store};

/// Entries of the store: two levels, with some hundred leaves.
const ENTRIES: usize = 10_000;

/// Gets of one transaction.
pub(super) fn gets(count: usize) {
    let store = store().expect("a store in memory");
    get(&store, count);
}

/// A transaction with a look-up of the table and a get.
pub(super) fn transactions(count: usize) {
    let store = store().expect("a store in memory");
    transact(&store, count);
}

/// Entries of a range.
pub(super) fn entries(count: usize) {
    let store = store().expect("a store in memory");
    scan(&store, count);
}

fn key(index: usize) -> [u8; 17] {
    let mut key = *b"user:000000000000";
    let mut rest = index % ENTRIES * 7;
    for place in key.iter_mut().rev().take(12) {
        *place += u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    key
}

/// A store in memory with all its entries.
fn store() -> Result<Store, Box<dyn core::error::Error>> {
    let store = Options::new().address_space(1 << 26).open_in_memory()?;
    let mut txn = store.write()?;
    let mut table = txn.table("t")?;
    for index in 0..ENTRIES {
        table.put(&key(index), &[7; 150])?;
    }
    txn.commit()?;
    Ok(store)
}

#[inline(never)]
fn get(store: &Store, count: usize) {
    let txn = store.read();
    let table = txn.table("t").expect("sound").expect("it was made");
    for index in 0..count {
        let value = table.get(&key(index)).expect("sound");
        black_box(value.expect("all are there"));
    }
}

#[inline(never)]
fn transact(store: &Store, count: usize) {
    for index in 0..count {
        let txn = store.read();
        let table = txn.table("t").expect("sound").expect("it was made");
        let value = table.get(&key(index)).expect("sound");
        black_box(value.expect("all are there"));
    }
}

#[inline(never)]
fn scan(store: &Store, count: usize) {
    let txn = store.read();
    let table = txn.table("t").expect("sound").expect("it was made");
    let mut left = count;
    while left > 0 {
        let mut range = table.range::<[u8]>(..).expect("sound");
        while left > 0
            && let Some(entry) = range.next().expect("sound")
        {
            black_box(entry);
            left -= 1;
        }
    }
}
