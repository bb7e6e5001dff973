//! A replay does what the program did.
//!
//! What could go wrong: a block is freed in place of the next one at its address, threads wait for
//! each other for ever, a damaged recording makes a program that breaks P1 or P2, or the reader
//! panics. A small model makes histories of threads that use each other's addresses as soon as
//! they can; each history is written, read, built, checked and run.

use std::collections::BTreeMap;
use std::fs;

use brickyard_recording::{Block, ChunkWriter, Event, HEADER_BYTES, end, header};
use proptest::prelude::*;

use super::build::{Facts, build};
use super::calls::{Ending, ReadError};
use super::machine::{Left, Replay, Touch};
use super::program::{Op, Program, Thread};
use super::{Side, plot, table};
use crate::series::Series;

/// A recording of these calls, which have the numbers 0, 1, …; `every` of a thread's are a chunk.
fn recording(calls: &[(u32, Event)], every: usize) -> Vec<u8> {
    let mut file = header(1).to_vec();
    let mut writers: BTreeMap<u32, (usize, ChunkWriter)> = BTreeMap::new();
    for (number, (thread, event)) in (0..).zip(calls) {
        let (count, writer) = writers.entry(*thread).or_insert((0, ChunkWriter::EMPTY));
        assert!(writer.push(number, *event), "chunks are short");
        *count += 1;
        if *count % every == 0 {
            file.extend_from_slice(writer.seal(*thread));
            writer.clear();
        }
    }
    for (thread, (_, mut writer)) in writers {
        if !writer.is_empty() {
            file.extend_from_slice(writer.seal(thread));
        }
    }
    file.extend_from_slice(&end(calls.len() as u64, 0));
    file
}

/// A program's history while it is made up.
#[derive(Debug, Default)]
struct History {
    calls: Vec<(u32, Event)>,
    /// Addresses that nobody has, the last one freed on top.
    free: Vec<u64>,
    used: u64,
    live: Vec<(u64, u64)>,
    /// What a thread is in the middle of: its `realloc`'s block, size and outcome.
    moving: BTreeMap<u32, (u64, u64, Outcome)>,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Moves,
    Stays,
    Fails,
}

impl History {
    fn address(&mut self) -> u64 {
        self.free.pop().unwrap_or_else(|| {
            self.used += 1;
            self.used * 4096
        })
    }

    /// Adds a call; `pick` chooses among what there is.
    fn step(&mut self, thread: u32, pick: usize, size: u64, kind: u8) {
        if let Some((old, old_size, outcome)) = self.moving.remove(&thread) {
            let (address, size, event) = match outcome {
                Outcome::Moves => {
                    let address = self.address();
                    (address, size, end_of(address, size))
                }
                Outcome::Stays => (old, size, end_of(old, size)),
                Outcome::Fails => (old, old_size, Event::ReallocFailed),
            };
            self.live.push((address, size));
            self.calls.push((thread, event));
            return;
        }
        let chosen = pick.checked_rem(self.live.len());
        match (kind % 8, chosen) {
            (0..=2, Some(index)) => {
                let (address, _) = self.live.swap_remove(index);
                self.free.push(address);
                let block = Block::at(address);
                self.calls.push((thread, Event::Free { block }));
            }
            (3, Some(index)) => {
                let (address, old_size) = self.live.swap_remove(index);
                let outcome = [Outcome::Moves, Outcome::Stays, Outcome::Fails][pick % 3];
                if matches!(outcome, Outcome::Moves) {
                    // From here on another thread may be given it.
                    self.free.push(address);
                }
                self.moving.insert(thread, (address, old_size, outcome));
                let block = Block::at(address);
                self.calls.push((thread, Event::ReallocBegin { block }));
            }
            (kind, _) => {
                let address = self.address();
                let block = Block::at(address);
                let event = match kind {
                    4 => Event::AllocateZeroed { block, size },
                    5 => Event::AllocateAligned {
                        block,
                        size,
                        align_log2: 7,
                    },
                    _ => Event::Allocate { block, size },
                };
                self.live.push((address, size));
                self.calls.push((thread, event));
            }
        }
    }

