//! Searches for the program that makes the arena hold most for what it has live, or runs the worst that
//! is known on the allocator of the process.
//!
//! ```sh
//! cargo run --release -p brickyard-fuzz --example worst_case -- search MIB SECONDS SEED
//! LD_PRELOAD=libmimalloc.so target/release/examples/worst_case process MIB PROGRAM
//! ```

use core::time::Duration;

use brickyard_fuzz::worst_case::run;
use brickyard_fuzz::worst_case::search::{Found, Limits, run_on_heap, search, shrink};
use brickyard_fuzz::worst_case::seeds::{seeds, worst};
use brickyard_fuzz::worst_case::subject::{Process, timeless};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, or: u64| args.get(at).and_then(|arg| arg.parse().ok()).unwrap_or(or);
    let budget = usize::try_from(number(1, 8)).expect("a size") << 20;
    match args.first().map(String::as_str) {
        Some("search") => {
            let limits = Limits {
                runs: usize::MAX,
                time: Duration::from_secs(number(2, 60)),
            };
            let found = search(&timeless(), budget, number(3, 1), limits, |runs, found| {
                eprintln!("{runs}: {:.2}", found.outcome.ratio());
            });
            eprintln!("{:.3}: {:?}", found.outcome.ratio(), found.program);
        }
        Some("seeds") => {
            for (index, program) in seeds().iter().chain(&worst()).enumerate() {
                let outcome = run_on_heap(&timeless(), program, budget);
                eprintln!("{index}: {:.2}", outcome.ratio());
            }
        }
        Some("shrink") => {
            for program in worst() {
                let outcome = run_on_heap(&timeless(), &program, budget);
                let found = shrink(&timeless(), Found { program, outcome });
                eprintln!("{:.3}: {:?}", found.outcome.ratio(), found.program);
            }
        }
        Some("process") => {
            let at = usize::try_from(number(2, 0)).expect("an index");
            if let Some(program) = seeds().iter().chain(&worst()).nth(at) {
                let outcome = run(&mut Process::new(), program, budget);
                eprintln!("{at}: {:.2}", outcome.ratio());
            }
        }
        _ => eprintln!(
            "worst_case search MIB SECONDS SEED | seeds MIB | shrink MIB | process MIB PROGRAM"
        ),
    }
}
