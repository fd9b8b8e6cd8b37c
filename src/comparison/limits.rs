//! The cheapest trial that keeps within limits: latency, memory, price of an hour.

use crate::cost::evaluate::Figured;
use crate::cost::metric::{Estimate, Metric};
use crate::cost::metrics::{PEAK_MEMORY, TPOT, TTFT, USD_PER_MILLION};
use crate::results::run::Run;

/// Upper bounds; `None` binds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Bounds {
    pub ttft_seconds: Option<f64>,
    pub tpot_seconds: Option<f64>,
    pub memory_bytes: Option<f64>,
    /// Of everything that a trial occupies.
    pub usd_per_hour: Option<f64>,
}

/// What the limits leave.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Within {
    /// Run and record of the cheapest.
    pub best: (usize, usize),
    pub cost: Estimate,
    /// Trials that keep every limit, of so many with a cost.
    pub within: usize,
    pub of: usize,
}

impl Bounds {
    pub(crate) fn any(&self) -> bool {
        *self != Self::default()
    }

    /// The limits as they are said: "TTFT <= 200 ms".
    pub(crate) fn described(&self) -> String {
        use crate::units::{Bytes, Seconds, significant};
        let parts = [
            self.ttft_seconds.map(|s| format!("TTFT <= {}", Seconds(s))),
            self.tpot_seconds.map(|s| format!("TPOT <= {}", Seconds(s))),
            self.memory_bytes.map(|b| format!("memory <= {}", Bytes(b as u64))),
            self.usd_per_hour.map(|u| format!("price <= ${}/h", significant(u, 3))),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Whether a trial keeps them. The upper end of its interval counts; a trial that lacks a figure in question does not keep
    /// its limit.
    fn hold(&self, run: &Run, figured: &Figured, devices: u32) -> bool {
        let at_most = |bound: Option<f64>, metric: &Metric| {
            bound.is_none_or(|b| figured.get(metric).is_some_and(|e| e.high.unwrap_or(e.value) <= b))
        };
        let hour = run.environment.price.for_devices(devices).map(|h| h.get());
        at_most(self.ttft_seconds, &TTFT)
            && at_most(self.tpot_seconds, &TPOT)
            && at_most(self.memory_bytes, &PEAK_MEMORY)
            && self.usd_per_hour.is_none_or(|b| hour.is_some_and(|h| h <= b))
    }
}

/// The cheapest of all runs' trials that keeps the limits; how many do where none is the cheapest.
///
/// # Errors
/// How many trials have a cost, when none of them keeps the limits.
pub(crate) fn cheapest_within(runs: &[Run], figures: &[Vec<Figured>], bounds: &Bounds) -> Result<Within, usize> {
    let (mut within, mut of) = (0, 0);
    let mut best: Option<((usize, usize), Estimate)> = None;
    for (r, (run, all)) in runs.iter().zip(figures).enumerate() {
        for (i, (record, figured)) in run.records.iter().zip(all).enumerate() {
            let Some(cost) = figured.get(&USD_PER_MILLION) else { continue };
            of += 1;
            if !bounds.hold(run, figured, record.cell.trial.devices) {
                continue;
            }
            within += 1;
            if best.is_none_or(|(_, b)| cost.value < b.value) {
                best = Some(((r, i), cost));
            }
        }
    }
    best.map(|(best, cost)| Within { best, cost, within, of }).ok_or(of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::evaluate::evaluate;
    use crate::fixture;
    use crate::transformer::Phase;

    #[test]
    fn limits_leave_what_keeps_them() {
        let runs = [fixture::phase(Phase::Generate)];
        let figures = vec![evaluate(&runs[0], fixture::book())];
        let all = cheapest_within(&runs, &figures, &Bounds::default()).unwrap();
        assert_eq!(all.within, all.of);
        let ttft = |i: usize| figures[0][i].get(&TTFT).unwrap();
        let fastest = (0..figures[0].len()).min_by(|a, b| ttft(*a).value.total_cmp(&ttft(*b).value)).unwrap();
        let tight = Bounds { ttft_seconds: ttft(fastest).high, ..Bounds::default() };
        let found = cheapest_within(&runs, &figures, &tight).unwrap();
        assert!(found.within >= 1 && found.cost.value >= all.cost.value);
        assert!(figures[0][found.best.1].get(&TTFT).unwrap().high <= tight.ttft_seconds);
        let none = Bounds { ttft_seconds: Some(1e-12), ..Bounds::default() };
        assert_eq!(cheapest_within(&runs, &figures, &none), Err(all.of));
        let budget = Bounds { usd_per_hour: Some(0.01), ..Bounds::default() };
        assert_eq!(cheapest_within(&runs, &figures, &budget), Err(all.of));
    }

    #[test]
    fn a_trial_without_the_figure_does_not_keep_its_limit() {
        let runs = [fixture::phase(Phase::Prefill)];
        let figures = vec![evaluate(&runs[0], fixture::book())];
        let bounds = Bounds { tpot_seconds: Some(1e9), ..Bounds::default() };
        assert!(cheapest_within(&runs, &figures, &bounds).is_err());
    }
}
