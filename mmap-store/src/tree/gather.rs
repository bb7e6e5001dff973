//! Sharing sparse neighbours out over fewer nodes, before a transaction gets its pages.
//!
//! Splits leave nodes two thirds full on average, and removals emptier. Keeping them
//! fuller at each change would cost time each time. Once, at commit, it costs little:
//! nodes in the transaction's memory are written in any case, so neighbours that are all
//! there can be laid out over as few as hold them, with an eighth of each left free for
//! what comes. Nodes that are in the file only are not touched.
//!
//! ```text
//!   ▓▓▓░  ▓▓▓▓  ▓▓░░  ▓▓▓░  ▓▓▓░      in memory, below one parent
//!   ▓▓▓▓  ▓▓▓▓  ▓▓▓▓  ▓▓▓░            one page less to be written, read and kept
//! ```
//!
//! It is done only where an eighth of the nodes is saved: so a table that is changed all
//! over by every transaction is not laid out anew by each.

use core::ops::Range;

use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;

use crate::error::ReadError;
use crate::format::node::HEADER_BYTES;
use crate::ids::{Child, PAGE_BYTES};
use crate::tree::edit::{Item, Shape, own, own_children};
use crate::tree::mutate::{key_between, lower_root, with_scratch};
use crate::tree::pack::{cut_at, fill, node_bytes, unpack};
use crate::tree::work::Work;

/// Bytes up to which nodes are filled.
const FULL_BYTES: usize = PAGE_BYTES - PAGE_BYTES / 8;
/// The share of nodes that must be saved.
const LEAST_SAVED: usize = 8;

/// Does so in the tree under `root`, as far as it is in memory.
pub(crate) fn gather(work: &mut Work<'_>, root: &mut Child) -> Result<(), ReadError> {
    if root.dirty_index().is_none() {
        return Ok(());
    }
    let height = usize::from(own(work.page_mut(*root)).level());
    // One node a level has no neighbours.
    if work.nodes.len() <= height + 1 {
        return Ok(());
    }
    below(work, *root)?;
    lower_root(work, root)
}

/// Gathers what is below `parent`, the lowest levels first. Depth is bounded: each step is
/// one level down.
fn below(work: &mut Work<'_>, parent: Child) -> Result<(), ReadError> {
    let node = own(work.page_mut(parent));
    let level = node.level();
    if level == 0 {
        return Ok(());
    }
    let children: Vec<Child> = own_children(work.page_mut(parent)).collect();
    let mut end = children.len();
    // From the right, so that what is done there moves nothing that is still to come.
    for (index, &child) in children.iter().enumerate().rev() {
        if child.dirty_index().is_none() {
            share_out(work, parent, index + 1..end)?;
            end = index;
        } else if level > 1 {
            below(work, child)?;
        }
    }
    share_out(work, parent, 0..end)
}

fn child_at(work: &mut Work<'_>, parent: Child, index: usize) -> Child {
    let child = own(work.page_mut(parent)).child(index);
    child.expect("the node is our own")
}

/// Shares the children of `parent` in `range`, all in memory, out over fewer nodes if that
/// is worth while.
fn share_out(work: &mut Work<'_>, parent: Child, range: Range<usize>) -> Result<(), ReadError> {
    if range.len() < 2 {
        return Ok(());
    }
    let most = range.len() - (range.len() / LEAST_SAVED).max(1);
    let children: Vec<Child> = range.clone().map(|at| child_at(work, parent, at)).collect();
    let used = children.iter().map(|&child| {
        let used = own(work.page_mut(child)).used_bytes();
        used - HEADER_BYTES
    });
    if used.sum::<usize>().div_ceil(FULL_BYTES - HEADER_BYTES) > most {
        return Ok(());
    }
    let kept = with_scratch(work, |work, scratch| {
        let (items, shape) = entries(work, scratch, parent, range.start, &children);
        let runs = cut_at(&items, shape, FULL_BYTES);
        let page = work.page_mut(parent);
        let (mut above, above_shape) = (BumpVec::new_in(scratch), Shape::of(&own(page)));
        unpack(scratch, page, &mut above);
        let mut start = 0;
        for (at, run) in runs.iter().enumerate() {
            if at > 0 && at < range.len() {
                let key = key_between(&items[start - 1], &items[start], shape);
                above[range.start + at].key = key;
            }
            start += run;
        }
        above.drain(range.end.min(range.start + runs.len())..range.end);
        // The nodes shared prefixes that they may share no longer, and keys between others
        // may be longer.
        if runs.len() > most || node_bytes(&above, above_shape) > PAGE_BYTES {
            return children.len();
        }
        fill(work.page_mut(parent), &above, above_shape);
        let mut rest = &items[..];
        for (&run, &child) in runs.iter().zip(&children) {
            let (these, others) = rest.split_at(run);
            fill(work.page_mut(child), these, shape);
            rest = others;
        }
        runs.len()
    });
    let gone = &children[kept..];
    gone.iter().try_for_each(|&child| work.drop_node(child))
}

