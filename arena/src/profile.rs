//! The heap profile: which of the sampled blocks are alive, and what each stack has
//! allocated and freed.
//!
//! ```text
//! live    | address, bytes, stack | … |           open addressing by address
//! places  | 0 | 3 | 0 | 1 | … |                   open addressing by frames and size
//! stacks  | frames, allocated, freed | … |        one after the other
//! ```
//!
//! The tables have a fixed length and lie in zeroed static memory, of which only what is
//! used becomes resident. When one is full, samples are lost, and counted.
//!
//! A stack has one entry for each size it allocates, rounded to a quarter of a doubling,
//! because the weight of a sample depends on the size of its block (`poisson`).
//!
//! Invariants, under the lock:
//! - V1: every block in `live` is one that the heap gave out and that was not freed; its
//!   address is a multiple of the granule.
//! - V2: for every stack, allocated less freed is what its blocks in `live` add up to.
//! - V3: between a block's place by its hash and where it stands no place is empty.

use crate::sample_filter::Filter;
use crate::sync::{AtomicUsize, Lock, Ordering};

/// Frames kept of a stack, the innermost. Unwinding them is most of what a sample costs.
pub(crate) const MAX_FRAMES: usize = 32;
/// Entries for stacks: 2.5 MiB if all are used.
const STACKS: usize = 8192;
/// Places to look for a stack: half of them stay empty.
const PLACES: usize = 2 * STACKS;
/// Entries for live samples: at one in 2 MiB, of a heap of 56 GiB.
const LIVE: usize = 32768;

/// The frames of a stack, innermost first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frames {
    pub(crate) addresses: [usize; MAX_FRAMES],
    pub(crate) depth: usize,
}

impl Frames {
    /// Room for frames.
    pub(crate) const EMPTY: Self = Self {
        addresses: [0; MAX_FRAMES],
        depth: 0,
    };

    pub(crate) fn as_slice(&self) -> &[usize] {
        self.addresses.get(..self.depth).unwrap_or_default()
    }
}

/// Blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

impl Sum {
    pub(crate) fn add(&mut self, other: Self) {
        self.blocks = self.blocks.wrapping_add(other.blocks);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }

    pub(crate) fn less(self, other: Self) -> Self {
        Self {
            blocks: self.blocks.wrapping_sub(other.blocks),
            bytes: self.bytes.wrapping_sub(other.bytes),
        }
    }

    fn one(bytes: usize) -> Self {
        Self {
            blocks: 1,
            bytes: bytes as u64,
        }
    }
}

/// What was sampled of one stack and one size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack {
    hash: u64,
    pub(crate) frames: Frames,
    pub(crate) allocated: Sum,
    pub(crate) freed: Sum,
}

/// A sampled block that is alive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// 0 in an empty entry.
    addr: usize,
    bytes: usize,
    stack: usize,
}

impl Sample {
    const NONE: Self = Self {
        addr: 0,
        bytes: 0,
        stack: 0,
    };
}

/// The profile of the process; see the module.
#[derive(Debug)]
pub(crate) struct Profile {
    /// Mean bytes between two samples; 0 while there is no profile.
    mean: AtomicUsize,
    filter: Filter,
    tables: Lock<Tables>,
}

/// There is one, as there is one heap of the process.
pub(crate) static PROFILE: Profile = Profile::new();

impl Profile {
    const fn new() -> Self {
        Self {
            mean: AtomicUsize::new(0),
            filter: Filter::new(),
            tables: Lock::new(Tables::new()),
        }
    }

    /// Mean bytes between two samples; 0 while there is no profile.
    pub(crate) fn mean(&self) -> usize {
        // Relaxed: a number; threads may see it late.
        self.mean.load(Ordering::Relaxed)
    }

    /// Sets the mean bytes between two samples.
    pub(crate) fn set_mean(&self, bytes: usize) {
        // Relaxed: as in `mean`.
        self.mean.store(bytes, Ordering::Relaxed);
    }

