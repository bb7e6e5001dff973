//! Tables of typed keys and values.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Bound, RangeBounds};

use crate::error::{DecodeError, ReadError, TableError, TypedError};
use crate::pages::Pages;
use crate::schema::TableOptions;
use crate::tree::range::{Entry, TreeRange};
use crate::txn::read::{ReadTxn, Table};
use crate::txn::write::{TableMut, WriteTxn};
use crate::typed::key::Key;
use crate::typed::stored::Stored;
use crate::typed::value::Value;

/// What a table of these types is created with.
fn options<K: Key + ?Sized, V: Value + ?Sized>() -> TableOptions {
    TableOptions::new()
        .alignment(V::ALIGNMENT)
        .key_type(&K::type_name())
        .value_type(&V::type_name())
}

impl ReadTxn<'_> {
    /// The typed table called `name`, or `None` if there is nothing of that name.
    ///
    /// # Errors
    ///
    /// [`TableError::Mismatch`] if its types or the alignment of its values are others;
    /// [`TableError::Read`].
    pub fn typed<K: Key + ?Sized, V: Value + ?Sized>(
        &self,
        name: &str,
    ) -> Result<Option<TypedTable<'_, K, V>>, TableError> {
        let table = self.table_with(name, &options::<K, V>())?;
        let types = PhantomData;
        Ok(table.map(|table| TypedTable { table, types }))
    }
}

impl<'s> WriteTxn<'s> {
    /// The typed table called `name`, which is created if it is not there. The names of
    /// both types and the alignment of values are recorded in the file.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = brickyard_store::Options::new().open_in_memory()?;
    /// let mut write = store.write()?;
    /// let mut people = write.typed::<(String, i32), u64>("people")?;
    /// people.put(&("Ulm", 2024), &128_000)?;
    /// people.put(&("Ulm", -100), &0)?;
    /// write.commit()?;
    ///
    /// let read = store.read();
    /// let people = read.typed::<(String, i32), u64>("people")?.expect("made above");
    /// let ulm = people.range(("Ulm", i32::MIN)..=("Ulm", i32::MAX))?;
    /// let years: Result<Vec<_>, _> = ulm.map(|entry| entry.map(|(key, _)| key.1)).collect();
    /// assert_eq!(years?, [-100, 2024]);
    /// // Another type is an error.
    /// assert!(read.typed::<(String, u32), u64>("people").is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`TypedError::Write`], as from [`WriteTxn::table_with`].
    pub fn typed<K: Key + ?Sized, V: Value + ?Sized>(
        &mut self,
        name: &str,
    ) -> Result<TypedTableMut<'_, 's, K, V>, TypedError> {
        let table = self.table_with(name, &options::<K, V>())?;
        Ok(TypedTableMut {
            table,
            scratch: Vec::new(),
            types: PhantomData,
        })
    }
}

/// The types of a table, which holds none of them.
pub(super) type Types<K, V> = PhantomData<(fn(&K), fn(&V))>;

/// An entry of a typed table.
pub type TypedEntry<'t, K, V> = (<K as Key>::Owned, <V as Value>::Read<'t>);

pub(super) fn encode<Q: Key + ?Sized>(key: &Q) -> Vec<u8> {
    let mut out = Vec::new();
    key.encode(&mut out);
    out
}

pub(super) fn encode_bounds<Q: Key + ?Sized>(
    bounds: &impl RangeBounds<Q>,
) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let (start, end) = (bounds.start_bound(), bounds.end_bound());
    (start.map(encode), end.map(encode))
}

pub(super) fn decode_key<K: Key + ?Sized>(bytes: &[u8]) -> Result<K::Owned, TypedError> {
    K::decode(bytes).map_err(|source| TypedError::Key {
        type_name: K::type_name(),
        source,
    })
}

pub(super) fn no_value<V: Value + ?Sized>(source: DecodeError) -> TypedError {
    TypedError::Value {
        type_name: V::type_name(),
        source,
    }
}

/// A typed table as a snapshot sees it.
///
/// Keys may be given as any type with the same [`Key::Owned`]: a `&str` where the table
/// has `String`, also within a tuple.
///
/// ```compile_fail
/// # fn late(store: &brickyard_store::Store) -> &'static str {
/// // A value does not outlive its transaction.
/// let read = store.read();
/// read.typed::<u64, str>("t").unwrap().unwrap().get(&1_u64).unwrap().unwrap()
/// # }
/// ```
pub struct TypedTable<'t, K: ?Sized, V: ?Sized> {
    table: Table<'t>,
    types: Types<K, V>,
}

