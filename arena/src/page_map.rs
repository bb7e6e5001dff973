//! From any address to what the heaps keep there: a two-level radix tree.
//!
//! ```text
//! address   63…48 | 47 … 35 | 34 … 22 | 21 … 0
//!            zero |  root   |  leaf   | inside the segment
//! ```
//!
//! One entry stands for one aligned 4 MiB piece of address space: nothing of ours, a
//! segment, the start of a big block, or guarded blocks. A pointer that somebody frees is trusted only
//! after its entry has been read.
//!
//! Invariants:
//! - P1: a leaf, once installed, stays for the life of the process.
//! - P2: an entry is published (Release) after the memory that it speaks of was
//!   initialised, and cleared before that memory is unmapped.

#[cfg(not(loom))]
use crate::sync::AtomicPtr;
use crate::sync::{AtomicU64, Ordering};
#[cfg(not(loom))]
use crate::units::SEGMENT_SHIFT;

#[cfg(not(loom))]
const LEAF_BITS: u32 = 13;
#[cfg(loom)]
const LEAF_BITS: u32 = 1;
const LEAF_ENTRIES: usize = 1 << LEAF_BITS;
#[cfg(not(loom))]
const ROOT_ENTRIES: usize = 1 << 13;

/// What lies at an aligned 4 MiB piece of address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Nothing that a heap gave out starts here.
    Nothing,
    /// A segment of the heap with this identity.
    Segment {
        /// Which heap.
        heap: u16,
    },
    /// A big block of this many granules, at exactly the start of the piece.
    Big {
        /// Which heap.
        heap: u16,
        /// Mapped length.
        granules: usize,
    },
    /// Guarded blocks of the heap with this identity (`guard`).
    Guarded {
        /// Which heap.
        heap: u16,
    },
}

/// An [`Entry`] in 64 bits: kind in bits 0–1 (0 nothing, 1 segment, 2 big, 3 guarded), heap in
/// bits 2–17, granules above.
impl Entry {
    #[inline]
    fn pack(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Segment { heap } => 1 | u64::from(heap) << 2,
            Self::Guarded { heap } => 3 | u64::from(heap) << 2,
            Self::Big { heap, granules } => 2 | u64::from(heap) << 2 | (granules as u64) << 18,
        }
    }

    fn unpack(word: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "bits 2-17 are the heap")]
        let heap = (word >> 2) as u16;
        match word & 3 {
            1 => Self::Segment { heap },
            2 => Self::Big {
                heap,
                granules: (word >> 18) as usize,
            },
            3 => Self::Guarded { heap },
            _ => Self::Nothing,
        }
    }

    /// Which heap it belongs to.
    #[cfg(not(loom))]
    pub(crate) fn heap(self) -> Option<u16> {
        match self {
            Self::Nothing => None,
            Self::Segment { heap } | Self::Big { heap, .. } | Self::Guarded { heap } => Some(heap),
        }
    }
}

/// The lower level: entries of 32 GiB of address space.
#[derive(Debug)]
pub(crate) struct Leaf {
    entries: [AtomicU64; LEAF_ENTRIES],
}

impl Leaf {
    #[cfg(loom)]
    fn new() -> Self {
        Self {
            entries: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    fn load(&self, index: usize) -> Entry {
        // Acquire: pairs with the Release in `store`; who sees the entry sees the
        // initialised header of the segment (P2).
        self.entries
            .get(index)
            .map_or(Entry::Nothing, |e| Entry::unpack(e.load(Ordering::Acquire)))
    }

    /// Whether the entry is a segment of `heap`: one comparison, for the paths that ask
    /// nothing else.
    #[inline]
    fn is_segment(&self, index: usize, heap: u16) -> bool {
        // Acquire: as in `load`.
        self.entries
            .get(index)
            .is_some_and(|entry| entry.load(Ordering::Acquire) == Entry::Segment { heap }.pack())
    }

    fn store(&self, index: usize, entry: Entry) {
        if let Some(slot) = self.entries.get(index) {
            // Release: pairs with the Acquire in `load` (P2).
            slot.store(entry.pack(), Ordering::Release);
        }
    }
}

/// The map of the whole process; see the module.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct PageMap {
    root: [AtomicPtr<Leaf>; ROOT_ENTRIES],
}

/// Every heap of the process registers here.
#[cfg(not(loom))]
pub(crate) static PAGE_MAP: PageMap = PageMap::new();

#[cfg(not(loom))]
impl PageMap {
    const fn new() -> Self {
        Self {
            root: [const { AtomicPtr::new(core::ptr::null_mut()) }; ROOT_ENTRIES],
        }
    }

    /// The entry of the piece that holds `addr`. Complexity: two loads.
    #[inline]
    pub(crate) fn lookup(&self, addr: usize) -> Entry {
        self.leaf(addr)
            .map_or(Entry::Nothing, |leaf| leaf.load(leaf_index(addr)))
    }

    /// Whether `addr` lies in a segment of `heap`. Complexity: two loads.
    #[inline(always)]
    pub(crate) fn is_segment(&self, addr: usize, heap: u16) -> bool {
        self.leaf(addr)
            .is_some_and(|leaf| leaf.is_segment(leaf_index(addr), heap))
    }

