//! The memory of a write transaction: nodes and large values that are not in the file.
//!
//! A node is copied here before it is changed, and then changed in place as often as the
//! transaction likes: nobody else has ever seen it. It gets its page at commit, when it
//! is known how many there are, so that they can lie in one run.

use bumpalo::Bump;

use crate::error::{Flaw, ReadError, damaged};
use crate::format::node::Node;
use crate::format::table::LargeRef;
use crate::ids::{Child, DIRTY_BIT, Extent, PageBuf};
use crate::pages::Pages;
use crate::space::Freed;
use crate::tree::edit::{NodeMut, own};
use crate::tree::memory::{PageMemory, ValueMemory};

/// Nodes whose memory one transaction leaves to the next: 4 MiB. What the allocator gives
/// back to the system between two large transactions costs a page fault a node again.
const MOST_SPARE: usize = 1024;

/// Where nodes come from: the file, or first a transaction's memory.
pub(crate) trait Source: core::fmt::Debug {
    fn node(&self, child: Child) -> Result<Node<'_>, ReadError>;
    fn large(&self, large: &LargeRef) -> Result<&[u8], ReadError>;

    /// [`ReadError::Vanished`] if what was read may be wrong (`Pages::intact`).
    fn intact(&self) -> Result<(), ReadError>;

    /// Asks for `lines` cache lines of the page that `child` names, from byte `offset` on.
    fn prefetch(&self, _child: Child, _offset: usize, _lines: usize) {}
}

impl Source for Pages {
    #[inline]
    fn node(&self, child: Child) -> Result<Node<'_>, ReadError> {
        Self::node(self, child)
    }

    fn large(&self, large: &LargeRef) -> Result<&[u8], ReadError> {
        Self::large(self, large)
    }

    fn intact(&self) -> Result<(), ReadError> {
        Self::intact(self, Ok(()))
    }

    #[inline]
    fn prefetch(&self, child: Child, offset: usize, lines: usize) {
        Self::prefetch(self, child, offset, lines);
    }
}

/// See the module.
///
/// Invariants:
/// - I1: every node and value in the memory is reached exactly once from one of the
///   transaction's roots, or is named by a `Dropped` step of the undo log.
/// - I2: a node that was there at a savepoint that lives is not changed and not given up:
///   its mark is below `floor`, and changing it copies it again.
#[derive(Debug)]
pub(crate) struct Work<'s> {
    pub(crate) pages: &'s Pages,
    /// The transaction's number: the birth of its pages.
    pub(crate) txn: u64,
    pub(crate) nodes: Vec<Option<Box<PageMemory>>>,
    /// How many savepoints there had been when each node was copied or made.
    marks: Vec<u64>,
    pub(crate) values: Vec<Option<ValueMemory>>,
    spare: Vec<Box<PageMemory>>,
    vacant: Vec<usize>,
    /// Pages of the file that the transaction replaces.
    pub(crate) freed: Vec<Freed>,
    /// For entries while nodes are laid out anew.
    pub(crate) scratch: Bump,
    /// Savepoints there have been.
    mark: u64,
    /// What was there at the newest savepoint that lives: nodes with a mark below the
    /// first, values with an index below the second.
    floor: (u64, usize),
    /// What was done since the oldest savepoint that lives.
    undo: Vec<Undo>,
}

/// One step that going back to a savepoint undoes.
#[derive(Clone, Copy, Debug)]
enum Undo {
    /// The node was made; by now it may be gone, and its index used again.
    Made(usize),
    /// The tree gave the node up; it is kept for a savepoint.
    Dropped(usize),
    /// The tree gave the value up; it is kept for a savepoint.
    DroppedValue(usize),
}

/// What the memory was at a savepoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    mark: u64,
    undo: usize,
    values: usize,
    freed: usize,
}

impl<'s> Work<'s> {
    /// `spare` is memory for nodes that an earlier transaction left.
    pub(crate) fn new(pages: &'s Pages, txn: u64, spare: Vec<Box<PageMemory>>) -> Self {
        Self {
            pages,
            txn,
            nodes: Vec::new(),
            marks: Vec::new(),
            values: Vec::new(),
            spare,
            vacant: Vec::new(),
            freed: Vec::new(),
            scratch: Bump::new(),
            mark: 0,
            floor: (0, 0),
            undo: Vec::new(),
        }
    }

    /// Leaves memory to the next transaction, and gives the pages of the file that this one
    /// replaces.
    pub(crate) fn end(self, spare: &mut Vec<Box<PageMemory>>) -> Vec<Freed> {
        let nodes = self.nodes.into_iter().flatten();
        spare.extend(self.spare.into_iter().chain(nodes).take(MOST_SPARE));
        self.freed
    }

    /// Keeps what there is from now on, so that it can be gone back to.
    pub(crate) fn mark(&mut self) -> Mark {
        self.mark += 1;
        let mark = Mark {
            mark: self.mark,
            undo: self.undo.len(),
            values: self.values.len(),
            freed: self.freed.len(),
        };
        self.keep_from(mark);
        mark
    }

    /// `mark` is the newest one that may be gone back to.
    pub(crate) fn keep_from(&mut self, mark: Mark) {
        self.floor = (mark.mark, mark.values);
    }

    /// Goes back to `mark`, which stays the newest one.
    pub(crate) fn roll_back(&mut self, mark: Mark) {
        for step in self.undo.drain(mark.undo..).rev() {
            // What was dropped is kept and needs nothing. What was made and dropped, or
            // made twice, is gone already.
            if let Undo::Made(index) = step
                && let Some(page) = self.nodes[index].take()
            {
                self.spare.push(page);
                self.vacant.push(index);
            }
        }
        self.values.truncate(mark.values);
        self.freed.truncate(mark.freed);
        self.keep_from(mark);
    }