impl<'t, K: Key + ?Sized, V: Value + ?Sized> TypedTable<'t, K, V> {
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
    /// [`TypedError::Read`]; [`TypedError::Value`] if its bytes are no `V`.
    pub fn get<Q>(&self, key: &Q) -> Result<Option<V::Read<'t>>, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        let value = self.table.get(&encode(key))?;
        let stored = Stored::new(self.table.pages);
        let read = value.map(|bytes| V::decode_stored(bytes, stored).map_err(no_value::<V>));
        let read = read.transpose();
        self.table.pages.intact(Ok(()))?;
        read
    }

    /// All entries in the order of their keys, from either end.
    ///
    /// # Errors
    ///
    /// [`TypedError::Read`].
    pub fn iter(&self) -> Result<TypedRange<'t, K, V>, TypedError> {
        self.range::<K>((Bound::Unbounded, Bound::Unbounded))
    }

    /// The entries whose keys lie in `bounds`, from either end.
    ///
    /// # Errors
    ///
    /// [`TypedError::Read`].
    pub fn range<Q>(&self, bounds: impl RangeBounds<Q>) -> Result<TypedRange<'t, K, V>, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        let (start, end) = encode_bounds(&bounds);
        let bounds = (
            start.as_ref().map(Vec::as_slice),
            end.as_ref().map(Vec::as_slice),
        );
        let (pages, record) = (self.table.pages, self.table.record);
        Ok(TypedRange {
            inner: pages.intact(TreeRange::new(pages, record.root, record.len, bounds))?,
            failed: false,
            types: PhantomData,
        })
    }

    /// The entry with the smallest key.
    ///
    /// # Errors
    ///
    /// [`TypedError::Read`]; [`TypedError::Key`] or [`TypedError::Value`] if its bytes
    /// are none.
    pub fn first(&self) -> Result<Option<TypedEntry<'t, K, V>>, TypedError> {
        self.iter()?.next().transpose()
    }

    /// The entry with the largest key.
    ///
    /// # Errors
    ///
    /// As [`TypedTable::first`].
    pub fn last(&self) -> Result<Option<TypedEntry<'t, K, V>>, TypedError> {
        self.iter()?.next_back().transpose()
    }
}

/// Entries of a typed table in the order of their keys. Goes on after an entry that could
/// not be decoded, and ends after a page that could not be read.
pub struct TypedRange<'t, K: ?Sized, V: ?Sized> {
    inner: TreeRange<'t, Pages>,
    /// A page could not be read.
    failed: bool,
    types: Types<K, V>,
}

impl<'t, K: Key + ?Sized, V: Value + ?Sized> Iterator for TypedRange<'t, K, V> {
    type Item = Result<TypedEntry<'t, K, V>, TypedError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let pages = self.inner.source();
        decode_entry::<K, V>(pages, self.inner.next(), &mut self.failed).transpose()
    }
}

impl<K: Key + ?Sized, V: Value + ?Sized> DoubleEndedIterator for TypedRange<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let pages = self.inner.source();
        decode_entry::<K, V>(pages, self.inner.next_back(), &mut self.failed).transpose()
    }
}

fn decode_entry<'t, K: Key + ?Sized, V: Value + ?Sized>(
    pages: &'t Pages,
    entry: Result<Option<Entry<'_, 't>>, ReadError>,
    failed: &mut bool,
) -> Result<Option<TypedEntry<'t, K, V>>, TypedError> {
    let stored = Stored::new(pages);
    let decode = |(key, value)| {
        let value = V::decode_stored(value, stored).map_err(no_value::<V>);
        Ok((decode_key::<K>(key)?, value?))
    };
    let decoded = entry.map(|entry| entry.map(decode).transpose());
    let decoded = pages.intact(decoded);
    *failed = decoded.is_err();
    decoded?
}

/// A typed table in a write transaction.
pub struct TypedTableMut<'t, 's, K: ?Sized, V: ?Sized> {
    table: TableMut<'t, 's>,
    scratch: Vec<u8>,
    types: Types<K, V>,
}

impl<K: Key + ?Sized, V: Value + ?Sized> TypedTableMut<'_, '_, K, V> {
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
    /// [`TypedError::Write`]; [`TypedError::Value`] if its bytes are no `V`.
    pub fn get<Q>(&self, key: &Q) -> Result<Option<V::Read<'_>>, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        let value = self.table.get(&encode(key))?;
        let read = value.map(|bytes| V::decode(bytes).map_err(no_value::<V>));
        read.transpose()
    }

    /// Stores `value` under `key`, in the place of an older one; true if the key is new.
    ///
    /// # Errors
    ///
    /// [`TypedError::Write`], as from [`TableMut::put`]; [`TypedError::Encode`].
    pub fn put<Q>(&mut self, key: &Q, value: &V::Write) -> Result<bool, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        self.scratch.clear();
        let bytes = V::encode(value, &mut self.scratch)?;
        Ok(self.table.put(&encode(key), bytes)?)
    }

    /// Stores `value` under `key` if there is nothing; true if it did.
    ///
    /// # Errors
    ///
    /// As [`TypedTableMut::put`].
    pub fn insert_if_absent<Q>(&mut self, key: &Q, value: &V::Write) -> Result<bool, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        self.scratch.clear();
        let bytes = V::encode(value, &mut self.scratch)?;
        Ok(self.table.insert_if_absent(&encode(key), bytes)?)
    }

    /// Takes `key` out; false if it was not there.
    ///
    /// # Errors
    ///
    /// [`TypedError::Write`].
    pub fn delete<Q>(&mut self, key: &Q) -> Result<bool, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        Ok(self.table.delete(&encode(key))?)
    }

    /// Takes the entries whose keys lie in `bounds` out; how many there were.
    ///
    /// # Errors
    ///
    /// [`TypedError::Write`].
    pub fn delete_range<Q>(&mut self, bounds: impl RangeBounds<Q>) -> Result<u64, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        Ok(self.table.delete_range::<Vec<u8>>(encode_bounds(&bounds))?)
    }
}

/// Written by hand: what is derived asks it of the types.
macro_rules! impl_debug {
    ($($name:ident <$($life:lifetime,)* $($type:ident),*> $field:ident;)*) => {$(
        impl<$($type: ?Sized),*> fmt::Debug for $name<$($life,)* $($type),*> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut shown = f.debug_struct(stringify!($name));
                shown.field(stringify!($field), &self.$field).finish()
            }
        }
    )*};
}

pub(super) use impl_debug;

impl_debug! {
    TypedTable<'_, K, V> table;
    TypedRange<'_, K, V> inner;
    TypedTableMut<'_, '_, K, V> table;
}
