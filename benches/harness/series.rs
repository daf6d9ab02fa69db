//! Computes the median and the extremes of a series of figures.

use std::time::Duration;

/// A list of figures, most often one per round.
#[derive(Clone, Debug, Default)]
pub struct Series(Vec<f64>);

impl Series {
    /// Adds a figure.
    pub fn add(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// Returns the median. For an even number of figures, this is the larger of the middle two.
    pub fn median(&self) -> f64 {
        self.sorted()[self.0.len() / 2]
    }

    /// Returns the smallest figure.
    pub fn min(&self) -> f64 {
        self.sorted()[0]
    }

    /// Returns the largest figure.
    pub fn max(&self) -> f64 {
        self.sorted()[self.0.len() - 1]
    }

    /// Returns the 95th percentile: at least 95 % of the figures are at most as large as this one.
    pub fn p95(&self) -> f64 {
        self.sorted()[(self.0.len() * 95).div_ceil(100) - 1]
    }

    /// Formats the median with the smallest figure in brackets.
    pub fn median_and_min(&self, decimals: usize) -> String {
        median_and_best((self.median(), self.min()), decimals)
    }

    /// Formats the median with the largest figure in brackets.
    pub fn median_and_max(&self, decimals: usize) -> String {
        median_and_best((self.median(), self.max()), decimals)
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// Formats a median and a best figure as `median (best)`.
pub(crate) fn median_and_best((median, best): (f64, f64), decimals: usize) -> String {
    format!("{median:.decimals$} ({best:.decimals$})")
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(figures: I) -> Self {
        Self(figures.into_iter().collect())
    }
}

/// Converts a duration to milliseconds.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
