//! The short way of a hardened heap: an allocation that finds a block in its magazine, and the
//! free of a block of a class. The rest is in `hardened`, which has the picture.
//!
//! What the short way holds is counted in instructions, as that of other heaps is. So each
//! question is asked once: the class of an allocation comes from its size, that of a free from
//! its layout or, in C, from the state of the block, which `state_window` finds without the
//! segment. There is no call on it but tail calls, so no register is saved. Blocks up to
//! [`FEW_BYTES`] are zeroed and compared in line.

use core::ptr::{self, NonNull};

use crate::block_state::{Before, BlockState};
use crate::fatal::{Misuse, die};
use crate::hardened::{LEAST_BYTES, class_of_hardened};
use crate::heap_core::HeapCore;
use crate::quarantine::Waiting;
use crate::segment::Segment;
use crate::size_class::{block_size, class_of_common};
use crate::thread_cache::ThreadCache;
use crate::units::{Claim, ClassIndex, Contents, MagazineIndex};
use crate::zeroes::{FEW_BYTES, are_few_zero, are_many_zero, zero_few, zero_many};

/// Bytes of a block that are compared with zero when it is handed out again: those that the
/// program is about to use, mostly.
const COMPARE_BYTES: usize = 1024;

impl HeapCore {
    /// [`Self::alloc`] and [`Self::alloc_zeroed`] of a hardened heap.
    #[inline(never)]
    pub(crate) fn alloc_hardened(
        &self,
        cache: &ThreadCache,
        size: usize,
        align: usize,
        contents: Contents,
    ) -> *mut u8 {
        let Some(class) = class_of_common(size.max(LEAST_BYTES), align) else {
            return self.alloc_hardened_longer(cache, size, align, contents);
        };
        match self.alloc_at_hand(cache, class, contents) {
            Some(block) => block.as_ptr(),
            None => self.alloc_hardened_slow(cache, size, align, contents),
        }
    }

    /// [`Self::alloc_hardened`] of what is large or seldom.
    #[inline(never)]
    fn alloc_hardened_longer(
        &self,
        cache: &ThreadCache,
        size: usize,
        align: usize,
        contents: Contents,
    ) -> *mut u8 {
        let Some(class) = class_of_hardened(size, align) else {
            return self.alloc_large_slow(cache, size, align, contents);
        };
        match pop_at_hand(cache, class) {
            Some(block) => self.hand_out_slow(block.as_ptr(), class, contents),
            None => self.alloc_hardened_slow(cache, size, align, contents),
        }
    }

    /// A block of `class` that the thread has at hand; `None` if it has none, if the allocation may
    /// be a guarded one, or during a harvest: then
    /// [`Self::alloc_hardened_slow`] must be asked.
    #[inline(always)]
    pub(crate) fn alloc_at_hand(
        &self,
        cache: &ThreadCache,
        class: ClassIndex,
        contents: Contents,
    ) -> Option<NonNull<u8>> {
        let block = pop_at_hand(cache, class)?;
        Some(hand_out(block, class, contents))
    }

