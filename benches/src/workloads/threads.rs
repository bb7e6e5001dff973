//! Stress on several threads: hand-over, remote frees, batches both ways, false sharing, short
//! threads.

use core::hint::black_box;
use std::collections::VecDeque;
use std::sync::{Barrier, Condvar, Mutex, PoisonError, mpsc};
use std::thread;

use anyhow::Result;
use fastrand::Rng;

use super::{Block, Outcome, Setting, tag};

/// A server after Larson and Krishnan (ISMM 1998): each thread replaces random
/// blocks of its table, then ends and leaves the table to its successor, which
/// goes on with its neighbour's. So most blocks are freed by another thread
/// than the one that made them, after that one has ended.
pub(super) fn larson(setting: &mut Setting) -> Result<Outcome> {
    const THREADS: usize = 2;
    const TABLE_BLOCKS: usize = 5_000;
    const GENERATIONS: usize = 50;
    let steps = setting.scale.of(200_000);
    let mut rng = Rng::with_seed(5);
    let mut tables: Vec<Vec<Block>> = (0..THREADS)
        .map(|_| {
            (0..TABLE_BLOCKS)
                .map(|_| Block::new(rng.usize(8..=1000), 1))
                .collect()
        })
        .collect();
    let checksum = setting.watch.measure(|| {
        let mut sum = 0_u64;
        for _ in 0..GENERATIONS {
            let seeds: Vec<u64> = tables.iter().map(|_| rng.u64(..)).collect();
            let sums: Vec<u64> = thread::scope(|scope| {
                let tables = tables.iter_mut().map(Vec::as_mut_slice).zip(seeds);
                let serve = |(table, seed)| scope.spawn(move || replace_random(table, seed, steps));
                let servers: Vec<_> = tables.map(serve).collect();
                servers
                    .into_iter()
                    .map(|server| server.join().unwrap_or(0))
                    .collect()
            });
            sum = sums.into_iter().fold(sum, u64::wrapping_add);
            tables.rotate_left(1);
        }
        sum
    });
    Ok(Outcome::new(checksum, tables))
}

/// Replaces `steps` random blocks of the table.
fn replace_random(table: &mut [Block], seed: u64, steps: usize) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let mut sum = 0_u64;
    for counter in 0..steps {
        let place = rng.usize(..table.len());
        sum = sum.wrapping_add(table[place].tag());
        table[place] = Block::new(rng.usize(8..=1000), tag(counter));
    }
    sum
}

/// One thread allocates, the other frees; blocks travel in parcels of 64
/// through a bounded channel, so that neither runs far ahead.
pub(super) fn producer_consumer(setting: &mut Setting) -> Result<Outcome> {
    const PARCEL_BLOCKS: usize = 64;
    const PARCELS_UNDER_WAY: usize = 64;
    let parcels = setting.scale.of(30_000);
    let checksum = setting.watch.measure(|| {
        let (sender, receiver) = mpsc::sync_channel::<Vec<Block>>(PARCELS_UNDER_WAY);
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut rng = Rng::with_seed(6);
                for counter in 0..parcels {
                    let block = |_| Block::new(rng.usize(16..=512), tag(counter));
                    if sender
                        .send((0..PARCEL_BLOCKS).map(block).collect())
                        .is_err()
                    {
                        return;
                    }
                }
            });
            receiver
                .iter()
                .flatten()
                .fold(0_u64, |sum, block| sum.wrapping_add(block.tag()))
        })
    });
    Ok(Outcome::new(checksum, ()))
}

/// After Lever and Boreham (FREENIX 2000), in the form of mimalloc-bench's `xmalloc-test`: half of
/// the threads allocate batches of blocks of seventeen sizes, the other half free them, and all
/// share one bounded store of batches, of which the newest is taken first. Theirs go one way for
/// seconds; here the halves change places leg by leg, so that a thread allocates from what it has
/// freed for others. Two threads, then four.
pub(super) fn xmalloc(setting: &mut Setting) -> Result<Outcome> {
    const LEGS: usize = 8;
    let batches = setting.scale.of(3_200);
    let checksum = setting.watch.measure(|| {
        let mut sum = 0_u64;
        for threads in [2, 4] {
            let (depot, leg_end) = (Depot::default(), Barrier::new(threads));
            let work = |number: usize| {
                let mut rng = Rng::with_seed(u64::try_from(number).unwrap_or(0));
                let mut sum = 0_u64;
                for leg in 0..LEGS {
                    for counter in 0..batches / LEGS / (threads / 2) {
                        if (number + leg).is_multiple_of(2) {
                            depot.put(batch(&mut rng, counter));
                        } else {
                            let tags = depot.take().into_iter().map(|block| block.tag());
                            sum = tags.fold(sum, u64::wrapping_add);
                        }
                    }
                    // As many batches are taken in a leg as are made: without the wait a thread
                    // could take those of its own that another counts on.
                    leg_end.wait();
                }
                sum
            };
            thread::scope(|scope| {
                let work = &work;
                let workers: Vec<_> = (0..threads)
                    .map(|number| scope.spawn(move || work(number)))
                    .collect();
                let sums = workers.into_iter().map(|worker| worker.join().unwrap_or(0));
                sum = sums.fold(sum, u64::wrapping_add);
            });
        }
        sum
    });
    Ok(Outcome::new(checksum, ()))
}

