//! Which version of the store is published, and who reads which.
//!
//! A writer must know every reader before it reuses a page, and a reader must not wait.
//! So each reader writes the number of its version in a *slot* and looks again whether
//! that version is still the published one; the writer publishes and then looks at the
//! slots. One of the two sees the other (hazard pointers, Michael 2004; here a whole
//! version is protected, and the fence is what it costs: some nanoseconds).
//!
//! ```text
//!   published: count ──► entries[count % 8] = (transaction, root, length)
//!   slots:  [ 17 ][ 0 ][ 19 ] … ──► 32 more ──► …      0: nobody
//! ```
//!
//! The reader copies an entry while the writer may be eight publications further and
//! writing it anew; then `published` has changed, and the reader starts over. It starts
//! over only if a version was published within those nanoseconds: others made progress.

use core::panic::Location;

use crate::ids::Child;
use crate::sync::{AtomicPtr, AtomicU64, Mutex, Ordering, Step, fence, left_out};

/// Entries between the published one and the one that is written next.
const ENTRIES: usize = if cfg!(loom) { 2 } else { 8 };
/// Slots that are added at a time. A scan looks at each; one takes a cache line.
const SLOTS: usize = if cfg!(loom) { 1 } else { 32 };

/// One state of the store, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) txn: u64,
    /// Root of the tree of tables.
    pub(crate) root: Child,
}

/// Index of the entry for the `count`-th publication.
fn place(count: u64) -> usize {
    usize::try_from(count % ENTRIES as u64).expect("below the number of entries")
}

/// Index of the slot that is tried in the place of `number`; a mask, because loom's one
/// slot makes the remainder a constant.
fn slot_index(number: usize) -> usize {
    const { assert!(SLOTS.is_power_of_two()) };
    number & (SLOTS - 1)
}

#[derive(Debug)]
struct Entry {
    txn: AtomicU64,
    root: AtomicU64,
}

/// Alone on its cache lines: readers on several processors do not disturb one another.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Slot {
    /// Zero, or the version that is read (transactions count from 1). Written by the
    /// reader that holds it, read by the writer.
    txn: AtomicU64,
    /// The rest is for reports: written by the reader when it has the slot.
    thread: AtomicU64,
    since_ms: AtomicU64,
    location: AtomicPtr<Location<'static>>,
}

/// What a reader says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trace {
    /// Number of the thread that began it; spreads threads over slots.
    pub(crate) thread: u64,
    /// When, after the store was opened.
    pub(crate) since_ms: u64,
    pub(crate) location: Option<&'static Location<'static>>,
}

#[derive(Debug)]
struct Chunk {
    slots: [Slot; SLOTS],
    /// More of them; null, or never changed again.
    next: AtomicPtr<Self>,
}

