//! Runs that C's `realloc` makes longer side by side, in a heap that nothing was allocated in before.
//!
//! What could go wrong: each takes fresh memory and leaves its former places to nobody. (1.8 times what
//! lives, before runs that grow went to dirty room first; where each fits best it is 1.5.)

#![cfg(not(loom))]

use brickyard_arena::Arena;

const KIB: usize = 1 << 10;

#[test]
fn runs_that_grow_side_by_side_use_what_others_left() {
    let before = Arena::stats().committed;
    let mut len = 33 * KIB;
    let mut runs = Vec::new();
    for _ in 0..32 {
        runs.push(Arena::alloc_unsized(len, 16));
    }
    let mut most = 0;
    while len < 200 * KIB {
        len += 700;
        for run in &mut runs {
            // SAFETY: the block is in use, and the old pointer is forgotten.
            *run = unsafe { Arena::realloc_unsized(*run, len) };
            assert!(!run.is_null());
            most = most.max(Arena::stats().committed - before);
        }
    }
    for run in runs {
        // SAFETY: allocated above, and used by nobody any more.
        unsafe { Arena::dealloc_unsized(run) };
    }
    let live = 32 * len;
    assert!(most * 10 <= live * 16, "{most} bytes for {live}");
}
