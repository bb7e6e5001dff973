//! The exported functions, each with the contract of the C library's function
//! of the same name (ISO C23, POSIX.1-2024, glibc where these leave it open).
//!
//! | function | null argument | size 0 | failure |
//! |---|---|---|---|
//! | `malloc`, `calloc` | – | unique pointer | null, `ENOMEM` |
//! | `realloc`, `reallocarray` | allocates | frees, returns null | null, `ENOMEM`, old block kept |
//! | `posix_memalign` | – | unique pointer | returns `EINVAL` or `ENOMEM`, `errno` kept |
//! | `aligned_alloc` | – | unique pointer | null, `EINVAL` or `ENOMEM` |
//! | `memalign`, `valloc`, `pvalloc` | – | unique pointer | null, `EINVAL` or `ENOMEM` |
//! | `free`, `free_sized`, `free_aligned_sized` | does nothing | – | `errno` kept |
//! | `malloc_usable_size` | 0 | – | – |
//!
//! A pointer that did not come from here, or was freed before, makes the arena
//! abort the process with one line on stderr.

use core::ffi::{c_int, c_void};
use core::ptr;

use brickyard_arena::{Arena, Resize, Small};

use crate::profile::{is_on, short_way};
use crate::{errno, report};

/// Alignment in bytes of every block: `alignof(max_align_t)` on the 64-bit
/// targets of Linux. Compilers assume it of `malloc` whatever the size is.
const MIN_ALIGN: usize = 16;

/// Greatest size in bytes of one object: differences of pointers into it must
/// fit `ptrdiff_t`.
const MAX_SIZE: usize = isize::MAX.unsigned_abs();

/// Returns `block`, with `errno` set to `ENOMEM` when it is null.
#[inline(always)]
fn or_enomem(block: *mut u8) -> *mut c_void {
    if block.is_null() {
        out_of_memory()
    } else {
        block.cast()
    }
}

#[cold]
#[inline(never)]
fn out_of_memory() -> *mut c_void {
    errno::set(libc::ENOMEM);
    ptr::null_mut()
}

#[cold]
#[inline(never)]
fn invalid() -> *mut c_void {
    errno::set(libc::EINVAL);
    ptr::null_mut()
}

/// Allocates what the short way does not: what is larger, all while there is a profile, and
/// what the thread has no block of at hand.
#[inline(never)]
fn long_way(size: usize, align: usize, zeroed: bool) -> *mut c_void {
    if size > MAX_SIZE {
        return out_of_memory();
    }
    or_enomem(match (is_on(), zeroed) {
        (true, _) => Arena::alloc_unsized_profiled(size, align, zeroed),
        (false, true) => Arena::alloc_zeroed_unsized(size, align),
        (false, false) => Arena::alloc_unsized(size, align),
    })
}

/// What `malloc` does where its short way has nothing: the short way of a hardened process, which
/// the others' has not to know of, or the long one.
#[inline(never)]
extern "C" fn malloc_other_way(size: usize) -> *mut c_void {
    if size <= short_way() {
        // SAFETY: `short_way` is at most `Arena::SHORT_BYTES`.
        let block = unsafe { Arena::alloc_short_hardened(size) };
        if !block.is_null() {
            return block.cast();
        }
    }
    malloc_long_way(size)
}

/// [`long_way`] of `malloc`: two arguments less to load before the jump.
#[cold]
#[inline(never)]
extern "C" fn malloc_long_way(size: usize) -> *mut c_void {
    let block = short_profiled(size);
    if block.is_null() {
        return long_way(size, MIN_ALIGN, false);
    }
    block.cast()
}

/// A block of `size` bytes by the short way of a profile, or null.
///
/// It does not ask whether there is a profile: who comes here without one found no block at hand, and
/// seldom finds one now; that is no sample then (`countdown`).
#[inline(always)]
fn short_profiled(size: usize) -> *mut u8 {
    if size > Arena::SHORT_BYTES {
        return ptr::null_mut();
    }
    // SAFETY: compared just above.
    unsafe { Arena::alloc_short_profiled(size) }
}

/// [`long_way`] of `calloc`.
#[cold]
#[inline(never)]
extern "C" fn calloc_long_way(count: usize, size: usize) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else {
        return out_of_memory();
    };
    let block = short_profiled(bytes);
    if block.is_null() {
        return long_way(bytes, MIN_ALIGN, true);
    }
    // SAFETY: a block of at least so many bytes, just allocated.
    unsafe { block.write_bytes(0, bytes) };
    block.cast()
}

