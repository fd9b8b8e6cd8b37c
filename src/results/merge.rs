//! A cell's record from those of its launches.

use super::record::Record;
use crate::runner::measurement::{Figures, Measurement, Status, Stop};
use crate::runner::telemetry::{GpuFigures, Telemetry};
use crate::transformer::memory::DeviceMemory;

/// One record of a cell from its launches, at most one a round, in any order: the steps of all of them, and the largest of what was a
/// peak in each. A launch that failed makes the cell one that failed, whatever the others gave: its reason says which it was. `None`
/// without launches.
pub(crate) fn cell(mut launches: Vec<Record>) -> Option<Record> {
    launches.sort_by_key(|r| r.round);
    let seconds: f64 = launches.iter().map(|r| r.measurement.trial_seconds).sum();
    let failed = launches.iter().position(|r| r.measurement.status != Status::Ok);
    if let Some(at) = failed {
        let mut record = launches.swap_remove(at);
        if record.round > 0 {
            record.measurement.reason = format!("launch {}: {}", record.round + 1, record.measurement.reason);
        }
        let measurement = Measurement { trial_seconds: seconds, ..record.measurement };
        return Some(Record { round: 0, measurement, ..record });
    }
    let again = launches.iter().map(|r| r.again).sum();
    let mut all = launches.into_iter();
    let mut first = all.next()?;
    first.again = again;
    first.round = 0;
    first.measurement.trial_seconds = seconds;
    let rest: Vec<Figures> = all.filter_map(|r| r.measurement.figures).collect();
    if let Some(figures) = first.measurement.figures.as_mut().filter(|_| !rest.is_empty()) {
        add(figures, rest);
    }
    Some(first)
}

fn add(to: &mut Figures, rest: Vec<Figures>) {
    let steps = |f: &Figures| u32::try_from(f.step_seconds.len()).unwrap_or(u32::MAX);
    if to.launches.is_empty() {
        to.launches = vec![steps(to)];
    }
    for f in rest {
        to.launches.push(steps(&f));
        let before = to.step_seconds.len() as f64;
        let share = f.step_seconds.len() as f64 / (before + f.step_seconds.len() as f64).max(1.0);
        let mean = |a, b| weighed(a, b, share);
        to.steal_share = mean(to.steal_share, f.steal_share);
        to.watts = mean(to.watts, f.watts);
        to.step_seconds.extend(f.step_seconds);
        to.first_token_seconds.extend(f.first_token_seconds);
        to.served.extend(f.served);
        to.learned.extend(f.learned);
        to.warmup_steps = to.warmup_steps.saturating_add(f.warmup_steps);
        to.stopped_by = if to.stopped_by == Stop::Precision { f.stopped_by } else { to.stopped_by };
        // Of the launch that is known worst.
        to.precision_reached = to.precision_reached.zip(f.precision_reached).map(|(a, b)| a.max(b));
        to.peak_rss_bytes = to.peak_rss_bytes.max(f.peak_rss_bytes);
        to.baseline_rss_bytes = to.baseline_rss_bytes.max(f.baseline_rss_bytes);
        to.peak_allocated_bytes = to.peak_allocated_bytes.max(f.peak_allocated_bytes);
        to.first_allocated_bytes = to.first_allocated_bytes.max(f.first_allocated_bytes);
        to.disturbance = match (to.disturbance.take(), f.disturbance) {
            (Some(a), Some(b)) => Some(a.and_then(&b)),
            (a, b) => a.or(b),
        };
        to.machine_rates.extend(f.machine_rates);
        to.quantization_loss = to.quantization_loss.take().or(f.quantization_loss);
        to.device_memory = larger(to.device_memory, f.device_memory);
        to.expert_loads = to.expert_loads.or(f.expert_loads);
        to.telemetry = match (to.telemetry.take(), f.telemetry) {
            (Some(a), Some(b)) => Some(both(a, b, share)),
            (a, b) => a.or(b),
        };
    }
}

/// `share`: the weight of `b`.
fn weighed(a: Option<f64>, b: Option<f64>, share: f64) -> Option<f64> {
    Some(a? * (1.0 - share) + b? * share)
}

fn larger(a: Option<DeviceMemory>, b: Option<DeviceMemory>) -> Option<DeviceMemory> {
    let (Some(a), Some(b)) = (a, b) else { return a.or(b) };
    Some(DeviceMemory {
        peak_allocated_bytes: a.peak_allocated_bytes.max(b.peak_allocated_bytes),
        peak_reserved_bytes: a.peak_reserved_bytes.max(b.peak_reserved_bytes),
    })
}

