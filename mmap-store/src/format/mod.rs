//! What the bytes of the files mean. Pure: no input or output, no unsafe, no indexing,
//! no unchecked arithmetic, since bytes read from a file are an allegation.
//!
//! `docs/format.md` says the same in words.

pub(crate) mod bytes;
pub(crate) mod heads;
pub(crate) mod increment;
pub(crate) mod meta;
pub(crate) mod node;
pub(crate) mod packed;
pub(crate) mod pair;
pub(crate) mod ring;
pub(crate) mod table;
pub(crate) mod warm;
