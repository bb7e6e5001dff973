//! The samples of a comparison, by workload and allocator, and their medians.

use serde::Serialize;

use crate::stats::{median, ratio, spread};

/// All samples of one workload under one allocator.
#[derive(Debug, Default, Clone)]
pub(crate) struct Series {
    pub(crate) time_s: Vec<f64>,
    pub(crate) cpu_s: Vec<f64>,
    pub(crate) peak_rss_kib: Vec<f64>,
    /// Empty where memory at rest cannot be seen.
    pub(crate) rest_rss_kib: Vec<f64>,
    /// Why a sample is missing; no more are taken after that.
    pub(crate) failure: Option<String>,
}

/// One workload under all allocators.
#[derive(Debug, Default, Clone)]
pub(crate) struct Row {
    pub(crate) workload: String,
    /// KiB asked for and still held at rest, where it was counted.
    pub(crate) live_kib: Option<f64>,
    /// In the order of [`Results::allocators`].
    pub(crate) series: Vec<Series>,
}

/// The whole comparison.
#[derive(Debug, Default, Clone)]
pub(crate) struct Results {
    /// The first is the one the others are compared with.
    pub(crate) allocators: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

/// What can be asked of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    Time,
    Cpu,
    PeakRss,
    RestRss,
}

impl Series {
    /// The samples of one measure; none after a failure, for a part of the
    /// rounds is no fair sample.
    fn samples(&self, measure: Measure) -> &[f64] {
        if self.failure.is_some() {
            return &[];
        }
        match measure {
            Measure::Time => &self.time_s,
            Measure::Cpu => &self.cpu_s,
            Measure::PeakRss => &self.peak_rss_kib,
            Measure::RestRss => &self.rest_rss_kib,
        }
    }

    /// The median of a measure.
    pub(crate) fn median(&self, measure: Measure) -> Option<f64> {
        median(self.samples(measure))
    }

    /// The spread of a measure.
    pub(crate) fn spread(&self, measure: Measure) -> Option<f64> {
        spread(self.samples(measure))
    }
}

impl Row {
    /// The median of the allocator at `index` over that of the first one.
    pub(crate) fn ratio(&self, index: usize, measure: Measure) -> Option<f64> {
        let base = self.series.first()?.median(measure);
        ratio(self.series.get(index)?.median(measure), base)
    }

    /// The least median of a measure of all but the allocator at `but`, and whose it is.
    pub(crate) fn best(&self, but: usize, measure: Measure) -> Option<(f64, usize)> {
        let of = |(index, series): (usize, &Series)| Some((series.median(measure)?, index));
        let all = self.series.iter().enumerate();
        let others = all.filter(|(index, _)| *index != but).filter_map(of);
        others.min_by(|left, right| left.0.total_cmp(&right.0))
    }

    /// The median of the allocator at `index` over the best of all but the one at `but`.
    pub(crate) fn ratio_to_best(&self, index: usize, but: usize, measure: Measure) -> Option<f64> {
        let best = self.best(but, measure)?.0;
        ratio(self.series.get(index)?.median(measure), Some(best))
    }

    /// Live bytes over resident bytes, at rest.
    pub(crate) fn live_share(&self, index: usize) -> Option<f64> {
        ratio(
            self.live_kib,
            self.series.get(index)?.median(Measure::RestRss),
        )
    }
}

impl Results {
    /// Whether there is a figure of that measure.
    pub(crate) fn has(&self, measure: Measure) -> bool {
        let mut series = self.rows.iter().flat_map(|row| &row.series);
        series.any(|series| series.median(measure).is_some())
    }

    /// The ratios of the allocator at `index` in all rows that have one.
    pub(crate) fn ratios(&self, index: usize, measure: Measure) -> Vec<f64> {
        self.rows
            .iter()
            .filter_map(|row| row.ratio(index, measure))
            .collect()
    }

    /// Failures as (workload, allocator, reason).
    pub(crate) fn failures(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.rows.iter().flat_map(|row| {
            row.series
                .iter()
                .zip(&self.allocators)
                .filter_map(|(series, allocator)| {
                    let failure = series.failure.as_deref()?;
                    Some((row.workload.as_str(), allocator.as_str(), failure))
                })
        })
    }

