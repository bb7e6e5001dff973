//! `brickyard replay`: the calls of a recording under any allocator.
//!
//! [`calls`] puts the calls of all threads in their order, [`build`] makes a flat [`program`]
//! of them. A process for each measurement ([`mod@child`]) runs it on the [`machine`], in rounds and in
//! turns: once for the time, once with a look at the memory after each epoch. [`table`] and
//! [`plot`] show what came out.

mod build;
mod calls;
mod child;
#[expect(
    unsafe_code,
    reason = "calls the global allocator and writes into its blocks"
)]
mod machine;
mod plot;
mod program;
mod slot;
mod sync;
mod table;

use core::time::Duration;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::child::{Under, report_under};
use crate::compare::turns;
use crate::measure::available_kib;
use crate::progress;
use crate::report;
use crate::series::Series;
use crate::switch;
use build::Facts;
use child::Sample;
pub(crate) use child::{ReplayChildArgs, main as child};
use machine::Touch;

/// After this a replay counts as hung: recordings of some minutes are replayed in less.
const PATIENCE: Duration = Duration::from_secs(600);

/// Options of `replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The recording
    #[arg(value_name = "FILE")]
    recording: PathBuf,
    /// Allocators of this build, or paths of libraries to preload, separated by commas; ratios are
    /// to the first [default: all of this build but `hardened`]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    under: Vec<String>,
    /// Rounds to run
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// All calls in one thread, in their order
    #[arg(long)]
    serial: bool,
    /// What is written into blocks, beside what the allocator writes
    #[arg(long, default_value = "pages")]
    touch: Touch,
    /// Draw live and resident memory over the calls into this file, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Write the medians to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One allocator's part of the replays.
#[derive(Debug)]
struct Side {
    name: String,
    allocator: String,
    preload: Option<PathBuf>,
    timed: Series<Sample>,
    memory: Series<Sample>,
}

/// Replays a recording and prints the table.
///
/// # Errors
///
/// When an option is wrong, the recording cannot be used, or a replay failed; what the
/// others measured is printed first.
pub(crate) fn main(args: &ReplayArgs) -> Result<()> {
    if let Some(path) = &args.plot {
        ensure!(
            path.extension() == Some(OsStr::new("svg")),
            "--plot writes SVG only: {} should end in .svg",
            path.display(),
        );
    }
    let mut sides = sides(&args.under)?;
    let path = args.recording.display();
    let bytes = fs::read(&args.recording).with_context(|| format!("cannot read {path}"))?;
    let (program, facts) =
        build::build(&bytes, args.serial).with_context(|| format!("cannot replay {path}"))?;
    drop(bytes);
    ensure_room(&facts, args.touch)?;
    let scratch = tempfile::tempdir().context("no folder for temporary files")?;
    let file = scratch.path().join("program");
    program.write(&file)?;
    drop(program);
    let bar = progress::bar(u64::from(args.rounds) * sides.len() as u64);
    for round in 0..args.rounds {
        for index in turns(sides.len(), round as usize, 0) {
            let side = &mut sides[index];
            bar.set_message(format!("under {}", side.name));
            side.replay(&file, args.touch, &facts)?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    report::say(&table::facts(&facts));
    report::say(&table::render(&facts, &sides));
    report::say(&table::remark(args));
    if let Some(path) = &args.json {
        report::write_document(path, &table::document(&facts, &sides)?)?;
    }
    if let Some(path) = &args.plot {
        plot::draw(path, &facts, &sides)?;
    }
    let failures: Vec<String> = sides.iter().filter_map(Side::failure).collect();
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// The allocators asked for, or all.
fn sides(asked: &[String]) -> Result<Vec<Side>> {
    let known: Vec<&str> = switch::measurable().collect();
    let names: Vec<&str> = if asked.is_empty() {
        let by_default = |name: &&str| *name != switch::HARDENED;
        known.iter().copied().filter(by_default).collect()
    } else {
        asked.iter().map(String::as_str).collect()
    };
    let side = |name: &str| -> Result<Side> {
        let (name, allocator, preload) = if name.contains('/') {
            let path = Path::new(name);
            let path = path
                .canonicalize()
                .with_context(|| format!("--under: no library at {name}"))?;
            let short = Path::new(name).file_name().unwrap_or_default();
            (short.to_string_lossy().into_owned(), known[0], Some(path))
        } else if known.contains(&name) {
            (String::from(name), name, None)
        } else {
            bail!(
                "--under: {name:?} is not in this build; there are {}; libraries are paths with a /",
                known.join(", ")
            );
        };
        Ok(Side {
            name,
            allocator: String::from(allocator),
            preload,
            timed: Series::default(),
            memory: Series::default(),
        })
    };
    names.into_iter().map(side).collect()
}

/// Refuses what would fill the machine's memory: a recording may be forged, and a program may
/// have asked for much that it never touched.
fn ensure_room(facts: &Facts, touch: Touch) -> Result<()> {
    let Some(available_kib) = available_kib() else {
        return Ok(());
    };
    ensure!(
        touch == Touch::None || facts.most_bytes / 1024 < available_kib,
        "the program held {} MiB, and its threads may hold {} MiB in a replay, more than is available here: \
         replay it with --touch none, or with --serial, where there is one",
        facts.peak_bytes >> 20,
        facts.most_bytes >> 20,
    );
    Ok(())
}

impl Side {
    /// Replays once for the time and once for the memory.
    fn replay(&mut self, program: &Path, touch: Touch, facts: &Facts) -> Result<()> {
        let own = std::env::current_exe().context("cannot find this program's own path")?;
        let touch = format!("{touch:?}").to_lowercase();
        let under = Under {
            allocator: &self.allocator,
            preload: self.preload.as_deref(),
        };
        let run = |memory: bool| -> Result<Sample> {
            let mut arguments: Vec<&OsStr> =
                ["replay-child", "--touch", &touch].map(OsStr::new).to_vec();
            arguments.extend(["--allocator", &self.allocator, "--program"].map(OsStr::new));
            arguments.push(program.as_os_str());
            arguments.extend(memory.then_some(OsStr::new("--memory")));
            let sample: Sample = report_under(&own, &arguments, under, PATIENCE)?;
            let left = (sample.left_blocks, sample.left_bytes);
            let expected = (facts.left_blocks as u64, facts.left_bytes());
            ensure!(
                left == expected,
                "{left:?} blocks and bytes are left instead of {expected:?}"
            );
            Ok(sample)
        };
        self.timed.record(|| run(false));
        self.memory.record(|| run(true));
        Ok(())
    }

    /// Medians of the memory after each epoch, in KiB.
    fn timeline(&self, epochs: usize) -> Vec<f64> {
        let at = |epoch: usize| {
            // Exact below 2^53.
            let figures = self
                .memory
                .figures(|sample| Some(*sample.rss_kib.get(epoch)? as f64));
            crate::stats::median(&figures)
        };
        (0..epochs).map_while(at).collect()
    }

    /// Why there are no figures.
    fn failure(&self) -> Option<String> {
        let reason = self.timed.failure().or(self.memory.failure())?;
        Some(format!("under {}: {reason}", self.name))
    }
}

#[cfg(test)]
mod tests;
