//! Arguments of `brickyard store`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Looks into the files of a store, saves them, and changes single entries.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    pub(super) what: What,
}

/// Keys and values are text, `hex:` and digits, `@` and the name of a file, or `text:` and
/// text that starts like one of these.
#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Walk everything and list what is wrong
    Check(Place),
    /// List tables with their entries, depth, pages and bytes; free pages and ring
    Stat(Place),
    /// Write all entries as text, which `load` reads
    Dump {
        #[command(flatten)]
        place: Place,
        /// This table only
        #[arg(long, value_name = "NAME")]
        table: Option<String>,
    },
    /// Put what `dump` wrote into a store, which is created if it is not there
    Load {
        /// The folder of the store
        dir: PathBuf,
        /// What `dump` wrote [default: standard input]
        file: Option<PathBuf>,
    },
    /// Copy a store into a new folder, or what a copy lacks into a new file
    Backup {
        #[command(flatten)]
        place: Place,
        /// The new folder; with --since the new file, or `-` for standard output
        dest: PathBuf,
        /// Write an increment: what changed since the state of this backup
        #[arg(long, value_name = "BACKUP")]
        since: Option<PathBuf>,
    },
    /// Bring a backup up to date with what `backup --since` wrote
    Apply {
        /// The folder of the backup
        backup: PathBuf,
        /// The increments, oldest first
        #[arg(required = true)]
        increments: Vec<PathBuf>,
    },
    /// Make a store of a backup and increments; the backup stays as it is
    Restore {
        /// The folder of the backup
        backup: PathBuf,
        /// The new folder
        dir: PathBuf,
        /// What `backup --since` wrote, oldest first
        increments: Vec<PathBuf>,
    },
    /// Move pages to free ones below them, and cut the end of the file off
    Compact {
        /// The folder of the store
        dir: PathBuf,
        /// Move at most so many pages [default: all that can be moved]
        #[arg(long, value_name = "N")]
        pages: Option<u64>,
    },
    /// Write the value of a key
    Get {
        #[command(flatten)]
        place: Place,
        /// The table's name
        table: String,
        /// The key: text, `hex:…` or `@FILE`
        key: String,
    },
    /// Store a value under a key; the store is created if it is not there
    Put {
        /// The folder of the store
        dir: PathBuf,
        /// The table's name
        table: String,
        /// The key: text, `hex:…` or `@FILE`
        key: String,
        /// The value: text, `hex:…` or `@FILE`
        value: String,
    },
    /// Take a key out
    Delete {
        /// The folder of the store
        dir: PathBuf,
        /// The table's name
        table: String,
        /// The key: text, `hex:…` or `@FILE`
        key: String,
    },
}

/// A store to look at. It is opened for reading only.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The folder of the store
    pub(super) dir: PathBuf,
    /// Open a store that was not closed for writing, which replays its ring
    #[arg(long)]
    pub(super) recover: bool,
}
