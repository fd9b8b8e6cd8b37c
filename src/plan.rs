//! The plan: which trials will run, in which order, what they are predicted to take, and which are left out and why.
//!
//! Pure: the machine's facts are arguments. Touches no device and no clock.

use crate::scenario::{Cell, Limits, Measure, Order, Scenario};
use crate::transformer::session::MemoryParts;
use crate::transformer::{BackendKind, count};
use crate::units::{Bytes, Flops, Seconds};

/// What the plan has to know of the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub cores: u32,
    /// Bytes that trials may fill.
    pub memory: Bytes,
    /// Assumed rates for the time estimate: FLOP/s of matrix products and bytes/s of reads on the whole machine.
    pub flops_per_second: f64,
    pub read_bytes_per_second: f64,
    pub usd_per_hour: Option<f64>,
}

/// One cell, with what is known of it before it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedTrial {
    /// Place in the scenario's order.
    pub cell_index: u32,
    /// Place in the order of execution.
    pub run_order: u32,
    pub id: String,
    pub cell: Cell,
    pub parameters: u64,
    pub flops_per_step: Flops,
    pub memory: MemoryParts,
    /// Estimated seconds of the whole trial: start, warm-up, measuring.
    pub estimate: Seconds,
    /// Why it will not run, if so.
    pub skip: Option<String>,
}

/// The whole sweep, in the order of execution.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub trials: Vec<PlannedTrial>,
    pub measure: Measure,
    pub limits: Limits,
    pub order: Order,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{cell}: {message}")]
pub struct PlanError {
    /// The cell's coordinates.
    pub cell: String,
    pub message: String,
}

/// Share of the probed peak that an estimate assumes products to reach, and that of bandwidth for decoding. Only the time
/// estimate depends on it.
const ASSUMED_EFFICIENCY: f64 = 0.5;
/// Seconds that a trial takes beside its steps: start of the process, weights, end.
const OVERHEAD_SECONDS: f64 = 0.3;
/// Steps of warm-up that an estimate assumes.
const WARMUP_STEPS: f64 = 4.0;
/// Share of the memory that trials may fill; the rest is the system's and the program's.
const USABLE_MEMORY: f64 = 0.92;

/// Lays out every cell of a scenario: in the order of execution, with what is known of it, and why it is left out if so.
///
/// # Errors
/// A cell whose counts do not fit into 64 bits.
pub fn plan(scenario: &Scenario, facts: &Facts) -> Result<Plan, PlanError> {
    let cells = scenario.cells.iter().enumerate();
    let mut trials = cells.map(|(i, cell)| planned(i as u32, cell, scenario, facts)).collect::<Result<Vec<_>, _>>()?;
    apply_limits(&mut trials, scenario, facts);
    if scenario.measure.order == Order::Shuffled {
        shuffle(&mut trials, scenario.measure.seed);
    }
    for (i, t) in trials.iter_mut().enumerate() {
        t.run_order = i as u32;
    }
    Ok(Plan { trials, measure: scenario.measure.clone(), limits: scenario.limits, order: scenario.measure.order })
}

fn planned(index: u32, cell: &Cell, scenario: &Scenario, facts: &Facts) -> Result<PlannedTrial, PlanError> {
    let w = &cell.trial.workload;
    let too_large = |e: count::CountOverflow| PlanError { cell: cell.name(), message: e.to_string() };
    let memory = count::memory(w, cell.trial.devices).map_err(too_large)?;
    let flops_per_step = count::flops_per_step(w).map_err(too_large)?;
    let bytes = count::bytes_per_decode_step(w).map_err(too_large)?;
    let cores = cell.trial.devices.saturating_mul(cell.trial.cores_per_device);
    let share = f64::from(cores.min(facts.cores)) / f64::from(facts.cores.max(1));
    let by_flops = flops_per_step.get() as f64 / (facts.flops_per_second * share * ASSUMED_EFFICIENCY);
    let by_bytes = bytes.map_or(0.0, |b| b.get() as f64 / (facts.read_bytes_per_second * ASSUMED_EFFICIENCY));
    let step = by_flops.max(by_bytes);
    let m = &scenario.measure;
    let measuring = (step * 8.0).clamp(m.min_seconds, m.max_seconds).max(step);
    let estimate = OVERHEAD_SECONDS + f64::from(m.warmup_steps.unwrap_or(WARMUP_STEPS as u32)) * step + measuring;
    Ok(PlannedTrial {
        cell_index: index,
        run_order: index,
        id: cell.trial.id(),
        cell: cell.clone(),
        parameters: count::parameters(&w.shape).map_err(too_large)?,
        flops_per_step,
        memory,
        estimate: Seconds(estimate),
        skip: skip_reason(cell, &memory, cores, m.ignore_memory, facts),
    })
}

