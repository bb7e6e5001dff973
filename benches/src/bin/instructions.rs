//! How many instructions do get and return take, on each thread, with each guard? How many
//! a read of the store?
//!
//! The gate: `cargo run --release -p brickyard-bench --bin instructions` fails when a pair takes
//! more than [`PAIR_LIMIT`], an owned guard more than [`OWNED_LIMIT`] on top, or a read of
//! the store more than its limit in [`READS`]. Time depends on the machine and its load;
//! this count does not.
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
use brickyard_store::{Options, Store};

/// Most instructions of a pair with the borrowing guard.
const PAIR_LIMIT: f64 = 30.0;

/// Most instructions more with the owning guard.
const OWNED_LIMIT: f64 = 6.0;

/// Pairs of the shorter run; many times what lies between two visits of the slow path.
const PAIRS: usize = 1 << 18;

/// The ways to read the store that are counted, and the most instructions of each: a get,
/// a transaction with a look-up of the table and a get, an entry of a range.
const READS: [(&str, f64); 3] = [("get", GET_LIMIT), ("txn", TXN_LIMIT), ("next", NEXT_LIMIT)];
// Counted were 1003, 1569 and 262, with the making of the key in the first two. 262 was 239
// before each read asked whether bytes vanished under it.
const GET_LIMIT: f64 = 1050.0;
const TXN_LIMIT: f64 = 1680.0;
const NEXT_LIMIT: f64 = 275.0;

/// Reads of the shorter run.
const READ_COUNT: usize = 1 << 15;

/// Entries of the store: two levels, with some hundred leaves.
const ENTRIES: usize = 10_000;

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
        match per_turn(way, PAIRS) {
            Ok(found) => *instructions = found,
            Err(code) => return code,
        }
    }
    let mut lines = pair_lines(counted);
    for (way, limit) in READS {
        match per_turn(way, READ_COUNT) {
            Ok(found) => lines.push((way, found, limit)),
            Err(code) => return code,
        }
    }
    judge(&lines)
}

/// What is counted, how much was found, and the limit.
type Line = (&'static str, f64, f64);

/// The lines about the pool.
fn pair_lines([borrowed, owned, borrowed_second, owned_second]: [f64; 4]) -> Vec<Line> {
    vec![
        ("pair, first thread", borrowed, PAIR_LIMIT),
        ("owned guard on top", owned - borrowed, OWNED_LIMIT),
        ("pair, second thread", borrowed_second, PAIR_LIMIT),
        (
            "owned guard on top",
            owned_second - borrowed_second,
            OWNED_LIMIT,
        ),
    ]
}

/// Prints the counts beside their limits; fails when one is above.
fn judge(lines: &[Line]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for &(name, found, limit) in lines {
        // The share of the slow path is some hundredths of an instruction.
        let verdict = if found.round() <= limit {
            "ok"
        } else {
            code = ExitCode::FAILURE;
            "FAILED"
        };
        say(&format!(
            "{name:<20} {found:>7.2} of {limit:>4} instructions  {verdict}"
        ));
    }
    code
}

/// Instructions of one turn. Without valgrind, or when the count fails, what the program
/// ends with.
fn per_turn(way: &str, turns: usize) -> Result<f64, ExitCode> {
    let counts = || Ok((collected(way, turns)?, collected(way, 2 * turns)?));
    let difference = counts().and_then(|counts: (Option<u64>, Option<u64>)| match counts {
        (Some(short), Some(long)) => {
            let difference = long.checked_sub(short);
            difference
                .map(Some)
                .ok_or(String::from("twice the work took less"))
        }
        _ => Ok(None),
    });
    match difference {
        // Exact below 2^53.
        Ok(Some(difference)) => Ok(difference as f64 / turns as f64),
        Ok(None) => {
            say("skipped: valgrind is not installed");
            Err(ExitCode::SUCCESS)
        }
        Err(reason) => {
            say(&format!("FAILED: {way}: {reason}"));
            Err(ExitCode::FAILURE)
        }
    }
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
    if READS.iter().any(|&(read, _)| read == way) {
        return match store().map(|store| read(&store, way, count)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
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

fn key(index: usize) -> [u8; 17] {
    let mut key = *b"user:000000000000";
    let mut rest = index % ENTRIES * 7;
    for place in key.iter_mut().rev().take(12) {
        *place += u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    key
}

/// A store in memory with all its entries.
fn store() -> Result<Store, Box<dyn core::error::Error>> {
    let store = Options::new().address_space(1 << 26).open_in_memory()?;
    let mut txn = store.write()?;
    let mut table = txn.table("t")?;
    for index in 0..ENTRIES {
        table.put(&key(index), &[7; 150])?;
    }
    txn.commit()?;
    Ok(store)
}

/// Reads so often; panics should something be missing.
#[inline(never)]
fn read(store: &Store, way: &str, count: usize) {
    let txn = store.read();
    let table = txn.table("t").expect("sound").expect("it was made");
    match way {
        "get" => (0..count).for_each(|index| {
            black_box(
                table
                    .get(&key(index))
                    .expect("sound")
                    .expect("all are there"),
            );
        }),
        "txn" => (0..count).for_each(|index| {
            let txn = store.read();
            let table = txn.table("t").expect("sound").expect("it was made");
            black_box(
                table
                    .get(&key(index))
                    .expect("sound")
                    .expect("all are there"),
            );
        }),
        _ => {
            let mut left = count;
            while left > 0 {
                let mut range = table.range::<[u8]>(..).expect("sound");
                while left > 0
                    && let Some(entry) = range.next().expect("sound")
                {
                    black_box(entry);
                    left -= 1;
                }
            }
        }
    }
}

/// Prints a line.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
