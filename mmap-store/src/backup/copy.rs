//! A whole backup: the pages of one snapshot, in the order of the file.

use core::hash::BuildHasher;
use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backing::file::{self, FileOptions};
use crate::backup::{BackupMark, BackupProgress, BackupReport, io_error, sync_dir};
use crate::check::{self, Depth};
use crate::checkpoint::used_pages;
use crate::error::{BackupError, CommitError};
use crate::format::increment::{MOST_BLOCK_PAGES, State};
use crate::format::meta::Meta;
use crate::ids::{Extent, FIRST_PAGE, PAGE_BYTES, PAGE_BYTES_U64, pages_for};
use crate::recovery::{self, How};
use crate::shared::{Durability, Shared};
use crate::txn::read::ReadTxn;

/// Backups belong to who makes them.
pub(super) const MODE: u32 = 0o600;

/// The newest version, held, and which pages it does not reach.
pub(super) struct Still<'s> {
    /// Keeps its pages from being used again.
    _read: ReadTxn<'s>,
    pub(super) state: State,
    /// The map of free pages that its backup gets, whole pages.
    pub(super) map: Vec<u8>,
    /// Where that map goes: after the last page in use.
    pub(super) place: Extent,
}

impl Shared {
    /// Holds everything that was committed so far. Writers wait for a barrier at most.
    ///
    /// A checkpoint has the state, too: what recovery does anew lies in other pages than
    /// before, and increments name the pages of a backup.
    pub(super) fn still(&self) -> Result<Still<'_>, CommitError> {
        let (still, is_in_tree) = self.hold()?;
        if !is_in_tree {
            self.checkpoint()?;
        }
        Ok(still)
    }

    /// The same without a checkpoint, and whether the last one has it.
    fn hold(&self) -> Result<(Still<'_>, bool), CommitError> {
        let mut head = self.head.lock();
        // A checkpoint on its way has a map that the space does not know of yet.
        drop(self.checkpointing.lock());
        self.reclaim(&mut head);
        self.settle(head.version.txn)?;
        let read = ReadTxn::begin(self);
        debug_assert_eq!(read.txn(), head.version.txn, "nobody publishes meanwhile");
        let bytes = |pages: u32| {
            let bytes = pages_for(u64::from(pages).div_ceil(8)) * PAGE_BYTES_U64;
            usize::try_from(bytes).unwrap_or(usize::MAX)
        };
        let mut map = head.space.to_map(bytes(head.len), head.durable.map);
        let used = used_pages(&map, head.len);
        // What lies behind is not in the backup, but for the map, which is not free.
        for page in used..head.len {
            map[page as usize / 8] &= !(1 << (page % 8));
        }
        map.truncate(bytes(used));
        let last = self.done.lock().unwrap_or(head.durable);
        let still = Still {
            _read: read,
            state: State {
                txn: head.version.txn,
                root: head.version.root,
            },
            place: Extent {
                first: used,
                pages: u32::try_from(map.len() / PAGE_BYTES).unwrap_or(u32::MAX),
            },
            map,
        };
        Ok((still, last.txn == head.version.txn))
    }
}

impl Still<'_> {
    /// The pages that the version reaches, in runs.
    fn runs(&self) -> impl Iterator<Item = Extent> {
        let is_free = |page: u32| self.map[page as usize / 8] & (1 << (page % 8)) != 0;
        let (mut next, end) = (FIRST_PAGE, self.place.first);
        core::iter::from_fn(move || {
            let first = (next..end).find(|&page| !is_free(page))?;
            let limit = end.min(first + MOST_BLOCK_PAGES);
            next = (first..limit).find(|&page| is_free(page)).unwrap_or(limit);
            Some(Extent {
                first,
                pages: next - first,
            })
        })
    }
}

