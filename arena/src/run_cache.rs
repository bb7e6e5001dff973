//! The runs that a thread keeps: a few freed blocks of whole granules, newest last, so
//! that a program that allocates and frees large blocks in turn does not go to the page
//! heap each time.
//!
//! Invariants:
//! - R1: an entry below `count` names a whole run of the heap that is labelled
//!   [`Kind::Cached`](crate::span::Kind) and that nobody else holds.
//! - R2: `bytes` is the sum of the entries' lengths, and at most `room`.
//! - R3: only the owner writes, inside `ThreadCache::alone`, or a harvest that found the
//!   owner elsewhere; others read numbers.

use crate::sync::{AtomicBool, AtomicUsize, Ordering};
use crate::units::{GRANULE_BYTES, GRANULE_SHIFT};

/// Most runs that a thread keeps.
const MAX_RUNS: usize = 8;
/// Most bytes of runs that a thread keeps, and so the longest run that it does.
pub(crate) const MAX_KEPT_BYTES: usize = 512 * 1024;

/// A run on its way into a cache or out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeptRun {
    pub(crate) addr: usize,
    pub(crate) granules: usize,
}

impl KeptRun {
    /// The address has no bits below a granule's size, and the length fits there.
    const fn pack(self) -> usize {
        self.addr | self.granules
    }

    const fn unpack(word: usize) -> Self {
        Self {
            addr: word & !(GRANULE_BYTES - 1),
            granules: word & (GRANULE_BYTES - 1),
        }
    }

    pub(crate) const fn bytes(self) -> usize {
        self.granules << GRANULE_SHIFT
    }
}

const _: () = assert!(MAX_KEPT_BYTES >> GRANULE_SHIFT < GRANULE_BYTES);

/// See the module. All zeros is an empty cache. Relaxed throughout: by R3 each access is
/// ordered by the thread itself or by the harvest's barrier, or is a number for statistics.
#[derive(Debug)]
pub(crate) struct RunCache {
    entries: [AtomicUsize; MAX_RUNS],
    count: AtomicUsize,
    bytes: AtomicUsize,
    room: AtomicUsize,
    /// Whether a run was taken or kept since the last [`Self::take_idle`].
    used: AtomicBool,
}

impl RunCache {
    /// Takes the newest run of `granules`, or up to an eighth more, whose start is a
    /// multiple of `align`.
    pub(crate) fn take(&self, granules: usize, align: usize) -> Option<KeptRun> {
        let count = self.count.load(Ordering::Relaxed);
        let entries = self.entries.get(..count)?;
        let fits = granules..=granules + granules / 8;
        let (at, run) = entries.iter().enumerate().rev().find_map(|(at, entry)| {
            let run = KeptRun::unpack(entry.load(Ordering::Relaxed));
            let suits = fits.contains(&run.granules) && run.addr & (align - 1) == 0;
            suits.then_some((at, run))
        })?;
        self.used.store(true, Ordering::Relaxed);
        self.remove(at, count, run);
        Some(run)
    }

    /// Takes the oldest run.
    pub(crate) fn take_oldest(&self) -> Option<KeptRun> {
        let count = self.count.load(Ordering::Relaxed);
        let oldest = self.entries.get(..count)?.first()?;
        let run = KeptRun::unpack(oldest.load(Ordering::Relaxed));
        self.remove(0, count, run);
        Some(run)
    }

    fn remove(&self, at: usize, count: usize, run: KeptRun) {
        let pairs = self.entries.iter().zip(self.entries.iter().skip(1));
        for (to, from) in pairs.take(count - 1).skip(at) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.count.store(count - 1, Ordering::Relaxed);
        self.bytes
            .store(self.bytes() - run.bytes(), Ordering::Relaxed);
    }

    /// Keeps `run` if there is a place and room for it.
    pub(crate) fn keep(&self, run: KeptRun) -> bool {
        let count = self.count.load(Ordering::Relaxed);
        let bytes = self.bytes() + run.bytes();
        let Some(entry) = self.entries.get(count).filter(|_| bytes <= self.room()) else {
            return false;
        };
        entry.store(run.pack(), Ordering::Relaxed);
        self.count.store(count + 1, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.used.store(true, Ordering::Relaxed);
        true
    }

    /// Bytes of the runs that are kept; any thread may ask.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many runs are kept.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes of runs that may be kept now.
    pub(crate) fn room(&self) -> usize {
        self.room.load(Ordering::Relaxed)
    }

    pub(crate) fn set_room(&self, bytes: usize) {
        debug_assert!(bytes >= self.bytes(), "R2");
        self.room.store(bytes, Ordering::Relaxed);
    }

    /// Whether runs are kept that nobody wanted since the last call.
    pub(crate) fn take_idle(&self) -> bool {
        !self.used.swap(false, Ordering::Relaxed) && self.room() > 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn empty() -> RunCache {
        RunCache {
            entries: [const { AtomicUsize::new(0) }; MAX_RUNS],
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            room: AtomicUsize::new(MAX_KEPT_BYTES),
            used: AtomicBool::new(false),
        }
    }

    fn run(place: usize, granules: usize) -> KeptRun {
        KeptRun {
            addr: (1 << 30) + place * (1 << 20),
            granules,
        }
    }

    #[test]
    fn the_newest_run_that_fits_is_taken_and_the_others_keep_their_order() {
        let cache = empty();
        let kept = [run(0, 16), run(1, 21), run(2, 16), run(3, 17)];
        assert!(kept.iter().all(|&run| cache.keep(run)));
        assert_eq!(cache.take(18, 1), None, "21 is more than an eighth more");
        assert_eq!(cache.take(16, 1 << 21), Some(run(2, 16)), "by alignment");
        assert_eq!(cache.take(16, 1), Some(run(3, 17)), "an eighth more");
        assert_eq!(cache.take_oldest(), Some(run(0, 16)));
        assert_eq!(cache.take_oldest(), Some(run(1, 21)));
        assert_eq!((cache.take_oldest(), cache.bytes()), (None, 0));
    }

    #[test]
    fn no_more_is_kept_than_there_are_places_and_room() {
        let cache = empty();
        assert!(!cache.keep(run(0, 129)), "longer than the room");
        assert!((0..MAX_RUNS).all(|place| cache.keep(run(place, 9))));
        assert!(!cache.keep(run(9, 9)), "no place");
        assert_eq!(cache.bytes(), MAX_RUNS * 9 * GRANULE_BYTES);
    }

    #[test]
    fn what_nobody_wanted_between_two_looks_is_idle() {
        let cache = empty();
        assert!(cache.keep(run(0, 9)));
        assert!(!cache.take_idle(), "just kept");
        assert!(cache.take_idle());
    }
}
