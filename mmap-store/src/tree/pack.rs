//! Laying sorted entries out over as few nodes as possible.
//!
//! The prefix of a node is what its first and last key share, so one more key can make
//! all others longer: a node that takes an outlier may split in more than two.

use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;

use crate::format::node::HEADER_BYTES;
use crate::ids::{Alignment, PAGE_BYTES, PageBuf};
use crate::tree::edit::{Item, NodeMut, Shape, own};

/// How entries that need two nodes are shared between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// As evenly as possible.
    Even,
    /// The first as full as possible: entries are being appended.
    Front,
}

/// Takes the entries of a node, keys whole, out of a copy of it in `scratch`. The first key
/// of an inner node comes out empty.
pub(crate) fn unpack<'a>(scratch: &'a Bump, page: &PageBuf, out: &mut BumpVec<'a, Item<'a>>) {
    let page: &PageBuf = scratch.alloc(*page);
    let node = own(page);
    out.reserve(node.count());
    for index in 0..node.count() {
        let entry = node.entry(index).expect("the node was validated");
        let key = if index == 0 && !node.is_leaf() {
            &[]
        } else {
            let bytes = node.prefix().len() + entry.key_len;
            let mut key = BumpVec::with_capacity_in(bytes, scratch);
            let head = node.head(index).expect("the node was validated");
            key.extend_from_slice_copy(node.prefix());
            key.extend_from_slice_copy(&head[..entry.key_len.min(4)]);
            key.extend_from_slice_copy(entry.rest);
            key.into_bump_slice()
        };
        out.push(Item {
            key,
            value: entry.value,
            large: entry.large,
        });
    }
}

pub(crate) fn common_prefix(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

/// Shortest key that is above `left` and not above `right`.
pub(crate) fn separator<'a>(left: &[u8], right: &'a [u8]) -> &'a [u8] {
    &right[..(common_prefix(left, right) + 1).min(right.len())]
}

/// What the entries of one node share. The first of an inner node has no key.
fn prefix_of<'a>(items: &[Item<'a>], shape: Shape) -> &'a [u8] {
    let keyed = if shape.level == 0 {
        items
    } else {
        items.get(1..).unwrap_or(&[])
    };
    match (keyed.first(), keyed.last()) {
        (Some(first), Some(last)) => &first.key[..common_prefix(first.key, last.key)],
        _ => &[],
    }
}

/// Bytes of an entry in the heap, before its value.
fn front_bytes(item: &Item<'_>, prefix: usize, shape: Shape) -> usize {
    let fixed = if shape.level == 0 { 4 } else { 10 };
    fixed + item.key.len().saturating_sub(prefix + 4)
}

/// Bytes of its value there.
fn value_bytes(item: &Item<'_>, shape: Shape) -> usize {
    if shape.level == 0 {
        item.value.len()
    } else {
        0
    }
}

/// Bytes of an entry whose key loses `prefix` bytes, if no value is aligned.
fn item_bytes(item: &Item<'_>, prefix: usize, shape: Shape) -> usize {
    6 + front_bytes(item, prefix, shape) + value_bytes(item, shape)
}

/// Bytes of a node with these entries.
pub(crate) fn node_bytes(items: &[Item<'_>], shape: Shape) -> usize {
    let prefix = prefix_of(items, shape).len();
    let front = HEADER_BYTES + prefix.next_multiple_of(4);
    if shape.alignment != Alignment::NONE {
        return front + 6 * items.len() + aligned_bytes(items, prefix, shape);
    }
    let own_key = |index: usize, item: &Item<'_>| {
        if shape.level > 0 && index == 0 {
            return 16;
        }
        item_bytes(item, prefix, shape)
    };
    let entries: usize = items
        .iter()
        .enumerate()
        .map(|(i, item)| own_key(i, item))
        .sum();
    front + entries
}

