//! One oracle, many drivers.
//!
//! The suite's allocator is checked by programs for it: lists of [`op::Op`].
//! They come from libFuzzer (bytes), from proptest (strategies), from seeds and
//! from a corpus, and all run beside the same oracle, [`shadow::Shadow`], that
//! knows what the program holds:
//!
//! ```text
//!   bytes, seeds ──arbitrary──┐             ┌── Heap, four HeapCaches
//!                             ├─► [Op] ─► Driver
//!   proptest ─────strategy────┘             └── Shadow (addresses, contents)
//! ```
//!
//! | target | what it adds | body |
//! |---|---|---|
//! | `arena_ops` | nothing | [`arena_ops::run`] |
//! | `arena_faults` | the n-th call to the operating system fails | [`arena_faults::run`] |
//! | `pool_ops` | a pool instead of a heap | [`pool_ops::run`] |
//! | `store_ops` | a store, in memory or in files | [`store_ops::run`] |
//! | `store_file` | the files of a store, damaged or forged | [`store_file::run`] |
//!
//! A pool has operations and an oracle of its own, which counts: [`pool_op::Op`] and
//! [`pool_driver::Driver`]. [`pool_lies`] plants what the oracle must find.
//!
//! A store has [`store_oracle::op::Op`] and is compared with maps. The same oracle drives the
//! crash simulation within `brickyard-store`, and [`store_lies`] is what it must find.
//!
//! [`worst_case`] looks for programs for which a heap holds most beyond what lives.
//!
//! [`soak`] and [`pool_soak`] run without a list of operations: many threads, one heap or
//! three pools.
//!
//! Everything drives a `Heap` *value*. As the global allocator a heap would
//! hide from `AddressSanitizer`, and a defect would first show in the harness.
//! With `--cfg brickyard_asan` the [`poison`] module tells `ASan` what is free.

#![deny(unsafe_code)]

pub mod arena_faults;
pub mod arena_ops;
pub mod census;
#[expect(
    unsafe_code,
    reason = "frees and reallocates what the shadow says is live"
)]
pub mod driver;
pub mod fault;
#[expect(unsafe_code, reason = "passes on the calls of the allocator interface")]
pub mod handles;
pub mod op;
#[expect(unsafe_code, reason = "reads and writes the content of blocks")]
pub mod pattern;
#[cfg_attr(
    brickyard_asan,
    expect(unsafe_code, reason = "declares the sanitizer's interface")
)]
pub mod poison;
pub mod pool_driver;
mod pool_keys;
pub mod pool_lies;
pub mod pool_object;
pub mod pool_op;
pub mod pool_ops;
mod pool_promise;
pub mod pool_soak;
mod pool_steps;
pub mod pool_strategy;
pub mod pool_threads;
pub mod replay;
#[expect(
    unsafe_code,
    reason = "fills and compares the blocks that it was given"
)]
pub mod shadow;
#[expect(unsafe_code, reason = "hands blocks between threads")]
pub mod soak;
pub mod store_file;
pub mod store_lies;
pub mod store_ops;
pub mod store_oracle;
pub mod store_strategy;
pub mod strategy;
#[expect(unsafe_code, reason = "frees and reallocates the blocks of its list")]
pub mod worst_case;
