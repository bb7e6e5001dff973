//! What threads share: whole magazines of idle slots, and loose idle slots.
//!
//! The depot of Bonwick and Adams (2001). A cache that is full hands over half of its
//! slots as one magazine, one that is empty takes one: two exchanges for up to
//! [`MAGAZINE_SLOTS`] slots, one for the magazine and one for an empty one.
//!
//! Loose slots are those that come one by one: from threads without a cache, and all of
//! them while objects are scarce (`core`).
//!
//! # Invariants
//!
//! - D1: a magazine is on `full` or on `spare` or in the hands of one thread.
//! - D2: a magazine on `full` holds `1 ..= MAGAZINE_SLOTS` slots that nobody else has.

use core::ptr::NonNull;

use crate::chunk::{Object, Storage};
use crate::segments::Segments;
use crate::stack::{IndexStack, Link};
use crate::sync::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// Most slots in a magazine.
pub(crate) const MAGAZINE_SLOTS: usize = if cfg!(loom) { 2 } else { 64 };

/// An array of idle slots on its way between caches.
#[derive(Debug)]
struct Magazine {
    link: Link,
    len: AtomicU32,
    slots: [AtomicPtr<Object>; MAGAZINE_SLOTS],
}

impl Default for Magazine {
    fn default() -> Self {
        Self {
            link: Link::default(),
            len: AtomicU32::new(0),
            slots: core::array::from_fn(|_| AtomicPtr::new(core::ptr::null_mut())),
        }
    }
}

impl AsRef<Link> for Magazine {
    fn as_ref(&self) -> &Link {
        &self.link
    }
}

/// A magazine in the hands of one thread.
#[derive(Debug)]
pub(crate) struct Held(u32);

/// The slots of a magazine that was taken.
#[derive(Debug)]
pub(crate) struct Slots<'m>(core::slice::Iter<'m, AtomicPtr<Object>>);

impl Iterator for Slots<'_> {
    type Item = NonNull<Object>;

    #[inline]
    fn next(&mut self) -> Option<NonNull<Object>> {
        // Relaxed: the pop took the magazine over.
        NonNull::new(self.0.next()?.load(Ordering::Relaxed))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Depot {
    magazines: Segments<Magazine>,
    made: AtomicU32,
    full: IndexStack,
    spare: IndexStack,
    loose: IndexStack,
    /// Fewest idle slots since the last look of the decay.
    low: AtomicUsize,
}

impl Depot {
    pub(crate) fn new() -> Self {
        Self {
            magazines: Segments::new(),
            made: AtomicU32::new(0),
            full: IndexStack::new(),
            spare: IndexStack::new(),
            loose: IndexStack::new(),
            low: AtomicUsize::new(0),
        }
    }

    /// An empty magazine to fill with [`Depot::load`].
    pub(crate) fn empty(&self) -> Held {
        if let Some(index) = self.spare.pop(&self.magazines) {
            return Held(index);
        }
        // Relaxed: a number that nobody else gets; `ensure` publishes the element.
        let index = self.made.fetch_add(1, Ordering::Relaxed);
        self.magazines.ensure(index);
        Held(index)
    }

    /// Puts one more slot into a magazine, of at most [`MAGAZINE_SLOTS`]. Returns how many
    /// it holds now.
    pub(crate) fn load(&self, held: &Held, slot: NonNull<Object>) -> usize {
        let magazine = self.magazines.get(held.0);
        // Relaxed: in our hands; `put` publishes it.
        let len = magazine.len.load(Ordering::Relaxed);
        magazine.slots[len as usize].store(slot.as_ptr(), Ordering::Relaxed);
        magazine.len.store(len + 1, Ordering::Relaxed);
        len as usize + 1
    }

    /// Puts slots into an empty magazine, up to [`MAGAZINE_SLOTS`].
    pub(crate) fn fill(&self, held: &Held, slots: impl Iterator<Item = NonNull<Object>>) {
        let magazine = self.magazines.get(held.0);
        let mut len = 0;
        for (place, slot) in magazine.slots.iter().zip(slots) {
            // Relaxed, both: as in `load`.
            place.store(slot.as_ptr(), Ordering::Relaxed);
            len += 1;
        }
        magazine.len.store(len, Ordering::Relaxed);
    }

    /// Shares a magazine; an empty one becomes a spare.
    pub(crate) fn put(&self, held: Held) {
        // Relaxed: in our hands.
        match self.magazines.get(held.0).len.load(Ordering::Relaxed) {
            0 => self.spare.push(&self.magazines, held.0, 1),
            len => self.full.push(&self.magazines, held.0, len),
        }
    }

    /// Takes a magazine with slots and passes these on, oldest first; the magazine becomes
    /// a spare. Returns how many slots that were, 0 if there is none.
    pub(crate) fn take(&self, storage: &Storage, mut pass: impl FnMut(NonNull<Object>)) -> usize {
        self.take_with(storage, |slots| slots.for_each(&mut pass))
    }

    /// As [`Depot::take`], all slots at once.
    pub(crate) fn take_with(&self, storage: &Storage, pass: impl FnOnce(Slots<'_>)) -> usize {
        let Some(index) = self.full.pop(&self.magazines) else {
            return 0;
        };
        self.note_low(storage);
        let magazine = self.magazines.get(index);
        // Relaxed: the pop took the magazine over.
        let len = magazine.len.load(Ordering::Relaxed) as usize;
        pass(Slots(magazine.slots[..len].iter()));
        magazine.len.store(0, Ordering::Relaxed);
        self.spare.push(&self.magazines, index, 1);
        len
    }

    /// After something was taken.
    fn note_low(&self, storage: &Storage) {
        let idle = self.idle(storage);
        // Relaxed, both: the watermark is a hint for the decay.
        if idle < self.low.load(Ordering::Relaxed) {
            self.low.store(idle, Ordering::Relaxed);
        }
    }

    /// Shares one slot.
    pub(crate) fn put_loose(&self, storage: &Storage, slot: NonNull<Object>) {
        storage.push(&self.loose, slot);
    }

    /// Takes one loose slot.
    pub(crate) fn take_loose(&self, storage: &Storage) -> Option<NonNull<Object>> {
        let slot = storage.pop(&self.loose)?;
        self.note_low(storage);
        Some(slot)
    }

    /// Loose slots.
    pub(crate) fn loose(&self, storage: &Storage) -> usize {
        storage.depth(&self.loose)
    }

    /// Slots in magazines and loose; a hint while others move them.
    pub(crate) fn idle(&self, storage: &Storage) -> usize {
        self.full.depth(&self.magazines) + self.loose(storage)
    }

    /// The fewest idle slots since the last call; starts a new epoch.
    pub(crate) fn low_watermark(&self, storage: &Storage) -> usize {
        let now = self.idle(storage);
        // Relaxed: see `note_low`.
        self.low.swap(now, Ordering::Relaxed).min(now)
    }
}
