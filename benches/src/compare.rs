//! `brickyard compare`: every workload under every allocator, in rounds.
//!
//! A round runs each workload once under each allocator, the order of the
//! allocators rotated from round to round and from row to row, so that a slow
//! phase of the machine meets all of them alike. Before the rounds each
//! workload runs once, untimed, under the counting allocator, which tells how
//! many bytes it holds at rest.

use core::time::Duration;
use std::collections::HashMap;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::ProgressBar;

use crate::child::{Launcher, Sample};
use crate::cli::CompareArgs;
use crate::input;
use crate::progress;
use crate::ranking;
use crate::report;
use crate::results::{Results, Row, Series};
use crate::switch;
use crate::table;
use crate::workloads::{self, Scale, Workload};

/// Most rounds when none are asked for.
const MOST_ROUNDS: u32 = 5;

/// No round is begun that would probably end after this.
const FULL_BUDGET: Duration = Duration::from_secs(165);

/// The same in the quick form.
pub(crate) const QUICK_BUDGET: Duration = Duration::from_secs(25);

/// The index of the allocator that is held against the best of the others: the first that was
/// chosen beside the system's, which is the arena unless it is left out.
const CHOSEN: usize = 1;

/// Runs the comparison and prints the table.
///
/// # Errors
///
/// When an option is wrong, the input cannot be used, or a child failed; what
/// the others measured is printed first.
pub(crate) fn main(args: &CompareArgs) -> Result<()> {
    let plan = Plan::new(args);
    let workloads = chosen_workloads(args.only.as_deref())?;
    let allocators = chosen_allocators(&args.allocators)?;
    let scale = if args.quick {
        Scale::Quick
    } else {
        Scale::Full
    };
    let scratch = tempfile::tempdir().context("no folder for temporary files")?;
    let input = input::prepare(args.input.as_deref(), scale, scratch.path())?;
    let launcher = Launcher::new(&input.files, scale, scratch.path())?;
    let runs_a_round = workloads.len() * allocators.len();
    let steps = workloads.len() as u64 + u64::from(plan.rounds) * runs_a_round as u64;
    let mut comparison = Comparison::new(&workloads, allocators, launcher, progress::bar(steps));
    comparison.count_live();
    let done = plan.run(|round| comparison.round(round));
    comparison.bar.finish_and_clear();
    let results = comparison.results;
    report::say(&if table::fits(&results) {
        table::detailed(&results)
    } else {
        ranking::render(&results, "workload", CHOSEN)
    });
    report::say(&input.summary);
    report::say(&format!(
        "{} of work, {}; medians, ± half the range; live % of RSS at rest",
        if args.quick { "1/8" } else { "all" },
        plan.remark(done),
    ));
    if let Some(path) = &args.json {
        report::write_json(path, &results)?;
    }
    report::say(&report::verdict(&results));
    if results.allocators.len() > 2 {
        report::say(&report::lead(&results, CHOSEN));
    }
    conclude(&results)
}

/// How many rounds to run, and how long.
#[derive(Debug)]
pub(crate) struct Plan {
    start: Instant,
    pub(crate) rounds: u32,
    budget: Duration,
}

impl Plan {
    /// As the options say; the time counts from now.
    pub(crate) fn new(args: &CompareArgs) -> Self {
        let budget = if args.quick {
            QUICK_BUDGET
        } else {
            FULL_BUDGET
        };
        Self::within(args.rounds, budget)
    }

    /// As many rounds as asked for, or as fit the budget; the time counts from now.
    pub(crate) fn within(rounds: Option<u32>, budget: Duration) -> Self {
        Self {
            start: Instant::now(),
            rounds: rounds.unwrap_or(MOST_ROUNDS),
            budget: rounds.map_or(budget, |_| Duration::MAX),
        }
    }

    /// Runs rounds while there is time for another; returns how many.
    pub(crate) fn run(&self, mut round: impl FnMut(usize)) -> u32 {
        let mut done = 0;
        while done < self.rounds {
            let round_start = Instant::now();
            round(done as usize);
            done += 1;
            if self.start.elapsed() + round_start.elapsed() > self.budget {
                break;
            }
        }
        done
    }

    /// What was run, for the reader of the table.
    pub(crate) fn remark(&self, done: u32) -> String {
        let hurry = if done < self.rounds {
            " (no time for more)"
        } else {
            ""
        };
        let seconds = self.start.elapsed().as_secs_f64();
        format!("{done} rounds{hurry} in {seconds:.0} s")
    }
}

/// The order of `count` sides in a round of a row: each comes first in its turn.
pub(crate) fn turns(count: usize, round: usize, row: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (turn + round + row) % count)
}

/// An error that lists all failures, if there are any.
pub(crate) fn conclude(results: &Results) -> Result<()> {
    let failures: Vec<String> = results
        .failures()
        .map(|(workload, allocator, reason)| format!("{workload} under {allocator}: {reason}"))
        .collect();
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// The workloads whose names contain `only`.
fn chosen_workloads(only: Option<&str>) -> Result<Vec<&'static Workload>> {
    let only = only.unwrap_or_default();
    let chosen: Vec<_> = workloads::ALL
        .iter()
        .filter(|workload| workload.name.contains(only))
        .collect();
    if chosen.is_empty() {
        let names: Vec<_> = workloads::ALL
            .iter()
            .map(|workload| workload.name)
            .collect();
        bail!(
            "--only: no workload's name contains {only:?}; there are {}",
            names.join(", ")
        );
    }
    Ok(chosen)
}

