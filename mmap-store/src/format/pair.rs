//! A key and a value of a multi-map in one key of its tree, ordered as the two are.
//!
//! ```text
//!   key, each 0 as 0 255 | 0 0 | value
//! ```
//!
//! No key's end is the start of another's: two zeros occur nowhere before it. And it is
//! below all that may follow a longer key, so that shorter keys come first. Typed keys
//! write their parts in the same way.
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects
)]

/// Follows a zero of a key.
const ESCAPED: u8 = 255;
/// What ends a key, and what is above all pairs of that key, below those of others.
const END: [u8; 2] = [0, 0];
const AFTER: [u8; 2] = [0, 1];

fn escape(key: &[u8], out: &mut Vec<u8>) {
    for part in key.split_inclusive(|&byte| byte == 0) {
        out.extend_from_slice(part);
        if part.last() == Some(&0) {
            out.push(ESCAPED);
        }
    }
}

/// Appends the key and its end; the value comes after it.
pub(crate) fn push_key(key: &[u8], out: &mut Vec<u8>) {
    escape(key, out);
    out.extend_from_slice(&END);
}

/// The key and its value in one.
pub(crate) fn encode(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = lower(key);
    out.extend_from_slice(value);
    out
}

/// At or below all pairs of `key`, above those of keys before it.
pub(crate) fn lower(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push_key(key, &mut out);
    out
}

/// Above all pairs of `key`, below those of keys after it.
pub(crate) fn upper(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    escape(key, &mut out);
    out.extend_from_slice(&AFTER);
    out
}

/// Takes a key and its end from the front of `rest`, and puts it in the place of what is
/// in `key`; `None` if it is not one.
pub(crate) fn take_key(rest: &mut &[u8], key: &mut Vec<u8>) -> Option<()> {
    key.clear();
    loop {
        let zero = rest.iter().position(|&byte| byte == 0)?;
        let (part, back) = rest.split_at_checked(zero)?;
        let (&[_, mark], back) = back.split_first_chunk::<2>()?;
        *rest = back;
        key.extend_from_slice(part);
        match mark {
            ESCAPED => key.push(0),
            0 => return Some(()),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        vec(prop_oneof![Just(0_u8), Just(1), Just(254), Just(255)], 0..7)
    }

    proptest! {
        #[test]
        fn pairs_are_ordered_as_key_and_value_are(
            one in (bytes(), bytes()),
            other in (bytes(), bytes()),
        ) {
            let encoded = [&one, &other].map(|(key, value)| encode(key, value));
            prop_assert_eq!(encoded[0].cmp(&encoded[1]), one.cmp(&other));
            let (lower, upper) = (lower(&one.0), upper(&one.0));
            prop_assert_eq!(encoded[1] < lower, other.0 < one.0);
            prop_assert_eq!(encoded[1] > upper, other.0 > one.0);
        }

        #[test]
        fn a_pair_comes_back(key in bytes(), value in bytes()) {
            let encoded = encode(&key, &value);
            let (mut rest, mut found) = (&encoded[..], vec![7]);
            prop_assert_eq!(take_key(&mut rest, &mut found), Some(()));
            prop_assert_eq!((found, rest), (key, &value[..]));
        }

        #[test]
        fn what_is_taken_for_a_pair_would_be_written_so(bytes in bytes()) {
            let (mut rest, mut key) = (&bytes[..], Vec::new());
            if take_key(&mut rest, &mut key).is_some() {
                prop_assert_eq!(encode(&key, rest), bytes);
            }
        }
    }
}
