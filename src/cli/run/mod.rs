//! `centime run`: scenario, machine, plan; every trial measured and journalled; the report.

mod events;
mod progress;
mod signals;
mod team;
pub(super) mod timestamp;
mod traces;

use super::Failure;
use super::load::{Selection, load};
use super::output::{print_run, results_failure as failure};
use super::price::{Priced, apply, priced, warn_if_stale};
use super::table::Printed;
use crate::data::cache_folder;
use crate::hardware::canary::Canary;
use crate::hardware::gpu::Gpu;
use crate::hardware::kind::Kind;
use crate::hardware::machine::{self, Machine, Probe, Rates};
use crate::hardware::probe::probe;
use crate::hardware::saving;
use crate::plan::{Plan, PlannedTrial};
use crate::report;
use crate::results::ResultsError;
use crate::results::lock::{Lock, lock_folder, lock_machine};
use crate::results::record::{Record, RunKey, SCHEMA_VERSION};
use crate::results::run::{Environment, Run, Variation, save_environment};
use crate::runner::learning::checkpoints;
use crate::runner::measurement::Status;
use crate::runner::team::Leader;
use crate::runner::{Options, Progress, Request, fault, run_trial, this_program};
use crate::scenario::Scenario;
use crate::sweep::patience::Patience;
use crate::sweep::resume::Found;
use crate::sweep::speed::Followed;
use crate::sweep::texts::Told;
use crate::sweep::{self, identity, past, planning, probing, resume, texts, unfinished};
use anyhow::Context;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;
use traces::Traces;

/// Measure the trials of a scenario, price them, write and show the report.
///
/// A run that was cut short goes on where it stopped when it is started again; a finished one is shown again. Started several times by
/// a launcher (`srun`, torchrun), the processes run every trial together.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Folder of the run [default: reports/<the scenario's name>].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What an hour of the hardware costs, in place of the scenario's price: USD, or an instance or device of the price book.
    #[arg(long, value_name = "USD_PER_HOUR|NAME", value_parser = priced, allow_negative_numbers = true)]
    price: Option<Priced>,
    /// Print the plan and stop, as `centime plan` does.
    #[arg(long)]
    dry_run: bool,
    /// Measure everything again; an old journal is moved aside.
    #[arg(long, visible_alias = "no-resume")]
    fresh: bool,
    /// Make no launch again, however much others on this machine disturbed it.
    #[arg(long)]
    once: bool,
    /// End with exit code 4 where the machine was too busy for an answer.
    #[arg(long)]
    strict: bool,
    /// Leave out the probe of the machine's limits; MFU and MBU are then n/a.
    #[arg(long)]
    no_probe: bool,
    /// Leave a trace of every trial in this folder: what each rank does in some steps after the measured ones, operation by operation.
    #[arg(long, value_name = "DIR")]
    trace: Option<PathBuf>,
    /// Leave event files of TensorBoard in this folder: throughput, loss, memory and USD spent over the steps of every cell.
    #[arg(long, value_name = "DIR")]
    tensorboard: Option<PathBuf>,
    /// Neither use nor keep what earlier runs on this machine say of how its runs differ.
    #[arg(long)]
    no_history: bool,
    #[command(flatten)]
    printed: Printed,
    /// Show no progress.
    #[arg(long, short)]
    quiet: bool,
}

/// How often a launch that others disturbed is made again.
const AGAIN: u32 = 2;

