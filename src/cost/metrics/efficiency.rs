//! How much of the machine a trial uses: FLOP/s, MFU, MBU. Peaks are probed on the machine itself; those of a GPU that was not
//! probed are its datasheet's, and said to be (`cost::peaks`).

use crate::cost::metric::{Context, Direction, Estimate, Metric, Provenance, Quantity};
use crate::cost::{peaks, steps};
use crate::transformer::shape::count;
use crate::transformer::{BackendKind, Dtype, Workload};

pub(crate) static FLOPS_PER_SECOND: Metric = Metric {
    name: "flops_per_second",
    label: "FLOP/s",
    unit: "FLOP/s",
    quantity: Quantity::FlopsPerSecond,
    provenance: Provenance::Measured,
    direction: Direction::Higher,
    formula: "model FLOPs of a step / median step_seconds",
    source: "Chowdhery et al. 2022 (PaLM), appendix B: matrix products and full attention, no recomputation",
    compute: |c| rate(c, count::flops_per_step(known(c)?).ok()?.get() as f64),
};

pub(crate) static PEAK_FLOPS: Metric = Metric {
    name: "peak_flops_per_second",
    label: "peak FLOP/s",
    unit: "FLOP/s",
    quantity: Quantity::FlopsPerSecond,
    provenance: Provenance::Measured,
    direction: Direction::Neutral,
    formula: "probed rate for the dtype, on as many cores or GPUs as the trial occupies, times what the machine gave around the launches of \
              what the probe had found; the datasheet's for a GPU that was not probed",
    source: "probed on this machine before the sweep, or the device catalog; the report says which",
    compute: |c| Estimate::exact(peak_flops(c)?)?.positive(),
};

pub(crate) static PIPELINE_BUBBLE: Metric = Metric {
    name: "pipeline_bubble",
    label: "bubble",
    unit: "% of the step",
    quantity: Quantity::Share,
    provenance: Provenance::Projected,
    direction: Direction::Lower,
    formula: "(P - 1) / (M + P - 1), for P stages (parallel.pipeline) and M micro-batches (accumulate): the share of a training step for which a \
              stage waits for others, if all take as long",
    source: "Huang et al. 2019 (GPipe), section 2.3; one forward one backward has the same",
    compute: |c| Estimate::exact(c.record.cell.trial.bubble())?.positive(),
};

/// A share of a limit.
const fn share(
    name: &'static str,
    label: &'static str,
    formula: &'static str,
    source: &'static str,
    compute: fn(&Context) -> Option<Estimate>,
) -> Metric {
    Metric {
        name,
        label,
        unit: "% of the peak",
        quantity: Quantity::Share,
        provenance: Provenance::Measured,
        direction: Direction::Higher,
        formula,
        source,
        compute,
    }
}

pub(crate) static MFU: Metric =
    share("mfu", "MFU", "flops_per_second / peak_flops_per_second", "Chowdhery et al. 2022 (PaLM), section 4.1", |c| {
        let peak = peak_flops(c)?;
        (FLOPS_PER_SECOND.compute)(c)?.increasing(|f| f / peak)?.positive()
    });

pub(crate) static MFU_CAUSAL: Metric = share(
    "mfu_causal",
    "MFU causal",
    "as mfu, attention counted over the causal average of the context, (T + 1) / 2, where the family masks",
    "what a kernel that skips the masked half has to do; beside the convention",
    |c| {
        let peak = peak_flops(c)?;
        let flops = count::causal_flops_per_step(known(c)?).ok()?.get() as f64;
        rate(c, flops)?.increasing(|f| f / peak)?.positive()
    },
);

pub(crate) static MBU: Metric = share(
    "mbu",
    "MBU",
    "bytes a decode step has to read (weights once a replica, KV cache once) / median step_seconds / read bandwidth: probed, or a GPU's datasheet's",
    "Databricks 2023, LLM inference performance engineering",
    |c| {
        let bytes = decode_bytes(known(c)?, c.record.cell.trial.parallel().data)?;
        let bandwidth = peak_bandwidth(c)?;
        rate(c, bytes)?.increasing(|r| r / bandwidth)?.positive()
    },
);

/// The workload, where the model's shape is known.
fn known<'a>(c: &Context<'a>) -> Option<&'a Workload> {
    let trial = &c.record.cell.trial;
    trial.states_model().then_some(&trial.workload)
}

