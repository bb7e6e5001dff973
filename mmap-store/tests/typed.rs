//! Typed tables, and the encodings of keys.
//!
//! Promises that are checked of each kind of key: its bytes are ordered as it is, alone
//! and as the first part of a tuple; it comes back; foreign bytes give an error, or a key
//! that would be written so. Of tables: entries come in the order of their keys, and a
//! table of other types is not opened.
#![cfg(not(loom))]

use core::fmt::Debug;
use std::borrow::Cow;
use std::collections::BTreeMap;

use brickyard_store::{
    DecodeError, Key, Options, Store, TableError, TypedError, Value, WriteError,
};
use proptest::prelude::*;

fn in_memory() -> Store {
    Options::new().open_in_memory().expect("address space")
}

fn whole<K: Key + ?Sized>(key: &K) -> Vec<u8> {
    let mut out = Vec::new();
    key.encode(&mut out);
    out
}

fn part<K: Key + ?Sized>(key: &K, after: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    key.encode_part(&mut out);
    out.extend_from_slice(after);
    out
}

/// Checks two keys, and bytes that somebody else wrote.
fn check<K>(one: &K, other: &K, foreign: &[u8]) -> Result<(), TestCaseError>
where
    K: Key<Owned = K> + Ord + Debug,
{
    prop_assert_eq!(whole(one).cmp(&whole(other)), one.cmp(other));
    let (after_one, after_other) = (part(one, foreign), part(other, b"\x00\xff"));
    if one == other {
        prop_assert_eq!(after_one.cmp(&after_other), foreign.cmp(b"\x00\xff"));
    } else {
        prop_assert_eq!(after_one.cmp(&after_other), one.cmp(other));
    }
    let decoded = K::decode(&whole(one));
    prop_assert_eq!(decoded.as_ref(), Ok(one));
    let mut rest = &after_one[..];
    let decoded = K::decode_part(&mut rest);
    prop_assert_eq!(decoded.as_ref(), Ok(one));
    prop_assert_eq!(rest, foreign);
    if let Ok(key) = K::decode(foreign) {
        prop_assert_eq!(whole(&key), foreign);
    }
    let mut rest = foreign;
    if let Ok(key) = K::decode_part(&mut rest) {
        prop_assert_eq!(part(&key, rest), foreign);
    }
    Ok(())
}

/// Few different bytes, so that keys share parts and zeros are many.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0_u8), Just(1), Just(255), any::<u8>()];
    prop::collection::vec(byte, 0..12)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[\0\u{1}aé]{0,5}", "\\PC{0,6}"]
}

/// Near the ends and the middle of the range, where a sign or a carry goes wrong.
macro_rules! number {
    ($number:ident) => {
        prop_oneof![
            any::<$number>(),
            Just($number::MIN),
            Just($number::MAX),
            (-2..=2_i8).prop_map(|number| number as $number),
        ]
    };
}

macro_rules! each_number {
    ($($number:ident)*) => {
        proptest! {
            $(
                #[test]
                fn $number(one in number!($number), other in number!($number), foreign in bytes()) {
                    check(&one, &other, &foreign)?;
                }
            )*
        }
    };
}

mod keys_are_ordered_as_their_bytes {
    use super::*;

    each_number! { u8 i8 u16 i16 u32 i32 u64 i64 u128 i128 }

