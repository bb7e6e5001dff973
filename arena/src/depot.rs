//! What a thread sets aside: a full magazine's older half goes here, whole, and comes back whole
//! when the magazine is empty, so that a live set larger than a magazine costs a copy of pointers
//! and not a visit to each block's span. This file keeps the books; the blocks are in slots
//! of the thread's cache.
//!
//! ```text
//! newest   | 8: none | 16: batch 2 | …        of each class
//! older    batch 2 -> 0 -> none;  vacant 1 -> none
//! slots    | 64 blocks | 64 blocks | 64 blocks | never used …
//! ```
//!
//! Bonwick and Adams have a depot of whole magazines that threads share. This is each thread's
//! own: it needs no lock, and a block that one thread frees and another allocates would travel between
//! their processors as a pointer, then as a block. For the same reason a thread sets aside no more
//! blocks than it fetched: one that only frees what others allocate gives them back at once, and they
//! find them in their spans.
//!
//! Blocks in a depot count as outside of their spans. They go back before the heap grows on
//! this thread, if they are a part of it to speak of, when nobody wanted them for a while, and
//! whenever magazines are emptied.
//!
//! Invariants:
//! - D1: every batch that was ever used is in the list of one class or in `vacant`, once.
//! - D2: the slots of a batch in a class's list hold blocks of that class that nobody else holds.
//! - D3: `bytes` is the sum of all batches in lists, and at most `room`.
//! - D4: only the owner writes, inside `ThreadCache::alone`, or a harvest that found the owner
//!   elsewhere; others read numbers. The model is that of a cache all of whose operations are inside
//!   `alone`, `loom_a_harvest_of_an_exclusive_cache_takes_all`.

