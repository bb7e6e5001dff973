//! The header of a file, and chunks while they are filled.

use crate::bytes::Sink;
use crate::event::{Event, MAX_EVENT_BYTES};

/// What a recording starts with.
pub(crate) const MAGIC: [u8; 8] = *b"BrickRec";

/// The format that this version reads and writes.
pub(crate) const FORMAT: u32 = 1;

/// Bytes of the header of a file.
pub const HEADER_BYTES: usize = 16;

/// What a chunk starts with.
pub(crate) const CHUNK_MAGIC: [u8; 4] = *b"Chnk";

/// Bytes of the header of a chunk.
pub(crate) const CHUNK_HEADER_BYTES: usize = 32;

/// Bytes of the piece at the end of a file.
pub const END_BYTES: usize = CHUNK_HEADER_BYTES;

/// Where in a chunk the bytes start that its checksum covers.
pub(crate) const SUMMED_FROM: usize = 8;

/// Most bytes of a chunk. A thread holds as many: large enough that the write costs
/// little an event, small enough for programs with a thousand threads.
pub const CHUNK_BYTES: usize = 32 * 1024;

/// The thread that the piece at the end names.
pub(crate) const END: u32 = u32::MAX;

/// Returns the header of the file in which the calls of `process` are recorded.
#[must_use]
pub fn header(process: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    let mut sink = Sink::new(&mut bytes);
    sink.all(&MAGIC);
    sink.all(&FORMAT.to_le_bytes());
    sink.all(&process.to_le_bytes());
    bytes
}

/// Returns the process that a header of this format names.
#[must_use]
pub fn process_of(bytes: &[u8; HEADER_BYTES]) -> Option<u32> {
    let (_, process) = bytes.split_last_chunk()?;
    let process = u32::from_le_bytes(*process);
    (*bytes == header(process)).then_some(process)
}

/// Returns the piece at the end of a file: how many numbers were given out, and how many of
/// the events were not written down.
#[must_use]
pub fn end(numbers: u64, lost: u32) -> [u8; END_BYTES] {
    let mut bytes = [0; END_BYTES];
    write_header(&mut bytes, END, lost, numbers);
    bytes
}

/// Whether these are the piece at the end of a file.
#[must_use]
pub fn is_end(bytes: &[u8; END_BYTES]) -> bool {
    let [
        ..,
        l0,
        l1,
        l2,
        l3,
        n0,
        n1,
        n2,
        n3,
        n4,
        n5,
        n6,
        n7,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
    ] = *bytes;
    let lost = u32::from_le_bytes([l0, l1, l2, l3]);
    let numbers = u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]);
    *bytes == end(numbers, lost)
}

/// Writes the header in front of the payload in `chunk`.
fn write_header(chunk: &mut [u8], thread: u32, events: u32, first: u64) {
    let payload = chunk.len().saturating_sub(CHUNK_HEADER_BYTES);
    let mut sink = Sink::new(chunk);
    sink.all(&CHUNK_MAGIC);
    sink.all(&[0; 4]);
    sink.all(&thread.to_le_bytes());
    sink.all(&events.to_le_bytes());
    sink.all(&first.to_le_bytes());
    // A chunk has at most `CHUNK_BYTES`.
    sink.all(&u32::try_from(payload).unwrap_or(u32::MAX).to_le_bytes());
    sink.all(&[0; 4]);
    let sum = crc32fast::hash(chunk.get(SUMMED_FROM..).unwrap_or_default());
    let mut sink = Sink::new(chunk);
    sink.all(&CHUNK_MAGIC);
    sink.all(&sum.to_le_bytes());
}

/// A thread's chunk while it is filled.
///
/// ```text
///  bytes
/// ┌──────────────────┬───────┬───────┬─────┬────────────────────────┐
/// │ room for a header│ event │ event │ ... │                        │
/// └──────────────────┴───────┴───────┴─────┴────────────────────────┘
///  ◀── 32 bytes ────▶ ◀──── used ────────▶
/// ```
///
/// A writer all of whose bytes are zero is [`ChunkWriter::EMPTY`]: fresh memory of the
/// operating system needs no initialisation.
#[derive(Debug)]
#[repr(C)]
pub struct ChunkWriter {
    /// Bytes of events.
    used: usize,
    /// The number of the first event.
    first: u64,
    /// The number of the last event.
    last: u64,
    /// The block that the last event names.
    last_block: u64,
    events: u32,
    bytes: [u8; CHUNK_BYTES],
}

impl ChunkWriter {
    /// A chunk without events.
    pub const EMPTY: Self = Self {
        used: 0,
        first: 0,
        last: 0,
        last_block: 0,
        events: 0,
        bytes: [0; CHUNK_BYTES],
    };

    /// Whether there is no event in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Whether there may be no room for another event.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.used > CHUNK_BYTES - CHUNK_HEADER_BYTES - MAX_EVENT_BYTES
    }

    /// Adds an event, whose number is greater than those of the events before. Returns
    /// `false`, and adds nothing, when there is no room or the number is not greater.
    pub fn push(&mut self, number: u64, event: Event) -> bool {
        let gap = if self.is_empty() {
            Some(0)
        } else {
            number
                .checked_sub(self.last)
                .and_then(|gap| gap.checked_sub(1))
        };
        let start = CHUNK_HEADER_BYTES.saturating_add(self.used);
        let (Some(gap), false, Some(free)) = (gap, self.is_full(), self.bytes.get_mut(start..))
        else {
            return false;
        };
        if self.events == 0 {
            self.first = number;
        }
        let mut sink = Sink::new(free);
        event.encode(gap, &mut self.last_block, &mut sink);
        debug_assert!(sink.fits(), "an event is longer than it can be");
        self.used = self.used.saturating_add(sink.len());
        self.last = number;
        self.events = self.events.saturating_add(1);
        true
    }

    /// Returns the chunk as it goes into the file, as one of `thread`.
    pub fn seal(&mut self, thread: u32) -> &[u8] {
        let len = CHUNK_HEADER_BYTES.saturating_add(self.used);
        let chunk = self.bytes.get_mut(..len).unwrap_or_default();
        write_header(chunk, thread, self.events, self.first);
        chunk
    }

    /// Takes the events out: what follows [`ChunkWriter::seal`].
    pub fn clear(&mut self) {
        self.used = 0;
        self.events = 0;
        self.last_block = 0;
    }
}
