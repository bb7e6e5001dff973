//! Blocks on their way from a thread back into their spans.
//!
//! A flush hands over some tens of blocks, in the order in which the program freed them. Blocks
//! that follow each other in one word of bits go back with one atomic operation; where the
//! program frees at random that is each block for itself, so what is done a block is kept short:
//! tables instead of divisions, and one comparison for what the page map and the granule's label
//! say of nearly all of them.

use core::mem;
use core::ptr;

use crate::central::{AlreadyFree, Central};
use crate::fatal::{Misuse, die};
use crate::heap_core::HeapCore;
use crate::lend::Returned;
use crate::profile::PROFILE;
use crate::segment::Segment;
use crate::size_class::{block_at, block_size, span_blocks, span_granules};
use crate::span::{Kind, Span};
use crate::sync::Ordering;
use crate::thread_cache::{Aside, ThreadCache};
use crate::units::{ClassIndex, GRANULE_BYTES, MagazineIndex};

/// Blocks of one word of one span that are about to be given back.
#[derive(Clone, Copy, Debug)]
struct Batch {
    /// `None` before the first block.
    span: Option<&'static Span>,
    /// Address of the span's first byte; 0 without a span.
    start: usize,
    word: usize,
    mask: u64,
}

impl Batch {
    const NONE: Self = Self {
        span: None,
        start: 0,
        word: 0,
        mask: 0,
    };
}

impl HeapCore {
    /// Gives `blocks` of `class` back to their spans, several at once where neighbours
    /// in the slice are neighbours in memory.
    pub(crate) fn give_blocks(&self, class: ClassIndex, blocks: &[*mut u8]) {
        let Some(central) = self.centrals.get(class.get()) else {
            return;
        };
        let (block_bytes, span_bytes) = (block_size(class), span_granules(class) * GRANULE_BYTES);
        let span_blocks = span_blocks(class);
        let mut batch = Batch::NONE;
        let (mut elsewhere, mut returned) = (0, Returned::default());
        let mut ahead = blocks;
        for &block in blocks {
            let addr = block.addr();
            let mut next = Batch { mask: 0, ..batch };
            if addr.wrapping_sub(batch.start) >= span_bytes {
                let Some(span) = self.span_of_block(class, addr, &mut ahead) else {
                    self.give_elsewhere(class, addr, &mut returned);
                    elsewhere += 1;
                    continue;
                };
                // No word is this one: the batch before is over.
                (next.span, next.start, next.word) = (Some(span), span.start(), usize::MAX);
            }
            let offset = addr - next.start;
            let index = block_at(class, offset);
            if index * block_bytes != offset || index >= span_blocks {
                die(Misuse::Interior, addr);
            }
            let (word, bit) = (index / 64, 1u64 << (index % 64));
            if word == next.word {
                if batch.mask & bit != 0 {
                    die(Misuse::DoubleFree, addr);
                }
                batch.mask |= bit;
                continue;
            }
            self.finish_batch(central, class, batch);
            batch = Batch {
                word,
                mask: bit,
                ..next
            };
        }
        self.finish_batch(central, class, batch);
        central.note_given(blocks.len() - elsewhere);
        if returned.guests > 0 {
            self.note_returned(&mut returned);
            central.note_guests_left(returned.guests);
        }
    }

    #[inline(always)]
    fn finish_batch(&self, central: &Central, class: ClassIndex, batch: Batch) {
        let Some(span) = batch.span else {
            return;
        };
        // SAFETY: the blocks of the mask came out of a magazine of this class, and their
        // span is of this class (`span_of_block`): we hold them, unless the program freed
        // what it did not own, which `give` reports as far as it can be seen.
        match unsafe { central.give(class, span, batch.word, batch.mask) } {
            Ok(false) => {}
            Ok(true) => {
                // Relaxed: a hint for the next time that memory is wanted.
                self.empties.fetch_or(1 << class.get(), Ordering::Relaxed);
            }
            Err(AlreadyFree) => {
                let first = batch.word * 64 + batch.mask.trailing_zeros() as usize;
                die(Misuse::DoubleFree, batch.start + first * block_size(class))
            }
        }
    }

