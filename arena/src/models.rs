//! loom models of the protocol between those who give blocks back, those who take them,
//! and those who retire or purge spans (`span.rs`, `central.rs`).
//!
//! One model a hazard, each with a twin in which one step is broken: the twin shows that
//! the model would see it. The last class (32 KiB) has four blocks a span, in one word.

use std::boxed::Box;

use loom::sync::Arc;

use crate::central::Central;
use crate::span::{Kind, Span, all_free, word_count};
use crate::sync::{AtomicU64, Ordering, UnsafeCell};
use crate::units::{CLASS_COUNT, ClassIndex};

const BLOCKS: usize = 4;

fn class() -> ClassIndex {
    ClassIndex::new(CLASS_COUNT - 1)
}

fn other_class() -> ClassIndex {
    ClassIndex::new(39)
}

/// A class with one span, and a cell in the place of each block's memory.
struct World {
    central: Central,
    other: Central,
    span: &'static Span,
    words: *mut AtomicU64,
    memory: [UnsafeCell<u32>; BLOCKS],
}

// SAFETY: `words` are atomics that are never freed; the rest is `Sync`, and the cells are
// what loom watches.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    /// All blocks free and listed.
    fn new() -> Arc<Self> {
        let span: &'static Span = Box::leak(Box::new(Span::for_model()));
        let words = (0..word_count(class()))
            .map(|_| AtomicU64::new(0))
            .collect::<Box<[_]>>();
        let words = Box::leak(words).as_mut_ptr();
        // SAFETY: a new span and as many words as the class needs, leaked.
        unsafe { span.open(class(), words, 0) };
        let world = Self {
            central: Central::new(),
            other: Central::new(),
            span,
            words,
            memory: core::array::from_fn(|_| UnsafeCell::new(0)),
        };
        world.central.announce();
        world.central.adopt(class(), span);
        Arc::new(world)
    }

    /// Takes up to `want` blocks and writes to each.
    fn take(&self, want: usize) -> u64 {
        let mut taken = 0;
        self.central.take(class(), want, |_, word, mask| {
            assert_eq!(word, 0);
            assert_eq!(taken & mask, 0, "a block has one owner");
            taken |= mask;
        });
        self.write(taken);
        taken
    }

    /// The same by [`Central::take_picked`], which passes by what it is not told to take.
    fn pick(&self, want: u64) -> u64 {
        let mut taken = 0;
        self.central.take_picked(class(), 1, |_, _, free| {
            taken = free & want;
            taken
        });
        self.write(taken);
        taken
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

    /// Gives back the blocks of `mask`, after a last write to each.
    fn give(&self, mask: u64) -> bool {
        if mask == 0 {
            return false;
        }
        self.write(mask);
        // SAFETY: the caller took the blocks.
        unsafe { self.central.give(class(), self.span, 0, mask) }.expect("no double free")
    }

    /// Retires the span if it is wholly free, and makes it one of `into`.
    fn sweep_into(&self, into: ClassIndex) {
        let mut released = false;
        self.central.sweep(class(), |_| {}, |_| released = true);
        if released {
            let central = if into == class() {
                &self.central
            } else {
                &self.other
            };
            central.announce();
            // SAFETY: the class let go of the span, and the words are enough for both.
            unsafe { self.span.open(into, self.words, 0) };
            central.adopt(into, self.span);
        }
    }
}

/// Runs `left` in a thread beside `right`, for every order of their steps, then `check`.
fn race(
    left: impl Fn(&World) + Copy + Send + Sync + 'static,
    right: impl Fn(&World) + Copy + Send + Sync + 'static,
    check: impl Fn(&World) + Copy + Send + Sync + 'static,
) {
    loom::model(move || {
        let world = World::new();
        assert_eq!(world.take(BLOCKS), 0b1111);
        let thread = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || left(&world))
        };
        right(&world);
        thread.join().unwrap();
        check(&world);
    });
}

