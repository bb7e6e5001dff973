//! A server in small that runs for long: sessions, requests and a cache whose contents change
//! their sizes. How much more than its live data does it ever hold?

use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use fastrand::Rng;

use super::{Block, Outcome, Setting, tag};

/// Threads that serve.
const WORKERS: usize = 2;

/// Sessions of each worker, some 12 KiB each: 6 MiB in all.
const SESSIONS: usize = 256;

/// Parts of the cache, each behind a lock.
const SHELVES: usize = 16;

/// Bytes that the entries of a shelf may have: 7 MiB in all.
const SHELF_BYTES: usize = 448 << 10;

/// Least and most bytes of an entry: pages, pictures, answers, fragments. All shelves turn from
/// one kind to the next as the work goes on.
const KINDS: [(usize, usize); 4] = [(800, 4_000), (4_000, 16_000), (200, 800), (40, 200)];

/// Times that the kinds come round.
const ROUNDS: usize = 2;

/// Each worker answers requests: a dozen small blocks that live as long as the request, an answer
/// that grows, an entry of the cache in place of others at random, which mostly another worker
/// made, and now and then a session in place of another. 14 MiB are live from the first kind on.
pub(super) fn server_churn(setting: &mut Setting) -> Result<Outcome> {
    let requests = setting.scale.of(160_000);
    let shelves: Vec<Mutex<Shelf>> = (0..SHELVES).map(|_| Mutex::default()).collect();
    let (checksum, sessions) = setting.watch.measure(|| {
        thread::scope(|scope| {
            let shelves = &shelves;
            let workers: Vec<_> = (0..WORKERS)
                .map(|number| scope.spawn(move || serve(number, requests / WORKERS, shelves)))
                .collect();
            let mut sum = 0_u64;
            let mut sessions = Vec::new();
            for worker in workers {
                let (worker_sum, worker_sessions) = worker.join().unwrap_or_default();
                sum = sum.wrapping_add(worker_sum);
                sessions.push(worker_sessions);
            }
            (sum, sessions)
        })
    });
    let kept = shelves.iter().map(|shelf| {
        let shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.entries.iter().map(Block::tag).sum::<u64>()
    });
    // Which entries are left is chance, the sum of all that ever were is not.
    let checksum = kept.fold(checksum, u64::wrapping_add);
    Ok(Outcome::new(checksum, (shelves, sessions)))
}

/// One worker: answers that many requests; a digest of all blocks it has freed, and its sessions.
fn serve(number: usize, requests: usize, shelves: &[Mutex<Shelf>]) -> (u64, Vec<Session>) {
    let mut rng = Rng::with_seed(20 + u64::try_from(number).unwrap_or(0));
    let mut sessions: Vec<Session> = (0..SESSIONS).map(|_| session(&mut rng)).collect();
    let mut sum = 0_u64;
    // Its own numbers: how many are drawn to make room is chance.
    let mut evict = rng.fork();
    let mut due_bytes = 0;
    for counter in 0..requests {
        sum = sum.wrapping_add(answer(&mut rng, counter));
        let (least, most) = KINDS[counter * ROUNDS * KINDS.len() / requests % KINDS.len()];
        due_bytes += 1_024;
        while due_bytes >= most {
            let size = rng.usize(least..=most);
            due_bytes -= size;
            let shelf = &shelves[rng.usize(..SHELVES)];
            let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
            sum = sum.wrapping_add(shelf.add(Block::filled(size, tag(counter)), &mut evict));
        }
        if counter.is_multiple_of(4) {
            sessions[rng.usize(..SESSIONS)] = session(&mut rng);
        }
    }
    (sum, sessions)
}

/// What a connection keeps: a state, two buffers and a few attributes.
type Session = Vec<Block>;

/// A new session.
fn session(rng: &mut Rng) -> Session {
    let buffers = [600, 4_096, rng.usize(4_096..=8_192)];
    let attributes: Vec<usize> = (0..12).map(|_| rng.usize(16..=200)).collect();
    let sizes = buffers.into_iter().chain(attributes);
    sizes.map(|size| Block::filled(size, 1)).collect()
}

/// Handles one request: parsed parts, and an answer of unknown length; a digest of both.
fn answer(rng: &mut Rng, counter: usize) -> u64 {
    let parts: Vec<Block> = (0..12)
        .map(|_| Block::filled(rng.usize(16..=256), tag(counter)))
        .collect();
    let mut text: Vec<u8> = Vec::new();
    for _ in 0..rng.usize(1..=32) {
        text.extend_from_slice(&[tag(counter); 128]);
    }
    parts.iter().map(Block::tag).sum::<u64>() + text.len() as u64
}

/// A part of the cache.
#[derive(Debug, Default)]
struct Shelf {
    entries: Vec<Block>,
    bytes: usize,
}

impl Shelf {
    /// Adds an entry and drops others at random until there is room; a digest of those.
    fn add(&mut self, entry: Block, rng: &mut Rng) -> u64 {
        self.bytes += entry.size();
        self.entries.push(entry);
        let mut sum = 0_u64;
        while self.bytes > SHELF_BYTES {
            let dropped = self.entries.swap_remove(rng.usize(..self.entries.len()));
            self.bytes -= dropped.size();
            sum = sum.wrapping_add(dropped.tag());
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shelf that drops too little would make the live data grow with the work.
    #[test]
    fn shelf_keeps_to_its_bytes_and_accounts_for_all_entries() {
        let mut rng = Rng::with_seed(1);
        let mut shelf = Shelf::default();
        let mut dropped = 0;
        for _ in 0..2_000 {
            dropped += shelf.add(Block::new(rng.usize(40..=4_000), 1), &mut rng);
            let bytes: usize = shelf.entries.iter().map(Block::size).sum();
            assert_eq!(shelf.bytes, bytes);
            assert!(bytes <= SHELF_BYTES);
        }
        assert_eq!(dropped + shelf.entries.len() as u64, 2_000);
        assert!(shelf.bytes > SHELF_BYTES - 4_000, "{} bytes", shelf.bytes);
    }
}
