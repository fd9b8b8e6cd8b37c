//! From readings to figures. Pure.

use super::{GpuFigures, Heard, Telemetry};
use crate::hardware::gpu::{Reading, Reason};
use crate::stats;

/// Largest value of the counters of some GPUs, in millijoules: 32 bits.
const SHORT_COUNTER: u64 = 1 << 32;

/// The measured steps, in seconds on the clock of the readings.
#[derive(Clone, Copy, Debug)]
pub(in crate::runner) struct Steps<'a> {
    pub starts: &'a [f64],
    pub seconds: &'a [f64],
}

impl Steps<'_> {
    fn window(&self) -> Option<(f64, f64)> {
        Some((*self.starts.first()?, self.starts.last()? + self.seconds.last()?))
    }
}

pub(super) fn summarise(heard: &[Heard], steps: Steps) -> Telemetry {
    let Some(window) = steps.window() else { return Telemetry::untold("no step was measured") };
    let mut marked = vec![false; steps.starts.len().min(steps.seconds.len())];
    let mut all = Telemetry::default();
    for h in heard {
        let (figures, mut notes) = of_one(h, window);
        mark(&mut marked, steps, &h.readings);
        all.gpus.push(figures);
        all.notes.append(&mut notes);
    }
    all.throttled_steps = marked.into_iter().filter(|m| *m).count() as u64;
    all
}

fn of_one(h: &Heard, (from, to): (f64, f64)) -> (GpuFigures, Vec<String>) {
    let within: Vec<&Reading> = within(&h.readings, from, to);
    let all = |of: fn(&Reading) -> Option<f64>| within.iter().filter_map(|r| of(r)).collect::<Vec<f64>>();
    let sm = all(|r| r.sm_mhz.map(f64::from));
    let mut sorted = sm.clone();
    sorted.sort_by(f64::total_cmp);
    let told: Vec<&Vec<Reason>> = within.iter().filter_map(|r| r.reasons.as_ref()).collect();
    let throttled = told.iter().filter(|reasons| reasons.iter().any(|r| r.throttles())).count();
    let mut reasons: Vec<Reason> = told.iter().copied().flatten().copied().filter(|r| r.throttles()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    let energy = energy(&h.readings, from, to);
    let counted = energy.as_ref().ok().and_then(|e| *e);
    let figures = GpuFigures {
        index: h.gpu.index,
        name: h.gpu.name.clone(),
        samples: within.len() as u32,
        mean_sm_mhz: mean(&sm),
        p10_sm_mhz: stats::quantile(&sorted, 0.1),
        mean_memory_mhz: mean(&all(|r| r.memory_mhz.map(f64::from))),
        reference_sm_mhz: h.gpu.reference_clock().map(|(mhz, _)| f64::from(mhz)),
        max_sm_mhz: h.gpu.max_sm_mhz.map(f64::from),
        mean_watts: counted
            .map(|(joules, seconds)| joules / seconds)
            .or_else(|| mean(&all(|r| r.milliwatts.map(|mw| f64::from(mw) / 1e3)))),
        joules: counted.map(|(joules, _)| joules),
        max_celsius: within.iter().filter_map(|r| r.celsius).max(),
        reasons,
        throttled_share: (!told.is_empty()).then(|| throttled as f64 / told.len() as f64),
        peak_used_bytes: h.readings.iter().filter_map(|(_, r)| r.used_bytes).max(),
        peak_process_bytes: h.process_bytes,
        other_processes: h.other_processes,
        mig: h.gpu.mig == Some(true),
        lost_after_seconds: h.lost.as_ref().map(|(at, _)| *at),
    };
    let notes = notes(h, &figures, energy.err());
    (figures, notes)
}

/// Readings between two moments; where none fell there, those around them.
fn within(readings: &[(f64, Reading)], from: f64, to: f64) -> Vec<&Reading> {
    let inside: Vec<&Reading> = readings.iter().filter(|(t, _)| (from..=to).contains(t)).map(|(_, r)| r).collect();
    if !inside.is_empty() {
        return inside;
    }
    let before = readings.iter().rev().find(|(t, _)| *t < from);
    let after = readings.iter().find(|(t, _)| *t > to);
    before.into_iter().chain(after).map(|(_, r)| r).collect()
}

/// Joules between the last reading before the steps and the first after them, and the seconds between the two; nothing without
/// a counter, and a word where the counter cannot be right.
fn energy(readings: &[(f64, Reading)], from: f64, to: f64) -> Result<Option<(f64, f64)>, &'static str> {
    let counted: Vec<(f64, u64)> = readings.iter().filter_map(|(t, r)| Some((*t, r.millijoules?))).collect();
    let first = counted.iter().rposition(|(t, _)| *t <= from).unwrap_or(0);
    let last = counted.iter().position(|(t, _)| *t >= to).unwrap_or(counted.len().saturating_sub(1));
    let Some(span) = counted.get(first..=last).filter(|s| s.len() > 1) else { return Ok(None) };
    let mut millijoules = 0u64;
    for pair in span.windows(2) {
        let used = advanced(pair[0].1, pair[1].1).ok_or("its energy counter went backwards")?;
        millijoules = millijoules.saturating_add(used);
    }
    let seconds = span[span.len() - 1].0 - span[0].0;
    if millijoules == 0 {
        return Err("its energy counter stands still");
    }
    Ok((seconds > 0.0).then_some((millijoules as f64 / 1e3, seconds)))
}

