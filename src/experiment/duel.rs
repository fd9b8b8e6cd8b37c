//! Two programs on one machine in one job: fresh launches in pairs, a coin for who goes first, looks in between.

use super::design::{Baseline, Design, shown};
use super::launch::{Launch, launch, one_figure, side};
use super::learning;
use crate::comparison::check::{Check, CheckedCell};
use crate::comparison::guards::of_gpus;
use crate::comparison::judge::{Verdict, control_alarms};
use crate::plan::PlannedTrial;
use crate::runner::ask::ask;
use crate::stats::random::SplitMix64;
use crate::units::Share;
use std::collections::HashMap;
use std::path::Path;

/// More steal than this, and what was timed is the hypervisor.
const MOST_STEAL: f64 = 0.02;
/// Launches of a cell that may fail before it is given up.
const MOST_FAILURES: usize = 2;
/// Two-sided error rate of the control arm.
const CONTROL_ALPHA: f64 = 0.002;

/// What is known of a cell so far.
#[derive(Default)]
struct Seen {
    /// ln(throughput of the baseline / of the head), pair by pair.
    y: Vec<f64>,
    base: Vec<Launch>,
    head: Vec<Launch>,
    failures: Vec<String>,
    decided: Option<Verdict>,
    failed: bool,
}

/// The two sides of a check, baseline and head: which program runs which trials.
struct Sides<'a> {
    programs: [&'a Path; 2],
    trials: [&'a [PlannedTrial]; 2],
}

impl<'a> Sides<'a> {
    fn of(design: &'a Design, baseline: &'a Baseline) -> Self {
        let (program, trials) = match baseline {
            Baseline::Build(program) => (program.as_path(), design.trials.as_slice()),
            Baseline::Trials { trials, .. } => (design.head.as_path(), trials.as_slice()),
        };
        Self { programs: [program, &design.head], trials: [trials, &design.trials] }
    }

    /// A fresh launch of one side's cell, with the seed of a round.
    fn launch(
        &self,
        design: &Design,
        side: usize,
        (c, round): (usize, u32),
        random: &mut SplitMix64,
    ) -> Result<Launch, String> {
        launch(design, self.programs[side], &self.trials[side][c], round, random)
    }

    /// One launch of each side that does not count: files are in memory after it. Of programs that are launched for every figure one
    /// of each cell, since they do not warm up within a launch.
    fn warm_up(&self, design: &Design, random: &mut SplitMix64, say: &mut dyn FnMut(String)) {
        for (side, trials) in self.trials.iter().enumerate() {
            for (c, trial) in trials.iter().enumerate() {
                if c > 0 && !one_figure(trial) {
                    continue;
                }
                if let Err(why) = self.launch(design, side, (c, 0), random) {
                    say(format!("the first launch of {} failed ({why})", shown(self.programs[side])));
                }
            }
        }
    }
}

/// Launches of both sides in pairs until every cell is decided or there have been enough of them.
pub(crate) fn check(design: &Design, baseline: &Baseline, say: &mut dyn FnMut(String)) -> Check {
    let mut random = SplitMix64::new(design.seed ^ 0x5DEE_CE66_D1CE_4E5B);
    let mut seen: Vec<Seen> = design.trials.iter().map(|_| Seen::default()).collect();
    let sides = Sides::of(design, baseline);
    let mut control = Vec::new();
    let cells = seen.len();
    sides.warm_up(design, &mut random, say);
    for round in 1..=design.rule.most_pairs() {
        let mut open: Vec<usize> = (0..cells).filter(|c| seen[*c].decided.is_none() && !seen[*c].failed).collect();
        if open.is_empty() {
            break;
        }
        random.shuffle(&mut open);
        for &c in &open {
            pair(design, &sides, c, &mut seen[c], &mut random);
        }
        // The control arm: the baseline against itself, one cell a round.
        let c = open[random.below(open.len())];
        if let (Ok(a), Ok(b)) =
            (sides.launch(design, 0, (c, 0), &mut random), sides.launch(design, 0, (c, 0), &mut random))
        {
            let y = (a.pace / b.pace).ln();
            control.push(if random.coin() { y } else { -y });
        }
        if design.rule.looks.contains(&round) {
            let open: Vec<usize> = open.into_iter().filter(|c| !seen[*c].failed).collect();
            let pairs: Vec<&[f64]> = open.iter().map(|c| seen[*c].y.as_slice()).collect();
            let decided = design.rule.look(&pairs, cells);
            for (c, verdict) in open.into_iter().zip(decided) {
                seen[c].decided = verdict;
            }
            let left = seen.iter().filter(|s| s.decided.is_none() && !s.failed).count();
            say(format!("after {round} pairs: {} of {cells} cells decided", cells - left));
        }
    }
    let steal = mean_steal(&seen);
    let mut guards = Vec::new();
    if control_alarms(&control, CONTROL_ALPHA) {
        guards.push(
            "the control arm alarms: the baseline differs from itself, so the machine cannot be trusted".to_string(),
        );
    }
    if let Some(share) = steal.filter(|s| *s > MOST_STEAL) {
        guards.push(format!("the hypervisor took {} of the time; over 2 % nothing is concluded", Share(share)));
    }
    let launches = seen.iter().flat_map(|s| s.base.iter().chain(&s.head));
    let gpus = of_gpus(launches.filter_map(|l| l.figures.telemetry.as_ref()));
    guards.extend(gpus.guards);
    let (counts, name) = match baseline {
        Baseline::Build(program) => {
            let counts = exact_plan(design, program);
            if let Err(why) = &counts {
                say(format!("the baseline's own counts are not known ({why}); its figures are compared alone"));
            }
            (Some(counts.unwrap_or_default()), shown(program))
        }
        // What was changed may change them.
        Baseline::Trials { name, .. } => (None, name.clone()),
    };
    let measured: Vec<CheckedCell> =
        seen.iter().enumerate().map(|(c, s)| cell(design, c, s, counts.as_ref())).collect();
    let method = design.method(name, control.len(), steal);
    Check {
        version: 1,
        scenario: design.scenario.name.clone(),
        verdict: Check::conclude(&measured, &guards),
        advisory: false,
        cells: measured,
        budgets: Vec::new(),
        guards,
        remarks: gpus.remarks,
        price_change: None,
        method,
    }
}

fn pair(design: &Design, sides: &Sides, c: usize, seen: &mut Seen, random: &mut SplitMix64) {
    let head_first = random.coin();
    let order = if head_first { [1, 0] } else { [0, 1] };
    let mut of = [None, None];
    // Both of a pair have the same seed.
    let round = u32::try_from(seen.y.len()).unwrap_or(u32::MAX);
    for side in order {
        match sides.launch(design, side, (c, round), random) {
            Ok(launch) => of[side] = Some(launch),
            Err(why) => seen.failures.push(format!("{}: {why}", ["baseline", "head"][side])),
        }
    }
    if let [Some(base), Some(head)] = of {
        seen.y.push((base.pace / head.pace).ln());
        seen.base.push(base);
        seen.head.push(head);
    }
    seen.failed = seen.failures.len() > MOST_FAILURES;
}

fn mean_steal(seen: &[Seen]) -> Option<f64> {
    let all: Vec<f64> =
        seen.iter().flat_map(|s| s.base.iter().chain(&s.head)).filter_map(|l| l.figures.steal_share).collect();
    (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
}

/// Parameters and FLOPs of each trial by the baseline's own count.
type Counts = HashMap<String, (u64, u64)>;

fn exact_plan(design: &Design, baseline: &Path) -> Result<Counts, String> {
    let file = design.file.display().to_string();
    let mut arguments = vec!["plan", file.as_str(), "--format", "json"];
    for set in &design.set {
        arguments.extend(["--set", set.as_str()]);
    }
    let text = ask(baseline, &arguments).map_err(|e| e.to_string())?;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let row = |r: &serde_json::Value| {
        let id = r.get("trial")?.as_str()?.to_string();
        Some((id, (r.get("parameters")?.as_u64()?, r.get("flops_per_step")?.as_u64()?)))
    };
    Ok(rows.iter().filter_map(row).collect())
}

fn cell(design: &Design, c: usize, seen: &Seen, counts: Option<&Counts>) -> CheckedCell {
    let trial = &design.trials[c];
    let failure = seen.failed.then(|| seen.failures.first().cloned().unwrap_or_default());
    let mut judged = design.rule.judged(&seen.y, seen.decided.filter(|_| !seen.failed), design.trials.len());
    let mut findings = findings(trial, seen, counts);
    if let Some(what) = learning::worse(trial, &seen.base, &seen.head) {
        judged.verdict = Verdict::Regression;
        findings.push(what);
    }
    CheckedCell {
        trial_id: trial.id.clone(),
        name: trial.cell.name(),
        base: side(&design.scenario.price, trial, &seen.base),
        head: side(&design.scenario.price, trial, &seen.head),
        judged,
        findings,
        failure,
    }
}

/// What has to be the same and is not: of two builds everything that is counted, of two forms of a scenario the tokens of a step.
fn findings(trial: &PlannedTrial, seen: &Seen, counts: Option<&Counts>) -> Vec<String> {
    let mut found = Vec::new();
    let mut differs = |what: &str, a: u64, b: u64| {
        if a != b {
            found.push(format!("{what}: {a} before, {b} now"));
        }
    };
    if let Some((parameters, flops)) = counts.and_then(|c| c.get(&trial.id)) {
        differs("parameters", *parameters, trial.parameters);
        differs("FLOPs of a step", *flops, trial.flops_per_step.get());
    }
    if let (Some(a), Some(b)) = (seen.base.first(), seen.head.first()) {
        differs("tokens of a step", a.figures.tokens_per_step, b.figures.tokens_per_step);
        if counts.is_none() {
            return found;
        }
        if trial.cell.trial.backend.repeats_bits() {
            differs("checksum of the output", a.figures.checksum.into(), b.figures.checksum.into());
        }
        // At the end of a trial they depend on how many steps there was time for: caches fill. Older programs tell only those.
        let bytes = |all: &[Launch]| all.iter().filter_map(|l| l.figures.first_allocated_bytes).min();
        if let (Some(a), Some(b)) = (bytes(&seen.base), bytes(&seen.head)) {
            differs("bytes allocated at most by the second step", a, b);
        }
    }
    found
}
