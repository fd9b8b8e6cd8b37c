//! Two programs on one machine in one job: fresh launches in pairs, a coin for who goes first, looks in between.

use super::{Job, shown};
use crate::cli::Failure;
use crate::comparison::check::{Cell, Check, Side, median};
use crate::comparison::guards::of_gpus;
use crate::comparison::judge::{Verdict, control_alarms};
use crate::plan::PlannedTrial;
use crate::runner::ask::ask;
use crate::runner::measurement::{Figures, Status};
use crate::runner::{Options, Request, run_trial};
use crate::scenario::{Measure, Price};
use crate::transformer::Phase;
use crate::units::{Share, TokensPerSecond};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// More steal than this, and what was timed is the hypervisor.
const MOST_STEAL: f64 = 0.02;
/// Launches of a cell that may fail before it is given up.
const MOST_FAILURES: usize = 2;
/// Two-sided error rate of the control arm.
const CONTROL_ALPHA: f64 = 0.002;

/// One launch's figures.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub tokens_per_second: f64,
    pub figures: Figures,
}

/// Seeded coins and shuffles (SplitMix64: Steele, Lea & Flood 2014).
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// A fresh process of a program for one trial: its figures, or why there are none. The environment is padded by up to 4095
/// random bytes, so that where the stack lies is not the same for all launches of a program (Mytkowicz et al. 2009).
pub(super) fn launch(job: &Job, program: &Path, trial: &PlannedTrial, random: &mut Random) -> Result<Launch, String> {
    let seconds = job.arguments.seconds;
    let measure =
        Measure { precision: 0.5, min_seconds: seconds, max_seconds: 2.0 * seconds, ..job.scenario.measure.clone() };
    let request = Request { trial: trial.cell.trial.clone(), measure, predicted_memory: trial.memory };
    let padding = "x".repeat(random.below(4096));
    let variables = vec![(OsString::from("CENTIME_PADDING"), OsString::from(padding))];
    let options = Options { program: program.to_path_buf(), variables };
    let m = run_trial(&request, &options, &mut |_| {}, &AtomicBool::new(false));
    match (m.status, m.figures) {
        (Status::Ok, Some(figures)) => {
            let step = median(&figures.step_seconds).filter(|s| *s > 0.0).ok_or("no step was timed")?;
            let tokens_per_second = figures.tokens_per_step as f64 / step;
            Ok(Launch { tokens_per_second, figures })
        }
        (status, _) => Err(format!("{}: {}", status.name(), m.reason)),
    }
}

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

