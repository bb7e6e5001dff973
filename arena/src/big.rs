//! Big blocks: mappings of their own, at multiples of 4 MiB so that the page map knows
//! where each starts. Freed ones are kept for a moment, because a program that frees a
//! big buffer often asks for the next at once, and a fresh one costs a page fault a page.
//!
//! A heap that grows elsewhere meanwhile gives their pages up, the oldest mapping first, byte for
//! byte. So what is kept costs no more than the heap's peak, and a page that is given up too
//! early is one more fault beside that of the page for which it went (decision 018).

use crate::units::Change;

/// Freed mappings that are kept at most.
const SLOTS: usize = 16;
/// Bytes that are kept at most.
const KEEP_BYTES: usize = 128 << 20;
/// Growth for which pages are given up: a call to the system each time.
const GROWTH_STEP: usize = 256 << 10;
/// Bytes that one such call gives up at most: some hundred microseconds, for which the lock is held.
const GROWTH_MOST: usize = 16 * GROWTH_STEP;

/// A mapping that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) addr: usize,
    pub(crate) len: usize,
    /// Bytes from the start that may be resident; a multiple of the OS page.
    pub(crate) resident: usize,
    pub(crate) since_ms: u64,
}

impl Kept {
    /// A mapping that was freed at `now_ms`, all of it resident.
    pub(crate) fn whole(addr: usize, len: usize, now_ms: u64) -> Self {
        Self {
            addr,
            len,
            resident: len,
            since_ms: now_ms,
        }
    }
}

/// The mappings that are kept: decides, but does no system call.
#[derive(Debug)]
pub(crate) struct BigCache {
    slots: [Option<Kept>; SLOTS],
    /// Bytes of them that may be resident.
    bytes: usize,
    /// Bytes by which the heap has grown and for which nothing was given up yet.
    grown: usize,
}

impl BigCache {
    pub(crate) const fn new() -> Self {
        Self {
            slots: [None; SLOTS],
            bytes: 0,
            grown: 0,
        }
    }

    /// Keeps a mapping; `false` when it is too big or others must go first.
    pub(crate) fn put(&mut self, kept: Kept) -> bool {
        if self.bytes.saturating_add(kept.resident) > KEEP_BYTES {
            return false;
        }
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.is_none()) else {
            return false;
        };
        *slot = Some(kept);
        self.bytes += kept.resident;
        true
    }

    /// A kept mapping of at least `len` bytes, and at most [`most_times`] that, at a multiple
    /// of `align`, of which at least `least` may be resident: the smallest.
    pub(crate) fn take(
        &mut self,
        len: usize,
        align: usize,
        least: usize,
        change: Change,
    ) -> Option<Kept> {
        let times = most_times(change);
        self.remove_min(|kept| {
            let fits = kept.len >= len && kept.len / times <= len && kept.resident >= least;
            (fits && kept.addr % align == 0).then_some(kept.len as u64)
        })
    }

    /// A mapping that was kept for `keep_ms` at `now_ms`, the oldest first.
    pub(crate) fn take_expired(&mut self, now_ms: u64, keep_ms: u64) -> Option<Kept> {
        self.remove_min(|kept| {
            (now_ms.saturating_sub(kept.since_ms) >= keep_ms).then_some(kept.since_ms)
        })
    }

    /// Counts `grown` bytes by which the heap has grown. When that is worth a call to the system:
    /// the oldest mapping, and how many bytes at the end of its resident part are to go; the
    /// caller puts it back.
    pub(crate) fn take_for_growth(&mut self, grown: usize) -> Option<(Kept, usize)> {
        if self.bytes == 0 {
            self.grown = 0;
            return None;
        }
        self.grown = self.grown.saturating_add(grown);
        if self.grown < GROWTH_STEP {
            return None;
        }
        let kept = self.remove_min(|kept| (kept.resident > 0).then_some(kept.since_ms))?;
        let grown = (self.grown / GROWTH_STEP * GROWTH_STEP).min(GROWTH_MOST);
        let surplus = kept.resident.min(grown);
        self.grown -= surplus;
        Some((kept, surplus))
    }

    /// Any mapping, the oldest first.
    pub(crate) fn take_oldest(&mut self) -> Option<Kept> {
        self.remove_min(|kept| Some(kept.since_ms))
    }

    /// Whether `addr` is the start of a kept mapping.
    pub(crate) fn holds(&self, addr: usize) -> bool {
        self.slots.iter().flatten().any(|kept| kept.addr == addr)
    }

    /// Bytes in kept mappings that may be resident.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn remove_min(&mut self, key: impl Fn(&Kept) -> Option<u64>) -> Option<Kept> {
        let candidates = self
            .slots
            .iter_mut()
            .filter(|slot| slot.as_ref().is_some_and(|k| key(k).is_some()));
        let slot = candidates.min_by_key(|slot| slot.as_ref().and_then(&key))?;
        let kept = slot.take()?;
        self.bytes -= kept.resident;
        Some(kept)
    }
}

