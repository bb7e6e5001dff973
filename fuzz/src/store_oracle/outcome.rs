//! What comes of an operation.

use brickyard_store::{
    BackupError, BeginError, CommitError, LoadError, OpenError, ReadError, TableError, WriteError,
};

use super::model::State;

/// A key and a value of their own.
pub type Pair = (Vec<u8>, Vec<u8>);

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// Yes or no.
    Is(bool),
    /// How many.
    Count(u64),
    /// A value.
    Value(Option<Vec<u8>>),
    /// Several.
    Values(Vec<Option<Vec<u8>>>),
    /// Names and numbers of entries.
    Tables(Vec<(String, u64)>),
    /// Entries, in the order they were read.
    Entries(Vec<Pair>),
    /// What a cursor was on after each step.
    Steps(Vec<Option<Pair>>),
    /// The ends of a table.
    Ends {
        /// The first entry.
        first: Option<Pair>,
        /// The last one.
        last: Option<Pair>,
        /// How many there are.
        len: u64,
    },
    /// What `check` found, and all entries.
    Checked(Vec<String>, State),
    /// The pair is too long for a multi-map.
    TooLong,
    /// The store could not.
    Failed(Failure),
}

/// A failure that the store reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it said.
    pub text: String,
    /// Whether a commit that failed may have happened.
    pub is_unknown: bool,
}

impl Failure {
    /// A failure after which nothing happened.
    #[must_use]
    pub fn nothing(error: &dyn core::fmt::Display) -> Self {
        Self {
            text: error.to_string(),
            is_unknown: false,
        }
    }
}

/// Errors after which nothing happened.
macro_rules! nothing_happened {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::nothing(&error)
            }
        }
    )*};
}

nothing_happened!(
    BackupError,
    BeginError,
    LoadError,
    OpenError,
    ReadError,
    TableError,
    WriteError,
    std::io::Error
);

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        let nothing = matches!(
            error,
            CommitError::Aborted { .. }
                | CommitError::Full { .. }
                | CommitError::Broken
                | CommitError::Read(_)
        );
        Self {
            text: error.to_string(),
            is_unknown: !nothing,
        }
    }
}
