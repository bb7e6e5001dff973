//! Copies of a store while it is written to.
//!
//! A backup is a store's folder with what one snapshot reaches, each page where it was and
//! holes between: pages that keep their numbers are what an *increment* can name, a stream
//! of the pages born since the state that the backup has. `docs/format.md` has its bytes.
//!
//! A folder that is not whole yet is never a store: a new backup has another name until it
//! lasts and was checked, and while an increment is applied the ring has another name.

pub(crate) mod apply;
pub(crate) mod copy;
pub(crate) mod increment;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::BackupError;
use crate::format::increment::State;
use crate::format::meta::Meta;
use crate::ids::{FIRST_PAGE, PAGE_BYTES};

/// A state of a store, as a backup has it: what an incremental backup builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupMark(pub(crate) State);

impl BackupMark {
    /// The last transaction of that state.
    pub fn txn(&self) -> u64 {
        self.0.txn
    }

    /// The state of the backup in the folder `dir`.
    ///
    /// # Errors
    ///
    /// [`BackupError::Io`]; [`BackupError::Base`] if there is no backup.
    pub fn of(dir: impl AsRef<Path>) -> Result<Self, BackupError> {
        let path = dir.as_ref().join("tree");
        let file = File::open(&path).map_err(|source| io_error("open", &path, source))?;
        let meta = newest_slot(&file, &path)?;
        Ok(Self(state(&meta)))
    }
}

/// How far a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupProgress {
    /// Pages done.
    pub pages: u64,
    /// Pages in all, if that is known before the end.
    pub of: Option<u64>,
}

/// What a backup has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupReport {
    /// The state that was saved.
    pub mark: BackupMark,
    /// Pages written.
    pub pages: u64,
}

fn state(meta: &Meta) -> State {
    State {
        txn: meta.txn,
        root: meta.root,
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> BackupError {
    BackupError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// The slot that counts, of the tree file `path`.
fn newest_slot(tree: &File, path: &Path) -> Result<Meta, BackupError> {
    let mut page = [0; PAGE_BYTES];
    let mut newest: Option<Meta> = None;
    for slot in 0..u64::from(FIRST_PAGE) {
        let read = tree.read_exact_at(&mut page, slot * PAGE_BYTES as u64);
        read.map_err(|source| io_error("read", path, source))?;
        if let Ok(meta) = Meta::decode(&page)
            && newest.is_none_or(|newest| meta.generation > newest.generation)
        {
            newest = Some(meta);
        }
    }
    newest.ok_or(BackupError::Base {
        reason: "neither slot of the folder's tree is whole",
    })
}

/// Makes the entries of a folder last.
fn sync_dir(dir: &Path) -> Result<(), BackupError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|source| io_error("sync", dir, source))
}