/// A batch of `xmalloc`: 1,024 blocks of the sizes of the original, of which at most 128 bytes are
/// written.
fn batch(rng: &mut Rng, counter: usize) -> Vec<Block> {
    const BATCH_BLOCKS: usize = 1_024;
    const SIZES: [usize; 17] = [
        8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_024, 1_536, 2_048,
    ];
    let block = |_| {
        let size = SIZES[rng.usize(..SIZES.len())];
        Block::begun(size, size.min(128), tag(counter))
    };
    (0..BATCH_BLOCKS).map(block).collect()
}

/// Batches under way between the threads of `xmalloc`.
#[derive(Debug, Default)]
struct Depot {
    batches: Mutex<Vec<Vec<Block>>>,
    changed: Condvar,
}

impl Depot {
    /// Batches it holds at most: some 400 KiB each.
    const MOST: usize = 8;

    /// Adds a batch, as soon as there is room.
    fn put(&self, batch: Vec<Block>) {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batches = self
            .changed
            .wait_while(batches, |batches| batches.len() == Self::MOST)
            .unwrap_or_else(PoisonError::into_inner);
        batches.push(batch);
        self.changed.notify_all();
    }

    /// Takes the newest batch, as soon as there is one.
    fn take(&self) -> Vec<Block> {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batches = self
            .changed
            .wait_while(batches, |batches| batches.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let batch = batches.pop().unwrap_or_default();
        self.changed.notify_all();
        batch
    }
}

/// Passive false sharing, after Berger et al. (Hoard, 2000): the main thread
/// allocates neighbouring small blocks and gives each thread one; the thread
/// frees it and goes on allocating. An allocator that hands the freed block
/// back to it lets two threads write to one cache line ever after.
pub(super) fn false_sharing(setting: &mut Setting) -> Result<Outcome> {
    const THREADS: usize = 2;
    const WRITES_A_BLOCK: u64 = 400;
    let blocks = setting.scale.of(400_000);
    let checksum = setting.watch.measure(|| {
        let gifts: Vec<Box<u64>> = (0..THREADS).map(|_| Box::new(0)).collect();
        let work = |gift: Box<u64>| {
            drop(gift);
            let mut sum = 0_u64;
            for _ in 0..blocks {
                let mut cell = black_box(Box::new(0_u64));
                for _ in 0..WRITES_A_BLOCK {
                    *black_box(&mut *cell) += 1;
                }
                sum += *cell;
            }
            sum
        };
        thread::scope(|scope| {
            let workers: Vec<_> = gifts
                .into_iter()
                .map(|gift| scope.spawn(move || work(gift)))
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or(0))
                .sum()
        })
    });
    Ok(Outcome::new(checksum, ()))
}

/// Waves of four short threads; each allocates and frees 400 blocks and leaves
/// 20 behind, which the main thread keeps for a while and frees.
pub(super) fn thread_churn(setting: &mut Setting) -> Result<Outcome> {
    const THREADS: usize = 4;
    const BLOCKS_A_THREAD: usize = 400;
    const LEFT_A_THREAD: usize = 20;
    const KEPT_BLOCKS: usize = 20_000;
    let waves = setting.scale.of(1_000);
    let mut kept: VecDeque<Block> = VecDeque::with_capacity(KEPT_BLOCKS + THREADS * LEFT_A_THREAD);
    let checksum = setting.watch.measure(|| {
        let mut sum = 0_u64;
        for wave in 0..waves {
            thread::scope(|scope| {
                let work = |number: usize| {
                    scope.spawn(move || {
                        let seed = u64::try_from(wave * THREADS + number).unwrap_or(0);
                        let mut rng = Rng::with_seed(seed);
                        let block = |counter| Block::new(rng.usize(16..=1024), tag(counter));
                        let mut blocks: Vec<Block> = (0..BLOCKS_A_THREAD).map(block).collect();
                        blocks.split_off(BLOCKS_A_THREAD - LEFT_A_THREAD)
                    })
                };
                let threads: Vec<_> = (0..THREADS).map(work).collect();
                for thread in threads {
                    kept.extend(thread.join().unwrap_or_default());
                }
            });
            while kept.len() > KEPT_BLOCKS {
                let oldest = kept.pop_front().map_or(0, |block| block.tag());
                sum = sum.wrapping_mul(31).wrapping_add(oldest);
            }
        }
        sum
    });
    Ok(Outcome::new(checksum, kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_all_sizes_and_at_most_128_bytes_written() {
        let blocks = batch(&mut Rng::with_seed(1), 7);
        let mut sizes: Vec<usize> = blocks.iter().map(Block::size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        assert_eq!(
            (sizes.len(), sizes.first(), sizes.last()),
            (17, Some(&8), Some(&2_048))
        );
        assert!(blocks.iter().all(|block| block.tag() == 7));
    }

    /// A put that did not wait would let an allocating thread run ahead without bound.
    #[test]
    fn full_depot_lets_wait_until_a_batch_is_taken() {
        let depot = Depot::default();
        for _ in 0..Depot::MOST {
            depot.put(Vec::new());
        }
        thread::scope(|scope| {
            let late = scope.spawn(|| depot.put(vec![Block::new(8, 1)]));
            thread::sleep(core::time::Duration::from_millis(20));
            assert!(!late.is_finished());
            assert!(depot.take().is_empty());
            late.join().expect("a put does not fail");
            assert_eq!(depot.take().len(), 1, "the newest comes first");
        });
    }
}