/// A block of `size` bytes by the short way, or null.
#[inline(always)]
fn short(size: usize) -> *mut u8 {
    if size > short_way() {
        return ptr::null_mut();
    }
    // SAFETY: `short_way` is at most `Arena::SHORT_BYTES`.
    unsafe { Arena::alloc_short(size) }
}

/// Allocates with an alignment that is already known to be a power of two.
fn aligned(align: usize, size: usize) -> *mut c_void {
    debug_assert!(align.is_power_of_two());
    long_way(size, align.max(MIN_ALIGN), false)
}

/// Size in bytes of an OS page.
fn os_page_bytes() -> usize {
    // SAFETY: sysconf only reads; `_SC_PAGESIZE` is a valid name.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // POSIX gives every system a page size, so the call does not fail.
    usize::try_from(bytes).unwrap_or(4096)
}

/// Allocates `size` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    let block = short(size);
    if block.is_null() {
        return malloc_other_way(size);
    }
    block.cast()
}

/// Allocates an array of `count` elements of `size` bytes, all bytes zero.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    if let Some(bytes) = count.checked_mul(size) {
        let block = short(bytes);
        if !block.is_null() {
            // SAFETY: a block of at least so many bytes, just allocated.
            unsafe { block.write_bytes(0, bytes) };
            return block.cast();
        }
    }
    calloc_long_way(count, size)
}

/// Gives back a block; does nothing with null.
///
/// # Safety
///
/// - `block` is null or a live block of this library.
/// - Nobody uses the block afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    // SAFETY: null, or live, ours and given up by the caller's promise.
    unsafe { Arena::dealloc_unsized(block.cast()) }
}

/// Gives back a block of a known size (C23). The arena finds the size itself,
/// so a wrong `size` does no harm.
///
/// # Safety
///
/// As [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(block: *mut c_void, _size: usize) {
    // SAFETY: the caller's promise is that of `free`.
    unsafe { free(block) }
}

/// Gives back a block of a known alignment and size (C23).
///
/// # Safety
///
/// As [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(block: *mut c_void, _align: usize, _size: usize) {
    // SAFETY: the caller's promise is that of `free`.
    unsafe { free(block) }
}

/// Changes the size of a block, moving it when it must. Size 0 frees the block
/// and returns null, as glibc does.
///
/// # Safety
///
/// - `block` is null or a live block of this library.
/// - When the result is not null or `size` is 0, nobody uses `block` afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // Neither nothing nor more than the short way serves.
    if size.wrapping_sub(1) < short_way() {
        match Arena::resize_short(block.cast(), size) {
            Resize::Stays => return block,
            // SAFETY: the caller's promise; `short_way` is at most `Arena::SHORT_BYTES`.
            Resize::Moves(small) => return unsafe { realloc_move(block, size, small) },
            Resize::Unknown => {}
        }
    }
    // SAFETY: the caller's promise.
    unsafe { realloc_long_way(block, size) }
}

/// `realloc` of a `small` block that has to move. A function of its own, so that `realloc` saves no
/// registers for it.
///
/// # Safety
///
/// As [`realloc`]; and as [`Arena::move_short`].
#[inline(never)]
unsafe fn realloc_move(block: *mut c_void, size: usize, small: Small) -> *mut c_void {
    // SAFETY: the caller's promise.
    let new = unsafe { Arena::move_short(small, block.cast(), size) };
    if new.is_null() {
        // SAFETY: the caller's promise.
        return unsafe { realloc_long_way(block, size) };
    }
    new.cast()
}

/// The rest of `realloc`.
///
/// # Safety
///
/// As [`realloc`].
#[inline(never)]
unsafe extern "C" fn realloc_long_way(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return malloc(size);
    }
    if size == 0 {
        // SAFETY: not null; live, ours and given up by the caller's promise.
        unsafe { Arena::dealloc_unsized(block.cast()) };
        return ptr::null_mut();
    }
    if size > MAX_SIZE {
        return out_of_memory();
    }
    if is_on() {
        match Arena::resize_short(block.cast(), size) {
            Resize::Stays => return block,
            Resize::Moves(small) if size <= Arena::SHORT_BYTES => {
                // SAFETY: the caller's promise; compared just above.
                let new = unsafe { Arena::move_short_profiled(small, block.cast(), size) };
                if !new.is_null() {
                    return new.cast();
                }
            }
            _ => {}
        }
    }
    // SAFETY: not null; live and ours by the caller's promise. On failure the
    // arena leaves the block alone, and so do we.
    or_enomem(unsafe {
        if is_on() {
            Arena::realloc_unsized_profiled(block.cast(), size)
        } else {
            Arena::realloc_unsized(block.cast(), size)
        }
    })
}

