//! Transactions: reading a snapshot, and changing the store.

pub(crate) mod append;
pub(crate) mod commit;
pub(crate) mod cursor;
pub(crate) mod future;
pub(crate) mod load;
pub(crate) mod read;
pub(crate) mod relocate;
pub(crate) mod reserve;
pub(crate) mod savepoint;
pub(crate) mod uncommitted;
pub(crate) mod write;
