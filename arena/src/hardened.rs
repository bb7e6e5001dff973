//! What a hardened heap does in place of `alloc`, `dealloc` and `resize`: the tiers are the
//! same, the front is another.
//!
//! ```text
//! alloc   sampled? a guarded block          free   a block whose state is LIVE, of this heap:
//!         the top of the magazine                  its class fits; its state becomes FREED;
//!         its state becomes LIVE                   zero it; exchange it in the quarantine for
//!         was FREED: is it zero still?             a block that goes on top of the magazine
//!                                                  of its class
//!         magazine empty: refill it,        else   guarded, run (zero it), big (unmap it),
//!         in random order                          or misuse
//! ```
//!
//! Nothing of it is reached from the fast paths: a thread of a hardened process has no
//! pointer to its cache where they look (`tls`), so that each operation comes to the slow
//! path, which costs the heaps that are not hardened nothing. There the first look is at the
//! thread's second word, and then comes the short way (`hardened_pair`), of which this is the
//! rest. All is inside `alone`, so a harvest takes all or nothing.

use core::ptr::{self, NonNull};

use crate::block_state::{BlockStates, STATES_BYTES};
use crate::crash;
use crate::fatal::{Misuse, die};
use crate::guard::{Guarded, Guards};
use crate::heap_core::HeapCore;
use crate::page_map::{Entry, PAGE_MAP};
use crate::segment::Segment;
use crate::size_class::{block_at, block_size, class_of};
use crate::span::Kind;
use crate::state_window;
use crate::sync::Ordering;
use crate::thread_cache::ThreadCache;
use crate::units::{Change, Claim, ClassIndex, Contents, GRANULE_SHIFT, HARDENED_HEAP};

/// Smallest request; two blocks share no byte of states (`block_state`).
pub(crate) const LEAST_BYTES: usize = 16;

/// Whether a block of `class` is as claimed.
#[inline(always)]
fn fits_class(claim: Claim, class: ClassIndex) -> bool {
    match claim {
        Claim::Layout(size, align) => class_of_hardened(size, align) == Some(class),
        Claim::Any => true,
    }
}

/// Whether a guarded block is as claimed.
fn fits_guarded(claim: Claim, found: Guarded) -> bool {
    match claim {
        Claim::Layout(size, _) => size.max(1) == found.size,
        Claim::Any => true,
    }
}

/// Whether a block of `len` bytes in whole granules is as claimed.
fn fits_large(claim: Claim, len: usize) -> bool {
    match claim {
        Claim::Layout(size, align) => class_of_hardened(size, align).is_none() && size <= len,
        Claim::Any => true,
    }
}

/// The class that serves a request.
#[inline(always)]
pub(crate) fn class_of_hardened(size: usize, align: usize) -> Option<ClassIndex> {
    class_of(size.max(LEAST_BYTES), align)
}

impl HeapCore {
    /// The rest of `alloc_hardened`: the allocation may be a guarded one, the magazine is
    /// empty, or a harvest is under way.
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_hardened_slow(
        &self,
        cache: &ThreadCache,
        size: usize,
        align: usize,
        contents: Contents,
    ) -> *mut u8 {
        let Some(class) = class_of_hardened(size, align) else {
            return ptr::null_mut();
        };
        let (block, guarded) = cache.alone(|| {
            if cache.quarantine.is_sampled(|| self.options.guard_every()) {
                if let Some(block) = self.alloc_guarded(size.max(1), align) {
                    return (block, true);
                }
            }
            let block = cache.pop(class);
            if !block.is_null() {
                return (block, false);
            }
            (self.refill_hardened(cache, class, size), false)
        });
        self.after_slow_path(Some(cache));
        if block.is_null() {
            return block;
        }
        if guarded {
            // It is zeroed.
            return block;
        }
        self.hand_out_slow(block, class, contents)
    }

    /// A random one of the blocks that the magazine of `class`, which is empty, is filled
    /// with. Inside `alone`.
    #[cold]
    fn refill_hardened(&self, cache: &ThreadCache, class: ClassIndex, request: usize) -> *mut u8 {
        let mut block = self.refill_alone(cache, class, request);
        if block.is_null() && self.empty_quarantine(cache) {
            // Memory is short, and blocks had waited.
            block = self.refill_alone(cache, class, request);
        }
        if block.is_null() {
            return block;
        }
        cache.shuffle(class);
        cache.exchange_random(class, block)
    }