/// The entries of neighbours below `parent`, of which the first is at `start`.
fn entries<'a>(
    work: &mut Work<'_>,
    scratch: &'a Bump,
    parent: Child,
    start: usize,
    children: &[Child],
) -> (BumpVec<'a, Item<'a>>, Shape) {
    let shape = Shape::of(&own(work.page_mut(children[0])));
    let (mut items, mut key) = (BumpVec::new_in(scratch), Vec::new());
    for (offset, &child) in children.iter().enumerate() {
        let first = items.len();
        unpack(scratch, work.page_mut(child), &mut items);
        if shape.level > 0 && offset > 0 {
            // The first child has no key of its own: the parent knows one.
            let known = own(work.page_mut(parent)).key_into(start + offset, &mut key);
            known.expect("the node is our own");
            items[first].key = scratch.alloc_slice_copy(&key);
        }
    }
    (items, shape)
}

#[cfg(test)]
mod tests {
    use crate::store::{Options, Store};

    fn key(n: u32) -> [u8; 8] {
        // Multiplied by an odd number: all different, and in no order.
        u64::from(n)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .to_be_bytes()
    }

    fn filled(entries: u32) -> Store {
        let store = Options::new().open_in_memory().expect("address space");
        let mut txn = store.write().expect("sound");
        let mut table = txn.table("t").expect("new");
        for n in 0..entries {
            table.put(&key(n), &[7; 100]).expect("sound");
        }
        txn.commit().expect("memory");
        store
    }

    /// Pages of the table, and of a table filled to the brim with as many entries.
    fn pages(store: &Store) -> (u64, u64) {
        assert_eq!(store.check().problems, []);
        let table = &store.stat().expect("sound").tables[0];
        (table.leaf_pages, table.entries.div_ceil(4096 / 114))
    }

    #[test]
    fn a_load_in_any_order_leaves_leaves_almost_full() {
        let (pages, full) = pages(&filled(20_000));
        assert!(pages * 4 < full * 5, "{pages} pages in place of {full}");
    }

    #[test]
    fn removing_most_of_a_table_leaves_few_pages_and_a_lower_tree() {
        let store = filled(20_000);
        let before = store.stat().expect("sound").tables[0].clone();
        let mut txn = store.write().expect("sound");
        let mut table = txn.table("t").expect("there");
        for n in (0..20_000).filter(|n| n % 100 > 0) {
            assert!(table.delete(&key(n)).expect("sound"));
        }
        txn.commit().expect("memory");
        let (pages, full) = pages(&store);
        assert!(
            pages * 4 <= full * 5 + 4,
            "{pages} pages in place of {full}"
        );
        let after = store.stat().expect("sound").tables[0].clone();
        assert!(after.depth < before.depth);
        let read = store.read();
        let table = read.table("t").expect("sound").expect("there");
        for n in 0..20_000 {
            let found = table.get(&key(n)).expect("sound");
            assert_eq!(found.is_some(), n % 100 == 0);
        }
    }

    /// What could go wrong: each of many small commits lays the whole table out anew.
    #[test]
    fn a_commit_writes_what_it_changed_and_no_more() {
        let store = filled(20_000);
        let before = pages(&store);
        for n in 20_000..20_050 {
            let mut txn = store.write().expect("sound");
            let mut table = txn.table("t").expect("there");
            table.put(&key(n), &[7; 100]).expect("sound");
            assert!(txn.work.nodes.iter().flatten().count() < 8);
            txn.commit().expect("memory");
        }
        let after = pages(&store);
        assert!(after.0 <= before.0 + 50, "a split a commit at most");
    }
}
