//! Target `pool_ops`: any program, any pool.

use core::panic::AssertUnwindSafe;
use core::sync::atomic::Ordering::SeqCst;
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::thread;

use arbitrary::{Arbitrary, Unstructured};
use brickyard_pool::{Builder, Pool};

use crate::pool_driver::{Driver, Leftovers};
use crate::pool_lies::{Lie, Subject};
use crate::pool_object::{Ledger, Planted};
use crate::pool_op::{Op, Setup};
pub use crate::pool_promise::Failure;
use crate::pool_promise::{promise, promise_eq};
use crate::pool_threads::Threads;

/// Steps of one input; a longer one would be slow and teach nothing new.
const MAX_STEPS: usize = 300;

/// Runs the program that `data` encodes.
///
/// # Panics
///
/// Panics when the pool breaks a promise.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(setup) = Setup::arbitrary(&mut input) else {
        return;
    };
    let mut ops = Vec::new();
    while !input.is_empty() && ops.len() < MAX_STEPS {
        match Op::arbitrary(&mut input) {
            Ok(op) => ops.push(op),
            Err(_) => break,
        }
    }
    if let Err(failure) = run_ops(setup, &ops, Lie::Honest) {
        panic!("{setup:?}, program: {ops:#?}\n{failure}");
    }
}

/// Runs a program on a new pool, drops the pool under the guards that are left, and checks
/// that nothing remains. With a [`Lie`] the pool is not itself.
///
/// # Errors
///
/// The first promise that the pool breaks.
pub fn run_ops(setup: Setup, ops: &[Op], lie: Lie) -> Result<(), Failure> {
    let capacity = setup.bound.capacity();
    let ledger = Ledger::new(capacity, lie);
    let pool = Subject::new(&builder(setup, lie), &ledger);
    let leftovers = thread::scope(|scope| {
        let mut driver = Driver::new(Threads::new(scope), &pool, capacity, &ledger);
        let ended = catch_unwind(AssertUnwindSafe(|| {
            driver.check();
            for op in ops {
                driver.step(op);
            }
            driver.finish()
        }));
        // Whatever is still held is returned without a fault.
        ledger.disarm();
        ended
    });
    leftovers
        .and_then(|left| catch_unwind(AssertUnwindSafe(|| close(setup, pool, &ledger, left))))
        .map_err(|payload| Failure::of(&*payload))
}

fn builder(setup: Setup, lie: Lie) -> Builder {
    let surplus = usize::from(lie == Lie::OverTheBound);
    let mut builder = Pool::builder()
        .capacity(setup.bound.capacity().saturating_add(surplus))
        .prewarm(usize::from(setup.prewarm))
        .track_holders(setup.tracks)
        .name("fuzz");
    if let Some(retain) = setup.retain {
        builder = builder.retain(usize::from(retain));
    }
    if setup.decays {
        builder = builder.idle_decay(Duration::from_micros(1));
    }
    builder
}

/// Promises 4 and 8: a third of the guards comes back first, then the pool goes, then the
/// rest comes back on two threads.
fn close(setup: Setup, pool: Subject, ledger: &Arc<Ledger>, leftovers: Leftovers) {
    let Leftovers { held, forgotten } = leftovers;
    let returns = held.len() as u64;
    let resets = ledger.resets.load(SeqCst);
    let mut thirds = [const { Vec::new() }; 3];
    for (number, guard) in held.into_iter().enumerate() {
        thirds[number % 3].push(guard);
    }
    let [early, here, there] = thirds;
    drop(early);
    ledger.arm_drop(setup.panics_at_close);
    let closed = catch_unwind(AssertUnwindSafe(|| pool.close()));
    let struck = !ledger.disarm() && setup.panics_at_close;
    let kept = match closed {
        Ok(kept) => {
            promise!(!struck, "a planted panic at close was lost");
            kept
        }
        Err(payload) if payload.is::<Planted>() => {
            promise!(struck);
            None
        }
        Err(payload) => std::panic::resume_unwind(payload),
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| drop(there));
        drop(here);
        // For its destructors, too.
        promise!(other.join().is_ok(), "a return after the close panicked");
    });
    if let Some(violation) = ledger.violation() {
        promise!(false, "{violation}");
    }
    let resets = ledger.resets.load(SeqCst) - resets;
    promise_eq!(resets, returns, "calls of reset");
    promise_eq!(
        ledger.live.load(SeqCst),
        forgotten.len(),
        "objects leaked, of those that exist"
    );
    drop(forgotten);
    promise_eq!(ledger.live.load(SeqCst), 0, "objects leaked");
    let users = Arc::strong_count(ledger);
    promise_eq!(users, 1, "the pool's own memory leaked");
    drop(kept);
}