impl Chunk {
    fn new() -> Self {
        Self {
            slots: core::array::from_fn(|_| Slot {
                txn: AtomicU64::new(0),
                thread: AtomicU64::new(0),
                since_ms: AtomicU64::new(0),
                location: AtomicPtr::new(core::ptr::null_mut()),
            }),
            next: AtomicPtr::new(core::ptr::null_mut()),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Versions {
    /// Number of publications; `entries[published % ENTRIES]` is the version.
    published: AtomicU64,
    entries: [Entry; ENTRIES],
    /// The version that was published last, and the number of publications: publishing
    /// is one at a time.
    last: Mutex<(Version, u64)>,
    first: Chunk,
}

impl Versions {
    pub(crate) fn new(version: Version) -> Self {
        let new = Self {
            published: AtomicU64::new(0),
            entries: core::array::from_fn(|_| Entry {
                txn: AtomicU64::new(0),
                root: AtomicU64::new(0),
            }),
            last: Mutex::new((version, 0)),
            first: Chunk::new(),
        };
        new.write_entry(0, version);
        new
    }

    fn write_entry(&self, count: u64, version: Version) {
        let entry = &self.entries[place(count)];
        let root = u64::from(version.root.page) | u64::from(version.root.crc) << 32;
        // Relaxed: published by the Release store in `publish`. A reader that sees them
        // too early finds `published` changed, by the fence in `publish`.
        entry.txn.store(version.txn, Ordering::Relaxed);
        entry.root.store(root, Ordering::Relaxed);
    }

    fn read_entry(&self, count: u64) -> Version {
        let entry = &self.entries[place(count)];
        // Relaxed: written before the publication that the caller's Acquire load saw.
        let root = entry.root.load(Ordering::Relaxed);
        Version {
            txn: entry.txn.load(Ordering::Relaxed),
            root: Child {
                page: (root & 0xffff_ffff) as u32,
                crc: (root >> 32) as u32,
            },
        }
    }

    /// Makes `version` the one that readers get, unless a later one is already.
    pub(crate) fn publish(&self, version: Version) {
        let mut last = self.last.lock();
        if version.txn <= last.0.txn {
            return;
        }
        let count = last.1 + 1;
        *last = (version, count);
        self.write_entry(count, version);
        // Release: the pages of the version, its entry and the file's length come first;
        // pairs with the Acquire in `begin`.
        self.published.store(count, Ordering::Release);
        // Before the next entry is overwritten: a reader that saw any of those writes
        // sees this count or a later one when it looks again after its own fence.
        fence(Ordering::SeqCst);
    }

    /// The version that was published last.
    pub(crate) fn last(&self) -> Version {
        self.last.lock().0
    }

    /// Registers a reader.
    ///
    /// # Complexity
    ///
    /// Constant; the slots of a chunk are tried one after another only if other readers
    /// hold them.
    #[inline]
    pub(crate) fn begin(&self, trace: Trace) -> (Version, &Slot) {
        // Acquire: pairs with `publish`.
        let mut count = self.published.load(Ordering::Acquire);
        let mut version = self.read_entry(count);
        let slot = self.claim(trace.thread, version.txn);
        slot.leave(trace);
        loop {
            // If our slot comes first, the writer's scan, which follows its publication,
            // sees it. If its publication comes first, we see it here, and start over.
            fence(Ordering::SeqCst);
            // Acquire: as above.
            let now = self.published.load(Ordering::Acquire);
            if now == count || left_out(Step::LookAgain) {
                return (version, slot);
            }
            count = now;
            version = self.read_entry(count);
            // Relaxed: the fence that follows orders it. Should the entry be torn, the
            // number is wrong for a moment and only keeps pages from being reused.
            slot.txn.store(version.txn.max(1), Ordering::Relaxed);
        }
    }

    /// Takes a free slot.
    #[inline]
    fn claim(&self, thread: u64, txn: u64) -> &Slot {
        let hint = usize::try_from(thread & (SLOTS as u64 - 1)).unwrap_or(0);
        let mut chunk = &self.first;
        loop {
            for offset in 0..SLOTS {
                let slot = &chunk.slots[slot_index(hint + offset)];
                // Relaxed: a taken slot is passed by, nothing is read through it.
                if slot.txn.load(Ordering::Relaxed) != 0 {
                    continue;
                }
                if left_out(Step::TakeSlot) {
                    slot.txn.store(txn.max(1), Ordering::Relaxed);
                    return slot;
                }
                // Relaxed: the fence in `begin` orders it before the second look.
                let claimed =
                    slot.txn
                        .compare_exchange(0, txn.max(1), Ordering::Relaxed, Ordering::Relaxed);
                if claimed.is_ok() {
                    return slot;
                }
            }
            chunk = Self::next_chunk(chunk);
        }
    }

    #[cold]
    fn next_chunk(chunk: &Chunk) -> &Chunk {
        // Acquire: sees the chunk's slots, initialised by the Release below.
        let mut next = chunk.next.load(Ordering::Acquire);
        if next.is_null() {
            let new = Box::into_raw(Box::new(Chunk::new()));
            // AcqRel: publishes the new slots, or sees those of whoever was faster.
            let linked =
                chunk
                    .next
                    .compare_exchange(next, new, Ordering::AcqRel, Ordering::Acquire);
            next = match linked {
                Ok(_) => new,
                Err(other) => {
                    // SAFETY: `new` came from a box above and was not published.
                    drop(unsafe { Box::from_raw(new) });
                    other
                }
            };
        }
        // SAFETY: (1) not null; (2) it came from a box and is freed in `drop` only, which
        // has `self` alone; (3) shared references only.
        unsafe { &*next }
    }

    /// Every version that a reader holds or may be about to hold, and the published one.
    /// Ascending. The caller has published whatever it wants readers to have found.
    pub(crate) fn snapshots(&self, out: &mut Vec<u64>) -> u64 {
        let published = self.last().txn;
        out.push(published);
        self.held(out);
        out.sort_unstable();
        out.dedup();
        published
    }

    /// Adds the version of each reader.
    pub(crate) fn held(&self, out: &mut Vec<u64>) {
        // See `begin`: a reader that this scan misses finds what was published before the
        // scan, or a later version.
        fence(Ordering::SeqCst);
        self.each_slot(|slot| {
            // Acquire: pairs with `end`: what that reader read, it has read.
            let txn = slot.txn.load(Ordering::Acquire);
            if txn != 0 {
                out.push(txn);
            }
        });
    }

    /// The version and the trace of each reader. One that begins or ends meanwhile may be
    /// missing, or have the trace of the one before it in the slot.
    #[cfg(not(loom))]
    pub(crate) fn readers(&self) -> Vec<(u64, Trace)> {
        let mut out = Vec::new();
        self.each_slot(|slot| {
            // Relaxed: a report depends on no order.
            let txn = slot.txn.load(Ordering::Relaxed);
            if txn != 0 {
                out.push((txn, slot.trace()));
            }
        });
        out
    }

    fn each_slot(&self, mut look: impl FnMut(&Slot)) {
        let mut chunk = Some(&self.first);
        while let Some(here) = chunk {
            here.slots.iter().for_each(&mut look);
            // Acquire: as in `next_chunk`.
            let next = here.next.load(Ordering::Acquire);
            // SAFETY: as in `next_chunk`, or null, which gives `None`.
            chunk = unsafe { next.as_ref() };
        }
    }
}

impl Slot {
    /// Says who has the slot.
    #[inline]
    fn leave(&self, trace: Trace) {
        // Relaxed, all three: for reports, and nothing is read through them.
        self.thread.store(trace.thread, Ordering::Relaxed);
        if let Some(location) = trace.location {
            self.since_ms.store(trace.since_ms, Ordering::Relaxed);
            let location = core::ptr::from_ref(location).cast_mut();
            self.location.store(location, Ordering::Relaxed);
        }
    }

    #[cfg(not(loom))]
    fn trace(&self) -> Trace {
        // Relaxed: as in `leave`.
        let location = self.location.load(Ordering::Relaxed);
        Trace {
            thread: self.thread.load(Ordering::Relaxed),
            since_ms: self.since_ms.load(Ordering::Relaxed),
            // SAFETY: null, which gives `None`, or from a reference to a constant that is
            // there for ever and that nobody changes.
            location: unsafe { location.cast_const().as_ref() },
        }
    }

    /// The reader is done.
    #[inline]
    pub(crate) fn end(&self) {
        // Release: its reads come before the writer's Acquire in `snapshots`.
        self.txn.store(0, Ordering::Release);
    }
}

impl Drop for Versions {
    fn drop(&mut self) {
        // Relaxed: `self` is exclusive.
        let mut next = self.first.next.load(Ordering::Relaxed);
        while !next.is_null() {
            // SAFETY: each chunk came from a box, is linked once and not used any more.
            let chunk = unsafe { Box::from_raw(next) };
            // Relaxed: as above.
            next = chunk.next.load(Ordering::Relaxed);
        }
    }
}