/// The allocators asked for, or all, the system's first.
///
/// # Errors
///
/// When one is not in this build.
pub(crate) fn chosen_allocators(asked: &[String]) -> Result<Vec<String>> {
    let known: Vec<&str> = switch::measurable().collect();
    if let Some(stranger) = asked.iter().find(|name| !known.contains(&name.as_str())) {
        bail!(
            "--allocators: {stranger:?} is not in this build; there are {}",
            known.join(", ")
        );
    }
    let wanted = |name: &&str| {
        let by_default = asked.is_empty() && *name != switch::HARDENED;
        by_default || *name == known[0] || asked.iter().any(|asked| asked == name)
    };
    Ok(known
        .iter()
        .copied()
        .filter(wanted)
        .map(String::from)
        .collect())
}

/// A comparison under way.
struct Comparison {
    launcher: Launcher,
    bar: ProgressBar,
    results: Results,
    /// By workload, the first checksum seen: all others must equal it.
    checksums: HashMap<String, u64>,
}

impl Comparison {
    fn new(
        workloads: &[&Workload],
        allocators: Vec<String>,
        launcher: Launcher,
        bar: ProgressBar,
    ) -> Self {
        let row = |workload: &&Workload| Row {
            workload: String::from(workload.name),
            live_kib: None,
            series: vec![Series::default(); allocators.len()],
        };
        let rows = workloads.iter().map(row).collect();
        Self {
            launcher,
            bar,
            results: Results { allocators, rows },
            checksums: HashMap::new(),
        }
    }

    /// Finds out what each workload holds at rest. A workload that fails here
    /// goes without the figure; its timed runs will tell why.
    fn count_live(&mut self) {
        for row in &mut self.results.rows {
            self.bar.set_message(format!("{}, counting", row.workload));
            let sample = self.launcher.sample(&row.workload, switch::COUNTING);
            let live = sample.ok().and_then(|sample| sample.live_bytes);
            // Exact below 2^53 bytes.
            row.live_kib = live.map(|bytes| bytes as f64 / 1024.0);
            self.bar.inc(1);
        }
    }

    /// Runs every workload once under every allocator.
    fn round(&mut self, round: usize) {
        let count = self.results.allocators.len();
        for index in 0..self.results.rows.len() {
            for side in turns(count, round, index) {
                let row = &mut self.results.rows[index];
                let allocator = &self.results.allocators[side];
                self.bar
                    .set_message(format!("{} under {allocator}", row.workload));
                if row.series[side].failure.is_none() {
                    let sample = self.launcher.sample(&row.workload, allocator);
                    let sample = sample.and_then(|sample| {
                        let expected = *self
                            .checksums
                            .entry(row.workload.clone())
                            .or_insert(sample.checksum);
                        let found = sample.checksum;
                        ensure!(
                            found == expected,
                            "result {found:x} instead of {expected:x}"
                        );
                        Ok(sample)
                    });
                    record(&mut row.series[side], sample);
                }
                self.bar.inc(1);
            }
        }
    }
}

/// Adds a sample to the series, or the reason why there is none.
fn record(series: &mut Series, sample: Result<Sample>) {
    match sample {
        Ok(sample) => {
            series.time_s.push(sample.time_s);
            series.cpu_s.push(sample.cpu_s);
            // Exact below 2^53 KiB.
            series.peak_rss_kib.push(sample.peak_rss_kib as f64);
            series.rest_rss_kib.push(sample.rest_rss_kib as f64);
        }
        Err(error) => series.failure = Some(format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_takes_a_part_of_a_name_and_lists_the_names_when_none_fits() {
        let names = |only| -> Vec<&str> {
            let chosen = chosen_workloads(only).expect("some fit");
            chosen.iter().map(|workload| workload.name).collect()
        };
        assert_eq!(names(Some("batch-r")), ["batch-reverse", "batch-random"]);
        assert_eq!(names(None).len(), workloads::ALL.len());
        let error = chosen_workloads(Some("zzz")).expect_err("none fits");
        assert!(error.to_string().contains("larson"), "{error}");
    }

    #[test]
    fn system_is_always_first_and_strangers_are_refused() {
        let asked = [String::from("arena")];
        assert_eq!(
            chosen_allocators(&asked).expect("known"),
            ["system", "arena"]
        );
        assert_eq!(chosen_allocators(&[]).expect("all")[0], "system");
        let error = chosen_allocators(&[String::from("dlmalloc")]).expect_err("unknown");
        assert!(error.to_string().contains("dlmalloc"), "{error}");
        assert!(chosen_allocators(&[String::from(switch::COUNTING)]).is_err());
    }

    #[test]
    fn every_side_is_first_in_its_turn() {
        let firsts: Vec<_> = (0..3)
            .filter_map(|round| turns(3, round, 1).next())
            .collect();
        assert_eq!(firsts, [1, 2, 0]);
        assert_eq!(turns(3, 4, 1).collect::<Vec<_>>(), [2, 0, 1]);
    }

    #[test]
    fn failure_ends_a_series() {
        let mut series = Series::default();
        record(&mut series, Err(anyhow::anyhow!("signal 11")));
        assert_eq!(series.failure.as_deref(), Some("signal 11"));
        assert!(series.time_s.is_empty());
    }
}
