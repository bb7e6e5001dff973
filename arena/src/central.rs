//! The middle tier: for each size class the spans that have free blocks.
//!
//! Taking blocks needs the class lock; giving them back does not. A thread cache comes
//! here once in some tens of operations, with many blocks at once. The protocol between
//! givers and takers is in `span.rs`.
//!
//! Invariants, beside S1–S4:
//! - C1: a span is in the list exactly if its `listed` is true, as seen under the lock
//!   (except inside `take`, which clears the flag before it unlinks).
//! - C2: `outside == spans * blocks per span − bits set`, when nobody is inside.
//! - C3: a span leaves its class (`Kind::Unused`) only under the lock, listed, and with
//!   every block free; so nobody holds a block of it, and `give` cannot be about to set
//!   a bit.

use core::ptr;

use crate::bitmap::whole_lines_first;
use crate::lend::Fit;
use crate::size_class::blocks_per_line;
use crate::span::{Kind, Links, Span, all_free, any_free, full_word};
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Lock, Ordering, seqcst_fence};
use crate::units::ClassIndex;

/// Parts of a byte in which the average request is kept.
const REQUEST_PARTS: usize = 16;
/// One request changes the average by a difference divided by this.
const REQUEST_WEIGHT: u32 = 16;

/// Spans of one class with free blocks, oldest first: a span that was listed long ago has
/// had the most time to collect free blocks.
#[derive(Debug)]
struct List {
    head: *const Span,
    tail: *const Span,
}

// SAFETY: the pointers are to spans, which live as long as the heap (S4) and are `Sync`.
unsafe impl Send for List {}

/// A block was given back that is in its span already: a double free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AlreadyFree;

/// One size class of one heap.
#[derive(Debug)]
#[cfg_attr(not(loom), repr(align(64)))]
pub(crate) struct Central {
    list: Lock<List>,
    /// Blocks that are in thread caches or in use (C2).
    outside: AtomicUsize,
    /// Spans of this class, listed or not.
    spans: AtomicUsize,
    /// Blocks of this class's spans that are part of guests; they count as outside.
    lent: AtomicUsize,
    /// Blocks of this class that are guests in spans of other classes.
    guests: AtomicUsize,
    /// What is asked for on average, in sixteenths of a byte; 0 before the first request.
    request: AtomicU32,
}

