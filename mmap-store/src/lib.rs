//! A **crash-safe**, ordered, transactional key-value store in a mapped file.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = std::env::temp_dir().join(format!("brickyard-doc-{}", std::process::id()));
//! use brickyard_store::Store;
//!
//! let store = Store::open(&dir)?;
//! let mut write = store.write()?;
//! write.table("towns")?.put(b"Ulm", b"128000")?;
//! write.commit()?; // It lasts from here on.
//!
//! let read = store.read(); // A snapshot: no lock, no system call.
//! let towns = read.table("towns")?.expect("it was made above");
//! assert_eq!(towns.get(b"Ulm")?, Some(&b"128000"[..])); // A slice of the file.
//! # drop(read); drop(store); std::fs::remove_dir_all(dir)?;
//! # Ok(())
//! # }
//! ```
//!
//! # The idea
//!
//! Readers walk a copy-on-write tree in one read-only mapping. A commit writes its new
//! pages without waiting for the disk, and makes them last by one short record in a ring
//! that is written already: one barrier. Now and then a checkpoint makes the
//! tree itself last, and the ring starts anew. [`design`] says how, `docs/format.md` has
//! every byte.
//!
//! # Tables
//!
//! | table | opened with | keys | values | read as |
//! |---|---|---|---|---|
//! | plain | [`table`](WriteTxn::table) | bytes | bytes | slices of the file |
//! | aligned | [`table_with`](WriteTxn::table_with) | bytes | bytes that start at multiples of up to 4096 | slices that can be cast |
//! | typed | [`typed`](WriteTxn::typed) | any [`Key`], in its order | any [`Value`] | slices, references in the file, or values |
//! | multi-map | [`multi_map`](WriteTxn::multi_map) | bytes | several for each key, sorted | copies, one at a time |
//! | typed multi-map | [`typed_multi_map`](WriteTxn::typed_multi_map) | any [`Key`], in its order | several of any [`Value`] for each key, in the order of their bytes | copies, one at a time |
//! | compressed | [`compressed`](WriteTxn::compressed) | bytes | bytes, compressed above a threshold | slices, or copies where they are compressed |
//!
//! What a table is stands in its record in the file; opening it as something else is an
//! error that says both. [`ReadTxn::tables`] lists them, [`WriteTxn::delete_table`] takes
//! one out.
//!
//! | feature | brings |
//! |---|---|
//! | `zerocopy` | `Plain<T>`: values read as `&T` |
//! | `rkyv` | `Archive<T>`: values read as `&Archived<T>`, validated once in each version of their page |
//! | `serde` | `Serial<T>`: values of any shape, in the format of `postcard` |
//! | `lz4` | [`Compression::Lz4`], in Rust |
//! | `zstd` | [`Compression::Zstd`], which builds a library in C |
//!
//! # What is promised
//!
//! | after | what lasts |
//! |---|---|
//! | [`commit`](WriteTxn::commit) returned, or [`commit_async`](WriteTxn::commit_async)'s future resolved | the transaction, whatever happens to process or power |
//! | [`Durability::Visible`] returned | whole or not at all; certainly after the next durable commit, checkpoint or close |
//! | a commit returned [`CommitError::Unknown`] | whole or not at all; the next open shows which |
//! | a transaction was dropped | nothing of it |
//!
//! Damaged bytes are found by checksums that are kept away from what they sum, once for
//! each page and mapping, and reported as errors.
//!
//! # Limits
//!
//! - Linux, 64-bit, local file systems with `flock`.
//! - One process writes; others read only while nobody writes.
//! - Keys up to [`MAX_KEY_BYTES`], in a multi-map with the value; files up to 8 TiB. A
//!   write transaction keeps what it changes in memory until it commits, but for what an
//!   [`Appender`] appends.
//! - The file grows and shrinks by itself: what is deleted is used again, and checkpoints
//!   make a file shorter of which a quarter is free ([`Store::compact`] does so at once). What
//!   a snapshot sees stays; [`Store::readers`] says who holds what.
//! - A checkpoint writes its pages between commits, which meanwhile take up to a third longer. A
//!   thread of the store makes it when the ring is half full; commits wait only if the ring
//!   fills up before it is done. Without that thread
//!   ([`Options::checkpoint_thread`]) the commit that finds the ring half full makes it.
//! - Opening for writing reads every node: 80 to 105 ms for a million entries of 170 bytes
//!   in the page cache. A store with a damaged node opens for reading only. A file that
//!   somebody forged gives errors and nothing worse.
//! - Nobody else may write to or cut the files while they are open: then values change
//!   under their reader, or the system ends the process with SIGBUS, which
//!   [`Options::guard_sigbus`] makes an error. An `Archive` that was found valid is not looked
//!   at again: where its bytes change, also by a disk that loses what was written, reading
//!   it is undefined behaviour. The files are created for their owner alone
//!   and locked against this library; more cannot be done from here.

