//! Runs a program of blocks on the global allocator of this process.
//!
//! Each [`Slot`] has the address and the layout of its block. Who empties it is the only one who may
//! use the block from there on: P1 and P2 of `program` say that nobody else fills or empties the
//! slot in this epoch, and the main thread lets an epoch begin only when all have finished the one
//! before.

use core::alloc::Layout;
use core::sync::atomic::{AtomicBool, Ordering};
use std::alloc::{alloc, alloc_zeroed, dealloc, realloc};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use super::program::{Checked, Op, Thread};
use super::slot::Slot;

/// Bytes of an OS page, for [`Touch::Pages`]: the smallest that a supported processor has.
const OS_PAGE_BYTES: usize = 4096;

/// How often a thread looks for a block before it lets others run.
const LOOKS: u32 = 64;

/// What is written into a block when it is allocated, and into what a larger one has
/// more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Touch {
    /// Nothing
    None,
    /// One byte in each OS page: all that the program asked for becomes resident
    Pages,
    /// Every byte
    All,
}

/// What the threads share.
#[derive(Debug)]
struct Machine {
    program: Checked,
    slots: Vec<Slot>,
    touch: Touch,
    turn: Mutex<Turn>,
    changed: Condvar,
    /// The allocator has refused a block: all stop.
    failed: AtomicBool,
}

#[derive(Debug, Default)]
struct Turn {
    /// Epochs before this one may be run.
    open: u32,
    /// Threads that are not done with the last of these.
    running: usize,
    refused: Option<Layout>,
}

/// A program that is ready to run.
#[derive(Debug)]
pub(crate) struct Replay {
    machine: Arc<Machine>,
}

impl Replay {
    /// Makes empty slots.
    pub(crate) fn new(program: Checked, touch: Touch) -> Self {
        let count = program.program().slots as usize;
        let machine = Machine {
            slots: core::iter::repeat_with(Slot::new).take(count).collect(),
            program,
            touch,
            turn: Mutex::default(),
            changed: Condvar::new(),
            failed: AtomicBool::new(false),
        };
        Self {
            machine: Arc::new(machine),
        }
    }

    /// Bytes that this very replay needs: program and slots.
    pub(crate) fn own_bytes(&self) -> u64 {
        let words = |thread: &Thread| (thread.words.len() + 2 * thread.segments.len()) as u64 * 8;
        let slots = self.machine.slots.len() * size_of::<Slot>();
        let threads = &self.machine.program.program().threads;
        slots as u64 + threads.iter().map(words).sum::<u64>()
    }

    /// Runs the program, and `after_epoch` after each epoch while all threads rest. Takes the
    /// replay, for a program runs on empty slots only. What the program leaves is leaked, and so
    /// are the slots: giving back their memory would be seen in the figures.
    ///
    /// # Errors
    ///
    /// When the allocator gives no block, or the system no thread.
    pub(crate) fn run(self, mut after_epoch: impl FnMut()) -> Result<Left> {
        let machine = &*core::mem::ManuallyDrop::new(self.machine);
        let program = machine.program.program();
        let mut next: Vec<usize> = vec![0; program.threads.len()];
        // Threads that run, by index.
        let mut handles: Vec<(usize, JoinHandle<()>)> = Vec::with_capacity(program.threads.len());
        if let [thread] = &program.threads[..] {
            machine.run_alone(thread, &mut after_epoch)?;
            return Ok(machine.left());
        }
        for epoch in 0..program.epochs {
            let mut starting = Vec::new();
            let mut running = 0;
            for (index, thread) in program.threads.iter().enumerate() {
                if thread
                    .segments
                    .get(next[index])
                    .is_some_and(|(first, _)| *first == epoch)
                {
                    if next[index] == 0 {
                        starting.push(index);
                    }
                    next[index] += 1;
                    running += 1;
                }
            }
            machine.open(epoch + 1, running);
            for index in starting {
                let machine = Arc::clone(machine);
                let handle = thread::Builder::new()
                    .spawn(move || machine.run_thread(index))
                    .context("no thread for the replay")?;
                handles.push((index, handle));
            }
            machine.wait_for_all();
            machine.complain()?;
            // As in the program, threads end when they have nothing more to do: `after_epoch`
            // does not find their stacks.
            let ended = |(index, _): &mut (usize, _)| {
                program.threads[*index].segments.len() == next[*index]
            };
            for (_, handle) in handles.extract_if(.., ended) {
                if handle.join().is_err() {
                    bail!("a thread of the replay has panicked");
                }
            }
            after_epoch();
        }
        // Each segment is in an epoch (`Checked`), so all threads have ended.
        Ok(machine.left())
    }
}

