//! The exported functions: the C library's own, with an event beside each.
//!
//! glibc exports its functions under second names, too, which nobody else defines. The contracts
//! are glibc's; what it would refuse is passed on as it is, and refused.

use core::ffi::{c_int, c_void};
use core::{mem, ptr};

use brickyard_recording::{Block, Event};

use crate::session::{finish, note};
use crate::sync::{AtomicPtr, Ordering};

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(block: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
    fn __libc_free(block: *mut c_void);
}

/// The name of a block in events.
fn name(block: *mut c_void) -> Block {
    Block::at(wide(block.addr()))
}

/// The widening is exact: no target has more than 64 bits.
fn wide(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Notes an allocation unless it failed, and returns its result.
#[inline]
fn noted(block: *mut c_void, event: impl FnOnce(Block) -> Event) -> *mut c_void {
    if !block.is_null() {
        note(event(name(block)));
    }
    block
}

/// Allocates `size` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    // SAFETY: any size may be asked for.
    let block = unsafe { __libc_malloc(size) };
    let size = wide(size);
    noted(block, |block| Event::Allocate { block, size })
}

/// Allocates an array of zeros.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    // SAFETY: any pair may be asked for.
    let block = unsafe { __libc_calloc(count, size) };
    // The product was found to fit if there is a block.
    let size = wide(count.wrapping_mul(size));
    noted(block, |block| Event::AllocateZeroed { block, size })
}

/// Gives back a block.
///
/// # Safety
///
/// `block` is null or live, and not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    if !block.is_null() {
        note(Event::Free { block: name(block) });
        // SAFETY: the caller's promise.
        unsafe { __libc_free(block) }
    }
}

/// Gives back a block of a known size (C23).
///
/// # Safety
///
/// As [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(block: *mut c_void, _size: usize) {
    // SAFETY: the caller's promise.
    unsafe { free(block) }
}

/// Gives back a block of a known size and alignment (C23).
///
/// # Safety
///
/// As [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(block: *mut c_void, _align: usize, _size: usize) {
    // SAFETY: the caller's promise.
    unsafe { free(block) }
}

/// Changes the size of a block.
///
/// # Safety
///
/// `block` is null or live; when the result is not null or `size` is 0 it is not used
/// afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return malloc(size);
    }
    if size == 0 {
        // glibc frees the block then.
        note(Event::Free { block: name(block) });
        // SAFETY: the caller's promise.
        return unsafe { __libc_realloc(block, 0) };
    }
    note(Event::ReallocBegin { block: name(block) });
    // SAFETY: the caller's promise.
    let moved = unsafe { __libc_realloc(block, size) };
    if moved.is_null() {
        note(Event::ReallocFailed);
    } else {
        note(Event::ReallocEnd {
            block: name(moved),
            size: wide(size),
        });
    }
    moved
}

/// Changes the size of a block to that of an array.
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
        // SAFETY: the caller's promise.
        Some(bytes) => unsafe { realloc(block, bytes) },
        None => fail(libc::ENOMEM),
    }
}

/// Allocates at a multiple of `align`, as `memalign` does.
fn aligned(align: usize, size: usize) -> *mut c_void {
    // SAFETY: any pair may be asked for; glibc rounds the alignment up to a power of two.
    let block = unsafe { __libc_memalign(align, size) };
    let size = wide(size);
    // What glibc gives is aligned to that power, which therefore exists.
    let power = align.checked_next_power_of_two().unwrap_or(1);
    let align_log2 = u8::try_from(power.trailing_zeros()).unwrap_or(0);
    noted(block, |block| Event::AllocateAligned {
        block,
        size,
        align_log2,
    })
}

/// Returns null with `errno` set.
fn fail(code: c_int) -> *mut c_void {
    // SAFETY: the C library returns a valid pointer to the calling thread's errno.
    unsafe { *libc::__errno_location() = code };
    ptr::null_mut()
}

/// Allocates at a multiple of `align` and writes the address to `out`.
///
/// # Safety
///
/// `out` is valid for writing a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || align < size_of::<*mut c_void>() {
        return libc::EINVAL;
    }
    let block = crate::file::keeping_errno(|| aligned(align, size));
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's promise.
    unsafe { out.write(block) };
    0
}

/// Allocates at a multiple of `align`.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    aligned(align, size)
}

/// Allocates at a multiple of `align`.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    aligned(align, size)
}

/// Bytes that a block can hold: the C library's answer, for the block is one of its own also
/// where the program is linked with another allocator, whose function of this name would run
/// instead. 0 for null.
///
/// # Safety
///
/// `block` is null or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    type UsableSize = unsafe extern "C" fn(*mut c_void) -> usize;
    static FUNCTION: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
    // Relaxed, both: the address of a function of a library that stays, whoever finds it.
    let mut function = FUNCTION.load(Ordering::Relaxed);
    if function.is_null() {
        // SAFETY: both take C strings; the library is in the process already, and stays.
        function = unsafe {
            let library = libc::dlopen(c"libc.so.6".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
            libc::dlsym(library, c"malloc_usable_size".as_ptr())
        };
        FUNCTION.store(function, Ordering::Relaxed);
    }
    if function.is_null() || block.is_null() {
        return 0;
    }
    // SAFETY: the C library's function of this name has this type; the caller's promise.
    unsafe { mem::transmute::<*mut c_void, UsableSize>(function)(block) }
}

/// Bytes of an OS page.
fn os_page_bytes() -> usize {
    // SAFETY: sysconf only reads; `_SC_PAGESIZE` is a valid name.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // POSIX gives every system a page size, so the call does not fail.
    usize::try_from(bytes).unwrap_or(4096)
}

/// Allocates at a multiple of the size of an OS page.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    aligned(os_page_bytes(), size)
}

/// Allocates whole OS pages.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    let page = os_page_bytes();
    match size.checked_next_multiple_of(page) {
        Some(bytes) => aligned(page, bytes),
        None => fail(libc::ENOMEM),
    }
}

/// Ends the process without its handlers, the recording before.
#[unsafe(no_mangle)]
pub extern "C" fn _exit(code: c_int) -> ! {
    finish();
    loop {
        // SAFETY: the call ends the process and returns never.
        unsafe { libc::syscall(libc::SYS_exit_group, code) };
    }
}

/// The same under its name in C99.
#[unsafe(no_mangle)]
pub extern "C" fn _Exit(code: c_int) -> ! {
    _exit(code)
}
