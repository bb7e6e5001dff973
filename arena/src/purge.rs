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
/// Dirty granules (4 KiB) that are not worth a system call: 1 MiB. A fuzzer's programs are
/// small, and are to sweep and to lend all the same.
pub(crate) const KEEP_GRANULES: usize = if cfg!(fuzzing) { 4 } else { 256 };

/// Dirty granules that may stay after `elapsed_ms` when `dirty` were there before.
///
/// Halves every `half_life_ms`, linear in between; at most [`KEEP_GRANULES`] are left
/// alone for ever, and none when the half-life is 0. `u64::MAX` is no decay.
pub(crate) fn retained(dirty: usize, elapsed_ms: u64, half_life_ms: u64) -> usize {
    if half_life_ms == 0 {
        return 0;
    }
    if dirty <= KEEP_GRANULES || half_life_ms == u64::MAX {
        return dirty;
    }
    let halvings = elapsed_ms / half_life_ms;
    if halvings >= u64::from(usize::BITS) {
        return KEEP_GRANULES;
    }
    let whole = dirty >> halvings;
    let part = (whole as u128 / 2) * u128::from(elapsed_ms % half_life_ms);
    let part = part / u128::from(half_life_ms);
    (whole - usize::try_from(part).unwrap_or(whole)).max(KEEP_GRANULES)
}

/// Granules that may be given back in a millisecond when threads end: to give one back and to have
/// it again takes some 2 µs, and a fiftieth of the time may go there.
const SETTLED_PER_MS: usize = 10;

/// Milliseconds for which nothing more goes back when threads end, after `granules` did.
pub(crate) fn settled_ms(granules: usize) -> u64 {
    u64::try_from(granules / SETTLED_PER_MS).unwrap_or(u64::MAX)
}

/// Committed granules from which on a purge thread is worth starting: 4 MiB.
pub(crate) const START_GRANULES: usize = 1024;

/// Granules of resident free blocks for which the purge thread sweeps a quiet heap.
const BACKGROUND_GRANULES: usize = 32;

/// Whether the purge thread is to give back the free OS pages inside part-used spans of
/// a heap of `committed` granules, of which `unwanted` were resident and free at its last
/// two looks, and the last sweep left `swept`.
///
/// While the heap is in use ([`sweep_is_due`]) a sweep takes what may be wanted again, so
/// a good part must be there; a quiet heap gives all back that is worth the calls.
pub(crate) fn background_sweep_is_due(
    committed: usize,
    unwanted: usize,
    swept: usize,
    quiet: bool,
) -> bool {
    if quiet {
        unwanted.saturating_sub(swept) >= BACKGROUND_GRANULES
    } else {
        sweep_is_due(committed, unwanted, swept, 0)
    }
}

/// Milliseconds between two looks of the purge thread at a heap with something to give.
pub(crate) fn pause_ms(decay_ms: u64, idle_ms: u64) -> u64 {
    (decay_ms.min(idle_ms) / 2).clamp(TICK_MS, 1000)
}

/// Bytes of free blocks that all thread caches together may always have room for.
const CACHED_FLOOR_BYTES: usize = 32 << 20;

/// Bytes of free blocks that all thread caches of a heap of `committed` bytes together
/// may have room for, beyond the few that each may always hold: an eighth of the heap, or
/// 32 MiB.
pub(crate) const fn most_cached(committed: usize) -> usize {
    let share = committed / 8;
    if share > CACHED_FLOOR_BYTES {
        share
    } else {
        CACHED_FLOOR_BYTES
    }
}

/// Bytes of free blocks that one of `threads` threads may set aside, each of which may have `own` in
/// its magazines: four times as much for one alone, which others share.
pub(crate) fn most_set_aside(own: usize, threads: usize) -> usize {
    own.saturating_mul(4) / threads.clamp(1, 4)
}

