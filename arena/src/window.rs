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

#[cfg(not(loom))]
use crate::os;
use crate::sync::{AtomicU8, AtomicUsize, Ordering};
use crate::units::{GRANULE_BYTES, GRANULE_SHIFT, MagazineIndex};

/// Bytes of address space in the window.
#[cfg(not(loom))]
const WINDOW_BYTES: usize = 32 << 30;
#[cfg(loom)]
const WINDOW_BYTES: usize = 4 << GRANULE_SHIFT;
/// Bytes of the window below the first mapping: most of what is mapped later lies there.
const BELOW_BYTES: usize = WINDOW_BYTES / 4 * 3;
const GRANULES: usize = WINDOW_BYTES >> GRANULE_SHIFT;

/// See the module.
#[derive(Debug)]
struct Window {
    /// The magazines of the granules. Only what is touched is resident: 4 KiB for 16 MiB of
    /// segments.
    magazines: [AtomicU8; GRANULES],
    /// Address at which the window starts; 0 before it was placed (W2).
    start: AtomicUsize,
}

/// There is one, as there is one heap of the process.
#[cfg(not(loom))]
static WINDOW: Window = Window {
    magazines: [const { AtomicU8::new(0) }; GRANULES],
    start: AtomicUsize::new(0),
};

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
    #[cfg(not(loom))]
    #[inline(always)]
    pub(crate) fn magazine_of(self, addr: usize) -> Option<MagazineIndex> {
        // SAFETY: views are of this window.
        unsafe { WINDOW.magazine_of(self, addr) }
    }
}

/// The window, or nothing before it was placed.
#[cfg(not(loom))]
#[inline]
pub(crate) fn view() -> View {
    WINDOW.view()
}

/// Places the window around `addr`, which is what the heap of the process mapped first.
#[cfg(not(loom))]
pub(crate) fn place(addr: usize) {
    if WINDOW.place(addr) {
        WINDOW.keep_pages_small();
    }
}

/// Notes that blocks in the `granules` granules at `addr` go to `magazine` (W1).
#[cfg(not(loom))]
pub(crate) fn note(addr: usize, granules: usize, magazine: MagazineIndex) {
    WINDOW.note(addr, granules, magazine);
}

impl Window {
    /// See [`View::magazine_of`].
    ///
    /// # Safety
    ///
    /// `view` is of this window, or of nothing.
    #[inline(always)]
    unsafe fn magazine_of(&self, view: View, addr: usize) -> Option<MagazineIndex> {
        let index = addr.wrapping_sub(view.start) >> GRANULE_SHIFT;
        if index >= view.granules {
            return None;
        }
        // SAFETY: a view covers the window at most (W3).
        let byte = unsafe { self.magazines.get_unchecked(index) };
        // Relaxed: whoever frees a block was given it after this was written; for an address that
        // is no block, any answer will do, because the flush asks the page map.
        Some(MagazineIndex::from_byte(byte.load(Ordering::Relaxed)))
    }

    fn view(&self) -> View {
        // Relaxed: as in `magazine_of`.
        match self.start.load(Ordering::Relaxed) {
            0 => View::NONE,
            start => View {
                start,
                granules: GRANULES,
            },
        }
    }