    proptest! {
        #[test]
        fn bool(one in any::<bool>(), other in any::<bool>(), foreign in bytes()) {
            check(&one, &other, &foreign)?;
        }

        #[test]
        fn unit(foreign in bytes()) {
            check(&(), &(), &foreign)?;
        }

        #[test]
        fn string(one in text(), other in text(), foreign in bytes()) {
            check(&one, &other, &foreign)?;
        }

        #[test]
        fn bytes_of_any_length(one in bytes(), other in bytes(), foreign in bytes()) {
            check(&one, &other, &foreign)?;
        }

        #[test]
        fn arrays(
            one in prop::array::uniform3(number!(i16)),
            other in prop::array::uniform3(number!(i16)),
            texts in [[text(), text()], [text(), text()]],
            foreign in bytes(),
        ) {
            check(&one, &other, &foreign)?;
            check(&texts[0], &texts[1], &foreign)?;
            check(&[0_u8; 0], &[0_u8; 0], &foreign)?;
        }

        #[test]
        fn options(
            one in prop::option::of(text()),
            other in prop::option::of(text()),
            foreign in bytes(),
        ) {
            check(&one, &other, &foreign)?;
            let lengths = [&one, &other].map(|text| text.as_ref().map(String::len));
            let lengths = lengths.map(|len| len.map(|len| len as u64));
            check(&lengths[0], &lengths[1], &foreign)?;
            check(&Some(lengths[0]), &Some(lengths[1]), &foreign)?;
        }

        #[test]
        fn tuples(
            one in (text(), number!(i32), bytes(), prop::option::of(any::<bool>())),
            other in (text(), number!(i32), bytes(), prop::option::of(any::<bool>())),
            foreign in bytes(),
        ) {
            check(&one, &other, &foreign)?;
            let pair = |key: &(String, i32, Vec<u8>, Option<bool>)| (key.2.clone(), key.0.clone());
            check(&pair(&one), &pair(&other), &foreign)?;
            let nested = |key: &(String, i32, Vec<u8>, Option<bool>)| {
                ((key.0.clone(), key.2.clone()), key.1, [key.3, None])
            };
            check(&nested(&one), &nested(&other), &foreign)?;
        }

        #[test]
        fn borrowed_and_owned_alike(one in text(), number in number!(i64)) {
            prop_assert_eq!(whole(&(one.as_str(), number)), whole(&(one.clone(), number)));
            prop_assert_eq!(whole(one.as_str()), whole(&one));
            prop_assert_eq!(whole(one.as_bytes()), whole(&one.clone().into_bytes()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_typed_table_is_a_sorted_map(
        entries in prop::collection::vec(((text(), number!(i16)), (number!(u32), text())), 1..60),
        bounds in ((text(), number!(i16)), (text(), number!(i16))),
        gone in any::<prop::sample::Index>(),
    ) {
        let store = in_memory();
        let mut write = store.write().expect("sound");
        let mut table = write.typed::<(String, i16), (u32, String)>("t").expect("new");
        let mut model = BTreeMap::new();
        for (key, value) in &entries {
            let new = table.put(key, value).expect("sound");
            prop_assert_eq!(new, model.insert(key.clone(), value.clone()).is_none());
            let found = table.get(&(key.0.as_str(), key.1)).expect("sound");
            prop_assert_eq!(found.as_ref(), Some(value));
        }
        let gone = &gone.get(&entries).0;
        prop_assert!(table.delete(gone).expect("sound"));
        prop_assert!(!table.delete(gone).expect("sound"));
        model.remove(gone);
        prop_assert!(table.insert_if_absent(gone, &entries[0].1).expect("sound"));
        model.insert(gone.clone(), entries[0].1.clone());
        write.commit().expect("memory");

        let read = store.read();
        let table = read.typed::<(String, i16), (u32, String)>("t").expect("sound");
        let table = table.expect("made");
        let found: Result<Vec<_>, _> = table.iter().expect("sound").collect();
        let all: Vec<_> = model.clone().into_iter().collect();
        prop_assert_eq!(found.expect("sound"), all.clone());
        let ends = (table.first().expect("sound"), table.last().expect("sound"));
        prop_assert_eq!((ends.0.as_ref(), ends.1.as_ref()), (all.first(), all.last()));
        prop_assert_eq!(table.len(), all.len() as u64);
        let (low, high) = (bounds.0.clone().min(bounds.1.clone()), bounds.0.max(bounds.1));
        let within: Vec<_> = model.range(low.clone()..high.clone()).collect();
        let range = table.range(low.clone()..high.clone()).expect("sound");
        let found: Result<Vec<_>, _> = range.rev().collect();
        let mut found = found.expect("sound");
        found.reverse();
        prop_assert_eq!(found.iter().map(|(key, value)| (key, value)).collect::<Vec<_>>(), within);

        let mut write = store.write().expect("sound");
        let mut table = write.typed::<(String, i16), (u32, String)>("t").expect("same");
        let removed = table.delete_range(low.clone()..high.clone()).expect("sound");
        prop_assert_eq!(removed, model.range(low..high).count() as u64);
    }
}

#[test]
fn a_table_of_other_types_is_not_opened() {
    let store = in_memory();
    let mut write = store.write().expect("sound");
    write
        .typed::<u64, str>("t")
        .expect("new")
        .put(&1_u64, "one")
        .expect("sound");
    write
        .table("plain")
        .expect("new")
        .put(b"k", b"v")
        .expect("sound");
    let error = write.typed::<i64, str>("t").expect_err("signed");
    assert!(matches!(
        error,
        TypedError::Write(WriteError::Table(TableError::Mismatch { .. }))
    ));
    assert_eq!(
        error.to_string(),
        "table `t` is a table from `u64` to `str`, not a table from `i64` to `str`; open it \
         as what it is"
    );
    assert!(write.typed::<u64, [u8]>("t").is_err());
    assert!(write.typed::<u64, u64>("plain").is_err());
    write.typed::<u64, String>("t").expect("the same bytes");
    write.commit().expect("memory");
    let read = store.read();
    assert!(read.typed::<u64, u64>("t").is_err());
    assert!(read.typed::<u64, str>("none").expect("sound").is_none());
    let table = read.typed::<u64, str>("t").expect("sound").expect("made");
    assert_eq!(table.get(&1_u64).expect("sound"), Some("one"));
    // Its bytes are there for all who want bytes.
    let raw = read.table("t").expect("sound").expect("made");
    assert_eq!(
        raw.get(&[0, 0, 0, 0, 0, 0, 0, 1]).expect("sound"),
        Some(&b"one"[..])
    );
}

#[test]
fn bytes_that_are_not_of_the_type_give_errors_that_name_it() {
    let store = in_memory();
    let mut write = store.write().expect("sound");
    write.typed::<u32, str>("t").expect("new");
    let mut raw = write.table("t").expect("bytes under bytes");
    raw.put(&[0, 0, 0, 1], &[0xff]).expect("sound");
    raw.put(b"five!", b"text").expect("sound");
    write.commit().expect("memory");
    let read = store.read();
    let table = read.typed::<u32, str>("t").expect("sound").expect("made");
    let error = table.get(&1_u32).expect_err("no UTF-8");
    assert_eq!(
        error,
        TypedError::Value {
            type_name: Cow::Borrowed("str"),
            source: DecodeError::Utf8
        }
    );
    let mut iter = table.iter().expect("sound");
    assert!(matches!(iter.next(), Some(Err(TypedError::Value { .. }))));
    let Some(Err(error)) = iter.next() else {
        panic!("the key has five bytes");
    };
    assert_eq!(
        error.to_string(),
        "a key is no `u32`: bytes are left over; read the table as bytes"
    );
    assert!(iter.next().is_none());
}

/// A value of one's own: a number at an alignment of its own.
struct Wide;

impl Value for Wide {
    type Write = u8;
    type Read<'a> = (u8, bool);
    const ALIGNMENT: usize = 32;

    fn type_name() -> Cow<'static, str> {
        "wide".into()
    }

    fn encode<'v>(
        value: &'v u8,
        scratch: &'v mut Vec<u8>,
    ) -> Result<&'v [u8], brickyard_store::EncodeError> {
        scratch.push(*value);
        Ok(scratch)
    }

    fn decode(bytes: &[u8]) -> Result<(u8, bool), DecodeError> {
        let byte = *bytes.first().ok_or(DecodeError::Short)?;
        Ok((byte, bytes.as_ptr().addr().is_multiple_of(32)))
    }
}

#[test]
fn values_of_ones_own_start_where_they_say() {
    let store = in_memory();
    let mut write = store.write().expect("sound");
    let mut table = write.typed::<str, Wide>("wide").expect("new");
    for (number, name) in [(0, "a"), (1, "bc"), (2, "def")] {
        table.put(name, &number).expect("sound");
        assert_eq!(table.get(name).expect("sound"), Some((number, true)));
    }
    write.commit().expect("memory");
    let read = store.read();
    let tables = read.tables().expect("sound");
    assert_eq!(tables[0].options.value_alignment(), 32);
    let table = read
        .typed::<str, Wide>("wide")
        .expect("sound")
        .expect("made");
    for entry in table.iter().expect("sound") {
        assert!(entry.expect("sound").1.1);
    }
}