/// How many times the length of a request a kept mapping may have that serves it. A buffer that
/// grows doubles as a rule, and its last length is that of the buffer before it.
pub(crate) const fn most_times(change: Change) -> usize {
    match change {
        Change::Growth => 8,
        Change::Other => 4,
    }
}

/// Whether a freed mapping of `len` bytes is worth keeping at all.
pub(crate) fn worth_keeping(len: usize) -> bool {
    len <= KEEP_BYTES / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_kept_mapping_is_taken() {
        let mut cache = BigCache::new();
        assert!(cache.put(Kept::whole(0x40_0000, 3 << 20, 1)));
        assert!(cache.put(Kept::whole(0x80_0000, 2 << 20, 2)));
        assert_eq!(cache.take(4 << 20, 4096, 0, Change::Other), None);
        assert_eq!(
            cache.take(1 << 18, 4096, 0, Change::Other),
            None,
            "more than four times the size"
        );
        assert_eq!(
            cache.take(2 << 20, 0x100_0000, 0, Change::Other),
            None,
            "not aligned"
        );
        assert_eq!(
            cache.take(2 << 20, 4096, 0, Change::Other).map(|k| k.addr),
            Some(0x80_0000)
        );
        assert_eq!(cache.bytes(), 3 << 20);
        assert!(cache.holds(0x40_0000) && !cache.holds(0x80_0000));
    }

    #[test]
    fn growth_elsewhere_takes_pages_of_the_oldest_byte_for_byte() {
        let mut cache = BigCache::new();
        assert_eq!(cache.take_for_growth(1 << 30), None, "nothing is kept");
        let (old, new) = (
            Kept::whole(0x80_0000, 1 << 20, 1),
            Kept::whole(0x40_0000, 2 << 20, 2),
        );
        assert!(cache.put(new) && cache.put(old));
        assert_eq!(
            cache.take_for_growth(GROWTH_STEP - 1),
            None,
            "a byte is missing"
        );
        assert_eq!(cache.take_for_growth(1), Some((old, GROWTH_STEP)));
        let shorter = Kept {
            resident: old.resident - GROWTH_STEP,
            ..old
        };
        assert!(cache.put(shorter));
        assert_eq!(
            cache
                .take(old.len, 4096, old.len, Change::Other)
                .map(|k| k.addr),
            Some(new.addr),
            "a copy of all of it would fault in what the tighter one gave up"
        );
        assert!(cache.put(new));
        assert_eq!(cache.take_for_growth(0), None, "it was paid");
        let most = (shorter, shorter.resident);
        assert_eq!(cache.take_for_growth(1 << 20), Some(most));
        assert_eq!(cache.bytes(), new.len);
        let rest = (new, GROWTH_STEP);
        assert_eq!(
            cache.take_for_growth(0),
            Some(rest),
            "the next pays what is left"
        );
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn much_growth_is_paid_in_short_steps() {
        let mut cache = BigCache::new();
        let mut kept = Kept::whole(0x80_0000, 10 << 20, 1);
        let mut grown = 9 << 20;
        for step in [4 << 20, 4 << 20, 1 << 20] {
            assert!(cache.put(kept));
            assert_eq!(cache.take_for_growth(grown), Some((kept, step)));
            kept.resident -= step;
            grown = 0;
        }
        assert!(cache.put(kept));
        assert_eq!(cache.take_for_growth(0), None);
    }

    #[test]
    fn what_is_kept_is_bounded_and_expires() {
        let mut cache = BigCache::new();
        assert!(!cache.put(Kept::whole(0, KEEP_BYTES + 1, 0)));
        for index in 0..SLOTS {
            assert!(cache.put(Kept::whole(index << 22, 1 << 20, index as u64)));
        }
        assert!(
            !cache.put(Kept::whole(1 << 40, 1, 0)),
            "all slots are taken"
        );
        assert_eq!(cache.take_expired(249, 250), None);
        assert_eq!(cache.take_expired(250, 250).map(|k| k.addr), Some(0));
        assert_eq!(cache.take_oldest().map(|k| k.addr), Some(1 << 22));
    }
}
