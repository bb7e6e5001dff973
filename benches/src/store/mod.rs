//! `brickyard compare --store`: every store in every job, in rounds, on one disk.
//!
//! As in [`compare`](crate::compare), one measurement is one process, and the order of the
//! stores rotates. A job answers several rows, since loading is most of the work. Each has
//! a new folder, which is removed before the next begins, and the floors of the disk are
//! measured in each round.

mod results;
mod table;

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use brickyard_bench::stores::{
    self, Figures, JOBS, Job, Place, ROWS, Row, SUBJECTS, Subject, Work,
};
use clap::Args;
use nix::sys::signal::{Signal, raise};
use serde_json::json;

use crate::child::report_of;
use crate::cli::CompareArgs;
use crate::compare::{Plan, turns};
use crate::progress;
use crate::report;

use results::Results;

/// The name under which the floors run as a child.
const DISK: &str = "disk";

/// The allocator of every process: each store is used as its users use it.
const SYSTEM: &str = "system";

/// The hidden subcommand's arguments.
#[derive(Debug, Args)]
pub(crate) struct StoreChildArgs {
    /// Name of the job
    #[arg(long)]
    job: String,
    /// Name of the store, or `disk` for the floors
    #[arg(long)]
    subject: String,
    /// An empty folder
    #[arg(long)]
    dir: PathBuf,
    /// The quick size
    #[arg(long)]
    quick: bool,
    /// A hundredth of that: what the tests of this command do
    #[arg(long)]
    tiny: bool,
    /// Fill the store and be killed
    #[arg(long)]
    victim: bool,
}

/// Does a job with one store and prints its figures.
///
/// # Errors
///
/// When there is no such job or store, or the store fails.
pub(crate) fn child(args: &StoreChildArgs) -> Result<()> {
    let place = Place {
        dir: args.dir.clone(),
        quick: args.quick,
        tiny: args.tiny,
    };
    let figures = if args.subject == DISK {
        stores::floors(&place)?
    } else {
        let job = stores::find_job(&args.job).with_context(|| format!("no job {}", args.job))?;
        let subject = stores::find_subject(&args.subject);
        let subject = subject.with_context(|| format!("no store {}", args.subject))?;
        if args.victim {
            subject.fill_and_leave(&place)?;
            raise(Signal::SIGKILL)?;
        }
        if job.work == Work::Killed {
            kill_one_of_us()?;
        }
        subject.measure(job.work, &place)?
    };
    serde_json::to_writer(std::io::stdout().lock(), &figures)?;
    Ok(())
}

/// Starts this process again as the one that fills the store and is killed.
fn kill_one_of_us() -> Result<()> {
    let mut victim = Command::new(std::env::current_exe()?);
    victim.args(std::env::args_os().skip(1)).arg("--victim");
    let status = victim.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    ensure!(
        status.signal() == Some(Signal::SIGKILL as i32),
        "the process that fills the store ended with {status}"
    );
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
    let answers = |job: &&Job| rows.iter().any(|row| job.rows.contains(&row.name));
    let jobs: Vec<&Job> = JOBS.iter().filter(answers).collect();
    let program = std::env::current_exe().context("cannot find this program's own path")?;
    let disk = Disk::new(args.dir.as_deref(), program, args.quick);
    let steps = u64::from(plan.rounds) * (jobs.len() * SUBJECTS.len() + 1) as u64;
    let bar = progress::bar(steps);
    let mut results = Results::new(rows, SUBJECTS);
    let done = plan.run(|round| {
        bar.set_message("the disk");
        results.floors.record(|| disk.measured("", DISK));
        bar.inc(1);
        for (index, job) in jobs.iter().enumerate() {
            for side in turns(SUBJECTS.len(), round, index) {
                let subject = &SUBJECTS[side];
                bar.set_message(format!("{} of {}", job.name, subject.name));
                results.record(job, side, disk.measured(job.name, subject.name));
                bar.inc(1);
            }
        }
    });
    bar.finish_and_clear();
    report::say(&table::render(&results));
    report::say(&format!(
        "{} of the entries, {}; medians of {done}, ± half the range; ! behind",
        if args.quick { "1/8" } else { "all" },
        plan.remark(done)
    ));
    if let Some(path) = &args.json {
        report::write_document(path, &document(&results))?;
    }
    report::say(&table::verdict(&results));
    let failures = results.failures();
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

fn document(results: &Results) -> serde_json::Value {
    let packages: Vec<&str> = SUBJECTS.iter().map(|subject| subject.package).collect();
    json!({
        "machine": report::machine(),
        "versions": report::package_versions(&packages),
        "floors": results.floor_records(),
        "rows": results.records(),
    })
}

/// Where the stores are measured.
struct Disk {
    dir: PathBuf,
    program: PathBuf,
    quick: bool,
}

impl Disk {
    fn new(dir: Option<&Path>, program: PathBuf, quick: bool) -> Self {
        Self {
            dir: dir.map_or_else(std::env::temp_dir, Path::to_owned),
            program,
            quick,
        }
    }

    /// One measurement, in a process and a folder of its own. What was written before is
    /// gone or on the disk when it begins.
    fn measured(&self, job: &str, subject: &str) -> Result<Figures> {
        let of_disk = || format!("no folder in {}", self.dir.display());
        let folder = tempfile::tempdir_in(&self.dir).with_context(of_disk)?;
        nix::unistd::syncfs(File::open(folder.path())?)?;
        let mut arguments: Vec<&OsStr> = Vec::new();
        for argument in ["store-child", "--job", job, "--subject", subject, "--dir"] {
            arguments.push(argument.as_ref());
        }
        arguments.push(folder.path().as_os_str());
        arguments.extend(self.quick.then_some(OsStr::new("--quick")));
        report_of(&self.program, &arguments, SYSTEM)
    }
}

/// The rows whose names contain `only`.
fn chosen_rows(only: Option<&str>) -> Result<Vec<&'static Row>> {
    let only = only.unwrap_or_default();
    let chosen: Vec<_> = ROWS.iter().filter(|row| row.name.contains(only)).collect();
    if chosen.is_empty() {
        let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        bail!(
            "--only: no row's name contains {only:?}; there are {}",
            names.join("; ")
        );
    }
    Ok(chosen)
}

/// The stores, for the results.
type Subjects = &'static [Subject];
