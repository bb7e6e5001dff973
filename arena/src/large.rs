//! Allocations above 32 KiB or aligned beyond that: runs of granules in segments up to
//! 1 MiB, mappings of their own above.

use core::ptr;

use crate::big::{self, BigCache, Kept, worth_keeping};
use crate::bitmap::Bits;
use crate::fatal::{Misuse, die};
use crate::guard::Guards;
use crate::heap_core::HeapCore;
use crate::os;
use crate::page_heap::{Given, Growth, MAX_RUN_BYTES, Placement, Wanted, publish};
use crate::page_map::{Entry, PAGE_MAP};
use crate::profile::PROFILE;
use crate::run_cache::KeptRun;
use crate::segment::Segment;
use crate::size_class::block_size;
use crate::span::Kind;
use crate::sync::Ordering;
use crate::units::{
    Change, Contents, GRANULE_BYTES, GRANULE_SHIFT, Run, SEGMENT_BYTES, align_up, granules_for,
};

/// Largest size that is tried: no address space holds more.
const MAX_BYTES: usize = isize::MAX as usize;

/// Where a pointer that somebody frees without a layout points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A block of a class, or the inside of one.
    Small(usize),
    /// The start of a block of this many bytes of whole granules.
    Large(usize),
}

impl HeapCore {
    /// Allocates a block of whole granules; null when memory is short.
    pub(crate) fn alloc_large(&self, size: usize, align: usize, contents: Contents) -> *mut u8 {
        if size > MAX_BYTES || align > MAX_BYTES {
            return ptr::null_mut();
        }
        if size <= MAX_RUN_BYTES && align <= MAX_RUN_BYTES {
            let align = (align >> GRANULE_SHIFT).max(1);
            self.alloc_run(size, contents, Placement::Tight { align })
        } else {
            self.alloc_big(size, align, contents)
        }
    }

    /// Allocates a run of granules of a segment; null when memory is short.
    pub(crate) fn alloc_run(
        &self,
        size: usize,
        contents: Contents,
        placement: Placement,
    ) -> *mut u8 {
        let Some(len) = granules_for(size.max(1)) else {
            return ptr::null_mut();
        };
        if !self.reserve(len) {
            return ptr::null_mut();
        }
        let wanted = Wanted { len, placement };
        let Some(given) = self.alloc_granules(wanted, Kind::Whole, Growth::Allow) else {
            self.unreserve(len);
            return ptr::null_mut();
        };
        // What was resident before was counted already.
        self.unreserve(len - given.fresh_count);
        // Relaxed: a count for statistics.
        self.large.fetch_add(len * GRANULE_BYTES, Ordering::Relaxed);
        if contents == Contents::Zero {
            zero_dirty(&given);
        }
        ptr::with_exposed_provenance_mut(given.span.start())
    }

    fn alloc_big(&self, size: usize, align: usize, contents: Contents) -> *mut u8 {
        let align = align.max(SEGMENT_BYTES);
        let Some(len) = align_up(size.max(1), self.os_page().max(GRANULE_BYTES)) else {
            return ptr::null_mut();
        };
        let (addr, len, fresh) = match self.take_kept(len, align, 0, Change::Other) {
            Some((addr, len)) => (addr, len, false),
            None => match self.map_big(len, align) {
                Some(addr) => (addr, len, true),
                None => return ptr::null_mut(),
            },
        };
        if !publish(self.os, addr, self.big_entry(len)) {
            // SAFETY: the mapping is ours and nobody knows it.
            unsafe { self.drop_mapping(addr, len) };
            return ptr::null_mut();
        }
        self.large.fetch_add(len, Ordering::Relaxed);
        let block = ptr::with_exposed_provenance_mut::<u8>(addr);
        // SAFETY: the whole mapping is ours and its contents are dead.
        if contents == Contents::Zero && !fresh && !unsafe { self.os.purge(addr, len) } {
            // SAFETY: `len >= size` bytes are mapped and ours.
            unsafe { block.write_bytes(0, size) };
        }
        block
    }

    /// Maps `len` bytes, which count as committed; tries again after relieving the heap.
    fn map_big(&self, len: usize, align: usize) -> Option<usize> {
        if !self.reserve(len >> GRANULE_SHIFT) {
            return None;
        }
        let mapped = self.os().map_aligned(len, align).or_else(|| {
            self.relieve();
            self.os().map_aligned(len, align)
        });
        let Some(mapped) = mapped else {
            self.unreserve(len >> GRANULE_SHIFT);
            return None;
        };
        self.give_up_kept(len);
        Some(mapped.as_ptr().expose_provenance())
    }

