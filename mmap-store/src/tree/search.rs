//! Looking keys up: one at a time, and sixteen at a time.

use crate::error::{Flaw, ReadError, damaged};
use crate::format::node::{Aim, Entry, Node};
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
#[inline]
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
    value_in(source, at, &leaf, key)
}

#[inline]
fn value_in<'s, S: Source + ?Sized>(
    source: &'s S,
    at: Child,
    leaf: &Node<'s>,
    key: &[u8],
) -> Result<Option<&'s [u8]>, ReadError> {
    let aim = leaf.aim(key);
    pick(source, at, leaf, key, aim)
}

/// The second half of a look-up: the value of `key`, which is at `aim` in `leaf` or not there.
#[inline]
fn pick<'s, S: Source + ?Sized>(
    source: &'s S,
    at: Child,
    leaf: &Node<'s>,
    key: &[u8],
    aim: Aim,
) -> Result<Option<&'s [u8]>, ReadError> {
    let entry = leaf.pick(key, aim);
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
    for keys in keys.chunks(LANES) {
        let mut lanes = [root; LANES];
        let mut level = node_at(pages, root, None)?.level();
        while level > 0 {
            for (lane, key) in lanes.iter_mut().zip(keys) {
                let node = node_at(pages, *lane, Some(level))?;
                let index = node.child_index(key);
                let child = index.and_then(|index| node.child(index));
                *lane = child.map_err(|flaw| damaged(lane.page, flaw))?;
                pages.prefetch(*lane, 0, FRONT_LINES);
            }
            level -= 1;
        }
        let mut aims: [Option<(Node<'_>, Aim)>; LANES] = [None; LANES];
        for ((lane, key), aim) in lanes.iter().zip(keys).zip(&mut aims) {
            let leaf = node_at(pages, *lane, Some(0))?;
            let to = leaf.aim(key);
            if let Some(place) = leaf.place(to.low) {
                pages.prefetch(*lane, place, ENTRY_LINES);
            }
            *aim = Some((leaf, to));
        }
        for ((lane, key), aim) in lanes.iter().zip(keys).zip(&aims) {
            let Some((leaf, to)) = aim else { continue };
            out.push(pick(pages, *lane, leaf, key, *to)?);
        }
    }
    Ok(())
}