/// `share`: of the steps, those of `b`.
fn both(a: Telemetry, b: Telemetry, share: f64) -> Telemetry {
    let throttled_steps = a.throttled_steps + b.throttled_steps;
    let mut notes = a.notes;
    notes.extend(b.notes.into_iter().filter(|n| !notes.contains(n)).collect::<Vec<_>>());
    let gpus = if a.gpus.len() == b.gpus.len() {
        a.gpus.into_iter().zip(b.gpus).map(|(a, b)| gpu(a, b, share)).collect()
    } else {
        a.gpus
    };
    Telemetry { gpus, throttled_steps, notes }
}

fn gpu(a: GpuFigures, b: GpuFigures, share: f64) -> GpuFigures {
    let mean = |a, b| weighed(a, b, share);
    let mut reasons = a.reasons;
    reasons.extend(b.reasons.into_iter().filter(|r| !reasons.contains(r)).collect::<Vec<_>>());
    GpuFigures {
        samples: a.samples.saturating_add(b.samples),
        mean_sm_mhz: mean(a.mean_sm_mhz, b.mean_sm_mhz),
        p10_sm_mhz: a.p10_sm_mhz.zip(b.p10_sm_mhz).map(|(a, b)| a.min(b)),
        mean_memory_mhz: mean(a.mean_memory_mhz, b.mean_memory_mhz),
        mean_watts: mean(a.mean_watts, b.mean_watts),
        joules: a.joules.zip(b.joules).map(|(a, b)| a + b),
        max_celsius: a.max_celsius.max(b.max_celsius),
        reasons,
        throttled_share: mean(a.throttled_share, b.throttled_share),
        peak_used_bytes: a.peak_used_bytes.max(b.peak_used_bytes),
        peak_process_bytes: a.peak_process_bytes.max(b.peak_process_bytes),
        other_processes: a.other_processes.max(b.other_processes),
        lost_after_seconds: a.lost_after_seconds.or(b.lost_after_seconds),
        ..a
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn launches(run: &crate::results::run::Run) -> Vec<Record> {
        let of = |round: u32| {
            let mut r = run.records[0].clone();
            r.round = round;
            r.measurement.figures.as_mut().unwrap().step_seconds.truncate(5 + round as usize);
            r.measurement.figures.as_mut().unwrap().peak_rss_bytes = 100 - u64::from(round);
            r
        };
        vec![of(2), of(0), of(1)]
    }

    #[test]
    fn the_steps_of_all_launches_are_a_cells_in_the_order_of_rounds() {
        let run = fixture::heads();
        let merged = cell(launches(&run)).unwrap();
        let figures = merged.measurement.figures.as_ref().unwrap();
        assert_eq!(figures.launches, [5, 6, 7]);
        assert_eq!((figures.step_seconds.len(), figures.peak_rss_bytes, merged.round), (18, 100, 0));
        let lengths: Vec<usize> = figures.by_launch(&figures.step_seconds).iter().map(|l| l.len()).collect();
        assert_eq!(lengths, [5, 6, 7]);
        assert_eq!(merged.measurement.trial_seconds, 3.0 * run.records[0].measurement.trial_seconds);
        let one = cell(vec![run.records[0].clone()]).unwrap();
        assert_eq!(one, run.records[0], "a cell of one launch is as it always was");
        assert_eq!(cell(Vec::new()), None);
    }

    #[test]
    fn a_launch_that_failed_is_not_hidden_by_the_others() {
        let run = fixture::heads();
        let mut all = launches(&run);
        let memory = all[0].measurement.predicted_memory;
        all[0].measurement = Measurement::without_figures(Status::Crashed, "killed by SIGSEGV", memory);
        let merged = cell(all).unwrap();
        assert_eq!(merged.measurement.status, Status::Crashed);
        assert_eq!(merged.measurement.reason, "launch 3: killed by SIGSEGV");
        assert!(merged.measurement.figures.is_none());
    }

    #[test]
    fn gpus_of_all_launches_are_weighed_by_their_steps() {
        let run = fixture::gpus();
        let with = run.records.iter().find(|r| r.measurement.figures.as_ref().is_some_and(|f| f.telemetry.is_some()));
        let (a, mut b) = (with.unwrap().clone(), with.unwrap().clone());
        b.round = 1;
        let clock = |r: &mut Record, mhz: f64| {
            r.measurement.figures.as_mut().unwrap().telemetry.as_mut().unwrap().gpus[0].mean_sm_mhz = Some(mhz);
        };
        let mut a = a;
        clock(&mut a, 1000.0);
        clock(&mut b, 2000.0);
        let merged = cell(vec![a, b]).unwrap();
        let gpu = &merged.measurement.figures.unwrap().telemetry.unwrap().gpus[0];
        assert_eq!(gpu.mean_sm_mhz, Some(1500.0));
    }
}
