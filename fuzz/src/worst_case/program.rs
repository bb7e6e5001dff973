//! Phases, and what they do to a subject.

use core::alloc::Layout;

use arbitrary::Arbitrary;

use crate::op::{CacheSlot, Size};
use crate::worst_case::subject::Subject;

/// Allocated bytes between two looks at what the subject holds.
const LOOK_BYTES: usize = 256 << 10;

/// One step of a program, on all blocks at once.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Phase {
    /// Frees the blocks of `scope`, but for the survivors that `keep` names.
    Free {
        /// Among which blocks.
        scope: Scope,
        /// Which of them stay.
        keep: Keep,
        /// The cache that gets them.
        via: CacheSlot,
    },
    /// Allocates blocks of one size until so much of the budget is live.
    Alloc {
        /// The size.
        size: Size,
        /// Sixteenths of the budget, from 1.
        fill: u8,
        /// The cache that serves it.
        via: CacheSlot,
    },
    /// Makes the blocks of `scope` that are smaller so large, as far as the budget allows.
    Grow {
        /// Which blocks.
        scope: Scope,
        /// The size.
        size: Size,
        /// The cache that serves it.
        via: CacheSlot,
    },
    /// Empties a cache into the heap.
    Flush {
        /// The cache.
        via: CacheSlot,
    },
}

/// Blocks by age.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Scope {
    /// All that live.
    All,
    /// Those of the last phase that allocated.
    Newest,
    /// Those of the `n`-th phase, modulo their number.
    Nth(u8),
}

/// Survivors.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Keep {
    /// None.
    Nothing,
    /// Every 2nd, 4th, … 4096th in order of address.
    Every(u8),
    /// As many, at random.
    Random(u8),
    /// The smallest block in each 64 bytes, 128 bytes, … 4 MiB of address space.
    OnePer(u8),
    /// So many sixteenths, those at the lowest addresses.
    Low(u8),
    /// So many sixteenths, those at the highest.
    High(u8),
}

/// A block of the program.
#[derive(Clone, Copy, Debug)]
struct Block {
    ptr: *mut u8,
    size: u32,
    /// Number of the phase that allocated it.
    born: u32,
}

/// What a program did to its subject.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The most that the subject held, in bytes.
    pub held: usize,
    /// The budget.
    pub budget: usize,
}

impl Outcome {
    /// The most held, over the budget.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    pub fn ratio(&self) -> f64 {
        self.held as f64 / self.budget as f64
    }
}

/// Runs `program` on `subject` with at most `budget` bytes requested at any time.
///
/// # Panics
///
/// Panics when the subject has no memory.
pub fn run<S: Subject>(subject: &mut S, program: &[Phase], budget: usize) -> Outcome {
    let mut state = State {
        blocks: touched(budget / 8),
        scratch: touched(budget / 8),
        random: fastrand::Rng::with_seed(17),
        live: 0,
        held: 0,
        budget,
        phase: 0,
        last: 0,
    };
    subject.begin();
    for phase in program {
        state.phase += 1;
        state.step(subject, *phase);
        state.look(subject);
    }
    state.free(subject, Scope::All, Keep::Nothing, CacheSlot(0));
    Outcome {
        held: state.held,
        budget,
    }
}

/// A list with room for so many blocks, all of which is resident: it is no part of what is measured.
fn touched(blocks: usize) -> Vec<Block> {
    let nothing = Block {
        ptr: core::ptr::null_mut(),
        size: 1,
        born: 1,
    };
    let mut list = vec![nothing; blocks];
    list.clear();
    list
}

struct State {
    blocks: Vec<Block>,
    scratch: Vec<Block>,
    random: fastrand::Rng,
    /// Bytes requested.
    live: usize,
    held: usize,
    budget: usize,
    phase: u32,
    /// The last phase that allocated.
    last: u32,
}

impl State {
    fn step<S: Subject>(&mut self, subject: &mut S, phase: Phase) {
        match phase {
            Phase::Free { scope, keep, via } => self.free(subject, scope, keep, via),
            Phase::Alloc { size, fill, via } => self.alloc(subject, size, fill, via),
            Phase::Grow { scope, size, via } => self.grow(subject, scope, size, via),
            Phase::Flush { via } => subject.flush(via),
        }
    }

    fn look<S: Subject>(&mut self, subject: &mut S) {
        self.held = self.held.max(subject.held());
    }

