//! A size-class memory-pool **global allocator** that limits fragmentation.
//!
//! ```
//! #[global_allocator]
//! static GLOBAL: brickyard_arena::Arena = brickyard_arena::Arena::new();
//! # fn main() { assert!(Arena::stats().live > 0); }
//! # use brickyard_arena::Arena;
//! ```
//!
//! # The idea
//!
//! Two levers that Rust and out-of-band metadata give:
//!
//! 1. `dealloc` is told the layout, so a free finds its size class without a look-up: it
//!    pushes the pointer on an array of the thread, a *magazine*, and touches neither the
//!    block nor any metadata of it.
//! 2. Which blocks of a *span* are free is kept in bits apart from the blocks. No list
//!    runs through free memory, so any wholly free OS page inside a part-used span can be
//!    given back, and memory that was never used is never touched.
//!
//! ```text
//!   alloc / dealloc
//!        |
//!   thread cache      a magazine a size class: pop, push                (no atomics)
//!        |  some tens of blocks at once
//!   central           a class's spans; bits are set without a lock,
//!        |            cleared under the class lock
//!   page heap         runs of 4 KiB granules in 4 MiB segments, best fit
//!        |
//!   operating system  mmap, munmap, mremap, madvise(MADV_DONTNEED)
//! ```
//!
//! # What a block costs
//!
//! | request, bytes | block is at most | waste at most |
//! |---|---|---|
//! | 1 – 8 | 8 | 7 bytes |
//! | 9 – 128 | request + 15 | 15 bytes |
//! | 129 – 1024 | 1.25 × request | 25 % of the request |
//! | 1025 – 16384 | 1.125 × request | 12.5 % of the request |
//! | 16385 – 32768 | 1.25 × request | 25 % of the request |
//! | 32769 – 512 KiB | 1.125 × (request + 4095) | 25 % of the request |
//! | 512 KiB – 1 MiB | request + 4095 | one granule of 4 KiB |
//!
//! Of the row up to 512 KiB, the eighth is that of a run that the thread had kept and that is longer; a new one
//! has a granule to spare. Blocks carry no header: 48-byte objects take 48 bytes. Above 1 MiB a block is a
//! mapping of its own, of which up to twice the request (four times if it has grown) may be
//! resident when it reuses memory that was freed a moment before.
//!
//! # What a heap holds at worst
//!
//! No allocator that leaves blocks where they are does well by every program: with sizes from 8 bytes to
//! 1 MiB some need 9.5 times the address space of what is live at most (Robson, 1974). The worst of those that a search made for
//! this heap holds 11 times that, metadata and free memory included, where others hold up to 20. Proved
//! are 30 times what is live and cached, in blocks of up to 32 KiB after [`Arena::trim`]; and
//! [`Builder::memory_limit`] holds whatever the program does. `docs/decisions/029-worst-case.md` in the
//! repository has the proof.
//!
//! # What the default build stops
//!
//! A misuse that is seen ends the process with one line on standard error, such as
//! `brickyard: double free of 0x00007f3a5c0411c0`.
//!
//! | misuse | seen |
//! |---|---|
//! | freeing the block that this thread freed last in its class, but for its first there | at once |
//! | any other double free; a foreign or interior pointer; a wrong layout (up to 32 KiB) | when the pointer goes back to its span: after the thread's magazine overflowed and what it then set aside is given up, at [`Arena::trim`], at thread exit |
//! | a double free whose block was allocated again before that | never |
//! | a double free, a foreign or interior pointer, or a small block, freed with a layout above 32 KiB | at once |
//! | a block above 32 KiB freed with a longer or shorter layout above 32 KiB | never |
//! | a foreign pointer or one above 32 KiB, freed without a layout | at once |
//!
//! A block that was freed twice may be handed out twice before that: of 300 programs that free one of some
//! thousand blocks twice and go on allocating, 225 are told, and all with [`Builder::thread_cache`] of 0. With
//! [`Builder::hardened`] each free is checked at once, freed blocks are zeroed and wait, and
//! a sampled share of blocks has guard pages. `docs/hardening.md` in the repository has the
//! table of some eighty attacks, made by running them.
//!
//! # Options
//!
//! [`Arena::builder`] sets them in a `static`, with no code at run time: memory limits,
//! decay, huge pages, what threads may keep, hardening, and the purge thread. [`Builder`] has the
//! table. What gives memory back by hand:
//!
//! | | takes from caches | gives to the operating system |
//! |---|---|---|
//! | [`Arena::collect`] | the calling thread's | nothing |
//! | [`Arena::purge`] | nothing | what is free in the heap |
//! | [`Arena::trim`] | every thread's | what is free in the heap then |
//!
//! # What it shows
//!
//! | | what | costs |
//! |---|---|---|
//! | [`Arena::stats`] | requested, live, cached, committed, each size class; always on | nothing where a thread has blocks at hand |
//! | [`Stats::prometheus`] | the same as a page for Prometheus | nothing until it is called |
//! | [`Arena::write_profile`] | for each stack, what is live of it and what it allocated | a sample in so many bytes, if [`Builder::profile`] asks for it |
//!
//! # Limits
//!
//! - Linux on x86-64 and aarch64. The page size is read at run time.
//! - Memory goes back on the allocator's slow paths and when all threads but one have ended; a program
//!   whose threads all sleep keeps what it has until it calls [`Arena::trim`], unless [`Builder::purge_thread`] is
//!   on.
//! - Address space of segments is kept for reuse while the heap lives. A program that names an
//!   [`Arena`] has 8 MiB more of `.bss` for the table that frees without a layout look into; it
//!   becomes resident with the heap, 4 KiB for 16 MiB.
//! - Signal handlers must not allocate, as with every `malloc`.
//! - A forked child loses the free blocks that the caches of the parent's other threads
//!   held (a MiB a thread and up to four times as much set aside, 32 MiB or an eighth of the heap in all).
//!
//! # Features
//!
//! - `allocator-api2`: [`Heap`] implements `allocator_api2::alloc::Allocator`.
//!
//! # Unsafe code
//!
//! The modules below that need it say why; the rest is checked to have none.

