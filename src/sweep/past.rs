//! Earlier runs on this machine: how its figures differ from run to run.
//!
//! A finished run leaves the medians of its trials in the user's cache folder, `centime/runs/<machine>.jsonl`, a line a run. From trials
//! that one build of the program measured in several runs follows the variance between runs; what is assumed of machines of the kind
//! counts as some runs beside it ([`Kind::spread`]). A file that cannot be read or written costs the history and nothing else.

use crate::hardware::kind::Kind;
use crate::hardware::machine::{Machine, Rates};
use crate::results::record::Record;
use crate::results::run::{Run, Variation};
use crate::runner::measurement::Status;
use crate::stats::{median, quantile};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Runs that are kept of a machine.
const KEPT: usize = 200;

/// Runs that are looked at, the newest: machines change.
const LOOKED_AT: usize = 50;

/// A normal standard deviation over a quantile of absolute deviations: the median, and the one that a tenth of them exceed.
const OF_MIDDLE: f64 = 1.4826;
const OF_TAIL: f64 = 1.0 / 1.6449;

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PastRun {
    pub started_at: String,
    /// Another build of the program is another one: what it changed is no difference between runs.
    pub program: String,
    /// How fast the machine was, in the median over the launches; not in runs of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
    /// By trial: the logarithm of its median step, and the variance between launches that is in it.
    pub trials: BTreeMap<String, (f64, f64)>,
}

/// Where the runs of a machine are kept; `None` where neither XDG_CACHE_HOME nor HOME is set.
pub(crate) fn file_of(machine: &Machine) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").filter(|p| p.is_absolute()).or_else(|| set("HOME").map(|h| h.join(".cache")))?;
    let key: String = Sha256::digest(machine.fingerprint()).iter().take(8).map(|b| format!("{b:02x}")).collect();
    Some(base.join("centime").join("runs").join(format!("{key}.jsonl")))
}

/// The runs in a file, oldest first; lines that are none are passed over.
pub(crate) fn read(file: &Path) -> Vec<PastRun> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
}

/// Adds a run, and drops the oldest where there are too many.
///
/// # Errors
/// Disk or permissions.
pub(crate) fn keep(file: &Path, run: PastRun) -> std::io::Result<()> {
    if run.trials.is_empty() {
        return Ok(());
    }
    let mut all: Vec<PastRun> = read(file).into_iter().filter(|r| r.started_at != run.started_at).collect();
    all.push(run);
    let lines = all.iter().skip(all.len().saturating_sub(KEPT)).map(serde_json::to_string);
    let text: String = lines.collect::<Result<Vec<_>, _>>()?.into_iter().map(|l| l + "\n").collect();
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Beside it and renamed: whoever reads meanwhile reads a whole file.
    let part = file.with_extension(format!("part{}", std::process::id()));
    std::fs::write(&part, text)?;
    std::fs::rename(&part, file)
}

/// What a finished run leaves.
pub(crate) fn of(run: &Run) -> PastRun {
    let spread = run.environment.variation().spread;
    // How another program's launches differ is that program's affair.
    let own = |r: &&Record| r.measurement.status == Status::Ok && r.cell.trial.engine.is_none();
    let trials = run.records.iter().filter(own).filter_map(|r| {
        let rounds = r.measurement.figures.as_ref()?.medians_of_launches();
        let logs: Vec<f64> = rounds.iter().map(|m| m.ln()).collect();
        let of_launches = spread.launch.powi(2) / logs.len().max(1) as f64;
        Some((r.trial_id.clone(), (median(&logs)?, of_launches)))
    });
    PastRun {
        started_at: run.environment.started_at.clone(),
        program: run.environment.program_version.clone(),
        rates: Rates::median(&run.records.iter().filter_map(Run::rates_of).collect::<Vec<_>>()),
        trials: trials.collect(),
    }
}

/// The best rates of the machine that earlier runs found, whatever program measured them.
pub(crate) fn best_rates(past: &[PastRun]) -> Option<Rates> {
    past.iter().rev().take(LOOKED_AT).filter_map(|r| r.rates).reduce(|a, b| a.best(&b))
}

/// How this machine's runs differ, from what it is and from its earlier runs.
pub(crate) fn variation(kind: Kind, past: &[PastRun]) -> Variation {
    let assumed = Variation::assumed(kind);
    let mut of_trial: HashMap<(&str, &str), Vec<(f64, f64)>> = HashMap::new();
    for run in past.iter().rev().take(LOOKED_AT) {
        for (trial, seen) in &run.trials {
            of_trial.entry((&run.program, trial)).or_default().push(*seen);
        }
    }
    let several: Vec<&Vec<(f64, f64)>> = of_trial.values().filter(|seen| seen.len() > 1).collect();
    // Trials of one run go up and down together: as many as there are runs are independent, whatever the number of trials.
    let Some(runs) = several.iter().map(|seen| seen.len()).max() else { return assumed };
    let deviations: Vec<f64> = several.iter().flat_map(|seen| deviations(seen)).collect();
    let launches = several.iter().flat_map(|seen| seen.iter().map(|s| s.1)).collect::<Vec<f64>>();
    let (Some(scale), Some(launch)) = (scale(deviations), median(&launches)) else { return assumed };
    let seen = (scale.powi(2) - launch).max(0.0);
    let (own, prior) = (runs as f64 - 1.0, assumed.spread.run_freedom);
    let run = ((own * seen + prior * assumed.spread.run.powi(2)) / (own + prior)).sqrt();
    let mut spread = assumed.spread;
    (spread.run, spread.run_freedom) = (run, own + prior);
    Variation { spread, runs: u32::try_from(runs).unwrap_or(u32::MAX), ..assumed }
}

