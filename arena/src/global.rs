//! `Arena`: the process heap as a global allocator, and without layouts for C.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;

use crate::large::Place;
use crate::process::{CORE, with_cache};
use crate::size_class::{block_size, class_of, class_of_common};
use crate::stats::Stats;
use crate::tls;
use crate::units::{ClassIndex, Contents};

/// The global allocator: every `Arena` is a name for the one heap of the process.
///
/// | | with a layout | without |
/// |---|---|---|
/// | allocate | [`GlobalAlloc::alloc`] | [`Arena::alloc_unsized`] |
/// | … zeroed | [`GlobalAlloc::alloc_zeroed`] | [`Arena::alloc_zeroed_unsized`] |
/// | resize | [`GlobalAlloc::realloc`] | [`Arena::realloc_unsized`] |
/// | free | [`GlobalAlloc::dealloc`] | [`Arena::dealloc_unsized`] |
///
/// # Examples
///
/// ```
/// use brickyard_arena::Arena;
///
/// #[global_allocator]
/// static GLOBAL: Arena = Arena::new();
///
/// let words = vec![String::from("from"), String::from("the"), String::from("arena")];
/// assert!(Arena::stats().live > 0);
/// # drop(words);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Arena(());

impl Arena {
    /// A name for the heap of the process.
    pub const fn new() -> Self {
        Self(())
    }

    /// A snapshot of the heap's figures. Does not allocate.
    ///
    /// # Complexity
    ///
    /// Linear in the number of threads that have allocated.
    pub fn stats() -> Stats {
        CORE.stats()
    }

    /// Empties the calling thread's cache and gives all memory that no block pins back to
    /// the operating system; returns how many bytes that was.
    ///
    /// What other threads hold in their caches (at most about a MiB each) stays there.
    ///
    /// # Complexity
    ///
    /// Linear in the heap's spans with free blocks.
    pub fn trim() -> usize {
        if let Some(cache) = tls::cache() {
            CORE.flush(cache);
        }
        CORE.trim()
    }

    /// Allocates as C's `malloc` and `aligned_alloc` do; null when memory is short.
    ///
    /// Sizes from 0 on; `align` is a power of two. Statistics count the whole block.
    #[inline]
    pub fn alloc_unsized(size: usize, align: usize) -> *mut u8 {
        if let (Some(cache), Some(class)) = (tls::cache(), class_of_common(size, align)) {
            let block = cache.pop(class);
            if !block.is_null() {
                cache.credit(block_size(class));
                return block;
            }
        }
        alloc_unsized_slow(size, align, Contents::Any)
    }

    /// [`Self::alloc_unsized`] with zeroed memory; what is zero already is not written.
    #[inline]
    pub fn alloc_zeroed_unsized(size: usize, align: usize) -> *mut u8 {
        if class_of(size, align).is_none() {
            return alloc_unsized_slow(size, align, Contents::Zero);
        }
        let block = Self::alloc_unsized(size, align);
        if !block.is_null() {
            // SAFETY: a block of at least `size` bytes, just allocated.
            unsafe { block.write_bytes(0, size) };
        }
        block
    }

    /// Frees a block without its layout.
    ///
    /// A pointer that is not one of the heap's ends the process with a message.
    ///
    /// # Safety
    ///
    /// - `block` came from this heap and was not freed since.
    /// - Nobody uses it any more.
    #[inline]
    pub unsafe fn dealloc_unsized(block: *mut u8) {
        if let (Some(cache), Place::Small(class)) = (tls::cache(), CORE.locate(block)) {
            let class = ClassIndex::new(class);
            cache.debit(block_size(class));
            CORE.dealloc_small(cache, class, block);
            return;
        }
        // SAFETY: by contract.
        unsafe { dealloc_unsized_slow(block) };
    }

