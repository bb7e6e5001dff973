//! The store as its user sees it.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Weak};

use crate::backing::Backing;
use crate::backing::file::{self, FileOptions};
use crate::backing::memory::MemoryBacking;
use crate::backup::{self, BackupMark, BackupProgress, BackupReport};
use crate::check::{self, CheckProgress, CheckReport, Depth};
use crate::error::{BackupError, BeginError, CommitError, OpenError, ReadError};
use crate::format::ring::MOST_RING_BYTES;
use crate::ids::PAGE_BYTES_U64;
use crate::readers::Reader;
use crate::recovery::{self, How};
use crate::shared::{Durability, Shared};
use crate::stat::{self, StoreStat};
use crate::txn::read::ReadTxn;
use crate::txn::relocate::{Compaction, Occasion};
use crate::txn::write::WriteTxn;

/// The smallest ring: room for a few records.
const LEAST_RING_BYTES: u64 = 4096;
/// Address space of a store in memory, unless more is asked for than by default.
const MEMORY_MAP_BYTES: u64 = 1 << 36;

/// Pages that a checkpoint moves down, unless it is told otherwise.
const CHECKPOINT_PAGES: u32 = 4096;

/// How to open a store.
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    ring_bytes: u64,
    address_space: Option<u64>,
    read_only: bool,
    create: bool,
    create_new: bool,
    file_mode: u32,
    durability: Durability,
    check: bool,
    checkpoint_budget: u32,
    checkpoint_thread: bool,
    trace_readers: bool,
    warm: bool,
    guard_sigbus: bool,
    #[cfg(test)]
    pub(crate) sabotage: crate::shared::Sabotage,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ring_bytes: 16 << 20,
            address_space: None,
            read_only: false,
            create: true,
            create_new: false,
            file_mode: 0o600,
            durability: Durability::default(),
            check: false,
            checkpoint_budget: CHECKPOINT_PAGES,
            checkpoint_thread: true,
            trace_readers: false,
            warm: false,
            guard_sigbus: false,
            #[cfg(test)]
            sabotage: crate::shared::Sabotage::default(),
        }
    }
}

impl Options {
    /// The defaults: a ring of 16 MiB, for writing, created if it is not there.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of the ring, a multiple of 4096, which bound what opening after a crash has
    /// to replay. Fixed when a store is created, and without effect afterwards.
    /// Transactions of more than a quarter of it commit as a checkpoint of their own.
    pub fn ring_bytes(mut self, bytes: u64) -> Self {
        self.ring_bytes = bytes;
        self
    }

    /// Bytes of address space for the file, which bound its length while it is open.
    /// Address space costs nothing; the default is 1 TiB, or what the system allows.
    pub fn address_space(mut self, bytes: u64) -> Self {
        self.address_space = Some(bytes);
        self
    }

    /// Opens for reading only: works in a folder that cannot be written to, beside other
    /// readers, and not beside a writer.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Whether to create a store where there is none (the default).
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether to open only a store that this call creates; if there is one already the
    /// open fails. Off by default.
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// Permissions of the files that are created, from which the process's umask takes
    /// bits away: by default 0o600, their owner alone. Whoever else may write to the files
    /// can make readers see anything.
    pub fn file_mode(mut self, mode: u32) -> Self {
        self.file_mode = mode;
        self
    }

    /// What [`WriteTxn::commit`] waits for (by default: until the commit lasts).
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Whether opening walks the whole store, as [`Store::check`] does. Without it,
    /// opening for writing walks the nodes only, which is what writing relies on, and
    /// large values are summed when they are read; opening for reading walks nothing.
    pub fn check(mut self, check: bool) -> Self {
        self.check = check;
        self
    }

    /// Most pages that a checkpoint moves down so that the file can become shorter (by
    /// default 4096, which is 16 MiB). Pages move if a quarter of the file is free. Zero
    /// leaves all where they are; what happens to be free at the end of the file is cut
    /// off all the same.
    pub fn checkpoint_budget(mut self, pages: u32) -> Self {
        self.checkpoint_budget = pages;
        self
    }

    /// Whether a thread of the store makes the checkpoints that are due when the ring is
    /// half full (the default); it starts with the first of them and ends with the store.
    /// Commits go on meanwhile, and wait only if the ring fills up before it is done.
    /// Without it, or if it cannot be started, the commit that finds the ring half full
    /// makes the checkpoint before it returns. A store in memory has no such thread.
    pub fn checkpoint_thread(mut self, thread: bool) -> Self {
        self.checkpoint_thread = thread;
        self
    }