    /// Notes that a block of `bytes` at `addr` was sampled, before it is handed out;
    /// `false` when there is no room.
    pub(crate) fn record(&self, addr: usize, bytes: usize, frames: &Frames) -> bool {
        self.tables.with(|tables| {
            let recorded = tables.record(addr, bytes, frames);
            if recorded {
                self.filter.add(addr);
            } else {
                tables.lost += 1;
            }
            recorded
        })
    }

    /// Whether the block at `addr`, which the caller holds, may be sampled.
    #[inline]
    pub(crate) fn may_hold(&self, addr: usize) -> bool {
        self.filter.may_hold(addr)
    }

    /// Whether the block at `addr`, which the caller holds, is sampled.
    pub(crate) fn holds(&self, addr: usize) -> bool {
        self.may_hold(addr) && self.tables.with(|tables| tables.find(addr).is_some())
    }

    /// Notes that the block at `addr` is being freed, if it was sampled.
    pub(crate) fn forget(&self, addr: usize) {
        if let Some(sample) = self.lift(addr) {
            self.tables
                .with(|tables| tables.count_freed(sample.stack, sample.bytes));
        }
    }

    /// Takes the block at `addr` out, before it moves to another place.
    pub(crate) fn lift(&self, addr: usize) -> Option<Sample> {
        if !self.may_hold(addr) {
            return None;
        }
        let sample = self.tables.with(|tables| tables.take(addr));
        if sample.is_some() {
            self.filter.remove(addr);
        }
        sample
    }

    /// Puts a block back that moved to `addr` and may have grown to `bytes`; growth counts
    /// as a new allocation.
    pub(crate) fn lay(&self, sample: Sample, addr: usize, bytes: usize) {
        self.tables.with(|tables| {
            let mut moved = Sample { addr, ..sample };
            if bytes > sample.bytes {
                let frames = tables.stacks.get(sample.stack).map(|stack| stack.frames);
                let grown = frames.and_then(|frames| tables.stack(&frames, bytes));
                if let Some(stack) = grown {
                    tables.count_freed(sample.stack, sample.bytes);
                    tables.count_allocated(stack, bytes);
                    moved = Sample { addr, bytes, stack };
                }
            }
            if tables.insert(moved) {
                self.filter.add(addr);
            } else {
                tables.count_freed(moved.stack, moved.bytes);
                tables.lost += 1;
            }
        });
    }

    /// Samples that found no room.
    pub(crate) fn lost(&self) -> u64 {
        self.tables.with(|tables| tables.lost)
    }

    /// The entry of the stack table at `index`, or `None` behind the last. One at a time, so
    /// that whoever writes them out may allocate meanwhile.
    pub(crate) fn stack(&self, index: usize) -> Option<Stack> {
        self.tables.with(|tables| {
            let used = tables.stacks.get(..tables.used_stacks)?;
            used.get(index).copied()
        })
    }

    /// The lock, for the fork handlers.
    pub(crate) fn raw_lock(&self) -> &crate::sync::RawLock {
        self.tables.raw()
    }
}

/// The tables.
#[derive(Debug)]
struct Tables {
    /// One more than the index in `stacks`; 0 is empty.
    places: [u16; PLACES],
    stacks: [Stack; STACKS],
    live: [Sample; LIVE],
    used_stacks: usize,
    used_live: usize,
    lost: u64,
}

impl Tables {
    const fn new() -> Self {
        let sum = Sum {
            blocks: 0,
            bytes: 0,
        };
        let stack = Stack {
            hash: 0,
            frames: Frames::EMPTY,
            allocated: sum,
            freed: sum,
        };
        Self {
            places: [0; PLACES],
            stacks: [stack; STACKS],
            live: [Sample::NONE; LIVE],
            used_stacks: 0,
            used_live: 0,
            lost: 0,
        }
    }

