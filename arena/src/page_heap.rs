//! The back end: runs of granules from segments, best fit, with what is dirty and what
//! is fresh known granule by granule.
//!
//! Segments hang in lists by the length of their longest free run, so that a request
//! looks only at segments that can serve it, the tightest first. Segments are never
//! unmapped while their heap lives; when address space runs out, wholly free ones lose
//! their payload and keep the header (*hollow*).
//!
//! Invariants:
//! - H1: every segment is in the list of `bucket_of(longest)`, or hollow.
//! - H2: `dirty` is the number of granules neither used nor fresh.
//!
//! Everything here runs under one lock, which its owner (`heap_core.rs`) holds.

use core::ptr;

use crate::bitmap::Bits;
use crate::faults::Os;
use crate::page_map::{Entry, Leaf, PAGE_MAP};
use crate::segment::{HEADER_GRANULES, PAYLOAD_GRANULES, Segment};
use crate::span::{Kind, Span};
use crate::units::{GRANULE_BYTES, GRANULE_SHIFT, PROCESS_HEAP, Run, SEGMENT_BYTES};

/// Lists of segments: lengths below 16 exactly, then four a doubling up to 1023.
const BUCKETS: usize = 16 + 6 * 4;
/// Segments looked at in the list whose members may be too small.
const TRIES: usize = 8;
/// Largest request that is served from segments; above it a mapping of its own.
pub(crate) const MAX_RUN_BYTES: usize = 1 << 20;

/// The page heap of one heap.
#[derive(Debug)]
pub(crate) struct PageHeap {
    buckets: [*const Segment; BUCKETS],
    hollow: *const Segment,
    dirty: usize,
    /// Least value of `dirty` since the last look at it: memory that nobody wanted.
    idle: usize,
    segments: usize,
}

// SAFETY: the pointers are to segments, which live as long as the heap and are `Sync`.
unsafe impl Send for PageHeap {}

/// A run that was given out.
#[derive(Debug)]
pub(crate) struct Given<'a> {
    pub(crate) segment: &'a Segment,
    pub(crate) span: &'a Span,
    /// The segment's fresh bits from before: those of the run say what is zero.
    pub(crate) fresh: Bits,
    /// How many of the run's granules were fresh.
    pub(crate) fresh_count: usize,
}

/// Whether a request may make the heap's resident memory grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Growth {
    /// Only granules that are dirty already.
    Refuse,
    /// Whatever is there, or a new segment.
    Allow,
}

/// Where in the free granules a run is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Where it fits best, at a multiple of so many granules.
    Tight { align: usize },
    /// Where as much again is free behind it, if there is such a place: a block that had to move
    /// because it grew, and will grow again.
    Roomy,
}

impl Placement {
    /// Granules of which the run's start is a multiple.
    const fn align(self) -> usize {
        match self {
            Self::Tight { align } => align,
            Self::Roomy => 1,
        }
    }
}

/// The run that a request wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Granules.
    pub(crate) len: usize,
    pub(crate) placement: Placement,
}

impl PageHeap {
    pub(crate) const fn new() -> Self {
        Self {
            buckets: [ptr::null(); BUCKETS],
            hollow: ptr::null(),
            dirty: 0,
            idle: 0,
            segments: 0,
        }
    }

