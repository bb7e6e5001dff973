//! What can go wrong, one enum per kind of operation.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::ids::PageId;
use crate::schema::TableOptions;

/// What is wrong with bytes that were read from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Flaw {
    /// The checksum kept elsewhere does not fit the bytes.
    #[error("the checksum does not fit")]
    Checksum,
    /// A page number lies beyond the end of the file.
    #[error("it lies beyond the end of the file")]
    OutOfFile,
    /// A node's header names an unknown kind, level or size.
    #[error("its header makes no sense")]
    Header,
    /// An entry of a node lies outside the page.
    #[error("an entry lies outside the page")]
    EntryBounds,
    /// The keys of a node are not in ascending order.
    #[error("its keys are out of order")]
    KeyOrder,
    /// A child is not one level below its parent.
    #[error("it is not on the level its parent says")]
    Level,
    /// It claims to be from a transaction that never was.
    #[error("it claims to be from a later transaction")]
    Born,
    /// A value does not start where its table says.
    #[error("a value in it is not aligned as its table says")]
    Alignment,
    /// A value of a compressed table is not one.
    #[error("a compressed value below it cannot be unpacked")]
    Compressed,
    /// A record of a table, an extent or the ring has the wrong form.
    #[error("a record in it has the wrong form")]
    Record,
}

/// A failure of reading what the store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A page is not what was written there.
    #[error("page {page} is damaged: {flaw}; run Store::check and restore from a backup")]
    Damaged {
        /// The page.
        page: PageId,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// Bytes of the file vanished while it was open, which
    /// [`Options::guard_sigbus`](crate::Options::guard_sigbus) makes an error: of whatever
    /// reads, from then on.
    #[error(
        "bytes of the file vanished: it was cut by another program, or cannot be read; close the store, and restore from a backup if it does not open"
    )]
    Vanished,
}

/// A failure to open a table.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TableError {
    /// What is there could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The table was created with other options.
    #[error("table `{table}` is a {recorded}, not a {asked}; open it as what it is")]
    Mismatch {
        /// The table.
        table: Box<str>,
        /// What its record says.
        recorded: Box<TableOptions>,
        /// What it was opened as.
        asked: Box<TableOptions>,
    },
    /// The table is not compressed.
    #[error("table `{table}` is not compressed; open it with ReadTxn::table")]
    Uncompressed {
        /// The table.
        table: Box<str>,
    },
    /// The table's values need a feature that this library was built without.
    #[error("table `{table}` is compressed; build brickyard-store with the feature `{feature}`")]
    Feature {
        /// The table.
        table: Box<str>,
        /// The feature.
        feature: &'static str,
    },
    /// No table can have these options.
    #[error("table `{table}` cannot be created: {reason}")]
    Options {
        /// The table.
        table: Box<str>,
        /// What is asked of them.
        reason: &'static str,
    },
}

/// One thing that is wrong with a store.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// A page is not what it should be; what it leads to was not walked.
    #[error(transparent)]
    Damaged(ReadError),
    /// A page is reached twice, or reached and free.
    #[error("page {0} is used twice")]
    UsedTwice(PageId),
    /// A page is neither reached nor free nor held.
    #[error("page {0} is lost: neither used nor free")]
    Lost(PageId),
    /// A table's number of entries is wrong.
    #[error("table {table} has {found} entries and its record says {recorded}")]
    Len {
        /// The table.
        table: String,
        /// What its record says.
        recorded: u64,
        /// Entries walked.
        found: u64,
    },
}

/// A failure of an operation in a write transaction.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// What is there could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The table cannot be opened so; never [`TableError::Read`], which is
    /// [`WriteError::Read`].
    #[error(transparent)]
    Table(TableError),
    /// The key is longer than [`MAX_KEY_BYTES`](crate::MAX_KEY_BYTES).
    #[error("a key of {bytes} bytes is longer than the {most} that a key may have")]
    KeyTooLong {
        /// Length of the key.
        bytes: usize,
        /// The longest key.
        most: usize,
    },
    /// A key and a value of a multi-map are too long together.
    #[error(
        "a key and a value take {bytes} bytes together and at most {most} fit; store the \
         value in another table and its name here"
    )]
    PairTooLong {
        /// Bytes of both, with two between them and one more for each zero in the key.
        bytes: usize,
        /// The most that fit.
        most: usize,
    },
    /// An earlier operation of the transaction failed half way.
    #[error(
        "an earlier operation of this transaction failed; go back to a savepoint before it, or drop the transaction and begin another"
    )]
    Broken,
    /// There is no memory for the value, or no file has room for it.
    #[error("a value of {bytes} bytes does not fit; store it in parts")]
    ValueTooLong {
        /// Length of the value.
        bytes: usize,
    },
    /// The savepoint is another transaction's, or was given up with an earlier one.
    #[error(
        "the savepoint is of another transaction, or was given up when an earlier one was gone back to or released"
    )]
    NoSavepoint,
}

