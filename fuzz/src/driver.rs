//! Drives one heap through a list of operations beside the oracle.
//!
//! The driver has one thread; its caches stand for the threads of a program,
//! and blocks are freed through other caches than they came from. What several
//! threads do at the same time is the matter of [`soak`](crate::soak).

use core::alloc::Layout;
use core::fmt;

use brickyard_arena::Heap;

use crate::census;
use crate::fault::Refusals;
use crate::handles::Handles;
use crate::op::{
    CACHE_SLOTS, CacheSlot, Count, Op, Pick, Resize, Shape, Via, is_impossible, layout_of,
};
use crate::shadow::{Defect, Shadow};

/// Bytes that a program may hold at once; more is not allocated. Keeps a fuzzer
/// below its memory limit.
const BUDGET_BYTES: usize = 24 << 20;

/// Blocks that a program may hold at once, so that a run stays short.
const BUDGET_BLOCKS: usize = 3000;

/// Steps between two unasked checks of everything.
const STEPS_PER_CHECK: usize = 64;

/// A broken promise and where in the program it showed.
#[derive(Debug)]
pub struct Failure {
    /// Number of the operation.
    step: usize,
    /// The operation; none when it showed while everything was freed.
    op: Option<Op>,
    defect: Defect,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.op {
            Some(op) => write!(f, "step {} {op:?}: {}", self.step, self.defect),
            None => write!(
                f,
                "while freeing all after {} steps: {}",
                self.step, self.defect
            ),
        }
    }
}

impl core::error::Error for Failure {}

/// A heap, its handles, and the oracle.
#[derive(Debug)]
pub struct Driver<'h> {
    handles: Handles<'h>,
    shadow: Shadow,
    refusals: Refusals,
    steps: usize,
    purged: usize,
    hardened: bool,
}

impl<'h> Driver<'h> {
    /// A driver for a heap that nobody uses yet.
    #[must_use]
    pub fn new(heap: &'h Heap, refusals: Refusals) -> Self {
        let mut handles = Handles::new(heap);
        if !matches!(refusals, Refusals::Never) {
            handles.stop_poisoning();
        }
        Self {
            handles,
            shadow: Shadow::new(),
            refusals,
            steps: 0,
            purged: 0,
            hardened: false,
        }
    }

    /// Says that the heap is hardened: it zeroes what is freed, so freed blocks are not
    /// poisoned; and some blocks are guarded, which the figures of classes do not show.
    pub fn harden(&mut self) {
        self.handles.stop_poisoning();
        self.hardened = true;
    }

    /// Carries out all operations.
    ///
    /// # Errors
    ///
    /// The first promise that the heap breaks.
    pub fn run(&mut self, ops: &[Op]) -> Result<(), Failure> {
        for op in ops {
            self.step(op).map_err(|defect| Failure {
                step: self.steps,
                op: Some(op.clone()),
                defect,
            })?;
            self.steps += 1;
        }
        Ok(())
    }