impl Central {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            list: Lock::new(List {
                head: ptr::null(),
                tail: ptr::null(),
            }),
            outside: AtomicUsize::new(0),
            spans: AtomicUsize::new(0),
            lent: AtomicUsize::new(0),
            guests: AtomicUsize::new(0),
            request: AtomicU32::new(0),
        }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            list: Lock::new(List {
                head: ptr::null(),
                tail: ptr::null(),
            }),
            outside: AtomicUsize::new(0),
            spans: AtomicUsize::new(0),
            lent: AtomicUsize::new(0),
            guests: AtomicUsize::new(0),
            request: AtomicU32::new(0),
        }
    }

    /// Counts a request for which blocks were fetched.
    pub(crate) fn note_request(&self, bytes: usize) {
        // Relaxed, here and below: a number for statistics; one that another thread notes at the
        // same time may be lost.
        let mean = self.request.load(Ordering::Relaxed);
        let bytes = u32::try_from(bytes * REQUEST_PARTS).unwrap_or(u32::MAX);
        let now = match mean {
            0 => bytes,
            _ => mean - mean / REQUEST_WEIGHT + bytes / REQUEST_WEIGHT,
        };
        if now != mean {
            self.request.store(now, Ordering::Relaxed);
        }
    }

    /// What `blocks` of this class of `block_size` bytes were asked for, estimated: by the last
    /// requests for which blocks were fetched.
    pub(crate) fn requested(&self, blocks: usize, block_size: usize) -> usize {
        let mean = self.request.load(Ordering::Relaxed) as usize;
        (blocks * mean / REQUEST_PARTS).min(blocks * block_size)
    }

    /// Takes up to `want` free blocks and shows them to `sink` word by word, in address
    /// order within a span; returns how many.
    ///
    /// `sink` runs under the class lock.
    pub(crate) fn take(
        &self,
        class: ClassIndex,
        want: usize,
        mut sink: impl FnMut(&Span, usize, u64),
    ) -> usize {
        let got = self.list.with(|list| {
            let mut got = 0;
            while got < want {
                // SAFETY: spans in the list live as long as the heap (S4).
                let Some(span) = (unsafe { list.head.as_ref() }) else {
                    break;
                };
                // SAFETY: the class lock is held, and listed spans are of this class (C1, C3).
                got += unsafe { take_from(span, class, want - got, &mut sink) };
                if got < want {
                    // SAFETY: as above; the span is the head of the list.
                    unsafe { unlist_if_exhausted(list, span, class) };
                }
            }
            got
        });
        // Relaxed: a count for statistics; the blocks themselves are ordered by the lock.
        self.outside.fetch_add(got, Ordering::Relaxed);
        got
    }

    /// Shows the free blocks of the listed spans to `pick`, word by word, and takes those that it
    /// names, until they are `want` or more; returns how many.
    ///
    /// `pick` runs under the class lock.
    pub(crate) fn take_picked(
        &self,
        class: ClassIndex,
        want: usize,
        mut pick: impl FnMut(&Span, usize, u64) -> u64,
    ) -> usize {
        let got = self.list.with(|list| {
            let (mut next, mut got) = (list.head, 0);
            // SAFETY: spans in the list live as long as the heap (S4).
            while let Some(span) = unsafe { next.as_ref() } {
                // SAFETY: the class lock is held.
                next = unsafe { span.with_links(|links| links.next) };
                // SAFETY: the class lock is held, and listed spans are of this class.
                let words = unsafe { span.words(class) };
                for (index, word) in words.iter().enumerate() {
                    // Acquire: pairs with `give`; the last owner's accesses come before the next's.
                    let free = word.load(Ordering::Acquire);
                    let mask = if free == 0 {
                        0
                    } else {
                        pick(span, index, free)
                    };
                    if mask != 0 {
                        // Relaxed: as in `take_from`; only we clear bits (S2).
                        word.fetch_and(!mask, Ordering::Relaxed);
                        got += mask.count_ones() as usize;
                    }
                    if got >= want {
                        return got;
                    }
                }
            }
            got
        });
        // Relaxed: a count for statistics, as in `take`.
        self.outside.fetch_add(got, Ordering::Relaxed);
        got
    }

    /// Takes up to `want` runs of free blocks that make guests by `fit`, and shows them to
    /// `sink`; returns how many, and the span and its word at which it had enough. It begins at the
    /// span and the word of `from`, or at the first if that span is not listed any more. `ready` is
    /// asked about a span first, and spans for which it says `false` are passed by.
    ///
    /// Spans in which the search of this `round` found nothing as short are passed by too.
    /// `ready` and `sink` run under the class lock.
    ///
    /// # Safety
    ///
    /// The span of `from` is null or one of the heap, of whatever class.
    pub(crate) unsafe fn lend(
        &self,
        class: ClassIndex,
        fit: Fit,
        (round, want): (u32, usize),
        from: (*const Span, usize),
        mut ready: impl FnMut(&Span) -> bool,
        mut sink: impl FnMut(&Span, usize, u64),
    ) -> (usize, (*const Span, usize)) {
        let (got, end) = self.list.with(|list| {
            let (mut next, mut first) = from;
            // SAFETY: by contract; spans stay as long as the heap (S4).
            if !unsafe { next.as_ref() }.is_some_and(|span| is_listed(span, class)) {
                (next, first) = (list.head, 0);
            }
            let mut got = 0;
            // SAFETY: spans in the list live as long as the heap (S4).
            while let Some(span) = unsafe { next.as_ref() } {
                // SAFETY: the class lock is held.
                let barren = unsafe {
                    span.with_links(|links| {
                        next = links.next;
                        links.barren
                    })
                };
                if !barren.has_not(round, fit) {
                    // SAFETY: the class lock is held, and listed spans are of this class.
                    let words = unsafe { span.words(class) };
                    if ready(span) {
                        let sink = |word, mask| sink(span, word, mask);
                        let (more, word) = lend_from(words, first, fit, want - got, sink);
                        got += more;
                        if got == want {
                            return (got, (ptr::from_ref(span), word));
                        }
                    }
                    // SAFETY: the class lock is held.
                    unsafe { span.with_links(|links| links.barren.note(round, fit)) };
                }
                first = 0;
            }
            (got, (ptr::null(), 0))
        });
        // Relaxed: counts for statistics, as in `take`.
        self.outside.fetch_add(got * fit.blocks, Ordering::Relaxed);
        self.lent.fetch_add(got * fit.blocks, Ordering::Relaxed);
        (got, end)
    }

    /// Gives back the blocks of `mask` in word `word` of `span`, without a lock unless the
    /// span had no free block. Returns whether the span may be wholly free now.
    ///
    /// # Errors
    ///
    /// [`AlreadyFree`] when one of them is free already; the heap is damaged then.
    ///
    /// # Safety
    ///
    /// The caller holds the blocks: the span is one of `class` and stays so until the
    /// bits are set.
    pub(crate) unsafe fn give(
        &self,
        class: ClassIndex,
        span: &Span,
        word: usize,
        mask: u64,
    ) -> Result<bool, AlreadyFree> {
        // SAFETY: by contract the caller holds blocks of the span. The slice is used
        // below for hints too, after the blocks are gone; it stays valid (S4).
        let words = unsafe { span.words(class) };
        let Some(target) = words.get(word) else {
            return Err(AlreadyFree);
        };
        // SeqCst, which includes Release: the giver's accesses to the blocks come before
        // the taker's (Acquire in `take_from`); and the giver's side of the Dekker pair.
        let before = target.fetch_or(mask, Ordering::SeqCst);
        if before & mask != 0 {
            return Err(AlreadyFree);
        }
        seqcst_fence();
        // SeqCst: the giver's side of the Dekker pair (span.rs).
        if !span.listed.load(Ordering::SeqCst) {
            self.list_again(class, span);
        }
        // From here on the span may be somebody else's: only hints are read.
        Ok(before | mask == full_word(class, word) && all_free(words, class))
    }

    /// Counts blocks that `give` took back.
    #[inline]
    pub(crate) fn note_given(&self, blocks: usize) {
        // Relaxed: a count for statistics.
        self.outside.fetch_sub(blocks, Ordering::Relaxed);
    }

    /// Counts blocks of guests that `give` took back.
    pub(crate) fn note_returned(&self, blocks: usize) {
        self.note_given(blocks);
        // Relaxed: as in `note_given`.
        self.lent.fetch_sub(blocks, Ordering::Relaxed);
    }

    /// Counts guests of this class that came.
    pub(crate) fn note_guests(&self, blocks: usize) {
        // Relaxed: a count for statistics.
        self.guests.fetch_add(blocks, Ordering::Relaxed);
    }

    /// Counts guests of this class that went.
    pub(crate) fn note_guests_left(&self, guests: usize) {
        // Relaxed: a count for statistics.
        self.guests.fetch_sub(guests, Ordering::Relaxed);
    }

    /// Lists `span` if it is one of ours that has free blocks and is not listed.
    #[cold]
    fn list_again(&self, class: ClassIndex, span: &Span) {
        self.list.with(|list| {
            // The span may have been retired and reused since: its kind tells, and cannot
            // change from our class while we hold our class's lock (C3).
            // Relaxed: `listed` is written under this lock.
            if span.kind() == Kind::Blocks(class) && !span.listed.load(Ordering::Relaxed) {
                // SAFETY: the class lock is held and the span is of this class.
                unsafe { link(list, span) };
            }
        });
    }

    /// Counts a span that is about to be opened for this class: before it is, because a
    /// giver left over from its last life may list it, and a sweep retire it, at once.
    pub(crate) fn announce(&self) {
        // Relaxed: a count for statistics.
        self.spans.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds a span that was announced and that [`Span::open`] made for this class.
    pub(crate) fn adopt(&self, class: ClassIndex, span: &Span) {
        // A giver left over from the span's last life may have listed it already.
        self.list_again(class, span);
    }

    /// Shows every listed span to `visit`, those that are taken from last first, and then hands
    /// those whose blocks are all free to `release`, no longer of this class; both under the class
    /// lock.
    pub(crate) fn sweep(
        &self,
        class: ClassIndex,
        mut visit: impl FnMut(&Span),
        mut release: impl FnMut(&Span),
    ) {
        let retired = self.list.with(|list| {
            let mut retired = 0;
            let mut next = list.tail;
            // SAFETY: spans in the list live as long as the heap (S4).
            while let Some(span) = unsafe { next.as_ref() } {
                // SAFETY: the class lock is held.
                next = unsafe { span.with_links(|links| links.prev) };
                // SAFETY: the class lock is held, and listed spans are of this class.
                let words = unsafe { span.words(class) };
                visit(span);
                if all_free(words, class) {
                    // SAFETY: as above; the span is in the list.
                    unsafe { unlink(list, span) };
                    // Relaxed: givers of this span are done but for hints (C3).
                    span.listed.store(false, Ordering::Relaxed);
                    span.set_kind(Kind::Unused);
                    release(span);
                    retired += 1;
                }
            }
            retired
        });
        // Relaxed: a count for statistics.
        self.spans.fetch_sub(retired, Ordering::Relaxed);
    }

    /// Blocks outside the spans.
    pub(crate) fn outside(&self) -> usize {
        // Relaxed: a number.
        self.outside.load(Ordering::Relaxed)
    }

    /// Blocks of the class's spans that are part of guests.
    pub(crate) fn lent(&self) -> usize {
        // Relaxed: a number.
        self.lent.load(Ordering::Relaxed)
    }

    /// Blocks of the class that are guests elsewhere.
    pub(crate) fn guests(&self) -> usize {
        // Relaxed: a number.
        self.guests.load(Ordering::Relaxed)
    }

    /// Spans of the class.
    pub(crate) fn spans(&self) -> usize {
        // Relaxed: a number.
        self.spans.load(Ordering::Relaxed)
    }

    /// The lock, for the fork handlers.
    #[cfg(not(loom))]
    pub(crate) fn raw_lock(&self) -> &crate::sync::RawLock {
        self.list.raw()
    }
}