#![deny(unsafe_code)]
// Where thread-local storage is our own, nothing needs std: a C library built from this
// crate links libc alone.
#![cfg_attr(
    all(not(test), not(loom), target_arch = "x86_64", target_os = "linux"),
    no_std
)]
#![cfg_attr(
    loom,
    expect(dead_code, reason = "only the protocols between threads are modelled")
)]

extern crate alloc;

mod bitmap;
mod lend;
mod poisson;
mod purge;
mod size_class;
mod units;

#[cfg_attr(
    all(test, loom),
    expect(unsafe_code, reason = "the cells that loom watches")
)]
mod alarm;
mod bell;
#[cfg(not(loom))]
mod config;
#[cfg(not(loom))]
mod countdown;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "calls the operating system")]
mod os;
#[cfg(not(loom))]
mod profile;
mod sample_filter;
#[cfg(not(loom))]
mod sweeping;
#[expect(unsafe_code, reason = "the lock lends what it protects")]
mod sync;

#[cfg(not(loom))]
mod fatal;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "forwards the contracts of the system calls")]
mod faults;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "reads code in front of return addresses")]
mod trace;

#[cfg(not(loom))]
#[expect(unsafe_code, reason = "writes and reads blocks")]
mod zeroes;

mod block_state;
#[cfg_attr(
    all(test, loom),
    expect(unsafe_code, reason = "the cells that loom watches")
)]
mod hooks;
#[cfg_attr(
    any(not(loom), test),
    expect(unsafe_code, reason = "reads leaves that are never unmapped")
)]
mod page_map;
#[cfg_attr(
    all(test, loom),
    expect(unsafe_code, reason = "the cells that loom watches")
)]
mod published;
#[cfg(not(loom))]
mod quarantine;
#[cfg_attr(
    all(test, loom),
    expect(unsafe_code, reason = "the cells that loom watches")
)]
mod slot_state;

#[cfg(all(test, loom))]
#[expect(unsafe_code, reason = "the cells that loom watches")]
mod cache_models;
#[expect(unsafe_code, reason = "links spans in a list under the class lock")]
mod central;
#[cfg(all(test, loom))]
#[expect(unsafe_code, reason = "the cells that loom watches")]
mod lend_models;
#[cfg(all(test, loom))]
#[expect(unsafe_code, reason = "plants bugs for loom to find")]
mod models;
#[expect(
    unsafe_code,
    reason = "shares spans between threads; lends fields under a lock"
)]
mod span;

#[cfg(not(loom))]
mod big;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "cuts caches from mapped memory")]
mod cache_store;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "handles a signal as the system asks")]
mod crash;
#[cfg(not(loom))]
mod depot;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "gives blocks that it holds back to their spans")]
mod giving;
#[cfg(not(loom))]
#[expect(
    unsafe_code,
    reason = "lays records over mapped memory; opens and closes pages"
)]
mod guard;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "a table in mapped memory")]
mod guest_table;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "reads and writes slots behind raw pointers")]
mod magazines;
#[cfg(not(loom))]
#[expect(
    unsafe_code,
    reason = "links segments in lists under the page-heap lock"
)]
mod page_heap;
#[cfg(not(loom))]
mod prometheus;
#[cfg(not(loom))]
mod run_cache;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "lays metadata over mapped memory")]
mod segment;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "reads a table of pointers less their places")]
mod state_window;
#[cfg(not(loom))]
mod stats;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "arrays of block pointers over mapped memory")]
mod thread_cache;
#[expect(unsafe_code, reason = "reads a table without a second check")]
mod window;

#[cfg(not(loom))]
mod budget;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "zeroes large blocks; adopts states")]
mod hardened;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "zeroes and compares blocks")]
mod hardened_pair;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "waits on words; empties frozen caches")]
mod harvest;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "turns bits into blocks; copies and zeroes them")]
mod heap_core;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "maps, moves and unmaps large blocks")]
mod large;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "turns runs of blocks into blocks, and back")]
mod lending;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "purges memory on which no block lives")]
mod reclaim;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "zeroes large blocks and hands them on")]
mod runs;
#[cfg(not(loom))]
mod slow_path;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "reads structures under their locks")]
mod snapshot;

#[cfg(all(feature = "allocator-api2", not(loom)))]
#[expect(unsafe_code, reason = "Allocator is an unsafe trait")]
mod allocator;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]
mod global;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "hands out and takes back raw blocks")]
mod heap;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "forwards the contracts of the frees")]
mod long_way;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "hooks that C calls")]
mod process;
#[cfg(not(loom))]
#[expect(
    unsafe_code,
    reason = "frees sampled blocks; gives back what was not recorded"
)]
mod sampling;
#[cfg(not(loom))]
#[expect(
    unsafe_code,
    reason = "the thread pointer; a cache that lives as long as the process"
)]
mod tls;

#[cfg(not(loom))]
pub use config::{Builder, HugePages};
#[cfg(not(loom))]
pub use faults::FaultPlan;
#[cfg(not(loom))]
pub use global::{Arena, Resize, Small};
#[cfg(not(loom))]
pub use heap::{Heap, HeapCache, HeapError};
#[cfg(not(loom))]
pub use snapshot::Violation;
#[cfg(not(loom))]
pub use stats::{ClassStats, Stats};
