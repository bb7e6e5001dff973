//! One measurement in a process of its own: the child's side and the parent's.

use core::time::Duration;
use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use brickyard_arena::Arena;
use clap::Args;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wait_timeout::ChildExt as _;

use crate::input::InputFiles;
use crate::measure::{Stopwatch, peak_rss_kib, rss_kib};
use crate::switch;
use crate::workloads::{self, Scale, Setting};

/// After this a child counts as hung. The slowest row takes some seconds under
/// the slowest allocator in a debug build.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the program rests before its memory at rest is read.
const REST: Duration = Duration::from_millis(200);

/// The same in the quick form.
const QUICK_REST: Duration = Duration::from_millis(100);

/// The hidden subcommand's arguments.
#[derive(Debug, Args)]
pub(crate) struct ChildArgs {
    /// Name of the workload
    #[arg(long)]
    workload: String,
    /// Name of the allocator this process must run on
    #[arg(long)]
    allocator: String,
    /// The quick size
    #[arg(long)]
    quick: bool,
    /// File with the list of the input's files
    #[arg(long)]
    files: PathBuf,
}

/// What a child reports, as one JSON object on its standard output.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// The allocator it ran on.
    pub(crate) allocator: String,
    /// Wall time of the measured sections.
    pub(crate) time_s: f64,
    /// CPU time of all threads in the measured sections.
    pub(crate) cpu_s: f64,
    /// Largest resident memory since the exec.
    pub(crate) peak_rss_kib: u64,
    /// Resident memory after the work and a short rest.
    pub(crate) rest_rss_kib: u64,
    /// Bytes asked for and still held at rest, when the child counts them.
    pub(crate) live_bytes: Option<u64>,
    /// What the arena says it has live at rest: nothing, unless it was chosen.
    pub(crate) arena_live_bytes: u64,
    /// Allocations before the allocator was chosen, where the build counts.
    pub(crate) early_calls: Option<i64>,
    /// The workload's digest of the work done.
    pub(crate) checksum: u64,
}

/// Runs one workload and prints the [`Sample`].
///
/// # Errors
///
/// When the workload is unknown or fails, or the process does not run on the
/// allocator it was told to.
pub(crate) fn main(args: &ChildArgs) -> Result<()> {
    ensure!(
        switch::chosen() == args.allocator,
        "this process runs on {}, not on {}",
        switch::chosen(),
        args.allocator,
    );
    let workload = workloads::find(&args.workload)
        .with_context(|| format!("no workload named {}", args.workload))?;
    let input = if workload.needs_input {
        read_files(&args.files)?
    } else {
        InputFiles::default()
    };
    let (scale, rest) = if args.quick {
        (Scale::Quick, QUICK_REST)
    } else {
        (Scale::Full, REST)
    };
    let mut setting = Setting {
        scale,
        input,
        watch: Stopwatch::default(),
    };
    let outcome = (workload.run)(&mut setting)?;
    thread::sleep(rest);
    let sample = Sample {
        allocator: String::from(switch::chosen()),
        time_s: setting.watch.wall_s(),
        cpu_s: setting.watch.cpu_s(),
        rest_rss_kib: rss_kib()?,
        peak_rss_kib: peak_rss_kib()?,
        live_bytes: switch::live_bytes(),
        arena_live_bytes: u64::try_from(Arena::stats().live).unwrap_or(u64::MAX),
        early_calls: switch::early_calls(),
        checksum: outcome.checksum,
    };
    serde_json::to_writer(std::io::stdout().lock(), &sample)?;
    // The process ends here without freeing: taking apart what a workload kept
    // takes long for trees, and nothing of it is measured any more.
    core::mem::forget(outcome.held);
    Ok(())
}

/// Reads what [`Launcher::new`] wrote.
fn read_files(list: &Path) -> Result<InputFiles> {
    let text = fs::read(list).with_context(|| format!("cannot read {}", list.display()))?;
    serde_json::from_slice(&text).context("the list of input files is damaged")
}

