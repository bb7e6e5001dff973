//! What a hardened heap does in place of `alloc`, `dealloc` and `resize`: the tiers are the
//! same, the front is another.
//!
//! ```text
//! alloc   sampled? a guarded block          free   what is there? guarded, run, big, or
//!         a random block of the magazine           a block: its state is LIVE, its class fits
//!         its state becomes LIVE                   its state becomes FREED; zero it
//!         was FREED: is it zero still?             into quarantine; what leaves it goes to
//!                                                  the magazine of its class
//!                                                  run: zero it; big: unmap it
//! ```
//!
//! Nothing here is reached from the fast paths: a thread of a hardened process has no
//! pointer to its cache where they look (`tls`), so that each operation comes to the slow
//! path, which costs the heaps that are not hardened nothing. All is inside `alone`, so a
//! harvest takes all or nothing.

use core::ptr::{self, NonNull};

use crate::block_state::{Before, BlockStates, STATES_BYTES};
use crate::crash;
use crate::fatal::{Misuse, die};
use crate::guard::{Guarded, Guards};
use crate::heap_core::HeapCore;
use crate::page_map::{Entry, PAGE_MAP};
use crate::quarantine::Waiting;
use crate::segment::Segment;
use crate::size_class::{block_at, block_size, class_of};
use crate::span::Kind;
use crate::sync::Ordering;
use crate::thread_cache::{Push, ThreadCache};
use crate::units::{Claim, ClassIndex, Contents, GRANULE_SHIFT, Run};

/// Smallest request; two blocks share no byte of states (`block_state`).
const LEAST_BYTES: usize = 16;

/// Bytes of a block that are compared with zero when it is handed out again: those that the
/// program is about to use, mostly.
const COMPARE_BYTES: usize = 1024;

/// Whether a block of `class` is as claimed.
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
#[inline]
fn class_of_hardened(size: usize, align: usize) -> Option<ClassIndex> {
    class_of(size.max(LEAST_BYTES), align)
}

impl HeapCore {
    /// [`Self::alloc`] and [`Self::alloc_zeroed`] of a hardened heap, and the bytes that may be
    /// used; the caller credits.
    pub(crate) fn alloc_hardened(
        &self,
        cache: &ThreadCache,
        size: usize,
        align: usize,
        contents: Contents,
    ) -> (*mut u8, usize) {
        let Some(class) = class_of_hardened(size, align) else {
            return self.alloc_large_hardened(cache, size, align, contents);
        };
        let (mut slow, mut guarded) = (false, false);
        let block = cache.alone(|| {
            if cache.quarantine.is_sampled(|| self.options.guard_every()) {
                slow = true;
                if let Some(block) = self.alloc_guarded(size.max(1), align) {
                    guarded = true;
                    return block;
                }
            }
            let block = cache.pop_random(class);
            if !block.is_null() {
                return block;
            }
            slow = true;
            self.refill_hardened(cache, class)
        });
        if slow {
            self.after_slow_path(Some(cache));
        }
        if block.is_null() || guarded {
            // What is guarded is zeroed.
            return (block, size.max(1));
        }
        self.allot(block, class);
        if contents == Contents::Zero {
            // SAFETY: a block of at least `size` bytes, just allocated.
            unsafe { block.write_bytes(0, size) };
        }
        (block, block_size(class))
    }

    /// [`Self::alloc_hardened`] that credits what was asked for.
    pub(crate) fn alloc_hardened_counted(
        &self,
        cache: &ThreadCache,
        size: usize,
        align: usize,
        contents: Contents,
    ) -> *mut u8 {
        let (block, _) = self.alloc_hardened(cache, size, align, contents);
        if !block.is_null() {
            cache.credit(size);
        }
        block
    }

    #[cold]
    fn alloc_large_hardened(
        &self,
        cache: &ThreadCache,
        size: usize,
        align: usize,
        contents: Contents,
    ) -> (*mut u8, usize) {
        let block = self.alloc_large_with(cache, size, align, contents);
        self.after_slow_path(Some(cache));
        if block.is_null() {
            return (block, 0);
        }
        (block, self.usable_size(block))
    }

    /// A random one of the blocks that the magazine of `class`, which is empty, is filled
    /// with. Inside `alone`.
    #[cold]
    fn refill_hardened(&self, cache: &ThreadCache, class: ClassIndex) -> *mut u8 {
        let mut block = self.refill_alone(cache, class);
        if block.is_null() && self.empty_quarantine(cache) {
            // Memory is short, and blocks had waited.
            block = self.refill_alone(cache, class);
        }
        if block.is_null() {
            return block;
        }
        cache.exchange_random(class, block)
    }