    fn left(&self) -> Left {
        let moving = self
            .moving
            .values()
            .map(|(address, size, _)| (*address, *size));
        let all: Vec<_> = self.live.iter().copied().chain(moving).collect();
        Left {
            blocks: all.len() as u64,
            bytes: all.iter().map(|(_, size)| (*size).max(1)).sum(),
        }
    }
}

fn end_of(address: u64, size: u64) -> Event {
    Event::ReallocEnd {
        block: Block::at(address),
        size,
    }
}

fn history() -> impl Strategy<Value = History> {
    let step = (0_u32..4, any::<usize>(), 0_u64..3000, any::<u8>());
    prop::collection::vec(step, 1..1500).prop_map(|steps| {
        let mut history = History::default();
        for (thread, pick, size, kind) in steps {
            history.step(thread, pick, size, kind);
        }
        history
    })
}

/// Checks and runs a program here.
fn run(program: Program) -> (Left, u32) {
    let checked = program.check().expect("P1 and P2 hold");
    let mut epochs = 0;
    let left = Replay::new(checked, Touch::All).run(|| epochs += 1);
    (left.expect("there is memory"), epochs)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_replay_leaves_what_the_program_left(history in history(), every in 1_usize..200, serial in any::<bool>()) {
        let (program, facts) = build(&recording(&history.calls, every), serial).expect("sound");
        prop_assert_eq!((facts.unknown_frees, facts.unseen_frees), (0, 0));
        prop_assert_eq!(facts.ending, Ending::Orderly { lost: 0 });
        prop_assert_eq!(facts.calls, history.calls.len() as u64);
        let expected = history.left();
        prop_assert_eq!((facts.left_blocks as u64, facts.left_bytes()), (expected.blocks, expected.bytes));
        prop_assert!(!serial || program.threads.len() == 1);
        let epochs = program.epochs;
        prop_assert_eq!(epochs as usize, facts.live_bytes.len());
        prop_assert_eq!(run(program), (expected, epochs));
    }

    /// Chunks that are missing, or in which calls are changed: the rest makes a program.
    #[test]
    fn a_recording_with_wrong_calls_is_replayed_or_refused(
        history in history(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 0_u8..6), 1..30),
        serial in any::<bool>(),
    ) {
        let mut calls = history.calls;
        for (at, address, kind) in changes {
            let block = Block::at(address % 40 * 4096);
            let index = at.index(calls.len());
            match kind {
                0 => calls[index].1 = Event::Free { block },
                1 => calls[index].1 = Event::ReallocBegin { block },
                2 => calls[index].1 = Event::ReallocEnd { block, size: address % 5000 },
                3 => calls[index].1 = Event::Allocate { block, size: address },
                4 => calls[index].0 = (address % 6) as u32,
                _ => drop(calls.remove(index)),
            }
            if calls.is_empty() {
                return Ok(());
            }
        }
        match build(&recording(&calls, 50), serial) {
            Ok((program, facts)) if facts.peak_bytes < 1 << 26 => {
                prop_assert_eq!(run(program).0.bytes, facts.left_bytes());
            }
            Ok((program, _)) => drop(program.check().expect("P1 and P2 hold")),
            Err(ReadError::Size { .. }) => {}
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn a_recording_with_changed_bytes_is_an_error_or_a_note(history in history(), at in any::<prop::sample::Index>(), bits in 1_u8..) {
        let mut file = recording(&history.calls, 50);
        let at = at.index(file.len());
        file[at] ^= bits;
        match build(&file, false) {
            Err(_) => {}
            Ok((program, facts)) => {
                // The process's number is not used.
                let harmless = (12..HEADER_BYTES).contains(&at);
                prop_assert!(harmless || matches!(facts.ending, Ending::Broken(_)));
                prop_assert_eq!(run(program).0.bytes, facts.left_bytes());
            }
        }
    }
}

#[test]
fn a_recording_that_is_cut_off_is_replayed_up_to_its_last_whole_chunk() {
    let calls: Vec<(u32, Event)> = (1..=100)
        .map(|index| {
            let block = Block::at(index * 64);
            (0, Event::Allocate { block, size: 10 })
        })
        .collect();
    let file = recording(&calls, 10);
    let (_, facts) = build(&file[..file.len() / 2], false).expect("half of it");
    assert!(matches!(facts.ending, Ending::Broken(_)));
    assert_eq!(facts.calls, 50);
    assert_eq!(facts.left_bytes(), 500);
    let note = table::facts(&facts);
    assert!(
        note.contains("cut off") && note.contains("replayed up to there"),
        "{note}"
    );
}

#[test]
fn files_that_are_no_recordings_are_refused_with_the_reason() {
    let error = |bytes: &[u8]| build(bytes, false).expect_err("refused").to_string();
    assert!(error(b"").contains("too few"), "{}", error(b""));
    assert!(error(&[7; 100]).contains("no recording"));
    assert!(error(&header(1)).contains("no calls"));
    let block = Block::at(16);
    let size = 1 << 48;
    let forged = recording(&[(0, Event::Allocate { block, size })], 1);
    assert!(
        error(&forged).contains("281474976710656 bytes"),
        "{}",
        error(&forged)
    );
}

#[test]
fn numbers_of_a_thread_that_go_back_are_refused() {
    let mut file = header(1).to_vec();
    let mut writer = ChunkWriter::EMPTY;
    assert!(writer.push(5, Event::ReallocFailed));
    for _ in 0..2 {
        file.extend_from_slice(writer.seal(3));
    }
    let error = build(&file, false).expect_err("refused");
    assert_eq!(
        error,
        ReadError::Order {
            thread: 3,
            number: 5
        }
    );
}

/// A program of one thread and one epoch.
fn program_of(ops: &[Op]) -> Program {
    let mut thread = Thread::default();
    ops.iter().for_each(|op| thread.push(0, *op));
    Program {
        slots: 2,
        epochs: 1,
        threads: vec![thread],
    }
}

#[test]
fn programs_that_break_a_rule_are_refused() {
    let fill = |slot| Op::Allocate {
        slot,
        size: 8,
        align_log2: 3,
        zeroed: false,
    };
    let free = |slot| Op::Free { slot };
    assert!(program_of(&[fill(0), free(0)]).check().is_ok());
    for (ops, reason) in [
        (vec![fill(0), fill(0)], "filled twice"),
        (vec![fill(0), free(0), fill(0)], "filled twice"),
        (vec![fill(0), free(0), free(0)], "emptied twice"),
        (vec![free(1)], "emptied twice"),
        (vec![fill(2)], "a slot that is none"),
        (
            vec![
                fill(0),
                Op::Grow {
                    from: 0,
                    to: 1,
                    size: 0,
                },
            ],
            "a block of 0 bytes",
        ),
    ] {
        let error = program_of(&ops).check().expect_err("refused");
        assert!(error.to_string().contains(reason), "{ops:?}: {error}");
    }
    let mut cut = program_of(&[fill(0)]);
    cut.threads[0].words.pop();
    assert!(cut.check().is_err());
}

#[test]
fn a_program_goes_through_its_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("program");
    let program = program_of(&[
        Op::Allocate {
            slot: 1,
            size: 1 << 40,
            align_log2: 12,
            zeroed: true,
        },
        Op::Grow {
            from: 1,
            to: 0,
            size: 7,
        },
        Op::Free { slot: 0 },
    ]);
    program.write(&path).expect("a writable folder");
    assert_eq!(Program::read(&path).expect("as written"), program);
    let bytes = fs::read(&path).expect("it is there");
    for len in 0..bytes.len() {
        fs::write(&path, &bytes[..len]).expect("a writable folder");
        assert!(
            Program::read(&path).is_err(),
            "{len} of {} bytes",
            bytes.len()
        );
    }
}

