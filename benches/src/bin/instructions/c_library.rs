//! Pairs of the C library: loops over whatever functions they are given.
//!
//! Each loop is counted twice: with the functions that this process was linked to, which are those
//! of the preloaded library, and with [`EMPTY`], which do nothing. The difference is what the
//! allocator takes, without the loop, the calls and the returns.

use core::ffi::c_void;
use core::hint::black_box;
use core::ptr;

/// The functions of a C allocator.
///
/// # Safety
///
/// Whoever makes one sees to it that its functions keep the contracts of the C library's, for
/// blocks of which nobody reads or writes a byte.
#[derive(Clone, Copy)]
pub(super) struct Functions {
    malloc: unsafe extern "C" fn(usize) -> *mut c_void,
    calloc: unsafe extern "C" fn(usize, usize) -> *mut c_void,
    realloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
}

/// What the loader found: the preloaded library's.
pub(super) const LOADED: Functions = Functions {
    malloc: libc::malloc,
    calloc: libc::calloc,
    realloc: libc::realloc,
    free: libc::free,
};

/// Functions that return a null pointer at once: "out of memory" is within their contracts.
pub(super) const EMPTY: Functions = Functions {
    malloc: no_malloc,
    calloc: no_calloc,
    realloc: no_realloc,
    free: no_free,
};

extern "C" fn no_malloc(_size: usize) -> *mut c_void {
    ptr::null_mut()
}

extern "C" fn no_calloc(_count: usize, _size: usize) -> *mut c_void {
    ptr::null_mut()
}

extern "C" fn no_realloc(_block: *mut c_void, _size: usize) -> *mut c_void {
    ptr::null_mut()
}

extern "C" fn no_free(_block: *mut c_void) {}

/// One block at a time.
#[inline(never)]
pub(super) fn pairs(functions: Functions, size: usize, count: usize) {
    let Functions { malloc, free, .. } = black_box(functions);
    for _ in 0..count {
        // SAFETY: malloc may be called with any size; free gets its block, once.
        unsafe { free(malloc(size)) };
    }
}

/// `LIVE` blocks, then freed in steps of `STEP`, a number that has no factor in common with `LIVE`: 1
/// is the order of their making. A turn is one of them.
#[inline(never)]
pub(super) fn batches<const LIVE: usize, const STEP: usize>(
    functions: Functions,
    size: usize,
    count: usize,
) {
    let Functions { malloc, free, .. } = black_box(functions);
    let mut blocks = [ptr::null_mut(); LIVE];
    for _ in 0..count / LIVE {
        for block in &mut blocks {
            // SAFETY: malloc may be called with any size.
            *block = unsafe { malloc(size) };
        }
        black_box(&mut blocks);
        let mut next = 0;
        for _ in 0..LIVE {
            // SAFETY: the block came from malloc above, and each is freed once.
            unsafe { free(blocks[next]) };
            next += STEP;
            if next >= LIVE {
                next -= LIVE;
            }
        }
    }
}

/// One zeroed block at a time.
#[inline(never)]
pub(super) fn zeroed(functions: Functions, count: usize) {
    let Functions { calloc, free, .. } = black_box(functions);
    for _ in 0..count {
        // SAFETY: calloc may be called with any size; free gets its block, once.
        unsafe { free(calloc(1, 64)) };
    }
}

/// A block of 64 bytes that becomes one of 96.
#[inline(never)]
pub(super) fn grown(functions: Functions, count: usize) {
    let Functions {
        malloc,
        realloc,
        free,
        ..
    } = black_box(functions);
    for _ in 0..count {
        // SAFETY: realloc gets the block of malloc, and free that of realloc, each once. A
        // null pointer of the former leaves a block behind, which the gate would show.
        unsafe { free(realloc(malloc(64), 96)) };
    }
}
