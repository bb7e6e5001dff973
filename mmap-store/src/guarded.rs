//! Which addresses belong to mappings whose faults are mended: a table that a signal
//! handler reads.
//!
//! The handler may come at any moment, on any thread, and must not wait for anybody. Each
//! place is a sequence lock (Boehm, *Can seqlocks get along with programming language memory
//! models?*, MSPC 2012): `turn` is odd while the place changes, and who saw it change looks
//! elsewhere. A fault's own place does not change meanwhile, because who faults there
//! reads a store that is open.

use crate::sync::{AtomicU32, AtomicU64, Ordering, Step, fence, left_out};

/// Mappings that can be guarded at once.
pub(crate) const PLACES: usize = if cfg!(loom) { 2 } else { 64 };

/// Whose place of a [`Guarded`] table it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlaceIndex(usize);

/// A mapping: its addresses, from `start` up to and without `end`, and the descriptor of
/// its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) file: u32,
}

impl Mapping {
    /// None: a place that is free.
    const NONE: Self = Self {
        start: 0,
        end: 0,
        file: 0,
    };
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Guarded {
    places: [Place; PLACES],
}

/// One mapping, or none if `end` is 0.
#[derive(Debug)]
struct Place {
    turn: AtomicU64,
    start: AtomicU64,
    end: AtomicU64,
    file: AtomicU32,
    /// Whether a page of it was mended.
    lost: AtomicU32,
}

impl Place {
    #[cfg(not(loom))]
    const fn new() -> Self {
        Self {
            turn: AtomicU64::new(0),
            start: AtomicU64::new(0),
            end: AtomicU64::new(0),
            file: AtomicU32::new(0),
            lost: AtomicU32::new(0),
        }
    }

    #[cfg(loom)]
    fn new() -> Self {
        Self {
            turn: AtomicU64::new(0),
            start: AtomicU64::new(0),
            end: AtomicU64::new(0),
            file: AtomicU32::new(0),
            lost: AtomicU32::new(0),
        }
    }

    /// Changes the mapping; the place is the caller's by its odd `turn`.
    fn set(&self, turn: u64, mapping: Mapping) {
        // Release: a look that sees one of the stores below sees the odd turn at its end
        // (the Acquire fence in `covers`).
        fence(Ordering::Release);
        // Relaxed: what is read of a change is thrown away.
        self.start.store(mapping.start, Ordering::Relaxed);
        self.end.store(mapping.end, Ordering::Relaxed);
        self.file.store(mapping.file, Ordering::Relaxed);
        // Release: publishes all three to the Acquire at the beginning of `covers`.
        self.turn.store(turn + 1, Ordering::Release);
    }

    /// Takes the place if it is free.
    fn claim(&self, mapping: Mapping) -> bool {
        // Acquire: pairs with the Release in `set`, so that `end` is of this turn or later.
        let turn = self.turn.load(Ordering::Acquire);
        // Relaxed: if it is of a later turn, the exchange fails.
        if !turn.is_multiple_of(2) || self.end.load(Ordering::Relaxed) != 0 {
            return false;
        }
        // Acquire: what the owner before did comes first. Relaxed: nothing is read if
        // somebody else was faster.
        let claimed =
            self.turn
                .compare_exchange(turn, turn + 1, Ordering::Acquire, Ordering::Relaxed);
        if claimed.is_err() {
            return false;
        }
        // Relaxed: published with the range.
        self.lost.store(0, Ordering::Relaxed);
        self.set(turn + 1, mapping);
        true
    }

    /// The mapping, if it has this address.
    fn covers(&self, address: u64) -> Option<Mapping> {
        // Acquire: pairs with the Release at the end of `set`.
        let turn = self.turn.load(Ordering::Acquire);
        // Relaxed: believed only if no change came in between.
        let start = self.start.load(Ordering::Relaxed);
        let end = self.end.load(Ordering::Relaxed);
        let file = self.file.load(Ordering::Relaxed);
        // Acquire: pairs with the Release fence in `set`.
        fence(Ordering::Acquire);
        // Relaxed: ordered by the fence.
        let same = self.turn.load(Ordering::Relaxed) == turn || left_out(Step::LookAtTurnAgain);
        let found = turn.is_multiple_of(2) && same && (start..end).contains(&address);
        found.then_some(Mapping { start, end, file })
    }
}

impl Guarded {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            places: [const { Place::new() }; PLACES],
        }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            places: core::array::from_fn(|_| Place::new()),
        }
    }

    /// Adds a mapping; `None` if there is no room.
    pub(crate) fn add(&self, mapping: Mapping) -> Option<PlaceIndex> {
        let claimed = self.places.iter().position(|place| place.claim(mapping));
        claimed.map(PlaceIndex)
    }

    /// Takes out what [`Guarded::add`] added. Nobody reads there any more.
    pub(crate) fn remove(&self, index: PlaceIndex) {
        let Some(place) = self.places.get(index.0) else {
            return;
        };
        // Relaxed: only the owner changes an owned place, and that is the caller.
        let turn = place.turn.load(Ordering::Relaxed);
        place.turn.store(turn + 1, Ordering::Relaxed);
        place.set(turn + 1, Mapping::NONE);
    }

    /// Whose address it is. Safe in a signal handler.
    pub(crate) fn find(&self, address: u64) -> Option<(PlaceIndex, Mapping)> {
        let mut places = self.places.iter().enumerate();
        places.find_map(|(index, place)| Some((PlaceIndex(index), place.covers(address)?)))
    }

    /// Notes that a page was lost. Safe in a signal handler.
    pub(crate) fn lose(&self, index: PlaceIndex) {
        if let Some(place) = self.places.get(index.0) {
            // Release: before the system call that makes the page read as zeros; pairs
            // with the fence in `is_lost`.
            place.lost.store(1, Ordering::Release);
        }
    }

    #[inline]
    pub(crate) fn is_lost(&self, index: PlaceIndex) -> bool {
        // Acquire: what the caller read of the mapping was read before the note is, so that
        // zeros which a handler put there, after its note, are seen with it.
        fence(Ordering::Acquire);
        let place = self.places.get(index.0);
        // Relaxed: ordered by the fence.
        place.is_some_and(|place| place.lost.load(Ordering::Relaxed) != 0)
    }
}
