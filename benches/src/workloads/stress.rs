//! Stress on one thread: pairs, batches, churn.

use core::hint::black_box;

use anyhow::Result;
use fastrand::Rng;

use super::{Block, Outcome, Setting, tag};

/// Allocates a block and frees it at once, for four sizes in turn: the shortest
/// path through an allocator and nothing else. The block is not written.
pub(super) fn pairs(setting: &mut Setting) -> Result<Outcome> {
    let pairs_a_size = setting.scale.of(10_000_000);
    let checksum = setting.watch.measure(|| {
        pairs_of::<16>(pairs_a_size)
            + pairs_of::<64>(pairs_a_size)
            + pairs_of::<256>(pairs_a_size)
            + pairs_of::<1024>(pairs_a_size)
    });
    Ok(Outcome::new(checksum, ()))
}

/// Pairs of one size, known to the compiler as in `Box::new` of a plain type.
fn pairs_of<const BYTES: usize>(count: usize) -> u64 {
    let mut pairs = 0;
    for _ in 0..count {
        drop(black_box(Box::<[u8; BYTES]>::new_uninit()));
        pairs += 1;
    }
    pairs
}

/// Frees each batch from its first block to its last.
pub(super) fn batch_in_order(setting: &mut Setting) -> Result<Outcome> {
    batch(setting, |_| {})
}

/// Frees each batch from its last block to its first.
pub(super) fn batch_reverse(setting: &mut Setting) -> Result<Outcome> {
    batch(setting, |order| order.reverse())
}

/// Frees each batch in random order.
pub(super) fn batch_random(setting: &mut Setting) -> Result<Outcome> {
    batch(setting, |order| Rng::with_seed(3).shuffle(order))
}

/// Allocates batches of 10,000 blocks of mixed sizes and frees each batch in
/// the order that `arrange` makes of `0..10_000`.
fn batch(setting: &mut Setting, arrange: fn(&mut [usize])) -> Result<Outcome> {
    const BATCH_BLOCKS: usize = 10_000;
    let batches = setting.scale.of(800);
    let mut rng = Rng::with_seed(2);
    let sizes: Vec<usize> = (0..BATCH_BLOCKS).map(|_| rng.usize(8..=512)).collect();
    let mut order: Vec<usize> = (0..BATCH_BLOCKS).collect();
    arrange(&mut order);
    let mut blocks: Vec<Option<Block>> = Vec::with_capacity(BATCH_BLOCKS);
    let checksum = setting.watch.measure(|| {
        let mut sum = 0_u64;
        for counter in 0..batches {
            blocks.extend(
                sizes
                    .iter()
                    .map(|&size| Some(Block::new(size, tag(counter)))),
            );
            for &index in &order {
                sum = sum.wrapping_add(blocks[index].take().map_or(0, |block| block.tag()));
            }
            blocks.clear();
        }
        sum
    });
    Ok(Outcome::new(checksum, blocks))
}

/// A long-running program in small: most blocks are small and short-lived, few
/// are large or old, and both properties are skewed.
///
/// Blocks wait in one of three rings; a new block takes the place of the oldest
/// in its ring. 80 % live for 256 allocations of their ring, 17 % for 8,192,
/// 3 % for 32,768.
pub(super) fn churn(setting: &mut Setting) -> Result<Outcome> {
    let steps = setting.scale.of(12_000_000);
    let mut rings = [Ring::new(256), Ring::new(8_192), Ring::new(32_768)];
    let mut rng = Rng::with_seed(4);
    let checksum = setting.watch.measure(|| {
        let mut sum = 0_u64;
        for counter in 0..steps {
            let ring = match rng.u32(0..100) {
                0..80 => &mut rings[0],
                80..97 => &mut rings[1],
                _ => &mut rings[2],
            };
            let block = Block::new(skewed_size(&mut rng), tag(counter));
            if let Some(oldest) = ring.replace(block) {
                sum = sum.wrapping_mul(31).wrapping_add(oldest.tag());
            }
        }
        sum
    });
    Ok(Outcome::new(checksum, rings))
}

/// Buffers of 33 to 400 KiB, four at a time: each takes the place of the oldest. One byte
/// in 4 KiB is written.
pub(super) fn large_blocks(setting: &mut Setting) -> Result<Outcome> {
    let steps = setting.scale.of(100_000);
    let mut ring = Ring::new(4);
    let mut rng = Rng::with_seed(5);
    let checksum = setting.watch.measure(|| {
        let mut sum = 0_u64;
        for counter in 0..steps {
            let block = Block::paged(rng.usize(33 << 10..=400 << 10), tag(counter));
            if let Some(oldest) = ring.replace(block) {
                sum = sum.wrapping_mul(31).wrapping_add(oldest.tag());
            }
        }
        sum
    });
    Ok(Outcome::new(checksum, ring))
}

/// A size between 8 bytes and 32 KiB; each doubling is half as frequent as the
/// one before.
fn skewed_size(rng: &mut Rng) -> usize {
    let doublings = rng.u32(..).trailing_zeros().min(10);
    let least = 16_usize << doublings;
    rng.usize(least / 2..least * 2)
}

/// The last `n` blocks given to it.
#[derive(Debug)]
struct Ring {
    blocks: Vec<Option<Block>>,
    next: usize,
}

impl Ring {
    /// A ring of that many places.
    fn new(places: usize) -> Self {
        Self {
            blocks: (0..places).map(|_| None).collect(),
            next: 0,
        }
    }

    /// Takes in `block` and returns the one it displaces.
    fn replace(&mut self, block: Block) -> Option<Block> {
        let place = self.next;
        self.next = (self.next + 1) % self.blocks.len();
        self.blocks[place].replace(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skewed_sizes_stay_in_range_and_lean_to_the_small() {
        let mut rng = Rng::with_seed(1);
        let sizes: Vec<usize> = (0..10_000).map(|_| skewed_size(&mut rng)).collect();
        assert!(sizes.iter().all(|size| (8..32_768).contains(size)));
        let small = sizes.iter().filter(|size| **size < 64).count();
        assert!(small > 6_000, "{small} of 10,000 below 64 bytes");
        assert!(sizes.iter().any(|size| *size > 8_192));
    }

    #[test]
    fn ring_returns_blocks_in_the_order_they_came() {
        let mut ring = Ring::new(2);
        assert!(ring.replace(Block::new(8, 1)).is_none());
        assert!(ring.replace(Block::new(8, 2)).is_none());
        assert_eq!(
            ring.replace(Block::new(8, 3)).map(|block| block.tag()),
            Some(1)
        );
        assert_eq!(
            ring.replace(Block::new(8, 4)).map(|block| block.tag()),
            Some(2)
        );
    }
}
