//! Eight threads share one heap, or three pools, and hand over what they got.
//!
//! What could go wrong and how it would show is told at the heads of
//! `brickyard_fuzz::soak` and `brickyard_fuzz::pool_soak`. `BRICKYARD_SOAK_SECONDS` sets the
//! duration of each: 2 s when unset, 20 s in CI, 600 s by hand before a release.

use core::time::Duration;
use std::sync::Mutex;

use brickyard_fuzz::poison::PoisonedRanges;
use brickyard_fuzz::pool_soak;
use brickyard_fuzz::soak::{self, Plan};

/// One at a time, each with the whole machine.
static ONE_SOAK: Mutex<()> = Mutex::new(());

fn plan() -> Plan {
    let seconds = match std::env::var("BRICKYARD_SOAK_SECONDS") {
        Ok(text) => text
            .parse()
            .expect("BRICKYARD_SOAK_SECONDS is a number of seconds"),
        Err(_) => 2,
    };
    Plan {
        threads: 8,
        duration: Duration::from_secs(seconds),
        seed: std::process::id().into(),
        hardened: false,
    }
}

#[test]
fn eight_threads_that_hand_blocks_around_lose_and_share_none() {
    let _one = ONE_SOAK.lock();
    let plan = plan();
    let done = soak::run(plan);
    eprintln!("{plan:?}: {done:?}");
    assert!(
        done.allocated > 0 && done.handed_over > 0,
        "the threads did nothing: {done:?}"
    );
}

#[test]
fn eight_threads_on_a_hardened_heap_lose_and_share_none() {
    let _one = ONE_SOAK.lock();
    let plan = Plan {
        hardened: !PoisonedRanges::enabled(),
        ..plan()
    };
    let done = soak::run(plan);
    assert!(
        done.allocated > 0 && done.handed_over > 0,
        "the threads did nothing: {done:?}"
    );
}

#[test]
fn eight_threads_that_hand_objects_around_lose_and_share_none() {
    let _one = ONE_SOAK.lock();
    let plan = plan();
    let done = pool_soak::run(plan);
    eprintln!("{plan:?}: {done:?}");
    assert!(
        done.gets > 0 && done.handed_over > 0 && done.waits > 0 && done.faults > 0,
        "the threads did nothing: {done:?}"
    );
}
