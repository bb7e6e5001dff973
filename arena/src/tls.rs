//! Sixteen bytes of thread-local storage: the thread's cache and what stage it is in.
//!
//! The first word is what fast paths load. It is never null: where there is no cache it points to
//! the magazines that are [`EMPTY`]. A harvest (`thread_cache/freeze.rs`) makes it so for a moment,
//! from another thread; the second, which only the thread itself writes, says whether there is
//! a cache behind.
//!
//! On x86-64 Linux this is a symbol of our own with the initial-exec model: two
//! instructions, in an executable and in a preloaded library alike, where
//! `thread_local!` in a library calls `__tls_get_addr` (about 2 ns). Neither has a
//! destructor: registering one allocates, which in a library that *is* malloc never ends.

use core::hint::assert_unchecked;
use core::ptr;

use crate::magazines::{EMPTY, Magazines};
use crate::sync::AtomicPtr;
use crate::thread_cache::ThreadCache;

/// What a thread is to the process heap.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// It has not come to the slow path yet.
    New,
    /// It has this cache.
    Owner(&'static ThreadCache),
    /// It has this cache of the hardened heap, which fast paths do not see.
    Hardened(&'static ThreadCache),
    /// Its cache was taken back at exit; it uses the shared one from now on.
    Exited,
}

/// Second word of a thread that is [`Stage::Exited`]; 0 is [`Stage::New`], and anything
/// else the address of the cache.
const EXITED: *const ThreadCache = ptr::without_provenance(1);

/// Added to the address of a cache of the hardened heap.
const HARDENED: usize = 2;

/// The magazines of the calling thread's cache, or [`EMPTY`] if it has none or a harvest is under
/// way there. They are good for one `pop` or one `push` (T5).
#[inline(always)]
pub(crate) fn magazines() -> &'static Magazines {
    // SAFETY: `EMPTY`, or the first field of a cache of the process heap, which lives as long as
    // the process; it belongs to this thread until `set` forgets it.
    unsafe { &*imp::cache().cast() }
}

/// The calling thread's cache, if it has one and no harvest is under way there. It is
/// good for one `pop` or one `push` (T5).
#[inline]
pub(crate) fn cache() -> Option<&'static ThreadCache> {
    let cache = imp::cache();
    // SAFETY: as in `magazines`.
    (!ptr::eq(cache, none())).then(|| unsafe { &*cache })
}

/// What the first word is without a cache.
const fn none() -> *const ThreadCache {
    (&raw const EMPTY).cast()
}

/// The calling thread's stage.
pub(crate) fn stage() -> Stage {
    let stage = imp::stage();
    if stage == EXITED {
        return Stage::Exited;
    }
    if let Some(cache) = hardened() {
        return Stage::Hardened(cache);
    }
    // SAFETY: null, or a cache, as in `magazines`.
    unsafe { stage.as_ref() }.map_or(Stage::New, Stage::Owner)
}

/// Makes `cache` the calling thread's.
pub(crate) fn set_cache(cache: &'static ThreadCache) {
    imp::set(cache, cache);
}

/// The calling thread's cache of the hardened heap, if it has one.
#[inline(always)]
pub(crate) fn hardened() -> Option<&'static ThreadCache> {
    let stage = imp::stage();
    if stage.addr() & HARDENED == 0 {
        return None;
    }
    // SAFETY: only `set_hardened` sets the bit, beside a cache that lives as long as the
    // process.
    unsafe {
        let cache = stage.wrapping_byte_sub(HARDENED);
        // Or the compiler asks again.
        assert_unchecked(!cache.is_null());
        Some(&*cache)
    }
}

/// Makes `cache`, of the hardened heap, the calling thread's; fast paths find none.
pub(crate) fn set_hardened(cache: &'static ThreadCache) {
    imp::set(
        none(),
        ptr::from_ref(cache).map_addr(|addr| addr + HARDENED),
    );
}

/// Forgets the calling thread's cache; it may get another.
pub(crate) fn set_new() {
    imp::set(none(), ptr::null());
}

/// Forgets the calling thread's cache, for good.
pub(crate) fn set_exited() {
    imp::set(none(), EXITED);
}

