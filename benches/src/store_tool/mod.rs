//! `brickyard store`: looks into the files of a store, saves them, and changes single entries.
//!
//! Exit codes: 0, it is done; 1, the store is damaged or the key is not there; 2, it cannot
//! be done (usage, input and output).

mod args;
mod backup;
mod dump;
mod text;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use brickyard_store::{BackupError, OpenError, Options, ReadError, Store, TableError, WriteError};
use comfy_table::{CellAlignment, ContentArrangement, Row, Table};

pub(crate) use args::StoreArgs;
use args::{Place, What};

use crate::progress;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Fine,
    /// Damaged, or not there.
    Bad,
}

/// Runs the command.
pub(crate) fn main(args: &StoreArgs) -> ExitCode {
    match run(&args.what) {
        Ok(End::Fine) => ExitCode::SUCCESS,
        Ok(End::Bad) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if is_damage(&error) { 1 } else { 2 })
        }
    }
}

/// Whether an error says that bytes of the store are not what they should be.
fn is_damage(error: &anyhow::Error) -> bool {
    let of_open = error.downcast_ref().is_some_and(|error| {
        matches!(
            error,
            OpenError::Unsound { .. }
                | OpenError::Meta { .. }
                | OpenError::Truncated { .. }
                | OpenError::Incomplete { .. }
                | OpenError::Read(_)
                | OpenError::Ring { .. }
                | OpenError::Foreign
        )
    });
    let of_backup = error.downcast_ref().is_some_and(|error| {
        matches!(
            error,
            BackupError::Read(_)
                | BackupError::Foreign
                | BackupError::Truncated
                | BackupError::Corrupt { .. }
                | BackupError::Unsound { .. }
                | BackupError::Problem { .. }
        )
    });
    of_open
        || of_backup
        || error.is::<ReadError>()
        || matches!(error.downcast_ref(), Some(TableError::Read(_)))
        || matches!(error.downcast_ref(), Some(WriteError::Read(_)))
}

fn run(what: &What) -> Result<End> {
    let out = &mut io::stdout().lock();
    let done = match what {
        What::Check(place) => return check(place, out),
        What::Get { place, table, key } => return get(place, table, key, out),
        What::Delete { dir, table, key } => return delete(dir, table, key),
        What::Stat(place) => stat(place, out),
        What::Dump { place, table } => dump::write(&open(place)?, table.as_deref(), out),
        What::Load { dir, file } => load(dir, file.as_deref()),
        What::Backup { place, dest, since } => {
            backup::backup(&open(place)?, dest, since.as_deref(), out)
        }
        What::Apply { backup, increments } => backup::apply(backup, increments, out),
        What::Restore {
            backup,
            dir,
            increments,
        } => backup::restore(backup, dir, increments, out),
        What::Compact { dir, pages } => {
            let store = Options::new().create(false).open(dir)?;
            backup::compact(&store, *pages, out)?;
            store.close().map_err(Into::into)
        }
        What::Put {
            dir,
            table,
            key,
            value,
        } => put(dir, table, key, value),
    };
    done.map(|()| End::Fine)
}

fn load(dir: &Path, file: Option<&Path>) -> Result<()> {
    let store = Options::new().open(dir)?;
    match file {
        Some(path) => {
            let file = File::open(path);
            let file = file.with_context(|| format!("cannot open {}", path.display()))?;
            dump::read(&store, &mut io::BufReader::new(file))?;
        }
        None => dump::read(&store, &mut io::stdin().lock())?,
    }
    Ok(store.close()?)
}

fn get(place: &Place, table: &str, key: &str, out: &mut impl Write) -> Result<End> {
    let (store, key) = (open(place)?, text::word(key)?);
    let read = store.read();
    let found = read
        .table(table)?
        .map(|table| table.get(&key))
        .transpose()?;
    let Some(value) = found.flatten() else {
        return Ok(End::Bad);
    };
    out.write_all(value)?;
    Ok(End::Fine)
}

fn put(dir: &Path, table: &str, key: &str, value: &str) -> Result<()> {
    let (key, value) = (text::word(key)?, text::word(value)?);
    let store = Options::new().open(dir)?;
    let mut write = store.write()?;
    write.table(table)?.put(&key, &value)?;
    write.commit()?;
    Ok(store.close()?)
}

fn delete(dir: &Path, table: &str, key: &str) -> Result<End> {
    let key = text::word(key)?;
    let store = Options::new().create(false).open(dir)?;
    let mut write = store.write()?;
    let existed = write.table(table)?.delete(&key)?;
    write.commit()?;
    store.close()?;
    Ok(if existed { End::Fine } else { End::Bad })
}

/// Opens a store to look at it.
fn open(place: &Place) -> Result<Store> {
    let options = Options::new().create(false);
    let opened = options.clone().read_only(true).open(&place.dir);
    match opened {
        Err(OpenError::NeedsRecovery) if place.recover => Ok(options.open(&place.dir)?),
        Err(error @ OpenError::NeedsRecovery) => {
            Err(anyhow::Error::from(error).context("--recover opens it for writing"))
        }
        opened => Ok(opened?),
    }
}

fn check(place: &Place, out: &mut impl Write) -> Result<End> {
    let store = open(place)?;
    let bar = progress::bar(0);
    let report = store.check_with(|progress| {
        bar.set_length(progress.pages);
        bar.set_position(progress.met);
    });
    bar.finish_and_clear();
    for problem in &report.problems {
        writeln!(out, "{problem}")?;
    }
    let problems = report.problems.len();
    writeln!(
        out,
        "{} tables, {} entries, {} pages live, {} free, {} held: {problems} problems",
        report.tables, report.entries, report.live_pages, report.free_pages, report.held_pages
    )?;
    Ok(if problems == 0 { End::Fine } else { End::Bad })
}

fn stat(place: &Place, out: &mut impl Write) -> Result<()> {
    let stat = open(place)?.stat()?;
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "table", "entries", "depth", "inner", "leaves", "large", "keys B", "values B",
    ]);
    for each in &stat.tables {
        let figures = [
            each.entries,
            each.depth,
            each.inner_pages,
            each.leaf_pages,
            each.large_pages,
            each.key_bytes,
            each.value_bytes,
        ];
        let mut row = Row::new();
        row.add_cell(text::escaped(each.name.as_bytes()).into());
        for figure in figures {
            row.add_cell(figure.into());
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for line in table.to_string().lines() {
        writeln!(out, "{}", line.trim())?;
    }
    writeln!(
        out,
        "transaction {}, {} pages of 4096 bytes: {} free, {} held",
        stat.txn, stat.pages, stat.free_pages, stat.held_pages
    )?;
    writeln!(
        out,
        "ring: {} of {} bytes to replay; {} readers of this process",
        stat.ring_used, stat.ring_bytes, stat.readers
    )?;
    Ok(())
}