    /// Whether readers note when and where they begin, for [`Store::readers`]: a look at
    /// the clock each time. By default they note their thread only.
    pub fn trace_readers(mut self, trace: bool) -> Self {
        self.trace_readers = trace;
        self
    }

    /// Whether to note, when the store is closed, which of its pages are in the page cache,
    /// and to load those when it is opened: in long reads, before they are asked for one at
    /// a time, but no more than half of the memory that the system says is available. Off
    /// by default.
    ///
    /// Opening for writing asks for all of them at once, since it reads every node anyhow;
    /// opening for reading has a thread load them, beside what is read meanwhile. The note
    /// is a file `warm` beside the others, written by readers, too, where they may; it is a
    /// hint: without it, and with one that is damaged or of an older state, everything works
    /// as if it had not been asked for. No effect on a store in memory.
    ///
    /// `examples/warm.rs` measures what it is worth.
    pub fn warm(mut self, warm: bool) -> Self {
        self.warm = warm;
        self
    }

    /// Whether bytes of the file that vanish under a reader give
    /// [`ReadError::Vanished`], and do not end the process with SIGBUS: another program cut
    /// the file, or the disk cannot read a page of it. Off by default.
    ///
    /// The first store that asks for it installs a handler of SIGBUS for the whole process,
    /// which passes on what is not in a guarded store. Who installs one later has to do the
    /// same. At most 64 guarded stores are open at once.
    ///
    /// What vanished is zeros from then on, for slices, too, that were lent before: look at
    /// [`Store::has_vanished`] after using them. Values that not all bytes can be (`&str`,
    /// archives of `rkyv`) are found valid as they are lent, and may not be afterwards: where files may
    /// be cut and the guard is on, read such values as bytes. Reads of a write transaction may meet the
    /// zeros; it is not committed then. A process that goes on to read some 65,000 pages that
    /// its disk cannot read is ended all the same. The last piece of a file that was cut
    /// in the middle of a page reads as zeros without a fault, as it always does.
    pub fn guard_sigbus(mut self, guard: bool) -> Self {
        self.guard_sigbus = guard;
        self
    }

    fn validate(&self) -> Result<(), OpenError> {
        if !(LEAST_RING_BYTES..=MOST_RING_BYTES).contains(&self.ring_bytes)
            || !self.ring_bytes.is_multiple_of(PAGE_BYTES_U64)
        {
            return Err(OpenError::Option {
                option: "ring_bytes",
                reason: "a multiple of 4096 between 4096 and 4 GiB is needed",
            });
        }
        if self.file_mode & !0o777 != 0 || self.file_mode & 0o600 != 0o600 {
            return Err(OpenError::Option {
                option: "file_mode",
                reason: "the owner must be able to read and write, and no special bits are set",
            });
        }
        let space = self.address_space.unwrap_or(1 << 40);
        if !(1 << 20..=1 << 43).contains(&space) || !space.is_multiple_of(PAGE_BYTES_U64) {
            return Err(OpenError::Option {
                option: "address_space",
                reason: "a multiple of 4096 between 1 MiB and 8 TiB is needed",
            });
        }
        Ok(())
    }

    /// Opens the store in the folder `dir`.
    ///
    /// # Errors
    ///
    /// Any [`OpenError`].
    ///
    /// # Complexity
    ///
    /// For reading constant, but for reading the ring and the map of free pages (a bit a
    /// page). For writing every node is read and summed, since a page that is written to
    /// must be one that nobody reads (the chapter has figures); after a crash what the
    /// ring holds is also done again.
    pub fn open(&self, dir: impl AsRef<Path>) -> Result<Store, OpenError> {
        self.validate()?;
        let options = FileOptions {
            read_only: self.read_only,
            create: self.create || self.create_new,
            create_new: self.create_new,
            mode: self.file_mode,
            ring_bytes: self.ring_bytes,
            map_bytes: self.address_space.unwrap_or(1 << 40),
            warm: self.warm,
            guard: self.guard_sigbus,
        };
        let (backing, created) = file::open(dir.as_ref(), &options)?;
        self.open_backing(Arc::new(backing), created)
    }

