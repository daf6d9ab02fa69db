//! What rounds add up to.

/// One figure a round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn add(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// The middle one; of an even number the higher of the two in the middle.
    pub(crate) fn median(&self) -> f64 {
        self.sorted()[self.0.len() / 2]
    }

    pub(crate) fn least(&self) -> f64 {
        self.sorted()[0]
    }

    pub(crate) fn most(&self) -> f64 {
        self.sorted()[self.0.len() - 1]
    }

    /// The one that 95 of a hundred do not exceed.
    pub(crate) fn p95(&self) -> f64 {
        self.sorted()[(self.0.len() * 95).div_ceil(100) - 1]
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(figures: I) -> Self {
        Self(figures.into_iter().collect())
    }
}
