//! How many instructions do get and return take, on each thread, with each guard?
//!
//! The gate: `cargo bench -p brickyard-bench --bench instructions` fails when a pair takes
//! more than [`PAIR_LIMIT`], or an owned guard more than [`OWNED_LIMIT`] on top. Time
//! depends on the machine and its load; this count does not.
//!
//! The program runs itself under callgrind with `n` and with `2n` pairs and divides the
//! difference by `n`: start, end and the first object cancel out, what is done every few
//! thousand pairs is in it by its share. The loop and the write of one byte are part of
//! the pair. Without valgrind it says so and passes.

#![deny(unsafe_code)]

use core::hint::black_box;
use std::env;
use std::io::{ErrorKind, Write as _};
use std::process::{Command, ExitCode};
use std::thread;

use brickyard_pool::Pool;

/// Most instructions of a pair with the borrowing guard.
const PAIR_LIMIT: f64 = 30.0;

/// Most instructions more with the owning guard.
const OWNED_LIMIT: f64 = 6.0;

/// Pairs of the shorter run; many times what lies between two visits of the slow path.
const PAIRS: usize = 1 << 18;

/// The object: what [`PAIR_LIMIT`] was set for.
type Object = Box<[u8; 64]>;

/// The ways to get and return that are counted.
const WAYS: [&str; 4] = ["borrowed", "owned", "borrowed-second", "owned-second"];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    if let [_, command, way, count] = arguments.as_slice()
        && command == "count"
    {
        return work(way, count);
    }
    let mut counted = [0.0; WAYS.len()];
    for (instructions, way) in counted.iter_mut().zip(WAYS) {
        match per_pair(way) {
            Ok(Some(found)) => *instructions = found,
            Ok(None) => {
                say("skipped: valgrind is not installed");
                return ExitCode::SUCCESS;
            }
            Err(reason) => {
                say(&format!("FAILED: {way}: {reason}"));
                return ExitCode::FAILURE;
            }
        }
    }
    judge(counted)
}

/// Prints the counts beside their limits; fails when one is above.
fn judge([borrowed, owned, borrowed_second, owned_second]: [f64; 4]) -> ExitCode {
    let lines = [
        ("pair, first thread", borrowed, PAIR_LIMIT),
        ("owned guard on top", owned - borrowed, OWNED_LIMIT),
        ("pair, second thread", borrowed_second, PAIR_LIMIT),
        (
            "owned guard on top",
            owned_second - borrowed_second,
            OWNED_LIMIT,
        ),
    ];
    let mut code = ExitCode::SUCCESS;
    for (name, found, limit) in lines {
        // The share of the slow path is some hundredths of an instruction.
        let verdict = if found.round() <= limit {
            "ok"
        } else {
            code = ExitCode::FAILURE;
            "FAILED"
        };
        say(&format!(
            "{name:<20} {found:>7.2} of {limit:>2} instructions  {verdict}"
        ));
    }
    code
}

/// Instructions of a pair; `None` without valgrind.
fn per_pair(way: &str) -> Result<Option<f64>, String> {
    let (Some(short), Some(long)) = (collected(way, PAIRS)?, collected(way, 2 * PAIRS)?) else {
        return Ok(None);
    };
    let difference = long.checked_sub(short).ok_or("twice the work took less")?;
    // Exact below 2^53.
    Ok(Some(difference as f64 / PAIRS as f64))
}

/// Instructions of a whole run; `None` without valgrind.
fn collected(way: &str, count: usize) -> Result<Option<u64>, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["count", way, &count.to_string()])
        .output();
    let output = match run {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{}: {said}", output.status));
    }
    let figure = said.lines().find_map(|line| line.split_once("Collected :"));
    let figure = figure.and_then(|(_, figure)| figure.trim().parse().ok());
    figure
        .map(Some)
        .ok_or_else(|| format!("no count in: {said}"))
}

/// The work that is counted.
fn work(way: &str, count: &str) -> ExitCode {
    let Ok(count) = count.parse() else {
        return ExitCode::FAILURE;
    };
    let pool = Pool::new(|| Box::new([0; 64]));
    let second = |work: &(dyn Fn() + Sync)| {
        // The first thread has a cache of its own by then.
        borrowed(&pool, 100);
        thread::scope(|scope| drop(scope.spawn(work).join()));
    };
    match way {
        "borrowed" => borrowed(&pool, count),
        "owned" => owned(&pool, count),
        "borrowed-second" => second(&|| borrowed(&pool, count)),
        "owned-second" => second(&|| owned(&pool, count)),
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

#[inline(never)]
fn borrowed<C: Fn() -> Object>(pool: &Pool<Object, C>, count: usize) {
    for index in 0..count {
        let Ok(mut object) = pool.get();
        object[0] = index.to_le_bytes()[0];
        black_box(&mut *object);
    }
}

#[inline(never)]
fn owned<C: Fn() -> Object>(pool: &Pool<Object, C>, count: usize) {
    for index in 0..count {
        let Ok(object) = pool.get();
        let mut object = object.into_owned();
        object[0] = index.to_le_bytes()[0];
        black_box(&mut *object);
    }
}

/// Prints a line.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
