//! Loading, scanning what was loaded, and opening after a kill.

use core::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::adapter::{Store, View};
use super::data::{Data, Keys, VALUE_BYTES};
use super::job::{Figures, Place, bytes_of, figure, ns_each};

/// Entries of the loads, in the full form.
const ENTRIES: usize = 1_000_000;

/// One-entry commits between the load and the kill.
const LAST_COMMITS: usize = 20;

/// Files over logical bytes, after `settle`.
pub(crate) fn file_ratio<S: Store>(store: &S, place: &Place, logical: u64) -> Result<f64> {
    store.settle()?;
    Ok(bytes_of(&place.dir, S::EMPTY_LOG)? as f64 / logical as f64)
}

/// Puts entries in this order, at version 0, in one transaction.
pub(crate) fn load<S: Store>(store: &S, data: &Data, order: &[usize]) -> Result<()> {
    store.write(|changes| each_of(data, order, |key, value| changes.put(key, value)))
}

/// Hands entries in this order, at version 0, to `put`.
fn each_of(
    data: &Data,
    order: &[usize],
    mut put: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    let mut value = [0; VALUE_BYTES];
    order.iter().try_for_each(|&index| {
        data.value(index, 0, &mut value);
        put(data.key(index), &value)
    })
}

/// `load sorted`, `file, sorted`, `scan all`.
pub(crate) fn sorted<S: Store>(place: &Place) -> Result<Figures> {
    let data = Data::new(Keys::Random, place.count(ENTRIES));
    let order = data.sorted();
    let store = S::open(&place.dir)?;
    let load_ns = ns_each(data.count(), || {
        store.append(|append| each_of(&data, &order, append))
    })?;
    let file = file_ratio(&store, place, data.logical_bytes())?;
    store.read(|view| data.check_all(view, &order, |_| Some(0)))?;
    let scan_ns = store.read(|view| {
        ns_each(data.count(), || {
            let mut bytes = 0;
            let found = view.scan(&[], usize::MAX, |key, value| {
                bytes += key.len() + usize::from(value[0]);
                black_box(value);
            })?;
            ensure!(
                found == data.count() && black_box(bytes) > 0,
                "the scan found {found}"
            );
            Ok(())
        })
    })?;
    Ok(Figures::from([
        figure("load sorted", load_ns),
        figure("file, sorted", file),
        figure("scan all", scan_ns),
    ]))
}

/// Loads a store and leaves it as a kill finds it.
pub(crate) fn fill_and_leave<S: Store>(place: &Place) -> Result<()> {
    let data = Data::new(Keys::Random, place.count(ENTRIES));
    let store = S::open(&place.dir)?;
    load(&store, &data, &data.shuffled(2))?;
    for index in 0..LAST_COMMITS {
        store.write(|changes| {
            let mut value = [0; VALUE_BYTES];
            data.value(index, 1, &mut value);
            changes.put(data.key(index), &value)
        })?;
    }
    core::mem::forget(store);
    Ok(())
}

/// `open, killed`: the store was filled by a process that was killed.
pub(crate) fn open_killed<S: Store>(place: &Place) -> Result<Figures> {
    let data = Data::new(Keys::Random, place.count(ENTRIES));
    let start = Instant::now();
    let store = S::open(&place.dir)?;
    let last = LAST_COMMITS - 1;
    let found = store.read(|view| view.get(data.key(last), |value| Data::is_of(last, 1, value)))?;
    let open_ms = start.elapsed().as_secs_f64() * 1e3;
    ensure!(found, "the last commit is lost");
    let version = |index: usize| Some(u32::from(index < LAST_COMMITS));
    store.read(|view| data.check_all(view, &data.sorted(), version))?;
    Ok(Figures::from([figure("open, killed", open_ms)]))
}
