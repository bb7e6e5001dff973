//! The workloads: what is run under each allocator.
//!
//! A workload prepares its input, does its work inside
//! [`Stopwatch::measure`], and returns what it still holds together with a
//! checksum. The checksum depends on the workload only, so two allocators that
//! give different ones have not done the same work.

mod memory;
mod real;
mod serve;
mod server_churn;
mod stress;
mod threads;

use core::any::Any;

use anyhow::Result;

use crate::input::InputFiles;
use crate::measure::Stopwatch;

/// All workloads, in the order of the table.
pub(crate) const ALL: &[Workload] = &[
    Workload::on_input("parse", real::parse),
    Workload::on_input("parse-4t", real::parse_threaded),
    Workload::on_input("index", real::index),
    Workload::on_input("index-4t", real::index_threaded),
    Workload::on_input("json", real::json),
    Workload::on_input("json-4t", real::json_threaded),
    Workload::stress("serve", serve::serve),
    Workload::stress("pairs", stress::pairs),
    Workload::stress("batch-in-order", stress::batch_in_order),
    Workload::stress("batch-reverse", stress::batch_reverse),
    Workload::stress("batch-random", stress::batch_random),
    Workload::stress("churn", stress::churn),
    Workload::stress("larson", threads::larson),
    Workload::stress("producer", threads::producer_consumer),
    Workload::stress("xmalloc", threads::xmalloc),
    Workload::stress("false-sharing", threads::false_sharing),
    Workload::stress("thread-churn", threads::thread_churn),
    Workload::stress("server-churn", server_churn::server_churn),
    Workload::stress("phase-change", memory::phase_change),
    Workload::stress("grow-buffers", memory::growing_buffers),
    Workload::stress("large-blocks", stress::large_blocks),
    Workload::stress("burst-idle", memory::burst_and_idle),
    Workload::stress("sparse", memory::sparse_survivors),
];

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Workload {
    /// At most 14 characters.
    pub(crate) name: &'static str,
    /// Whether it reads the real input.
    pub(crate) needs_input: bool,
    /// Does the work.
    pub(crate) run: Run,
}

/// The body of a workload.
type Run = fn(&mut Setting) -> Result<Outcome>;

impl Workload {
    /// A workload on the real input.
    const fn on_input(name: &'static str, run: Run) -> Self {
        Self {
            name,
            needs_input: true,
            run,
        }
    }

    /// A workload that makes up what it works on.
    const fn stress(name: &'static str, run: Run) -> Self {
        Self {
            name,
            needs_input: false,
            run,
        }
    }
}

/// What a workload is given.
#[derive(Debug)]
pub(crate) struct Setting {
    /// How much to do.
    pub(crate) scale: Scale,
    /// The real input, for those that need it.
    pub(crate) input: InputFiles,
    /// Measures the sections.
    pub(crate) watch: Stopwatch,
}

/// What a workload leaves.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// A digest of the work done, the same under every allocator.
    pub(crate) checksum: u64,
    /// What the workload holds while its memory at rest is read.
    pub(crate) held: Box<dyn Any>,
}

impl Outcome {
    /// The outcome of a workload.
    pub(crate) fn new<T: Any>(checksum: u64, held: T) -> Self {
        Self {
            checksum,
            held: Box::new(held),
        }
    }
}

/// How much a workload does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// An eighth of the work.
    Quick,
    /// The work the table is about.
    Full,
}

impl Scale {
    /// `full` in the full size, an eighth of it (at least one) in the quick one.
    pub(crate) fn of(self, full: usize) -> usize {
        match self {
            Self::Quick => (full / 8).max(1),
            Self::Full => full,
        }
    }
}

/// The workload of that name.
pub(crate) fn find(name: &str) -> Option<&'static Workload> {
    ALL.iter().find(|workload| workload.name == name)
}

/// A block of a given size whose first byte can be read back.
#[derive(Debug)]
pub(crate) struct Block(Vec<u8>);

impl Block {
    /// A block of `size` bytes (at least one) of which the first is written.
    #[inline]
    pub(crate) fn new(size: usize, tag: u8) -> Self {
        let mut bytes = Vec::with_capacity(size);
        bytes.push(tag);
        Self(bytes)
    }

    /// A block of `size` bytes (at least one), all of them written.
    #[inline]
    pub(crate) fn filled(size: usize, tag: u8) -> Self {
        Self::begun(size, size, tag)
    }

    /// A block of `size` bytes of which the first `written` (at least one) are written.
    #[inline]
    pub(crate) fn begun(size: usize, written: usize, tag: u8) -> Self {
        let mut bytes = Vec::with_capacity(size);
        bytes.resize(written, tag);
        Self(bytes)
    }

    /// A block of `size` bytes (at least one) of which one in 4 KiB is written.
    pub(crate) fn paged(size: usize, tag: u8) -> Self {
        let mut bytes = Vec::with_capacity(size);
        for place in bytes.spare_capacity_mut().iter_mut().step_by(4096) {
            place.write(tag);
        }
        bytes.push(tag);
        Self(core::hint::black_box(bytes))
    }

    /// No block: takes no memory.
    pub(crate) const fn empty() -> Self {
        Self(Vec::new())
    }

    /// Bytes it was asked for.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.0.capacity()
    }

    /// The tag it was made with.
    #[inline]
    pub(crate) fn tag(&self) -> u64 {
        u64::from(self.0[0])
    }
}

/// The low byte of a counter, as a tag for blocks.
#[inline]
pub(crate) fn tag(counter: usize) -> u8 {
    counter.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_short_and_found() {
        for (index, workload) in ALL.iter().enumerate() {
            assert!(
                workload.name.len() <= 14,
                "{} is too long for its column",
                workload.name
            );
            assert!(ALL[..index].iter().all(|other| other.name != workload.name));
            assert_eq!(
                find(workload.name).map(|found| found.name),
                Some(workload.name)
            );
        }
        assert!(ALL.len() >= 14);
        assert!(find("no such workload").is_none());
    }

    #[test]
    fn quick_is_an_eighth() {
        assert_eq!(Scale::Full.of(800), 800);
        assert_eq!(Scale::Quick.of(800), 100);
        assert_eq!(Scale::Quick.of(3), 1);
    }

    /// Each stress workload must do the same work twice: a checksum that
    /// depends on addresses, time or scheduling would differ here.
    #[test]
    fn checksums_repeat() {
        for workload in ALL.iter().filter(|workload| !workload.needs_input) {
            let checksum = || {
                let mut setting = Setting {
                    scale: Scale::Quick,
                    input: InputFiles::default(),
                    watch: Stopwatch::default(),
                };
                let outcome = (workload.run)(&mut setting).expect("stress workloads do not fail");
                assert!(
                    setting.watch.wall_s() > 0.0,
                    "{} measured nothing",
                    workload.name
                );
                outcome.checksum
            };
            assert_eq!(checksum(), checksum(), "{}", workload.name);
        }
    }
}
