//! Which types may go to other threads, as promises that the compiler checks.
//!
//! What could go wrong: a field that is added later takes `Send` or `Sync` away from a type
//! that programs move or share between threads, or gives `Send` to a write transaction,
//! whose lock belongs to its thread. How it is seen: this file does not compile.
#![cfg(not(loom))]

use core::error::Error;

use brickyard_store::*;

fn is_shared<T: Send + Sync + Unpin>() {}

fn is_error<T: Error + Send + Sync + 'static>() {}

#[test]
fn handles_snapshots_and_what_is_read_cross_threads() {
    is_shared::<Store>();
    is_shared::<Options>();
    is_shared::<ReadTxn<'_>>();
    is_shared::<Table<'_>>();
    is_shared::<Range<'_>>();
    is_shared::<TypedTable<'_, u64, str>>();
    is_shared::<TypedRange<'_, u64, str>>();
    is_shared::<MultiMap<'_>>();
    is_shared::<CompressedTable<'_>>();
    is_shared::<CompressedRange<'_>>();
    is_shared::<CommitFuture>();
}

#[test]
fn what_is_said_about_a_store_crosses_threads() {
    is_shared::<TableOptions>();
    is_shared::<TableInfo>();
    is_shared::<Compression>();
    is_shared::<Durability>();
    is_shared::<LoadOptions>();
    is_shared::<BackupMark>();
    is_shared::<BackupProgress>();
    is_shared::<BackupReport>();
    is_shared::<CheckProgress>();
    is_shared::<CheckReport>();
    is_shared::<Compaction>();
    is_shared::<Reader>();
    is_shared::<StoreStat>();
    is_shared::<TableStat>();
    is_shared::<PageId>();
}

#[test]
fn errors_cross_threads_and_are_errors() {
    is_error::<BackupError>();
    is_error::<BeginError>();
    is_error::<CommitError>();
    is_error::<DecodeError>();
    is_error::<EncodeError>();
    is_error::<Flaw>();
    is_error::<LoadError>();
    is_error::<OpenError>();
    is_error::<Problem>();
    is_error::<ReadError>();
    is_error::<TableError>();
    is_error::<TypedError>();
    is_error::<WriteError>();
}

/// Has two implementations, and so no certain one, for a type that is `Send`.
trait StaysHere<A> {
    fn certain() {}
}

struct Moves;

impl<T> StaysHere<()> for T {}
impl<T: Send> StaysHere<Moves> for T {}

#[test]
fn a_write_transaction_stays_on_its_thread() {
    <WriteTxn<'_> as StaysHere<_>>::certain();
    <TableMut<'_, '_> as StaysHere<_>>::certain();
}