    /// Publishes `entry` for the piece that holds `addr`; `false` when a leaf is needed
    /// and `new_leaf` (zeroed memory of the size of a [`Leaf`]) has none.
    pub(crate) fn publish(
        &self,
        addr: usize,
        entry: Entry,
        new_leaf: impl FnOnce() -> Option<core::ptr::NonNull<u8>>,
        drop_leaf: impl FnOnce(usize),
    ) -> bool {
        if self.leaf(addr).is_none() && !self.install_leaf(addr, new_leaf, drop_leaf) {
            return false;
        }
        if let Some(leaf) = self.leaf(addr) {
            leaf.store(leaf_index(addr), entry);
        }
        true
    }

    /// Forgets the piece that holds `addr`.
    pub(crate) fn clear(&self, addr: usize) {
        if let Some(leaf) = self.leaf(addr) {
            leaf.store(leaf_index(addr), Entry::Nothing);
        }
    }

    /// Calls `f` with the start and the entry of every piece that belongs to `heap`.
    pub(crate) fn for_each_of(&self, heap: u16, mut f: impl FnMut(usize, Entry)) {
        for root in 0..ROOT_ENTRIES {
            let base = root << (SEGMENT_SHIFT + LEAF_BITS);
            let Some(leaf) = self.leaf(base) else {
                continue;
            };
            for index in 0..LEAF_ENTRIES {
                let entry = leaf.load(index);
                if entry.heap() == Some(heap) {
                    f(base + (index << SEGMENT_SHIFT), entry);
                }
            }
        }
    }

    #[inline]
    fn leaf(&self, addr: usize) -> Option<&Leaf> {
        // Acquire: pairs with the Release in `install_leaf`; a zeroed leaf is seen as such.
        let leaf = self
            .root
            .get(addr >> (SEGMENT_SHIFT + LEAF_BITS))?
            .load(Ordering::Acquire);
        // SAFETY: null, or a leaf that was installed whole and stays for ever (P1).
        unsafe { leaf.as_ref() }
    }

    fn install_leaf(
        &self,
        addr: usize,
        new_leaf: impl FnOnce() -> Option<core::ptr::NonNull<u8>>,
        drop_leaf: impl FnOnce(usize),
    ) -> bool {
        let Some(slot) = self.root.get(addr >> (SEGMENT_SHIFT + LEAF_BITS)) else {
            return false;
        };
        let Some(fresh) = new_leaf() else {
            return false;
        };
        let fresh = fresh.as_ptr();
        // Release: publishes the zeroed leaf to `leaf`. Relaxed on failure: the winner's
        // leaf is read by `leaf`, with Acquire.
        let won = slot.compare_exchange(
            core::ptr::null_mut(),
            fresh.cast(),
            Ordering::Release,
            Ordering::Relaxed,
        );
        if won.is_err() {
            drop_leaf(fresh.addr());
        }
        true
    }
}

/// Index of the entry of `addr` in its leaf.
#[cfg(not(loom))]
#[inline]
const fn leaf_index(addr: usize) -> usize {
    (addr >> SEGMENT_SHIFT) & (LEAF_ENTRIES - 1)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_packing() {
        let entries = [
            Entry::Nothing,
            Entry::Segment { heap: 0 },
            Entry::Segment { heap: u16::MAX },
            Entry::Guarded { heap: 5 },
            Entry::Big {
                heap: 0,
                granules: 1,
            },
            Entry::Big {
                heap: 7,
                granules: (1 << 46) - 1,
            },
        ];
        for entry in entries {
            assert_eq!(Entry::unpack(entry.pack()), entry);
        }
    }

    #[test]
    fn addresses_beyond_the_map_hold_nothing() {
        for addr in [0, 1 << 48, usize::MAX] {
            assert_eq!(PAGE_MAP.lookup(addr), Entry::Nothing);
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::sync::UnsafeCell;
    use loom::sync::Arc;

    struct Published {
        leaf: Leaf,
        header: UnsafeCell<u32>,
    }

    fn model(publish: fn(&Leaf)) {
        loom::model(move || {
            let shared = Arc::new(Published {
                leaf: Leaf::new(),
                header: UnsafeCell::new(0),
            });
            let reader = {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || {
                    if shared.leaf.is_segment(0, 3) {
                        // SAFETY: the writer does not touch the header after publishing.
                        assert_eq!(shared.header.with(|header| unsafe { *header }), 7);
                    }
                })
            };
            // SAFETY: not yet published, so no reader looks.
            shared.header.with_mut(|header| unsafe { *header = 7 });
            publish(&shared.leaf);
            reader.join().unwrap();
        });
    }

    /// A thread that finds a segment in the map reads the segment's header: it must see
    /// it initialised.
    #[test]
    fn loom_a_published_segment_is_initialised() {
        model(|leaf| leaf.store(0, Entry::Segment { heap: 3 }));
    }

    /// The same with a relaxed publication: the model must see the race.
    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_a_relaxed_publication_is_caught() {
        model(|leaf| {
            leaf.entries[0].store(Entry::Segment { heap: 3 }.pack(), Ordering::Relaxed);
        });
    }
}
