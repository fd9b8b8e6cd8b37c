//! This program on a machine where it was measured: the projection of a step as this program lays it out, and how far the
//! program is from it.

use super::bars::Bars;
use super::calibration::{Calibration, Own};
use super::device::Unit;
use super::model::Model;
use super::pooled::pooled;
use super::published::Quantity;
use super::training::{Recompute, Training};
use super::validate::quantile;
use super::workload::{base, format, inference, quantity};
use crate::hardware::machine::Probe;
use crate::transformer::shape::count;
use crate::transformer::{Phase, Workload, levers};
use std::sync::Arc;

/// Standard deviations to each side that hold 90 % of a normal distribution.
const NINE_OF_TEN: f64 = 1.645;

/// Some cores of a CPU as a device, by the limits that were probed: those of one core, those of all, and a straight line between.
pub(crate) fn cpu(name: &str, probe: &Probe, used: u32, cores: u32, memory_bytes: f64) -> Arc<Unit> {
    let line = |one: f64, all: f64| match cores {
        0 | 1 => all,
        _ => one + (all - one) * f64::from(used.clamp(1, cores) - 1) / f64::from(cores - 1),
    };
    let flops = line(probe.f32_flops_per_second_one_core, probe.f32_flops_per_second);
    let share = flops / probe.f32_flops_per_second;
    let part = Probe {
        f32_flops_per_second: flops,
        bf16_flops_per_second: probe.bf16_flops_per_second.map(|r| r * share),
        read_bytes_per_second: line(probe.read_bytes_per_second_one_core, probe.read_bytes_per_second),
        ..probe.clone()
    };
    Arc::new(Unit::of_cpu(name, &part, memory_bytes))
}

/// Seconds of one step on one device, in as many passes as the workload says, at the speed of a good engine. `None` where the device has not the format, or counts overflow.
pub(crate) fn step_seconds(w: &Workload, device: &Arc<Unit>, c: &Calibration) -> Option<f64> {
    let model = Model::from((&w.shape, count::parameters(&w.shape).ok()?));
    if w.phase != Phase::Train {
        let (seconds, _) = inference(w, model, device, 1.0, f64::from(w.batch), &c.constants);
        return Some(seconds);
    }
    let run = Training {
        micro_batch: f64::from(w.batch) / f64::from(w.levers.accumulate.max(1)),
        accumulation: f64::from(w.levers.accumulate),
        recompute: match w.levers.recompute {
            levers::Recompute::None => Recompute::None,
            // The product that makes queries, keys and values is a quarter of a usual layer's.
            levers::Recompute::Attention => Recompute::Partial,
            levers::Recompute::Full => Recompute::Full,
        },
        ..base(model, device, 1.0, f64::from(w.seq_len), format(w))
    };
    Some(run.step(&c.constants)?.seconds)
}

/// The same at the speed at which this program was measured, where it was.
pub(crate) fn own_step_seconds(w: &Workload, device: &Arc<Unit>, c: &Calibration) -> Option<f64> {
    let own = c.own.iter().find(|o| o.quantity == quantity(w.phase));
    Some(step_seconds(w, device, c)? * own.map_or(1.0, |o| o.time_ratio))
}

/// How this program compares, from measured over projected times of trials by quantity: the mean, moved toward a good engine's
/// as far as the trials are few ([`pooled`]). Without bars that tell how sources differ it is the mean.
pub(crate) fn compared(trials: &[(Quantity, f64)], device: &str, bars: &Bars) -> Vec<Own> {
    let of = |quantity: Quantity| {
        let logs: Vec<f64> = trials.iter().filter(|(q, _)| *q == quantity).map(|(_, ratio)| ratio.ln()).collect();
        if logs.is_empty() {
            return None;
        }
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        let mut away: Vec<f64> = logs.iter().map(|l| (l - mean).abs()).collect();
        away.sort_by(f64::total_cmp);
        // One trial says nothing of a spread.
        let seen = quantile(&away, 0.9).max(0.02);
        let (shift, spread) = match bars.of(quantity) {
            Some(bar) => {
                let p = pooled(&logs, bar.effects);
                (p.shift, NINE_OF_TEN * p.spread)
            }
            None => (mean, seen),
        };
        Some(Own { quantity, time_ratio: shift.exp(), spread, trials: logs.len() as u64, device: device.into() })
    };
    Quantity::ALL.into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transformer::shape::{Family, Shape, ShapeSpec};
    use crate::transformer::{Dtype, OptimizerKind, WeightFormat};

    fn probe() -> Probe {
        Probe {
            f32_flops_per_second_one_core: 1e11,
            f32_flops_per_second: 4e11,
            bf16_flops_per_second: Some(8e11),
            read_bytes_per_second_one_core: 2e10,
            read_bytes_per_second: 5e10,
            spread: 0.01,
            steal_share: None,
        }
    }

    fn workload(phase: Phase) -> Workload {
        Workload {
            shape: Shape::new(Family::Gpt2, &ShapeSpec::default()).unwrap(),
            phase,
            batch: 4,
            seq_len: 128,
            prompt_len: 128,
            new_tokens: 16,
            dtype: Dtype::F32,
            weights: WeightFormat::Dtype,
            optimizer: OptimizerKind::Adamw,
            dropout: 0.0,
            kv_cache: Default::default(),
            prefill_chunk: None,
            weights_from: None,
            levers: Default::default(),
        }
    }

    #[test]
    fn a_part_of_the_cores_has_its_part_of_the_limits() {
        let of = |used| cpu("x", &probe(), used, 4, 1e9);
        assert_eq!((of(1).tuned_f32, of(4).tuned_f32), (1e11, 4e11));
        assert_eq!((of(2).tuned, of(1).bytes_per_second, of(4).bytes_per_second), (4e11, 2e10, 5e10));
        assert_eq!(cpu("x", &probe(), 1, 1, 1e9).tuned_f32, 4e11);
    }

    #[test]
    fn a_program_twice_as_slow_is_projected_twice_as_slow() {
        let mut c = Calibration::default();
        let device = cpu("x", &probe(), 4, 4, 1e10);
        for phase in [Phase::Train, Phase::Prefill, Phase::Decode, Phase::Generate] {
            let w = workload(phase);
            let good = step_seconds(&w, &device, &c).unwrap();
            c.own = compared(&[(quantity(phase), 1.9), (quantity(phase), 4.0 / 1.9)], "x", &Bars::default());
            assert!((own_step_seconds(&w, &device, &c).unwrap() / good - 2.0).abs() < 1e-9, "{phase}");
            // Twice the batch takes longer, and not more than twice as long.
            let twice = step_seconds(&Workload { batch: 8, ..w }, &device, &c).unwrap() / good;
            assert!(twice > 1.0 && twice <= 2.0 + 1e-9, "{phase}: {twice}");
        }
        assert!(compared(&[], "x", &Bars::default()).is_empty());
    }
}