/// What a program leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

impl Machine {
    /// Lets the epochs before `open` run; `running` threads take part in the last.
    fn open(&self, open: u32, running: usize) {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        turn.open = open;
        turn.running = running;
        drop(turn);
        self.changed.notify_all();
    }

    /// Waits until all are done with the epoch.
    fn wait_for_all(&self) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let done = self.changed.wait_while(turn, |turn| turn.running > 0);
        drop(done);
    }

    /// An error when the allocator has refused a block.
    fn complain(&self) -> Result<()> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match turn.refused {
            Some(layout) => bail!("the allocator gave no block of {} bytes", layout.size()),
            None => Ok(()),
        }
    }

    /// Runs the program of the only thread, on this one.
    fn run_alone(&self, thread: &Thread, after_epoch: &mut impl FnMut()) -> Result<()> {
        let mut words = &thread.words[..];
        let mut segments = thread.segments.iter().peekable();
        for epoch in 0..self.program.program().epochs {
            if let Some((_, count)) = segments.next_if(|(segment, _)| *segment == epoch) {
                self.run_segment(&mut words, *count);
                self.complain()?;
            }
            after_epoch();
        }
        Ok(())
    }

    /// Runs all of a thread, epoch by epoch.
    fn run_thread(&self, index: usize) {
        let thread = &self.program.program().threads[index];
        let mut words = &thread.words[..];
        for (epoch, count) in &thread.segments {
            let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = self.changed.wait_while(turn, |turn| turn.open <= *epoch);
            drop(turn);
            self.run_segment(&mut words, *count);
            let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            turn.running -= 1;
            let last = turn.running == 0;
            drop(turn);
            if last {
                self.changed.notify_all();
            }
        }
    }

    /// Runs the calls in the next `count` words.
    fn run_segment(&self, words: &mut &[u64], count: u64) {
        // Segments lie within the words (`Checked`).
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let (mut segment, rest) = words.split_at(count.min(words.len()));
        *words = rest;
        while let Some(op) = Op::decode(&mut segment) {
            let refused = match op {
                Op::Allocate {
                    slot,
                    size,
                    align_log2,
                    zeroed,
                } => self.allocate(slot, size, align_log2, zeroed),
                Op::Free { slot } => self.free(slot),
                Op::Grow { from, to, size } => self.grow(from, to, size),
            };
            if let Err(layout) = refused {
                let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
                turn.refused = turn.refused.or(layout);
                // Relaxed: others see it some time; the reason is under the lock.
                self.failed.store(true, Ordering::Relaxed);
            }
            if self.failed.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn allocate(&self, slot: u32, size: u64, align_log2: u8, zeroed: bool) -> Refusable {
        let layout = layout(size, align_log2);
        // SAFETY: no size is 0 (`Checked`).
        let address = unsafe {
            if zeroed {
                alloc_zeroed(layout)
            } else {
                alloc(layout)
            }
        };
        self.fill(slot, address, layout, 0)
    }

    fn free(&self, slot: u32) -> Refusable {
        let (address, layout) = self.empty(slot).ok_or(None)?;
        // SAFETY: the block was allocated, or last reallocated, with this layout (`fill`), and
        // it is ours alone (`empty`).
        unsafe { dealloc(address, layout) };
        Ok(())
    }

    fn grow(&self, from: u32, to: u32, size: u64) -> Refusable {
        let (address, old) = self.empty(from).ok_or(None)?;
        let new = layout(size, u8::try_from(old.align().ilog2()).unwrap_or(0));
        // SAFETY: the block has this layout and is ours alone, as in `free`; the new size is not 0
        // and fits (`Checked`). A block that stays where it was on failure is leaked.
        let address = unsafe { realloc(address, old, new.size()) };
        self.fill(to, address, new, old.size())
    }

    /// Writes into the block from byte `from` on, and puts it into the slot.
    fn fill(&self, slot: u32, address: *mut u8, layout: Layout, from: usize) -> Refusable {
        if address.is_null() {
            return Err(Some(layout));
        }
        self.touch(address, layout, from);
        self.slots[slot as usize].fill(address, word_of(layout));
        Ok(())
    }

    /// Takes the block out of the slot, in which it is or will be; `None` when all stop.
    ///
    /// The block is the caller's: by P2 nobody else empties the slot in this epoch, and by P1
    /// nobody fills it between.
    fn empty(&self, slot: u32) -> Option<(*mut u8, Layout)> {
        let mut looks = 0;
        let wait = || {
            looks += 1;
            if looks < LOOKS {
                core::hint::spin_loop();
                return true;
            }
            thread::yield_now();
            // Relaxed: others see it some time; the reason is under the lock.
            !self.failed.load(Ordering::Relaxed)
        };
        let (address, word) = self.slots[slot as usize].empty(wait)?;
        Some((address, layout_of(word)))
    }

    /// Writes into a block what [`Touch`] says, from byte `from` on.
    #[inline]
    fn touch(&self, address: *mut u8, layout: Layout, from: usize) {
        let size = layout.size();
        if size <= from {
            return;
        }
        match self.touch {
            Touch::None => {}
            Touch::All => {
                // SAFETY: the block has `size` bytes, more than `from`, and is not yet in a slot.
                unsafe { address.add(from).write_bytes(1, size - from) };
            }
            Touch::Pages => {
                let mut at = from;
                while at < size {
                    // SAFETY: as above; `at` is below `size`. Volatile, so that the write to a block that
                    // nobody reads stays.
                    unsafe { address.add(at).write_volatile(1) };
                    let in_page = address.addr().wrapping_add(at) % OS_PAGE_BYTES;
                    at += OS_PAGE_BYTES - in_page;
                }
            }
        }
    }

    /// What is in the slots.
    fn left(&self) -> Left {
        let mut left = Left {
            blocks: 0,
            bytes: 0,
        };
        for word in self.slots.iter().filter_map(Slot::layout) {
            left.blocks += 1;
            left.bytes += layout_of(word).size() as u64;
        }
        left
    }
}

/// The error is the layout of the block that there was no memory for, or nothing when
/// another thread had that error.
type Refusable = core::result::Result<(), Option<Layout>>;

/// A layout as a slot keeps it: the size times 64, plus the logarithm of the alignment.
fn word_of(layout: Layout) -> u64 {
    (layout.size() as u64) << 6 | u64::from(layout.align().ilog2())
}

/// What [`word_of`] was given.
fn layout_of(word: u64) -> Layout {
    layout(word >> 6, u8::try_from(word & 63).unwrap_or(0))
}

/// The layout of a block of a checked program.
fn layout(size: u64, align_log2: u8) -> Layout {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    // `Checked` bounds both far below what a layout can have.
    Layout::from_size_align(size, 1 << align_log2).expect("sizes were checked")
}

#[cfg(test)]
mod tests {
    use super::super::program::Program;
    use super::*;

    /// Were they kept to the end, their stacks would be in the figures of all later epochs.
    #[test]
    fn a_thread_that_is_through_has_ended_before_the_memory_is_looked_at() {
        let last_epochs = [0, 2, 5];
        let thread = |(slot, last): (u32, u32)| {
            let mut thread = Thread::default();
            for epoch in 0..=last {
                let op = if epoch % 2 == 0 {
                    Op::Allocate {
                        slot,
                        size: 100,
                        align_log2: 3,
                        zeroed: false,
                    }
                } else {
                    Op::Free { slot }
                };
                thread.push(epoch, op);
            }
            thread
        };
        let program = Program {
            slots: 3,
            epochs: 7,
            threads: (0..).zip(last_epochs).map(thread).collect(),
        };
        let replay = Replay::new(program.check().expect("P1 and P2 hold"), Touch::None);
        // Each thread that runs has a share, and so has the replay itself.
        let shares = Arc::downgrade(&replay.machine);
        let mut running = Vec::new();
        let left = replay.run(|| running.push(shares.strong_count() - 1));
        assert_eq!(running, [2, 2, 1, 1, 1, 0, 0]);
        let (blocks, bytes) = (2, 200);
        assert_eq!(left.expect("there is memory"), Left { blocks, bytes });
    }
}