/// The standard deviation of which the middle and the tails of these absolute deviations speak. A machine that changes its speed for
/// minutes, or a few cells that it changes more, have heavier tails than a normal distribution, and an interval ends in the tails; a
/// tenth of the runs may be wild without moving it.
fn scale(mut deviations: Vec<f64>) -> Option<f64> {
    deviations.sort_by(f64::total_cmp);
    Some((OF_MIDDLE * quantile(&deviations, 0.5)?).max(OF_TAIL * quantile(&deviations, 0.9)?))
}

/// How far each is from the mean of all, scaled to what single ones vary by.
fn deviations(seen: &[(f64, f64)]) -> Vec<f64> {
    let n = seen.len() as f64;
    let mean = seen.iter().map(|s| s.0).sum::<f64>() / n;
    seen.iter().map(|s| (s.0 - mean).abs() * (n / (n - 1.0)).sqrt()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn past(program: &str, moment: usize, values: &[f64]) -> PastRun {
        let trials = values.iter().enumerate().map(|(i, v)| (format!("t{i}"), (*v, 1e-6))).collect();
        PastRun { started_at: format!("2026-01-01T00:00:{moment:02}Z"), program: program.into(), rates: None, trials }
    }

    /// Runs of ten trials, a run's trials shifted together.
    fn runs(shifts: &[f64]) -> Vec<PastRun> {
        let of = |(i, shift): (usize, &f64)| past("a", i, &[*shift; 10]);
        shifts.iter().enumerate().map(of).collect()
    }

    #[test]
    fn without_runs_of_the_same_build_it_is_what_is_assumed_of_the_kind() {
        let kind = Kind::VirtualMachine;
        assert_eq!(variation(kind, &[]), Variation::assumed(kind));
        let other = [past("a", 0, &[1.0]), past("b", 1, &[2.0])];
        assert_eq!(variation(kind, &other), Variation::assumed(kind));
    }

    #[test]
    fn many_quiet_runs_narrow_it_and_many_wild_ones_widen_it() {
        let kind = Kind::VirtualMachine;
        let alternating = |by: f64| (0..20).map(|i| if i % 2 == 0 { by } else { -by }).collect::<Vec<_>>();
        let (quiet, wild) = (variation(kind, &runs(&alternating(0.002))), variation(kind, &runs(&alternating(0.1))));
        assert!(quiet.spread.run < 0.02 && quiet.runs == 20, "{quiet:?}");
        assert!(wild.spread.run > 0.1, "{wild:?}");
        assert_eq!(quiet.spread.run_freedom, 23.0);
        // Three runs move it a little.
        let few = variation(kind, &runs(&[0.0, 0.001, -0.001])).spread.run;
        assert!(few < 0.04 && few > quiet.spread.run, "{few}");
    }

    #[test]
    fn a_few_cells_that_the_machine_changes_more_widen_it_and_one_wild_run_does_not() {
        let kind = Kind::VirtualMachine;
        let spread = |of: &dyn Fn(usize, usize) -> f64| {
            let run = |i: usize| past("a", i, &(0..10).map(|cell| of(i, cell)).collect::<Vec<_>>());
            variation(kind, &(0..20).map(run).collect::<Vec<_>>()).spread.run
        };
        let alternating = |i: usize, by: f64| if i.is_multiple_of(2) { by } else { -by };
        let even = spread(&|i, _| alternating(i, 0.01));
        let uneven = spread(&|i, cell| alternating(i, if cell < 2 { 0.05 } else { 0.01 }));
        // Two cells of ten go up and down by 5 %: nine intervals of ten are to hold what they do too.
        assert!(uneven > 0.05 / 1.96 && uneven > 1.4 * even, "{uneven} against {even}");
        let one_wild = spread(&|i, _| if i == 7 { 0.5 } else { alternating(i, 0.01) });
        assert!(one_wild < 0.04, "{one_wild}");
    }

    #[test]
    fn the_best_rates_are_those_of_any_run_of_any_program() {
        let with = |rates: Option<(f64, f64)>| {
            let rates = rates.map(|(f, r)| Rates { f32_flops_per_second: f, read_bytes_per_second: r });
            PastRun { rates, ..past("a", 0, &[1.0]) }
        };
        let runs = [with(Some((2e11, 3e10))), with(None), PastRun { program: "b".into(), ..with(Some((1e11, 4e10))) }];
        assert_eq!(best_rates(&runs), Some(Rates { f32_flops_per_second: 2e11, read_bytes_per_second: 4e10 }));
        assert_eq!(best_rates(&runs[1..2]), None);
        let json = serde_json::to_string(&runs[1]).unwrap();
        assert!(!json.contains("rates") && serde_json::from_str::<PastRun>(&json).unwrap() == runs[1]);
    }

    #[test]
    fn a_run_is_kept_once_and_read_back_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/machine.jsonl");
        let run = of(&fixture::heads());
        assert!(!run.trials.is_empty());
        keep(&file, run.clone()).unwrap();
        keep(&file, run.clone()).unwrap();
        assert_eq!(read(&file), [run]);
        std::fs::write(&file, "torn {\n").unwrap();
        for i in 0..KEPT + 5 {
            keep(&file, past("a", i, &[1.0])).unwrap();
        }
        let kept = read(&file);
        assert_eq!((kept.len(), kept[0].started_at.as_str()), (KEPT, "2026-01-01T00:00:05Z"));
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no litter");
    }
}
