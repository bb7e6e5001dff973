//! The oracle of the store finds every defect that it is there for.
//!
//! What could go wrong: a comparison looks at the wrong thing, or is never reached, and a
//! clean run means nothing. So each lie of `brickyard_fuzz::store_lies` is planted into
//! programs that an honest store passes, until one is reported in the words that belong to it.

use brickyard_fuzz::store_lies::Lie;
use brickyard_fuzz::{store_ops, store_strategy};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

/// Programs a lie may hide in before it counts as not found.
const PROGRAMS: usize = 200;

#[test]
fn every_planted_lie_is_reported_and_nothing_else() {
    // From a fixed seed.
    let mut runner = TestRunner::deterministic();
    let programs: Vec<_> = (0..PROGRAMS)
        .map(|_| {
            let tree = store_strategy::program(200).new_tree(&mut runner);
            tree.expect("a program").current()
        })
        .collect();
    let mut unfound = Vec::new();
    for (lie, words) in Lie::ALL {
        let mut others = Vec::new();
        let found = programs.iter().position(|(setup, ops)| {
            let Err(failure) = store_ops::run_ops(*setup, ops, lie) else {
                return false;
            };
            let told = failure.contains(words);
            if !told {
                others.push(failure.lines().next().unwrap_or("").to_owned());
            }
            told
        });
        match found {
            Some(number) => eprintln!("{lie:?}: found by program {number}; else {others:?}"),
            None => unfound.push((lie, others)),
        }
    }
    assert!(unfound.is_empty(), "not reported: {unfound:#?}");
    for (setup, ops) in &programs {
        if let Err(failure) = store_ops::run_ops(*setup, ops, Lie::Honest) {
            panic!("an honest store, {setup:?}, {ops:#?}: {failure}");
        }
    }
}
