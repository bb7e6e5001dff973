//! loom models of lending: a run of blocks that serves as one block of a larger class
//! (`lend.rs`, `Central::lend`), and the entry that says so.
//!
//! One model a hazard, each with a twin in which one step is broken: the twin shows that
//! the model would see it. The last class (32 KiB) has four blocks a span, in one word.

use std::boxed::Box;

use loom::sync::Arc;

use crate::central::Central;
use crate::lend::{Fit, GuestEntry};
use crate::span::{Span, word_count};
use crate::sync::{AtomicU64, Ordering, UnsafeCell};
use crate::units::{CLASS_COUNT, ClassIndex};

const BLOCKS: usize = 4;

fn host() -> ClassIndex {
    ClassIndex::new(CLASS_COUNT - 1)
}

/// Any class will do for the entry.
fn guest() -> ClassIndex {
    ClassIndex::new(7)
}

/// A class with one span, a cell in the place of each block's memory, and the entry of the
/// guest that starts at the first block.
struct World {
    central: Central,
    span: &'static Span,
    entry: GuestEntry,
    memory: [UnsafeCell<u32>; BLOCKS],
}

// SAFETY: the span is `Sync`, and the cells are what loom watches.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn new() -> Arc<Self> {
        let span: &'static Span = Box::leak(Box::new(Span::for_model()));
        let words = (0..word_count(host()))
            .map(|_| AtomicU64::new(0))
            .collect::<Box<[_]>>();
        // SAFETY: a new span and as many words as the class needs, leaked.
        unsafe { span.open(host(), Box::leak(words).as_mut_ptr(), 0) };
        let world = Self {
            central: Central::new(),
            span,
            entry: GuestEntry::new(),
            memory: core::array::from_fn(|_| UnsafeCell::new(0)),
        };
        world.central.announce();
        world.central.adopt(host(), span);
        Arc::new(world)
    }

    /// Uses the blocks of `mask`, which the caller owns.
    fn write(&self, mask: u64) {
        for (index, cell) in self.memory.iter().enumerate() {
            if mask >> index & 1 == 1 {
                // SAFETY: the caller owns the block; loom checks it.
                cell.with_mut(|memory| unsafe { *memory += 1 });
            }
        }
    }

    /// Takes up to `want` single blocks and writes to each.
    fn take(&self, want: usize) -> u64 {
        let mut taken = 0;
        self.central.take(host(), want, |_, _, mask| taken |= mask);
        self.write(taken);
        taken
    }

    /// Borrows a guest of two blocks, notes it if it starts at the first, and writes to it.
    fn lend(&self) -> u64 {
        let mut run = 0;
        let fit = Fit::for_model(2);
        let note = |_: &Span, _, mask| {
            run = mask;
            if mask & 1 == 1 {
                self.entry.put(guest());
            }
        };
        let from = (core::ptr::null(), 0);
        // SAFETY: from no span.
        unsafe { (self.central).lend(host(), fit, (1, 1), from, |_| true, note) };
        self.write(run);
        run
    }

    /// Gives the blocks of `mask` back, after a last write to each.
    fn give(&self, mask: u64) {
        if mask == 0 {
            return;
        }
        self.write(mask);
        // SAFETY: the caller took the blocks.
        unsafe { self.central.give(host(), self.span, 0, mask) }.expect("no double free");
    }

    /// Gives a guest back as the heap does: the entry first.
    fn give_guest(&self, run: u64) {
        if run & 1 == 1 {
            assert!(self.entry.take(guest()), "the guest is noted");
        }
        self.give(run);
    }
}

fn model(
    left: impl Fn(&World) + Copy + Send + Sync + 'static,
    right: impl Fn(&World) + Copy + Send + Sync + 'static,
) {
    loom::model(move || {
        let world = World::new();
        let thread = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || left(&world))
        };
        right(&world);
        thread.join().unwrap();
        let rest = world.take(BLOCKS);
        assert_eq!(rest, 0b1111, "every block is back");
    });
}

/// One thread borrows and returns a run while another takes and returns single blocks. No
/// block may have two owners (loom would see two writes to its cell), and all come back.
#[test]
fn loom_a_lent_run_has_one_owner() {
    model(
        |world| {
            let run = world.lend();
            world.give_guest(run);
        },
        |world| {
            let taken = world.take(2);
            world.give(taken);
        },
    );
}

/// The twin: the run is seen and not taken, as a search without the class lock would.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_twin_a_run_that_is_only_seen_has_two_owners() {
    model(
        |world| {
            // SAFETY: the span is of the class all the time.
            let words = unsafe { world.span.words(host()) };
            let fit = Fit::for_model(2);
            let run = fit.runs_at(fit.find(words[0].load(Ordering::Acquire), 1));
            world.write(run);
        },
        |world| {
            let taken = world.take(2);
            world.give(taken);
        },
    );
}

/// A guest is given back while another thread borrows the same run. The entry must be that
/// of the new guest, or of nobody.
#[test]
fn loom_a_guest_is_forgotten_before_its_blocks_are_free() {
    forget_and_lend(World::give_guest);
}

/// The twin: the blocks are free before the entry is cleared.
#[test]
#[should_panic(expected = "the guest is noted")]
fn loom_twin_a_guest_that_is_forgotten_too_late_takes_the_next_ones_entry() {
    forget_and_lend(|world, run| {
        world.give(run);
        world.entry.take(guest());
    });
}

fn forget_and_lend(give_guest: impl Fn(&World, u64) + Copy + Send + Sync + 'static) {
    loom::model(move || {
        let world = World::new();
        let run = world.lend();
        assert_eq!(run, 0b0011);
        let kept = world.take(2);
        let thread = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || give_guest(&world, run))
        };
        let next = world.lend();
        world.give_guest(next);
        thread.join().unwrap();
        world.give(kept);
        assert_eq!(world.take(BLOCKS), 0b1111, "every block is back");
        assert!(world.entry.get().is_none(), "nobody is noted");
    });
}
