//! The work of the rows, for any pool.
//!
//! Each piece of work is repeated in slices of a fixed time; the figure is the median of
//! the slices, so that one pause of the machine does not make it.

use core::hint::black_box;
use core::time::Duration;
use std::time::Instant;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::adapter::{Pool, Setting, live};
use super::latency::{self, Latency};
use super::row::Kind;
use super::threads;

/// Objects that a bounded pool keeps, but in row burst.
const CAPACITY: usize = 512;

/// How many are held in the rows that hold many: the size of a batch.
const BATCH: usize = 32;

/// The usual load in row burst.
const USUAL: usize = 64;

/// Ten times that.
const BURST: usize = 10 * USUAL;

/// Pairs between two bursts.
const PAIRS_BETWEEN: usize = 10_000;

/// Length of a decay epoch in row burst; long against a burst, short against the row.
const EPOCH: Duration = Duration::from_millis(5);

/// How long a pool goes on with the usual load before its objects are counted: two epochs
/// that begin after the last burst take up to three, and as many again for good measure.
const IDLE_EPOCHS: u32 = 6;

/// How often the usual load comes in each of them, at least.
const LEAST_USES: u32 = 16;

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Time of a slice.
    pub slice: Duration,
    /// Number of slices.
    pub slices: usize,
}

impl Effort {
    /// What `--quick` does.
    pub const QUICK: Self = Self {
        slice: Duration::from_millis(4),
        slices: 5,
    };

    /// What the table is about.
    pub const FULL: Self = Self {
        slice: Duration::from_millis(20),
        slices: 9,
    };
}

/// What one piece of work gave.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Nanoseconds, of what the row says.
    pub ns: f64,
    /// Objects that the pool kept after a burst and the epochs, where they can be counted.
    pub kept: Option<usize>,
    /// All percentiles, in the row about them.
    pub latency: Option<Latency>,
}

impl Measured {
    /// A plain figure.
    pub(crate) fn plain(ns: f64) -> Self {
        Self {
            ns,
            kept: None,
            latency: None,
        }
    }
}

/// Does the work of one row. `P`, `O` and `A` are one pool with guards that borrow, that
/// own, and that may change threads.
pub(crate) fn measure<P: Pool, O: Pool, A: Pool>(kind: Kind, effort: Effort) -> Measured
where
    for<'p> A::Held<'p>: Send,
{
    let setting = Setting {
        capacity: CAPACITY,
        decay: None,
    };
    match kind {
        Kind::Pair => alone(&P::new(&setting), effort, pairs),
        Kind::OwnedPair => alone(&O::new(&setting), effort, pairs),
        Kind::Wall(count) => {
            Measured::plain(threads::pairs(&P::new(&setting), count, effort).wall_ns)
        }
        Kind::Cpu(count) => {
            Measured::plain(threads::pairs(&P::new(&setting), count, effort).cpu_ns)
        }
        Kind::Hold => alone(&P::new(&setting), effort, hold),
        Kind::Across => Measured::plain(threads::across(&A::new(&setting), effort)),
        Kind::Many => alone(&P::new(&setting), effort, many),
        Kind::Burst => burst::<P>(effort),
        Kind::Latency => latency::measure(&P::new(&setting), effort),
    }
}

/// Gets, uses and returns `count` times. One byte is written each time.
#[inline(never)]
pub(crate) fn pairs<P: Pool>(pool: &P, count: usize) {
    for index in 0..count {
        let mut held = pool.get();
        P::touch(&mut held, index.to_le_bytes()[0]);
        pool.put(held);
    }
}

/// A pool and [`pairs`] on it, for whoever repeats it as he likes.
pub(crate) fn repeated<P: Pool>() -> Box<dyn FnMut(usize)> {
    let pool = P::new(&Setting {
        capacity: CAPACITY,
        decay: None,
    });
    Box::new(move |count| pairs(&pool, count))
}

/// Work on one thread; `work` does about so many pairs.
fn alone<P: Pool>(pool: &P, effort: Effort, work: fn(&P, usize)) -> Measured {
    threads::pin(0);
    let count = calibrate(effort.slice, |count| work(pool, count));
    let slice = |_| per_pair(time(|| work(pool, count)), count);
    Measured::plain(middle((0..effort.slices).map(slice).collect()))
}

/// Holds 32, returns them in random order.
#[inline(never)]
fn hold<P: Pool>(pool: &P, count: usize) {
    let mut rng = Rng::with_seed(1);
    let mut order: [usize; BATCH] = core::array::from_fn(|index| index);
    let mut held: [Option<P::Held<'_>>; BATCH] = [const { None }; BATCH];
    for round in 0..count / BATCH {
        // A new order now and then: shuffling each time would be most of the work.
        if round % 64 == 0 {
            rng.shuffle(&mut order);
        }
        for place in &mut held {
            let mut one = pool.get();
            P::touch(&mut one, 1);
            *place = Some(one);
        }
        for index in order {
            if let Some(one) = held[index].take() {
                pool.put(one);
            }
        }
    }
}

/// Gets 32 at once, uses each, returns them at once.
fn many<P: Pool>(pool: &P, count: usize) {
    pool.many(BATCH, count / BATCH);
}

/// Bursts with usual load between them, then usual load only.
fn burst<P: Pool>(effort: Effort) -> Measured {
    threads::pin(0);
    let before = live();
    let pool = P::new(&Setting {
        capacity: USUAL,
        decay: Some(EPOCH),
    });
    let mut held = Vec::with_capacity(BURST);
    let one_burst = |held: &mut Vec<_>| {
        time(|| {
            for _ in 0..BURST {
                let mut one = pool.get();
                P::touch(&mut one, 1);
                held.push(one);
            }
            for one in held.drain(..) {
                pool.put(one);
            }
        })
    };
    one_burst(&mut held);
    let most = effort.slice * u32::try_from(effort.slices).unwrap_or(1);
    let begin = Instant::now();
    let mut bursts = Vec::new();
    while begin.elapsed() < most || bursts.len() < 3 {
        pairs(&pool, PAIRS_BETWEEN);
        bursts.push(per_pair(one_burst(&mut held), BURST));
    }
    for _ in 0..IDLE_EPOCHS {
        // A pool sees that an epoch is over when it is used, which a busy machine may prevent.
        let epoch = Instant::now();
        let mut uses = 0;
        while epoch.elapsed() < EPOCH || uses < LEAST_USES {
            held.extend((0..USUAL).map(|_| pool.get()));
            for one in held.drain(..) {
                pool.put(one);
            }
            uses += 1;
        }
    }
    let kept = P::COUNTED.then(|| live().saturating_sub(before));
    Measured {
        kept,
        ..Measured::plain(middle(bursts))
    }
}

/// How many pairs `work` does in about `slice`; warms up on the way.
pub(crate) fn calibrate(slice: Duration, mut work: impl FnMut(usize)) -> usize {
    let mut count = 1 << 10;
    loop {
        let taken = time(|| work(count));
        if taken * 4 >= slice {
            let fit = count as f64 * slice.as_secs_f64() / taken.as_secs_f64();
            // A count far below 2^53, never negative.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "see above"
            )]
            return (fit as usize).next_multiple_of(BATCH);
        }
        count *= 2;
    }
}

/// The wall time of `work`.
pub(crate) fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    let taken = start.elapsed();
    black_box(taken)
}

/// Nanoseconds a pair.
pub(crate) fn per_pair(taken: Duration, count: usize) -> f64 {
    taken.as_secs_f64() * 1e9 / count as f64
}

/// The median of a few figures.
pub(crate) fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