/// Whether the `aside` bytes that a thread set aside go back to their spans before a heap of
/// `committed` bytes grows.
///
/// In a heap that grows for long, one does so every few operations. What is less than a 128th of it is not
/// felt in its memory, and serves the thread as blocks of the same sizes come and go.
pub(crate) fn aside_is_felt(committed: usize, aside: usize) -> bool {
    aside >= committed / 128
}

/// Whether free OS pages inside part-used spans are to be purged before a heap of
/// `committed` granules grows: when `free` granules' worth of resident free blocks lie in
/// spans, and the last sweep left `swept`.
///
/// A sweep costs time in proportion to the heap and finds nothing where nothing was
/// freed; so it waits until a sixteenth of the heap was, and with each step of `patience` twice as much.
pub(crate) fn sweep_is_due(committed: usize, free: usize, swept: usize, patience: usize) -> bool {
    free.saturating_sub(swept) >= ((committed / 16) << patience).max(KEEP_GRANULES)
}

/// Steps of patience: an eighth of the heap, a quarter, half.
const MOST_PATIENCE: usize = 3;

/// The patience after a sweep, if it was `patience` before, that gave back `gone` granules, of which
/// and of those of earlier sweeps `back` were touched again until the next.
///
/// A heap whose blocks come and go in the same sizes wants its free pages again: what a sweep gives
/// back costs two page faults and a call, and the heap grows all the same.
pub(crate) fn patience_after(patience: usize, gone: usize, back: usize) -> usize {
    if gone == 0 {
        patience
    } else if back >= gone / 2 {
        (patience + 1).min(MOST_PATIENCE)
    } else {
        patience.saturating_sub(1)
    }
}

/// Whether runs of free blocks are to be lent to larger classes before a heap of `committed`
/// granules grows: when `free` granules' worth of free blocks lie in spans.
///
/// Guests keep the span of their host from being given back whole, so a heap that is nearly
/// full of what the program holds grows instead.
pub(crate) fn lending_is_due(committed: usize, free: usize) -> bool {
    free >= (committed / 8).max(KEEP_GRANULES)
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
            assert_eq!(retained(dirty, 0, 250), dirty);
            assert_eq!(retained(dirty, 9999, u64::MAX), dirty);
            assert_eq!(retained(dirty, 0, 0), 0);
            let mut last = dirty;
            for ms in 0..4000 {
                let now = retained(dirty, ms, 250);
                assert!(
                    now <= last,
                    "{dirty} granules: {last} then {now} at {ms} ms"
                );
                last = now;
            }
            assert!(retained(dirty, u64::MAX, 250) <= KEEP_GRANULES);
        }
        assert_eq!(retained(1 << 20, 250, 250), 1 << 19);
    }

    #[test]
    fn what_is_aside_is_felt_from_a_share_of_the_heap_on() {
        assert!(aside_is_felt(1 << 20, 8192));
        assert!(!aside_is_felt(1 << 20, 8191));
    }

    #[test]
    fn patience_rises_while_half_of_what_went_comes_back() {
        let wanted = |patience| patience_after(patience, 100, 50);
        let unwanted = |patience| patience_after(patience, 100, 49);
        assert_eq!([0, 1, 2, 3].map(wanted), [1, 2, 3, 3]);
        assert_eq!([0, 1, 2, 3].map(unwanted), [0, 0, 1, 2]);
        assert_eq!(patience_after(2, 0, 100), 2);
    }

    #[test]
    fn a_sweep_waits_for_a_sixteenth_of_the_heap() {
        assert!(!sweep_is_due(16_000, 999, 0, 0));
        assert!(sweep_is_due(16_000, 1000, 0, 0));
        assert!(!sweep_is_due(16_000, 1500, 1000, 0));
        assert!(!sweep_is_due(0, KEEP_GRANULES - 1, 0, 0));
        assert!(!sweep_is_due(16_000, 0, usize::MAX, 0));
        assert!(!sweep_is_due(16_000, 7999, 0, 3) && sweep_is_due(16_000, 8000, 0, 3));
        assert!(next_look(0) > 0 && next_look(usize::MAX) == usize::MAX);
    }
}