/// The word that [`cache`] loads, for the harvest. It lives as long as the thread.
pub(crate) fn word() -> *mut AtomicPtr<ThreadCache> {
    imp::word()
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod imp {
    use core::arch::{asm, global_asm};

    use super::{AtomicPtr, EMPTY, ThreadCache};

    // The version is part of the name: two versions of this crate may be linked together.
    macro_rules! symbol {
        () => {
            concat!(
                "brickyard_arena_tls_",
                env!("CARGO_PKG_VERSION_MAJOR"),
                "_",
                env!("CARGO_PKG_VERSION_MINOR"),
                "_",
                env!("CARGO_PKG_VERSION_PATCH")
            )
        };
    }

    global_asm!(
        ".pushsection .tdata,\"awT\",@progbits",
        ".balign 16",
        concat!(".globl ", symbol!()),
        concat!(".hidden ", symbol!()),
        concat!(".type ", symbol!(), ",@object"),
        concat!(".size ", symbol!(), ",16"),
        concat!(symbol!(), ":"),
        ".quad {empty}",
        ".quad 0",
        ".popsection",
        empty = sym EMPTY,
    );

    /// Offset of the symbol from the thread pointer.
    #[inline(always)]
    fn offset() -> isize {
        let offset: isize;
        // SAFETY: reads one word of the global offset table, which never changes.
        unsafe {
            asm!(
                concat!("mov {offset}, qword ptr [rip + ", symbol!(), "@GOTTPOFF]"),
                offset = out(reg) offset,
                options(pure, nomem, preserves_flags, nostack),
            );
        }
        offset
    }

    #[inline(always)]
    pub(super) fn cache() -> *const ThreadCache {
        let cache: *const ThreadCache;
        // SAFETY: `fs` plus the offset is the thread's own copy of the symbol, 16 bytes
        // that live as long as the thread.
        unsafe {
            asm!(
                "mov {cache}, qword ptr fs:[{offset}]",
                cache = out(reg) cache,
                offset = in(reg) offset(),
                options(readonly, preserves_flags, nostack),
            );
        }
        cache
    }

    #[inline(always)]
    pub(super) fn stage() -> *const ThreadCache {
        let stage: *const ThreadCache;
        // SAFETY: as in `cache`; the second word.
        unsafe {
            asm!(
                "mov {stage}, qword ptr fs:[{offset} + 8]",
                stage = out(reg) stage,
                offset = in(reg) offset(),
                options(readonly, preserves_flags, nostack),
            );
        }
        stage
    }

    pub(super) fn word() -> *mut AtomicPtr<ThreadCache> {
        let word: *mut AtomicPtr<ThreadCache>;
        // SAFETY: on x86-64 the first word at the thread pointer is the pointer itself.
        unsafe {
            asm!(
                "mov {word}, qword ptr fs:[0]",
                "add {word}, {offset}",
                word = out(reg) word,
                offset = in(reg) offset(),
                options(readonly, nostack),
            );
        }
        word
    }

    pub(super) fn set(cache: *const ThreadCache, stage: *const ThreadCache) {
        // SAFETY: as in `cache`; writes both words.
        unsafe {
            asm!(
                "mov qword ptr fs:[{offset}], {cache}",
                "mov qword ptr fs:[{offset} + 8], {stage}",
                offset = in(reg) offset(),
                cache = in(reg) cache,
                stage = in(reg) stage,
                options(preserves_flags, nostack),
            );
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod imp {
    use super::{AtomicPtr, ThreadCache, none, ptr};
    use crate::sync::{Ordering, compiler_barrier};

    struct Local {
        cache: AtomicPtr<ThreadCache>,
        stage: AtomicPtr<ThreadCache>,
    }

    std::thread_local! {
        static LOCAL: Local = const {
            Local {
                cache: AtomicPtr::new(none().cast_mut()),
                stage: AtomicPtr::new(ptr::null_mut()),
            }
        };
    }

    // Without a destructor the variable can be used for the whole life of the thread, so
    // `with` does not panic.
    #[inline(always)]
    pub(super) fn cache() -> *const ThreadCache {
        // What an operation does may not move before its load: the barrier that a harvest
        // has every thread pass orders the processor, and this the compiler.
        compiler_barrier();
        // Relaxed: what is read through it is the thread's own; a harvest changes it under
        // the protocol of `thread_cache/freeze.rs`, and thaws with Release (for which the address
        // dependency is enough).
        let cache = LOCAL.with(|local| local.cache.load(Ordering::Relaxed));
        compiler_barrier();
        cache
    }

    pub(super) fn stage() -> *const ThreadCache {
        // Relaxed: the thread's own.
        LOCAL.with(|local| local.stage.load(Ordering::Relaxed))
    }

    pub(super) fn word() -> *mut AtomicPtr<ThreadCache> {
        LOCAL.with(|local| ptr::from_ref(&local.cache).cast_mut())
    }

    pub(super) fn set(cache: *const ThreadCache, stage: *const ThreadCache) {
        // Relaxed: the thread's own; a harvest comes to the words through the lock.
        LOCAL.with(|local| {
            local.cache.store(cache.cast_mut(), Ordering::Relaxed);
            local.stage.store(stage.cast_mut(), Ordering::Relaxed);
        });
    }
}
