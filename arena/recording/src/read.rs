//! Reading what may be damaged, forged or cut off.

use thiserror::Error;

use crate::bytes::Source;
use crate::chunk::{
    CHUNK_BYTES, CHUNK_HEADER_BYTES, CHUNK_MAGIC, END, FORMAT, HEADER_BYTES, MAGIC, SUMMED_FROM,
};
use crate::event::Event;

/// Why a file is no recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It is shorter than a header.
    #[error("{0} bytes are too few for a recording")]
    TooShort(usize),
    /// It starts with something else.
    #[error("this is no recording: it does not start with \"BrickRec\"")]
    OtherFile,
    /// A later version wrote it.
    #[error("the recording has format {0}; this version reads format 1")]
    Format(u32),
}

/// Where and why the pieces of a recording end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PieceError {
    /// The file ends inside of a piece.
    #[error("the recording is cut off in the piece at byte {0}")]
    CutOff(usize),
    /// There is no piece where one should start.
    #[error("the recording is damaged at byte {0}: no piece starts there")]
    NoPiece(usize),
    /// The checksum is not that of the bytes.
    #[error("the recording is damaged: wrong checksum of the piece at byte {0}")]
    Checksum(usize),
}

/// A chunk whose checksum is right holds no events: it was forged, or written wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("event {index} of the chunk of thread {thread} at number {first} is none")]
pub struct EventError {
    /// The thread that the chunk names.
    pub thread: u32,
    /// The number that the chunk starts with.
    pub first: u64,
    /// How many events of it were read.
    pub index: u32,
}

/// The bytes of a recording whose header was looked at.
#[derive(Debug, Clone, Copy)]
pub struct Recording<'a> {
    process: u32,
    bytes: &'a [u8],
}

impl<'a> Recording<'a> {
    /// Looks at the header.
    ///
    /// # Errors
    ///
    /// When `bytes` are no recording or one of another format.
    pub fn open(bytes: &'a [u8]) -> Result<Self, OpenError> {
        let mut source = Source::new(bytes);
        let too_short = OpenError::TooShort(bytes.len());
        let magic: [u8; 8] = source.array().ok_or(too_short)?;
        if magic != MAGIC {
            return Err(OpenError::OtherFile);
        }
        let format = source.u32().ok_or(too_short)?;
        if format != FORMAT {
            return Err(OpenError::Format(format));
        }
        let process = source.u32().ok_or(too_short)?;
        Ok(Self { process, bytes })
    }

    /// Returns the number of the process that was recorded.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.process
    }

    /// Returns the pieces up to the first that is not whole, and last the error that
    /// says so.
    #[must_use]
    pub fn pieces(&self) -> Pieces<'a> {
        Pieces {
            bytes: self.bytes,
            offset: HEADER_BYTES,
        }
    }
}

/// What a file consists of.
#[derive(Debug, Clone, Copy)]
pub enum Piece<'a> {
    /// Events of one thread.
    Chunk(Chunk<'a>),
    /// The program has ended in order.
    End(End),
}

/// What was known when the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Numbers given out to events.
    pub numbers: u64,
    /// Events that were not written down.
    pub lost: u32,
}

/// The pieces of a [`Recording`].
#[derive(Debug, Clone)]
pub struct Pieces<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Pieces<'a> {
    /// Reads the piece at the front of `rest`, which is not empty; returns its length, too.
    fn piece(&self, rest: &'a [u8]) -> Result<(Piece<'a>, usize), PieceError> {
        let at = self.offset;
        let mut source = Source::new(rest);
        let cut_off = PieceError::CutOff(at);
        let magic: [u8; 4] = source.array().ok_or(cut_off)?;
        let sum = source.u32().ok_or(cut_off)?;
        let thread = source.u32().ok_or(cut_off)?;
        let count = source.u32().ok_or(cut_off)?;
        let first = source.u64().ok_or(cut_off)?;
        let payload = source.u32().ok_or(cut_off)?;
        let _reserved = source.u32().ok_or(cut_off)?;
        let len = usize::try_from(payload)
            .ok()
            .and_then(|payload| payload.checked_add(CHUNK_HEADER_BYTES))
            .filter(|len| *len <= CHUNK_BYTES && magic == CHUNK_MAGIC)
            .ok_or(PieceError::NoPiece(at))?;
        let summed = rest.get(SUMMED_FROM..len).ok_or(cut_off)?;
        if crc32fast::hash(summed) != sum {
            return Err(PieceError::Checksum(at));
        }
        let events = rest.get(CHUNK_HEADER_BYTES..len).ok_or(cut_off)?;
        let piece = if thread == END {
            Piece::End(End {
                numbers: first,
                lost: count,
            })
        } else {
            Piece::Chunk(Chunk {
                thread,
                count,
                first,
                events,
            })
        };
        Ok((piece, len))
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<Piece<'a>, PieceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        if rest.is_empty() {
            return None;
        }
        match self.piece(rest) {
            Ok((piece, len)) => {
                self.offset = self.offset.saturating_add(len);
                Some(Ok(piece))
            }
            Err(error) => {
                self.bytes = &[];
                Some(Err(error))
            }
        }
    }
}

/// Events of one thread, with numbers that grow.
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'a> {
    thread: u32,
    count: u32,
    first: u64,
    events: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// Returns the number of the thread.
    #[must_use]
    pub fn thread(&self) -> u32 {
        self.thread
    }

    /// Returns how many events there are, if the chunk tells the truth.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns the events, each with its number.
    #[must_use]
    pub fn events(&self) -> Events<'a> {
        Events {
            chunk: *self,
            source: Source::new(self.events),
            next: Some(self.first),
            last_block: 0,
            index: 0,
        }
    }
}

/// The events of a [`Chunk`].
#[derive(Debug, Clone)]
pub struct Events<'a> {
    chunk: Chunk<'a>,
    source: Source<'a>,
    /// The number of the next event, were its gap 0; `None` after the greatest number or an error.
    next: Option<u64>,
    last_block: u64,
    index: u32,
}

impl Iterator for Events<'_> {
    type Item = Result<(u64, Event), EventError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.source.is_empty() && self.index == self.chunk.count {
            return None;
        }
        let decoded = (self.index < self.chunk.count)
            .then(|| Event::decode(&mut self.last_block, &mut self.source))
            .flatten();
        let numbered = decoded.and_then(|(gap, event)| Some((self.next?.checked_add(gap)?, event)));
        let Some((number, event)) = numbered else {
            let error = EventError {
                thread: self.chunk.thread,
                first: self.chunk.first,
                index: self.index,
            };
            // Nothing follows an error.
            self.source = Source::new(&[]);
            self.index = self.chunk.count;
            return Some(Err(error));
        };
        self.next = number.checked_add(1);
        self.index = self.index.saturating_add(1);
        Some(Ok((number, event)))
    }
}
