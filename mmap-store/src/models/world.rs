//! A store of one page a version, as readers and a writer see it.

use loom::cell::UnsafeCell;
use loom::sync::Arc;

use crate::file_len::FileLen;
use crate::versions::{Trace, Version, Versions};

/// What a page holds that was written anew, or cut off.
pub(super) const GONE: u64 = 99;

/// A cell stands in the place of each page's bytes.
pub(super) struct World {
    pub(super) versions: Versions,
    pages: [UnsafeCell<u64>; 4],
    /// Length of the file.
    pub(super) len: FileLen,
}

// SAFETY: the cells are what loom watches: an access that the protocol does not order is
// reported and not undefined.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    /// A file of `pages` pages with one version in it.
    pub(super) fn new(version: Version, pages: u32) -> Arc<Self> {
        let world = Self {
            versions: Versions::new(version),
            pages: core::array::from_fn(|_| UnsafeCell::new(0)),
            len: FileLen::new(pages),
        };
        world.write(version.root.page, version.txn);
        Arc::new(world)
    }

    /// A reader beside `writer`, in all interleavings.
    pub(super) fn race(version: Version, pages: u32, writer: fn(&Self)) {
        loom::model(move || {
            let world = Self::new(version, pages);
            let other = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || writer(&world))
            };
            world.read();
            other.join().unwrap();
        });
    }

    pub(super) fn write(&self, page: u32, value: u64) {
        // SAFETY: loom checks that nobody reads or writes at the same time.
        self.pages[page as usize].with_mut(|page| unsafe { *page = value });
    }

    /// What the page holds.
    pub(super) fn page(&self, page: u32) -> u64 {
        // SAFETY: as in `write`.
        self.pages[page as usize].with(|page| unsafe { *page })
    }

    /// What a reader does: begins, reads its version's page, ends.
    pub(super) fn read(&self) {
        let (version, slot) = self.versions.begin(Trace::default());
        let page = version.root.page;
        assert!(page < self.len.get(), "a reader stays inside the file");
        assert_eq!(self.page(page), version.txn, "a snapshot is what it was");
        slot.end();
    }

    /// Whether a snapshot may see transaction `txn`.
    pub(super) fn is_seen(&self, txn: u64) -> bool {
        let mut snapshots = Vec::new();
        self.versions.snapshots(&mut snapshots);
        snapshots.contains(&txn)
    }
}
