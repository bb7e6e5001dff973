//! The calling thread's `errno`, without `std`.

use core::ffi::c_int;

/// Sets `errno` of the calling thread.
pub(crate) fn set(code: c_int) {
    // SAFETY: the C library returns a pointer to the calling thread's errno,
    // valid and aligned for the thread's whole life and used by no other thread.
    unsafe { *libc::__errno_location() = code }
}

/// Returns `errno` of the calling thread.
pub(crate) fn current() -> c_int {
    // SAFETY: as in `set`; the value is always initialised.
    unsafe { *libc::__errno_location() }
}
