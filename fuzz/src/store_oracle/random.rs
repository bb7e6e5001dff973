//! Operations from a seed.

use super::args::Key;
use super::op::Op;

/// Small numbers from a seed (xorshift64*, Vigna 2016).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers that belong to a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap_or(0) % n
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap_or(0)
    }

    /// The bytes of a key.
    pub fn key(&mut self) -> Vec<u8> {
        Key::choose(&mut |n| self.below(n)).bytes()
    }

    /// An operation.
    pub fn op(&mut self) -> Op {
        Op::choose(&mut |n| self.below(n))
    }
}