/// Copies what `shared` holds into the folder `to`, which must not be there, or be empty.
pub(crate) fn backup(
    shared: &Shared,
    to: &Path,
    progress: &mut dyn FnMut(BackupProgress),
) -> Result<BackupReport, BackupError> {
    let taken = match fs::read_dir(to) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => to.exists(),
    };
    if taken {
        return Err(BackupError::Exists {
            path: to.to_owned(),
        });
    }
    let part = partial(to)?;
    let still = shared.still()?;
    let pages = fill(shared, &still, &part, progress)?;
    let mark = BackupMark(still.state);
    drop(still);
    verify(&part, Depth::All)?;
    fs::rename(&part, to).map_err(|source| io_error("rename", &part, source))?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_dir(parent.unwrap_or(Path::new(".")))?;
    Ok(BackupReport { mark, pages })
}

/// An empty folder beside `to`, with what an earlier attempt left taken away.
fn partial(to: &Path) -> Result<PathBuf, BackupError> {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let part = to.with_file_name(name);
    if part.exists() {
        for file in ["tree", "ring", "lock"].map(|file| part.join(file)) {
            // What is not there need not go; the folder itself says if something is left.
            let _ = fs::remove_file(file);
        }
        fs::remove_dir(&part).map_err(|source| io_error("remove", &part, source))?;
    }
    let made = fs::DirBuilder::new().mode(0o700).create(&part);
    made.map_err(|source| io_error("create", &part, source))?;
    Ok(part)
}

fn create(path: &Path) -> Result<File, BackupError> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path);
    file.map_err(|source| io_error("create", path, source))
}

/// Writes the files of a backup; how many pages it has.
fn fill(
    shared: &Shared,
    still: &Still<'_>,
    part: &Path,
    progress: &mut dyn FnMut(BackupProgress),
) -> Result<u64, BackupError> {
    let path = part.join("tree");
    let tree = create(&path)?;
    let failed = |source| io_error("write", &path, source);
    let all: u64 = still.runs().map(|run| u64::from(run.pages)).sum();
    let mut done = 0;
    for run in still.runs() {
        let bytes = shared.pages.run(run)?;
        let at = u64::from(run.first) * PAGE_BYTES_U64;
        tree.write_all_at(bytes, at).map_err(failed)?;
        done += u64::from(run.pages);
        progress(BackupProgress {
            pages: done,
            of: Some(all),
        });
    }
    let at = u64::from(still.place.first) * PAGE_BYTES_U64;
    tree.write_all_at(&still.map, at).map_err(failed)?;
    let meta = Meta {
        generation: 1,
        txn: still.state.txn,
        // Another one for each store, as in the store itself.
        salt: RandomState::new().hash_one("salt"),
        ring_start: 0,
        root: still.state.root,
        pages: still.place.end(),
        map: still.place,
        map_crc: crc32c::crc32c(&still.map),
        ring_bytes: shared.ring_bytes,
    };
    tree.write_all_at(&meta.encode()[..], PAGE_BYTES as u64)
        .map_err(failed)?;
    tree.sync_all().map_err(failed)?;
    let ring = part.join("ring");
    let made = file::create_ring(&ring, shared.ring_bytes, MODE);
    made.map_err(|source| io_error("create", &ring, source))?;
    create(&part.join("lock"))?;
    sync_dir(part)?;
    Ok(all + u64::from(still.place.pages))
}

/// Opens a backup for reading and walks it.
pub(super) fn verify(dir: &Path, depth: Depth) -> Result<(), BackupError> {
    let options = FileOptions {
        read_only: true,
        create: false,
        create_new: false,
        mode: MODE,
        ring_bytes: 0,
        map_bytes: 1 << 40,
        guard: false,
        warm: false,
    };
    let how = How {
        checkpoint_thread: false,
        read_only: true,
        create: false,
        durability: Durability::default(),
        check: false,
        checkpoint_budget: 0,
        trace_readers: false,
        #[cfg(test)]
        sabotage: crate::shared::Sabotage::default(),
    };
    let opened = file::open(dir, &options);
    let opened = opened.and_then(|(backing, _)| recovery::open(Arc::new(backing), how));
    let opened = opened.map_err(|source| BackupError::Unsound {
        source: Box::new(source),
    })?;
    match check::check(&opened, depth).problems.into_iter().next() {
        None => Ok(()),
        Some(problem) => Err(BackupError::Problem { problem }),
    }
}
