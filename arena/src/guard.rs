//! Guarded blocks: a sampled share of a hardened heap's allocations lies at the end of OS
//! pages of its own, with a page behind that nobody may touch; after the free nobody may
//! touch the block's pages either. An access that is out of bounds or late stops the program
//! at the instruction, with a report of who allocated and who freed.
//!
//! ```text
//! region, 4 MiB   | Region, slots' records | slot 0 | slot 1 | …
//! slot            |     no access     |  0 0 0 block | no access |
//!                                     |<- opened ----|<- guard ->|
//! ```
//!
//! After Electric Fence (Perens) and GWP-ASan; ours checks at the free, too, that the bytes
//! of the opened pages in front of the block and behind it, up to its alignment, are zero.
//!
//! | slot | block | pages | `take` | `give` |
//! |---|---|---|---|---|
//! | empty | none yet | no access | → live | misuse |
//! | live | in use | opened | | → closing |
//! | closing | being freed | opened | | double free |
//! | freed | freed | no access | → live, the oldest first | double free |
//!
//! Invariants:
//! - D1: a slot's fields but its traces change under the heap's guard lock; its state also
//!   by who frees the block, from live to closing, which one of several does.
//! - D2: pages of a slot that is not live or closing cannot be accessed, and read as zero when
//!   they are opened. They are not resident unless the system would not take them, as under
//!   `mlockall`. If it lets us shut them by no means the slot stays `closing`, for good, and what
//!   it holds is zero.
//! - D3: a region is never unmapped while its heap lives, and known to the page map.

use core::mem::size_of;
use core::ptr;

use crate::fatal::{Line, Misuse};
use crate::faults::Os;
use crate::os::Access;
use crate::page_heap::publish;
use crate::page_map::{Entry, PAGE_MAP};
use crate::slot_state::{EMPTY, FREED, LIVE, SlotState};
use crate::sync::{AtomicBool, AtomicUsize, Lock, Ordering};
use crate::trace::Trace;
use crate::units::SEGMENT_BYTES;

/// Most slots of a region.
const MAX_SLOTS: usize = 112;
/// Bytes of a slot, its guard included, where an OS page has 4 KiB.
const SLOT_BYTES: usize = 32 * 1024;

/// What is known of a slot; outside the slot, so that it survives the block.
#[derive(Debug)]
struct Slot {
    state: SlotState,
    addr: AtomicUsize,
    size: AtomicUsize,
    /// Whether pages of the slot are protected, once they could not be fenced: for good, because
    /// the next block may open fewer.
    protected: AtomicBool,
    allocated: Trace,
    freed: Trace,
}

/// What is at the start of a region. All zeroes but `slot_bytes` is one without blocks.
#[derive(Debug)]
struct Region {
    slot_bytes: AtomicUsize,
    os_page: AtomicUsize,
    /// Whether the system has fences; else pages are protected and purged.
    fenced: AtomicBool,
    slots: [Slot; MAX_SLOTS],
}

/// Bytes before the first slot; a multiple of an OS page of 64 KiB.
const HEADER_BYTES: usize = size_of::<Region>().next_multiple_of(64 * 1024);
const _: () = assert!(HEADER_BYTES + MAX_SLOTS * SLOT_BYTES <= SEGMENT_BYTES);

impl Region {
    /// The region that holds `addr`.
    ///
    /// # Safety
    ///
    /// The page map says that `addr` lies in a region of a heap that lives during `'a`.
    unsafe fn containing<'a>(addr: usize) -> &'a Self {
        let start = addr & !(SEGMENT_BYTES - 1);
        // SAFETY: by contract an initialised region starts there, and stays mapped (D3).
        // Its address was exposed when it was made.
        unsafe { &*ptr::with_exposed_provenance::<Self>(start) }
    }