pub(super) fn check(job: &Job, baseline: &Path) -> Result<Check, Failure> {
    let mut random = Random::new(job.arguments.check_seed ^ 0x5DEE_CE66_D1CE_4E5B);
    let mut seen: Vec<Seen> = job.trials.iter().map(|_| Seen::default()).collect();
    let programs: [PathBuf; 2] = [baseline.to_path_buf(), job.head.clone()];
    let mut control = Vec::new();
    let say = |text: String| {
        if !job.arguments.quiet {
            eprintln!("{text}");
        }
    };
    let cells = seen.len();
    // One launch of each side that does not count: files are in memory after it.
    for program in &programs {
        if let Err(why) = launch(job, program, &job.trials[0], &mut random) {
            say(format!("the first launch of {} failed ({why})", shown(program)));
        }
    }
    for round in 1..=job.rule.most_pairs() {
        let mut open: Vec<usize> = (0..cells).filter(|c| seen[*c].decided.is_none() && !seen[*c].failed).collect();
        if open.is_empty() {
            break;
        }
        for i in (1..open.len()).rev() {
            open.swap(i, random.below(i + 1));
        }
        for &c in &open {
            pair(job, &programs, c, &mut seen[c], &mut random);
        }
        // The control arm: the baseline against itself, one cell a round.
        let c = open[random.below(open.len())];
        if let (Ok(a), Ok(b)) = (
            launch(job, &programs[0], &job.trials[c], &mut random),
            launch(job, &programs[0], &job.trials[c], &mut random),
        ) {
            let y = (a.tokens_per_second / b.tokens_per_second).ln();
            control.push(if random.coin() { y } else { -y });
        }
        if job.rule.looks.contains(&round) {
            let open: Vec<usize> = open.into_iter().filter(|c| !seen[*c].failed).collect();
            let pairs: Vec<&[f64]> = open.iter().map(|c| seen[*c].y.as_slice()).collect();
            let decided = job.rule.look(&pairs, cells);
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
    let plans = exact_plan(job, baseline);
    if let Err(why) = &plans {
        say(format!("the baseline's own counts are not known ({why}); its figures are compared alone"));
    }
    let plans = plans.unwrap_or_default();
    let measured: Vec<Cell> = seen.iter().enumerate().map(|(c, s)| cell(job, c, s, &plans)).collect();
    let method = job.method(shown(baseline), control.len(), steal);
    Ok(Check {
        version: 1,
        scenario: job.scenario.name.clone(),
        verdict: Check::conclude(&measured, &guards),
        advisory: false,
        cells: measured,
        budgets: Vec::new(),
        guards,
        remarks: gpus.remarks,
        price_change: None,
        method,
    })
}

fn pair(job: &Job, programs: &[PathBuf; 2], c: usize, seen: &mut Seen, random: &mut Random) {
    let head_first = random.coin();
    let order = if head_first { [1, 0] } else { [0, 1] };
    let mut of = [None, None];
    for side in order {
        match launch(job, &programs[side], &job.trials[c], random) {
            Ok(launch) => of[side] = Some(launch),
            Err(why) => seen.failures.push(format!("{}: {why}", ["baseline", "head"][side])),
        }
    }
    if let [Some(base), Some(head)] = of {
        seen.y.push((base.tokens_per_second / head.tokens_per_second).ln());
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

fn exact_plan(job: &Job, baseline: &Path) -> Result<Counts, String> {
    let file = job.arguments.selection.file.display().to_string();
    let mut arguments = vec!["plan", file.as_str(), "--format", "json"];
    for set in &job.arguments.selection.set {
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

fn cell(job: &Job, c: usize, seen: &Seen, counts: &Counts) -> Cell {
    let trial = &job.trials[c];
    let failure = seen.failed.then(|| seen.failures.first().cloned().unwrap_or_default());
    Cell {
        trial_id: trial.id.clone(),
        name: job.names[c].clone(),
        base: side(&job.scenario.price, trial, &seen.base),
        head: side(&job.scenario.price, trial, &seen.head),
        judged: job.rule.judged(&seen.y, seen.decided.filter(|_| !seen.failed), job.trials.len()),
        findings: findings(trial, seen, counts),
        failure,
    }
}

/// What has to be the same and is not.
fn findings(trial: &PlannedTrial, seen: &Seen, counts: &Counts) -> Vec<String> {
    let mut found = Vec::new();
    let mut differs = |what: &str, a: u64, b: u64| {
        if a != b {
            found.push(format!("{what}: {a} before, {b} now"));
        }
    };
    if let Some((parameters, flops)) = counts.get(&trial.id) {
        differs("parameters", *parameters, trial.parameters);
        differs("FLOPs of a step", *flops, trial.flops_per_step.get());
    }
    if let (Some(a), Some(b)) = (seen.base.first(), seen.head.first()) {
        differs("tokens of a step", a.figures.tokens_per_step, b.figures.tokens_per_step);
        if trial.cell.trial.backend.repeats_bits() {
            differs("checksum of the output", a.figures.checksum.into(), b.figures.checksum.into());
        }
        let bytes = |all: &[Launch]| all.iter().map(|l| l.figures.peak_allocated_bytes).min().unwrap_or(0);
        differs("bytes allocated at most", bytes(&seen.base), bytes(&seen.head));
    }
    found
}

/// Medians of one side's launches.
pub(super) fn side(price: &Price, trial: &PlannedTrial, launches: &[Launch]) -> Side {
    let of = |f: &dyn Fn(&Launch) -> Option<f64>| median(&launches.iter().filter_map(f).collect::<Vec<_>>());
    let w = &trial.cell.trial.workload;
    let tokens_per_second = of(&|l| Some(l.tokens_per_second));
    let step = |l: &Launch| median(&l.figures.step_seconds);
    let cost = tokens_per_second.and_then(|t| {
        let hour = price.for_devices(trial.cell.trial.devices)?;
        crate::cost::price::usd_per_million_tokens(hour, TokensPerSecond(t), price.utilisation).ok()
    });
    Side {
        tokens_per_second,
        usd_per_million_tokens: cost.map(|c| c.get()),
        peak_memory_bytes: of(&|l| Some(l.figures.peak_rss_bytes as f64)),
        ttft_seconds: match w.phase {
            Phase::Prefill => of(&step),
            Phase::Generate => of(&|l| median(&l.figures.first_token_seconds)),
            Phase::Train | Phase::Decode => None,
        },
        tpot_seconds: match w.phase {
            Phase::Decode => of(&step),
            Phase::Generate if w.new_tokens > 1 => of(&|l| {
                let rest = step(l)? - median(&l.figures.first_token_seconds)?;
                Some(rest / f64::from(w.new_tokens - 1))
            }),
            _ => None,
        },
    }
}
