//! Zeroing blocks and comparing them with zero: what a hardened heap does most. For a few bytes
//! loops that stay loops, for more the C library's functions.

use core::mem;

/// Up to here loops in line are faster than a call.
pub(crate) const FEW_BYTES: usize = 256;

/// What is loaded and stored at once.
#[cfg(target_arch = "x86_64")]
type Wide = core::arch::x86_64::__m128i;
#[cfg(not(target_arch = "x86_64"))]
type Wide = u128;

/// Zeroes `len` bytes, a multiple of 16.
///
/// # Safety
///
/// The block is aligned to 16 bytes, has `len` bytes, and is the caller's.
#[inline(always)]
pub(crate) unsafe fn zero_few(block: *mut u8, len: usize) {
    // SAFETY: plain bits, for which zeroes are valid.
    const ZERO: Wide = unsafe { mem::zeroed() };
    let mut at = 0;
    while at < len {
        // SAFETY: by contract; `at` is a multiple of 16 below `len`. Volatile, or the
        // compiler makes a call of the loop.
        unsafe { block.add(at).cast::<Wide>().write_volatile(ZERO) };
        at += size_of::<Wide>();
    }
}

/// Whether `len` bytes, a multiple of 16, are zero.
///
/// # Safety
///
/// The block is aligned to 16 bytes, and has `len` bytes that are initialised.
#[inline(always)]
pub(crate) unsafe fn are_few_zero(block: *mut u8, len: usize) -> bool {
    let (mut at, mut sum) = (0, 0);
    while at < len {
        // SAFETY: by contract; `at` is a multiple of 16 below `len`. Volatile, or the
        // compiler makes a hundred instructions of the loop, for blocks of a megabyte.
        let (low, high) = unsafe {
            let words = block.add(at).cast::<u64>();
            (words.read_volatile(), words.add(1).read_volatile())
        };
        sum |= low | high;
        at += 16;
    }
    sum == 0
}

/// Whether `len` bytes, a multiple of 8 and at least 8, are zero.
///
/// # Safety
///
/// As for [`are_few_zero`], and nobody writes to the block meanwhile.
pub(crate) unsafe fn is_zero(block: *mut u8, len: usize) -> bool {
    // SAFETY: by contract.
    let words = unsafe { core::slice::from_raw_parts(block.cast::<u64>(), len / 8) };
    // All are zero if the first is and each is like the next, which the C library's comparison
    // finds out faster than any loop here.
    words.first() == Some(&0) && words.get(1..) == words.get(..words.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_that_is_not_zero_is_seen_wherever_it_is() {
        let mut memory = [u128::MAX; 34];
        let block = memory[1..].as_mut_ptr().cast::<u8>();
        for len in (16..=512).step_by(16) {
            // SAFETY: `memory` has `len` bytes there and 16 behind, at a multiple of 16.
            unsafe {
                zero_few(block, len);
                assert!(are_few_zero(block, len) && is_zero(block, len));
                assert_eq!(block.add(len).read(), 0xff);
                for at in 0..len {
                    block.add(at).write(1);
                    assert!(!are_few_zero(block, len) && !is_zero(block, len));
                    block.add(at).write(0);
                }
            }
        }
        assert_eq!(memory[0], u128::MAX);
    }
}