    fn start(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    fn slot_bytes(&self) -> usize {
        // Relaxed: written before the region was published.
        self.slot_bytes.load(Ordering::Relaxed)
    }

    fn os_page(&self) -> usize {
        // Relaxed: as in `slot_bytes`.
        self.os_page.load(Ordering::Relaxed)
    }

    fn is_fenced(&self) -> bool {
        // Relaxed: as in `slot_bytes`.
        self.fenced.load(Ordering::Relaxed)
    }

    /// Lets the program use `len` bytes of pages at `addr`; `false` if the system refuses.
    ///
    /// # Safety
    ///
    /// They belong to `slot`, of which the caller decides (D1).
    unsafe fn open(&self, os: Os, slot: &Slot, addr: usize, len: usize) -> bool {
        // SAFETY: they were fenced when the region was made, or by `close`; nobody uses them.
        if self.is_fenced() && !unsafe { os.unfence(addr, len) } {
            return false;
        }
        // SAFETY: nobody uses them.
        !slot.is_protected(self) || unsafe { os.protect(addr, len, Access::Full) }
    }

    /// Drops the contents of `len` bytes of pages at `addr` and lets nobody use them; `false` if
    /// the system refuses: then they are zero.
    ///
    /// # Safety
    ///
    /// As for [`Self::open`]; the contents are dead.
    unsafe fn close(&self, os: Os, slot: &Slot, addr: usize, len: usize) -> bool {
        // SAFETY: by contract.
        if self.is_fenced() && unsafe { os.fence(addr, len) } {
            return true;
        }
        // The system takes no pages that are locked, and knows no fences for them.
        // SAFETY: by contract; the pages are open.
        unsafe {
            if !os.purge(addr, len) {
                ptr::with_exposed_provenance_mut::<u8>(addr).write_bytes(0, len);
            }
            if !os.protect(addr, len, Access::None) {
                return false;
            }
        }
        // Relaxed: under the lock (D1).
        slot.protected.store(true, Ordering::Relaxed);
        true
    }

    /// How many slots fit.
    fn count(&self) -> usize {
        MAX_SLOTS.min((SEGMENT_BYTES - HEADER_BYTES) / self.slot_bytes())
    }

    /// Address just behind the data of the slot with this index.
    fn end_of(&self, index: usize) -> usize {
        let first = self.start() + HEADER_BYTES;
        first + (index + 1) * self.slot_bytes() - self.os_page()
    }

    /// The slot that holds `addr`, guard included.
    fn slot_at(&self, addr: usize) -> Option<&Slot> {
        let offset = addr.checked_sub(self.start() + HEADER_BYTES)?;
        self.slots.get(offset / self.slot_bytes())
    }
}

impl Slot {
    /// Whether pages of the slot, one of `region`, are to be unprotected before they are used.
    fn is_protected(&self, region: &Region) -> bool {
        // Relaxed: under the lock (D1).
        !region.is_fenced() || self.protected.load(Ordering::Relaxed)
    }

    fn block(&self) -> (usize, usize) {
        // Relaxed, both: the caller holds the block, or reports.
        let addr = self.addr.load(Ordering::Relaxed);
        (addr, self.size.load(Ordering::Relaxed))
    }

    fn report_traces(&self) {
        self.allocated.report(b"allocated");
        self.freed.report(b"freed");
    }
}

/// The guarded blocks of one heap.
#[derive(Debug)]
pub(crate) struct Guards(Lock<State>);

#[derive(Debug)]
struct State {
    /// Start of the region; 0 before the first block, and 1 when there can be none.
    region: usize,
    /// Slot at which the next search begins.
    next: usize,
    /// Bytes of opened pages.
    opened: usize,
}

/// A guarded block, or what was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guarded {
    /// Bytes that were asked for.
    pub(crate) size: usize,
    /// Bytes of the pages that were opened for it.
    pub(crate) opened: usize,
}

impl Guards {
    pub(crate) const fn new() -> Self {
        Self(Lock::new(State {
            region: 0,
            next: 0,
            opened: 0,
        }))
    }

    /// Bytes of pages for a block, or `None` when it cannot be a guarded one.
    pub(crate) fn pages_for(size: usize, align: usize, os_page: usize) -> Option<usize> {
        let opened = size.max(1).checked_next_multiple_of(os_page)?;
        (align <= os_page && opened <= slot_bytes(os_page) - os_page).then_some(opened)
    }

