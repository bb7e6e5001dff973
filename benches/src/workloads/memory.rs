//! Stress on the memory an allocator holds: changing sizes, growing buffers,
//! bursts, sparse survivors.

use core::time::Duration;
use std::thread;

use anyhow::Result;
use fastrand::Rng;

use super::{Block, Outcome, Scale, Setting, tag};

/// Fills 48 MiB with blocks of one range of sizes, frees nine tenths of them at
/// random, and goes on with another range: can the room of the old sizes serve
/// the new ones? The survivors of all four phases stay.
pub(super) fn phase_change(setting: &mut Setting) -> Result<Outcome> {
    const PHASES: [(usize, usize); 4] = [(32, 96), (400, 1_000), (100, 300), (1_500, 4_000)];
    let full_bytes = setting.scale.of(48 << 20);
    let rounds = 2;
    let mut rng = Rng::with_seed(7);
    let mut live: Vec<(Block, usize)> = Vec::new();
    let checksum = setting.watch.measure(|| {
        let mut sum = 0_u64;
        let mut live_bytes = 0;
        for (least, most) in PHASES.into_iter().cycle().take(PHASES.len() * rounds) {
            while live_bytes < full_bytes {
                let size = rng.usize(least..=most);
                live.push((Block::filled(size, tag(size)), size));
                live_bytes += size;
            }
            rng.shuffle(&mut live);
            for (block, size) in live.drain(live.len() / 10..) {
                sum = sum.wrapping_add(block.tag());
                live_bytes -= size;
            }
        }
        sum
    });
    Ok(Outcome::new(checksum, live))
}

/// Sixteen byte buffers grow side by side to 4 MiB, small strings beside them;
/// half of the buffers are cut to size and kept for one round.
pub(super) fn growing_buffers(setting: &mut Setting) -> Result<Outcome> {
    const BUFFERS: usize = 16;
    const FULL_BYTES: usize = 4 << 20;
    let rounds = setting.scale.of(16);
    let full_bytes = if setting.scale == Scale::Quick {
        FULL_BYTES / 2
    } else {
        FULL_BYTES
    };
    let mut rng = Rng::with_seed(8);
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let checksum = setting.watch.measure(|| {
        let mut sum = 0_u64;
        for _ in 0..rounds {
            let mut buffers: Vec<Vec<u8>> = vec![Vec::new(); BUFFERS];
            let mut lines: Vec<String> = Vec::new();
            while buffers.iter().any(|buffer| buffer.len() < full_bytes) {
                let place = rng.usize(..BUFFERS);
                let chunk = rng.usize(256..16_384);
                if buffers[place].len() < full_bytes {
                    let length = buffers[place].len() + chunk;
                    buffers[place].resize(length, tag(chunk));
                }
                let mut line = String::new();
                (0..chunk % 200).for_each(|_| line.push('x'));
                lines.push(line);
            }
            sum += lines.iter().map(|line| line.len() as u64).sum::<u64>();
            buffers.truncate(BUFFERS / 2);
            buffers.iter_mut().for_each(Vec::shrink_to_fit);
            kept = buffers;
        }
        kept.iter()
            .fold(sum, |sum, buffer| sum + buffer.len() as u64)
    });
    Ok(Outcome::new(checksum, kept))
}

/// Eight bursts of 64 MiB of blocks of 64, 256 and 1,024 bytes; of each burst one
/// block in a hundred survives, and between bursts the program idles. What does
/// it hold at the end, when a hundredth is alive?
pub(super) fn burst_and_idle(setting: &mut Setting) -> Result<Outcome> {
    const BURSTS: usize = 8;
    const SIZES: [usize; 3] = [64, 256, 1024];
    let burst_bytes = setting.scale.of(64 << 20);
    let idle = Duration::from_millis(50);
    let mut rng = Rng::with_seed(9);
    let mut survivors: Vec<Block> = Vec::new();
    let mut checksum = 0_u64;
    for _ in 0..BURSTS {
        setting.watch.measure(|| {
            let mut burst: Vec<Block> = Vec::new();
            let mut bytes = 0;
            while bytes < burst_bytes {
                let size = SIZES[rng.usize(..SIZES.len())];
                burst.push(Block::filled(size, tag(bytes / 64)));
                bytes += size;
            }
            for block in burst {
                checksum = checksum.wrapping_mul(31).wrapping_add(block.tag());
                if rng.u32(..100) == 0 {
                    survivors.push(block);
                }
            }
        });
        thread::sleep(idle);
    }
    Ok(Outcome::new(checksum, survivors))
}

/// Fills up to 25 MiB with blocks of 16 to 512 bytes and frees all but every 25th in the order in
/// which they were allocated, sixteen times. 1 MiB is left, spread evenly: how much does it hold
/// resident? After the first fill a heap need not grow, so that no slow path has a reason of its
/// own to give memory back.
pub(super) fn sparse_survivors(setting: &mut Setting) -> Result<Outcome> {
    const FILLS: usize = 16;
    const FULL_BYTES: usize = 25 << 20;
    const ONE_IN: usize = 25;
    let fills = setting.scale.of(FILLS);
    let mut rng = Rng::with_seed(10);
    let mut live: Vec<Block> = Vec::new();
    let checksum = setting.watch.measure(|| {
        let mut sum = 0_u64;
        let mut live_bytes = 0;
        for _ in 0..fills {
            while live_bytes < FULL_BYTES {
                let size = rng.usize(16..=512);
                live.push(Block::filled(size, tag(live.len())));
                live_bytes += size;
            }
            let mut place = 0_usize;
            live.retain(|block| {
                place += 1;
                let survives = place.is_multiple_of(ONE_IN);
                if !survives {
                    sum = sum.wrapping_mul(31).wrapping_add(block.tag());
                    live_bytes -= block.size();
                }
                survives
            });
        }
        sum
    });
    live.shrink_to_fit();
    Ok(Outcome::new(checksum, live))
}
