//! Sorting more than fits in memory: runs that are sorted in memory go to a file without
//! a name, and are merged from there. Knows nothing of the store.
//!
//! ```text
//!  entry in the file:  key length u32 │ value length u64 │ key │ value
//! ```
//!
//! Of equal keys the one that came last is kept.

use core::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Bytes before the key of an entry in the file.
const HEADER_BYTES: usize = 12;
/// Bytes of a run that are read at a time.
const READ_BYTES: usize = 1 << 18;

/// An entry in `Sorter::bytes`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The first eight bytes of the key, which decide most comparisons.
    head: u64,
    at: usize,
    key_len: u32,
    value_len: u64,
}

/// Takes entries in any order.
#[derive(Debug)]
pub(crate) struct Sorter {
    bytes: Vec<u8>,
    places: Vec<Place>,
    /// Bytes of memory for entries and places.
    budget: usize,
    dir: PathBuf,
    file: Option<File>,
    /// First and last byte of each run in the file.
    runs: Vec<(u64, u64)>,
}

fn head_of(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = key.len().min(8);
    head[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(head)
}

impl Sorter {
    pub(crate) fn new(budget: usize, dir: PathBuf) -> Self {
        Self {
            bytes: Vec::new(),
            places: Vec::new(),
            budget,
            dir,
            file: None,
            runs: Vec::new(),
        }
    }

    /// Adds an entry. Keys have less than 4 GiB.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let held = self.bytes.len() + self.places.len() * size_of::<Place>();
        if !self.places.is_empty() && held + key.len() + value.len() > self.budget {
            self.spill()?;
        }
        self.places.push(Place {
            head: head_of(key),
            at: self.bytes.len(),
            key_len: u32::try_from(key.len()).map_err(io::Error::other)?,
            value_len: value.len() as u64,
        });
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        Ok(())
    }

    /// Sorts what is in memory, and leaves the last of equal keys.
    fn sort(&mut self) {
        let bytes = &self.bytes;
        let key = |place: &Place| &bytes[place.at..place.at + place.key_len as usize];
        // Equal keys stay in the order in which they came.
        self.places.sort_unstable_by(|one, other| {
            let by_head = one.head.cmp(&other.head);
            let by_key = by_head.then_with(|| key(one).cmp(key(other)));
            by_key.then(one.at.cmp(&other.at))
        });
        self.places.dedup_by(|later, kept| {
            let same = key(later) == key(kept);
            if same {
                *kept = *later;
            }
            same
        });
    }

    /// Writes what is in memory to the file, as a run.
    fn spill(&mut self) -> io::Result<()> {
        self.sort();
        let file = match self.file.take() {
            Some(file) => file,
            None => tempfile::tempfile_in(&self.dir)?,
        };
        let start = self.runs.last().map_or(0, |&(_, end)| end);
        let mut end = start;
        let mut out = BufWriter::with_capacity(READ_BYTES, &file);
        for place in &self.places {
            let len = place.key_len as usize + value_bytes(place.value_len)?;
            out.write_all(&place.key_len.to_le_bytes())?;
            out.write_all(&place.value_len.to_le_bytes())?;
            out.write_all(&self.bytes[place.at..place.at + len])?;
            end += (HEADER_BYTES + len) as u64;
        }
        out.flush()?;
        drop(out);
        self.runs.push((start, end));
        self.file = Some(file);
        self.bytes.clear();
        self.places.clear();
        Ok(())
    }

    /// All entries, sorted.
    pub(crate) fn finish(mut self) -> io::Result<Sorted> {
        if self.runs.is_empty() {
            self.sort();
            return Ok(Sorted::Memory {
                bytes: self.bytes,
                places: self.places.into_iter(),
            });
        }
        self.spill()?;
        (self.bytes, self.places) = (Vec::new(), Vec::new());
        let file = self.file.take().ok_or(io::ErrorKind::NotFound)?;
        let mut heap = BinaryHeap::with_capacity(self.runs.len());
        let mut merge = Merge {
            file,
            runs: Vec::new(),
            heap: BinaryHeap::new(),
            current: None,
        };
        for (number, &(at, end)) in self.runs.iter().enumerate() {
            merge.runs.push(Run::new(at, end));
            let mut first = First {
                key: Vec::new(),
                value: Vec::new(),
                run: number,
            };
            if merge.refill(&mut first)? {
                heap.push(first);
            }
        }
        merge.heap = heap;
        Ok(Sorted::Merge(merge))
    }
}

fn value_bytes(len: u64) -> io::Result<usize> {
    usize::try_from(len).map_err(io::Error::other)
}

/// Entries in the order of their keys, each key once.
#[derive(Debug)]
pub(crate) enum Sorted {
    /// They fit in memory.
    Memory {
        bytes: Vec<u8>,
        places: std::vec::IntoIter<Place>,
    },
    /// They are merged.
    Merge(Merge),
}

impl Sorted {
    /// The next entry.
    pub(crate) fn next(&mut self) -> io::Result<Option<(&[u8], &[u8])>> {
        match self {
            Self::Memory { bytes, places } => {
                let Some(place) = places.next() else {
                    return Ok(None);
                };
                let value = place.at + place.key_len as usize;
                let end = value + value_bytes(place.value_len)?;
                Ok(Some((&bytes[place.at..value], &bytes[value..end])))
            }
            Self::Merge(merge) => merge.next(),
        }
    }
}

