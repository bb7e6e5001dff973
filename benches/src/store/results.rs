//! The samples of a comparison of stores, by row and store.

use anyhow::{Result, anyhow};
use brickyard_bench::stores::{DISK, Figures, Job, Role, Row};
use serde_json::{Value, json};

use crate::series::Series;
use crate::stats::{median, ratio, spread};

use super::Subjects;

/// The whole comparison.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) rows: Vec<&'static Row>,
    pub(crate) subjects: Subjects,
    /// By row, then by subject. A store that lacks what a row asks for has no figure.
    series: Vec<Vec<Series<Option<f64>>>>,
    /// Of the disk, all at once.
    pub(crate) floors: Series<Figures>,
}

/// One side of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) figure: f64,
    pub(crate) spread: Option<f64>,
}

impl Results {
    /// No samples yet.
    pub(crate) fn new(rows: Vec<&'static Row>, subjects: Subjects) -> Self {
        Self {
            series: vec![vec![Series::default(); subjects.len()]; rows.len()],
            rows,
            subjects,
            floors: Series::default(),
        }
    }

    /// Shares out what a job of the subject at `side` found.
    pub(crate) fn record(&mut self, job: &Job, side: usize, found: Result<Figures>) {
        for (row, series) in self.rows.iter().zip(&mut self.series) {
            if job.rows.contains(&row.name) {
                series[side].record(|| match &found {
                    Ok(figures) => Ok(figures.get(row.name).copied()),
                    Err(error) => Err(anyhow!("{error:#}")),
                });
            }
        }
    }

    /// The median of a subject in the row at `index`.
    pub(crate) fn side(&self, index: usize, side: usize) -> Option<Side> {
        let samples = self.series[index][side].figures(|sample| *sample);
        Some(Side {
            name: self.subjects[side].name,
            figure: median(&samples)?,
            spread: spread(&samples),
        })
    }

    /// Our figure.
    pub(crate) fn ours(&self, index: usize) -> Option<Side> {
        let ours = self
            .subjects
            .iter()
            .position(|subject| subject.role == Role::Ours)?;
        self.side(index, ours)
    }

    /// That of the best peer.
    pub(crate) fn best(&self, index: usize) -> Option<Side> {
        let peers = self.subjects.iter().enumerate();
        peers
            .filter(|(_, subject)| subject.role == Role::Peer)
            .filter_map(|(side, _)| self.side(index, side))
            .min_by(|one, other| one.figure.total_cmp(&other.figure))
    }

    /// That of the subject of this name.
    pub(crate) fn named(&self, index: usize, name: &str) -> Option<Side> {
        let side = self
            .subjects
            .iter()
            .position(|subject| subject.name == name)?;
        self.side(index, side)
    }

    /// The median of a floor.
    pub(crate) fn floor(&self, name: &str) -> Option<f64> {
        median(&self.floors.figures(|figures| figures.get(name).copied()))
    }

    /// Our figure over that of the best peer.
    pub(crate) fn ratio(&self, index: usize) -> Option<f64> {
        let figure = |side: Option<Side>| side.map(|side| side.figure);
        ratio(figure(self.ours(index)), figure(self.best(index)))
    }

    /// Failures, one a line.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        failures.extend(
            self.floors
                .failure()
                .map(|reason| format!("the disk: {reason}")),
        );
        for (row, series) in self.rows.iter().zip(&self.series) {
            for (subject, series) in self.subjects.iter().zip(series) {
                if let Some(reason) = series.failure() {
                    failures.push(format!("{} of {}: {reason}", row.name, subject.name));
                }
            }
        }
        failures
    }

    /// The floors, for the JSON file.
    pub(crate) fn floor_records(&self) -> Vec<Value> {
        let record = |&(name, unit): &(&str, &str)| json!({ "floor": name, "unit": unit, "figure": self.floor(name) });
        DISK.iter().map(record).collect()
    }

    /// One record for each row and store, for the JSON file.
    pub(crate) fn records(&self) -> Vec<Value> {
        let mut records = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            for (side, subject) in self.subjects.iter().enumerate() {
                let found = self.side(index, side);
                records.push(json!({
                    "row": row.name,
                    "question": row.question,
                    "store": subject.name,
                    "unit": row.unit.sign(),
                    "figure": found.map(|found| found.figure),
                    "spread": found.and_then(|found| found.spread),
                }));
            }
        }
        records
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use brickyard_bench::stores::{JOBS, ROWS, SUBJECTS};

    /// All rows; the subject at index `i` needs `(i + 1)` times `scale`.
    pub(crate) fn made_up(scale: f64) -> Results {
        let mut results = Results::new(ROWS.iter().collect(), SUBJECTS);
        for share in [0.9, 1.0, 1.2] {
            let floors = DISK
                .iter()
                .map(|&(name, _)| (String::from(name), scale * share));
            results.floors.record(|| Ok(floors.collect()));
            for job in JOBS {
                for side in 0..SUBJECTS.len() {
                    let figure = scale * share * (side + 1) as f64;
                    let figures = job.rows.iter().map(|&row| (String::from(row), figure));
                    results.record(job, side, Ok(figures.collect()));
                }
            }
        }
        results
    }

    #[test]
    fn floors_and_ours_are_medians() {
        let results = made_up(10.0);
        assert_eq!(results.ours(0).map(|side| side.figure), Some(10.0));
        assert_eq!(results.floor("log + sync"), Some(10.0));
        assert_eq!(results.floor("no such floor"), None);
    }

    #[test]
    fn failure_of_a_job_fails_its_rows() {
        let mut results = made_up(1.0);
        results.record(&JOBS[0], 0, Err(anyhow!("signal 11")));
        let expected: Vec<String> = JOBS[0]
            .rows
            .iter()
            .map(|row| format!("{row} of brickyard: signal 11"))
            .collect();
        assert_eq!(results.failures(), expected);
        assert!(results.ours(0).is_none());
    }
}
