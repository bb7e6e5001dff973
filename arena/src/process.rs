//! The heap of the process: one static heap, a cache a thread, and what has to happen
//! when a thread ends and when the process forks.
//!
//! | thread stage | cache | an operation |
//! |---|---|---|
//! | running, new | none | comes here, gets a cache |
//! | running | its own | fast path |
//! | exited | none | uses the shared cache under its lock |
//!
//! The cache is taken back by the destructor of a thread-specific key, which runs after
//! the destructors of Rust's thread-locals. Other keys' destructors may still allocate
//! and free after ours: then the stage is *exited*, and nothing is left behind.

use core::ffi::c_void;
use core::ptr::NonNull;

use crate::faults::Os;
use crate::heap_core::HeapCore;
use crate::os;
use crate::sync::{AtomicU32, Ordering};
use crate::thread_cache::ThreadCache;
use crate::tls::{self, Stage};

/// The heap behind `Arena`.
pub(crate) static CORE: HeapCore = HeapCore::new(0, Os::new());

/// Whether the hooks are registered: 0 not yet, 1 somebody is at it, 2 failed, 3 and
/// above: the key plus 3.
static HOOKS: AtomicU32 = AtomicU32::new(HOOKS_NONE);
const HOOKS_NONE: u32 = 0;
const HOOKS_BUSY: u32 = 1;
const HOOKS_FAILED: u32 = 2;
const HOOKS_KEY: u32 = 3;

/// Runs `f` with a cache that the calling thread may use; `None` when memory is short.
#[cold]
#[inline(never)]
pub(crate) fn with_cache<R>(f: impl FnOnce(&ThreadCache) -> R) -> Option<R> {
    match tls::cache().or_else(attach) {
        Some(cache) => Some(f(cache)),
        None => CORE.with_shared(f),
    }
}

/// Gives the calling thread a cache of its own.
fn attach() -> Option<&'static ThreadCache> {
    if tls::stage() == Stage::Exited {
        return None;
    }
    let key = exit_key()?;
    let cache = CORE.acquire_cache()?;
    // Set before arming: that may allocate (in the C library it calls our calloc).
    tls::set(Some(cache), Stage::Running);
    if !os::arm_thread_exit(key, cache.as_ptr().cast()) {
        tls::set(None, Stage::Exited);
        // SAFETY: acquired above, and the thread has just forgotten it.
        unsafe { CORE.release_cache(cache) };
        return None;
    }
    tls::cache()
}

/// The key whose destructor takes caches back; `None` while it is being made (then the
/// caller is the hooks' own allocation, or another thread at the very start) and when
/// the system has no key left.
fn exit_key() -> Option<os::ExitKey> {
    // Acquire: pairs with the Release in `register`.
    match HOOKS.load(Ordering::Acquire) {
        HOOKS_NONE => register(),
        HOOKS_BUSY | HOOKS_FAILED => None,
        key => Some(key - HOOKS_KEY),
    }
}

fn register() -> Option<os::ExitKey> {
    // Relaxed: only elects the thread that registers.
    HOOKS
        .compare_exchange(HOOKS_NONE, HOOKS_BUSY, Ordering::Relaxed, Ordering::Relaxed)
        .ok()?;
    os::on_fork(before_fork, after_fork, after_fork);
    let key = os::on_thread_exit(thread_exit);
    // Release: pairs with the Acquire in `exit_key`.
    HOOKS.store(
        key.map_or(HOOKS_FAILED, |key| key + HOOKS_KEY),
        Ordering::Release,
    );
    key
}

/// The destructor of the key: `cache` is the value that the thread armed it with.
unsafe extern "C" fn thread_exit(cache: *mut c_void) {
    tls::set(None, Stage::Exited);
    if let Some(cache) = NonNull::new(cache.cast::<ThreadCache>()) {
        // SAFETY: the key's value is the cache that `attach` acquired for this thread,
        // which has just forgotten it.
        unsafe { CORE.release_cache(cache) };
    }
}

/// Takes every lock of the heap, in the order that `heap_core.rs` states, so that the
/// child finds no lock held and no structure half changed.
unsafe extern "C" fn before_fork() {
    CORE.shared.raw().acquire();
    CORE.caches.raw().acquire();
    for central in &CORE.centrals {
        central.raw_lock().acquire();
    }
    CORE.pages.raw().acquire();
    CORE.big.raw().acquire();
}

/// Releases every lock, in the parent and in the child.
///
/// In the child the caches of the parent's other threads stay as they were: the free
/// blocks in them, at most `MAX_CACHED_BYTES` and the initial limits each, are lost to it.
unsafe extern "C" fn after_fork() {
    CORE.big.raw().release();
    CORE.pages.raw().release();
    for central in CORE.centrals.iter().rev() {
        central.raw_lock().release();
    }
    CORE.caches.raw().release();
    CORE.shared.raw().release();
}