    fn record(&mut self, addr: usize, bytes: usize, frames: &Frames) -> bool {
        let Some(stack) = self.stack(frames, bytes) else {
            return false;
        };
        let recorded = self.insert(Sample { addr, bytes, stack });
        if recorded {
            self.count_allocated(stack, bytes);
        }
        recorded
    }

    fn count_allocated(&mut self, stack: usize, bytes: usize) {
        if let Some(stack) = self.stacks.get_mut(stack) {
            stack.allocated.add(Sum::one(bytes));
        }
    }

    fn count_freed(&mut self, stack: usize, bytes: usize) {
        if let Some(stack) = self.stacks.get_mut(stack) {
            stack.freed.add(Sum::one(bytes));
        }
    }

    /// Index of the entry for this stack and size, a new one if need be.
    fn stack(&mut self, frames: &Frames, bytes: usize) -> Option<usize> {
        let hash = hash_stack(frames, magnitude(bytes));
        #[expect(clippy::cast_possible_truncation, reason = "taken modulo the length")]
        let mut place = hash as usize % PLACES;
        while let Some(index) = usize::from(*self.places.get(place)?).checked_sub(1) {
            // Two stacks with one hash of 64 bits would be shown as one.
            if self.stacks.get(index)?.hash == hash {
                return Some(index);
            }
            place = (place + 1) % PLACES;
        }
        let index = self.used_stacks;
        let found = self.stacks.get_mut(index)?;
        found.hash = hash;
        found.frames = *frames;
        self.used_stacks += 1;
        *self.places.get_mut(place)? = u16::try_from(self.used_stacks).ok()?;
        Some(index)
    }

    fn insert(&mut self, sample: Sample) -> bool {
        if self.used_live >= LIVE / 8 * 7 {
            return false;
        }
        let mut index = home(sample.addr);
        while self.live.get(index).is_some_and(|found| found.addr != 0) {
            index = (index + 1) % LIVE;
        }
        if let Some(slot) = self.live.get_mut(index) {
            *slot = sample;
            self.used_live += 1;
        }
        true
    }

    fn find(&self, addr: usize) -> Option<usize> {
        let mut index = home(addr);
        loop {
            match self.live.get(index)?.addr {
                0 => return None,
                found if found == addr => return Some(index),
                _ => index = (index + 1) % LIVE,
            }
        }
    }

    /// Takes a sample out, and moves those behind it up (V3).
    fn take(&mut self, addr: usize) -> Option<Sample> {
        let mut hole = self.find(addr)?;
        let taken = *self.live.get(hole)?;
        self.used_live -= 1;
        let mut index = hole;
        loop {
            index = (index + 1) % LIVE;
            let next = *self.live.get(index)?;
            if next.addr == 0 {
                break;
            }
            // It may move up unless its own place lies behind the hole.
            let from_home = (index + LIVE - home(next.addr)) % LIVE;
            let from_hole = (index + LIVE - hole) % LIVE;
            if from_home >= from_hole {
                *self.live.get_mut(hole)? = next;
                hole = index;
            }
        }
        *self.live.get_mut(hole)? = Sample::NONE;
        Some(taken)
    }
}

/// Where a block stands if the place is empty.
fn home(addr: usize) -> usize {
    let mixed = (addr >> 12).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed >> (usize::BITS - LIVE.ilog2())
}

/// The size to a quarter of a doubling.
fn magnitude(bytes: usize) -> usize {
    let bits = (bytes | 4).ilog2();
    bits as usize * 4 + (bytes >> (bits - 2) & 3)
}

