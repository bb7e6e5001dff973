//! The part of a thread cache that fast paths touch: the tops and limits of its magazines.
//!
//! ```text
//! index      0      1   2   …                      a magazine's index is 1 + its class
//! tops     | none | 8 | 16 | … |
//! limits   | none | 8 | 16 | … |
//! ```
//!
//! A thread without a cache has [`EMPTY`], whose magazines are empty and full at the same time: a
//! `pop` finds nothing and a `push` no room. So has index 0 of every cache, where frees go that
//! the short way is not for. That way nobody asks whether there is a cache, or a class: one
//! comparison that is made anyway answers both.
//!
//! Invariants: T1 to T3 of `thread_cache`, and
//! - N1: the slot below every top can be read, and holds null if the magazine is empty.
//! - N2: a top that is not at its limit belongs to a cache, and so does a `pop` that is not null.

use core::ptr;

use crate::countdown::Countdown;
use crate::size_class::{MAGAZINE_OF_SIXTEENTHS, TABLE_BYTES};
use crate::sync::{AtomicPtr, Ordering, UnsafeCell};
use crate::units::{CLASS_COUNT, MagazineIndex};
use crate::window::View;

/// What became of a block that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Push {
    /// It is in the magazine.
    Done,
    /// The magazine is at its limit.
    Full,
    /// It is the block that was pushed last: a double free.
    Twice,
}

/// See the module.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Magazines {
    /// What the thread sees of the window: `NONE` where frees have to ask. Written before the
    /// thread is given the cache.
    view: UnsafeCell<View>,
    tops: [AtomicPtr<*mut u8>; CLASS_COUNT + 1],
    limits: [AtomicPtr<*mut u8>; CLASS_COUNT + 1],
    /// The way to the next sample for the heap profile: the thread's own that has the cache. Nobody
    /// begins that of [`EMPTY`], which so refuses every byte, and nobody writes it, because `spend`
    /// writes where it does not refuse, and `count` is for who got a block (N2).
    pub(crate) countdown: Countdown,
}

// SAFETY: `view` is written while nobody else has the cache (`set_view`). `countdown` is touched by
// the thread that has the cache, which comes and goes with a lock, and in `EMPTY`, which all threads
// have, by nobody who writes. The rest is atomic.
unsafe impl Sync for Magazines {}

/// A slot with null below a place where nothing is ever written.
#[expect(dead_code, reason = "read through pointers")]
#[derive(Debug)]
struct Nothing([*mut u8; 2]);

// SAFETY: nobody writes it.
unsafe impl Sync for Nothing {}

static NOTHING: Nothing = Nothing([ptr::null_mut(); 2]);

/// The top, and limit, of a magazine that is empty and full.
const NOWHERE: *mut *mut u8 = (&raw const NOTHING)
    .cast::<*mut u8>()
    .wrapping_add(1)
    .cast_mut();

/// The magazines of a thread that has no cache. Nobody writes them (N2).
pub(crate) static EMPTY: Magazines = Magazines {
    view: UnsafeCell::new(View::NONE),
    tops: [const { AtomicPtr::new(NOWHERE) }; CLASS_COUNT + 1],
    limits: [const { AtomicPtr::new(NOWHERE) }; CLASS_COUNT + 1],
    countdown: Countdown::new(),
};

impl Magazines {
    /// Makes index 0 the one without a magazine. The others are the caller's.
    ///
    /// # Safety
    ///
    /// As for [`Self::set_view`].
    pub(crate) unsafe fn initialise(&self) {
        // SAFETY: by contract.
        unsafe { self.set_view(View::NONE) };
        // Relaxed: published with the cache.
        for none in [self.tops.first(), self.limits.first()]
            .into_iter()
            .flatten()
        {
            none.store(NOWHERE, Ordering::Relaxed);
        }
    }

    /// What the thread is to see of the window.
    ///
    /// # Safety
    ///
    /// No thread has the cache, but for the caller.
    pub(crate) unsafe fn set_view(&self, view: View) {
        // SAFETY: by contract nobody reads.
        self.view.with_mut(|own| unsafe { own.write(view) });
    }

    /// The magazine for the block at `addr`; `None` outside of what the thread sees.
    #[inline(always)]
    pub(crate) fn magazine_of(&self, addr: usize) -> Option<MagazineIndex> {
        self.view().magazine_of(addr)
    }

