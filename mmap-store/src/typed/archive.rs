//! Values as archives of the crate `rkyv`.

use core::marker::PhantomData;
use std::borrow::Cow;

use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archived, Portable, Serialize};

use crate::error::{DecodeError, EncodeError};
use crate::typed::stored::Stored;
use crate::typed::value::{Named, Value, named};

/// Values of any shape that `rkyv` can archive, read as `&Archived<T>` in the file.
///
/// An archive is validated when it is read: bytes with a right sum need not be an
/// archive, and who forges one can sum. A store remembers what it found valid until the page
/// is written anew, in 1 MiB for some 130,000 values, so that later reads take as long as
/// those of bytes do. Each read validates anew in a write transaction, where the guard of
/// [`Options::guard_sigbus`](crate::Options::guard_sigbus) is on, of values of 4 GiB and
/// more, and of types after the first 256 of a process.
///
/// ```
/// use brickyard_store::{Archive, Named, Options};
///
/// #[derive(rkyv::Archive, rkyv::Serialize)]
/// struct Town {
///     name: String,
///     streets: Vec<String>,
/// }
///
/// impl Named for Town {
///     const NAME: &'static str = "town";
///     const VERSION: u32 = 2; // The first one had no streets.
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Options::new().open_in_memory()?;
/// let mut write = store.write()?;
/// let ulm = Town { name: "Ulm".into(), streets: vec!["Hirschstraße".into()] };
/// write.typed::<u32, Archive<Town>>("towns")?.put(&89_073_u32, &ulm)?;
/// write.commit()?;
///
/// let read = store.read();
/// let towns = read.typed::<u32, Archive<Town>>("towns")?.expect("made above");
/// let town = towns.get(&89_073_u32)?.expect("put above"); // In the file.
/// assert_eq!((&*town.name, &*town.streets[0]), ("Ulm", "Hirschstraße"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Archive<T>(PhantomData<fn() -> T>);

impl<T> Value for Archive<T>
where
    T: Named + rkyv::Archive + 'static,
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
    Archived<T>: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Error>>,
{
    type Write = T;
    type Read<'a> = &'a Archived<T>;
    /// What `AlignedVec` has while an archive is made.
    const ALIGNMENT: usize = AlignedVec::<16>::ALIGNMENT;

    fn type_name() -> Cow<'static, str> {
        named::<T>("archive")
    }

    fn encode<'v>(value: &'v T, scratch: &'v mut Vec<u8>) -> Result<&'v [u8], EncodeError> {
        let bytes = rkyv::to_bytes::<rancor::Error>(value);
        scratch.extend_from_slice(&bytes.map_err(|error| EncodeError(error.to_string().into()))?);
        Ok(scratch)
    }

    fn decode(bytes: &[u8]) -> Result<&Archived<T>, DecodeError> {
        let archive = rkyv::access::<Archived<T>, rancor::Error>(bytes);
        archive.map_err(|error| DecodeError::Invalid(error.to_string().into()))
    }

    fn decode_stored<'b>(
        bytes: &'b [u8],
        stored: Stored<'_>,
    ) -> Result<&'b Archived<T>, DecodeError> {
        let place = stored.place::<Self>(bytes);
        if place.is_some_and(|place| stored.knows(place)) {
            // SAFETY: these bytes were found to be an archive of this type, since `remember`
            // below is all that makes a place known of `Self`. They are what they were
            // then, at the same address: the mapping does not move, and nobody writes to a
            // page that is lent without the place being forgotten (`validated`, I1 to I3).
            return Ok(unsafe { rkyv::access_unchecked::<Archived<T>>(bytes) });
        }
        let archive = Self::decode(bytes)?;
        if let Some(place) = place {
            // SAFETY: (1) the place is that of `bytes` and `Self`; (2) `decode` validated
            // all of the archive whose root the call above takes, which is the same.
            unsafe { stored.remember(place) };
        }
        Ok(archive)
    }
}
