//! The heads of a node's keys: the first four bytes of each, in an array of their own.
//!
//! A head is stored as the number that it is compared as: a big-endian one with its top
//! bit flipped, so that SSE2 could compare them, too, which knows signed numbers only.
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects
)]

use crate::format::bytes::filled;

/// A head as it is stored.
pub(crate) type Head = [u8; 4];

/// The head of a key whose prefix is cut off; filled up with zeros.
#[inline]
pub(crate) fn head_of(suffix: &[u8]) -> i32 {
    let head = match suffix.first_chunk() {
        Some(head) => u32::from_be_bytes(*head),
        None => {
            let [a, b, c, d, ..] = filled(suffix).to_be_bytes();
            u32::from_be_bytes([a, b, c, d])
        }
    };
    (head ^ 0x8000_0000).cast_signed()
}

/// The four bytes that [`head_of`] was made of.
#[inline]
pub(crate) fn bytes_of(head: Head) -> [u8; 4] {
    (u32::from_le_bytes(head) ^ 0x8000_0000).to_be_bytes()
}

#[inline]
pub(crate) fn value_of(head: Head) -> i32 {
    i32::from_le_bytes(head)
}

/// How many of the heads, which ascend, are below `head`. Six instructions for each
/// halving, and no jump that depends on the head; counting the last 32 with SSE2 took more
/// (`docs/decisions/011-reading-nodes.md`).
#[inline]
pub(crate) fn count_below(heads: &[Head], head: i32) -> usize {
    heads.partition_point(|&each| value_of(each) < head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_ordered_as_the_first_bytes_of_keys_are() {
        let keys = [
            "", "\0", "a", "ab", "abc", "abcd", "b", "\u{7f}", "\u{80}", "\u{7ff}",
        ];
        let heads = keys.map(|key| head_of(key.as_bytes()));
        assert!(heads.is_sorted(), "{heads:?}");
        // A zero at the end is a byte like others, but filling up gives the same.
        assert_eq!(heads.first(), heads.get(1));
        for (key, head) in keys.iter().zip(heads) {
            let mut filled = [0; 4];
            for (to, from) in filled.iter_mut().zip(key.bytes()) {
                *to = from;
            }
            assert_eq!(bytes_of(head.to_le_bytes()), filled, "{key:?}");
        }
    }

    #[test]
    fn counting_finds_what_looking_at_each_head_finds() {
        for count in (0..100_i32).chain([255, 256, 257, 400]) {
            // Each head three times, and the ends of the range.
            let mut heads: Vec<i32> = (0..count).map(|at| at / 3 * 10 - 50).collect();
            if let Some(last) = heads.last_mut() {
                *last = i32::MAX;
            }
            if let Some(first) = heads.first_mut() {
                *first = i32::MIN;
            }
            let stored: Vec<Head> = heads.iter().map(|head| head.to_le_bytes()).collect();
            for head in (-60..count * 4).chain([i32::MIN, i32::MAX]) {
                let expected = heads.iter().filter(|&&each| each < head).count();
                assert_eq!(count_below(&stored, head), expected, "{count} {head}");
            }
        }
    }
}
