//! The copy-on-write B+tree: reading, walking, changing.

pub(crate) mod bulk;
pub(crate) mod cursor;
pub(crate) mod edit;
pub(crate) mod gather;
pub(crate) mod memory;
pub(crate) mod mutate;
pub(crate) mod pack;
pub(crate) mod range;
pub(crate) mod search;
pub(crate) mod work;
