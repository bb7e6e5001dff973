//! Strings and byte slices as keys: as they are where nothing follows, else escaped.

use std::borrow::Cow;

use crate::error::DecodeError;
use crate::format::pair;
use crate::typed::key::Key;

fn text(bytes: Vec<u8>) -> Result<String, DecodeError> {
    String::from_utf8(bytes).map_err(|_| DecodeError::Utf8)
}

impl Key for [u8] {
    type Owned = Vec<u8>;

    fn type_name() -> Cow<'static, str> {
        "bytes".into()
    }

    fn encode_part(&self, out: &mut Vec<u8>) {
        pair::push_key(self, out);
    }

    fn decode_part(bytes: &mut &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut key = Vec::new();
        pair::take_key(bytes, &mut key).ok_or(DecodeError::Escape)?;
        Ok(key)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
        Ok(bytes.to_vec())
    }
}

impl Key for str {
    type Owned = String;

    fn type_name() -> Cow<'static, str> {
        "str".into()
    }

    fn encode_part(&self, out: &mut Vec<u8>) {
        self.as_bytes().encode_part(out);
    }

    fn decode_part(bytes: &mut &[u8]) -> Result<String, DecodeError> {
        text(<[u8]>::decode_part(bytes)?)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.as_bytes().encode(out);
    }

    fn decode(bytes: &[u8]) -> Result<String, DecodeError> {
        text(bytes.to_vec())
    }
}

/// Those that own what others borrow.
macro_rules! as_borrowed {
    ($($owned:ty => $borrowed:ty)*) => {$(
        impl Key for $owned {
            type Owned = Self;

            fn type_name() -> Cow<'static, str> {
                <$borrowed>::type_name()
            }

            fn encode_part(&self, out: &mut Vec<u8>) {
                <$borrowed>::encode_part(self, out);
            }

            fn decode_part(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
                <$borrowed>::decode_part(bytes)
            }

            fn encode(&self, out: &mut Vec<u8>) {
                <$borrowed>::encode(self, out);
            }

            fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                <$borrowed>::decode(bytes)
            }
        }
    )*};
}

as_borrowed! {
    String => str
    Vec<u8> => [u8]
}
