//! Stress on several threads: hand-over, remote frees, false sharing, short
//! threads.

use core::hint::black_box;
use std::collections::VecDeque;
use std::sync::mpsc;
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