    /// Whether `block`, of this heap, is a guarded one.
    pub(crate) fn is_guarded(&self, block: *mut u8) -> bool {
        let entry = PAGE_MAP.lookup(block.addr());
        matches!(entry, Entry::Guarded { heap } if heap == self.id)
    }

    #[cold]
    fn alloc_guarded(&self, size: usize, align: usize) -> Option<*mut u8> {
        let os_page = self.os_page();
        let opened = Guards::pages_for(size, align, os_page)?;
        if !self.reserve(opened >> GRANULE_SHIFT) {
            return None;
        }
        let Some(addr) = self
            .guards
            .take((self.os, self.id, os_page), size, align, opened)
        else {
            self.unreserve(opened >> GRANULE_SHIFT);
            return None;
        };
        crash::install();
        // Relaxed: a count for statistics.
        self.large.fetch_add(opened, Ordering::Relaxed);
        Some(ptr::with_exposed_provenance_mut(addr))
    }

    /// Notes that `block` is not in use any more, if it is one of a class, of this heap, in use;
    /// its class. The page map says whose it is, wherever it is.
    pub(crate) fn release(&self, block: *mut u8, claim: Claim) -> Option<ClassIndex> {
        let addr = block.addr();
        if addr % LEAST_BYTES != 0 {
            return None;
        }
        let class = self.segment_of(addr)?.block_states()?.at(addr).release()?;
        if !fits_class(claim, class) {
            die(Misuse::WrongLayout, addr);
        }
        Some(class)
    }

    /// Frees what is no block of a class in use, or ends the process; or any block, if there is
    /// no cache, straight back to its span.
    #[cold]
    #[inline(never)]
    pub(crate) fn free_rare(&self, cache: Option<&ThreadCache>, block: *mut u8, claim: Claim) {
        let addr = block.addr();
        if let Some(segment) = self.segment_of(addr) {
            if let Kind::Blocks(class) = segment.kind_at(addr) {
                let len = block_size(class);
                if self.release(block, claim).is_none() {
                    die(not_live(segment, class, addr), addr);
                }
                // SAFETY: a block of the class that was in use (B2), whose owner gave it up.
                unsafe { block.write_bytes(0, len) };
                self.give_blocks(class, &[block]);
                return;
            }
        }
        self.free_other(cache, block, claim);
    }

    /// [`Self::free_rare`] of a guarded or a large block.
    fn free_other(&self, cache: Option<&ThreadCache>, block: *mut u8, claim: Claim) {
        if self.is_guarded(block) {
            return self.free_guarded(block.addr(), claim);
        }
        // Ends the process unless a large block of this heap starts there.
        let len = self.usable_size(block);
        if !fits_large(claim, len) {
            die(Misuse::WrongLayout, block.addr());
        }
        if self.segment_of(block.addr()).is_some() {
            // SAFETY: a run of that length in use, which its owner gives up.
            unsafe { block.write_bytes(0, len) };
        }
        match cache {
            Some(cache) => {
                // SAFETY: the block is a whole one of this heap in use, or the call ends the
                // process; that nobody uses it is the promise of who frees.
                unsafe { self.free_large_with(cache, block) };
                self.after_slow_path(Some(cache));
            }
            // SAFETY: as above.
            None => unsafe { self.free_large(block) },
        }
    }

    /// Gives all blocks in quarantine back to their spans; whether there were any. Inside
    /// `alone`, or during a harvest.
    pub(crate) fn empty_quarantine(&self, cache: &ThreadCache) -> bool {
        let mut any = false;
        while let Some(waiting) = cache.quarantine.take_any() {
            any = true;
            self.give_blocks(
                waiting.class,
                &[ptr::with_exposed_provenance_mut(waiting.addr)],
            );
        }
        any
    }

