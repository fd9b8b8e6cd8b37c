//! Tokens a second.

use crate::cost::metric::{Context, Direction, Estimate, Metric, Provenance, Quantity};
use crate::cost::steps;

pub(crate) static TOKENS_PER_SECOND: Metric = Metric {
    name: "tokens_per_second",
    label: "tokens/s",
    unit: "tokens/s",
    quantity: Quantity::TokensPerSecond,
    provenance: Provenance::Measured,
    direction: Direction::Higher,
    formula: "tokens of a step on all devices / median step_seconds; the ends of its 95 % interval change places",
    source: "as MLPerf counts tokens",
    compute: tokens_per_second,
};

pub(crate) static TOKENS_PER_SECOND_PER_DEVICE: Metric = Metric {
    name: "tokens_per_second_per_device",
    label: "tokens/s/device",
    unit: "tokens/s per device",
    quantity: Quantity::TokensPerSecond,
    provenance: Provenance::Measured,
    direction: Direction::Higher,
    formula: "tokens_per_second / devices",
    source: "convention of the field (tok/s/GPU)",
    compute: per_device,
};

pub(super) fn tokens_per_second(c: &Context) -> Option<Estimate> {
    let figures = c.figures()?;
    let tokens = figures.tokens_per_step as f64;
    steps::median(c, &figures.step_seconds)?.decreasing(|s| tokens / s)?.positive()
}

fn per_device(c: &Context) -> Option<Estimate> {
    let devices = f64::from(c.record.cell.trial.devices);
    tokens_per_second(c)?.increasing(|t| t / devices)?.positive()
}
