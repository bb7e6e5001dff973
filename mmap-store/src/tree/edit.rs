//! Changing a node in place, in the memory of a write transaction.
//!
//! The bytes were validated when the page was copied, or made by `pack`; so offsets are
//! trusted here, and a wrong one panics in the writer instead of reading elsewhere.

use core::iter;

use crate::format::heads::head_of;
use crate::format::node::{HEADER_BYTES, LARGE_FLAG, Node};
use crate::ids::{Alignment, Child, PAGE_BYTES, PageBuf};

/// One entry to be put into a node. For an inner node, `value` is a child's eight bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) large: bool,
}

impl<'a> Item<'a> {
    /// An entry of a leaf that has its value with it.
    pub(crate) fn inline(key: &'a [u8], value: &'a [u8]) -> Self {
        Self {
            key,
            value,
            large: false,
        }
    }
}

/// What kind of node it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) level: u8,
    /// Of the values in a leaf.
    pub(crate) alignment: Alignment,
}

impl Shape {
    /// A leaf of a table with this alignment.
    pub(crate) fn leaf(alignment: Alignment) -> Self {
        Self {
            level: 0,
            alignment: alignment.in_leaf(),
        }
    }

    /// An inner node.
    pub(crate) fn inner(level: u8) -> Self {
        Self {
            level,
            alignment: Alignment::NONE,
        }
    }

    /// That of a node which was validated.
    pub(crate) fn of(node: &Node<'_>) -> Self {
        Self {
            level: node.level(),
            alignment: node.alignment().expect("the node was validated"),
        }
    }
}

/// Eight bytes of an inner node's entry.
pub(crate) fn child_bytes(child: Child) -> [u8; 8] {
    (u64::from(child.page) | u64::from(child.crc) << 32).to_le_bytes()
}

/// A node that may be changed.
#[derive(Debug)]
pub(crate) struct NodeMut<'a>(pub(crate) &'a mut PageBuf);

impl<'n> NodeMut<'n> {
    fn u16(&self, at: usize) -> usize {
        usize::from(u16::from_le_bytes([self.0[at], self.0[at + 1]]))
    }

    fn set_u16(&mut self, at: usize, value: usize) {
        let value = u16::try_from(value).expect("offsets in a page are small");
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn count(&self) -> usize {
        self.u16(2)
    }

    fn is_leaf(&self) -> bool {
        self.0[1] == 0
    }

    fn heads_at(&self) -> usize {
        HEADER_BYTES + self.u16(4).next_multiple_of(4)
    }

    fn slots_at(&self) -> usize {
        self.heads_at() + 4 * self.count()
    }

    fn entry_at(&self, index: usize) -> usize {
        self.u16(self.slots_at() + 2 * index)
    }

    /// Bytes of the entry at `index` in the heap.
    fn entry_bytes(&self, index: usize) -> usize {
        let at = self.entry_at(index);
        let rest = self.u16(at).saturating_sub(4);
        if self.is_leaf() {
            4 + rest + (self.u16(at + 2) & !usize::from(LARGE_FLAG))
        } else {
            10 + rest
        }
    }

    /// Puts `item` at `index`; false, and nothing changed, if its key does not share the
    /// prefix or there is no room without moving entries.
    pub(crate) fn insert(&mut self, index: usize, item: &Item<'_>) -> bool {
        let prefix_len = self.u16(4);
        let Some(suffix) = item
            .key
            .strip_prefix(&self.0[HEADER_BYTES..HEADER_BYTES + prefix_len])
        else {
            return false;
        };
        let count = self.count();
        let end = self.end_of_value(self.u16(6), item);
        if self.slots_at() + 2 * count + 6 + self.bytes_of(suffix, item) > end {
            return false;
        }
        let at = self.write_entry(end, suffix, item);
        let between = self.u16(6) - end;
        self.set_u16(16, self.u16(16) + between);
        self.open_slot(index, count);
        let head = self.heads_at() + 4 * index;
        self.0[head..head + 4].copy_from_slice(&head_of(suffix).to_le_bytes());
        self.set_u16(2, count + 1);
        let slot = self.slots_at() + 2 * index;
        self.set_u16(slot, at);
        self.set_u16(6, at);
        true
    }

    /// Puts entries into a node that has a prefix and no entries: as inserting one after
    /// another would, but nothing is moved. They have the prefix and fit.
    pub(crate) fn insert_all(&mut self, first: Item<'_>, others: &[Item<'_>]) {
        let (prefix_len, count) = (self.u16(4), others.len() + 1);
        let heads = self.heads_at();
        let slots = heads + 4 * count;
        let (mut heap, mut garbage) = (PAGE_BYTES, 0);
        for (index, item) in iter::once(&first).chain(others).enumerate() {
            let suffix = &item.key[prefix_len..];
            let end = self.end_of_value(heap, item);
            garbage += heap - end;
            heap = self.write_entry(end, suffix, item);
            let head = head_of(suffix).to_le_bytes();
            self.0[heads + 4 * index..][..4].copy_from_slice(&head);
            self.set_u16(slots + 2 * index, heap);
        }
        assert!(slots + 2 * count <= heap, "the entries were measured");
        self.set_u16(2, count);
        self.set_u16(6, heap);
        self.set_u16(16, garbage);
    }