    /// A store in memory, which ends with its handle. Same behaviour, no durability.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`] if there is not enough address space, [`OpenError::Option`].
    pub fn open_in_memory(&self) -> Result<Store, OpenError> {
        self.validate()?;
        let map_bytes = self.address_space.unwrap_or(MEMORY_MAP_BYTES);
        let backing = MemoryBacking::new(map_bytes, self.ring_bytes);
        let backing = backing.map_err(|source| OpenError::Io {
            action: "set aside",
            path: "address space".into(),
            source,
        })?;
        self.open_backing(Arc::new(backing), true)
    }

    pub(crate) fn open_backing(
        &self,
        backing: Arc<dyn Backing>,
        create: bool,
    ) -> Result<Store, OpenError> {
        let how = How {
            read_only: self.read_only,
            create,
            durability: self.durability,
            check: self.check,
            checkpoint_budget: self.checkpoint_budget,
            // Without a disk there is nothing to wait for.
            checkpoint_thread: self.checkpoint_thread && backing.dir().is_some(),
            trace_readers: self.trace_readers,
            #[cfg(test)]
            sabotage: self.sabotage,
        };
        let mut shared = recovery::open(backing, how)?;
        let shared = Arc::new_cyclic(|me| {
            shared.me = Weak::clone(me);
            shared
        });
        Ok(Store { shared })
    }
}

/// An open store. Shared by reference between threads.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