    /// A guarded block of `size` zeroed bytes in `opened` bytes of pages; `None` when no slot
    /// is free or the system refuses.
    pub(crate) fn take(
        &self,
        (os, heap, os_page): (Os, u16, usize),
        size: usize,
        align: usize,
        opened: usize,
    ) -> Option<usize> {
        self.0.with(|state| {
            if state.region == 0 {
                state.region = make_region(os, heap, os_page).unwrap_or(1);
            }
            if state.region == 1 {
                return None;
            }
            // SAFETY: made above or before, and never unmapped (D3).
            let region = unsafe { Region::containing(state.region) };
            let count = region.count();
            let is_free = |slot: &&Slot| matches!(slot.state.get(), EMPTY | FREED);
            let (index, slot) = (0..count).find_map(|step| {
                let index = (state.next + step) % count;
                Some((index, region.slots.get(index).filter(is_free)?))
            })?;
            let end = region.end_of(index);
            // SAFETY: pages of a slot that nobody uses.
            if !unsafe { region.open(os, slot, end - opened, opened) } {
                return None;
            }
            let addr = (end - size) & !(align - 1);
            // Relaxed, both: published by the state.
            slot.addr.store(addr, Ordering::Relaxed);
            slot.size.store(size, Ordering::Relaxed);
            slot.freed.clear();
            slot.allocated.record();
            slot.state.set(LIVE);
            state.next = (index + 1) % count;
            state.opened += opened;
            Some(addr)
        })
    }

    /// Takes back the guarded block at `addr`, which must be in a region of this heap.
    ///
    /// # Errors
    ///
    /// What the program did wrong, after a report of the traces.
    pub(crate) fn give(&self, os: Os, addr: usize) -> Result<Guarded, Misuse> {
        // SAFETY: by contract, and the heap lives.
        let region = unsafe { Region::containing(addr) };
        let Some(slot) = region.slot_at(addr) else {
            return Err(Misuse::Foreign);
        };
        if slot.state.get() == EMPTY {
            return Err(Misuse::Foreign);
        }
        if slot.block().0 != addr {
            slot.report_traces();
            return Err(Misuse::Interior);
        }
        if !slot.state.close() {
            slot.report_traces();
            return Err(Misuse::DoubleFree);
        }
        // Only now: of a block that is freed twice another may have been here before.
        let (start, size) = slot.block();
        slot.freed.record();
        let end = (start + size).next_multiple_of(region.os_page());
        let opened = end - (start & !(region.os_page() - 1));
        if !is_zero(end - opened, start) || !is_zero(start + size, end) {
            slot.report_traces();
            return Err(Misuse::WrittenOutside);
        }
        self.0.with(|state| {
            // SAFETY: the pages of the block, which its owner has just given up.
            if unsafe { region.close(os, slot, end - opened, opened) } {
                slot.state.set(FREED);
            }
            state.opened -= opened;
        });
        Ok(Guarded { size, opened })
    }

    /// The guarded block at `addr`, which must be in a region of this heap; `None` when no
    /// block in use starts there.
    #[inline(never)]
    pub(crate) fn find(addr: usize) -> Option<Guarded> {
        // SAFETY: by contract, and the heap lives.
        let region = unsafe { Region::containing(addr) };
        let slot = region
            .slot_at(addr)
            .filter(|slot| slot.state.get() == LIVE)?;
        let (start, size) = slot.block();
        (start == addr).then(|| Guarded {
            size,
            opened: size.max(1).next_multiple_of(region.os_page()),
        })
    }

    /// Writes the traces of the slot that holds `addr`.
    pub(crate) fn report(addr: usize) {
        // SAFETY: as in `find`.
        let region = unsafe { Region::containing(addr) };
        if let Some(slot) = region.slot_at(addr) {
            slot.report_traces();
        }
    }

    /// Bytes of pages that are opened.
    pub(crate) fn opened(&self) -> usize {
        self.0.with(|state| state.opened)
    }

    /// The lock, for the fork handlers.
    pub(crate) fn raw_lock(&self) -> &crate::sync::RawLock {
        self.0.raw()
    }
}

const fn slot_bytes(os_page: usize) -> usize {
    if os_page * 2 > SLOT_BYTES {
        os_page * 2
    } else {
        SLOT_BYTES
    }
}

