//! Target `arena_faults`: any program, and the operating system refuses.
//!
//! The promises on top of those of the oracle:
//!
//! 1. A request may be answered with null only after a call has failed.
//! 2. Whatever failed, the heap stays whole: contents, invariants, statistics.
//! 3. When calls succeed again, so do requests.
//!
//! The plan is armed before the heap is created, so that the creation fails
//! too, at each of its calls.

use arbitrary::Unstructured;
use brickyard_arena::{Builder, Heap};

use crate::arena_ops::{decode, hardened};
use crate::driver::{Driver, Failure};
use crate::fault::{PlanLease, Refusals};
use crate::op::{Align, CacheSlot, Count, Edge, Op, Shape, Size, Via};

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// Number of the first call that fails, from one, counted from before the
    /// heap's creation; none fails when absent.
    pub first: Option<u16>,
    /// Whether all later ones fail too.
    pub lasting: bool,
}

/// Runs the program and the outage that `data` encodes.
///
/// # Panics
///
/// Panics when the heap breaks a promise.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    // Most runs make a few dozen calls; a byte is enough to name one.
    let Ok((first, lasting)) = input.arbitrary::<(u8, bool)>() else {
        return;
    };
    let outage = Outage {
        first: Some(u16::from(first) + 1),
        lasting,
    };
    let ops = decode(&mut input);
    if let Err(failure) = run_ops(&ops, outage) {
        panic!("program: {ops:#?}\n{outage:?}: {failure}");
    }
    if let Err(failure) = run_ops_hardened(&ops, outage) {
        panic!("program, hardened: {ops:#?}\n{outage:?}: {failure}");
    }
}

/// Runs a program on a new heap through an outage, ends the outage, shows that
/// the heap serves again, and frees everything. Returns the number of calls to
/// the operating system.
///
/// # Errors
///
/// The first promise that the heap breaks.
///
/// # Panics
///
/// Panics when the heap cannot be created although no call fails.
pub fn run_ops(ops: &[Op], outage: Outage) -> Result<u64, Failure> {
    run_on(ops, outage, None)
}

/// [`run_ops`] on a hardened heap.
///
/// # Errors
///
/// As there.
///
/// # Panics
///
/// As there.
pub fn run_ops_hardened(ops: &[Op], outage: Outage) -> Result<u64, Failure> {
    run_on(ops, outage, Some(hardened()))
}

fn run_on(ops: &[Op], outage: Outage, hardened: Option<Builder>) -> Result<u64, Failure> {
    let lease = PlanLease::take();
    let plan = lease.plan();
    let before = plan.calls();
    let refusals = match outage.first {
        Some(nth) => {
            plan.fail_nth(u64::from(nth), outage.lasting);
            Refusals::AfterCall {
                plan,
                call: before + u64::from(nth),
            }
        }
        None => Refusals::Never,
    };
    let made = match &hardened {
        Some(options) => Heap::with_options_and_faults(options, plan),
        None => Heap::with_faults(plan),
    };
    let heap = match made {
        Ok(heap) => heap,
        Err(error) => {
            assert!(
                refusals.permitted(),
                "no call failed, but there is no heap: {error:?}"
            );
            return Ok(plan.calls() - before);
        }
    };
    let mut driver = Driver::new(&heap, refusals);
    if hardened.is_some() {
        driver.harden();
    }
    driver.run(ops)?;
    lease.disarm();
    driver.faults_are_over();
    driver.run(&recovery())?;
    driver.finish()?;
    drop(heap);
    Ok(plan.calls() - before)
}

/// Requests of every kind, none of which may fail any more.
fn recovery() -> Vec<Op> {
    let sizes = [
        Size::Tiny(48),
        Size::PowerOfTwo(10, Edge::At),
        Size::Medium(64, Edge::Above),
        Size::Big(3, Edge::At),
    ];
    let vias = [
        Via::Heap,
        Via::Cache(CacheSlot(0)),
        Via::Cache(CacheSlot(3)),
    ];
    let mut ops = vec![Op::Validate, Op::CheckStats];
    for via in vias {
        for size in sizes {
            let shape = Shape {
                size,
                align: Align::Word,
            };
            ops.push(Op::AllocZeroed {
                via,
                shape,
                count: Count::One,
            });
            ops.push(Op::Alloc {
                via,
                shape,
                count: Count::Few(3),
            });
        }
    }
    ops.push(Op::Validate);
    ops
}
