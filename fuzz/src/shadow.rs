//! The oracle: what a heap's program holds, kept in the simplest way.
//!
//! The promises that it checks:
//!
//! 1. Blocks that live at the same time do not overlap.
//! 2. A block is aligned as asked, and not null unless memory is exhausted.
//! 3. A block keeps its content until it is freed, across everything that
//!    happens to other blocks, and a moved block keeps the common prefix.
//! 4. Memory that was asked for zeroed is zero.
//!
//! The shadow keeps addresses and sizes beside the heap and writes nothing but
//! the pattern of [`crate::pattern`] into the blocks.

use core::alloc::Layout;
use core::fmt;
use std::collections::BTreeMap;

use crate::op::Pick;
use crate::pattern::{self, Mismatch};

/// A promise that a heap broke.
#[derive(Debug)]
#[non_exhaustive]
pub enum Defect {
    /// A block overlaps another live one (promise 1).
    Overlap {
        /// The new block.
        new: core::ops::Range<usize>,
        /// The one that lives there.
        old: core::ops::Range<usize>,
    },
    /// A block is not aligned as asked (promise 2).
    Misaligned {
        /// Its address.
        address: usize,
        /// What was asked for.
        layout: Layout,
    },
    /// No block, though memory is not exhausted (promise 2).
    Refused(Layout),
    /// A block of a size that no address space holds (promise 2).
    Absurd(Layout),
    /// A block's content changed (promise 3).
    Content {
        /// The block's address.
        address: usize,
        /// The block's layout.
        layout: Layout,
        /// Where the content differs.
        mismatch: Mismatch,
    },
    /// A block that should be zero is not (promise 4).
    NotZeroed {
        /// The block's address.
        address: usize,
        /// The block's layout.
        layout: Layout,
        /// Where it is not.
        mismatch: Mismatch,
    },
    /// A figure of the statistics contradicts the oracle.
    Statistics(String),
    /// The heap's own check failed.
    Invariant(String),
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap { new, old } => {
                write!(f, "new block {new:#x?} overlaps live block {old:#x?}")
            }
            Self::Misaligned { address, layout } => {
                write!(f, "block at {address:#x} is not aligned for {layout:?}")
            }
            Self::Refused(layout) => write!(f, "no block for {layout:?}"),
            Self::Absurd(layout) => write!(f, "a block for the absurd {layout:?}"),
            Self::Content {
                address,
                layout,
                mismatch,
            } => {
                write!(
                    f,
                    "content of {layout:?} at {address:#x} changed: {mismatch:?}"
                )
            }
            Self::NotZeroed {
                address,
                layout,
                mismatch,
            } => {
                write!(f, "{layout:?} at {address:#x} is not zeroed: {mismatch:?}")
            }
            Self::Statistics(what) => write!(f, "statistics: {what}"),
            Self::Invariant(what) => write!(f, "validate: {what}"),
        }
    }
}

impl core::error::Error for Defect {}

/// A live block.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Where it lies.
    pub ptr: *mut u8,
    /// What was asked for.
    pub layout: Layout,
    /// The number its content is derived from.
    id: u64,
}

impl Block {
    fn address(&self) -> usize {
        self.ptr.addr()
    }
}

/// All live blocks of one heap.
#[derive(Debug, Default)]
pub struct Shadow {
    /// In order of age.
    blocks: Vec<Block>,
    /// Start and end of every block that has bytes; disjoint (promise 1).
    ranges: BTreeMap<usize, usize>,
    /// Sum of the sizes of `blocks`.
    requested_bytes: usize,
    next_id: u64,
}

impl Shadow {
    /// An oracle without blocks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The live blocks, oldest first.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Sum of the sizes of all live blocks.
    #[must_use]
    pub fn requested_bytes(&self) -> usize {
        self.requested_bytes
    }

    /// Bytes of OS pages that hold a part of a live block; the pattern has
    /// touched each of them.
    #[must_use]
    pub fn touched_bytes(&self, os_page_bytes: usize) -> usize {
        let mut counted_to = 0;
        let mut pages = 0;
        for (&start, &end) in &self.ranges {
            let first = (start / os_page_bytes).max(counted_to);
            let after = end.div_ceil(os_page_bytes);
            pages += after.saturating_sub(first);
            counted_to = counted_to.max(after);
        }
        pages * os_page_bytes
    }

