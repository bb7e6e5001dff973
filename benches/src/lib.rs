//! What the command `brickyard` and the benches of this package share: the object pools
//! and the stores under test and the work they are given.

#![deny(unsafe_code)]

pub mod boxes;
pub mod pools;
pub mod stores;
