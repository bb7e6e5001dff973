//! What a hardened heap knows of each small block: a byte, kept apart from the blocks.
//!
//! ```text
//! segment  | header | block | block |   block   | …        4 MiB
//! bytes    |   …    |L . . .|F . . .|N . . . . .| …        one for 16 bytes of segment
//!
//! byte     | LIVE | FREED | class, 6 bits |                high bit left; all zero is NEW
//! ```
//!
//! | state | the block is | `allot` | `release` |
//! |---|---|---|---|
//! | `NEW` | free, and was not in use since its span was cut; or no block begins here | → `LIVE` | misuse |
//! | `LIVE` | in use | misuse | → `FREED` |
//! | `FREED` | free or in quarantine, and was zeroed; or no block begins here, but did in a former span | → `LIVE`, is still zero | misuse |
//!
//! A free looks at one byte: a pointer into the middle of a block, one to a block that is
//! free, and one to nothing find no `LIVE` there. What is `LIVE` tells its size class, too, so
//! that a free needs no other table.
//!
//! Invariants:
//! - B1: the byte of a block is written by whoever holds the block: the thread that
//!   allocates it, the thread that frees it, and before both who cuts the span.
//! - B2: there is no `LIVE` but at the start of a block in use.
//!
//! A load and a store, and no exchange: that would be a third of the cost of a pair. Two
//! threads that free one block in the same instant may both see `LIVE`; then the block is
//! given to its span twice, which finds the bit set, or allotted twice, which finds `LIVE`.

#[cfg(not(loom))]
use crate::size_class::{block_size, span_blocks};
use crate::sync::{AtomicU8, Ordering};
use crate::units::{CLASS_COUNT, ClassIndex};
#[cfg(not(loom))]
use crate::units::{GRANULE_BYTES, SEGMENT_BYTES};

/// Bytes of a segment for which there is one state: no hardened block is smaller.
#[cfg(not(loom))]
pub(crate) const STEP: usize = 16;

/// Bytes of states of a segment.
#[cfg(not(loom))]
pub(crate) const STATES_BYTES: usize = SEGMENT_BYTES / STEP;

const NEW: u8 = 0;
const LIVE: u8 = 0x80;
const FREED: u8 = 0x40;
/// The bits of the class.
const CLASS: u8 = 0x3f;

const _: () = assert!(CLASS_COUNT <= CLASS as usize + 1);

/// What a block was before it was allotted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// It holds anything.
    New,
    /// It was zeroed when it was freed.
    Freed,
    /// It is in use: it was freed twice in one instant.
    Live,
}

/// One block's state.
#[derive(Debug)]
pub(crate) struct BlockState(AtomicU8);

impl BlockState {
    /// The block, one of `class`, is handed out; its holder calls it.
    #[inline(always)]
    pub(crate) fn allot(&self, class: ClassIndex) -> Before {
        // Relaxed, both: only the holder of the block writes (B1), and the block itself
        // goes from holder to holder by stronger means.
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(LIVE | class.byte(), Ordering::Relaxed);
        match before & !CLASS {
            NEW => Before::New,
            FREED => Before::Freed,
            _ => Before::Live,
        }
    }

    /// [`Self::allot`] of a block that was freed before; `false`, and nothing done, if it was not.
    #[inline(always)]
    pub(crate) fn allot_freed(&self, class: ClassIndex) -> bool {
        // Relaxed, both: as in `allot`.
        let is_freed = self.0.load(Ordering::Relaxed) == FREED | class.byte();
        if is_freed {
            self.0.store(LIVE | class.byte(), Ordering::Relaxed);
        }
        is_freed
    }

    /// [`Self::release`] of a block of `class`; `false`, and nothing done, where none is in use.
    #[inline(always)]
    pub(crate) fn release_as(&self, class: ClassIndex) -> bool {
        // Relaxed, both: as in `allot`.
        let is_live = self.0.load(Ordering::Relaxed) == LIVE | class.byte();
        if is_live {
            self.0.store(FREED | class.byte(), Ordering::Relaxed);
        }
        is_live
    }

    /// The block is freed; its class, or `None` when none is in use here.
    #[inline(always)]
    pub(crate) fn release(&self) -> Option<ClassIndex> {
        // Relaxed, both: as in `allot`.
        let before = self.0.load(Ordering::Relaxed);
        if before & LIVE == 0 {
            return None;
        }
        self.0.store(before ^ (LIVE | FREED), Ordering::Relaxed);
        Some(ClassIndex::new(usize::from(before & CLASS)))
    }