    /// Takes note of a block that the heap gave out, checks it and fills it.
    ///
    /// # Errors
    ///
    /// The block breaks promise 1, 2 or 4.
    ///
    /// # Safety
    ///
    /// `ptr` is what an allocator returned for `layout`: unless it overlaps a
    /// block in the shadow, it is valid for `layout.size()` bytes until it is
    /// taken out with [`remove`](Self::remove).
    pub unsafe fn insert(
        &mut self,
        ptr: *mut u8,
        layout: Layout,
        zeroed: bool,
    ) -> Result<(), Defect> {
        let id = self.next_id;
        self.next_id += 1;
        let block = Block { ptr, layout, id };
        self.claim(&block)?;
        if zeroed {
            // SAFETY: valid for `layout.size()` bytes by contract, `claim` found
            // no other block there; zeroed memory is initialised.
            unsafe { pattern::check_zero(ptr, layout.size()) }.map_err(|mismatch| {
                Defect::NotZeroed {
                    address: ptr.addr(),
                    layout,
                    mismatch,
                }
            })?;
        }
        // SAFETY: valid by contract, and `claim` found no other block there.
        unsafe { pattern::fill(ptr, layout.size(), id) };
        self.blocks.push(block);
        Ok(())
    }

    /// Chooses a live block.
    #[must_use]
    pub fn pick(&self, pick: Pick) -> Option<Block> {
        Some(self.blocks[pick.index(self.blocks.len())?])
    }

    /// Compares a block's content with what was written there.
    ///
    /// # Errors
    ///
    /// The content changed (promise 3).
    pub fn inspect(&self, block: &Block) -> Result<(), Defect> {
        let size = block.layout.size();
        self.compare(block, block.ptr, size)
    }

    /// Checks a block's content and takes it out, for the caller to free it.
    ///
    /// # Errors
    ///
    /// The content changed (promise 3).
    pub fn remove(&mut self, pick: Pick) -> Result<Option<Block>, Defect> {
        let Some(index) = pick.index(self.blocks.len()) else {
            return Ok(None);
        };
        let block = self.blocks.remove(index);
        self.inspect(&block)?;
        self.release(&block);
        Ok(Some(block))
    }

    /// Takes note that `pick` has moved to `ptr` and has `size` bytes now,
    /// checks the common prefix and fills it anew.
    ///
    /// # Errors
    ///
    /// The block breaks promise 1, 2 or 3.
    ///
    /// # Safety
    ///
    /// `ptr` is what an allocator returned for the reallocation of the block
    /// that `pick` chooses to `size` bytes, under the conditions of
    /// [`insert`](Self::insert).
    pub unsafe fn moved(&mut self, pick: Pick, ptr: *mut u8, size: usize) -> Result<(), Defect> {
        let Some(index) = pick.index(self.blocks.len()) else {
            return Ok(());
        };
        let old = self.blocks[index];
        let layout = crate::op::layout_of(size, old.layout.align());
        self.release(&old);
        let new = Block {
            ptr,
            layout,
            id: old.id,
        };
        self.claim(&new)?;
        self.compare(&old, ptr, size.min(old.layout.size()))?;
        // SAFETY: valid by contract, and `claim` found no other block there.
        unsafe { pattern::fill(ptr, size, new.id) };
        self.blocks[index] = new;
        Ok(())
    }

    /// Compares the first `kept` bytes at `ptr` with the content of `block`.
    fn compare(&self, block: &Block, ptr: *const u8, kept: usize) -> Result<(), Defect> {
        // SAFETY: `insert` or `moved` filled the block when it had
        // `block.layout.size() >= kept` bytes, and their contract says that
        // `ptr`, its place now, is valid.
        unsafe { pattern::check(ptr, block.layout.size(), kept, block.id) }.map_err(|mismatch| {
            Defect::Content {
                address: ptr.addr(),
                layout: block.layout,
                mismatch,
            }
        })
    }

    /// Checks address and range of a new block and takes the range.
    fn claim(&mut self, block: &Block) -> Result<(), Defect> {
        let (start, layout) = (block.address(), block.layout);
        if block.ptr.is_null() {
            return Err(Defect::Refused(layout));
        }
        if !start.is_multiple_of(layout.align()) {
            return Err(Defect::Misaligned {
                address: start,
                layout,
            });
        }
        let end = start + layout.size();
        if start == end {
            return Ok(());
        }
        if let Some((&from, &to)) = self.ranges.range(..end).next_back()
            && to > start
        {
            return Err(Defect::Overlap {
                new: start..end,
                old: from..to,
            });
        }
        self.ranges.insert(start, end);
        self.requested_bytes += layout.size();
        Ok(())
    }