    /// The heap grows by `bytes`: gives up as many of those that are kept.
    ///
    /// The system is called under the lock, so that no fork comes between: the child would have a
    /// mapping that nobody knows. A step is short (`big`), and others wait for it only with big blocks.
    pub(crate) fn give_up_kept(&self, bytes: usize) {
        let mut grown = bytes;
        while self.big.with(|big| self.give_up_step(big, grown)) {
            grown = 0;
        }
    }

    /// One step of [`Self::give_up_kept`]; whether there was something to do.
    fn give_up_step(&self, big: &mut BigCache, grown: usize) -> bool {
        let Some((mut kept, surplus)) = big.take_for_growth(grown) else {
            return false;
        };
        let rest = kept.resident - surplus;
        // SAFETY: the mapping is ours alone until it is put back, and unused.
        if rest > 0 && unsafe { self.os.purge(kept.addr + rest, surplus) } {
            kept.resident = rest;
            self.note_big_purged(surplus);
            if big.put(kept) {
                return true;
            }
        }
        // SAFETY: as above.
        unsafe { self.drop_kept(kept) };
        true
    }

    /// A kept mapping for `len` bytes: its address and length. It is cut so that a block pins no
    /// more than twice what it needs, or four times that if it grows and may want it soon. At least
    /// `least` bytes of it are resident still; all of it counts as committed again.
    fn take_kept(
        &self,
        len: usize,
        align: usize,
        least: usize,
        change: Change,
    ) -> Option<(usize, usize)> {
        let mut kept = (self.big).with(|big| big.take(len, align, least, change))?;
        let most = len * big::most_times(change) / 2;
        // A block that does not grow yet has no use for what is behind it.
        let cut = if least == 0 { len } else { most };
        // SAFETY: a kept mapping is ours and unused, and `cut` a multiple of the OS page size.
        if kept.len > most && unsafe { self.os.unmap(kept.addr + cut, kept.len - cut) } {
            let resident = kept.resident.min(cut);
            self.note_big_purged(kept.resident - resident);
            (kept.len, kept.resident) = (cut, resident);
        }
        if !self.reserve((kept.len - kept.resident) >> GRANULE_SHIFT) {
            // SAFETY: it was taken, and nobody has it yet.
            unsafe { self.drop_kept(kept) };
            return None;
        }
        self.give_up_kept(kept.len - kept.resident);
        Some((kept.addr, kept.len))
    }

    /// Unmaps the mapping that `next` takes out of those that are kept; `false` when it takes none.
    ///
    /// A fork waits until that is done: a child would have a mapping that nobody knows. A note of it
    /// would not tell the child whether it is still there or another has its place. Others wait only to
    /// drop one, too.
    pub(crate) fn drop_next_kept(&self, next: impl FnOnce(&mut BigCache) -> Option<Kept>) -> bool {
        self.dropping.with(|()| {
            let Some(kept) = self.big.with(next) else {
                return false;
            };
            // SAFETY: it was taken, and kept mappings are unused.
            unsafe { self.drop_kept(kept) };
            true
        })
    }

    /// Unmaps what was kept, or might have been.
    ///
    /// # Safety
    ///
    /// It is one whole mapping of this heap, out of the cache, and nobody uses it.
    pub(crate) unsafe fn drop_kept(&self, kept: Kept) {
        // SAFETY: by contract. If the system refuses to unmap, the memory can still be given
        // back; the address space is lost.
        if !unsafe { self.os.unmap(kept.addr, kept.len) } {
            // SAFETY: by contract.
            unsafe { self.os.purge(kept.addr, kept.len) };
        }
        self.note_big_purged(kept.resident);
    }

    /// Counts bytes of big blocks that are not resident any more.
    fn note_big_purged(&self, bytes: usize) {
        let granules = bytes >> GRANULE_SHIFT;
        // Relaxed: counts for statistics and for the policy.
        self.committed.fetch_sub(granules, Ordering::Relaxed);
        self.purged.fetch_add(granules, Ordering::Relaxed);
    }

    /// Unmaps a big block that is not in the page map.
    ///
    /// # Safety
    ///
    /// The range is one mapping of this heap that nobody uses.
    pub(crate) unsafe fn drop_mapping(&self, addr: usize, len: usize) {
        // SAFETY: by contract; all of it may be resident.
        unsafe { self.drop_kept(Kept::whole(addr, len, 0)) };
    }

