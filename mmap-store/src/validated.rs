//! Which values of the tree were found valid since their pages were written.
//!
//! Some types of values are not any bytes, and looking at all of them takes long. What was
//! found valid once stays so as long as its page is what it is, so it is remembered, in a
//! table of fixed size: a hint that may be missing, and never wrong.
//!
//! ```text
//!  bucket = page % BUCKETS: 16 words, each 0 or one value
//!
//!   63           41 40       33  32 31                        0
//!  +---------------+-----------+---+---------------------------+
//!  | page/BUCKETS  | type      | 0 | bytes, from the page on   |
//!  |               |           | 1 | offset (19) | bytes (13)  |
//!  +---------------+-----------+---+---------------------------+
//! ```
//!
//! A word says all by itself, with the bucket it is in: which bytes, and of which type of
//! the program they are a value. So nothing is read through it, and its atomics are relaxed.
//! What orders them is what orders the bytes. Invariants:
//!
//! - I1: a word is stored by somebody who has a snapshot (or is the writer) that reaches
//!   the page, so before the page is free: who frees it has seen that snapshot end.
//! - I2: all words of a page are gone before it is written anew ([`Validated::forget`]),
//!   so before there is a version that reaches what is written then.
//! - I3: a value lies in pages that are freed together, and a free page is written before a
//!   version reaches it. So where pages behind the first are written anew and that one is
//!   still free, its word is gone before anybody is lent bytes that start there.

use std::sync::OnceLock;

use crate::ids::{DIRTY_BIT, Extent, PAGE_BYTES};
use crate::sync::{AtomicU64, Ordering, Step, left_out};

/// Words of a bucket, two cache lines' worth, so that a leaf of sixteen values has room.
const WAYS: usize = if cfg!(loom) { 1 } else { 16 };
/// 1 MiB in all, of which that is touched which is used: memory for 130,000 values.
const BUCKETS: usize = if cfg!(loom) { 2 } else { 1 << 13 };

const TYPE_SHIFT: u32 = 33;
const PAGE_SHIFT: u32 = 41;
/// Set where a value does not start with its page.
const WITHIN: u64 = 1 << 32;
const BYTES_WITHIN_BITS: u32 = 13;

const _: () = assert!(DIRTY_BIT as usize / 256 <= 1 << (u64::BITS - PAGE_SHIFT));
const _: () = assert!(cfg!(loom) || BUCKETS >= 256);
const _: () = assert!(PAGE_BYTES < 1 << BYTES_WITHIN_BITS);

struct Bucket([AtomicU64; WAYS]);

/// See the module. Shared by all threads.
#[derive(Default)]
pub(crate) struct Validated {
    /// Made when the first value is remembered.
    buckets: OnceLock<Option<Buckets>>,
}

/// One value: where it is, and of which type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    bucket: usize,
    word: u64,
}

impl Remembered {
    /// The `bytes` bytes from `offset` of `page` on as a value of the type that is called
    /// `kind`; `None` if they are none, or more than a word can say.
    #[inline]
    pub(crate) fn new(page: u32, offset: usize, bytes: usize, kind: u8) -> Option<Self> {
        let bytes = u32::try_from(bytes).ok().filter(|&bytes| bytes > 0)?;
        let place = if offset == 0 {
            u64::from(bytes)
        } else {
            let fits = offset < PAGE_BYTES && bytes < 1 << BYTES_WITHIN_BITS;
            fits.then_some(WITHIN | (offset as u64) << BYTES_WITHIN_BITS | u64::from(bytes))?
        };
        let word = page_bits(page) | u64::from(kind) << TYPE_SHIFT | place;
        let bucket = bucket_of(page);
        Some(Self { bucket, word })
    }
}

fn bucket_of(page: u32) -> usize {
    page as usize % BUCKETS
}

/// What a word says of its page, beside its bucket.
fn page_bits(page: u32) -> u64 {
    (u64::from(page) / BUCKETS as u64) << PAGE_SHIFT
}

impl Validated {
    #[inline]
    fn buckets(&self) -> Option<&[Bucket]> {
        Some(self.buckets.get()?.as_ref()?.all())
    }

    /// Whether the value was found valid, and its page was not written since.
    #[inline]
    pub(crate) fn knows(&self, value: Remembered) -> bool {
        let bucket = self.buckets().and_then(|all| all.get(value.bucket));
        // Relaxed: the word says all by itself; see the module for what comes before it.
        bucket.is_some_and(|Bucket(words)| {
            let mut words = words.iter();
            words.any(|word| word.load(Ordering::Relaxed) == value.word)
        })
    }

