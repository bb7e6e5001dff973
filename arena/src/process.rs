//! The heap of the process: one static heap, a cache a thread, and what has to happen
//! when a thread ends and when the process forks.
//!
//! | thread stage | cache | an operation |
//! |---|---|---|
//! | new | none | comes here, gets a cache |
//! | owner | its own | fast path |
//! | owner, harvest under way | none for a moment | comes here, waits |
//! | hardened | its own, of the hardened heap | comes here |
//! | exited | none | uses the shared cache under its lock |
//!
//! The cache is taken back by the destructor of a thread-specific key, which runs after
//! the destructors of Rust's thread-locals. Other keys' destructors may still allocate
//! and free after ours: then the stage is *exited*, and nothing is left behind.
//!
//! There are two heaps, of which one serves: [`CORE`], or [`HARDENED`] from the moment on that
//! the process is hardened. What was allocated before (by the loader, say) goes back to
//! where it came from. Invariant:
//! - M1: no thread has a cache of `CORE` while the process is hardened, so none has a fast
//!   path, and each operation asks whose a block is.

use core::ffi::c_void;
use core::ptr::{self, NonNull};

use crate::central::Central;
use crate::config::Builder;
use crate::crash;
use crate::faults::Os;
use crate::heap_core::HeapCore;
use crate::hooks::Hooks;
use crate::os;
use crate::page_map::PAGE_MAP;
use crate::profile::PROFILE;
use crate::sync::{AtomicBool, Lock, Ordering, RawLock};
use crate::thread_cache::ThreadCache;
use crate::tls::{self, Stage};
use crate::units::{HARDENED_HEAP, PROCESS_HEAP};

/// The heap behind `Arena`.
pub(crate) static CORE: HeapCore = HeapCore::new(
    PROCESS_HEAP,
    Os::new(),
    &Builder::new(),
    Some(start_purging),
);

/// The heap behind `Arena` in a hardened process.
pub(crate) static HARDENED: HeapCore = HeapCore::new(
    HARDENED_HEAP,
    Os::new(),
    &Builder::new().hardened(true),
    Some(start_purging_hardened),
);

/// Threads that were given a cache so far; the lock holds off changes of the heap.
static ATTACHED: Lock<usize> = Lock::new(0);

/// Whether [`HARDENED`] serves. Written under the lock of [`ATTACHED`], once.
static IS_HARDENED: AtomicBool = AtomicBool::new(false);

/// Whether the process is hardened.
#[inline]
pub(crate) fn is_hardened() -> bool {
    // Relaxed: who holds a block of the hardened heap was told of it by a thread that has
    // seen true, and sees it too.
    IS_HARDENED.load(Ordering::Relaxed)
}

/// The heap that serves.
pub(crate) fn core() -> &'static HeapCore {
    if is_hardened() { &HARDENED } else { &CORE }
}

/// The heap that `block` is from, or would be if it were from one.
#[inline]
pub(crate) fn core_of(block: *mut u8) -> &'static HeapCore {
    if is_hardened() && PAGE_MAP.lookup(block.addr()).heap() != Some(CORE.id) {
        &HARDENED
    } else {
        &CORE
    }
}

/// Whether options were put in force: the first `Arena` that has some decides, unless the
/// program said it by [`configure`].
static CONFIGURED: AtomicBool = AtomicBool::new(false);

/// Whether the hooks are registered.
static HOOKS: Hooks = Hooks::new();

