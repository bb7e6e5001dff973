//! How large the files become: under churn, under a reader that stays, after removals.

use std::sync::mpsc;
use std::thread;

use anyhow::{Result, anyhow};
use fastrand::Rng;

use super::adapter::{Store, View};
use super::data::{Data, Keys, VALUE_BYTES};
use super::job::{Figures, Place, bytes_of, figure};
use super::loads;

/// Entries of the churn, in every form: the figure depends on them.
const CHURNED: usize = 25_000;
/// Updates of a commit.
const BATCH: usize = 1000;
/// Commits that replace ten times as many entries as there are.
const CHURNS: usize = 250;
/// Commits beside a reader that stays: twice as many entries.
const STALE: usize = 50;
/// Entries of which half is removed, in the full form.
const HALVED: usize = 350_000;

/// A churned table.
struct Churn<'d> {
    data: &'d Data,
    versions: Vec<u32>,
    rng: Rng,
}

impl<'d> Churn<'d> {
    fn start<S: Store>(store: &S, data: &'d Data) -> Result<Self> {
        loads::load(store, data, &data.shuffled(2))?;
        Ok(Self {
            data,
            versions: vec![0; data.count()],
            rng: Rng::with_seed(10),
        })
    }

    fn commit<S: Store>(&mut self, store: &S) -> Result<()> {
        store.write(|changes| {
            let mut value = [0; VALUE_BYTES];
            for _ in 0..BATCH {
                let index = self.rng.usize(..self.data.count());
                self.versions[index] += 1;
                self.data.value(index, self.versions[index], &mut value);
                changes.put(self.data.key(index), &value)?;
            }
            Ok(())
        })
    }

    fn check<S: Store>(&self, store: &S) -> Result<()> {
        let version = |index: usize| Some(self.versions[index]);
        store.read(|view| self.data.check_all(view, &self.data.sorted(), version))
    }
}

/// `file, churn` and `file, stale`.
pub(crate) fn churn<S: Store>(place: &Place) -> Result<Figures> {
    let data = Data::new(Keys::Random, if place.tiny { 250 } else { CHURNED });
    let logical = data.logical_bytes() as f64;
    let [churned, stale] = ["churned", "stale"].map(|name| Place {
        dir: place.dir.join(name),
        ..place.clone()
    });
    std::fs::create_dir(&churned.dir)?;
    std::fs::create_dir(&stale.dir)?;
    let store = S::open(&churned.dir)?;
    let mut churn = Churn::start(&store, &data)?;
    let mut peak = 0;
    for _ in 0..place.count(CHURNS) {
        churn.commit(&store)?;
        peak = peak.max(bytes_of(&churned.dir, S::EMPTY_LOG)?);
    }
    churn.check(&store)?;
    drop(store);
    let store = S::open(&stale.dir)?;
    let mut churn = Churn::start(&store, &data)?;
    let end = beside_a_reader(&store, &data, || {
        for _ in 0..place.count(STALE) {
            churn.commit(&store)?;
        }
        loads::file_ratio(&store, &stale, data.logical_bytes())
    })?;
    churn.check(&store)?;
    Ok(Figures::from([
        figure("file, churn", peak as f64 / logical),
        figure("file, stale", end),
    ]))
}

/// Runs `body` while another thread holds a snapshot of the loaded table, which must be
/// the same before and after.
fn beside_a_reader<S: Store, R>(
    store: &S,
    data: &Data,
    body: impl FnOnce() -> Result<R>,
) -> Result<R> {
    let sorted = data.sorted();
    let (begun, begins) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            store.read(|view| {
                let first = view.get(data.key(0), |value| Data::is_of(0, 0, value))?;
                begun.send(first)?;
                // An error says that the other side is gone, which ends it as well.
                let _ = ends.recv();
                data.check_all(view, &sorted, |_| Some(0))
            })
        });
        let first = begins.recv();
        let result = body();
        drop(end);
        reader
            .join()
            .map_err(|_| anyhow!("the reader panicked"))??;
        anyhow::ensure!(first?, "the oracle disagrees about the first entry");
        result
    })
}

/// `file, halved`: half is removed in one transaction, while a reader is there who sees
/// the rest.
pub(crate) fn halve<S: Store>(place: &Place) -> Result<Figures> {
    let data = Data::new(Keys::Random, place.count(HALVED));
    let store = S::open(&place.dir)?;
    loads::load(&store, &data, &data.shuffled(2))?;
    store.settle()?;
    let gone = data.shuffled(11);
    let (gone, left) = gone.split_at(data.count() / 2);
    store.write(|changes| {
        gone.iter()
            .try_for_each(|&index| changes.delete(data.key(index)))
    })?;
    let mut version = vec![None; data.count()];
    let mut logical = 0;
    for &index in left {
        version[index] = Some(0);
        logical += (data.key(index).len() + VALUE_BYTES) as u64;
    }
    let sorted = data.sorted();
    let ratio = store.read(|view| {
        data.check_all(view, &sorted, |index| version[index])?;
        loads::file_ratio(&store, place, logical)
    })?;
    store.read(|view| data.check_all(view, &sorted, |index| version[index]))?;
    Ok(Figures::from([figure("file, halved", ratio)]))
}
