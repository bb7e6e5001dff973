//! Tables whose longer values are compressed, each on its own.

use core::ops::RangeBounds;
use std::borrow::Cow;

use crate::error::{Flaw, ReadError, TableError, WriteError, damaged};
use crate::format::packed::{MOST_PACKED_BYTES, Stored};
use crate::schema::{Compression, TableOptions};
use crate::txn::read::{Range, ReadTxn, Table};
use crate::txn::write::{TableMut, WriteTxn};

impl ReadTxn<'_> {
    /// The compressed table called `name`, or `None` if there is nothing of that name.
    ///
    /// # Errors
    ///
    /// [`TableError::Uncompressed`]; [`TableError::Feature`] if its values can be unpacked
    /// only by a feature that this library was built without; [`TableError::Read`].
    pub fn compressed(&self, name: &str) -> Result<Option<CompressedTable<'_>>, TableError> {
        let Some(table) = self.raw_table(name)? else {
            return Ok(None);
        };
        let Some((compression, _)) = table.options().value_compression() else {
            let table = name.into();
            return Err(TableError::Uncompressed { table });
        };
        check_feature(name, compression)?;
        Ok(Some(CompressedTable { table, compression }))
    }
}

impl<'s> WriteTxn<'s> {
    /// The compressed table called `name`, which is created if it is not there: values of
    /// more than `threshold` bytes are stored compressed where that makes them smaller.
    ///
    #[cfg_attr(feature = "lz4", doc = "```")]
    #[cfg_attr(not(feature = "lz4"), doc = "```ignore")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = brickyard_store::Options::new().open_in_memory()?;
    /// use brickyard_store::Compression;
    ///
    /// let text = "all work and no play ".repeat(1000);
    /// let mut write = store.write()?;
    /// write.compressed("texts", Compression::Lz4, 256)?.put(b"k", text.as_bytes())?;
    /// write.commit()?;
    ///
    /// let read = store.read();
    /// let texts = read.compressed("texts")?.expect("it was made above");
    /// assert_eq!(texts.get(b"k")?.as_deref(), Some(text.as_bytes()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteError::Table`] if it is there and not compressed so, or if this library was
    /// built without the feature `lz4` or `zstd`; else as [`WriteTxn::table`].
    pub fn compressed(
        &mut self,
        name: &str,
        compression: Compression,
        threshold: u32,
    ) -> Result<CompressedTableMut<'_, 's>, WriteError> {
        check_feature(name, compression)?;
        let options = options(compression, threshold);
        Ok(CompressedTableMut {
            table: self.raw_table_with(name, &options)?,
            compression,
            threshold: usize::try_from(threshold).unwrap_or(usize::MAX),
            stored: Vec::new(),
        })
    }
}

fn options(compression: Compression, threshold: u32) -> TableOptions {
    let mut options = TableOptions::new();
    options.compression = Some((compression, threshold));
    options
}

fn check_feature(name: &str, compression: Compression) -> Result<(), TableError> {
    let (is_there, feature) = match compression {
        Compression::Lz4 => (cfg!(feature = "lz4"), "lz4"),
        Compression::Zstd => (cfg!(feature = "zstd"), "zstd"),
    };
    if is_there {
        return Ok(());
    }
    Err(TableError::Feature {
        table: name.into(),
        feature,
    })
}

/// Whether what is stored is a value. What is packed by a method that is not compiled in is
/// believed as far as its head.
pub(crate) fn can_be_unpacked(compression: Compression, stored: &[u8]) -> bool {
    match check_feature("", compression) {
        Ok(()) => load(compression, 0, stored).is_ok(),
        Err(_) => Stored::decode(stored, compression).is_some(),
    }
}

/// The value packed; `None` if it does not get smaller.
fn pack(compression: Compression, value: &[u8]) -> Option<Vec<u8>> {
    let packed = match compression {
        Compression::Lz4 => lz4::pack(value),
        Compression::Zstd => zstandard::pack(value),
    }?;
    // Four bytes more of its length.
    (packed.len() + 4 < value.len()).then_some(packed)
}