fn hash_stack(frames: &Frames, magnitude: usize) -> u64 {
    let mut state = magnitude as u64;
    for &address in frames.as_slice() {
        state = (state.rotate_left(5) ^ address as u64).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    crate::poisson::next(&mut state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(addresses: &[usize]) -> Frames {
        let mut frames = Frames::EMPTY;
        frames.depth = addresses.len();
        frames.addresses[..addresses.len()].copy_from_slice(addresses);
        frames
    }

    /// Made on a thread with a stack that is large enough for it.
    fn profile() -> Box<Profile> {
        std::thread::Builder::new()
            .stack_size(64 << 20)
            .spawn(|| Box::new(Profile::new()))
            .expect("a thread")
            .join()
            .expect("no panic")
    }

    fn sums(profile: &Profile) -> (Sum, Sum) {
        let (mut allocated, mut freed) = (Sum::default(), Sum::default());
        for stack in (0..).map_while(|index| profile.stack(index)) {
            allocated.add(stack.allocated);
            freed.add(stack.freed);
        }
        (allocated, freed)
    }

    #[test]
    fn what_is_allocated_and_freed_adds_up_for_each_stack() {
        let profile = profile();
        let (one, two) = (frames(&[1, 2]), frames(&[1, 3]));
        assert!(profile.record(0x1000, 100, &one));
        assert!(profile.record(0x2000, 100, &one));
        assert!(profile.record(0x3000, 7, &two));
        profile.forget(0x2000);
        profile.forget(0x9000);
        assert!(profile.holds(0x1000) && !profile.holds(0x2000));
        let stacks: Vec<Stack> = (0..)
            .map_while(|index| profile.stack(index))
            .filter(|stack| stack.allocated.blocks > 0)
            .collect();
        assert_eq!(stacks.len(), 2);
        let live = |stack: &Stack| stack.allocated.less(stack.freed).bytes;
        assert_eq!(stacks.iter().map(live).sum::<u64>(), 107);
    }

    #[test]
    fn a_block_that_moves_and_grows_keeps_its_stack() {
        let profile = profile();
        assert!(profile.record(0x1000, 100, &frames(&[5])));
        let sample = profile.lift(0x1000).expect("it is there");
        profile.lay(sample, 0x8000, 1000);
        assert!(!profile.holds(0x1000) && profile.holds(0x8000));
        let (allocated, freed) = sums(&profile);
        assert_eq!((allocated.bytes, freed.bytes), (1100, 100));
    }

    #[test]
    fn full_tables_lose_samples_and_say_so() {
        let profile = profile();
        let stack = frames(&[1]);
        let full = (1..=LIVE).filter(|index| profile.record(index << 12, 8, &stack));
        assert_eq!(full.count(), LIVE / 8 * 7);
        assert_eq!(profile.lost(), LIVE as u64 / 8);
        profile.forget(1 << 12);
        assert!(profile.record(1 << 12, 8, &stack), "there is room again");
    }

    /// The table of live blocks against a map, with addresses that collide.
    #[test]
    fn the_table_of_live_blocks_is_a_map() {
        use std::collections::HashMap;
        let profile = profile();
        let mut oracle: HashMap<usize, usize> = HashMap::new();
        let mut state = 1;
        for step in 0..40_000 {
            #[expect(clippy::cast_possible_truncation, reason = "a random number")]
            let random = crate::poisson::next(&mut state) as usize;
            let addr = (random % 3000 + 1) << 12;
            if oracle.remove(&addr).is_some() {
                let sample = profile.lift(addr).expect("the oracle has it");
                assert_eq!(sample.addr, addr);
            } else {
                assert!(profile.lift(addr).is_none(), "step {step}");
                assert!(profile.record(addr, step, &frames(&[1])));
                oracle.insert(addr, step);
            }
        }
        assert!(oracle.keys().all(|&addr| profile.holds(addr)));
    }

    #[test]
    fn magnitudes_are_quarters_of_a_doubling() {
        assert_eq!(magnitude(1024), magnitude(1279));
        assert_ne!(magnitude(1024), magnitude(1280));
        assert_ne!(magnitude(1792), magnitude(2048));
        assert!((4..5000).all(|size| magnitude(size) <= magnitude(size + 1)));
    }
}
