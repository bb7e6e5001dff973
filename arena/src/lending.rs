//! Lending runs of free blocks to larger classes before the heap grows (`lend` has the
//! picture, `guest_table` what is written down).

use core::ptr;

use crate::central::AlreadyFree;
use crate::fatal::{Misuse, die};
use crate::heap_core::HeapCore;
use crate::lend::Fit;
use crate::segment::Segment;
use crate::size_class::{block_at, block_size};
use crate::span::{Kind, Span};
use crate::sync::Ordering;
use crate::units::ClassIndex;

impl HeapCore {
    /// The round of searches for guests of `class`, if one is worth its time.
    ///
    /// A hardened heap lends nothing: the class of a span is that of its blocks there.
    pub(crate) fn lending_round(&self, class: ClassIndex) -> Option<u32> {
        if self.hardened {
            return None;
        }
        // Relaxed: a count for the policy.
        let committed = self.committed.load(Ordering::Relaxed);
        self.lending.round(class, committed, self.free_granules())
    }

    /// Takes up to `out.len()` blocks of `guest` that are runs of free blocks of smaller
    /// classes, the largest first, because they waste the least; 0 when there are none.
    #[cold]
    pub(crate) fn borrow(&self, guest: ClassIndex, round: u32, out: &mut [*mut u8]) -> usize {
        let mut got = 0;
        let hosts = ClassIndex::all().rev().zip(self.centrals.iter().rev());
        for (host, central) in hosts {
            let Some(fit) = Fit::new(host, guest) else {
                continue;
            };
            let mut left = out.get_mut(got..).unwrap_or_default().iter_mut();
            got += central.lend(
                host,
                fit,
                (round, left.len()),
                |span| self.may_lend(span, host),
                |span, word, run| {
                    self.note_touched(host, span, word, run);
                    let index = word * 64 + run.trailing_zeros() as usize;
                    let addr = span.start() + index * block_size(host);
                    // SAFETY: a span's start lies in its segment, of this heap.
                    unsafe { Segment::containing(addr) }.guests.put(addr, guest);
                    if let Some(slot) = left.next() {
                        *slot = ptr::with_exposed_provenance_mut(addr);
                    }
                },
            );
        }
        match (got, self.centrals.get(guest.get())) {
            (1.., Some(central)) => central.note_guests(got),
            _ => self.lending.note_exhausted(guest),
        }
        got
    }

    /// Whether guests in `span`, one of `host` whose lock is held, can be written down.
    fn may_lend(&self, span: &Span, host: ClassIndex) -> bool {
        // SAFETY: a span's start lies in its segment, of this heap.
        let segment = unsafe { Segment::containing(span.start()) };
        if segment.kind_at(span.start()) == Kind::Lent(host) {
            return true;
        }
        let Some(is_new) = segment.guests.prepare(self.os) else {
            return false;
        };
        // Relaxed: a count for statistics.
        self.lending
            .tables
            .fetch_add(usize::from(is_new), Ordering::Relaxed);
        segment.note_lent(span, host);
        true
    }

    /// Gives the guest of class `guest` at `addr` back to the span that it came from.
    #[cold]
    pub(crate) fn give_guest(&self, guest: ClassIndex, addr: usize) {
        let Some(segment) = self.segment_of(addr) else {
            die(Misuse::Foreign, addr)
        };
        let (Kind::Lent(host), Some(span)) = (segment.kind_at(addr), segment.span_at(addr)) else {
            die(Misuse::DoubleFree, addr)
        };
        let index = block_at(host, addr - span.start());
        let tiers = (
            self.centrals.get(host.get()),
            self.centrals.get(guest.get()),
        );
        let (Some(fit), (Some(central), Some(own))) = (Fit::new(host, guest), tiers) else {
            die(Misuse::WrongLayout, addr)
        };
        // First the table, then the bits: from then on the run may be lent again (L1).
        if index * block_size(host) != addr - span.start() || !segment.guests.take(addr, guest) {
            die(Misuse::DoubleFree, addr)
        }
        let run = fit.run_at(index % 64);
        // SAFETY: the guest's blocks are ours: it came out of a magazine, and its entry in
        // the table was there and is not any more. Their span is of `host` as long as a bit
        // of it is clear (C3).
        match unsafe { central.give(host, span, index / 64, run) } {
            Ok(false) => {}
            Ok(true) => {
                // Relaxed: a hint for the next time that memory is wanted.
                self.empties.fetch_or(1 << host.get(), Ordering::Relaxed);
            }
            Err(AlreadyFree) => die(Misuse::DoubleFree, addr),
        }
        central.note_returned(fit.blocks);
        own.note_guest_left();
    }

    /// The class of the block at `addr` in a span of `host` of which runs were lent.
    #[cold]
    pub(crate) fn class_of_lent(&self, addr: usize, host: ClassIndex) -> ClassIndex {
        let segment = self.segment_of(addr);
        let guest = segment.and_then(|segment| segment.guests.get(addr));
        guest.unwrap_or(host)
    }
}
