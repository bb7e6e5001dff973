//! The calls of a recording in their order, whatever thread made them.

use core::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use brickyard_recording::{
    Chunk, Event, EventError, Events, OpenError, Piece, PieceError, Recording,
};
use thiserror::Error;

/// Why a recording cannot be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub(crate) enum ReadError {
    /// It is none.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A chunk was forged, or written wrongly.
    #[error(transparent)]
    Event(#[from] EventError),
    /// A thread's chunks are out of order.
    #[error("the recording is forged: the numbers of thread {thread} go back to {number}")]
    Order { thread: u32, number: u64 },
    /// No program has a block of that size.
    #[error(
        "the recording is forged: thread {thread} asked for {size} bytes, aligned to 2^{align_log2}"
    )]
    Size {
        thread: u32,
        size: u64,
        align_log2: u8,
    },
    /// It is longer than a replay can be.
    #[error("the recording has more than 2^31 blocks at once")]
    TooManyBlocks,
    /// There is not a single call.
    #[error(
        "the recording has no calls: the program did not load the library, or was killed at once"
    )]
    Empty,
}

/// How a recording ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As it should; so many events are missing all the same.
    Orderly { lost: u32 },
    /// The program was killed, or is not done.
    Open,
    /// Bytes are missing or damaged.
    Broken(PieceError),
}

/// The chunks of one thread.
#[derive(Debug)]
struct Thread<'a> {
    chunks: std::vec::IntoIter<Chunk<'a>>,
    events: Option<Events<'a>>,
    /// The number before the next.
    last: Option<u64>,
}

/// The calls of a recording.
#[derive(Debug)]
pub(crate) struct Calls<'a> {
    threads: BTreeMap<u32, Thread<'a>>,
    /// The next call of each thread that has one, the one with the lowest number on top.
    next: BinaryHeap<Reverse<(u64, u32, Queued)>>,
    /// How many calls the chunks say there are.
    count: u64,
    ending: Ending,
}

/// An event that takes no part in the order of the queue.
#[derive(Debug, Clone, Copy)]
struct Queued(Event);

impl PartialEq for Queued {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, _: &Self) -> core::cmp::Ordering {
        core::cmp::Ordering::Equal
    }
}

impl<'a> Calls<'a> {
    /// Finds the whole chunks.
    ///
    /// # Errors
    ///
    /// When there are none, or the first call of a thread is none.
    pub(crate) fn of(bytes: &'a [u8]) -> Result<Self, ReadError> {
        let recording = Recording::open(bytes)?;
        let mut chunks: BTreeMap<u32, Vec<Chunk<'a>>> = BTreeMap::new();
        let mut ending = Ending::Open;
        let mut count = 0_u64;
        for piece in recording.pieces() {
            match piece {
                Ok(Piece::Chunk(chunk)) => {
                    count = count.saturating_add(u64::from(chunk.count()));
                    chunks.entry(chunk.thread()).or_default().push(chunk);
                }
                Ok(Piece::End(end)) => ending = Ending::Orderly { lost: end.lost },
                Err(error) => ending = Ending::Broken(error),
            }
        }
        if count == 0 {
            return Err(ReadError::Empty);
        }
        let thread = |chunks: Vec<Chunk<'a>>| Thread {
            chunks: chunks.into_iter(),
            events: None,
            last: None,
        };
        let mut calls = Self {
            threads: chunks
                .into_iter()
                .map(|(name, chunks)| (name, thread(chunks)))
                .collect(),
            next: BinaryHeap::new(),
            count,
            ending,
        };
        let names: Vec<u32> = calls.threads.keys().copied().collect();
        for name in names {
            calls.queue_next_of(name)?;
        }
        Ok(calls)
    }

    /// How many calls the chunks say there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// How the recording ends.
    pub(crate) fn ending(&self) -> Ending {
        self.ending
    }

    /// Takes the next call of all.
    ///
    /// # Errors
    ///
    /// When what a thread called next cannot be read.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Event)>, ReadError> {
        let Some(Reverse((_, thread, Queued(event)))) = self.next.pop() else {
            return Ok(None);
        };
        self.queue_next_of(thread)?;
        Ok(Some((thread, event)))
    }

    /// Puts the next call of the thread into the queue, if it has one.
    fn queue_next_of(&mut self, name: u32) -> Result<(), ReadError> {
        let Some(thread) = self.threads.get_mut(&name) else {
            return Ok(());
        };
        loop {
            if let Some(event) = thread.events.as_mut().and_then(Iterator::next) {
                let (number, event) = event?;
                if thread.last.is_some_and(|last| number <= last) {
                    return Err(ReadError::Order {
                        thread: name,
                        number,
                    });
                }
                thread.last = Some(number);
                self.next.push(Reverse((number, name, Queued(event))));
                return Ok(());
            }
            match thread.chunks.next() {
                Some(chunk) => thread.events = Some(chunk.events()),
                None => return Ok(()),
            }
        }
    }
}
