//! What became of the OS pages that sweeps before growth gave back, and how patient that makes a
//! heap. `purge.rs` decides.

use crate::purge;
use crate::sync::{AtomicUsize, Ordering};

/// Of one heap. Relaxed throughout: counts for the policy; threads that count or look at the same
/// time may lose a step of patience.
#[derive(Debug)]
pub(crate) struct Sweeping {
    /// Granules given back since the last look.
    gone: AtomicUsize,
    /// Granules given back at any time that were touched again since the last look.
    back: AtomicUsize,
    patience: AtomicUsize,
}

impl Sweeping {
    pub(crate) const fn new() -> Self {
        Self {
            gone: AtomicUsize::new(0),
            back: AtomicUsize::new(0),
            patience: AtomicUsize::new(0),
        }
    }

    /// A sweep gave back so many granules of a span.
    pub(crate) fn note_gone(&self, granules: usize) {
        self.gone.fetch_add(granules, Ordering::Relaxed);
    }

    /// So many that a sweep had given back are in use again.
    pub(crate) fn note_back(&self, granules: usize) {
        if granules > 0 {
            self.back.fetch_add(granules, Ordering::Relaxed);
        }
    }

    /// Before a sweep: looks at what became of the last ones.
    pub(crate) fn look(&self) {
        let gone = self.gone.swap(0, Ordering::Relaxed);
        let back = self.back.swap(0, Ordering::Relaxed);
        let patience = purge::patience_after(self.patience(), gone, back);
        self.patience.store(patience, Ordering::Relaxed);
    }

    /// See [`purge::sweep_is_due`].
    pub(crate) fn patience(&self) -> usize {
        self.patience.load(Ordering::Relaxed)
    }
}
