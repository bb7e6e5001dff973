//! Little-endian numbers in byte slices; what does not fit is `None`. And comparisons of
//! short slices.
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects
)]

use core::cmp::Ordering;

/// `bytes[at..at + len]`, if that is inside.
#[inline]
pub(crate) fn slice(bytes: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    bytes.get(at..)?.get(..len)
}

#[inline]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    slice(bytes, at, 2)?.try_into().ok().map(u16::from_le_bytes)
}

#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    slice(bytes, at, 4)?.try_into().ok().map(u32::from_le_bytes)
}

#[inline]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    slice(bytes, at, 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// Takes `len` bytes from the front of `rest`.
pub(crate) fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (front, back) = rest.split_at_checked(len)?;
    *rest = back;
    Some(front)
}

/// Takes a number from the front of `rest`.
pub(crate) fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest, 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// Whether two slices are equal: as `==`, but without a call for the few words that keys
/// have after prefix and head.
#[inline]
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    if let (Some(last), Some(other_last)) = (one.last_chunk::<8>(), other.last_chunk::<8>()) {
        // The last word overlaps the one before it, so that no byte is left over.
        let (words, other_words) = (one.as_chunks::<8>().0, other.as_chunks::<8>().0);
        return last == other_last && words.iter().zip(other_words).all(|(a, b)| a == b);
    }
    match (one.first_chunk::<4>(), other.first_chunk::<4>()) {
        (Some(first), Some(other_first)) => {
            first == other_first && one.last_chunk::<4>() == other.last_chunk::<4>()
        }
        _ => one.iter().zip(other).all(|(a, b)| a == b),
    }
}

/// The order of two slices: as `cmp`, but without a call.
#[inline]
pub(crate) fn order(one: &[u8], other: &[u8]) -> Ordering {
    let ((words, rest), (other_words, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    for (a, b) in words.iter().zip(other_words) {
        if a != b {
            return u64::from_be_bytes(*a).cmp(&u64::from_be_bytes(*b));
        }
    }
    if one.len() == other.len()
        && let (Some(last), Some(other_last)) = (one.last_chunk(), other.last_chunk())
    {
        // What the last words have of the words before is the same.
        return u64::from_be_bytes(*last).cmp(&u64::from_be_bytes(*other_last));
    }
    // What follows the last word that both have, filled up with zeros. Zero is the lowest
    // byte, so only what is equal up to the end of the shorter one is left to the lengths.
    let after = words.len().min(other_words.len());
    let next = |words: &[[u8; 8]], rest: &[u8]| match words.get(after) {
        Some(word) => u64::from_be_bytes(*word),
        None => filled(rest),
    };
    let order = next(words, rest).cmp(&next(other_words, other_rest));
    order.then(one.len().cmp(&other.len()))
}

/// Up to eight bytes as a big-endian number, filled up with zeros behind them.
#[inline]
pub(crate) fn filled(bytes: &[u8]) -> u64 {
    let word = |bytes: &[u8; 4]| u64::from(u32::from_be_bytes(*bytes));
    match (bytes.first_chunk(), bytes.last_chunk(), bytes) {
        // The two words overlap; where they do they are the same.
        (Some(first), Some(last), _) => {
            let missing = 8_u32.saturating_sub(u32::try_from(bytes.len()).unwrap_or(8));
            word(first) << 32 | word(last).wrapping_shl(missing.wrapping_mul(8))
        }
        (_, _, &[]) => 0,
        (_, _, &[a]) => word(&[a, 0, 0, 0]) << 32,
        (_, _, &[a, b]) => word(&[a, b, 0, 0]) << 32,
        (_, _, &[a, b, c, ..]) => word(&[a, b, c, 0]) << 32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_slices_compare_as_slices_do() {
        // All lengths around the words, each byte changed to one below, above, or zero.
        let mut slices = Vec::new();
        for len in 0..=26_usize {
            let slice: Vec<u8> = (0..len)
                .map(|at| 100 + u8::try_from(at).unwrap_or(0))
                .collect();
            for at in 0..len {
                for byte in [0, 99, 127, 128, 255] {
                    let mut changed = slice.clone();
                    changed.iter_mut().skip(at).for_each(|to| *to = byte);
                    slices.push(changed);
                }
            }
            slices.push(slice);
        }
        for one in &slices {
            for other in &slices {
                assert_eq!(order(one, other), one.cmp(other), "{one:?} {other:?}");
                assert_eq!(same(one, other), one == other, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_short_slice_is_filled_up_with_zeros() {
        let bytes = [9, 8, 7, 6, 5, 4, 3, 2];
        for len in 0..=8 {
            let (mut expected, short) = ([0; 8], bytes.get(..len).unwrap_or(&[]));
            for (to, from) in expected.iter_mut().zip(short) {
                *to = *from;
            }
            assert_eq!(filled(short), u64::from_be_bytes(expected));
        }
    }
}
