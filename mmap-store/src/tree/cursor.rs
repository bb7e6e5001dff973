//! A place between two entries of a tree, and walking from there both ways.

use core::cmp::Ordering;

use smallvec::SmallVec;

use crate::error::{ReadError, damaged};
use crate::format::node::Node;
use crate::ids::{Child, PAGE_BYTES};
use crate::tree::search::{FRONT_LINES, node_at, value_of};
use crate::tree::work::Source;

/// One node on the way down, and where in it the way goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    child: Child,
    index: usize,
    count: usize,
}

/// Levels of a tree up to some hundred million entries: a path through more of them is
/// kept in memory of its own.
pub(super) const USUAL_LEVELS: usize = 5;
/// How many entries before its turn an entry is asked for, and how many lines of it.
const ENTRIES_AHEAD: usize = 4;
const ENTRY_LINES: usize = 2;
/// Cache lines of a page.
const LINES: usize = PAGE_BYTES / 64;

/// Entries of one leaf, one after another, without looking at the path. Meanwhile the
/// processor is asked for the next leaf, some lines an entry.
#[derive(Clone, Debug)]
pub(crate) struct Window<'s> {
    leaf: Node<'s>,
    child: Child,
    index: usize,
    end: usize,
    /// The next leaf, or none.
    ahead: Child,
    ahead_at: usize,
    /// Lines of it to ask for with each entry.
    stride: usize,
}

impl<'s> Window<'s> {
    /// The entry that comes next, or the number of entries if none does.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// What all keys here begin with.
    pub(crate) fn prefix(&self) -> &'s [u8] {
        self.leaf.prefix()
    }

    /// The next entry's value, and its key in `key`, which holds the prefix and whatever
    /// came after it in the entry before.
    #[inline]
    pub(crate) fn next<S: Source + ?Sized>(
        &mut self,
        source: &'s S,
        key: &mut Vec<u8>,
    ) -> Result<Option<&'s [u8]>, ReadError> {
        if self.index >= self.end {
            return Ok(None);
        }
        if let Some(place) = self.leaf.place(self.index + ENTRIES_AHEAD) {
            source.prefetch(self.child, place, ENTRY_LINES);
        }
        if self.ahead_at < PAGE_BYTES {
            source.prefetch(self.ahead, self.ahead_at, self.stride);
            self.ahead_at += self.stride * 64;
        }
        let flawed = |flaw| damaged(self.child.page, flaw);
        let entry = self.leaf.entry(self.index).map_err(flawed)?;
        key.truncate(self.leaf.prefix().len());
        let suffix = self.leaf.suffix_onto(self.index, &entry, key);
        suffix.map_err(flawed)?;
        self.index += 1;
        value_of(source, self.child, &entry).map(Some)
    }
}

/// A path to an entry.
///
/// Invariant: either `path` is empty, which is the place after the last entry, or its
/// last step is in a leaf and names an entry of it.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    root: Child,
    path: SmallVec<[Step; USUAL_LEVELS]>,
}

impl Cursor {
    /// The first entry whose key is not below `key`; not above it either, if `after` is
    /// false.
    pub(crate) fn seek<S: Source + ?Sized>(
        source: &S,
        root: Child,
        key: &[u8],
        after: bool,
    ) -> Result<Self, ReadError> {
        let mut cursor = Self::end(root);
        if root.is_none() {
            return Ok(cursor);
        }
        let (mut child, mut level) = (root, None);
        loop {
            let node = node_at(source, child, level)?;
            let flawed = |flaw| damaged(child.page, flaw);
            let count = node.count();
            if node.is_leaf() {
                let found = node.search(key).map_err(flawed)?;
                let index = found.index + usize::from(found.exact && after);
                cursor.path.push(Step {
                    child,
                    index,
                    count,
                });
                if index >= count {
                    cursor.settle(source)?;
                }
                return Ok(cursor);
            }
            let index = node.child_index(key).map_err(flawed)?;
            cursor.path.push(Step {
                child,
                index,
                count,
            });
            child = node.child(index).map_err(flawed)?;
            source.prefetch(child, 0, FRONT_LINES);
            level = Some(node.level() - 1);
        }
    }

    /// The place after the last entry.
    pub(crate) fn end(root: Child) -> Self {
        Self {
            root,
            path: SmallVec::new(),
        }
    }

    /// Whether this is the place after the last entry.
    pub(crate) fn is_end(&self) -> bool {
        self.path.is_empty()
    }

