//! Multi-maps of typed keys and values.
//!
//! A value is put together in memory before it is decoded, so there is no place in the file
//! where it could start as its type wants: it is copied to one, and the file records the
//! names of types and no alignment.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Bound, RangeBounds};

use crate::error::{TableError, TypedError};
use crate::multi_map::{MultiMap, MultiMapMut, Pairs, Values, options};
use crate::schema::TableOptions;
use crate::txn::read::ReadTxn;
use crate::txn::write::WriteTxn;
use crate::typed::key::Key;
use crate::typed::table::{Types, decode_key, encode, encode_bounds, impl_debug, no_value};
use crate::typed::value::Value;

/// What a multi-map of these types is created with.
fn options_of<K: Key + ?Sized, V: Value + ?Sized>() -> TableOptions {
    let options = options().key_type(&K::type_name());
    options.value_type(&V::type_name())
}

impl ReadTxn<'_> {
    /// The typed multi-map called `name`, or `None` if there is nothing of that name.
    ///
    /// # Errors
    ///
    /// [`TableError::Mismatch`] if its types are others, or it is a table;
    /// [`TableError::Read`].
    pub fn typed_multi_map<K: Key + ?Sized, V: Value + ?Sized>(
        &self,
        name: &str,
    ) -> Result<Option<TypedMultiMap<'_, K, V>>, TableError> {
        let map = self.multi_map_with(name, &options_of::<K, V>())?;
        let types = PhantomData;
        Ok(map.map(|map| TypedMultiMap { map, types }))
    }
}

impl<'s> WriteTxn<'s> {
    /// The typed multi-map called `name`, which is created if it is not there: several
    /// values per key, each once, in the order of their bytes, which is their own for all
    /// types that are [keys](Key), too. The names of both types are recorded in the file.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = brickyard_store::Options::new().open_in_memory()?;
    /// let mut write = store.write()?;
    /// let mut visits = write.typed_multi_map::<str, (i32, u8)>("visits")?;
    /// assert!(visits.insert("Ulm", &(2024, 6))?);
    /// assert!(visits.insert("Ulm", &(-100, 1))?);
    /// assert!(!visits.insert("Ulm", &(2024, 6))?); // It is there.
    /// write.commit()?;
    ///
    /// let read = store.read();
    /// let visits = read.typed_multi_map::<str, (i32, u8)>("visits")?.expect("made above");
    /// let mut of_ulm = visits.get("Ulm")?;
    /// assert_eq!(of_ulm.next()?, Some((-100, 1)));
    /// assert_eq!(of_ulm.next()?, Some((2024, 6)));
    /// assert_eq!(of_ulm.next()?, None);
    /// // Another type is an error.
    /// assert!(read.typed_multi_map::<str, u64>("visits").is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`TypedError::Write`], as from [`WriteTxn::multi_map`], and if its types are others.
    pub fn typed_multi_map<K: Key + ?Sized, V: Value + ?Sized>(
        &mut self,
        name: &str,
    ) -> Result<TypedMultiMapMut<'_, 's, K, V>, TypedError> {
        Ok(TypedMultiMapMut {
            map: self.multi_map_with(name, &options_of::<K, V>())?,
            scratch: Vec::new(),
            types: PhantomData,
        })
    }
}

/// Decodes a value that was put together in memory, from a copy in `aligned` if it has to
/// start elsewhere.
fn decode_copied<'b, V: Value + ?Sized>(
    bytes: &'b [u8],
    aligned: &'b mut Vec<u8>,
) -> Result<V::Read<'b>, TypedError> {
    // Zero is none, and a multi-map records no alignment that would have been refused.
    let alignment = V::ALIGNMENT.max(1);
    let bytes = if bytes.as_ptr().addr().is_multiple_of(alignment) {
        bytes
    } else {
        aligned.clear();
        aligned.reserve(bytes.len() + alignment);
        let start = aligned.as_ptr().addr();
        aligned.resize(start.next_multiple_of(alignment) - start, 0);
        let start = aligned.len();
        aligned.extend_from_slice(bytes);
        &aligned[start..]
    };
    V::decode(bytes).map_err(no_value::<V>)
}

/// A typed multi-map as a snapshot sees it.
///
/// Keys may be given as any type with the same [`Key::Owned`], as in a
/// [`TypedTable`](crate::TypedTable).
pub struct TypedMultiMap<'t, K: ?Sized, V: ?Sized> {
    map: MultiMap<'t>,
    types: Types<K, V>,
}

