//! Where the block of a slot is, and what layout it has.
//!
//! ```text
//!          fill                      empty                 next epoch: fill …
//! layout   write                     read
//! address  publish (Release)  ────▶  wait (Acquire), take
//! ```
//!
//! By P1 and P2 of `program` one thread fills a slot in an epoch at most, and one empties it, in
//! this order, and an epoch begins when all threads have finished the one before. So whoever waits
//! for a block gets the one that was meant, and nobody fills a slot while another is taking out what
//! was there. (Models: `arena/recorder/tests/loom_slots.rs`, where packages are built with loom.)

use core::ptr;

use super::sync::{AtomicPtr, AtomicU64, Ordering};

/// See the module.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Null while there is no block.
    address: AtomicPtr<u8>,
    /// What [`Slot::fill`] was told.
    layout: AtomicU64,
}

impl Slot {
    /// A slot without a block.
    pub(crate) fn new() -> Self {
        Self {
            address: AtomicPtr::new(ptr::null_mut()),
            layout: AtomicU64::new(0),
        }
    }

    /// Puts a block into the empty slot.
    #[cfg(not(loom))]
    pub(crate) fn fill(&self, address: *mut u8, layout: u64) {
        // Release: pairs with the Acquire in `empty`.
        self.fill_with(address, layout, Ordering::Release);
    }

    /// The ordering is for the models.
    pub(crate) fn fill_with(&self, address: *mut u8, layout: u64, ordering: Ordering) {
        // Relaxed: published by the store below.
        self.layout.store(layout, Ordering::Relaxed);
        self.address.store(address, ordering);
    }

    /// Takes the block out of the slot, in which it is or will be, with its layout; `None` when
    /// `wait`, which is called until it is there, says `false`.
    pub(crate) fn empty(&self, mut wait: impl FnMut() -> bool) -> Option<(*mut u8, u64)> {
        let address = loop {
            // Acquire: pairs with the Release in `fill`.
            let address = self.address.load(Ordering::Acquire);
            if !address.is_null() {
                break address;
            }
            if !wait() {
                return None;
            }
        };
        // Relaxed, both: who fills the slot next does so in another epoch, which begins with a lock
        // that we release after this.
        self.address.store(ptr::null_mut(), Ordering::Relaxed);
        Some((address, self.layout.load(Ordering::Relaxed)))
    }

    /// The layout of the block in the slot, if there is one. Nobody fills or empties it meanwhile.
    pub(crate) fn layout(&self) -> Option<u64> {
        // Relaxed: all threads are done, and were waited for.
        let address = self.address.load(Ordering::Relaxed);
        (!address.is_null()).then(|| self.layout.load(Ordering::Relaxed))
    }
}
