//! Lending runs of free blocks to larger classes before the heap grows (`lend` has the
//! picture, `guest_table` what is written down).

use core::ptr;

use crate::central::AlreadyFree;
use crate::fatal::{Misuse, die};
use crate::heap_core::HeapCore;
use crate::lend::{Fit, Place, Returned};
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
        let Some(mut place) = self.lending.place(guest, round) else {
            return 0;
        };
        let mut got = 0;
        let first = place.host;
        for host in ClassIndex::all()
            .rev()
            .skip_while(|host| host.get() > first)
        {
            let (Some(fit), Some(central)) = (Fit::new(host, guest), self.centrals.get(host.get()))
            else {
                continue;
            };
            let from = if host.get() == first {
                (ptr::with_exposed_provenance(place.span), place.word)
            } else {
                (ptr::null(), 0)
            };
            let mut left = out.get_mut(got..).unwrap_or_default().iter_mut();
            let want = (round, left.len());
            let ready = |span: &Span| self.may_lend(span, host);
            let sink = |span: &Span, word: usize, run: u64| {
                self.note_touched(host, span, word, run);
                let index = word * 64 + run.trailing_zeros() as usize;
                let addr = span.start() + index * block_size(host);
                // SAFETY: a span's start lies in its segment, of this heap.
                unsafe { Segment::containing(addr) }.guests.put(addr, guest);
                if let Some(slot) = left.next() {
                    *slot = ptr::with_exposed_provenance_mut(addr);
                }
            };
            // SAFETY: the address is 0 or that of a span that `lend` gave, in a segment, which was
            // exposed when it was made.
            let (more, (span, word)) = unsafe { central.lend(host, fit, want, from, ready, sink) };
            got += more;
            place = Place {
                host: host.get(),
                span: span.expose_provenance(),
                word,
            };
            if got == out.len() {
                break;
            }
        }
        if got < out.len() {
            // No class is a host for guests below the smallest.
            place.host = 0;
        }
        self.lending.note_place(guest, round, place);
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

    /// Gives the guest of class `guest` at `addr`, in `segment`, back to the span that it came
    /// from, and counts it in `returned`.
    pub(crate) fn give_guest(
        &self,
        guest: ClassIndex,
        segment: &Segment,
        addr: usize,
        returned: &mut Returned,
    ) {
        let (Kind::Lent(host), Some(span)) = (segment.kind_at(addr), segment.span_at(addr)) else {
            die(Misuse::DoubleFree, addr)
        };
        let index = block_at(host, addr - span.start());
        let (Some(fit), Some(central)) = (Fit::new(host, guest), self.centrals.get(host.get()))
        else {
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
        if returned.host != Some(host) {
            self.note_returned(returned);
            returned.host = Some(host);
        }
        returned.guests += 1;
        returned.blocks += fit.blocks;
    }

    /// Counts the blocks of `returned` as back with their host.
    pub(crate) fn note_returned(&self, returned: &mut Returned) {
        if let Some(central) = (returned.host).and_then(|host| self.centrals.get(host.get())) {
            central.note_returned(core::mem::take(&mut returned.blocks));
        }
    }

    /// The class of the block at `addr` in a span of `host` of which runs were lent.
    #[cold]
    pub(crate) fn class_of_lent(&self, addr: usize, host: ClassIndex) -> ClassIndex {
        let segment = self.segment_of(addr);
        let guest = segment.and_then(|segment| segment.guests.get(addr));
        guest.unwrap_or(host)
    }
}