    fn big_entry(&self, len: usize) -> Entry {
        Entry::Big {
            heap: self.id,
            granules: len >> GRANULE_SHIFT,
        }
    }

    /// Where `block` points to; ends the process when it is not of this heap.
    #[inline]
    pub(crate) fn locate(&self, block: *mut u8) -> Place {
        let addr = block.addr();
        match self.segment_of(addr).map(|segment| segment.kind_at(addr)) {
            Some(Kind::Blocks(class)) => Place::Small(class.get()),
            Some(Kind::Lent(host)) => Place::Small(self.class_of_lent(addr, host).get()),
            _ => Place::Large(self.locate_large(addr)),
        }
    }

    fn locate_large(&self, addr: usize) -> usize {
        match PAGE_MAP.lookup(addr) {
            Entry::Big { heap, granules } if heap == self.id => {
                if addr % SEGMENT_BYTES == 0 {
                    return granules << GRANULE_SHIFT;
                }
                die(Misuse::Interior, addr)
            }
            Entry::Segment { heap } if heap == self.id => {
                // SAFETY: the page map has a segment of this heap there.
                run_at(unsafe { Segment::containing(addr) }, addr).bytes()
            }
            Entry::Guarded { heap } if heap == self.id => match Guards::find(addr) {
                Some(guarded) => guarded.size,
                None => {
                    Guards::report(addr);
                    die(Misuse::DoubleFree, addr)
                }
            },
            _ if self.big.with(|big| big.holds(addr)) => die(Misuse::DoubleFree, addr),
            _ => die(Misuse::Foreign, addr),
        }
    }

    /// Frees a block of whole granules.
    ///
    /// # Safety
    ///
    /// Nobody uses the block any more. A pointer that is no such block ends the process.
    pub(crate) unsafe fn free_large(&self, block: *mut u8) {
        // SAFETY: by contract.
        if let Some(run) = unsafe { self.free_unless_run(block) } {
            // SAFETY: freed just now.
            unsafe { self.free_run(run) };
            self.tick();
        }
    }

    /// Frees a block of whole granules if it is a mapping of its own; if it is a run, only
    /// notes that it is free, for [`Self::free_run`].
    ///
    /// # Safety
    ///
    /// As for [`Self::free_large`].
    pub(crate) unsafe fn free_unless_run(&self, block: *mut u8) -> Option<KeptRun> {
        let addr = block.addr();
        PROFILE.forget(addr);
        if let Some(segment) = self.segment_of(addr) {
            let run = run_at(segment, addr);
            if !segment.note_freed(addr) {
                // Another thread has freed it since we looked.
                die(Misuse::DoubleFree, addr);
            }
            return Some(run);
        }
        let len = self.locate_large(addr);
        // Relaxed: a count for statistics.
        self.large.fetch_sub(len, Ordering::Relaxed);
        PAGE_MAP.clear(addr);
        // SAFETY: by contract nobody uses it, and it left the page map.
        unsafe { self.retire_big(addr, len) };
        self.tick();
        None
    }

    /// Gives a run back to the page heap.
    ///
    /// # Safety
    ///
    /// The run is a whole one of this heap that was noted as freed and that nobody holds.
    pub(crate) unsafe fn free_run(&self, run: KeptRun) {
        // Relaxed: a count for statistics.
        self.large.fetch_sub(run.bytes(), Ordering::Relaxed);
        // SAFETY: by contract it lies in a segment of this heap.
        let segment: &'static Segment = unsafe { Segment::containing(run.addr) };
        let Some(span) = segment.span_at(run.addr) else {
            die(Misuse::DoubleFree, run.addr)
        };
        // SAFETY: a whole span of this heap's segment; by contract unused.
        self.pages
            .with(|pages| unsafe { pages.free(segment, span, &Bits::new()) });
    }

    /// # Safety
    ///
    /// The range is one mapping of this heap that nobody uses and that is not in the map.
    unsafe fn retire_big(&self, addr: usize, len: usize) {
        if self.hardened || !worth_keeping(len) {
            // SAFETY: by contract.
            unsafe { self.drop_mapping(addr, len) };
            return;
        }
        let kept = Kept::whole(addr, len, os::now_ms());
        while !self.big.with(|big| big.put(kept)) {
            if !self.drop_next_kept(BigCache::take_oldest) {
                // SAFETY: by contract.
                unsafe { self.drop_mapping(addr, len) };
                return;
            }
        }
    }

