//! How long the file is, as far as readers may know.
//!
//! The mapping is longer than the file, and touching it beyond the file's end ends the
//! process. So the writer announces pages after the file has them, and publishes a version
//! that names them after that; a reader compares what it is about to touch. The length
//! goes down, too, over pages that no version reaches which anybody has or may get: whoever
//! has a version reads the length that was announced before it, or a later one, and no
//! later one is below a page that it reaches.

use crate::sync::{AtomicU32, Ordering};

/// See the module.
#[derive(Debug)]
pub(crate) struct FileLen {
    pages: AtomicU32,
}

impl FileLen {
    pub(crate) fn new(pages: u32) -> Self {
        Self {
            pages: AtomicU32::new(pages),
        }
    }

    /// Announces that the file has `pages` pages, or will be cut to so many.
    pub(crate) fn set(&self, pages: u32) {
        // Release: pairs with the Acquire in `get`; the file has the pages before.
        self.pages.store(pages, Ordering::Release);
    }

    /// Pages that may be touched.
    #[inline]
    pub(crate) fn get(&self) -> u32 {
        // Acquire: pairs with `set`.
        self.pages.load(Ordering::Acquire)
    }
}
