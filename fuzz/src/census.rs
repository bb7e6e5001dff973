//! Compares a heap's statistics with the oracle.
//!
//! All equations hold while nobody is inside the heap, which a single-threaded
//! driver guarantees:
//!
//! ```text
//! requested             <= live, and 0 when nothing lives
//! live_blocks of class  == live blocks whose layout names that class
//! large                 >= sum of the other live sizes, in whole OS pages
//! large                 <= the same, four times as much for sizes above 1 MiB, and an
//!                          eighth more for the others
//! live                  == large + sum of block_size * live_blocks
//! cached                == cached_large + sum of block_size * cached_blocks
//! committed             >= bytes of OS pages that a live block has touched
//! a class has spans    <=> it has blocks
//! ```
//!
//! A mapping that the heap had kept may be twice as wide as the request it
//! serves, or four times if that is a block that grows, and a run that a thread had kept an eighth wider. There is no upper bound once a call has failed: a mapping that the
//! system refused to cut stays as wide as it was.

use core::alloc::Layout;

use brickyard_arena::{ClassStats, Stats};

use crate::fault::Refusals;
use crate::handles::{Handles, OS_PAGE_BYTES};
use crate::shadow::{Defect, Shadow};

/// Compares the statistics with the live blocks.
///
/// # Errors
///
/// The first figure that contradicts the oracle.
pub fn compare(handles: &Handles<'_>, shadow: &Shadow, refusals: &Refusals) -> Result<(), Defect> {
    let stats = handles.heap().stats();
    let Census {
        counts,
        large,
        slack,
    } = count(handles, shadow);
    let by_class = |figure: fn(&ClassStats) -> usize| -> usize {
        stats
            .classes
            .iter()
            .map(|class| figure(class) * class.block_size)
            .sum()
    };
    between("requested", stats.requested, 0, stats.live)?;
    for (class, &counted) in stats.classes.iter().zip(&counts) {
        equal(
            &format!("live_blocks of {class:?}"),
            class.live_blocks,
            counted,
        )?;
        let outside = class.live_blocks + class.cached_blocks + class.lent_blocks;
        let held = outside + class.free_blocks - class.guest_blocks;
        if (held == 0) != (class.spans == 0) {
            return Err(Defect::Statistics(format!(
                "{class:?}: blocks, or spans, without the other"
            )));
        }
    }
    let most = if refusals.happened() {
        usize::MAX
    } else {
        large + slack
    };
    between("large", stats.large, large, most)?;
    let small = by_class(|class| class.live_blocks);
    equal("live", stats.live, stats.large + small)?;
    equal(
        "cached",
        stats.cached,
        stats.cached_large + by_class(|class| class.cached_blocks),
    )?;
    between(
        "committed",
        stats.committed,
        shadow.touched_bytes(OS_PAGE_BYTES),
        usize::MAX,
    )
}

/// [`compare`] for a hardened heap, whose blocks may be guarded ones, which count as large,
/// and have 16 bytes at least.
///
/// # Errors
///
/// The first figure that contradicts the oracle.
pub fn compare_hardened(handles: &Handles<'_>, shadow: &Shadow) -> Result<(), Defect> {
    let stats = handles.heap().stats();
    between("live", stats.live, shadow.requested_bytes(), usize::MAX)?;
    between("requested", stats.requested, 0, stats.live)?;
    let small: usize = stats
        .classes
        .iter()
        .map(|class| class.live_blocks * class.block_size)
        .sum();
    equal("live", stats.live, stats.large + small)?;
    let blocks: usize = stats.classes.iter().map(|class| class.live_blocks).sum();
    between("live blocks", blocks, 0, shadow.blocks().len())?;
    let touched = shadow.touched_bytes(OS_PAGE_BYTES);
    between("committed", stats.committed, touched, usize::MAX)
}

/// Checks that a heap without live blocks says so.
///
/// # Errors
///
/// A figure that is not zero.
pub fn nothing_lives(stats: &Stats) -> Result<(), Defect> {
    equal("requested, all freed,", stats.requested, 0)?;
    equal("live, all freed,", stats.live, 0)?;
    equal("large, all freed,", stats.large, 0)?;
    for class in &stats.classes {
        equal(
            &format!("live_blocks, all freed, of {class:?}"),
            class.live_blocks,
            0,
        )?;
    }
    Ok(())
}

/// Checks that a heap without live blocks and without caches, just trimmed,
/// keeps nothing: no cached block and no memory.
///
/// # Errors
///
/// A figure that is not zero.
pub fn nothing_rests(stats: &Stats) -> Result<(), Defect> {
    nothing_lives(stats)?;
    equal("cached, all freed and trimmed,", stats.cached, 0)?;
    equal("committed, all freed and trimmed,", stats.committed, 0)
}

/// What the oracle knows about the live blocks.
#[derive(Debug)]
struct Census {
    /// Live blocks of each class.
    counts: Vec<usize>,
    /// Bytes of the others, in whole OS pages.
    large: usize,
    /// Bytes that may come on top of `large`.
    slack: usize,
}

fn count(handles: &Handles<'_>, shadow: &Shadow) -> Census {
    let sizes = handles.block_sizes();
    let mut census = Census {
        counts: vec![0; sizes.len()],
        large: 0,
        slack: 0,
    };
    for block in shadow.blocks() {
        match handles.block_size(block.layout) {
            Some(block_size) => {
                census.counts[sizes.partition_point(|&size| size < block_size)] += 1;
            }
            None => {
                let bytes = os_pages(block.layout);
                census.large += bytes;
                if bytes > LARGEST_EXACT_BYTES || block.layout.align() > LARGEST_EXACT_BYTES {
                    census.slack += 3 * bytes;
                } else {
                    census.slack += bytes / 8;
                }
            }
        }
    }
    census
}

/// Largest size and alignment for which a block above the classes has the OS pages
/// that it needs, or an eighth more.
const LARGEST_EXACT_BYTES: usize = 1 << 20;

/// Bytes of whole OS pages for a layout.
fn os_pages(layout: Layout) -> usize {
    layout.size().max(1).next_multiple_of(OS_PAGE_BYTES)
}

fn equal(name: &str, found: usize, expected: usize) -> Result<(), Defect> {
    between(name, found, expected, expected)
}

fn between(name: &str, found: usize, least: usize, most: usize) -> Result<(), Defect> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(Defect::Statistics(format!(
        "{name} is {found}, should be {least} to {most}"
    )))
}
