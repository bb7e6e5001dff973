//! Keys: types whose order their bytes keep.

use std::borrow::Cow;

use crate::error::DecodeError;

/// A type of keys, whose encoding is ordered as its values are.
///
/// Implemented for integers of up to 128 bits (big-endian, signed ones with the top bit
/// flipped), `bool`, `()`, strings, byte slices, arrays, tuples of up to four and
/// `Option`. All but the last part of a tuple or an array are written so that their end
/// shows: strings there take two bytes more, and one for each zero.
///
/// An implementation must keep, for all `a` and `b`:
/// - `encode(a) < encode(b)` exactly if `a < b`, and the same for `encode_part`, whatever
///   follows it;
/// - `decode(encode(a))` and `decode_part(encode_part(a))` give `a`, in the form of
///   [`Key::Owned`], and all types with the same `Owned` encode alike;
/// - other bytes give an error or some key, and no panic.
///
/// Who breaks that finds other entries than it looks for; nothing worse comes of it.
pub trait Key {
    /// A key that was read.
    type Owned;

    /// The name that tables record. Give it another one when the encoding changes.
    fn type_name() -> Cow<'static, str>;

    /// Appends the key where something may follow it.
    fn encode_part(&self, out: &mut Vec<u8>);

    /// Takes what [`Key::encode_part`] wrote from the front of `bytes`.
    ///
    /// # Errors
    ///
    /// Any [`DecodeError`].
    fn decode_part(bytes: &mut &[u8]) -> Result<Self::Owned, DecodeError>;

    /// Appends the key where nothing follows it.
    fn encode(&self, out: &mut Vec<u8>) {
        self.encode_part(out);
    }

    /// Reads what [`Key::encode`] wrote.
    ///
    /// # Errors
    ///
    /// Any [`DecodeError`].
    fn decode(mut bytes: &[u8]) -> Result<Self::Owned, DecodeError> {
        let key = Self::decode_part(&mut bytes)?;
        ended(bytes)?;
        Ok(key)
    }
}

fn ended(rest: &[u8]) -> Result<(), DecodeError> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(DecodeError::Long)
    }
}

fn first_chunk<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (chunk, rest) = bytes.split_first_chunk().ok_or(DecodeError::Short)?;
    *bytes = rest;
    Ok(*chunk)
}

macro_rules! integer_keys {
    ($($unsigned:ident $signed:ident)*) => {$(
        impl Key for $unsigned {
            type Owned = Self;

            fn type_name() -> Cow<'static, str> {
                stringify!($unsigned).into()
            }

            fn encode_part(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }

            fn decode_part(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
                first_chunk(bytes).map(Self::from_be_bytes)
            }
        }

        impl Key for $signed {
            type Owned = Self;

            fn type_name() -> Cow<'static, str> {
                stringify!($signed).into()
            }

            fn encode_part(&self, out: &mut Vec<u8>) {
                (self.cast_unsigned() ^ 1 << ($signed::BITS - 1)).encode_part(out);
            }

            fn decode_part(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
                let number = $unsigned::decode_part(bytes)?;
                Ok((number ^ 1 << ($signed::BITS - 1)).cast_signed())
            }
        }
    )*};
}

integer_keys!(u8 i8 u16 i16 u32 i32 u64 i64 u128 i128);

impl Key for bool {
    type Owned = Self;

    fn type_name() -> Cow<'static, str> {
        "bool".into()
    }

    fn encode_part(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode_part(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        match first_chunk(bytes)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [tag] => Err(DecodeError::Tag(tag)),
        }
    }
}

impl Key for () {
    type Owned = Self;

    fn type_name() -> Cow<'static, str> {
        "()".into()
    }

    fn encode_part(&self, _out: &mut Vec<u8>) {}

    fn decode_part(_bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(())
    }
}

impl<T: Key + ?Sized> Key for &T {
    type Owned = T::Owned;

