//! The rows: what each store is asked. All figures are costs: less is better.

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Ns,
    /// Microseconds.
    Us,
    /// Milliseconds.
    Ms,
    /// Times the bytes of keys and values.
    Times,
}

impl Unit {
    /// As the table writes it.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Ns => "ns",
            Self::Us => "us",
            Self::Ms => "ms",
            Self::Times => "x",
        }
    }
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// At most 16 characters.
    pub name: &'static str,
    /// What the figure counts.
    pub unit: Unit,
    /// The floor of the disk that it is held against.
    pub floor: Option<&'static str>,
    /// The question that the row answers.
    pub question: &'static str,
}

/// A row without a floor.
const fn row(name: &'static str, unit: Unit, question: &'static str) -> Row {
    Row {
        name,
        unit,
        floor: None,
        question,
    }
}

/// A row that the disk's log floor bounds.
const fn logged(name: &'static str, question: &'static str) -> Row {
    Row {
        name,
        unit: Unit::Us,
        floor: Some("log + sync"),
        question,
    }
}

/// All rows, in the order of the table.
pub const ROWS: &[Row] = &[
    logged("put", "What does a durable commit of one entry take (p50)?"),
    logged("put, checkpoint", "And while a checkpoint is on its way?"),
    row(
        "batch 100x1000",
        Unit::Ms,
        "And a hundred durable commits of 1000 random entries?",
    ),
    row(
        "get",
        Unit::Ns,
        "What does a random get take? Keys of random bytes.",
    ),
    row(
        "get, 2 threads",
        Unit::Ns,
        "And in two threads, as each of them sees it?",
    ),
    row(
        "get many",
        Unit::Ns,
        "And one of sixteen asked for at once?",
    ),
    row(
        "txn + get",
        Unit::Ns,
        "And with a read transaction for each?",
    ),
    row(
        "begin + end",
        Unit::Ns,
        "What does a read transaction alone take?",
    ),
    row(
        "user: get",
        Unit::Ns,
        "get, with keys like user:000123456789.",
    ),
    row(
        "user: 2 threads",
        Unit::Ns,
        "get, 2 threads, with such keys.",
    ),
    row("user: many", Unit::Ns, "get many, with such keys."),
    row(
        "url: get",
        Unit::Ns,
        "get, with addresses as keys, which share long prefixes.",
    ),
    row(
        "url: 2 threads",
        Unit::Ns,
        "get, 2 threads, with such keys.",
    ),
    row("url: many", Unit::Ns, "get many, with such keys."),
    row(
        "scan 10",
        Unit::Ns,
        "What does an entry of ten in order cost, from a random place?",
    ),
    row("scan 1000", Unit::Ns, "And of a thousand?"),
    row("scan all", Unit::Ns, "And of all, after a sorted load?"),
    row(
        "load sorted",
        Unit::Ns,
        "What does an entry cost in one transaction, keys ascending?",
    ),
    row("load random", Unit::Ns, "And with keys in random order?"),
    row(
        "file, sorted",
        Unit::Times,
        "How large are the files after the sorted load?",
    ),
    row("file, random", Unit::Times, "And after the random one?"),
    row(
        "file, churn",
        Unit::Times,
        "And at most, while all entries are replaced ten times?",
    ),
    row(
        "file, stale",
        Unit::Times,
        "And after replacing all twice, while one reader stays?",
    ),
    row(
        "file, halved",
        Unit::Times,
        "And when half is removed, over what is left?",
    ),
    row(
        "reader p99",
        Unit::Us,
        "How long does one read in 100 take beside a writer?",
    ),
    row("reader p99.99", Unit::Us, "And one in 10,000?"),
    row(
        "writer beside",
        Unit::Us,
        "What does an update take beside that reader?",
    ),
    row(
        "open, killed",
        Unit::Ms,
        "How long until the first get after SIGKILL?",
    ),
];
