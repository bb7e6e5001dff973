//! Crashes and failures while pages are written before their commit.
//!
//! What could go wrong: a load that was not committed leaves pages that nobody owns, or
//! writes to pages that recovery needs; a committed one is not whole. How it is seen: a
//! run of loads, changes and commits dies, or fails once, at each of its calls to the
//! disk; what is left is opened, must be the state before or after the commit that was on
//! its way, and `check` must find an owner for each page.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backing::memory::{Failure, MemoryBacking};
use crate::error::LoadError;
use crate::simulation::crash::{MAP_BYTES, RING_BYTES};
use crate::simulation::oracle::random::Random;
use crate::store::{Options, Store};
use crate::txn::write::TableMut;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(backing: &Arc<MemoryBacking>) -> Option<Store> {
    let backing: Arc<MemoryBacking> = Arc::clone(backing);
    Options::new().open_backing(backing, true).ok()
}

fn key(n: usize) -> Vec<u8> {
    format!("{n:06}").into_bytes()
}

/// Appends some hundred entries, with a large value now and then.
fn append(table: &mut TableMut<'_, '_>, model: &mut Model, byte: u8) -> Result<(), LoadError> {
    let first = 1_000 * usize::from(byte);
    let mut new = Model::new();
    let mut appender = table.appender()?;
    for n in 0..400 {
        let len = if n % 150 == 0 { 5_000 } else { n % 300 };
        appender.append(&key(first + n), &vec![byte; len])?;
        new.insert(key(first + n), vec![byte; len]);
    }
    appender.finish()?;
    model.extend(new);
    Ok(())
}

/// Loads, changes and commits until something fails; the states that may be left.
fn run(store: &Store, seed: u64) -> Vec<Model> {
    let mut random = Random::new(seed);
    let mut last = Model::new();
    for byte in 1..6 {
        let mut model = last.clone();
        let Ok(mut txn) = store.write() else {
            return vec![last];
        };
        let mut table = txn.table("t").expect("sound");
        if append(&mut table, &mut model, byte).is_err() {
            return vec![last];
        }
        for n in 0..random.below(60) {
            let key = key(1_000 * (1 + random.below(byte.into())) + n);
            table.delete(&key).expect("sound");
            model.remove(&key);
        }
        if byte % 3 == 2 {
            continue;
        }
        if txn.commit().is_err() {
            return vec![last, model];
        }
        last = model;
    }
    vec![last]
}

fn state(store: &Store) -> Model {
    let read = store.read();
    let mut found = Model::new();
    let Some(table) = read.table("t").expect("sound") else {
        return found;
    };
    let mut range = table.range::<[u8]>(..).expect("sound");
    while let Some((key, value)) = range.next().expect("sound") {
        found.insert(key.to_vec(), value.to_vec());
    }
    found
}

fn backing() -> Arc<MemoryBacking> {
    Arc::new(MemoryBacking::new(MAP_BYTES, RING_BYTES).expect("address space"))
}

#[test]
fn a_load_that_is_cut_short_is_whole_or_not_there() {
    let seed = 5;
    let calls = {
        let backing = backing();
        run(&open(&backing).expect("a new store"), seed);
        backing.calls()
    };
    assert!(calls > 30, "{calls} calls are not worth the name");
    let mut random = Random::new(seed);
    for (call, failure) in (1..=calls).flat_map(|n| [(n, Failure::Dies), (n, Failure::Once)]) {
        let backing = backing();
        backing.fail(call, failure);
        let mut allowed = vec![Model::new()];
        if let Some(store) = open(&backing) {
            allowed = run(&store, seed);
            if failure == Failure::Once {
                let report = store.check();
                assert_eq!(report.problems, [], "call {call}");
            }
        }
        let wreck = backing.wreck();
        for _ in 0..3 {
            let disk = wreck.image(&mut |n| random.below(n));
            let backing = Arc::new(MemoryBacking::with_content(MAP_BYTES, &disk));
            let store = open(&backing).expect("what is left opens");
            assert!(allowed.contains(&state(&store)), "call {call}, {failure:?}");
            assert_eq!(store.check().problems, [], "call {call}, {failure:?}");
        }
    }
}
