//! Reading at random: one by one, many at once, in two threads, in short ranges.

use core::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use fastrand::Rng;

use super::adapter::{Store, View};
use super::data::{Data, Keys};
use super::job::{Figures, Place, figure, ns_each};
use super::loads;

/// Entries, in the full form.
const ENTRIES: usize = 1_000_000;
/// Look-ups of a row.
const LOOKUPS: usize = 1_000_000;
/// Keys that are asked for at once.
const BATCH: usize = 16;
/// Short ranges.
const SCANS: usize = 100_000;
/// Long ranges.
const LONG_SCANS: usize = 2_000;
/// Transactions that do nothing.
const EMPTY: usize = 1_000_000;

/// Random entries with their keys side by side, in the order in which they are asked for:
/// what is measured is the store, and not the way to the keys.
struct Probes {
    order: Vec<usize>,
    keys: Vec<u8>,
    ends: Vec<usize>,
}

impl Probes {
    fn new(data: &Data, count: usize, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let order: Vec<usize> = (0..count).map(|_| rng.usize(..data.count())).collect();
        let (mut keys, mut ends) = (Vec::new(), vec![0]);
        for &index in &order {
            keys.extend_from_slice(data.key(index));
            ends.push(keys.len());
        }
        Self { order, keys, ends }
    }

    fn len(&self) -> usize {
        self.order.len()
    }

    #[inline]
    fn key(&self, at: usize) -> &[u8] {
        &self.keys[self.ends[at]..self.ends[at + 1]]
    }

    /// Whether the value is that of the entry asked for.
    #[inline]
    fn fits(&self, at: usize, value: Option<&[u8]>) -> bool {
        Data::is_of(self.order[at], 0, value)
    }
}

fn conclude(right: usize, asked: usize) -> Result<()> {
    ensure!(
        right == asked,
        "the oracle disagrees: {right} of {asked} values are right"
    );
    Ok(())
}

fn gets<V: View>(view: &V, probes: &Probes) -> Result<()> {
    let mut right = 0;
    for at in 0..probes.len() {
        right += view.get(probes.key(at), |value| usize::from(probes.fits(at, value)))?;
    }
    conclude(right, probes.len())
}

fn gets_many<V: View>(view: &V, probes: &Probes) -> Result<()> {
    let (mut right, mut start) = (0, 0);
    while start + BATCH <= probes.len() {
        let keys: [&[u8]; BATCH] = core::array::from_fn(|lane| probes.key(start + lane));
        view.get_many(&keys, |lane, value| {
            right += usize::from(probes.fits(start + lane, value));
        })?;
        start += BATCH;
    }
    conclude(right, start)
}

/// Time of a get as each of two threads sees it.
fn two_threads<S: Store>(store: &S, halves: &[Probes; 2]) -> Result<f64> {
    let barrier = Barrier::new(2);
    let work = |probes: &Probes| {
        store.read(|view| {
            barrier.wait();
            ns_each(probes.len(), || gets(view, probes))
        })
    };
    let [one, other] = halves;
    thread::scope(|scope| {
        let beside = scope.spawn(|| work(other));
        let here = work(one)?;
        let there = beside.join().map_err(|_| anyhow!("a reader panicked"))??;
        Ok(f64::midpoint(here, there))
    })
}

/// Time of an entry in ranges of `most` from random places.
fn scans<V: View>(view: &V, probes: &Probes, count: usize, most: usize) -> Result<f64> {
    let (mut found, mut right) = (0, 0);
    let count = count.min(probes.len()).max(1);
    let start = Instant::now();
    for at in 0..count {
        let mut first = true;
        found += view.scan(probes.key(at), most, |key, value| {
            if core::mem::take(&mut first) {
                right += usize::from(key == probes.key(at) && probes.fits(at, Some(value)));
            }
            black_box((key, value[0]));
        })?;
    }
    let ns = start.elapsed().as_nanos() as f64;
    conclude(right, count)?;
    Ok(ns / found as f64)
}

/// The rows of one kind of keys.
pub(crate) fn measure<S: Store>(keys: Keys, place: &Place) -> Result<Figures> {
    let data = Data::new(keys, place.count(ENTRIES));
    let store = S::open(&place.dir)?;
    let order = data.shuffled(3);
    let load_ns = ns_each(data.count(), || loads::load(&store, &data, &order))?;
    let file = loads::file_ratio(&store, place, data.logical_bytes())?;
    store.read(|view| data.check_all(view, &data.sorted(), |_| Some(0)))?;
    let lookups = place.count(LOOKUPS);
    let probes = Probes::new(&data, lookups, 4);
    let halves = [5, 6].map(|seed| Probes::new(&data, lookups / 2, seed));
    let get_ns = store.read(|view| ns_each(lookups, || gets(view, &probes)))?;
    let many_ns = store.read(|view| ns_each(lookups, || gets_many(view, &probes)))?;
    let two_ns = two_threads(&store, &halves)?;
    if keys != Keys::Random {
        let prefix = if keys == Keys::User { "user" } else { "url" };
        return Ok(Figures::from([
            figure(&format!("{prefix}: get"), get_ns),
            figure(&format!("{prefix}: many"), many_ns),
            figure(&format!("{prefix}: 2 threads"), two_ns),
        ]));
    }
    let txn_ns = ns_each(lookups, || {
        let mut right = 0;
        for at in 0..lookups {
            right += store.read(|view| {
                view.get(probes.key(at), |value| usize::from(probes.fits(at, value)))
            })?;
        }
        conclude(right, lookups)
    })?;
    let empty = place.count(EMPTY);
    let begin_ns = ns_each(empty, || (0..empty).try_for_each(|_| store.begin()))?;
    let scan = |count, most| store.read(|view| scans(view, &probes, place.count(count), most));
    Ok(Figures::from([
        figure("load random", load_ns),
        figure("file, random", file),
        figure("get", get_ns),
        figure("get many", many_ns),
        figure("get, 2 threads", two_ns),
        figure("txn + get", txn_ns),
        figure("begin + end", begin_ns),
        figure("scan 10", scan(SCANS, 10)?),
        figure("scan 1000", scan(LONG_SCANS, 1000)?),
    ]))
}
