//! `brickyard grow`: how an allocation's cost grows with threads and with live data.
//!
//! A process for each point and allocator ([`work`]), in rounds and in turns; a table and,
//! with `--plot`, a chart ([`plot`]) for each curve.

mod plot;
mod work;

use core::num::NonZero;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::child::report_of;
use crate::compare::{chosen_allocators, turns};
use crate::measure::available_kib;
use crate::progress;
use crate::report;
use crate::series::Series;
use crate::stats::{median, spread};
use crate::table::{number, percent, table};
pub(crate) use work::{GrowChildArgs, child};
use work::{Sample, THREAD_BYTES};

/// Threads of the points of the first curve.
const THREADS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Most allocators whose figures fit one table of a hundred columns.
const MOST_DETAILED: usize = 3;

/// Options of `grow`.
#[derive(Debug, Args)]
pub(crate) struct GrowArgs {
    /// A sixteenth of the work
    #[arg(long)]
    quick: bool,
    /// Only these allocators, separated by commas; the system's always runs
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    allocators: Vec<String>,
    /// Rounds to run
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The most live data, in MiB: points are at 1, 4, 16, ... of them, and there
    #[arg(long, value_name = "MIB", default_value = "1024")]
    most_mib: NonZero<usize>,
    /// Draw the curves into this folder, as SVG
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// Write the medians to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A point, and its samples by allocator.
#[derive(Debug)]
struct Point {
    threads: usize,
    bytes: usize,
    series: Vec<Series<Sample>>,
}

impl Point {
    fn new(threads: usize, bytes: usize, allocators: usize) -> Self {
        Self {
            threads,
            bytes,
            series: vec![Series::default(); allocators],
        }
    }

    fn pair_ns(&self, side: usize) -> Option<f64> {
        median(&self.series[side].figures(|sample| Some(sample.pair_ns)))
    }

