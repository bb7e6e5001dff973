//! rpmalloc, with hooks for threads that only its own callers meet.
//!
//! The package `rpmalloc` compiles the C code with its option for preloading, which replaces
//! `pthread_create` in the whole program and ends the allocator in a destructor of the process.
//! Every thread then has a heap of rpmalloc, whatever allocator was chosen, and gives it back as it
//! ends. A thread that ends while the process exits (the end of a `thread::scope` does not wait for
//! the destructors of its threads) finds its heap unmapped, and the process dies. Here the C code
//! comes without that option: a thread gets its heap as it first allocates, and the allocator never
//! ends.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::ffi::{c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};
use std::process::abort;
use std::sync::Once;

use rpmalloc_sys::{
    rpaligned_alloc, rpaligned_calloc, rpfree, rpmalloc_initialize, rpmalloc_is_thread_initialized,
};

unsafe extern "C" {
    // The package declares it without its argument.
    fn rpmalloc_thread_finalize(release_caches: c_int);
}

/// Whether the key for ends of threads and the allocator are set up.
static STARTED: Once = Once::new();

/// The key whose destructor ends a thread's heap. Written once, within [`STARTED`].
static KEY: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// Whether this thread has a heap. A byte without a destructor: the look at it takes fewer
    /// instructions than the same question in the C code that is compiled for preloading.
    static READY: Cell<bool> = const { Cell::new(false) };
}

/// Gives this thread a heap if it has none; false if there is no memory for it.
#[inline]
fn ready() -> bool {
    READY.get() || thread_starts()
}

#[cold]
#[inline(never)]
fn thread_starts() -> bool {
    // Waits by a futex, so nothing in here allocates.
    STARTED.call_once(process_starts);
    // SAFETY: rpmalloc is set up; called again, it only makes the heap of this thread.
    let begun = unsafe { rpmalloc_initialize() == 0 && rpmalloc_is_thread_initialized() != 0 };
    if begun {
        // Relaxed: `call_once` has ordered the write of the key before this.
        let key = KEY.load(Ordering::Relaxed);
        // SAFETY: the key was made and is never deleted; the value is not read.
        if unsafe { libc::pthread_setspecific(key, ptr::dangling()) } != 0 {
            abort();
        }
        READY.set(true);
    }
    begun
}

/// Makes the key and sets up rpmalloc. A process without the key would measure a leak of heaps, and
/// the first of them can hardly fail: it ends then.
fn process_starts() {
    let mut key = 0;
    // SAFETY: `key` is valid for the write, and the destructor has the signature that is asked for.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(thread_ends)) } != 0 {
        abort();
    }
    KEY.store(key, Ordering::Relaxed);
    // SAFETY: no thread is in rpmalloc yet: each comes through `STARTED`.
    if unsafe { rpmalloc_initialize() } != 0 {
        abort();
    }
}

/// The C library calls this for each thread that had a heap, after Rust's destructors of the thread.
/// Should a later destructor allocate, the thread starts anew, and this is called once more.
unsafe extern "C" fn thread_ends(_: *mut c_void) {
    READY.set(false);
    // SAFETY: the thread has a heap, for the key was set when it got it.
    unsafe { rpmalloc_thread_finalize(1) };
}

/// The calls are those that the package `rpmalloc` makes.
#[derive(Debug)]
pub(crate) struct Rpmalloc;

// SAFETY: the functions are rpmalloc's own and keep the contract of `GlobalAlloc`: a block of at
// least that size at that alignment, which a free from any thread takes back, or null. None of them
// unwinds. Those that allocate are called only by threads that have a heap, as they ask; a free
// looks at no heap but the block's.
unsafe impl GlobalAlloc for Rpmalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !ready() {
            return ptr::null_mut();
        }
        // SAFETY: this thread has a heap; a layout's alignment is a power of two.
        unsafe { rpaligned_alloc(layout.align(), layout.size()).cast() }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !ready() {
            return ptr::null_mut();
        }
        // SAFETY: this thread has a heap; a layout's alignment is a power of two.
        unsafe { rpaligned_calloc(layout.align(), 1, layout.size()).cast() }
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, _layout: Layout) {
        // SAFETY: by the caller's contract the block is live and from here.
        unsafe { rpfree(ptr.cast()) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    /// Whether the calling thread has a heap of rpmalloc.
    fn has_heap() -> bool {
        // SAFETY: reads a thread-local variable.
        unsafe { rpmalloc_is_thread_initialized() != 0 }
    }

    /// The address of a block that the calling thread allocated and freed.
    fn touch() -> usize {
        let layout = Layout::new::<[u64; 9]>();
        // SAFETY: the layout has a size; the block is freed once, with its layout.
        unsafe {
            let block = Rpmalloc.alloc(layout);
            assert!(!block.is_null());
            block.write_bytes(1, layout.size());
            Rpmalloc.dealloc(block, layout);
            block.addr()
        }
    }

    #[test]
    fn a_thread_has_a_heap_from_its_first_allocation_and_leaves_it_to_the_next() {
        let thread = || {
            assert!(!has_heap());
            let block = touch();
            assert!(has_heap());
            block
        };
        let blocks = (0..100).map(|_| thread::spawn(thread).join().expect("it ends"));
        // A heap takes blocks out of runs of 64 KiB: a second one where another test uses the first.
        let runs: HashSet<usize> = blocks.map(|block| block >> 16).collect();
        assert!(runs.len() < 10, "{runs:x?}");
    }

    #[test]
    fn a_block_outlives_its_thread_and_is_freed_by_another() {
        let layout = Layout::new::<[u64; 9]>();
        // SAFETY: the layout has a size.
        let block = move || unsafe { Rpmalloc.alloc_zeroed(layout) }.expose_provenance();
        let block = thread::spawn(block).join().expect("it ends");
        let block: *mut u8 = ptr::with_exposed_provenance_mut(block);
        assert!(!block.is_null());
        // SAFETY: the block is live, zeroed, and freed once, with its layout.
        unsafe {
            assert_eq!(block.read(), 0);
            Rpmalloc.dealloc(block, layout);
        }
    }
}
