//! A workload of ours on a device that is not here: the layout that a good engine would choose, its rate and its memory.

use super::calibration::Calibration;
use super::constants::Constants;
use super::device::Unit;
use super::kernels::{AttentionKernels, ProductFormat};
use super::memory::{self, Footprint};
use super::model::Model;
use super::published::Quantity;
use super::search::{self, Settled};
use super::serving::{InferenceEngine, Serving, Weights};
use super::training::{self, Driver, Recompute, Sharding, Training, usual_network};
use super::traits::Traits;
use crate::transformer::shape::count::{self, CountOverflow};
use crate::transformer::{CacheFormat, Dtype, Phase, WeightFormat, Workload};
use std::sync::Arc;

/// What is projected for a number of devices together.
#[derive(Clone, Debug, PartialEq)]
pub struct Projected {
    pub quantity: Quantity,
    /// Of a good engine. Tokens as the harness counts them for the phase.
    pub tokens_per_second: f64,
    pub seconds_per_step: f64,
    /// How the devices share the work.
    pub layout: String,
    /// On the fullest device.
    pub footprint: Footprint,
    pub fits: bool,
    /// What widens its bar.
    pub traits: Traits,
}

/// Why there is no projection.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Unprojected {
    #[error(transparent)]
    Count(#[from] CountOverflow),
    #[error("the batch of {batch} sequences cannot be shared out among {devices} devices; choose a multiple")]
    Batch { batch: u32, devices: u32 },
}

/// Tokens a device and seconds under which a step is short, and its error larger.
const SHORT_STEP: f64 = 4096.0;
const SHORT_SECONDS: f64 = 3e-3;

/// Devices of one machine.
const PER_NODE: f64 = 8.0;

/// Projects a workload onto `devices` of a device.
///
/// # Errors
/// Counts beyond 64 bits, or a batch that the devices cannot share.
pub fn project(
    w: &Workload,
    device: &Arc<Unit>,
    devices: u32,
    calibration: &Calibration,
) -> Result<Projected, Unprojected> {
    let model = Model::from((&w.shape, count::parameters(&w.shape)?));
    let unshared = Unprojected::Batch { batch: w.batch, devices };
    match w.phase {
        Phase::Train => training(w, model, device, devices, calibration).ok_or(unshared),
        Phase::Prefill | Phase::Decode | Phase::Generate => {
            serving(w, model, device, devices, calibration).ok_or(unshared)
        }
    }
}

fn training(
    w: &Workload,
    model: Model,
    device: &Arc<Unit>,
    devices: u32,
    calibration: &Calibration,
) -> Option<Projected> {
    let base = base(model, device, f64::from(devices), f64::from(w.seq_len), format(w));
    let (plan, fits) = search::fastest(&base, f64::from(w.batch), Settled::default(), &calibration.constants)?;
    let tokens = w.tokens_per_step() as f64;
    Some(Projected {
        quantity: Quantity::TrainingTokens,
        tokens_per_second: plan.tokens_per_second,
        seconds_per_step: tokens / plan.tokens_per_second,
        layout: plan.described(),
        footprint: plan.footprint,
        fits,
        traits: calibration.traits(
            Quantity::TrainingTokens,
            device,
            f64::from(devices),
            tokens / f64::from(devices) < SHORT_STEP,
        ),
    })
}

/// What a phase's measurements are compared with.
pub(crate) fn quantity(phase: Phase) -> Quantity {
    match phase {
        Phase::Train => Quantity::TrainingTokens,
        Phase::Prefill => Quantity::PrefillTokens,
        Phase::Decode | Phase::Generate => Quantity::DecodeTokens,
    }
}

pub(super) fn format(w: &Workload) -> ProductFormat {
    match w.dtype {
        Dtype::F32 => ProductFormat::Single,
        Dtype::Tf32 => ProductFormat::Tf32,
        Dtype::Bf16 => ProductFormat::Half,
    }
}

/// A training run whose layout is still to be chosen.
pub fn base(model: Model, device: &Arc<Unit>, devices: f64, seq_len: f64, format: ProductFormat) -> Training {
    let per_node = if device.link_devices > 1.0 { device.link_devices.min(72.0) } else { PER_NODE };
    Training {
        model,
        devices,
        devices_per_node: devices.min(per_node.max(PER_NODE)),
        network: usual_network(&device.architecture),
        device: Arc::clone(device),
        tensor: 1.0,
        pipeline: 1.0,
        interleave: 1.0,
        context: 1.0,
        expert_parallel: 1.0,
        sharding: Sharding::None,
        micro_batch: 1.0,
        accumulation: 1.0,
        seq_len,
        format,
        recompute: Recompute::None,
        fused_attention: true,
        sequence_parallel: false,
        engine: training::TrainingEngine::Fused,
        // A good engine keeps its launches beside the device's work.
        driver: Driver::Compiled,
        offloaded: false,
        gathers: 1.0,
        kernels: AttentionKernels::Newest,
        blocking: false,
        copies_apart: false,
        fused_loss: false,
        pure_half: false,
    }
}