/// Clears up to `want` bits from the hint on; returns how many.
///
/// # Safety
///
/// The lock of `class` is held, and `span` is of that class.
unsafe fn take_from(
    span: &Span,
    class: ClassIndex,
    want: usize,
    sink: &mut impl FnMut(&Span, usize, u64),
) -> usize {
    // SAFETY: by contract.
    let words = unsafe { span.words(class) };
    // SAFETY: the class lock is held.
    let mut index = unsafe { span.with_links(|links| links.hint) };
    let per_line = blocks_per_line(class);
    let mut got = 0;
    while let Some(word) = words.get(index) {
        // Acquire: pairs with `give`; the last owner's accesses come before the next's.
        let free = word.load(Ordering::Acquire);
        let mask = whole_lines_first(free, want - got, per_line);
        if mask != 0 {
            // Relaxed: the bits are set and only we clear bits (S2), so all of `mask` is
            // ours; what they publish was acquired by the load above.
            word.fetch_and(!mask, Ordering::Relaxed);
            sink(span, index, mask);
            got += mask.count_ones() as usize;
        }
        if got == want {
            break;
        }
        index += 1;
    }
    // SAFETY: the class lock is held.
    unsafe { span.with_links(|links| links.hint = index) };
    got
}

/// Clears the bits of up to `want` runs from word `first` on; returns how many, and the word at
/// which it had enough. The class lock is held.
fn lend_from(
    words: &[AtomicU64],
    first: usize,
    fit: Fit,
    want: usize,
    mut sink: impl FnMut(usize, u64),
) -> (usize, usize) {
    let mut got = 0;
    for (index, word) in words.iter().enumerate().skip(first) {
        // Acquire: pairs with `give`; the last owner's accesses come before the next's.
        let starts = fit.find(word.load(Ordering::Acquire), want - got);
        if starts == 0 {
            continue;
        }
        // Relaxed: as in `take_from`; only we clear bits (S2).
        word.fetch_and(!fit.runs_at(starts), Ordering::Relaxed);
        let mut rest = starts;
        while rest != 0 {
            sink(index, fit.run_at(rest.trailing_zeros() as usize));
            rest &= rest - 1;
            got += 1;
        }
        if got == want {
            return (got, index);
        }
    }
    (got, words.len())
}