impl From<TableError> for WriteError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Read(error) => Self::Read(error),
            other => Self::Table(other),
        }
    }
}

/// A failure of loading entries in bulk.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// An entry could not be stored.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A key is not above the one before it, or above the last of the table.
    #[error("entry {entry} has a key that is not above the last one; sort, or use `bulk_load`")]
    Order {
        /// Its place in what was appended, from zero.
        entry: u64,
    },
    /// Pages or a temporary file could not be written or read.
    #[error("cannot {action}: {source}; nothing was loaded, free some space and try again")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no room for more pages.
    #[error("no pages for what is loaded: {0}")]
    Pages(#[source] Box<CommitError>),
    /// An entry before could not be appended.
    #[error("an entry before could not be appended; drop this appender and begin another")]
    Unfinished,
}

/// What is wrong with the bytes of a typed key or value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// They end too early.
    #[error("the bytes end too early")]
    Short,
    /// Bytes are left over.
    #[error("bytes are left over")]
    Long,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// A `bool`, or whether there is something, is neither 0 nor 1.
    #[error("{0} is neither 0 nor 1")]
    Tag(u8),
    /// A part of a key has no end, or a zero in it that is not escaped.
    #[error("a part of a key has no end")]
    Escape,
    /// The library that reads the type refused.
    #[error("{0}")]
    Invalid(Box<str>),
}

/// A value that the library which writes its type refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct EncodeError(pub Box<str>);

/// A failure of an operation on a typed table.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TypedError {
    /// What is there could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The write transaction refused.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A key is none of its type.
    #[error("a key is no `{type_name}`: {source}; read the table as bytes")]
    Key {
        /// The type that the table records.
        type_name: Cow<'static, str>,
        /// What is wrong.
        source: DecodeError,
    },
    /// A value is none of its type.
    #[error("a value is no `{type_name}`: {source}; read the table as bytes")]
    Value {
        /// The type that the table records.
        type_name: Cow<'static, str>,
        /// What is wrong.
        source: DecodeError,
    },
    /// A value cannot be written.
    #[error("the value cannot be written: {0}")]
    Encode(#[from] EncodeError),
}

/// A failure to begin a write transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BeginError {
    /// The store was opened for reading only.
    #[error("the store is open for reading only; open it without Options::read_only")]
    ReadOnly,
    /// An earlier barrier failed, so what is on the disk is not known.
    #[error(
        "an earlier sync failed and nothing more is written; close the store and open it again"
    )]
    Poisoned,
}

/// A failure of a commit or of a checkpoint.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CommitError {
    /// What is there could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An earlier operation of the transaction failed half way; nothing was committed.
    #[error("an earlier operation of this transaction failed; drop it and begin another")]
    Broken,
    /// The new pages could not be written; nothing was committed and the store goes on.
    #[error("cannot {action}: {source}; nothing was committed, free some space and try again")]
    Aborted {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The file would outgrow the address space set aside for it; nothing was committed.
    #[error("the file needs {pages} pages and {most} fit; raise Options::address_space")]
    Full {
        /// Pages that would be needed.
        pages: u64,
        /// Pages that the mapping has room for.
        most: u64,
    },
    /// A barrier failed. Whether this commit lasts is known after the next open; no
    /// commit that was acknowledged before is lost.
    #[error("cannot {action}: {source}; close the store and open it again to see what lasts")]
    Unknown {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// An earlier barrier failed, so what is on the disk is not known.
    #[error(
        "an earlier sync failed and nothing more is written; close the store and open it again"
    )]
    Poisoned,
    /// The store was opened for reading only.
    #[error("the store is open for reading only; open it without Options::read_only")]
    ReadOnly,
}

