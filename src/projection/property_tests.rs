//! What holds for every configuration, whatever the constants were fitted to.

use super::calibration::Calibration;
use super::device::Unit;
use super::kernels::ProductFormat;
use super::memory;
use super::model::Model;
use super::serving::{InferenceEngine, Serving, Weights};
use super::training::{self, Again, Recompute, Sharding, Training};
use super::workload::base;
use crate::fixture;
use proptest::prelude::*;
use std::sync::Arc;

const DEVICES: &[&str] =
    &["a100-sxm-80gb", "h100-sxm-80gb", "b200", "l4", "rtx-4090", "mi300x", "tpu-v5e", "v100-sxm2-32gb"];

fn unit(i: usize) -> Arc<Unit> {
    Unit::of(fixture::book().device(DEVICES[i % DEVICES.len()]).unwrap()).unwrap().into()
}

prop_compose! {
    fn models()(layers in 1u32..13, width in 1u32..65, group in 0u32..3, gated: bool) -> Model {
        let (layers, heads) = (f64::from(layers * 8), f64::from(width));
        let kv = if width % (1 << group) == 0 { heads / f64::from(1 << group) } else { heads };
        let d = heads * 128.0;
        Model::published([layers, d, heads, kv, 128.0, if gated { 3.5 * d } else { 4.0 * d }, 50_304.0], None)
    }
}

prop_compose! {
    fn trainings()(
        model in models(), device in 0usize..8, tensor in 0u32..4, pipeline in 0u32..4, data in 0u32..8,
        micro in 0u32..4, accumulation in 0u32..6, seq in 6u32..14, sharding in 0usize..4, recompute in 0usize..3, eager: bool,
    ) -> Training {
        let power = |i: u32| f64::from(1u32 << i);
        let (tensor, pipeline) = (power(tensor), power(pipeline));
        Training {
            tensor,
            pipeline,
            micro_batch: power(micro),
            accumulation: power(accumulation),
            sharding: [Sharding::None, Sharding::Optimizer, Sharding::Gradients, Sharding::Weights][sharding],
            recompute: [Recompute::None, Recompute::Selective, Recompute::Full][recompute],
            sequence_parallel: tensor > 1.0,
            engine: if eager { training::TrainingEngine::Eager } else { training::TrainingEngine::Fused },
            ..base(model, &unit(device), tensor * pipeline * power(data), power(seq), ProductFormat::Half)
        }
    }
}

prop_compose! {
    fn servings()(model in models(), device in 0usize..8, tensor in 0u32..4, engine in 0usize..4, weights in 0usize..3) -> Serving {
        let bytes = [2.0, 0.6, 1.0][weights];
        Serving {
            model,
            device: unit(device),
            tensor: f64::from(1u32 << tensor),
            stages: 1.0,
            weight_bytes: bytes,
            table_bytes: 2.0,
            weights: if bytes < 2.0 { Weights::Packed } else { Weights::Half },
            cache_bytes: 2.0,
            engine: [InferenceEngine::Portable, InferenceEngine::Compiled, InferenceEngine::Server, InferenceEngine::Eager][engine],
            between_steps: false,
            by_hand: false,
            by_rows: false,
            narrow_sums: false,
            library_sums: false,
            old: false,
            all_logits: engine == 3,
        }
    }
}

fn changed(u: &Arc<Unit>, change: impl Fn(&mut Unit)) -> Arc<Unit> {
    let mut other = Unit::clone(u);
    change(&mut other);
    other.into()
}

/// Every way in which a device can be better.
fn better(u: &Arc<Unit>) -> Vec<(&'static str, Arc<Unit>)> {
    vec![
        ("memory bandwidth", changed(u, |u| u.bytes_per_second *= 1.5)),
        ("link", changed(u, |u| u.link_bytes_per_second *= 1.5)),
        (
            "products",
            changed(u, |u| {
                u.peak *= 1.5;
                u.peak_narrow_sums *= 1.5;
                u.tuned *= 1.5;
                u.tuned_f8 = u.tuned_f8.map(|r| r * 1.5);
                u.tuned_f32 *= 1.5;
            }),
        ),
        ("vector units", changed(u, |u| u.vector_f32 *= 1.5)),
    ]
}

/// Rounding.
const ONE: f64 = 1.0 + 1e-9;