    /// The size in bytes, if blocks of that size tell something at this budget. Nobody has blocks of
    /// less than a word; with them, one byte in eight would be all there is to find.
    fn size<S: Subject>(&self, subject: &S, size: Size) -> Option<u32> {
        let bytes = size.bytes(subject.block_sizes()).max(8);
        let fits = bytes <= self.budget / 4;
        fits.then(|| u32::try_from(bytes).ok()).flatten()
    }

    fn alloc<S: Subject>(&mut self, subject: &mut S, size: Size, fill: u8, via: CacheSlot) {
        let Some(size) = self.size(subject, size) else {
            return;
        };
        let target = self.budget / 16 * (1 + usize::from(fill) % 16);
        let layout = layout(size);
        let mut looked = self.live;
        while self.live + layout.size() <= target {
            let ptr = subject.alloc(via, layout);
            assert!(!ptr.is_null(), "no memory");
            self.blocks.push(Block {
                ptr,
                size,
                born: self.phase,
            });
            self.live += layout.size();
            if self.live - looked >= LOOK_BYTES {
                looked = self.live;
                self.look(subject);
            }
        }
        self.last = self.phase;
    }

    fn born(&self, scope: Scope) -> Option<u32> {
        match scope {
            Scope::All => None,
            Scope::Newest => Some(self.last),
            Scope::Nth(n) => Some(u32::from(n) % self.phase.max(1)),
        }
    }

    fn grow<S: Subject>(&mut self, subject: &mut S, scope: Scope, size: Size, via: CacheSlot) {
        let Some(size) = self.size(subject, size) else {
            return;
        };
        let born = self.born(scope);
        let mut grown = 0;
        for index in 0..self.blocks.len() {
            let block = self.blocks[index];
            let added = size.saturating_sub(block.size) as usize;
            let is_in_scope = born.is_none_or(|born| born == block.born);
            if !is_in_scope || added == 0 || self.live + added > self.budget {
                continue;
            }
            // SAFETY: a live block of the subject, with the layout it has; `size` is a valid one.
            let ptr = unsafe { subject.realloc(via, block.ptr, layout(block.size), size as usize) };
            assert!(!ptr.is_null(), "no memory");
            self.blocks[index] = Block { ptr, size, ..block };
            self.live += added;
            grown += added;
            if grown >= LOOK_BYTES {
                grown = 0;
                self.look(subject);
            }
        }
    }

    fn free<S: Subject>(&mut self, subject: &mut S, scope: Scope, keep: Keep, via: CacheSlot) {
        let born = self.born(scope);
        let mut all = core::mem::take(&mut self.blocks);
        all.sort_unstable_by_key(|block| block.ptr.addr());
        let mut staying = core::mem::take(&mut self.scratch);
        let of = |block: &Block| born.is_none_or(|born| born == block.born);
        let count = all.iter().filter(|block| of(block)).count();
        let (mut index, mut window) = (0, None);
        for &block in &all {
            if !of(&block) {
                staying.push(block);
                continue;
            }
            if let Keep::OnePer(n) = keep {
                let here = Some(block.ptr.addr() >> (6 + n % 17));
                match staying.last_mut() {
                    Some(last) if window == here && last.size > block.size => {
                        let larger = core::mem::replace(last, block);
                        self.free_one(subject, larger, via);
                    }
                    Some(_) if window == here => self.free_one(subject, block, via),
                    _ => {
                        window = here;
                        staying.push(block);
                    }
                }
            } else if self.stays(keep, index, count) {
                staying.push(block);
            } else {
                self.free_one(subject, block, via);
            }
            index += 1;
        }
        all.clear();
        self.scratch = all;
        self.blocks = staying;
    }

    /// Whether the block of this index stays, of so many.
    fn stays(&mut self, keep: Keep, index: usize, count: usize) -> bool {
        let nth = |n: u8| 2 << (n % 12);
        let share = |n: u8| count / 16 * usize::from(n % 16);
        match keep {
            Keep::Nothing | Keep::OnePer(_) => false,
            Keep::Every(n) => index.is_multiple_of(nth(n)),
            Keep::Random(n) => self.random.usize(..nth(n)) == 0,
            Keep::Low(n) => index < share(n),
            Keep::High(n) => index >= count - share(n),
        }
    }

    fn free_one<S: Subject>(&mut self, subject: &mut S, block: Block, via: CacheSlot) {
        self.live -= block.size as usize;
        // SAFETY: a live block of the subject, which leaves the list for good.
        unsafe { subject.dealloc(via, block.ptr, layout(block.size)) };
    }
}

fn layout(size: u32) -> Layout {
    crate::op::layout_of(size as usize, 1)
}
