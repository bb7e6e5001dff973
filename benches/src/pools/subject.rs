//! The pools under test.

use super::own::{Borrowed, Boxed, Owned};
#[cfg(feature = "peers-pool")]
use super::peers::queues::{
    ArrayRing, Counted, CountedOwned, Dead, Locked, LockedOwned, Opool, OpoolOwned, SegList,
};
#[cfg(feature = "peers-pool")]
use super::peers::slabs::{
    Heapless, Linear, LinearOwned, Sharded, ShardedOwned, SharedRoom, StaticRoom,
};
use super::row::{Row, Size};
use super::work::{self, Effort, Measured};

/// Where a subject stands in the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Our pool.
    Ours,
    /// Allocation without a pool.
    Allocation,
    /// Another pool.
    Peer,
}

/// A pool under test.
#[derive(Debug)]
pub struct Subject {
    /// At most 13 characters.
    pub name: &'static str,
    /// What it is compared as.
    pub role: Role,
    /// The allocator of its process.
    pub allocator: &'static str,
    /// The package whose version belongs to its figures.
    pub package: &'static str,
    /// What it does not do, or does differently; for the reader of the table.
    pub note: &'static str,
    measure: fn(&Row, Effort) -> Measured,
    pairs: fn(Size) -> Box<dyn FnMut(usize)>,
}

impl Subject {
    /// Does the work of `row`.
    pub fn measure(&self, row: &Row, effort: Effort) -> Measured {
        (self.measure)(row, effort)
    }

    /// A new pool of objects of this size that gets and returns so often as it is told, on
    /// the calling thread.
    pub fn pairs(&self, size: Size) -> Box<dyn FnMut(usize)> {
        (self.pairs)(size)
    }
}

/// A subject, with the adapters for guards that borrow, for guards that own, and for
/// guards that may change threads.
macro_rules! subject {
    ($name:literal, $role:ident, $allocator:literal, $package:literal,
     [$borrowed:ident, $owned:ident, $across:ident], $note:literal) => {
        Subject {
            name: $name,
            role: Role::$role,
            allocator: $allocator,
            package: $package,
            note: $note,
            measure: |row, effort| match row.size {
                Size::Small => {
                    work::measure::<$borrowed<64>, $owned<64>, $across<64>>(row.kind, effort)
                }
                Size::Medium => {
                    work::measure::<$borrowed<1024>, $owned<1024>, $across<1024>>(row.kind, effort)
                }
                Size::Large => work::measure::<$borrowed<65_536>, $owned<65_536>, $across<65_536>>(
                    row.kind, effort,
                ),
            },
            pairs: |size| match size {
                Size::Small => work::repeated::<$borrowed<64>>(),
                Size::Medium => work::repeated::<$borrowed<1024>>(),
                Size::Large => work::repeated::<$borrowed<65_536>>(),
            },
        }
    };
}

