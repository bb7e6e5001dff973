//! A thread's way to its next sample for the heap profile: bytes that it may allocate
//! until then. Only the thread itself touches it.

use core::cell::Cell;
use core::ptr;

use crate::poisson;

/// Bytes until a thread asks again whether there is a profile.
const LOOK_AGAIN_BYTES: usize = 1 << 20;

/// See the module. Zeroes are a countdown that has not begun.
///
/// Cells, which are not shared between threads, where other figures of a cache are relaxed atomics: the
/// compiler subtracts from a cell in one instruction and jumps on the result of that.
#[derive(Debug)]
pub(crate) struct Countdown {
    left: Cell<usize>,
    /// State of the random numbers; 0 until there is a profile.
    state: Cell<u64>,
    /// Whether a sample is being taken.
    busy: Cell<bool>,
}

impl Countdown {
    /// A countdown that has not begun.
    pub(crate) const fn new() -> Self {
        Self {
            left: Cell::new(0),
            state: Cell::new(0),
            busy: Cell::new(false),
        }
    }

    /// Counts `bytes` of a block that the thread has already; `false` when the next sample lies in
    /// them or the countdown has not begun: then [`Self::uncount`] must follow.
    #[inline(always)]
    pub(crate) fn count(&self, bytes: usize) -> bool {
        let left = self.left.get();
        self.left.set(left.wrapping_sub(bytes));
        bytes < left
    }

    /// Takes back what [`Self::count`] counted, as if [`Self::spend`] had refused it.
    pub(crate) fn uncount(&self, bytes: usize) {
        self.left.set(self.left.get().wrapping_add(bytes));
    }

    /// Counts `bytes`; `false`, and nothing counted, when the next sample lies in them or
    /// the countdown has not begun: then [`Self::crossed`] must follow.
    #[inline(always)]
    pub(crate) fn spend(&self, bytes: usize) -> bool {
        let left = self.left.get();
        if bytes < left {
            self.left.set(left - bytes);
        }
        bytes < left
    }

    /// After [`Self::spend`] refused `bytes`: whether they are to be sampled, where a sample
    /// comes every `mean` bytes (0: never).
    pub(crate) fn crossed(&self, bytes: usize, mean: usize) -> bool {
        let mut state = self.state.get();
        if mean == 0 {
            self.state.set(0);
            self.left.set(LOOK_AGAIN_BYTES);
            return false;
        }
        if state == 0 {
            // Different for each thread, and for each run where addresses are.
            state = ptr::from_ref(self).addr() as u64 ^ crate::os::now_ms().rotate_left(40);
            self.draw(&mut state, mean);
            if self.spend(bytes) {
                return false;
            }
        }
        self.draw(&mut state, mean);
        true
    }

    /// Draws the bytes until the next sample.
    fn draw(&self, state: &mut u64, mean: usize) {
        let gap = poisson::gap(poisson::next(state), mean);
        self.left.set(gap);
        self.state.set((*state).max(1));
    }

    /// Runs `take`, unless the thread is inside it already: unwinding a stack for the first
    /// time may allocate.
    pub(crate) fn once<R>(&self, take: impl FnOnce() -> R) -> Option<R> {
        if self.busy.get() {
            return None;
        }
        self.busy.set(true);
        let result = take();
        self.busy.set(false);
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_back_is_not_counted() {
        let countdown = Countdown::new();
        countdown.left.set(100);
        assert!(countdown.count(60));
        for refused in [40, 41, usize::MAX] {
            assert!(!countdown.count(refused));
            countdown.uncount(refused);
            assert!(!countdown.spend(refused));
            assert_eq!(countdown.left.get(), 40);
        }
        assert!(countdown.count(39) && !countdown.count(1));
    }

    #[test]
    fn a_sample_comes_every_mean_bytes() {
        let countdown = Countdown::new();
        let mut samples = 0;
        for _ in 0..1_000_000 {
            if !countdown.spend(100) && countdown.crossed(100, 10_000) {
                samples += 1;
            }
        }
        // Of 100 bytes 1 − exp(−0.01) are sampled.
        assert!((9_500..10_500).contains(&samples), "{samples}");
    }

    #[test]
    fn without_a_profile_nothing_is_sampled() {
        let countdown = Countdown::new();
        for _ in 0..100_000 {
            assert!(countdown.spend(100) || !countdown.crossed(100, 0));
        }
    }

    #[test]
    fn a_sample_within_a_sample_is_not_taken() {
        let countdown = Countdown::new();
        assert_eq!(countdown.once(|| countdown.once(|| ())), Some(None));
        assert_eq!(countdown.once(|| ()), Some(()));
    }
}
