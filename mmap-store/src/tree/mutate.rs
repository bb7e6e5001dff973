//! Changing a tree: put, delete, and keeping its nodes neither too full nor too empty.

use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;
use smallvec::SmallVec;

use crate::error::{Flaw, ReadError, damaged};
use crate::format::node::MAX_LEVEL;
use crate::format::table::LargeRef;
use crate::ids::{Alignment, Child, ENTRY_BYTES, INLINE_BYTES, PAGE_BYTES};
use crate::tree::cursor::USUAL_LEVELS;
use crate::tree::edit::{Item, NodeMut, Shape, child_bytes, own};
use crate::tree::memory::ValueMemory;
use crate::tree::pack::{Share, cut, fill, separator, unpack};
use crate::tree::search::{leaf_of, node_at};
use crate::tree::work::{Source, Work};

/// A node with less than this in it looks for a neighbour to join.
const LEAST_USED_BYTES: usize = PAGE_BYTES / 4;
/// Room for the levels that one change can add below the highest level there may be. No
/// tree that this library grew comes near; a forged one is met with an error.
const HIGHEST_CHANGED: u8 = MAX_LEVEL - 4;

/// The nodes from the root to a leaf, all in memory, and the index taken in each.
type Path = SmallVec<[(Child, usize); USUAL_LEVELS]>;

/// A node that takes the place of another; `key` is the first key that belongs to it.
struct Piece<'a> {
    key: &'a [u8],
    child: Child,
}

/// Copies the way to `key` into memory. The last index is the place in the leaf.
fn dirty_path(
    work: &mut Work<'_>,
    root: &mut Child,
    key: &[u8],
) -> Result<(Path, bool), ReadError> {
    if work.node(*root)?.level() > HIGHEST_CHANGED {
        return Err(damaged(root.page, Flaw::Level));
    }
    *root = work.make_dirty(*root)?;
    let (mut at, mut path) = (*root, Path::new());
    loop {
        let node = work.node(at)?;
        let trusted = "the node was validated";
        if node.is_leaf() {
            let found = node.search(key).expect(trusted);
            path.push((at, found.index));
            return Ok((path, found.exact));
        }
        let index = node.child_index(key).expect(trusted);
        let (child, level) = (node.child(index).expect(trusted), node.level() - 1);
        if child.dirty_index().is_none() {
            node_at(work, child, Some(level))?;
        }
        let new = work.make_dirty(child)?;
        if new != child {
            work.edit(at).set_child(index, new);
        }
        path.push((at, index));
        at = new;
    }
}

/// Stores `value` under `key`; true if the key is new.
pub(crate) fn put(
    work: &mut Work<'_>,
    root: &mut Child,
    alignment: Alignment,
    key: &[u8],
    value: &[u8],
) -> Result<bool, ReadError> {
    if is_large(alignment, key, value.len()) {
        let memory = ValueMemory::copy_of(value, alignment);
        return put_owned(work, root, alignment, key, memory);
    }
    put_item(work, root, alignment, &Item::inline(key, value))
}

/// Whether a value of `bytes` bytes gets pages of its own.
pub(crate) fn is_large(alignment: Alignment, key: &[u8], bytes: usize) -> bool {
    // A long key and a long value together could be more than a page.
    bytes > INLINE_BYTES || key.len() + bytes > ENTRY_BYTES || alignment.is_outside()
}

/// Like [`put`], with a value in memory that is the transaction's from then on.
pub(crate) fn put_owned(
    work: &mut Work<'_>,
    root: &mut Child,
    alignment: Alignment,
    key: &[u8],
    value: ValueMemory,
) -> Result<bool, ReadError> {
    if is_large(alignment, key, value.len()) {
        let reference = work.keep_large(value).encode();
        let item = Item {
            key,
            value: &reference,
            large: true,
        };
        return put_item(work, root, alignment, &item);
    }
    put_item(work, root, alignment, &Item::inline(key, &value))
}

