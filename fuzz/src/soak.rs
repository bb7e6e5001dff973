//! Many threads on one heap, for as long as somebody wants to wait.
//!
//! Each thread has its own cache and keeps some blocks; it allocates, frees,
//! reallocates, hands blocks to other threads and frees what others handed to
//! it. One more thread asks for statistics and trims. Now and then a thread
//! drops its cache and opens another, which is what the heap sees of a thread
//! that exits and one that starts.
//!
//! What could go wrong and how it would show: two threads get one block, or one
//! gets a block that another still holds: the pattern of one of them is
//! overwritten, and whoever frees or reallocates it finds that out. A block is
//! lost on its way back, or counted twice: after the last free the statistics
//! are not zero, or the heap's own check fails.

use core::alloc::Layout;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::thread;
use std::time::Instant;

use brickyard_arena::{Arena, Heap, HeapCache};
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::census;
use crate::pattern;
use crate::poison::{self, PoisonedRanges};

/// Blocks that a thread keeps at once.
const KEPT_BLOCKS: usize = 400;

/// Blocks that a thread allocates at once, now and then.
const BURST_BLOCKS: usize = 600;

/// Blocks on their way to one thread.
const CHANNEL_BLOCKS: usize = 256;

/// Steps between two looks at the clock.
const STEPS_PER_CLOCK: usize = 256;

/// What a soak run has done.
#[derive(Debug, Default, Clone, Copy)]
pub struct Summary {
    /// Blocks allocated.
    pub allocated: u64,
    /// Blocks freed by another thread than the allocating one.
    pub handed_over: u64,
}

/// How a soak run goes.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Threads that allocate.
    pub threads: usize,
    /// How long they do.
    pub duration: Duration,
    /// Where their choices start.
    pub seed: u64,
    /// Whether the heap is hardened, with many guarded blocks.
    pub hardened: bool,
}

/// A block with its content's number.
#[derive(Debug)]
struct Parcel {
    ptr: *mut u8,
    layout: Layout,
    id: u64,
}

// SAFETY: a parcel is the only handle to its block, and a block may be used and
// freed by any thread; which thread holds the parcel holds the block.
unsafe impl Send for Parcel {}

/// What all threads share.
#[derive(Debug)]
struct Stage {
    heap: Heap,
    next_id: AtomicU64,
    over: AtomicBool,
    routes: Vec<(Sender<Parcel>, Receiver<Parcel>)>,
}

/// Runs a soak and checks that nothing remains afterwards.
///
/// # Panics
///
/// Panics when the heap breaks a promise.
#[must_use]
pub fn run(plan: Plan) -> Summary {
    let options = match plan.hardened {
        true => crate::arena_ops::hardened(),
        false => Arena::builder(),
    };
    let stage = Stage {
        heap: Heap::with_options(&options).expect("memory for a heap"),
        next_id: AtomicU64::new(1),
        over: AtomicBool::new(false),
        routes: (0..plan.threads).map(|_| bounded(CHANNEL_BLOCKS)).collect(),
    };
    let end = Instant::now() + plan.duration;
    let summary = thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.threads)
            .map(|number| {
                let stage = &stage;
                scope.spawn(move || Worker::new(stage, number, plan.seed).work_until(end))
            })
            .collect();
        let observer = scope.spawn(|| observe(&stage));
        let mut total = Summary::default();
        let mut failure = None;
        for worker in workers {
            match worker.join() {
                Ok(done) => {
                    total.allocated += done.allocated;
                    total.handed_over += done.handed_over;
                }
                Err(panic) => failure = Some(panic),
            }
        }
        // Relaxed: only ends the observer's loop; nothing is read through it.
        stage.over.store(true, Ordering::Relaxed);
        observer
            .join()
            .expect("statistics and trim beside allocating threads");
        if let Some(panic) = failure {
            std::panic::resume_unwind(panic);
        }
        total
    });
    settle(&stage);
    summary
}

