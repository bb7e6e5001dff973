//! Who waits for an object, in the order of arrival.
//!
//! Only those who found nothing come here; a get that hits never looks. A waiter is
//! granted either an idle slot or the permit to create an object; the grant is handed
//! over under the lock of the queue, so it reaches exactly one waiter, and one that gives
//! up afterwards passes it on.
//!
//! # Invariants
//!
//! - W1: a waiter is in the queue exactly while its state is `Waiting`.
//! - W2: `len` is the queue's length whenever the lock is free.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::task::Waker;

use crate::chunk::Object;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};

/// What a waiter gets, or a get that need not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// A slot with an idle object.
    Idle(NonNull<Object>),
    /// The right to create one object.
    Permit,
}

// SAFETY: a grant is the ownership of an idle slot, on its way to another thread; pools
// whose objects may not change threads are neither `Send` nor `Sync`.
unsafe impl Send for Grant {}

#[derive(Debug)]
enum State {
    /// In the queue, with whom to wake.
    Waiting(Waker),
    Granted(Grant),
    /// The grant was taken, or the waiter gave up.
    Over,
}

/// One who waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    state: Mutex<State>,
}

impl Waiter {
    /// Takes the grant, or remembers whom to wake.
    ///
    /// Cloning and dropping a waker runs foreign code, which may use the pool: not under
    /// a lock.
    pub(crate) fn poll(&self, waker: &Waker) -> Option<Grant> {
        let grant = self.take();
        if grant.is_some() || self.wakes(waker) {
            return grant;
        }
        drop(self.replace(waker.clone()));
        self.take()
    }

    fn take(&self) -> Option<Grant> {
        let mut state = self.state.lock();
        let State::Granted(grant) = *state else {
            return None;
        };
        *state = State::Over;
        Some(grant)
    }

    /// Whether a grant wakes the same as `waker`.
    fn wakes(&self, waker: &Waker) -> bool {
        matches!(&*self.state.lock(), State::Waiting(known) if known.will_wake(waker))
    }

    /// Remembers whom to wake; returns the waker that is not needed any more.
    fn replace(&self, waker: Waker) -> Waker {
        match &mut *self.state.lock() {
            State::Waiting(known) => core::mem::replace(known, waker),
            State::Granted(_) | State::Over => waker,
        }
    }
}

/// The queue. The lock comes after those of caches and before those of waiters.
#[derive(Debug)]
pub(crate) struct WaitQueue {
    len: AtomicUsize,
    waiters: Mutex<VecDeque<Arc<Waiter>>>,
}

/// The queue, locked.
pub(crate) struct Locked<'q> {
    queue: &'q WaitQueue,
    waiters: MutexGuard<'q, VecDeque<Arc<Waiter>>>,
}

impl WaitQueue {
    pub(crate) fn new() -> Self {
        Self {
            len: AtomicUsize::new(0),
            waiters: Mutex::new(VecDeque::new()),
        }
    }

    /// How many wait. Exact for who has passed a fence after giving something away: see
    /// `Shared::serve`.
    pub(crate) fn len(&self) -> usize {
        // SeqCst: pairs with the store in `Locked::join`, through the fences beside both.
        self.len.load(Ordering::SeqCst)
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked {
            queue: self,
            waiters: self.waiters.lock(),
        }
    }

    /// Takes `waiter` out of the queue. A grant that came first is returned: the caller
    /// passes it on.
    pub(crate) fn leave(&self, waiter: &Arc<Waiter>) -> Option<Grant> {
        let left = {
            let mut locked = self.lock();
            let left = core::mem::replace(&mut *waiter.state.lock(), State::Over);
            if matches!(left, State::Waiting(_)) {
                locked.waiters.retain(|other| !Arc::ptr_eq(other, waiter));
                locked.count();
            }
            left
        };
        // The waker is dropped here, where no lock is held: it may use the pool.
        match left {
            State::Granted(grant) => Some(grant),
            State::Waiting(_) | State::Over => None,
        }
    }
}

impl Locked<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// A new waiter at the end.
    pub(crate) fn join(&mut self, waker: Waker) -> Arc<Waiter> {
        let waiter = Arc::new(Waiter {
            state: Mutex::new(State::Waiting(waker)),
        });
        self.waiters.push_back(Arc::clone(&waiter));
        self.count();
        waiter
    }

    /// Gives `grant` to the first waiter, whose waker is put on `wake`: to be woken after
    /// all locks are released, for wakers run foreign code. The queue is not empty.
    pub(crate) fn grant(&mut self, grant: Grant, wake: &mut Vec<Waker>) {
        let Some(waiter) = self.waiters.pop_front() else {
            debug_assert!(false, "a grant for nobody");
            return;
        };
        self.count();
        let before = core::mem::replace(&mut *waiter.state.lock(), State::Granted(grant));
        match before {
            State::Waiting(waker) => wake.push(waker),
            other => debug_assert!(false, "W1: {other:?} in the queue"),
        }
    }

    fn count(&self) {
        // SeqCst: see `WaitQueue::len`.
        self.queue.len.store(self.waiters.len(), Ordering::SeqCst);
    }
}

/// Wakes all, also if one of them panics: each has a grant that nobody else will use. A
/// second panic aborts.
pub(crate) fn wake_all(wake: Vec<Waker>) {
    struct Rest(alloc::vec::IntoIter<Waker>);
    impl Drop for Rest {
        fn drop(&mut self) {
            self.0.by_ref().for_each(Waker::wake);
        }
    }
    let mut rest = Rest(wake.into_iter());
    rest.0.by_ref().for_each(Waker::wake);
}
