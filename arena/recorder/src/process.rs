//! Whether this is the process that began to record, or a copy of it.
//!
//! A child that is made behind the C library's back (`_Fork`, `clone`) runs no handlers of
//! fork, and has all that its parent had: buffers, file, and the session that is on. One
//! page tells them apart: the kernel empties it in every child that has memory of its own
//! (`MADV_WIPEONFORK`, since Linux 4.14). A child of `vfork` shares the page; it has another
//! number.

use core::ptr;

use crate::sync::{AtomicBool, AtomicPtr, Ordering};

/// At the start of the page; null before [`mark`].
static MARK: AtomicPtr<AtomicBool> = AtomicPtr::new(ptr::null_mut());

/// Marks this process; `false` when there is no memory. Where the kernel is too old, copies
/// are marked, too.
pub(crate) fn mark() -> bool {
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    let len = size_of::<AtomicBool>();
    // SAFETY: a fresh mapping at an address that the kernel chooses touches nothing that
    // exists.
    let page = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return false;
    }
    // SAFETY: the page was mapped above and is private and anonymous; it is emptied in
    // children only. What the call says is of no use: see the function.
    unsafe { libc::madvise(page, len, libc::MADV_WIPEONFORK) };
    let mark: *mut AtomicBool = page.cast();
    // Relaxed, both: the state of the session publishes them.
    // SAFETY: mapped above, and zero is a valid value.
    unsafe { (*mark).store(true, Ordering::Relaxed) };
    MARK.store(mark, Ordering::Relaxed);
    true
}

/// Whether [`mark`] was called in this process rather than in one of which it is a copy.
#[inline]
pub(crate) fn is_marked() -> bool {
    let mark = MARK.load(Ordering::Relaxed);
    // SAFETY: null, or a page that is never unmapped; a child finds it emptied, but there.
    // Relaxed: written before the session is on, and by no thread of this process after.
    unsafe { mark.as_ref() }.is_some_and(|mark| mark.load(Ordering::Relaxed))
}
