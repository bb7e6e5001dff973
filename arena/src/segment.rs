//! A segment: 4 MiB of address space at a multiple of 4 MiB, with its metadata in front.
//!
//! ```text
//! low                                                                        high
//! | Segment: state, kinds, owners | spans | words |  granules given out … |
//! |<------------ HEADER_GRANULES granules ------------->|<------- payload ----->|
//! ```
//!
//! Only what is touched of the header becomes resident: a page or two for a small heap.
//!
//! Invariants:
//! - G1: `owners[g]` is 1 + the index of the span that granule `g` belongs to, or 0.
//! - G2: `kinds[g]` is the packed kind of that span while the granule is given out, but for
//!   the first granule of a whole run that was freed and not taken back: that says so; and
//!   for spans of blocks of which runs were lent: all granules of those say so.
//! - G3: a granule whose `fresh` bit is set is not resident and reads as zero; bits of
//!   granules that belong to spans of blocks are kept in the span, and clear here.
//! - G4: `longest` is the length of the longest run of granules not `used`, or 0 while
//!   every span descriptor is in use and no run can be given out.
//! - G5: `block_states`, once set, stays until the heap is dropped; a hardened heap's segment
//!   has some before it has a block.

use core::mem::size_of;
use core::ptr::{self, NonNull};

use crate::bitmap::Bits;
use crate::block_state::BlockStates;
use crate::guest_table::GuestTable;
use crate::published::Published;
use crate::span::{INLINE_WORDS, Kind, MAX_WORDS, Span, word_count};
use crate::sync::{AtomicBool, AtomicU8, AtomicU64, Ordering, UnsafeCell};
use crate::units::{
    ClassIndex, GRANULE_BYTES, GRANULE_SHIFT, MagazineIndex, Run, SEGMENT_BYTES, SEGMENT_GRANULES,
};
use crate::window;

/// Spans in a segment. The smallest common run has nine granules, so descriptors last;
/// small blocks of wide alignment may use them up before the granules (G4).
const MAX_SPANS: usize = 128;
/// Granules of metadata at the start of a segment.
/// Rounded so that the payload starts on an OS page of 64 KiB too.
pub(crate) const HEADER_GRANULES: usize = size_of::<Segment>()
    .div_ceil(GRANULE_BYTES)
    .next_multiple_of(16);
/// Granules of a segment that can be given out.
pub(crate) const PAYLOAD_GRANULES: usize = SEGMENT_GRANULES - HEADER_GRANULES;

/// Fields that only the holder of the page-heap lock touches.
#[derive(Debug)]
pub(crate) struct State {
    /// Granules given out, and those of the header.
    pub(crate) used: Bits,
    /// Granules that are not resident (G3).
    pub(crate) fresh: Bits,
    /// Span descriptors not in use, one bit each.
    free_spans: u128,
    pub(crate) longest: usize,
    pub(crate) next: *const Segment,
    pub(crate) prev: *const Segment,
}

impl State {
    /// What `longest` must be (G4).
    pub(crate) fn longest_available(&self) -> usize {
        if self.free_spans == 0 {
            0
        } else {
            self.used.longest_clear()
        }
    }
}

/// The metadata at the start of a segment; see the module.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Segment {
    /// Whether the payload is unmapped.
    hollow: AtomicBool,
    /// Whether `window` knows the granules: the segment is one of the heap of the process.
    in_window: AtomicBool,
    /// What a hardened heap knows of the blocks; null until it cuts a span here (G5).
    block_states: Published<BlockStates>,
    state: UnsafeCell<State>,
    /// What starts in lent runs.
    pub(crate) guests: GuestTable,
    kinds: [AtomicU8; SEGMENT_GRANULES],
    owners: [AtomicU8; SEGMENT_GRANULES],
    spans: [Span; MAX_SPANS],
    words: [[AtomicU64; MAX_WORDS]; MAX_SPANS],
}

const _: () = assert!(MAX_SPANS < u8::MAX as usize);
const _: () = assert!(HEADER_GRANULES < 64);

