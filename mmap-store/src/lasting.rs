//! What the writer and a checkpoint on its way tell each other.
//!
//! A checkpoint chooses the newest version while it holds the writer's state, and then
//! goes its own way. Two versions must stay whole meanwhile: the one that the slot names,
//! from which recovery would start, and the *pinned* one, which the slot will name at a
//! moment that the writer does not see. When the checkpoint lasts it says so, and the
//! writer takes notice at its next look: only then are the older version's pages and the
//! ring up to the newer one used anew.

use crate::sync::{Mutex, Step, left_out};

/// A checkpoint that lasts.
pub(crate) trait Lasts: Copy {
    /// The version that it made last.
    fn txn(&self) -> u64;

    /// Where the ring goes on after it.
    fn ring_start(&self) -> u64;
}

/// Takes notice of a checkpoint that lasts by now, if there is one; gives the one that it
/// replaces.
pub(crate) fn take_notice<D: Lasts>(
    done: &Mutex<Option<D>>,
    durable: &mut D,
    pinned: &mut Option<u64>,
) -> Option<D> {
    let new = done.lock().take()?;
    if *pinned == Some(new.txn()) {
        *pinned = None;
    }
    Some(core::mem::replace(durable, new))
}

/// The versions that recovery may start from.
pub(crate) fn kept<D: Lasts>(durable: &D, pinned: Option<u64>) -> impl Iterator<Item = u64> {
    let pinned = pinned.filter(|_| !left_out(Step::KeepPinned));
    [durable.txn()].into_iter().chain(pinned)
}

/// Waits until the checkpoint on its way lasts, or has failed. The caller holds the writer's
/// state; whoever chose the pinned version holds `checkpointing` until it has said so.
pub(crate) fn await_end(checkpointing: &Mutex<()>) {
    if !left_out(Step::AwaitCheckpoint) {
        drop(checkpointing.lock());
    }
}

/// Whether a ring of `bytes` bytes has room up to the position `end`.
pub(crate) fn has_room<D: Lasts>(durable: &D, end: u64, bytes: u64) -> bool {
    end - durable.ring_start() <= bytes || left_out(Step::KeepRing)
}
