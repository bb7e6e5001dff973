//! Zeroing blocks and comparing them with zero: what a hardened heap does most. Up to some
//! hundred bytes wide stores and loads in line, for more the C library's function.
//!
//! Blocks up to 64 bytes take the same instructions whatever their size, so that a program
//! that mixes sizes has no branch to guess: four words of 16 bytes, which overlap in a smaller
//! block. Up to 256 bytes the same is done at both ends.
//!
//! ```text
//! 64 bytes   | first | first + step |  last - step   | last  |
//! 48 bytes   | first |  first + step = last - step   | last  |
//! 16 bytes   |  first = first + step = last - step = last    |
//! ```

use core::mem;

/// Up to here [`zero_few`] and [`are_few_zero`] serve.
pub(crate) const FEW_BYTES: usize = 256;

/// Up to here a loop in line is faster than a call.
const SOME_BYTES: usize = 512;

/// Bytes that are stored at once.
const WORD: usize = 16;

/// Bytes that the loop for more than a few does at a time.
const STEP: usize = 128;

#[cfg(not(target_arch = "x86_64"))]
use self::plain::{Wide, is_zero, or};
#[cfg(target_arch = "x86_64")]
use self::sse::{Wide, is_zero, or};

/// What is stored and compared at once: every such processor has these instructions. One of them
/// both loads a word and adds its bits, which the compiler does not find for plain integers.
#[cfg(target_arch = "x86_64")]
mod sse {
    use core::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_or_si128};

    pub(super) use core::arch::x86_64::__m128i as Wide;

    #[inline(always)]
    pub(super) fn or(a: Wide, b: Wide) -> Wide {
        // SAFETY: SSE2 is part of the architecture.
        unsafe { _mm_or_si128(a, b) }
    }

    #[inline(always)]
    pub(super) fn is_zero(a: Wide) -> bool {
        // SAFETY: as above.
        unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(a, super::ZERO)) == 0xffff }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod plain {
    pub(super) type Wide = u128;

    #[inline(always)]
    pub(super) fn or(a: Wide, b: Wide) -> Wide {
        a | b
    }

    #[inline(always)]
    pub(super) fn is_zero(a: Wide) -> bool {
        a == 0
    }
}

// SAFETY: plain bits, for which zeroes are valid.
const ZERO: Wide = unsafe { mem::zeroed() };

/// Zeroes the 16 bytes at `at`.
///
/// # Safety
///
/// They are aligned to 16, and the caller's to write.
#[inline(always)]
unsafe fn zero_word(at: *mut u8) {
    // SAFETY: by contract. Volatile, or the compiler makes calls of stores side by side.
    unsafe { at.cast::<Wide>().write_volatile(ZERO) };
}

/// Bits that were seen; of words in turn, so that no addition waits for the one before.
#[derive(Clone, Copy)]
struct Seen([Wide; 2]);

impl Seen {
    const NONE: Self = Self([ZERO; 2]);

    /// With those of the 16 bytes at `at`.
    ///
    /// # Safety
    ///
    /// They are aligned to 16, and initialised.
    #[inline(always)]
    unsafe fn with(self, at: *const u8) -> Self {
        // SAFETY: by contract.
        let word = unsafe { at.cast::<Wide>().read() };
        Self([self.0[1], or(self.0[0], word)])
    }

    #[inline(always)]
    fn is_none(self) -> bool {
        is_zero(or(self.0[0], self.0[1]))
    }
}

/// Calls `f` with words of a block of `len` bytes at `block` that cover it together.
///
/// # Safety
///
/// `len` is a multiple of 16 from 16 to [`FEW_BYTES`], and of 32 above 128; the block has so many
/// bytes.
#[inline(always)]
unsafe fn for_few(block: *mut u8, len: usize, mut f: impl FnMut(*mut u8)) {
    let last = len - WORD;
    let step = last.min(WORD);
    let mut at = |offset: usize| {
        // SAFETY: in all that follows an offset is at most `last`, so inside the block.
        f(unsafe { block.add(offset) });
    };
    at(0);
    at(step);
    at(last - step);
    at(last);
    if len <= 64 {
        return;
    }
    // 32 bytes are done at either end; these make 64 of them.
    at(2 * WORD);
    at(3 * WORD);
    at(last - 2 * WORD);
    at(last - 3 * WORD);
    if len <= 128 {
        return;
    }
    // And these 128.
    for words in 4..8 {
        at(words * WORD);
        at(last - words * WORD);
    }
}