    /// Nothing is gone back to any more: gives up what was kept for that.
    pub(crate) fn forget_marks(&mut self) {
        for step in core::mem::take(&mut self.undo) {
            match step {
                Undo::Made(_) => {}
                Undo::Dropped(index) => self.vacate(index),
                Undo::DroppedValue(index) => self.values[index] = None,
            }
        }
        self.floor = (0, 0);
    }

    fn vacate(&mut self, index: usize) {
        self.spare.extend(self.nodes[index].take());
        self.vacant.push(index);
    }

    /// A node whose bytes mean nothing yet.
    pub(crate) fn new_node(&mut self) -> Child {
        let page = self
            .spare
            .pop()
            .unwrap_or_else(|| Box::new(PageMemory::new()));
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            self.marks.push(0);
            self.nodes.len() - 1
        });
        self.nodes[index] = Some(page);
        self.marks[index] = self.mark;
        if self.floor.0 > 0 {
            self.undo.push(Undo::Made(index));
        }
        Child {
            page: DIRTY_BIT | u32::try_from(index).expect("fewer nodes than pages in a file"),
            crc: 0,
        }
    }

    /// The node in memory that `child` names.
    pub(crate) fn page_mut(&mut self, child: Child) -> &mut PageBuf {
        let index = child.dirty_index().expect("the node is in memory");
        self.nodes[index].as_mut().expect("the node is in use")
    }

    pub(crate) fn edit(&mut self, child: Child) -> NodeMut<'_> {
        NodeMut(self.page_mut(child))
    }

    /// The node in memory for `child` that may be changed: copied there if it is still in
    /// the file only, and copied again if a savepoint keeps it as it is.
    pub(crate) fn make_dirty(&mut self, child: Child) -> Result<Child, ReadError> {
        if let Some(index) = child.dirty_index() {
            return Ok(self.own_copy(child, index));
        }
        let page = self.pages.page(child)?;
        let new = self.new_node();
        self.page_mut(new).copy_from_slice(page);
        // The editor trusts what it edits: `page` gives validated nodes only, and a page that
        // vanished while it was copied is none.
        self.pages.intact(Ok(()))?;
        let copy = Node::parse(self.page_mut(new)).map_err(|flaw| damaged(child.page, flaw))?;
        let born = copy.born();
        self.free(child.page, 1, born);
        Ok(new)
    }

    fn own_copy(&mut self, child: Child, index: usize) -> Child {
        if self.marks[index] >= self.floor.0 {
            return child;
        }
        let new = self.new_node();
        let page = self.nodes[index].clone().expect("the node is in use");
        self.page_mut(new).copy_from_slice(&page[..]);
        self.undo.push(Undo::Dropped(index));
        new
    }

    fn free(&mut self, first: u32, pages: u32, born: u64) {
        self.freed.push(Freed {
            extent: Extent { first, pages },
            born,
            freed: self.txn,
        });
    }

    /// Gives up a node that the tree no longer has.
    pub(crate) fn drop_node(&mut self, child: Child) -> Result<(), ReadError> {
        match child.dirty_index() {
            Some(index) if self.marks[index] < self.floor.0 => {
                self.undo.push(Undo::Dropped(index));
            }
            Some(index) => self.vacate(index),
            None => {
                let born = self.pages.node(child)?.born();
                self.free(child.page, 1, born);
            }
        }
        Ok(())
    }

    /// Keeps a large value until commit.
    pub(crate) fn keep_large(&mut self, value: ValueMemory) -> LargeRef {
        if value.is_empty() {
            return LargeRef::EMPTY;
        }
        let index = u32::try_from(self.values.len()).expect("fewer values than pages");
        let reference = LargeRef {
            page: DIRTY_BIT | index,
            crc: crc32c::crc32c(&value),
            len: value.len() as u64,
        };
        self.values.push(Some(value));
        reference
    }

    /// The bytes of a large value that is not in the file.
    pub(crate) fn large_mut(&mut self, large: &LargeRef) -> &mut [u8] {
        if *large == LargeRef::EMPTY {
            return &mut [];
        }
        let value = self.values[(large.page & !DIRTY_BIT) as usize].as_deref_mut();
        value.expect("the value is in use")
    }

    /// Gives up a large value. Its birth is not recorded, and taking it for older than it
    /// is only delays its reuse until the snapshots of today are gone.
    pub(crate) fn drop_large(&mut self, large: &LargeRef) -> Result<(), ReadError> {
        if large.page & DIRTY_BIT != 0 {
            let index = (large.page & !DIRTY_BIT) as usize;
            if index < self.floor.1 {
                self.undo.push(Undo::DroppedValue(index));
            } else {
                self.values[index] = None;
            }
            return Ok(());
        }
        if *large == LargeRef::EMPTY {
            return Ok(());
        }
        let extent = large.extent().ok_or(damaged(large.page, Flaw::Record))?;
        self.free(extent.first, extent.pages, 0);
        Ok(())
    }
}

impl Source for Work<'_> {
    fn node(&self, child: Child) -> Result<Node<'_>, ReadError> {
        match child.dirty_index() {
            Some(index) => {
                let page = self.nodes[index].as_ref();
                Ok(own(page.expect("the node is in use")))
            }
            None => self.pages.node(child),
        }
    }

    fn large(&self, large: &LargeRef) -> Result<&[u8], ReadError> {
        if large.page & DIRTY_BIT == 0 {
            return self.pages.large(large);
        }
        let value = self.values[(large.page & !DIRTY_BIT) as usize].as_deref();
        Ok(value.expect("the value is in use"))
    }

    fn intact(&self) -> Result<(), ReadError> {
        self.pages.intact(Ok(()))
    }
}