    /// Bytes of an entry in the heap.
    fn bytes_of(&self, suffix: &[u8], item: &Item<'_>) -> usize {
        let rest = suffix.len().saturating_sub(4);
        if self.is_leaf() {
            4 + rest + item.value.len()
        } else {
            10 + rest
        }
    }

    /// Writes an entry that ends at `end`, and says where it begins.
    fn write_entry(&mut self, end: usize, suffix: &[u8], item: &Item<'_>) -> usize {
        let at = end - self.bytes_of(suffix, item);
        let is_leaf = self.is_leaf();
        let entry = &mut self.0[at..end];
        let len = |bytes: usize| u16::try_from(bytes).expect("lengths in a page are small");
        entry[..2].copy_from_slice(&len(suffix.len()).to_le_bytes());
        let rest = suffix.get(4..).unwrap_or(&[]);
        if is_leaf {
            let flag = if item.large { LARGE_FLAG } else { 0 };
            entry[2..4].copy_from_slice(&(len(item.value.len()) | flag).to_le_bytes());
            let (key, value) = entry[4..].split_at_mut(rest.len());
            key.copy_from_slice(rest);
            value.copy_from_slice(item.value);
        } else {
            entry[2..10].copy_from_slice(item.value);
            entry[10..].copy_from_slice(rest);
        }
        at
    }

    /// Where the next entry can end: below the others, which begin at `heap`, and so that
    /// its value is aligned.
    fn end_of_value(&self, heap: usize, item: &Item<'_>) -> usize {
        if !self.is_leaf() || item.large {
            return heap;
        }
        let mask = (1 << self.0[18]) - 1;
        let start = heap.saturating_sub(item.value.len()) & !mask;
        start + item.value.len()
    }

    /// Moves heads and slots apart for a new one at `index`; the count is still the old.
    fn open_slot(&mut self, index: usize, count: usize) {
        let (heads, slots) = (self.heads_at(), self.slots_at());
        let end = slots + 2 * count;
        self.0
            .copy_within(slots + 2 * index..end, slots + 2 * index + 6);
        self.0.copy_within(slots..slots + 2 * index, slots + 4);
        self.0
            .copy_within(heads + 4 * index..slots, heads + 4 * index + 4);
    }

