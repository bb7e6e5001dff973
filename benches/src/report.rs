//! What is said about the results beside the table: the verdict, the JSON file.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::measure::field_kib;
use crate::results::{Measure, Results, Row};
use crate::stats::geometric_mean;

/// The lock file this program was built with.
const LOCK_FILE: &str = include_str!("../../Cargo.lock");

/// Packages whose versions belong to the figures.
const ALLOCATOR_PACKAGES: [&str; 7] = [
    "brickyard-arena",
    "libmimalloc-sys",
    "tikv-jemalloc-sys",
    "snmalloc-sys",
    "rpmalloc-sys",
    "rusty_alloc",
    "brickyard-bench",
];

/// Prints a text and a new line. A reader who closes the pipe early does not
/// want the rest, so that is no error.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// One plain line for each allocator that was compared with the first.
pub(crate) fn verdict(results: &Results) -> String {
    let lines = (1..results.allocators.len()).map(|index| verdict_of(results, index));
    lines.collect::<Vec<_>>().join("\n")
}

/// The verdict on the allocator at `index`.
fn verdict_of(results: &Results, index: usize) -> String {
    let (name, base) = (&results.allocators[index], &results.allocators[0]);
    let times = results.ratios(index, Measure::Time);
    let failed = results
        .failures()
        .filter(|failure| failure.1 == name)
        .count();
    let failures = if failed > 0 {
        format!(" FAILED on {failed} rows;")
    } else {
        String::new()
    };
    let Some(time) = geometric_mean(&times) else {
        return format!("verdict: {name}:{failures} no row to compare with {base}");
    };
    let ahead = times.iter().filter(|ratio| **ratio < 1.0).count();
    let worst = results
        .rows
        .iter()
        .filter_map(|row| Some((row.ratio(index, Measure::Time)?, &row.workload)))
        .max_by(|left, right| left.0.total_cmp(&right.0));
    let worst = worst.map_or(String::new(), |(ratio, row)| {
        format!("at worst {ratio:.2} ({row}); ")
    });
    let peak = geometric_mean(&results.ratios(index, Measure::PeakRss));
    let peak = peak.map_or(String::from("unknown"), |ratio| format!("{ratio:.2}"));
    let speed = if time < 1.0 {
        format!("{:.2} x faster", 1.0 / time)
    } else {
        format!("{time:.2} x slower")
    };
    format!(
        "verdict: {name}:{failures} ahead on {ahead} of {} rows in time, {speed} in geometric \
         mean\n         {worst}peak RSS {peak} of {base}'s",
        times.len(),
    )
}

/// How the allocator at `index` stands against the best of all others on each row.
pub(crate) fn lead(results: &Results, index: usize) -> String {
    let name = &results.allocators[index];
    let of = |measure| -> Vec<(f64, &str)> {
        let ratio = |row: &'_ Row| row.ratio_to_best(index, index, measure);
        let rows = results.rows.iter();
        rows.filter_map(|row| Some((ratio(row)?, row.workload.as_str())))
            .collect()
    };
    let (time, peak) = (of(Measure::Time), of(Measure::PeakRss));
    let ahead = |rows: &[(f64, &str)]| rows.iter().filter(|(ratio, _)| *ratio < 1.0).count();
    let both = time.iter().filter(|(ratio, row)| {
        let leads = |(ratio, _): &&(f64, &str)| *ratio < 1.0;
        *ratio < 1.0 && peak.iter().filter(leads).any(|(_, other)| other == row)
    });
    let standing = |rows: &[(f64, &str)]| {
        let ratios: Vec<f64> = rows.iter().map(|(ratio, _)| *ratio).collect();
        let worst = rows.iter().max_by(|left, right| left.0.total_cmp(&right.0));
        let worst = worst.map_or(String::new(), |(ratio, row)| {
            format!(", at worst {ratio:.2} ({row})")
        });
        let mean = geometric_mean(&ratios);
        mean.map_or(String::from("unknown"), |mean| format!("{mean:.2}{worst}"))
    };
    format!(
        "verdict: {name} against the best of all others on each row:\n         \
         time {}; peak RSS {};\n         \
         of {} rows ahead of all others on {} in time, on {} in peak RSS, on {} in both",
        standing(&time),
        standing(&peak),
        time.len(),
        ahead(&time),
        ahead(&peak),
        both.count(),
    )
}

/// The verdict on rows whose figures are costs: ratios to `other`, which is "the time of"
/// somebody, and the rows in which somebody is cheaper. `None` without rows.
pub(crate) fn verdict_on(ratios: &[(f64, &str)], other: &str) -> Option<String> {
    let mean = geometric_mean(&ratios.iter().map(|(ratio, _)| *ratio).collect::<Vec<_>>())?;
    let behind: Vec<_> = ratios
        .iter()
        .filter(|(ratio, _)| *ratio > 1.0)
        .map(|(ratio, row)| format!("{row} ({ratio:.2})"))
        .collect();
    let behind = if behind.is_empty() {
        String::from("nowhere")
    } else {
        format!("on {}", behind.join(", "))
    };
    Some(format!(
        "verdict: {mean:.2} of {other} in geometric mean of {} rows;\n         behind {behind}",
        ratios.len(),
    ))
}

