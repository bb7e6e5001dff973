//! `Arena`: the process heap as a global allocator, and without layouts for C.

use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use core::ptr;

use crate::config::Builder;
use crate::harvest::Whose;
use crate::heap_core::HeapCore;
use crate::large::Place;
use crate::long_way::{alloc_hardened_short, alloc_slow, dealloc_slow, dealloc_unsized_slow};
use crate::magazines::{Magazines, Push, magazine_of_common};
use crate::process::{configure, core, core_of, is_hardened, own_cache};
use crate::sampling;
use crate::size_class::{TABLE_BYTES, block_size_of, class_of, class_of_common};
use crate::stats::Stats;
use crate::tls;
use crate::units::{Change, Claim, Contents, MagazineIndex};

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
pub struct Arena {
    options: Option<Builder>,
    /// Whether this name takes samples for the heap profile. A constant of a `static`: the
    /// compiler leaves out what it guards.
    profiled: bool,
}

impl Arena {
    /// A name for the heap of the process, which sets no options.
    pub const fn new() -> Self {
        Self {
            options: None,
            profiled: false,
        }
    }

    /// Options for the heap, to end with [`Builder::build`] in a `static`, with
    /// [`Builder::apply`] at run time, or to give to
    /// [`Heap::with_options`](crate::Heap::with_options).
    pub const fn builder() -> Builder {
        Builder::new()
    }

    /// A snapshot of the heap's figures. Does not allocate.
    ///
    /// # Complexity
    ///
    /// Linear in the number of threads that have allocated.
    pub fn stats() -> Stats {
        core().stats()
    }

    /// Gives the free blocks in the calling thread's cache back to the heap, where other
    /// threads and sizes find them. For a thread that is about to wait for long.
    ///
    /// | | takes from caches | gives to the operating system |
    /// |---|---|---|
    /// | `collect` | the calling thread's | nothing: no system call |
    /// | [`purge`](Self::purge) | nothing | what is free in the heap |
    /// | [`trim`](Self::trim) | every thread's | what is free in the heap then |
    ///
    /// # Complexity
    ///
    /// Linear in the blocks in the cache.
    pub fn collect() {
        if let Some((core, cache)) = own_cache() {
            core.flush(cache);
        }
    }

    /// Gives all memory that neither a block nor a thread's cache pins back to the
    /// operating system; returns how many bytes that was. Threads keep their caches, and
    /// with them their speed.
    ///
    /// # Complexity
    ///
    /// Linear in the heap's spans with free blocks.
    pub fn purge() -> usize {
        core().purge()
    }

    /// Gives everything back to the operating system that no block pins, the caches of
    /// all threads included; returns how many bytes that was. For a program that goes to
    /// rest as a whole.
    ///
    /// A thread that is inside the allocator at this moment keeps its cache, one that
    /// sleeps keeps a block of each size that it had; where the system has no
    /// `membarrier` other threads keep all.
    ///
    /// # Complexity
    ///
    /// Linear in the heap's threads and spans with free blocks.
    pub fn trim() -> usize {
        Self::collect();
        core().harvest(Whose::All);
        core().purge()
    }

    /// Whether the heap of the process is hardened ([`Builder::hardened`]).
    pub fn is_hardened() -> bool {
        is_hardened()
    }

    /// Writes the heap profile that [`Builder::profile`] asked for: for each stack, what was
    /// sampled of it and is live, and of all that it allocated.
    ///
    /// The form is that of gperftools (`heap_v2`), which `pprof` reads as it is; the command
    /// `brickyard` turns it into a symbolised `pprof` file or collapsed stacks. Both scale
    /// samples to what they stand for. `out` may allocate.
    ///
    /// # Errors
    ///
    /// When `out` has one.
    ///
    /// # Complexity
    ///
    /// Linear in the number of stacks, of which 8,192 are kept.
    ///
    /// # Examples
    ///
    /// ```
    /// use brickyard_arena::{Arena, Builder};
    ///
    /// #[global_allocator]
    /// static GLOBAL: Arena = Arena::builder().profile(Builder::PROFILE_BYTES).build();
    ///
    /// let held: Vec<Vec<u8>> = (0..64).map(|_| vec![0; 1 << 20]).collect();
    /// let mut text = String::new();
    /// Arena::write_profile(&mut text).unwrap();
    /// assert!(text.starts_with("heap profile: "));
    /// # drop(held);
    /// ```
    pub fn write_profile(out: &mut impl fmt::Write) -> fmt::Result {
        sampling::write(out)
    }

    /// Allocates as C's `malloc` and `aligned_alloc` do; null when memory is short.
    ///
    /// Sizes from 0 on; `align` is a power of two.
    #[inline]
    pub fn alloc_unsized(size: usize, align: usize) -> *mut u8 {
        if let Some(class) = class_of_common(size, align) {
            let block = tls::magazines().pop(MagazineIndex::of(class));
            if !block.is_null() {
                return block;
            }
        }
        alloc_slow(size, align, None, Contents::Any)
    }