impl Store {
    /// Opens the store in the folder `dir` for writing, and creates it if it is not there.
    ///
    /// # Errors
    ///
    /// Any [`OpenError`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        Options::new().open(dir)
    }

    /// Begins to read what is published now.
    ///
    /// # Complexity
    ///
    /// Constant: no lock, no system call, some nanoseconds.
    #[inline]
    #[track_caller]
    pub fn read(&self) -> ReadTxn<'_> {
        ReadTxn::begin(&self.shared)
    }

    /// Begins to write; waits while another write transaction lives.
    ///
    /// # Errors
    ///
    /// Any [`BeginError`].
    pub fn write(&self) -> Result<WriteTxn<'_>, BeginError> {
        if self.shared.read_only {
            return Err(BeginError::ReadOnly);
        }
        let head = self.shared.head.lock();
        if self.shared.group.is_poisoned() {
            return Err(BeginError::Poisoned);
        }
        Ok(WriteTxn::begin(&self.shared, head))
    }

    /// Makes everything that was committed durable and empties the ring. Done by itself
    /// when the ring is half full ([`Options::checkpoint_thread`]), and on close. If a quarter of the file is free, some
    /// pages are moved and the file becomes shorter
    /// ([`Options::checkpoint_budget`]).
    ///
    /// # Errors
    ///
    /// Any [`CommitError`] but [`CommitError::Broken`].
    pub fn checkpoint(&self) -> Result<(), CommitError> {
        self.shared.checkpoint_and_shrink(Occasion::Asked)
    }

    /// Makes the file as short as it can be: moves at most `most_pages` pages to free ones
    /// below them and cuts the end off, with checkpoints in between, until nothing is left
    /// to be moved. Readers and writers go on meanwhile; pages that older snapshots see
    /// stay until those end and a checkpoint comes.
    ///
    /// # Errors
    ///
    /// Any [`CommitError`] but [`CommitError::Broken`]. What was moved before stays so.
    ///
    /// # Complexity
    ///
    /// Reads the inner nodes of the store, and leaves if large values lie at the end of
    /// the file; copies what is moved and the nodes above it. Writers wait for some hundred
    /// pages at a time.
    pub fn compact(&self, most_pages: u64) -> Result<Compaction, CommitError> {
        if self.shared.read_only {
            return Err(CommitError::ReadOnly);
        }
        self.shared.compact(most_pages)
    }

    /// Whether bytes of the file vanished that somebody read, if the store was opened with
    /// [`Options::guard_sigbus`]. What was lent before may have zeros in their place, which
    /// need not be a value of its type: it is not to be used any more. From then on
    /// whatever reads fails with [`ReadError::Vanished`], and nothing is committed.
    pub fn has_vanished(&self) -> bool {
        self.shared.pages.has_vanished()
    }

    /// The read transactions there are, the oldest version first: which of them keeps
    /// pages from being used again, and who began it. A report of about this moment: one
    /// that begins or ends meanwhile may be missing.
    ///
    /// # Complexity
    ///
    /// Looks at every slot that was ever needed. Waits for nobody.
    pub fn readers(&self) -> Vec<Reader> {
        self.shared.readers()
    }

    /// Copies what was committed so far into the folder `to`, which must not be there or be
    /// empty, and whose parent must be there. The copy is a store: [`Store::open`] opens it.
    /// Others read and write meanwhile; pages that the copy needs are kept until its end.
    /// What is copied is made durable first, by a checkpoint.
    ///
    /// Pages keep their places, with holes where the store has free pages, so that the copy
    /// takes the room of what is in it, and increments ([`Store::backup_since`]) can be
    /// applied to it. The copy is synced, walked and summed before it gets its name; until
    /// then the folder is called `to` with `.partial`.
    ///
    /// `progress` is told after each piece of at most 1 MiB.
    ///
    /// # Errors
    ///
    /// Any [`BackupError`] but those of streams.
    pub fn backup(
        &self,
        to: impl AsRef<Path>,
        mut progress: impl FnMut(BackupProgress),
    ) -> Result<BackupReport, BackupError> {
        backup::copy::backup(&self.shared, to.as_ref(), &mut progress)
    }

    /// Writes what a backup in the state `since` lacks as a stream, which
    /// [`Store::apply_increment`] applies to it. A checkpoint comes first. Nodes that are
    /// older than `since` are not looked at, nor what is below them; a large value comes along
    /// if its leaf changed.
    ///
    /// # Errors
    ///
    /// [`BackupError::Stream`], [`BackupError::Read`], [`BackupError::Commit`];
    /// [`BackupError::Base`] if `since` is no earlier state of this store, as far as can be
    /// seen here: the rest is seen when the stream is applied.
    ///
    /// # Complexity
    ///
    /// Reads and writes the nodes that changed since.
    pub fn backup_since(
        &self,
        since: BackupMark,
        mut to: impl Write,
        mut progress: impl FnMut(BackupProgress),
    ) -> Result<BackupReport, BackupError> {
        backup::increment::backup_since(&self.shared, since.0, &mut to, &mut progress)
    }

    /// Brings the backup in the folder `dir`, which nobody may have open, up to date with
    /// the stream of [`Store::backup_since`].
    ///
    /// The stream is read to its end first, into a file of the folder: one that is
    /// truncated or damaged, or builds on another state, leaves the backup as it was. If the
    /// machine stops afterwards, the folder is no store until the same increment is applied
    /// once more.
    ///
    /// # Errors
    ///
    /// Any [`BackupError`] but [`BackupError::Exists`] and [`BackupError::Commit`].
    pub fn apply_increment(
        dir: impl AsRef<Path>,
        mut from: impl Read,
        mut progress: impl FnMut(BackupProgress),
    ) -> Result<BackupReport, BackupError> {
        backup::apply::apply(dir.as_ref(), &mut from, &mut progress)
    }

    /// Walks everything and reports all that is wrong.
    pub fn check(&self) -> CheckReport {
        check::check(&self.shared, Depth::All)
    }

    /// Like [`Store::check`], and tells `progress` every 4 MiB how far it has come.
    pub fn check_with(&self, mut progress: impl FnMut(CheckProgress)) -> CheckReport {
        check::check_with(&self.shared, Depth::All, &mut progress)
    }

    /// Says what each table holds and takes, and how pages and ring are used. Waits while a
    /// write transaction lives.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`].
    ///
    /// # Complexity
    ///
    /// Reads every node.
    pub fn stat(&self) -> Result<StoreStat, ReadError> {
        stat::stat(&self.shared)
    }

    /// Closes the store with a checkpoint, so that the next open has nothing to replay.
    /// Dropping the store does the same and cannot say whether it worked.
    ///
    /// # Errors
    ///
    /// As [`Store::checkpoint`].
    pub fn close(self) -> Result<(), CommitError> {
        self.close_now()
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    fn close_now(&self) -> Result<(), CommitError> {
        self.shared.group.end_asking();
        self.shared.syncer.join();
        self.shared.bell.end();
        self.shared.cleaner.join();
        let idle = {
            let head = self.shared.head.lock();
            let last = self.shared.done.lock().unwrap_or(head.durable);
            last.txn == head.version.txn
        };
        if self.shared.read_only {
            return Ok(());
        }
        if !idle {
            self.shared.checkpoint_and_shrink(Occasion::Asked)?;
        }
        self.shared.trim(&mut self.shared.head.lock(), false);
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // The next open replays the ring if this fails.
        let _ = self.close_now();
        self.shared.pages.backing().remember();
    }
}
