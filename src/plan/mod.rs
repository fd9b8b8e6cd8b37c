//! The plan: which trials will run, in which order, what they are predicted to take, and which are left out and why.
//!
//! Pure: the machine's facts are arguments. Touches no device and no clock.

mod limits;
mod rounds;

pub use rounds::order_of_round;

use crate::hardware::book::Book;
use crate::hardware::gpu::Gpu;
use crate::hardware::machine::Probe;
use crate::projection::calibration::Calibration;
use crate::projection::device::Unit;
use crate::projection::own;
use crate::scenario::{Cell, Limits, Measure, Order, Scenario};
use crate::stats::random::SplitMix64;
use crate::transformer::BackendKind;
use crate::transformer::collective::net::does_not_divide;
use crate::transformer::memory::MemoryParts;
use crate::transformer::shape::{Shape, count};
use crate::units::{Bytes, Flops, Seconds};
use std::sync::Arc;

/// What the plan has to know of the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineFacts {
    /// Cores that a trial may use.
    pub cores: u32,
    /// Bytes that trials may fill.
    pub memory: Bytes,
    /// GPUs that a CUDA program sees, or why there are none; only asked for where a trial wants one.
    pub gpus: Result<Vec<Gpu>, String>,
    /// Its limits: probed, or assumed where nobody probed.
    pub probe: Probe,
    /// What estimates of time are projected with.
    pub calibration: Calibration,
    /// Where the GPUs are looked up.
    pub book: Book,
    /// For what the sweep occupies; `None` without a price.
    pub usd_per_hour: Option<f64>,
    /// The processes that run every trial together.
    pub processes: Processes,
}

/// The processes that run every trial together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processes {
    /// Over all nodes.
    pub all: u32,
    /// Those that share this one's memory and GPUs.
    pub of_node: u32,
    /// Those that share its cores.
    pub of_cores: u32,
}

impl Processes {
    /// This one alone.
    pub const ONE: Self = Self { all: 1, of_node: 1, of_cores: 1 };
}

/// One cell, with what is known of it before it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedTrial {
    /// Place in the scenario's order.
    pub cell_index: u32,
    /// Place in the order of execution.
    pub run_order: u32,
    /// [`crate::scenario::trial::Trial::id`].
    pub id: String,
    /// What is measured.
    pub cell: Cell,
    /// Parameters of the model; 0 where that of another program is not stated, as the FLOPs are.
    pub parameters: u64,
    /// Those of them that a token goes through: fewer where there are experts.
    pub active_parameters: u64,
    /// Model FLOPs of a step.
    pub flops_per_step: Flops,
    /// Predicted bytes, over all ranks.
    pub memory: MemoryParts,
    /// Estimated seconds of all its launches: start, warm-up, measuring.
    pub estimate: Seconds,
    /// Why it will not run, if so.
    pub skip: Option<String>,
}

/// The whole sweep, in the order of execution.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Every requested cell once.
    pub trials: Vec<PlannedTrial>,
    /// How often each is launched, all once a round.
    pub rounds: u32,
    /// How each cell is measured, all its launches together.
    pub measure: Measure,
    /// Caps on the whole sweep.
    pub limits: Limits,
    /// How the order of execution was made.
    pub order: Order,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{cell}: {message}")]
pub struct PlanError {
    /// The cell's coordinates.
    pub cell: String,
    /// What is wrong, and the remedy.
    pub message: String,
}

/// How many times slower the naive backend is, which is there to be right and not to be fast.
const NAIVE: f64 = 50.0;
/// Share of the memory that trials may fill; the rest is the system's and the program's.
const USABLE_MEMORY: f64 = 0.92;

/// What of so many bytes trials may fill.
pub(crate) fn usable(memory: Bytes) -> Bytes {
    Bytes((memory.get() as f64 * USABLE_MEMORY) as u64)
}

