//! The contract between the heap and the operating system.
//!
//! One file a platform implements these functions; nothing above this module names a
//! platform. None of them allocates, panics or takes a lock of this crate.
//!
//! | function | contract |
//! |---|---|
//! | `page_size()` | bytes in an OS page, a power of two, the same at every call |
//! | `map(len)` | fresh zeroed memory at some multiple of the OS page size, or `None` |
//! | `map_at(addr, len)` | the same at exactly `addr`, only if nothing is mapped there |
//! | `unmap(addr, len)` | forgets the mapping; `false` if the system refused |
//! | `purge(addr, len)` | drops the contents: not resident, reads as zero; `false` if refused |
//! | `extend(addr, old, new)` | grows a mapping where it is, or `false` |
//! | `relocate(from, old, to, new)` | moves pages to `to`, replacing what is mapped there |
//! | `now_ms()` | milliseconds of a monotonic clock, coarse and cheap |
//! | `wait(word, value)` | sleeps while `*word == value`; may wake for no reason |
//! | `wake_one(word)` | wakes one sleeper of `wait(word, …)` |
//! | `write_stderr(bytes)` | writes unbuffered; errors are ignored |
//! | `abort()` | ends the process abnormally |
//! | `on_thread_exit(f)`, `arm_thread_exit(p)` | calls `f(p)` when the arming thread ends |
//! | `on_fork(before, parent, child)` | registers the three handlers |

mod unix;

pub(crate) use unix::*;
