//! What threads asked for, kept so that counting costs one addition and no sharing.
//!
//! Each thread adds to an account of its own; the sum over the accounts of all threads,
//! the exited ones included, is what the program holds. A block that one thread allocates
//! and another frees makes one account rise and the other fall, below zero even: sums
//! wrap, and only their total means something.
//!
//! Invariants:
//! - A1: only the owning thread writes an account, until it settles.
//! - A2: a thread settles under the lock under which totals are made, so that each of its
//!   additions is counted once: in its account or in what was settled.

use crate::sync::{AtomicUsize, Ordering};

/// One thread's sum.
#[derive(Debug)]
pub(crate) struct Account(AtomicUsize);

impl Account {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    #[cfg(loom)]
    fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Adds `bytes`; the owning thread only.
    #[inline(always)]
    pub(crate) fn credit(&self, bytes: usize) {
        // Relaxed: a number for statistics; only the owner writes (A1), so the load and
        // the store need not be one operation.
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(bytes);
        self.0.store(sum, Ordering::Relaxed);
    }

    /// The sum; any thread. Exact under the lock of A2 when the owner is quiet.
    pub(crate) fn read(&self) -> usize {
        // Relaxed: a number. Who wants totals to add up holds the lock of A2, which
        // orders this against `settle`.
        self.0.load(Ordering::Relaxed)
    }

    /// Moves the sum to `settled`, under the lock of A2; the owner is done with it.
    pub(crate) fn settle(&self, settled: &mut usize) {
        *settled = settled.wrapping_add(self.read());
        // Relaxed: as in `read`.
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::sync::Lock;
    use loom::sync::Arc;

    struct Store {
        settled: Lock<usize>,
        account: Account,
    }

    fn model(exit: fn(&Store)) {
        loom::model(move || {
            let store = Arc::new(Store {
                settled: Lock::new(5),
                account: Account::new(),
            });
            store.account.credit(7);
            let thread = {
                let store = Arc::clone(&store);
                loom::thread::spawn(move || exit(&store))
            };
            let total = store
                .settled
                .with(|settled| *settled + store.account.read());
            assert_eq!(total, 12, "a thread that exits is counted once");
            thread.join().unwrap();
        });
    }

    /// Statistics are taken while a thread exits: what it asked for must be in the total
    /// once, neither lost nor doubled.
    #[test]
    fn loom_an_exiting_thread_is_counted_once() {
        model(|store| store.settled.with(|settled| store.account.settle(settled)));
    }

    /// The same with an exit that clears the account after it released the lock.
    #[test]
    #[should_panic(expected = "counted once")]
    fn loom_settling_in_two_steps_is_caught() {
        model(|store| {
            let mut sum = 0;
            store
                .settled
                .with(|settled| *settled += store.account.read());
            store.account.settle(&mut sum);
        });
    }
}