/// A run that is being read.
#[derive(Debug)]
struct Run {
    /// What was read and not used starts here in `buffer`.
    used: usize,
    buffer: Vec<u8>,
    /// The next byte to be read from the file, and the run's end.
    at: u64,
    end: u64,
}

impl Run {
    fn new(at: u64, end: u64) -> Self {
        Self {
            used: 0,
            buffer: Vec::new(),
            at,
            end,
        }
    }

    /// Appends the next `len` bytes of the run to `out`.
    fn read(&mut self, file: &File, mut len: usize, out: &mut Vec<u8>) -> io::Result<()> {
        while len > 0 {
            if self.used == self.buffer.len() {
                let more = value_bytes(self.end - self.at)?.min(READ_BYTES);
                if more == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.buffer.resize(more, 0);
                file.read_exact_at(&mut self.buffer, self.at)?;
                self.at += more as u64;
                self.used = 0;
            }
            let part = len.min(self.buffer.len() - self.used);
            out.extend_from_slice(&self.buffer[self.used..self.used + part]);
            self.used += part;
            len -= part;
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.used == self.buffer.len() && self.at == self.end
    }
}

/// The first entry of a run that was not given out.
#[derive(Debug)]
struct First {
    key: Vec<u8>,
    value: Vec<u8>,
    run: usize,
}

impl Ord for First {
    /// The largest is the next: the smallest key, of equal ones that of the last run.
    fn cmp(&self, other: &Self) -> Ordering {
        let by_key = other.key.cmp(&self.key);
        by_key.then(self.run.cmp(&other.run))
    }
}

impl PartialOrd for First {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for First {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for First {}

/// Merges the runs of a file.
#[derive(Debug)]
pub(crate) struct Merge {
    file: File,
    runs: Vec<Run>,
    heap: BinaryHeap<First>,
    /// What was given out last.
    current: Option<First>,
}

impl Merge {
    /// Reads the next entry of a run; false if there is none.
    fn refill(&mut self, first: &mut First) -> io::Result<bool> {
        let run = &mut self.runs[first.run];
        if run.is_done() {
            return Ok(false);
        }
        let mut header = Vec::with_capacity(HEADER_BYTES);
        run.read(&self.file, HEADER_BYTES, &mut header)?;
        let (key, value) = header.split_at(4);
        let key = u32::from_le_bytes(key.try_into().map_err(io::Error::other)?);
        let value = u64::from_le_bytes(value.try_into().map_err(io::Error::other)?);
        first.key.clear();
        run.read(&self.file, key as usize, &mut first.key)?;
        first.value.clear();
        run.read(&self.file, value_bytes(value)?, &mut first.value)?;
        Ok(true)
    }

    /// Puts a run back whose entry was used.
    fn advance(&mut self, mut used: First) -> io::Result<()> {
        if self.refill(&mut used)? {
            self.heap.push(used);
        }
        Ok(())
    }

    fn next(&mut self) -> io::Result<Option<(&[u8], &[u8])>> {
        if let Some(used) = self.current.take() {
            self.advance(used)?;
        }
        let Some(next) = self.heap.pop() else {
            return Ok(None);
        };
        while self.heap.peek().is_some_and(|other| other.key == next.key) {
            if let Some(older) = self.heap.pop() {
                self.advance(older)?;
            }
        }
        let next = self.current.insert(next);
        Ok(Some((&next.key, &next.value)))
    }
}

#[cfg(test)]
mod tests {
    //! What could go wrong: an entry is lost or comes twice where runs meet, or an older
    //! value wins. How it is seen: a `BTreeMap` takes the same entries, with budgets from
    //! an entry to all of them.

    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn entries_come_out_in_order_and_the_last_of_equals_wins() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for budget in [0, 1 << 10, 40 << 10, 1 << 30] {
            let mut sorter = Sorter::new(budget, dir.path().to_owned());
            let mut model = BTreeMap::new();
            let mut seed = 1_u32;
            let entries = if budget == 0 { 200_u32 } else { 5_000 };
            for n in 0..entries {
                let byte = u8::try_from(n % 256).expect("below 256");
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let key = format!("{}", seed % 3_000).into_bytes();
                let value = vec![byte; (seed >> 8) as usize % 300];
                sorter.push(&key, &value).expect("room");
                model.insert(key, value);
            }
            let mut sorted = sorter.finish().expect("room");
            for (key, value) in &model {
                let next = sorted.next().expect("readable");
                assert_eq!(next, Some((key.as_slice(), value.as_slice())));
            }
            assert_eq!(sorted.next().expect("readable"), None);
        }
        let left = std::fs::read_dir(dir.path()).expect("readable").count();
        assert_eq!(left, 0, "the file has no name");
    }

    #[test]
    fn values_longer_than_the_budget_pass() {
        let dir = std::env::temp_dir();
        let mut sorter = Sorter::new(1 << 10, dir);
        let long = vec![7; READ_BYTES * 3 + 5];
        sorter.push(b"b", &long).expect("room");
        sorter.push(b"a", b"short").expect("room");
        let mut sorted = sorter.finish().expect("room");
        assert_eq!(
            sorted.next().expect("readable"),
            Some((&b"a"[..], &b"short"[..]))
        );
        assert_eq!(
            sorted.next().expect("readable"),
            Some((&b"b"[..], &long[..]))
        );
        assert_eq!(sorted.next().expect("readable"), None);
    }
}
