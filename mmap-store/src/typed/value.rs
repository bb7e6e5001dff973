//! Values: what is written, and what is read of it.

use std::borrow::Cow;

use crate::error::{DecodeError, EncodeError};
use crate::typed::key::Key;
use crate::typed::stored::Stored;

/// A type of values.
///
/// | values | read as |
/// |---|---|
/// | strings, byte slices | slices of the file |
/// | all other [keys](Key): numbers, tuples, `Option`, … | themselves |
/// | `Plain<T>`, feature `zerocopy` | `&T`, in the file |
/// | `Archive<T>`, feature `rkyv` | `&Archived<T>`, in the file |
/// | `Serial<T>`, feature `serde` | `T` |
///
/// An implementation must give errors for bytes that it did not write, and no panic.
pub trait Value {
    /// What is written.
    type Write: ?Sized;
    /// What is read; may borrow from the file.
    type Read<'a>;
    /// Where the bytes start: at multiples of this, a power of two of at most 4096.
    const ALIGNMENT: usize = 1;

    /// The name that tables record. Give it another one when the encoding changes.
    fn type_name() -> Cow<'static, str>;

    /// The bytes of a value: its own, or put into `scratch`, which is empty.
    ///
    /// # Errors
    ///
    /// [`EncodeError`].
    fn encode<'v>(
        value: &'v Self::Write,
        scratch: &'v mut Vec<u8>,
    ) -> Result<&'v [u8], EncodeError>;

    /// Reads a value.
    ///
    /// # Errors
    ///
    /// Any [`DecodeError`].
    fn decode(bytes: &[u8]) -> Result<Self::Read<'_>, DecodeError>;

    /// Reads a value from the store's own bytes, as [`Value::decode`] does.
    ///
    /// A type that reads an `Archive` hands `stored` on to that one's method
    /// of this name: a value that was found valid is not looked at again then. For others
    /// there is nothing to gain.
    ///
    /// # Errors
    ///
    /// Any [`DecodeError`].
    fn decode_stored<'b>(
        bytes: &'b [u8],
        stored: Stored<'_>,
    ) -> Result<Self::Read<'b>, DecodeError> {
        let _ = stored;
        Self::decode(bytes)
    }
}

/// The name and version under which tables record a type of one's own.
pub trait Named {
    /// The name.
    const NAME: &'static str;
    /// Counts changes of the type's layout or meaning.
    const VERSION: u32 = 1;
}

/// What a table records for `T`, wrapped as `kind`.
#[cfg(any(feature = "zerocopy", feature = "rkyv", feature = "serde"))]
pub(crate) fn named<T: Named + ?Sized>(kind: &str) -> Cow<'static, str> {
    format!("{kind} {} version {}", T::NAME, T::VERSION).into()
}

macro_rules! slices {
    ($($value:ty, $slice:ty, $name:literal, $decode:expr;)*) => {$(
        impl Value for $value {
            type Write = $slice;
            type Read<'a> = &'a $slice;

            fn type_name() -> Cow<'static, str> {
                $name.into()
            }

            fn encode<'v>(
                value: &'v $slice,
                _scratch: &'v mut Vec<u8>,
            ) -> Result<&'v [u8], EncodeError> {
                Ok(value.as_ref())
            }

            fn decode(bytes: &[u8]) -> Result<&$slice, DecodeError> {
                $decode(bytes)
            }
        }
    )*};
}

fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    core::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)
}

slices! {
    str, str, "str", text;
    String, str, "str", text;
    [u8], [u8], "bytes", Ok;
    Vec<u8>, [u8], "bytes", Ok;
}

/// Values in the encoding of keys.
macro_rules! as_keys {
    ($([$($generic:tt)*] $value:ty;)*) => {$(
        impl<$($generic)*> Value for $value {
            type Write = Self;
            type Read<'a> = <Self as Key>::Owned;

            fn type_name() -> Cow<'static, str> {
                <Self as Key>::type_name()
            }

            fn encode<'v>(
                value: &'v Self,
                scratch: &'v mut Vec<u8>,
            ) -> Result<&'v [u8], EncodeError> {
                Key::encode(value, scratch);
                Ok(scratch)
            }

            fn decode(bytes: &[u8]) -> Result<Self::Read<'_>, DecodeError> {
                <Self as Key>::decode(bytes)
            }
        }
    )*};
}

as_keys! {
    [] u8; [] u16; [] u32; [] u64; [] u128;
    [] i8; [] i16; [] i32; [] i64; [] i128;
    [] bool; [] ();
    [T: Key] Option<T>;
    [T: Key, const N: usize] [T; N];
    [A: Key, B: Key] (A, B);
    [A: Key, B: Key, C: Key] (A, B, C);
    [A: Key, B: Key, C: Key, D: Key] (A, B, C, D);
}