impl<'t, K: Key + ?Sized, V: Value + ?Sized> TypedMultiMap<'t, K, V> {
    /// Number of values of all keys.
    pub fn len(&self) -> u64 {
        self.map.len()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The values of `key`, ascending, from either end.
    ///
    /// # Errors
    ///
    /// [`TypedError::Read`].
    ///
    /// # Complexity
    ///
    /// Two look-ups, and constant time for a value.
    pub fn get<Q>(&self, key: &Q) -> Result<TypedValues<'t, V>, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        Ok(TypedValues::new(self.map.get(&encode(key))?))
    }

    /// Whether `value` is one of the values of `key`.
    ///
    /// # Errors
    ///
    /// [`TypedError::Read`]; [`TypedError::Encode`].
    pub fn contains<Q>(&self, key: &Q, value: &V::Write) -> Result<bool, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        let mut scratch = Vec::new();
        let value = V::encode(value, &mut scratch)?;
        Ok(self.map.contains(&encode(key), value)?)
    }

    /// Number of values of `key`.
    ///
    /// # Errors
    ///
    /// [`TypedError::Read`].
    ///
    /// # Complexity
    ///
    /// Linear in the result.
    pub fn count<Q>(&self, key: &Q) -> Result<u64, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        Ok(self.map.count(&encode(key))?)
    }

    /// All keys with each of their values, from either end.
    ///
    /// # Errors
    ///
    /// [`TypedError::Read`].
    pub fn iter(&self) -> Result<TypedPairs<'t, K, V>, TypedError> {
        self.range::<K>((Bound::Unbounded, Bound::Unbounded))
    }

    /// The keys in `bounds` with each of their values, from either end.
    ///
    /// # Errors
    ///
    /// [`TypedError::Read`].
    pub fn range<Q>(&self, bounds: impl RangeBounds<Q>) -> Result<TypedPairs<'t, K, V>, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        let pairs = self.map.range::<Vec<u8>>(encode_bounds(&bounds))?;
        Ok(TypedPairs::new(pairs))
    }
}

/// A typed multi-map in a write transaction.
pub struct TypedMultiMapMut<'t, 's, K: ?Sized, V: ?Sized> {
    map: MultiMapMut<'t, 's>,
    scratch: Vec<u8>,
    types: Types<K, V>,
}

impl<K: Key + ?Sized, V: Value + ?Sized> TypedMultiMapMut<'_, '_, K, V> {
    /// Number of values of all keys.
    pub fn len(&self) -> u64 {
        self.map.len()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Adds `value` to the values of `key`; false if it was one of them.
    ///
    /// # Errors
    ///
    /// [`TypedError::Write`], as from [`MultiMapMut::insert`]; [`TypedError::Encode`].
    pub fn insert<Q>(&mut self, key: &Q, value: &V::Write) -> Result<bool, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        self.scratch.clear();
        let value = V::encode(value, &mut self.scratch)?;
        Ok(self.map.insert(&encode(key), value)?)
    }

    /// Takes `value` out of the values of `key`; false if it was none of them.
    ///
    /// # Errors
    ///
    /// [`TypedError::Write`]; [`TypedError::Encode`].
    pub fn remove<Q>(&mut self, key: &Q, value: &V::Write) -> Result<bool, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        self.scratch.clear();
        let value = V::encode(value, &mut self.scratch)?;
        Ok(self.map.remove(&encode(key), value)?)
    }

    /// Takes `key` out with all its values; how many there were.
    ///
    /// # Errors
    ///
    /// [`TypedError::Write`].
    ///
    /// # Complexity
    ///
    /// That of [`TypedMultiMapMut::remove`] for each value.
    pub fn remove_all<Q>(&mut self, key: &Q) -> Result<u64, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        Ok(self.map.remove_all(&encode(key))?)
    }

    /// The values of `key`, ascending, with the changes of this transaction.
    ///
    /// # Errors
    ///
    /// [`TypedError::Write`].
    pub fn get<Q>(&self, key: &Q) -> Result<TypedValues<'_, V>, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        Ok(TypedValues::new(self.map.get(&encode(key))?))
    }

    /// Whether `value` is one of the values of `key`.
    ///
    /// # Errors
    ///
    /// [`TypedError::Write`]; [`TypedError::Encode`].
    pub fn contains<Q>(&self, key: &Q, value: &V::Write) -> Result<bool, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        let mut scratch = Vec::new();
        let value = V::encode(value, &mut scratch)?;
        Ok(self.map.contains(&encode(key), value)?)
    }

    /// Number of values of `key`.
    ///
    /// # Errors
    ///
    /// [`TypedError::Write`].
    ///
    /// # Complexity
    ///
    /// Linear in the result.
    pub fn count<Q>(&self, key: &Q) -> Result<u64, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        Ok(self.map.count(&encode(key))?)
    }

    /// The keys in `bounds` with each of their values, from either end.
    ///
    /// # Errors
    ///
    /// [`TypedError::Write`].
    pub fn range<Q>(&self, bounds: impl RangeBounds<Q>) -> Result<TypedPairs<'_, K, V>, TypedError>
    where
        Q: Key<Owned = K::Owned> + ?Sized,
    {
        let pairs = self.map.range::<Vec<u8>>(encode_bounds(&bounds))?;
        Ok(TypedPairs::new(pairs))
    }
}