    /// The short way of [`Self::alloc_unsized`] at alignment 16: a block that the calling
    /// thread has at hand; null if it has none, and then `alloc_unsized` must be asked.
    ///
    /// For a C library that compares the size with a limit anyway, which may be below
    /// [`Self::SHORT_BYTES`].
    ///
    /// # Safety
    ///
    /// `size` is at most [`Self::SHORT_BYTES`].
    #[inline(always)]
    pub unsafe fn alloc_short(size: usize) -> *mut u8 {
        // SAFETY: by contract.
        tls::magazines().pop(unsafe { magazine_of_common(size) })
    }

    /// [`Self::alloc_short`] in a hardened process, where that always gives null: null, too, where
    /// the process is not, or the calling thread has no block at hand.
    ///
    /// # Safety
    ///
    /// As for [`Self::alloc_short`].
    #[inline(always)]
    pub unsafe fn alloc_short_hardened(size: usize) -> *mut u8 {
        // SAFETY: by contract.
        let magazine = unsafe { magazine_of_common(size) };
        // SAFETY: the table holds magazines of classes.
        alloc_hardened_short(unsafe { magazine.class().unwrap_unchecked() })
    }

    /// [`Self::alloc_short`] with samples for the heap profile.
    ///
    /// # Safety
    ///
    /// As for [`Self::alloc_short`].
    #[inline(always)]
    pub unsafe fn alloc_short_profiled(size: usize) -> *mut u8 {
        let magazines = tls::magazines();
        // SAFETY: by contract.
        let block = magazines.pop(unsafe { magazine_of_common(size) });
        if block.is_null() || magazines.countdown.count(size) {
            return block;
        }
        sampled_instead(magazines, block, size)
    }

    /// Greatest size in bytes that [`Self::alloc_short`] serves.
    pub const SHORT_BYTES: usize = TABLE_BYTES;

