//! Any program for a heap, under proptest, which shrinks what fails.
//!
//! The promises are listed at the head of `brickyard_fuzz::shadow` and of
//! `brickyard_fuzz::census`. A failure prints the shortest program that proptest
//! could find.

use brickyard_fuzz::{arena_ops, strategy};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_program_gets_what_it_asked_for(ops in strategy::ops(200)) {
        if let Err(failure) = arena_ops::run_ops(&ops) {
            return Err(TestCaseError::fail(failure.to_string()));
        }
    }

    #[test]
    fn every_program_gets_what_it_asked_for_of_a_hardened_heap(ops in strategy::ops(200)) {
        if let Err(failure) = arena_ops::run_ops_hardened(&ops) {
            return Err(TestCaseError::fail(failure.to_string()));
        }
    }
}
