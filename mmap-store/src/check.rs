//! Walking everything: is each page what its parent says, once, and accounted for?

use crate::error::{Flaw, Problem, ReadError};
use crate::format::table::{LargeRef, TableRecord};
use crate::ids::{Child, Extent, FIRST_PAGE, PageId};
use crate::shared::Shared;

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

/// The walk.
struct Walk<'s> {
    shared: &'s Shared,
    report: CheckReport,
    /// Pages met so far.
    seen: Vec<bool>,
}

/// Checks the newest version. Writers wait meanwhile, readers do not.
pub(crate) fn check(shared: &Shared) -> CheckReport {
    let mut head = shared.head.lock();
    shared.reclaim(&mut head);
    let mut walk = Walk {
        shared,
        report: CheckReport::default(),
        seen: vec![false; head.len as usize],
    };
    let mut tables = Vec::new();
    walk.tree(head.version.root, &mut |key, value| {
        let name = String::from_utf8_lossy(key).into_owned();
        tables.push((name, TableRecord::decode(value)));
    });
    for (table, record) in tables {
        walk.report.tables += 1;
        let Some(record) = record else {
            let page = head.version.root.page;
            walk.damaged(page, Flaw::Record);
            continue;
        };
        let mut found = 0;
        walk.tree(record.root, &mut |_, _| found += 1);
        walk.report.entries += found;
        if found != record.len {
            walk.report.problems.push(Problem::Len {
                table,
                recorded: record.len,
                found,
            });
        }
    }
    walk.report.live_pages = walk.seen.iter().filter(|&&seen| seen).count() as u64;
    walk.report.free_pages = head.space.free_pages();
    walk.report.held_pages = head.space.held_pages();
    for run in head.space.runs().chain([head.durable.map]) {
        walk.meet(run);
    }
    // A checkpoint on its way has a map of free pages that nobody names yet.
    if head.pinned.is_none() {
        let unseen = walk.seen.iter().enumerate().skip(FIRST_PAGE as usize);
        let lost = unseen.filter(|&(_, &seen)| !seen).map(|(page, _)| {
            let page = u32::try_from(page).expect("below the file's length");
            Problem::Lost(PageId(page))
        });
        walk.report.problems.extend(lost);
    }
    walk.report
}

impl Walk<'_> {
    fn damaged(&mut self, page: u32, flaw: Flaw) {
        let page = PageId(page);
        let error = ReadError::Damaged { page, flaw };
        self.report.problems.push(Problem::Damaged(error));
    }

    /// Marks pages as met; false if one was before.
    fn meet(&mut self, extent: Extent) -> bool {
        let mut first_time = true;
        for page in extent.first..extent.end() {
            match self.seen.get_mut(page as usize) {
                Some(seen) if !*seen => *seen = true,
                _ => {
                    self.report.problems.push(Problem::UsedTwice(PageId(page)));
                    first_time = false;
                    break;
                }
            }
        }
        first_time
    }

    fn tree(&mut self, root: Child, visit: &mut dyn FnMut(&[u8], &[u8])) {
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
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) {
        let node = match self.shared.pages.node_checked(child) {
            Ok(node) => node,
            Err(error) => {
                self.report.problems.push(Problem::Damaged(error));
                return;
            }
        };
        let extent = Extent {
            first: child.page,
            pages: 1,
        };
        if !self.meet(extent) {
            return;
        }
        if level.is_some_and(|level| level != node.level()) {
            return self.damaged(child.page, Flaw::Level);
        }
        let mut keys = Vec::new();
        for index in 0..node.count() {
            let mut key = Vec::new();
            if let Err(flaw) = node.key_into(index, &mut key) {
                return self.damaged(child.page, flaw);
            }
            if index == 0 && !node.is_leaf() {
                key = bounds.0.to_vec();
            }
            if key.as_slice() < bounds.0 || bounds.1.is_some_and(|end| key.as_slice() >= end) {
                self.damaged(child.page, Flaw::KeyOrder);
            }
            keys.push(key);
        }
        for (index, key) in keys.iter().enumerate() {
            if node.is_leaf() {
                let Ok(entry) = node.entry(index) else {
                    continue;
                };
                if entry.large {
                    self.large(child, entry.value);
                }
                visit(key, entry.value);
            } else if let Ok(below) = node.child(index) {
                let end = keys.get(index + 1).map(Vec::as_slice).or(bounds.1);
                self.node(below, Some(node.level() - 1), (key, end), visit);
            }
        }
    }

    fn large(&mut self, leaf: Child, reference: &[u8]) {
        let Some(large) = LargeRef::decode(reference) else {
            return self.damaged(leaf.page, Flaw::Record);
        };
        match (self.shared.pages.large_with(&large, true), large.extent()) {
            (Ok(_), Some(extent)) => {
                self.meet(extent);
            }
            (Err(error), _) => self.report.problems.push(Problem::Damaged(error)),
            (Ok(_), None) => self.damaged(leaf.page, Flaw::Record),
        }
    }
}
