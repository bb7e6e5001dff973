//! The jobs: a process loads one store and answers several rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

use super::adapter::Store;
use super::data::Keys;
use super::{loads, reads, space, writes};

/// What a job found, by the name of the row.
pub type Figures = BTreeMap<String, f64>;

/// Where and how large.
#[derive(Debug, Clone)]
pub struct Place {
    /// A folder of the job's own.
    pub dir: PathBuf,
    /// An eighth of the entries, and less of the time.
    pub quick: bool,
    /// Like `quick`, and a hundred times less: for tests.
    pub tiny: bool,
}

impl Place {
    /// So many, or fewer in the smaller forms.
    pub(crate) fn count(&self, full: usize) -> usize {
        match (self.quick, self.tiny) {
            (_, true) => (full / 400).max(16),
            (true, false) => full / 8,
            (false, false) => full,
        }
    }
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Load in order, scan.
    Sorted,
    /// Load in random order, read.
    Reads(Keys),
    /// Durable commits.
    Commits,
    /// A reader and a writer.
    Beside,
    /// Updates of everything, again and again.
    Churn,
    /// Removal of half.
    Halve,
    /// Opening after a kill.
    Killed,
}

/// One job.
#[derive(Debug)]
pub struct Job {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does.
    pub work: Work,
    /// The rows it answers.
    pub rows: &'static [&'static str],
}

/// All jobs; each row belongs to exactly one.
pub const JOBS: &[Job] = &[
    Job {
        name: "commits",
        work: Work::Commits,
        rows: &["put", "put, checkpoint", "batch 100x1000"],
    },
    Job {
        name: "reads",
        work: Work::Reads(Keys::Random),
        rows: &[
            "load random",
            "file, random",
            "get",
            "get, 2 threads",
            "get many",
            "txn + get",
            "begin + end",
            "scan 10",
            "scan 1000",
        ],
    },
    Job {
        name: "reads-user",
        work: Work::Reads(Keys::User),
        rows: &["user: get", "user: 2 threads", "user: many"],
    },
    Job {
        name: "reads-url",
        work: Work::Reads(Keys::Url),
        rows: &["url: get", "url: 2 threads", "url: many"],
    },
    Job {
        name: "sorted",
        work: Work::Sorted,
        rows: &["load sorted", "file, sorted", "scan all"],
    },
    Job {
        name: "churn",
        work: Work::Churn,
        rows: &["file, churn", "file, stale"],
    },
    Job {
        name: "halve",
        work: Work::Halve,
        rows: &["file, halved"],
    },
    Job {
        name: "beside",
        work: Work::Beside,
        rows: &["reader p99", "reader p99.99", "writer beside"],
    },
    Job {
        name: "killed",
        work: Work::Killed,
        rows: &["open, killed"],
    },
];

/// The job of that name.
pub fn find_job(name: &str) -> Option<&'static Job> {
    JOBS.iter().find(|job| job.name == name)
}

/// Does a job with one store.
pub(crate) fn measure<S: Store>(work: Work, place: &Place) -> Result<Figures> {
    match work {
        Work::Sorted => loads::sorted::<S>(place),
        Work::Reads(keys) => reads::measure::<S>(keys, place),
        Work::Commits => writes::commits::<S>(place),
        Work::Beside => writes::beside::<S>(place),
        Work::Churn => space::churn::<S>(place),
        Work::Halve => space::halve::<S>(place),
        Work::Killed => loads::open_killed::<S>(place),
    }
}

/// What the process that is to be killed does: loads a store, and leaves it open.
pub(crate) fn fill_and_leave<S: Store>(place: &Place) -> Result<()> {
    loads::fill_and_leave::<S>(place)
}

/// A figure under the name of its row.
pub(crate) fn figure(row: &str, value: f64) -> (String, f64) {
    (String::from(row), value)
}

/// Nanoseconds of `body` over `count`.
pub(crate) fn ns_each<R>(count: usize, body: impl FnOnce() -> Result<R>) -> Result<f64> {
    let start = Instant::now();
    body()?;
    // Exact below 2^53.
    Ok(start.elapsed().as_nanos() as f64 / count as f64)
}

/// Bytes of the files in a folder, and in those below: what they take on the disk or say
/// to be their length, whichever is less, so that neither holes count nor space that the
/// file system set aside.
pub(crate) fn bytes_of(dir: &Path, but: &[&str]) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let data = entry.metadata()?;
        if data.is_dir() {
            sum += bytes_of(&entry.path(), but)?;
        } else if !but.iter().any(|&name| entry.file_name() == name) {
            sum += data.len().min(data.blocks() * 512);
        }
    }
    Ok(sum)
}