/// Stores an entry of a leaf; true if its key is new.
pub(crate) fn put_item(
    work: &mut Work<'_>,
    root: &mut Child,
    alignment: Alignment,
    item: &Item<'_>,
) -> Result<bool, ReadError> {
    if root.is_none() {
        *root = work.new_node();
        fill(work.page_mut(*root), &[], Shape::leaf(alignment));
    }
    let (path, exists) = dirty_path(work, root, item.key)?;
    let &(leaf, index) = path.last().expect("a path ends in a leaf");
    if exists {
        drop_value(work, leaf, index)?;
        if work.edit(leaf).replace_value(index, item.value, item.large) {
            return Ok(false);
        }
        work.edit(leaf).remove(index);
    }
    if !work.edit(leaf).insert(index, item) {
        split_leaf(work, root, &path, item);
    }
    Ok(!exists)
}

/// Where the value of `key` is, which this transaction wrote.
fn own_place(work: &Work<'_>, root: Child, key: &[u8]) -> Result<(Child, usize), ReadError> {
    let (leaf, node) = leaf_of(work, root, key)?;
    let found = node.search(key).map_err(|flaw| damaged(leaf.page, flaw))?;
    debug_assert!(found.exact && leaf.dirty_index().is_some());
    Ok((leaf, found.index))
}

/// The bytes of the value of `key`, which this transaction wrote, in its memory.
pub(crate) fn reserved<'w>(
    work: &'w mut Work<'_>,
    root: Child,
    key: &[u8],
) -> Result<&'w mut [u8], ReadError> {
    let (leaf, index) = own_place(work, root, key)?;
    let entry = work.node(leaf)?.entry(index);
    let entry = entry.map_err(|flaw| damaged(leaf.page, flaw))?;
    let large = entry.large.then(|| LargeRef::decode(entry.value));
    Ok(match large.flatten() {
        Some(large) => work.large_mut(&large),
        None => NodeMut(work.page_mut(leaf)).into_value(index),
    })
}

/// Gives a large value that was written over its checksum.
pub(crate) fn seal_reserved(work: &mut Work<'_>, root: Child, key: &[u8]) -> Result<(), ReadError> {
    let (leaf, index) = own_place(work, root, key)?;
    let entry = work.node(leaf)?.entry(index);
    let entry = entry.map_err(|flaw| damaged(leaf.page, flaw))?;
    if let Some(mut large) = entry.large.then(|| LargeRef::decode(entry.value)).flatten() {
        // What is empty has no pages, and the checksum that nothing has.
        large.crc = crc32c::crc32c(work.large_mut(&large));
        let replaced = work.edit(leaf).replace_value(index, &large.encode(), true);
        assert!(replaced, "references have one length");
    }
    Ok(())
}

/// Gives up the pages of a large value.
fn drop_value(work: &mut Work<'_>, leaf: Child, index: usize) -> Result<(), ReadError> {
    let entry = work.node(leaf)?.entry(index);
    let entry = entry.map_err(|flaw| damaged(leaf.page, flaw))?;
    if !entry.large {
        return Ok(());
    }
    let large = LargeRef::decode(entry.value).ok_or(damaged(leaf.page, Flaw::Record))?;
    work.drop_large(&large)
}

/// Runs `f` with the transaction's scratch memory.
pub(super) fn with_scratch<R>(work: &mut Work<'_>, f: impl FnOnce(&mut Work<'_>, &Bump) -> R) -> R {
    let mut scratch = core::mem::take(&mut work.scratch);
    let result = f(work, &scratch);
    scratch.reset();
    work.scratch = scratch;
    result
}

/// Puts `item` where the leaf has no room for it as it is.
fn split_leaf(work: &mut Work<'_>, root: &mut Child, path: &[(Child, usize)], item: &Item<'_>) {
    with_scratch(work, |work, scratch| {
        let (&(leaf, index), above) = path.split_last().expect("a path ends in a leaf");
        let page = work.page_mut(leaf);
        let node = own(page);
        let (appended, shape) = (index == node.count(), Shape::of(&node));
        let mut items = BumpVec::new_in(scratch);
        unpack(scratch, page, &mut items);
        items.insert(index, *item);
        let share = if appended { Share::Front } else { Share::Even };
        let pieces = lay_out(work, scratch, &items, shape, share, &[leaf]);
        replace(work, scratch, root, above, 0..1, &pieces);
    });
}

