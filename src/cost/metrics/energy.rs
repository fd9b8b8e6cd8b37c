//! Joules a token, and what they cost.

use super::gpu::{GPU_WATTS, telemetry};
use super::throughput::tokens_per_second;
use crate::cost::metric::{Context, Direction, Estimate, Metric, Provenance, Quantity};
use crate::transformer::BackendKind;

pub(crate) static WATTS: Metric = Metric {
    name: "watts",
    label: "CPU power",
    unit: "W",
    quantity: Quantity::Watts,
    provenance: Provenance::Measured,
    direction: Direction::Lower,
    formula: "mean power of the processors over warm-up and measuring",
    source: "RAPL counters of all packages: what else ran on the machine is in them",
    compute: watts,
};

pub(crate) static JOULES_PER_TOKEN: Metric = Metric {
    name: "joules_per_token",
    label: "J/token",
    unit: "J per token",
    quantity: Quantity::Joules,
    provenance: Provenance::Measured,
    direction: Direction::Lower,
    formula: "gpu_watts of a trial on GPUs, watts of any other, / tokens_per_second",
    source: "NVML's counters for GPUs, RAPL's for processors; network, losses of the power supply and, on GPUs, the host are not in them",
    compute: |c| {
        let watts = power(c)?.value;
        tokens_per_second(c)?.decreasing(|t| watts / t)?.positive()
    },
};

pub(crate) static JOULES_PER_TOKEN_AT_TDP: Metric = Metric {
    name: "joules_per_token_at_tdp",
    label: "J/token at TDP",
    unit: "J per token",
    quantity: Quantity::Joules,
    provenance: Provenance::Projected,
    direction: Direction::Lower,
    formula: "stated watts, or TDP of the devices, / tokens_per_second; only where power was not measured",
    source: "the scenario's energy.watts, or the device catalog",
    compute: |c| match power(c) {
        Some(_) => None,
        None => {
            let watts = c.watts?.watts;
            tokens_per_second(c)?.decreasing(|t| watts / t)?.positive()
        }
    },
};

pub(crate) static ENERGY_USD_PER_MILLION: Metric = Metric {
    name: "energy_usd_per_million_tokens",
    label: "energy $/M tokens",
    unit: "USD per million tokens",
    quantity: Quantity::UsdPerMillionTokens,
    provenance: Provenance::Quoted,
    direction: Direction::Lower,
    formula: "joules per token * pue * usd_per_kwh / 3.6e6 * 1e6; measured joules where there are, else those at TDP",
    source: "the scenario's price.energy; a part of the cost on owned hardware, in the rent elsewhere",
    compute: |c| {
        let energy = c.price.energy?;
        let joules = (JOULES_PER_TOKEN.compute)(c).or_else(|| (JOULES_PER_TOKEN_AT_TDP.compute)(c))?;
        joules.increasing(|j| j * energy.pue * energy.usd_per_kwh / JOULES_PER_KWH * 1e6)?.positive()
    },
};

const JOULES_PER_KWH: f64 = 3.6e6;

/// Of what computes the tokens: the processors' power says nothing of a token that GPUs make.
fn power(c: &Context) -> Option<Estimate> {
    let on_gpus = c.record.cell.trial.backend == BackendKind::Cuda || telemetry(c).is_some();
    if on_gpus { (GPU_WATTS.compute)(c) } else { watts(c) }
}

fn watts(c: &Context) -> Option<Estimate> {
    Estimate::exact(c.figures()?.watts?)?.positive()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::evaluate::evaluate;
    use crate::fixture;
    use crate::scenario::price::Energy;

    #[test]
    fn power_is_measured_where_it_can_be_and_else_taken_from_the_datasheet() {
        let mut run = fixture::heads();
        run.records.truncate(1);
        let price = &mut run.environment.price;
        price.energy = Some(Energy { usd_per_kwh: 0.36, pue: 1.5, watts: None });
        assert_eq!(
            evaluate(&run, fixture::book())[0].get(&ENERGY_USD_PER_MILLION),
            None,
            "nothing is known of its power"
        );
        run.environment.price.device = Some("l4".into());
        let figures = run.records[0].measurement.figures.as_mut().unwrap();
        (figures.step_seconds, figures.tokens_per_step) = (vec![0.5; 20], 1000);
        let at_tdp = &evaluate(&run, fixture::book())[0];
        // 72 W at 2000 tokens/s.
        assert!((at_tdp.get(&JOULES_PER_TOKEN_AT_TDP).unwrap().value - 0.036).abs() < 1e-12);
        // 0.036 J * 1.5 * 0.36 / 3.6e6 * 1e6.
        assert!((at_tdp.get(&ENERGY_USD_PER_MILLION).unwrap().value - 0.0054).abs() < 1e-12);
        run.records[0].measurement.figures.as_mut().unwrap().watts = Some(100.0);
        let measured = &evaluate(&run, fixture::book())[0];
        assert_eq!(measured.get(&WATTS).unwrap().value, 100.0);
        assert!((measured.get(&JOULES_PER_TOKEN).unwrap().value - 0.05).abs() < 1e-12);
        assert_eq!(measured.get(&JOULES_PER_TOKEN_AT_TDP), None);
    }

    #[test]
    fn gpus_counters_go_before_the_processors_and_the_catalog_stands_in_for_them() {
        let mut run = fixture::gpus();
        let figures = run.records[0].measurement.figures.as_mut().unwrap();
        (figures.step_seconds, figures.tokens_per_step, figures.watts) = (vec![0.5; 20], 1000, Some(100.0));
        let measured = &evaluate(&run, fixture::book())[0];
        // 640 W at 2000 tokens/s.
        assert!((measured.get(&JOULES_PER_TOKEN).unwrap().value - 0.32).abs() < 1e-12);
        assert_eq!(measured.get(&WATTS).unwrap().value, 100.0);
        run.records[0].measurement.figures.as_mut().unwrap().telemetry = None;
        let unknown = &evaluate(&run, fixture::book())[0];
        assert_eq!(unknown.get(&JOULES_PER_TOKEN), None, "what the processors took is not what the GPUs took");
        // 700 W of an H100 SXM.
        assert!((unknown.get(&JOULES_PER_TOKEN_AT_TDP).unwrap().value - 0.35).abs() < 1e-12);
    }
}
