//! The samples of a comparison of pools, by row and pool.

use brickyard_bench::pools::{Latency, Measured, Role, Row, Subject};
use serde_json::{Value, json};

use crate::stats::{median, ratio, spread};

/// All samples of one pool in one row.
pub(crate) type Series = crate::series::Series<Measured>;

/// The whole comparison.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) rows: Vec<&'static Row>,
    pub(crate) subjects: &'static [Subject],
    /// By row, then by subject.
    pub(crate) series: Vec<Vec<Series>>,
}

impl Series {
    /// The median of the row's figure.
    pub(crate) fn ns(&self) -> Option<f64> {
        median(&self.figures(|sample| Some(sample.ns)))
    }

    /// Its spread.
    pub(crate) fn spread(&self) -> Option<f64> {
        spread(&self.figures(|sample| Some(sample.ns)))
    }

    /// The median of the objects kept.
    pub(crate) fn kept(&self) -> Option<f64> {
        // Exact: far below 2^53 objects.
        median(&self.figures(|sample| Some(sample.kept? as f64)))
    }

    /// The medians of the percentiles.
    pub(crate) fn latency(&self) -> Option<Latency> {
        let of = |figure: &dyn Fn(&Latency) -> f64| {
            median(&self.figures(|sample| sample.latency.as_ref().map(figure)))
        };
        let mut all = Latency {
            clock_ns: [0.0; 3],
            get_ns: [0.0; 3],
        };
        for index in 0..3 {
            all.clock_ns[index] = of(&|latency| latency.clock_ns[index])?;
            all.get_ns[index] = of(&|latency| latency.get_ns[index])?;
        }
        Some(all)
    }
}

/// One side of a row that ours is compared with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Best<'a> {
    pub(crate) name: &'static str,
    pub(crate) series: &'a Series,
    pub(crate) ns: f64,
}

impl Results {
    /// No samples yet.
    pub(crate) fn new(rows: Vec<&'static Row>, subjects: &'static [Subject]) -> Self {
        let series = vec![vec![Series::default(); subjects.len()]; rows.len()];
        Self {
            rows,
            subjects,
            series,
        }
    }

    /// The quickest of a role in the row at `index`.
    pub(crate) fn best(&self, index: usize, role: Role) -> Option<Best<'_>> {
        let sides = self.subjects.iter().zip(&self.series[index]);
        sides
            .filter(|(subject, _)| subject.role == role)
            .filter_map(|(subject, series)| {
                Some(Best {
                    name: subject.name,
                    series,
                    ns: series.ns()?,
                })
            })
            .min_by(|one, other| one.ns.total_cmp(&other.ns))
    }

    /// Our figure over that of the quickest of a role.
    pub(crate) fn ratio(&self, index: usize, role: Role) -> Option<f64> {
        let figure = |role| self.best(index, role).map(|best| best.ns);
        ratio(figure(Role::Ours), figure(role))
    }

    /// Failures, one a line.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for (row, series) in self.rows.iter().zip(&self.series) {
            for (subject, series) in self.subjects.iter().zip(series) {
                if let Some(reason) = series.failure() {
                    failures.push(format!("{} of {}: {reason}", row.name, subject.name));
                }
            }
        }
        failures
    }

    /// One record for each row and pool, for the JSON file.
    pub(crate) fn records(&self) -> Vec<Value> {
        let mut records = Vec::new();
        for (row, series) in self.rows.iter().zip(&self.series) {
            for (subject, series) in self.subjects.iter().zip(series) {
                records.push(json!({
                    "row": row.name,
                    "question": row.question,
                    "pool": subject.name,
                    "ns": series.ns(),
                    "spread": series.spread(),
                    "kept": series.kept(),
                    "latency": series.latency(),
                }));
            }
        }
        records
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use brickyard_bench::pools::{ROWS, SUBJECTS};

    /// All rows; the subject at index `i` needs `(i + 1)` times `scale`.
    pub(crate) fn made_up(scale: f64) -> Results {
        let mut results = Results::new(ROWS.iter().collect(), SUBJECTS);
        for series in &mut results.series {
            for (index, series) in series.iter_mut().enumerate() {
                for share in [0.9, 1.0, 1.2] {
                    let ns = scale * share * (index + 1) as f64;
                    let latency = Latency {
                        clock_ns: [ns; 3],
                        get_ns: [ns, 2.0 * ns, 3.0 * ns],
                    };
                    series.record(|| {
                        Ok(Measured {
                            ns,
                            kept: Some(index * 640),
                            latency: Some(latency),
                        })
                    });
                }
            }
        }
        results
    }

    #[test]
    fn ours_is_compared_with_the_quickest_of_a_role() {
        let results = made_up(10.0);
        let best = results.best(0, Role::Allocation).expect("two of them");
        assert_eq!((best.name, best.ns), ("Box system", 20.0));
        assert_eq!(results.ratio(0, Role::Allocation), Some(0.5));
        let latency = results.series[0][0].latency().expect("sampled");
        assert_eq!(latency.get_ns, [10.0, 20.0, 30.0]);
    }

    #[test]
    fn failure_ends_a_series_and_is_listed() {
        let mut results = made_up(1.0);
        let series = &mut results.series[1][0];
        series.record(|| Err(anyhow::anyhow!("signal 11")));
        series.record(|| panic!("no more samples are taken"));
        assert_eq!(series.ns(), None);
        assert_eq!(results.failures(), ["pair 1K of brickyard: signal 11"]);
    }
}
