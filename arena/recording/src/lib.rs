//! The file that a program's allocations are recorded in.
//!
//! Every call of `malloc` and its relatives is an *event* with a number that no other event
//! of the program has; the numbers give the order of all threads. A thread gathers its
//! events in a *chunk*, which is written whole, so that threads share a file and one atomic
//! counter, and nothing else:
//!
//! ```text
//!  header   chunk of thread 0            chunk of thread 1      chunk of thread 0      end
//! ┌───────┬───────────────────────────┬──────────────────────┬──────────────────────┬──────┐
//! │magic… │crc, thread 0, 1, 2, 4, 5 …│crc, thread 1, 3, 6 … │crc, thread 0, 90 …   │ crc  │
//! └───────┴───────────────────────────┴──────────────────────┴──────────────────────┴──────┘
//! ```
//!
//! An event is a byte for kind and number, then sizes and addresses as differences to the
//! thread's event before: 4 to 5 bytes in all. `docs/recording.md` has the format byte by
//! byte.
//!
//! [`ChunkWriter`] allocates nothing, for it works inside of `malloc`. [`Recording`] reads
//! what may be damaged or forged: errors, no panics.
//!
//! ```
//! use brickyard_recording::{Block, ChunkWriter, Event, Piece, Recording, header};
//!
//! let mut writer = ChunkWriter::EMPTY;
//! let block = Block::at(0x5000);
//! assert!(writer.push(0, Event::Allocate { block, size: 48 }));
//! assert!(writer.push(1, Event::Free { block }));
//! let mut file = header(4711).to_vec();
//! file.extend_from_slice(writer.seal(0));
//!
//! let recording = Recording::open(&file)?;
//! let Some(Ok(Piece::Chunk(chunk))) = recording.pieces().next() else { panic!("a chunk") };
//! let events: Result<Vec<_>, _> = chunk.events().collect();
//! assert_eq!(events?[1], (1, Event::Free { block }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

mod bytes;
mod chunk;
mod event;
mod read;

pub use chunk::{
    CHUNK_BYTES, ChunkWriter, END_BYTES, HEADER_BYTES, end, header, is_end, process_of,
};
pub use event::{Block, Event};
pub use read::{Chunk, End, EventError, Events, OpenError, Piece, PieceError, Pieces, Recording};
