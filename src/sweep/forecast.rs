//! How much longer a sweep takes: the plan's estimates, corrected by how the finished trials compared with theirs.

/// Estimates against what was seen, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Forecast {
    /// Estimates of the trials that are still to run.
    left: f64,
    /// Estimates of those that ran, and what they took.
    estimated: f64,
    seen: f64,
}

impl Forecast {
    /// Over the estimates of the trials that are to run.
    pub(crate) fn new(estimates: impl Iterator<Item = f64>) -> Self {
        Self { left: estimates.sum(), ..Self::default() }
    }

    /// A trial will not run after all.
    pub(crate) fn drop_out(&mut self, estimate: f64) {
        self.left = (self.left - estimate).max(0.0);
    }

    /// A trial ran.
    pub(crate) fn ran(&mut self, estimate: f64, seconds: f64) {
        self.drop_out(estimate);
        self.learn(estimate, seconds);
    }

    /// A trial ran in an earlier sitting.
    pub(crate) fn learn(&mut self, estimate: f64, seconds: f64) {
        self.estimated += estimate;
        self.seen += seconds;
    }

    /// What an estimate is worth by what was seen so far.
    pub(crate) fn corrected(&self, estimate: f64) -> f64 {
        if self.estimated > 0.0 { estimate * self.seen / self.estimated } else { estimate }
    }

    /// Seconds until everything has run.
    pub(crate) fn left(&self) -> f64 {
        self.corrected(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_corrected_by_what_was_seen() {
        let mut forecast = Forecast::new([2.0, 2.0, 4.0].into_iter());
        assert_eq!(forecast.left(), 8.0);
        forecast.ran(2.0, 3.0);
        assert_eq!(forecast.left(), 9.0);
        forecast.drop_out(2.0);
        assert_eq!(forecast.left(), 6.0);
        forecast.ran(4.0, 3.0);
        assert_eq!((forecast.left(), forecast.corrected(1.0)), (0.0, 1.0));
    }
}
