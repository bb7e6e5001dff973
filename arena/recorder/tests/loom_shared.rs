//! loom models of what the recorder's threads share (`src/shared.rs`).
//!
//! The library itself is empty under loom, so its file is compiled here:
//! `RUSTFLAGS="--cfg loom" cargo test --profile loom -p brickyard-recorder --test loom_shared`
#![cfg(loom)]

#[path = "../src/shared.rs"]
mod shared;
#[path = "../src/sync.rs"]
mod sync;
