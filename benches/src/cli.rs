//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use brickyard_arena::Builder;
use clap::{Args, Parser, Subcommand};

use crate::child::ChildArgs;
use crate::grow::{GrowArgs, GrowChildArgs};
use crate::pool::PoolChildArgs;
use crate::programs::ProgramsArgs;
use crate::record::RecordArgs;
use crate::replay::{ReplayArgs, ReplayChildArgs};
use crate::spawn::SpawnArgs;
use crate::store::StoreChildArgs;
use crate::store_tool::StoreArgs;

/// Compares memory allocators (the arena, the system's malloc, peers), object pools, stores.
#[derive(Debug, Parser)]
#[command(name = "brickyard", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) compare: CompareArgs,
}

/// What to do; `compare` when nothing is said.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run every workload under every allocator and print a table (the default)
    Compare(CompareArgs),
    /// Show how an allocation's cost grows with threads and with live data
    Grow(GrowArgs),
    /// Run real programs under the system malloc and under preloaded libraries
    Programs(ProgramsArgs),
    /// Run a command alternately under the system malloc and a preloaded library
    Run(RunArgs),
    /// Run a command and write what it allocates into a file
    Record(RecordArgs),
    /// Replay a recording under each allocator: its time, its memory, a timeline
    Replay(ReplayArgs),
    /// Look into the files of a store: check, stat, dump, load, get, put, delete, backup, apply,
    /// restore, compact
    Store(StoreArgs),
    /// One measurement
    #[command(hide = true)]
    Child(ChildArgs),
    /// One point of a curve
    #[command(hide = true)]
    GrowChild(GrowChildArgs),
    /// One replay
    #[command(hide = true)]
    ReplayChild(ReplayChildArgs),
    /// One measurement of an object pool
    #[command(hide = true)]
    PoolChild(PoolChildArgs),
    /// One job of a store
    #[command(hide = true)]
    StoreChild(StoreChildArgs),
    /// One run of a foreign command
    #[command(hide = true)]
    Spawn(SpawnArgs),
}

/// Options of `compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Compare object pools instead of allocators
    #[arg(long, conflicts_with_all = ["allocators", "input"])]
    pub(crate) pool: bool,
    /// Compare stores instead of allocators
    #[arg(long, conflicts_with_all = ["pool", "allocators", "input"])]
    pub(crate) store: bool,
    /// The folder on the disk that stores are compared on [default: the system's]
    #[arg(long, value_name = "DIR", requires = "store")]
    pub(crate) dir: Option<PathBuf>,
    /// An eighth of the work and fewer rounds: under 30 seconds, stores under 60
    #[arg(long)]
    pub(crate) quick: bool,
    /// Rounds to run; without it as many as fit the time, five at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: Option<u32>,
    /// Only the rows whose name contains this
    #[arg(long, value_name = "SUBSTRING")]
    pub(crate) only: Option<String>,
    /// Only these allocators, separated by commas; the system's always runs; `hardened`, the
    /// arena in its hardened form, runs only if it is named
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) allocators: Vec<String>,
    /// The folder with the real input
    #[arg(long, value_name = "DIR")]
    pub(crate) input: Option<PathBuf>,
    /// Write the medians to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The library to preload [default: libbrickyard.so beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) preload: Option<PathBuf>,
    /// Rounds to run
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Write the medians to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Instead of comparing, run once and write the heap profile to this file for pprof
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rounds", "json"])]
    pub(crate) profile: Option<PathBuf>,
    /// The same as collapsed stacks, for flame graphs: bytes allocated
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rounds", "json"])]
    pub(crate) collapsed: Option<PathBuf>,
    /// Collapsed stacks of what is live at the end
    #[arg(long, requires = "collapsed")]
    pub(crate) live: bool,
    /// Bytes from one sample of the profile to the next
    #[arg(long, value_name = "N", default_value_t = Builder::PROFILE_BYTES as u64, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) profile_bytes: u64,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn profiles_have_the_interval_of_the_library() {
        let cli = Cli::try_parse_from(["brickyard", "run", "--profile", "out.pb", "--", "true"]);
        let Ok(Some(Command::Run(args))) = cli.map(|cli| cli.command) else {
            panic!("not run")
        };
        assert_eq!(args.profile_bytes, Builder::PROFILE_BYTES as u64);
        let mut command = Cli::command();
        let run = command.find_subcommand_mut("run").expect("a subcommand");
        let help = run.render_long_help().to_string();
        let default = format!("[default: {}]", Builder::PROFILE_BYTES);
        assert!(help.contains(&default), "{help}");
    }

    #[test]
    fn compare_is_the_default() {
        let cli = Cli::try_parse_from(["brickyard", "--quick", "--only", "pair"]).expect("valid");
        assert!(cli.command.is_none() && cli.compare.quick);
        assert_eq!(cli.compare.only.as_deref(), Some("pair"));
    }

    #[test]
    fn pools_have_neither_input_nor_allocators() {
        let cli = Cli::try_parse_from(["brickyard", "compare", "--pool", "--quick"]);
        let Ok(Some(Command::Compare(args))) = cli.map(|cli| cli.command) else {
            panic!("not compare")
        };
        assert!(args.pool && args.quick);
        for other in ["--input", "--allocators"] {
            assert!(Cli::try_parse_from(["brickyard", "--pool", other, "x"]).is_err());
        }
    }

    #[test]
    fn stores_are_compared_on_a_disk() {
        let line = ["brickyard", "compare", "--store", "--dir", "/data"];
        assert!(Cli::try_parse_from(line).is_ok());
        for other in [["--dir", "/data"], ["--store", "--pool"]] {
            assert!(Cli::try_parse_from(["brickyard"].iter().chain(&other)).is_err());
        }
    }

    #[test]
    fn run_takes_the_rest_as_a_command() {
        let line = [
            "brickyard",
            "run",
            "--rounds",
            "2",
            "--",
            "ls",
            "-l",
            "--quick",
        ];
        let cli = Cli::try_parse_from(line).expect("valid");
        let Some(Command::Run(run)) = cli.command else {
            panic!("not run")
        };
        assert_eq!(run.rounds, 2);
        assert_eq!(run.command, ["ls", "-l", "--quick"]);
        assert!(Cli::try_parse_from(["brickyard", "run"]).is_err());
        assert!(Cli::try_parse_from(["brickyard", "--rounds", "0"]).is_err());
    }
}
