//! The layout that trains fastest: every split of the devices into tensor, pipeline and data parallelism, every sharding and
//! recomputation, every micro-batch that is a power of two.

use super::constants::Constants;
use super::memory::{self, Footprint};
use super::training::{Recompute, Sharding, Training, TrainingEngine};

/// A layout with what is projected of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub training: Training,
    pub tokens_per_second: f64,
    pub footprint: Footprint,
}

impl Plan {
    /// "tensor 8, pipeline 4, data 16, ZeRO 1, full recomputation, micro-batch 2".
    pub(crate) fn described(&self) -> String {
        let t = &self.training;
        let mut words = Vec::new();
        let mut split = |name: &str, n: f64| {
            if n > 1.0 {
                words.push(format!("{name} {n}"));
            }
        };
        split("tensor", t.tensor);
        split("pipeline", t.pipeline);
        split("data", t.data());
        words.extend(match t.sharding {
            Sharding::None => None,
            Sharding::Optimizer => Some("ZeRO 1".to_string()),
            Sharding::Gradients => Some("ZeRO 2".to_string()),
            Sharding::Weights => Some("ZeRO 3".to_string()),
        });
        if t.recompute == Recompute::Full {
            words.push("full recomputation".into());
        }
        words.push(format!("micro-batch {}", t.micro_batch));
        words.join(", ")
    }
}

/// Which activations a plan may keep for the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kept {
    /// What is fastest.
    #[default]
    Fastest,
    All,
    /// Each layer's input only: full recomputation.
    Inputs,
}

impl Kept {
    fn tried(self) -> &'static [Recompute] {
        match self {
            Self::Fastest => &[Recompute::None, Recompute::Full],
            Self::All => &[Recompute::None],
            Self::Inputs => &[Recompute::Full],
        }
    }
}

/// What of the layout is settled beforehand.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Settled {
    pub kept: Kept,
    pub tensor: Option<f64>,
    pub pipeline: Option<f64>,
    /// Kernels of 2021 (Narayanan et al.): attention writes its scores, and norms are not split over tensor-parallel ranks.
    pub old_kernels: bool,
}

/// Largest tensor-parallel group: beyond a machine its sums would cross the network.
const MOST_TENSOR: f64 = 8.0;
/// Most micro-batches in one device's memory that are tried: powers of two up to 2^6.
const MICRO_BATCHES: i32 = 7;

/// How many times faster a layout has to be than a simpler one, which is tried before it.
const WORTH: f64 = 1.01;

fn powers_of_two(most: f64) -> impl Iterator<Item = f64> {
    (0..40).map(|i| 2f64.powi(i)).take_while(move |n| *n <= most)
}

/// The fastest layout of `base` for a step of `sequences` that fits; where none does, the one that needs least memory.
/// `None` where the device has not the format or the sequences cannot be shared out.
pub(crate) fn fastest(base: &Training, sequences: f64, settled: Settled, c: &Constants) -> Option<(Plan, bool)> {
    let mut best: Option<(Plan, bool, f64)> = None;
    for t in layouts(base, sequences, settled) {
        let footprint = memory::training(&t);
        let fits = footprint.fits(t.device.memory_bytes);
        if !fits && best.as_ref().is_some_and(|(_, f, m)| *f || -footprint.total() <= *m) {
            continue;
        }
        let Some(step) = t.step(c) else { continue };
        let tokens_per_second = t.tokens_per_step() / step.seconds;
        let merit = if fits { tokens_per_second } else { -footprint.total() };
        let better = |f: bool, m: f64| if fits && f { merit > m * WORTH } else { (fits, merit) > (f, m) };
        if best.as_ref().is_none_or(|(_, f, m)| better(*f, *m)) {
            best = Some((Plan { training: t, tokens_per_second, footprint }, fits, merit));
        }
    }
    best.map(|(plan, fits, _)| (plan, fits))
}

fn layouts(base: &Training, sequences: f64, settled: Settled) -> impl Iterator<Item = Training> + '_ {
    let n = base.devices;
    let is = |asked: Option<f64>, n: f64| asked.is_none_or(|a| a == n);
    let tensors = powers_of_two(MOST_TENSOR.min(base.devices_per_node).min(n))
        .filter(move |t| n % t == 0.0 && base.model.heads % t == 0.0 && base.model.d_ff % t == 0.0);
    tensors
        .flat_map(move |tensor| {
            powers_of_two(n / tensor)
                .filter(move |p| (n / tensor) % p == 0.0 && *p <= base.model.layers / 2.0 || *p == 1.0)
                .map(move |pipeline| (tensor, pipeline))
        })
        .filter(move |(t, p)| is(settled.tensor, *t) && is(settled.pipeline, *p))
        .filter(move |(t, p)| {
            let data = n / (t * p);
            data <= sequences && sequences % data == 0.0
        })
        .flat_map(move |(tensor, pipeline)| {
            let data = n / (tensor * pipeline);
            let per_rank = sequences / data;
            let shardings: &[Sharding] = match (data > 1.0, pipeline > 1.0) {
                (false, _) => &[Sharding::None],
                (true, true) => &[Sharding::None, Sharding::Optimizer],
                (true, false) => &[Sharding::None, Sharding::Optimizer, Sharding::Weights],
            };
            let micro = powers_of_two(per_rank.min(2f64.powi(MICRO_BATCHES - 1))).filter(move |m| per_rank % m == 0.0);
            micro.flat_map(move |micro_batch| {
                shardings.iter().flat_map(move |&sharding| {
                    settled.kept.tried().iter().map(move |&recompute| Training {
                        tensor,
                        pipeline,
                        sharding,
                        micro_batch,
                        recompute,
                        accumulation: per_rank / micro_batch,
                        interleave: 1.0,
                        context: 1.0,
                        sequence_parallel: tensor > 1.0 && !settled.old_kernels,
                        fused_attention: !settled.old_kernels,
                        engine: TrainingEngine::Fused,
                        ..base.clone()
                    })
                })
            })
        })
}
