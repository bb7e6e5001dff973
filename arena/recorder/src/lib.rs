//! `libbrickyard_recorder.so`: writes what any program asks of its allocator into a file,
//! for `LD_PRELOAD`. `brickyard record` sets it up, `brickyard replay` reads the file.
//!
//! ```text
//!   program          malloc  realloc  free …            _exit, exit
//!                       │                                   │
//!   functions        the C library's, by its other names;   │
//!                    an event before or after               │
//!                       │                                   │
//!   session          a number for it; on, off, begin, end ◀─┘
//!                       │
//!   buffer           the thread's chunk, under the thread's lock
//!                       │  when full
//!   file             one write, under the file's lock
//! ```
//!
//! The order of the events is that of their numbers, which one atomic counter gives. The
//! number of an allocation is taken after the C library has returned, that of a free before it
//! is called. So whoever gets a freed block has a number greater than the free's, and whoever
//! frees a block one greater than the allocation's: read in order, no block is given out
//! twice. `realloc` does both and has two events.
//!
//! Rules of this crate, which works inside of `malloc`:
//!
//! 1. Only `core` and `libc` on any path. Nothing allocates: buffers are mapped, the
//!    thread's pointer to its own is a pthread key below the count that glibc keeps inside of the thread.
//! 2. Nothing waits for a lock that its own thread may hold: a signal handler that
//!    allocates finds the buffer taken, and its event is counted as lost.
//! 3. A chunk waits for the write of another thread's; `finish` waits for writes and for the
//!    buffers of others, and only for a bounded time.
//! 4. A forked child does not record, however it was made (it has the parent's buffers, and would
//!    write them twice). What it starts by `exec` is a new process with a recording of its own, if the path
//!    in `BRICKYARD_RECORD` has a `%p`.
//!
//! # Environment
//!
//! `BRICKYARD_RECORD=path` names the file; nothing is recorded without. With `%p` for the
//! process each process has its file. Without, the first process makes the file and others do
//! not record. What a process starts by `exec` without a fork goes into the same file anew. Any
//! other file that is there and not empty is left alone, be it the recording of a process that had the
//! same number, whole or, if that process was killed, not.
//!
//! # What is not seen
//!
//! Memory that is mapped by the program itself, allocators that are linked into it, programs
//! that are linked statically, and what happens before the C library is set up or after the
//! destructors of this library. A process that a signal ends leaves the chunks that were
//! full by then.
//!
//! Before Linux 4.14, a child made without `fork` and `vfork` (`_Fork`, `clone`), as sandboxes do, is
//! not noticed: it goes on recording into its parent's file, which then does not read. A thread whose
//! first call is made by one of the last destructors of its own thread-local data keeps its buffer until another
//! thread looks for one.
#![no_std]
#![deny(unsafe_code)]

// For its panic handler only: `no_std` keeps its names, and what allocates, out of the code.
extern crate std as _;

#[cfg_attr(loom, expect(dead_code, reason = "models in tests use it"))]
#[expect(
    unsafe_code,
    reason = "lends what a lock guards, and follows the pointers of a list"
)]
mod shared;
mod sync;

#[cfg(not(loom))]
#[expect(
    unsafe_code,
    reason = "maps memory for buffers, which are zero and never unmapped"
)]
mod buffer;
#[cfg(not(loom))]
#[expect(
    unsafe_code,
    reason = "opens, looks at and writes a file through the C library"
)]
mod file;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "maps a page that children find empty")]
mod process;
#[cfg(not(loom))]
#[expect(
    unsafe_code,
    reason = "keeps a pthread key, registers for fork, reads the environment"
)]
mod session;

#[cfg(not(loom))]
#[expect(
    unsafe_code,
    reason = "defines C functions, which receive raw pointers from the program"
)]
pub mod functions;
