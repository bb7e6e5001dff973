//! Looking keys up: one at a time, and sixteen at a time.

use crate::error::{Flaw, ReadError, damaged};
use crate::format::node::{Entry, Hint, Node};
use crate::format::table::LargeRef;
use crate::ids::Child;
use crate::pages::Pages;
use crate::tree::work::Source;

/// Look-ups that wait for memory at the same time.
const LANES: usize = 16;
/// Cache lines of a node that a search begins with: most leaves have no more before their
/// entries.
pub(crate) const FRONT_LINES: usize = 3;
/// Cache lines of a leaf's entry that are worth asking for: key and start of the value.
const ENTRY_LINES: usize = 2;

/// The node that `child` names, which must be on `level`; any level if `None`.
#[inline(always)]
pub(crate) fn node_at<S: Source + ?Sized>(
    source: &S,
    child: Child,
    level: Option<u8>,
) -> Result<Node<'_>, ReadError> {
    let node = source.node(child)?;
    if level.is_some_and(|level| level != node.level()) {
        return Err(damaged(child.page, Flaw::Level));
    }
    Ok(node)
}

/// The leaf under `root` where `key` is or would be. Ends, whatever the pages hold: each
/// step is one level down.
#[inline]
pub(crate) fn leaf_of<'s, S: Source + ?Sized>(
    source: &'s S,
    root: Child,
    key: &[u8],
) -> Result<(Child, Node<'s>), ReadError> {
    let mut at = root;
    let mut node = node_at(source, at, None)?;
    while !node.is_leaf() {
        let flawed = |flaw| damaged(at.page, flaw);
        let index = node.child_index(key).map_err(flawed)?;
        let child = node.child(index).map_err(flawed)?;
        // Header, heads and slots are waited for at once, not one after another.
        source.prefetch(child, 0, FRONT_LINES);
        node = node_at(source, child, Some(node.level() - 1))?;
        at = child;
    }
    Ok((at, node))
}

/// The value of `key`.
#[inline]
pub(crate) fn get<'s, S: Source + ?Sized>(
    source: &'s S,
    root: Child,
    key: &[u8],
) -> Result<Option<&'s [u8]>, ReadError> {
    if root.is_none() {
        return Ok(None);
    }
    let (at, leaf) = leaf_of(source, root, key)?;
    let Some(hint) = leaf.hint(key) else {
        return Ok(None);
    };
    match hint.entry(key).map_err(|flaw| damaged(at.page, flaw))? {
        Some(entry) => value_of(source, at, &entry).map(Some),
        None => value_behind(source, at, &leaf, key, &hint),
    }
}

/// The value of `key`, if an entry behind the hint's is its.
#[inline(never)]
fn value_behind<'s, S: Source + ?Sized>(
    source: &'s S,
    at: Child,
    leaf: &Node<'s>,
    key: &[u8],
    hint: &Hint<'_>,
) -> Result<Option<&'s [u8]>, ReadError> {
    let entry = leaf.pick_behind(key, hint);
    match entry.map_err(|flaw| damaged(at.page, flaw))? {
        Some(entry) => value_of(source, at, &entry).map(Some),
        None => Ok(None),
    }
}

/// The bytes of an entry's value, wherever they lie.
#[inline]
pub(crate) fn value_of<'s, S: Source + ?Sized>(
    source: &'s S,
    at: Child,
    entry: &Entry<'s>,
) -> Result<&'s [u8], ReadError> {
    if !entry.large {
        return Ok(entry.value);
    }
    let large = LargeRef::decode(entry.value).ok_or(damaged(at.page, Flaw::Record))?;
    source.large(&large)
}

/// Looks many keys up, sixteen at a time: while one waits for memory the others go on.
///
/// A leaf is met twice, first its heads and then the entry that they point at: each is a
/// wait of its own.
pub(crate) fn get_many<'s>(
    pages: &'s Pages,
    root: Child,
    keys: &[&[u8]],
    out: &mut Vec<Option<&'s [u8]>>,
) -> Result<(), ReadError> {
    if root.is_none() {
        out.extend(keys.iter().map(|_| None));
        return Ok(());
    }
    let top = node_at(pages, root, None)?;
    for keys in keys.chunks(LANES) {
        let mut lanes = [root; LANES];
        if !top.is_leaf() {
            for (lane, key) in lanes.iter_mut().zip(keys) {
                *lane = step(pages, root, &top, key)?;
            }
        }
        for level in (1..top.level()).rev() {
            for (lane, key) in lanes.iter_mut().zip(keys) {
                let node = node_at(pages, *lane, Some(level))?;
                *lane = step(pages, *lane, &node, key)?;
            }
        }
        let mut hints: [Option<Hint<'_>>; LANES] = [None; LANES];
        for ((lane, key), hint) in lanes.iter().zip(keys).zip(&mut hints) {
            *hint = node_at(pages, *lane, Some(0))?.hint(key);
            if let Some(hint) = hint {
                pages.prefetch(*lane, hint.place, ENTRY_LINES);
            }
        }
        for ((lane, key), hint) in lanes.iter().zip(keys).zip(&hints) {
            let Some(hint) = hint else {
                out.push(None);
                continue;
            };
            let entry = hint.entry(key).map_err(|flaw| damaged(lane.page, flaw))?;
            out.push(match entry {
                Some(entry) => Some(value_of(pages, *lane, &entry)?),
                None => {
                    // Only here is the leaf's header read again.
                    let leaf = node_at(pages, *lane, Some(0))?;
                    value_behind(pages, *lane, &leaf, key, hint)?
                }
            });
        }
    }
    Ok(())
}

/// One level down from `node`, which is at `at`: asks for what is there.
#[inline(always)]
fn step(pages: &Pages, at: Child, node: &Node<'_>, key: &[u8]) -> Result<Child, ReadError> {
    let index = node.child_index(key);
    let child = index.and_then(|index| node.child(index));
    let child = child.map_err(|flaw| damaged(at.page, flaw))?;
    pages.prefetch(child, 0, FRONT_LINES);
    Ok(child)
}
