//! Compressed tables.
//!
//! What could go wrong: a value comes back as another, nothing is compressed, a table is
//! opened as what it is not, or by a library that cannot unpack it. How it is seen: a
//! model, the number of pages, and the errors, with and without the features.
#![cfg(not(loom))]

use brickyard_store::{Compression, Options, TableError, WriteError};

#[test]
fn a_method_without_its_feature_is_an_error_that_names_it() {
    let methods = [
        (Compression::Lz4, "lz4", cfg!(feature = "lz4")),
        (Compression::Zstd, "zstd", cfg!(feature = "zstd")),
    ];
    let store = Options::new().open_in_memory().expect("address space");
    for (method, name, is_there) in methods {
        let mut write = store.write().expect("sound");
        let result = write.compressed("t", method, 0);
        if is_there {
            result.expect("new");
            continue;
        }
        let Err(WriteError::Table(TableError::Feature { table, feature })) = result else {
            panic!("{name} is not there");
        };
        assert_eq!((&*table, feature), ("t", name));
    }
}

#[cfg(any(feature = "lz4", feature = "zstd"))]
mod with_a_feature {
    use std::borrow::Cow;
    use std::collections::BTreeMap;

    use brickyard_store::{Compression, Options, PAGE_BYTES, Store, TableError, WriteError};
    use proptest::prelude::*;

    const METHODS: &[Compression] = &[
        #[cfg(feature = "lz4")]
        Compression::Lz4,
        #[cfg(feature = "zstd")]
        Compression::Zstd,
    ];

    fn in_memory() -> Store {
        Options::new().open_in_memory().expect("address space")
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            (any::<u8>(), 0..20_000_usize).prop_map(|(byte, len)| vec![byte; len]),
            ("[ab ]{0,9}", 0..900_usize).prop_map(|(text, times)| text.repeat(times).into_bytes()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_compressed_table_is_a_sorted_map(
            threshold in prop_oneof![Just(0_u32), 1..500_u32, Just(u32::MAX)],
            puts in prop::collection::vec((0..40_u8, value()), 1..80),
            gone in 0..40_u8,
        ) {
            for &method in METHODS {
                let store = in_memory();
                let mut write = store.write().expect("sound");
                let mut table = write.compressed("t", method, threshold).expect("new");
                let mut model = BTreeMap::new();
                for (key, value) in &puts {
                    let new = table.put(&[*key], value).expect("sound");
                    prop_assert_eq!(new, model.insert(*key, value.clone()).is_none());
                    let found = table.get(&[*key]).expect("sound");
                    prop_assert_eq!(found.as_deref(), Some(&value[..]));
                }
                prop_assert_eq!(table.delete(&[gone]).expect("sound"), model.remove(&gone).is_some());
                prop_assert!(table.insert_if_absent(&[gone], b"new").expect("sound"));
                prop_assert!(!table.insert_if_absent(&[gone], b"newer").expect("sound"));
                model.insert(gone, b"new".to_vec());
                prop_assert_eq!(table.len(), model.len() as u64);
                write.commit().expect("memory");
                prop_assert_eq!(store.check().problems, vec![]);
                let read = store.read();
                let table = read.compressed("t").expect("sound").expect("made");
                prop_assert_eq!(table.options().value_compression(), Some((method, threshold)));
                for (key, value) in &model {
                    let found = table.get(&[*key]).expect("sound").expect("put");
                    prop_assert_eq!(&*found, &value[..]);
                    let is_short = value.len() as u64 <= u64::from(threshold);
                    prop_assert!(!is_short || matches!(found, Cow::Borrowed(_)));
                }
                let mut range = table.range::<[u8]>(..).expect("sound");
                for (key, value) in &model {
                    let entry = range.next().expect("sound").expect("as many");
                    prop_assert_eq!((entry.0, &*entry.1), (&[*key][..], &value[..]));
                }
                prop_assert!(range.next().expect("sound").is_none());
                let mut range = table.range::<[u8]>(..).expect("sound");
                for value in model.values().rev() {
                    let entry = range.next_back().expect("sound").expect("as many");
                    prop_assert_eq!(&*entry.1, &value[..]);
                }
            }
        }
    }

    #[test]
    fn dense_text_takes_less_room() {
        for &method in METHODS {
            let store = in_memory();
            let mut write = store.write().expect("sound");
            let mut table = write.compressed("t", method, 100).expect("new");
            let text = "all work and no play makes jack a dull boy. ".repeat(1000);
            table.put(b"k", text.as_bytes()).expect("sound");
            write.commit().expect("memory");
            let pages = store.check().live_pages;
            assert!(
                pages * (PAGE_BYTES as u64) < text.len() as u64,
                "{pages} pages"
            );
        }
    }

    #[test]
    fn a_compressed_table_and_others_are_not_taken_for_one_another() {
        for &method in METHODS {
            let store = in_memory();
            let mut write = store.write().expect("sound");
            write.compressed("c", method, 100).expect("new");
            write
                .table("t")
                .expect("new")
                .put(b"k", b"v")
                .expect("sound");
            let error = write.table("c").expect_err("compressed");
            assert!(matches!(
                error,
                WriteError::Table(TableError::Mismatch { .. })
            ));
            assert!(
                write.compressed("c", method, 101).is_err(),
                "another threshold"
            );
            assert!(write.compressed("t", method, 100).is_err(), "a plain one");
            write.commit().expect("memory");
            let read = store.read();
            assert!(read.table("c").is_err());
            assert!(read.compressed("none").expect("sound").is_none());
            let error = read.compressed("t").expect_err("a plain one");
            assert_eq!(
                error.to_string(),
                "table `t` is not compressed; open it with ReadTxn::table"
            );
        }
    }
}
