//! The samples of one side of a row.

use anyhow::Result;

/// All samples, until one fails.
#[derive(Debug, Clone)]
pub(crate) struct Series<T> {
    samples: Vec<T>,
    /// Why a sample is missing; no more are taken after that.
    failure: Option<String>,
}

impl<T> Default for Series<T> {
    fn default() -> Self {
        Self {
            samples: Vec::new(),
            failure: None,
        }
    }
}

impl<T> Series<T> {
    /// Takes one more sample, unless one failed before.
    pub(crate) fn record(&mut self, sample: impl FnOnce() -> Result<T>) {
        if self.failure.is_some() {
            return;
        }
        match sample() {
            Ok(sample) => self.samples.push(sample),
            Err(error) => self.failure = Some(format!("{error:#}")),
        }
    }

    /// The samples of one figure; none after a failure, for a part of the rounds is no
    /// fair sample.
    pub(crate) fn figures(&self, of: impl Fn(&T) -> Option<f64>) -> Vec<f64> {
        if self.failure.is_some() {
            return Vec::new();
        }
        self.samples.iter().filter_map(of).collect()
    }

    /// Why there are no figures.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}
