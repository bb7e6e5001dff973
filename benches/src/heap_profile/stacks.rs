//! Named stacks and what they stand for, added up over processes.

use std::collections::HashMap;

use super::symbols::{Frame, Symbols, is_allocator};
use super::text::{Profile, Sum};

/// What the program did, as the samples say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    pub(crate) allocated_blocks: f64,
    pub(crate) allocated_bytes: f64,
    pub(crate) live_blocks: f64,
    pub(crate) live_bytes: f64,
}

impl Figures {
    fn add(&mut self, other: Self) {
        self.allocated_blocks += other.allocated_blocks;
        self.allocated_bytes += other.allocated_bytes;
        self.live_blocks += other.live_blocks;
        self.live_bytes += other.live_bytes;
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Stacks {
    /// Every frame once.
    pub(crate) frames: Vec<Frame>,
    numbers: HashMap<Frame, usize>,
    /// By the numbers of their frames, innermost first.
    pub(crate) stacks: HashMap<Vec<usize>, Figures>,
    pub(crate) mean_bytes: u64,
    pub(crate) samples: u64,
    pub(crate) lost: u64,
}

impl Stacks {
    /// Adds one process.
    pub(crate) fn add(&mut self, profile: &Profile, symbols: &mut Symbols) {
        self.mean_bytes = profile.mean_bytes;
        self.lost += profile.lost;
        let mut known: HashMap<u64, Vec<usize>> = HashMap::new();
        for entry in &profile.entries {
            let mut stack = Vec::new();
            for &address in &entry.addresses {
                let numbers = known.entry(address).or_insert_with(|| {
                    let frames = symbols.frames(address, &profile.mappings);
                    frames.into_iter().map(|frame| self.number(frame)).collect()
                });
                stack.extend_from_slice(numbers);
            }
            let way_in = stack
                .iter()
                .take_while(|&&number| is_allocator(&self.frames[number]))
                .count();
            stack.drain(..way_in);
            self.samples += entry.allocated.blocks;
            let (allocated_blocks, allocated_bytes) = scaled(entry.allocated, profile.mean_bytes);
            let (live_blocks, live_bytes) = scaled(entry.live, profile.mean_bytes);
            self.stacks.entry(stack).or_default().add(Figures {
                allocated_blocks,
                allocated_bytes,
                live_blocks,
                live_bytes,
            });
        }
    }

    fn number(&mut self, frame: Frame) -> usize {
        if let Some(&number) = self.numbers.get(&frame) {
            return number;
        }
        self.frames.push(frame.clone());
        self.numbers.insert(frame, self.frames.len() - 1);
        self.frames.len() - 1
    }

    /// All stacks together.
    pub(crate) fn total(&self) -> Figures {
        let mut total = Figures::default();
        self.stacks.values().for_each(|figures| total.add(*figures));
        total
    }

    /// The stacks in an order that does not depend on the hash.
    pub(crate) fn sorted(&self) -> Vec<(&[usize], Figures)> {
        let mut stacks: Vec<_> = self
            .stacks
            .iter()
            .map(|(stack, figures)| (stack.as_slice(), *figures))
            .collect();
        stacks.sort_by_key(|(stack, _)| *stack);
        stacks
    }
}

/// What samples stand for: of blocks of *s* bytes `1 − exp(−s ÷ mean)` are sampled.
fn scaled(sum: Sum, mean_bytes: u64) -> (f64, f64) {
    if sum.blocks == 0 || mean_bytes == 0 {
        return (0.0, 0.0);
    }
    // Counts far below 2^53.
    let (blocks, bytes) = (sum.blocks as f64, sum.bytes as f64);
    let share = -(-bytes / blocks / mean_bytes as f64).exp_m1();
    (blocks / share, bytes / share)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::text::{parse, tests::TEXT};
    use super::*;

    pub(crate) fn stacks() -> Stacks {
        let mut stacks = Stacks::default();
        let profile = parse(TEXT).expect("a profile");
        stacks.add(&profile, &mut Symbols::default());
        stacks
    }

    #[test]
    fn samples_are_scaled_to_what_they_stand_for() {
        let total = stacks().total();
        // Blocks of the mean size: 1 − 1/e of them are sampled.
        assert!((total.allocated_blocks - 5.0 / 0.632_12).abs() < 0.01);
        assert!((total.live_bytes - 2000.0 / 0.632_12).abs() < 1.0);
        let small = Sum {
            blocks: 1,
            bytes: 8,
        };
        let (blocks, bytes) = scaled(small, 524_288);
        assert!((bytes - 524_288.0).abs() < 8.0 && (blocks * 8.0 - bytes).abs() < 1e-6);
    }

    #[test]
    fn two_processes_add_up() {
        let mut twice = stacks();
        let profile = parse(TEXT).expect("a profile");
        twice.add(&profile, &mut Symbols::default());
        assert_eq!((twice.samples, twice.lost), (10, 14));
        assert_eq!(twice.stacks.len(), 2);
        let ratio = twice.total().live_bytes / stacks().total().live_bytes;
        assert!((ratio - 2.0).abs() < 1e-9);
    }
}