    /// One record for each workload and allocator, for the JSON file.
    pub(crate) fn records(&self) -> Vec<Record<'_>> {
        let mut records = Vec::new();
        for row in &self.rows {
            for (series, allocator) in row.series.iter().zip(&self.allocators) {
                records.push(Record {
                    workload: &row.workload,
                    allocator,
                    time_s: series.median(Measure::Time),
                    cpu_s: series.median(Measure::Cpu),
                    peak_rss_kib: series.median(Measure::PeakRss),
                    rest_rss_kib: series.median(Measure::RestRss),
                    live_kib: row.live_kib,
                });
            }
        }
        records
    }
}

/// A row of the JSON file: medians, null where there is none.
#[derive(Debug, Serialize)]
pub(crate) struct Record<'a> {
    workload: &'a str,
    allocator: &'a str,
    time_s: Option<f64>,
    cpu_s: Option<f64>,
    peak_rss_kib: Option<f64>,
    rest_rss_kib: Option<f64>,
    live_kib: Option<f64>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::workloads;

    /// The names of the columns when the peers are there, too.
    pub(crate) const ALLOCATORS: [&str; 8] = [
        "system",
        "arena",
        "mimalloc3",
        "mimalloc2",
        "jemalloc",
        "snmalloc",
        "rpmalloc",
        "rusty_alloc",
    ];

    /// Results with the given allocators and rows; the allocator at index `i`
    /// needs `1 / (i + 1)` of the first one's time and `i + 1` times its memory.
    pub(crate) fn made_up(allocators: &[&str], rows: &[&str]) -> Results {
        let series = |index: u32| {
            let factor = f64::from(index + 1);
            Series {
                time_s: [0.9, 1.0, 1.2].map(|s| s / factor).to_vec(),
                cpu_s: vec![2.0 / factor; 3],
                peak_rss_kib: vec![204_800.0 * factor; 3],
                rest_rss_kib: vec![102_400.0 * factor; 3],
                failure: None,
            }
        };
        let row = |name: &&str| Row {
            workload: String::from(*name),
            live_kib: Some(51_200.0),
            series: (0_u32..).take(allocators.len()).map(series).collect(),
        };
        Results {
            allocators: allocators.iter().map(|name| String::from(*name)).collect(),
            rows: rows.iter().map(row).collect(),
        }
    }

    /// The widest figures that occur: a minute, gibibytes, spreads of 100 %.
    pub(crate) fn wide(allocators: &[&str]) -> Results {
        let names: Vec<_> = workloads::ALL
            .iter()
            .map(|workload| workload.name)
            .collect();
        let mut results = made_up(allocators, &names);
        for series in results.rows.iter_mut().flat_map(|row| &mut row.series) {
            series.time_s = vec![1.0, 19.876, 38.0];
            series.peak_rss_kib = vec![2_097_152.0];
            series.rest_rss_kib = vec![1_048_577.0];
        }
        results
    }

    #[test]
    fn ratios_are_to_the_first_allocator() {
        let results = made_up(&["system", "arena"], &["one", "two"]);
        assert_eq!(results.ratios(1, Measure::Time), [0.5, 0.5]);
        assert_eq!(results.ratios(1, Measure::PeakRss), [2.0, 2.0]);
        assert_eq!(results.rows[0].live_share(0), Some(0.5));
        assert_eq!(results.rows[0].live_share(1), Some(0.25));
    }

    #[test]
    fn failed_series_has_no_medians_and_is_listed() {
        let mut results = made_up(&["system", "arena"], &["one", "two"]);
        results.rows[1].series[1].failure = Some(String::from("signal 6"));
        assert_eq!(results.rows[1].series[1].median(Measure::Time), None);
        assert_eq!(results.ratios(1, Measure::Time), [0.5]);
        assert_eq!(
            results.failures().collect::<Vec<_>>(),
            [("two", "arena", "signal 6")]
        );
    }

    #[test]
    fn records_have_exactly_the_agreed_fields() {
        let results = made_up(&["system", "arena"], &["one"]);
        let json = serde_json::to_value(results.records()).expect("plain data");
        let expected = serde_json::json!([
            {"workload": "one", "allocator": "system", "time_s": 1.0, "cpu_s": 2.0,
             "peak_rss_kib": 204_800.0, "rest_rss_kib": 102_400.0, "live_kib": 51_200.0},
            {"workload": "one", "allocator": "arena", "time_s": 0.5, "cpu_s": 1.0,
             "peak_rss_kib": 409_600.0, "rest_rss_kib": 204_800.0, "live_kib": 51_200.0},
        ]);
        assert_eq!(json, expected);
    }
}
