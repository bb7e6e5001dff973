//! An incremental backup: the pages that were born since.
//!
//! A node that was born in a transaction of the base, or before, has nothing newer below it:
//! whatever changes copies the nodes above it. So the walk stops there. A large value has no
//! birth of its own and comes along with the leaf that names it.

use std::io::Write;

use crate::backup::{BackupMark, BackupProgress, BackupReport};
use crate::error::{BackupError, Flaw, damaged};
use crate::format::increment::{Header, MOST_BLOCK_PAGES, State, encode_block, encode_end};
use crate::format::node::Node;
use crate::format::table::{LargeRef, TableRecord};
use crate::ids::{Child, Extent};
use crate::pages::Pages;
use crate::shared::Shared;

/// Writes the stream.
struct Stream<'s, 'o> {
    pages: &'s Pages,
    since: u64,
    out: &'o mut dyn Write,
    blocks: u64,
    written: u64,
    progress: &'o mut dyn FnMut(BackupProgress),
}

/// Writes what `shared` has and a backup in the state `base` has not.
pub(crate) fn backup_since(
    shared: &Shared,
    base: State,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(BackupProgress),
) -> Result<BackupReport, BackupError> {
    let still = shared.still()?;
    let result = still.state;
    if base.txn > result.txn || (base.txn == result.txn && base.root != result.root) {
        return Err(BackupError::Base {
            reason: "it is not an earlier state of this store",
        });
    }
    let header = Header {
        base,
        result,
        pages: still.place.end(),
        map: still.place,
        map_crc: crc32c::crc32c(&still.map),
    };
    let mut stream = Stream {
        pages: &shared.pages,
        since: base.txn,
        out,
        blocks: 0,
        written: 0,
        progress,
    };
    stream.write(&header.encode())?;
    stream.tree(result.root, true)?;
    stream.blocks(still.place, &still.map)?;
    shared.pages.intact(Ok(()))?;
    let end = encode_end(stream.blocks);
    stream.write(&end)?;
    stream.out.flush().map_err(BackupError::Stream)?;
    Ok(BackupReport {
        mark: BackupMark(result),
        pages: stream.written,
    })
}

impl Stream<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.out.write_all(bytes).map_err(BackupError::Stream)
    }

    /// Writes the pages of a run.
    fn blocks(&mut self, extent: Extent, data: &[u8]) -> Result<(), BackupError> {
        let most = MOST_BLOCK_PAGES as usize * crate::ids::PAGE_BYTES;
        let firsts = (extent.first..extent.end()).step_by(MOST_BLOCK_PAGES as usize);
        for (first, part) in firsts.zip(data.chunks(most)) {
            let pages = MOST_BLOCK_PAGES.min(extent.end() - first);
            self.write(&encode_block(Extent { first, pages }, part))?;
            self.write(part)?;
            self.blocks += 1;
            self.written += u64::from(pages);
        }
        (self.progress)(BackupProgress {
            pages: self.written,
            of: None,
        });
        Ok(())
    }

    fn tree(&mut self, root: Child, tables: bool) -> Result<(), BackupError> {
        if root.is_none() {
            return Ok(());
        }
        self.node(root, None, tables)
    }

    /// Depth is bounded: each step is one level down.
    fn node(&mut self, child: Child, level: Option<u8>, tables: bool) -> Result<(), BackupError> {
        let pages = self.pages;
        let node = pages.node_checked(child)?;
        if level.is_some_and(|level| level != node.level()) {
            return Err(damaged(child.page, Flaw::Level).into());
        }
        if node.born() <= self.since {
            return Ok(());
        }
        let extent = Extent {
            first: child.page,
            pages: 1,
        };
        self.blocks(extent, pages.page(child)?)?;
        let flawed = |flaw| damaged(child.page, flaw);
        for index in 0..node.count() {
            if !node.is_leaf() {
                let below = node.child(index).map_err(flawed)?;
                self.node(below, Some(node.level() - 1), tables)?;
            } else if tables {
                let entry = node.entry(index).map_err(flawed)?;
                let record = TableRecord::decode(entry.value);
                let (record, _) = record.ok_or(flawed(Flaw::Record))?;
                self.tree(record.root, false)?;
            } else {
                self.value(child, &node, index)?;
            }
        }
        Ok(())
    }

    fn value(&mut self, leaf: Child, node: &Node<'_>, index: usize) -> Result<(), BackupError> {
        let entry = node.entry(index);
        let entry = entry.map_err(|flaw| damaged(leaf.page, flaw))?;
        if !entry.large {
            return Ok(());
        }
        let flawed = damaged(leaf.page, Flaw::Record);
        let large = LargeRef::decode(entry.value).ok_or(flawed)?;
        if large == LargeRef::EMPTY {
            return Ok(());
        }
        let extent = large.extent().ok_or(flawed)?;
        self.pages.large_with(&large, true)?;
        let pages = self.pages;
        self.blocks(extent, pages.run(extent)?)
    }
}
