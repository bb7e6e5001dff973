//! `brickyard` compares memory allocators: the arena of this workspace, the
//! system's malloc and, with the feature `peers`, others. With `--pool` it compares
//! object pools, with `--store` stores. `brickyard store` ([`store_tool`]) looks into the
//! files of a store.
//!
//! One measurement is one process ([`child`]) whose global allocator is chosen
//! before the first allocation ([`switch`]); [`compare`] starts them in rounds.
//! [`programs`] does the like for real programs under preloaded libraries, [`run`] for a command of the user's, or shows their heap ([`heap_profile`]), [`pool`] and [`store`] for the pools and the
//! stores of the library. [`record`] writes what a foreign command allocates into a file, [`replay`]
//! measures that file under each allocator. [`grow`] shows how costs grow with
//! threads and live data. The modules named with
//! `expect(unsafe_code)` below are the only ones with unsafe code.

#![deny(unsafe_code)]

mod chart;
mod child;
mod cli;
mod compare;
mod grow;
mod heap_profile;
mod input;
mod measure;
#[cfg(feature = "peers")]
#[expect(
    unsafe_code,
    reason = "calls mimalloc 2 and rpmalloc through their C functions"
)]
mod peers;
mod pool;
mod programs;
mod progress;
mod ranking;
mod record;
mod replay;
mod report;
mod results;
mod run;
mod series;
mod spawn;
mod stats;
mod store;
mod store_tool;
#[expect(
    unsafe_code,
    reason = "the global allocator forwards to the chosen one"
)]
mod switch;
mod table;
mod workloads;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        None => compared(&cli.compare),
        Some(Command::Compare(args)) => compared(args),
        Some(Command::Grow(args)) => grow::main(args),
        Some(Command::Programs(args)) => programs::main(args),
        Some(Command::Run(args)) => run::main(args),
        Some(Command::Record(args)) => record::main(args),
        Some(Command::Replay(args)) => replay::main(args),
        Some(Command::Store(args)) => return store_tool::main(args),
        Some(Command::Child(args)) => child::main(args),
        Some(Command::ReplayChild(args)) => replay::child(args),
        Some(Command::GrowChild(args)) => grow::child(args),
        Some(Command::PoolChild(args)) => pool::child(args),
        Some(Command::StoreChild(args)) => store::child(args),
        Some(Command::Spawn(args)) => spawn::main(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Compares what the options say.
fn compared(args: &cli::CompareArgs) -> anyhow::Result<()> {
    if args.pool {
        pool::main(args)
    } else if args.store {
        store::main(args)
    } else {
        compare::main(args)
    }
}