#[test]
fn an_allocator_that_refuses_ends_the_replay_with_an_error() {
    let program = program_of(&[Op::Allocate {
        slot: 0,
        size: super::program::MAX_SIZE,
        align_log2: 0,
        zeroed: false,
    }]);
    let checked = program.check().expect("no rule is broken");
    let error = Replay::new(checked, Touch::None)
        .run(|| ())
        .expect_err("no machine has so much");
    assert!(
        error.to_string().contains("140737488355328 bytes"),
        "{error}"
    );
}

fn made_up() -> (Facts, Vec<Side>) {
    let calls: Vec<(u32, Event)> = (1..=1000)
        .map(|index| {
            let block = Block::at(index * 64);
            (0, Event::Allocate { block, size: 4096 })
        })
        .collect();
    let (_, facts) = build(&recording(&calls, 100), false).expect("sound");
    let side = |name: &str, factor: u64| {
        let mut memory = Series::default();
        let mut timed = Series::default();
        let kib = facts.live_bytes.iter().map(|bytes| bytes / 1024 * factor);
        let sample = super::Sample {
            time_s: 1.0,
            cpu_s: 1.0,
            rss_kib: kib.collect(),
            left_bytes: 0,
            left_blocks: 0,
        };
        timed.record(|| Ok(sample.clone()));
        memory.record(|| Ok(sample));
        Side {
            name: String::from(name),
            allocator: String::from("system"),
            preload: None,
            timed,
            memory,
        }
    };
    let sides = vec![side("system", 2), side("arena", 1)];
    (facts, sides)
}