/// Seconds of a step of `each` sequences on `tensor` devices, and the configuration.
pub(super) fn inference(
    w: &Workload,
    model: Model,
    device: &Arc<Unit>,
    tensor: f64,
    each: f64,
    c: &Constants,
) -> (f64, Serving) {
    let (prompt, new) = (f64::from(w.prompt_len), f64::from(w.new_tokens));
    let (weight_bytes, weights) = match (w.weights, w.dtype) {
        (WeightFormat::Int8 | WeightFormat::F8, _) => (1.0, Weights::Packed),
        (WeightFormat::Int4, _) => (4.5 / 8.0, Weights::Packed),
        (WeightFormat::Int4Group128 | WeightFormat::Int4Group128ZeroPoints, _) => (4.25 / 8.0, Weights::Packed),
        (_, Dtype::F32) => (4.0, Weights::Half),
        (_, Dtype::Tf32) => (4.0, Weights::Tf32),
        (_, Dtype::Bf16) => (2.0, Weights::Half),
    };
    let value_bytes = w.dtype.size() as f64;
    let s = Serving {
        model,
        device: Arc::clone(device),
        tensor,
        stages: 1.0,
        weight_bytes,
        table_bytes: value_bytes,
        weights,
        cache_bytes: cache_bytes(w, value_bytes),
        engine: InferenceEngine::Compiled,
        between_steps: false,
        by_hand: false,
        by_rows: false,
        narrow_sums: false,
        library_sums: false,
        old: false,
        all_logits: false,
    };
    let read = || each * s.prefill(1.0, prompt.max(1.0), c);
    let step = || s.decode_step(each, prompt + new / 2.0, c);
    let seconds = match w.phase {
        Phase::Train | Phase::Prefill => read(),
        Phase::Generate => read() + (new - 1.0).max(0.0) * step(),
        Phase::Decode => step(),
    };
    (seconds, s)
}

/// Bytes a value of the KV cache, its share of scales among them.
fn cache_bytes(w: &Workload, whole: f64) -> f64 {
    let of = |kv_cache| count::kv_bytes_per_token(&Workload { kv_cache, ..w.clone() }).map(|b| b.get() as f64);
    match (of(w.kv_cache), of(CacheFormat::Dtype)) {
        (Ok(stored), Ok(plain)) => whole * stored / plain,
        _ => whole,
    }
}

fn serving(
    w: &Workload,
    model: Model,
    device: &Arc<Unit>,
    devices: u32,
    calibration: &Calibration,
) -> Option<Projected> {
    let mut best: Option<Projected> = None;
    let splits = (0..4).map(|i| 2u32.pow(i)).filter(|t| devices.is_multiple_of(*t));
    for tensor in splits.filter(|t| w.shape.n_heads.is_multiple_of(*t)) {
        let copies = f64::from(devices / tensor);
        let each = f64::from(w.batch) / copies;
        if each.fract() != 0.0 {
            continue;
        }
        let (seconds, s) = inference(w, model, device, f64::from(tensor), each, &calibration.constants);
        let footprint = memory::serving(&s, each, f64::from(w.longest_sequence()));
        let split = |name: &str, n: f64| if n > 1.0 { Some(format!("{name} {n}")) } else { None };
        let words: Vec<String> = split("tensor", s.tensor).into_iter().chain(split("copies", copies)).collect();
        let found = Projected {
            quantity: quantity(w.phase),
            tokens_per_second: w.tokens_per_step() as f64 / seconds,
            seconds_per_step: seconds,
            layout: if words.is_empty() { "one device".into() } else { words.join(", ") },
            fits: footprint.fits(device.memory_bytes),
            footprint,
            traits: calibration.traits(quantity(w.phase), device, f64::from(devices), seconds < SHORT_SECONDS),
        };
        let merit = |p: &Projected| (p.fits, if p.fits { p.tokens_per_second } else { -p.footprint.total() });
        if best.as_ref().is_none_or(|b| merit(&found) > merit(b)) {
            best = Some(found);
        }
    }
    best
}
