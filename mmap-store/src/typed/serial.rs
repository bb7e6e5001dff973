//! Values of `serde`, in the format of the crate `postcard`.

use core::marker::PhantomData;
use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{DecodeError, EncodeError};
use crate::typed::value::{Named, Value, named};

/// Values of any shape that `serde` knows, in the compact format of `postcard`. They are
/// copied out of the file when they are read.
///
/// ```
/// use brickyard_store::{Named, Options, Serial};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Town {
///     name: String,
///     people: Option<u64>,
/// }
///
/// impl Named for Town {
///     const NAME: &'static str = "town";
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Options::new().open_in_memory()?;
/// let mut write = store.write()?;
/// let ulm = Town { name: "Ulm".into(), people: Some(128_000) };
/// write.typed::<u32, Serial<Town>>("towns")?.put(&89_073_u32, &ulm)?;
/// write.commit()?;
///
/// let read = store.read();
/// let towns = read.typed::<u32, Serial<Town>>("towns")?.expect("made above");
/// assert_eq!(towns.get(&89_073_u32)?.expect("put above").name, "Ulm");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Serial<T>(PhantomData<fn() -> T>);

impl<T: Named + Serialize + DeserializeOwned> Value for Serial<T> {
    type Write = T;
    type Read<'a> = T;

    fn type_name() -> Cow<'static, str> {
        named::<T>("postcard")
    }

    fn encode<'v>(value: &'v T, scratch: &'v mut Vec<u8>) -> Result<&'v [u8], EncodeError> {
        let bytes = postcard::to_extend(value, core::mem::take(scratch));
        *scratch = bytes.map_err(|error| EncodeError(error.to_string().into()))?;
        Ok(scratch)
    }

    fn decode(bytes: &[u8]) -> Result<T, DecodeError> {
        let value = postcard::take_from_bytes(bytes);
        let (value, rest) =
            value.map_err(|error| DecodeError::Invalid(error.to_string().into()))?;
        if !rest.is_empty() {
            return Err(DecodeError::Long);
        }
        Ok(value)
    }
}
