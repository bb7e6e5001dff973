//! From an address to the magazine of its block, in one load: what `free` without a layout asks
//! first.
//!
//! ```text
//! address space   … |          window: 32 GiB around the first segment           | …
//! magazines         | 0 0 | 5 5 5 5 … | 0 0 | 12 12 … |      one byte a granule  |
//! ```
//!
//! The page map and the segment's labels know all about an address, behind three dependent loads
//! and as many checks. This table knows one thing: that the granule lies in a span of blocks of a
//! class, of the heap of the process. Whatever it does not know is 0, and takes the long way:
//! large blocks, spans of which runs were lent, other heaps, and segments outside the window. A
//! kernel that hands out addresses from the top down puts a heap's segments side by side, so the
//! window needs no reservation. (snmalloc's page map is flat, too; it covers all addresses.)
//!
//! Invariants:
//! - W1: a byte that is not 0 names the class of which the span of that granule is; it is
//!   written with the granule's label (G2), under the same lock.
//! - W2: the window does not move once it was placed.
//! - W3: a view covers granules of the window, or none.

use crate::os;
use crate::sync::{AtomicU8, AtomicUsize, Ordering};
use crate::units::{GRANULE_BYTES, GRANULE_SHIFT, MagazineIndex};

/// Bytes of address space in the window.
const WINDOW_BYTES: usize = 32 << 30;
/// Bytes of the window below the first mapping: most of what is mapped later lies there.
const BELOW_BYTES: usize = 24 << 30;
const GRANULES: usize = WINDOW_BYTES >> GRANULE_SHIFT;

/// The magazines of the granules. Only what is touched is resident: 4 KiB for 16 MiB of segments.
static MAGAZINES: [AtomicU8; GRANULES] = [const { AtomicU8::new(0) }; GRANULES];

/// Address at which the window starts; 0 before it was placed (W2).
static START: AtomicUsize = AtomicUsize::new(0);

/// Where the window is. Each thread has one beside its magazines, which costs an instruction less
/// than to ask a static.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    start: usize,
    granules: usize,
}

impl View {
    /// Of nothing.
    pub(crate) const NONE: Self = Self {
        start: 0,
        granules: 0,
    };

    /// The magazine for the block at `addr` of the heap of the process, `NONE` where that is not
    /// known; `None` outside the window.
    #[inline(always)]
    pub(crate) fn magazine_of(self, addr: usize) -> Option<MagazineIndex> {
        let index = addr.wrapping_sub(self.start) >> GRANULE_SHIFT;
        if index >= self.granules {
            return None;
        }
        // SAFETY: a view covers the window at most (W3).
        let byte = unsafe { MAGAZINES.get_unchecked(index) };
        // Relaxed: whoever frees a block was given it after this was written; for an address that
        // is no block, any answer will do, because the flush asks the page map.
        Some(MagazineIndex::from_byte(byte.load(Ordering::Relaxed)))
    }
}

/// The window, or nothing before it was placed.
#[inline]
pub(crate) fn view() -> View {
    // Relaxed: as in `View::magazine_of`.
    match START.load(Ordering::Relaxed) {
        0 => View::NONE,
        start => View {
            start,
            granules: GRANULES,
        },
    }
}

/// Places the window around `addr`, which is what the heap of the process mapped first.
pub(crate) fn place(addr: usize) {
    // Not 0, so that it is placed once.
    let start = addr.saturating_sub(BELOW_BYTES) & !(GRANULE_BYTES - 1);
    // Relaxed, both: of several threads one places it, and the others take that for theirs.
    let placed = START.compare_exchange(
        0,
        start.max(GRANULE_BYTES),
        Ordering::Relaxed,
        Ordering::Relaxed,
    );
    if placed.is_ok() {
        keep_pages_small();
    }
}

/// Where the system makes huge pages of everything, the first look into the table would make
/// 2 MiB of it resident.
fn keep_pages_small() {
    let page = os::page_size();
    let table = MAGAZINES.as_ptr().expose_provenance();
    let first = table.next_multiple_of(page);
    let end = (table + size_of_val(&MAGAZINES)) & !(page - 1);
    // SAFETY: whole OS pages of a static of ours; the advice does not change contents.
    unsafe { os::advise_huge(first, end - first, false) };
}

/// Notes that blocks in the `granules` granules at `addr` go to `magazine` (W1).
pub(crate) fn note(addr: usize, granules: usize, magazine: MagazineIndex) {
    let index = addr.wrapping_sub(view().start) >> GRANULE_SHIFT;
    for byte in MAGAZINES.iter().skip(index).take(granules) {
        // Relaxed: as in `View::magazine_of`.
        byte.store(magazine.byte(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ClassIndex;

    /// The only test that places it: no heap of the process is used by unit tests.
    #[test]
    fn a_granule_knows_its_magazine_and_its_neighbours_theirs() {
        let segment = 0x7f00_0040_0000;
        place(segment);
        place(0x10_0000_0000);
        let of = |addr| view().magazine_of(addr);
        let none = Some(MagazineIndex::NONE);
        assert_eq!(of(segment), none);
        let magazine = MagazineIndex::of(ClassIndex::new(7));
        note(segment + 8192, 2, magazine);
        assert_eq!(of(segment + 8191), none);
        assert_eq!(of(segment + 8192), Some(magazine));
        assert_eq!(of(segment + 16383), Some(magazine));
        assert_eq!(of(segment + 16384), none);
        note(segment + 8192, 2, MagazineIndex::NONE);
        assert_eq!(of(segment + 8192), none);
        assert_eq!(of(segment + WINDOW_BYTES - BELOW_BYTES - 1), none);
        assert_eq!(of(segment + WINDOW_BYTES - BELOW_BYTES), None);
        assert_eq!(of(segment - BELOW_BYTES), none);
        assert_eq!(of(segment - BELOW_BYTES - 1), None);
    }

    #[test]
    fn what_lies_outside_has_no_magazine() {
        for addr in [0, 1, 1 << 47, usize::MAX] {
            note(addr, 1, MagazineIndex::NONE);
            assert_eq!(view().magazine_of(addr), None);
            assert_eq!(View::NONE.magazine_of(addr), None);
        }
    }
}