impl Segment {
    /// Makes `memory` a segment with a free payload.
    ///
    /// # Safety
    ///
    /// `memory` is `SEGMENT_BYTES` of zeroed memory at a multiple of `SEGMENT_BYTES`,
    /// owned by the caller and mapped for as long as the result is used.
    pub(crate) unsafe fn initialise<'a>(memory: NonNull<u8>) -> &'a Self {
        let segment = memory.cast::<Self>();
        let mut used = Bits::new();
        used.assign(
            Run {
                start: 0,
                len: HEADER_GRANULES,
            },
            true,
        );
        let mut fresh = Bits::new();
        fresh.assign(
            Run {
                start: HEADER_GRANULES,
                len: PAYLOAD_GRANULES,
            },
            true,
        );
        let state = State {
            used,
            fresh,
            free_spans: u128::MAX,
            longest: PAYLOAD_GRANULES,
            next: ptr::null(),
            prev: ptr::null(),
        };
        // SAFETY: the memory is large enough, aligned and ours by contract. All other fields are atomics and spans, for which the zeroes
        // that the memory holds are valid (`Span`: "all zeros is a valid, unused span").
        unsafe { (&raw mut (*segment.as_ptr()).state).write(UnsafeCell::new(state)) };
        // SAFETY: every field is initialised now, and the memory outlives `'a` by contract.
        unsafe { segment.as_ref() }
    }

    /// The segment that holds `addr`.
    ///
    /// # Safety
    ///
    /// The page map says that `addr` lies in a segment of a heap that lives during `'a`.
    #[inline]
    pub(crate) unsafe fn containing<'a>(addr: usize) -> &'a Self {
        let start = addr & !(SEGMENT_BYTES - 1);
        // SAFETY: by contract an initialised segment starts there, and its header stays
        // mapped while the heap lives (S4). Its address was exposed in `expose`.
        unsafe { &*ptr::with_exposed_provenance::<Self>(start) }
    }

    /// Address of the segment, usable in [`Self::containing`].
    pub(crate) fn expose(&self) -> usize {
        ptr::from_ref(self).expose_provenance()
    }

    /// Whether the payload is unmapped.
    pub(crate) fn is_hollow(&self) -> bool {
        // Relaxed: written under the page-heap lock, read when the heap is dropped.
        self.hollow.load(Ordering::Relaxed)
    }

    /// Notes whether the payload is unmapped; the page-heap lock is held.
    pub(crate) fn set_hollow(&self, hollow: bool) {
        // Relaxed: as in `is_hollow`.
        self.hollow.store(hollow, Ordering::Relaxed);
    }

    /// Lets `window` know the granules from now on: it is a segment of the heap of the process,
    /// and nothing of it was given out. The page-heap lock is held.
    pub(crate) fn show_in_window(&self) {
        // Relaxed: read under the page-heap lock, or by who holds a class lock and a span of the
        // segment.
        self.in_window.store(true, Ordering::Relaxed);
    }

    /// Writes the granules of `run` into the window (W1); the lock of their labels is held.
    fn note_in_window(&self, run: Run, magazine: MagazineIndex) {
        // Relaxed: as in `show_in_window`.
        if self.in_window.load(Ordering::Relaxed) {
            window::note(self.addr_of(run.start), run.len, magazine);
        }
    }

    /// What a hardened heap knows of the blocks here.
    #[inline]
    pub(crate) fn block_states(&self) -> Option<&BlockStates> {
        let states = self.block_states.load();
        // SAFETY: null, or states that stay as long as the heap (G5).
        unsafe { states.as_ref() }
    }

    /// Adopts `states` unless there are some; whether it did.
    ///
    /// # Safety
    ///
    /// They are zeroed, and stay mapped as long as the segment's header if adopted.
    pub(crate) unsafe fn set_block_states(&self, states: NonNull<BlockStates>) -> bool {
        self.block_states.adopt(states.as_ptr())
    }

