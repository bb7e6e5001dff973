//! Keys: names of objects that can be copied, sent, and go stale.
//!
//! ```text
//!   Key     [ generation : 32 | index : 32 ]
//!   state   [ generation : 31 | published : 1 | references : 32 ]     one a slot
//! ```
//!
//! | state of a slot | published | references |
//! |---|---|---|
//! | in the pool's or a guard's hands | 0 | 0 |
//! | published under a key | 1 | 1 + users |
//! | removed, still used | 0 | users |
//!
//! Removal raises the generation in the same exchange, so from then on the key finds
//! nothing; the last user gives the slot back. Generations wrap after 2³¹ removals of one
//! slot: a key that was kept that long may then name a newer object.

use crate::sync::{AtomicU64, Ordering, Step, left_out};

/// Names an object that was put under a key; see [`Pool::insert`](crate::Pool::insert).
///
/// Copying it is free and keeps nothing alive. Valid for the pool that made it: another
/// pool takes it for a key of its own.
///
/// A key is a place and a generation: each removal from a place raises its generation, and
/// the key is stale from then on. There are 2³¹ generations, so after exactly that many
/// removals from one place (or a multiple) an old key names what is there then. Who keeps keys
/// for as long as it takes (an hour at 600,000 removals a second, all from the same place)
/// must check by other means that it is still what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    pub(crate) fn index(self) -> u32 {
        self.index
    }

    /// The key as a number, for handles across an interface; [`Key::from_bits`] undoes it.
    pub const fn to_bits(self) -> u64 {
        ((self.generation as u64) << 32) | self.index as u64
    }

    /// The key of [`Key::to_bits`]. Any number is safe: at worst it names another object
    /// of the pool, or none.
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            index: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

const REFERENCE: u64 = 1;
const REFERENCES: u64 = (1 << 32) - 1;
const PUBLISHED: u64 = 1 << 32;
const GENERATION: u64 = 1 << 33;

/// The state of a slot towards keys.
#[derive(Debug, Default)]
pub(crate) struct KeyState(AtomicU64);

const fn generation(state: u64) -> u32 {
    (state >> 33) as u32
}

impl KeyState {
    /// A state whose next key is the last before generations wrap.
    #[cfg(test)]
    pub(crate) fn of_last_generation() -> Self {
        Self(AtomicU64::new(u64::from(u32::MAX >> 1) << 33))
    }

    /// Publishes the slot, which is the caller's, with one reference: the key's.
    pub(crate) fn publish(&self, index: u32) -> Key {
        // Release: pairs with the Acquire in `enter`, which then sees the object.
        let before = self.0.fetch_add(PUBLISHED + REFERENCE, Ordering::Release);
        debug_assert_eq!(before & (PUBLISHED | REFERENCES), 0, "published twice");
        Key {
            index,
            generation: generation(before),
        }
    }

    /// Takes a reference, unless the key is stale.
    pub(crate) fn enter(&self, key: Key) -> bool {
        // Acquire: pairs with the Release in `publish`. Relaxed on failure: nothing is read.
        self.0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| {
                let valid = state & PUBLISHED != 0
                    && generation(state) == key.generation
                    && state & REFERENCES != REFERENCES;
                valid.then_some(state + REFERENCE)
            })
            .is_ok()
    }

    /// The key of a slot that is published now.
    pub(crate) fn key(&self, index: u32) -> Option<Key> {
        // Relaxed: `enter` looks again.
        let state = self.0.load(Ordering::Relaxed);
        (state & PUBLISHED != 0).then_some(Key {
            index,
            generation: generation(state),
        })
    }

    /// Gives up a user's reference; whether the slot is the caller's now.
    pub(crate) fn leave(&self) -> bool {
        // AcqRel: what every user did with the object happens before its slot is returned
        // by the last.
        let release = if left_out(Step::ReleaseReader) {
            Ordering::Relaxed
        } else {
            Ordering::AcqRel
        };
        let before = self.0.fetch_sub(REFERENCE, release);
        before & (REFERENCES | PUBLISHED) == REFERENCE
    }

    /// Makes the key stale. `None` if it was; else whether the slot is the caller's now.
    pub(crate) fn remove(&self, key: Key) -> Option<bool> {
        // AcqRel: as in `leave`. Relaxed on failure: nothing is read.
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |state| {
                let valid = state & PUBLISHED != 0 && generation(state) == key.generation;
                let raise = GENERATION * u64::from(!left_out(Step::RaiseGeneration));
                let removed = state.wrapping_sub(PUBLISHED + REFERENCE);
                let next = if left_out(Step::WrapGeneration) {
                    removed.checked_add(raise).unwrap_or(removed)
                } else {
                    removed.wrapping_add(raise)
                };
                valid.then_some(next)
            })
            .ok()?;
        Some(before & REFERENCES == REFERENCE)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A wrapping generation must not run into the bits beside it.
    #[test]
    fn the_last_generation_wraps_to_the_first_and_spares_its_neighbours() {
        let state = KeyState::of_last_generation();
        let last = state.publish(7);
        assert_eq!(last.generation, u32::MAX >> 1);
        assert!(state.enter(last));
        assert_eq!(state.remove(last), Some(false), "a user has it");
        assert!(!state.enter(last), "the key is stale");
        assert!(state.leave(), "the last user gets the slot");
        assert_eq!(state.0.load(Ordering::Relaxed), 0);
        assert_eq!(state.publish(7).generation, 0);
    }

    #[test]
    fn bits_make_the_round_trip() {
        let key = Key {
            index: 3,
            generation: 0x7fff_fffe,
        };
        assert_eq!(Key::from_bits(key.to_bits()), key);
    }
}
