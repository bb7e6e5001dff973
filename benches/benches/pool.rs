//! How does the cost of get and return spread over many samples? Charts for each pool.
//!
//! `cargo bench -p brickyard-bench --bench pool`, with `--features peers-pool` for the
//! others. Charts are for looking at: the pools run one after the other here, so ratios
//! are for `brickyard compare --pool`, which runs them in turns. "Box arena" is left out,
//! for this process runs on the system's allocator.

#![deny(unsafe_code)]

use core::time::Duration;
use std::time::Instant;

use brickyard_bench::pools::{SUBJECTS, Size, Subject};
use criterion::{Bencher, Criterion};

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for (title, size) in [
        ("pair of 64-byte objects", Size::Small),
        ("pair of 1-KiB objects", Size::Medium),
        ("pair of 64-KiB objects", Size::Large),
    ] {
        let mut group = criterion.benchmark_group(title);
        for subject in SUBJECTS
            .iter()
            .filter(|subject| subject.allocator == "system")
        {
            group.bench_function(subject.name, |bencher| pairs(bencher, subject, size));
        }
        group.finish();
    }
    criterion.final_summary();
}

/// Get and return on one thread.
fn pairs(bencher: &mut Bencher<'_>, subject: &Subject, size: Size) {
    let mut pairs = subject.pairs(size);
    bencher.iter_custom(|count| {
        let start = Instant::now();
        pairs(usize::try_from(count).unwrap_or(usize::MAX));
        start.elapsed()
    });
}
