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
//! 6. A key leads to its object until it is removed, once, and the object stays for who looks
//!    at it.
//! 7. The pool's figures are the oracle's.
//! 8. At the end only what was forgotten is left, and after that nothing.
//!
//! [`Tracked`]: crate::pool_object::Tracked

use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use core::task::Waker;
use std::sync::Arc;
use std::task::Wake;

use brickyard_pool::{DropReason, Get, PooledOwned};

use crate::op::Pick;
use crate::pool_keys::Keys;
use crate::pool_lies::{Guard, Lie, Subject};
use crate::pool_object::{Ledger, Recycler, Tracked};
use crate::pool_op::{On, PutFault};
use crate::pool_promise::{promise, promise_eq};
use crate::pool_threads::Threads;

/// A guard that may outlive the pool.
pub type Owned = PooledOwned<Tracked, Recycler>;

/// An object in the program's hands.
#[derive(Debug)]
pub(crate) enum Held<'p> {
    Borrowed(Guard<'p>),
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
            Self::Borrowed(guard) => guard.discard(DropReason::Discarded),
            Self::Owned(guard) => guard.discard(DropReason::Discarded),
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

/// Counts how often a future was woken; or, for [`Lie::LostWake`], does not.
#[derive(Debug)]
pub(crate) struct Wakes {
    count: AtomicUsize,
    deaf: bool,
}

impl Wakes {
    pub(crate) fn new(ledger: &Ledger) -> Arc<Self> {
        Arc::new(Self {
            count: AtomicUsize::new(0),
            deaf: ledger.plant.is(Lie::LostWake),
        })
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.count.fetch_add(usize::from(!self.deaf), SeqCst);
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
    pub(crate) resets_unused: u64,
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
    pub(crate) keys: Keys<'p>,
    pub(crate) gets: u64,
    pub(crate) waits: u64,
    /// Objects that were made elsewhere.
    pub(crate) attached: u64,
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
            keys: Keys::default(),
            gets: 0,
            waits: 0,
            attached: 0,
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
        let held = self.held.len() + self.forgotten.len() + self.keys.objects();
        let taken = held + self.granted(Given::Idle);
        promise!(taken <= self.live(), "more are held than exist");
        self.live() - taken
    }

    /// Objects that may still be created.
    pub(crate) fn free_permits(&self) -> usize {
        let used = self.live() + self.granted(Given::Permit);
        promise!(used <= self.capacity, "more than the bound");
        self.capacity - used
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
            resets_unused: self.ledger.resets_unused.load(SeqCst),
        }
    }

    pub(crate) fn created_since(&self, before: Before) -> u64 {
        self.before().created - before.created
    }

    pub(crate) fn dropped_since(&self, before: Before) -> u64 {
        self.before().dropped - before.dropped
    }

    /// Promise 4, for this many returns of objects that somebody used.
    pub(crate) fn expect_resets(&self, before: Before, returns: usize) {
        let now = self.before();
        promise_eq!(now.resets - before.resets, returns as u64, "calls of reset");
        let unused = now.resets_unused - before.resets_unused;
        promise_eq!(unused, 0, "resets of what nobody used");
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

    /// Promises 1, 2, 5 and 7.
    pub(crate) fn check(&self) {
        if let Some(violation) = self.ledger.violation() {
            promise!(false, "{violation}");
        }
        let metrics = self.pool.metrics();
        let ledger = self.before();
        let unborn = self.ledger.unborn.load(SeqCst);
        promise_eq!(
            metrics.live,
            self.live() + self.granted(Given::Permit),
            "live"
        );
        promise!(metrics.live <= self.capacity);
        promise_eq!(metrics.idle, self.idle(), "idle");
        promise_eq!(metrics.in_use, metrics.live - metrics.idle, "in use");
        let created = ledger.created - unborn + self.attached;
        promise_eq!(metrics.created, created, "created");
        let dropped = metrics.dropped;
        promise_eq!(dropped.total(), ledger.dropped - unborn, "dropped");
        promise_eq!(dropped.by(DropReason::Panicked), self.panicked);
        promise_eq!(dropped.by(DropReason::Discarded), self.discarded);
        promise_eq!(dropped.by(DropReason::Detached), self.detached);
        promise_eq!(
            dropped.by(DropReason::Broken) + dropped.by(DropReason::Expired),
            self.not_kept
        );
        promise_eq!(metrics.waits, self.waits, "waits");
        promise!(
            metrics.hits + metrics.misses <= self.gets,
            "hits and misses"
        );
        for (place, one) in self.waiting.iter().enumerate() {
            let wakes = one.wakes.count.load(SeqCst);
            let expected = usize::from(one.given != Given::Nothing);
            promise_eq!(
                wakes,
                expected,
                "wakes of the future at {place}, {:?}",
                one.given
            );
        }
        if self.is_queued() {
            promise_eq!(
                (self.idle(), self.free_permits()),
                (0, 0),
                "somebody waits for nothing"
            );
        }
    }

    /// Ends the program: who waits or looks gives up, and guards go where the pool is dropped
    /// first.
    pub fn finish(&mut self) -> Leftovers {
        while !self.waiting.is_empty() {
            self.drop_wait(On(0), Pick::Newest);
            self.check();
        }
        while self.keys.has_readers() {
            self.leave(On(1), Pick::Oldest, PutFault::None);
            self.check();
        }
        let held = core::mem::take(&mut self.held);
        Leftovers {
            held: held.into_iter().map(Held::into_owned).collect(),
            forgotten: core::mem::take(&mut self.forgotten),
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
