//! Tables of types: what keys and values are is recorded in the file and checked at open.

#[cfg(feature = "rkyv")]
mod archive;
mod bytes;
mod key;
mod multi_map;
#[cfg(feature = "zerocopy")]
mod plain;
#[cfg(feature = "serde")]
mod serial;
#[cfg_attr(
    not(feature = "rkyv"),
    expect(dead_code, reason = "nothing but archives is remembered")
)]
mod stored;
mod table;
mod value;

#[cfg(feature = "rkyv")]
pub use archive::Archive;
pub use key::Key;
pub use multi_map::{TypedMultiMap, TypedMultiMapMut, TypedPair, TypedPairs, TypedValues};
#[cfg(feature = "zerocopy")]
pub use plain::Plain;
#[cfg(feature = "serde")]
pub use serial::Serial;
pub use stored::Stored;
pub use table::{TypedEntry, TypedRange, TypedTable, TypedTableMut};
pub use value::{Named, Value};
