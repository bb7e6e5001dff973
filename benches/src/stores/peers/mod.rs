//! The other stores.

pub(crate) mod canopy;
pub(crate) mod fjall;
#[expect(
    unsafe_code,
    reason = "opening LMDB is unsafe: nobody else may write to its file"
)]
pub(crate) mod lmdb;
pub(crate) mod mdbx;
pub(crate) mod redb;

/// Bytes of address space for the files that are mapped.
const MAP_BYTES: usize = 64 << 30;

/// Bytes of the caches of those that read into memory of their own: more than the data.
const CACHE_BYTES: usize = 1 << 30;