/// Starts children that are all alike but for the workload and the allocator.
#[derive(Debug)]
pub(crate) struct Launcher {
    program: PathBuf,
    files: PathBuf,
    scale: Scale,
}

impl Launcher {
    /// Prepares for children of `scale`; the list of files goes into `scratch`.
    ///
    /// # Errors
    ///
    /// When the list cannot be written or this program's path is not known.
    pub(crate) fn new(files: &InputFiles, scale: Scale, scratch: &Path) -> Result<Self> {
        let list = scratch.join("files.json");
        fs::write(&list, serde_json::to_vec(files)?)
            .with_context(|| format!("cannot write {}", list.display()))?;
        let program = std::env::current_exe().context("cannot find this program's own path")?;
        Ok(Self {
            program,
            files: list,
            scale,
        })
    }

    /// Runs the workload under the allocator in a new process.
    ///
    /// # Errors
    ///
    /// When the child cannot be started, hangs, dies or reports nonsense.
    pub(crate) fn sample(&self, workload: &str, allocator: &str) -> Result<Sample> {
        let mut arguments: Vec<&OsStr> = Vec::new();
        for argument in ["child", "--workload", workload, "--allocator", allocator] {
            arguments.push(argument.as_ref());
        }
        arguments.extend(["--files".as_ref(), self.files.as_os_str()]);
        arguments.extend((self.scale == Scale::Quick).then_some(OsStr::new("--quick")));
        let sample: Sample = report_of(&self.program, &arguments, allocator)?;
        ensure!(
            sample.allocator == allocator,
            "the child ran on {}",
            sample.allocator
        );
        Ok(sample)
    }
}

/// What a child runs on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Under<'a> {
    pub(crate) allocator: &'a str,
    /// A library that takes the place of the system's malloc.
    pub(crate) preload: Option<&'a Path>,
}

/// Runs this program with the arguments under the allocator, in a new process, and
/// returns what that reports.
///
/// # Errors
///
/// When the child cannot be started, hangs, dies or reports nonsense.
pub(crate) fn report_of<T: DeserializeOwned>(
    program: &Path,
    arguments: &[&OsStr],
    allocator: &str,
) -> Result<T> {
    let under = Under {
        allocator,
        preload: None,
    };
    report_under(program, arguments, under, PATIENCE)
}

/// The same with a library preloaded, if there is one, and a patience of its own.
///
/// # Errors
///
/// As [`report_of`], and when the library cannot be preloaded.
pub(crate) fn report_under<T: DeserializeOwned>(
    program: &Path,
    arguments: &[&OsStr],
    under: Under<'_>,
    patience: Duration,
) -> Result<T> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env(switch::VARIABLE, under.allocator)
        // Else "system" would be whatever is preloaded.
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(library) = under.preload {
        command.env("LD_PRELOAD", library);
    }
    let mut child = command.spawn().context("cannot start a child")?;
    // Both outputs are a few thousand bytes and fit the pipes, so waiting
    // first cannot block the child.
    let Some(status) = child.wait_timeout(patience)? else {
        child.kill()?;
        child.wait()?;
        bail!("no answer after {} s", patience.as_secs());
    };
    let (mut report, mut complaint) = (String::new(), String::new());
    child
        .stdout
        .take()
        .context("no standard output")?
        .read_to_string(&mut report)?;
    child
        .stderr
        .take()
        .context("no standard error")?
        .read_to_string(&mut complaint)?;
    ensure!(status.success(), "{status}: {}", complaint.trim());
    ensure_preloaded(&complaint)?;
    serde_json::from_str(&report)
        .with_context(|| format!("the child's report is not understood: {report}"))
}

/// An error when the loader says that it goes on without a library. It only warns, and the
/// system malloc would be measured in the library's place.
///
/// # Errors
///
/// With the loader's line.
pub(crate) fn ensure_preloaded(complaint: &str) -> Result<()> {
    let refused = |line: &&str| line.contains("cannot be preloaded");
    match complaint.lines().find(refused) {
        Some(line) => bail!("{line}"),
        None => Ok(()),
    }
}