/// A failure to open or create a store.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The process or the system has too many files open; a store needs three.
    #[error("cannot open {path}: {source}; close some files or raise `ulimit -n`", path = path.display())]
    TooManyFiles {
        /// The file or folder.
        path: PathBuf,
        /// Which limit it is.
        source: io::Error,
    },
    /// The disk is full, or what this user may have of it.
    #[error("no room for {path}: {source}; free some space and try again", path = path.display())]
    DiskFull {
        /// The file or folder.
        path: PathBuf,
        /// Which limit it is.
        source: io::Error,
    },
    /// The file does not fit in the address space that the process may have.
    #[error(
        "cannot map {path}: {source}; raise `ulimit -v` to several times the length of the file", path = path.display()
    )]
    AddressSpace {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is a store, and [`Options::create_new`](crate::Options::create_new) wants none.
    #[error("{path} holds a store; open it without Options::create_new, or choose another folder", path = path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// Another handle has the store open in a way that excludes this one.
    #[error("{path} is in use by another handle; close that one first", path = path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// There is no store and [`Options::create`](crate::Options::create) is off, or the
    /// open is for reading only; or it was being created when its creator died.
    #[error("{path} holds no store; open it for writing with Options::create", path = path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// The file was not written by this library.
    #[error("the file is not a store of this library: both meta slots lack its mark")]
    Foreign,
    /// The file has a later format.
    #[error("the file has format {found}; this version reads {known}, use a later one")]
    Version {
        /// The format of the file.
        found: u32,
        /// The format of this library.
        known: u32,
    },
    /// Neither meta slot can be trusted.
    #[error("both meta slots are damaged ({flaw}); restore from a backup")]
    Meta {
        /// What is wrong with the first one.
        flaw: Flaw,
    },
    /// A file is shorter than the meta slot says.
    #[error(
        "the file `{file}` has {found} pages and should have {expected}: it was cut; restore from a backup"
    )]
    Truncated {
        /// The file, `tree` or `ring`.
        file: &'static str,
        /// Pages there are.
        found: u64,
        /// Pages there should be.
        expected: u64,
    },
    /// One of the two files of a store is there and the other is not.
    #[error("{path} is missing and its store is not new; restore from a backup", path = path.display())]
    Incomplete {
        /// The missing file.
        path: PathBuf,
    },
    /// The walk before writing, or the check that
    /// [`Options::check`](crate::Options::check) asked for, found something.
    #[error("the store is unsound in {problems} places, first: {first}; restore from a backup")]
    Unsound {
        /// How many problems [`Store::check`](crate::Store::check) found.
        problems: usize,
        /// The first of them.
        first: Problem,
    },
    /// A page that opening needs is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record of the ring has a good checksum and makes no sense.
    #[error("record {seq} of the ring cannot be replayed; restore from a backup")]
    Ring {
        /// The transaction it records.
        seq: u64,
    },
    /// The last writer did not close the store, and a read-only open may not repair it.
    #[error("the store was not closed; open it once for writing, which replays the ring")]
    NeedsRecovery,
    /// Recovery replayed the ring and could not write the result.
    #[error("recovery failed: {0}")]
    Recovery(#[source] CommitError),
    /// An option has a value that cannot work.
    #[error("option {option}: {reason}")]
    Option {
        /// The name of the option.
        option: &'static str,
        /// What is asked of it.
        reason: &'static str,
    },
}

/// A failure to make a backup or to bring one up to date.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The stream of an increment could not be read or written.
    #[error("cannot use the stream of the increment: {0}")]
    Stream(#[source] io::Error),
    /// A backup goes into a folder of its own.
    #[error("{path} is there and not an empty folder; choose another place", path = path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// What is to be saved could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What was committed before could not be made durable.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A state that an increment could build on is missing.
    #[error("there is no state to build on: {reason}; take a whole backup")]
    Base {
        /// Why.
        reason: &'static str,
    },
    /// The increment builds on another state than the backup has.
    #[error(
        "the increment builds on transaction {expected} and the backup is at {found}, or of another store; apply increments in order, or take a whole backup"
    )]
    WrongBase {
        /// The last transaction of the state it builds on.
        expected: u64,
        /// The last transaction of the backup.
        found: u64,
    },
    /// The stream is no increment.
    #[error("the stream is not an increment of this library: it lacks its mark")]
    Foreign,
    /// The stream has a later format.
    #[error("the increment has format {found}; this version reads {known}, use a later one")]
    Version {
        /// The format of the stream.
        found: u32,
        /// The format of this library.
        known: u32,
    },
    /// The stream ends too early; the backup is as it was.
    #[error("the increment ends too early; the backup is as it was, get the stream again")]
    Truncated,
    /// A part of the stream is damaged; the backup is as it was.
    #[error("block {block} of the increment is damaged; the backup is as it was, get it again")]
    Corrupt {
        /// The block, counted from 1; 0 is the header.
        block: u64,
    },
    /// The backup does not open.
    #[error("the backup does not open: {source}; take a whole one")]
    Unsound {
        /// Why.
        source: Box<OpenError>,
    },
    /// The backup opens and is not whole.
    #[error("the backup is unsound: {problem}; take a whole one")]
    Problem {
        /// The first thing that is wrong.
        problem: Problem,
    },
}

/// A damaged page.
pub(crate) fn damaged(page: u32, flaw: Flaw) -> ReadError {
    ReadError::Damaged {
        page: PageId(page),
        flaw,
    }
}