use crate::purge::TICK_MS;
use crate::size_class::block_size;
use crate::sync::{AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use crate::units::{CLASS_COUNT, ClassIndex};

/// Blocks in a batch.
pub(crate) const BATCH: usize = 64;
/// Most batches that a thread sets aside.
pub(crate) const MAX_BATCHES: usize = 128;
/// Bytes of the slots of a batch.
pub(crate) const SLOTS_BYTES: usize = BATCH * size_of::<*mut u8>();
/// Largest blocks that are set aside: what is done with a larger one costs more than its way back.
const MAX_BYTES: usize = 1024;

/// See the module. All zeros is an empty depot. Relaxed throughout: by D4 each access is
/// ordered by the thread itself or by the harvest's barrier, or is a number for statistics.
#[derive(Debug)]
pub(crate) struct Depot {
    /// 1 + the newest batch of each class; 0 for none.
    newest: [AtomicU8; CLASS_COUNT],
    counts: [AtomicU8; CLASS_COUNT],
    /// Fewest batches since the last [`Self::take_unwanted`].
    fewest: [AtomicU8; CLASS_COUNT],
    /// Blocks that were fetched and not set aside.
    credits: [AtomicU16; CLASS_COUNT],
    /// 1 + the next batch of the list that a batch is in; 0 for none.
    older: [AtomicU8; MAX_BATCHES],
    /// 1 + the first vacant batch; 0 for none.
    vacant: AtomicU8,
    /// Batches that were ever used.
    used: AtomicU8,
    bytes: AtomicUsize,
    room: AtomicUsize,
    /// When [`Self::is_time`] last said so, in milliseconds.
    looked_ms: AtomicU64,
}

const _: () = assert!(MAX_BATCHES < u8::MAX as usize && MAX_BATCHES <= u128::BITS as usize);

/// Bytes of the blocks in a batch of `class`.
pub(crate) fn batch_bytes(class: ClassIndex) -> usize {
    BATCH * block_size(class)
}

/// Whether blocks of `class` are set aside at all.
pub(crate) fn is_wanted(class: ClassIndex) -> bool {
    block_size(class) <= MAX_BYTES
}

fn load(bytes: &[AtomicU8], index: usize) -> u8 {
    bytes.get(index).map_or(0, |at| at.load(Ordering::Relaxed))
}

fn store(bytes: &[AtomicU8], index: usize, value: u8) {
    if let Some(at) = bytes.get(index) {
        at.store(value, Ordering::Relaxed);
    }
}

impl Depot {
    /// Counts `blocks` of `class` that came from spans.
    pub(crate) fn note_fetched(&self, class: ClassIndex, blocks: usize) {
        if let Some(credit) = self.credits.get(class.get()) {
            let sum = usize::from(credit.load(Ordering::Relaxed)) + blocks;
            let sum = u16::try_from(sum).unwrap_or(u16::MAX);
            credit.store(sum, Ordering::Relaxed);
        }
    }

    /// Whether the thread fetched as many blocks of `class` as a batch takes.
    pub(crate) fn has_credit(&self, class: ClassIndex) -> bool {
        let credit = self.credits.get(class.get());
        credit.is_some_and(|credit| usize::from(credit.load(Ordering::Relaxed)) >= BATCH)
    }

    /// Whether all batches are in use.
    pub(crate) fn is_full(&self) -> bool {
        // Nothing else is looked at: a block that is marked for nothing costs a cache miss.
        self.vacant.load(Ordering::Relaxed) == 0 && self.touched() == MAX_BATCHES
    }

    /// A batch for blocks of `class`, now in its list; `None` when all are in use or there is no
    /// room.
    pub(crate) fn add(&self, class: ClassIndex) -> Option<usize> {
        let bytes = self.bytes() + batch_bytes(class);
        if bytes > self.room() || self.is_full() {
            return None;
        }
        let batch = match usize::from(self.vacant.load(Ordering::Relaxed)) {
            0 => {
                let used = self.used.load(Ordering::Relaxed);
                self.used.store(used + 1, Ordering::Relaxed);
                usize::from(used)
            }
            vacant => {
                let next = load(&self.older, vacant - 1);
                self.vacant.store(next, Ordering::Relaxed);
                vacant - 1
            }
        };
        let at = class.get();
        store(&self.older, batch, load(&self.newest, at));
        store(&self.newest, at, name(batch));
        store(&self.counts, at, load(&self.counts, at) + 1);
        self.bytes.store(bytes, Ordering::Relaxed);
        if let Some(credit) = self.credits.get(at) {
            let rest = usize::from(credit.load(Ordering::Relaxed)).saturating_sub(BATCH);
            credit.store(u16::try_from(rest).unwrap_or(0), Ordering::Relaxed);
        }
        Some(batch)
    }

    /// Takes the newest batch of `class`. Its slots stay as they are until the next
    /// [`Self::add`].
    #[inline]
    pub(crate) fn take(&self, class: ClassIndex) -> Option<usize> {
        let at = class.get();
        let batch = usize::from(load(&self.newest, at)).checked_sub(1)?;
        store(&self.newest, at, load(&self.older, batch));
        store(&self.older, batch, self.vacant.load(Ordering::Relaxed));
        self.vacant.store(name(batch), Ordering::Relaxed);
        let count = load(&self.counts, at) - 1;
        store(&self.counts, at, count);
        store(&self.fewest, at, load(&self.fewest, at).min(count));
        self.bytes
            .store(self.bytes() - batch_bytes(class), Ordering::Relaxed);
        Some(batch)
    }

    /// How many batches of `class` nobody wanted since the last call.
    pub(crate) fn take_unwanted(&self, class: ClassIndex) -> usize {
        let fewest = load(&self.fewest, class.get());
        // What is left when these have gone.
        store(
            &self.fewest,
            class.get(),
            load(&self.counts, class.get()) - fewest,
        );
        usize::from(fewest)
    }

    /// Whether it is time for [`Self::take_unwanted`]: a tick has passed since this said so.
    pub(crate) fn is_time(&self, now_ms: u64) -> bool {
        let passed = now_ms.wrapping_sub(self.looked_ms.load(Ordering::Relaxed));
        if passed < TICK_MS {
            return false;
        }
        self.looked_ms.store(now_ms, Ordering::Relaxed);
        true
    }

    /// Blocks of `class` here; any thread may ask.
    pub(crate) fn blocks(&self, class: ClassIndex) -> usize {
        usize::from(load(&self.counts, class.get())) * BATCH
    }

    /// Bytes of all blocks here; any thread may ask.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of blocks that may be here now.
    pub(crate) fn room(&self) -> usize {
        self.room.load(Ordering::Relaxed)
    }

    pub(crate) fn set_room(&self, bytes: usize) {
        debug_assert!(bytes >= self.bytes(), "D3");
        self.room.store(bytes, Ordering::Relaxed);
    }

    /// Forgets what its last thread fetched and what room it had. There are no blocks.
    pub(crate) fn forget_owner(&self) {
        for credit in &self.credits {
            credit.store(0, Ordering::Relaxed);
        }
        self.set_room(0);
    }

    /// Whether every batch that was ever used is in one list, once, and counted (D1). Nobody is inside.
    pub(crate) fn is_whole(&self) -> bool {
        let mut seen = 0u128;
        let mut lists = 0;
        for class in ClassIndex::all() {
            let Some(count) = self.walk(load(&self.newest, class.get()), &mut seen) else {
                return false;
            };
            if count != usize::from(load(&self.counts, class.get())) {
                return false;
            }
            lists += count;
        }
        let vacant = self.walk(self.vacant.load(Ordering::Relaxed), &mut seen);
        vacant.is_some_and(|vacant| lists + vacant == self.touched())
    }

    /// The length of the list that starts with `first`; `None` if a batch in it was `seen` before.
    fn walk(&self, first: u8, seen: &mut u128) -> Option<usize> {
        let (mut at, mut count) = (usize::from(first), 0);
        while let Some(batch) = at.checked_sub(1) {
            let bit = 1u128 << batch;
            if *seen & bit != 0 {
                return None;
            }
            *seen |= bit;
            count += 1;
            at = usize::from(load(&self.older, batch));
        }
        Some(count)
    }

    /// Batches whose slots were ever touched.
    pub(crate) fn touched(&self) -> usize {
        usize::from(self.used.load(Ordering::Relaxed))
    }
}

/// How lists name `batch`.
fn name(batch: usize) -> u8 {
    u8::try_from(batch + 1).unwrap_or(0)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::size_class::class_of;

    /// An empty depot with room for all.
    fn empty() -> Depot {
        Depot {
            newest: [const { AtomicU8::new(0) }; CLASS_COUNT],
            counts: [const { AtomicU8::new(0) }; CLASS_COUNT],
            fewest: [const { AtomicU8::new(0) }; CLASS_COUNT],
            credits: [const { AtomicU16::new(0) }; CLASS_COUNT],
            older: [const { AtomicU8::new(0) }; MAX_BATCHES],
            vacant: AtomicU8::new(0),
            used: AtomicU8::new(0),
            bytes: AtomicUsize::new(0),
            room: AtomicUsize::new(usize::MAX),
            looked_ms: AtomicU64::new(0),
        }
    }

    fn class(size: usize) -> ClassIndex {
        class_of(size, 8).unwrap()
    }

    #[test]
    fn the_newest_batch_of_a_class_comes_back_first() {
        let depot = empty();
        let (small, large) = (class(16), class(1024));
        let first = depot.add(small).unwrap();
        let other = depot.add(large).unwrap();
        let last = depot.add(small).unwrap();
        assert_eq!(depot.blocks(small), 2 * BATCH);
        assert_eq!(depot.bytes(), BATCH * (16 + 1024 + 16));
        assert_eq!(depot.take(small), Some(last));
        assert_eq!(depot.take(small), Some(first));
        assert_eq!(depot.take(small), None);
        assert_eq!(depot.add(large), Some(first), "vacant ones are used again");
        assert!(depot.is_whole());
        assert_eq!(depot.take(large), Some(first));
        assert_eq!(depot.take(large), Some(other));
        assert_eq!((depot.bytes(), depot.touched()), (0, 3));
        assert!(depot.is_whole());
    }

    #[test]
    fn no_more_is_set_aside_than_there_are_batches_and_room() {
        let depot = empty();
        assert!((0..MAX_BATCHES).all(|_| !depot.is_full() && depot.add(class(8)).is_some()));
        assert!(depot.is_full());
        assert_eq!(depot.add(class(8)), None, "no batch");
        while depot.take(class(8)).is_some() {}
        depot.set_room(BATCH * 64);
        assert!(depot.add(class(64)).is_some());
        assert_eq!(depot.add(class(8)), None, "no room");
        assert!(depot.is_whole());
    }

    #[test]
    fn a_thread_sets_aside_what_it_fetched() {
        let depot = empty();
        depot.note_fetched(class(32), BATCH - 1);
        assert!(!depot.has_credit(class(32)));
        depot.note_fetched(class(32), 1);
        assert!(depot.has_credit(class(32)) && !depot.has_credit(class(48)));
        depot.add(class(32)).unwrap();
        assert!(!depot.has_credit(class(32)));
    }

    #[test]
    fn what_nobody_wanted_between_two_looks_is_told() {
        let depot = empty();
        for _ in 0..5 {
            depot.add(class(32)).unwrap();
        }
        assert_eq!(depot.take_unwanted(class(32)), 0, "they are new");
        depot.take(class(32)).unwrap();
        depot.take(class(32)).unwrap();
        depot.add(class(32)).unwrap();
        assert_eq!(depot.take_unwanted(class(32)), 3);
        assert!(depot.is_time(1000) && !depot.is_time(1000 + TICK_MS - 1));
    }

    #[test]
    fn a_batch_in_two_lists_is_found() {
        let depot = empty();
        let batch = depot.add(class(8)).unwrap();
        store(&depot.newest, class(16).get(), name(batch));
        store(&depot.counts, class(16).get(), 1);
        assert!(!depot.is_whole());
    }
}
