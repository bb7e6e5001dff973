//! Sixteen bytes of thread-local storage: the thread's cache and what stage it is in.
//!
//! On x86-64 Linux this is a symbol of our own with the initial-exec model: two
//! instructions, in an executable and in a preloaded library alike, where
//! `thread_local!` in a library calls `__tls_get_addr` (about 2 ns). Neither has a
//! destructor: registering one allocates, which in a library that *is* malloc never ends.

use core::ptr::{self, NonNull};

use crate::thread_cache::ThreadCache;

/// What a thread is to the process heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has not come to the slow path yet, or has a cache.
    Running,
    /// Its cache was taken back at exit; it uses the shared one from now on.
    Exited,
}

/// The thread's part of the process heap.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Local {
    cache: *const ThreadCache,
    /// 0 is [`Stage::Running`].
    stage: usize,
}

/// The calling thread's cache, if it has one.
#[inline(always)]
pub(crate) fn cache() -> Option<&'static ThreadCache> {
    // SAFETY: null, or a cache of the process heap, which lives as long as the process;
    // it belongs to this thread until `set` forgets it.
    unsafe { imp::cache().as_ref() }
}

/// The calling thread's stage.
pub(crate) fn stage() -> Stage {
    if imp::get().stage == 0 {
        Stage::Running
    } else {
        Stage::Exited
    }
}

/// Sets both.
pub(crate) fn set(cache: Option<NonNull<ThreadCache>>, stage: Stage) {
    let cache = cache.map_or(ptr::null(), |cache| cache.as_ptr().cast_const());
    imp::set(Local {
        cache,
        stage: usize::from(stage == Stage::Exited),
    });
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod imp {
    use core::arch::{asm, global_asm};

    use super::{Local, ThreadCache};

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
        ".pushsection .tbss,\"awT\",@nobits",
        ".balign 16",
        concat!(".globl ", symbol!()),
        concat!(".hidden ", symbol!()),
        concat!(".type ", symbol!(), ",@object"),
        concat!(".size ", symbol!(), ",16"),
        concat!(symbol!(), ":"),
        ".zero 16",
        ".popsection",
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

    pub(super) fn get() -> Local {
        let stage: usize;
        // SAFETY: as in `cache`; the second word.
        unsafe {
            asm!(
                "mov {stage}, qword ptr fs:[{offset} + 8]",
                stage = out(reg) stage,
                offset = in(reg) offset(),
                options(readonly, preserves_flags, nostack),
            );
        }
        Local {
            cache: cache(),
            stage,
        }
    }

    pub(super) fn set(local: Local) {
        // SAFETY: as in `cache`; writes both words.
        unsafe {
            asm!(
                "mov qword ptr fs:[{offset}], {cache}",
                "mov qword ptr fs:[{offset} + 8], {stage}",
                offset = in(reg) offset(),
                cache = in(reg) local.cache,
                stage = in(reg) local.stage,
                options(preserves_flags, nostack),
            );
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod imp {
    use core::cell::Cell;

    use super::{Local, ThreadCache, ptr};

    std::thread_local! {
        static LOCAL: Cell<Local> = const { Cell::new(Local { cache: ptr::null(), stage: 0 }) };
    }

    #[inline(always)]
    pub(super) fn cache() -> *const ThreadCache {
        get().cache
    }

    // Without a destructor the variable can be used for the whole life of the thread, so
    // `with` does not panic.
    pub(super) fn get() -> Local {
        LOCAL.with(Cell::get)
    }

    pub(super) fn set(local: Local) {
        LOCAL.with(|cell| cell.set(local));
    }
}
