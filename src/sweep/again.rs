//! Which launches are made again at the end of a sweep because others disturbed them, and which of two counts. Pure.

use crate::plan::{Plan, PlannedTrial};
use crate::results::record::Record;
use crate::runner::measurement::Figures;
use std::collections::BTreeMap;

/// Share of what the sweep took that making launches again may take.
pub(super) const SHARE: f64 = 0.5;

/// Disturbed launches that were made again at most `times`, in the order of the plan: their trials and rounds.
pub(super) fn due<'a>(plan: &'a Plan, cells: &BTreeMap<u32, Vec<Record>>, times: u32) -> Vec<(&'a PlannedTrial, u32)> {
    let disturbed = |r: &Record| r.measurement.figures.as_ref().is_some_and(Figures::disturbed);
    let launches = (0..plan.rounds).flat_map(|round| plan.round(round).into_iter().map(move |t| (t, round)));
    let wanted = |(trial, round): &(&PlannedTrial, u32)| {
        let of_cell = cells.get(&trial.cell_index).into_iter().flatten();
        of_cell.filter(|r| r.round == *round).any(|r| r.again <= times && disturbed(r))
    };
    launches.filter(wanted).collect()
}

/// The less disturbed of a launch and the one made in its place. One that failed is not hidden by one that did not.
pub(super) fn better(old: Record, new: Record) -> Record {
    let again = old.again + 1;
    let excess = |r: &Record| Some(r.measurement.figures.as_ref()?.disturbance.as_ref()?.excess());
    let worse = excess(&old).zip(excess(&new)).is_some_and(|(old, new)| new >= old);
    Record { again, ..if worse { old } else { new } }
}
