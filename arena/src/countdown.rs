//! A thread's way to its next sample for the heap profile: bytes that it may allocate
//! until then. Only the thread itself touches it.

use core::ptr;

use crate::poisson;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Bytes until a thread asks again whether there is a profile.
const LOOK_AGAIN_BYTES: usize = 1 << 20;

/// See the module. Zeroes are a countdown that has not begun.
#[derive(Debug)]
pub(crate) struct Countdown {
    left: AtomicUsize,
    /// State of the random numbers; 0 until there is a profile.
    state: AtomicU64,
    /// Whether a sample is being taken.
    busy: AtomicBool,
}

impl Countdown {
    /// A countdown that has not begun.
    pub(crate) const fn new() -> Self {
        Self {
            left: AtomicUsize::new(0),
            state: AtomicU64::new(0),
            busy: AtomicBool::new(false),
        }
    }

    /// [`Self::spend`] for the block that `take` has, if it has one: null, and nothing counted,
    /// if not or where `spend` refuses.
    #[inline(always)]
    pub(crate) fn spend_for(&self, bytes: usize, take: impl FnOnce() -> *mut u8) -> *mut u8 {
        // Relaxed: as in `spend`.
        let left = self.left.load(Ordering::Relaxed);
        if bytes >= left {
            return ptr::null_mut();
        }
        let block = take();
        if !block.is_null() {
            self.left.store(left - bytes, Ordering::Relaxed);
        }
        block
    }

    /// Counts `bytes`; `false`, and nothing counted, when the next sample lies in them or
    /// the countdown has not begun: then [`Self::crossed`] must follow.
    #[inline(always)]
    pub(crate) fn spend(&self, bytes: usize) -> bool {
        // Relaxed, here and below: the owner's own.
        let left = self.left.load(Ordering::Relaxed);
        if bytes < left {
            self.left.store(left - bytes, Ordering::Relaxed);
        }
        bytes < left
    }

    /// After [`Self::spend`] refused `bytes`: whether they are to be sampled, where a sample
    /// comes every `mean` bytes (0: never).
    pub(crate) fn crossed(&self, bytes: usize, mean: usize) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        if mean == 0 {
            self.state.store(0, Ordering::Relaxed);
            self.left.store(LOOK_AGAIN_BYTES, Ordering::Relaxed);
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
        self.left.store(gap, Ordering::Relaxed);
        self.state.store((*state).max(1), Ordering::Relaxed);
    }

    /// Runs `take`, unless the thread is inside it already: unwinding a stack for the first
    /// time may allocate.
    pub(crate) fn once<R>(&self, take: impl FnOnce() -> R) -> Option<R> {
        if self.busy.load(Ordering::Relaxed) {
            return None;
        }
        self.busy.store(true, Ordering::Relaxed);
        let result = take();
        self.busy.store(false, Ordering::Relaxed);
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_taken_is_not_spent() {
        let countdown = Countdown::new();
        let mut block = 0;
        countdown.left.store(100, Ordering::Relaxed);
        assert!(countdown.spend_for(60, ptr::null_mut).is_null());
        assert!(!countdown.spend_for(60, || &raw mut block).is_null());
        assert!(countdown.spend_for(60, || &raw mut block).is_null());
        assert_eq!(countdown.left.load(Ordering::Relaxed), 40);
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
