//! Values that are their own bytes, by the crate `zerocopy`.

use core::marker::PhantomData;
use std::borrow::Cow;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::error::{DecodeError, EncodeError};
use crate::typed::value::{Named, Value, named};

/// Values of a type without pointers or padding, read as `&T` in the file.
///
/// Numbers in `T` lie in the file as they lie in memory: use those of
/// [`zerocopy::byteorder`] where files move between machines of different byte order.
///
/// ```
/// use brickyard_store::{Named, Options, Plain};
/// use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
/// #[repr(C)]
/// struct Town {
///     people: u64,
///     place: [f32; 2],
/// }
///
/// impl Named for Town {
///     const NAME: &'static str = "town";
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Options::new().open_in_memory()?;
/// let mut write = store.write()?;
/// let ulm = Town { people: 128_000, place: [48.4, 9.99] };
/// write.typed::<str, Plain<Town>>("towns")?.put("Ulm", &ulm)?;
/// write.commit()?;
///
/// let read = store.read();
/// let towns = read.typed::<str, Plain<Town>>("towns")?.expect("made above");
/// let town: &Town = towns.get("Ulm")?.expect("put above"); // In the file.
/// assert_eq!(town.people, 128_000);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Plain<T>(PhantomData<fn() -> T>);

impl<T> Value for Plain<T>
where
    T: Named + FromBytes + IntoBytes + Immutable + KnownLayout + 'static,
{
    type Write = T;
    type Read<'a> = &'a T;
    const ALIGNMENT: usize = align_of::<T>();

    fn type_name() -> Cow<'static, str> {
        named::<T>("plain")
    }

    fn encode<'v>(value: &'v T, _scratch: &'v mut Vec<u8>) -> Result<&'v [u8], EncodeError> {
        Ok(value.as_bytes())
    }

    fn decode(bytes: &[u8]) -> Result<&T, DecodeError> {
        T::ref_from_bytes(bytes).map_err(|error| DecodeError::Invalid(error.to_string().into()))
    }
}