#![deny(unsafe_code)]
#![cfg_attr(
    loom,
    expect(dead_code, reason = "only the protocols between threads are modelled")
)]

#[cfg(not(loom))]
#[doc = include_str!("design.md")]
pub mod design {}

// The oracle in `simulation` is one of two crates.
#[cfg(all(test, not(loom)))]
extern crate self as brickyard_store;

mod error;
mod ids;
mod schema;
mod sync;

mod guarded;

#[cfg(not(loom))]
mod format;

#[cfg(not(loom))]
#[expect(unsafe_code, reason = "lends mapped bytes as slices")]
mod backing;
#[cfg(loom)]
mod backing {
    pub(crate) type Segment = (u64, Vec<u8>);
}

mod file_len;
mod group;
mod lasting;
#[expect(unsafe_code, reason = "links chunks of reader slots in a list")]
mod versions;

#[cfg_attr(
    not(loom),
    expect(unsafe_code, reason = "takes a mapping of zeros as atomics")
)]
mod validated;

#[cfg(not(loom))]
mod space;

#[cfg(not(loom))]
#[expect(unsafe_code, reason = "vouches for what readers may touch")]
mod pages;

#[cfg(not(loom))]
mod tree;

#[cfg_attr(loom, expect(dead_code, reason = "loom's threads are its own"))]
mod worker;

#[cfg(not(loom))]
mod spill;

#[cfg(not(loom))]
mod shared;

#[cfg(not(loom))]
mod readers;

#[cfg(not(loom))]
mod checkpoint;

#[cfg(not(loom))]
mod txn;

#[cfg(not(loom))]
mod multi_map;

#[cfg(not(loom))]
#[expect(unsafe_code, reason = "vouches for archives once")]
mod typed;

#[cfg(not(loom))]
mod compressed;

#[cfg(not(loom))]
mod check;

#[cfg(not(loom))]
mod stat;

#[cfg(not(loom))]
#[expect(
    unsafe_code,
    reason = "looks at the meta slots before there is a store"
)]
mod recovery;

#[cfg(not(loom))]
mod backup;

#[cfg(not(loom))]
mod store;

#[cfg(all(test, loom))]
#[expect(unsafe_code, reason = "cells in the place of pages, for loom to watch")]
mod models;
#[cfg(all(test, not(loom)))]
mod simulation;

#[cfg(not(loom))]
pub use backup::{BackupMark, BackupProgress, BackupReport};
#[cfg(not(loom))]
pub use check::{CheckProgress, CheckReport};
#[cfg(not(loom))]
pub use compressed::{CompressedEntry, CompressedRange, CompressedTable, CompressedTableMut};
pub use error::{
    BackupError, BeginError, CommitError, DecodeError, EncodeError, Flaw, LoadError, OpenError,
    Problem, ReadError, TableError, TypedError, WriteError,
};
pub use ids::{MAX_KEY_BYTES, PAGE_BYTES, PageId};
#[cfg(not(loom))]
pub use multi_map::{MultiMap, MultiMapMut, Pair, Pairs, Values};
#[cfg(not(loom))]
pub use readers::Reader;
pub use schema::{Compression, MAX_TYPE_NAME_BYTES, TableOptions};
#[cfg(not(loom))]
pub use shared::Durability;
#[cfg(not(loom))]
pub use stat::{StoreStat, TableStat};
#[cfg(not(loom))]
pub use store::{Options, Store};
#[cfg(not(loom))]
pub use txn::append::Appender;
#[cfg(not(loom))]
pub use txn::cursor::{CursorMut, Position};
#[cfg(not(loom))]
pub use txn::future::CommitFuture;
#[cfg(not(loom))]
pub use txn::load::LoadOptions;
#[cfg(not(loom))]
pub use txn::read::{Entry, OwnedEntry, Range, ReadTxn, Table, TableInfo};
#[cfg(not(loom))]
pub use txn::relocate::Compaction;
#[cfg(not(loom))]
pub use txn::savepoint::Savepoint;
#[cfg(not(loom))]
pub use txn::uncommitted::UncommittedRange;
#[cfg(not(loom))]
pub use txn::write::{TableMut, WriteTxn};
#[cfg(all(not(loom), feature = "rkyv"))]
pub use typed::Archive;
#[cfg(all(not(loom), feature = "zerocopy"))]
pub use typed::Plain;
#[cfg(all(not(loom), feature = "serde"))]
pub use typed::Serial;
#[cfg(not(loom))]
pub use typed::{
    Key, Named, Stored, TypedEntry, TypedMultiMap, TypedMultiMapMut, TypedPair, TypedPairs,
    TypedRange, TypedTable, TypedTableMut, TypedValues, Value,
};