/// Lays out every cell of a scenario: in the order of execution, with what is known of it, and why it is left out if so.
///
/// # Errors
/// A cell whose counts do not fit into 64 bits.
pub fn plan(scenario: &Scenario, facts: &MachineFacts) -> Result<Plan, PlanError> {
    let cells = scenario.cells.iter().enumerate();
    let mut trials = cells.map(|(i, cell)| planned(i as u32, cell, scenario, facts)).collect::<Result<Vec<_>, _>>()?;
    let steps: Vec<f64> = trials.iter().filter(|t| t.skip.is_none()).map(|t| t.estimate.get()).collect();
    let learns = scenario.cells.iter().any(|c| c.trial.learning.is_some());
    let steps = if learns { &[] } else { &steps[..] };
    let rounds = rounds::chosen(&scenario.measure, scenario.limits, steps, facts);
    for t in &mut trials {
        let step = t.estimate.get();
        let learning = rounds::seconds_of_learning(&t.cell.trial, step, &scenario.measure, rounds);
        t.estimate = Seconds(learning.unwrap_or_else(|| rounds::seconds_of_cell(step, &scenario.measure, rounds)));
    }
    limits::apply(&mut trials, scenario.limits, facts.usd_per_hour);
    if scenario.measure.order == Order::Shuffled {
        // Drawn from a seed: drift of the machine does not line up with an axis, and the order can be had again.
        SplitMix64::new(scenario.measure.seed).shuffle(&mut trials);
    }
    for (i, t) in trials.iter_mut().enumerate() {
        t.run_order = i as u32;
    }
    Ok(Plan {
        trials,
        rounds,
        measure: scenario.measure.clone(),
        limits: scenario.limits,
        order: scenario.measure.order,
    })
}

impl Plan {
    /// What each launch is measured by.
    pub fn of_launch(&self) -> Measure {
        self.measure.of_launch(self.rounds)
    }

    /// The trials in the order of a round, from 0: as [`order_of_round`] has it, unless the file's order is kept.
    pub fn round(&self, round: u32) -> Vec<&PlannedTrial> {
        match self.order {
            Order::File => self.trials.iter().collect(),
            Order::Shuffled => {
                let order = order_of_round(self.trials.len(), self.measure.seed, round);
                order.into_iter().filter_map(|i| self.trials.get(i)).collect()
            }
        }
    }
}

/// A cell whose `estimate` is, as yet, that of one step.
fn planned(index: u32, cell: &Cell, scenario: &Scenario, facts: &MachineFacts) -> Result<PlannedTrial, PlanError> {
    let w = &cell.trial.workload;
    let too_large = |e: count::CountOverflow| PlanError { cell: cell.name(), message: e.to_string() };
    // What another program takes, only that program knows.
    let memory = match cell.trial.engine {
        None => count::memory(cell.trial.backend, w, &cell.trial.parallel()).map_err(too_large)?,
        Some(_) => MemoryParts::default(),
    };
    let counted = cell.trial.states_model();
    let count_of = |count: fn(&Shape) -> Result<u64, count::CountOverflow>| {
        if counted { count(&w.shape).map_err(too_large) } else { Ok(0) }
    };
    let flops_per_step = if counted { count::flops_per_step(w).map_err(too_large)? } else { Flops(0) };
    let cores = cell.trial.devices.saturating_mul(cell.trial.cores_per_device);
    let step = match cell.trial.engine {
        None => step_seconds(cell, cores, facts),
        // So that the estimate is what the scenario lets it take.
        Some(_) => scenario.measure.max_seconds / rounds::MEASURED_STEPS,
    };
    Ok(PlannedTrial {
        cell_index: index,
        run_order: index,
        id: cell.trial.id(),
        cell: cell.clone(),
        parameters: count_of(count::parameters)?,
        active_parameters: count_of(count::active_parameters)?,
        flops_per_step,
        memory,
        estimate: Seconds(step),
        skip: skip_reason(cell, &memory, cores, scenario.measure.ignore_memory, facts),
    })
}