/// How far a counter went; over its end where it is short and was near it.
fn advanced(before: u64, now: u64) -> Option<u64> {
    let wraps = before < SHORT_COUNTER && before > SHORT_COUNTER / 2 && now < SHORT_COUNTER / 2;
    now.checked_sub(before).or_else(|| wraps.then(|| SHORT_COUNTER - before + now))
}

/// Marks the steps that ran while the GPU was throttled: a reading stands for the time up to halfway to its neighbours.
fn mark(marked: &mut [bool], steps: Steps, readings: &[(f64, Reading)]) {
    let halfway = |i: usize, j: usize| (readings[i].0 + readings[j].0) / 2.0;
    let mut step = 0;
    for (i, (_, reading)) in readings.iter().enumerate() {
        if !reading.reasons.iter().flatten().any(|r| r.throttles()) {
            continue;
        }
        let from = if i == 0 { f64::NEG_INFINITY } else { halfway(i - 1, i) };
        let to = if i + 1 == readings.len() { f64::INFINITY } else { halfway(i, i + 1) };
        while step < marked.len() && steps.starts[step] + steps.seconds[step] <= from {
            step += 1;
        }
        let mut at = step;
        while at < marked.len() && steps.starts[at] < to {
            marked[at] = true;
            at += 1;
        }
    }
}

fn notes(h: &Heard, f: &GpuFigures, energy: Option<&str>) -> Vec<String> {
    let of = |what: String| format!("GPU {} ({}): {what}", f.index, f.name);
    let mut all = Vec::new();
    if let Some((at, how)) = &h.lost {
        all.push(of(format!("{how}, {at:.1} s into the trial; its figures are of the time before")));
    }
    let missing: Vec<&str> = [
        ("clock", f.mean_sm_mhz.is_none()),
        ("power", f.mean_watts.is_none()),
        ("throttling", f.throttled_share.is_none()),
        ("memory", f.peak_bytes().is_none()),
    ]
    .into_iter()
    .filter_map(|(what, missing)| missing.then_some(what))
    .collect();
    if !missing.is_empty() {
        all.push(of(format!("the driver does not tell its {}", missing.join(", "))));
    }
    if let Some(fault) = energy {
        all.push(of(format!("{fault}; power is the mean of the readings")));
    }
    if f.mig {
        all.push(of(
            "it is partitioned (MIG): power is that of all its instances and is not taken for the trial's".into()
        ));
    }
    all
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