    /// Changes the size of a large block without copying; `None` when it must move to
    /// another kind of place.
    ///
    /// # Safety
    ///
    /// The block is in use by the caller, and came from this heap; `new_size` is not one
    /// for a size class.
    pub(crate) unsafe fn resize_large(
        &self,
        block: *mut u8,
        new_size: usize,
        align: usize,
        change: Change,
    ) -> Option<*mut u8> {
        // Before it moves: another thread may get the old place at once.
        let sample = PROFILE.lift(block.addr());
        // SAFETY: by contract.
        let resized = unsafe { self.resize_place(block, new_size, align, change) };
        if let Some(sample) = sample {
            match resized {
                Some(resized) => PROFILE.lay(sample, resized.addr(), new_size),
                None => PROFILE.lay(sample, block.addr(), 0),
            }
        }
        resized
    }

    /// # Safety
    ///
    /// As for [`Self::resize_large`].
    unsafe fn resize_place(
        &self,
        block: *mut u8,
        new_size: usize,
        align: usize,
        change: Change,
    ) -> Option<*mut u8> {
        let addr = block.addr();
        let old_len = self.locate_large(addr);
        if new_size > MAX_BYTES {
            return None;
        }
        let len = align_up(new_size, self.os_page().max(GRANULE_BYTES))?;
        if let Some(segment) = self.segment_of(addr) {
            if new_size <= MAX_RUN_BYTES {
                let span = segment.span_at(addr)?;
                if self.resize_run(segment, span, new_size) {
                    return Some(block);
                }
                // Only C's `realloc` is often asked for a little more. A buffer that doubles moves
                // to a run that the thread kept, which is in the processor's cache.
                if change == Change::Growth || new_size <= old_len || self.hardened {
                    return None;
                }
                // SAFETY: by contract; the run has `old_len` bytes.
                return unsafe { self.move_run(block, old_len, new_size) };
            }
            if change == Change::Other {
                return None;
            }
            let to = self.take_kept(len, align.max(SEGMENT_BYTES), old_len, change)?;
            // SAFETY: by contract; a kept mapping is ours and unused.
            let moved = unsafe { self.copy_to_kept(addr, old_len, to) };
            // SAFETY: by contract; the contents moved.
            unsafe { self.free_large(block) };
            return Some(moved);
        }
        if len <= old_len && change == Change::Growth {
            return Some(block);
        }
        if new_size <= MAX_RUN_BYTES && len < old_len / 2 {
            return None;
        }
        // SAFETY: by contract.
        unsafe { self.resize_big(addr, old_len, len, align, change) }
    }

    /// # Safety
    ///
    /// `addr` is a big block of this heap of `old` bytes, in use by the caller.
    unsafe fn resize_big(
        &self,
        addr: usize,
        old: usize,
        len: usize,
        align: usize,
        change: Change,
    ) -> Option<*mut u8> {
        let block = ptr::with_exposed_provenance_mut::<u8>(addr);
        if len == old {
            return Some(block);
        }
        if len < old {
            // SAFETY: the tail is unused by the caller's will.
            if unsafe { self.os.unmap(addr + len, old - len) } {
                self.unreserve((old - len) >> GRANULE_SHIFT);
                self.note_big(addr, old, len);
            }
            return Some(block);
        }
        if let Some(to) = self.take_kept(len, align.max(SEGMENT_BYTES), old, change) {
            // Copying into memory that is resident costs less than faulting in as much. One that
            // gave up what the copy needs would cost both, and keep the old place besides.
            // SAFETY: by contract; a kept mapping is ours and unused.
            return Some(unsafe { self.move_big(addr, old, to) });
        }
        let added = (len - old) >> GRANULE_SHIFT;
        if !self.reserve(added) {
            return None;
        }
        self.give_up_kept(len - old);
        // SAFETY: a whole mapping of ours.
        if unsafe { self.os.extend(addr, old, len) } {
            self.note_big(addr, old, len);
            return Some(block);
        }
        // SAFETY: by contract; the growth is reserved.
        let moved = unsafe { self.move_pages(addr, old, len, align) };
        if moved.is_none() {
            self.unreserve(added);
        }
        moved
    }

