//! The floors: what the disk and the memory can do, measured beside the stores.

use core::hint::black_box;
use core::time::Duration;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use fastrand::Rng;

use super::job::{Figures, Place, figure};

/// Bytes of a record in the log, and of a page.
const RECORD_BYTES: usize = 256;
const PAGE_BYTES: usize = 4096;
/// Bytes of the files that are written to.
const FILE_BYTES: usize = 16 << 20;
/// Writes, each with its barrier.
const WRITES: usize = 1000;
/// Bytes that are copied, and that loads are scattered over.
const MEMORY_BYTES: usize = 256 << 20;
/// Dependent loads.
const LOADS: usize = 2_000_000;

/// The floors, with their units.
pub const DISK: &[(&str, &str)] = &[
    (
        "log + sync",
        "us: 256 bytes after the last, blocks written before, one fdatasync",
    ),
    (
        "page + sync",
        "us: a random page of a written file, one fdatasync",
    ),
    ("memcpy", "ns a KiB"),
    (
        "load",
        "ns: a load whose address the last one gave, over 256 MiB",
    ),
];

/// Measures them in the place of a job.
///
/// # Errors
///
/// When a file cannot be written.
pub fn floors(place: &Place) -> Result<Figures> {
    let writes = place.count(WRITES);
    let log = filled(&place.dir.join("log"))?;
    let log_us = p50_us(writes, |at| {
        let place = at * RECORD_BYTES % FILE_BYTES;
        log.write_all_at(&[1; RECORD_BYTES], place as u64)?;
        log.sync_data()
    })?;
    let pages = filled(&place.dir.join("pages"))?;
    let mut rng = Rng::with_seed(12);
    let page_us = p50_us(writes, |_| {
        let page = rng.usize(..FILE_BYTES / PAGE_BYTES);
        pages.write_all_at(&[1; PAGE_BYTES], (page * PAGE_BYTES) as u64)?;
        pages.sync_data()
    })?;
    let bytes = place.count(MEMORY_BYTES).next_multiple_of(PAGE_BYTES);
    Ok(Figures::from([
        figure("log + sync", log_us),
        figure("page + sync", page_us),
        figure("memcpy", memcpy_ns(bytes)),
        figure("load", load_ns(bytes, place.count(LOADS))),
    ]))
}

/// A file whose blocks are written.
fn filled(path: &Path) -> Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all_at(&vec![0; FILE_BYTES], 0)?;
    file.sync_all()?;
    Ok(file)
}

fn p50_us(count: usize, mut write: impl FnMut(usize) -> std::io::Result<()>) -> Result<f64> {
    let mut samples: Vec<Duration> = Vec::with_capacity(count);
    for at in 0..count {
        let start = Instant::now();
        write(at)?;
        samples.push(start.elapsed());
    }
    samples.sort_unstable();
    Ok(samples[count / 2].as_secs_f64() * 1e6)
}

fn memcpy_ns(bytes: usize) -> f64 {
    let (from, mut to) = (vec![1_u8; bytes], vec![2_u8; bytes]);
    let start = Instant::now();
    to.copy_from_slice(black_box(&from));
    black_box(&to);
    start.elapsed().as_nanos() as f64 / (bytes / 1024) as f64
}

/// One cycle through a word of each page in random order.
fn load_ns(bytes: usize, count: usize) -> f64 {
    const WORDS: usize = PAGE_BYTES / size_of::<usize>();
    let mut order: Vec<usize> = (0..bytes / PAGE_BYTES).collect();
    Rng::with_seed(13).shuffle(&mut order);
    // Another line of each page, so that they do not all fall into one set of the cache.
    let word = |page: usize| page * WORDS + page * 8 % WORDS;
    let mut memory = vec![0_usize; bytes / size_of::<usize>()];
    for pair in order.windows(2) {
        memory[word(pair[0])] = word(pair[1]);
    }
    let ends = order.first().zip(order.last());
    if let Some((&first, &last)) = ends {
        memory[word(last)] = word(first);
    }
    let mut at = word(order[0]);
    let start = Instant::now();
    for _ in 0..count {
        at = memory[at];
    }
    black_box(at);
    start.elapsed().as_nanos() as f64 / count as f64
}
