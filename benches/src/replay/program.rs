//! A recording as a flat program: for each thread a list of words that say which block to
//! allocate, free or grow, with all questions answered beforehand.
//!
//! Blocks are in *slots*, numbers that take the place of addresses. The calls are cut into
//! *epochs* of as many calls each. In a replay no thread begins an epoch before all have done the
//! one before; within an epoch, a thread waits for what it needs. A slot is filled at most once
//! in an epoch, and not in the epoch in which it is emptied, so that a waiting thread cannot take
//! the block of later calls for its own:
//!
//! - P1: a slot that is filled in an epoch was empty when the epoch began.
//! - P2: a slot that is emptied in an epoch was full when it began, or is filled in it; and it is
//!   emptied only once.
//!
//! All waiting is for calls that come before in the recording's order, so somebody can always
//! go on. [`Checked`] is a program of which P1 and P2 were found true.
//!
//! ```text
//! allocate  │0│ slot, 31 bits │ alignment, 6 bits, zeroed, 1 bit │  size, 64 bits │
//! free      │1│ slot          │                                  │
//! grow      │2│ from          │ to, 31 bits                      │  size          │
//! ```

use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

/// Greatest number of slots.
pub(crate) const MAX_SLOTS: u32 = 1 << 31;

/// Greatest size in bytes of a block: no program has more address space.
pub(crate) const MAX_SIZE: u64 = 1 << 47;

const SLOT_MASK: u64 = (1 << 31) - 1;

/// One call of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// Fills a slot.
    Allocate {
        slot: u32,
        size: u64,
        align_log2: u8,
        zeroed: bool,
    },
    /// Empties a slot.
    Free { slot: u32 },
    /// Empties a slot and fills another with the same content.
    Grow { from: u32, to: u32, size: u64 },
}

impl Op {
    /// Adds the words of the call.
    pub(crate) fn encode(self, words: &mut Vec<u64>) {
        let head = |kind: u64, slot: u32, rest: u64| kind | (u64::from(slot) << 2) | (rest << 33);
        match self {
            Self::Allocate {
                slot,
                size,
                align_log2,
                zeroed,
            } => {
                let rest = u64::from(align_log2) | (u64::from(zeroed) << 6);
                words.extend([head(0, slot, rest), size]);
            }
            Self::Free { slot } => words.push(head(1, slot, 0)),
            Self::Grow { from, to, size } => words.extend([head(2, from, u64::from(to)), size]),
        }
    }

    /// Takes a call off the front; `None` at the end or where there is none.
    #[inline]
    pub(crate) fn decode(words: &mut &[u64]) -> Option<Self> {
        let (head, rest) = words.split_first()?;
        *words = rest;
        // Both have 31 bits.
        let slot = ((head >> 2) & SLOT_MASK) as u32;
        let other = (head >> 33) as u32;
        let mut size = || {
            let (size, rest) = words.split_first()?;
            *words = rest;
            Some(*size)
        };
        match head & 3 {
            0 => Some(Self::Allocate {
                slot,
                size: size()?,
                align_log2: (other & 63) as u8,
                zeroed: other & 64 != 0,
            }),
            1 => Some(Self::Free { slot }),
            2 => Some(Self::Grow {
                from: slot,
                to: other,
                size: size()?,
            }),
            _ => None,
        }
    }
}

/// What one thread does.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Thread {
    /// Epochs in which it does something, each with the number of words, in order.
    pub(crate) segments: Vec<(u32, u64)>,
    pub(crate) words: Vec<u64>,
}

impl Thread {
    /// Adds a call of an epoch, which is not before that of the last call.
    pub(crate) fn push(&mut self, epoch: u32, op: Op) {
        let before = self.words.len();
        op.encode(&mut self.words);
        let added = (self.words.len() - before) as u64;
        match self.segments.last_mut() {
            Some((last, words)) if *last == epoch => *words += added,
            _ => self.segments.push((epoch, added)),
        }
    }
}

/// What all threads do.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) slots: u32,
    pub(crate) epochs: u32,
    pub(crate) threads: Vec<Thread>,
}