/// What a parent files a node under that begins with `first`, behind one that ends with
/// `before`.
pub(super) fn key_between<'a>(before: &Item<'_>, first: &Item<'a>, shape: Shape) -> &'a [u8] {
    if shape.level == 0 {
        separator(before.key, first.key)
    } else {
        first.key
    }
}

/// Lays entries out over nodes, using those of `reuse` first.
fn lay_out<'a>(
    work: &mut Work<'_>,
    scratch: &'a Bump,
    items: &[Item<'_>],
    shape: Shape,
    share: Share,
    reuse: &[Child],
) -> Vec<Piece<'a>> {
    let (mut pieces, mut start) = (Vec::new(), 0);
    for run in cut(items, shape, share) {
        let end = start + run;
        let key = match start {
            0 => &[],
            _ => key_between(&items[start - 1], &items[start], shape),
        };
        let child = reuse.get(pieces.len()).copied();
        let child = child.unwrap_or_else(|| work.new_node());
        fill(work.page_mut(child), &items[start..end], shape);
        pieces.push(Piece {
            key: scratch.alloc_slice_copy(key),
            child,
        });
        start = end;
    }
    pieces
}

/// Puts `pieces` in the place of children of the last node of `path`: those at the index
/// of the path plus `range`. The first piece keeps the first one's key.
fn replace(
    work: &mut Work<'_>,
    scratch: &Bump,
    root: &mut Child,
    path: &[(Child, usize)],
    range: core::ops::Range<usize>,
    pieces: &[Piece<'_>],
) {
    let Some((&(parent, at), above)) = path.split_last() else {
        grow_root(work, scratch, root, pieces);
        return;
    };
    let (first, end) = (at + range.start, at + range.end);
    let mut node = work.edit(parent);
    node.set_child(first, pieces[0].child);
    for index in (first + 1..end).rev() {
        node.remove(index);
    }
    for (offset, piece) in pieces.iter().enumerate().skip(1) {
        let value = child_bytes(piece.child);
        let item = Item {
            key: piece.key,
            value: &value,
            large: false,
        };
        if work.edit(parent).insert(first + offset, &item) {
            continue;
        }
        split_inner(
            work,
            scratch,
            root,
            (parent, above),
            first + offset,
            &pieces[offset..],
        );
        return;
    }
}

/// Puts children in an inner node that has no room for them as it is.
fn split_inner(
    work: &mut Work<'_>,
    scratch: &Bump,
    root: &mut Child,
    (node, above): (Child, &[(Child, usize)]),
    index: usize,
    pieces: &[Piece<'_>],
) {
    let page = work.page_mut(node);
    let old = own(page);
    let (appended, shape) = (index == old.count(), Shape::of(&old));
    let mut items = BumpVec::new_in(scratch);
    unpack(scratch, page, &mut items);
    for (offset, piece) in pieces.iter().enumerate() {
        let item = Item {
            key: scratch.alloc_slice_copy(piece.key),
            value: scratch.alloc_slice_copy(&child_bytes(piece.child)),
            large: false,
        };
        items.insert(index + offset, item);
    }
    let share = if appended { Share::Front } else { Share::Even };
    let parts = lay_out(work, scratch, &items, shape, share, &[node]);
    replace(work, scratch, root, above, 0..1, &parts);
}

/// Puts the tree under `behind`, whose keys are `low` or above it, behind all entries of
/// the tree under `root`. Both have entries.
pub(crate) fn put_behind(
    work: &mut Work<'_>,
    root: &mut Child,
    low: &[u8],
    (behind, level): (Child, u8),
) -> Result<(), ReadError> {
    let mut height = work.node(*root)?.level();
    if height.max(level) > HIGHEST_CHANGED {
        return Err(damaged(root.page, Flaw::Level));
    }
    // The lower tree gets nodes with one child above it until both are as high.
    let wrap = |work: &mut Work<'_>, child: Child, level: u8| {
        let new = work.new_node();
        let value = child_bytes(child);
        let only = Item {
            key: &[],
            value: &value,
            large: false,
        };
        fill(work.page_mut(new), &[only], Shape::inner(level));
        new
    };
    while height < level {
        height += 1;
        *root = wrap(work, *root, height);
    }
    // Down the last children, to the node above the place.
    let mut path = Path::new();
    if height > level {
        *root = work.make_dirty(*root)?;
        let mut at = *root;
        for below in (level..height).rev() {
            let view = own(work.page_mut(at));
            let index = view.count() - 1;
            path.push((at, index));
            if below == level {
                break;
            }
            let trusted = "the node was validated";
            let child = view.child(index).expect(trusted);
            node_at(work, child, Some(below))?;
            let new = work.make_dirty(child)?;
            work.edit(at).set_child(index, new);
            at = new;
        }
    }
    let last = match path.last() {
        Some(&(parent, index)) => own(work.page_mut(parent)).child(index),
        None => Ok(*root),
    };
    let last = last.map_err(|flaw| damaged(root.page, flaw))?;
    with_scratch(work, |work, scratch| {
        let piece = |key, child| Piece { key, child };
        let pieces = [piece(&[][..], last), piece(low, behind)];
        replace(work, scratch, root, &path, 0..1, &pieces);
    });
    Ok(())
}

/// The root became several nodes: puts new ones above until there is one.
fn grow_root(work: &mut Work<'_>, scratch: &Bump, root: &mut Child, pieces: &[Piece<'_>]) {
    *root = pieces[0].child;
    if pieces.len() == 1 {
        return;
    }
    let level = level_of(work, *root) + 1;
    let mut items = BumpVec::new_in(scratch);
    for piece in pieces {
        items.push(Item {
            key: piece.key,
            value: scratch.alloc_slice_copy(&child_bytes(piece.child)),
            large: false,
        });
    }
    let parts = lay_out(work, scratch, &items, Shape::inner(level), Share::Even, &[]);
    grow_root(work, scratch, root, &parts);
}

