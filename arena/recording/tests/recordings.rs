//! What is written is read; what is damaged, cut off or forged is an error.
//!
//! Promises: (1) every list of events with growing numbers comes back as it was; (2) a file cut
//! off anywhere gives the whole chunks before the cut, and nothing else; (3) a changed byte never
//! changes an event without an error; (4) no bytes make the reader panic or go on for ever.

use brickyard_recording::{
    Block, CHUNK_BYTES, ChunkWriter, Event, HEADER_BYTES, OpenError, Piece, PieceError, Recording,
    end, header, is_end, process_of,
};
use proptest::prelude::*;

/// Any event.
fn event() -> impl Strategy<Value = Event> {
    let block =
        prop_oneof![0_u64..1 << 20, (1_u64 << 40)..1 << 47, any::<u64>()].prop_map(Block::at);
    let size = prop_oneof![0_u64..2048, any::<u64>()];
    (0..7, block, size, 0_u8..64).prop_map(|(kind, block, size, align_log2)| match kind {
        0 => Event::Free { block },
        1 => Event::Allocate { block, size },
        2 => Event::AllocateZeroed { block, size },
        3 => Event::AllocateAligned {
            block,
            size,
            align_log2,
        },
        4 => Event::ReallocBegin { block },
        5 => Event::ReallocEnd { block, size },
        _ => Event::ReallocFailed,
    })
}

/// Events with numbers that grow.
fn numbered() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let gap = prop_oneof![8 => 1_u64..4, 1 => 28_u64..40, 1 => 1_u64..1 << 40];
    prop::collection::vec((gap, event()), 1..400).prop_map(|steps| {
        let number = |number: &mut u64, (gap, event)| {
            *number += gap;
            Some((*number, event))
        };
        steps.into_iter().scan(0, number).collect()
    })
}

/// Writes the events of one thread, a chunk for each `every` of them.
fn file_of(events: &[(u64, Event)], every: usize) -> Vec<u8> {
    let mut file = header(17).to_vec();
    let mut writer = ChunkWriter::EMPTY;
    for part in events.chunks(every) {
        for (number, event) in part {
            assert!(writer.push(*number, *event), "there is room");
        }
        file.extend_from_slice(writer.seal(3));
        writer.clear();
    }
    file
}

/// All that can be read, and what ended it.
fn read(file: &[u8]) -> (Vec<(u64, Event)>, Option<PieceError>) {
    let recording = Recording::open(file).expect("the header is sound");
    let mut events = Vec::new();
    for piece in recording.pieces() {
        match piece {
            Ok(Piece::Chunk(chunk)) => {
                assert_eq!(chunk.thread(), 3);
                let start = events.len();
                events.extend(chunk.events().map(|event| event.expect("sound events")));
                assert_eq!(events.len() - start, chunk.count() as usize);
            }
            Ok(Piece::End(_)) => {}
            Err(error) => return (events, Some(error)),
        }
    }
    (events, None)
}

proptest! {
    #[test]
    fn events_come_back_as_they_were(events in numbered(), every in 1_usize..100) {
        prop_assert_eq!(read(&file_of(&events, every)), (events, None));
    }

    #[test]
    fn a_cut_leaves_the_whole_chunks_before_it(events in numbered(), cut in any::<prop::sample::Index>()) {
        let every = 10;
        let file = file_of(&events, every);
        let cut = HEADER_BYTES + cut.index(file.len() - HEADER_BYTES);
        let (found, error) = read(&file[..cut]);
        prop_assert!(events.starts_with(&found));
        prop_assert!(found.len() % every == 0);
        let whole = cut == file_of(&events[..found.len()], every).len();
        prop_assert_eq!(error.is_none(), whole, "{:?}", error);
    }

    #[test]
    fn a_changed_byte_is_seen(events in numbered(), at in any::<prop::sample::Index>(), bits in 1_u8..) {
        let mut file = file_of(&events, 10);
        let at = HEADER_BYTES + at.index(file.len() - HEADER_BYTES);
        file[at] ^= bits;
        let (found, error) = read(&file);
        prop_assert!(events.starts_with(&found) && found.len() < events.len());
        prop_assert!(error.is_some());
    }

    /// The checksum is made right, as a forger would.
    #[test]
    fn forged_chunks_give_events_or_errors(payload in prop::collection::vec(any::<u8>(), 0..200), count in 0_u32..100, first in any::<u64>()) {
        let file = forged(&payload, count, first);
        let recording = Recording::open(&file).expect("the header is sound");
        for piece in recording.pieces() {
            let Ok(Piece::Chunk(chunk)) = piece else { panic!("the checksum is right: {piece:?}") };
            let events: Vec<_> = chunk.events().take(1000).collect();
            let errors = events.iter().filter(|event| event.is_err()).count();
            prop_assert!(errors <= 1 && events.len() - errors <= count as usize);
            prop_assert!(errors == 1 || events.len() == count as usize);
            let numbers: Vec<_> = events.iter().flatten().map(|(number, _)| *number).collect();
            prop_assert!(numbers.is_sorted_by(|one, next| one < next));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), sound in any::<bool>()) {
        let file = if sound { [&header(1)[..], &bytes].concat() } else { bytes };
        if let Ok(recording) = Recording::open(&file) {
            prop_assert!(recording.pieces().count() <= file.len());
        }
    }
}