    /// Notes that `block` is in use from now on.
    #[inline]
    fn allot(&self, block: *mut u8, class: ClassIndex) {
        let addr = block.addr();
        // SAFETY: a block of a class lies in a segment of this heap.
        let segment: &'static Segment = unsafe { Segment::containing(addr) };
        let Some(states) = segment.block_states() else {
            die(Misuse::Foreign, addr)
        };
        match states.at(addr).allot() {
            Before::New => {}
            Before::Live => die(Misuse::DoubleFree, addr),
            Before::Freed => {
                let len = block_size(class).min(COMPARE_BYTES);
                // SAFETY: the block is ours, initialised when it was zeroed at its free, and
                // a multiple of 16 bytes at such an address.
                let words = unsafe { core::slice::from_raw_parts(block.cast::<u64>(), len / 8) };
                if words.iter().fold(0, |sum, word| sum | word) != 0 {
                    die(Misuse::WrittenAfterFree, addr);
                }
            }
        }
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

    /// [`Self::dealloc`] of a hardened heap, and the bytes that could be used; the caller
    /// debits. Without a cache the block goes straight back to its span.
    pub(crate) fn free_hardened(
        &self,
        cache: Option<&ThreadCache>,
        block: *mut u8,
        claim: Claim,
    ) -> usize {
        if let Entry::Segment { heap } = PAGE_MAP.lookup(block.addr()) {
            if heap == self.id {
                // SAFETY: the page map has a segment of this heap there, and the heap lives.
                let segment: &'static Segment = unsafe { Segment::containing(block.addr()) };
                if let Kind::Blocks(class) = segment.kind_at(block.addr()) {
                    self.free_block(cache, block, (segment, class), claim);
                    return block_size(class);
                }
            }
        }
        self.free_other(cache, block, claim)
    }

    /// [`Self::free_hardened`] of what is no block of a class.
    #[cold]
    #[inline(never)]
    fn free_other(&self, cache: Option<&ThreadCache>, block: *mut u8, claim: Claim) -> usize {
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
        len
    }

    #[inline]
    fn free_block(
        &self,
        cache: Option<&ThreadCache>,
        block: *mut u8,
        (segment, class): (&'static Segment, ClassIndex),
        claim: Claim,
    ) {
        let addr = block.addr();
        let is_aligned = addr % LEAST_BYTES == 0;
        let states = segment.block_states().filter(|_| is_aligned);
        if !states.is_some_and(|states| states.at(addr).release()) {
            die(not_live(segment, class, addr), addr);
        }
        if !fits_class(claim, class) {
            die(Misuse::WrongLayout, addr);
        }
        // SAFETY: a block of the class that was in use, whose owner gives it up.
        unsafe { zero(block, block_size(class)) };
        let Some(cache) = cache else {
            self.give_blocks(class, &[block]);
            return;
        };
        let slow = cache.alone(|| {
            cache.quarantine.put(Waiting { addr, class });
            let mut slow = false;
            while let Some(next) = cache.quarantine.next() {
                slow |= self.end_quarantine(cache, next);
            }
            slow
        });
        if slow {
            self.after_slow_path(Some(cache));
        }
    }

    /// Puts a block that has waited into its magazine; whether that took the slow path.
    /// Inside `alone`.
    fn end_quarantine(&self, cache: &ThreadCache, waiting: Waiting) -> bool {
        let block = ptr::with_exposed_provenance_mut(waiting.addr);
        match cache.push(waiting.class, block) {
            Push::Done => false,
            Push::Twice => die(Misuse::DoubleFree, waiting.addr),
            Push::Full => {
                self.make_room_alone(cache, waiting.class, block);
                true
            }
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

    fn free_guarded(&self, addr: usize, claim: Claim) -> usize {
        if Guards::find(addr).is_some_and(|found| !fits_guarded(claim, found)) {
            Guards::report(addr);
            die(Misuse::WrongLayout, addr);
        }
        match self.guards.give(self.os, addr) {
            Ok(freed) => {
                // Relaxed: a count for statistics.
                self.large.fetch_sub(freed.opened, Ordering::Relaxed);
                self.unreserve(freed.opened >> GRANULE_SHIFT);
                freed.size
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
                self.resize_large(block, new_size, align)
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

    /// Sees to it that the segment has block states, none of which is set in the granules of
    /// a span that is being cut; `false` when memory is short.
    pub(crate) fn prepare_states(&self, segment: &Segment, run: Run) -> bool {
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
        let states = segment.block_states();
        states.is_some_and(|states| {
            states.clear(run);
            true
        })
    }
}

/// Zeroes `len` bytes, a multiple of 16.
///
/// # Safety
///
/// The block is aligned to 16 bytes, has `len` bytes, and is the caller's.
#[inline(always)]
unsafe fn zero(block: *mut u8, len: usize) {
    /// Up to here a call costs more than the stores.
    const FEW_BYTES: usize = 256;
    if len > FEW_BYTES {
        // SAFETY: by contract.
        unsafe { block.write_bytes(0, len) };
        return;
    }
    let mut at = 0;
    while at < len {
        // SAFETY: by contract; `at` is a multiple of 16 below `len`. Volatile, or the
        // compiler makes a call of the loop.
        unsafe { block.add(at).cast::<u128>().write_volatile(0) };
        at += 16;
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
