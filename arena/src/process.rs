//! The heap of the process: one static heap, a cache a thread, and what has to happen
//! when a thread ends and when the process forks.
//!
//! | thread stage | cache | an operation |
//! |---|---|---|
//! | new | none | comes here, gets a cache |
//! | owner | its own | fast path |
//! | owner, harvest under way | none for a moment | comes here, waits |
//! | exited | none | uses the shared cache under its lock |
//!
//! The cache is taken back by the destructor of a thread-specific key, which runs after
//! the destructors of Rust's thread-locals. Other keys' destructors may still allocate
//! and free after ours: then the stage is *exited*, and nothing is left behind.

use core::ffi::c_void;
use core::ptr::{self, NonNull};

use crate::config::Builder;
use crate::faults::Os;
use crate::heap_core::HeapCore;
use crate::os;
use crate::profile::PROFILE;
use crate::sync::{AtomicBool, AtomicU32, Ordering};
use crate::thread_cache::ThreadCache;
use crate::tls::{self, Stage};

/// The heap behind `Arena`.
pub(crate) static CORE: HeapCore =
    HeapCore::new(0, Os::new(), &Builder::new(), Some(start_purging));

/// Whether options were put in force: the first `Arena` that has some decides, unless the
/// program said it by [`configure`].
static CONFIGURED: AtomicBool = AtomicBool::new(false);

/// Whether the hooks are registered: 0 not yet, 1 somebody is at it, 2 failed, 3 and
/// above: the key plus 3.
static HOOKS: AtomicU32 = AtomicU32::new(HOOKS_NONE);
const HOOKS_NONE: u32 = 0;
const HOOKS_BUSY: u32 = 1;
const HOOKS_FAILED: u32 = 2;
const HOOKS_KEY: u32 = 3;

/// Runs `f` with a cache that the calling thread may use for one operation; `None` when
/// memory is short. `options` are those of the `Arena` that was called.
#[cold]
#[inline(never)]
pub(crate) fn with_cache<R>(
    options: Option<&Builder>,
    f: impl FnOnce(&ThreadCache) -> R,
) -> Option<R> {
    match own_cache().or_else(|| attach(options)) {
        Some(cache) => Some(f(cache)),
        None => CORE.with_shared(f),
    }
}

/// The calling thread's cache, if it has one; waits until no harvest is under way there.
pub(crate) fn own_cache() -> Option<&'static ThreadCache> {
    let Stage::Owner(own) = tls::stage() else {
        return None;
    };
    loop {
        if let Some(cache) = tls::cache() {
            return Some(cache);
        }
        // The harvest holds the lock until it has given the pointer back.
        own.await_thaw();
    }
}

/// Puts `options` in force for the heap of the process.
pub(crate) fn configure(options: &Builder) {
    // Relaxed: each option is a number of its own.
    CONFIGURED.store(true, Ordering::Relaxed);
    put_in_force(options);
}

fn put_in_force(options: &Builder) {
    CORE.options.set(options);
    PROFILE.set_mean(options.profile);
}

/// Gives the calling thread a cache of its own.
fn attach(options: Option<&Builder>) -> Option<&'static ThreadCache> {
    if !matches!(tls::stage(), Stage::New) {
        return None;
    }
    if let Some(options) = options {
        // Relaxed: as in `configure`; elects one `Arena`.
        if !CONFIGURED.load(Ordering::Relaxed) && !CONFIGURED.swap(true, Ordering::Relaxed) {
            put_in_force(options);
        }
    }
    let key = exit_key()?;
    let cache = CORE.acquire_cache()?;
    // SAFETY: caches live as long as the heap, which is that of the process.
    let own = unsafe { cache.as_ref() };
    // Set before arming: that may allocate (in the C library it calls our calloc).
    tls::set_cache(own);
    if !os::arm_thread_exit(key, cache.as_ptr().cast()) {
        tls::set_exited();
        // SAFETY: acquired above, and the thread has just forgotten it.
        unsafe { CORE.release_cache(cache) };
        return None;
    }
    // Relaxed: a count.
    CORE.owners.fetch_add(1, Ordering::Relaxed);
    // Last: from now on a harvest may come, and this thread's end takes it back.
    own.set_home(tls::word());
    own_cache()
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
    os::on_fork(before_fork, after_fork, after_fork_in_child);
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
    if let Some(cache) = NonNull::new(cache.cast::<ThreadCache>()) {
        // First, and waiting for a harvest to end: from then on nobody else writes the
        // thread's word.
        // SAFETY: caches live as long as the heap.
        unsafe { cache.as_ref() }.set_home(ptr::null_mut());
        tls::set_exited();
        // SAFETY: the key's value is the cache that `attach` acquired for this thread,
        // which has just forgotten it.
        unsafe { CORE.release_cache(cache) };
        CORE.note_exit();
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
    CORE.options.raw_lock().acquire();
    PROFILE.raw_lock().acquire();
}

/// What the child has to do besides [`after_fork`]: there is one thread left.
///
/// The caches of the parent's other threads stay as they were, with the free blocks in
/// them; nobody may harvest them, because the words of those threads may be reused. The
/// room that they had is free.
unsafe extern "C" fn after_fork_in_child() {
    CORE.bell.forget();
    let own = match tls::stage() {
        Stage::Owner(own) => ptr::from_ref(own),
        _ => ptr::null(),
    };
    // Relaxed: the child has one thread.
    CORE.owners
        .store(usize::from(!own.is_null()), Ordering::Relaxed);
    // SAFETY: the child inherited the lock held (`before_fork`); no other thread exists.
    unsafe {
        CORE.caches.with_held(|store| {
            store.for_each(|cache| {
                if ptr::from_ref(cache) != own && !cache.is_shared() {
                    cache.orphan(&CORE.cacheable);
                }
            });
        });
        after_fork();
    }
}

/// Starts the purge thread.
fn start_purging() -> bool {
    os::spawn(purge_thread)
}

extern "C" fn purge_thread(_: *mut c_void) -> *mut c_void {
    os::name_thread(c"brickyard-purge");
    CORE.purge_while_wanted();
    ptr::null_mut()
}

/// Releases every lock.
unsafe extern "C" fn after_fork() {
    PROFILE.raw_lock().release();
    CORE.options.raw_lock().release();
    CORE.big.raw().release();
    CORE.pages.raw().release();
    for central in CORE.centrals.iter().rev() {
        central.raw_lock().release();
    }
    CORE.caches.raw().release();
    CORE.shared.raw().release();
}
