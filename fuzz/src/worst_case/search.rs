//! Hill climbing with a small population.

use core::time::Duration;
use std::time::Instant;

use arbitrary::{Arbitrary, Unstructured};
use brickyard_arena::{Builder, Heap};

use crate::handles::Handles;
use crate::worst_case::program::{Outcome, Phase, run};
use crate::worst_case::seeds::{seeds, worst};

/// Programs that are kept.
const POPULATION: usize = 16;
/// Phases of a program at most.
const MAX_PHASES: usize = 56;

/// When a search ends: at whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Programs that are run.
    pub runs: usize,
    /// Time.
    pub time: Duration,
}

/// A program and its figure.
#[derive(Clone, Debug)]
pub struct Found {
    /// The phases.
    pub program: Vec<Phase>,
    /// What they did.
    pub outcome: Outcome,
}

/// Runs `program` on a new heap with `options`.
///
/// # Panics
///
/// Panics when the operating system has no memory for it.
#[must_use]
pub fn run_on_heap(options: &Builder, program: &[Phase], budget: usize) -> Outcome {
    let heap = Heap::with_options(options).expect("memory for a heap");
    let mut handles = Handles::new(&heap);
    run(&mut handles, program, budget)
}

/// Searches for the program with the greatest figure on heaps with `options`; `report` sees each that
/// is better than all before.
pub fn search(
    options: &Builder,
    budget: usize,
    seed: u64,
    limits: Limits,
    mut report: impl FnMut(usize, &Found),
) -> Found {
    let (mut random, start) = (fastrand::Rng::with_seed(seed), Instant::now());
    let mut population: Vec<Found> = Vec::new();
    let mut seeds = seeds().into_iter().chain(worst());
    for runs in 0..limits.runs {
        let program = match seeds.next() {
            Some(seed) => seed,
            None if start.elapsed() > limits.time => break,
            None => offspring(&mut random, &population),
        };
        let outcome = run_on_heap(options, &program, budget);
        let found = Found { program, outcome };
        if population
            .first()
            .is_none_or(|best| best.outcome.held < outcome.held)
        {
            report(runs, &found);
        }
        // Of programs that do the same, one is enough; of equal ones the shorter.
        let place = population.partition_point(|other| {
            (other.outcome.held, found.program.len()) > (outcome.held, other.program.len())
        });
        let is_twin =
            |other: Option<&Found>| other.is_some_and(|other| other.outcome.held == outcome.held);
        if is_twin(population.get(place)) {
            population[place] = found;
        } else if !is_twin(
            place
                .checked_sub(1)
                .and_then(|before| population.get(before)),
        ) {
            population.insert(place, found);
            population.truncate(POPULATION);
        }
    }
    population.swap_remove(0)
}

fn offspring(random: &mut fastrand::Rng, population: &[Found]) -> Vec<Phase> {
    let mut parent = || {
        // The smaller of two: the better is taken more often.
        let place = random.usize(..population.len());
        &population[place.min(random.usize(..population.len()))].program
    };
    let (first, second) = (parent(), parent());
    let mut program = first.clone();
    if random.u8(..5) == 0 {
        program.truncate(random.usize(..=first.len()));
        program.extend_from_slice(&second[random.usize(..second.len())..]);
    }
    for _ in 0..1 + random.usize(..3) {
        mutate(random, &mut program);
    }
    program.truncate(MAX_PHASES);
    program
}

fn mutate(random: &mut fastrand::Rng, program: &mut Vec<Phase>) {
    let at = random.usize(..=program.len());
    let is_inside = at < program.len();
    match random.u8(..8) {
        0 | 1 => program.insert(at, any_phase(random)),
        2 | 3 if is_inside && program.len() > 1 => {
            program.remove(at);
        }
        4 if is_inside => {
            let other = random.usize(..program.len());
            program.swap(at, other);
        }
        5 if is_inside => {
            let copy = program[at];
            program.insert(random.usize(..=program.len()), copy);
        }
        6 if is_inside => program[at] = any_phase(random),
        _ if is_inside => program[at] = alike(random, program[at]),
        _ => {}
    }
}

fn any_phase(random: &mut fastrand::Rng) -> Phase {
    loop {
        let bytes: [u8; 32] = core::array::from_fn(|_| random.u8(..));
        if let Ok(phase) = Phase::arbitrary(&mut Unstructured::new(&bytes)) {
            return phase;
        }
    }
}

/// The phase with one of its parts changed.
fn alike(random: &mut fastrand::Rng, phase: Phase) -> Phase {
    loop {
        match (phase, any_phase(random)) {
            (
                Phase::Free { scope, keep, via },
                Phase::Free {
                    scope: s,
                    keep: k,
                    via: v,
                },
            ) => {
                return match random.u8(..4) {
                    0 => Phase::Free {
                        scope: s,
                        keep,
                        via,
                    },
                    1 => Phase::Free {
                        scope,
                        keep,
                        via: v,
                    },
                    _ => Phase::Free {
                        scope,
                        keep: k,
                        via,
                    },
                };
            }
            (
                Phase::Alloc { size, fill, via },
                Phase::Alloc {
                    size: s,
                    fill: f,
                    via: v,
                },
            ) => {
                return match random.u8(..5) {
                    0 => Phase::Alloc { size, fill: f, via },
                    1 => Phase::Alloc { size, fill, via: v },
                    _ => Phase::Alloc { size: s, fill, via },
                };
            }
            (
                Phase::Grow { scope, size, via },
                Phase::Grow {
                    scope: s, size: z, ..
                },
            ) => {
                return match random.u8(..2) {
                    0 => Phase::Grow {
                        scope: s,
                        size,
                        via,
                    },
                    _ => Phase::Grow {
                        scope,
                        size: z,
                        via,
                    },
                };
            }
            (Phase::Flush { .. }, other) => return other,
            _ => {}
        }
    }
}

/// Leaves out phases as long as the figure stays within a hundredth.
#[must_use]
pub fn shrink(options: &Builder, found: Found) -> Found {
    let least = found.outcome.held / 100 * 99;
    let mut program = found.program;
    let mut at = program.len();
    while let Some(index) = at.checked_sub(1) {
        at = index;
        let phase = program.remove(index);
        if run_on_heap(options, &program, found.outcome.budget).held < least {
            program.insert(index, phase);
        }
    }
    let outcome = run_on_heap(options, &program, found.outcome.budget);
    Found { program, outcome }
}
