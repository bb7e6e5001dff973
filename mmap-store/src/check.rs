//! Walking everything: is each page what its parent says, once, and accounted for?
//!
//! Opening for writing waits for the walk over nodes, so two threads share a large table:
//! each walks half of the root's children with a map of its own of the pages that it met,
//! and pages that are in both maps are used twice.

use core::ops::Range;
use std::thread;

use crate::compressed::can_be_unpacked;
use crate::error::{Flaw, Problem, ReadError};
use crate::format::node::{Entry, Node};
use crate::format::pair;
use crate::format::table::{LargeRef, TableRecord, decode_schema};
use crate::ids::{Alignment, Child, Extent, FIRST_PAGE, PageId};
use crate::schema::Compression;
use crate::shared::Shared;
use crate::tree::search::value_of;

/// What [`Store::check`](crate::Store::check) found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Tables walked.
    pub tables: u64,
    /// Entries walked, in all tables.
    pub entries: u64,
    /// Pages of the file that the newest version reaches.
    pub live_pages: u64,
    /// Pages that may be written to at once.
    pub free_pages: u64,
    /// Pages that a snapshot or the last checkpoint still holds.
    pub held_pages: u64,
    /// Everything that is wrong; empty for a sound store.
    pub problems: Vec<Problem>,
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckProgress {
    /// Pages looked at so far.
    pub met: u64,
    /// Pages of the file; those of one that shrinks or has holes are not all met.
    pub pages: u64,
}

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What a writer relies on: every node, every page's owner. Large values are placed
    /// and not read, and pages that are nowhere are left there.
    Nodes,
    /// Everything.
    All,
}

/// No more lost pages are listed one by one: a file may have holes for ever.
const MOST_LOST: usize = 1 << 16;

/// A file of more pages is walked by two threads when it is opened.
const SHARED_PAGES: u32 = if cfg!(test) { 16 } else { 1024 };

/// The entries of a table.
#[derive(Clone, Copy, Debug, Default)]
struct Entries {
    found: u64,
    /// Those that no multi-map has.
    no_pairs: u64,
}

impl Entries {
    fn count(&mut self, multi_map: bool, leaf: &Node<'_>, index: usize) {
        self.found += 1;
        self.no_pairs += u64::from(multi_map && !is_pair(leaf, index));
    }
}

/// The walk.
struct Walk<'s> {
    shared: &'s Shared,
    report: CheckReport,
    depth: Depth,
    /// The version that is walked: no page is from later.
    txn: u64,
    /// Where values of the tree that is walked start.
    alignment: Alignment,
    /// How they may be packed.
    compression: Option<Compression>,
    /// Pages of the file.
    len: u32,
    /// Pages met so far, a bit each.
    seen: Vec<u64>,
    /// How many.
    met: u64,
    /// Is told after each [`STRIDE`] of them.
    progress: &'s mut dyn FnMut(CheckProgress),
}

/// Pages between two reports of progress: 4 MiB.
const STRIDE: u64 = 1024;

