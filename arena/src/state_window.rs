//! From an address to the state of its block, in one load beside the state's own: what a free
//! asks first in a hardened process.
//!
//! ```text
//! address space   … |          32 GiB around the first segment            | …
//! pointers          |  0  |  0  | states | states |  0  | …   one a segment
//! ```
//!
//! The page map and the segment's header know that, too, behind three loads that depend on each
//! other. What this table does not know is null and takes that way. An address that is no
//! multiple of 16 lies outside, whatever it is: its low bits become its highest. (`window` does
//! the same for the heap that is not hardened.)
//!
//! Invariants:
//! - V1: a pointer that is not null leads to the states of a segment of the hardened heap of the
//!   process. They were zeroed before it was written, and stay as long as the process.
//! - V2: the window does not move once it was placed.

use core::hint::assert_unchecked;
use core::ptr;

use crate::block_state::{BlockState, BlockStates, STEP};
use crate::published::Published;
use crate::sync::{AtomicUsize, Ordering};
use crate::units::SEGMENT_BYTES;

/// Segments in the window.
const SEGMENTS: usize = 8192;
/// Segments of the window below the first: most of what is mapped later lies there.
const BELOW: usize = 6144;
/// States of a segment.
const PER_SEGMENT: usize = SEGMENT_BYTES / STEP;

/// Where the states of each segment are, less the states that all segments of the window before it
/// would have.
static STATES: [Published<BlockState>; SEGMENTS] = [const { Published::nothing() }; SEGMENTS];

/// Where the window starts, in steps of a state; 0 before it was placed (V2).
static START: AtomicUsize = AtomicUsize::new(0);

/// Places the window around `addr`. Every thread asks before it has a cache.
pub(crate) fn place(addr: usize) {
    let start = (addr / SEGMENT_BYTES).saturating_sub(BELOW).max(1) * PER_SEGMENT;
    // Relaxed, both: of several threads one places it, and the others see from now on that it did.
    let _ = START.compare_exchange(0, start, Ordering::Relaxed, Ordering::Relaxed);
}

/// The state of the block at `addr`, if it is known.
#[inline(always)]
pub(crate) fn state_at(addr: usize) -> Option<&'static BlockState> {
    // Low bits that are not zero become high ones. Relaxed: the thread has asked `place`, so it
    // sees the only value.
    let start = START.load(Ordering::Relaxed);
    let step = addr.rotate_right(STEP.trailing_zeros()).wrapping_sub(start);
    // Zeroed (V1), since it was published.
    let states = STATES.get(step / PER_SEGMENT)?.load();
    if states.is_null() {
        return None;
    }
    let state = states.wrapping_add(step);
    // SAFETY: `step` counts from the window's start, and the pointer is that much less than the
    // states of the segment, in which it lies (V1); so it is not null.
    unsafe {
        assert_unchecked(!state.is_null());
        Some(&*state)
    }
}

/// Notes the states of the hardened heap's segment at `segment`, which were zeroed and stay
/// (V1).
pub(crate) fn note(segment: usize, states: &'static BlockStates) {
    // Relaxed: as in `state_at`.
    let step = (segment / STEP).wrapping_sub(START.load(Ordering::Relaxed));
    if let Some(pointer) = STATES.get(step / PER_SEGMENT) {
        let first = ptr::from_ref(states).cast::<BlockState>().cast_mut();
        pointer.store(first.wrapping_sub(step));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_state::STATES_BYTES;
    use crate::units::ClassIndex;

    /// The only test that places it: no heap of the process is used by unit tests.
    #[test]
    fn an_address_finds_the_state_of_its_block_and_of_no_other() {
        let segment = 0x7f00_0040_0000;
        place(segment + 4096);
        place(0x10_0000_0000);
        assert!(state_at(segment).is_none(), "nothing is noted");
        let memory: &'static mut [u8] = Box::leak(vec![0; STATES_BYTES].into_boxed_slice());
        // SAFETY: zeroes are states, one a byte, and the box is never freed.
        let states: &'static BlockStates = unsafe { &*memory.as_ptr().cast() };
        for at in [segment, segment - 7 * SEGMENT_BYTES] {
            note(at, states);
            for addr in [at, at + 16, at + SEGMENT_BYTES - 16] {
                let found = state_at(addr).unwrap();
                assert!(ptr::eq(found, states.at(addr)));
                assert!((1..16).all(|low| state_at(addr + low).is_none()));
            }
        }
        let first = segment - BELOW * SEGMENT_BYTES;
        note(first, states);
        state_at(first).unwrap().allot(ClassIndex::new(3));
        assert!(states.at(first).is_live());
        for outside in [first - SEGMENT_BYTES, first + SEGMENTS * SEGMENT_BYTES] {
            note(outside, states);
            assert!(state_at(outside).is_none());
        }
        for addr in [0, 16, segment + SEGMENT_BYTES, usize::MAX, 1 << 63] {
            assert!(state_at(addr).is_none());
        }
    }
}