    /// Whether the block is in use.
    pub(crate) fn is_live(&self) -> bool {
        // Relaxed: as in `allot`.
        self.0.load(Ordering::Relaxed) & LIVE != 0
    }
}

/// The states of a segment's blocks. All zeroes is a segment without any.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct BlockStates([BlockState; STATES_BYTES]);

#[cfg(not(loom))]
impl BlockStates {
    /// The state of the block that starts at `addr`.
    #[inline(always)]
    pub(crate) fn at(&self, addr: usize) -> &BlockState {
        &self.0[(addr % SEGMENT_BYTES) / STEP]
    }

    /// A span of `class` is cut from the granules from `start` of the segment on. What is left
    /// between its blocks is of free ones (B2), and nobody asks for more than that.
    pub(crate) fn clear(&self, start: usize, class: ClassIndex) {
        let states = self.0.iter().skip(start * (GRANULE_BYTES / STEP));
        let starts = states.step_by((block_size(class) / STEP).max(1));
        for state in starts.take(span_blocks(class)) {
            // Relaxed: as in `allot`; who cuts the span holds its blocks.
            state.0.store(NEW, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_state_goes_round_and_misuse_is_seen() {
        let (state, class) = (
            BlockState(AtomicU8::new(NEW)),
            ClassIndex::new(CLASS_COUNT - 1),
        );
        assert_eq!(state.release(), None, "nothing was handed out");
        assert_eq!(state.allot(class), Before::New);
        assert!(state.is_live());
        assert_eq!((state.release(), state.release()), (Some(class), None));
        assert_eq!(state.allot(class), Before::Freed);
        assert_eq!(state.allot(class), Before::Live, "handed out twice");
        let other = ClassIndex::new(0);
        assert!(!state.allot_freed(class) && !state.release_as(other));
        assert!(state.release_as(class) && !state.release_as(class));
        assert!(!state.allot_freed(other) && state.allot_freed(class));
    }

    #[test]
    fn every_block_of_a_span_is_new_and_its_neighbours_stay() {
        const START: usize = 16;
        let states = BlockStates([const { BlockState(AtomicU8::new(FREED)) }; STATES_BYTES]);
        let is = |addr, state| states.at(addr).0.load(Ordering::Relaxed) == state;
        for class in ClassIndex::all().filter(|&class| block_size(class) % STEP == 0) {
            states.clear(START, class);
            let (first, bytes) = (START * GRANULE_BYTES, block_size(class));
            let end = first + span_blocks(class) * bytes;
            assert!((first..end).step_by(bytes).all(|addr| is(addr, NEW)));
            assert!(is(first - STEP, FREED) && is(end, FREED));
            for state in &states.0 {
                state.0.store(FREED, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::sync::AtomicU64;
    use loom::sync::Arc;

    /// A block in use, and the word of bits of its span (`span`).
    struct Block {
        state: BlockState,
        span: AtomicU64,
    }

    /// Two threads free one block; each stops the process, or gives the block to its span
    /// by `give`, which says whether the bit was set. One of them has to stop it.
    fn model(give: fn(&AtomicU64) -> bool) {
        loom::model(move || {
            let block = Arc::new(Block {
                state: BlockState(AtomicU8::new(LIVE)),
                span: AtomicU64::new(0),
            });
            let free = move |block: &Block| block.state.release().is_none() || give(&block.span);
            let other = {
                let block = Arc::clone(&block);
                loom::thread::spawn(move || free(&block))
            };
            let stopped = free(&block) | other.join().unwrap();
            assert!(stopped, "a double free is seen");
        });
    }

    /// Two threads free a block in the same instant: if the state does not show it, the
    /// span does.
    #[test]
    fn loom_two_frees_in_one_instant_are_seen() {
        model(|span| span.fetch_or(1, Ordering::SeqCst) & 1 == 1);
    }

    /// The same with a span whose bits are set by a load and a store.
    #[test]
    #[should_panic(expected = "a double free is seen")]
    fn loom_a_span_without_exchange_is_caught() {
        model(|span| {
            let before = span.load(Ordering::SeqCst);
            span.store(before | 1, Ordering::SeqCst);
            before & 1 == 1
        });
    }
}