/// Changes the size of a block to that of an array, with a check for overflow.
///
/// # Safety
///
/// As [`realloc`] with the product of `count` and `size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: the caller's promise is that of `realloc`.
        Some(bytes) => unsafe { realloc(block, bytes) },
        None => out_of_memory(),
    }
}

/// Allocates at a multiple of `align` and writes the address to `out`. Returns
/// an error code; `errno` and, on failure, `*out` stay as they were.
///
/// # Safety
///
/// `out` is valid for writing a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || align < size_of::<*mut c_void>() {
        return libc::EINVAL;
    }
    let saved_errno = errno::current();
    let block = aligned(align, size);
    errno::set(saved_errno);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: `out` is valid for writing by the caller's promise.
    unsafe { out.write(block) };
    0
}

/// Allocates at a multiple of `align`, which must be a power of two.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if align.is_power_of_two() {
        aligned(align, size)
    } else {
        invalid()
    }
}

/// Allocates at a multiple of `align` rounded up to a power of two, as glibc
/// does; fails with `EINVAL` when there is none.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => aligned(align, size),
        None => invalid(),
    }
}

/// Allocates at a multiple of the OS page size.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    aligned(os_page_bytes(), size)
}

/// Allocates whole OS pages: `size` rounded up to the OS page size.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    let page = os_page_bytes();
    match size.checked_next_multiple_of(page) {
        Some(bytes) => aligned(page, bytes),
        None => out_of_memory(),
    }
}

/// Returns how many bytes of the block may be used, at least those asked for;
/// 0 for null.
///
/// # Safety
///
/// `block` is null or a live block of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    if block.is_null() {
        0
    } else {
        // SAFETY: not null; live and ours by the caller's promise.
        unsafe { Arena::usable_size(block.cast()) }
    }
}

/// Returns free memory to the operating system; 1 when there was some, else 0.
/// `_pad`, glibc's slack at the top of its heap, has no counterpart here.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(_pad: usize) -> c_int {
    c_int::from(Arena::trim() > 0)
}

/// Returns statistics in glibc's form.
///
/// `arena` is the committed memory, `uordblks` the bytes the program holds,
/// `fordblks` the committed rest, `fsmblks` the part of it in thread caches,
/// `ordblks` the number of free blocks in spans, `smblks` those in caches.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo2() -> libc::mallinfo2 {
    let stats = Arena::stats();
    let mut free_blocks = 0;
    let mut cached_blocks = 0;
    for class in stats.classes.iter() {
        free_blocks += class.free_blocks;
        cached_blocks += class.cached_blocks;
    }
    libc::mallinfo2 {
        arena: stats.committed,
        ordblks: free_blocks,
        smblks: cached_blocks,
        hblks: 0,
        hblkhd: 0,
        usmblks: 0,
        fsmblks: stats.cached,
        uordblks: stats.live,
        fordblks: stats.committed.saturating_sub(stats.live),
        keepcost: 0,
    }
}

/// Returns statistics in glibc's old form; figures that do not fit an `int` are
/// given as the greatest `int`.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo() -> libc::mallinfo {
    let clamp = |figure: usize| c_int::try_from(figure).unwrap_or(c_int::MAX);
    let info = mallinfo2();
    libc::mallinfo {
        arena: clamp(info.arena),
        ordblks: clamp(info.ordblks),
        smblks: clamp(info.smblks),
        hblks: clamp(info.hblks),
        hblkhd: clamp(info.hblkhd),
        usmblks: clamp(info.usmblks),
        fsmblks: clamp(info.fsmblks),
        uordblks: clamp(info.uordblks),
        fordblks: clamp(info.fordblks),
        keepcost: clamp(info.keepcost),
    }
}

/// Prints the arena's statistics on stderr.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_stats() {
    report::print(libc::STDERR_FILENO);
}
