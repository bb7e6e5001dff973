//! `brickyard store backup`, `apply`, `restore` and `compact`.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use brickyard_store::{BackupMark, BackupProgress, BackupReport, Options, Store};
use indicatif::ProgressBar;

use crate::progress;

/// Pages that one call of [`Store::compact`] may move, between which the bar moves: 256 MiB.
const COMPACT_PAGES: u64 = 1 << 16;
/// Stands for standard output.
const STDOUT: &str = "-";

/// Copies the store into the folder `dest`, or what the backup `since` lacks into the file
/// `dest`.
pub(super) fn backup(
    store: &Store,
    dest: &Path,
    since: Option<&Path>,
    out: &mut impl Write,
) -> Result<()> {
    let report = match since {
        None => with_bar(|moved| Ok(store.backup(dest, moved)?))?,
        Some(since) => {
            let mark = BackupMark::of(since)?;
            if dest.as_os_str() == STDOUT {
                increment(store, mark, out)?;
                return Ok(());
            }
            increment_file(store, mark, dest)?
        }
    };
    say(&report, out)
}

fn increment(store: &Store, mark: BackupMark, to: &mut impl Write) -> Result<BackupReport> {
    with_bar(|moved| Ok(store.backup_since(mark, to, moved)?))
}

/// The file has its name only when it is whole and lasts.
fn increment_file(store: &Store, mark: BackupMark, dest: &Path) -> Result<BackupReport> {
    let folder = dest.parent().filter(|path| !path.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let part = tempfile::NamedTempFile::new_in(folder);
    let part = part.with_context(|| format!("cannot create a file in {}", folder.display()))?;
    let mut to = BufWriter::new(part);
    let report = increment(store, mark, &mut to)?;
    let cannot_write = || format!("cannot write {}", dest.display());
    let part = to.into_inner().map_err(io::IntoInnerError::into_error);
    let part = part.with_context(cannot_write)?;
    part.as_file().sync_all().with_context(cannot_write)?;
    let named = part.persist_noclobber(dest);
    named
        .map_err(|error| error.error)
        .with_context(cannot_write)?;
    let folder_lasts = File::open(folder).and_then(|folder| folder.sync_all());
    folder_lasts.with_context(cannot_write)?;
    Ok(report)
}

/// Brings the backup in `dir` up to date with `increments`, in their order.
pub(super) fn apply(dir: &Path, increments: &[PathBuf], out: &mut impl Write) -> Result<()> {
    for path in increments {
        let about = || format!("increment {}", path.display());
        let file = File::open(path).with_context(about)?;
        let applied = with_bar(|moved| {
            let from = BufReader::new(file);
            Ok(Store::apply_increment(dir, from, moved)?)
        });
        say(&applied.with_context(about)?, out)?;
    }
    Ok(())
}

/// Copies the backup `from` into the folder `dir`, and applies `increments` there. All of it
/// or nothing.
pub(super) fn restore(
    from: &Path,
    dir: &Path,
    increments: &[PathBuf],
    out: &mut impl Write,
) -> Result<()> {
    let backup = Options::new().read_only(true).open(from)?;
    say(&with_bar(|moved| Ok(backup.backup(dir, moved)?))?, out)?;
    apply(dir, increments, out).inspect_err(|_| {
        // The folder was made above. Where it cannot be removed it is a store of an earlier
        // state, and the error says that it is not what was asked for.
        let _ = fs::remove_dir_all(dir);
    })
}

/// Makes the file as short as it gets by moving at most `most` pages.
pub(super) fn compact(store: &Store, most: Option<u64>, out: &mut impl Write) -> Result<()> {
    let mut left = most.unwrap_or(u64::MAX);
    if left == 0 {
        bail!("--pages 0 moves nothing; leave it out to move all that can be moved");
    }
    // A page that moves fills a free one.
    let bar = progress::bar(store.stat()?.free_pages.min(left));
    let (mut moved, mut cut) = (0, 0);
    let done = loop {
        let step = store.compact(left.min(COMPACT_PAGES))?;
        moved += step.moved_pages;
        cut += step.cut_pages;
        left = left.saturating_sub(step.moved_pages);
        bar.set_position(moved);
        if step.done || step.moved_pages == 0 || left == 0 {
            break step.done;
        }
    };
    bar.finish_and_clear();
    let rest = if done { "" } else { "; more can be moved" };
    writeln!(out, "{moved} pages moved, file {cut} pages shorter{rest}")?;
    Ok(())
}

/// Runs `work` with a bar that its progress moves.
fn with_bar(
    work: impl FnOnce(&mut dyn FnMut(BackupProgress)) -> Result<BackupReport>,
) -> Result<BackupReport> {
    let bar = progress::bar(0);
    let report = work(&mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    report
}

fn show(bar: &ProgressBar, progress: BackupProgress) {
    bar.set_length(progress.of.unwrap_or(progress.pages));
    bar.set_position(progress.pages);
}

fn say(report: &BackupReport, out: &mut impl Write) -> Result<()> {
    let (txn, pages) = (report.mark.txn(), report.pages);
    writeln!(out, "transaction {txn}, {pages} pages written")?;
    Ok(())
}