/// All subjects, ours first. All but `Box arena` run on the system's allocator.
pub const SUBJECTS: &[Subject] = &[
    subject!(
        "brickyard",
        Ours,
        "system",
        "brickyard-pool",
        [Borrowed, Owned, Borrowed],
        "unbounded; idle decay on in row burst"
    ),
    subject!(
        "Box system",
        Allocation,
        "system",
        "brickyard-bench",
        [Boxed, Boxed, Boxed],
        "no pool: a block of the system's malloc each time"
    ),
    subject!(
        "Box arena",
        Allocation,
        "arena",
        "brickyard-arena",
        [Boxed, Boxed, Boxed],
        "no pool: a block of this workspace's arena each time"
    ),
    #[cfg(feature = "peers-pool")]
    subject!(
        "ArrayQueue",
        Peer,
        "system",
        "crossbeam-queue",
        [ArrayRing, ArrayRing, ArrayRing],
        "keeps no more than its ring holds; no guard, returned by hand"
    ),
    #[cfg(feature = "peers-pool")]
    subject!(
        "SegQueue",
        Peer,
        "system",
        "crossbeam-queue",
        [SegList, SegList, SegList],
        "keeps all for ever; no guard, returned by hand"
    ),
    #[cfg(feature = "peers-pool")]
    subject!(
        "opool",
        Peer,
        "system",
        "opool",
        [Opool, OpoolOwned, Opool],
        "keeps no more than its ring holds; owned by Arc"
    ),
    #[cfg(feature = "peers-pool")]
    subject!(
        "object-pool",
        Peer,
        "system",
        "object-pool",
        [Locked, LockedOwned, Locked],
        "a lock; keeps all for ever; owned by Arc"
    ),
    #[cfg(feature = "peers-pool")]
    subject!(
        "objectpool",
        Peer,
        "system",
        "objectpool",
        [Counted, CountedOwned, Counted],
        "keeps no more than its ring holds; owned by its own count"
    ),
    #[cfg(feature = "peers-pool")]
    subject!(
        "deadpool",
        Peer,
        "system",
        "deadpool",
        [Dead, Dead, Dead],
        "unmanaged, try_get; a lock and a semaphore; beyond its bound plain objects"
    ),
    #[cfg(feature = "peers-pool")]
    subject!(
        "lockfree-o-p",
        Peer,
        "system",
        "lockfree-object-pool",
        [Linear, LinearOwned, Linear],
        "lockfree-object-pool, Linear; keeps all for ever; owned by Arc"
    ),
    #[cfg(feature = "peers-pool")]
    subject!(
        "sharded-slab",
        Peer,
        "system",
        "sharded-slab",
        [Sharded, ShardedOwned, ShardedOwned],
        "returned by key; the borrowing guard is !Send: the owned one in row across"
    ),
    #[cfg(feature = "peers-pool")]
    subject!(
        "shared_arena",
        Peer,
        "system",
        "shared_arena",
        [SharedRoom, SharedRoom, SharedRoom],
        "room and no objects: each get moves a value in; keeps all room"
    ),
    #[cfg(feature = "peers-pool")]
    subject!(
        "atomic-pool",
        Peer,
        "system",
        "atomic-pool",
        [StaticRoom, StaticRoom, StaticRoom],
        "a static; room and no objects, 1024 places fixed when compiled"
    ),
    #[cfg(feature = "peers-pool")]
    subject!(
        "heapless",
        Peer,
        "system",
        "heapless",
        [Heapless, Heapless, Heapless],
        "a static; objects put in at the start, beyond them plain objects"
    ),
];

/// The subject of that name.
pub fn find_subject(name: &str) -> Option<&'static Subject> {
    SUBJECTS.iter().find(|subject| subject.name == name)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::pools::{Kind, ROWS};

    #[test]
    fn names_are_distinct_and_fit_the_table() {
        for (index, subject) in SUBJECTS.iter().enumerate() {
            assert!(subject.name.len() <= 13, "{}", subject.name);
            let found = find_subject(subject.name).map(|found| found.note);
            assert_eq!(found, Some(subject.note), "{}", subject.name);
            assert!(
                SUBJECTS[..index]
                    .iter()
                    .all(|other| other.name != subject.name)
            );
        }
        assert!(SUBJECTS[0].role == Role::Ours);
    }

    /// One test for all, because objects are counted for the whole process. A pool that
    /// lost what it was given would keep nothing or too much of a burst.
    #[test]
    fn every_pool_does_every_row() {
        let effort = Effort {
            slice: Duration::from_millis(1),
            slices: 1,
        };
        for subject in SUBJECTS {
            for row in ROWS {
                let measured = subject.measure(row, effort);
                let name = format!("{} of {}", row.name, subject.name);
                assert!(measured.ns.is_finite() && measured.ns > 0.0, "{name}");
                assert_eq!(
                    measured.latency.is_some(),
                    row.kind == Kind::Latency,
                    "{name}"
                );
                let kept = match (row.kind, subject.name) {
                    (Kind::Burst, "brickyard") => 64..=64 + 2 * 128,
                    (Kind::Burst, "Box system" | "Box arena") => 0..=0,
                    (Kind::Burst, "shared_arena" | "atomic-pool") => {
                        assert_eq!(measured.kept, None, "{name}");
                        continue;
                    }
                    (Kind::Burst, _) => 64..=1024,
                    _ => {
                        assert_eq!(measured.kept, None, "{name}");
                        continue;
                    }
                };
                let found = measured.kept.expect("it counts");
                assert!(kept.contains(&found), "{name}: {found} objects");
            }
        }
    }
}
