//! Threads under the global allocator.
//!
//! What could go wrong: a block is given to two threads, a freed one is lost on
//! its way back, an exiting thread leaves its cache behind, or caches are so many
//! or so large that a program with many threads cannot start them. Fill patterns
//! show the first; the statistics, which must come back to where they were, show
//! the others.

#![cfg(not(loom))]

use core::time::Duration;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use brickyard_arena::Arena;

#[global_allocator]
static GLOBAL: Arena = Arena::new();

/// One test at a time: the statistics are those of the process.
static ALONE: Mutex<()> = Mutex::new(());

/// Bytes by which the harness's own use may move the statistics.
const NOISE_BYTES: usize = 64 << 10;

/// A block whose every word is its tag.
struct Tagged(Vec<u64>);

impl Tagged {
    fn new(tag: u64, words: usize) -> Self {
        Self(vec![tag; words])
    }
}

impl Drop for Tagged {
    fn drop(&mut self) {
        let tag = self.0.first().copied().unwrap_or_default();
        assert!(self.0.iter().all(|&word| word == tag), "a block changed");
    }
}

/// A generator of Marsaglia's kind (xorshift), good enough to choose sizes.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[test]
fn eight_threads_hand_blocks_around() {
    const THREADS: usize = 8;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = match std::env::var("BRICKYARD_SOAK_SECONDS") {
        Ok(text) => text
            .parse()
            .expect("BRICKYARD_SOAK_SECONDS is a number of seconds"),
        Err(_) => 2,
    };
    let before = Arena::stats().live;
    let end = Instant::now() + Duration::from_secs(seconds);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| channel()).unzip();
    let threads: Vec<_> = receivers
        .into_iter()
        .zip(1..)
        .map(|(inbox, number)| {
            let outboxes = senders.clone();
            thread::spawn(move || hand_around(number, &inbox, &outboxes, end))
        })
        .collect();
    drop(senders);
    let blocks: u64 = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .sum();
    assert!(blocks > 1000, "{blocks} blocks only");
    let after = Arena::stats().live;
    assert!(
        after <= before + NOISE_BYTES,
        "{before} bytes before, {after} after"
    );
}

/// Allocates, keeps, frees, sends and receives until `end`; returns how many
/// blocks it allocated.
fn hand_around(
    number: u64,
    inbox: &Receiver<Tagged>,
    outboxes: &[Sender<Tagged>],
    end: Instant,
) -> u64 {
    let mut random = Random(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut kept: Vec<Tagged> = Vec::new();
    let mut blocks = 0;
    while Instant::now() < end {
        for _ in 0..200 {
            let words = match random.below(100) {
                0..80 => 1 + random.below(32),
                80..99 => 1 + random.below(600),
                _ => 1 + random.below(40_000),
            };
            blocks += 1;
            let block = Tagged::new(number << 48 | blocks, usize::try_from(words).unwrap());
            match random.below(3) {
                0 => drop(block),
                1 => {
                    let to = usize::try_from(random.below(outboxes.len() as u64)).unwrap();
                    // A receiver that has left drops the block here.
                    drop(outboxes[to].send(block));
                }
                _ => kept.push(block),
            }
            if kept.len() > 300 {
                let index = usize::try_from(random.below(300)).unwrap();
                kept.swap_remove(index);
            }
        }
        inbox.try_iter().for_each(drop);
    }
    blocks
}

#[test]
fn a_hundred_thousand_short_threads_leave_nothing_behind() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let run = |threads: u64| {
        for first in (0..threads).step_by(8) {
            let eight: Vec<_> = (first..first + 8)
                .map(|tag| thread::spawn(move || (Tagged::new(tag, 40), Tagged::new(tag, 700)).0))
                .collect();
            eight
                .into_iter()
                .for_each(|thread| drop(thread.join().unwrap()));
        }
    };
    run(1000);
    let before = Arena::stats();
    run(100_000);
    let after = Arena::stats();
    assert!(
        after.live <= before.live + NOISE_BYTES,
        "live bytes grew:\n{before}\n{after}"
    );
    assert!(
        after.committed <= before.committed + (8 << 20),
        "the heap grew:\n{before}\n{after}"
    );
    assert!(
        after.metadata <= before.metadata + (4 << 20),
        "the caches grew:\n{before}\n{after}"
    );
}

#[test]
fn a_thousand_live_threads_allocate_at_the_same_time() {
    const THREADS: usize = 1000;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = Arena::stats().live;
    let barrier = Arc::new(Barrier::new(THREADS + 1));
    let threads: Vec<_> = (0..THREADS as u64)
        .map(|tag| {
            let barrier = Arc::clone(&barrier);
            let body = move || {
                let blocks: Vec<Tagged> = (1..100).map(|words| Tagged::new(tag, words)).collect();
                barrier.wait();
                // All threads live now, and all their blocks, until the main thread has
                // looked.
                barrier.wait();
                drop(blocks);
            };
            thread::Builder::new()
                .stack_size(128 << 10)
                .spawn(body)
                .unwrap()
        })
        .collect();
    barrier.wait();
    let most = Arena::stats();
    assert!(most.live >= before + THREADS * (99 * 100 / 2) * 8, "{most}");
    barrier.wait();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let after = Arena::stats().live;
    assert!(
        after <= before + NOISE_BYTES,
        "{before} bytes before, {after} after"
    );
}