/// The values of one key, ascending. Not an `Iterator`, because what a value borrows lasts
/// until the next one. Goes on after a value that could not be decoded.
pub struct TypedValues<'t, V: ?Sized> {
    values: Values<'t>,
    aligned: Vec<u8>,
    types: PhantomData<fn(&V)>,
}

impl<'t, V: Value + ?Sized> TypedValues<'t, V> {
    fn new(values: Values<'t>) -> Self {
        Self {
            values,
            aligned: Vec::new(),
            types: PhantomData,
        }
    }

    /// The smallest value that was not there yet.
    ///
    /// # Errors
    ///
    /// [`TypedError::Read`]; [`TypedError::Value`] if its bytes are no `V`.
    #[expect(
        clippy::should_implement_trait,
        reason = "the value is lent until the next call"
    )]
    pub fn next(&mut self) -> Result<Option<V::Read<'_>>, TypedError> {
        let value = self.values.next()?;
        value
            .map(|value| decode_copied::<V>(value, &mut self.aligned))
            .transpose()
    }

    /// The largest value that was not there yet.
    ///
    /// # Errors
    ///
    /// As [`TypedValues::next`].
    pub fn next_back(&mut self) -> Result<Option<V::Read<'_>>, TypedError> {
        let value = self.values.next_back()?;
        value
            .map(|value| decode_copied::<V>(value, &mut self.aligned))
            .transpose()
    }
}

/// A key, and one of its values until the next one.
pub type TypedPair<'p, K, V> = (<K as Key>::Owned, <V as Value>::Read<'p>);

/// Keys with each of their values, in the order of both. Goes on after a pair that could
/// not be decoded.
pub struct TypedPairs<'t, K: ?Sized, V: ?Sized> {
    pairs: Pairs<'t>,
    aligned: Vec<u8>,
    types: Types<K, V>,
}

impl<'t, K: Key + ?Sized, V: Value + ?Sized> TypedPairs<'t, K, V> {
    fn new(pairs: Pairs<'t>) -> Self {
        Self {
            pairs,
            aligned: Vec::new(),
            types: PhantomData,
        }
    }

    /// The next pair from the front.
    ///
    /// # Errors
    ///
    /// [`TypedError::Read`]; [`TypedError::Key`] or [`TypedError::Value`] if its bytes are
    /// none.
    #[expect(
        clippy::should_implement_trait,
        reason = "the value is lent until the next call"
    )]
    pub fn next(&mut self) -> Result<Option<TypedPair<'_, K, V>>, TypedError> {
        let Some((key, value)) = self.pairs.next()? else {
            return Ok(None);
        };
        let key = decode_key::<K>(key)?;
        Ok(Some((key, decode_copied::<V>(value, &mut self.aligned)?)))
    }

    /// The next pair from the back.
    ///
    /// # Errors
    ///
    /// As [`TypedPairs::next`].
    pub fn next_back(&mut self) -> Result<Option<TypedPair<'_, K, V>>, TypedError> {
        let Some((key, value)) = self.pairs.next_back()? else {
            return Ok(None);
        };
        let key = decode_key::<K>(key)?;
        Ok(Some((key, decode_copied::<V>(value, &mut self.aligned)?)))
    }
}

impl_debug! {
    TypedMultiMap<'_, K, V> map;
    TypedMultiMapMut<'_, '_, K, V> map;
    TypedValues<'_, V> values;
    TypedPairs<'_, K, V> pairs;
}
