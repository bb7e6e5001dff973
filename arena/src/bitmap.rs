//! Runs of bits in the bitmaps of a segment, one bit a granule, and bits of one word. Pure.

use core::ops::Range;

use crate::units::{Run, SEGMENT_GRANULES};

/// Words in a [`Bits`].
const WORDS: usize = SEGMENT_GRANULES / 64;

/// One bit for each granule of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bits([u64; WORDS]);

impl Bits {
    /// No bit set.
    pub(crate) const fn new() -> Self {
        Self([0; WORDS])
    }

    /// Sets or clears every bit of `run`; returns how many changed.
    pub(crate) fn assign(&mut self, run: Run, value: bool) -> usize {
        let mut changed = 0;
        let words = words_of(run);
        let first = words.start;
        for (index, word) in self.0.get_mut(words).into_iter().flatten().enumerate() {
            let mask = mask_in_word(first + index, run);
            let wanted = if value { *word | mask } else { *word & !mask };
            changed += (*word ^ wanted).count_ones() as usize;
            *word = wanted;
        }
        changed
    }

    /// How many bits of `run` are set.
    pub(crate) fn count(&self, run: Run) -> usize {
        let words = words_of(run);
        let first = words.start;
        let words = self.0.get(words).into_iter().flatten().enumerate();
        words
            .map(|(index, word)| (word & mask_in_word(first + index, run)).count_ones() as usize)
            .sum()
    }