#[test]
fn the_table_has_a_line_for_each_allocator() {
    let (facts, sides) = made_up();
    let text = table::render(&facts, &sides);
    let cells = |name: &str| -> Vec<String> {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .expect("a line");
        line.split_whitespace().map(String::from).collect()
    };
    assert_eq!(
        cells("system"),
        [
            "system", "1.000", "0%", "1.00", "1.00", "7.8", "1.00", "5.0", "1.00", "2.00"
        ]
    );
    assert_eq!(
        cells("arena"),
        [
            "arena", "1.000", "0%", "1.00", "1.00", "3.9", "0.50", "2.5", "0.50", "1.00"
        ]
    );
}

#[test]
fn the_plot_has_a_curve_and_a_name_for_each_allocator() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("timeline.svg");
    let (facts, sides) = made_up();
    plot::draw(&path, &facts, &sides).expect("a writable folder");
    let text = fs::read_to_string(&path).expect("it is there");
    for part in ["live bytes", "system", "arena", "thousand calls", "MiB"] {
        assert!(text.contains(part), "{part}");
    }
    for colour in ["#0072B2", "#D55E00"] {
        let curves = text
            .lines()
            .filter(|line| line.starts_with("<polyline") && line.contains(colour));
        // In the plot, and beside the name.
        assert_eq!(curves.count(), 2, "{colour}");
    }
    assert!(plot::draw(folder.path(), &facts, &sides).is_err());
}

/// In the recording one thread after the other has a block; in a replay all may have theirs at once,
/// but for what waits for another thread.
#[test]
fn threads_may_run_ahead_of_each_other_within_an_epoch() {
    let block = |thread: u32| Block::at(4096 * (1 + u64::from(thread)));
    let calls: Vec<(u32, Event)> = (0..3)
        .flat_map(|thread| {
            let (block, size) = (block(thread), 1000 + u64::from(thread));
            [
                (thread, Event::Allocate { block, size }),
                (thread, Event::Free { block }),
            ]
        })
        .collect();
    let most = |serial| {
        let (_, facts) = build(&recording(&calls, 2), serial).expect("a recording");
        (facts.peak_bytes, facts.most_bytes)
    };
    assert_eq!(most(false), (1002, 3003));
    assert_eq!(most(true), (1002, 1002));
}