    /// Takes the entry at `index` out. The first of an inner node is not taken out here,
    /// since the next one would have to lose its key.
    pub(crate) fn remove(&mut self, index: usize) {
        debug_assert!(self.is_leaf() || index > 0, "rebuild the node");
        let (heads, slots, count) = (self.heads_at(), self.slots_at(), self.count());
        let (at, bytes) = (self.entry_at(index), self.entry_bytes(index));
        if at == self.u16(6) {
            self.set_u16(6, at + bytes);
        } else {
            let garbage = self.u16(16) + bytes;
            self.set_u16(16, garbage);
        }
        self.0
            .copy_within(heads + 4 * (index + 1)..slots, heads + 4 * index);
        self.0.copy_within(slots..slots + 2 * index, slots - 4);
        let end = slots + 2 * count;
        self.0
            .copy_within(slots + 2 * (index + 1)..end, slots - 4 + 2 * index);
        self.set_u16(2, count - 1);
    }

    /// Replaces the value at `index` if its place has the same length.
    pub(crate) fn replace_value(&mut self, index: usize, value: &[u8], large: bool) -> bool {
        let at = self.entry_at(index);
        let flag = if large { usize::from(LARGE_FLAG) } else { 0 };
        if self.u16(at + 2) != value.len() | flag {
            return false;
        }
        let end = at + self.entry_bytes(index);
        self.0[end - value.len()..end].copy_from_slice(value);
        true
    }

    /// The bytes of the value at `index` of a leaf.
    pub(crate) fn into_value(self, index: usize) -> &'n mut [u8] {
        let end = self.entry_at(index) + self.entry_bytes(index);
        let len = self.u16(self.entry_at(index) + 2) & !usize::from(LARGE_FLAG);
        &mut self.0[end - len..end]
    }

    /// Lets the entry at `index` of an inner node name another child.
    pub(crate) fn set_child(&mut self, index: usize, child: Child) {
        let at = self.entry_at(index);
        self.0[at + 2..at + 10].copy_from_slice(&child_bytes(child));
    }

    pub(crate) fn set_born(&mut self, txn: u64) {
        self.0[8..16].copy_from_slice(&txn.to_le_bytes());
    }

    /// An empty node with this prefix.
    pub(crate) fn reset(&mut self, shape: Shape, prefix: &[u8]) {
        self.0.fill(0);
        self.0[0] = if shape.level == 0 {
            crate::format::node::LEAF
        } else {
            crate::format::node::INNER
        };
        self.0[1] = shape.level;
        self.0[18] = shape.alignment.shift();
        self.set_u16(4, prefix.len());
        self.set_u16(6, PAGE_BYTES);
        self.0[HEADER_BYTES..HEADER_BYTES + prefix.len()].copy_from_slice(prefix);
    }
}

/// The node in memory that the store itself wrote.
#[inline]
pub(crate) fn own(page: &PageBuf) -> Node<'_> {
    Node::parse(page).expect("a node of this transaction is well formed")
}

/// The children of an inner node that the store itself wrote.
pub(crate) fn own_children(page: &PageBuf) -> impl DoubleEndedIterator<Item = Child> {
    let node = own(page);
    (0..node.count()).map(move |index| node.child(index).expect("the node is our own"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Flaw;

    #[test]
    fn a_leaf_with_a_value_at_a_wrong_place_is_not_valid() {
        let mut page = [0; PAGE_BYTES];
        let mut node = NodeMut(&mut page);
        let alignment = Alignment::new(16).expect("a power of two");
        node.reset(Shape::leaf(alignment), b"");
        for (index, key) in [b"a", b"b"].into_iter().enumerate() {
            let value = b"thirteen long";
            let large = false;
            assert!(node.insert(index, &Item { key, value, large }));
        }
        assert_eq!(own(&page).validate(), Ok(()));
        // 4096 - 16 is a multiple of 16, and not of 32.
        page[18] = 5;
        assert_eq!(own(&page).validate(), Err(Flaw::Alignment));
        // No leaf has an alignment above 64.
        page[18] = 7;
        assert_eq!(own(&page).validate(), Err(Flaw::Header));
    }
}
