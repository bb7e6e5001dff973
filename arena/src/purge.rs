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
    let rest = (elapsed_ms % HALF_LIFE_MS) as usize;
    #[expect(clippy::cast_possible_truncation, reason = "a small constant")]
    let part = (whole / 2 / HALF_LIFE_MS as usize).saturating_mul(rest);
    (whole - part).max(KEEP_GRANULES)
}

/// Whether free OS pages inside part-used spans are to be purged before a heap of
/// `committed` granules grows: when `free` granules' worth of resident free blocks lie in
/// spans, and the last sweep left `swept`.
///
/// A sweep costs time in proportion to the heap and finds nothing where nothing was
/// freed; so it waits until a sixteenth of the heap was.
pub(crate) fn sweep_is_due(committed: usize, free: usize, swept: usize) -> bool {
    free.saturating_sub(swept) >= (committed / 16).max(KEEP_GRANULES)
}

/// Committed granules at which [`sweep_is_due`] is asked again, after it was at
/// `committed`: it costs a visit to each class.
pub(crate) fn next_look(committed: usize) -> usize {
    committed.saturating_add((committed / 32).max(KEEP_GRANULES / 4))
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
                assert!(
                    now <= last,
                    "{dirty} granules: {last} then {now} at {ms} ms"
                );
                last = now;
            }
            assert!(retained(dirty, u64::MAX) <= KEEP_GRANULES);
        }
        assert_eq!(retained(1 << 20, HALF_LIFE_MS), 1 << 19);
    }

    #[test]
    fn a_sweep_waits_for_a_sixteenth_of_the_heap() {
        assert!(!sweep_is_due(16_000, 999, 0));
        assert!(sweep_is_due(16_000, 1000, 0));
        assert!(!sweep_is_due(16_000, 1500, 1000));
        assert!(!sweep_is_due(0, KEEP_GRANULES - 1, 0));
        assert!(!sweep_is_due(16_000, 0, usize::MAX));
        assert!(next_look(0) > 0 && next_look(usize::MAX) == usize::MAX);
    }
}
