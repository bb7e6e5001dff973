//! Large blocks by way of the runs that the thread keeps (`run_cache`): what `alloc_large`
//! and `free_large` are to a thread with a cache.

use core::ptr;

use crate::heap_core::HeapCore;
use crate::page_heap::{MAX_RUN_BYTES, Placement};
use crate::run_cache::{KeptRun, MAX_KEPT_BYTES};
use crate::segment::Segment;
use crate::span::Span;
use crate::sync::Ordering;
use crate::thread_cache::ThreadCache;
use crate::units::{Contents, GRANULE_BYTES, GRANULE_SHIFT, granules_for};

/// Runs that come and go in a thread's cache until the heap is looked at: the look costs as
/// much as a fifth of such a pair.
const TICK_VISITS: usize = 8;

impl HeapCore {
    /// Allocates a block of whole granules; null when memory is short.
    pub(crate) fn alloc_large_with(
        &self,
        cache: &ThreadCache,
        size: usize,
        align: usize,
        contents: Contents,
    ) -> *mut u8 {
        if let Some(run) = take_kept(cache, size, align) {
            // SAFETY: a run that was kept lies in a segment of this heap (R1).
            unsafe { Segment::containing(run.addr) }.note_taken(run.addr);
            let block = ptr::with_exposed_provenance_mut::<u8>(run.addr);
            if contents == Contents::Zero {
                // SAFETY: the run is ours and has at least `size` bytes.
                unsafe { block.write_bytes(0, size) };
            }
            return block;
        }
        if cache.depot.bytes() > 0 && size <= MAX_RUN_BYTES {
            // Small blocks that nobody has may make a run.
            cache.alone(|| self.empty_depot_for_growth(cache));
        }
        let mut block = self.alloc_large(size, align, contents);
        if block.is_null() && cache.alone(|| self.give_up_kept_by(cache)) {
            // Memory is short, and the thread had some that it did not use.
            block = self.alloc_large(size, align, contents);
        }
        if block.is_null() && self.harvest_for_limit(size) {
            block = self.alloc_large(size, align, contents);
        }
        block
    }

    /// Frees a block of whole granules.
    ///
    /// # Safety
    ///
    /// As for [`Self::free_large`].
    pub(crate) unsafe fn free_large_with(&self, cache: &ThreadCache, block: *mut u8) {
        // SAFETY: by contract.
        let Some(run) = (unsafe { self.free_unless_run(block) }) else {
            return;
        };
        let mut visits = 0;
        let kept = run.bytes() <= MAX_KEPT_BYTES
            && cache.alone(|| {
                visits = cache.visit();
                self.keep_run(cache, run)
            });
        if !kept {
            // SAFETY: freed just now, and not kept.
            unsafe { self.free_run(run) };
        }
        // A program that needs nothing but large blocks comes here only.
        if !kept || visits % TICK_VISITS == 0 {
            self.tick();
        }
    }

    /// Puts a run into the cache, in the place of older ones if need be. Inside `alone`.
    fn keep_run(&self, cache: &ThreadCache, run: KeptRun) -> bool {
        loop {
            if cache.runs.keep(run) {
                return true;
            }
            let wanted = (cache.runs.bytes() + run.bytes()).min(MAX_KEPT_BYTES);
            if wanted > cache.runs.room() && cache.widen_runs(wanted, self.room()) {
                continue;
            }
            if run.bytes() > cache.runs.room() {
                return false;
            }
            let Some(oldest) = cache.runs.take_oldest() else {
                return false;
            };
            // SAFETY: it was kept (R1) and is out of the cache.
            unsafe { self.free_run(oldest) };
        }
    }

    /// Gives all runs that the cache keeps back to the page heap, and their room; whether
    /// there were any. Inside `alone`, or during a harvest.
    pub(crate) fn give_up_runs(&self, cache: &ThreadCache) -> bool {
        let any = cache.runs.len() > 0;
        while let Some(run) = cache.runs.take_oldest() {
            // SAFETY: it was kept (R1) and is out of the cache.
            unsafe { self.free_run(run) };
        }
        cache.give_up_run_room(&self.cacheable);
        any
    }

    /// Changes the length of a run where it is; `false` when it stays.
    pub(crate) fn resize_run(
        &self,
        segment: &'static Segment,
        span: &Span,
        new_size: usize,
    ) -> bool {
        let Some(len) = granules_for(new_size.max(1)) else {
            return false;
        };
        let old = span.granules();
        if len == old {
            return true;
        }
        if self.hardened && len < old {
            // As at a free: what it loses is handed out again as it is.
            let end = ptr::with_exposed_provenance_mut::<u8>(span.start() + len * GRANULE_BYTES);
            // SAFETY: the part of the caller's run that it gives up.
            unsafe { end.write_bytes(0, (old - len) * GRANULE_BYTES) };
        }
        let added = len.saturating_sub(old);
        if !self.reserve(added) {
            return false;
        }
        // SAFETY: the span is a whole one of the segment and the caller's; the part that
        // it loses is unused by the caller's will.
        let fresh = self
            .pages
            .with(|pages| unsafe { pages.resize(segment, span, len) });
        // What was resident before was counted already.
        self.unreserve(added - fresh.unwrap_or(0));
        if fresh.is_none() {
            return false;
        }
        // Relaxed: a count for statistics.
        self.large.fetch_add(
            len.wrapping_sub(old).wrapping_mul(GRANULE_BYTES),
            Ordering::Relaxed,
        );
        true
    }

    /// Moves a run that cannot grow where it is to where it can grow again; `None` when memory is
    /// short.
    ///
    /// # Safety
    ///
    /// `block` is a run of this heap of `old` bytes, in use by the caller, and `new_size` is more.
    pub(crate) unsafe fn move_run(
        &self,
        block: *mut u8,
        old: usize,
        new_size: usize,
    ) -> Option<*mut u8> {
        let moved = self.alloc_run(new_size, Contents::Any, Placement::Roomy);
        if moved.is_null() {
            return None;
        }
        // SAFETY: both are the caller's and hold `old` bytes; they are different blocks.
        unsafe { ptr::copy_nonoverlapping(block, moved, old) };
        // SAFETY: by contract; the contents moved.
        unsafe { self.free_large(block) };
        Some(moved)
    }
}

/// A kept run for a request, if there is one.
fn take_kept(cache: &ThreadCache, size: usize, align: usize) -> Option<KeptRun> {
    let granules = granules_for(size.max(1))?;
    if granules > MAX_KEPT_BYTES >> GRANULE_SHIFT || cache.runs.len() == 0 {
        return None;
    }
    cache.alone(|| {
        cache.visit();
        cache.runs.take(granules, align)
    })
}