/// The command as it was typed.
pub(super) fn command_line() -> String {
    identity::command(std::env::args_os())
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    let scenario = scenario(a)?;
    if a.dry_run {
        let plan = super::plan::make(&scenario, None)?;
        return super::plan::print(&scenario, &plan, a.printed.format);
    }
    let world = super::launcher::world()?;
    if let Some(world) = world.clone().filter(|w| w.rank > 0) {
        return team::follow(a, &scenario, world);
    }
    let mut say = |text: String| eprintln!("{text}");
    if let Some(faults) = fault::requested() {
        say(format!("{} is set ({}): these figures are not measurements", fault::VARIABLE, faults.display()));
    }
    let out = a.out.clone().unwrap_or_else(|| Path::new("reports").join(&scenario.name));
    let processes = world.as_ref().map_or(1, |w| w.size);
    let waiting = world.map(team::wait_for_others).transpose()?;
    let _locks = occupy(&out)?;
    let interrupted =
        signals::interrupted_flag().context("installing the handlers of signals").map_err(Failure::Internal)?;

    let machine = machine::inspect();
    let version = identity::program_version().context("reading this program's own file").map_err(Failure::Io)?;
    let key = identity::key(&scenario, &machine, version, processes);
    let found = resume::look(&out, &key, a.fresh, &mut say).map_err(failure)?;
    if let Some(saving) = saving::power() {
        say(format!("warning: {saving}: clock rates are lower than they could be, and so are the figures"));
    }
    let probed = probe_once(a, &machine, &found, &mut say);
    let plan = super::plan::make(&scenario, probed.as_ref())?;
    let mut leader = waiting.map(|w| w.meet(&scenario, &plan, &key.program_version)).transpose()?;
    let done = finished_in(&plan, &found.records);
    if done > 0 {
        let what = if plan.rounds > 1 { "launches" } else { "trials" };
        say(format!("resuming: {done} of {} {what} are there", launches_in(&plan)));
    }
    let gpus = if found.gpus.is_empty() { planning::gpus(&scenario).unwrap_or_default() } else { found.gpus };
    let gpus = if a.no_probe { gpus } else { probing::probed(gpus, &mut say) };
    let history = past::file_of(&machine).filter(|_| !a.no_history && fault::requested().is_none());
    let before = history.as_deref().map(past::read).unwrap_or_default();
    let variation = found.variation.unwrap_or_else(|| past::variation(Kind::of_this_machine(), &before));
    // Under faults the machine is not what is measured; several nodes are not one.
    let canary = (probed.is_some() && processes == 1 && fault::requested().is_none()).then(|| Canary::of(&machine));
    let known = Known { probe: probed, gpus, variation, best_rates: past::best_rates(&before) };
    let environment = environment(&scenario, &plan, &key, machine, known, found.started_at);
    save_environment(&out, &environment).map_err(failure)?;
    let journal = resume::open(&out, &key, &mut say).map_err(failure)?;
    // Figures made under faults are no measurements that could be better.
    let again = if a.once || fault::requested().is_some() { 0 } else { AGAIN };
    let followed = Followed::by(canary.map(|c| Box::new(move || c.now()) as Box<_>));
    let traces = Traces::into(a.trace.as_deref())?;
    if done < launches_in(&plan) {
        texts::make(&plan.trials, cache_folder(), &interrupted, &mut |told| heard(told, a.quiet));
    }
    let how = How { done, quiet: a.quiet, again, followed, traces: &traces, out: &out };
    let outcome = measure(&scenario, &plan, found.records, journal, how, &interrupted, leader.as_mut())?;
    let broken = leader.as_ref().and_then(Leader::broken).map(String::from);
    leader.into_iter().for_each(Leader::end);
    let run = Run { environment, records: outcome.records };
    if let Some(file) = history.filter(|_| !outcome.interrupted && done < launches_in(&plan)) {
        // Without it later intervals are wider, and nothing else.
        let _ = past::keep(&file, past::of(&run));
    }
    print_run(&run, &scenario.book, &out, a.printed.format)?;
    traces.in_words().into_iter().for_each(say);
    let events = a.tensorboard.as_ref().map(|f| events::write(f, &run, &scenario.book)).transpose()?;
    events.into_iter().for_each(say);
    verdict(&run, outcome.interrupted, broken)?;
    let busy = report::busy(&run, &scenario.book).filter(|_| a.strict);
    busy.map_or(Ok(()), |again| Err(Failure::Inconclusive(format!("the machine was busy: measure again ({again})"))))
}

/// Shows what is told while texts are made.
pub(super) fn heard(told: Told, quiet: bool) {
    match told {
        Told::Stage(what) if !quiet => eprintln!("data: {what}"),
        Told::Stage(_) => {}
        Told::Warning(what) => eprintln!("warning: {what}"),
    }
}