impl Program {
    /// Writes the program to a file, as little-endian words.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let cannot = || format!("cannot write {}", path.display());
        let mut file = BufWriter::new(File::create(path).with_context(cannot)?);
        let mut put = |word: u64| file.write_all(&word.to_le_bytes());
        let threads = self.threads.len() as u64;
        for word in [u64::from(self.slots), u64::from(self.epochs), threads] {
            put(word).with_context(cannot)?;
        }
        for thread in &self.threads {
            put(thread.segments.len() as u64).with_context(cannot)?;
            put(thread.words.len() as u64).with_context(cannot)?;
            for (epoch, words) in &thread.segments {
                put(u64::from(*epoch)).with_context(cannot)?;
                put(*words).with_context(cannot)?;
            }
            for word in &thread.words {
                put(*word).with_context(cannot)?;
            }
        }
        file.flush().with_context(cannot)
    }

    /// Reads what [`Program::write`] wrote. Keeps what it allocates, and frees nothing large: the
    /// allocator under test is in use already.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is too short.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let most = file.metadata()?.len() / 8;
        let mut file = BufReader::new(file);
        let mut word = || -> Result<u64> {
            let mut bytes = [0; 8];
            file.read_exact(&mut bytes)
                .context("the program is cut off")?;
            Ok(u64::from_le_bytes(bytes))
        };
        let counted = |count: u64| -> Result<usize> {
            ensure!(count <= most, "the program is longer than its file");
            Ok(usize::try_from(count)?)
        };
        let slots = u32::try_from(word()?)?;
        let epochs = u32::try_from(word()?)?;
        let mut threads = Vec::with_capacity(counted(word()?)?);
        for _ in 0..threads.capacity() {
            let segments = counted(word()?)?;
            let words = counted(word()?)?;
            let mut thread = Thread {
                segments: Vec::with_capacity(segments),
                words: Vec::with_capacity(words),
            };
            for _ in 0..segments {
                thread.segments.push((u32::try_from(word()?)?, word()?));
            }
            for _ in 0..words {
                thread.words.push(word()?);
            }
            threads.push(thread);
        }
        Ok(Self {
            slots,
            epochs,
            threads,
        })
    }

    /// Looks at P1, P2 and the sizes.
    ///
    /// # Errors
    ///
    /// With the first rule that does not hold.
    pub(crate) fn check(self) -> Result<Checked> {
        let mut full = vec![false; self.slots as usize];
        let mut rest: Vec<_> = self
            .threads
            .iter()
            .map(|thread| (&thread.segments[..], &thread.words[..]))
            .collect();
        for epoch in 0..self.epochs {
            let mut segments = Vec::new();
            for (thread, words) in &mut rest {
                let Some(((first, count), later)) = thread.split_first() else {
                    continue;
                };
                ensure!(*first >= epoch, "a thread goes back to epoch {first}");
                if *first == epoch {
                    let count = usize::try_from(*count)?;
                    let (segment, after) = words
                        .split_at_checked(count)
                        .context("a segment is too long")?;
                    segments.push(segment);
                    (*thread, *words) = (later, after);
                }
            }
            check_fills(&segments, &mut full)?;
            check_empties(&segments, &mut full)?;
        }
        ensure!(
            rest.iter()
                .all(|(segments, words)| segments.is_empty() && words.is_empty()),
            "words are left after the last epoch"
        );
        Ok(Checked(self))
    }
}

/// P1, and sizes; marks what is filled.
fn check_fills(segments: &[&[u64]], full: &mut [bool]) -> Result<()> {
    for segment in segments {
        let mut words = *segment;
        while !words.is_empty() {
            let (to, size) = match Op::decode(&mut words).context("a word is no call")? {
                Op::Allocate {
                    slot,
                    size,
                    align_log2,
                    ..
                } => {
                    ensure!(align_log2 < 47, "an alignment of 2^{align_log2}");
                    (slot, size)
                }
                Op::Grow { to, size, .. } => (to, size),
                Op::Free { .. } => continue,
            };
            ensure!((1..=MAX_SIZE).contains(&size), "a block of {size} bytes");
            let slot = full.get_mut(to as usize).context("a slot that is none")?;
            if core::mem::replace(slot, true) {
                bail!("slot {to} is filled twice");
            }
        }
    }
    Ok(())
}

/// P2; marks what is emptied.
fn check_empties(segments: &[&[u64]], full: &mut [bool]) -> Result<()> {
    for segment in segments {
        let mut words = *segment;
        while let Some(op) = Op::decode(&mut words) {
            let from = match op {
                Op::Free { slot } => slot,
                Op::Grow { from, .. } => from,
                Op::Allocate { .. } => continue,
            };
            let slot = full.get_mut(from as usize).context("a slot that is none")?;
            if !core::mem::replace(slot, false) {
                bail!("slot {from} is emptied twice");
            }
        }
    }
    Ok(())
}

/// A program that keeps P1 and P2 and has no size or alignment that is too large.
#[derive(Debug)]
pub(crate) struct Checked(Program);

impl Checked {
    pub(crate) fn program(&self) -> &Program {
        &self.0
    }
}
