//! What a heap tells about itself.

use core::fmt;

use crate::size_class::BLOCK_BYTES;
use crate::units::CLASS_COUNT;

/// A snapshot of one heap. Byte counts unless named otherwise.
///
/// Taken while other threads work, the figures belong to slightly different moments; on
/// a quiet heap they are exact, but for `requested`. Keeping them costs an allocation or a free
/// nothing where a thread has the block at hand, or room for it; taking
/// a snapshot visits every thread cache and every class, some microseconds.
///
/// The identities that hold on a quiet heap, for each class: blocks of all spans =
/// `live_blocks + cached_blocks - guest_blocks + lent_blocks + free_blocks`; and
/// `requested <= live`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Asked for by allocations that are still live, estimated: each class's blocks by the latest
    /// requests for which a thread had to fetch blocks (a moving average of about 16), so exact where all
    /// requests of a class are alike; what counts as `large` counts whole.
    pub requested: usize,
    /// In blocks that the program holds: `requested` plus the rounding to block sizes.
    pub live: usize,
    /// In free blocks that thread caches hold.
    pub cached: usize,
    /// The part of `cached` in blocks above 32 KiB.
    pub cached_large: usize,
    /// In OS memory that the heap holds and that may be resident, without metadata.
    pub committed: usize,
    /// Upper bound of the memory for metadata: segment headers, tables of lent blocks, thread
    /// caches and, if the heap is hardened, block states.
    pub metadata: usize,
    /// Given back to the operating system since the heap began (it may have been taken
    /// again since).
    pub purged: usize,
    /// In blocks above 32 KiB that the program holds, in samples of the heap profile and in the pages of
    /// guarded blocks; part of `live`.
    pub large: usize,
    /// Each size class, smallest first.
    pub classes: [ClassStats; CLASS_COUNT],
}

/// One size class in a [`Stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// Bytes in a block.
    pub block_size: usize,
    /// Blocks that the program holds.
    pub live_blocks: usize,
    /// Free blocks in thread caches.
    pub cached_blocks: usize,
    /// Free blocks in spans.
    pub free_blocks: usize,
    /// Blocks in spans of this class that are lent, as parts of larger blocks.
    pub lent_blocks: usize,
    /// Blocks of this class, live or cached, that lie in spans of smaller classes.
    pub guest_blocks: usize,
    /// Spans.
    pub spans: usize,
}

impl Stats {
    pub(crate) fn new() -> Self {
        let mut classes = [ClassStats::default(); CLASS_COUNT];
        for (class, &bytes) in classes.iter_mut().zip(BLOCK_BYTES.iter()) {
            class.block_size = bytes as usize;
        }
        Self {
            requested: 0,
            live: 0,
            cached: 0,
            cached_large: 0,
            committed: 0,
            metadata: 0,
            purged: 0,
            large: 0,
            classes,
        }
    }

    /// The share of committed memory that holds no live block: `1 − live ÷ committed`,
    /// from 0 (none) to 1. It counts free blocks, cached blocks and memory kept for reuse;
    /// rounding inside blocks is `live − requested`.
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn fragmentation(&self) -> f64 {
        if self.committed == 0 {
            return 0.0;
        }
        (1.0 - self.live as f64 / self.committed as f64).max(0.0)
    }
}

/// A summary and one line a class in use.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |bytes: usize| bytes / 1024;
        writeln!(
            f,
            "requested {} KiB, live {} KiB, cached {} KiB, committed {} KiB, purged {} KiB, \
             fragmentation {:.1} %",
            kib(self.requested),
            kib(self.live),
            kib(self.cached),
            kib(self.committed),
            kib(self.purged),
            self.fragmentation() * 100.0,
        )?;
        for class in self.classes.iter().filter(|class| class.spans > 0) {
            writeln!(
                f,
                "{:>6} B: {} live, {} cached, {} free blocks in {} spans",
                class.block_size,
                class.live_blocks,
                class.cached_blocks,
                class.free_blocks,
                class.spans,
            )?;
        }
        Ok(())
    }
}
