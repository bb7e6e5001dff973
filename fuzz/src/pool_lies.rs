//! A pool that breaks its promises on demand: what the oracle must find.
//!
//! [`Subject`] stands between a driver and the pool. It passes every call on; with a [`Lie`]
//! planted, one call after some honest ones goes wrong, as a defect in the pool would make it.
//! Lies about objects are told by their recycler (`pool_object`).

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use core::time::Duration;

use brickyard_pool::{
    Builder, Get, GetTimeoutError, Key, Keyed, Metrics, Pool, Pooled, TryGetError,
};
use std::sync::Arc;

use crate::pool_object::{Ledger, NotNow, Recycler, Tracked};

/// A guard of the pool under test.
pub type Guard<'p> = Pooled<'p, Tracked, Recycler>;

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// None.
    Honest,
    /// A get gives what another user has.
    TwoOwners,
    /// One object more than the bound exists.
    OverTheBound,
    /// A get finds nothing though it may have an object.
    FalseEmpty,
    /// A get of many finds nothing though it may have all.
    FalseEmptyOfMany,
    /// A future waits for what is there.
    FalsePending,
    /// What was put is found only after all have been put.
    LatePut,
    /// A return without reset.
    NoReset,
    /// A return with two resets.
    TwoResets,
    /// The destructor of an object runs twice.
    TwoDrops,
    /// An object is not dropped with the pool.
    Leak,
    /// Who waits is not woken.
    LostWake,
    /// A stale key leads to another object.
    StaleKey,
    /// A key is removed twice.
    TwoRemovals,
    /// A key leads to nothing.
    LostKey,
    /// The listing of keys leaves one out.
    ShortList,
    /// `trim` leaves an object.
    LazyTrim,
    /// The figures count a get that was not.
    Figures,
}

impl Lie {
    /// Every lie, with a word of the oracle's report of it.
    pub const ALL: [(Self, &'static str); 17] = [
        (Self::TwoOwners, "somebody else has the object"),
        (Self::OverTheBound, "the bound"),
        (Self::FalseEmpty, "a false \"empty\""),
        (Self::FalseEmptyOfMany, "a false \"empty\" of many"),
        (Self::FalsePending, "a false \"pending\""),
        (Self::LatePut, "in use while many are put"),
        (Self::NoReset, "calls of reset: 0 instead of 1"),
        (Self::TwoResets, "calls of reset: 2 instead of 1"),
        (Self::TwoDrops, "dropped twice"),
        (Self::Leak, "leaked"),
        (Self::LostWake, "wakes of the future"),
        (Self::StaleKey, "a stale key found an object"),
        (Self::TwoRemovals, "a stale key was removed again"),
        (Self::LostKey, "a valid key found nothing"),
        (Self::ShortList, "keys are listed"),
        (Self::LazyTrim, "trim"),
        (Self::Figures, "waits"),
    ];
}

/// When a lie is told: at the third occasion, once.
#[derive(Debug)]
pub(crate) struct Plant {
    lie: Lie,
    occasions: AtomicU64,
}

impl Plant {
    pub(crate) fn new(lie: Lie) -> Self {
        Self {
            lie,
            occasions: AtomicU64::new(0),
        }
    }

    /// An occasion for this lie: whether it is told.
    pub(crate) fn tells(&self, lie: Lie) -> bool {
        self.lie == lie && self.occasions.fetch_add(1, SeqCst) == 2
    }

    /// Whether this lie is planted, for those that are told all the time.
    pub(crate) fn is(&self, lie: Lie) -> bool {
        self.lie == lie
    }
}

/// See the module.
#[derive(Debug)]
pub struct Subject {
    pool: Pool<Tracked, Recycler>,
    ledger: Arc<Ledger>,
}

impl Subject {
    /// A pool for a driver.
    ///
    /// # Panics
    ///
    /// Panics when a creator's fault is armed already and the pool is prewarmed.
    #[must_use]
    pub fn new(builder: &Builder, ledger: &Arc<Ledger>) -> Self {
        let pool = builder
            .build_with(Recycler(Arc::clone(ledger)))
            .expect("no fault is armed");
        Self {
            pool,
            ledger: Arc::clone(ledger),
        }
    }

