//! How many instructions do the arena's, the pool's and the store's common calls take?
//!
//! The gate, `cargo run --release -p brickyard-bench --bin instructions`, fails when one takes
//! more than its limit: time depends on the machine and its load, this count does not. The
//! program runs itself under callgrind with `n` and with `2n` turns and divides the difference by
//! `n` ([`count`]): start, end and the first object cancel out, what is done every few thousand
//! turns is in it by its share. [`gate`] has the limits, [`arena`], [`c_library`], [`pool`]
//! and [`store`] the loops. Without valgrind it says so and passes.

#![deny(unsafe_code)]

#[expect(unsafe_code, reason = "gives the arena layouts of its own")]
mod arena;
#[expect(unsafe_code, reason = "calls malloc and its companions")]
mod c_library;
mod count;
mod gate;
mod pool;
mod store;

use core::time::Duration;
use std::process::ExitCode;

use brickyard_arena::Arena;

/// Memory stays with the heap while a program runs: else what the store's growing buffers cost
/// before the count would depend on how fast the machine is.
#[global_allocator]
static GLOBAL: Arena = Arena::builder().decay(Duration::MAX).build();

pub(crate) fn main() -> ExitCode {
    gate::main()
}
