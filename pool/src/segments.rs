//! An array that grows without moving: segments that double in length.
//!
//! Segment `s` holds [`FIRST`]` << s` elements, so an index finds its place by its
//! leading zeros, and readers need no lock.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::sync::{AtomicPtr, Ordering};

const FIRST: u32 = if cfg!(loom) { 4 } else { 64 };
/// Segments that all indices need.
const COUNT: usize = if cfg!(loom) {
    2
} else {
    (u32::BITS - FIRST.trailing_zeros()) as usize + 1
};

/// See the module.
pub(crate) struct Segments<T> {
    starts: [AtomicPtr<T>; COUNT],
}

impl<T> core::fmt::Debug for Segments<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Segments").finish_non_exhaustive()
    }
}

/// Segment of an index, and the place in it.
fn locate(index: u32) -> (usize, usize) {
    let from_one = u64::from(index) + u64::from(FIRST);
    let segment = from_one.ilog2() - FIRST.ilog2();
    let place = from_one - (u64::from(FIRST) << segment);
    #[expect(clippy::cast_possible_truncation, reason = "below 2³²")]
    (segment as usize, place as usize)
}

fn len_of(segment: usize) -> usize {
    (FIRST as usize) << segment
}

impl<T: Default> Segments<T> {
    pub(crate) fn new() -> Self {
        Self {
            starts: core::array::from_fn(|_| AtomicPtr::new(core::ptr::null_mut())),
        }
    }

    /// The element, if its segment exists.
    #[inline]
    pub(crate) fn try_get(&self, index: u32) -> Option<&T> {
        let (segment, place) = locate(index);
        // Acquire: pairs with the Release in `ensure`.
        let start = self.starts.get(segment)?.load(Ordering::Acquire);
        if start.is_null() {
            return None;
        }
        // SAFETY: a segment that is not null has `len_of(segment)` initialised elements
        // until `drop`, and `locate` gives a place below that.
        Some(unsafe { &*start.add(place) })
    }

    /// The element, whose segment exists ([`Segments::ensure`] was called for it).
    #[inline]
    pub(crate) fn get(&self, index: u32) -> &T {
        self.try_get(index).expect("the element was made before")
    }

    /// The element, made with its whole segment if need be.
    pub(crate) fn ensure(&self, index: u32) -> &T {
        let (segment, _) = locate(index);
        // Acquire: as in `get`.
        if self.starts[segment].load(Ordering::Acquire).is_null() {
            self.add(segment);
        }
        self.get(index)
    }

    #[cold]
    fn add(&self, segment: usize) {
        let elements: Box<[T]> = (0..len_of(segment))
            .map(|_| T::default())
            .collect::<Vec<T>>()
            .into();
        let start = Box::into_raw(elements).cast::<T>();
        // Release: publishes the elements to the Acquire in `get`. Relaxed on failure:
        // `get` loads it again.
        if self.starts[segment]
            .compare_exchange(
                core::ptr::null_mut(),
                start,
                Ordering::Release,
                Ordering::Relaxed,
            )
            .is_err()
        {
            // SAFETY: made above, published to nobody.
            drop(unsafe { Self::boxed(start, segment) });
        }
    }

    /// # Safety
    ///
    /// `start` was made by `add` for this segment and nobody uses it any more.
    unsafe fn boxed(start: *mut T, segment: usize) -> Box<[T]> {
        let all = core::ptr::slice_from_raw_parts_mut(start, len_of(segment));
        // SAFETY: `add` took it from a box of this length; the caller owns it now.
        unsafe { Box::from_raw(all) }
    }
}

impl<T> Drop for Segments<T> {
    fn drop(&mut self) {
        for (segment, start) in self.starts.iter().enumerate() {
            // Relaxed: `&mut self` has synchronised with every other user.
            let start = start.load(Ordering::Relaxed);
            if !start.is_null() {
                let all = core::ptr::slice_from_raw_parts_mut(start, len_of(segment));
                // SAFETY: made by `add` from a box of this length; nobody uses it any more.
                drop(unsafe { Box::from_raw(all) });
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Every index must have a place of its own: a wrong shift would give two indices
    /// one element, or run past the end of a segment.
    #[test]
    fn indices_fill_segments_without_gap_or_overlap() {
        let mut expected = (0, 0);
        for index in 0..100_000 {
            assert_eq!(locate(index), expected);
            expected.1 += 1;
            if expected.1 == len_of(expected.0) {
                expected = (expected.0 + 1, 0);
            }
        }
        let (segment, place) = locate(u32::MAX);
        assert!(segment < COUNT && place < len_of(segment));
    }
}
