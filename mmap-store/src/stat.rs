//! Figures: what a store holds, and what that takes.

use crate::error::{Flaw, ReadError, damaged};
use crate::format::table::LargeRef;
use crate::ids::Child;
use crate::pages::Pages;
use crate::shared::Shared;
use crate::tree::search::node_at;
use crate::txn::read::ReadTxn;

/// What [`Store::stat`](crate::Store::stat) says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStat {
    /// The transaction whose state the tables are.
    pub txn: u64,
    /// Pages of the file.
    pub pages: u64,
    /// Pages that may be written to at once.
    pub free_pages: u64,
    /// Pages that a snapshot or the last checkpoint still holds.
    pub held_pages: u64,
    /// Length of the ring.
    pub ring_bytes: u64,
    /// Bytes of the ring that an open after a crash would replay.
    pub ring_used: u64,
    /// Snapshots that are held through this handle, but for the one this took.
    pub readers: u64,
    /// The tables, in the order of their names.
    pub tables: Vec<TableStat>,
}

/// What a table holds and takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableStat {
    /// Its name.
    pub name: Box<str>,
    /// Entries.
    pub entries: u64,
    /// Levels of nodes, 0 for an empty table: what a look-up goes through.
    pub depth: u64,
    /// Pages that lead to others.
    pub inner_pages: u64,
    /// Pages with entries.
    pub leaf_pages: u64,
    /// Pages of values that are too long for a leaf.
    pub large_pages: u64,
    /// Bytes of all keys.
    pub key_bytes: u64,
    /// Bytes of all values.
    pub value_bytes: u64,
}

/// Walks the newest published version. Waits while a write transaction lives.
pub(crate) fn stat(shared: &Shared) -> Result<StoreStat, ReadError> {
    shared.pages.intact(figures(shared))
}

fn figures(shared: &Shared) -> Result<StoreStat, ReadError> {
    let mut stat = {
        let mut head = shared.head.lock();
        shared.reclaim(&mut head);
        StoreStat {
            pages: u64::from(head.len),
            free_pages: head.space.free_pages(),
            held_pages: head.space.held_pages(),
            ring_bytes: shared.ring_bytes,
            ring_used: head.ring - head.durable.ring_start,
            ..StoreStat::default()
        }
    };
    let mut held = Vec::new();
    shared.versions.held(&mut held);
    stat.readers = held.len() as u64;
    let read = ReadTxn::begin(shared);
    stat.txn = read.txn();
    for info in read.tables()? {
        let mut table = TableStat {
            name: info.name,
            entries: info.entries,
            ..TableStat::default()
        };
        let found = read.raw_table(&table.name)?;
        let root = found.map_or(Child::NONE, |found| found.record.root);
        if !root.is_none() {
            // A forged tree that reaches its pages over and over ends in an error.
            let mut left = shared.pages.len();
            table.depth = 1 + u64::from(node_at(&shared.pages, root, None)?.level());
            walk(&shared.pages, root, None, &mut left, &mut table)?;
        }
        stat.tables.push(table);
    }
    Ok(stat)
}

fn walk(
    pages: &Pages,
    child: Child,
    level: Option<u8>,
    left: &mut u32,
    table: &mut TableStat,
) -> Result<(), ReadError> {
    let flawed = |flaw| damaged(child.page, flaw);
    *left = left.checked_sub(1).ok_or(flawed(Flaw::Record))?;
    let node = node_at(pages, child, level)?;
    if !node.is_leaf() {
        table.inner_pages += 1;
        for index in 0..node.count() {
            let below = node.child(index).map_err(flawed)?;
            walk(pages, below, Some(node.level() - 1), left, table)?;
        }
        return Ok(());
    }
    table.leaf_pages += 1;
    let mut key = Vec::new();
    for index in 0..node.count() {
        let entry = node.entry(index).map_err(flawed)?;
        node.key_into(index, &mut key).map_err(flawed)?;
        table.key_bytes += key.len() as u64;
        if !entry.large {
            table.value_bytes += entry.value.len() as u64;
            continue;
        }
        let large = LargeRef::decode(entry.value).ok_or(flawed(Flaw::Record))?;
        if large == LargeRef::EMPTY {
            continue;
        }
        let extent = large.extent().ok_or(flawed(Flaw::Record))?;
        table.value_bytes += large.len;
        table.large_pages += u64::from(extent.pages);
    }
    Ok(())
}
