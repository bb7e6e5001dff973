//! loom models of the protocols between threads, a file for each kind of hazard.
//!
//! One model a hazard, named as a claim, each with twins in which one step is left out
//! ([`Step`](crate::sync::Step)) or done in another order: a twin shows that the model
//! would see it.

mod asking;
mod checkpoints;
mod cleaner;
mod committers;
mod cut;
mod guarded;
mod readers;
mod world;

use crate::ids::Child;
use crate::versions::Version;

/// Two versions, each with a root page of its own.
const OLD: u64 = 1;
const NEW: u64 = 2;

/// A version in the page of its number.
fn version(txn: u64) -> Version {
    version_at(txn, u32::try_from(txn).expect("small"))
}

fn version_at(txn: u64, page: u32) -> Version {
    Version {
        txn,
        root: Child { page, crc: page },
    }
}

/// What the threads of a model share. Never dropped: a model that fails must not run
/// destructors that loom hears of.
fn leaked<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}
