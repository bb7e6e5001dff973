//! Stub doc.
#![deny(unsafe_code)]
#![cfg_attr(loom, expect(dead_code, reason = "only the protocols between threads are modelled"))]

mod units;
mod bitmap;
mod size_class;
mod purge;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "system calls")]
mod os;
#[expect(unsafe_code, reason = "the lock lends what it protects")]
mod sync;
#[cfg(not(loom))]
mod fatal;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "system calls")]
mod faults;
#[expect(unsafe_code, reason = "leaves")]
mod page_map;
mod tally;
#[expect(unsafe_code, reason = "x")]
mod span;
#[expect(unsafe_code, reason = "x")]
mod central;
#[cfg(all(test, loom))]
#[expect(unsafe_code, reason = "x")]
mod models;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "x")]
mod segment;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "x")]
mod page_heap;
#[cfg(not(loom))]
mod big;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "x")]
mod thread_cache;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "x")]
mod cache_store;
#[cfg(not(loom))]
mod stats;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "x")]
mod heap_core;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "x")]
mod large;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "x")]
mod reclaim;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "x")]
mod snapshot;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "x")]
mod tls;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "x")]
mod process;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "x")]
mod global;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "x")]
mod heap;

#[cfg(not(loom))]
pub use faults::FaultPlan;
#[cfg(not(loom))]
pub use global::Arena;
#[cfg(not(loom))]
pub use heap::{Heap, HeapCache, HeapError};
#[cfg(not(loom))]
pub use snapshot::Violation;
#[cfg(not(loom))]
pub use stats::{ClassStats, Stats};
