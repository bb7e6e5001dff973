//! Runs a program on a pool, beside an oracle that counts.
//!
//! The promises, checked at every step:
//!
//! 1. No object has two users, and none is dropped twice ([`Tracked`]).
//! 2. Objects that exist, and permits to create one, never exceed the bound.
//! 3. A get fails only if the bound is reached and nothing is idle anywhere, or what is idle
//!    is promised to those who wait.
//! 4. `reset` is called exactly once a return, and never otherwise.
//! 5. Who waits is granted what comes free, in the order of arrival, and woken once.
//! 6. The pool's figures are the oracle's.
//! 7. At the end only what was forgotten is left, and after that nothing.
//!
//! [`Tracked`]: crate::pool_object::Tracked

use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::task::{Wake, Waker};

use brickyard_pool::{DropReason, Get, Pool, Pooled, PooledOwned};

use crate::op::Pick;
use crate::pool_object::{Ledger, Recycler, Tracked};
use crate::pool_threads::Threads;

/// The pool under test.
pub type Subject = Pool<Tracked, Recycler>;
/// A guard that may outlive the pool.
pub type Owned = PooledOwned<Tracked, Recycler>;

/// An object in the program's hands.
#[derive(Debug)]
pub(crate) enum Held<'p> {
    Borrowed(Pooled<'p, Tracked, Recycler>),
    Owned(Owned),
}

impl Held<'_> {
    pub(crate) fn object(&self) -> &Tracked {
        match self {
            Self::Borrowed(guard) => guard,
            Self::Owned(guard) => guard,
        }
    }

    pub(crate) fn discard(self) {
        match self {
            Self::Borrowed(guard) => guard.discard(),
            Self::Owned(guard) => guard.discard(),
        }
    }

    pub(crate) fn detach(self) -> Tracked {
        match self {
            Self::Borrowed(guard) => guard.detach(),
            Self::Owned(guard) => guard.detach(),
        }
    }

    pub(crate) fn into_owned(self) -> Owned {
        match self {
            Self::Borrowed(guard) => guard.into_owned(),
            Self::Owned(guard) => guard,
        }
    }
}

/// Counts how often a future was woken.
#[derive(Debug, Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// What a waiting future has been given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    Nothing,
    Idle,
    Permit,
}

/// A future in the queue, or out of it with a grant.
#[derive(Debug)]
pub(crate) struct Waiting<'p> {
    pub(crate) future: Get<'p, Tracked, Recycler>,
    pub(crate) wakes: Arc<Wakes>,
    pub(crate) given: Given,
}

impl Waiting<'_> {
    pub(crate) fn waker(wakes: &Arc<Wakes>) -> Waker {
        Waker::from(Arc::clone(wakes))
    }
}

/// What the ledger said before a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    pub(crate) created: u64,
    pub(crate) dropped: u64,
    pub(crate) resets: u64,
}

/// See the module. The steps are in `pool_steps`.
#[derive(Debug)]
pub struct Driver<'s, 'p> {
    pub(crate) threads: Threads<'s, 'p>,
    pub(crate) pool: &'p Subject,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) capacity: usize,
    pub(crate) held: Vec<Held<'p>>,
    pub(crate) forgotten: Vec<Owned>,
    /// In order of arrival.
    pub(crate) waiting: Vec<Waiting<'p>>,
    pub(crate) attached: u64,
    pub(crate) gets: u64,
    pub(crate) waits: u64,
    /// Drops that the program caused, by reason.
    pub(crate) panicked: u64,
    pub(crate) discarded: u64,
    pub(crate) detached: u64,
    pub(crate) not_kept: u64,
}

impl<'s, 'p> Driver<'s, 'p> {
    /// A driver for a new pool.
    #[must_use]
    pub fn new(
        threads: Threads<'s, 'p>,
        pool: &'p Subject,
        capacity: usize,
        ledger: &Arc<Ledger>,
    ) -> Self {
        Self {
            threads,
            pool,
            ledger: Arc::clone(ledger),
            capacity,
            held: Vec::new(),
            forgotten: Vec::new(),
            waiting: Vec::new(),
            attached: 0,
            gets: 0,
            waits: 0,
            panicked: 0,
            discarded: 0,
            detached: 0,
            not_kept: 0,
        }
    }

    pub(crate) fn live(&self) -> usize {
        self.ledger.live.load(SeqCst)
    }

    pub(crate) fn granted(&self, given: Given) -> usize {
        self.waiting.iter().filter(|one| one.given == given).count()
    }

