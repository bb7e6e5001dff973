//! Counting the instructions of one turn.

use std::env;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The C library under test.
const LIBRARY: &str = "libbrickyard.so";

/// What the library prints at the end of a process that asks for its figures.
const SIGN_OF_LIFE: &str = "brickyard: pid ";

/// Why there is no count.
#[derive(Debug)]
pub(super) enum NoCount {
    /// Something is not installed, or not built.
    Skipped(&'static str),
    /// The run failed.
    Failed(String),
}

impl From<std::io::Error> for NoCount {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Instructions of one turn of a loop of this program, with the C library preloaded or not.
pub(super) fn per_turn(way: &str, turns: usize, preload: bool) -> Result<f64, NoCount> {
    let library = if preload { Some(library()?) } else { None };
    let short = collected(way, turns, library.as_deref())?;
    let long = collected(way, 2 * turns, library.as_deref())?;
    let difference = long
        .checked_sub(short)
        .ok_or_else(|| NoCount::Failed(String::from("twice the work took less")))?;
    // Exact below 2^53.
    Ok(difference as f64 / turns as f64)
}

/// The library beside this program, or above it: benches lie in a folder of their own.
fn library() -> Result<PathBuf, NoCount> {
    let program = env::current_exe()?;
    let folders = program.ancestors().skip(1).take(2);
    let mut places = folders.map(|folder| folder.join(LIBRARY));
    places.find(|place| place.exists()).ok_or(NoCount::Skipped(
        "no libbrickyard.so (build it with: cargo build --release -p brickyard-preload)",
    ))
}

/// Instructions of a whole run.
fn collected(way: &str, turns: usize, library: Option<&Path>) -> Result<u64, NoCount> {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["count", way, &turns.to_string()])
        .env_remove("LD_PRELOAD");
    if let Some(library) = library {
        command
            .env("LD_PRELOAD", library)
            .env("BRICKYARD_STATS", "1");
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(NoCount::Skipped("valgrind is not installed"));
        }
        Err(error) => return Err(error.into()),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(NoCount::Failed(format!("{}: {said}", output.status)));
    }
    if library.is_some() && !said.contains(SIGN_OF_LIFE) {
        return Err(NoCount::Failed(format!("{LIBRARY} was not loaded: {said}")));
    }
    let figure = said.lines().find_map(|line| line.split_once("Collected :"));
    let figure = figure.and_then(|(_, figure)| figure.trim().parse().ok());
    figure.ok_or_else(|| NoCount::Failed(format!("no count in: {said}")))
}