    /// See [`place`]; whether it was this call that did.
    fn place(&self, addr: usize) -> bool {
        // Not 0, so that it is placed once.
        let start = addr.saturating_sub(BELOW_BYTES) & !(GRANULE_BYTES - 1);
        // Relaxed, both: of several threads one places it, and the others take that for theirs.
        self.start
            .compare_exchange(
                0,
                start.max(GRANULE_BYTES),
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// Where the system makes huge pages of everything, the first look into the table would make
    /// 2 MiB of it resident.
    #[cfg(not(loom))]
    fn keep_pages_small(&self) {
        let page = os::page_size();
        let table = self.magazines.as_ptr().expose_provenance();
        let first = table.next_multiple_of(page);
        let end = (table + size_of_val(&self.magazines)) & !(page - 1);
        // SAFETY: whole OS pages of a static of ours; the advice does not change contents.
        unsafe { os::advise_huge(first, end - first, false) };
    }

    /// See [`note`].
    fn note(&self, addr: usize, granules: usize, magazine: MagazineIndex) {
        // A start that others placed is seen by whoever changes what they noted: the lock of the
        // label, which both held, is between.
        let index = addr.wrapping_sub(self.view().start) >> GRANULE_SHIFT;
        for byte in self.magazines.iter().skip(index).take(granules) {
            // Relaxed: as in `magazine_of`.
            byte.store(magazine.byte(), Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
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

/// What frees rely on: who has a block finds in the table its class, or none, whatever becomes of the
/// span meanwhile.
#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::sync::Lock;
    use crate::units::ClassIndex;
    use loom::sync::Arc;

    const GRANULE: usize = 0x7f00_0000_0000;

    /// One granule, its label, and the block that starts there.
    struct World {
        window: Window,
        /// The magazine of the label, under the lock of labels.
        label: Lock<MagazineIndex>,
        /// Whether the block was handed out.
        block: AtomicUsize,
    }

    impl World {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                window: Window {
                    magazines: core::array::from_fn(|_| AtomicU8::new(0)),
                    start: AtomicUsize::new(0),
                },
                label: Lock::new(MagazineIndex::NONE),
                block: AtomicUsize::new(0),
            })
        }

        /// Labels the granule, and notes it, as `Segment::label` and `note_lent` do.
        fn label(&self, magazine: MagazineIndex) {
            self.label.with(|label| {
                *label = magazine;
                self.window.note(GRANULE, 1, magazine);
            });
        }

        /// Release: how blocks are handed out and on, by the span's words or by the program; pairs
        /// with the Acquire in `freed_by`.
        fn hand_out(&self) {
            self.block.store(1, Ordering::Release);
        }

        /// Where a free of the block goes; `None` if this thread has no block.
        fn freed_by(&self) -> Option<MagazineIndex> {
            // Acquire: pairs with the Release in `hand_out`.
            if self.block.load(Ordering::Acquire) == 0 {
                return None;
            }
            // SAFETY: its own view.
            let found = unsafe { self.window.magazine_of(self.window.view(), GRANULE) };
            Some(found.unwrap_or(MagazineIndex::NONE))
        }
    }

    fn magazine(class: usize) -> MagazineIndex {
        MagazineIndex::of(ClassIndex::new(class))
    }

    /// A granule of class 5 becomes one of class 7, of which a block is handed out, and then its
    /// span one that lends. The block's holder may find 7 or nothing.
    fn reuse(of_seven: fn(&World)) {
        loom::model(move || {
            let world = World::new();
            world.window.place(GRANULE);
            world.label(magazine(5));
            let owner = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || of_seven(&world))
            };
            let lender = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || {
                    if world.label.with(|label| *label == magazine(7)) {
                        world.label(MagazineIndex::NONE);
                    }
                })
            };
            if let Some(found) = world.freed_by() {
                assert!(found != magazine(5), "freed as what was there before");
            }
            owner.join().unwrap();
            lender.join().unwrap();
        });
    }

    #[test]
    fn loom_a_free_finds_its_class_or_none() {
        reuse(|world| {
            world.label(magazine(7));
            world.hand_out();
        });
    }

    /// The same with a block that is handed out before its granule is noted.
    #[test]
    #[should_panic(expected = "freed as what was there before")]
    fn loom_a_note_behind_the_block_is_caught() {
        reuse(|world| {
            world.hand_out();
            world.label(magazine(7));
        });
    }

    /// A span of class 5 lends the run of the granule to a larger class, while another thread frees a
    /// block of class 5 that it has had for long. That finds 5 or nothing; who frees the guest must
    /// find nothing.
    fn lending(lend: fn(&World)) {
        loom::model(move || {
            let world = World::new();
            world.window.place(GRANULE);
            world.label(magazine(5));
            let lender = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || lend(&world))
            };
            let neighbour = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || {
                    // SAFETY: its own view.
                    let found = unsafe { world.window.magazine_of(world.window.view(), GRANULE) };
                    assert!(found == Some(magazine(5)) || found == Some(MagazineIndex::NONE));
                })
            };
            if let Some(found) = world.freed_by() {
                assert!(found == MagazineIndex::NONE, "a guest freed as its host");
            }
            lender.join().unwrap();
            neighbour.join().unwrap();
        });
    }

    #[test]
    fn loom_a_guest_finds_no_class() {
        lending(|world| {
            world.label(MagazineIndex::NONE);
            world.hand_out();
        });
    }

    /// The same with a guest that is handed out while the window still names the host.
    #[test]
    #[should_panic(expected = "a guest freed as its host")]
    fn loom_a_guest_before_its_note_is_caught() {
        lending(|world| {
            world.hand_out();
            world.label(MagazineIndex::NONE);
        });
    }

    /// The window is placed while one thread cuts the granule for class 5; another reuses it for
    /// class 7. It may see the window late only if the first did not see it either.
    fn placing(reuse: fn(&World)) {
        loom::model(move || {
            let world = World::new();
            let first = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || world.window.place(GRANULE))
            };
            let cutter = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || world.label(magazine(5)))
            };
            let second = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || {
                    reuse(&world);
                })
            };
            if let Some(found) = world.freed_by() {
                assert!(found != magazine(5), "freed as what was there before");
            }
            first.join().unwrap();
            cutter.join().unwrap();
            second.join().unwrap();
        });
    }

    #[test]
    fn loom_a_window_placed_meanwhile_forgets_nothing() {
        placing(|world| {
            // Cut before, so that this is a reuse.
            if world.label.with(|label| *label == magazine(5)) {
                world.label(magazine(7));
                world.hand_out();
            }
        });
    }

    /// The same with a thread that goes on with where the window was when it began.
    #[test]
    #[should_panic(expected = "freed as what was there before")]
    fn loom_a_window_looked_up_before_the_lock_is_caught() {
        placing(|world| {
            let view = world.window.view();
            if world.label.with(|label| *label == magazine(5)) {
                world.label.with(|label| *label = magazine(7));
                let index = GRANULE.wrapping_sub(view.start) >> GRANULE_SHIFT;
                if let Some(byte) = world.window.magazines.get(index) {
                    // Relaxed: as in `note`.
                    byte.store(magazine(7).byte(), Ordering::Relaxed);
                }
                world.hand_out();
            }
        });
    }
}
