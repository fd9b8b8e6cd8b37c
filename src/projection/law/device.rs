//! What a token of training costs on a device that is not here, by the size of the model.

use super::super::calibration::Calibration;
use super::super::device::Unit;
use super::super::goal::{Goal, USUAL_EFFICIENCY};
use super::super::plans::candidates;
use super::super::published::Quantity;
use super::super::search::Settled;
use super::super::workload::project;
use super::Point;
use super::spend::Rate;
use crate::transformer::Workload;
use std::sync::Arc;

/// Standard deviations to each side that hold 90 % of a normal distribution.
const NINE_OF_TEN: f64 = 1.645;
/// Sizes that are projected, from a tenth of the least to ten times the largest.
const SIZES: usize = 9;
const SEQUENCE: f64 = 2048.0;

/// Of models that are known by their parameters alone: the cheapest number of devices and layout at each size. `None` where no
/// size fits.
pub(crate) fn rate(
    points: &[Point],
    device: &Arc<Unit>,
    count: Option<u32>,
    usd_per_hour: f64,
    c: &Calibration,
) -> Option<Rate> {
    let ends = points.iter().map(|p| p.parameters).fold((f64::INFINITY, 0.0f64), |(l, h), n| (l.min(n), h.max(n)));
    let (low, high) = (ends.0 / 10.0, ends.1 * 10.0);
    let tokens = points.iter().map(|p| p.tokens).fold(0.0, f64::max);
    let mut spread = 0.0f64;
    let mut of = |i: usize| {
        let parameters = low * (high / low).powf(i as f64 / (SIZES - 1) as f64);
        let goal = Goal {
            parameters,
            tokens,
            budget_usd: None,
            days: None,
            seq_len: SEQUENCE,
            batch: None,
            efficiency: USUAL_EFFICIENCY,
            settled: Settled::default(),
        };
        let all = candidates(&goal, device, count, Some(usd_per_hour), c);
        let best = all.into_iter().filter_map(|p| Some((p.usd?, p))).min_by(|a, b| a.0.total_cmp(&b.0))?;
        let half = c.bars.half(Quantity::TrainingTokens, &best.1.traits).unwrap_or(0.0);
        spread = spread.max(half / NINE_OF_TEN);
        Some((parameters, best.0 / tokens))
    };
    let nodes: Vec<(f64, f64)> = (0..SIZES).filter_map(&mut of).collect();
    Rate::of(nodes.into_iter(), spread)
}

/// Of models whose shapes are known: each workload as it is, on so many of the device. `None` where none of them fits.
pub(crate) fn rate_of_workloads<'a>(
    all: impl Iterator<Item = (f64, &'a Workload)>,
    device: &Arc<Unit>,
    count: u32,
    usd_per_hour: f64,
    c: &Calibration,
) -> Option<Rate> {
    let mut spread = 0.0f64;
    let mut of = |(parameters, w): (f64, &Workload)| {
        let p = project(w, device, count, c).ok().filter(|p| p.fits)?;
        spread = spread.max(c.bars.half(p.quantity, &p.traits).unwrap_or(0.0) / NINE_OF_TEN);
        Some((parameters, usd_per_hour * f64::from(count) / 3600.0 / p.tokens_per_second))
    };
    let nodes: Vec<(f64, f64)> = all.filter_map(&mut of).collect();
    Rate::of(nodes.into_iter(), spread)
}