/// What sees the entries of leaves: the leaf, and which of its entries.
type Visit<'v> = &'v mut dyn FnMut(&Node<'_>, usize);

/// Whether an entry is one of a multi-map.
fn is_pair(leaf: &Node<'_>, index: usize) -> bool {
    let (mut pair, mut key) = (Vec::new(), Vec::new());
    let entry = leaf
        .key_into(index, &mut pair)
        .and_then(|()| leaf.entry(index));
    let is_empty = entry.is_ok_and(|entry| entry.value.is_empty());
    is_empty && pair::take_key(&mut &pair[..], &mut key).is_some()
}

/// Checks the newest version. Writers wait meanwhile, readers do not.
pub(crate) fn check(shared: &Shared, depth: Depth) -> CheckReport {
    check_with(shared, depth, &mut |_| {})
}

/// Like [`check`], and says how far it has come.
pub(crate) fn check_with(
    shared: &Shared,
    depth: Depth,
    progress: &mut dyn FnMut(CheckProgress),
) -> CheckReport {
    let mut head = shared.head.lock();
    shared.reclaim(&mut head);
    let mut walk = Walk::new(shared, depth, (head.version.txn, head.len), progress);
    walk.tables(head.version.root);
    if let Err(vanished) = shared.pages.intact(Ok(())) {
        walk.report.problems.push(Problem::Damaged(vanished));
    }
    walk.report.live_pages = walk
        .seen
        .iter()
        .map(|word| u64::from(word.count_ones()))
        .sum();
    walk.report.free_pages = head.space.free_pages();
    walk.report.held_pages = head.space.held_pages();
    for run in head.space.runs().chain([head.durable.map]) {
        walk.meet(run);
    }
    // A checkpoint on its way has a map of free pages that nobody names yet.
    if head.pinned.is_none() && depth == Depth::All {
        let lost = (FIRST_PAGE..head.len).filter(|&page| !walk.has_met(page));
        let lost = lost.take(MOST_LOST).map(|page| Problem::Lost(PageId(page)));
        let lost: Vec<Problem> = lost.collect();
        walk.report.problems.extend(lost);
    }
    walk.report
}

impl<'s> Walk<'s> {
    fn new(
        shared: &'s Shared,
        depth: Depth,
        (txn, len): (u64, u32),
        progress: &'s mut dyn FnMut(CheckProgress),
    ) -> Self {
        Self {
            shared,
            report: CheckReport::default(),
            depth,
            txn,
            alignment: Alignment::NONE,
            compression: None,
            len,
            seen: vec![0; len as usize / 64 + 1],
            met: 0,
            progress,
        }
    }

    fn damaged(&mut self, page: u32, flaw: Flaw) {
        let page = PageId(page);
        let error = ReadError::Damaged { page, flaw };
        self.report.problems.push(Problem::Damaged(error));
    }

    fn has_met(&self, page: u32) -> bool {
        let word = self.seen.get(page as usize / 64);
        word.is_some_and(|word| word & (1 << (page % 64)) != 0)
    }

    /// Marks pages as met; false if one was before, or lies outside of the file.
    fn meet(&mut self, extent: Extent) -> bool {
        for page in extent.first..extent.end() {
            if page >= self.len || self.has_met(page) {
                self.report.problems.push(Problem::UsedTwice(PageId(page)));
                return false;
            }
            self.seen[page as usize / 64] |= 1 << (page % 64);
            self.met += 1;
            if self.met.is_multiple_of(STRIDE) {
                (self.progress)(CheckProgress {
                    met: self.met,
                    pages: u64::from(self.len),
                });
            }
        }
        true
    }

    fn tables(&mut self, root: Child) {
        let mut tables = Vec::new();
        self.tree(root, Alignment::NONE, &mut |leaf, index| {
            let mut name = Vec::new();
            let entry = leaf
                .key_into(index, &mut name)
                .and_then(|()| leaf.entry(index));
            // A record is never a large value.
            let entry = entry.ok().filter(|entry| !entry.large);
            let record = entry.and_then(|entry| TableRecord::decode(entry.value));
            let record = record.and_then(|(record, schema)| {
                let options = decode_schema(schema)?;
                let alignment = options.alignment_checked()?;
                let compression = options.value_compression().map(|(method, _)| method);
                Some((record, alignment, compression, options.is_multi_map()))
            });
            tables.push((String::from_utf8_lossy(&name).into_owned(), record));
        });
        for (table, record) in tables {
            self.report.tables += 1;
            let Some((record, alignment, compression, multi_map)) = record else {
                self.damaged(root.page, Flaw::Record);
                continue;
            };
            self.compression = compression;
            let entries = self.table(record.root, alignment, multi_map);
            self.compression = None;
            if entries.no_pairs > 0 {
                self.damaged(record.root.page, Flaw::Record);
            }
            self.report.entries += entries.found;
            if entries.found != record.len {
                self.report.problems.push(Problem::Len {
                    table,
                    recorded: record.len,
                    found: entries.found,
                });
            }
        }
    }

    /// Walks a table, in two threads if it is worth while.
    fn table(&mut self, root: Child, alignment: Alignment, multi_map: bool) -> Entries {
        let is_large = self.depth == Depth::Nodes && self.len > SHARED_PAGES;
        self.alignment = alignment;
        let entered = (is_large && !root.is_none()).then(|| self.enter(root, None));
        let mut entries = Entries::default();
        match entered {
            None => self.tree(root, alignment, &mut |leaf, index| {
                entries.count(multi_map, leaf, index);
            }),
            Some(None) => {}
            Some(Some(node)) if node.is_leaf() => {
                entries = self.part((root, &node), 0..node.count(), multi_map);
            }
            Some(Some(node)) => entries = self.halves((root, &node), multi_map),
        }
        entries
    }

    /// Walks the children of a root, half of them in another thread.
    fn halves(&mut self, root: (Child, &Node<'_>), multi_map: bool) -> Entries {
        let (count, middle) = (root.1.count(), root.1.count() / 2);
        let (shared, depth, file) = (self.shared, self.depth, (self.txn, self.len));
        let alignment = self.alignment;
        let upper = move || {
            let mut silent = |_| {};
            let mut walk = Walk::new(shared, depth, file, &mut silent);
            walk.alignment = alignment;
            let entries = walk.part(root, middle..count, multi_map);
            (entries, walk.seen, walk.met, walk.report.problems)
        };
        thread::scope(|scope| {
            let builder = thread::Builder::new().name("brickyard-open".into());
            let Ok(other) = builder.spawn_scoped(scope, upper) else {
                return self.part(root, 0..count, multi_map);
            };
            let mut entries = self.part(root, 0..middle, multi_map);
            let joined = other.join();
            let (others, seen, met, problems) =
                joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            entries.found += others.found;
            entries.no_pairs += others.no_pairs;
            self.met += met;
            self.report.problems.extend(problems);
            for (index, (ours, theirs)) in self.seen.iter_mut().zip(seen).enumerate() {
                let both = *ours & theirs;
                *ours |= theirs;
                if both != 0 {
                    let page = u32::try_from(index * 64).expect("a file has 2³¹ pages at most");
                    let page = PageId(page + both.trailing_zeros());
                    self.report.problems.push(Problem::UsedTwice(page));
                }
            }
            entries
        })
    }

    /// Walks a part of a root's entries or children.
    fn part(
        &mut self,
        (root, node): (Child, &Node<'_>),
        part: Range<usize>,
        multi_map: bool,
    ) -> Entries {
        let mut entries = Entries::default();
        let walked = self.entries(root, node, part, (&[], None), &mut |leaf, index| {
            entries.count(multi_map, leaf, index);
        });
        if let Err(flaw) = walked {
            self.damaged(root.page, flaw);
        }
        entries
    }

    fn tree(&mut self, root: Child, alignment: Alignment, visit: Visit<'_>) {
        self.alignment = alignment;
        if !root.is_none() {
            self.node(root, None, (&[], None), visit);
        }
    }

    /// Walks what is under `child`, whose keys must lie in `bounds`.
    fn node(
        &mut self,
        child: Child,
        level: Option<u8>,
        bounds: (&[u8], Option<&[u8]>),
        visit: Visit<'_>,
    ) {
        let Some(node) = self.enter(child, level) else {
            return;
        };
        let all = 0..node.count();
        if let Err(flaw) = self.entries(child, &node, all, bounds, visit) {
            self.damaged(child.page, flaw);
        }
    }

    /// The node that `child` names, if it may be there.
    fn enter(&mut self, child: Child, level: Option<u8>) -> Option<Node<'s>> {
        let pages = &self.shared.pages;
        let node = match self.depth {
            Depth::Nodes => pages.node(child),
            Depth::All => pages.node_checked(child),
        };
        let node = match node {
            Ok(node) => node,
            Err(error) => {
                self.report.problems.push(Problem::Damaged(error));
                return None;
            }
        };
        let extent = Extent {
            first: child.page,
            pages: 1,
        };
        if !self.meet(extent) {
            return None;
        }
        let flaw = if level.is_some_and(|level| level != node.level()) {
            Flaw::Level
        } else if level.is_some() && node.count() == 0 {
            Flaw::Header
        } else if node.born() > self.txn {
            Flaw::Born
        } else {
            return Some(node);
        };
        self.damaged(child.page, flaw);
        None
    }

    /// Walks those entries of a node, whose own order is validated.
    fn entries(
        &mut self,
        at: Child,
        node: &Node<'_>,
        part: Range<usize>,
        bounds: (&[u8], Option<&[u8]>),
        visit: Visit<'_>,
    ) -> Result<(), Flaw> {
        let (mut key, mut next) = (Vec::new(), Vec::new());
        let keyed = usize::from(!node.is_leaf());
        if let Some(last) = node.count().checked_sub(1).filter(|&last| last >= keyed) {
            node.key_into(keyed, &mut key)?;
            node.key_into(last, &mut next)?;
            if key.as_slice() < bounds.0 || bounds.1.is_some_and(|end| next.as_slice() >= end) {
                return Err(Flaw::KeyOrder);
            }
        }
        if node.is_leaf() {
            // A validated leaf has its values where it says itself.
            if node.alignment() != Some(self.alignment.in_leaf()) {
                return Err(Flaw::Alignment);
            }
            for index in part {
                let entry = node.entry(index)?;
                if entry.large {
                    self.large(at, entry.value);
                } else if self.alignment.is_outside() {
                    return Err(Flaw::Alignment);
                }
                self.packed(at, &entry);
                visit(node, index);
            }
            return Ok(());
        }
        key.clear();
        key.extend_from_slice(bounds.0);
        if part.start > 0 {
            node.key_into(part.start, &mut key)?;
        }
        for index in part {
            let end = if index + 1 < node.count() {
                node.key_into(index + 1, &mut next)?;
                Some(next.as_slice())
            } else {
                bounds.1
            };
            let below = node.child(index)?;
            self.node(below, Some(node.level() - 1), (&key, end), visit);
            core::mem::swap(&mut key, &mut next);
        }
        Ok(())
    }

    /// Unpacks a value of a compressed table, if its method is compiled in.
    fn packed(&mut self, leaf: Child, entry: &Entry<'_>) {
        let Some(compression) = self.compression.filter(|_| self.depth == Depth::All) else {
            return;
        };
        // What cannot be read is reported already.
        let stored = value_of(&self.shared.pages, leaf, entry);
        if stored.is_ok_and(|stored| !can_be_unpacked(compression, stored)) {
            self.damaged(leaf.page, Flaw::Compressed);
        }
    }

    fn large(&mut self, leaf: Child, reference: &[u8]) {
        let large = LargeRef::decode(reference);
        if large == Some(LargeRef::EMPTY) {
            return;
        }
        let Some((large, extent)) = large.and_then(|large| Some((large, large.extent()?))) else {
            return self.damaged(leaf.page, Flaw::Record);
        };
        if self.depth == Depth::All
            && let Err(error) = self.shared.pages.large_with(&large, true)
        {
            return self.report.problems.push(Problem::Damaged(error));
        }
        if extent.first < FIRST_PAGE {
            return self.damaged(extent.first, Flaw::OutOfFile);
        }
        self.meet(extent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::TableOptions;
    use crate::store::Options;

    /// What could go wrong: a table says that its values are aligned, its leaves say
    /// otherwise, and nobody compares the two.
    #[test]
    fn a_table_whose_leaves_are_not_aligned_as_it_says_is_reported() {
        for (leaves, says) in [(1, 64), (64, 1), (64, 32), (1, 4096), (4096, 1)] {
            let store = Options::new().open_in_memory().expect("address space");
            let mut txn = store.write().expect("sound");
            let made = TableOptions::new().alignment(leaves);
            let table = txn.table_with("t", &made);
            table.expect("new").put(b"k", b"value").expect("sound");
            txn.tables[0].options = TableOptions::new().alignment(says);
            txn.commit().expect("memory");
            let problems = store.check().problems;
            let alignment = |problem: &Problem| {
                let Problem::Damaged(ReadError::Damaged { flaw, .. }) = problem else {
                    return false;
                };
                *flaw == Flaw::Alignment
            };
            // A large value is aligned to anything.
            let sound = (leaves, says) == (4096, 1);
            assert_eq!(problems.iter().any(alignment), !sound, "{leaves} {says}");
        }
    }

    #[test]
    fn a_multi_map_with_a_key_that_is_no_pair_is_reported() {
        for (key, value) in [
            (&b"key"[..], &b""[..]),
            (b"key\x00\x00", b"value"),
            (b"\x00\x01", b""),
        ] {
            let store = Options::new().open_in_memory().expect("address space");
            let mut txn = store.write().expect("sound");
            let mut map = txn.multi_map("m").expect("new");
            map.insert(b"key", b"value").expect("sound");
            txn.commit().expect("memory");
            assert_eq!(store.check().problems, []);
            let mut txn = store.write().expect("sound");
            let table = txn.raw_table("m");
            table.expect("made").put(key, value).expect("sound");
            txn.commit().expect("memory");
            assert_eq!(store.check().problems.len(), 1);
        }
    }
}
