//! Keys, values, and what a reader must find: the oracle that every store is held against.

use anyhow::{Result, ensure};
use fastrand::Rng;

use super::adapter::View;

/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 150;

/// Values are cut from so many random bytes: they do not compress, and making one costs a
/// copy.
const NOISE_BYTES: usize = 1 << 20;

/// From one of the places where values are cut to the next: 2¹⁶ of them.
const PLACE_BYTES: usize = (NOISE_BYTES - VALUE_BYTES) >> 16;

/// What keys look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// 16 to 24 random bytes.
    Random,
    /// `user:` and 12 digits.
    User,
    /// Addresses of things on a thousand hosts: long prefixes that many share.
    Url,
}

/// Entries by number. The value of an entry depends on its number and on how often it was
/// written before.
#[derive(Debug)]
pub(crate) struct Data {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    noise: Vec<u8>,
}

/// Spreads numbers over all of 64 bits (the last step of `SplitMix64`).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Data {
    /// `count` entries; the same for every store.
    pub(crate) fn new(keys: Keys, count: usize) -> Self {
        let mut rng = Rng::with_seed(1);
        let mut noise = vec![0; NOISE_BYTES];
        rng.fill(&mut noise);
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(count));
        for index in 0..count as u64 {
            push_key(keys, index, &mut bytes);
            ends.push(bytes.len());
        }
        Self { bytes, ends, noise }
    }

    /// Number of entries.
    pub(crate) fn count(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of all keys and values.
    pub(crate) fn logical_bytes(&self) -> u64 {
        (self.bytes.len() + self.count() * VALUE_BYTES) as u64
    }

    /// The key of an entry.
    #[inline]
    pub(crate) fn key(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[index]]
    }

    /// Writes the value of an entry that was written `version` times before.
    #[inline]
    pub(crate) fn value(&self, index: usize, version: u32, out: &mut [u8; VALUE_BYTES]) {
        let tag = tag(index, version);
        let [.., one, other] = tag.to_le_bytes();
        let place = usize::from(u16::from_le_bytes([one, other])) * PLACE_BYTES;
        out.copy_from_slice(&self.noise[place..place + VALUE_BYTES]);
        out[..8].copy_from_slice(&tag.to_le_bytes());
    }

    /// Whether the value's length and first bytes are right: what timed loops look at.
    #[inline]
    pub(crate) fn is_of(index: usize, version: u32, value: Option<&[u8]>) -> bool {
        value.is_some_and(|value| {
            value.len() == VALUE_BYTES && value[..8] == tag(index, version).to_le_bytes()
        })
    }

    /// The numbers of the entries in the order of their keys.
    pub(crate) fn sorted(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.count()).collect();
        order.sort_unstable_by(|&one, &other| self.key(one).cmp(self.key(other)));
        order
    }

    /// The numbers of the entries in an order that has nothing to do with their keys.
    pub(crate) fn shuffled(&self, seed: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.count()).collect();
        Rng::with_seed(seed).shuffle(&mut order);
        order
    }

    /// Reads the whole table and compares every byte: exactly the entries for which
    /// `version` is not `None`, in the order of their keys.
    pub(crate) fn check_all<V: View>(
        &self,
        view: &V,
        sorted: &[usize],
        version: impl Fn(usize) -> Option<u32>,
    ) -> Result<()> {
        let mut expected = sorted
            .iter()
            .copied()
            .filter_map(|index| Some((index, version(index)?)));
        let (mut wrong, mut value) = (0_usize, [0; VALUE_BYTES]);
        view.scan(&[], usize::MAX, |key, found| {
            let Some((index, version)) = expected.next() else {
                wrong += 1;
                return;
            };
            self.value(index, version, &mut value);
            wrong += usize::from(key != self.key(index) || found != value);
        })?;
        let missing = expected.count();
        ensure!(
            wrong == 0 && missing == 0,
            "the oracle disagrees: {wrong} entries are wrong, {missing} are missing"
        );
        Ok(())
    }
}

/// The first bytes of a value.
#[inline]
fn tag(index: usize, version: u32) -> u64 {
    mix(index as u64 | u64::from(version) << 40)
}

fn push_key(keys: Keys, index: u64, out: &mut Vec<u8>) {
    let mixed = mix(index);
    match keys {
        Keys::Random => {
            let len = 16 + usize::try_from(mixed % 9).unwrap_or(0);
            let words = [mixed, mix(mixed), mix(!mixed)].map(u64::to_le_bytes);
            out.extend(words.as_flattened().iter().take(len));
        }
        Keys::User => {
            // Odd and no multiple of five: each number below 10^12 once.
            let number = index.wrapping_mul(617_283_945_671) % 1_000_000_000_000;
            out.extend(format!("user:{number:012}").as_bytes());
        }
        Keys::Url => {
            const SHELVES: [&str; 8] = [
                "books", "cameras", "garden", "kitchen", "music", "office", "sports", "toys",
            ];
            let (host, shelf) = (
                mixed % 1000,
                SHELVES[usize::try_from(mixed >> 32).unwrap_or(0) % 8],
            );
            let key = format!("https://www.host{host:03}.example/{shelf}/item/{index:08}");
            out.extend(key.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_distinct_and_values_tell_entry_and_version() {
        for keys in [Keys::Random, Keys::User, Keys::Url] {
            let data = Data::new(keys, 20_000);
            let sorted = data.sorted();
            let distinct = sorted
                .windows(2)
                .all(|pair| data.key(pair[0]) < data.key(pair[1]));
            assert!(distinct, "{keys:?}");
            let mut value = [0; VALUE_BYTES];
            data.value(7, 3, &mut value);
            assert!(Data::is_of(7, 3, Some(&value)));
            assert!(!Data::is_of(7, 2, Some(&value)) && !Data::is_of(8, 3, Some(&value)));
            assert!(!Data::is_of(7, 3, Some(&value[1..])) && !Data::is_of(7, 3, None));
        }
    }

    /// A table of a store that lost an entry, or has an old value.
    struct Fake(Vec<(Vec<u8>, Vec<u8>)>);

    impl View for Fake {
        fn get<R>(&self, _: &[u8], take: impl FnOnce(Option<&[u8]>) -> R) -> Result<R> {
            Ok(take(None))
        }

        fn scan(&self, _: &[u8], _: usize, mut each: impl FnMut(&[u8], &[u8])) -> Result<usize> {
            self.0.iter().for_each(|(key, value)| each(key, value));
            Ok(self.0.len())
        }
    }

    #[test]
    fn oracle_sees_what_is_missing_or_old() {
        let data = Data::new(Keys::User, 100);
        let sorted = data.sorted();
        let entries = |version: u32| {
            let entry = |&index: &usize| {
                let mut value = [0; VALUE_BYTES];
                data.value(index, version, &mut value);
                (data.key(index).to_vec(), value.to_vec())
            };
            sorted.iter().map(entry).collect::<Vec<_>>()
        };
        let check = |fake: &Fake| data.check_all(fake, &sorted, |_| Some(1));
        let mut fake = Fake(entries(1));
        assert!(check(&fake).is_ok());
        fake.0[50] = entries(0)[50].clone();
        assert!(check(&fake).is_err(), "an old value");
        fake = Fake(entries(1));
        fake.0.remove(99);
        assert!(check(&fake).is_err(), "the last entry is gone");
        fake.0.clear();
        assert!(check(&fake).is_err(), "all are gone");
    }
}