/// Seconds of a step, projected from this machine's limits and corrected by how this program was measured against that.
fn step_seconds(cell: &Cell, cores: u32, facts: &MachineFacts) -> f64 {
    if let Some(gpu) = gpu(cell, facts) {
        // As a good engine does it, the work shared out without a loss: how this program does it on GPUs was not measured yet.
        let seconds = own::step_seconds(&cell.trial.workload, &gpu, &facts.calibration).unwrap_or(f64::INFINITY);
        return seconds / f64::from(cell.trial.devices.max(1));
    }
    let device = own::cpu("this machine", &facts.probe, cores, facts.cores, facts.memory.get() as f64);
    let slower = if cell.trial.backend == BackendKind::Naive { NAIVE } else { 1.0 };
    // Stages wait for one another at both ends of a step.
    let slower = slower / (1.0 - cell.trial.bubble());
    own::own_step_seconds(&cell.trial.workload, &device, &facts.calibration).unwrap_or(f64::INFINITY) * slower
}

/// The GPU of a trial that runs on some, where the catalog knows it.
fn gpu(cell: &Cell, facts: &MachineFacts) -> Option<Arc<Unit>> {
    let first = facts.gpus.as_ref().ok()?.first().filter(|_| cell.trial.backend == BackendKind::Cuda)?;
    let device = facts.book.device_of_driver(&first.name)?;
    Unit::of(device).ok().map(Arc::new)
}

fn skip_reason(
    cell: &Cell,
    memory: &MemoryParts,
    cores: u32,
    ignore_memory: bool,
    facts: &MachineFacts,
) -> Option<String> {
    let Processes { all, of_node, of_cores } = facts.processes;
    if !cell.trial.devices.is_multiple_of(all) {
        return Some(does_not_divide(cell.trial.devices as usize, all as usize));
    }
    // What of a trial is this node's.
    let needed = Bytes((memory.total()?.get() as f64 * f64::from(of_node) / f64::from(all)) as u64);
    let cores = cores / all * of_cores;
    let usable = usable(facts.memory);
    if cell.trial.backend == BackendKind::Cuda {
        return no_gpu(cell.trial.devices / all * of_node, needed, ignore_memory, &facts.gpus);
    }
    if cores > facts.cores {
        let t = &cell.trial;
        return Some(format!(
            "needs {} x {} = {cores} cores, and this machine has {}",
            t.devices / all * of_cores,
            t.cores_per_device,
            facts.cores
        ));
    }
    if !ignore_memory && needed.get() > usable.get() {
        return Some(format!(
            "predicted to take {needed}, and {usable} of {} are for trials (measure.ignore_memory: true tries it all the same)",
            facts.memory
        ));
    }
    None
}

