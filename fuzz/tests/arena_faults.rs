//! A heap under an operating system that refuses.
//!
//! What could go wrong: a call fails half-way through an operation, and the
//! heap keeps a span that has no memory, counts memory that it did not get,
//! loses what it had already taken, or stays locked. The oracle sees all but
//! the last in contents, statistics and the heap's own check; the test's time
//! limit sees that. A recorded program is repeated with the first, the second,
//! … call failing, up to the last call that it makes.

use brickyard_fuzz::arena_faults::{self, Outage};
use brickyard_fuzz::op::{Align, CacheSlot, Count, Edge, Op, Pick, Resize, Shape, Size, Via};
use brickyard_fuzz::strategy;
use proptest::prelude::*;

/// A program that makes the heap ask the operating system for every kind of
/// thing: first segments, many spans, big blocks that grow and shrink, purges.
fn recorded(rounds: u8) -> Vec<Op> {
    let mut ops = Vec::new();
    let small = [
        Size::Tiny(1),
        Size::Tiny(48),
        Size::PowerOfTwo(9, Edge::At),
        Size::PowerOfTwo(12, Edge::Below),
    ];
    let large = [
        Size::Medium(0, Edge::At),
        Size::Medium(300, Edge::Above),
        Size::Big(2, Edge::At),
        Size::Big(9, Edge::Below),
    ];
    for round in 0..rounds {
        let via = Via::Cache(CacheSlot(round));
        for size in small {
            let shape = Shape {
                size,
                align: Align::Word,
            };
            ops.push(Op::Alloc {
                via,
                shape,
                count: Count::Many(300),
            });
            ops.push(Op::AllocZeroed {
                via: Via::Heap,
                shape,
                count: Count::Few(9),
            });
        }
        for size in large {
            let shape = Shape {
                size,
                align: Align::Sixteen,
            };
            ops.push(Op::AllocZeroed {
                via,
                shape,
                count: Count::One,
            });
            ops.push(Op::Realloc {
                via,
                pick: Pick::Newest,
                resize: Resize::Double,
            });
            ops.push(Op::Alloc {
                via,
                shape: Shape {
                    size,
                    align: Align::Wide(21),
                },
                count: Count::One,
            });
            ops.push(Op::Realloc {
                via,
                pick: Pick::Newest,
                resize: Resize::Halve,
            });
        }
        ops.push(Op::Free {
            via,
            pick: Pick::Oldest,
            count: Count::Many(511),
        });
        ops.push(Op::Free {
            via: Via::Cache(CacheSlot(3)),
            pick: Pick::Nth(17),
            count: Count::Many(400),
        });
        ops.push(Op::Flush {
            cache: CacheSlot(3),
        });
        ops.push(Op::Trim);
        ops.push(Op::Reopen {
            cache: CacheSlot(round),
        });
        ops.push(Op::CheckStats);
        ops.push(Op::Validate);
    }
    ops
}

/// Repeats the recorded program of `rounds` rounds under `run`, with each of its calls failing in
/// turn.
fn every_outage<E: core::fmt::Display>(rounds: u8, run: fn(&[Op], Outage) -> Result<u64, E>) {
    let ops = recorded(rounds);
    let undisturbed = Outage {
        first: None,
        lasting: false,
    };
    let calls = run(&ops, undisturbed)
        .unwrap_or_else(|failure| panic!("the undisturbed program: {failure}"));
    assert!(
        calls > 10,
        "the program makes {calls} calls to the operating system only"
    );
    for nth in 1..=u16::try_from(calls).expect("some thousand calls at most") {
        for lasting in [false, true] {
            let outage = Outage {
                first: Some(nth),
                lasting,
            };
            if let Err(failure) = run(&ops, outage) {
                panic!("{outage:?} of {calls} calls: {failure}");
            }
        }
    }
}

#[test]
fn no_failing_call_harms_the_heap() {
    every_outage(3, arena_faults::run_ops);
}

#[test]
fn no_failing_call_harms_a_hardened_heap() {
    // Each operation costs more there, and calls are more: three rounds take minutes.
    every_outage(1, arena_faults::run_ops_hardened);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_outage_harms_any_program(ops in strategy::ops(150), nth in 1..80_u16, lasting: bool) {
        let outage = Outage { first: Some(nth), lasting };
        if let Err(failure) = arena_faults::run_ops(&ops, outage) {
            return Err(TestCaseError::fail(failure.to_string()));
        }
    }
}
