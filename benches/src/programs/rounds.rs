//! The options, and the rounds.

use core::time::Duration;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use indicatif::ProgressBar;

use super::inputs::Folder;
use super::libraries::{OURS, Side, sides};
use super::list::{PROGRAMS, Program};
use crate::compare::{Plan, QUICK_BUDGET, conclude, turns};
use crate::progress;
use crate::ranking;
use crate::report;
use crate::results::{Results, Row, Series};

/// No round is begun that would probably end after this.
const FULL_BUDGET: Duration = Duration::from_secs(225);

/// Options of `programs`.
#[derive(Debug, Args)]
pub(crate) struct ProgramsArgs {
    /// An eighth of the work and fewer rounds
    #[arg(long)]
    quick: bool,
    /// Rounds to run; without it as many as fit the time, five at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Only the programs whose name contains this
    #[arg(long, value_name = "SUBSTRING")]
    only: Option<String>,
    /// This workspace's library [default: libbrickyard.so beside this program]
    #[arg(long, value_name = "PATH")]
    preload: Option<PathBuf>,
    /// The other allocators' libraries, separated by commas [default: those of mimalloc, jemalloc
    /// and tcmalloc that the system has installed]
    #[arg(long, value_name = "PATHS", value_delimiter = ',')]
    under: Vec<PathBuf>,
    /// Write the medians to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the programs and prints the tables.
///
/// # Errors
///
/// When an option is wrong, an input cannot be made, or a program failed; what the others
/// measured is printed first.
pub(crate) fn main(args: &ProgramsArgs) -> Result<()> {
    let chosen = chosen(args.only.as_deref())?;
    let (sides, mut notes) = sides(args.preload.as_deref(), &args.under)?;
    let scratch = tempfile::tempdir().context("no folder for temporary files")?;
    let folder = Folder::new(scratch.path(), args.quick)?;
    let mut programs = Vec::new();
    for program in chosen {
        match folder.prepare(program)? {
            None => programs.push(program),
            Some(reason) => notes.push(format!("skipped: {}: {reason}", program.name)),
        }
    }
    let budget = if args.quick {
        QUICK_BUDGET
    } else {
        FULL_BUDGET
    };
    let plan = Plan::within(args.rounds, budget);
    let runs_a_round = (programs.len() * sides.len()) as u64;
    let mut comparison = Comparison::new(&programs, &sides, &folder);
    let bar = progress::bar(u64::from(plan.rounds) * runs_a_round);
    let done = plan.run(|round| comparison.round(round, &bar));
    bar.finish_and_clear();
    let results = comparison.results;
    ensure!(
        !results.rows.is_empty(),
        "no program to run:\n{}",
        notes.join("\n")
    );
    report::say(&ranking::render(&results, "program", ours(&sides)));
    for side in &sides {
        notes.push(format!("{}: {}", side.name, side.preload.display()));
    }
    report::say(&notes.join("\n"));
    report::say(&format!(
        "{} of the work, {}; medians, ± half the range",
        if args.quick { "1/8" } else { "all" },
        plan.remark(done),
    ));
    if let Some(path) = &args.json {
        report::write_json(path, &results)?;
    }
    report::say(&report::lead(&results, ours(&sides)));
    conclude(&results)
}

/// The index of this workspace's library.
fn ours(sides: &[Side]) -> usize {
    let ours = sides.iter().position(|side| side.name == OURS);
    ours.unwrap_or_default()
}

/// The programs whose names contain `only`.
fn chosen(only: Option<&str>) -> Result<Vec<&'static Program>> {
    let only = only.unwrap_or_default();
    let all = PROGRAMS.iter();
    let chosen: Vec<_> = all.filter(|program| program.name.contains(only)).collect();
    if chosen.is_empty() {
        let names: Vec<_> = PROGRAMS.iter().map(|program| program.name).collect();
        bail!(
            "--only: no program's name contains {only:?}; there are {}",
            names.join(", ")
        );
    }
    Ok(chosen)
}

/// A comparison under way.
struct Comparison<'a> {
    programs: &'a [&'static Program],
    sides: &'a [Side],
    folder: &'a Folder<'a>,
    results: Results,
    /// By program, the first output seen: all others must equal it.
    outputs: Vec<Option<Vec<u8>>>,
}

impl<'a> Comparison<'a> {
    fn new(programs: &'a [&'static Program], sides: &'a [Side], folder: &'a Folder<'a>) -> Self {
        let row = |program: &&Program| Row {
            workload: String::from(program.name),
            live_kib: None,
            series: vec![Series::default(); sides.len()],
        };
        Self {
            programs,
            sides,
            folder,
            results: Results {
                allocators: sides.iter().map(|side| side.name.clone()).collect(),
                rows: programs.iter().map(row).collect(),
            },
            outputs: vec![None; programs.len()],
        }
    }

    /// Runs each program once on each side.
    fn round(&mut self, round: usize, bar: &ProgressBar) {
        for (row, program) in self.programs.iter().enumerate() {
            for side in turns(self.sides.len(), round, row) {
                bar.set_message(format!("{} under {}", program.name, self.sides[side].name));
                if self.results.rows[row].series[side].failure.is_none()
                    && let Err(error) = self.sample(row, side)
                {
                    let series = &mut self.results.rows[row].series[side];
                    series.failure = Some(format!("{error:#}"));
                }
                bar.inc(1);
            }
        }
    }

    /// Runs one program once.
    fn sample(&mut self, row: usize, side: usize) -> Result<()> {
        let preload = self.sides[side].preload.as_path();
        let ran = self.folder.run(self.programs[row].run, Some(preload))?;
        let spawned = &ran.spawned;
        ensure!(
            spawned.success,
            "{}: {}",
            spawned.status,
            self.folder.complaint()
        );
        let series = &mut self.results.rows[row].series[side];
        series.time_s.push(spawned.time_s);
        series.cpu_s.push(spawned.cpu_s);
        // A count of KiB far below 2^53, so exact.
        series.peak_rss_kib.push(spawned.peak_rss_kib as f64);
        let first = self.outputs[row].get_or_insert_with(|| ran.stdout.clone());
        ensure!(*first == ran.stdout, "its output differs from the first");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_their_column() {
        for (index, program) in PROGRAMS.iter().enumerate() {
            assert!(program.name.len() <= 14, "{}", program.name);
            let others = &PROGRAMS[index + 1..];
            assert!(others.iter().all(|other| other.name != program.name));
        }
    }

    #[test]
    fn an_unknown_program_is_an_error_with_the_known_ones() {
        let error = chosen(Some("cobol")).expect_err("there is none");
        assert!(error.to_string().contains("python-json"), "{error}");
    }
}