/// Runs `f` with the heap that serves, and a cache of it that the calling thread may use
/// for one operation; `None` when memory is short. `options` are those of the `Arena` that was called.
#[cold]
#[inline(never)]
pub(crate) fn with_cache<R>(
    options: Option<&Builder>,
    f: impl FnOnce(&'static HeapCore, &ThreadCache) -> R,
) -> Option<R> {
    match own_cache().or_else(|| attach(options)) {
        Some((core, cache)) => Some(f(core, cache)),
        None => {
            let core = core();
            core.with_shared(|cache| f(core, cache))
        }
    }
}

/// The calling thread's cache, if it has one; waits until no harvest is under way there.
pub(crate) fn own_cache() -> Option<(&'static HeapCore, &'static ThreadCache)> {
    let own = match tls::stage() {
        Stage::Owner(own) => own,
        Stage::Hardened(own) => return Some((&HARDENED, own)),
        Stage::New | Stage::Exited => return None,
    };
    loop {
        if let Some(cache) = tls::cache() {
            return Some((&CORE, cache));
        }
        // The harvest holds the lock until it has given the pointer back.
        own.await_thaw();
    }
}

/// Frees a large block of `core`, to the calling thread's cache if it has one there.
///
/// # Safety
///
/// As for [`HeapCore::free_large`].
pub(crate) unsafe fn free_large(core: &'static HeapCore, block: *mut u8) {
    let freed = with_cache(None, |serving, cache| {
        let is_owner = ptr::eq(serving, core);
        if is_owner {
            // SAFETY: by contract.
            unsafe { core.free_large_slow(cache, block) };
        }
        is_owner
    });
    if freed != Some(true) {
        // SAFETY: by contract.
        unsafe { core.free_large(block) };
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
    HARDENED.options.set(options);
    PROFILE.set_mean(options.profile);
    if options.hardened {
        harden();
    }
}

/// Lets [`HARDENED`] serve, unless another thread has, or had, a cache (M1).
fn harden() {
    let own = match tls::stage() {
        Stage::Owner(own) => Some(own),
        _ => None,
    };
    let done = ATTACHED.with(|attached| {
        let alone = *attached == usize::from(own.is_some());
        if alone {
            // Relaxed: threads that are given a cache come after, by the lock.
            IS_HARDENED.store(true, Ordering::Relaxed);
        }
        alone
    });
    if let Some(own) = own.filter(|_| done) {
        own.set_home(ptr::null_mut());
        tls::set_new();
        // SAFETY: the thread's cache, which it has just forgotten.
        unsafe { CORE.release_cache(NonNull::from(own)) };
        CORE.note_exit();
    }
}

/// Gives the calling thread a cache of its own.
fn attach(options: Option<&Builder>) -> Option<(&'static HeapCore, &'static ThreadCache)> {
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
    let core = ATTACHED.with(|attached| {
        *attached += 1;
        core()
    });
    let cache = core.acquire_cache()?;
    // SAFETY: caches live as long as the heap, which is that of the process.
    let own = unsafe { cache.as_ref() };
    // Set before arming: that may allocate (in the C library it calls our calloc).
    if core.hardened {
        tls::set_hardened(own);
    } else {
        tls::set_cache(own);
    }
    if !os::arm_thread_exit(key, cache.as_ptr().cast()) {
        tls::set_exited();
        // SAFETY: acquired above, and the thread has just forgotten it.
        unsafe { core.release_cache(cache) };
        return None;
    }
    core.note_start();
    if !core.hardened {
        // Last: from now on a harvest may come, and this thread's end takes it back.
        own.set_home(tls::word());
    }
    own_cache()
}

/// The key whose destructor takes caches back; `None` while it is being made (then the
/// caller is the hooks' own allocation, or another thread at the very start) and when
/// the system has no key left.
fn exit_key() -> Option<os::ExitKey> {
    HOOKS.key(|| {
        os::on_fork(before_fork, after_fork, after_fork_in_child);
        os::on_thread_exit(thread_exit)
    })
}

/// The destructor of the key. The value that the thread armed it with may be a cache that it
/// had before the process was hardened; its stage knows better.
unsafe extern "C" fn thread_exit(_: *mut c_void) {
    let (core, cache) = match tls::stage() {
        Stage::Owner(cache) => (&CORE, cache),
        Stage::Hardened(cache) => (&HARDENED, cache),
        Stage::New | Stage::Exited => return,
    };
    // First, and waiting for a harvest to end: from then on nobody else writes the
    // thread's word.
    cache.set_home(ptr::null_mut());
    tls::set_exited();
    // SAFETY: the cache that `attach` acquired for this thread, which has just forgotten it.
    unsafe { core.release_cache(NonNull::from(cache)) };
    core.note_exit();
}

/// Takes every lock of the heap, in the order that `heap_core.rs` states, so that the
/// child finds no lock held and no structure half changed.
unsafe extern "C" fn before_fork() {
    ATTACHED.raw().acquire();
    for_each_lock(&CORE, RawLock::acquire);
    for_each_lock(&HARDENED, RawLock::acquire);
    crash::raw_lock().acquire();
    PROFILE.raw_lock().acquire();
}

/// Shows the locks of a heap in their order. Not in line: with it the compiler unrolls the loop over
/// the classes, and the library is 14 KB longer.
#[inline(never)]
fn for_each_lock(core: &HeapCore, f: fn(&RawLock)) {
    f(core.shared.raw());
    f(core.caches.raw());
    for_each_class(&core.centrals, f);
    f(core.pages.raw());
    f(core.dropping.raw());
    f(core.big.raw());
    f(core.guards.raw_lock());
    f(core.options.raw_lock());
}

/// A function of its own that is not worth the room which unrolling it takes, four times.
#[cold]
#[inline(never)]
fn for_each_class(centrals: &[Central], f: fn(&RawLock)) {
    centrals.iter().for_each(|central| f(central.raw_lock()));
}

/// What the child has to do besides [`after_fork`]: there is one thread left.
///
/// The caches of the parent's other threads stay as they were, with the free blocks in
/// them; nobody may harvest them, because the words of those threads may be reused. The
/// room that they had is free.
unsafe extern "C" fn after_fork_in_child() {
    let own = match tls::stage() {
        Stage::Owner(own) | Stage::Hardened(own) => ptr::from_ref(own),
        Stage::New | Stage::Exited => ptr::null(),
    };
    for core in [&CORE, &HARDENED] {
        core.bell.forget();
        core.alarm.forget_others();
        let is_serving = ptr::eq(core, self::core());
        // Relaxed: the child has one thread.
        core.owners
            .store(usize::from(is_serving && !own.is_null()), Ordering::Relaxed);
        let mut taken = 0;
        // SAFETY: the child inherited the lock held (`before_fork`); no other thread exists.
        unsafe {
            core.caches.with_held(|store| {
                store.for_each(|cache| {
                    if ptr::from_ref(cache) != own && !cache.is_shared() {
                        cache.orphan();
                    } else if core.hardened {
                        // Else all children would hand out the same places in the same order.
                        cache.quarantine.reseed(os::random());
                    }
                    taken += cache.allowed();
                });
            });
        }
        // Relaxed: as above. Another thread may have taken room that it had not noted yet.
        core.cacheable.store(taken, Ordering::Relaxed);
    }
    // SAFETY: as above: all locks are held.
    unsafe { after_fork() };
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

/// Starts the purge thread of a hardened process.
fn start_purging_hardened() -> bool {
    os::spawn(purge_thread_hardened)
}

extern "C" fn purge_thread_hardened(_: *mut c_void) -> *mut c_void {
    os::name_thread(c"brickyard-purge");
    HARDENED.purge_while_wanted();
    ptr::null_mut()
}

/// Releases every lock.
unsafe extern "C" fn after_fork() {
    PROFILE.raw_lock().release();
    crash::raw_lock().release();
    for_each_lock(&HARDENED, RawLock::release);
    for_each_lock(&CORE, RawLock::release);
    ATTACHED.raw().release();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `holds` says `true` in a child.
    fn in_child(holds: fn() -> bool) -> bool {
        // SAFETY: the child asks `holds` and ends.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::_exit(libc::c_int::from(!holds()));
            }
            let mut status = 0;
            libc::waitpid(child, &raw mut status, 0) == child && status == 0
        }
    }

    #[test]
    fn room_that_a_vanished_thread_was_about_to_take_is_free_in_a_child() {
        // The handlers alone: other tests want a process that has no cache.
        exit_key();
        // As another thread does it: the sum first, then its own cache.
        CORE.cacheable.fetch_add(1 << 20, Ordering::Relaxed);
        let holds = in_child(|| CORE.cacheable.load(Ordering::Relaxed) == 0);
        CORE.cacheable.fetch_sub(1 << 20, Ordering::Relaxed);
        assert!(holds);
    }
}
