//! `brickyard run --profile`: a command under the library with the heap profile on, and
//! what that gives as a `pprof` file or as collapsed stacks.
//!
//! The library writes addresses ([`text`]); [`symbols`] finds their functions and lines in
//! the files that were mapped; [`stacks`] adds up the processes of the command; [`pprof`]
//! and [`collapsed`] are the two forms.

mod collapsed;
mod pprof;
mod stacks;
mod symbols;
mod text;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::cli::RunArgs;
use crate::report;
use stacks::Stacks;
use symbols::Symbols;

/// Runs the command once under `library`, and writes the files that were asked for.
///
/// # Errors
///
/// When the command cannot be run or fails, or leaves no profile.
pub(crate) fn main(args: &RunArgs, library: &Path) -> Result<()> {
    let (name, arguments) = args.command.split_first().context("no command")?;
    let scratch = tempfile::tempdir().context("no folder for temporary files")?;
    let mut command = Command::new(name);
    command
        .args(arguments)
        .env("LD_PRELOAD", library)
        .env("BRICKYARD_PROFILE", scratch.path().join("%p"))
        .env("BRICKYARD_PROFILE_BYTES", args.profile_bytes.to_string());
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", name.display()))?;
    let (stacks, processes) = read_all(scratch.path())?;
    ensure!(
        processes > 0,
        "the command left no profile ({status}): it was killed, or did not load {}",
        library.display(),
    );
    if let Some(path) = &args.profile {
        write(path, &pprof::encode(&stacks))?;
    }
    if let Some(path) = &args.collapsed {
        write(path, collapsed::render(&stacks, args.live).as_bytes())?;
    }
    report::say(&summary(&stacks, processes));
    ensure!(status.success(), "the command ended with {status}");
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Adds up the profiles in the folder; also returns how many there were.
fn read_all(folder: &Path) -> Result<(Stacks, usize)> {
    let mut symbols = Symbols::default();
    let mut stacks = Stacks::default();
    let mut processes = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let profile = text::parse(&text)
            .with_context(|| format!("the profile {} is damaged", path.display()))?;
        stacks.add(&profile, &mut symbols);
        processes += 1;
    }
    Ok((stacks, processes))
}

/// What was found, in one line.
fn summary(stacks: &Stacks, processes: usize) -> String {
    let total = stacks.total();
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let mut line = format!(
        "heap profile of {processes} process{}: {} samples, one in {} bytes; {:.1} MiB \
         allocated in {:.0} blocks, {:.1} MiB live at the end",
        if processes == 1 { "" } else { "es" },
        stacks.samples,
        stacks.mean_bytes,
        mib(total.allocated_bytes),
        total.allocated_blocks,
        mib(total.live_bytes),
    );
    if stacks.lost > 0 {
        line.push_str(&format!(
            "; {} SAMPLES LOST: the tables were full",
            stacks.lost
        ));
    }
    line
}
