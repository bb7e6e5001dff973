//! Durable commits: small ones, small ones beside a checkpoint, batches, beside a reader.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use fastrand::Rng;

use super::adapter::{Store, View};
use super::data::{Data, Keys, VALUE_BYTES};
use super::job::{Figures, Place, figure};
use super::loads;

/// Entries, in the full form.
const ENTRIES: usize = 250_000;
/// Commits of one entry.
const SINGLES: usize = 2_000;
/// Batches, and updates of each.
const BATCHES: usize = 100;
const BATCH: usize = 1000;
/// Batches before a checkpoint, so that it has something to do.
const BATCHES_BEFORE: usize = 20;
/// Updates of a transaction beside a reader.
const BESIDE: usize = 100;
/// How long a reader and a writer run.
const BESIDE_TIME: Duration = Duration::from_secs(3);

/// Entries, and how often each was written: what a reader must find.
struct Updates {
    data: Data,
    versions: Vec<u32>,
    rng: Rng,
}

impl Updates {
    fn new(place: &Place, seed: u64) -> Self {
        let data = Data::new(Keys::Random, place.count(ENTRIES));
        Self {
            versions: vec![0; data.count()],
            data,
            rng: Rng::with_seed(seed),
        }
    }

    /// Replaces random entries in one transaction.
    fn commit<S: Store>(&mut self, store: &S, count: usize) -> Result<()> {
        store.write(|changes| {
            let mut value = [0; VALUE_BYTES];
            for _ in 0..count {
                let index = self.rng.usize(..self.data.count());
                self.versions[index] += 1;
                self.data.value(index, self.versions[index], &mut value);
                changes.put(self.data.key(index), &value)?;
            }
            Ok(())
        })
    }

    fn check<S: Store>(&self, store: &S) -> Result<()> {
        let sorted = self.data.sorted();
        let version = |index: usize| Some(self.versions[index]);
        store.read(|view| self.data.check_all(view, &sorted, version))
    }
}

/// The sample that so many of 10,000 do not exceed, in microseconds.
fn percentile_us(samples: &mut [Duration], of_10k: usize) -> Result<f64> {
    samples.sort_unstable();
    let last = samples.len().checked_sub(1);
    let last = last.ok_or_else(|| anyhow!("no samples"))?;
    Ok(samples[last * of_10k / 10_000].as_secs_f64() * 1e6)
}

/// `put`, `put, checkpoint`, `batch 100x1000`.
pub(crate) fn commits<S: Store>(place: &Place) -> Result<Figures> {
    let mut updates = Updates::new(place, 7);
    let store = S::open(&place.dir)?;
    loads::load(&store, &updates.data, &updates.data.shuffled(2))?;
    store.settle()?;
    let timed = |updates: &mut Updates| {
        let start = Instant::now();
        updates.commit(&store, 1).map(|()| start.elapsed())
    };
    let singles = place.count(SINGLES);
    let mut samples = (0..singles)
        .map(|_| timed(&mut updates))
        .collect::<Result<Vec<_>>>()?;
    let put_us = percentile_us(&mut samples, 5000)?;
    let mut figures = Figures::from([figure("put", put_us)]);
    let batches = place.count(BATCHES);
    let start = Instant::now();
    (0..batches).try_for_each(|_| updates.commit(&store, BATCH))?;
    // As if it had been all of them, so that the forms can be compared.
    let batch_ms = start.elapsed().as_secs_f64() * 1e3 * BATCHES as f64 / batches as f64;
    figures.extend([figure("batch 100x1000", batch_ms)]);
    for _ in 0..place.count(BATCHES_BEFORE) {
        updates.commit(&store, BATCH)?;
    }
    if let Some(mut samples) = beside_checkpoint(&store, || timed(&mut updates))? {
        figures.extend([figure(
            "put, checkpoint",
            percentile_us(&mut samples, 5000)?,
        )]);
    }
    updates.check(&store)?;
    Ok(figures)
}

/// Times of `put` while another thread checkpoints; `None` if the store has no such step.
fn beside_checkpoint<S: Store>(
    store: &S,
    mut put: impl FnMut() -> Result<Duration>,
) -> Result<Option<Vec<Duration>>> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let checkpoint = scope.spawn(|| {
            let result = store.settle();
            done.store(true, Ordering::SeqCst);
            result
        });
        let mut samples = Vec::new();
        while !done.load(Ordering::SeqCst) || samples.is_empty() {
            samples.push(put()?);
        }
        let has_one = checkpoint
            .join()
            .map_err(|_| anyhow!("the checkpoint panicked"))??;
        Ok(has_one.then_some(samples))
    })
}

/// `reader p99`, `reader p99.99`, `writer beside`.
pub(crate) fn beside<S: Store>(place: &Place) -> Result<Figures> {
    let mut updates = Updates::new(place, 8);
    let store = S::open(&place.dir)?;
    loads::load(&store, &updates.data, &updates.data.shuffled(2))?;
    store.settle()?;
    let readers = Data::new(Keys::Random, place.count(ENTRIES));
    let time = BESIDE_TIME / if place.tiny { 300 } else { 1 } / if place.quick { 3 } else { 1 };
    let done = AtomicBool::new(false);
    let (mut samples, update_us) = thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(&store, &readers, &done));
        let start = Instant::now();
        let mut count = 0;
        while start.elapsed() < time {
            updates.commit(&store, BESIDE)?;
            count += BESIDE;
        }
        let update_us = start.elapsed().as_secs_f64() * 1e6 / count as f64;
        done.store(true, Ordering::SeqCst);
        let samples = reader
            .join()
            .map_err(|_| anyhow!("the reader panicked"))??;
        anyhow::Ok((samples, update_us))
    })?;
    updates.check(&store)?;
    Ok(Figures::from([
        figure("reader p99", percentile_us(&mut samples, 9900)?),
        figure("reader p99.99", percentile_us(&mut samples, 9999)?),
        figure("writer beside", update_us),
    ]))
}

/// Times of a transaction with one get each, until `done`.
fn read_until<S: Store>(store: &S, data: &Data, done: &AtomicBool) -> Result<Vec<Duration>> {
    let (mut rng, mut samples) = (Rng::with_seed(9), Vec::with_capacity(1 << 22));
    while !done.load(Ordering::Relaxed) || samples.is_empty() {
        let key = data.key(rng.usize(..data.count()));
        let start = Instant::now();
        let len = store.read(|view| view.get(key, |value| value.map_or(0, <[u8]>::len)))?;
        samples.push(start.elapsed());
        ensure!(
            len == VALUE_BYTES,
            "the oracle disagrees: a value of {len} bytes"
        );
    }
    Ok(samples)
}
