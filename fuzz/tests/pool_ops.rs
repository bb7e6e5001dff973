//! Any program for a pool, under proptest, which shrinks what fails.
//!
//! The promises are listed at the head of `brickyard_fuzz::pool_driver`.

use brickyard_fuzz::pool_lies::Lie;
use brickyard_fuzz::{pool_ops, pool_strategy};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_program_finds_the_pool_as_it_promises((setup, ops) in pool_strategy::program(150)) {
        if let Err(failure) = pool_ops::run_ops(setup, &ops, Lie::Honest) {
            return Err(TestCaseError::fail(failure.to_string()));
        }
    }
}
