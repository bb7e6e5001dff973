//! From calls with addresses to a program with slots.

use std::collections::HashMap;

use brickyard_recording::{Block, Event};

use super::calls::{Calls, Ending, ReadError};
use super::program::{MAX_SIZE, MAX_SLOTS, Op, Program, Thread};

/// Most epochs, which is also the number of points of a timeline.
const MOST_EPOCHS: u64 = 256;

/// Fewest calls of an epoch: threads meet at its end.
const EPOCH_CALLS: u64 = 256;

/// Two to the power of this is the alignment of `malloc` for blocks that are large enough.
const MALLOC_ALIGN_LOG2: u8 = 4;

/// What is known of a recording beside its program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) calls: u64,
    pub(crate) threads: usize,
    pub(crate) allocated_bytes: u64,
    /// Bytes that the program holds at the end of each epoch.
    pub(crate) live_bytes: Vec<u64>,
    /// The most that it held after any call.
    pub(crate) peak_bytes: u64,
    /// The most that a replay can hold: threads meet at the ends of epochs only, and each may be
    /// where it holds most of its own when the others are.
    pub(crate) most_bytes: u64,
    /// Blocks that it has at the end.
    pub(crate) left_blocks: usize,
    /// Frees of blocks whose allocation is not in the recording.
    pub(crate) unknown_frees: u64,
    /// Blocks given out again whose free is not in the recording.
    pub(crate) unseen_frees: u64,
    pub(crate) ending: Ending,
}

impl Facts {
    /// Bytes that the program has at the end.
    pub(crate) fn left_bytes(&self) -> u64 {
        self.live_bytes.last().copied().unwrap_or(0)
    }
}

/// Turns a recording into a program: of its threads, or of one that makes all calls in
/// their order.
///
/// # Errors
///
/// When it is no recording, or one that no program can have left.
pub(crate) fn build(bytes: &[u8], serial: bool) -> Result<(Program, Facts), ReadError> {
    let mut calls = Calls::of(bytes)?;
    let mut builder = Builder::new(&calls, serial);
    while let Some((thread, event)) = calls.next()? {
        builder.add(thread, event)?;
    }
    Ok(builder.finish())
}

/// A block that is alive.
#[derive(Debug, Clone, Copy)]
struct Live {
    slot: u32,
    size: u64,
}

#[derive(Debug)]
struct Builder {
    serial: bool,
    epoch_calls: u64,
    epoch: u32,
    live: HashMap<Block, Live>,
    /// By thread, what its `realloc` holds: the block as it was.
    moving: HashMap<u32, (Block, Live)>,
    /// Empty since an earlier epoch.
    empty: Vec<u32>,
    /// Emptied in this epoch.
    emptied: Vec<u32>,
    held_bytes: u64,
    /// By thread, what it has allocated in this epoch less what it has freed, and the most of that.
    ahead: HashMap<u32, (i64, i64)>,
    indices: HashMap<u32, usize>,
    program: Program,
    facts: Facts,
}

impl Builder {
    fn new(calls: &Calls<'_>, serial: bool) -> Self {
        Self {
            serial,
            epoch_calls: calls.count().div_ceil(MOST_EPOCHS).max(EPOCH_CALLS),
            epoch: 0,
            live: HashMap::new(),
            moving: HashMap::new(),
            empty: Vec::new(),
            emptied: Vec::new(),
            held_bytes: 0,
            ahead: HashMap::new(),
            indices: HashMap::new(),
            program: Program::default(),
            facts: Facts {
                calls: 0,
                threads: 0,
                allocated_bytes: 0,
                live_bytes: Vec::new(),
                peak_bytes: 0,
                most_bytes: 0,
                left_blocks: 0,
                unknown_frees: 0,
                unseen_frees: 0,
                ending: calls.ending(),
            },
        }
    }

    /// Adds the next call.
    fn add(&mut self, thread: u32, event: Event) -> Result<(), ReadError> {
        let default = |size: u64| {
            // The alignment of a type of that size: more is not promised.
            let log2 = size.max(1).ilog2().min(u32::from(MALLOC_ALIGN_LOG2));
            u8::try_from(log2).unwrap_or(MALLOC_ALIGN_LOG2)
        };
        match event {
            Event::Allocate { block, size } => {
                self.allocate(thread, block, size, default(size), false)?;
            }
            Event::AllocateZeroed { block, size } => {
                self.allocate(thread, block, size, default(size), true)?;
            }
            Event::AllocateAligned {
                block,
                size,
                align_log2,
            } => self.allocate(thread, block, size, align_log2, false)?,
            Event::Free { block } => match self.live.remove(&block) {
                Some(live) => self.free(thread, live),
                None => self.facts.unknown_frees += 1,
            },
            Event::ReallocBegin { block } => {
                if let Some(live) = self.live.remove(&block)
                    && let Some((_, before)) = self.moving.insert(thread, (block, live))
                {
                    // The end of the `realloc` before was lost.
                    self.facts.unseen_frees += 1;
                    self.free(thread, before);
                }
            }
            Event::ReallocEnd { block, size } => match self.moving.remove(&thread) {
                Some((_, live)) => self.grow(thread, live, block, size)?,
                None => {
                    self.facts.unknown_frees += 1;
                    self.allocate(thread, block, size, default(size), false)?;
                }
            },
            Event::ReallocFailed => {
                if let Some((block, live)) = self.moving.remove(&thread) {
                    self.keep(thread, block, live);
                }
            }
        }
        self.facts.calls += 1;
        if self.facts.calls.is_multiple_of(self.epoch_calls) {
            self.end_epoch();
        }
        Ok(())
    }