    /// Idle objects that are nobody's.
    pub(crate) fn idle(&self) -> usize {
        let taken = self.held.len() + self.forgotten.len() + self.granted(Given::Idle);
        self.live()
            .checked_sub(taken)
            .expect("more are held than exist")
    }

    /// Objects that may still be created.
    pub(crate) fn free_permits(&self) -> usize {
        let used = self.live() + self.granted(Given::Permit);
        self.capacity
            .checked_sub(used)
            .expect("more than the bound")
    }

    /// Whether somebody waits for whom nothing came yet.
    pub(crate) fn is_queued(&self) -> bool {
        self.granted(Given::Nothing) > 0
    }

    /// Objects that gets may have now, at most.
    pub(crate) fn obtainable(&self) -> usize {
        if self.is_queued() {
            return 0;
        }
        self.idle().saturating_add(self.free_permits())
    }

    pub(crate) fn before(&self) -> Before {
        Before {
            created: self.ledger.created.load(SeqCst),
            dropped: self.ledger.dropped.load(SeqCst),
            resets: self.ledger.resets.load(SeqCst),
        }
    }

    pub(crate) fn created_since(&self, before: Before) -> u64 {
        self.before().created - before.created
    }

    pub(crate) fn dropped_since(&self, before: Before) -> u64 {
        self.before().dropped - before.dropped
    }

    pub(crate) fn expect_resets(&self, before: Before, resets: usize) {
        assert_eq!(
            self.before().resets - before.resets,
            resets as u64,
            "calls of reset"
        );
    }

    /// A place came free, with or without an object: the first in the queue has it.
    pub(crate) fn give(&mut self, what: Given) {
        let first = self
            .waiting
            .iter_mut()
            .find(|one| one.given == Given::Nothing);
        if let Some(first) = first {
            first.given = what;
        }
    }

    /// As [`Driver::give`], where the pool chooses whether to keep the object.
    pub(crate) fn give_returned(&mut self, before: Before) {
        let kept = self.dropped_since(before) == 0;
        self.give(if kept { Given::Idle } else { Given::Permit });
    }

    pub(crate) fn pick_held(&mut self, pick: Pick) -> Option<Held<'p>> {
        let index = pick.index(self.held.len())?;
        Some(self.held.remove(index))
    }

    pub(crate) fn take_hold(&mut self, held: Held<'p>) {
        held.object().begin_use();
        self.held.push(held);
    }

    /// Promises 2, 5 and 6.
    pub(crate) fn check(&self) {
        let metrics = self.pool.metrics();
        let ledger = self.before();
        let unborn = self.ledger.unborn.load(SeqCst);
        assert_eq!(
            metrics.live,
            self.live() + self.granted(Given::Permit),
            "live"
        );
        assert!(metrics.live <= self.capacity);
        assert_eq!(metrics.idle, self.idle(), "idle");
        assert_eq!(metrics.in_use, metrics.live - metrics.idle, "in use");
        assert_eq!(metrics.created, ledger.created - unborn, "created");
        let dropped = metrics.dropped;
        assert_eq!(dropped.total(), ledger.dropped - unborn, "dropped");
        assert_eq!(dropped.by(DropReason::Panicked), self.panicked);
        assert_eq!(dropped.by(DropReason::Discarded), self.discarded);
        assert_eq!(dropped.by(DropReason::Detached), self.detached);
        assert_eq!(
            dropped.by(DropReason::Broken) + dropped.by(DropReason::Expired),
            self.not_kept
        );
        assert_eq!(metrics.waits, self.waits, "waits");
        assert!(
            metrics.hits + metrics.misses <= self.gets,
            "hits and misses"
        );
        for (place, one) in self.waiting.iter().enumerate() {
            let wakes = one.wakes.0.load(SeqCst);
            let expected = usize::from(one.given != Given::Nothing);
            assert_eq!(
                wakes, expected,
                "wakes of the future at {place}, {:?}",
                one.given
            );
        }
        if self.is_queued() {
            assert_eq!(
                (self.idle(), self.free_permits()),
                (0, 0),
                "somebody waits for nothing"
            );
        }
    }

    /// Ends the program: the threads exit, and guards go where the pool is dropped first.
    pub fn finish(mut self) -> Leftovers {
        while let Some(one) = self.waiting.pop() {
            drop(one);
        }
        let held = self.held.into_iter().map(Held::into_owned).collect();
        Leftovers {
            held,
            forgotten: self.forgotten,
        }
    }
}

/// What outlives the pool.
#[derive(Debug)]
pub struct Leftovers {
    /// Guards that come back late.
    pub held: Vec<Owned>,
    /// Guards that the program forgot; kept, to give their memory back.
    pub forgotten: Vec<Owned>,
}
