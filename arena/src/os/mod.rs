//! The contract between the heap and the operating system.
//!
//! One file a platform implements these functions; nothing above this module names a
//! platform. None of them
//! panics or takes a lock of this crate, and none but `spawn` and `backtrace` allocates.
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
//! | `wait_for(word, value, ms)` | the same for `ms` milliseconds at most |
//! | `wake_one(word)` | wakes one sleeper of `wait(word, …)` |
//! | `advise_huge(addr, len, wanted)` | huge pages wanted or refused; may be ignored |
//! | `can_barrier()`, `barrier_everywhere()` | a full memory barrier on every thread of the process; `false` if there is none |
//! | `spawn(main)`, `name_thread(name)` | a detached thread that takes no signals; may allocate |
//! | `backtrace(addresses)` | the return addresses of the calling thread; may allocate the first time |
//! | `read_file(path, show)` | shows a file piece by piece |
//! | `protect(addr, len, access)` | what the program may do there; `false` if refused |
//! | `fence(addr, len)`, `unfence(addr, len)` | drops the contents, and each access is a fault; takes that back. Cheaper than `purge` and `protect`; `false` if refused, or not known here |
//! | `random()` | 64 bits that a program cannot guess, or at worst the time |
//! | `for_each_stack_word(f)` | the words on the calling thread's stack from here outwards, until `f` says stop |
//! | `for_each_code_mapping(f)` | the mappings of the process that hold code; async-signal-safe |
//! | `set_fault_handler(f)`, `pass_fault_on(…)` | calls `f` on an access to what is not there; the handler before it |
//! | `thread_id()` | the system's number of the calling thread |
//! | `write_stderr(bytes)` | writes unbuffered; errors are ignored |
//! | `abort()` | ends the process abnormally |
//! | `on_thread_exit(f)`, `arm_thread_exit(p)` | calls `f(p)` when the arming thread ends |
//! | `on_fork(before, parent, child)` | registers the three handlers |

mod faulting;
mod mappings;
mod unix;

pub(crate) use faulting::*;
pub(crate) use mappings::*;
pub(crate) use unix::*;
