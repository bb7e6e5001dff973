//! How long single gets take, with the clock's own cost beside it.

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::adapter::Pool;
use super::threads;
use super::work::{Effort, Measured};

/// Threads that get and return at the same time.
const THREADS: usize = 8;

/// Samples a thread takes for each millisecond of the effort.
const SAMPLES_A_MS: usize = 400;

/// Percentiles, in nanoseconds. Two readings of the clock are inside each sample; the
/// same two with nothing between them were sampled in turns with those around a get.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// p50, p99, p99.9 of the clock alone.
    pub clock_ns: [f64; 3],
    /// p50, p99, p99.9 with a get between.
    pub get_ns: [f64; 3],
}

/// The row's figure is p99.9 of get, clock included.
pub(crate) fn measure<P: Pool>(pool: &P, effort: Effort) -> Measured {
    let milliseconds = effort.slice.as_millis() * effort.slices as u128;
    let each = usize::try_from(milliseconds).unwrap_or(1).max(1) * SAMPLES_A_MS;
    let barrier = Barrier::new(THREADS);
    let work = |number: usize| {
        threads::pin(number);
        let mut samples = (Vec::with_capacity(each), Vec::with_capacity(each));
        barrier.wait();
        for index in 0..each {
            let start = Instant::now();
            let alone = start.elapsed();
            let start = Instant::now();
            let mut held = pool.get();
            let with_get = start.elapsed();
            P::touch(&mut held, index.to_le_bytes()[0]);
            pool.put(held);
            samples.0.push(alone.as_secs_f64() * 1e9);
            samples.1.push(with_get.as_secs_f64() * 1e9);
        }
        samples
    };
    let work = &work;
    let (mut clock, mut get) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let spawn = |number| scope.spawn(move || work(number));
        let threads: Vec<_> = (0..THREADS).map(spawn).collect();
        for samples in threads.into_iter().filter_map(|thread| thread.join().ok()) {
            clock.extend(samples.0);
            get.extend(samples.1);
        }
    });
    let latency = Latency {
        clock_ns: percentiles(clock),
        get_ns: percentiles(get),
    };
    Measured {
        latency: Some(latency),
        ..Measured::plain(latency.get_ns[2])
    }
}

/// p50, p99 and p99.9: the least sample that this share of all does not exceed.
fn percentiles(mut samples: Vec<f64>) -> [f64; 3] {
    samples.sort_by(f64::total_cmp);
    [500, 990, 999].map(|per_mille| {
        let rank = (samples.len() * per_mille).div_ceil(1000);
        samples
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or(f64::NAN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks_from_below() {
        let samples = (1..=1000).rev().map(f64::from).collect();
        assert_eq!(percentiles(samples), [500.0, 990.0, 999.0]);
        assert_eq!(percentiles(vec![7.0]), [7.0; 3]);
    }
}