/// Maps a region and publishes it; its start.
#[cold]
fn make_region(os: Os, heap: u16, os_page: usize) -> Option<usize> {
    let memory = os.map_aligned(SEGMENT_BYTES, SEGMENT_BYTES)?;
    let start = memory.as_ptr().expose_provenance();
    // SAFETY: zeroed memory of a region's size and alignment that is only ours: atomics.
    let region = unsafe { Region::containing(start) };
    // Relaxed: published below.
    region
        .slot_bytes
        .store(slot_bytes(os_page), Ordering::Relaxed);
    region.os_page.store(os_page, Ordering::Relaxed);
    let data = SEGMENT_BYTES - HEADER_BYTES;
    // SAFETY: the part of the mapping that holds no records; nobody uses it yet.
    let fenced = unsafe { os.fence(start + HEADER_BYTES, data) };
    // Relaxed: published below.
    region.fenced.store(fenced, Ordering::Relaxed);
    // SAFETY: as above.
    let closed = fenced || unsafe { os.protect(start + HEADER_BYTES, data, Access::None) };
    if closed && publish(os, start, Entry::Guarded { heap }) {
        return Some(start);
    }
    // SAFETY: mapped above and unknown to others. Refused, it is lost address space.
    unsafe { os.unmap(start, SEGMENT_BYTES) };
    None
}

/// Whether the bytes `from .. to` of a slot's opened pages are zero.
#[inline(never)]
fn is_zero(from: usize, to: usize) -> bool {
    const WORD: usize = size_of::<u64>();
    let byte = |addr| {
        // SAFETY: the caller holds the block and with it the pages, in which it is. Volatile: they
        // were written through other pointers, if at all.
        unsafe { ptr::with_exposed_provenance::<u8>(addr).read_volatile() == 0 }
    };
    let word = |addr| {
        // SAFETY: as above; it is aligned.
        unsafe { ptr::with_exposed_provenance::<u64>(addr).read_volatile() == 0 }
    };
    let first = from.next_multiple_of(WORD).min(to);
    let last = first.max(to & !(WORD - 1));
    (from..first).all(byte) && (first..last).step_by(WORD).all(word) && (last..to).all(byte)
}

