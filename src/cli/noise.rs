//! `centime doctor --noise`: what this machine's noise lets a check see.

use super::Failure;
use super::table::{Format, Rows};
use crate::comparison::judge::Rule;
use crate::comparison::noise::{Grade, resolved};
use crate::hardware::disturbance::{clock_mhz, disturbances, load_average};
use crate::hardware::machine::{self, CpuTimes};
use crate::runner::watch::judged::Judged;
use crate::runner::{Options, Request, run_trial, this_program};
use crate::scenario::Measure;
use crate::scenario::trial::Trial;
use crate::stats::median;
use crate::transformer::memory::MemoryParts;
use crate::transformer::shape::{Family, Shape, ShapeSpec};
use crate::transformer::{BackendKind, Dtype, OptimizerKind, Phase, WeightFormat, Workload};
use crate::units::{Seconds, Share};
use anyhow::{Context, anyhow};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// All of it takes less.
const LONGEST: Duration = Duration::from_secs(16);
/// Launches that are enough.
const LAUNCHES: usize = 80;
/// Seconds that each measures.
const SECONDS: f64 = 0.06;

/// Launches a small training trial again and again, and says what the differences allow.
pub(super) fn run(format: Format) -> Result<(), Failure> {
    let m = machine::inspect();
    let steal = CpuTimes::now();
    let (load, clock_before) = (load_average(), clock_mhz());
    let began = Instant::now();
    let mut rates: Vec<f64> = Vec::new();
    let mut seen = Vec::new();
    let request = request(m.cores)?;
    let program = this_program().context("finding this program's own file").map_err(Failure::Io)?;
    let options = Options { program, variables: Vec::new() };
    while rates.len() < LAUNCHES && began.elapsed() < LONGEST {
        let measurement = run_trial(&request, &options, &mut |_| {}, &AtomicBool::new(false));
        seen.extend(measurement.figures.as_ref().and_then(|f| f.disturbance.clone()));
        let step = measurement.figures.as_ref().and_then(|f| median(&f.step_seconds)).filter(|s| *s > 0.0);
        match step {
            Some(s) => rates.push(-s.ln()),
            None => return Err(Failure::Internal(anyhow!("a launch gave no figures: {}", measurement.reason))),
        }
    }
    // The first launch finds its files not yet in memory.
    rates.remove(0);
    let differences: Vec<f64> = rates.chunks_exact(2).map(|p| p[0] - p[1]).collect();
    let rule = Rule::default();
    let found = resolved(&differences, &rule);
    let mut rows = Rows::new(&["topic", "item", "value", "note"]);
    let mut say = |topic: &str, item: &str, value: String, note: String| {
        rows.push([topic.to_string(), item.to_string(), value, note].map(Into::into).to_vec());
    };
    let mut sorted = rates.clone();
    sorted.sort_by(f64::total_cmp);
    let at = |p: f64| sorted[((sorted.len() - 1) as f64 * p).round() as usize];
    let seconds = began.elapsed().as_secs_f64();
    let launches = format!("{} fresh launches of one small training trial in {}", sorted.len(), Seconds(seconds));
    say("noise", "grade", Grade::of(&found, &rule).name().into(), launches);
    let spread = Share((at(0.9) - at(0.1)).exp_m1()).to_string();
    say("noise", "spread", spread, "10th to 90th percentile of the launches' throughput".into());
    let far = Share((sorted[sorted.len() - 1] - sorted[0]).exp_m1()).to_string();
    say("noise", "range", far, "slowest to fastest launch".into());
    let judged = Judged::of(seen.iter());
    let lost = judged.together.as_ref().and_then(|t| t.lost()).map_or("n/a".into(), |l| Share(l).to_string());
    say("noise", "lost", lost, judged.in_short("launches"));
    let half = rates.len() / 2;
    let drift = median(&rates[half..]).zip(median(&rates[..half])).map_or(0.0, |(b, a)| (b - a).exp_m1());
    say("noise", "drift", format!("{:+.1} %", drift * 100.0), "second half of the launches against the first".into());
    let stolen = steal.and_then(|s| s.steal_since());
    let words = "time that the hypervisor gave to others; over 2 % no verdict is reached".to_string();
    say("noise", "steal", stolen.map_or("n/a".into(), |s| Share(s).to_string()), words);
    let clocks: Vec<(f64, f64)> = clock_before.into_iter().chain(clock_mhz()).collect();
    let (low, high) = clocks.iter().fold((f64::INFINITY, 0.0_f64), |(l, h), c| (l.min(c.0), h.max(c.1)));
    let clock = if clocks.is_empty() { "n/a".to_string() } else { format!("{low:.0} .. {high:.0} MHz") };
    say("noise", "frequency", clock, "clock of the cores before and after, as the kernel reports it".into());
    let load = load.map_or("n/a".to_string(), |l| format!("{l:.2} of {}", m.cores));
    say("noise", "other load", load, "load average of the minute before: 0 where nothing else computes".into());
    for r in &found {
        let value = r.pairs.map_or("not resolved".into(), |n| format!("in {n} pairs"));
        let note = format!("a slowdown of {} is caught in at least 95 % of checks", Share(r.slowdown));
        say("resolves", &Share(r.slowdown).to_string(), value, note);
    }
    for d in disturbances(m.cores) {
        say("warning", "", d.what, d.remedy.into());
    }
    rows.print(format)
}

fn request(cores: u32) -> Result<Request, Failure> {
    let spec = ShapeSpec {
        n_layers: Some(2),
        d_model: Some(128),
        n_heads: Some(4),
        vocab_size: Some(1024),
        context: Some(64),
        ..ShapeSpec::default()
    };
    let shape = Shape::new(Family::Gpt2, &spec).map_err(|e| Failure::Internal(anyhow!("{e}")))?;
    let workload = Workload {
        shape,
        phase: Phase::Train,
        batch: 2,
        seq_len: 64,
        prompt_len: 0,
        new_tokens: 0,
        dtype: Dtype::F32,
        weights: WeightFormat::Dtype,
        optimizer: OptimizerKind::Adamw,
        dropout: 0.0,
        kv_cache: Default::default(),
        prefill_chunk: None,
        weights_from: None,
        levers: Default::default(),
    };
    let trial = Trial {
        model: "gpt2 2x128".into(),
        workload,
        backend: BackendKind::Cpu,
        devices: 1,
        cores_per_device: cores,
        parallel: None,
        engine: None,
        learning: None,
    };
    let measure = Measure { precision: 0.5, min_seconds: SECONDS, max_seconds: 2.0 * SECONDS, ..Measure::default() };
    Ok(Request { trial, measure, predicted_memory: MemoryParts::default(), patience_seconds: 0.0, loss_change: false })
}