/// Frees what is still on its way and checks that nothing is left.
fn settle(stage: &Stage) {
    for (_, receiver) in &stage.routes {
        for parcel in receiver.try_iter() {
            parcel.check();
            // SAFETY: the parcel is the only handle to a live block of the heap.
            unsafe { stage.heap.dealloc(parcel.ptr, parcel.layout) };
        }
    }
    stage.heap.validate().expect("a whole heap after the soak");
    census::nothing_lives(&stage.heap.stats()).expect("nothing live after the soak");
    stage.heap.trim();
    stage
        .heap
        .validate()
        .expect("a whole heap after the last trim");
}

/// Asks for statistics and trims until the workers are done.
fn observe(stage: &Stage) {
    let mut purged = 0;
    let mut round = 0_u32;
    // Relaxed: see the store.
    while !stage.over.load(Ordering::Relaxed) {
        let stats = stage.heap.stats();
        assert!(
            stats.purged >= purged,
            "purged fell from {purged} to {}",
            stats.purged
        );
        purged = stats.purged;
        // What a trim unmaps must not stay poisoned, and the threads know no better.
        if round.is_multiple_of(16) && !PoisonedRanges::enabled() {
            stage.heap.trim();
        }
        round += 1;
        thread::sleep(Duration::from_millis(3));
    }
}

impl Parcel {
    /// Compares the content with what the allocating thread wrote.
    fn check(&self) {
        let size = self.layout.size();
        // SAFETY: the parcel is the only handle to its block, which `fill` wrote
        // when it had `size` bytes.
        if let Err(mismatch) = unsafe { pattern::check(self.ptr, size, size, self.id) } {
            panic!("content of {self:?} changed: {mismatch:?}");
        }
    }
}

/// One allocating thread.
#[derive(Debug)]
struct Worker<'s> {
    stage: &'s Stage,
    number: usize,
    cache: HeapCache<'s>,
    random: fastrand::Rng,
    kept: Vec<Parcel>,
    done: Summary,
}

impl<'s> Worker<'s> {
    fn new(stage: &'s Stage, number: usize, seed: u64) -> Self {
        Self {
            stage,
            number,
            cache: stage.heap.cache().expect("a cache for every thread"),
            random: fastrand::Rng::with_seed(seed ^ (number as u64) << 32),
            kept: Vec::with_capacity(KEPT_BLOCKS),
            done: Summary::default(),
        }
    }

    fn work_until(mut self, end: Instant) -> Summary {
        while Instant::now() < end {
            for _ in 0..STEPS_PER_CLOCK {
                self.step();
            }
        }
        while let Some(parcel) = self.kept.pop() {
            self.free(parcel);
        }
        self.done
    }

    fn step(&mut self) {
        match self.random.u32(..1000) {
            0..450 => self.alloc(),
            450..750 => self.free_one(),
            750..850 => self.hand_over(),
            850..950 => self.take_delivery(),
            950..995 => self.realloc(),
            995 => self.burst(),
            996..999 => self.cache.flush(),
            _ => {
                self.cache = self
                    .stage
                    .heap
                    .cache()
                    .expect("a cache in place of the old one");
            }
        }
    }

    fn alloc(&mut self) {
        if self.kept.len() == KEPT_BLOCKS {
            return self.free_one();
        }
        let layout = self.layout();
        // ASan cannot be told beforehand which poisoned block will be zeroed.
        let zeroed = !PoisonedRanges::enabled() && self.random.u8(..) < 32;
        let ptr = if zeroed {
            self.cache.alloc_zeroed(layout)
        } else {
            self.cache.alloc(layout)
        };
        assert!(!ptr.is_null(), "no block for {layout:?}");
        assert!(
            ptr.addr().is_multiple_of(layout.align()),
            "{ptr:?} for {layout:?}"
        );
        poison::unpoison(ptr.addr(), layout.size());
        if zeroed {
            // SAFETY: just allocated with `layout.size()` bytes, all written.
            let found = unsafe { pattern::check_zero(ptr, layout.size()) };
            assert_eq!(found, Ok(()), "{layout:?} at {ptr:?} is not zeroed");
        }
        self.done.allocated += 1;
        self.keep(ptr, layout);
    }

