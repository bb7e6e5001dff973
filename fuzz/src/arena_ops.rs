//! Target `arena_ops`: any program, a heap that nothing disturbs.

use arbitrary::{Arbitrary, Unstructured};
use brickyard_arena::{Arena, Builder, Heap};

use crate::driver::{Driver, Failure};
use crate::fault::Refusals;
use crate::op::Op;

/// Steps of one input; a longer one would be slow and teach nothing new.
const MAX_STEPS: usize = 400;

/// Runs the program that `data` encodes.
///
/// # Panics
///
/// Panics when the heap breaks a promise.
pub fn run(data: &[u8]) {
    let ops = decode(&mut Unstructured::new(data));
    if let Err(failure) = run_ops(&ops) {
        panic!("program: {ops:#?}\n{failure}");
    }
    if let Err(failure) = run_ops_hardened(&ops) {
        panic!("program, hardened: {ops:#?}\n{failure}");
    }
}

/// [`run_ops`] on a hardened heap with many guarded blocks.
///
/// # Errors
///
/// The first promise that the heap breaks.
///
/// # Panics
///
/// Panics when the operating system has no memory for a heap.
pub fn run_ops_hardened(ops: &[Op]) -> Result<(), Failure> {
    let heap = Heap::with_options(&hardened()).expect("memory for a heap");
    let mut driver = Driver::new(&heap, Refusals::Never);
    driver.harden();
    driver.run(ops)?;
    driver.finish()
}

/// Options of the hardened heaps that are driven here.
pub(crate) fn hardened() -> Builder {
    Arena::builder().hardened(true).guard_every(20)
}

/// Runs a program on a new heap, frees everything and checks that.
///
/// # Errors
///
/// The first promise that the heap breaks.
///
/// # Panics
///
/// Panics when the operating system has no memory for a heap.
pub fn run_ops(ops: &[Op]) -> Result<(), Failure> {
    let heap = Heap::new().expect("memory for a heap");
    let mut driver = Driver::new(&heap, Refusals::Never);
    driver.run(ops)?;
    driver.finish()
}

/// As many operations as the input holds.
pub(crate) fn decode(input: &mut Unstructured<'_>) -> Vec<Op> {
    let mut ops = Vec::new();
    while !input.is_empty() && ops.len() < MAX_STEPS {
        match Op::arbitrary(input) {
            Ok(op) => ops.push(op),
            Err(_) => break,
        }
    }
    ops
}
