//! A small process between `brickyard run` and the command it measures.
//!
//! The kernel starts a process's largest resident memory not at zero but at
//! that of the process it was started from. So the command is started by a
//! fresh process that has done nothing yet (some 3 MiB), and not by the one
//! with the progress bar and the collected outputs. Figures below that floor
//! cannot be seen.
//!
//! [`Foreign`] is the other end: what is to be run, and where.

use core::time::Duration;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use wait_timeout::ChildExt as _;

use crate::child::ensure_preloaded;
use crate::measure::{cpu_us, seconds};

/// The hidden subcommand's arguments.
#[derive(Debug, Args)]
pub(crate) struct SpawnArgs {
    /// Where the command's standard output goes
    #[arg(long)]
    stdout: PathBuf,
    /// Where the command's standard error goes
    #[arg(long)]
    stderr: PathBuf,
    /// The library to preload
    #[arg(long)]
    preload: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// What one run of the command took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spawned {
    pub(crate) time_s: f64,
    /// CPU time of the command and of the processes it waited for.
    pub(crate) cpu_s: f64,
    /// The largest resident memory of any one of these processes.
    pub(crate) peak_rss_kib: i64,
    /// How it ended, in words.
    pub(crate) status: String,
    /// Whether it ended with code zero.
    pub(crate) success: bool,
}

/// Runs the command and prints what it took as JSON.
///
/// # Errors
///
/// When the command cannot be started.
pub(crate) fn main(args: &SpawnArgs) -> Result<()> {
    let (name, arguments) = args.command.split_first().context("no command")?;
    let create = |path: &Path| {
        File::create(path).with_context(|| format!("cannot write {}", path.display()))
    };
    let mut command = Command::new(name);
    command
        .args(arguments)
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::null())
        .stdout(create(&args.stdout)?)
        .stderr(create(&args.stderr)?);
    if let Some(library) = &args.preload {
        command.env("LD_PRELOAD", library);
    }
    let start = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", name.display()))?;
    let time_s = start.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let spawned = Spawned {
        time_s,
        cpu_s: seconds(cpu_us(UsageWho::RUSAGE_CHILDREN)),
        peak_rss_kib: usage.max_rss(),
        status: status.to_string(),
        success: status.success(),
    };
    serde_json::to_writer(std::io::stdout().lock(), &spawned)?;
    Ok(())
}

/// A command that is not this program.
#[derive(Debug)]
pub(crate) struct Foreign<'a, S> {
    pub(crate) command: &'a [S],
    pub(crate) preload: Option<&'a Path>,
    /// Where it runs; here, without.
    pub(crate) folder: Option<&'a Path>,
    /// What is set in its environment.
    pub(crate) variables: &'a [(&'a str, &'a OsStr)],
    /// After this it counts as hung, and ends with all that it started.
    pub(crate) patience: Option<Duration>,
    /// A folder for its outputs.
    pub(crate) scratch: &'a Path,
}

/// One run of a command, with its output.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) spawned: Spawned,
    pub(crate) stdout: Vec<u8>,
}

impl<S: AsRef<OsStr>> Foreign<'_, S> {
    /// Runs it once, its input from `/dev/null`.
    ///
    /// # Errors
    ///
    /// When it cannot be started, hangs, or the library cannot be preloaded. How it ended is no
    /// error.
    pub(crate) fn run(&self) -> Result<Ran> {
        let (stdout, stderr) = (self.scratch.join("stdout"), self.scratch.join("stderr"));
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("spawn").arg("--stdout").arg(&stdout);
        command.arg("--stderr").arg(&stderr);
        if let Some(library) = self.preload {
            command.arg("--preload").arg(library);
        }
        command
            .arg("--")
            .args(self.command)
            .envs(self.variables.iter().copied())
            .env_remove("LD_PRELOAD")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(folder) = self.folder {
            command.current_dir(folder);
        }
        if self.patience.is_some() {
            // So that what it started can be ended with it. Without a limit it stays in the
            // terminal's group, where an interrupt reaches it.
            command.process_group(0);
        }
        let mut child = command
            .spawn()
            .context("cannot start the process between")?;
        let status = wait(&mut child, self.patience)?;
        let (mut report, mut complaint) = (String::new(), String::new());
        let pipe = child.stdout.take().context("no standard output")?;
        { pipe }.read_to_string(&mut report)?;
        let pipe = child.stderr.take().context("no standard error")?;
        { pipe }.read_to_string(&mut complaint)?;
        ensure!(
            status.success(),
            "{}",
            complaint.trim().trim_start_matches("error: ")
        );
        let spawned = serde_json::from_str(&report).context("the report is damaged")?;
        ensure_preloaded(&String::from_utf8_lossy(&fs::read(&stderr)?))?;
        Ok(Ran {
            spawned,
            stdout: fs::read(&stdout)?,
        })
    }
}

/// Waits for the child. Its outputs are some hundred bytes and fit the pipes, so that it never
/// waits for us.
fn wait(child: &mut Child, patience: Option<Duration>) -> Result<ExitStatus> {
    let Some(patience) = patience else {
        return Ok(child.wait()?);
    };
    if let Some(status) = child.wait_timeout(patience)? {
        return Ok(status);
    }
    let group = Pid::from_raw(i32::try_from(child.id()).context("no process group")?);
    killpg(group, Signal::SIGKILL)?;
    child.wait()?;
    bail!("not at its end after {} s", patience.as_secs());
}