/// Bytes of the heap of a leaf whose values are aligned. They start at the multiples of
/// the alignment, from the end of the page down, as [`NodeMut::insert`] puts them.
fn aligned_bytes(items: &[Item<'_>], prefix: usize, shape: Shape) -> usize {
    items.iter().fold(0, |below_end, item| {
        heap_with(below_end, item, prefix, shape)
    })
}

/// Bytes of a node's heap when `item` comes to those that take `heap` bytes.
pub(crate) fn heap_with(heap: usize, item: &Item<'_>, prefix: usize, shape: Shape) -> usize {
    let end = heap + value_bytes(item, shape);
    let start = if item.large {
        end
    } else {
        end.next_multiple_of(shape.alignment.bytes())
    };
    start + front_bytes(item, prefix, shape)
}

/// Bytes of a node with a prefix of so many bytes, and so many entries in a heap of so
/// many bytes.
pub(crate) fn node_bytes_of(prefix: usize, entries: usize, heap: usize) -> usize {
    HEADER_BYTES + prefix.next_multiple_of(4) + 6 * entries + heap
}

/// Cuts sorted entries into runs that each fit in a node; the lengths of the runs.
pub(crate) fn cut(items: &[Item<'_>], shape: Shape, share: Share) -> Vec<usize> {
    if node_bytes(items, shape) <= PAGE_BYTES {
        return vec![items.len()];
    }
    if share == Share::Even
        && let Some(first) = cut_evenly(items, shape)
    {
        return vec![first, items.len() - first];
    }
    cut_front(items, shape, PAGE_BYTES)
}

/// Cuts sorted entries into runs that each take up to `most` bytes of a node, or are one
/// entry; the lengths of the runs. The last two are shared evenly if the last would be less
/// than half full.
pub(crate) fn cut_at(items: &[Item<'_>], shape: Shape, most: usize) -> Vec<usize> {
    let mut runs = cut_front(items, shape, most);
    if let [.., before, last] = runs.as_mut_slice() {
        let rest = &items[items.len() - *last..];
        let both = &items[items.len() - *last - *before..];
        if node_bytes(rest, shape) < PAGE_BYTES / 2
            && let Some(first) = cut_evenly(both, shape)
        {
            (*before, *last) = (first, both.len() - first);
        }
    }
    runs
}

fn cut_front(items: &[Item<'_>], shape: Shape, most: usize) -> Vec<usize> {
    let (mut runs, mut rest) = (Vec::new(), items);
    while !rest.is_empty() {
        let fits = |&count: &usize| node_bytes(&rest[..count], shape) <= most;
        // With each entry a node becomes larger: the first power of two that does not
        // fit, and then between it and the one before.
        let (mut least, mut end) = (1, 2);
        while end <= rest.len() && fits(&end) {
            (least, end) = (end, end * 2);
        }
        let mut end = end.min(rest.len() + 1);
        while end - least > 1 {
            let middle = least.midpoint(end);
            if fits(&middle) {
                least = middle;
            } else {
                end = middle;
            }
        }
        runs.push(least);
        rest = &rest[least..];
    }
    runs
}

/// The cut in two that comes nearest to halves, if both fit.
fn cut_evenly(items: &[Item<'_>], shape: Shape) -> Option<usize> {
    let total: usize = items.iter().map(|item| item_bytes(item, 0, shape)).sum();
    let mut sum = 0;
    let middle = items.iter().position(|item| {
        sum += item_bytes(item, 0, shape);
        sum * 2 >= total
    })?;
    [middle, middle + 1].into_iter().find(|&at| {
        at > 0
            && at < items.len()
            && node_bytes(&items[..at], shape) <= PAGE_BYTES
            && node_bytes(&items[at..], shape) <= PAGE_BYTES
    })
}

/// Writes the entries, which fit, into `page`.
pub(crate) fn fill(page: &mut PageBuf, items: &[Item<'_>], shape: Shape) {
    let prefix = prefix_of(items, shape);
    let mut node = NodeMut(page);
    node.reset(shape, prefix);
    match items.split_first() {
        Some((first, others)) if shape.level > 0 => {
            // The first entry of an inner node has the shortest key with the prefix.
            let first = Item {
                key: prefix,
                ..*first
            };
            node.insert_all(first, others);
        }
        Some((first, others)) => node.insert_all(*first, others),
        None => {}
    }
    debug_assert_eq!(own(page).validate(), Ok(()));
}
