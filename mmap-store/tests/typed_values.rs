//! Values of the crates that the features `zerocopy`, `rkyv` and `serde` bring.
//!
//! What could go wrong: a reference is made of bytes that are too short, badly aligned or
//! no such value; a value outgrows a leaf and loses its alignment; a new version of a type
//! reads the bytes of the old one.
#![cfg(all(not(loom), feature = "zerocopy", feature = "rkyv", feature = "serde"))]

use brickyard_store::{Archive, Named, Options, Plain, Serial, Store, TypedError, Value};
use proptest::prelude::*;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

fn in_memory() -> Store {
    Options::new().open_in_memory().expect("address space")
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Debug, PartialEq)]
#[repr(C, align(16))]
struct Point {
    at: [u64; 2],
}

impl Named for Point {
    const NAME: &'static str = "point";
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Debug)]
#[repr(C, align(16))]
struct Newer {
    at: [u64; 2],
}

impl Named for Newer {
    const NAME: &'static str = "point";
    const VERSION: u32 = 2;
}

#[derive(
    rkyv::Archive, rkyv::Serialize, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq,
)]
struct Town {
    name: String,
    years: Vec<(u32, u64)>,
    wide: u128,
}

impl Named for Town {
    const NAME: &'static str = "town";
}

fn town(number: u32) -> Town {
    Town {
        name: format!("town {number}"),
        // Some are larger than a leaf takes.
        years: (0..number * 7 % 300)
            .map(|year| (year, u64::from(year * number)))
            .collect(),
        wide: u128::from(number) << 70,
    }
}

#[test]
fn plain_values_are_references_in_both_kinds_of_transaction() {
    let store = in_memory();
    let mut write = store.write().expect("sound");
    let mut points = write.typed::<u64, Plain<Point>>("points").expect("new");
    for number in 0..1000_u64 {
        let point = Point {
            at: [number, number * 3],
        };
        points.put(&number, &point).expect("sound");
        assert_eq!(points.get(&number).expect("sound"), Some(&point));
    }
    write.commit().expect("memory");
    let read = store.read();
    let points = read
        .typed::<u64, Plain<Point>>("points")
        .expect("sound")
        .expect("made");
    for (number, entry) in (0..).zip(points.iter().expect("sound")) {
        let (key, point) = entry.expect("sound");
        assert_eq!((key, point.at), (number, [number, number * 3]));
    }
    assert!(
        read.typed::<u64, Plain<Newer>>("points").is_err(),
        "another version"
    );
}

#[test]
fn archives_are_read_where_they_lie() {
    let store = in_memory();
    let mut write = store.write().expect("sound");
    let mut towns = write.typed::<u32, Archive<Town>>("towns").expect("new");
    for number in 0..200 {
        towns.put(&number, &town(number)).expect("sound");
        let found = towns.get(&number).expect("sound").expect("just put");
        assert_eq!(found.name.as_str(), town(number).name);
    }
    write.commit().expect("memory");
    assert_eq!(store.check().problems, []);
    let read = store.read();
    let towns = read
        .typed::<u32, Archive<Town>>("towns")
        .expect("sound")
        .expect("made");
    for number in 0..200_u32 {
        let (found, town) = (
            towns.get(&number).expect("sound").expect("put"),
            town(number),
        );
        assert_eq!(
            (found.name.as_str(), found.wide.to_native()),
            (&*town.name, town.wide)
        );
        let years = found
            .years
            .iter()
            .map(|year| (year.0.to_native(), year.1.to_native()));
        assert!(years.eq(town.years));
    }
}

#[test]
fn serial_values_come_back() {
    let store = in_memory();
    let mut write = store.write().expect("sound");
    let mut towns = write.typed::<str, Serial<Town>>("towns").expect("new");
    for number in 0..100 {
        towns.put(&town(number).name, &town(number)).expect("sound");
    }
    write.commit().expect("memory");
    let read = store.read();
    assert!(
        read.typed::<str, Archive<Town>>("towns").is_err(),
        "written otherwise"
    );
    let towns = read
        .typed::<str, Serial<Town>>("towns")
        .expect("sound")
        .expect("made");
    for number in 0..100 {
        let found = towns.get(&town(number).name).expect("sound");
        assert_eq!(found, Some(town(number)));
    }
}

#[test]
fn a_plain_value_of_another_length_is_an_error() {
    let store = in_memory();
    let mut write = store.write().expect("sound");
    write.typed::<u64, Plain<Point>>("points").expect("new");
    let mut raw = write.table("points").expect("bytes under bytes");
    raw.put(&7_u64.to_be_bytes(), &[0; 15]).expect("sound");
    let points = write.typed::<u64, Plain<Point>>("points").expect("made");
    let error = points.get(&7_u64).expect_err("a byte is missing");
    assert!(matches!(&error, TypedError::Value { .. }), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("a value is no `plain point version 1`: ")
    );
}

/// Sixteen bytes, aligned as the table would align them.
#[repr(align(16))]
struct Aligned([u8; 512]);

proptest! {
    #[test]
    fn foreign_bytes_are_errors_or_values_and_never_a_panic(
        number in 0..40_u32,
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        len in 0..512_usize,
        noise in prop::collection::vec(any::<u8>(), 0..512),
    ) {
        let mut scratch = Vec::new();
        let mut bytes = Archive::<Town>::encode(&town(number), &mut scratch).expect("room").to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        for bytes in [&bytes[..bytes.len().min(512)], &noise] {
            let mut aligned = Aligned([0; 512]);
            aligned.0[..bytes.len()].copy_from_slice(bytes);
            for bytes in [&aligned.0[..bytes.len()], &aligned.0[..len], &aligned.0[len / 2..]] {
                if let Ok(town) = Archive::<Town>::decode(bytes) {
                    let _ = town.name.len() + town.years.iter().count();
                }
                let _ = Serial::<Town>::decode(bytes);
                if let Ok(point) = Plain::<Point>::decode(bytes) {
                    prop_assert_eq!(point.as_bytes(), bytes);
                }
            }
        }
    }
}