    /// Gives out a run, as one span.
    ///
    /// Complexity: constant number of segments, each searched in a few hundred cycles.
    pub(crate) fn alloc(
        &mut self,
        os: Os,
        heap: u16,
        wanted: Wanted,
        kind: Kind,
        growth: Growth,
    ) -> Option<Given<'static>> {
        let Wanted { len, placement } = wanted;
        let align = placement.align();
        let place = match placement {
            Placement::Roomy if growth == Growth::Allow => self.find_roomy(len),
            _ => self.find(len, align),
        };
        let Some((segment, start)) = place else {
            if growth == Growth::Refuse {
                return None;
            }
            self.grow(os, heap)?;
            let (segment, start) = self.find(len, align)?;
            return self.give_out(segment, Run { start, len }, kind);
        };
        let run = Run { start, len };
        if growth == Growth::Refuse {
            // SAFETY: we are under the page-heap lock (module contract).
            let fresh = unsafe { segment.with_state(|state| state.fresh.count(run)) };
            if fresh > 0 {
                return None;
            }
        }
        self.give_out(segment, run, kind)
    }

    fn give_out(
        &mut self,
        segment: &'static Segment,
        run: Run,
        kind: Kind,
    ) -> Option<Given<'static>> {
        self.unlink(segment);
        // SAFETY: under the lock; `find` found the run unused.
        let given = unsafe { segment.give_out(run, kind) };
        self.link(segment);
        let (span, fresh) = given?;
        let fresh_count = fresh.count(run);
        self.dirty -= run.len - fresh_count;
        self.idle = self.idle.min(self.dirty);
        Some(Given {
            segment,
            span,
            fresh,
            fresh_count,
        })
    }

    /// Takes back the granules of `span`; those in `fresh` (bits of the segment) are not
    /// resident.
    ///
    /// # Safety
    ///
    /// The span belongs to `segment`, a segment of this heap, and nobody uses its memory.
    pub(crate) unsafe fn free(&mut self, segment: &'static Segment, span: &Span, fresh: &Bits) {
        let run = segment.run_of(span);
        self.unlink(segment);
        // SAFETY: by contract, and under the lock.
        unsafe { segment.take_back(span, fresh) };
        self.link(segment);
        self.dirty += run.len - fresh.count(run);
    }

    /// Changes the length of a whole span in place; `None` when the granules behind it
    /// are in use. Returns how many fresh granules were added.
    ///
    /// # Safety
    ///
    /// The span is a whole one of `segment`, a segment of this heap, and nobody uses the
    /// part that it loses.
    pub(crate) unsafe fn resize(
        &mut self,
        segment: &'static Segment,
        span: &Span,
        len: usize,
    ) -> Option<usize> {
        let run = segment.run_of(span);
        if len > run.len {
            // SAFETY: under the lock.
            let next_used = unsafe { segment.with_state(|state| state.used.find(run.end(), true)) };
            if run.start + len > next_used {
                return None;
            }
        }
        self.unlink(segment);
        // SAFETY: by contract, under the lock; added granules are unused (checked above).
        let fresh = unsafe { segment.resize(span, len) };
        self.link(segment);
        if len > run.len {
            self.dirty -= len - run.len - fresh;
            self.idle = self.idle.min(self.dirty);
        } else {
            self.dirty += run.len - len;
        }
        Some(fresh)
    }

    /// Granules that are free and resident.
    pub(crate) fn dirty(&self) -> usize {
        self.dirty
    }

    /// Dirty granules that nobody asked for since the last call.
    pub(crate) fn take_idle(&mut self) -> usize {
        core::mem::replace(&mut self.idle, self.dirty).min(self.dirty)
    }

    /// Segments mapped, hollow ones included.
    pub(crate) fn segments(&self) -> usize {
        self.segments
    }

    /// Gives dirty granules back to the system until at most `keep` are left or `limit`
    /// were given back; returns how many were.
    pub(crate) fn purge(&mut self, os: Os, os_page: usize, keep: usize, limit: usize) -> usize {
        let mut purged = 0;
        // The emptiest segments first: they are the least likely to be asked soon.
        for bucket in (0..BUCKETS).rev() {
            let mut next = self.buckets.get(bucket).copied().unwrap_or(ptr::null());
            // SAFETY: listed segments live as long as the heap.
            while let Some(segment) = unsafe { next.as_ref() } {
                if self.dirty <= keep || purged >= limit {
                    return purged;
                }
                let got = purge_segment(os, os_page, segment, (self.dirty - keep).min(limit));
                self.dirty -= got;
                purged += got;
                // SAFETY: under the lock.
                next = unsafe { segment.with_state(|state| state.next) };
            }
        }
        purged
    }

    /// Unmaps the payload of wholly free segments; returns whether there was one.
    pub(crate) fn hollow_out(&mut self, os: Os) -> bool {
        let mut any = false;
        let top = bucket_of(PAYLOAD_GRANULES);
        let mut next = self.buckets.get(top).copied().unwrap_or(ptr::null());
        // SAFETY: listed segments live as long as the heap.
        while let Some(segment) = unsafe { next.as_ref() } {
            // SAFETY: under the lock.
            let (longest, following) =
                unsafe { segment.with_state(|state| (state.longest, state.next)) };
            next = following;
            if longest < PAYLOAD_GRANULES {
                continue;
            }
            let payload = Run {
                start: HEADER_GRANULES,
                len: PAYLOAD_GRANULES,
            };
            let bytes = PAYLOAD_GRANULES * GRANULE_BYTES;
            // SAFETY: every granule of the payload is free, so nothing refers to it.
            if unsafe { os.unmap(segment.addr_of(payload.start), bytes) } {
                self.unlink(segment);
                // SAFETY: under the lock.
                unsafe {
                    segment.with_state(|state| {
                        self.dirty -= PAYLOAD_GRANULES - state.fresh.count(payload);
                        state.fresh.assign(payload, true);
                        state.next = self.hollow;
                    });
                }
                segment.set_hollow(true);
                self.hollow = segment;
                any = true;
            }
        }
        any
    }

    /// Shows every segment that is not hollow.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&'static Segment)) {
        for &head in &self.buckets {
            let mut next = head;
            // SAFETY: listed segments live as long as the heap; under the lock.
            while let Some(segment) = unsafe { next.as_ref() } {
                f(segment);
                // SAFETY: under the lock.
                next = unsafe { segment.with_state(|state| state.next) };
            }
        }
    }

    fn find(&self, len: usize, align: usize) -> Option<(&'static Segment, usize)> {
        for bucket in bucket_of(len)..BUCKETS {
            let mut next = self.buckets.get(bucket).copied()?;
            let mut tries = 0;
            // SAFETY: listed segments live as long as the heap.
            while let Some(segment) = unsafe { next.as_ref() } {
                // SAFETY: under the lock.
                let (place, following) = unsafe {
                    segment.with_state(|state| {
                        let fits = state.longest >= len;
                        (
                            fits.then(|| state.used.best_fit(len, align)).flatten(),
                            state.next,
                        )
                    })
                };
                if let Some(start) = place {
                    return Some((segment, start));
                }
                tries += 1;
                if tries == TRIES {
                    break;
                }
                next = following;
            }
        }
        None
    }

    /// A place for `len` granules with as many free behind it, in the smallest run that has one; where
    /// none does, the place that fits best.
    ///
    /// In a run of fresh granules that is much longer, behind a quarter of it: what comes next goes to
    /// that quarter, because that is the smaller part until the block has grown much. Dirty granules are
    /// better used than left: the run goes there if there are some for `len` and only fresh ones for twice
    /// that. Of many runs that grow side by side each would leave its former place to nobody.
    fn find_roomy(&self, len: usize) -> Option<(&'static Segment, usize)> {
        let (tight, at) = self.find(len, 1)?;
        let Some((segment, start)) = self.find(2 * len, 1) else {
            return Some((tight, at));
        };
        if !self.is_fresh(segment, Run { start, len }) {
            return Some((segment, start));
        }
        if !self.is_fresh(tight, Run { start: at, len }) {
            return Some((tight, at));
        }
        // SAFETY: under the lock.
        let free =
            unsafe { segment.with_state(|state| state.used.clear_around(Run { start, len })) };
        let skip = if free.len >= 4 * len { free.len / 4 } else { 0 };
        Some((segment, start + skip))
    }

    /// Whether more than half of `run`'s granules are fresh.
    fn is_fresh(&self, segment: &Segment, run: Run) -> bool {
        // SAFETY: under the lock.
        unsafe { segment.with_state(|state| state.fresh.count(run) > run.len / 2) }
    }

    /// Adds a segment, from a hollow one where its place is still free.
    fn grow(&mut self, os: Os, heap: u16) -> Option<()> {
        if self.revive_hollow(os) {
            return Some(());
        }
        let memory = os.map_aligned(SEGMENT_BYTES, SEGMENT_BYTES)?;
        // Blocks are found again from plain addresses.
        memory.as_ptr().expose_provenance();
        // SAFETY: fresh zeroed memory of that size and alignment, ours until the heap
        // is dropped.
        let segment: &'static Segment = unsafe { Segment::initialise(memory) };
        if !publish(os, segment.expose(), Entry::Segment { heap }) {
            // SAFETY: made above and not published.
            unsafe { os.unmap(memory.as_ptr().addr(), SEGMENT_BYTES) };
            return None;
        }
        if heap == PROCESS_HEAP {
            segment.show_in_window();
        }
        self.segments += 1;
        self.link(segment);
        Some(())
    }

    /// Maps the payload of a hollow segment again, of the first whose place is still free.
    fn revive_hollow(&mut self, os: Os) -> bool {
        let bytes = PAYLOAD_GRANULES * GRANULE_BYTES;
        let mut tried: *const Segment = ptr::null();
        let mut revived = false;
        // SAFETY: hollow segments keep their header as long as the heap lives; under the
        // lock, here and below.
        while let Some(segment) = unsafe { self.hollow.as_ref() } {
            // SAFETY: as above.
            self.hollow = unsafe { segment.with_state(|state| state.next) };
            if os.map_at(segment.addr_of(HEADER_GRANULES), bytes).is_some() {
                segment.set_hollow(false);
                self.link(segment);
                revived = true;
                break;
            }
            // SAFETY: as above.
            unsafe { segment.with_state(|state| state.next = tried) };
            tried = segment;
        }
        // SAFETY: as above.
        while let Some(segment) = unsafe { tried.as_ref() } {
            // SAFETY: as above.
            tried = unsafe {
                segment.with_state(|state| core::mem::replace(&mut state.next, self.hollow))
            };
            self.hollow = segment;
        }
        revived
    }

    fn link(&mut self, segment: &'static Segment) {
        // SAFETY: under the lock.
        let longest = unsafe { segment.with_state(|state| state.longest) };
        let Some(head) = self.buckets.get_mut(bucket_of(longest)) else {
            return;
        };
        // SAFETY: listed segments live as long as the heap; under the lock; the head is
        // another segment than `segment`, which is in no list.
        unsafe {
            if let Some(head) = head.as_ref() {
                head.with_state(|state| state.prev = segment);
            }
            segment.with_state(|state| {
                state.next = *head;
                state.prev = ptr::null();
            });
        }
        *head = segment;
    }

    fn unlink(&mut self, segment: &Segment) {
        // SAFETY: under the lock; neighbours are listed segments other than `segment`.
        unsafe {
            let (next, prev, longest) =
                segment.with_state(|state| (state.next, state.prev, state.longest));
            if let Some(next) = next.as_ref() {
                next.with_state(|state| state.prev = prev);
            }
            match prev.as_ref() {
                Some(prev) => prev.with_state(|state| state.next = next),
                None => {
                    if let Some(head) = self.buckets.get_mut(bucket_of(longest)) {
                        *head = next;
                    }
                }
            }
        }
    }
}