    /// Runs `f` on the fields under the page-heap lock.
    ///
    /// # Safety
    ///
    /// The caller holds the page-heap lock of the segment's heap, and `f` does not come
    /// back here for the same segment.
    #[inline]
    pub(crate) unsafe fn with_state<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        // SAFETY: by contract nobody else touches the state meanwhile.
        self.state.with_mut(|state| f(unsafe { &mut *state }))
    }

    /// What the granule at `addr` is used for.
    #[inline]
    pub(crate) fn kind_at(&self, addr: usize) -> Kind {
        let kind = self.kinds.get(granule_of(addr));
        // Relaxed: stable while the caller holds a block there; otherwise only good for
        // finding misuse.
        kind.map_or(Kind::Unused, |kind| {
            Kind::unpack(kind.load(Ordering::Relaxed))
        })
    }

    /// Whether the granule at `addr` is used for `kind`: [`Self::kind_at`] for those who
    /// expect one.
    #[inline]
    pub(crate) fn is_kind(&self, addr: usize, kind: Kind) -> bool {
        let found = self.kinds.get(granule_of(addr));
        // Relaxed: as in `kind_at`.
        found.is_some_and(|found| found.load(Ordering::Relaxed) == kind.pack())
    }

    /// Notes that the whole run at `addr` was freed. Of several threads that free it, one
    /// gets `true`.
    pub(crate) fn note_freed(&self, addr: usize) -> bool {
        let (whole, cached) = (Kind::Whole.pack(), Kind::Cached.pack());
        self.kinds.get(granule_of(addr)).is_some_and(|kind| {
            // Relaxed, both: elects one; the run itself goes from thread to thread by the
            // page-heap lock, or stays with the thread.
            kind.compare_exchange(whole, cached, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        })
    }

    /// Notes that the run at `addr`, which was freed, is in use again. Its holder calls it.
    pub(crate) fn note_taken(&self, addr: usize) {
        if let Some(kind) = self.kinds.get(granule_of(addr)) {
            // Relaxed: as in `note_freed`.
            kind.store(Kind::Whole.pack(), Ordering::Relaxed);
        }
    }

    /// Notes that runs of `span`, one of `host`, may be lent. The host's class lock is held:
    /// no granule of the span changes its use meanwhile.
    pub(crate) fn note_lent(&self, span: &Span, host: ClassIndex) {
        let run = self.run_of(span);
        self.note_in_window(run, MagazineIndex::NONE);
        for kind in self.kinds.iter().skip(run.start).take(run.len) {
            // Relaxed: who asks about a guest holds it, and it is handed out afterwards;
            // who asks about another block finds its class by either label.
            kind.store(Kind::Lent(host).pack(), Ordering::Relaxed);
        }
    }

    /// The span that the granule at `addr` belongs to.
    #[inline]
    pub(crate) fn span_at(&self, addr: usize) -> Option<&Span> {
        // Relaxed: as in `kind_at`.
        let owner = self.owners.get(granule_of(addr))?.load(Ordering::Relaxed);
        self.spans.get(usize::from(owner).checked_sub(1)?)
    }

    /// Address of the first byte of granule `index`.
    pub(crate) fn addr_of(&self, index: usize) -> usize {
        self.expose() + (index << GRANULE_SHIFT)
    }

    /// Gives out the clear run `run` as one span; returns it and the granules of it that
    /// were fresh. `None` when no descriptor is free.
    ///
    /// # Safety
    ///
    /// The page-heap lock is held, and no granule of `run` is used.
    pub(crate) unsafe fn give_out(&self, run: Run, kind: Kind) -> Option<(&Span, Bits)> {
        // SAFETY: the lock is held by contract.
        let (index, fresh) = unsafe {
            self.with_state(|state| {
                let index = state.free_spans.trailing_zeros() as usize;
                if index >= MAX_SPANS {
                    return None;
                }
                let around = state.used.clear_around(run);
                state.free_spans &= !(1 << index);
                state.used.assign(run, true);
                let fresh = state.fresh;
                state.fresh.assign(run, false);
                // A run that was shorter than the longest leaves that as it was.
                if around.len == state.longest || state.free_spans == 0 {
                    state.longest = state.longest_available();
                }
                Some((index, fresh))
            })?
        };
        let span = self.spans.get(index)?;
        span.describe(self.addr_of(run.start), run.len);
        self.label(run, index + 1, kind);
        if kind == Kind::Whole {
            span.set_kind(kind);
        }
        Some((span, fresh))
    }

    /// Takes back the granules of `span`, of which those in `fresh` are not resident
    /// (bits of the whole segment).
    ///
    /// # Safety
    ///
    /// The page-heap lock is held; the span belongs to this segment and nobody uses its
    /// memory.
    pub(crate) unsafe fn take_back(&self, span: &Span, fresh: &Bits) {
        let run = self.run_of(span);
        span.set_kind(Kind::Unused);
        let first = self.spans.as_ptr().addr();
        let index = (ptr::from_ref(span).addr() - first) / size_of::<Span>();
        self.label(run, 0, Kind::Unused);
        // SAFETY: the lock is held by contract.
        unsafe {
            self.with_state(|state| {
                let was_full = state.free_spans == 0;
                state.free_spans |= 1u128.checked_shl(clamp_u32(index)).unwrap_or(0);
                state.used.assign(run, false);
                state.fresh.assign(run, false);
                let mut from = run.start;
                while let Some(clean) = fresh.next_run(from, true).filter(|r| r.start < run.end()) {
                    let len = clean.end().min(run.end()) - clean.start;
                    state.fresh.assign(
                        Run {
                            start: clean.start,
                            len,
                        },
                        true,
                    );
                    from = clean.end();
                }
                state.longest = if was_full {
                    state.longest_available()
                } else {
                    state.longest.max(state.used.clear_around(run).len)
                };
            });
        }
    }

    /// Moves the end of a whole span from its present run to `len` granules; the caller
    /// has made sure that added granules are not used. Returns how many of the added ones
    /// were fresh.
    ///
    /// # Safety
    ///
    /// The page-heap lock is held; the span is a whole one of this segment; nobody uses
    /// the granules that it loses.
    pub(crate) unsafe fn resize(&self, span: &Span, len: usize) -> usize {
        let old = self.run_of(span);
        let grown = Run {
            start: old.end().min(old.start + len),
            len: old.len.abs_diff(len),
        };
        let growing = len > old.len;
        let owner = self
            .owners
            .get(old.start)
            .map_or(0, |o| o.load(Ordering::Relaxed));
        let (owner, kind) = if growing {
            (usize::from(owner), Kind::Whole)
        } else {
            (0, Kind::Unused)
        };
        self.label(grown, owner, kind);
        span.describe(span.start(), len);
        // SAFETY: the lock is held by contract.
        unsafe {
            self.with_state(|state| {
                state.used.assign(grown, growing);
                let fresh = state.fresh.assign(grown, false);
                state.longest = state.longest_available();
                fresh
            })
        }
    }

    /// The run of granules of `span`.
    pub(crate) fn run_of(&self, span: &Span) -> Run {
        Run {
            start: granule_of(span.start()),
            len: span.granules(),
        }
    }

    /// Words for the bits of `span` as one of `class`.
    pub(crate) fn words_for(&self, span: &Span, class: ClassIndex) -> *mut AtomicU64 {
        if word_count(class) <= INLINE_WORDS {
            return span.inline_words();
        }
        let index = (ptr::from_ref(span).addr() - self.spans.as_ptr().addr()) / size_of::<Span>();
        let words = self
            .words
            .get(index)
            .map_or(ptr::null(), |words| words.as_ptr());
        words.cast_mut()
    }

    /// Every descriptor of the segment that is in use.
    ///
    /// # Safety
    ///
    /// The page-heap lock is held.
    pub(crate) unsafe fn spans(&self) -> impl Iterator<Item = &Span> {
        // SAFETY: the lock is held by contract.
        let free = unsafe { self.with_state(|state| state.free_spans) };
        let spans = self.spans.iter().enumerate();
        spans
            .filter(move |(index, _)| free >> index & 1 == 0)
            .map(|(_, span)| span)
    }

    fn label(&self, run: Run, owner: usize, kind: Kind) {
        #[expect(clippy::cast_possible_truncation, reason = "at most MAX_SPANS")]
        let owner = owner as u8;
        // Of granules that were no blocks the window knows nothing.
        let was_blocks = matches!(self.kind_at(self.addr_of(run.start)), Kind::Blocks(_));
        if was_blocks || kind.magazine() != MagazineIndex::NONE {
            self.note_in_window(run, kind.magazine());
        }
        // Relaxed, both: readers hold a block that was handed out after this (see
        // `kind_at`), or only look for misuse.
        for slot in self.kinds.get(run.start..run.end()).unwrap_or_default() {
            slot.store(kind.pack(), Ordering::Relaxed);
        }
        for slot in self.owners.get(run.start..run.end()).unwrap_or_default() {
            slot.store(owner, Ordering::Relaxed);
        }
    }
}

// SAFETY: `state` is touched only under the page-heap lock, and the
// rest is atomic or `Sync`.
unsafe impl Sync for Segment {}

/// Index of the granule of `addr` in its segment.
#[inline]
pub(crate) const fn granule_of(addr: usize) -> usize {
    (addr >> GRANULE_SHIFT) & (SEGMENT_GRANULES - 1)
}

fn clamp_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