/// A block is freed from another thread while the span is found exhausted and leaves the
/// list. The block must be there for the next taker, whatever the order.
#[test]
fn loom_remote_free_is_never_lost() {
    race(
        |world| {
            world.give(0b0001);
        },
        |world| {
            let early = world.take(1);
            world.give(early);
        },
        |world| assert_eq!(world.take(BLOCKS), 0b0001, "the freed block is found"),
    );
}

/// The same for takers of some blocks of a span, which may pass by those that come back meanwhile.
#[test]
fn loom_what_is_picked_was_free_and_the_rest_is_not_lost() {
    race(
        |world| {
            world.give(0b0011);
        },
        |world| {
            let early = world.pick(0b0110);
            assert_eq!(early & !0b0010, 0, "a block has one owner");
            world.give(early);
        },
        |world| assert_eq!(world.take(BLOCKS), 0b0011, "the freed blocks are found"),
    );
}

/// The same with a taker that writes back what it left of the word that it saw.
#[test]
#[should_panic(expected = "the freed blocks are found")]
fn loom_picking_by_a_plain_store_is_caught() {
    race(
        |world| {
            world.give(0b0011);
        },
        |world| {
            // SAFETY: as in `sweep_into`: one word, never freed.
            let word = unsafe { &*world.words };
            let seen = word.load(Ordering::Acquire);
            let early = seen & 0b0110;
            word.store(seen & !early, Ordering::Relaxed);
            world.write(early);
            world.give(early);
        },
        |world| assert_eq!(world.take(BLOCKS), 0b0011, "the freed blocks are found"),
    );
}

/// The same with a giver that looks at `listed` before it sets the bit.
#[test]
#[should_panic(expected = "the freed block is found")]
fn loom_looking_before_giving_is_caught() {
    race(
        |world| {
            let listed = world.span.listed.load(Ordering::SeqCst);
            // SAFETY: as in `sweep_into`: one word, never freed.
            unsafe { &*world.words }.fetch_or(0b0001, Ordering::SeqCst);
            if !listed {
                world.central.adopt(class(), world.span);
            }
        },
        |world| {
            let early = world.take(1);
            world.give(early);
        },
        |world| assert_eq!(world.take(BLOCKS), 0b0001, "the freed block is found"),
    );
}

/// The same with a giver that does not order the bit before its look at `listed`.
#[test]
#[should_panic(expected = "the freed block is found")]
fn loom_giving_without_the_fence_is_caught() {
    race(
        |world| {
            // SAFETY: as in `sweep_into`: one word, never freed.
            unsafe { &*world.words }.fetch_or(0b0001, Ordering::AcqRel);
            if !world.span.listed.load(Ordering::Acquire) {
                world.central.adopt(class(), world.span);
            }
        },
        |world| {
            let early = world.take(1);
            world.give(early);
        },
        |world| assert_eq!(world.take(BLOCKS), 0b0001, "the freed block is found"),
    );
}

/// Memory that one thread wrote and freed is written by the thread that takes it next:
/// the free must order the two.
#[test]
fn loom_freed_memory_is_handed_over() {
    race(
        |world| {
            world.give(0b0110);
        },
        |world| {
            world.take(2);
        },
        |world| {
            world.take(2);
        },
    );
}

/// The same with a relaxed free.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_a_relaxed_free_is_caught() {
    race(
        |world| {
            world.write(0b0110);
            // SAFETY: as in `sweep_into`: one word, never freed.
            unsafe { &*world.words }.fetch_or(0b0110, Ordering::Relaxed);
        },
        |world| {
            world.take(2);
        },
        |_| {},
    );
}

/// Two threads refill from one span: no block goes to both.
#[test]
fn loom_refills_share_no_block() {
    race(
        |world| {
            world.give(0b0011);
            world.take(2);
        },
        |world| {
            world.give(0b1100);
            world.take(2);
        },
        |_| {},
    );
}