    /// Notes that `block` is in use from now on, and sees to its contents.
    #[inline(never)]
    pub(crate) fn hand_out_slow(
        &self,
        block: *mut u8,
        class: ClassIndex,
        contents: Contents,
    ) -> *mut u8 {
        let block = NonNull::new(block).map(|block| hand_out(block, class, contents));
        block.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    /// [`Self::dealloc`] of a hardened heap.
    #[inline(never)]
    pub(crate) fn free_hardened(&self, cache: &ThreadCache, block: *mut u8, claim: Claim) {
        match self.release(block, claim) {
            Some(class) => self.put_away_slow(cache, block, class),
            None => self.free_rare(Some(cache), block, claim),
        }
    }

    /// Frees `block`, whose state this is, if it is in use; whether it was.
    #[inline(always)]
    pub(crate) fn free_in_use(
        &self,
        cache: &ThreadCache,
        block: *mut u8,
        state: &BlockState,
    ) -> bool {
        let Some(class) = state.release() else {
            return false;
        };
        self.put_away(cache, block, class);
        true
    }

    /// Frees `block`, whose state this is, if it is in use and one for such a layout; whether it
    /// was.
    #[inline(always)]
    pub(crate) fn free_in_use_as(
        &self,
        cache: &ThreadCache,
        block: *mut u8,
        state: &BlockState,
        (size, align): (usize, usize),
    ) -> bool {
        let Some(class) = class_of_common(size.max(LEAST_BYTES), align) else {
            return self.free_longer_as(cache, block, state, (size, align));
        };
        if !state.release_as(class) {
            return false;
        }
        self.put_away(cache, block, class);
        true
    }

    /// [`Self::free_in_use_as`] for a layout that is large or seldom.
    #[inline(never)]
    fn free_longer_as(
        &self,
        cache: &ThreadCache,
        block: *mut u8,
        state: &BlockState,
        (size, align): (usize, usize),
    ) -> bool {
        let class = class_of_hardened(size, align).filter(|&class| state.release_as(class));
        if let Some(class) = class {
            self.put_away_slow(cache, block, class);
        }
        class.is_some()
    }

    /// Zeroes a freed block, puts it into quarantine, and what leaves that into its magazine.
    #[inline(always)]
    fn put_away(&self, cache: &ThreadCache, block: *mut u8, class: ClassIndex) {
        let len = block_size(class);
        if len > FEW_BYTES {
            return self.put_away_many(cache, block, class);
        }
        // SAFETY: a block of the class that was in use (B2), whose owner gave it up.
        unsafe { zero_few(block, len) };
        if !cache.enter() {
            return self.put_away_later(cache, block, class);
        }
        let addr = block.addr();
        let left = cache.quarantine.exchange_few(Waiting { addr, class });
        self.put_back(cache, left);
    }

    /// [`Self::put_away`] for those who may call.
    #[inline(never)]
    fn put_away_slow(&self, cache: &ThreadCache, block: *mut u8, class: ClassIndex) {
        self.put_away(cache, block, class);
    }

    /// [`Self::put_away`] of a block of more than a few bytes.
    #[inline(never)]
    fn put_away_many(&self, cache: &ThreadCache, block: *mut u8, class: ClassIndex) {
        // SAFETY: as in `put_away`.
        unsafe { zero_many(block, block_size(class)) };
        self.put_away_zeroed(cache, block, class);
    }

    /// [`Self::put_away`] of a block that is zeroed.
    #[inline(never)]
    fn put_away_zeroed(&self, cache: &ThreadCache, block: *mut u8, class: ClassIndex) {
        if !cache.enter() {
            return self.put_away_later(cache, block, class);
        }
        let addr = block.addr();
        let left = cache.quarantine.exchange(Waiting { addr, class });
        self.put_back(cache, left);
    }

    /// [`Self::put_away_zeroed`] when a harvest has ended.
    #[cold]
    #[inline(never)]
    fn put_away_later(&self, cache: &ThreadCache, block: *mut u8, class: ClassIndex) {
        cache.await_thaw();
        self.put_away_zeroed(cache, block, class);
    }

    /// Puts what has left the quarantine into its magazine. After `enter`. Nobody asks whether it
    /// is on top already: a block that two threads freed in one instant is seen by its state when
    /// it is handed out (`block_state`).
    #[inline(always)]
    fn put_back(&self, cache: &ThreadCache, left: Option<Waiting>) {
        let Some(Waiting { addr, class }) = left else {
            return cache.leave();
        };
        let block = ptr::with_exposed_provenance_mut(addr);
        let done = cache
            .magazines
            .push_unasked(MagazineIndex::of(class), block);
        cache.leave();
        if !done {
            self.make_room(cache, class, block);
        }
    }
}

/// The top block of the magazine of `class`, for [`HeapCore::alloc_at_hand`].
#[inline(always)]
fn pop_at_hand(cache: &ThreadCache, class: ClassIndex) -> Option<NonNull<u8>> {
    if !cache.quarantine.count() || !cache.enter() {
        return None;
    }
    let block = cache.pop(class);
    cache.leave();
    NonNull::new(block)
}

/// Notes that `block`, of a hardened heap, is in use from now on, and sees to its contents.
#[inline(always)]
fn hand_out(block: NonNull<u8>, class: ClassIndex, contents: Contents) -> NonNull<u8> {
    let addr = block.addr().get();
    // SAFETY: a block of a class lies in a segment of its heap, which lives.
    let segment: &'static Segment = unsafe { Segment::containing(addr) };
    // SAFETY: a segment of a hardened heap has states before it has a block (G5).
    let states = unsafe { segment.block_states().unwrap_unchecked() };
    let (state, len) = (states.at(addr), block_size(class));
    if !state.allot_freed(class) {
        return hand_out_other(block, class, contents, state);
    }
    if len > FEW_BYTES {
        return hand_out_many(block, len, contents);
    }
    // SAFETY: the block is ours, was initialised when it was zeroed at its free, and has the
    // length and alignment of its class.
    if !unsafe { are_few_zero(block.as_ptr(), len) } {
        return stop_written(block);
    }
    block
}

/// Ends the process because of a write into `block` after its free. A function that could return,
/// so that the short way can jump to it.
#[cold]
#[inline(never)]
fn stop_written(block: NonNull<u8>) -> NonNull<u8> {
    die(Misuse::WrittenAfterFree, block.addr().get())
}

/// The rest of [`hand_out`] for a block that was freed, of more than a few bytes.
#[inline(never)]
fn hand_out_many(block: NonNull<u8>, len: usize, contents: Contents) -> NonNull<u8> {
    // SAFETY: as in `hand_out`; the length is a multiple of 64 (`size_class`).
    if !unsafe { are_many_zero(block.as_ptr(), len.min(COMPARE_BYTES)) } {
        die(Misuse::WrittenAfterFree, block.addr().get());
    }
    if len > COMPARE_BYTES && contents == Contents::Zero {
        // SAFETY: a block of `len` bytes, which is ours.
        unsafe { block.write_bytes(0, len) };
    }
    block
}

/// The rest of [`hand_out`] for a block that was not freed since its span was cut.
#[inline(never)]
fn hand_out_other(
    block: NonNull<u8>,
    class: ClassIndex,
    contents: Contents,
    state: &BlockState,
) -> NonNull<u8> {
    match state.allot(class) {
        Before::New => {}
        // Freed as one of another class, or in use.
        Before::Freed | Before::Live => die(Misuse::DoubleFree, block.addr().get()),
    }
    if contents == Contents::Zero {
        // SAFETY: a block of the class, which is ours.
        unsafe { block.write_bytes(0, block_size(class)) };
    }
    block
}
