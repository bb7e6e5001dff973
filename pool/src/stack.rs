//! A lock-free stack of indices.
//!
//! Treiber's stack (1986) over indices, with a tag against ABA in the same 64-bit word:
//! a 16-byte compare-and-swap costs 1.6 to 2.4 times as much.
//!
//! ```text
//!   head   [ tag : 32 | index + 1 : 32 ]      0 in the low half: empty
//! ```
//!
//! Each successful pop raises the tag, so a head that was read before somebody popped
//! and pushed the same index again does not compare equal. The tag wraps after 2³² pops;
//! for ABA a thread would have to sleep between load and exchange for exactly a multiple
//! of that.
//!
//! # Invariants
//!
//! - T1: `depth` of an element on the stack is the sum of the weights from it down.
//! - T2: a link on the stack is changed by nobody; a link that was popped is changed by
//!   who popped it.

use crate::segments::Segments;
use crate::sync::{AtomicU32, AtomicU64, Ordering, Step, left_out};

/// A stack's words in an element.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Index + 1 of the element below, 0 for none.
    next: AtomicU32,
    /// Weight of the elements on the stack from this one down.
    depth: AtomicU32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct IndexStack {
    head: AtomicU64,
}

const fn pack(tag: u32, index_plus_one: u32) -> u64 {
    ((tag as u64) << 32) | index_plus_one as u64
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves")]
const fn unpack(head: u64) -> (u32, u32) {
    ((head >> 32) as u32, head as u32)
}

impl IndexStack {
    pub(crate) fn new() -> Self {
        Self {
            head: AtomicU64::new(0),
        }
    }

    /// Puts `index` on top; the caller owns the element, which exists.
    pub(crate) fn push<T: Default + AsRef<Link>>(
        &self,
        elements: &Segments<T>,
        index: u32,
        weight: u32,
    ) {
        let link: &Link = elements.get(index).as_ref();
        // Acquire: the depth below was written before that element was pushed.
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let (tag, below) = unpack(head);
            let depth = Self::depth_at(elements, below);
            // Relaxed, both: published by the Release exchange.
            link.next.store(below, Ordering::Relaxed);
            link.depth.store(depth + weight, Ordering::Relaxed);
            // Release: pairs with the Acquire in `pop`; hands the element over. Acquire on
            // failure: as the load above.
            let publish = if left_out(Step::Publish) {
                Ordering::Relaxed
            } else {
                Ordering::AcqRel
            };
            match self.head.compare_exchange_weak(
                head,
                pack(tag, index + 1),
                publish,
                Ordering::Acquire,
            ) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes the top.
    pub(crate) fn pop<T: Default + AsRef<Link>>(&self, elements: &Segments<T>) -> Option<u32> {
        // Acquire: sees the link that the Release in `push` published.
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let (tag, top) = unpack(head);
            let index = top.checked_sub(1)?;
            let link: &Link = elements.get(index).as_ref();
            // Relaxed: if somebody has popped and changed it meanwhile, the tag differs
            // and the exchange fails.
            let next = link.next.load(Ordering::Relaxed);
            let raised = tag.wrapping_add(u32::from(!left_out(Step::RaiseTag)));
            // AcqRel: Acquire takes the element over; Release keeps the chain of who
            // published what lies below. Acquire on failure: as the load above.
            match self.head.compare_exchange_weak(
                head,
                pack(raised, next),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some(index),
                Err(now) => head = now,
            }
        }
    }

    /// Weight of the elements on the stack; a hint while others push and pop.
    pub(crate) fn depth<T: Default + AsRef<Link>>(&self, elements: &Segments<T>) -> usize {
        // Acquire: as in `push`.
        let (_, top) = unpack(self.head.load(Ordering::Acquire));
        Self::depth_at(elements, top) as usize
    }

    /// Depth of an element, which is right if the head did not change since it was read.
    fn depth_at<T: Default + AsRef<Link>>(elements: &Segments<T>, index_plus_one: u32) -> u32 {
        match index_plus_one.checked_sub(1) {
            // Relaxed: the head that named it was loaded with Acquire.
            Some(index) => elements.get(index).as_ref().depth.load(Ordering::Relaxed),
            None => 0,
        }
    }
}