    fn allocate(
        &mut self,
        thread: u32,
        block: Block,
        size: u64,
        align_log2: u8,
        zeroed: bool,
    ) -> Result<(), ReadError> {
        if size > MAX_SIZE || align_log2 >= 47 {
            return Err(ReadError::Size {
                thread,
                size,
                align_log2,
            });
        }
        // `malloc(0)` gives a block, too.
        let size = size.max(1);
        let slot = self.fill(thread, size)?;
        self.keep(thread, block, Live { slot, size });
        self.push(
            thread,
            Op::Allocate {
                slot,
                size,
                align_log2,
                zeroed,
            },
        );
        Ok(())
    }

    fn grow(&mut self, thread: u32, from: Live, block: Block, size: u64) -> Result<(), ReadError> {
        if size > MAX_SIZE {
            return Err(ReadError::Size {
                thread,
                size,
                align_log2: 0,
            });
        }
        let size = size.max(1);
        let slot = self.fill(thread, size)?;
        self.empty_out(thread, from);
        self.keep(thread, block, Live { slot, size });
        self.push(
            thread,
            Op::Grow {
                from: from.slot,
                to: slot,
                size,
            },
        );
        Ok(())
    }

    fn free(&mut self, thread: u32, live: Live) {
        self.empty_out(thread, live);
        self.push(thread, Op::Free { slot: live.slot });
    }

    /// Notes that the block is alive; frees what was there, had its free been seen.
    fn keep(&mut self, thread: u32, block: Block, live: Live) {
        if let Some(before) = self.live.insert(block, live) {
            self.facts.unseen_frees += 1;
            self.free(thread, before);
        }
    }

    /// Takes a slot for so many bytes.
    fn fill(&mut self, thread: u32, size: u64) -> Result<u32, ReadError> {
        let slot = match self.empty.pop() {
            Some(slot) => slot,
            None if self.program.slots < MAX_SLOTS => {
                self.program.slots += 1;
                self.program.slots - 1
            }
            None => return Err(ReadError::TooManyBlocks),
        };
        self.held_bytes = self.held_bytes.saturating_add(size);
        self.go_ahead(thread, i64::try_from(size).unwrap_or(i64::MAX));
        self.facts.allocated_bytes = self.facts.allocated_bytes.saturating_add(size);
        self.facts.peak_bytes = self.facts.peak_bytes.max(self.held_bytes);
        Ok(slot)
    }

    fn empty_out(&mut self, thread: u32, live: Live) {
        self.go_ahead(thread, -i64::try_from(live.size).unwrap_or(i64::MAX));
        self.emptied.push(live.slot);
        self.held_bytes = self.held_bytes.saturating_sub(live.size);
    }

    /// Notes that the thread holds so many bytes more, or less.
    fn go_ahead(&mut self, thread: u32, bytes: i64) {
        let (now, most) = self.ahead.entry(self.name(thread)).or_default();
        *now = now.saturating_add(bytes);
        *most = (*most).max(*now);
    }

    /// The thread of the replay that makes this one's calls.
    fn name(&self, thread: u32) -> u32 {
        if self.serial { 0 } else { thread }
    }

    /// Adds a call to the program of the thread.
    fn push(&mut self, thread: u32, op: Op) {
        let name = self.name(thread);
        let threads = &mut self.program.threads;
        let index = *self.indices.entry(name).or_insert_with(|| {
            threads.push(Thread::default());
            threads.len() - 1
        });
        threads[index].push(self.epoch, op);
    }

    fn end_epoch(&mut self) {
        let start = self.facts.live_bytes.last().copied().unwrap_or(0);
        let ahead = self.ahead.drain().map(|(_, (_, most))| most.unsigned_abs());
        let most = ahead.fold(start, u64::saturating_add);
        self.facts.most_bytes = self.facts.most_bytes.max(most);
        self.facts.live_bytes.push(self.held_bytes);
        self.empty.append(&mut self.emptied);
        self.epoch += 1;
    }

    fn finish(mut self) -> (Program, Facts) {
        if !self.facts.calls.is_multiple_of(self.epoch_calls) {
            self.end_epoch();
        }
        self.program.epochs = self.epoch;
        self.facts.threads = self.program.threads.len();
        self.facts.left_blocks = self.live.len() + self.moving.len();
        (self.program, self.facts)
    }
}