    /// What the thread sees of the window.
    #[inline(always)]
    pub(crate) fn view(&self) -> View {
        // SAFETY: nobody writes while a thread has the cache (`set_view`).
        self.view.with_mut(|own| unsafe { own.read() })
    }

    /// Takes the block that was pushed last, or null.
    #[inline(always)]
    pub(crate) fn pop(&self, index: MagazineIndex) -> *mut u8 {
        let top = self.top(index);
        // SAFETY: the slot below can be read (N1), and the owning thread alone writes it (T3).
        let (slot, block) = unsafe { (top.sub(1), top.sub(1).read()) };
        if !block.is_null() {
            self.set_top(index, slot);
        }
        block
    }

    /// Adds a free block.
    #[inline(always)]
    pub(crate) fn push(&self, index: MagazineIndex, block: *mut u8) -> Push {
        // Loaded once, here, for all that follows.
        let top = self.top(index);
        // SAFETY: as in `pop`.
        if unsafe { top.sub(1).read() } == block {
            return Push::Twice;
        }
        if self.push_at(index, top, block) {
            Push::Done
        } else {
            Push::Full
        }
    }

    /// [`Self::push`] without a look at the block on top; `false` when the magazine is at its
    /// limit.
    #[inline(always)]
    pub(crate) fn push_unasked(&self, index: MagazineIndex, block: *mut u8) -> bool {
        self.push_at(index, self.top(index), block)
    }

    /// [`Self::push_unasked`] where `top` is known.
    #[inline(always)]
    fn push_at(&self, index: MagazineIndex, top: *mut *mut u8, block: *mut u8) -> bool {
        if top == self.limit(index) {
            return false;
        }
        // SAFETY: below the limit, so inside the slots of a magazine (N2, T1, T3).
        unsafe { top.write(block) };
        // SAFETY: as above: at most the limit.
        self.set_top(index, unsafe { top.add(1) });
        true
    }

    #[inline(always)]
    pub(crate) fn top(&self, index: MagazineIndex) -> *mut *mut u8 {
        // Relaxed: only the owner writes (T3); others only compare it with the base.
        // SAFETY: an index is at most CLASS_COUNT.
        unsafe { self.tops.get_unchecked(index.get()) }.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn set_top(&self, index: MagazineIndex, top: *mut *mut u8) {
        // Relaxed: as in `top`; nothing is read through it by other threads.
        // SAFETY: an index is at most CLASS_COUNT.
        unsafe { self.tops.get_unchecked(index.get()) }.store(top, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(crate) fn limit(&self, index: MagazineIndex) -> *mut *mut u8 {
        // Relaxed: only the owner touches it.
        // SAFETY: an index is at most CLASS_COUNT.
        unsafe { self.limits.get_unchecked(index.get()) }.load(Ordering::Relaxed)
    }

    pub(crate) fn set_limit(&self, index: MagazineIndex, limit: *mut *mut u8) {
        // Relaxed: only the owner touches it.
        // SAFETY: an index is at most CLASS_COUNT.
        unsafe { self.limits.get_unchecked(index.get()) }.store(limit, Ordering::Relaxed);
    }
}

/// The magazine for `size` bytes at alignment 16: `class_of` in three instructions.
///
/// # Safety
///
/// `size` is at most [`TABLE_BYTES`].
#[inline(always)]
pub(crate) unsafe fn magazine_of_common(size: usize) -> MagazineIndex {
    debug_assert!(size <= TABLE_BYTES);
    // SAFETY: by contract at most the last entry.
    MagazineIndex::from_byte(unsafe { *MAGAZINE_OF_SIXTEENTHS.get_unchecked((size + 15) >> 4) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size_class::class_of;
    use crate::units::ClassIndex;

    #[test]
    fn the_short_table_agrees() {
        for size in 0..=TABLE_BYTES {
            // SAFETY: at most TABLE_BYTES.
            let magazine = unsafe { magazine_of_common(size) };
            assert_eq!(magazine.class(), class_of(size, 16), "{size} bytes");
        }
    }

    #[test]
    fn without_a_cache_every_magazine_is_empty_and_full() {
        let mut block = 0u8;
        let block = &raw mut block;
        let indices = ClassIndex::all().map(MagazineIndex::of);
        for index in indices.chain([MagazineIndex::NONE]) {
            assert!(EMPTY.pop(index).is_null());
            assert_eq!(EMPTY.push(index, block), Push::Full);
        }
    }
}