/// The same with a refill that reads the bits and clears them in two steps without the
/// class lock: the race that long tests of an early prototype did not see.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_a_refill_without_the_lock_is_caught() {
    let refill = |world: &World| {
        // SAFETY: as in `sweep_into`: one word, never freed.
        let word = unsafe { &*world.words };
        let seen = word.load(Ordering::Acquire);
        word.fetch_and(!seen, Ordering::Relaxed);
        world.write(seen);
    };
    race(
        move |world| {
            world.give(0b0011);
            refill(world);
        },
        move |world| refill(world),
        |_| {},
    );
}

/// The last block of a span is freed while another thread retires the span and gives its
/// memory to another class. Both classes must end up with what is theirs.
#[test]
fn loom_a_retired_span_leaves_its_class() {
    race(
        |world| {
            world.give(0b0111);
            world.give(0b1000);
        },
        |world| world.sweep_into(other_class()),
        |world| {
            let mut others = 0;
            world
                .other
                .take(other_class(), BLOCKS, |_, _, mask| others |= mask);
            let ours = world.take(BLOCKS);
            assert_eq!(
                others.count_ones() + ours.count_ones(),
                4,
                "blocks are kept"
            );
            assert!(others == 0 || ours == 0, "a span is of one class");
        },
    );
}

/// The same with a sweep that retires when the last block was given, but not yet seen:
/// it trusts a count of its own instead of the bits.
#[test]
#[should_panic(expected = "no double free")]
fn loom_retiring_a_span_in_use_is_caught() {
    race(
        |world| {
            world.give(0b0111);
            world.give(0b1000);
        },
        |world| {
            // SAFETY: the planted bug: the span is not wholly free.
            unsafe { world.span.open(other_class(), world.words, 0) };
        },
        |_| {},
    );
}

/// The span is retired and comes back to the same class while a giver is still looking
/// at it: it must be listed once, not twice.
#[test]
fn loom_a_span_is_listed_once() {
    race(
        |world| {
            world.give(0b1111);
        },
        |world| world.sweep_into(class()),
        |world| {
            assert_eq!(world.take(BLOCKS), 0b1111);
            assert_eq!(world.take(BLOCKS), 0, "the span is in the list once");
        },
    );
}

/// Free memory is purged (here: written) under the class lock while blocks are freed and
/// taken by others.
#[test]
fn loom_purging_touches_free_blocks_only() {
    race(
        |world| {
            world.give(0b1100);
            world.take(1);
        },
        |world| purge(world, true),
        |_| {},
    );
}

/// The same with a purge that does not hold the class lock.
#[test]
#[should_panic(expected = "Causality violation")]
fn loom_purging_without_the_lock_is_caught() {
    race(
        |world| {
            world.give(0b1100);
            world.take(1);
        },
        |world| purge(world, false),
        |_| {},
    );
}

fn purge(world: &World, locked: bool) {
    let visit = |span: &Span| {
        // SAFETY: the span stays of this class in these models.
        let words = unsafe { span.words(class()) };
        if !all_free(words, class()) {
            world.write(words[0].load(Ordering::Acquire));
        }
    };
    if locked {
        world.central.sweep(class(), visit, |_| {});
    } else {
        visit(world.span);
    }
}

/// A thread exits: it gives back what its cache held, in several steps, while another
/// refills. Nothing is left behind.
#[test]
fn loom_an_exiting_thread_leaves_nothing_behind() {
    race(
        |world| {
            world.give(0b0001);
            world.give(0b0010);
            world.give(0b1100);
        },
        |world| {
            let refilled = world.take(1);
            world.give(refilled);
        },
        |world| {
            assert_eq!(world.take(BLOCKS), 0b1111, "every block is back");
            assert_eq!(world.span.kind(), Kind::Blocks(class()));
        },
    );
}

/// The same with an exit that forgets the last blocks of its cache.
#[test]
#[should_panic(expected = "every block is back")]
fn loom_an_exit_that_forgets_blocks_is_caught() {
    race(
        |world| {
            world.give(0b0001);
            world.give(0b0010);
        },
        |world| {
            let refilled = world.take(1);
            world.give(refilled);
        },
        |world| assert_eq!(world.take(BLOCKS), 0b1111, "every block is back"),
    );
}