fn rate(c: &Context, amount: f64) -> Option<Estimate> {
    steps::median(c, &c.figures()?.step_seconds)?.decreasing(|s| amount / s)?.positive()
}

/// Every replica reads its own weights, once however many devices share it; the KV cache is split among all.
fn decode_bytes(w: &Workload, replicas: u32) -> Option<f64> {
    let all = count::bytes_per_decode_step(w).ok()??.get();
    let weights = count::bytes_per_decode_step(&Workload { batch: 0, ..w.clone() }).ok()??.get();
    let others = weights.checked_mul(u64::from(replicas.saturating_sub(1)))?;
    all.checked_add(others).map(|bytes| bytes as f64)
}

/// Cores that the trial occupies, if the probe's figures speak of them: the probe knows the CPU alone.
fn cores_in_use(c: &Context) -> Option<u32> {
    let trial = &c.record.cell.trial;
    let cores = trial.devices.checked_mul(trial.cores_per_device)?;
    let known = trial.backend != BackendKind::Cuda && (1..=c.cores).contains(&cores);
    known.then_some(cores)
}

/// A limit of some of the cores: that of one, that of all, and a straight line between the two.
fn between(one: f64, all: f64, used: u32, cores: u32) -> Option<f64> {
    let limit = match used {
        1 => one,
        u if u == cores => all,
        u => one + (all - one) * f64::from(u - 1) / f64::from(cores - 1),
    };
    (limit.is_finite() && limit > 0.0).then_some(limit)
}

fn peak_flops(c: &Context) -> Option<f64> {
    if c.record.cell.trial.backend == BackendKind::Cuda {
        return Some(peaks::flops(c)?.0);
    }
    let (probe, used) = (c.probe?, cores_in_use(c)?);
    let f32_peak = between(probe.f32_flops_per_second_one_core, probe.f32_flops_per_second, used, c.cores)?;
    // Of that very time.
    let share = c.since_the_probe().f32_flops_per_second;
    match c.record.cell.trial.workload.dtype {
        Dtype::F32 => Some(f32_peak * share),
        // A format of GPUs, which this probe does not cover.
        Dtype::Tf32 => None,
        // Probed on all cores only; on fewer it is taken to scale as f32 does.
        Dtype::Bf16 => Some(probe.bf16_flops_per_second? * f32_peak / probe.f32_flops_per_second * share),
    }
}

/// FLOP/s and bytes a second of all that the trial occupies.
pub(crate) fn limits(c: &Context) -> Option<(f64, f64)> {
    peak_flops(c).zip(peak_bandwidth(c))
}

fn peak_bandwidth(c: &Context) -> Option<f64> {
    if c.record.cell.trial.backend == BackendKind::Cuda {
        return Some(peaks::bandwidth(c)?.0);
    }
    let (probe, used) = (c.probe?, cores_in_use(c)?);
    let probed = between(probe.read_bytes_per_second_one_core, probe.read_bytes_per_second, used, c.cores)?;
    Some(probed * c.since_the_probe().read_bytes_per_second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::hardware::machine::Rates;

    #[test]
    fn shares_are_of_what_the_machine_gave_around_the_trial() {
        let mut run = fixture::heads();
        let peak =
            |run: &crate::results::run::Run| peak_flops(&Context::of(run, &run.records[0], fixture::book())).unwrap();
        let probed = peak(&run);
        let rates = run.environment.probe.as_ref().unwrap().rates();
        let slow = Rates { f32_flops_per_second: 0.5 * rates.f32_flops_per_second, ..rates };
        run.records[0].measurement.figures.as_mut().unwrap().machine_rates = vec![slow, rates, slow];
        assert!((peak(&run) / probed - 0.5).abs() < 1e-12);
        // The probe was disturbed, and the launches were not: no share of over 100 %.
        run.environment.probe.as_mut().unwrap().f32_flops_per_second *= 0.25;
        run.environment.probe.as_mut().unwrap().f32_flops_per_second_one_core *= 0.25;
        assert!((peak(&run) / probed - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_limit_of_some_cores_lies_on_the_line_between_one_and_all() {
        assert_eq!(between(10.0, 40.0, 1, 4), Some(10.0));
        assert_eq!(between(10.0, 40.0, 4, 4), Some(40.0));
        assert_eq!(between(10.0, 34.0, 2, 4), Some(18.0));
        assert_eq!(between(0.0, 40.0, 1, 4), None);
    }
}
