//! Backups of a store, taken while it is written to, and what they hold.

use std::path::{Path, PathBuf};

use brickyard_store::{BackupMark, Options, Store};
use tempfile::TempDir;

use super::dump::dump;
use super::outcome::{Failure, Outcome};

/// A new folder: in memory where there is such a file system, since no test here is about
/// the disk.
///
/// # Errors
///
/// The folder cannot be made.
pub fn folder() -> std::io::Result<TempDir> {
    let shared = Path::new("/dev/shm");
    let base = if shared.is_dir() {
        PathBuf::from(shared)
    } else {
        std::env::temp_dir()
    };
    tempfile::Builder::new()
        .prefix("brickyard-oracle-")
        .tempdir_in(base)
}

/// The last backup of a store, over all of its lives.
#[derive(Debug, Default)]
pub struct Backups {
    home: Option<TempDir>,
    /// How many whole ones there were.
    number: usize,
    /// The state of the last one.
    mark: Option<BackupMark>,
}

impl Backups {
    /// Takes a backup, or with `since` brings the last one up to date; `meanwhile` is done once
    /// while pages are copied, or at the end if there are none. What the backup holds.
    pub(super) fn take(
        &mut self,
        store: &Store,
        since: bool,
        meanwhile: &mut dyn FnMut() -> Result<(), Failure>,
    ) -> Result<Outcome, Failure> {
        if self.home.is_none() {
            self.home = Some(folder()?);
        }
        let mut written = None;
        let taken = self.copy(store, since, &mut || {
            written.get_or_insert_with(&mut *meanwhile);
        });
        written.unwrap_or_else(&mut *meanwhile)?;
        // It was written to in any case.
        let failed = |failure: Failure| Failure {
            is_unknown: true,
            ..failure
        };
        let dir = taken.map_err(failed)?;
        contents(&dir).map_err(failed)
    }

    fn copy(
        &mut self,
        store: &Store,
        since: bool,
        progress: &mut dyn FnMut(),
    ) -> Result<PathBuf, Failure> {
        let home = self.home.as_ref().expect("made above").path();
        let place = |number: usize| home.join(number.to_string());
        if let (true, Some(mark)) = (since, self.mark) {
            let mut stream = Vec::new();
            store.backup_since(mark, &mut stream, |_| progress())?;
            let dir = place(self.number);
            let report = Store::apply_increment(&dir, stream.as_slice(), |_| {})?;
            self.mark = Some(report.mark);
            return Ok(dir);
        }
        if self.mark.take().is_some() {
            std::fs::remove_dir_all(place(self.number))?;
        }
        self.number += 1;
        let dir = place(self.number);
        self.mark = Some(store.backup(&dir, |_| progress())?.mark);
        Ok(dir)
    }
}

/// What a check of the store in a folder finds, and all that it holds.
fn contents(dir: &Path) -> Result<Outcome, Failure> {
    let store = Options::new().read_only(true).open(dir)?;
    let problems = store.check().problems;
    let problems = problems.iter().map(ToString::to_string).collect();
    Ok(Outcome::Checked(problems, dump(&store)?))
}