/// The level of a node that was read before.
fn level_of(work: &Work<'_>, child: Child) -> u8 {
    work.node(child).expect("the node was read before").level()
}

/// Takes `key` out; false if it was not there, and then nothing was copied.
pub(crate) fn delete(work: &mut Work<'_>, root: &mut Child, key: &[u8]) -> Result<bool, ReadError> {
    if root.is_none() {
        return Ok(false);
    }
    let (at, leaf) = leaf_of(work, *root, key)?;
    if !leaf
        .search(key)
        .map_err(|flaw| damaged(at.page, flaw))?
        .exact
    {
        return Ok(false);
    }
    let (mut path, _) = dirty_path(work, root, key)?;
    let (leaf, index) = path.pop().expect("a path ends in a leaf");
    drop_value(work, leaf, index)?;
    work.edit(leaf).remove(index);
    shrink(work, root, path, leaf)?;
    Ok(true)
}

/// Gives up a whole tree.
pub(crate) fn drop_tree(work: &mut Work<'_>, root: Child) -> Result<(), ReadError> {
    if root.is_none() {
        return Ok(());
    }
    let node = work.node(root)?;
    let (mut children, mut values) = (Vec::new(), Vec::new());
    for index in 0..node.count() {
        let flawed = |flaw| damaged(root.page, flaw);
        if !node.is_leaf() {
            let child = node.child(index).map_err(flawed)?;
            node_at(work, child, Some(node.level() - 1))?;
            children.push(child);
            continue;
        }
        let entry = node.entry(index).map_err(flawed)?;
        if entry.large {
            let large = LargeRef::decode(entry.value);
            values.push(large.ok_or(damaged(root.page, Flaw::Record))?);
        }
    }
    for child in children {
        drop_tree(work, child)?;
    }
    for large in values {
        work.drop_large(&large)?;
    }
    work.drop_node(root)
}

