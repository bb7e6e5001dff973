//! One point of a curve, in a process of its own.
//!
//! Each thread has a table of blocks and replaces blocks of it at random: a *pair* of free and
//! allocation. What grows is the number of threads, with tables of the same size and as many
//! pairs in all; or the table of the only thread, with as many pairs.

use std::sync::Barrier;
use std::thread;

use anyhow::{Result, ensure};
use clap::Args;
use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::measure::{Stopwatch, rss_kib};
use crate::switch;
use crate::workloads::{Block, tag};

/// Pairs of a point, of all threads together.
const PAIRS: usize = 3_200_000;

/// The same in the quick form.
const QUICK_PAIRS: usize = PAIRS / 16;

/// Bytes of a block: as in `churn`, small ones are more frequent.
const SIZES: [usize; 8] = [16, 24, 32, 48, 64, 96, 192, 512];

/// Bytes of data that a thread holds while threads grow.
pub(super) const THREAD_BYTES: usize = 1 << 20;

/// The hidden subcommand's arguments.
#[derive(Debug, Args)]
pub(crate) struct GrowChildArgs {
    /// Name of the allocator this process must run on
    #[arg(long)]
    allocator: String,
    /// How many threads work
    #[arg(long)]
    threads: usize,
    /// Bytes of data that each holds
    #[arg(long)]
    bytes: usize,
    /// A sixteenth of the work
    #[arg(long)]
    quick: bool,
}

/// What a child reports.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Nanoseconds of CPU time a pair.
    pub(crate) pair_ns: f64,
    /// Resident memory while all blocks are held.
    pub(crate) rss_kib: u64,
    /// Bytes in blocks and tables.
    pub(crate) live_kib: u64,
}

/// Runs one point and prints the [`Sample`].
///
/// # Errors
///
/// When the process does not run on the allocator it was told to.
pub(crate) fn child(args: &GrowChildArgs) -> Result<()> {
    ensure!(
        switch::chosen() == args.allocator,
        "this process runs on {}, not on {}",
        switch::chosen(),
        args.allocator,
    );
    let pairs = if args.quick { QUICK_PAIRS } else { PAIRS };
    let sample = run(args.threads, args.bytes, pairs / args.threads.max(1))?;
    serde_json::to_writer(std::io::stdout().lock(), &sample)?;
    Ok(())
}

/// Runs one point: `pairs` in each thread.
fn run(threads: usize, bytes: usize, pairs: usize) -> Result<Sample> {
    let fill = |seed: usize| Table::fill(seed as u64, bytes);
    // Filled by the threads that use them: whose a block is matters to some allocators.
    let [filled, start, end] = [(); 3].map(|()| Barrier::new(threads + 1));
    let mut watch = Stopwatch::default();
    thread::scope(|scope| {
        for seed in 0..threads {
            let (filled, start, end) = (&filled, &start, &end);
            scope.spawn(move || {
                let mut table = fill(seed);
                filled.wait();
                start.wait();
                table.replace(pairs);
                end.wait();
                // Held until the memory was looked at.
                end.wait();
                drop(table);
            });
        }
        filled.wait();
        // All sleep: the clock is read before they are woken.
        watch.measure(|| {
            start.wait();
            end.wait();
        });
        let rss_kib = rss_kib();
        end.wait();
        let live = threads * Table::fill_len(bytes).1;
        Ok(Sample {
            pair_ns: watch.cpu_s() * 1e9 / (pairs * threads) as f64,
            rss_kib: rss_kib?,
            live_kib: live as u64 / 1024,
        })
    })
}

/// The blocks of a thread.
#[derive(Debug)]
struct Table {
    blocks: Vec<Block>,
    rng: Rng,
}

impl Table {
    /// How many blocks a table of so many bytes has, and its bytes with those of its entries.
    /// Sizes go round, so that each is as frequent and a replacement changes no sum.
    fn fill_len(bytes: usize) -> (usize, usize) {
        let round = SIZES.iter().sum::<usize>() + SIZES.len() * size_of::<Block>();
        let rounds = (bytes / round).max(1);
        (rounds * SIZES.len(), rounds * round)
    }

    fn fill(seed: u64, bytes: usize) -> Self {
        let (count, _) = Self::fill_len(bytes);
        let block = |index: usize| Block::filled(SIZES[index % SIZES.len()], tag(index));
        Self {
            blocks: (0..count).map(block).collect(),
            rng: Rng::with_seed(seed),
        }
    }

    fn replace(&mut self, pairs: usize) {
        for pair in 0..pairs {
            let index = self.rng.usize(..self.blocks.len());
            // The old block goes first, as when an object is made anew.
            self.blocks[index] = Block::empty();
            self.blocks[index] = Block::new(SIZES[index % SIZES.len()], tag(pair));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_large_as_asked_and_stays_so() {
        let (count, bytes) = Table::fill_len(1 << 20);
        assert!((1 << 19..=1 << 20).contains(&bytes), "{bytes}");
        let mut table = Table::fill(1, 1 << 20);
        assert_eq!(table.blocks.len(), count);
        table.replace(1000);
        assert_eq!(table.blocks.len(), count);
        assert_eq!(Table::fill_len(0).0, SIZES.len());
    }

    #[test]
    fn a_point_has_a_cost_and_holds_what_it_says() {
        let sample = run(3, 1 << 20, 10_000).expect("/proc is there");
        assert!(sample.pair_ns > 0.0);
        assert!(
            sample.live_kib > 2048 && sample.rss_kib > sample.live_kib,
            "{sample:?}"
        );
    }
}