    /// [`Self::alloc_unsized`] with zeroed memory. Up to 32 KiB it writes the zeroes; above, and in a
    /// hardened heap, what is known to be zero is not written.
    #[inline]
    pub fn alloc_zeroed_unsized(size: usize, align: usize) -> *mut u8 {
        // A hardened heap's blocks are zero already, mostly.
        if class_of(size, align).is_none() || tls::hardened().is_some() {
            return alloc_slow(size, align, None, Contents::Zero);
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
    /// - `block` came from this heap and was not freed since, or is null: then nothing is done.
    /// - Nobody uses it any more.
    #[inline]
    pub unsafe fn dealloc_unsized(block: *mut u8) {
        let magazines = tls::magazines();
        if let Some(magazine) = magazines.magazine_of(block.addr()) {
            if magazines.push(magazine, block) == Push::Done {
                return;
            }
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
        // SAFETY: by contract.
        unsafe { realloc_unsized_with(block, new_size, Self::alloc_unsized, |_, _| {}) }
    }

    /// The short way of [`Self::realloc_unsized`]: what has to become of `block`, which may be
    /// null, for `new_size` bytes.
    #[inline(always)]
    pub fn resize_short(block: *mut u8, new_size: usize) -> Resize {
        match tls::magazines().magazine_of(block.addr()) {
            Some(magazine) => match block_size_of(magazine) {
                0 => Resize::Unknown,
                bytes if stays(bytes, new_size) => Resize::Stays,
                bytes => Resize::Moves(Small { magazine, bytes }),
            },
            None => Resize::Unknown,
        }
    }

    /// Moves a block of which [`Self::resize_short`] said so; null if [`Self::realloc_unsized`]
    /// must be asked.
    ///
    /// # Safety
    ///
    /// As for [`Self::realloc_unsized`]; `Small` is what was said of this block, and `new_size` is
    /// at most [`Self::SHORT_BYTES`].
    #[inline]
    pub unsafe fn move_short(small: Small, block: *mut u8, new_size: usize) -> *mut u8 {
        // SAFETY: by contract.
        unsafe { move_short_to(Self::alloc_short(new_size), small, block, new_size) }
    }

    /// [`Self::move_short`] with samples for the heap profile.
    ///
    /// # Safety
    ///
    /// As for [`Self::move_short`].
    #[inline]
    pub unsafe fn move_short_profiled(small: Small, block: *mut u8, new_size: usize) -> *mut u8 {
        // SAFETY: by contract.
        unsafe { move_short_to(Self::alloc_short_profiled(new_size), small, block, new_size) }
    }

    /// [`Self::alloc_unsized`], or with zeroed memory [`Self::alloc_zeroed_unsized`], with
    /// samples for the heap profile as [`Builder::profile`] says.
    pub fn alloc_unsized_profiled(size: usize, align: usize, zeroed: bool) -> *mut u8 {
        if !sampling::spend(size) {
            let contents = if zeroed {
                Contents::Zero
            } else {
                Contents::Any
            };
            let sample = sampling::sample(None, size, align, contents);
            if !sample.is_null() {
                return sample;
            }
        }
        if zeroed {
            Self::alloc_zeroed_unsized(size, align)
        } else {
            Self::alloc_unsized(size, align)
        }
    }

    /// [`Self::realloc_unsized`] with samples for the heap profile.
    ///
    /// # Safety
    ///
    /// As for [`Self::realloc_unsized`].
    pub unsafe fn realloc_unsized_profiled(block: *mut u8, new_size: usize) -> *mut u8 {
        let alloc = |size, align| Self::alloc_unsized_profiled(size, align, false);
        let resized = |block, old| sampling::note_growth(block, old, new_size);
        // SAFETY: by contract.
        unsafe { realloc_unsized_with(block, new_size, alloc, resized) }
    }

    /// Bytes that the block can hold: at least what was asked for.
    ///
    /// # Safety
    ///
    /// `block` came from this heap and was not freed since.
    pub unsafe fn usable_size(block: *mut u8) -> usize {
        core_of(block).usable_size(block)
    }
}

/// A small block of the heap, known to be one: see [`Arena::resize_short`].
#[derive(Clone, Copy, Debug)]
pub struct Small {
    magazine: MagazineIndex,
    /// Bytes in the block.
    bytes: usize,
}

/// What becomes of a block for another size: see [`Arena::resize_short`].
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever asks goes one of three ways"
)]
pub enum Resize {
    /// It serves as it is.
    Stays,
    /// It has to move: [`Arena::move_short`].
    Moves(Small),
    /// [`Arena::realloc_unsized`] knows.
    Unknown,
}

// SAFETY: blocks are at least as long and as aligned as the layout asks (`class_of`,
// `alloc_large`), belong to nobody else until they are freed (T2, S1), and keep their
// contents in `realloc`. Nothing here panics or allocates.
unsafe impl GlobalAlloc for Arena {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        if self.profiled && !sampling::spend(size) {
            let sample = sampling::sample(self.options.as_ref(), size, align, Contents::Any);
            if !sample.is_null() {
                return sample;
            }
        }
        if let Some(class) = class_of_common(size, align) {
            let magazines = tls::magazines();
            let block = magazines.pop(MagazineIndex::of(class));
            if !block.is_null() {
                return block;
            }
        }
        alloc_slow(size, align, self.options.as_ref(), Contents::Any)
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: by the contract of `GlobalAlloc::dealloc`.
        if self.profiled && unsafe { sampling::free_small(block, size, align) } {
            return;
        }
        if let Some(class) = class_of_common(size, align) {
            let magazines = tls::magazines();
            if magazines.push(MagazineIndex::of(class), block) == Push::Done {
                return;
            }
        }
        // SAFETY: by the contract of `GlobalAlloc::dealloc`.
        unsafe { dealloc_slow(block, size, align) };
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        if self.profiled && !sampling::spend(size) {
            let sample = sampling::sample(self.options.as_ref(), size, align, Contents::Zero);
            if !sample.is_null() {
                return sample;
            }
        }
        alloc_slow(size, align, self.options.as_ref(), Contents::Zero)
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        let classes = (
            class_of_common(size, align),
            class_of_common(new_size, align),
        );
        let resized = match classes {
            (Some(old), Some(new)) if !is_hardened() => (old == new).then_some(block),
            // SAFETY: by the contract of `GlobalAlloc::realloc`.
            _ => unsafe { core_of(block).resize(block, (size, align), new_size) },
        };
        if let Some(block) = resized {
            if self.profiled {
                sampling::note_growth(block, size, new_size);
            }
            return block;
        }
        // SAFETY: by the contract of `realloc` the new size makes a layout.
        let new = unsafe {
            let layout = Layout::from_size_align_unchecked(new_size, align);
            self.alloc(layout)
        };
        if !new.is_null() {
            // SAFETY: both blocks hold the smaller of the sizes, and they are different.
            unsafe { ptr::copy_nonoverlapping(block, new, size.min(new_size)) };
            // SAFETY: by contract; the contents were copied.
            unsafe { self.dealloc(block, layout) };
        }
        new
    }
}

impl Builder {
    /// A name for the heap of the process that puts these options in force when it serves
    /// the first thread, so before `main` for a `#[global_allocator]`.
    ///
    /// Of several such names the first that is used decides.
    pub const fn build(self) -> Arena {
        Arena {
            options: Some(self),
            profiled: self.profile > 0,
        }
    }

