//! When idle objects are dropped: an epoch clock without a thread.
//!
//! After the working-set estimate of Bonwick and Adams (2001): what stayed idle in the
//! depot through two epochs is surplus. Epochs are noticed by the slow path, which each
//! thread passes at least once in [`BUDGET`](crate::cache::BUDGET) gets; a pool that
//! nobody uses at all keeps what it has until `trim`.

use core::time::Duration;
use std::time::Instant;

use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// See the module.
#[derive(Debug)]
pub(crate) struct Decay {
    start: Instant,
    epoch: Duration,
    /// Nanoseconds after `start` at which the current epoch ends; `u64::MAX` while one
    /// thread works.
    ends: AtomicU64,
    /// Low watermark of the last epoch.
    low: AtomicUsize,
}

impl Decay {
    pub(crate) fn new(epoch: Duration) -> Self {
        let epoch = epoch.max(Duration::from_micros(1));
        Self {
            start: Instant::now(),
            epoch,
            ends: AtomicU64::new(nanos(epoch)),
            low: AtomicUsize::new(0),
        }
    }

    /// The work of an epoch that is over, if the caller is to do it. The next epoch starts
    /// when the answer is dropped.
    pub(crate) fn begin_epoch(&self) -> Option<Epoch<'_>> {
        let now = nanos(self.start.elapsed());
        // Acquire: pairs with the Release in `Epoch::drop`, for `low`.
        let ends = self.ends.load(Ordering::Acquire);
        if now < ends {
            return None;
        }
        // Acquire / Relaxed: as above; who loses does nothing.
        self.ends
            .compare_exchange(ends, u64::MAX, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        Some(Epoch {
            decay: self,
            // Relaxed: ordered by `ends`.
            last_low: self.low.load(Ordering::Relaxed),
            low: 0,
        })
    }
}

/// An epoch that is over and being worked on.
#[derive(Debug)]
pub(crate) struct Epoch<'d> {
    decay: &'d Decay,
    /// Low watermark of the epoch before.
    pub(crate) last_low: usize,
    /// Low watermark of this epoch, less what was dropped.
    pub(crate) low: usize,
}

impl Drop for Epoch<'_> {
    fn drop(&mut self) {
        let decay = self.decay;
        // Relaxed: ordered by `ends`.
        decay.low.store(self.low, Ordering::Relaxed);
        let next = nanos(decay.start.elapsed()).saturating_add(nanos(decay.epoch));
        // Release: pairs with the Acquire in `begin_epoch`.
        decay.ends.store(next.min(u64::MAX - 1), Ordering::Release);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX - 1)
}