/// Publishes `entry` for `addr` in the process-wide map; `false` when memory is short.
pub(crate) fn publish(os: Os, addr: usize, entry: Entry) -> bool {
    let leaf_bytes = size_of::<Leaf>();
    PAGE_MAP.publish(
        addr,
        entry,
        || os.map(leaf_bytes),
        |leaf| {
            // SAFETY: the leaf was mapped by the closure above and lost the race: unused.
            unsafe { os.unmap(leaf, leaf_bytes) };
        },
    )
}

/// Purges up to about `limit` dirty granules of one segment; returns how many.
fn purge_segment(os: Os, os_page: usize, segment: &Segment, limit: usize) -> usize {
    let step = (os_page >> GRANULE_SHIFT).max(1);
    let mut purged = 0;
    // SAFETY: under the page-heap lock (callers).
    unsafe {
        segment.with_state(|state| {
            let mut taken = state.used;
            let clean = state.fresh;
            // Granules that are neither used nor fresh are the runs of zeroes in
            // `used | fresh`.
            let mut from = 0;
            while let Some(run) = clean.next_run(from, true) {
                taken.assign(run, true);
                from = run.end();
            }
            let mut from = 0;
            while purged < limit {
                let Some(run) = taken.next_run(from, false) else {
                    break;
                };
                from = run.end();
                let Some(inner) = whole_pages(&state.used, run, step) else {
                    continue;
                };
                from = inner.end().max(from);
                if os.purge(segment.addr_of(inner.start), inner.len << GRANULE_SHIFT) {
                    purged += state.fresh.assign(inner, true);
                }
            }
        });
    }
    purged
}

