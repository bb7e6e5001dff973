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
//! Until segments come to lie there, three quarters of the table may only be read (`shut`): who
//! locks all memory of the process (`mlockall`) finds zeroes there that need no memory.
//!
//! Invariants:
//! - W1: a byte that is not 0 names the class of which the span of that granule is; it is
//!   written with the granule's label (G2), under the same lock.
//! - W2: the window does not move once it was placed.
//! - W3: a view covers granules of the window, or none.
//! - W4: a byte is written only where its chunk is open; in one that is not open all are 0.

#[cfg(not(loom))]
use crate::os::{self, Access};
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
/// Bytes of the table that become writable at once: what 256 MiB of segments need, and a
/// multiple of every OS page. Chunks start at multiples of it.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks in which bytes of the table can lie, wherever it is.
const CHUNKS: usize = GRANULES.div_ceil(CHUNK_BYTES) + 1;

/// See the module.
#[derive(Debug)]
struct Window {
    /// The magazines of the granules. Only what is touched is resident: 4 KiB for 16 MiB of
    /// segments.
    magazines: [AtomicU8; GRANULES],
    /// Address at which the window starts; 0 before it was placed (W2).
    start: AtomicUsize,
    /// By chunk: 1 if its part of the table may not be written.
    shut: [AtomicU8; CHUNKS],
}

