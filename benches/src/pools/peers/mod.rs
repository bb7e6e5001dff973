//! Adapters for other pools, all of them Rust.

pub(crate) mod queues;
pub(crate) mod slabs;
