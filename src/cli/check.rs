//! `centime check`.

use super::Failure;
use super::load::{Selection, load};
use super::output::{print, report_failure, results_failure, stdout_style};
use super::price::warn_if_stale;
use super::table::{Format, Printed};
use crate::comparison::check::{Check, kept};
use crate::comparison::judge::{Rule, Verdict};
use crate::data::cache_folder;
use crate::experiment::design::{Baseline, Design};
use crate::experiment::stored::StoredError;
use crate::experiment::{duel, stored};
use crate::plan::PlannedTrial;
use crate::report::check as render;
use crate::results::lock::lock_machine;
use crate::runner::{fault, this_program};
use crate::scenario::{Scenario, budget};
use crate::sweep::texts;
use anyhow::{Context, anyhow};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// Say whether tokens got dearer, with a known error rate.
///
/// Against another build (`--baseline-bin`): launches of both in pairs, in one job on one machine, a coin deciding who goes
/// first; looks after 12, 16, 24, 32 and 48 pairs; false alarms in at most 1 % of checks, 5 % slowdowns caught in at least 95 %
/// of them on all machines that were simulated. Two forms of the scenario (`--head-set`, `--baseline-set`: another command, flag,
/// variable or shape on either side), so that a program of your own is gated: the same design and verdicts. Against a stored run
/// (`--baseline`): advisory. Without any of these, budgets alone.
///
/// Writes check.md (a comment for a pull request), check.json, junit.xml, bmf.json (Bencher) and benchmark.json
/// (github-action-benchmark).
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// The program to compare with: another build of centime.
    #[arg(long, value_name = "PROGRAM", conflicts_with = "baseline")]
    baseline_bin: Option<PathBuf>,
    /// A stored run to compare with: the advisory form.
    #[arg(long, value_name = "DIR")]
    baseline: Option<PathBuf>,
    /// A field of the scenario as the head has it: engine.command=[python3,new.py]. May be repeated.
    #[arg(long, value_name = "PATH=VALUE", conflicts_with_all = ["baseline", "baseline_bin"])]
    head_set: Vec<String>,
    /// A field of the scenario as the baseline has it. May be repeated.
    #[arg(long, value_name = "PATH=VALUE", conflicts_with_all = ["baseline", "baseline_bin"])]
    baseline_set: Vec<String>,
    /// Limits on cost, memory and latency of cells.
    #[arg(long, value_name = "FILE")]
    budget: Option<PathBuf>,
    /// Slowdown up to which tokens may get dearer, as a share.
    #[arg(long, value_name = "SHARE", default_value_t = 0.02, value_parser = share)]
    tolerance: f64,
    /// Slowdown that a cell has to exclude to pass, as a share.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share)]
    detect: f64,
    /// Seconds that each launch measures.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
    seconds: f64,
    /// Most pairs of a cell: the looks up to it are kept.
    #[arg(long, value_name = "N", default_value_t = 48)]
    max_pairs: usize,
    /// Fail (exit code 4) when nothing can be concluded, and when an advisory comparison alarms.
    #[arg(long)]
    strict: bool,
    /// Seed of the coin and of the order.
    #[arg(long, value_name = "N", default_value_t = 0)]
    check_seed: u64,
    /// The program that is checked, where it is not this one.
    #[arg(long, value_name = "PROGRAM", hide = true)]
    head_bin: Option<PathBuf>,
    /// What the report calls the baseline, where its file's name says little (`ci/check` gives the commit).
    #[arg(long, value_name = "NAME", hide = true)]
    baseline_name: Option<String>,
    /// What the report tells readers to type, where it is not this command line.
    #[arg(long, value_name = "COMMAND", hide = true)]
    reproduce: Option<String>,
    /// Where the files go.
    #[arg(long, value_name = "DIR", default_value = "reports/check")]
    out: PathBuf,
    #[command(flatten)]
    printed: Printed,
    /// Show no progress.
    #[arg(long, short)]
    quiet: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let x: Option<f64> = text.parse().ok().filter(|x| *x > 0.0 && *x < 1.0);
    x.ok_or_else(|| "expected a share above 0 and below 1, such as 0.05".into())
}

/// The scenario with these fields, and its trials in the order of execution.
fn planned(a: &Arguments, set: &[String]) -> Result<(Scenario, Vec<PlannedTrial>), Failure> {
    let mut selection = a.selection.clone();
    selection.set.extend_from_slice(set);
    let scenario = load(&selection)?;
    let plan = super::plan::make(&scenario, None)?;
    Ok((scenario, plan.trials))
}

/// The two forms of the scenario: their trials, each cell's as the head and as the baseline has it, and what the baseline is called.
fn against_trials(a: &Arguments, head: &mut Vec<PlannedTrial>) -> Result<Baseline, Failure> {
    let (_, base) = planned(a, &a.baseline_set)?;
    let cells = |trials: &[PlannedTrial]| {
        let mut all: Vec<_> = trials.iter().map(|t| (t.cell_index, t.cell.coordinates.clone())).collect();
        all.sort_unstable();
        all
    };
    if cells(head) != cells(&base) {
        return Err(Failure::Usage(anyhow!(
            "expected the same cells on both sides, found {} of the head and {} of the baseline that differ; change fields of the trial, \
             not the sweep",
            head.len(),
            base.len()
        )));
    }
    let mut trials = Vec::new();
    head.retain(|t| {
        let other = base.iter().find(|b| b.cell_index == t.cell_index && b.skip.is_none() && t.skip.is_none());
        trials.extend(other.cloned());
        other.is_some()
    });
    Ok(Baseline::Trials { trials, name: form(&a.baseline_set) })
}

