//! `brickyard compare --pool`: every pool in every row, in rounds.
//!
//! As in [`compare`](crate::compare), one measurement is one process, on the allocator
//! that the pool is compared on, and the order of the pools rotates.

mod results;
mod table;

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use brickyard_bench::pools::{self, Effort, Measured, ROWS, Row, SUBJECTS, Subject};
use clap::Args;
use serde_json::json;

use crate::child::report_of;
use crate::cli::CompareArgs;
use crate::compare::{Plan, turns};
use crate::progress;
use crate::report;
use crate::switch;

use results::Results;

/// The hidden subcommand's arguments.
#[derive(Debug, Args)]
pub(crate) struct PoolChildArgs {
    /// Name of the row
    #[arg(long)]
    row: String,
    /// Name of the pool
    #[arg(long)]
    subject: String,
    /// The quick size
    #[arg(long)]
    quick: bool,
}

/// Does the work of one row with one pool and prints the [`Measured`].
///
/// # Errors
///
/// When there is no such row or pool, or the process does not run on the allocator that
/// the pool is compared on.
pub(crate) fn child(args: &PoolChildArgs) -> Result<()> {
    let row = pools::find_row(&args.row).with_context(|| format!("no row {}", args.row))?;
    let subject =
        pools::find_subject(&args.subject).with_context(|| format!("no pool {}", args.subject))?;
    ensure!(
        switch::chosen() == subject.allocator,
        "this process runs on {}, not on {}",
        switch::chosen(),
        subject.allocator,
    );
    let effort = if args.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    serde_json::to_writer(std::io::stdout().lock(), &subject.measure(row, effort))?;
    Ok(())
}

/// Runs the comparison and prints the tables.
///
/// # Errors
///
/// When an option is wrong or a child failed; what the others measured is printed first.
pub(crate) fn main(args: &CompareArgs) -> Result<()> {
    let plan = Plan::new(args);
    let rows = chosen_rows(args.only.as_deref())?;
    let program = std::env::current_exe().context("cannot find this program's own path")?;
    let steps = u64::from(plan.rounds) * (rows.len() * SUBJECTS.len()) as u64;
    let bar = progress::bar(steps);
    let mut results = Results::new(rows, SUBJECTS);
    let done = plan.run(|round| {
        for index in 0..results.rows.len() {
            for side in turns(SUBJECTS.len(), round, index) {
                let (row, subject) = (results.rows[index], &SUBJECTS[side]);
                bar.set_message(format!("{} of {}", row.name, subject.name));
                let sample = || measured(&program, row, subject, args.quick);
                results.series[index][side].record(sample);
                bar.inc(1);
            }
        }
    });
    bar.finish_and_clear();
    report::say(&table::render(&results));
    report::say(&format!(
        "{}; medians of {done}, ± half the range; ! behind",
        plan.remark(done)
    ));
    if let Some(path) = &args.json {
        let packages: Vec<&str> = SUBJECTS.iter().map(|subject| subject.package).collect();
        let document = json!({
            "machine": report::machine(),
            "versions": report::package_versions(&packages),
            "rows": results.records(),
        });
        report::write_document(path, &document)?;
    }
    report::say(&table::verdict(&results));
    let failures = results.failures();
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// One measurement, in a process of its own.
fn measured(program: &Path, row: &Row, subject: &Subject, quick: bool) -> Result<Measured> {
    let mut arguments: Vec<&OsStr> = Vec::new();
    for argument in ["pool-child", "--row", row.name, "--subject", subject.name] {
        arguments.push(argument.as_ref());
    }
    arguments.extend(quick.then_some(OsStr::new("--quick")));
    report_of(program, &arguments, subject.allocator)
}

/// The rows whose names contain `only`.
fn chosen_rows(only: Option<&str>) -> Result<Vec<&'static Row>> {
    let only = only.unwrap_or_default();
    let chosen: Vec<_> = ROWS.iter().filter(|row| row.name.contains(only)).collect();
    if chosen.is_empty() {
        let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        bail!(
            "--only: no row's name contains {only:?}; there are {}",
            names.join(", ")
        );
    }
    Ok(chosen)
}