    /// Sets the older half of the full magazine of `class` aside. Inside `alone`.
    pub(crate) fn set_aside(&self, cache: &ThreadCache, class: ClassIndex) -> Aside {
        if cache.is_shared() {
            return Aside::Full;
        }
        if self.hardened {
            let done = cache.set_aside_unmarked(class, self.room());
            return if done { Aside::Done } else { Aside::Full };
        }
        let magazine = Some(MagazineIndex::of(class));
        let view = cache.magazines.view();
        let is_known = |addr| view.magazine_of(addr) == magazine || self.is_in_span_of(class, addr);
        // SAFETY: the window and the label say so of granules of the class alone (W1, G2), and
        // these are readable and writable.
        unsafe { cache.set_aside(class, self.room(), is_known) }
    }

    /// Whether the granule of `addr` is of a span of `class`, whatever the window shows.
    #[cold]
    #[inline(never)]
    fn is_in_span_of(&self, class: ClassIndex, addr: usize) -> bool {
        self.segment_of(addr)
            .is_some_and(|segment| segment.is_kind(addr, Kind::Blocks(class)))
    }

    /// Gives a block back for which [`Self::span_of_block`] found no span.
    #[cold]
    fn give_elsewhere(&self, class: ClassIndex, addr: usize, returned: &mut Returned) {
        let Some(segment) = self.segment_of(addr) else {
            die(Misuse::Foreign, addr)
        };
        if PROFILE.holds(addr) {
            // It was freed by a name that knows of no profile, like any block of the class
            // that it was allocated as.
            // SAFETY: it came out of a magazine, so we hold it.
            unsafe { self.free_large(ptr::with_exposed_provenance_mut(addr)) };
        } else {
            self.give_guest(class, segment, addr, returned);
        }
    }

    /// The span of `class` that holds `addr`; `None` if a guest of the class starts there, or
    /// a sample of the heap profile. Ends the process when there is none of these. The first time
    /// that the tables of guests must be asked, they are for all blocks of `ahead`.
    #[inline]
    fn span_of_block(
        &self,
        class: ClassIndex,
        addr: usize,
        ahead: &mut &[*mut u8],
    ) -> Option<&'static Span> {
        let Some(segment) = self.segment_of(addr) else {
            die(Misuse::Foreign, addr)
        };
        if segment.is_kind(addr, Kind::Blocks(class)) {
            if let Some(span) = segment.span_at(addr) {
                return Some(span);
            }
        }
        self.look_ahead(mem::take(ahead));
        span_of_lent(segment, class, addr)
    }

    /// Fetches the entries of `blocks` in the tables of guests, all at once: one by one, each is a
    /// cache miss that the next waits for.
    #[cold]
    fn look_ahead(&self, blocks: &[*mut u8]) {
        for block in blocks {
            if let Some(segment) = self.segment_of(block.addr()) {
                segment.guests.touch(block.addr());
            }
        }
    }
}

/// [`HeapCore::span_of_block`] for a granule that is not simply one of the class.
#[cold]
fn span_of_lent(
    segment: &'static Segment,
    class: ClassIndex,
    addr: usize,
) -> Option<&'static Span> {
    match (segment.kind_at(addr), segment.span_at(addr)) {
        (Kind::Lent(host), Some(span)) => match segment.guests.get(addr) {
            Some(found) if found == class => None,
            None if host == class => Some(span),
            _ => die(Misuse::WrongLayout, addr),
        },
        (Kind::Whole, Some(_)) if PROFILE.holds(addr) => None,
        (Kind::Unused | Kind::Cached, _) | (_, None) => die(Misuse::DoubleFree, addr),
        _ => die(Misuse::WrongLayout, addr),
    }
}