fn skip_reason(cell: &Cell, memory: &MemoryParts, cores: u32, ignore_memory: bool, facts: &Facts) -> Option<String> {
    let needed = memory.total()?;
    let usable = Bytes((facts.memory.get() as f64 * USABLE_MEMORY) as u64);
    let on_cpu = cell.trial.backend != BackendKind::Cuda;
    if on_cpu && cores > facts.cores {
        let t = &cell.trial;
        return Some(format!(
            "needs {} x {} = {cores} cores, and this machine has {}",
            t.devices, t.cores_per_device, facts.cores
        ));
    }
    if on_cpu && !ignore_memory && needed.get() > usable.get() {
        return Some(format!(
            "predicted to take {needed}, and {usable} of {} are for trials (measure.ignore_memory: true tries it all the same)",
            facts.memory
        ));
    }
    None
}

/// Where a limit binds, cells that span the axes are kept first: each next one is the farthest from those kept, so that a
/// short sweep still sees the corners.
fn apply_limits(trials: &mut [PlannedTrial], scenario: &Scenario, facts: &Facts) {
    let limits = scenario.limits;
    if limits == Limits::default() {
        return;
    }
    let seconds = limits.minutes.map(|m| m * 60.0);
    let usd_seconds = limits.usd.zip(facts.usd_per_hour).map(|(usd, price)| usd / price * 3600.0);
    let budget = [seconds, usd_seconds].into_iter().flatten().fold(f64::INFINITY, f64::min);
    let (mut spent, mut kept) = (0.0, 0u64);
    for i in spanning_order(trials) {
        let t = &mut trials[i];
        if t.skip.is_some() {
            continue;
        }
        let reason = if limits.cells.is_some_and(|c| kept >= c) {
            limits.cells.map(|c| format!("limits.cells: {c} cells are kept"))
        } else if spent + t.estimate.get() > budget {
            Some(format!("limits: {} are estimated to be spent by then", Seconds(budget)))
        } else {
            None
        };
        match reason {
            Some(r) => t.skip = Some(r),
            None => {
                spent += t.estimate.get();
                kept += 1;
            }
        }
    }
}

/// Farthest-point order over the cells' places on each axis (Gonzalez 1985); ties go to the file's order.
fn spanning_order(trials: &[PlannedTrial]) -> Vec<usize> {
    let positions = axis_positions(trials);
    let distance =
        |a: usize, b: usize| -> f64 { positions[a].iter().zip(&positions[b]).map(|(x, y)| (x - y).powi(2)).sum() };
    let mut left: Vec<usize> = (0..trials.len()).collect();
    let mut nearest = vec![f64::INFINITY; trials.len()];
    let mut order: Vec<usize> = Vec::with_capacity(trials.len());
    while !left.is_empty() {
        let mut best = 0;
        for (i, &cell) in left.iter().enumerate() {
            if nearest[cell] > nearest[left[best]] {
                best = i;
            }
        }
        let chosen = left.remove(best);
        for &cell in &left {
            nearest[cell] = nearest[cell].min(distance(cell, chosen));
        }
        order.push(chosen);
    }
    order
}