    fn type_name() -> Cow<'static, str> {
        T::type_name()
    }

    fn encode_part(&self, out: &mut Vec<u8>) {
        (**self).encode_part(out);
    }

    fn decode_part(bytes: &mut &[u8]) -> Result<T::Owned, DecodeError> {
        T::decode_part(bytes)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        (**self).encode(out);
    }

    fn decode(bytes: &[u8]) -> Result<T::Owned, DecodeError> {
        T::decode(bytes)
    }
}

/// `None` is below all others.
impl<T: Key> Key for Option<T> {
    type Owned = Option<T::Owned>;

    fn type_name() -> Cow<'static, str> {
        format!("option<{}>", T::type_name()).into()
    }

    fn encode_part(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(key) = self {
            key.encode_part(out);
        }
    }

    fn decode_part(bytes: &mut &[u8]) -> Result<Self::Owned, DecodeError> {
        let is_some = bool::decode_part(bytes)?;
        is_some.then(|| T::decode_part(bytes)).transpose()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(key) = self {
            key.encode(out);
        }
    }

    fn decode(mut bytes: &[u8]) -> Result<Self::Owned, DecodeError> {
        if bool::decode_part(&mut bytes)? {
            return T::decode(bytes).map(Some);
        }
        ended(bytes)?;
        Ok(None)
    }
}

impl<T: Key, const N: usize> Key for [T; N] {
    type Owned = [T::Owned; N];

    fn type_name() -> Cow<'static, str> {
        format!("[{}; {N}]", T::type_name()).into()
    }

    fn encode_part(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|part| part.encode_part(out));
    }

    fn decode_part(bytes: &mut &[u8]) -> Result<Self::Owned, DecodeError> {
        array_of(|_| T::decode_part(bytes))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        if let Some((last, parts)) = self.split_last() {
            parts.iter().for_each(|part| part.encode_part(out));
            last.encode(out);
        }
    }

    fn decode(mut bytes: &[u8]) -> Result<Self::Owned, DecodeError> {
        let array = array_of(|index| {
            if index + 1 == N {
                T::decode(core::mem::take(&mut bytes))
            } else {
                T::decode_part(&mut bytes)
            }
        })?;
        ended(bytes)?;
        Ok(array)
    }
}

/// An array of what `part` gives for each index, or its first error.
fn array_of<T, const N: usize>(
    mut part: impl FnMut(usize) -> Result<T, DecodeError>,
) -> Result<[T; N], DecodeError> {
    let parts: Result<Vec<T>, _> = (0..N).map(&mut part).collect();
    parts?.try_into().map_err(|_| DecodeError::Short)
}

macro_rules! tuple_keys {
    ($(($($part:ident $index:tt)* ; $last:ident $last_index:tt))*) => {$(
        impl<$($part: Key,)* $last: Key> Key for ($($part,)* $last,) {
            type Owned = ($($part::Owned,)* $last::Owned,);

            fn type_name() -> Cow<'static, str> {
                let parts = [$($part::type_name(),)* $last::type_name()];
                format!("({})", parts.join(", ")).into()
            }

            fn encode_part(&self, out: &mut Vec<u8>) {
                $(self.$index.encode_part(out);)*
                self.$last_index.encode_part(out);
            }

            fn decode_part(bytes: &mut &[u8]) -> Result<Self::Owned, DecodeError> {
                Ok(($($part::decode_part(bytes)?,)* $last::decode_part(bytes)?,))
            }

            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$index.encode_part(out);)*
                self.$last_index.encode(out);
            }

            fn decode(mut bytes: &[u8]) -> Result<Self::Owned, DecodeError> {
                let bytes = &mut bytes;
                Ok(($($part::decode_part(bytes)?,)* $last::decode(bytes)?,))
            }
        }
    )*};
}

tuple_keys! {
    (A 0; B 1)
    (A 0 B 1; C 2)
    (A 0 B 1 C 2; D 3)
}