    /// Puts these options in force for the heap of the process, in place of all that were
    /// before. Takes effect from now on: memory that is held already is not given back
    /// for a limit, and a purge thread that is not wanted any more sleeps.
    pub fn apply(self) {
        configure(&self);
    }
}

/// Moves a small block to `new`, if that is not null, and returns it.
///
/// # Safety
///
/// As for [`Arena::move_short`]; `new` has `new_size` bytes and is another block.
#[inline(always)]
unsafe fn move_short_to(new: *mut u8, small: Small, block: *mut u8, new_size: usize) -> *mut u8 {
    let Small { magazine, bytes } = small;
    if !new.is_null() {
        // SAFETY: both hold the smaller of the sizes; they are different blocks.
        unsafe { ptr::copy_nonoverlapping(block, new, bytes.min(new_size)) };
        if tls::magazines().push(magazine, block) != Push::Done {
            // SAFETY: by contract; the contents were copied.
            unsafe { dealloc_unsized_slow(block) };
        }
    }
    new
}

/// After the countdown of `magazines`, the thread's own, refused `size` bytes for which the caller popped
/// `block`: that, or a sample in its place.
#[cold]
#[inline(never)]
fn sampled_instead(magazines: &Magazines, block: *mut u8, size: usize) -> *mut u8 {
    magazines.countdown.uncount(size);
    let sample = sampling::sample(None, size, 16, Contents::Any);
    if sample.is_null() {
        return block;
    }
    // SAFETY: popped by the caller, and nobody knows it.
    unsafe { Arena::dealloc_unsized(block) };
    sample
}

/// [`Arena::realloc_unsized`] with this way to get a block to move to; `resized` is told of
/// a block that changed its size without a copy, and the size that it had.
///
/// # Safety
///
/// As for [`Arena::realloc_unsized`].
#[inline]
unsafe fn realloc_unsized_with(
    block: *mut u8,
    new_size: usize,
    alloc: impl FnOnce(usize, usize) -> *mut u8,
    resized: impl FnOnce(*mut u8, usize),
) -> *mut u8 {
    let core = core_of(block);
    if core.hardened {
        // SAFETY: by contract.
        return unsafe { realloc_hardened(core, block, new_size) };
    }
    let place = core.locate(block);
    let old = core.usable_size(block);
    match place {
        Place::Small(_) if stays(old, new_size) => return block,
        Place::Small(_) => {}
        Place::Large(_) if class_of(new_size, 1).is_some() => {}
        Place::Large(_) => {
            // SAFETY: by contract; both sizes are large.
            if let Some(moved) = unsafe { core.resize_large(block, new_size, 1, Change::Other) } {
                resized(moved, old);
                return moved;
            }
        }
    }
    let new = alloc(new_size, 16);
    if !new.is_null() {
        // SAFETY: both hold the smaller of the sizes; they are different blocks.
        unsafe { ptr::copy_nonoverlapping(block, new, old.min(new_size)) };
        // SAFETY: by contract; the contents were copied.
        unsafe { Arena::dealloc_unsized(block) };
    }
    new
}

/// Whether `new_size` bytes stay in a block of `old`: a shrink by less than half is not worth
/// a copy. The half is rounded down to an even number of eight bytes, so that blocks of 16, of which
/// there is no smaller one at alignment 16, keep whatever they have.
#[inline(always)]
const fn stays(old: usize, new_size: usize) -> bool {
    let least = (old / 2) & !8;
    // One comparison for both ends.
    new_size.wrapping_sub(least) <= old - least
}

/// [`Arena::realloc_unsized`] of a block of the hardened heap.
///
/// # Safety
///
/// As there.
unsafe fn realloc_hardened(core: &'static HeapCore, block: *mut u8, new_size: usize) -> *mut u8 {
    let class = core.check_live(block, Claim::Any);
    let old = core.usable_size(block);
    if class.is_some() && stays(old, new_size) {
        return block;
    }
    if class.is_none() && class_of(new_size, 1).is_none() && !core.is_guarded(block) {
        // SAFETY: by contract; both sizes are large.
        if let Some(moved) = unsafe { core.resize_large(block, new_size, 1, Change::Other) } {
            return moved;
        }
    }
    // SAFETY: by contract; it holds `old` bytes.
    unsafe { move_unsized(block, old, new_size) }
}

/// Moves a block of `old` bytes to one of `new_size`; null when memory is short.
///
/// # Safety
///
/// As for [`Arena::realloc_unsized`].
unsafe fn move_unsized(block: *mut u8, old: usize, new_size: usize) -> *mut u8 {
    let new = Arena::alloc_unsized(new_size, 16);
    if !new.is_null() {
        // SAFETY: both hold the smaller of the sizes; they are different blocks.
        unsafe { ptr::copy_nonoverlapping(block, new, old.min(new_size)) };
        // SAFETY: by contract; the contents were copied.
        unsafe { Arena::dealloc_unsized(block) };
    }
    new
}
