//! Transactions: reading a snapshot, and changing the store.

pub(crate) mod commit;
pub(crate) mod read;
pub(crate) mod savepoint;
pub(crate) mod write;
