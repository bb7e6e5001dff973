//! The note of which pages were in memory when a store was closed.
//!
//! ```text
//!  0        8       12    16              24
//!  +--------+-------+-----+-------+-------+-----
//!  | MAGIC  |format | crc | first | pages | ...     runs, to the end of the file
//!  +--------+-------+-----+-------+-------+-----
//! ```
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects
)]

use crate::format::bytes::{take_u32, u32_at};
use crate::ids::Extent;

const MAGIC: [u8; 8] = *b"BrickWm\x1a";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 16;
const RUN_BYTES: usize = 8;
/// Most runs of a note, so that it stays small beside any store.
const MOST_RUNS: usize = if cfg!(test) { 1 << 4 } else { 1 << 16 };
/// The longest note.
pub(crate) const MOST_BYTES: usize = HEADER_BYTES + MOST_RUNS * RUN_BYTES;
/// Shorter gaps between runs are read along with them: one request in the place of two.
const LEAST_GAP_PAGES: u32 = 4;

/// Gathers pages that come in ascending order.
#[derive(Debug, Default)]
pub(crate) struct Runs(Vec<Extent>);

impl Runs {
    pub(crate) fn push(&mut self, run: Extent) {
        push(&mut self.0, run, LEAST_GAP_PAGES);
    }

    /// The runs, and gaps between them if there were too many.
    pub(crate) fn finish(mut self) -> Vec<Extent> {
        let mut gap = LEAST_GAP_PAGES;
        while self.0.len() > MOST_RUNS {
            gap = gap.saturating_mul(2);
            let mut fewer = Vec::new();
            for run in self.0 {
                push(&mut fewer, run, gap);
            }
            self.0 = fewer;
        }
        self.0
    }
}

/// Adds a run behind the others, to the last one if less than `gap` pages are between them.
fn push(runs: &mut Vec<Extent>, run: Extent, gap: u32) {
    match runs.last_mut() {
        Some(last) if run.first.saturating_sub(last.end()) < gap => {
            last.pages = run.end().saturating_sub(last.first);
        }
        _ => runs.push(run),
    }
}

pub(crate) fn encode(runs: &[Extent]) -> Vec<u8> {
    let words = runs.iter().flat_map(|run| [run.first, run.pages]);
    let body: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    let crc = crc32c::crc32c(&body).to_le_bytes();
    [&MAGIC[..], &FORMAT.to_le_bytes(), &crc, &body].concat()
}

/// The runs of a note, which ascend and name no page twice; `None` if these bytes are none,
/// or of another format.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Extent>> {
    let (head, mut body) = bytes.split_at_checked(HEADER_BYTES)?;
    let is_note = head.starts_with(&MAGIC) && u32_at(head, 8) == Some(FORMAT);
    (is_note && u32_at(head, 12)? == crc32c::crc32c(body)).then_some(())?;
    let (mut runs, mut free) = (Vec::new(), 0);
    while !body.is_empty() {
        let (first, pages) = (take_u32(&mut body)?, take_u32(&mut body)?);
        (first >= free).then_some(())?;
        free = first.checked_add(pages)?;
        runs.push(Extent { first, pages });
    }
    Some(runs)
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "bytes and numbers of the test's own"
)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pages_of(runs: &[Extent]) -> Vec<u32> {
        runs.iter().flat_map(|run| run.first..run.end()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_note_names_the_pages_and_few_others(
            steps in prop::collection::vec((0..90_u32, 1..9_u32), 0..60),
        ) {
            let (mut runs, mut pages, mut at) = (Runs::default(), Vec::new(), 0);
            for (gap, count) in steps {
                let run = Extent { first: at + gap, pages: count };
                at = run.end();
                pages.extend(run.first..run.end());
                runs.push(run);
            }
            let were_few = runs.0.len() <= MOST_RUNS;
            let runs = runs.finish();
            prop_assert!(runs.len() <= MOST_RUNS);
            prop_assert!(runs.windows(2).all(|pair| pair[0].end() < pair[1].first));
            let named = pages_of(&runs);
            prop_assert!(pages.iter().all(|page| named.binary_search(page).is_ok()));
            // A gap that was closed has three pages at most, unless there were many.
            prop_assert!(!were_few || named.len() <= 4 * pages.len());
            prop_assert_eq!(decode(&encode(&runs)), Some(runs));
        }

        #[test]
        fn what_is_no_note_is_none(mut bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            prop_assert_eq!(decode(&bytes), None);
            bytes.splice(0..0, MAGIC);
            prop_assert_eq!(decode(&bytes), None);
        }
    }

    #[test]
    fn a_note_that_names_pages_twice_is_none() {
        let run = |first, pages| Extent { first, pages };
        assert!(decode(&encode(&[run(7, 2), run(9, 1)])).is_some());
        assert_eq!(decode(&encode(&[run(7, 2), run(8, 1)])), None);
        assert_eq!(decode(&encode(&[run(7, u32::MAX)])), None);
    }

    #[test]
    fn a_changed_or_cut_note_is_none() {
        let note = encode(&[
            Extent { first: 7, pages: 2 },
            Extent {
                first: 90,
                pages: 1,
            },
        ]);
        for at in 0..note.len() {
            let mut changed = note.clone();
            changed[at] ^= 0x40;
            assert_eq!(decode(&changed), None, "byte {at}");
            assert_eq!(decode(&note[..at]), None, "{at} bytes");
        }
    }
}
