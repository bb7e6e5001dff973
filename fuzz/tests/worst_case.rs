//! What a heap holds at worst, over the most that lived at once.
//!
//! What could go wrong: a policy no longer finds what was freed, and a heap grows as if nothing had
//! been. Decision 029 has the bound and what was found; here the programs that are known to be bad are
//! run, and others looked for: 15 in a debug build, and for as long as `BRICKYARD_WORST_SECONDS` says.

use core::time::Duration;

use brickyard_fuzz::worst_case::search::{Limits, run_on_heap, search};
use brickyard_fuzz::worst_case::seeds::{seeds, worst};
use brickyard_fuzz::worst_case::subject::timeless;

const MIB: usize = 1 << 20;

/// Times the budget that no program may hold, though no time passes. The worst that is known holds 10.9;
/// and for programs of Robson's kind every allocator needs 9.5 times the address space.
const MOST: f64 = 14.0;

#[test]
fn the_worst_programs_known_hold_no_more_than_they_did() {
    // The literature's at one budget: a debug build takes its time.
    let known = seeds().into_iter().map(|program| (8 * MIB, program));
    let found = worst().into_iter().map(|program| (32 * MIB, program));
    for (index, (budget, program)) in known.chain(found).enumerate() {
        let ratio = run_on_heap(&timeless(), &program, budget).ratio();
        assert!(
            ratio <= MOST,
            "program {index}: {ratio:.2} of {budget} bytes"
        );
    }
}

/// The programs are as bad as they were meant to be: were the search blind, the bound would mean
/// nothing.
#[test]
fn the_worst_program_known_is_bad() {
    let ratios = worst().into_iter();
    let ratios = ratios.map(|program| run_on_heap(&timeless(), &program, 8 * MIB).ratio());
    let worst = ratios.fold(0.0, f64::max);
    assert!(
        worst > 10.0,
        "{worst:.2}: is this still the worst? decision 029 names it"
    );
}

#[test]
fn a_search_finds_nothing_beyond_the_bound() {
    let seconds = std::env::var("BRICKYARD_WORST_SECONDS").ok();
    let seconds = seconds.map(|text| text.parse().expect("a number of seconds"));
    let limits = Limits {
        runs: if seconds.is_some() { usize::MAX } else { 15 },
        time: Duration::from_secs(seconds.unwrap_or(60)),
    };
    let found = search(&timeless(), 8 * MIB, 1, limits, |_, _| {});
    let ratio = found.outcome.ratio();
    eprintln!("the worst program holds {ratio:.2} times its budget");
    assert!(ratio <= MOST, "{ratio:.2}: {:?}", found.program);
}
