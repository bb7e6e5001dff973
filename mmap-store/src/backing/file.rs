//! Two files and a lock file in a folder, and perhaps a note (`warm`).
//!
//! - The lock is `flock` on `lock`, which belongs to the open file description as an OFD
//!   lock does: closing another descriptor of the file does not drop it.
//! - Files are created with mode 0600, unless another one is asked for.
//! - Both the mapping and the file are declared to be read at random. That keeps the
//!   page cache in small folios, into which a scattered page is written in 2 µs, and not
//!   in large ones, where it takes 9.
//! - The ring is filled with zeros at creation, so that a commit changes no metadata.
//! - Creation ends by giving the ring its name, after the first checkpoint. While there
//!   is no file `ring`, the folder holds no store or half a one in which nobody has
//!   written; once there is, a tree that is missing or short is a loss and not a beginning.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::{Advice, MmapOptions};
use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags};

use crate::backing::warm::{self, Loader};
use crate::backing::{Backing, Map, Segment};
use crate::error::OpenError;
use crate::format::meta::Meta;
use crate::ids::{Extent, FIRST_PAGE, FIRST_TXN, PAGE_BYTES, PAGE_BYTES_U64, pages_for};

const TREE: &str = "tree";
const RING: &str = "ring";
/// The ring's name until the first checkpoint lasts.
const NEW_RING: &str = "ring.new";
const LOCK: &str = "lock";
/// The ring's name while an increment is applied to a backup.
pub(crate) const APPLYING: &str = "ring.applying";
/// Most buffers of one vectored write (Linux's `UIO_MAXIOV`).
const MOST_BUFFERS: usize = 1024;
/// The least address space worth having; below it, opening fails.
const LEAST_MAP_BYTES: u64 = 1 << 26;

/// How to open the files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileOptions {
    pub(crate) read_only: bool,
    pub(crate) create: bool,
    /// There must be no store yet.
    pub(crate) create_new: bool,
    /// Permissions of new files.
    pub(crate) mode: u32,
    pub(crate) ring_bytes: u64,
    pub(crate) map_bytes: u64,
    /// Bytes that vanish are an error and no signal.
    pub(crate) guard: bool,
    /// Load the pages that were in memory at the last close, and note them at this one.
    pub(crate) warm: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct FileBacking {
    tree: File,
    ring: File,
    map: Arc<Map>,
    dir: PathBuf,
    /// Whether this handle creates the store.
    creating: bool,
    /// The mode of the note of which pages are in memory, if it is to be written.
    note: Option<u32>,
    loader: Option<Loader>,
    /// Holds the lock until dropped.
    _lock: File,
}

/// The files of a store, and whether they were created by this call.
pub(crate) fn open(dir: &Path, options: &FileOptions) -> Result<(FileBacking, bool), OpenError> {
    if options.create && !options.read_only {
        fs::create_dir_all(dir).map_err(|source| io_error("create", dir, source))?;
    }
    let lock = lock(dir, options)?;
    let (tree_path, ring_path) = (dir.join(TREE), dir.join(RING));
    let exists = |path: &Path| {
        let found = path.try_exists();
        found.map_err(|source| io_error("look at", path, source))
    };
    let create = !exists(&ring_path)?;
    if !create && options.create_new {
        return Err(OpenError::Exists {
            path: dir.to_owned(),
        });
    }
    let may_create = options.create && !options.read_only;
    match (create, exists(&tree_path)?) {
        (false, true) => {}
        (false, false) => return Err(OpenError::Incomplete { path: tree_path }),
        (true, true) if !is_unused(&tree_path)? || exists(&dir.join(APPLYING))? => {
            return Err(OpenError::Incomplete { path: ring_path });
        }
        _ if may_create => {}
        _ => {
            return Err(OpenError::Missing {
                path: dir.to_owned(),
            });
        }
    }
    let ring_path = if create {
        dir.join(NEW_RING)
    } else {
        ring_path
    };
    if create {
        create_ring(&ring_path, options.ring_bytes, options.mode)
            .map_err(|source| io_error("create", &ring_path, source))?;
    }
    let tree = open_file(&tree_path, options, create)?;
    let ring = open_file(&ring_path, options, false)?;
    let mut map = map_tree(&tree, options).map_err(|source| match source.raw_os_error() {
        Some(error) if error == Errno::NOMEM.raw_os_error() => OpenError::AddressSpace {
            path: tree_path.clone(),
            source,
        },
        _ => io_error("map", &tree_path, source),
    })?;
    if options.guard {
        let guarded = map.guard(&tree);
        let guarded = guarded.map_err(|source| io_error("guard", &tree_path, source))?;
        if !guarded {
            return Err(OpenError::Option {
                option: "guard_sigbus",
                reason: "a process can have 64 guarded stores open, and has them",
            });
        }
    }
    let mut backing = FileBacking {
        tree,
        ring,
        map: Arc::new(map),
        dir: dir.to_owned(),
        creating: create,
        note: options.warm.then_some(options.mode),
        loader: None,
        _lock: lock,
    };
    if options.warm {
        let pages = backing.pages();
        let pages = pages.map_err(|source| io_error("look at", &tree_path, source))?;
        let pieces = warm::noted(dir, pages, warm::most_pages());
        if options.read_only {
            // Without the thread everything works, slower.
            backing.loader = Loader::start(&backing.tree, pieces).ok();
        } else {
            warm::ask(&backing.map, &pieces);
        }
    }
    Ok((backing, create))
}

