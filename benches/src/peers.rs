//! The other allocators: one static each, called by the switch.

mod rpmalloc;

use core::alloc::{GlobalAlloc, Layout};

pub(crate) static MIMALLOC3: mimalloc::MiMalloc = mimalloc::MiMalloc;
pub(crate) static MIMALLOC2: Mimalloc2 = Mimalloc2;
pub(crate) static JEMALLOC: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
pub(crate) static SNMALLOC: snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;
pub(crate) static RPMALLOC: rpmalloc::Rpmalloc = rpmalloc::Rpmalloc;
pub(crate) static RUSTY_ALLOC: rusty_alloc_api::RustyAlloc = rusty_alloc_api::RustyAlloc;

/// mimalloc 2, which `build.rs` compiles under names of its own; the calls are
/// those that the package `mimalloc` makes to version 3.
#[derive(Debug)]
pub(crate) struct Mimalloc2;

unsafe extern "C" {
    fn brickyard_mi2_malloc_aligned(size: usize, align: usize) -> *mut u8;
    fn brickyard_mi2_zalloc_aligned(size: usize, align: usize) -> *mut u8;
    fn brickyard_mi2_realloc_aligned(block: *mut u8, size: usize, align: usize) -> *mut u8;
    fn brickyard_mi2_free(block: *mut u8);
    safe fn brickyard_mi2_version() -> core::ffi::c_int;
    safe fn mi_version() -> core::ffi::c_int;
}

/// The version numbers that mimalloc 2 and mimalloc 3 give of themselves.
pub(crate) fn mimalloc_versions() -> [i32; 2] {
    [brickyard_mi2_version(), mi_version()]
}

// SAFETY: the functions are mimalloc's own and keep the contract of
// `GlobalAlloc`: a block of at least that size at that alignment or null; the
// content kept and the old block freed by a successful realloc; null and the
// old block untouched otherwise. None of them unwinds.
unsafe impl GlobalAlloc for Mimalloc2 {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size will do; a layout's alignment is a power of two.
        unsafe { brickyard_mi2_malloc_aligned(layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size will do; a layout's alignment is a power of two.
        unsafe { brickyard_mi2_zalloc_aligned(layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, _layout: Layout) {
        // SAFETY: by the caller's contract the block is live and from here.
        unsafe { brickyard_mi2_free(ptr) }
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: by the caller's contract the block is live and from here; the
        // alignment is that of its layout.
        unsafe { brickyard_mi2_realloc_aligned(ptr, new_size, layout.align()) }
    }
}

#[cfg(test)]
mod tests {
    use core::ffi::c_void;

    use super::*;

    /// The two are linked side by side; had the linker taken one for both, the
    /// columns of the table would be the same allocator twice.
    #[test]
    fn mimalloc_2_and_3_are_two() {
        let major = |version: i32| version.to_string().chars().next();
        assert_eq!(mimalloc_versions().map(major), [Some('2'), Some('3')]);
    }

    /// A peer that replaces one of these works in processes that chose another one.
    #[test]
    fn no_peer_replaces_functions_of_the_c_library() {
        let functions = [
            (c"pthread_create", libc::pthread_create as *const c_void),
            (c"fork", libc::fork as *const c_void),
            (c"exit", libc::exit as *const c_void),
            (c"malloc", libc::malloc as *const c_void),
            (c"calloc", libc::calloc as *const c_void),
            (c"realloc", libc::realloc as *const c_void),
            (c"free", libc::free as *const c_void),
            (c"aligned_alloc", libc::aligned_alloc as *const c_void),
            (c"posix_memalign", libc::posix_memalign as *const c_void),
            (c"memalign", libc::memalign as *const c_void),
        ];
        for (name, called) in functions {
            // SAFETY: the name is a C string.
            let next = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
            assert_eq!(called, next.cast_const(), "{name:?}");
        }
    }
}
