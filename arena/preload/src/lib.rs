//! `libbrickyard.so`: the C library's allocation functions over one
//! [`Arena`](brickyard_arena::Arena), for `LD_PRELOAD`.
//!
//! The problem: a program that was built against the system malloc should run
//! on the arena without being rebuilt. The dynamic linker takes the first
//! definition of a symbol, so a library named in `LD_PRELOAD` that defines
//! *all* allocation functions replaces those of the C library, also for calls
//! made inside the C library itself.
//!
//! ```text
//!   program, libstdc++, libc      malloc  calloc  realloc  free  memalign …
//!                                    │
//!   functions   (this crate)      argument checks, errno, null
//!                                    │
//!   brickyard_arena::Arena        alloc_unsized  realloc_unsized  dealloc_unsized
//! ```
//!
//! The layer is thin on purpose. It checks arguments the way the C library
//! does, calls the arena and translates null into `errno`. Thread caches, the
//! handlers for `fork` and the thread-local block belong to the arena.
//!
//! Rules of this crate:
//!
//! 1. Only `core` and `libc` on any path: an allocation made by `std` would
//!    come back here.
//! 2. No thread-local with a destructor: its registration allocates.
//! 3. No panic and no unwinding out of an exported function.
//! 4. `free` leaves `errno` as it was. It makes no system call itself; the
//!    arena's do not change `errno` when they succeed, and tests look at the
//!    paths that return memory.
//!
//! With `panic = "abort"`, as in the workspace's release profile, the crate does
//! without `std` on x86-64, and so the library has no part of it: no thread-locals
//! but the arena's 16 bytes, nothing to load but the C library. The profiles that
//! unwind exist for checks only; a library without `std` cannot be linked there.
//! On other processors the arena takes its thread-local from `std`.
//!
//! # Environment
//!
//! The arena's options, such as `BRICKYARD_PURGE_THREAD=1` and
//! `BRICKYARD_MEMORY_LIMIT=512M`: the table is in `options.rs` and in the README.
//!
//! `BRICKYARD_STATS=1` prints the arena's statistics on stderr when the program
//! exits through `exit` or by returning from `main`. `BRICKYARD_PROFILE=path` writes
//! the heap profile then.
#![cfg_attr(all(panic = "abort", target_arch = "x86_64"), no_std)]
#![deny(unsafe_code)]

#[cfg(all(panic = "abort", target_arch = "x86_64"))]
#[expect(
    unsafe_code,
    reason = "the panic handler calls abort; defines a symbol that the compiler refers to"
)]
mod abort;
#[expect(
    unsafe_code,
    reason = "reads and writes errno through the C library's pointer"
)]
mod errno;
#[expect(unsafe_code, reason = "reads the environment, and what getenv returns")]
mod options;
#[expect(
    unsafe_code,
    reason = "opens the file of the profile and closes it; asks for the process"
)]
mod profile;
#[expect(
    unsafe_code,
    reason = "runs code at load and exit, and calls getenv, fcntl and write"
)]
mod report;

#[expect(
    unsafe_code,
    reason = "defines C functions, which receive raw pointers from the program"
)]
pub mod functions;
