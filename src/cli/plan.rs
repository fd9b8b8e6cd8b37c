//! `centime plan`: the trials of a scenario with everything that is known before they run.

use super::Failure;
use super::load::{Selection, load};
use super::output::print_wrapped;
use super::table::{Format, Printed, Rows, Value, label};
use crate::hardware::machine::Probe;
use crate::plan::{Plan, PlannedTrial, plan};
use crate::projection::calibration::Calibration;
use crate::scenario::Scenario;
use crate::sweep::planning;
use crate::units::{Bytes, Seconds, grouped, significant};
use anyhow::anyhow;

/// Print the trials of a scenario with parameters, FLOPs, predicted memory and time, without running any.
///
/// `centime run --dry-run` is the same, with the options of a run.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    printed: Printed,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    let scenario = load(&a.selection)?;
    let plan = make(&scenario, None)?;
    print(&scenario, &plan, a.printed.format)
}

/// The plan on this machine; probed rates make the estimate of time better.
pub(super) fn make(scenario: &Scenario, probe: Option<&Probe>) -> Result<Plan, Failure> {
    let calibration = Calibration::built_in().cloned().map_err(Failure::yaml)?;
    let facts = planning::facts(scenario, probe, calibration, super::launcher::world()?.as_ref());
    plan(scenario, &facts).map_err(|e| Failure::Usage(anyhow!(e)))
}

/// Columns of the table, in CSV and JSON under these names.
const COLUMNS: &[&str] = &[
    "order",
    "trial",
    "cell",
    "model",
    "phase",
    "parameters",
    "active_parameters",
    "flops_per_step",
    "memory_bytes",
    "weights_bytes",
    "gradients_bytes",
    "optimizer_bytes",
    "activations_bytes",
    "kv_cache_bytes",
    "workspace_bytes",
    "estimate_seconds",
    "note",
];

/// What a narrow terminal does without first.
const LEAST: &[&str] = &[
    "workspace_bytes",
    "trial",
    "weights_bytes",
    "gradients_bytes",
    "optimizer_bytes",
    "kv_cache_bytes",
    "activations_bytes",
    "parameters",
    "active_parameters",
    "flops_per_step",
    "model",
    "phase",
];

/// Prints the table and, for people, what it adds up to.
pub(super) fn print(scenario: &Scenario, plan: &Plan, format: Format) -> Result<(), Failure> {
    let mut rows = Rows::new(COLUMNS).least(LEAST);
    plan.trials.iter().for_each(|t| rows.push(row(t)));
    if format != Format::Table {
        return rows.print(format);
    }
    let same = rows.take_constant(&[
        "model",
        "phase",
        "parameters",
        "active_parameters",
        "weights_bytes",
        "gradients_bytes",
        "optimizer_bytes",
    ]);
    rows.print(format)?;
    let same: Vec<String> = same
        .into_iter()
        .filter(|(_, text)| !matches!(text.as_str(), "" | "0 B"))
        .map(|(heading, text)| format!("{} {text}", label(heading)))
        .collect();
    if !same.is_empty() {
        print_wrapped(&format!("in every trial: {}", same.join(", ")))?;
    }
    print_wrapped(&total(scenario, plan))
}

fn row(t: &PlannedTrial) -> Vec<Value> {
    let m = &t.memory;
    let own = t.cell.trial.engine.is_none();
    // Blank where they are all.
    let active = if t.active_parameters < t.parameters { t.active_parameters } else { 0 };
    let active = counted(grouped(active), active);
    let bytes = |b: u64| if own { Value::from((Bytes(b).to_string(), b)) } else { String::new().into() };
    vec![
        (t.run_order.to_string(), u64::from(t.run_order)).into(),
        t.id.clone().into(),
        t.cell.name().into(),
        t.cell.trial.model.clone().into(),
        t.cell.trial.workload.phase.to_string().into(),
        counted(grouped(t.parameters), t.parameters),
        active,
        counted(t.flops_per_step.to_string(), t.flops_per_step.get()),
        bytes(m.total().map_or(u64::MAX, |b| b.get())),
        bytes(m.weights_bytes),
        bytes(m.gradients_bytes),
        bytes(m.optimizer_bytes),
        bytes(m.activations_bytes),
        bytes(m.kv_cache_bytes),
        bytes(m.workspace_bytes),
        (t.estimate.to_string(), t.estimate.get()).into(),
        t.skip.as_ref().map_or(String::new(), |s| format!("skipped: {s}")).into(),
    ]
}

/// A count; blank where there is nothing to count by.
fn counted(text: String, n: u64) -> Value {
    if n == 0 { String::new().into() } else { (text, n).into() }
}

/// "quickstart: 12 trials, about 40.0 s, about $0.00095 at $0.08560/h".
fn total(scenario: &Scenario, plan: &Plan) -> String {
    let run: Vec<_> = plan.trials.iter().filter(|t| t.skip.is_none()).collect();
    let seconds: f64 = run.iter().map(|t| t.estimate.get()).sum();
    let skipped = plan.trials.len() - run.len();
    let money = scenario
        .usd_per_hour()
        .map_or(String::new(), |p| format!(", about ${} at {p}", significant(p.get() * seconds / 3600.0, 2)));
    let left_out = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
    let s = if run.len() == 1 { "" } else { "s" };
    format!("{}: {} trial{s}{left_out}, about {}{money}", scenario.name, run.len(), Seconds(seconds))
}