/// Whether the tree is at most what a creation that was cut short leaves: nothing, zeros,
/// or a store in which there was no transaction.
fn is_unused(path: &Path) -> Result<bool, OpenError> {
    let file = File::open(path).map_err(|source| io_error("open", path, source))?;
    let mut slots = Vec::new();
    let both = u64::from(FIRST_PAGE) * PAGE_BYTES_U64;
    let read = file.take(both).read_to_end(&mut slots);
    read.map_err(|source| io_error("read", path, source))?;
    Ok(slots
        .chunks(PAGE_BYTES)
        .all(|slot| match Meta::decode(slot) {
            Ok(meta) => meta.root.is_none() && meta.txn == FIRST_TXN,
            Err(_) => slot.iter().all(|&byte| byte == 0),
        }))
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> OpenError {
    let path = path.to_owned();
    let few = [Errno::MFILE, Errno::NFILE].map(|error| Some(error.raw_os_error()));
    if few.contains(&source.raw_os_error()) {
        return OpenError::TooManyFiles { path, source };
    }
    if matches!(
        source.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) {
        return OpenError::DiskFull { path, source };
    }
    OpenError::Io {
        action,
        path,
        source,
    }
}

pub(crate) fn lock(dir: &Path, options: &FileOptions) -> Result<File, OpenError> {
    let path: PathBuf = dir.join(LOCK);
    let result = OpenOptions::new()
        .read(true)
        .write(!options.read_only)
        .create(options.create && !options.read_only)
        .mode(options.mode)
        .open(&path);
    let file = result.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => OpenError::Missing {
            path: dir.to_owned(),
        },
        _ => io_error("open", &path, source),
    })?;
    let locked = if options.read_only {
        file.try_lock_shared()
    } else {
        file.try_lock()
    };
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path }),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path, source)),
    }
}

fn open_file(path: &Path, options: &FileOptions, create: bool) -> Result<File, OpenError> {
    let file = OpenOptions::new()
        .read(true)
        .write(!options.read_only)
        .create(create)
        .mode(options.mode)
        .open(path);
    file.map_err(|source| io_error("open", path, source))
}

pub(crate) fn create_ring(path: &Path, bytes: u64, mode: u32) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    let zeros = vec![0; 1 << 16];
    let mut at = 0;
    while at < bytes {
        let len = (bytes - at).min(zeros.len() as u64);
        file.write_all_at(
            zeros
                .get(..usize::try_from(len).unwrap_or(0))
                .unwrap_or(&zeros),
            at,
        )?;
        at += len;
    }
    file.sync_all()
}

fn map_tree(tree: &File, options: &FileOptions) -> io::Result<Map> {
    let used = tree.metadata()?.len();
    let mut bytes = options.map_bytes.max(used.next_multiple_of(PAGE_BYTES_U64));
    loop {
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        // Beyond the end of the file the mapping is address space only: the pages become
        // readable when the file grows over them.
        match MmapOptions::new().len(len).map_raw_read_only(tree) {
            Ok(raw) => {
                // Advice: without it everything works, slower.
                let _ = raw.advise(Advice::Random);
                let _ = rustix::fs::fadvise(tree, 0, None, rustix::fs::Advice::Random);
                return Ok(Map::new(raw));
            }
            // A limit on address space (ulimit -v, containers).
            Err(_) if bytes / 2 >= LEAST_MAP_BYTES.max(used * 2) => bytes /= 2,
            Err(error) => return Err(error),
        }
    }
}