    /// Fills a new block and keeps it.
    fn keep(&mut self, ptr: *mut u8, layout: Layout) {
        // Relaxed: the number only has to be unique.
        let id = self.stage.next_id.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the block was given to this thread just now.
        unsafe { pattern::fill(ptr, layout.size(), id) };
        self.kept.push(Parcel { ptr, layout, id });
    }

    fn free_one(&mut self) {
        if let Some(parcel) = self.take_any() {
            self.free(parcel);
        }
    }

    fn free(&mut self, parcel: Parcel) {
        parcel.check();
        if !poison::has_own_mapping(parcel.ptr.addr()) {
            poison::poison(parcel.ptr.addr(), parcel.layout.size());
        }
        // SAFETY: the parcel was the only handle to a live block of the heap.
        unsafe { self.cache.dealloc(parcel.ptr, parcel.layout) };
    }

    /// Allocates more blocks of one size than a magazine holds, and frees them all.
    fn burst(&mut self) {
        let layout = crate::op::layout_of(8 << self.random.usize(..8), 8);
        let kept = self.kept.len();
        for _ in 0..BURST_BLOCKS {
            let ptr = self.cache.alloc(layout);
            assert!(!ptr.is_null(), "no block for {layout:?}");
            poison::unpoison(ptr.addr(), layout.size());
            self.done.allocated += 1;
            self.keep(ptr, layout);
        }
        let mut burst = self.kept.split_off(kept);
        self.random.shuffle(&mut burst);
        burst.into_iter().for_each(|parcel| self.free(parcel));
    }

    fn hand_over(&mut self) {
        let Some(parcel) = self.take_any() else {
            return;
        };
        let to = self.random.usize(..self.stage.routes.len());
        match self.stage.routes[to].0.try_send(parcel) {
            Ok(()) => {}
            Err(refused) => self.free(refused.into_inner()),
        }
    }

    fn take_delivery(&mut self) {
        for _ in 0..8 {
            let Ok(parcel) = self.stage.routes[self.number].1.try_recv() else {
                return;
            };
            self.done.handed_over += 1;
            self.free(parcel);
        }
    }

    fn realloc(&mut self) {
        let Some(old) = self.take_any() else {
            return;
        };
        if PoisonedRanges::enabled() || old.layout.size() == 0 {
            // ASan cannot be told beforehand which block will be copied into.
            return self.free(old);
        }
        let size = self.layout().size().max(1);
        let layout = crate::op::layout_of(size, old.layout.align());
        old.check();
        // SAFETY: the parcel was the only handle to a live block of the heap,
        // `size` is above zero and `layout_of` found it valid.
        let ptr = unsafe { self.cache.realloc(old.ptr, old.layout, layout.size()) };
        assert!(!ptr.is_null(), "no block for {layout:?}");
        let kept = size.min(old.layout.size());
        // SAFETY: realloc has copied the first `kept` bytes of the old block.
        let prefix = unsafe { pattern::check(ptr, old.layout.size(), kept, old.id) };
        assert_eq!(
            prefix,
            Ok(()),
            "realloc from {old:?} to {layout:?} lost content"
        );
        self.keep(ptr, layout);
    }

    fn take_any(&mut self) -> Option<Parcel> {
        if self.kept.is_empty() {
            return None;
        }
        let index = self.random.usize(..self.kept.len());
        Some(self.kept.swap_remove(index))
    }

    /// Mostly small, some of a few KiB, few of many.
    fn layout(&mut self) -> Layout {
        let size = match self.random.u32(..1000) {
            0..700 => self.random.usize(0..=256),
            700..950 => self.random.usize(257..=4096),
            950..996 => self.random.usize(4097..=65_536),
            996..999 => self.random.usize(65_537..=1 << 20),
            _ => self.random.usize((1 << 20) + 1..=3 << 20),
        };
        let align = if self.random.u8(..) < 16 {
            1 << self.random.u32(0..=12)
        } else {
            8
        };
        crate::op::layout_of(size, align)
    }
}