    /// Frees everything in changing orders, and checks that nothing remains.
    ///
    /// # Errors
    ///
    /// The first promise that the heap breaks.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.free_all().map_err(|defect| Failure {
            step: self.steps,
            op: None,
            defect,
        })
    }

    /// Checks every promise that can be checked from outside, all contents
    /// included.
    ///
    /// # Errors
    ///
    /// The first promise that the heap breaks.
    pub fn check_all(&mut self) -> Result<(), Defect> {
        for block in self.shadow.blocks() {
            self.shadow.inspect(block)?;
        }
        self.check_stats()?;
        self.validate()
    }

    /// From here on the heap must serve every request again.
    pub fn faults_are_over(&mut self) {
        if self.refusals.permitted() {
            self.refusals = Refusals::NoLonger;
        } else {
            self.refusals = Refusals::Never;
        }
    }

    fn step(&mut self, op: &Op) -> Result<(), Defect> {
        match *op {
            Op::Alloc { via, shape, count } => self.alloc(via, shape, count, false)?,
            Op::AllocZeroed { via, shape, count } => {
                self.handles.open_poison();
                let result = self.alloc(via, shape, count, true);
                self.handles.close_poison();
                result?;
            }
            Op::Realloc { via, pick, resize } => self.realloc(via, pick, resize)?,
            Op::Free { via, pick, count } => {
                for _ in 0..count.get() {
                    self.free(via, pick)?;
                }
            }
            Op::Inspect { pick } => {
                if let Some(block) = self.shadow.pick(pick) {
                    self.shadow.inspect(&block)?;
                }
            }
            Op::Flush { cache } => self.handles.flush(cache),
            Op::Reopen { cache } => {
                if !self.handles.reopen(cache) {
                    self.refused(Layout::new::<u8>())?;
                }
            }
            Op::Trim => self.trim()?,
            Op::CheckStats => self.check_stats()?,
            Op::Validate => self.validate()?,
        }
        if self.steps % STEPS_PER_CHECK == STEPS_PER_CHECK - 1 {
            self.check_all()?;
        }
        Ok(())
    }

    fn alloc(&mut self, via: Via, shape: Shape, count: Count, zeroed: bool) -> Result<(), Defect> {
        let layout = shape.layout(self.handles.block_sizes());
        for _ in 0..count.get() {
            let impossible = is_impossible(layout.size());
            if !impossible && !self.affords(layout.size()) {
                return Ok(());
            }
            let ptr = if zeroed {
                self.handles.alloc_zeroed(via, layout)
            } else {
                self.handles.alloc(via, layout)
            };
            match (ptr.is_null(), impossible) {
                (true, true) => return Ok(()),
                (false, true) => return Err(Defect::Absurd(layout)),
                (true, false) => self.refused(layout)?,
                // SAFETY: the heap's answer to a request for `layout`; freed
                // only after `Shadow::remove`.
                (false, false) => unsafe { self.shadow.insert(ptr, layout, zeroed) }?,
            }
        }
        Ok(())
    }

    fn realloc(&mut self, via: Via, pick: Pick, resize: Resize) -> Result<(), Defect> {
        let Some(block) = self.shadow.pick(pick) else {
            return Ok(());
        };
        let wanted = resize.bytes(block.layout.size(), self.handles.block_sizes());
        let layout = layout_of(wanted, block.layout.align());
        // `GlobalAlloc::realloc` asks for a new size above zero, and so does
        // every collection.
        if layout.size() == 0 || block.layout.size() == 0 {
            return Ok(());
        }
        let impossible = is_impossible(layout.size());
        if !impossible && !self.affords(layout.size()) {
            return Ok(());
        }
        self.shadow.inspect(&block)?;
        // SAFETY: a live block by the shadow, with the layout it has, and a size
        // that `layout_of` found valid.
        let ptr = unsafe {
            self.handles
                .realloc(via, block.ptr, block.layout, layout.size())
        };
        match (ptr.is_null(), impossible) {
            (true, true) => self.shadow.inspect(&block),
            (false, true) => Err(Defect::Absurd(layout)),
            (true, false) => {
                self.refused(layout)?;
                self.shadow.inspect(&block)
            }
            // SAFETY: the heap's answer for this block and this size.
            (false, false) => unsafe { self.shadow.moved(pick, ptr, layout.size()) },
        }
    }

    fn free(&mut self, via: Via, pick: Pick) -> Result<(), Defect> {
        if let Some(block) = self.shadow.remove(pick)? {
            // SAFETY: it was live by the shadow and has left it, so this is the
            // only time.
            unsafe { self.handles.dealloc(via, block.ptr, block.layout) };
        }
        Ok(())
    }

    fn trim(&mut self) -> Result<(), Defect> {
        self.handles.trim();
        self.check_purged()
    }

    fn check_stats(&mut self) -> Result<(), Defect> {
        if self.hardened {
            census::compare_hardened(&self.handles, &self.shadow)?;
        } else {
            census::compare(&self.handles, &self.shadow, &self.refusals)?;
        }
        self.check_purged()
    }

    /// `purged` counts from the heap's birth, so it never falls.
    fn check_purged(&mut self) -> Result<(), Defect> {
        let purged = self.handles.heap().stats().purged;
        if purged < self.purged {
            let before = self.purged;
            return Err(Defect::Statistics(format!(
                "purged fell from {before} to {purged}"
            )));
        }
        self.purged = purged;
        Ok(())
    }

    fn validate(&self) -> Result<(), Defect> {
        self.handles
            .heap()
            .validate()
            .map_err(|violation| Defect::Invariant(format!("{violation}")))
    }

    /// Null, though the size is sensible: legal after a fault only.
    fn refused(&self, layout: Layout) -> Result<(), Defect> {
        if self.refusals.permitted() {
            Ok(())
        } else {
            Err(Defect::Refused(layout))
        }
    }

    fn affords(&self, size: usize) -> bool {
        let held = self.shadow.requested_bytes();
        self.shadow.blocks().len() < BUDGET_BLOCKS && held.saturating_add(size) <= BUDGET_BYTES
    }

    fn free_all(&mut self) -> Result<(), Defect> {
        self.check_all()?;
        let mut turn = 0_u8;
        while !self.shadow.blocks().is_empty() {
            let via = match usize::from(turn) % (CACHE_SLOTS + 1) {
                0 => Via::Heap,
                _ => Via::Cache(CacheSlot(turn)),
            };
            let pick = match turn % 3 {
                0 => Pick::Oldest,
                1 => Pick::Newest,
                _ => Pick::Nth(u16::from(turn) * 97),
            };
            for _ in 0..40 {
                self.free(via, pick)?;
            }
            turn = turn.wrapping_add(1);
        }
        self.check_stats()?;
        self.handles.close();
        self.validate()?;
        census::nothing_lives(&self.handles.heap().stats())?;
        self.trim()?;
        self.validate()?;
        census::nothing_rests(&self.handles.heap().stats())
    }
}