/// The `len` bytes that were packed; `None` if it is not so many.
fn unpack(compression: Compression, packed: &[u8], len: usize) -> Option<Vec<u8>> {
    let value = match compression {
        Compression::Lz4 => lz4::unpack(packed, len),
        Compression::Zstd => zstandard::unpack(packed, len),
    }?;
    (value.len() == len).then_some(value)
}

#[cfg(feature = "lz4")]
mod lz4 {
    pub(super) fn pack(value: &[u8]) -> Option<Vec<u8>> {
        Some(lz4_flex::block::compress(value))
    }

    pub(super) fn unpack(packed: &[u8], len: usize) -> Option<Vec<u8>> {
        lz4_flex::block::decompress(packed, len).ok()
    }
}

#[cfg(feature = "zstd")]
mod zstandard {
    pub(super) fn pack(value: &[u8]) -> Option<Vec<u8>> {
        zstd::bulk::compress(value, zstd::DEFAULT_COMPRESSION_LEVEL).ok()
    }

    pub(super) fn unpack(packed: &[u8], len: usize) -> Option<Vec<u8>> {
        zstd::bulk::decompress(packed, len).ok()
    }
}

/// In the place of a method whose feature is off: no table of it gets past
/// [`check_feature`].
#[cfg(not(all(feature = "lz4", feature = "zstd")))]
mod missing {
    pub(super) fn pack(_value: &[u8]) -> Option<Vec<u8>> {
        None
    }

    pub(super) fn unpack(_packed: &[u8], _len: usize) -> Option<Vec<u8>> {
        None
    }
}

#[cfg(not(feature = "lz4"))]
use missing as lz4;
#[cfg(not(feature = "zstd"))]
use missing as zstandard;

/// What was stored as the value of an entry of `table`, whose root stands for the page
/// that it lies in.
fn load<'t>(
    compression: Compression,
    root: u32,
    stored: &'t [u8],
) -> Result<Cow<'t, [u8]>, ReadError> {
    let bad = damaged(root, Flaw::Compressed);
    match Stored::decode(stored, compression).ok_or(bad)? {
        Stored::Plain(value) => Ok(Cow::Borrowed(value)),
        Stored::Packed { len, bytes } => {
            let value = unpack(compression, bytes, len);
            value.map(Cow::Owned).ok_or(bad)
        }
    }
}

/// A compressed table as a snapshot sees it. Values that were not worth compressing are
/// slices of the mapped file, others are copies.
#[derive(Clone, Copy, Debug)]
pub struct CompressedTable<'t> {
    table: Table<'t>,
    compression: Compression,
}

impl<'t> CompressedTable<'t> {
    /// What the table was created with.
    pub fn options(&self) -> TableOptions {
        self.table.options()
    }

    /// Number of entries.
    pub fn len(&self) -> u64 {
        self.table.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The value of `key`.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Cow<'t, [u8]>>, ReadError> {
        let stored = self.table.get(key)?;
        let root = self.table.record.root.page;
        let value = stored.map(|stored| load(self.compression, root, stored));
        self.table.pages.intact(value.transpose())
    }

    /// The entries whose keys lie in `bounds`, from either end.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn range<K: AsRef<[u8]> + ?Sized>(
        &self,
        bounds: impl RangeBounds<K>,
    ) -> Result<CompressedRange<'t>, ReadError> {
        Ok(CompressedRange {
            range: self.table.range(bounds)?,
            compression: self.compression,
            root: self.table.record.root.page,
        })
    }
}

/// A key that lasts until the range's next one, and a value.
pub type CompressedEntry<'k, 't> = (&'k [u8], Cow<'t, [u8]>);