/// Every cell's place on every axis, from 0 to 1 in the order in which the values first appear.
fn axis_positions(trials: &[PlannedTrial]) -> Vec<Vec<f64>> {
    let mut values: Vec<(String, Vec<String>)> = Vec::new();
    for t in trials {
        for (axis, value) in &t.cell.coordinates {
            match values.iter_mut().find(|(a, _)| a == axis) {
                Some((_, seen)) if !seen.contains(value) => seen.push(value.clone()),
                Some(_) => {}
                None => values.push((axis.clone(), vec![value.clone()])),
            }
        }
    }
    let place = |t: &PlannedTrial, (axis, seen): &(String, Vec<String>)| {
        let value = t.cell.coordinates.iter().find(|(a, _)| a == axis).map(|(_, v)| v);
        let at = value.and_then(|v| seen.iter().position(|s| s == v)).unwrap_or(0);
        at as f64 / (seen.len().max(2) - 1) as f64
    };
    trials.iter().map(|t| values.iter().map(|axis| place(t, axis)).collect()).collect()
}

/// Fisher and Yates's shuffle, from SplitMix64 (Steele, Lea & Flood 2014).
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    for i in (1..items.len()).rev() {
        let j = ((u128::from(next()) * (i as u128 + 1)) >> 64) as usize;
        items.swap(i, j);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{LoadOptions, load};

    fn facts() -> Facts {
        Facts {
            cores: 2,
            memory: Bytes(8 << 30),
            flops_per_second: 2e11,
            read_bytes_per_second: 3e10,
            usd_per_hour: Some(0.1),
        }
    }

    fn planned(yaml: &str) -> Plan {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.yaml");
        std::fs::write(&path, yaml).unwrap();
        plan(&load(&path, &LoadOptions::default()).unwrap(), &facts()).unwrap()
    }

    const GRID: &str = "version: 1\nname: t\ntrial: { model: { n_layers: 1, d_model: 64, n_heads: 4 }, seq_len: 32 }\nsweep: { matrix: { batch: 1..5, model.n_heads: [1, 2, 4, 8, 16] } }\n";

    #[test]
    fn the_order_is_a_permutation_that_repeats_with_its_seed() {
        let (a, b) = (planned(GRID), planned(GRID));
        assert_eq!(a, b);
        let mut order: Vec<u32> = a.trials.iter().map(|t| t.cell_index).collect();
        assert_ne!(order, (0..25).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..25).collect::<Vec<_>>());
        let other = planned(&format!("{GRID}measure: {{ seed: 1 }}\n"));
        assert_ne!(a.trials[0].cell_index, other.trials[0].cell_index);
    }

    #[test]
    fn a_limit_keeps_the_corners_of_the_sweep() {
        let plan = planned(&format!("{GRID}limits: {{ cells: 4 }}\n"));
        let mut kept: Vec<(&str, &str)> = plan
            .trials
            .iter()
            .filter(|t| t.skip.is_none())
            .map(|t| (t.cell.coordinates[0].1.as_str(), t.cell.coordinates[1].1.as_str()))
            .collect();
        kept.sort_unstable();
        assert_eq!(kept, [("1", "1"), ("1", "16"), ("5", "1"), ("5", "16")]);
        assert_eq!(plan.trials.len(), 25);
    }

    #[test]
    fn what_does_not_fit_is_skipped_with_the_figures() {
        let large = "version: 1\nname: t\ntrial: { model: { preset: gpt3-175b }, seq_len: 32, backend: cpu }\n";
        let reason = planned(large).trials[0].skip.clone().unwrap();
        assert!(reason.contains("TiB") && reason.contains("8.00 GiB"), "{reason}");
        assert_eq!(planned(&format!("{large}measure: {{ ignore_memory: true }}\n")).trials[0].skip, None);
        let cores = "version: 1\nname: t\ntrial: { devices: 4, batch: 4, backend: cpu }\n";
        assert_eq!(planned(cores).trials[0].skip.as_deref(), Some("needs 4 x 1 = 4 cores, and this machine has 2"));
    }
}