impl FileBacking {
    /// `pwritev` until all is written; `flags` go with each call.
    fn write_all(
        file: &File,
        mut at: u64,
        mut buffers: &mut [IoSlice<'_>],
        flags: ReadWriteFlags,
    ) -> io::Result<()> {
        while !buffers.is_empty() {
            let batch = buffers.get(..MOST_BUFFERS).unwrap_or(buffers);
            let written = match rustix::io::pwritev2(file, batch, at, flags) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            at += written as u64;
            IoSlice::advance_slices(&mut buffers, written);
        }
        Ok(())
    }
}

impl Backing for FileBacking {
    fn map(&self) -> &Arc<Map> {
        &self.map
    }

    fn pages(&self) -> io::Result<u32> {
        let pages = self.tree.metadata()?.len() / PAGE_BYTES_U64;
        Ok(u32::try_from(pages).unwrap_or(u32::MAX))
    }

    fn grow(&self, pages: u32) -> io::Result<()> {
        let from = self.tree.metadata()?.len();
        let bytes = u64::from(pages) * PAGE_BYTES_U64;
        if bytes <= from {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.tree, FallocateFlags::empty(), from, bytes - from) {
            // Some file systems set nothing aside; there a full disk is met in `pwrite`.
            Err(Errno::OPNOTSUPP) => self.tree.set_len(bytes),
            other => other.map_err(Into::into),
        }
    }

    fn cut(&self, pages: u32) -> io::Result<()> {
        let bytes = u64::from(pages) * PAGE_BYTES_U64;
        if self.tree.metadata()?.len() <= bytes {
            return Ok(());
        }
        self.tree.set_len(bytes)
    }

    fn punch(&self, extent: Extent) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let at = u64::from(extent.first) * PAGE_BYTES_U64;
        let bytes = u64::from(extent.pages) * PAGE_BYTES_U64;
        match rustix::fs::fallocate(&self.tree, flags, at, bytes) {
            // Some file systems have no holes; there the blocks stay.
            Err(Errno::OPNOTSUPP) => Ok(()),
            other => other.map_err(Into::into),
        }
    }

    fn write_pages(&self, first: u32, buffers: &[IoSlice<'_>]) -> io::Result<()> {
        debug_assert_eq!(
            pages_for(buffers.iter().map(|each| each.len() as u64).sum()) * PAGE_BYTES_U64,
            buffers.iter().map(|each| each.len() as u64).sum::<u64>()
        );
        let mut buffers = buffers.to_vec();
        let at = u64::from(first) * PAGE_BYTES_U64;
        Self::write_all(&self.tree, at, &mut buffers, ReadWriteFlags::empty())
    }

    fn clean_pages(&self, run: Extent) -> io::Result<()> {
        const FLAGS: libc::c_uint = libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        // Below 2⁴³: a file has 2³¹ pages at most.
        let at = i64::from(run.first) << PAGE_BYTES.trailing_zeros();
        let bytes = i64::from(run.pages) << PAGE_BYTES.trailing_zeros();
        // SAFETY: the descriptor is open as long as `self`; the call reads no memory of
        // ours.
        let result = unsafe { libc::sync_file_range(self.tree.as_raw_fd(), at, bytes, FLAGS) };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn sync_tree(&self) -> io::Result<()> {
        self.tree.sync_data()
    }

    fn write_ring(&self, segments: &[Segment]) -> io::Result<()> {
        // One segment is the common case, and one synchronous write is its barrier.
        if let [(at, bytes)] = segments {
            let buffers = &mut [IoSlice::new(bytes)];
            return Self::write_all(&self.ring, *at, buffers, ReadWriteFlags::DSYNC);
        }
        for (at, bytes) in segments {
            self.ring.write_all_at(bytes, *at)?;
        }
        self.ring.sync_data()
    }

    fn created(&self) -> io::Result<()> {
        if !self.creating {
            return Ok(());
        }
        let dir = &self.dir;
        fs::rename(dir.join(NEW_RING), dir.join(RING))?;
        File::open(dir)?.sync_all()
    }

    fn dir(&self) -> Option<&Path> {
        Some(&self.dir)
    }

    fn remember(&self) {
        if let (Some(mode), Ok(pages)) = (self.note, self.pages()) {
            let _ = warm::remember(&self.dir, &self.map, pages, mode);
        }
    }

    fn read_ring(&self, most: u64) -> io::Result<Vec<u8>> {
        let len = self.ring.metadata()?.len().min(most);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len)?;
        bytes.resize(len, 0);
        self.ring.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}