    /// The order of two places of one tree.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        for (one, other) in self.path.iter().zip(&other.path) {
            let order = one.index.cmp(&other.index);
            if order != Ordering::Equal {
                return order;
            }
        }
        // Only the end has another length: nothing.
        other.path.len().cmp(&self.path.len())
    }

    /// The entries of the leaf here that come before `until`, if there are any.
    pub(crate) fn window<'s, S: Source + ?Sized>(
        &self,
        source: &'s S,
        until: &Self,
    ) -> Result<Option<Window<'s>>, ReadError> {
        let Some((step, above)) = self.path.split_last() else {
            return Ok(None);
        };
        if self.order(until) != Ordering::Less {
            return Ok(None);
        }
        let same = |(one, other): (&Step, &Step)| one.index == other.index;
        let end = match until.path.split_last() {
            Some((last, until_above)) if above.iter().zip(until_above).all(same) => last.index,
            _ => step.count,
        };
        let leaf = node_at(source, step.child, Some(0))?;
        for index in step.index..end.min(step.index + ENTRIES_AHEAD) {
            if let Some(place) = leaf.place(index) {
                source.prefetch(step.child, place, ENTRY_LINES);
            }
        }
        let mut ahead = Child::NONE;
        if let Some(parent) = above.last()
            && parent.index + 1 < parent.count
        {
            let child = node_at(source, parent.child, Some(1))?.child(parent.index + 1);
            ahead = child.map_err(|flaw| damaged(parent.child.page, flaw))?;
        }
        Ok(Some(Window {
            leaf,
            child: step.child,
            index: step.index,
            end,
            ahead,
            ahead_at: 0,
            stride: LINES / step.count.max(1) + 1,
        }))
    }

    /// To the entry `index` of the leaf here, or on to the next leaf if it has no more.
    pub(crate) fn leave<S: Source + ?Sized>(
        &mut self,
        source: &S,
        index: usize,
    ) -> Result<(), ReadError> {
        if let Some(step) = self.path.last_mut() {
            step.index = index;
        }
        self.settle(source)
    }

    /// Goes on to the next leaf if the leaf has no more entries.
    fn settle<S: Source + ?Sized>(&mut self, source: &S) -> Result<(), ReadError> {
        while let Some(step) = self.path.last().copied() {
            if step.index < step.count {
                return self.descend(source, false);
            }
            self.path.pop();
            if let Some(parent) = self.path.last_mut() {
                parent.index += 1;
            }
        }
        Ok(())
    }

    /// From the last step down to a leaf, along the first or the last entries. A leaf
    /// without entries is not skipped here: no tree has one below its root.
    fn descend<S: Source + ?Sized>(&mut self, source: &S, last: bool) -> Result<(), ReadError> {
        while let Some(step) = self.path.last().copied() {
            let node = node_at(source, step.child, None)?;
            if node.is_leaf() {
                return Ok(());
            }
            let child = node.child(step.index);
            let child = child.map_err(|flaw| damaged(step.child.page, flaw))?;
            let below = node_at(source, child, Some(node.level() - 1))?;
            let count = below.count();
            if count == 0 {
                return Err(damaged(child.page, crate::error::Flaw::Header));
            }
            let index = if last { count - 1 } else { 0 };
            self.path.push(Step {
                child,
                index,
                count,
            });
        }
        Ok(())
    }

    /// To the next entry.
    pub(crate) fn forward<S: Source + ?Sized>(&mut self, source: &S) -> Result<(), ReadError> {
        if let Some(step) = self.path.last_mut() {
            step.index += 1;
        }
        self.settle(source)
    }

    /// To the entry before; false if there is none, and the cursor stays.
    pub(crate) fn back<S: Source + ?Sized>(&mut self, source: &S) -> Result<bool, ReadError> {
        if self.path.is_empty() {
            if self.root.is_none() {
                return Ok(false);
            }
            let count = node_at(source, self.root, None)?.count();
            if count == 0 {
                return Ok(false);
            }
            self.path.push(Step {
                child: self.root,
                index: count - 1,
                count,
            });
            self.descend(source, true)?;
            return Ok(true);
        }
        let Some(keep) = self.path.iter().rposition(|step| step.index > 0) else {
            return Ok(false);
        };
        self.path.truncate(keep + 1);
        self.path[keep].index -= 1;
        self.descend(source, true)?;
        Ok(true)
    }

    /// The entry here: its key into `key`, its value as the result.
    pub(crate) fn entry<'s, S: Source + ?Sized>(
        &self,
        source: &'s S,
        key: &mut Vec<u8>,
    ) -> Result<Option<&'s [u8]>, ReadError> {
        let Some(step) = self.path.last() else {
            return Ok(None);
        };
        let leaf = node_at(source, step.child, Some(0))?;
        let flawed = |flaw| damaged(step.child.page, flaw);
        leaf.key_into(step.index, key).map_err(flawed)?;
        let entry = leaf.entry(step.index).map_err(flawed)?;
        value_of(source, step.child, &entry).map(Some)
    }
}