    fn free_guarded(&self, addr: usize, claim: Claim) {
        if Guards::find(addr).is_some_and(|found| !fits_guarded(claim, found)) {
            Guards::report(addr);
            die(Misuse::WrongLayout, addr);
        }
        match self.guards.give(self.os, addr) {
            Ok(freed) => {
                // Relaxed: a count for statistics.
                self.large.fetch_sub(freed.opened, Ordering::Relaxed);
                self.unreserve(freed.opened >> GRANULE_SHIFT);
            }
            Err(misuse) => die(misuse, addr),
        }
    }

    /// [`Self::resize`] of a hardened heap: small blocks stay where they are only if they are
    /// in use, and guarded ones never.
    ///
    /// # Safety
    ///
    /// As there.
    pub(crate) unsafe fn resize_hardened(
        &self,
        block: *mut u8,
        (size, align): (usize, usize),
        new_size: usize,
    ) -> Option<*mut u8> {
        let old = self.check_live(block, Claim::Layout(size, align));
        let new = class_of_hardened(new_size, align);
        match (old, new) {
            (Some(old), Some(new)) => (old == new).then_some(block),
            // SAFETY: by contract; both sizes are large.
            (None, None) if !self.is_guarded(block) => unsafe {
                self.resize_large(block, new_size, align, Change::Other)
            },
            _ => None,
        }
    }

    /// Ends the process unless `block` is in use and as claimed; its class, if it has one.
    pub(crate) fn check_live(&self, block: *mut u8, claim: Claim) -> Option<ClassIndex> {
        let addr = block.addr();
        match PAGE_MAP.lookup(addr) {
            Entry::Segment { heap } if heap == self.id => {
                // SAFETY: the page map has a segment of this heap there, and the heap lives.
                let segment: &'static Segment = unsafe { Segment::containing(addr) };
                if let Kind::Blocks(class) = segment.kind_at(addr) {
                    let states = segment.block_states();
                    let is_live = addr % LEAST_BYTES == 0
                        && states.is_some_and(|states| states.at(addr).is_live());
                    if !is_live {
                        die(not_live(segment, class, addr), addr);
                    }
                    if !fits_class(claim, class) {
                        die(Misuse::WrongLayout, addr);
                    }
                    return Some(class);
                }
            }
            Entry::Guarded { heap } if heap == self.id => {
                match Guards::find(addr) {
                    Some(found) if fits_guarded(claim, found) => {}
                    found => {
                        Guards::report(addr);
                        let misuse = found.map_or(Misuse::DoubleFree, |_| Misuse::WrongLayout);
                        die(misuse, addr)
                    }
                }
                return None;
            }
            _ => {}
        }
        // Ends the process when no large block starts there.
        if !fits_large(claim, self.usable_size(block)) {
            die(Misuse::WrongLayout, addr);
        }
        None
    }

    /// Sees to it that the segment has block states, and that the blocks of a span of `class`, which
    /// is being cut from the granules from `start` on, are new there; `false` when memory is short.
    pub(crate) fn prepare_states(
        &self,
        segment: &'static Segment,
        start: usize,
        class: ClassIndex,
    ) -> bool {
        if segment.block_states().is_none() {
            let Some(memory) = self.os.map(STATES_BYTES) else {
                return false;
            };
            let states: NonNull<BlockStates> = memory.cast();
            // SAFETY: zeroed memory of that size, which stays mapped if it is adopted.
            if !unsafe { segment.set_block_states(states) } {
                // SAFETY: another thread's were adopted; nobody knows these.
                unsafe { self.os.unmap(memory.as_ptr().addr(), STATES_BYTES) };
            }
        }
        let Some(states) = segment.block_states() else {
            return false;
        };
        if self.id == HARDENED_HEAP {
            state_window::note(segment.expose(), states);
        }
        states.clear(start, class);
        true
    }
}

/// What a program did that frees `addr`, in a span of `class`, where no block in use starts.
#[cold]
fn not_live(segment: &Segment, class: ClassIndex, addr: usize) -> Misuse {
    let offset = segment.span_at(addr).map_or(0, |span| addr - span.start());
    if block_at(class, offset) * block_size(class) == offset {
        Misuse::DoubleFree
    } else {
        Misuse::Interior
    }
}
