//! Runs the bodies of the fuzz targets on their corpus and on seeds, on stable
//! Rust, so that what fuzzing has found stays found on every machine.

use core::panic::AssertUnwindSafe;
use std::collections::BTreeSet;
use std::panic::catch_unwind;

use brickyard_fuzz::store_oracle::op::Op;
use brickyard_fuzz::{arena_faults, arena_ops, pool_ops, replay, store_file, store_ops};

/// Inputs from seeds beside the corpus.
const SEEDS: u64 = if cfg!(debug_assertions) { 40 } else { 200 };

#[test]
fn arena_ops_holds_on_corpus_and_seeds() {
    replay_all("arena_ops", arena_ops::run);
}

#[test]
fn arena_faults_holds_on_corpus_and_seeds() {
    replay_all("arena_faults", arena_faults::run);
}

#[test]
fn pool_ops_holds_on_corpus_and_seeds() {
    replay_all("pool_ops", pool_ops::run);
}

#[test]
fn store_ops_holds_on_corpus_and_seeds() {
    replay_all("store_ops", store_ops::run);
}

#[test]
fn store_file_holds_on_corpus_and_seeds() {
    replay_all("store_file", store_file::run);
}

#[test]
fn the_corpus_of_stores_has_every_operation_that_writes() {
    let files = replay::corpus("store_ops").expect("a readable corpus");
    let ops = files
        .iter()
        .flat_map(|(_, content)| store_ops::program(content).1);
    let kinds: BTreeSet<String> = ops.map(|op| op.kind()).collect();
    for kind in Op::WRITING {
        assert!(kinds.contains(kind), "no {kind}: write the seeds anew");
    }
}

fn replay_all(target: &str, body: fn(&[u8])) {
    let files = replay::corpus(target).expect("a readable corpus");
    assert!(
        files.len() >= 20,
        "the corpus of {target} has {} files only",
        files.len()
    );
    for (path, content) in files {
        expect_quiet(&path.display().to_string(), body, &content);
    }
    for seed in 0..SEEDS {
        expect_quiet(&format!("seed {seed}"), body, &replay::seeded(seed));
    }
}

/// Names the input when the body panics on it.
fn expect_quiet(name: &str, body: fn(&[u8]), input: &[u8]) {
    let result = catch_unwind(AssertUnwindSafe(|| body(input)));
    assert!(result.is_ok(), "a promise was broken on {name}; see above");
}