/// Why the machine's GPUs cannot run a trial. What a trial is predicted to take is spread evenly over its GPUs; where their
/// memory is not told (0) it is tried.
fn no_gpu(wanted: u32, needed: Bytes, ignore_memory: bool, gpus: &Result<Vec<Gpu>, String>) -> Option<String> {
    let found = match gpus {
        Ok(found) => found,
        Err(why) => return Some(format!("backend cuda: {why}")),
    };
    let Some(used) = found.get(..wanted as usize) else {
        return Some(format!("needs {wanted} GPUs, and this machine has {}", found.len()));
    };
    let smallest = used.iter().map(|g| g.memory_bytes).filter(|b| *b > 0).min()?;
    let (each, usable) = (Bytes(needed.get() / u64::from(wanted.max(1))), usable(Bytes(smallest)));
    (!ignore_memory && each.get() > usable.get()).then(|| {
        format!(
            "predicted to take {each} of a GPU, and {usable} of {} are for trials (measure.ignore_memory: true tries it all the \
             same)",
            Bytes(smallest)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::scenario::{LoadOptions, load};

    pub(super) fn facts() -> MachineFacts {
        MachineFacts {
            cores: 2,
            memory: Bytes(8 << 30),
            gpus: Err("no NVIDIA driver is installed".into()),
            probe: Probe::assumed(2),
            calibration: Calibration::default(),
            book: fixture::book().clone(),
            usd_per_hour: Some(100.0),
            processes: Processes::ONE,
        }
    }

    fn planned(yaml: &str) -> Plan {
        planned_with(yaml, &facts())
    }

    fn planned_with(yaml: &str, facts: &MachineFacts) -> Plan {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.yaml");
        std::fs::write(&path, yaml).unwrap();
        plan(&load(&path, &LoadOptions::default()).unwrap(), facts).unwrap()
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
    fn the_limit_that_binds_is_named_and_what_is_kept_is_within_it() {
        // Each cell is estimated at a second of measuring and a little more.
        let by = |limits: &str| planned(&format!("{GRID}price: {{ usd_per_hour: 3600 }}\nlimits: {limits}\n"));
        for (limits, reason) in [
            ("{ minutes: 0.1 }", "limits.minutes: 6.00 s are spent by then, as estimated"),
            ("{ minutes: 60, usd: 6 }", "limits.usd: $6 are spent by then, as estimated"),
        ] {
            let plan = by(limits);
            let spent: f64 = plan.trials.iter().filter(|t| t.skip.is_none()).map(|t| t.estimate.get()).sum();
            assert!(spent > 3.0 && spent <= if limits.contains("usd") { 216.0 } else { 6.0 }, "{spent}");
            assert!(plan.trials.iter().filter_map(|t| t.skip.as_deref()).all(|r| r == reason), "{plan:?}");
        }
    }

    #[test]
    fn the_slow_oracle_is_estimated_slower() {
        let of = |backend: &str| {
            let text = format!(
                "version: 1\nname: t\ntrial: {{ backend: {backend}, batch: 1, seq_len: 64 }}\nmeasure: {{ min_seconds: 0, max_seconds: 1e-3 }}\n"
            );
            planned(&text).trials[0].estimate.get()
        };
        assert!(of("naive") > 10.0 * of("cpu"), "{} {}", of("naive"), of("cpu"));
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

    #[test]
    fn trials_on_gpus_are_held_against_those_that_are_there() {
        let h100 = |memory_bytes| Gpu { name: "NVIDIA H100 80GB HBM3".into(), memory_bytes, ..Gpu::default() };
        let trial = "version: 1\nname: t\ntrial: { model: { preset: gpt2 }, backend: cuda, phase: train, batch: 8, seq_len: 512 }\n";
        let skip = |yaml: &str, gpus| planned_with(yaml, &MachineFacts { gpus, ..facts() }).trials[0].skip.clone();
        assert_eq!(skip(trial, Err("no driver".into())).unwrap(), "backend cuda: no driver");
        assert_eq!(skip(trial, Ok(vec![h100(80 << 30)])), None);
        assert_eq!(skip(trial, Ok(vec![h100(0)])), None, "memory that is not told is tried");
        assert!(skip(trial, Ok(vec![h100(1 << 30)])).unwrap().contains("of a GPU, and 942 MiB of 1.00 GiB"));
        let two = trial.replace("batch: 8", "batch: 8, devices: 2");
        assert_eq!(skip(&two, Ok(vec![h100(80 << 30)])).unwrap(), "needs 2 GPUs, and this machine has 1");
        let seconds = |gpus| planned_with(trial, &MachineFacts { gpus, ..facts() }).trials[0].estimate.get();
        let (known, unknown) = (seconds(Ok(vec![h100(80 << 30)])), seconds(Ok(vec![Gpu::default()])));
        assert!(known < unknown / 2.0, "{known} s by the catalog, {unknown} s as if on the processors");
    }
}