    /// Moves the pages of a big block to a longer mapping; the growth is reserved.
    ///
    /// # Safety
    ///
    /// `addr` is a big block of this heap of `old` bytes, in use by the caller.
    unsafe fn move_pages(
        &self,
        addr: usize,
        old: usize,
        len: usize,
        align: usize,
    ) -> Option<*mut u8> {
        let target = self.os().map_aligned(len, align.max(SEGMENT_BYTES))?;
        let to = target.as_ptr().expose_provenance();
        if !publish(self.os, to, self.big_entry(len)) {
            // SAFETY: made above and unknown to others.
            unsafe { self.os.unmap(to, len) };
            return None;
        }
        // Cleared first: once the pages have moved, another thread may map the old place.
        PAGE_MAP.clear(addr);
        // SAFETY: both are whole mappings of ours; only the caller refers to the old one.
        if unsafe { self.os.relocate(addr, old, to, len) } {
            // Relaxed: a count for statistics.
            self.large.fetch_add(len - old, Ordering::Relaxed);
            return Some(ptr::with_exposed_provenance_mut(to));
        }
        // The target may be gone or not; its address space is given up rather than
        // unmapped under a thread that may have got it meanwhile.
        PAGE_MAP.clear(to);
        // The leaf is there already, so publishing needs no memory.
        publish(self.os, addr, self.big_entry(old));
        None
    }

    /// Moves a big block to a kept mapping that is longer.
    ///
    /// # Safety
    ///
    /// `addr` is a big block of this heap of `old` bytes, in use by the caller.
    unsafe fn move_big(&self, addr: usize, old: usize, to: (usize, usize)) -> *mut u8 {
        // SAFETY: by contract.
        let block = unsafe { self.copy_to_kept(addr, old, to) };
        // Relaxed: a count for statistics.
        self.large.fetch_sub(old, Ordering::Relaxed);
        PAGE_MAP.clear(addr);
        // SAFETY: the contents moved, and the block left the page map.
        unsafe { self.retire_big(addr, old) };
        block
    }

    /// Makes a kept mapping a big block with the contents of a block of `old` bytes.
    ///
    /// # Safety
    ///
    /// `addr` is a block of this heap of `old` bytes, in use by the caller. The mapping was taken
    /// and is at least as long.
    unsafe fn copy_to_kept(&self, addr: usize, old: usize, (to, len): (usize, usize)) -> *mut u8 {
        // The leaf is there: big blocks that are kept were published before.
        publish(self.os, to, self.big_entry(len));
        let block = ptr::with_exposed_provenance_mut::<u8>(to);
        // SAFETY: both are ours, apart, and at least `old` bytes long.
        unsafe {
            ptr::copy_nonoverlapping(ptr::with_exposed_provenance(addr), block, old);
        }
        // Relaxed: a count for statistics.
        self.large.fetch_add(len, Ordering::Relaxed);
        block
    }

    fn note_big(&self, addr: usize, old: usize, len: usize) {
        publish(self.os, addr, self.big_entry(len));
        // Relaxed: a count for statistics.
        self.large
            .fetch_add(len.wrapping_sub(old), Ordering::Relaxed);
    }

    /// Bytes that the block at `block` can hold; ends the process when it is none.
    pub(crate) fn usable_size(&self, block: *mut u8) -> usize {
        match self.locate(block) {
            Place::Small(class) => block_size(crate::units::ClassIndex::new(class)),
            Place::Large(len) => len,
        }
    }
}

/// The run in use that starts at `addr`; ends the process when there is none.
fn run_at(segment: &Segment, addr: usize) -> KeptRun {
    match (segment.kind_at(addr), segment.span_at(addr)) {
        (Kind::Whole, Some(span)) if span.start() == addr => KeptRun {
            addr,
            granules: span.granules(),
        },
        (Kind::Whole, Some(_)) => die(Misuse::Interior, addr),
        (Kind::Blocks(_) | Kind::Lent(_), _) => die(Misuse::WrongLayout, addr),
        _ => die(Misuse::DoubleFree, addr),
    }
}

/// Zeroes the granules of a run that are not known to be zero.
fn zero_dirty(given: &Given<'_>) {
    let run: Run = given.segment.run_of(given.span);
    let mut from = run.start;
    while let Some(dirty) = given
        .fresh
        .next_run(from, false)
        .filter(|r| r.start < run.end())
    {
        let end = dirty.end().min(run.end());
        let at = ptr::with_exposed_provenance_mut::<u8>(given.segment.addr_of(dirty.start));
        // SAFETY: granules of a run that was just given out to us.
        unsafe { at.write_bytes(0, (end - dirty.start) * GRANULE_BYTES) };
        from = end;
    }
}
