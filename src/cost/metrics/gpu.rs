//! What the GPUs told while the trial ran.

use crate::cost::metric::{Context, Direction, Estimate, Metric, Provenance, Quantity};
use crate::runner::telemetry::Telemetry;

/// A metric of what NVML tells.
const fn told(
    name: &'static str,
    label: &'static str,
    unit: &'static str,
    quantity: Quantity,
    direction: Direction,
    formula: &'static str,
    compute: fn(&Context) -> Option<Estimate>,
) -> Metric {
    Metric { name, label, unit, quantity, provenance: Provenance::Measured, direction, formula, source: NVML, compute }
}

const NVML: &str = "NVML, read every 100 ms while measuring";

pub(crate) static GPU_WATTS: Metric = Metric {
    source: "NVML's energy counters, or the mean of its readings of power where there are none; n/a on a part of a GPU (MIG)",
    ..told(
        "gpu_watts",
        "GPU power",
        "W",
        Quantity::Watts,
        Direction::Lower,
        "mean power of the trial's GPUs together over the measured steps",
        |c| Estimate::exact(telemetry(c)?.watts()?)?.positive(),
    )
};

pub(crate) static PEAK_GPU_MEMORY: Metric = told(
    "peak_gpu_memory_bytes",
    "peak GPU memory",
    "bytes",
    Quantity::Bytes,
    Direction::Lower,
    "highest bytes on a GPU, of the one that holds most: the trial's process's, or everybody's where that is not told",
    |c| Estimate::exact(telemetry(c)?.peak_bytes()? as f64)?.positive(),
);

pub(crate) static GPU_CLOCK: Metric = told(
    "gpu_sm_mhz",
    "SM clock",
    "MHz",
    Quantity::Megahertz,
    Direction::Higher,
    "mean clock of the multiprocessors over the measured steps, mean of the trial's GPUs",
    |c| Estimate::exact(telemetry(c)?.mean_sm_mhz()?)?.positive(),
);

pub(crate) static GPU_THROTTLED: Metric = told(
    "gpu_throttled_share",
    "throttled",
    "% of the readings",
    Quantity::Share,
    Direction::Lower,
    "readings with a reason for slower clocks (power cap, heat, power brake, another GPU) / all, of the GPU with most",
    |c| Estimate::exact(telemetry(c)?.throttled_share()?),
);

pub(crate) static GPU_THROTTLED_STEPS: Metric = told(
    "gpu_throttled_steps",
    "throttled steps",
    "steps",
    Quantity::Count,
    Direction::Lower,
    "measured steps that ran, in part or whole, while a GPU was throttled; they are counted and not dropped",
    |c| {
        let t = telemetry(c)?;
        t.throttled_share()?;
        Estimate::exact(t.throttled_steps as f64)
    },
);

pub(super) fn telemetry<'a>(c: &Context<'a>) -> Option<&'a Telemetry> {
    c.figures()?.telemetry.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::evaluate::evaluate;
    use crate::fixture;

    #[test]
    fn what_gpus_told_is_a_column_and_trials_without_have_none() {
        let run = fixture::gpus();
        let figures = evaluate(&run, fixture::book());
        let get = |i: usize, m: &Metric| figures[i].get(m).map(|e| e.value);
        assert_eq!(get(0, &GPU_WATTS), Some(640.0));
        assert_eq!(get(0, &GPU_CLOCK), Some(1950.0));
        assert_eq!((get(0, &GPU_THROTTLED), get(0, &GPU_THROTTLED_STEPS)), (Some(0.0), Some(0.0)));
        assert!(get(1, &GPU_THROTTLED).unwrap() > 0.3 && get(1, &GPU_THROTTLED_STEPS).unwrap() > 0.0);
        assert!(get(0, &PEAK_GPU_MEMORY).unwrap() > (1u64 << 30) as f64);
        let cpu = fixture::heads();
        let cpu = &evaluate(&cpu, fixture::book())[0];
        assert!(
            [&GPU_WATTS, &GPU_CLOCK, &GPU_THROTTLED, &GPU_THROTTLED_STEPS, &PEAK_GPU_MEMORY]
                .iter()
                .all(|m| cpu.get(m).is_none())
        );
    }
}
