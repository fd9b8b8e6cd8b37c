//! How long the trials of a sweep stand still, all in all, until others on the machine are done.

use crate::plan::Plan;
use crate::runner::measurement::Measurement;

/// Share of the sweep's estimated time that may be waited, and the least of it in seconds: what is short may wait as well.
const SHARE: f64 = 0.2;
const LEAST: f64 = 5.0;

/// Seconds that one launch waits at most: who computes for longer than that is likely to compute on.
const OF_LAUNCH: f64 = 3.0;

/// What is left of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Patience {
    left: f64,
}

impl Patience {
    /// Nothing is waited for.
    pub(crate) const NONE: Self = Self { left: 0.0 };

    /// For all launches of a plan.
    pub(crate) fn of(plan: &Plan) -> Self {
        let all: f64 = plan.trials.iter().filter(|t| t.skip.is_none()).map(|t| t.estimate.get()).sum();
        Self { left: (all * SHARE).max(LEAST) }
    }

    /// Seconds for which the next launch may stand still.
    pub(crate) fn next(&self) -> f64 {
        self.left.min(OF_LAUNCH)
    }

    /// What a launch took of it.
    pub(crate) fn spent(&mut self, launch: &Measurement) {
        let paused = launch.figures.as_ref().and_then(|f| f.disturbance.as_ref()?.paused_seconds);
        self.left = (self.left - paused.unwrap_or_default()).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::runner::watch::Disturbance;

    #[test]
    fn every_launch_may_wait_a_little_and_all_together_no_more_than_a_share() {
        let mut patience = Patience { left: 7.0 };
        let mut launch = fixture::heads().records[0].measurement.clone();
        patience.spent(&launch);
        assert_eq!(patience.next(), 3.0, "a launch that did not wait takes nothing");
        let paused = Disturbance { paused_seconds: Some(3.0), ..Disturbance::default() };
        launch.figures.as_mut().unwrap().disturbance = Some(paused);
        let mut allowed = Vec::new();
        for _ in 0..3 {
            patience.spent(&launch);
            allowed.push(patience.next());
        }
        assert_eq!(allowed, [3.0, 1.0, 0.0]);
    }
}