/// There is one, as there is one heap of the process.
#[cfg(not(loom))]
static WINDOW: Window = Window {
    magazines: [const { AtomicU8::new(0) }; GRANULES],
    start: AtomicUsize::new(0),
    shut: [const { AtomicU8::new(0) }; CHUNKS],
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

/// Places the window around `addr`, which is what the heap of the process mapped first. One thread
/// at a time calls it.
#[cfg(not(loom))]
pub(crate) fn place(addr: usize) {
    if WINDOW.view().granules == 0 {
        WINDOW.shut();
        WINDOW.place(addr);
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
        // Acquire: pairs with the Release in `place`: who writes sees what is shut.
        match self.start.load(Ordering::Acquire) {
            0 => View::NONE,
            start => View {
                start,
                granules: GRANULES,
            },
        }
    }

    /// See [`place`]: what was placed stays.
    fn place(&self, addr: usize) {
        // Not 0, so that it is placed once.
        let start = addr.saturating_sub(BELOW_BYTES) & !(GRANULE_BYTES - 1);
        // Release: pairs with the Acquire in `view`.
        self.start
            .store(start.max(GRANULE_BYTES), Ordering::Release);
    }

    /// See [`note`].
    #[inline(never)]
    fn note(&self, addr: usize, granules: usize, magazine: MagazineIndex) {
        // A start that others placed is seen by whoever changes what they noted: the lock of the
        // label, which both held, is between.
        let view = self.view();
        let mut index = addr.wrapping_sub(view.start) >> GRANULE_SHIFT;
        if index >= view.granules {
            return;
        }
        let end = (index + granules).min(GRANULES);
        while index < end {
            let chunk = self.chunk_of(index);
            let next = self.end_of(chunk).min(end);
            // Nothing needs to be erased in a chunk that is shut (W4).
            if self.is_open(chunk) || (magazine != MagazineIndex::NONE && self.open(chunk)) {
                for byte in self.magazines.iter().take(next).skip(index) {
                    // Relaxed: as in `magazine_of`.
                    byte.store(magazine.byte(), Ordering::Relaxed);
                }
            }
            index = next;
        }
    }

    fn table(&self) -> usize {
        self.magazines.as_ptr().addr()
    }

    /// The chunk in which the byte of a granule lies.
    fn chunk_of(&self, index: usize) -> usize {
        let table = self.table();
        (table + index) / CHUNK_BYTES - table / CHUNK_BYTES
    }

    /// The first granule behind a chunk.
    fn end_of(&self, chunk: usize) -> usize {
        let table = self.table();
        (table / CHUNK_BYTES + chunk + 1) * CHUNK_BYTES - table
    }

    fn is_open(&self, chunk: usize) -> bool {
        // Relaxed: `shut` was before the window was placed, and who erases what another thread
        // noted comes behind it by the lock of the label.
        self.shut
            .get(chunk)
            .is_some_and(|shut| shut.load(Ordering::Relaxed) == 0)
    }

    /// Lets the chunk be written; `false` if the system refuses. Several threads may do so at once.
    #[cfg(not(loom))]
    #[cold]
    fn open(&self, chunk: usize) -> bool {
        let end = self.magazines.as_ptr().expose_provenance() + self.end_of(chunk);
        // SAFETY: a chunk that is shut is whole OS pages of the table (`shut`), in which nothing is
        // but zeroes.
        let opened = unsafe { os::protect(end - CHUNK_BYTES, CHUNK_BYTES, Access::Full) };
        if let (true, Some(shut)) = (opened, self.shut.get(chunk)) {
            // Relaxed: as in `is_open`.
            shut.store(0, Ordering::Relaxed);
        }
        opened
    }

    #[cfg(loom)]
    fn open(&self, _: usize) -> bool {
        false
    }

    /// Lets the part of the table below the first mapping be read only, where most of it is: one call
    /// to the system. The first chunk shares its OS pages with others and stays open.
    #[cfg(not(loom))]
    fn shut(&self) {
        let table = self.magazines.as_ptr().expose_provenance();
        let (first, last) = (1, self.chunk_of(BELOW_BYTES >> GRANULE_SHIFT));
        let (start, end) = (
            table + self.end_of(first - 1),
            table + self.end_of(last - 1),
        );
        // SAFETY: whole chunks, so whole OS pages, of a static of ours, in which nobody writes before
        // the window was placed (`note`), and later only what is open.
        if unsafe { os::protect(start, end - start, Access::Read) } {
            for shut in self.shut.iter().take(last).skip(first) {
                // Relaxed: published by `place`.
                shut.store(1, Ordering::Relaxed);
            }
            self.keep_pages_small(end);
        } else {
            self.keep_pages_small(start);
        }
    }

    /// Where the system makes huge pages of everything, the first look into what is open of the table
    /// could make 2 MiB of it resident: where a huge page has room that begins in the chunk at
    /// `start`.
    #[cfg(not(loom))]
    fn keep_pages_small(&self, start: usize) {
        const HUGE_BYTES: usize = 2 << 20;
        if start.next_multiple_of(HUGE_BYTES) - start < CHUNK_BYTES {
            let end = (self.table() + GRANULES) & !(os::page_size() - 1);
            // SAFETY: whole OS pages of a static of ours; the advice does not change contents.
            unsafe { os::advise_huge(start, end - start, false) };
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
        assert_eq!(writable_bytes(), GRANULES);
        place(segment);
        place(0x10_0000_0000);
        // But for up to a chunk at each end of what is shut.
        let open = writable_bytes();
        let above = (WINDOW_BYTES - BELOW_BYTES) >> GRANULE_SHIFT;
        assert!(
            (above..above + 2 * CHUNK_BYTES).contains(&open),
            "{open} bytes are writable"
        );
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
        assert_eq!(writable_bytes(), open);
        // A run over the border of two chunks: what is erased there opens none, what is noted both.
        let index = WINDOW.end_of(WINDOW.chunk_of(BELOW_BYTES >> GRANULE_SHIFT) - 3);
        let border = view().start + (index << GRANULE_SHIFT);
        note(border - 4096, 2, MagazineIndex::NONE);
        assert_eq!(writable_bytes(), open);
        note(border - 4096, 2, magazine);
        assert_eq!(
            (of(border - 1), of(border)),
            (Some(magazine), Some(magazine))
        );
        assert_eq!(of(border + 4096), none);
        assert_eq!(writable_bytes(), open + 2 * CHUNK_BYTES);
        note(border - 4096, 2, MagazineIndex::NONE);
        assert_eq!((of(border - 1), of(border)), (none, none));
        assert_eq!(of(segment + WINDOW_BYTES - BELOW_BYTES - 1), none);
        assert_eq!(of(segment + WINDOW_BYTES - BELOW_BYTES), None);
        assert_eq!(of(segment - BELOW_BYTES), none);
        assert_eq!(of(segment - BELOW_BYTES - 1), None);
    }

    /// What may be written of the table, as the system sees it.
    fn writable_bytes() -> usize {
        let table = WINDOW.table();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("there is a /proc");
        let writable = maps.lines().filter(|line| line.contains(" rw"));
        let ranges = writable.map(|line| {
            let range = line.split(' ').next().expect("a range");
            let (start, end) = range.split_once('-').expect("two ends");
            let [start, end] =
                [start, end].map(|end| usize::from_str_radix(end, 16).expect("an address"));
            start.max(table)..end.min(table + GRANULES)
        });
        ranges.map(|range| range.len()).sum()
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
                    shut: core::array::from_fn(|_| AtomicU8::new(0)),
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