proptest! {
    #[test]
    fn a_better_device_never_trains_slower(t in trainings()) {
        let c = &Calibration::built_in().unwrap().constants;
        let seconds = t.step(c).unwrap().seconds;
        for (what, device) in better(&t.device) {
            let faster = Training { device, ..t.clone() }.step(c).unwrap().seconds;
            prop_assert!(faster <= seconds * ONE, "more {what}: {faster} s after {seconds} s");
        }
        let faster = Training { network: t.network * 1.5, ..t.clone() }.step(c).unwrap().seconds;
        prop_assert!(faster <= seconds * ONE, "more network: {faster} s after {seconds} s");
    }

    #[test]
    fn a_step_is_never_faster_than_its_flops_and_its_parts_make_it_up(t in trainings()) {
        let step = t.step(&Calibration::built_in().unwrap().constants).unwrap();
        prop_assert!(step.seconds.is_finite() && step.seconds > 0.0);
        let peak = t.model_flops() / (t.devices * t.device.peak);
        // Fused attention leaves out what the mask hides: half of the attention that the convention counts.
        let m = &t.model;
        let attention = 12.0 * m.layers * t.seq_len * m.d_attention() / t.model_flops_per_token();
        prop_assert!(step.seconds >= peak * (1.0 - attention / 2.0), "{} s, at the peak {peak} s", step.seconds);
        prop_assert!(step.parts.iter().all(|(_, share)| (0.0..=ONE).contains(share)), "{:?}", step.parts);
    }

    #[test]
    fn more_work_takes_longer(t in trainings()) {
        let c = &Calibration::built_in().unwrap().constants;
        let seconds = t.step(c).unwrap().seconds;
        for more in [
            Training { micro_batch: 2.0 * t.micro_batch, ..t.clone() },
            Training { accumulation: 2.0 * t.accumulation, ..t.clone() },
            Training { seq_len: 2.0 * t.seq_len, ..t.clone() },
            Training { model: Model { layers: 2.0 * t.model.layers, ..t.model }, ..t.clone() },
        ] {
            let longer = more.step(c).unwrap().seconds;
            prop_assert!(longer * ONE >= seconds, "{longer} s after {seconds} s");
        }
        let full = Training { recompute: Recompute::Full, ..t.clone() }.step(c).unwrap().seconds;
        let none = Training { recompute: Recompute::None, ..t.clone() }.step(c).unwrap().seconds;
        prop_assert!(full >= none);
        // What is computed again in part lies between, and what of it is named adds up.
        let parts = |queries, attention, inner| {
            let recompute = Recompute::Parts(Again { queries, attention, inner });
            Training { recompute, ..t.clone() }.step(c).unwrap().seconds
        };
        let (least, most) = (parts(false, false, false), parts(true, true, true));
        prop_assert!(none <= least * ONE && least <= parts(false, false, true) * ONE);
        prop_assert!(parts(true, false, true) <= most * ONE);
        prop_assert!(most <= full * ONE, "{most} s, all of it {full} s");
    }

    #[test]
    fn more_devices_never_need_less_memory_in_total_and_never_more_on_each(t in trainings()) {
        // More data-parallel ranks with the same micro-batch.
        let of = |devices: f64| {
            let all = Training { devices, ..t.clone() };
            memory::training(&all)
        };
        let (few, many) = (of(t.devices), of(2.0 * t.devices));
        prop_assert!(many.total() <= few.total() * ONE);
        prop_assert!(2.0 * many.total() * ONE >= few.total());
        // Sharding and recomputation save.
        let order = [Sharding::None, Sharding::Optimizer, Sharding::Gradients, Sharding::Weights];
        let states = |sharding| {
            let f = memory::training(&Training { sharding, ..t.clone() });
            f.weights + f.gradients + f.optimizer
        };
        prop_assert!(order.windows(2).all(|w| states(w[1]) <= states(w[0]) * ONE));
        let kept = |recompute| memory::training(&Training { recompute, ..t.clone() });
        let full = kept(Recompute::Full).activations;
        prop_assert!(full <= kept(Recompute::None).activations * 2.0);
        prop_assert!(kept(Recompute::Selective).activations <= kept(Recompute::None).activations * ONE);
        let parts = kept(Recompute::Parts(Again { inner: true, ..Again::default() })).activations;
        prop_assert!(parts <= kept(Recompute::None).activations && 2.0 * parts >= kept(Recompute::Full).activations);
    }

    #[test]
    fn a_better_device_never_serves_slower(s in servings(), batch in 1u32..512, context in 1u32..8192) {
        let c = &Calibration::built_in().unwrap().constants;
        let (batch, context) = (f64::from(batch), f64::from(context));
        let of = |s: &Serving| (s.decode_step(batch, context, c), s.prefill(1.0, context, c));
        let (step, read) = of(&s);
        for (what, device) in better(&s.device) {
            let (faster, sooner) = of(&Serving { device, ..s.clone() });
            prop_assert!(faster <= step * ONE, "more {what}: decode {faster} s after {step} s");
            prop_assert!(sooner <= read * ONE, "more {what}: prefill {sooner} s after {read} s");
        }
    }

    #[test]
    fn serving_has_its_limits(s in servings(), batch in 1u32..512, context in 1u32..8192) {
        let c = &Calibration::built_in().unwrap().constants;
        let (batch, context) = (f64::from(batch), f64::from(context));
        let step = s.decode_step(batch, context, c);
        // The weights have to be read, whatever the batch.
        let least = s.model.active_parameters() * s.weight_bytes / s.tensor / s.device.bytes_per_second;
        let one = s.decode_step(1.0, 1.0, c);
        prop_assert!(one >= least && one.is_finite(), "{one} s, weights alone {least} s");
        prop_assert!(step >= one / ONE && s.decode_step(batch, 2.0 * context, c) >= step);
        // A token costs less in a larger batch.
        prop_assert!(s.decode_step(2.0 * batch, context, c) <= 2.0 * step * ONE);
        // Prompts of one token, and longer ones.
        let (short, long) = (s.prefill(1.0, 1.0, c), s.prefill(1.0, context, c));
        prop_assert!(short > 0.0 && short <= long * ONE, "{short} {long}");
        prop_assert!(long >= 2.0 * s.model.layers * s.model.layer_parameters() * context / s.tensor / s.device.peak_narrow_sums.max(s.device.peak) * 0.999);
        // Memory grows with what is cached, by exactly that.
        let held = |tokens: f64| memory::serving(&s, batch, tokens).cache;
        prop_assert!((held(2.0 * context) / held(context) - 2.0).abs() < 1e-6);
        let narrow = memory::serving(&Serving { weight_bytes: s.weight_bytes / 2.0, ..s.clone() }, batch, context);
        prop_assert!(narrow.total() < memory::serving(&s, batch, context).total());
    }
}
