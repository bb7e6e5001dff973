//! A small process between `brickyard run` and the command it measures.
//!
//! The kernel starts a process's largest resident memory not at zero but at
//! that of the process it was started from. So the command is started by a
//! fresh process that has done nothing yet (some 3 MiB), and not by the one
//! with the progress bar and the collected outputs. Figures below that floor
//! cannot be seen.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Args;
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

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