    /// Changes the size of a block without its layout, as C's `realloc` does; null when
    /// memory is short, and then the old block is as it was. A new block is aligned to 16
    /// bytes.
    ///
    /// # Safety
    ///
    /// As for [`Self::dealloc_unsized`]; the old pointer is dead unless null is returned.
    pub unsafe fn realloc_unsized(block: *mut u8, new_size: usize) -> *mut u8 {
        let place = CORE.locate(block);
        let old = CORE.usable_size(block);
        match place {
            // A shrink by less than half is not worth a copy.
            Place::Small(_) if new_size <= old && new_size >= old / 2 => return block,
            Place::Small(_) => {}
            Place::Large(_) if class_of(new_size, 1).is_some() => {}
            Place::Large(_) => {
                // SAFETY: by contract; both sizes are large.
                if let Some(moved) = unsafe { CORE.resize_large(block, new_size, 1) } {
                    let now = CORE.usable_size(moved);
                    with_cache(|cache| cache.credit(now.wrapping_sub(old)));
                    return moved;
                }
            }
        }
        let new = Self::alloc_unsized(new_size, 16);
        if !new.is_null() {
            // SAFETY: both hold the smaller of the sizes; they are different blocks.
            unsafe { ptr::copy_nonoverlapping(block, new, old.min(new_size)) };
            // SAFETY: by contract; the contents were copied.
            unsafe { Self::dealloc_unsized(block) };
        }
        new
    }

    /// Bytes that the block can hold: at least what was asked for.
    ///
    /// # Safety
    ///
    /// `block` came from this heap and was not freed since.
    pub unsafe fn usable_size(block: *mut u8) -> usize {
        CORE.usable_size(block)
    }
}

// SAFETY: blocks are at least as long and as aligned as the layout asks (`class_of`,
// `alloc_large`), belong to nobody else until they are freed (T2, S1), and keep their
// contents in `realloc`. Nothing here panics or allocates.
unsafe impl GlobalAlloc for Arena {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        if let (Some(cache), Some(class)) = (tls::cache(), class_of_common(size, align)) {
            let block = cache.pop(class);
            if !block.is_null() {
                cache.credit(size);
                return block;
            }
        }
        alloc_slow(size, align)
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let (size, align) = (layout.size(), layout.align());
        if let (Some(cache), Some(class)) = (tls::cache(), class_of_common(size, align)) {
            cache.debit(size);
            CORE.dealloc_small(cache, class, block);
            return;
        }
        // SAFETY: by the contract of `GlobalAlloc::dealloc`.
        unsafe { dealloc_slow(block, size, align) };
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        with_cache_inline(|cache| CORE.alloc_zeroed(cache, size, align)).unwrap_or(ptr::null_mut())
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let old = (layout.size(), layout.align());
        // SAFETY: by the contract of `GlobalAlloc::realloc`.
        with_cache_inline(|cache| unsafe { CORE.realloc(cache, block, old, new_size) })
            .unwrap_or(ptr::null_mut())
    }
}

#[inline]
fn with_cache_inline<R>(f: impl FnOnce(&crate::thread_cache::ThreadCache) -> R) -> Option<R> {
    match tls::cache() {
        Some(cache) => Some(f(cache)),
        None => with_cache(f),
    }
}

#[inline(never)]
fn alloc_slow(size: usize, align: usize) -> *mut u8 {
    with_cache_inline(|cache| CORE.alloc(cache, size, align)).unwrap_or(ptr::null_mut())
}

/// # Safety
///
/// As for [`GlobalAlloc::dealloc`].
#[inline(never)]
unsafe fn dealloc_slow(block: *mut u8, size: usize, align: usize) {
    // SAFETY: by contract.
    let done = with_cache_inline(|cache| unsafe { CORE.dealloc(cache, block, size, align) });
    if done.is_none() {
        // SAFETY: by contract.
        unsafe { CORE.dealloc_uncached(block, size, align) };
    }
}

#[inline(never)]
fn alloc_unsized_slow(size: usize, align: usize, contents: Contents) -> *mut u8 {
    let block = with_cache_inline(|cache| {
        let Some(class) = class_of(size, align) else {
            let block = CORE.alloc_large(size, align, contents);
            if !block.is_null() {
                cache.credit(CORE.usable_size(block));
            }
            return block;
        };
        CORE.alloc(cache, block_size(class), align)
    });
    block.unwrap_or(ptr::null_mut())
}

/// # Safety
///
/// As for [`Arena::dealloc_unsized`].
unsafe fn dealloc_unsized_slow(block: *mut u8) {
    let size = CORE.usable_size(block);
    match CORE.locate(block) {
        // The block's own size is a layout of its class.
        // SAFETY: by contract.
        Place::Small(_) => unsafe { dealloc_slow(block, size, 1) },
        Place::Large(_) => {
            // SAFETY: by contract.
            unsafe { CORE.free_large(block) };
            if with_cache_inline(|cache| cache.debit(size)).is_none() {
                CORE.caches.with(|store| store.settle(size.wrapping_neg()));
            }
        }
    }
}