/// Joins nodes that have become too empty, from `node` up to the root.
fn shrink(
    work: &mut Work<'_>,
    root: &mut Child,
    mut path: Path,
    mut node: Child,
) -> Result<(), ReadError> {
    let mut empty = own(work.page_mut(node)).count() == 0;
    while let Some(&(parent, index)) = path.last() {
        if empty {
            work.drop_node(node)?;
            // An inner node is never written without children: it goes with the last.
            empty = own(work.page_mut(parent)).count() == 1;
            if !empty {
                remove_child(work, parent, index);
            }
        } else if own(work.page_mut(node)).used_bytes() >= LEAST_USED_BYTES
            || !join(work, root, &path)?
        {
            return Ok(());
        }
        path.pop();
        node = parent;
    }
    if empty {
        work.drop_node(*root)?;
        *root = Child::NONE;
        return Ok(());
    }
    lower_root(work, root)
}

/// Lets an inner root with one child give way to it.
pub(super) fn lower_root(work: &mut Work<'_>, root: &mut Child) -> Result<(), ReadError> {
    loop {
        let view = work.node(*root)?;
        if view.is_leaf() || view.count() > 1 {
            return Ok(());
        }
        let child = view.child(0).map_err(|flaw| damaged(root.page, flaw))?;
        node_at(work, child, Some(view.level() - 1))?;
        work.drop_node(*root)?;
        *root = child;
    }
}

/// Takes one of several children out of an inner node.
fn remove_child(work: &mut Work<'_>, parent: Child, index: usize) {
    if index > 0 {
        work.edit(parent).remove(index);
        return;
    }
    // The next child becomes the first, which has no key: lay the node out anew.
    with_scratch(work, |work, scratch| {
        let page = work.page_mut(parent);
        let (mut items, shape) = (BumpVec::new_in(scratch), Shape::of(&own(page)));
        unpack(scratch, page, &mut items);
        fill(work.page_mut(parent), &items[1..], shape);
    });
}

/// Joins the child that `path` names with a neighbour, or shares their entries evenly.
/// True if the parent lost a child.
fn join(work: &mut Work<'_>, root: &mut Child, path: &[(Child, usize)]) -> Result<bool, ReadError> {
    let &(parent, index) = path.last().expect("the caller looked at it");
    let view = work.node(parent)?;
    if view.count() < 2 {
        // An only child stays as it is; the parent itself may find a neighbour.
        return Ok(true);
    }
    let left = if index + 1 < view.count() {
        index
    } else {
        index - 1
    };
    let trusted = "the node was validated";
    let mut key = Vec::new();
    view.key_into(left + 1, &mut key).expect(trusted);
    let level = view.level() - 1;
    let mut pair = [
        view.child(left).expect(trusted),
        view.child(left + 1).expect(trusted),
    ];
    for (offset, child) in pair.iter_mut().enumerate() {
        node_at(work, *child, Some(level))?;
        *child = work.make_dirty(*child)?;
        work.edit(parent).set_child(left + offset, *child);
    }
    let mut path = path.to_vec();
    path.last_mut().expect("as above").1 = left;
    with_scratch(work, |work, scratch| {
        let page = work.page_mut(pair[0]);
        let (mut items, shape) = (BumpVec::new_in(scratch), Shape::of(&own(page)));
        unpack(scratch, page, &mut items);
        let first_of_right = items.len();
        unpack(scratch, work.page_mut(pair[1]), &mut items);
        if level > 0 {
            items[first_of_right].key = scratch.alloc_slice_copy(&key);
        }
        if cut(&items, shape, Share::Even).len() > 2 {
            return Ok(false);
        }
        let pieces = lay_out(work, scratch, &items, shape, Share::Even, &pair);
        let joined = pieces.len() == 1;
        if joined {
            work.drop_node(pair[1])?;
        }
        replace(work, scratch, root, &path, 0..2, &pieces);
        Ok(joined)
    })
}