    /// Remembers that the value was found valid by the caller, who has a snapshot that
    /// reaches it. One that was remembered before may be forgotten.
    pub(crate) fn remember(&self, value: Remembered) {
        // Where there is no memory nothing is remembered.
        let buckets = self.buckets.get_or_init(Buckets::new).as_ref();
        let Some(Bucket(words)) = buckets.and_then(|buckets| buckets.all().get(value.bucket))
        else {
            return;
        };
        // Relaxed: as in `knows`. Two who store at once may forget one of the values.
        let free = words.iter().find(|word| word.load(Ordering::Relaxed) == 0);
        let any = (value.word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % words.len();
        if let Some(word) = free.or(words.get(any)) {
            word.store(value.word, Ordering::Relaxed);
        }
    }

    /// Forgets all values of pages that are about to be written anew.
    pub(crate) fn forget(&self, extent: Extent) {
        let Some(buckets) = self.buckets() else {
            return;
        };
        for page in extent.first..extent.end() {
            let bits = page_bits(page);
            let Some(Bucket(words)) = buckets.get(bucket_of(page)) else {
                continue;
            };
            for word in words {
                // Relaxed: the stores of the page's own values came before (I1), so this
                // sees them or what replaced them.
                let found = word.load(Ordering::Relaxed);
                let is_of_page = found != 0 && found >> PAGE_SHIFT << PAGE_SHIFT == bits;
                if is_of_page && !left_out(Step::ForgetValidated) {
                    // Relaxed: as above. Who replaced it meanwhile has another page's.
                    let _ = word.compare_exchange(found, 0, Ordering::Relaxed, Ordering::Relaxed);
                }
            }
        }
    }
}

/// A mapping of its own, so that what is not used is not touched: what `malloc` zeroes may
/// be memory that was used before.
#[cfg(not(loom))]
struct Buckets(memmap2::MmapRaw);

#[cfg(not(loom))]
impl Buckets {
    fn new() -> Option<Self> {
        let map = memmap2::MmapMut::map_anon(BUCKETS * size_of::<Bucket>());
        Some(Self(map.ok()?.into()))
    }

    #[inline]
    fn all(&self) -> &[Bucket] {
        // SAFETY: (1) the mapping has the length of so many buckets, starts on an OS page
        // and lives as long as `self`; (2) it was zeros, and all zeros is a bucket; (3) this
        // is the only access to it, so all of them are atomic.
        unsafe { core::slice::from_raw_parts(self.0.as_ptr().cast::<Bucket>(), BUCKETS) }
    }
}

#[cfg(loom)]
struct Buckets(Box<[Bucket]>);

#[cfg(loom)]
impl Buckets {
    fn new() -> Option<Self> {
        let bucket = |_| Bucket(core::array::from_fn(|_| AtomicU64::new(0)));
        Some(Self((0..BUCKETS).map(bucket).collect()))
    }

    fn all(&self) -> &[Bucket] {
        &self.0
    }
}

impl core::fmt::Debug for Validated {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let used = self.buckets.get().is_some();
        f.debug_struct("Validated").field("used", &used).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    //! What could go wrong: a word stands for two values, or one is known that nobody
    //! remembered or that was forgotten. How it is seen: values that differ in one
    //! thing only, and a model that never forgets by itself.

    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    type Value = (u32, usize, usize, u8);

    fn values() -> impl Strategy<Value = Value> {
        let page = prop_oneof![2..6_u32, Just(2 + (1 << 13)), Just(DIRTY_BIT - 1)];
        let offset = prop_oneof![Just(0_usize), Just(16), Just(4095)];
        let bytes = prop_oneof![Just(1_usize), Just(2), Just(4096), Just(1 << 20)];
        (
            page,
            offset,
            bytes,
            prop_oneof![Just(0_u8), Just(1), Just(255)],
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_known_was_remembered_and_not_forgotten(
            steps in prop::collection::vec((values(), any::<bool>()), 1..60),
            asked in prop::collection::vec(values(), 1..60),
        ) {
            let (validated, mut model) = (Validated::default(), HashSet::<Value>::new());
            for (value, remember) in steps {
                let (page, offset, bytes, kind) = value;
                if !remember {
                    validated.forget(Extent { first: page, pages: 1 });
                    model.retain(|&(other, ..)| other != page);
                } else if let Some(remembered) = Remembered::new(page, offset, bytes, kind) {
                    validated.remember(remembered);
                    prop_assert!(validated.knows(remembered));
                    model.insert(value);
                }
            }
            for value in asked {
                let (page, offset, bytes, kind) = value;
                let remembered = Remembered::new(page, offset, bytes, kind);
                let known = remembered.is_some_and(|value| validated.knows(value));
                prop_assert!(!known || model.contains(&value), "{:?}", value);
            }
        }

        #[test]
        fn a_word_is_one_value(one in values(), other in values()) {
            let word = |(page, offset, bytes, kind)| Remembered::new(page, offset, bytes, kind);
            if let (Some(first), Some(second)) = (word(one), word(other)) {
                prop_assert_eq!(first == second, one == other);
                prop_assert!(first.word != 0);
            }
        }
    }

    #[test]
    fn what_a_word_cannot_say_is_not_remembered() {
        assert_eq!(Remembered::new(7, 0, 0, 0), None);
        assert_eq!(Remembered::new(7, 0, 1 << 32, 0), None);
        assert_eq!(Remembered::new(7, 16, 1 << BYTES_WITHIN_BITS, 0), None);
        assert!(Remembered::new(7, 0, u32::MAX as usize, 0).is_some());
    }

    #[test]
    fn a_full_bucket_takes_the_next_value() {
        let validated = Validated::default();
        for number in 1..=200_usize {
            let value = Remembered::new(9, number * 16, 8, 0).expect("short");
            validated.remember(value);
            assert!(validated.knows(value), "value {number}");
        }
        validated.forget(Extent { first: 9, pages: 1 });
        for number in 1..=200 {
            let value = Remembered::new(9, number * 16, 8, 0).expect("short");
            assert!(!validated.knows(value), "value {number}");
        }
    }
}
