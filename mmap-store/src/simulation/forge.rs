//! Forged files: what somebody wrote who knows the format, with every checksum right.
//!
//! What could go wrong: a page number, a length, a level or a bit of the free map is
//! believed, and opening, reading or writing panics, never ends, reads outside of the
//! file, or writes to a page that a reader is looking at. How it is seen: fields of a
//! sound disk are set to what hurts most, all checksums are made anew from the leaves to
//! the slots, and the disk is opened for reading and for writing, read and written to,
//! while slices that a reader holds are compared with their copies.
//!
//! The twin opens forged maps of free pages without the walk, and must see a slice change.

use core::panic::AssertUnwindSafe;

use crate::check::{Depth, check};
use crate::simulation::damage::{SHARE, open, sound};
use crate::simulation::oracle::forge::Forgery;
use crate::simulation::oracle::probe::{read_all, write_beside_reader};
use crate::simulation::oracle::random::Random;
use crate::store::Options;

/// What became of forged disks.
#[derive(Debug, Default)]
struct Outcome {
    refused: usize,
    written: usize,
    errors: usize,
    changed: usize,
}

fn forgeries(count: usize, seed: u64) -> Outcome {
    let (mut random, options) = (Random::new(seed), Options::new());
    let mut outcome = Outcome::default();
    let mut whole = Forgery::new(sound(&mut random, true).0);
    for number in 0..count {
        if number % 250 == 249 {
            whole = Forgery::new(sound(&mut random, true).0);
        }
        let mut forged = whole.clone();
        for _ in 0..1 + random.below(3) {
            forged.forge(&mut |n| random.below(n));
        }
        forged.seal();
        match open(&forged.image, &options.clone().read_only(true)) {
            Ok(store) => {
                outcome.errors += read_all(&store, &mut random);
                outcome.errors += store.check().problems.len();
            }
            Err(_) => outcome.refused += 1,
        }
        let Ok(store) = open(&forged.image, &options) else {
            outcome.refused += 1;
            continue;
        };
        outcome.written += 1;
        outcome.changed += usize::from(!write_beside_reader(&store, &mut random));
        outcome.errors += read_all(&store, &mut random);
        let nodes = check(store.shared(), Depth::Nodes);
        assert_eq!(
            nodes.problems,
            [],
            "what was opened for writing stays sound"
        );
    }
    outcome
}

#[test]
fn forged_files_give_errors_and_change_under_nobody() {
    let outcome = forgeries(3_000 / SHARE, 11);
    assert!(
        outcome.refused > 1000 / SHARE
            && outcome.written > 100 / SHARE
            && outcome.errors > 1000 / SHARE,
        "{outcome:?}"
    );
    assert_eq!(outcome.changed, 0, "{outcome:?}");
}

/// Without the walk, a map that calls live pages free changes slices under their reader,
/// if no assertion stumbles over it before.
#[test]
fn a_missing_walk_is_caught() {
    let mut random = Random::new(12);
    let mut whole = Forgery::new(sound(&mut random, true).0);
    let mut options = Options::new();
    options.sabotage.believe_files = true;
    let image = whole.image.clone();
    let mut changed = || {
        whole.image = image.clone();
        let node = whole.nodes()[random.below(whole.nodes().len())];
        whole.forge_map(&mut |n| random.below(n), node);
        whole.seal();
        let store = open(&whole.image, &options).expect("nothing looks at it");
        let write = AssertUnwindSafe(|| write_beside_reader(&store, &mut random));
        let changed = std::panic::catch_unwind(write).is_ok_and(|whole| !whole);
        // Closing moves pages about, and an assertion may stumble over the map there, too.
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| drop(store)));
        changed
    };
    assert!((0..100).any(|_| changed()), "no slice changed");
}