    /// Whether the bit at `index` is set.
    pub(crate) fn get(&self, index: usize) -> bool {
        self.0
            .get(index / 64)
            .is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// First index at or after `from` whose bit is `value`; `SEGMENT_GRANULES` if none.
    pub(crate) fn find(&self, from: usize, value: bool) -> usize {
        let mut index = from / 64;
        let mut skip = u64::MAX << (from % 64);
        while let Some(&word) = self.0.get(index) {
            let hits = (if value { word } else { !word }) & skip;
            if hits != 0 {
                return index * 64 + hits.trailing_zeros() as usize;
            }
            skip = u64::MAX;
            index += 1;
        }
        SEGMENT_GRANULES
    }

    /// The longest run of clear bits that holds `run`, whose bits are clear.
    pub(crate) fn clear_around(&self, run: Run) -> Run {
        let mut index = run.start / 64;
        let mut before = below(run.start % 64);
        let start = loop {
            let word = self.0.get(index).map_or(0, |word| word & before);
            if word != 0 {
                break index * 64 + 64 - word.leading_zeros() as usize;
            }
            if index == 0 {
                break 0;
            }
            index -= 1;
            before = u64::MAX;
        };
        Run {
            start,
            len: self.find(run.end(), true) - start,
        }
    }

    /// First run of bits equal to `value` that starts at or after `from`.
    pub(crate) fn next_run(&self, from: usize, value: bool) -> Option<Run> {
        let start = self.find(from, value);
        if start >= SEGMENT_GRANULES {
            return None;
        }
        Some(Run {
            start,
            len: self.find(start, !value) - start,
        })
    }

    /// The place for `len` granules whose first index is a multiple of `align`, a power of two, in
    /// the smallest run of clear bits that has one; the lowest of equals.
    pub(crate) fn best_fit(&self, len: usize, align: usize) -> Option<usize> {
        let mut best: Option<(usize, usize)> = None;
        let mut from = 0;
        while let Some(run) = self.next_run(from, false) {
            from = run.end();
            let start = (run.start + align - 1) & !(align - 1);
            let fits = start + len <= run.end();
            if fits && run.len == len {
                return Some(start);
            }
            if fits && best.is_none_or(|(smallest, _)| run.len < smallest) {
                best = Some((run.len, start));
            }
        }
        best.map(|(_, start)| start)
    }

    /// Length of the longest run of clear bits.
    pub(crate) fn longest_clear(&self) -> usize {
        let mut longest = 0;
        let mut from = 0;
        while let Some(run) = self.next_run(from, false) {
            longest = longest.max(run.len);
            from = run.end();
        }
        longest
    }

    /// Bits set in `self` and clear in `other`.
    pub(crate) fn and_not(&self, other: &Self) -> Self {
        let mut out = *self;
        for (word, mask) in out.0.iter_mut().zip(other.0.iter()) {
            *word &= !mask;
        }
        out
    }
}

/// The words that `run` has bits in.
fn words_of(run: Run) -> Range<usize> {
    run.start / 64..run.end().div_ceil(64)
}

/// The bits of word `index` that lie in `run`.
fn mask_in_word(index: usize, run: Run) -> u64 {
    let low = run.start.saturating_sub(index * 64).min(64);
    let high = run.end().saturating_sub(index * 64).min(64);
    below(high) & !below(low)
}

/// The lowest `count` bits, `0..=64`.
pub(crate) const fn below(count: usize) -> u64 {
    if count >= 64 {
        u64::MAX
    } else {
        (1 << count) - 1
    }
}

/// The lowest run of set bits in `word`, which is not 0.
pub(crate) const fn lowest_run(word: u64) -> Run {
    let start = word.trailing_zeros();
    let len = (word >> (start & 63)).trailing_ones();
    Run {
        start: start as usize,
        len: len as usize,
    }
}

/// `count` set bits of `word`: first those of cache lines (`per_line` bits, a power of two)
/// all of whose blocks are free, so that two threads that refill get no line between them
/// as long as there are others.
pub(crate) fn whole_lines_first(word: u64, count: usize, per_line: usize) -> u64 {
    let mut whole = word;
    let mut width = 1;
    while width < per_line {
        whole &= whole >> width;
        width *= 2;
    }
    // The first bit of each line stands for all of them.
    let line = u64::MAX >> (64 - per_line);
    whole &= u64::MAX / line;
    let first = lowest(whole * line, count);
    first | lowest(word & !first, count - first.count_ones() as usize)
}

/// The lowest `count` set bits of `word`.
pub(crate) fn lowest(word: u64, count: usize) -> u64 {
    if word.count_ones() as usize <= count {
        return word;
    }
    // Side by side as a rule. `word` has more than `count` bits, so the run ends inside of it.
    let run = below(count) << word.trailing_zeros();
    if word & run == run {
        return run;
    }
    let mut rest = word;
    for _ in 0..count {
        rest &= rest - 1;
    }
    word & !rest
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same questions asked of an array of booleans.
    fn naive_best_fit(bits: &[bool], len: usize, align: usize) -> Option<usize> {
        let mut best = None;
        let mut start = 0;
        while start < bits.len() {
            if bits[start] {
                start += 1;
                continue;
            }
            let end = (start..bits.len()).find(|&i| bits[i]).unwrap_or(bits.len());
            let place = start.next_multiple_of(align);
            if place + len <= end && best.is_none_or(|(run, _)| end - start < run) {
                best = Some((end - start, place));
            }
            start = end;
        }
        best.map(|(_, place)| place)
    }

    #[test]
    fn whole_lines_come_first_and_the_rest_after_them() {
        let word = 0xff_00_fe_ff;
        assert_eq!(whole_lines_first(word, 8, 8), 0xff);
        assert_eq!(whole_lines_first(word, 12, 8), 0x0f_00_00_ff);
        assert_eq!(whole_lines_first(word, 18, 8), 0xff_00_06_ff);
        assert_eq!(whole_lines_first(0xfe, 3, 8), 0x0e);
        assert_eq!(whole_lines_first(0b1101, 2, 2), 0b1100);
        assert_eq!(whole_lines_first(0b1101, 2, 1), 0b0101);
        assert_eq!(whole_lines_first(u64::MAX, 64, 4), u64::MAX);
        for word in [0, 1, u64::MAX, 0x1234_5678_9abc_def0, 1 << 63] {
            for (count, per_line) in [(0, 8), (1, 4), (7, 8), (33, 2), (64, 8)] {
                let taken = whole_lines_first(word, count, per_line);
                let most = word.count_ones().min(u32::try_from(count).unwrap());
                assert_eq!((taken & !word, taken.count_ones()), (0, most));
            }
        }
    }

    #[test]
    fn lowest_takes_the_lowest_bits() {
        assert_eq!(lowest(0b1011_0100, 2), 0b0001_0100);
        assert_eq!(lowest(u64::MAX, 64), u64::MAX);
        assert_eq!(lowest(u64::MAX, 0), 0);
        assert_eq!((lowest(0, 5), lowest(1 << 63, 1)), (0, 1 << 63));
        assert_eq!(lowest(u64::MAX << 20, 43), (1 << 63) - (1 << 20));
        assert_eq!(lowest(3 << 62 | 1, 2), 1 << 62 | 1);
    }

    #[test]
    fn the_lowest_run_of_a_word_ends_before_the_next_gap() {
        let run = |word| (lowest_run(word).start, lowest_run(word).len);
        assert_eq!(run(1), (0, 1));
        assert_eq!(run(0b1011_0110), (1, 2));
        assert_eq!(run(u64::MAX), (0, 64));
        assert_eq!(run(u64::MAX << 4), (4, 60));
        assert_eq!(run(1 << 63), (63, 1));
    }

    proptest! {
        // Promises: assign counts what it changes; every query agrees with the naive one.
        #[test]
        fn bits_agree_with_an_array(
            ops in prop::collection::vec((0..1024usize, 1..200usize, any::<bool>()), 0..40),
            len in 1..300usize,
            shift in 0..6u32,
        ) {
            let mut bits = Bits::new();
            let mut naive = vec![false; SEGMENT_GRANULES];
            for (start, len, value) in ops {
                let run = Run { start, len: len.min(SEGMENT_GRANULES - start) };
                let changed = naive[run.start..run.end()].iter().filter(|&&b| b != value).count();
                prop_assert_eq!(bits.assign(run, value), changed);
                naive[run.start..run.end()].fill(value);
                prop_assert_eq!(bits.count(run), if value { run.len } else { 0 });
            }
            let align = 1 << shift;
            prop_assert_eq!(bits.best_fit(len, align), naive_best_fit(&naive, len, align));
            let longest = naive.split(|&b| b).map(<[bool]>::len).max().unwrap();
            prop_assert_eq!(bits.longest_clear(), longest);
            let mut from = 0;
            for (index, &bit) in naive.iter().enumerate() {
                prop_assert_eq!(bits.get(index), bit);
                if bit {
                    from = index + 1;
                    continue;
                }
                let end = (index..SEGMENT_GRANULES).find(|&i| naive[i]).unwrap_or(SEGMENT_GRANULES);
                let around = Run { start: from, len: end - from };
                prop_assert_eq!(bits.clear_around(Run { start: index, len: 1 }), around);
                let rest = Run { start: index, len: end - index };
                prop_assert_eq!(bits.clear_around(rest), around);
            }
        }
    }
}