std::thread_local! {
    static LOOKS: core::cell::Cell<u32> = const { core::cell::Cell::new(0) };
}

/// Counts how often one of it is validated.
#[derive(rkyv::Archive, rkyv::Serialize)]
#[rkyv(bytecheck(verify))]
struct Counted {
    name: String,
    years: Vec<u64>,
}

// SAFETY: it looks at nothing and only counts.
unsafe impl<C: rkyv::rancor::Fallible + ?Sized> rkyv::bytecheck::Verify<C> for ArchivedCounted {
    fn verify(&self, _: &mut C) -> Result<(), C::Error> {
        LOOKS.set(LOOKS.get() + 1);
        Ok(())
    }
}

impl Named for Counted {
    const NAME: &'static str = "counted";
}

/// The same name, and other bytes are valid.
#[derive(rkyv::Archive, rkyv::Serialize)]
struct Imposter {
    flags: [bool; 16],
}

impl Named for Imposter {
    const NAME: &'static str = "counted";
}

fn counted(years: u64) -> Counted {
    Counted {
        name: format!("a name of {years} years, out of line"),
        years: (0..years).collect(),
    }
}

/// How often values were validated by a read of `key`, and how many years it has.
fn looks(store: &Store, key: u32) -> (u32, usize) {
    LOOKS.set(0);
    let read = store.read();
    let table = read
        .typed::<u32, Archive<Counted>>("t")
        .expect("sound")
        .expect("made");
    let years = table.get(&key).expect("valid").expect("put").years.len();
    let mut all = table.iter().expect("sound");
    assert!(all.all(|entry| entry.is_ok()));
    (LOOKS.get(), years)
}

#[test]
fn an_archive_is_validated_once_until_its_page_is_written_anew() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for store in [
        in_memory(),
        Options::new().open(dir.path()).expect("a new store"),
    ] {
        // In a leaf, and in pages of its own.
        let (mut small, mut large) = (3, 3000);
        let mut fresh = 2;
        for round in 0..400 {
            if round % 4 == 0 {
                // By now it lies where another version's pages were.
                (small, large) = (3 + round % 5, 3000 + round);
                let mut write = store.write().expect("sound");
                let mut table = write.typed::<u32, Archive<Counted>>("t").expect("ours");
                table.put(&1_u32, &counted(small)).expect("sound");
                table.put(&2_u32, &counted(large)).expect("sound");
                write.commit().expect("room");
                if round % 16 == 0 {
                    store.checkpoint().expect("a working disk");
                }
                fresh = 2;
            }
            let years = usize::try_from(if round % 2 == 0 { small } else { large });
            let key = 1 + u32::from(round % 2 == 1);
            assert_eq!(looks(&store, key), (fresh, years.expect("few")), "{round}");
            fresh = 0;
        }
        // Where a transaction may still change them, they are validated each time.
        let mut write = store.write().expect("sound");
        let table = write.typed::<u32, Archive<Counted>>("t").expect("ours");
        LOOKS.set(0);
        for _ in 0..3 {
            table.get(&1_u32).expect("valid").expect("put");
        }
        assert_eq!(LOOKS.get(), 3);
    }
}

#[test]
fn what_is_valid_as_one_type_is_not_so_as_another_of_its_name() {
    let store = in_memory();
    let mut write = store.write().expect("sound");
    let mut table = write.typed::<u32, Archive<Counted>>("t").expect("new");
    table.put(&1_u32, &counted(300)).expect("sound");
    write.commit().expect("memory");
    assert_eq!(looks(&store, 1).0, 1);
    let read = store.read();
    for _ in 0..2 {
        let table = read.typed::<u32, Archive<Imposter>>("t").expect("one name");
        let error = table
            .expect("made")
            .get(&1_u32)
            .map(|value| value.is_some());
        let error = error.expect_err("its bytes are no flags");
        assert!(matches!(error, TypedError::Value { .. }), "{error}");
    }
    assert_eq!(looks(&store, 1).0, 0);
}

#[test]
fn bytes_that_are_no_archive_are_refused_each_time() {
    let store = in_memory();
    let mut write = store.write().expect("sound");
    let mut table = write.typed::<u32, Archive<Counted>>("t").expect("new");
    for key in 1..=40_u32 {
        table
            .put(&key, &counted(u64::from(key * 20)))
            .expect("sound");
    }
    // Each with a pointer, a length or a text that is wrong, where the right one was.
    let mut raw = write.table("t").expect("bytes under bytes");
    for key in 1..=40_u32 {
        let value = raw.get(&key.to_be_bytes()).expect("sound").expect("put");
        let mut value = value.to_vec();
        let end = value.len() - 1 - key as usize % 16;
        value[end] ^= 0x55;
        raw.put(&key.to_be_bytes(), &value).expect("sound");
    }
    write.commit().expect("memory");
    let read = store.read();
    let table = read
        .typed::<u32, Archive<Counted>>("t")
        .expect("sound")
        .expect("made");
    let mut refused = 0;
    for key in 1..=40_u32 {
        let first = table
            .get(&key)
            .map(|town| town.map(|town| town.years.len()));
        let again = table
            .get(&key)
            .map(|town| town.map(|town| town.years.len()));
        assert_eq!(first, again);
        refused += u32::from(matches!(first, Err(TypedError::Value { .. })));
    }
    assert!(refused > 20, "{refused}");
}