    fn tells(&self, lie: Lie) -> bool {
        self.ledger.plant.tells(lie)
    }

    /// The pool itself, for calls about which no lie is planted.
    pub(crate) fn pool(&self) -> &Pool<Tracked, Recycler> {
        &self.pool
    }

    pub(crate) fn try_get(&self) -> Result<Guard<'_>, TryGetError<NotNow>> {
        if self.pool.metrics().idle > 0 && self.tells(Lie::FalseEmpty) {
            return Err(TryGetError::Empty);
        }
        self.pool.try_get()
    }

    pub(crate) fn get_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Guard<'_>, GetTimeoutError<NotNow>> {
        self.pool.get_timeout(timeout)
    }

    pub(crate) fn try_get_many<'p>(
        &'p self,
        count: usize,
        batch: bool,
        into: &mut Vec<Guard<'p>>,
    ) -> Result<(), TryGetError<NotNow>> {
        if count > 0 && self.pool.metrics().idle >= count && self.tells(Lie::FalseEmptyOfMany) {
            return Err(TryGetError::Empty);
        }
        if !batch {
            return self.pool.try_get_many(count, into);
        }
        let mut all = self.pool.batch();
        all.try_get(count)?;
        into.extend(core::iter::from_fn(|| all.pop()));
        Ok(())
    }

    pub(crate) fn put_many<'p>(&'p self, guards: impl IntoIterator<Item = Guard<'p>>, batch: bool) {
        if batch {
            let mut all = self.pool.batch();
            for guard in guards {
                assert!(all.push(guard).is_ok(), "a guard of this pool");
            }
            return all.clear();
        }
        if self.pool.capacity().is_some() && self.tells(Lie::LatePut) {
            let late: Vec<_> = guards.into_iter().collect();
            return self.pool.put_many(late);
        }
        self.pool.put_many(guards);
    }

    pub(crate) fn get_async(&self) -> Get<'_, Tracked, Recycler> {
        self.pool.get_async()
    }

    /// Whether a future is to be left unpolled, as if it were not ready.
    pub(crate) fn keeps_waiting(&self) -> bool {
        self.tells(Lie::FalsePending)
    }

    pub(crate) fn lookup(&self, key: Key) -> Option<Keyed<'_, Tracked, Recycler>> {
        let found = self.pool.lookup(key);
        match &found {
            Some(_) if self.tells(Lie::LostKey) => None,
            None if self.ledger.plant.is(Lie::StaleKey) => self.pool.keyed().next(),
            _ => found,
        }
    }

    pub(crate) fn remove(&self, key: Key) -> bool {
        self.pool.remove(key) || self.ledger.plant.is(Lie::TwoRemovals)
    }

    pub(crate) fn keyed(&self) -> impl Iterator<Item = Keyed<'_, Tracked, Recycler>> {
        let left_out = usize::from(self.ledger.plant.is(Lie::ShortList));
        self.pool.keyed().skip(left_out)
    }

    pub(crate) fn trim(&self) -> usize {
        if self.tells(Lie::LazyTrim) {
            return 0;
        }
        self.pool.trim()
    }

    pub(crate) fn metrics(&self) -> Metrics {
        let mut metrics = self.pool.metrics();
        if self.tells(Lie::Figures) {
            metrics.waits += 1;
        }
        metrics
    }

    /// Drops the pool; what is left of it otherwise is returned.
    pub(crate) fn close(self) -> Option<Pool<Tracked, Recycler>> {
        if self.ledger.plant.is(Lie::Leak) {
            return Some(self.pool);
        }
        drop(self.pool);
        None
    }
}
