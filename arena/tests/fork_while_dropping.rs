//! A fork at the moment at which another thread unmaps a mapping that was kept.
//!
//! What could go wrong: the thread has taken it from those that are kept and has not unmapped it
//! yet, so the child has memory that nobody knows; or the fork waits for the thread, and the thread
//! for the fork. The `munmap` of this file stands before that of the C library and holds the thread there
//! until the fork is done, or is seen to wait.

#![cfg(not(loom))]

use core::ffi::{CStr, c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::thread;

use brickyard_arena::Arena;

const BIG: usize = 8 << 20;
const OS_PAGE: usize = 4096;

/// The mapping whose end is waited for.
static WATCHED: AtomicUsize = AtomicUsize::new(0);
/// Whether a thread is about to unmap it.
static REACHED: AtomicBool = AtomicBool::new(false);
/// The thread that forks, and whether it has.
static FORKER: AtomicI32 = AtomicI32::new(0);
static FORKED: AtomicBool = AtomicBool::new(false);

/// Nothing here allocates: the C library's fork waits for whoever is inside its `malloc`.
///
/// # Safety
///
/// As for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn munmap(addr: *mut c_void, len: usize) -> c_int {
    if addr.addr() != 0 && addr.addr() == WATCHED.load(Ordering::SeqCst) {
        REACHED.store(true, Ordering::SeqCst);
        while !FORKED.load(Ordering::SeqCst) && !forker_sleeps() {
            thread::yield_now();
        }
    }
    // SAFETY: by contract.
    let result = unsafe { libc::syscall(libc::SYS_munmap, addr, len) };
    c_int::try_from(result).unwrap_or(-1)
}

/// Whether the thread that forks waits for something: all that it could wait for is a lock.
fn forker_sleeps() -> bool {
    let mut path = [0u8; 64];
    let mut stat = [0u8; 256];
    // SAFETY: the path fits with its zero; the buffers are valid for writes of their lengths.
    let len = unsafe {
        let thread = FORKER.load(Ordering::SeqCst);
        let form: &CStr = c"/proc/self/task/%d/stat";
        libc::snprintf(path.as_mut_ptr().cast(), path.len(), form.as_ptr(), thread);
        let file = libc::open(path.as_ptr().cast(), libc::O_RDONLY);
        assert!(file >= 0, "no /proc");
        let len = libc::read(file, stat.as_mut_ptr().cast(), stat.len());
        libc::close(file);
        usize::try_from(len).expect("it can be read")
    };
    // `number (name) state …`; the name may have brackets of its own.
    let rest = stat[..len].rsplit(|&byte| byte == b')').next();
    rest.is_some_and(|rest| rest.get(1) == Some(&b'S'))
}

fn is_mapped(addr: usize) -> bool {
    let mut resident = 0u8;
    let at = ptr::without_provenance_mut(addr);
    // SAFETY: the vector has a byte for the one page.
    unsafe { libc::mincore(at, OS_PAGE, &raw mut resident) == 0 }
}

#[test]
fn a_kept_mapping_that_is_being_unmapped_is_not_left_to_the_child() {
    let block = Arena::alloc_unsized(BIG, 16);
    assert!(!block.is_null());
    let addr = block.addr();
    // SAFETY: allocated above.
    unsafe { Arena::dealloc_unsized(block) };
    assert!(is_mapped(addr), "it was not kept");
    // SAFETY: takes nothing.
    FORKER.store(unsafe { libc::gettid() }, Ordering::SeqCst);
    WATCHED.store(addr, Ordering::SeqCst);
    let purger = thread::spawn(Arena::purge);
    while !REACHED.load(Ordering::SeqCst) {
        assert!(!purger.is_finished(), "nothing was unmapped");
        thread::yield_now();
    }
    // SAFETY: the child asks the system one question and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: no preconditions.
        unsafe { libc::_exit(c_int::from(is_mapped(addr))) }
    }
    FORKED.store(true, Ordering::SeqCst);
    assert!(child > 0, "fork failed");
    let mut status = 0;
    // SAFETY: the pointer is to a live integer.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    purger.join().expect("no panic");
    assert!(!is_mapped(addr), "it was not unmapped");
    assert_eq!(status, 0, "the child has a mapping that nobody knows");
}