/// The OS pages (`step` granules each) that `run` touches, as far as nothing on them is
/// used.
fn whole_pages(used: &Bits, run: Run, step: usize) -> Option<Run> {
    let low = run.start / step * step;
    let high = run.end().next_multiple_of(step);
    let head = Run {
        start: low,
        len: run.start - low,
    };
    let tail = Run {
        start: run.end(),
        len: high - run.end(),
    };
    let start = if used.count(head) == 0 {
        low
    } else {
        low + step
    };
    let end = if used.count(tail) == 0 {
        high
    } else {
        high - step
    };
    (start < end).then(|| Run {
        start,
        len: end - start,
    })
}

/// The list for segments whose longest free run is `longest`.
const fn bucket_of(longest: usize) -> usize {
    if longest < 16 {
        return longest;
    }
    let log = (usize::BITS - 1 - longest.leading_zeros()) as usize;
    let quarter = (longest >> (log - 2)) & 3;
    16 + (log - 4) * 4 + quarter
}

const _: () = assert!(bucket_of(PAYLOAD_GRANULES) < BUCKETS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_mix_dirty_and_fresh_granules_are_purged_whole() {
        let mut used = Bits::new();
        let run = Run { start: 5, len: 6 };
        assert_eq!(whole_pages(&used, run, 1), Some(run));
        assert_eq!(whole_pages(&used, run, 4), Some(Run { start: 4, len: 8 }));
        used.assign(Run { start: 4, len: 1 }, true);
        assert_eq!(whole_pages(&used, run, 4), Some(Run { start: 8, len: 4 }));
        used.assign(Run { start: 11, len: 1 }, true);
        assert_eq!(whole_pages(&used, run, 4), None);
    }

    #[test]
    fn buckets_rise_with_the_length() {
        for len in 1..PAYLOAD_GRANULES {
            assert!(bucket_of(len) <= bucket_of(len + 1));
            assert!(bucket_of(len) < BUCKETS);
        }
    }
}