/// Whether `span`, one of the heap, is in the list of `class`, whose lock is held.
fn is_listed(span: &Span, class: ClassIndex) -> bool {
    // Relaxed: `listed` of a span of ours is written under this lock.
    span.kind() == Kind::Blocks(class) && span.listed.load(Ordering::Relaxed)
}

/// Takes `span` out of the list unless a block of it is free after all.
///
/// # Safety
///
/// The lock of `class` is held, `span` is of that class and in `list`.
unsafe fn unlist_if_exhausted(list: &mut List, span: &Span, class: ClassIndex) {
    // SeqCst: the taker's side of the Dekker pair (span.rs). If a giver's `fetch_or`
    // comes before our loads, we see its bit and keep the span. If it comes after, its
    // load of `listed` comes after our store and sees false: it lists the span as soon as
    // we release the lock.
    span.listed.store(false, Ordering::SeqCst);
    seqcst_fence();
    // SAFETY: by contract.
    let words = unsafe { span.words(class) };
    if any_free(words) {
        // Relaxed: a giver that saw false finds true under the lock.
        span.listed.store(true, Ordering::Relaxed);
        // SAFETY: the class lock is held.
        unsafe { span.with_links(|links| links.hint = 0) };
    } else {
        // SAFETY: by contract.
        unsafe { unlink(list, span) };
    }
}

