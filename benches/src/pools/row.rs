//! The rows: what each pool is asked.

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// One or two words of at most six characters.
    pub name: &'static str,
    /// What is done.
    pub kind: Kind,
    /// With objects of this size.
    pub size: Size,
    /// The question that the row answers.
    pub question: &'static str,
}

/// What is done in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Get and return, one thread.
    Pair,
    /// The same with guards that own their object.
    OwnedPair,
    /// Get and return in so many threads; wall time as each thread sees it.
    Wall(usize),
    /// Get and return in so many threads; CPU time of all.
    Cpu(usize),
    /// Hold 32, return in random order.
    Hold,
    /// Get on one thread, return on another; wall time an object.
    Across,
    /// 32 at once.
    Many,
    /// Ten times the usual number, again and again.
    Burst,
    /// Percentiles of get, eight threads.
    Latency,
}

/// The size of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// 64 bytes.
    Small,
    /// 1 KiB.
    Medium,
    /// 64 KiB.
    Large,
}

/// All rows, in the order of the table. Figures are nanoseconds a get and return.
pub const ROWS: &[Row] = &[
    row(
        "pair",
        Kind::Pair,
        Size::Small,
        "What does get and return cost on one thread?",
    ),
    row(
        "pair 1K",
        Kind::Pair,
        Size::Medium,
        "And with objects of 1 KiB?",
    ),
    row(
        "pair 64K",
        Kind::Pair,
        Size::Large,
        "And with objects of 64 KiB?",
    ),
    row(
        "owned",
        Kind::OwnedPair,
        Size::Small,
        "What does a guard without a borrow cost?",
    ),
    row(
        "2 thr.",
        Kind::Wall(2),
        Size::Small,
        "Do two threads on two cores disturb each other?",
    ),
    row(
        "2 thr. 64K",
        Kind::Wall(2),
        Size::Large,
        "And with objects of 64 KiB?",
    ),
    row(
        "8 thr.",
        Kind::Cpu(8),
        Size::Small,
        "What do eight threads on these cores use?",
    ),
    row(
        "hold 32",
        Kind::Hold,
        Size::Small,
        "And when 32 are held and come back in any order?",
    ),
    row(
        "across",
        Kind::Across,
        Size::Small,
        "And when another thread returns the object?",
    ),
    row(
        "many 32",
        Kind::Many,
        Size::Small,
        "What does an object cost that is got among 32?",
    ),
    row(
        "burst",
        Kind::Burst,
        Size::Medium,
        "What does ten times the usual load cost, and leave?",
    ),
    row(
        "get p99.9",
        Kind::Latency,
        Size::Small,
        "How long does one get in a thousand take?",
    ),
];

/// A row of the table.
const fn row(name: &'static str, kind: Kind, size: Size, question: &'static str) -> Row {
    Row {
        name,
        kind,
        size,
        question,
    }
}

/// The row of that name.
pub fn find_row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}