/// A chunk of these bytes, whatever they are, with the checksum they need.
fn forged(payload: &[u8], count: u32, first: u64) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a short payload");
    let mut summed = Vec::new();
    summed.extend_from_slice(&3_u32.to_le_bytes());
    summed.extend_from_slice(&count.to_le_bytes());
    summed.extend_from_slice(&first.to_le_bytes());
    summed.extend_from_slice(&len.to_le_bytes());
    summed.extend_from_slice(&[0; 4]);
    summed.extend_from_slice(payload);
    let mut file = header(1).to_vec();
    file.extend_from_slice(b"Chnk");
    file.extend_from_slice(&crc32fast::hash(&summed).to_le_bytes());
    file.extend_from_slice(&summed);
    file
}

#[test]
fn a_writer_is_full_before_an_event_has_no_room() {
    let mut writer = ChunkWriter::EMPTY;
    let longest = Event::AllocateAligned {
        block: Block::at(u64::MAX),
        size: u64::MAX,
        align_log2: 63,
    };
    let mut number = 0;
    while !writer.is_full() {
        assert!(writer.push(number, longest));
        number += 1 << 50;
    }
    assert!(!writer.push(number, longest), "it says that it is full");
    assert!(writer.seal(3).len() <= CHUNK_BYTES);
    assert!(number >> 50 > 1000, "a thousand of the longest fit");
}

#[test]
fn numbers_that_do_not_grow_are_refused() {
    let mut writer = ChunkWriter::EMPTY;
    assert!(writer.push(5, Event::ReallocFailed));
    assert!(!writer.push(5, Event::ReallocFailed));
    assert!(!writer.push(4, Event::ReallocFailed));
    assert!(writer.push(6, Event::ReallocFailed));
}

#[test]
fn other_files_are_refused_with_the_reason() {
    assert_eq!(
        Recording::open(b"Brick").err(),
        Some(OpenError::TooShort(5))
    );
    assert_eq!(
        Recording::open(b"\x7fELF............").err(),
        Some(OpenError::OtherFile)
    );
    let mut later = header(1);
    later[8] = 2;
    assert_eq!(Recording::open(&later).err(), Some(OpenError::Format(2)));
    assert_eq!(process_of(&later), None);
    assert_eq!(process_of(&header(99)), Some(99));
}

#[test]
fn the_end_says_what_was_lost() {
    let file = [&header(1)[..], &end(1_000_000, 7)].concat();
    let recording = Recording::open(&file).expect("sound");
    let Some(Ok(Piece::End(end))) = recording.pieces().next() else {
        panic!("no end")
    };
    assert_eq!((end.numbers, end.lost), (1_000_000, 7));
}

#[test]
fn an_end_is_told_from_all_that_is_none() {
    let sound = end(1 << 40, 7);
    assert!(is_end(&sound));
    for at in 0..sound.len() {
        let mut changed = sound;
        changed[at] ^= 1;
        assert!(!is_end(&changed), "byte {at}");
    }
    let mut chunk = ChunkWriter::EMPTY;
    let first = *chunk.seal(3).first_chunk().expect("a header");
    assert!(!is_end(&first));
}