/// Tells what an access to `addr` did, if it is one to a guarded block; whether it was. For
/// a signal handler.
pub(crate) fn explain(addr: usize) -> bool {
    let Entry::Guarded { .. } = PAGE_MAP.lookup(addr) else {
        return false;
    };
    // SAFETY: the page map says so, and a heap that is dropped meanwhile is misused itself.
    let region = unsafe { Region::containing(addr) };
    let Some(slot) = region
        .slot_at(addr)
        .filter(|slot| slot.state.get() != EMPTY)
    else {
        Line::new()
            .text(b"access to no block, at ")
            .address(addr)
            .write();
        return true;
    };
    let (start, size) = slot.block();
    let (what, distance, side): (&[u8], usize, &[u8]) = if addr < start {
        (
            b"access out of bounds, ",
            start - addr,
            b" bytes in front of the block at ",
        )
    } else if addr >= start + size {
        (
            b"access out of bounds, ",
            addr - (start + size),
            b" bytes behind the block at ",
        )
    } else {
        (
            b"use after free, ",
            addr - start,
            b" bytes into the block at ",
        )
    };
    Line::new()
        .text(what)
        .number(distance)
        .text(side)
        .address(start)
        .text(b" of ")
        .number(size)
        .text(b" bytes")
        .write();
    slot.report_traces();
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::FaultPlan;
    use crate::slot_state::CLOSING;

    const PAGE: usize = 4096;

    fn take(guards: &Guards, size: usize, align: usize) -> Option<usize> {
        let opened = Guards::pages_for(size, align, PAGE)?;
        guards.take((Os::new(), 4095, PAGE), size, align, opened)
    }

    #[test]
    fn a_slot_is_reused_last_and_misuse_is_told_apart() {
        let guards = Guards::new();
        let blocks: Vec<usize> = (0..200).map_while(|_| take(&guards, 24, 8)).collect();
        assert_eq!(blocks.len(), MAX_SLOTS);
        assert!(blocks.iter().all(|block| (block + 24) % PAGE == 0));
        assert_eq!(guards.give(Os::new(), blocks[3] + 8), Err(Misuse::Interior));
        for &block in &blocks[2..5] {
            let opened = Guarded {
                size: 24,
                opened: PAGE,
            };
            assert_eq!(Guards::find(block), Some(opened));
            assert_eq!(guards.give(Os::new(), block), Ok(opened));
            assert_eq!(Guards::find(block), None);
            assert_eq!(guards.give(Os::new(), block), Err(Misuse::DoubleFree));
        }
        let again = take(&guards, 5000, 4096).unwrap();
        assert_eq!(again % 4096, 0);
        assert!(again.abs_diff(blocks[2]) < SLOT_BYTES, "the oldest first");
        // SAFETY: inside the opened pages, outside the block.
        unsafe { ptr::with_exposed_provenance_mut::<u8>(again + 5000).write(1) };
        assert_eq!(guards.give(Os::new(), again), Err(Misuse::WrittenOutside));
        assert!(explain(blocks[3]) && !explain(PAGE));
        assert_eq!(guards.opened(), (MAX_SLOTS - 3 + 2) * PAGE);
        PAGE_MAP.for_each_of(4095, |start, _| {
            PAGE_MAP.clear(start);
            // SAFETY: made by this test, and no longer used.
            unsafe { Os::new().unmap(start, SEGMENT_BYTES) };
        });
    }

    /// As where memory is locked: what the system does not take back is shut all the same, serves
    /// again, and is zero; what it does not shut is zero at least.
    #[test]
    fn pages_that_the_system_refuses_hold_nothing() {
        static PLAN: FaultPlan = FaultPlan::new();
        let (guards, os) = (Guards::new(), Os::with_faults(&PLAN));
        let take = |size| {
            let opened = Guards::pages_for(size, 8, PAGE)?;
            let block = guards.take((os, 4094, PAGE), size, 8, opened)?;
            // SAFETY: a block of `size` bytes.
            let block = unsafe {
                let block = ptr::with_exposed_provenance_mut::<u8>(block);
                core::slice::from_raw_parts_mut(block, size)
            };
            assert!(block.iter().all(|&byte| byte == 0));
            block.fill(7);
            Some(block.as_ptr().expose_provenance())
        };
        let slot = |block: usize| {
            // SAFETY: of this test's region.
            unsafe { Region::containing(block) }.slot_at(block).unwrap()
        };
        let first = take(24).unwrap();
        // One of the two ways to close pages is refused: fences, or the purge before protecting.
        for size in [24, 5000, 24, 24, 9000] {
            let block = take(size).unwrap();
            PLAN.fail_nth(1, false);
            assert!(guards.give(os, block).is_ok());
            PLAN.succeed();
            assert_eq!(slot(block).state.get(), FREED);
            // The next is the same slot again.
            guards.0.with(|state| state.next = 1);
        }
        let before = guards.opened();
        PLAN.fail_nth(1, true);
        assert!(guards.give(os, first).is_ok());
        assert!(take(24).is_none());
        PLAN.succeed();
        assert_eq!(
            (slot(first).state.get(), guards.opened()),
            (CLOSING, before - PAGE)
        );
        // SAFETY: its pages could not be shut.
        let left = unsafe { ptr::with_exposed_provenance::<[u8; 24]>(first).read() };
        assert_eq!(left, [0; 24]);
        assert_eq!(guards.give(os, first), Err(Misuse::DoubleFree));
        PAGE_MAP.for_each_of(4094, |start, _| {
            PAGE_MAP.clear(start);
            // SAFETY: made by this test, and no longer used.
            unsafe { Os::new().unmap(start, SEGMENT_BYTES) };
        });
    }

    #[test]
    fn a_byte_that_is_not_zero_is_seen_wherever_it_is() {
        let mut memory = [0u64; 5];
        let start = memory.as_mut_ptr().expose_provenance();
        for at in 0..40 {
            let byte = ptr::with_exposed_provenance_mut::<u8>(start + at);
            // SAFETY: inside the array.
            unsafe { byte.write(1) };
            for from in 0..40 {
                for to in from..=40 {
                    let holds = (from..to).contains(&at);
                    assert_eq!(is_zero(start + from, start + to), !holds);
                }
            }
            // SAFETY: as above.
            unsafe { byte.write(0) };
        }
    }

    #[test]
    fn what_does_not_fit_is_not_guarded() {
        assert_eq!(Guards::pages_for(28 * 1024, 16, PAGE), Some(28 * 1024));
        assert_eq!(Guards::pages_for(28 * 1024 + 1, 16, PAGE), None);
        assert_eq!(Guards::pages_for(8, 8192, PAGE), None);
        assert_eq!(Guards::pages_for(0, 1, PAGE), Some(PAGE));
        assert_eq!(Guards::pages_for(1, 1, 64 * 1024), Some(64 * 1024));
        assert_eq!(Guards::pages_for(usize::MAX, 1, PAGE), None);
    }
}