/// Entries of a compressed table in the order of their keys.
#[derive(Debug)]
pub struct CompressedRange<'t> {
    range: Range<'t>,
    compression: Compression,
    root: u32,
}

impl<'t> CompressedRange<'t> {
    /// The next entry from the front.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    #[expect(
        clippy::should_implement_trait,
        reason = "the key is lent until the next call"
    )]
    pub fn next(&mut self) -> Result<Option<CompressedEntry<'_, 't>>, ReadError> {
        let (compression, root, pages) = (self.compression, self.root, self.range.pages);
        let entry = self.range.next()?;
        let loaded = entry.map(|(key, stored)| Ok((key, load(compression, root, stored)?)));
        pages.intact(loaded.transpose())
    }

    /// The next entry from the back.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    pub fn next_back(&mut self) -> Result<Option<CompressedEntry<'_, 't>>, ReadError> {
        let (compression, root, pages) = (self.compression, self.root, self.range.pages);
        let entry = self.range.next_back()?;
        let loaded = entry.map(|(key, stored)| Ok((key, load(compression, root, stored)?)));
        pages.intact(loaded.transpose())
    }
}

/// A compressed table in a write transaction.
#[derive(Debug)]
pub struct CompressedTableMut<'t, 's> {
    table: TableMut<'t, 's>,
    compression: Compression,
    threshold: usize,
    /// What is stored of the value that is put.
    stored: Vec<u8>,
}

impl CompressedTableMut<'_, '_> {
    /// Number of entries.
    pub fn len(&self) -> u64 {
        self.table.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The value of `key`, with the changes of this transaction.
    ///
    /// # Errors
    ///
    /// [`WriteError::Read`], [`WriteError::Broken`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, WriteError> {
        let (_, record) = self.table.source()?;
        let stored = self.table.get(key)?;
        let value = stored.map(|stored| load(self.compression, record.root.page, stored));
        Ok(value.transpose()?)
    }

    /// Stores `value` under `key`, in the place of an older one; true if the key is new.
    ///
    /// # Errors
    ///
    /// As [`TableMut::put`].
    ///
    /// # Complexity
    ///
    /// That of [`TableMut::put`], and of compressing the value. Above 1 GiB a value is
    /// stored as it is.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<bool, WriteError> {
        let is_long = value.len() > self.threshold && value.len() <= MOST_PACKED_BYTES;
        let packed = is_long.then(|| pack(self.compression, value)).flatten();
        let stored = match &packed {
            Some(bytes) => Stored::Packed {
                len: value.len(),
                bytes,
            },
            None => Stored::Plain(value),
        };
        stored.encode(&mut self.stored);
        self.table.put(key, &self.stored)
    }

    /// Stores `value` under `key` if there is nothing; true if it did.
    ///
    /// # Errors
    ///
    /// As [`TableMut::put`].
    pub fn insert_if_absent(&mut self, key: &[u8], value: &[u8]) -> Result<bool, WriteError> {
        if self.table.get(key)?.is_some() {
            return Ok(false);
        }
        self.put(key, value)
    }

    /// Takes `key` out; false if it was not there.
    ///
    /// # Errors
    ///
    /// As [`TableMut::put`].
    pub fn delete(&mut self, key: &[u8]) -> Result<bool, WriteError> {
        self.table.delete(key)
    }

    /// Takes the entries whose keys lie in `bounds` out; how many there were.
    ///
    /// # Errors
    ///
    /// As [`TableMut::delete_range`].
    pub fn delete_range<K: AsRef<[u8]> + ?Sized>(
        &mut self,
        bounds: impl RangeBounds<K>,
    ) -> Result<u64, WriteError> {
        self.table.delete_range(bounds)
    }
}

#[cfg(test)]
mod tests {
    //! What could go wrong: bytes with right checksums that nobody packed are unpacked to
    //! something of another length, take memory without bound, or panic. How it is seen:
    //! they are stored as what a compressed table keeps, and read through it.

