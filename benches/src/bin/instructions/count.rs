//! Counting the instructions of one turn.

use std::env;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;

/// The C library under test.
const LIBRARY: &str = "libbrickyard.so";

/// What the library prints at the end of a process that asks for its figures.
const SIGN_OF_LIFE: &str = "brickyard: pid ";

/// What runs in place of the system's allocation functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preload {
    /// Nothing does.
    Nothing,
    /// The C library.
    Library,
    /// The same with a hardened heap, but without guarded blocks: how many there are is left to
    /// chance.
    Hardened,
}

impl Preload {
    /// Variables that it needs beside its path.
    const fn variables(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Nothing => &[],
            Self::Library => &[("BRICKYARD_STATS", "1")],
            Self::Hardened => &[
                ("BRICKYARD_STATS", "1"),
                ("BRICKYARD_HARDENED", "1"),
                ("BRICKYARD_GUARD_EVERY", "0"),
            ],
        }
    }
}

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

/// Instructions of one turn of a loop of this program.
pub(super) fn per_turn(way: &str, turns: usize, preload: Preload) -> Result<f64, NoCount> {
    let short = collected(way, turns, preload)?;
    let long = collected(way, 2 * turns, preload)?;
    let difference = long
        .checked_sub(short)
        .ok_or_else(|| NoCount::Failed(String::from("twice the work took less")))?;
    // Exact below 2^53.
    Ok(difference as f64 / turns as f64)
}

/// The library beside this program, or above it: benches lie in a folder of their own. One that is
/// missing is built, if cargo runs this program.
fn library() -> Result<PathBuf, NoCount> {
    static BUILT: Once = Once::new();
    let program = env::current_exe()?;
    let find = || {
        let folders = program.ancestors().skip(1).take(2);
        let mut places = folders.map(|folder| folder.join(LIBRARY));
        places.find(|place| place.exists())
    };
    if find().is_none() {
        BUILT.call_once(build_library);
    }
    find().ok_or(NoCount::Skipped(
        "no libbrickyard.so (build it with: cargo build --release -p brickyard-preload)",
    ))
}

fn build_library() {
    if let Some(cargo) = env::var_os("CARGO") {
        // Where it fails cargo says why, and the rows are skipped.
        let _ = Command::new(cargo)
            .args(["build", "--release", "--package", "brickyard-preload"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
    }
}

/// Instructions of a whole run.
fn collected(way: &str, turns: usize, preload: Preload) -> Result<u64, NoCount> {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["count", way, &turns.to_string()])
        .env_remove("LD_PRELOAD");
    if preload != Preload::Nothing {
        command.env("LD_PRELOAD", library()?);
        command.envs(preload.variables().iter().copied());
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
    if preload != Preload::Nothing && !said.contains(SIGN_OF_LIFE) {
        return Err(NoCount::Failed(format!("{LIBRARY} was not loaded: {said}")));
    }
    let figure = said.lines().find_map(|line| line.split_once("Collected :"));
    let figure = figure.and_then(|(_, figure)| figure.trim().parse().ok());
    figure.ok_or_else(|| NoCount::Failed(format!("no count in: {said}")))
}