/// What a form of the scenario is called.
fn form(set: &[String]) -> String {
    if set.is_empty() { "the scenario as it is".into() } else { set.join(", ") }
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    let (scenario, mut trials) = planned(a, &a.head_set)?;
    let budgets = a.budget.as_ref().map(|f| budget::load(f).map_err(|e| Failure::yaml(&e))).transpose()?;
    if !(a.seconds > 0.0 && a.seconds <= 3600.0) {
        return Err(Failure::Usage(anyhow!("--seconds: expected a number above 0, up to 3600")));
    }
    let all = Rule::default().looks;
    let looks: Vec<usize> = all.iter().copied().filter(|n| *n <= a.max_pairs).collect();
    if looks.is_empty() || a.tolerance >= a.detect {
        return Err(Failure::Usage(anyhow!(
            "at least {} pairs are needed for a verdict (--max-pairs), and --tolerance has to be below --detect",
            all[0]
        )));
    }
    warn_if_stale(&scenario.price);
    let forms = !(a.head_set.is_empty() && a.baseline_set.is_empty());
    let baseline = match &a.baseline_bin {
        Some(program) => Some(Baseline::Build(program.clone())),
        None if forms => Some(against_trials(a, &mut trials)?),
        None => None,
    };
    trials.retain(|t| t.skip.is_none());
    if trials.is_empty() {
        return Err(Failure::Usage(anyhow!("{}: every trial is skipped; nothing can be checked", scenario.name)));
    }
    if let Some(faults) = fault::requested() {
        eprintln!("{} is set ({}): these figures are not measurements", fault::VARIABLE, faults.display());
    }
    let head = match &a.head_bin {
        Some(program) => program.clone(),
        None => this_program().context("finding this program's own file").map_err(Failure::Io)?,
    };
    let rule = Rule { looks, tolerance: a.tolerance, detect: a.detect, ..Rule::default() };
    let design = Design {
        trials,
        scenario,
        rule,
        head,
        own_head: a.head_bin.is_none(),
        launch_seconds: a.seconds,
        seed: a.check_seed,
        file: a.selection.file.clone(),
        set: a.selection.set.clone(),
        baseline_name: a.baseline_name.clone(),
        head_name: forms.then(|| form(&a.head_set)),
        command: a.reproduce.clone().unwrap_or_else(super::run::command_line),
    };
    let _alone = lock_machine().map_err(results_failure)?;
    let mut say = |text: String| {
        if !a.quiet {
            eprintln!("{text}");
        }
    };
    let base_trials = match &baseline {
        Some(Baseline::Trials { trials, .. }) => trials.as_slice(),
        _ => &[],
    };
    let texts_of = design.trials.iter().chain(base_trials);
    texts::make(texts_of, cache_folder(), &AtomicBool::new(false), &mut |told| super::run::heard(told, a.quiet));
    let mut check = match (&baseline, &a.baseline) {
        (Some(baseline), _) => duel::check(&design, baseline, &mut say),
        (None, Some(folder)) => stored::check(&design, folder).map_err(failure)?,
        (None, None) => stored::first(&design),
    };
    // By their fields as well, as budgets named cells before they had one name everywhere.
    let by_fields = |id: &str| design.trials.iter().find(|t| t.id == id).map(|t| t.cell.name_by_fields());
    check.budgets = kept(&budgets.unwrap_or_default(), &check.cells, by_fields);
    render::publish(&check, &a.out).map_err(report_failure)?;
    match a.printed.format {
        Format::Json => print(&render::json(&check))?,
        Format::Markdown => print(&render::markdown(&check))?,
        Format::Csv => print(&render::csv(&check))?,
        Format::Table => print(&format!(
            "{}\nreport: {}",
            render::terminal(&check, stdout_style()),
            a.out.join("check.md").display()
        ))?,
    }
    verdict(&check, a.strict)
}

fn failure(e: StoredError) -> Failure {
    match e {
        StoredError::Results(e) => results_failure(e),
        e @ StoredError::NothingInCommon { .. } => Failure::Usage(e.into()),
    }
}

fn verdict(check: &Check, strict: bool) -> Result<(), Failure> {
    if check.over_budget() > 0 {
        return Err(Failure::Budget(format!(
            "{} of {} budgets are exceeded",
            check.over_budget(),
            check.budgets.len()
        )));
    }
    match check.verdict {
        Verdict::Regression if !check.advisory || strict => {
            let n = check.counted(Verdict::Regression);
            Err(Failure::Regression(format!("REGRESSION: {n} of {} cells got dearer", check.cells.len())))
        }
        _ if check.failed() > 0 => {
            Err(Failure::Partial(format!("{} of {} cells could not be measured", check.failed(), check.cells.len())))
        }
        Verdict::Inconclusive if strict => Err(Failure::Inconclusive("INCONCLUSIVE: nothing can be concluded".into())),
        _ => Ok(()),
    }
}
