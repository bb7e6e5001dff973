//! When memory goes back to the operating system: numbers and time in, decisions out.
//!
//! Free memory that was used before is *dirty*: it is resident, and handing it out
//! again costs nothing, while giving it back costs a system call now and a page fault
//! later. So it is kept for a while. The amount that may be kept decays with a
//! half-life, as in jemalloc's decay curves; ours halves instead of following a
//! smoothstep, which needs no history.
//!
//! Nothing here does a system call or reads a clock; the callers do.

/// Time between two looks at the amounts, in milliseconds.
pub(crate) const TICK_MS: u64 = 50;
/// Time in which the amount of dirty free memory that may be kept halves.
pub(crate) const HALF_LIFE_MS: u64 = 250;
/// Dirty granules (4 KiB) that are not worth a system call: 1 MiB.
pub(crate) const KEEP_GRANULES: usize = 256;

/// Dirty granules that may stay after `elapsed_ms` when `dirty` were there before.
///
/// Halves every [`HALF_LIFE_MS`], linear in between; at most [`KEEP_GRANULES`] are
/// left alone for ever.
pub(crate) fn retained(dirty: usize, elapsed_ms: u64) -> usize {
    if dirty <= KEEP_GRANULES {
        return dirty;
    }
    let halvings = elapsed_ms / HALF_LIFE_MS;
    if halvings >= u64::from(usize::BITS) {
        return KEEP_GRANULES;
    }
    let whole = dirty >> halvings;
    #[expect(clippy::cast_possible_truncation, reason = "below HALF_LIFE_MS")]
    let rest = (elapsed_ms % HALF_LIFE_MS) as usize;
    #[expect(clippy::cast_possible_truncation, reason = "a small constant")]
    let part = (whole / 2 / HALF_LIFE_MS as usize).saturating_mul(rest);
    (whole - part).max(KEEP_GRANULES)
}

/// Whether free OS pages inside part-used spans are to be purged before the heap grows
/// from `committed` to more granules.
///
/// `threshold` is the result of the last [`next_sweep`].
pub(crate) fn sweep_before_growth(committed: usize, threshold: usize) -> bool {
    committed >= threshold
}

/// Committed granules at which the next sweep is due, after one that left `committed`
/// and freed `freed`.
///
/// A sweep costs time in proportion to the heap, so it is due again after growth by an
/// eighth when the last one paid, and by half when it found next to nothing.
pub(crate) fn next_sweep(committed: usize, freed: usize) -> usize {
    let growth = if freed >= committed / 32 { committed / 8 } else { committed / 2 };
    committed.saturating_add(growth.max(KEEP_GRANULES))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn retained_falls_with_time_and_never_rises() {
        for dirty in [0, 1, 255, 256, 257, 1000, 1 << 20, usize::MAX] {
            assert_eq!(retained(dirty, 0), dirty);
            let mut last = dirty;
            for ms in 0..4000 {
                let now = retained(dirty, ms);
                assert!(now <= last, "{dirty} granules: {last} then {now} at {ms} ms");
                last = now;
            }
            assert!(retained(dirty, u64::MAX) <= KEEP_GRANULES);
        }
        assert_eq!(retained(1 << 20, HALF_LIFE_MS), 1 << 19);
    }

    #[test]
    fn sweeps_back_off_when_they_find_nothing() {
        assert!(next_sweep(8192, 0) > next_sweep(8192, 4096));
        assert!(next_sweep(0, 0) >= KEEP_GRANULES);
        assert!(!sweep_before_growth(10, next_sweep(10, 0)));
        assert_eq!(next_sweep(usize::MAX, 0), usize::MAX);
    }
}
