//! What an operation on the heap of the process does when `global` does not do it in line: the
//! thread has no cache yet, its magazine is empty, the block is large, or the process is
//! hardened.
//!
//! A hardened thread comes here with each operation, so that is the first question; what is
//! asked after it are functions of their own (`…_rare`), so that its short way saves no
//! registers.

use core::ptr;

use crate::config::Builder;
use crate::heap_core::HeapCore;
use crate::large::Place;
use crate::process::{CORE, HARDENED, core_of, free_large, with_cache};
use crate::size_class::block_size;
use crate::state_window::state_at;
use crate::thread_cache::ThreadCache;
use crate::tls;
use crate::units::{Claim, ClassIndex, Contents};

/// Runs `f` with the heap that serves and a cache of it; `None` when memory is short.
#[inline]
fn with_cache_inline<R>(
    options: Option<&Builder>,
    f: impl FnOnce(&'static HeapCore, &ThreadCache) -> R,
) -> Option<R> {
    if let Some(cache) = tls::cache() {
        return Some(f(&CORE, cache));
    }
    match tls::hardened() {
        Some(cache) => Some(f(&HARDENED, cache)),
        None => with_cache(options, f),
    }
}

/// Size and alignment come in the registers in which `GlobalAlloc` has them.
#[inline(never)]
pub(crate) fn alloc_slow(
    size: usize,
    align: usize,
    options: Option<&Builder>,
    contents: Contents,
) -> *mut u8 {
    if let Some(cache) = tls::hardened() {
        return HARDENED.alloc_hardened(cache, size, align, contents);
    }
    alloc_rare(size, align, options, contents)
}

/// The rest of [`alloc_slow`].
#[inline(never)]
fn alloc_rare(size: usize, align: usize, options: Option<&Builder>, contents: Contents) -> *mut u8 {
    with_cache_inline(options, |core, cache| match contents {
        Contents::Any => core.alloc(cache, size, align),
        Contents::Zero => core.alloc_zeroed(cache, size, align),
    })
    .unwrap_or(ptr::null_mut())
}

/// # Safety
///
/// As for [`core::alloc::GlobalAlloc::dealloc`].
#[inline(never)]
pub(crate) unsafe fn dealloc_slow(block: *mut u8, size: usize, align: usize) {
    let Some(cache) = tls::hardened() else {
        // SAFETY: by contract.
        return unsafe { dealloc_rare(block, size, align) };
    };
    let Some(state) = state_at(block.addr()) else {
        // SAFETY: by contract.
        return unsafe { dealloc_rare(block, size, align) };
    };
    if !HARDENED.free_in_use_as(cache, block, state, (size, align)) {
        // SAFETY: by contract.
        unsafe { dealloc_rare(block, size, align) };
    }
}

/// The rest of [`dealloc_slow`].
///
/// # Safety
///
/// As for [`core::alloc::GlobalAlloc::dealloc`].
#[inline(never)]
unsafe fn dealloc_rare(block: *mut u8, size: usize, align: usize) {
    let owner = core_of(block);
    let done = with_cache_inline(None, |core, cache| {
        let is_owner = ptr::eq(core, owner);
        if is_owner {
            // SAFETY: by contract.
            unsafe { core.dealloc(cache, block, size, align) };
        }
        is_owner
    });
    if done != Some(true) {
        // SAFETY: by contract.
        unsafe { owner.dealloc_uncached(block, size, align) };
    }
}

/// The short way of a hardened thread, for a request of `class`: null if it is not one, or has to
/// take the long way.
#[inline(always)]
pub(crate) fn alloc_hardened_short(class: ClassIndex) -> *mut u8 {
    let Some(cache) = tls::hardened() else {
        return ptr::null_mut();
    };
    match HARDENED.alloc_at_hand(cache, class, Contents::Any) {
        Some(block) => block.as_ptr(),
        None => ptr::null_mut(),
    }
}

/// Null is none of the heap's, and nothing is done.
///
/// # Safety
///
/// As for `Arena::dealloc_unsized`.
#[inline(never)]
pub(crate) unsafe fn dealloc_unsized_slow(block: *mut u8) {
    let Some(cache) = tls::hardened() else {
        // SAFETY: by contract.
        return unsafe { dealloc_unsized_rare(block) };
    };
    // Null has no state.
    let Some(state) = state_at(block.addr()) else {
        // SAFETY: by contract.
        return unsafe { dealloc_unsized_rare(block) };
    };
    if !HARDENED.free_in_use(cache, block, state) {
        // SAFETY: by contract.
        unsafe { dealloc_unsized_rare(block) };
    }
}

/// The rest of [`dealloc_unsized_slow`].
///
/// # Safety
///
/// As for `Arena::dealloc_unsized`.
#[inline(never)]
unsafe fn dealloc_unsized_rare(block: *mut u8) {
    if block.is_null() {
        return;
    }
    let core = core_of(block);
    if core.hardened {
        return free_hardened(core, block);
    }
    match core.locate(block) {
        Place::Small(class) => {
            let class = ClassIndex::new(class);
            match tls::cache() {
                Some(cache) if ptr::eq(core, &CORE) => CORE.dealloc_small(cache, class, block),
                // The block's own size is a layout of its class.
                // SAFETY: by contract.
                _ => unsafe { dealloc_rare(block, block_size(class), 1) },
            }
        }
        Place::Large(_) => match tls::cache() {
            // A thread that has one is of the heap that serves, which is that of the block.
            // SAFETY: by contract.
            Some(cache) => unsafe { CORE.free_large_slow(cache, block) },
            // SAFETY: by contract.
            None => unsafe { free_large(core, block) },
        },
    }
}

/// Frees a block of the hardened heap without its layout.
fn free_hardened(core: &'static HeapCore, block: *mut u8) {
    let freed = with_cache_inline(None, |_, cache| {
        core.free_hardened(cache, block, Claim::Any);
    });
    if freed.is_none() {
        core.free_rare(None, block, Claim::Any);
    }
}
