//! One replay in a process of its own.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::machine::{Replay, Touch};
use super::program::Program;
use crate::measure::{Stopwatch, field_kib};
use crate::switch;

/// The hidden subcommand's arguments.
#[derive(Debug, Args)]
pub(crate) struct ReplayChildArgs {
    /// The file with the program
    #[arg(long)]
    program: PathBuf,
    /// Name of the allocator this process must run on
    #[arg(long)]
    allocator: String,
    /// What is written into blocks
    #[arg(long)]
    touch: Touch,
    /// Look at the memory after each epoch; times mean nothing then
    #[arg(long)]
    memory: bool,
}

/// What a child reports.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) time_s: f64,
    pub(crate) cpu_s: f64,
    /// Anonymous memory after each epoch, without the program and its slots.
    pub(crate) rss_kib: Vec<u64>,
    /// Bytes in the slots at the end.
    pub(crate) left_bytes: u64,
    pub(crate) left_blocks: u64,
}

/// Runs a program and prints the [`Sample`].
///
/// # Errors
///
/// When the program is none, or the allocator refuses a block.
pub(crate) fn main(args: &ReplayChildArgs) -> Result<()> {
    ensure!(
        switch::chosen() == args.allocator,
        "this process runs on {}, not on {}",
        switch::chosen(),
        args.allocator,
    );
    let program = Program::read(&args.program)?.check()?;
    let epochs = program.program().epochs as usize;
    let replay = Replay::new(program, args.touch);
    let own_kib = replay.own_bytes() / 1024;
    let mut memory = Memory::open()?;
    let mut rss_kib = Vec::with_capacity(if args.memory { epochs } else { 0 });
    let mut failure = None;
    let mut watch = Stopwatch::default();
    let left = watch.measure(|| {
        replay.run(|| {
            if args.memory {
                match memory.anonymous_kib() {
                    Ok(kib) => rss_kib.push(kib.saturating_sub(own_kib)),
                    Err(error) => failure = Some(error),
                }
            }
        })
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    let sample = Sample {
        time_s: watch.wall_s(),
        cpu_s: watch.cpu_s(),
        rss_kib,
        left_bytes: left.bytes,
        left_blocks: left.blocks,
    };
    serde_json::to_writer(std::io::stdout().lock(), &sample)?;
    Ok(())
}

/// Reads the anonymous memory of this process without allocating.
#[derive(Debug)]
struct Memory {
    file: File,
    text: [u8; 4096],
}

impl Memory {
    fn open() -> Result<Self> {
        let file = File::open("/proc/self/smaps_rollup").context("no /proc/self/smaps_rollup")?;
        Ok(Self {
            file,
            text: [0; 4096],
        })
    }

    /// From the page tables; the counters behind `statm` may lag by some pages a core.
    fn anonymous_kib(&mut self) -> Result<u64> {
        self.file.rewind()?;
        let mut len = 0;
        loop {
            match self.file.read(&mut self.text[len..])? {
                0 => break,
                count => len += count,
            }
        }
        let text = core::str::from_utf8(&self.text[..len])?;
        field_kib(text, "Anonymous:").context("no Anonymous in /proc/self/smaps_rollup")
    }
}
