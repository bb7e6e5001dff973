//! Eight threads share one heap and hand blocks to each other.
//!
//! What could go wrong and how it would show is told at the head of
//! `brickyard_fuzz::soak`. `BRICKYARD_SOAK_SECONDS` sets the duration: 2 s when
//! unset, 20 s in CI, 600 s by hand before a release.

use core::time::Duration;

use brickyard_fuzz::soak::{self, Plan};

#[test]
fn eight_threads_that_hand_blocks_around_lose_and_share_none() {
    let seconds = match std::env::var("BRICKYARD_SOAK_SECONDS") {
        Ok(text) => text
            .parse()
            .expect("BRICKYARD_SOAK_SECONDS is a number of seconds"),
        Err(_) => 2,
    };
    let seed = std::process::id().into();
    let plan = Plan {
        threads: 8,
        duration: Duration::from_secs(seconds),
        seed,
    };
    let done = soak::run(plan);
    eprintln!("{plan:?}: {done:?}");
    assert!(
        done.allocated > 0 && done.handed_over > 0,
        "the threads did nothing: {done:?}"
    );
}
