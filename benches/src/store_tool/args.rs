//! Arguments of `brickyard store`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Looks into the files of a store, and changes single entries.
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
