//! What a pool has done and holds.

#[cfg(feature = "prometheus")]
mod prometheus;

use core::time::Duration;

use crate::recycle::DropReason;
use crate::sync::{AtomicU64, Ordering};

#[cfg(feature = "prometheus")]
pub use self::prometheus::MetricsPage;

/// Buckets of the histogram of waiting times.
const WAIT_BUCKETS: usize = 12;

/// An event for `tracing`, where that is wanted.
macro_rules! event {
    ($($arguments:tt)*) => {
        #[cfg(feature = "tracing")]
        tracing::trace!($($arguments)*)
    };
}

/// Counters of the slow paths.
#[derive(Debug)]
pub(crate) struct Counters {
    created: AtomicU64,
    dropped: [AtomicU64; DropReason::COUNT],
    misses: AtomicU64,
    steals: AtomicU64,
    waits: AtomicU64,
    wait_buckets: [AtomicU64; WAIT_BUCKETS],
}

// Relaxed throughout this file: independent counters, read for reports only.
impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            created: AtomicU64::new(0),
            dropped: core::array::from_fn(|_| AtomicU64::new(0)),
            misses: AtomicU64::new(0),
            steals: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            wait_buckets: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    pub(crate) fn note_created(&self) {
        event!("object created");
        self.created.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_dropped(&self, reason: DropReason) {
        event!(reason = reason.name(), "object dropped");
        let place = DropReason::ALL.iter().position(|&other| other == reason);
        self.dropped[place.unwrap_or(0)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    pub(crate) fn note_steal(&self) {
        event!("objects are scarce: all caches emptied");
        self.steals.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_wait(&self, waited: Duration) {
        event!(?waited, "waited for an object");
        self.waits.fetch_add(1, Ordering::Relaxed);
        let bucket = WaitHistogram::LIMITS
            .iter()
            .position(|&limit| waited <= limit)
            .unwrap_or(WAIT_BUCKETS - 1);
        self.wait_buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// Fills in what is counted here.
    pub(crate) fn read(&self, metrics: &mut Metrics) {
        metrics.created = self.created.load(Ordering::Relaxed);
        metrics.dropped = Dropped(core::array::from_fn(|i| {
            self.dropped[i].load(Ordering::Relaxed)
        }));
        metrics.misses = self.misses.load(Ordering::Relaxed);
        metrics.steals = self.steals.load(Ordering::Relaxed);
        metrics.waits = self.waits.load(Ordering::Relaxed);
        metrics.wait_times = WaitHistogram(core::array::from_fn(|i| {
            self.wait_buckets[i].load(Ordering::Relaxed)
        }));
    }
}

/// A snapshot of a pool's figures, from [`Pool::metrics`](crate::Pool::metrics).
///
/// Taken while threads run, the figures are of slightly different moments; with all
/// threads at rest they are exact, but for `hits`.
///
/// With the feature `prometheus` its `Display` is a page in the Prometheus text format;
/// [`MetricsPage`] makes one page of many pools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// The pool's name, empty if it has none.
    pub name: &'static str,
    /// Room of a new buffer in bytes, if this is a size class of a
    /// [`BufferPool`](crate::BufferPool).
    pub class: Option<usize>,
    /// Most objects that may exist, `None` if unbounded.
    pub capacity: Option<usize>,
    /// Objects that exist.
    pub live: usize,
    /// Objects that wait in the pool for their next use.
    pub idle: usize,
    /// Objects in the hands of users (also those of guards that were forgotten).
    pub in_use: usize,
    /// Gets that a thread's own cache answered, up to each thread's last visit of the slow
    /// path: at most 16384 a thread are not counted yet.
    pub hits: u64,
    /// Gets that had to look further.
    pub misses: u64,
    /// Objects created.
    pub created: u64,
    /// Objects dropped, by reason.
    pub dropped: Dropped,
    /// Times that all threads' caches were emptied, to find an object or because somebody
    /// begins to wait.
    pub steals: u64,
    /// Gets that waited.
    pub waits: u64,
    /// How long they waited.
    pub wait_times: WaitHistogram,
    /// Threads' caches, in use or left by threads that have exited.
    pub caches: usize,
    /// Bytes held for slots.
    pub slot_bytes: usize,
}

/// Objects dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped([u64; DropReason::COUNT]);

impl Dropped {
    /// Objects dropped for this reason.
    pub fn by(&self, reason: DropReason) -> u64 {
        DropReason::ALL
            .iter()
            .zip(self.0)
            .find_map(|(&other, count)| (other == reason).then_some(count))
            .unwrap_or(0)
    }

    /// Objects dropped, whatever the reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// Counts of waiting times, by upper limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitHistogram([u64; WAIT_BUCKETS]);

impl WaitHistogram {
    /// Upper limit of each bucket: powers of four from 1 µs on, the last without limit.
    pub const LIMITS: [Duration; WAIT_BUCKETS] = [
        Duration::from_micros(1),
        Duration::from_micros(4),
        Duration::from_micros(16),
        Duration::from_micros(64),
        Duration::from_micros(256),
        Duration::from_micros(1024),
        Duration::from_micros(4096),
        Duration::from_micros(16_384),
        Duration::from_micros(65_536),
        Duration::from_micros(262_144),
        Duration::from_micros(1_048_576),
        Duration::MAX,
    ];

    /// Upper limit and count of each bucket.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        Self::LIMITS.into_iter().zip(self.0)
    }
}
