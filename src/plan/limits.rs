//! Caps on cells, time and money. Where one binds, cells that span the axes are kept first: each next one is the farthest
//! from those kept (Gonzalez 1985), so that a short sweep still sees the corners.

use super::PlannedTrial;
use crate::scenario::Limits;
use crate::units::{Seconds, grouped, significant};

/// Skips, with the reason, what goes beyond the limits.
pub(super) fn apply(trials: &mut [PlannedTrial], limits: Limits, usd_per_hour: Option<f64>) {
    if limits == Limits::default() {
        return;
    }
    let (budget, spent_reason) = time_budget(limits, usd_per_hour);
    let most = limits.cells.unwrap_or(u64::MAX);
    let mut kept = vec![false; trials.len()];
    let (mut spent, mut count) = (0.0, 0u64);
    let mut spread = Spread::new(trials);
    while count < most {
        // A cell that no longer fits does not end the sweep: a cheaper one still may.
        let fits = |i: usize| spent + trials[i].estimate.get() <= budget;
        let Some(next) = spread.farthest(fits) else { break };
        kept[next] = true;
        spent += trials[next].estimate.get();
        count += 1;
    }
    let reason = if count == most {
        format!("limits.cells: {} are kept, which span the axes", grouped(most))
    } else {
        spent_reason
    };
    for (t, kept) in trials.iter_mut().zip(kept) {
        if t.skip.is_none() && !kept {
            t.skip = Some(reason.clone());
        }
    }
}

/// Seconds that may be spent, and how it is said that they are.
pub(super) fn time_budget(limits: Limits, usd_per_hour: Option<f64>) -> (f64, String) {
    let by_minutes = limits.minutes.map_or(f64::INFINITY, |m| m * 60.0);
    let by_money = limits.usd.zip(usd_per_hour).map_or(f64::INFINITY, |(usd, price)| usd / price * 3600.0);
    let spent = "are spent by then, as estimated";
    if by_money < by_minutes {
        let usd = limits.usd.map_or(String::new(), |usd| significant(usd, 3));
        (by_money, format!("limits.usd: ${} {spent}", trimmed(&usd)))
    } else {
        (by_minutes, format!("limits.minutes: {} {spent}", Seconds(by_minutes)))
    }
}

/// 6.00 -> 6, 0.50 -> 0.5.
fn trimmed(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

/// Cells by how far they are from those chosen.
struct Spread {
    positions: Vec<Vec<f64>>,
    /// Squared distance to the nearest chosen cell; `None` where the cell is chosen or will not run.
    nearest: Vec<Option<f64>>,
}

impl Spread {
    fn new(trials: &[PlannedTrial]) -> Self {
        let nearest = trials.iter().map(|t| t.skip.is_none().then_some(f64::INFINITY)).collect();
        Self { positions: axis_positions(trials), nearest }
    }

    /// Chooses the farthest cell of those allowed; ties go to the file's order.
    fn farthest(&mut self, allowed: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<(usize, f64)> = None;
        for (i, nearest) in self.nearest.iter().enumerate() {
            if let Some(distance) = *nearest
                && best.is_none_or(|(_, most)| distance > most)
                && allowed(i)
            {
                best = Some((i, distance));
            }
        }
        let (chosen, _) = best?;
        self.nearest[chosen] = None;
        for (position, nearest) in self.positions.iter().zip(&mut self.nearest) {
            if let Some(nearest) = nearest {
                let distance: f64 = position.iter().zip(&self.positions[chosen]).map(|(a, b)| (a - b).powi(2)).sum();
                *nearest = nearest.min(distance);
            }
        }
        Some(chosen)
    }
}

/// Every cell's place on every axis, from 0 to 1 in the order in which the values first appear.
fn axis_positions(trials: &[PlannedTrial]) -> Vec<Vec<f64>> {
    let mut axes: Vec<(&str, Vec<&str>)> = Vec::new();
    for (axis, value) in trials.iter().flat_map(|t| &t.cell.coordinates) {
        match axes.iter_mut().find(|(a, _)| a == axis) {
            Some((_, seen)) if !seen.contains(&value.as_str()) => seen.push(value),
            Some(_) => {}
            None => axes.push((axis, vec![value])),
        }
    }
    let place = |t: &PlannedTrial, (axis, seen): &(&str, Vec<&str>)| {
        let value = t.cell.coordinates.iter().find(|(a, _)| a == axis).map(|(_, v)| v);
        let at = value.and_then(|v| seen.iter().position(|s| s == v)).unwrap_or(0);
        at as f64 / (seen.len().max(2) - 1) as f64
    };
    trials.iter().map(|t| axes.iter().map(|axis| place(t, axis)).collect()).collect()
}