/// Appends `span`.
///
/// # Safety
///
/// The class lock is held, `span` is of the class and not in the list.
unsafe fn link(list: &mut List, span: &Span) {
    // Relaxed: written under the lock; a giver that reads a stale false comes to
    // `list_again` for nothing.
    span.listed.store(true, Ordering::Relaxed);
    // SAFETY: the class lock is held.
    unsafe {
        span.with_links(|links| {
            *links = Links {
                prev: list.tail,
                ..Links::UNLISTED
            };
        });
    }
    // SAFETY: the tail is null or a listed span (S4); the class lock is held.
    match unsafe { list.tail.as_ref() } {
        // SAFETY: as above; the tail is another span than `span`.
        Some(tail) => unsafe { tail.with_links(|links| links.next = span) },
        None => list.head = span,
    }
    list.tail = span;
}

/// Removes `span`.
///
/// # Safety
///
/// The class lock is held and `span` is in the list.
unsafe fn unlink(list: &mut List, span: &Span) {
    // SAFETY: the class lock is held.
    let (next, prev) = unsafe { span.with_links(|links| (links.next, links.prev)) };
    // SAFETY: neighbours are null or listed spans other than `span`; the lock is held.
    match unsafe { prev.as_ref() } {
        // SAFETY: as above.
        Some(prev) => unsafe { prev.with_links(|links| links.next = next) },
        None => list.head = next,
    }
    // SAFETY: as above.
    match unsafe { next.as_ref() } {
        // SAFETY: as above.
        Some(next) => unsafe { next.with_links(|links| links.prev = prev) },
        None => list.tail = prev,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn requests_that_are_alike_are_exact() {
        let central = Central::new();
        assert_eq!(central.requested(0, 112), 0);
        for _ in 0..100 {
            central.note_request(100);
        }
        assert_eq!(central.requested(1000, 112), 100_000);
    }

    #[test]
    fn requests_follow_what_is_asked_for_now() {
        let central = Central::new();
        for bytes in core::iter::repeat_n(97, 100).chain([97, 112].repeat(100)) {
            central.note_request(bytes);
        }
        let mixed = central.requested(100, 112);
        assert!((10_350..=10_550).contains(&mixed), "{mixed}");
        (0..100).for_each(|_| central.note_request(112));
        let late = central.requested(100, 112);
        assert!((11_150..=11_200).contains(&late), "{late}");
    }
}
