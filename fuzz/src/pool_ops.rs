//! Target `pool_ops`: any program, any pool.

use core::sync::atomic::Ordering::SeqCst;
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread;

use arbitrary::{Arbitrary, Unstructured};
use brickyard_pool::Pool;

use crate::pool_driver::{Driver, Leftovers, Subject};
use crate::pool_object::{Ledger, Planted, Recycler};
use crate::pool_op::{Op, Setup};
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
    run_ops(setup, &ops);
}

/// Runs a program on a new pool, drops the pool under the guards that are left, and checks
/// that nothing remains.
///
/// # Panics
///
/// Panics when the pool breaks a promise; the message ends with the program so far.
pub fn run_ops(setup: Setup, ops: &[Op]) {
    let capacity = setup.bound.capacity();
    let ledger = Ledger::new(capacity);
    let pool = build(setup, &ledger);
    let leftovers = thread::scope(|scope| {
        let threads = Threads::new(scope);
        let mut driver = Driver::new(threads, &pool, capacity, &ledger);
        driver.check();
        for (number, op) in ops.iter().enumerate() {
            let step = catch_unwind(AssertUnwindSafe(|| driver.step(op)));
            if let Err(payload) = step {
                eprintln!(
                    "{setup:?}, failed at the last step of {:#?}",
                    &ops[..=number]
                );
                resume_unwind(payload);
            }
        }
        driver.finish()
    });
    close(setup, pool, &ledger, leftovers);
}

fn build(setup: Setup, ledger: &Arc<Ledger>) -> Subject {
    let mut builder = Pool::builder()
        .capacity(setup.bound.capacity())
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
        .build_with(Recycler(Arc::clone(ledger)))
        .expect("no fault is armed")
}

/// Promises 4 and 7: a third of the guards comes back first, then the pool goes, then the
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
    let closed = catch_unwind(AssertUnwindSafe(|| drop(pool)));
    let struck = !ledger.disarm() && setup.panics_at_close;
    match closed {
        Ok(()) => assert!(!struck),
        Err(payload) => assert!(struck && payload.is::<Planted>()),
    }
    thread::scope(|scope| {
        scope.spawn(|| drop(there));
        drop(here);
    });
    assert_eq!(
        ledger.resets.load(SeqCst) - resets,
        returns,
        "calls of reset"
    );
    assert_eq!(ledger.live.load(SeqCst), forgotten.len(), "objects leaked");
    drop(forgotten);
    assert_eq!(ledger.live.load(SeqCst), 0, "objects leaked");
    assert_eq!(Arc::strong_count(ledger), 1, "the pool's own memory leaked");
}