/// Writes the medians, the machine and the versions to `path`.
///
/// # Errors
///
/// When the file cannot be written.
pub(crate) fn write_json(path: &Path, results: &Results) -> Result<()> {
    write_document(path, &document(results)?)
}

/// Writes a document to `path`.
///
/// # Errors
///
/// When the file cannot be written.
pub(crate) fn write_document(path: &Path, document: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(document)?;
    fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

/// The JSON document: `machine`, `versions`, `rows`.
fn document(results: &Results) -> Result<Value> {
    Ok(json!({
        "machine": machine(),
        "versions": versions(),
        "rows": serde_json::to_value(results.records())?,
    }))
}

/// What the figures were taken on.
pub(crate) fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map(|rest| rest.trim_start_matches(['\t', ' ', ':']));
    let release = read("/etc/os-release");
    let system = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    json!({
        "cpu": model,
        "cores": std::thread::available_parallelism().ok().map(core::num::NonZero::get),
        "memory_kib": field_kib(&read("/proc/meminfo"), "MemTotal:"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "system": system.map(|name| name.trim_matches('"')),
        "target": env!("BRICKYARD_TARGET"),
    })
}

/// The compiler and the allocators' packages.
pub(crate) fn versions() -> Value {
    #[cfg_attr(
        not(feature = "peers"),
        expect(unused_mut, reason = "the peers add themselves")
    )]
    let mut versions = package_versions(&ALLOCATOR_PACKAGES);
    #[cfg(feature = "peers")]
    for (name, version) in ["mimalloc2", "mimalloc3"]
        .iter()
        .zip(crate::peers::mimalloc_versions())
    {
        versions.insert(String::from(*name), json!(version));
    }
    Value::Object(versions)
}

/// The versions of the compiler and of these packages.
pub(crate) fn package_versions(packages: &[&str]) -> Map<String, Value> {
    let mut versions = Map::new();
    versions.insert(String::from("rustc"), json!(env!("BRICKYARD_RUSTC")));
    for package in packages {
        if let Some(version) = locked_version(LOCK_FILE, package) {
            versions.insert(String::from(*package), json!(version));
        }
    }
    versions
}

/// The version of a package in a lock file.
fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let start = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != start);
    lines
        .nth(1)?
        .strip_prefix("version = \"")?
        .strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::made_up;

    #[test]
    fn verdict_counts_rows_ahead_and_names_the_worst() {
        let mut results = made_up(&["system", "arena"], &["one", "two", "three"]);
        results.rows[1].series[1].time_s = vec![1.5; 3];
        let verdict = verdict(&results);
        assert!(verdict.contains("ahead on 2 of 3 rows"), "{verdict}");
        assert!(verdict.contains("1.39 x faster"), "{verdict}");
        assert!(verdict.contains("at worst 1.50 (two)"), "{verdict}");
        assert!(verdict.contains("peak RSS 2.00 of system's"), "{verdict}");
    }

    #[test]
    fn verdict_says_slower_and_failed() {
        let mut results = made_up(&["system", "arena"], &["one", "two"]);
        results.rows[0].series[1].time_s = vec![2.0; 3];
        results.rows[1].series[1].failure = Some(String::from("signal 6"));
        let verdict = verdict(&results);
        assert!(verdict.contains("2.00 x slower"), "{verdict}");
        assert!(verdict.contains("FAILED on 1 rows"), "{verdict}");
    }

    #[test]
    fn lead_is_against_the_best_of_the_others_and_counts_rows_in_both() {
        let mut results = made_up(&["system", "arena", "peer"], &["one", "two", "three"]);
        // Time 1, 1/2 and 1/3, memory 1, 2 and 3: arena leads nowhere as made up.
        results.rows[0].series[1].time_s = vec![0.1; 3];
        results.rows[0].series[1].peak_rss_kib = vec![102_400.0; 3];
        results.rows[1].series[1].time_s = vec![0.2; 3];
        let lead = lead(&results, 1);
        assert!(
            lead.contains("on 2 in time, on 1 in peak RSS, on 1 in both"),
            "{lead}"
        );
        // 0.1 × 3, 0.2 × 3 and 1.5: the geometric mean is 0.646.
        assert!(lead.contains("time 0.65, at worst 1.50 (three)"), "{lead}");
        assert!(lead.contains("peak RSS 1.26, at worst 2.00"), "{lead}");
    }

    #[test]
    fn document_has_machine_versions_and_rows() {
        let results = made_up(&["system", "arena"], &["one"]);
        let document = document(&results).expect("plain data");
        let keys: Vec<_> = document.as_object().expect("an object").keys().collect();
        assert_eq!(keys.len(), 3, "{keys:?}");
        assert!(
            document["machine"]["cores"]
                .as_u64()
                .is_some_and(|cores| cores > 0)
        );
        assert!(
            document["versions"]["rustc"]
                .as_str()
                .is_some_and(|rustc| rustc.contains('1'))
        );
        assert!(
            document["versions"]["brickyard-arena"].is_string(),
            "{}",
            document["versions"]
        );
        assert_eq!(document["rows"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn versions_come_from_the_lock_file() {
        let lock = "[[package]]\nname = \"ab\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"b\"\nversion = \"2.1.0\"\n";
        assert_eq!(locked_version(lock, "b"), Some("2.1.0"));
        assert_eq!(locked_version(lock, "a"), None);
    }
}
