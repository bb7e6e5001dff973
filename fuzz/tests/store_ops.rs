//! Any program for a store, under proptest, which shrinks what fails.
//!
//! The promises are listed at the head of `brickyard_fuzz::store_ops`.

use brickyard_fuzz::store_lies::Lie;
use brickyard_fuzz::{store_ops, store_strategy};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_program_finds_the_store_as_it_promises((setup, ops) in store_strategy::program(250)) {
        if let Err(failure) = store_ops::run_ops(setup, &ops, Lie::Honest) {
            return Err(TestCaseError::fail(failure));
        }
    }
}