/// Zeroes `len` bytes.
///
/// # Safety
///
/// As for [`for_few`]; the block is aligned to 16 bytes, and the caller's.
#[inline(always)]
pub(crate) unsafe fn zero_few(block: *mut u8, len: usize) {
    // SAFETY: by contract.
    unsafe { for_few(block, len, |at| zero_word(at)) };
}

/// Whether `len` bytes are zero.
///
/// # Safety
///
/// As for [`zero_few`], and all are initialised.
#[inline(always)]
pub(crate) unsafe fn are_few_zero(block: *mut u8, len: usize) -> bool {
    let mut seen = Seen::NONE;
    // SAFETY: by contract.
    unsafe { for_few(block, len, |at| seen = seen.with(at)) };
    seen.is_none()
}

/// Calls `f` with words of a block of `len` bytes at `block` that cover it together.
///
/// # Safety
///
/// `len` is a multiple of 16 from [`STEP`] on; the block has so many bytes.
#[inline(always)]
unsafe fn for_many(block: *mut u8, len: usize, mut f: impl FnMut(*mut u8)) {
    let last = len - STEP;
    let mut at = 0;
    loop {
        for word in 0..STEP / WORD {
            // SAFETY: `at` is at most `last`, so inside the block.
            f(unsafe { block.add(at + word * WORD) });
        }
        if at == last {
            return;
        }
        // The last step may cover again what the one before did.
        at = last.min(at + STEP);
    }
}

/// Zeroes a block of `len` bytes, more than [`FEW_BYTES`].
///
/// # Safety
///
/// The block is aligned to 16 bytes, has `len` bytes, a multiple of 64, and is the caller's.
#[inline(always)]
pub(crate) unsafe fn zero_many(block: *mut u8, len: usize) {
    if len > SOME_BYTES {
        // SAFETY: by contract.
        unsafe { block.write_bytes(0, len) };
        return;
    }
    // SAFETY: by contract.
    unsafe { for_many(block, len, |at| zero_word(at)) };
}

/// Whether `len` bytes are zero.
///
/// # Safety
///
/// As for [`zero_many`]; all are initialised, and nobody writes to the block meanwhile.
#[inline(always)]
pub(crate) unsafe fn are_many_zero(block: *mut u8, len: usize) -> bool {
    let mut seen = Seen::NONE;
    // SAFETY: by contract.
    unsafe { for_many(block, len, |at| seen = seen.with(at)) };
    seen.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Zeroes and compares blocks of `len` bytes by these.
    ///
    /// # Safety
    ///
    /// They are functions of this module that serve such blocks.
    unsafe fn check(
        len: usize,
        zero: unsafe fn(*mut u8, usize),
        are_zero: unsafe fn(*mut u8, usize) -> bool,
    ) {
        let mut memory = vec![u128::MAX; len / 16 + 2];
        let block = memory[1..].as_mut_ptr().cast::<u8>();
        // SAFETY: `memory` has `len` bytes there and 16 behind, at a multiple of 16.
        unsafe {
            zero(block, len);
            assert!(are_zero(block, len));
            assert_eq!(block.add(len).cast::<u128>().read(), u128::MAX);
            for at in 0..len {
                assert_eq!(block.add(at).read(), 0);
                block.add(at).write(1);
                assert!(!are_zero(block, len), "byte {at} of {len}");
                block.add(at).write(0);
            }
        }
        assert_eq!(memory[0], u128::MAX);
    }

    #[test]
    fn one_byte_that_is_not_zero_is_seen_wherever_it_is() {
        for len in (16..=128).step_by(16).chain((160..=256).step_by(32)) {
            // SAFETY: lengths that they serve.
            unsafe { check(len, |b, l| zero_few(b, l), |b, l| are_few_zero(b, l)) };
        }
        for len in (320..=1024).step_by(64) {
            // SAFETY: lengths that they serve.
            unsafe { check(len, |b, l| zero_many(b, l), |b, l| are_many_zero(b, l)) };
        }
    }
}