    /// Resident over live memory.
    fn overhead(&self, side: usize) -> Option<f64> {
        // Exact below 2^53.
        let share = |sample: &Sample| Some(sample.rss_kib as f64 / sample.live_kib as f64);
        median(&self.series[side].figures(share))
    }
}

/// Measures both curves and prints them.
///
/// # Errors
///
/// When an option is wrong or a child failed; what the others measured is printed first.
pub(crate) fn main(args: &GrowArgs) -> Result<()> {
    let allocators = chosen_allocators(&args.allocators)?;
    let count = allocators.len();
    let mut threads: Vec<Point> = THREADS
        .iter()
        .map(|threads| Point::new(*threads, THREAD_BYTES, count))
        .collect();
    let mut live: Vec<Point> = sizes_mib(args.most_mib.get())
        .filter_map(|mib| Some(Point::new(1, mib.checked_mul(1 << 20)?, count)))
        .collect();
    measure(args, &allocators, &mut threads, &mut live)?;
    report::say(&render("threads", &threads, &allocators, |point| {
        point.threads
    }));
    report::say("");
    report::say(&render("live MiB", &live, &allocators, |point| {
        point.bytes >> 20
    }));
    report::say(&format!(
        "{} of the work, {} round{}; medians of CPU time, ± half the range; 1 MiB of data a thread above",
        if args.quick { "1/16" } else { "all" },
        args.rounds,
        if args.rounds == 1 { "" } else { "s" },
    ));
    if let Some(path) = &args.json {
        report::write_document(path, &document(&threads, &live, &allocators))?;
    }
    if let Some(folder) = &args.plot {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        plot::draw_all(folder, &threads, &live, &allocators)?;
    }
    conclude(threads.iter().chain(&live), &allocators)
}

/// Takes the samples of all points, in rounds.
fn measure(
    args: &GrowArgs,
    allocators: &[String],
    threads: &mut [Point],
    live: &mut [Point],
) -> Result<()> {
    let count = allocators.len();
    let own = std::env::current_exe().context("cannot find this program's own path")?;
    let points = threads.len() + live.len();
    let bar = progress::bar(u64::from(args.rounds) * (points * count) as u64);
    for round in 0..args.rounds {
        for (row, point) in threads.iter_mut().chain(&mut *live).enumerate() {
            let needed_bytes = point.threads.saturating_mul(point.bytes);
            let (threads, bytes) = (point.threads.to_string(), point.bytes.to_string());
            for side in turns(count, round as usize, row) {
                let allocator = &allocators[side];
                bar.set_message(format!(
                    "{threads} threads, {bytes} bytes under {allocator}"
                ));
                let arguments = [
                    "grow-child",
                    "--allocator",
                    allocator,
                    "--threads",
                    &threads,
                    "--bytes",
                    &bytes,
                ];
                let mut arguments = arguments.map(OsStr::new).to_vec();
                arguments.extend(args.quick.then_some(OsStr::new("--quick")));
                let sample = || {
                    ensure_room(needed_bytes)?;
                    report_of(&own, &arguments, allocator)
                };
                point.series[side].record(sample);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Refuses data for which this machine has no memory: it would swap, or end other processes.
fn ensure_room(live_bytes: usize) -> Result<()> {
    let Some(available_kib) = available_kib() else {
        return Ok(());
    };
    // Half as much again is for what allocators hold beyond the data.
    let needed_kib = (live_bytes / 1024).saturating_add(live_bytes / 2048) as u64;
    ensure!(
        needed_kib <= available_kib,
        "skipped: it may take {} MiB, and {} are available; see --most-mib",
        needed_kib >> 10,
        available_kib >> 10,
    );
    Ok(())
}

/// The table of a curve: for each allocator the cost of a pair, its spread, and resident over
/// live memory; with many allocators a table for cost and one for memory.
fn render(
    title: &str,
    points: &[Point],
    allocators: &[String],
    x: impl Fn(&Point) -> usize,
) -> String {
    let cost = |point: &Point, side: usize| number(point.pair_ns(side), 1);
    let memory = |point: &Point, side: usize| number(point.overhead(side), 2);
    let spread = |point: &Point, side: usize| {
        percent(spread(
            &point.series[side].figures(|sample| Some(sample.pair_ns)),
        ))
    };
    type Cell<'a> = (&'a str, &'a dyn Fn(&Point, usize) -> String);
    let form = |cells: &[Cell<'_>]| {
        let mut header = vec![format!("\n{title}")];
        for allocator in allocators {
            let name = |(index, (unit, _)): (usize, &Cell<'_>)| {
                let name = if index == 0 { allocator.as_str() } else { "" };
                format!("{name}\n{unit}")
            };
            header.extend(cells.iter().enumerate().map(name));
        }
        let line = |point: &Point| {
            let sides = 0..allocators.len();
            let of_side = |side| cells.iter().map(move |(_, cell)| cell(point, side));
            core::iter::once(x(point).to_string())
                .chain(sides.flat_map(of_side))
                .collect()
        };
        table(header, points.iter().map(line).collect()).trim_fmt()
    };
    if allocators.len() <= MOST_DETAILED {
        form(&[("ns", &cost), ("±", &spread), ("÷ live", &memory)])
    } else {
        [form(&[("ns", &cost)]), form(&[("÷ live", &memory)])].join("\n\n")
    }
}

/// The JSON document: machine, versions, a row for each point and allocator.
fn document(threads: &[Point], live: &[Point], allocators: &[String]) -> Value {
    let rows = |points: &[Point]| -> Vec<Value> {
        let row = |point: &Point, side: usize| {
            json!({
                "threads": point.threads,
                "bytes": point.bytes,
                "allocator": allocators[side],
                "pair_ns": point.pair_ns(side),
                "rss_by_live": point.overhead(side),
            })
        };
        let sides = 0..allocators.len();
        points
            .iter()
            .flat_map(|point| sides.clone().map(move |side| row(point, side)))
            .collect()
    };
    json!({
        "machine": report::machine(),
        "versions": report::versions(),
        "by_threads": rows(threads),
        "by_live": rows(live),
    })
}

/// An error that lists all failures, if there are any.
fn conclude<'a>(points: impl Iterator<Item = &'a Point>, allocators: &[String]) -> Result<()> {
    let mut failures = Vec::new();
    for point in points {
        for (series, allocator) in point.series.iter().zip(allocators) {
            failures.extend(series.failure().map(|reason| {
                format!(
                    "{} threads with {} bytes under {allocator}: {reason}",
                    point.threads, point.bytes
                )
            }));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// 1, 4, 16 and so on below `most`, and `most`.
fn sizes_mib(most: usize) -> impl Iterator<Item = usize> {
    core::iter::successors(Some(1_usize), |mib| mib.checked_mul(4))
        .take_while(move |mib| *mib < most)
        .chain([most])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::ALLOCATORS;

    #[test]
    fn the_last_point_is_where_it_was_asked_for() {
        let sizes = |most| sizes_mib(most).collect::<Vec<_>>();
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(16), [1, 4, 16]);
        assert_eq!(sizes(20), [1, 4, 16, 20]);
        assert_eq!(sizes(usize::MAX).last(), Some(&usize::MAX));
    }

    /// The child would be this very test executable: it is not started.
    #[test]
    fn a_point_for_which_there_is_no_memory_is_skipped_and_says_so() {
        let args = GrowArgs {
            quick: true,
            allocators: Vec::new(),
            rounds: 2,
            most_mib: NonZero::<usize>::MIN,
            plot: None,
            json: None,
        };
        let allocators = [String::from("arena")];
        let mut live = [Point::new(1, 1 << 50, 1)];
        measure(&args, &allocators, &mut [], &mut live).expect("the others go on");
        assert_eq!(live[0].pair_ns(0), None);
        let error = conclude(live.iter(), &allocators).expect_err("a point is missing");
        let text = error.to_string();
        assert!(text.contains("it may take 1610612736 MiB"), "{text}");
        ensure_room(1 << 20).expect("there is a MiB");
    }

    #[test]
    fn tables_fit_a_hundred_columns() {
        let names = ALLOCATORS.map(String::from);
        for count in 1..=names.len() {
            let mut point = Point::new(64, 1 << 43, count);
            for series in &mut point.series {
                series.record(|| {
                    Ok(Sample {
                        pair_ns: 12_345.6,
                        rss_kib: 9_999,
                        live_kib: 100,
                    })
                });
            }
            let text = render("live MiB", &[point], &names[..count], |point| {
                point.bytes >> 20
            });
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(100), "{text}");
            assert_eq!(text.matches("12345.6").count(), count);
            assert_eq!(text.matches("99.99").count(), count);
        }
    }
}