    use super::*;
    use crate::store::Options;
    use proptest::prelude::*;

    /// What a table with this method says of a value that is stored so.
    fn read(compression: Compression, stored: &[u8]) -> Result<Vec<u8>, ReadError> {
        let store = Options::new().open_in_memory().expect("address space");
        let mut write = store.write().expect("sound");
        let table = write.raw_table_with("t", &options(compression, 0));
        table.expect("new").put(b"k", stored).expect("sound");
        write.commit().expect("memory");
        let read = store.read();
        let table = read.raw_table("t").expect("sound").expect("made");
        let table = CompressedTable { table, compression };
        let value = table.get(b"k")?.expect("put");
        Ok(value.into_owned())
    }

    #[test]
    fn the_check_unpacks_what_is_packed() {
        for stored in [&b"\x02value"[..], b"\x01\xff\xff\xff\xffabc", b"\0value"] {
            let store = Options::new().open_in_memory().expect("address space");
            let mut write = store.write().expect("sound");
            let table = write.raw_table_with("t", &options(Compression::Lz4, 0));
            table.expect("new").put(b"k", stored).expect("sound");
            write.commit().expect("memory");
            let found = store.check().problems;
            let is_sound = stored.first() == Some(&0);
            assert_eq!(found.is_empty(), is_sound, "{found:?}");
        }
    }

    #[test]
    fn a_value_of_an_unknown_kind_is_damage() {
        for compression in [Compression::Lz4, Compression::Zstd] {
            assert_eq!(read(compression, b"\0value"), Ok(b"value".to_vec()));
            for stored in [
                &b""[..],
                b"\x02value",
                b"\x01abc",
                b"\x01\xff\xff\xff\xffabc",
            ] {
                let error = read(compression, stored).expect_err("no value");
                let flaw = Flaw::Compressed;
                assert!(matches!(error, ReadError::Damaged { flaw: found, .. } if found == flaw));
            }
        }
    }

    #[test]
    fn a_table_whose_feature_is_missing_is_not_read() {
        for (compression, name, is_there) in [
            (Compression::Lz4, "lz4", cfg!(feature = "lz4")),
            (Compression::Zstd, "zstd", cfg!(feature = "zstd")),
        ] {
            let store = Options::new().open_in_memory().expect("address space");
            let mut write = store.write().expect("sound");
            let options = options(compression, 0);
            write.raw_table_with("t", &options).expect("new");
            write.commit().expect("memory");
            let read = store.read();
            match read.compressed("t") {
                Ok(table) => assert!(is_there && table.is_some()),
                Err(TableError::Feature { feature, .. }) => {
                    assert_eq!((is_there, feature), (false, name));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn forged_values_are_errors_or_have_the_length_they_say(
            word in "[ab]{1,9}",
            times in 1..900_usize,
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            len in prop_oneof![0..9000_u32, any::<u32>()],
            noise in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            for compression in [Compression::Lz4, Compression::Zstd] {
                let value = word.repeat(times).into_bytes();
                let Some(packed) = pack(compression, &value) else {
                    continue;
                };
                let mut stored = Vec::new();
                let of = |len, bytes| Stored::Packed { len, bytes };
                of(value.len(), &packed[..]).encode(&mut stored);
                prop_assert_eq!(read(compression, &stored), Ok(value.clone()));
                let mut changed = packed.clone();
                let place = at.index(packed.len());
                changed[place] = byte;
                let claimed = usize::try_from(len).expect("64 bits");
                for (len, bytes) in [
                    (value.len(), &changed),
                    (claimed, &packed),
                    (claimed, &changed),
                    (claimed, &noise),
                ] {
                    of(len, bytes).encode(&mut stored);
                    if let Ok(value) = read(compression, &stored) {
                        prop_assert_eq!(value.len(), len);
                    }
                }
            }
        }
    }
}