    fn release(&mut self, block: &Block) {
        if block.layout.size() > 0 {
            self.ranges.remove(&block.address());
            self.requested_bytes -= block.layout.size();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer to cut pretended blocks from, aligned to 64.
    #[repr(align(64))]
    struct Ground([u8; 4096]);

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// Pretends that an allocator returned `offset` for `layout`.
    fn give(
        shadow: &mut Shadow,
        ground: &mut Ground,
        offset: usize,
        of: Layout,
        zeroed: bool,
    ) -> Result<(), Defect> {
        let ptr = ground.0[offset..offset + of.size()].as_mut_ptr();
        // SAFETY: the slice has `of.size()` bytes, and each test keeps the
        // ground alive for as long as the shadow.
        unsafe { shadow.insert(ptr, of, zeroed) }
    }

    #[test]
    fn two_blocks_that_share_a_byte_are_reported() {
        for second in [0, 1, 63] {
            let (mut shadow, mut ground) = (Shadow::new(), Ground([0; 4096]));
            give(&mut shadow, &mut ground, 64, layout(64, 1), false).unwrap();
            let new = give(&mut shadow, &mut ground, 64 + second, layout(8, 1), false);
            assert!(matches!(new, Err(Defect::Overlap { .. })), "{new:?}");
            let new = give(&mut shadow, &mut ground, 32, layout(33, 1), false);
            assert!(matches!(new, Err(Defect::Overlap { .. })), "{new:?}");
        }
    }

    #[test]
    fn neighbours_are_not_an_overlap() {
        let (mut shadow, mut ground) = (Shadow::new(), Ground([0; 4096]));
        give(&mut shadow, &mut ground, 64, layout(64, 1), false).unwrap();
        give(&mut shadow, &mut ground, 128, layout(64, 1), false).unwrap();
        give(&mut shadow, &mut ground, 0, layout(64, 1), false).unwrap();
        assert_eq!(shadow.requested_bytes(), 192);
        assert_eq!(shadow.touched_bytes(64), 192);
    }

    #[test]
    fn a_misaligned_block_is_reported() {
        let (mut shadow, mut ground) = (Shadow::new(), Ground([0; 4096]));
        let new = give(&mut shadow, &mut ground, 8, layout(64, 16), false);
        assert!(matches!(new, Err(Defect::Misaligned { .. })), "{new:?}");
    }

    #[test]
    fn dirty_memory_given_as_zeroed_is_reported() {
        let (mut shadow, mut ground) = (Shadow::new(), Ground([0; 4096]));
        ground.0[1000] = 1;
        let new = give(&mut shadow, &mut ground, 0, layout(1024, 1), true);
        assert!(matches!(new, Err(Defect::NotZeroed { .. })), "{new:?}");
    }

    #[test]
    fn a_byte_written_behind_the_oracle_is_reported_at_free() {
        let (mut shadow, mut ground) = (Shadow::new(), Ground([0; 4096]));
        give(&mut shadow, &mut ground, 0, layout(100, 1), false).unwrap();
        let block = shadow.pick(Pick::Newest).unwrap();
        // SAFETY: the block's last byte, in the ground, which is still alive.
        unsafe { *block.ptr.add(99) ^= 1 };
        let freed = shadow.remove(Pick::Newest);
        assert!(matches!(freed, Err(Defect::Content { .. })), "{freed:?}");
    }

    #[test]
    fn a_move_that_loses_the_prefix_is_reported() {
        let (mut shadow, mut ground) = (Shadow::new(), Ground([0; 4096]));
        give(&mut shadow, &mut ground, 0, layout(100, 1), false).unwrap();
        let to = ground.0[2048..].as_mut_ptr();
        // SAFETY: 200 bytes of the ground, which outlives the shadow.
        let moved = unsafe { shadow.moved(Pick::Newest, to, 200) };
        assert!(matches!(moved, Err(Defect::Content { .. })), "{moved:?}");
    }

    #[test]
    fn a_move_that_keeps_the_prefix_is_followed() {
        let (mut shadow, mut ground) = (Shadow::new(), Ground([0; 4096]));
        give(&mut shadow, &mut ground, 0, layout(100, 1), false).unwrap();
        ground.0.copy_within(0..100, 2048);
        let to = ground.0[2048..].as_mut_ptr();
        // SAFETY: 200 bytes of the ground, which outlives the shadow.
        unsafe { shadow.moved(Pick::Newest, to, 200) }.unwrap();
        assert_eq!(shadow.requested_bytes(), 200);
        assert!(shadow.remove(Pick::Newest).unwrap().is_some());
        assert_eq!(shadow.requested_bytes(), 0);
    }
}