fn scenario(a: &Arguments) -> Result<Scenario, Failure> {
    let mut selection = a.selection.clone();
    // As an override, so that a limit in USD counts with it.
    if let Some(Priced::Stated(price)) = a.price {
        selection.set.extend(["per_hour", "owned"].map(|way| format!("price.{way}=null")));
        selection.set.push(format!("price.usd_per_hour={}", price.get()));
    } else if a.price.as_ref().is_some_and(|p| *p != Priced::Kept) {
        // Any price stands for the one that is looked up below.
        selection.set.extend(["per_hour", "owned"].map(|way| format!("price.{way}=null")));
        selection.set.push("price.usd_per_hour=1".into());
    }
    let mut scenario = load(&selection)?;
    if let Some(typed) = &a.price {
        apply(&mut scenario.price, typed, &scenario.book, "given on the command line (--price)")?;
    }
    warn_if_stale(&scenario.price);
    Ok(scenario)
}

/// Makes the folder, and keeps other runs out of it and off this machine's processors.
fn occupy(out: &Path) -> Result<[Lock; 2], Failure> {
    std::fs::create_dir_all(out)
        .with_context(|| format!("{}: cannot be made a folder for the run; choose another with --out", out.display()))
        .map_err(Failure::Io)?;
    let alone = lock_machine().map_err(|error| match error {
        ResultsError::Locked { path, holder } => Failure::Locked(format!(
            "error: {}: another run is measuring on this machine ({holder}); wait for it, since two at once would measure each other",
            path.display()
        )),
        other => failure(other),
    })?;
    Ok([lock_folder(out).map_err(failure)?, alone])
}

/// The probe of this run: made once, kept for later sittings.
fn probe_once(a: &Arguments, machine: &Machine, found: &Found, say: &mut dyn FnMut(String)) -> Option<Probe> {
    if a.no_probe || found.probe.is_some() {
        return found.probe.clone();
    }
    if !a.quiet {
        say(format!("probing this machine ({}, {} cores)", machine.cpu_model, machine.cores));
    }
    Some(probe(machine))
}

/// Launches of the plan that have been made already.
fn finished_in(plan: &Plan, records: &[Record]) -> usize {
    let planned: HashSet<&str> = plan.trials.iter().map(|t| t.id.as_str()).collect();
    let ran = |r: &&Record| r.measurement.status != Status::Skipped && r.round < plan.rounds;
    let launches = records.iter().filter(ran).filter(|r| planned.contains(r.trial_id.as_str()));
    launches.map(|r| (&r.trial_id, r.round)).collect::<HashSet<_>>().len()
}

/// Launches of the whole plan; a trial that is left out counts as one.
fn launches_in(plan: &Plan) -> usize {
    let left_out = plan.trials.iter().filter(|t| t.skip.is_some()).count();
    left_out + (plan.trials.len() - left_out) * plan.rounds as usize
}

/// What is known of this machine beside its facts.
struct Known {
    probe: Option<Probe>,
    gpus: Vec<Gpu>,
    variation: Variation,
    best_rates: Option<Rates>,
}

fn environment(
    scenario: &Scenario,
    plan: &Plan,
    key: &RunKey,
    machine: Machine,
    known: Known,
    started_at: Option<String>,
) -> Environment {
    let mut trials: Vec<&PlannedTrial> = plan.trials.iter().collect();
    trials.sort_by_key(|t| t.cell_index);
    Environment {
        schema_version: SCHEMA_VERSION,
        scenario_name: scenario.name.clone(),
        description: scenario.description.clone(),
        axes: scenario.axes.clone(),
        requested_cells: trials.len() as u32,
        trial_ids: trials.iter().map(|t| t.id.clone()).collect(),
        measure: scenario.measure.clone(),
        price: scenario.price.clone(),
        program_version: key.program_version.clone(),
        machine,
        variation: Some(known.variation),
        probe: known.probe,
        best_rates: known.best_rates,
        gpus: known.gpus,
        started_at: started_at.unwrap_or_else(|| timestamp::rfc3339(SystemTime::now())),
        command: identity::command(std::env::args_os()),
    }
}

