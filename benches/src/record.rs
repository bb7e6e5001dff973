//! `brickyard record`: a command, and what it asked of its allocator in a file.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use brickyard_recording::{Piece, Recording};
use clap::Args;

use crate::report;
use crate::run;

/// The library that stands beside this program when the workspace is built.
const LIBRARY: &str = "libbrickyard_recorder.so";

/// Options of `record`.
#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The library that records [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    preload: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<std::ffi::OsString>,
}

/// Runs the command once and says what was recorded.
///
/// # Errors
///
/// When the command cannot be run or fails, or leaves no recording.
pub(crate) fn main(args: &RecordArgs) -> Result<()> {
    let library = run::library(args.preload.as_deref(), LIBRARY, "brickyard-recorder")?;
    let (name, arguments) = args.command.split_first().context("no command")?;
    let path = std::path::absolute(&args.output)?;
    let cannot_write = || format!("cannot write {}", path.display());
    // The library leaves files alone that are there. A device would be removed like a file.
    if let Ok(found) = fs::metadata(&path) {
        ensure!(found.is_file(), "{} is no file", path.display());
    }
    // Whether a file can be made there is said now, and not by a library inside of the command.
    fs::write(&path, "").with_context(cannot_write)?;
    fs::remove_file(&path).with_context(cannot_write)?;
    let start = Instant::now();
    let status = Command::new(name)
        .args(arguments)
        .env("LD_PRELOAD", &library)
        .env("BRICKYARD_RECORD", &path)
        .status()
        .with_context(|| format!("cannot run {}", name.display()))?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes = fs::read(&path).with_context(|| {
        format!("the command left no recording ({status}): it is no program that loads libraries")
    })?;
    report::say(&summary(&bytes, seconds)?);
    ensure!(status.success(), "the command ended with {status}");
    Ok(())
}

/// What was recorded, in one line.
fn summary(bytes: &[u8], seconds: f64) -> Result<String> {
    let (mut calls, mut threads) = (0_u64, std::collections::BTreeSet::new());
    let mut lost = None;
    for piece in Recording::open(bytes)?.pieces() {
        match piece? {
            Piece::Chunk(chunk) => {
                calls += u64::from(chunk.count());
                threads.insert(chunk.thread());
            }
            Piece::End(end) => lost = Some(end.lost),
        }
    }
    let plural = if threads.len() == 1 { "" } else { "s" };
    // Exact below 2^53.
    let (mebibytes, each) = (
        bytes.len() as f64 / f64::from(1 << 20),
        bytes.len() as f64 / calls.max(1) as f64,
    );
    let mut line = format!(
        "recorded {calls} calls of {} thread{plural} in {seconds:.2} s: {mebibytes:.1} MiB, \
         {each:.1} bytes a call",
        threads.len(),
    );
    match lost {
        None => line.push_str("; the program was killed, its last calls are missing"),
        Some(0) => {}
        Some(lost) => line.push_str(&format!("; {lost} calls are missing")),
    }
    Ok(line)
}
