//! The stores under test.

use anyhow::Result;

use super::job::{self, Figures, Place, Work};
use super::own::Brickyard;
#[cfg(feature = "peers-store")]
use super::peers::{canopy::Canopy, fjall::Fjall, lmdb::Lmdb, mdbx::Mdbx, redb::Redb};

/// Where a subject stands in the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Our store.
    Ours,
    /// Another store.
    Peer,
}

/// A store under test.
#[derive(Debug)]
pub struct Subject {
    /// At most 9 characters.
    pub name: &'static str,
    /// What it is compared as.
    pub role: Role,
    /// The package whose version belongs to its figures.
    pub package: &'static str,
    /// How it is set up, for the reader of the table.
    pub note: &'static str,
    measure: fn(Work, &Place) -> Result<Figures>,
    fill_and_leave: fn(&Place) -> Result<()>,
}

impl Subject {
    /// Does a job with a new store.
    ///
    /// # Errors
    ///
    /// When the store fails, or says something else than the oracle.
    pub fn measure(&self, work: Work, place: &Place) -> Result<Figures> {
        (self.measure)(work, place)
    }

    /// Loads a store as [`Work::Killed`] wants it, and does not close it: the caller is to
    /// be killed.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub fn fill_and_leave(&self, place: &Place) -> Result<()> {
        (self.fill_and_leave)(place)
    }
}

/// A subject with its adapter.
macro_rules! subject {
    ($name:literal, $role:ident, $package:literal, $adapter:ty, $note:literal) => {
        Subject {
            name: $name,
            role: Role::$role,
            package: $package,
            note: $note,
            measure: job::measure::<$adapter>,
            fill_and_leave: job::fill_and_leave::<$adapter>,
        }
    };
}

/// All subjects, ours first.
pub const SUBJECTS: &[Subject] = &[
    subject!(
        "brickyard",
        Ours,
        "brickyard-store",
        Brickyard,
        "defaults; its ring of 16 MiB, empty after a checkpoint, is not in the rows on files"
    ),
    #[cfg(feature = "peers-store")]
    subject!(
        "LMDB",
        Peer,
        "heed",
        Lmdb,
        "heed; 64 GiB of map, readers without thread-local slots"
    ),
    #[cfg(feature = "peers-store")]
    subject!(
        "libmdbx",
        Peer,
        "signet-libmdbx",
        Mdbx,
        "signet-libmdbx; up to 64 GiB, durable mode, unsynchronised transactions"
    ),
    #[cfg(feature = "peers-store")]
    subject!(
        "redb",
        Peer,
        "redb",
        Redb,
        "cache of 1 GiB; commits of one phase with checksums (its default)"
    ),
    #[cfg(feature = "peers-store")]
    subject!(
        "fjall",
        Peer,
        "fjall",
        Fjall,
        "batches with SyncAll, cache of 1 GiB; settled: memtable flushed"
    ),
    #[cfg(feature = "peers-store")]
    subject!(
        "canopydb",
        Peer,
        "canopydb",
        Canopy,
        "sync commits to its log, cache of 1 GiB; settled: checkpoint"
    ),
];

/// The subject of that name.
pub fn find_subject(name: &str) -> Option<&'static Subject> {
    SUBJECTS.iter().find(|subject| subject.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::{DISK, JOBS, ROWS, floors};

    fn place() -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let place = Place {
            dir: dir.path().to_owned(),
            quick: true,
            tiny: true,
        };
        (dir, place)
    }

    #[test]
    fn names_are_distinct_and_fit_the_table() {
        for (index, subject) in SUBJECTS.iter().enumerate() {
            assert!(subject.name.len() <= 9, "{}", subject.name);
            let mut others = SUBJECTS[..index].iter();
            assert!(others.all(|other| other.name != subject.name));
        }
        assert!(ROWS.iter().all(|row| row.name.len() <= 16));
        assert!(SUBJECTS[0].role == Role::Ours);
    }

    #[test]
    fn each_row_belongs_to_one_job() {
        for row in ROWS {
            let jobs = JOBS.iter().filter(|job| job.rows.contains(&row.name));
            assert_eq!(jobs.count(), 1, "{}", row.name);
        }
        let answers: usize = JOBS.iter().map(|job| job.rows.len()).sum();
        assert_eq!(answers, ROWS.len());
    }

    /// Each answer was compared with the oracle on the way. Only a store without a
    /// checkpoint leaves a row out.
    #[test]
    fn every_store_does_every_job() {
        for subject in SUBJECTS {
            for job in JOBS {
                let (_dir, place) = place();
                if job.work == Work::Killed {
                    subject.fill_and_leave(&place).expect("it fills");
                    // Its locks are this process's: opening again needs another one,
                    // which the test of the command has.
                    continue;
                }
                let figures = subject.measure(job.work, &place);
                let figures = figures
                    .unwrap_or_else(|error| panic!("{} of {}: {error:#}", job.name, subject.name));
                for &row in job.rows {
                    let figure = figures.get(row).copied();
                    let may_lack = row == "put, checkpoint" && subject.role == Role::Peer;
                    assert!(
                        figure.map_or(may_lack, |figure| figure.is_finite() && figure > 0.0),
                        "{row} of {}: {figure:?}",
                        subject.name
                    );
                }
            }
        }
    }

    #[test]
    fn every_floor_is_measured() {
        let (_dir, place) = place();
        let figures = floors(&place).expect("the disk works");
        for (name, _) in DISK {
            assert!(
                figures.get(*name).is_some_and(|&figure| figure > 0.0),
                "{name}"
            );
        }
        let named = ROWS.iter().filter_map(|row| row.floor);
        for floor in named {
            assert!(DISK.iter().any(|(name, _)| *name == floor), "{floor}");
        }
    }
}