/// How the trials are measured and shown.
struct How<'a> {
    /// Launches that are there already.
    done: usize,
    quiet: bool,
    /// How often a disturbed launch is made again.
    again: u32,
    followed: Followed<'a>,
    traces: &'a Traces,
    /// The run's folder.
    out: &'a Path,
}

fn measure(
    scenario: &Scenario,
    plan: &Plan,
    records: Vec<Record>,
    mut journal: crate::results::journal::Journal,
    mut how: How,
    interrupted: &AtomicBool,
    mut leader: Option<&mut Leader>,
) -> Result<sweep::Outcome, Failure> {
    let program = this_program().context("finding this program's own file").map_err(Failure::Io)?;
    let options = Options { program, variables: Vec::new() };
    let mut display = progress::display(launches_in(plan), how.done, how.quiet);
    // Under faults others are part of what is tested.
    let mut patience = if fault::requested().is_some() { Patience::NONE } else { Patience::of(plan) };
    let (mut asked, mut losses) = (HashSet::new(), HashMap::new());
    let mut stage = sweep::Stage {
        measure: &mut |trial: &PlannedTrial, round: u32, progress: &mut dyn FnMut(Progress)| {
            // Once for all launches of a trial.
            let first = asked.insert(trial.id.clone());
            let mut options = if first { how.traces.of(trial, &options) } else { options.clone() };
            let kept = unfinished::folder_of(how.out, &trial.id, round);
            // Other processes may be elsewhere.
            let kept = if leader.is_some() { std::path::absolute(&kept).unwrap_or(kept) } else { kept };
            options.variables.push((checkpoints::VARIABLE.into(), kept.into()));
            let request = team::request(plan, trial, plan.measure.seed_of(round));
            let mut measurement = if let Some(leader) = &mut leader {
                leader.run(&trial.id, &request, &options, progress, interrupted)
            } else {
                let request = Request { patience_seconds: patience.next(), loss_change: first, ..request };
                let measurement = how.followed.around(|| run_trial(&request, &options, progress, interrupted));
                patience.spent(&measurement);
                measurement
            };
            unfinished::note(how.out, (&trial.id, round), &mut measurement);
            // What was computed beside the first launch stands for those that are made again in its place.
            if let Some(figures) = measurement.figures.as_mut() {
                match &figures.quantization_loss {
                    Some(known) => _ = losses.insert(trial.id.clone(), known.clone()),
                    None => figures.quantization_loss = losses.get(&trial.id).cloned(),
                }
            }
            measurement
        },
        append: &mut |record| journal.append(record).inspect(|()| unfinished::ended(how.out, record)),
        display: display.as_mut(),
        now: &|| timestamp::rfc3339(SystemTime::now()),
        interrupted,
        again: how.again,
    };
    sweep::sweep(plan, scenario.usd_per_hour(), records, &mut stage).map_err(failure)
}

/// Success only when every trial that was to run did.
fn verdict(run: &Run, interrupted: bool, broken: Option<String>) -> Result<(), Failure> {
    let count = |status| run.records.iter().filter(|r| r.measurement.status == status).count();
    let (kept, all) = (run.records.len() - count(Status::Cancelled), run.records.len());
    if let Some(why) = broken {
        return Err(team::broken(&why, kept, all));
    }
    if interrupted {
        return Err(Failure::Interrupted(format!(
            "interrupted: {kept} of {all} trials are kept; the same command goes on from there"
        )));
    }
    let failed = [Status::Oom, Status::Crashed, Status::Timeout, Status::Invalid];
    let parts: Vec<String> =
        failed.into_iter().filter(|s| count(*s) > 0).map(|s| format!("{} {}", count(s), s.name())).collect();
    if parts.is_empty() {
        return Ok(());
    }
    let total: usize = failed.into_iter().map(count).sum();
    Err(Failure::Partial(format!("{total} of {} trials failed: {}", run.records.len(), parts.join(", "))))
}
