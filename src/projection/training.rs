//! One training step: computation, collectives, bubbles, the optimizer.

use super::constants::Constants;
use super::device::{Kind, Unit};
use super::kernels::{
    Attention, AttentionKernels, CPU_LAYER, LAUNCH_LAYER, LOSS_EAGER, LOSS_FUSED, PASSES_EAGER, PASSES_FUSED,
    ProductFormat, moving_rate, product, product_rate,
};
use super::model::Model;
use std::sync::Arc;

/// Launches of a layer with experts over those of one without, and what each expert adds to them where Python launches.
const ROUTED: f64 = 1.5;
const EACH_EXPERT: f64 = 0.07;
/// What each further rank of a context-parallel ring adds: attention on its part, the exchange of keys and values and the
/// correction of sums, about 8 calls of 30.
const RING_CALLS: f64 = 0.25;

/// What is recomputed in the backward pass instead of kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompute {
    /// Nothing: every activation is kept.
    None,
    /// Attention's scores (Korthikanti et al. 2022); with fused attention nothing.
    Selective,
    /// A part that nobody names: about a quarter of the forward pass.
    Partial,
    /// What no product makes (norms, activations), and what is named beside it.
    Parts(Again),
    /// Every other layer's forward pass, or every other product.
    Half,
    /// Each layer's forward pass.
    Full,
}

/// What of a layer is computed again beside its norms and activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// Queries, keys and values.
    pub queries: bool,
    /// Attention's output.
    pub attention: bool,
    /// What goes into the feed-forward's activation.
    pub inner: bool,
}

/// What data-parallel ranks share out among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sharding {
    None,
    /// Optimizer states (ZeRO 1, distributed optimizer).
    Optimizer,
    /// Gradients too (ZeRO 2).
    Gradients,
    /// Weights too (ZeRO 3, FSDP).
    Weights,
}

/// How well the framework's kernels are fused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainingEngine {
    /// Megatron with Transformer Engine, llm.c, compiled JAX.
    Fused,
    /// PyTorch, an operation at a time, with fused attention.
    Eager,
}

/// Who launches the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// A program that was compiled or captured: XLA, C++.
    Compiled,
    /// The interpreter, call by call.
    Python,
}

/// One training configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// What is trained.
    pub model: Model,
    /// One of the devices.
    pub device: Arc<Unit>,
    /// All of them.
    pub devices: f64,
    /// Devices that one machine has.
    pub devices_per_node: f64,
    /// Bytes/s of one device's network, one direction.
    pub network: f64,
    /// Tensor-parallel ranks.
    pub tensor: f64,
    /// Pipeline-parallel ranks.
    pub pipeline: f64,
    /// Chunks of layers a pipeline rank holds (interleaved 1F1B); 1: plain 1F1B.
    pub interleave: f64,
    /// Context-parallel ranks, which share a sequence.
    pub context: f64,
    /// Ranks that experts are spread over, among the data-parallel ones.
    pub expert_parallel: f64,
    /// What data-parallel ranks keep a part of.
    pub sharding: Sharding,
    /// Sequences of one data-parallel rank at a time.
    pub micro_batch: f64,
    /// Micro-batches a step.
    pub accumulation: f64,
    /// Tokens of a sequence.
    pub seq_len: f64,
    /// Of products.
    pub format: ProductFormat,
    /// What the backward pass computes again.
    pub recompute: Recompute,
    /// Scores never lie in memory.
    pub fused_attention: bool,
    /// Norms and dropout are split over tensor-parallel ranks too.
    pub sequence_parallel: bool,
    /// The training program.
    pub engine: TrainingEngine,
    /// What launches its kernels.
    pub driver: Driver,
    /// Optimizer and master weights lie in the host's memory (ZeRO-Offload).
    pub offloaded: bool,
    /// Collectives that a layer's weights are gathered with.
    pub gathers: f64,
    /// Of attention whose scores never lie in memory.
    pub kernels: AttentionKernels,
    /// Stages send whole activations and wait for them (DeepSpeed's pipeline).
    pub blocking: bool,
    /// 16-bit weights and gradients beside 32-bit copies of both (DeepSpeed).
    pub copies_apart: bool,
    /// The loss is computed in parts, and logits are never there in whole (Liger).
    pub fused_loss: bool,
    /// All states in 16 bits instead of 32-bit master copies.
    pub pure_half: bool,
}

/// A projected step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub seconds: f64,
    /// Shares of the step by cause; what overlaps is counted where it shows.
    pub parts: [(&'static str, f64); 8],
}

impl Training {
    /// Data-parallel ranks.
    pub fn data(&self) -> f64 {
        (self.devices / (self.tensor * self.pipeline * self.context)).max(1.0)
    }

    /// Tokens of all devices together.
    pub fn tokens_per_step(&self) -> f64 {
        self.data() * self.micro_batch * self.accumulation * self.seq_len
    }

    /// Tokens of one micro-batch on one device.
    pub(super) fn rows(&self) -> f64 {
        self.micro_batch * self.seq_len / self.context
    }

    /// Model FLOPs of a step (Chowdhery et al. 2022, appendix B): 6 a weight and 12 a layer, position and width, a token;
    /// nothing for recomputation.
    pub fn model_flops(&self) -> f64 {
        self.model_flops_per_token() * self.tokens_per_step()
    }

    /// The same of one token.
    pub fn model_flops_per_token(&self) -> f64 {
        let m = &self.model;
        6.0 * m.active_parameters() + self.attention_flops_per_token()
    }

    /// Of it what attention takes, the masked half included.
    pub fn attention_flops_per_token(&self) -> f64 {
        12.0 * self.model.layers * self.model.seen(self.seq_len) * self.model.d_attention()
    }

    /// Projects a step; `None` where the device has not the format.
    pub fn step(&self, c: &Constants) -> Option<Step> {
        let (u, m) = (&*self.device, &self.model);
        let (t, rows) = (self.tensor, self.rows());
        let rate = product_rate(u, self.format, c)?;
        let half = product_rate(u, ProductFormat::Half, c)?;
        let moving = moving_rate(u);
        let eager = self.engine == TrainingEngine::Eager;
        let made = self.layer_products(rate, c);
        let products = made.all();
        let attention = Attention {
            rows,
            context: m.seen(self.seq_len),
            heads: m.heads / t,
            head_dim: m.head_dim,
            fused: self.fused_attention,
            behind: self.kernels.behind(u),
        };
        let (attend, attend_back) = attention.seconds(u, c);
        let elementwise = self.layer_elementwise() / moving;
        let launch = match (u.kind, self.driver, self.engine) {
            (Kind::Cpu, ..) => CPU_LAYER,
            (_, Driver::Compiled, _) => LAUNCH_LAYER,
            (_, _, TrainingEngine::Fused) => c.launch_python,
            (_, _, TrainingEngine::Eager) => c.launch_eager,
        };
        let python = self.driver == Driver::Python;
        // A router, the calls that sort tokens, and those of each expert; hooks around each layer whose weights are gathered.
        let launch = launch
            * match self.experts_here() {
                Some(here) if python => ROUTED + EACH_EXPERT * here,
                Some(_) => ROUTED,
                None => 1.0,
            };
        let hooks = if self.sharding == Sharding::Weights && python { self.gathers.sqrt() } else { 1.0 };
        let ring = if python { 1.0 + RING_CALLS * (self.context - 1.0) } else { 1.0 };
        let launch = launch * hooks * ring;
        let forward = (products + attend + elementwise).max(launch);
        let backward = (2.0 * products + attend_back + 1.6 * elementwise).max(2.0 * launch);
        let again = match self.recompute {
            Recompute::Full => forward,
            Recompute::Selective if !self.fused_attention => attend,
            Recompute::Partial => 0.25 * forward,
            Recompute::Parts(again) => elementwise + made.again(again) + if again.attention { attend } else { 0.0 },
            Recompute::Half => 0.5 * forward,
            Recompute::None | Recompute::Selective => 0.0,
        };
        let sums = self.tensor_sums(c) + self.context_ring(c) + self.expert_exchange(c);
        let loss_bytes = if eager { LOSS_EAGER } else { LOSS_FUSED };
        let head = 3.0 * product(u, [rows, m.d_model, m.vocab / t], half) + loss_bytes * rows * m.vocab / t / moving;
        let staged = self.pipeline > 1.0;
        let layers = m.layers / self.pipeline;
        // In a pipeline the last stage has the head beside its layers; planners give it fewer of them.
        let head = head * if staged { 0.5 } else { 1.0 };
        let micro = (forward + backward + again + sums) * layers + head;
        let bubble = micro * (self.pipeline - 1.0) / self.interleave;
        let handed = self.hand_over(c);
        let busy = micro * self.accumulation + bubble + handed;
        let reduced = self.reductions(busy, c);
        let updated = self.optimizer_bytes();
        let update = if self.offloaded { updated / c.offload_rate } else { updated / moving };
        let optimizer = update + if u.kind == Kind::Cpu { 0.0 } else { c.step_fixed };
        let nodes = (self.devices / 8.0).max(1.0);
        let seconds = (busy + reduced + optimizer) * (1.0 + c.straggling * nodes.log2());
        let many = layers * self.accumulation;
        let parts = [
            ("products", 3.0 * products * many + head * self.accumulation),
            ("attention", (attend + attend_back) * many),
            ("elementwise", 2.6 * elementwise * many),
            ("recomputation", again * many),
            ("tensor-parallel sums", sums * many),
            ("pipeline bubble", bubble + handed),
            ("data-parallel exchange", reduced),
            ("optimizer and fixed", optimizer),
        ];
        let parts = parts.map(|(name, s)| (name, s / seconds));
        Some(Step { seconds, parts })
    }

    fn layer_products(&self, rate: f64, c: &Constants) -> Products {
        let (u, m, t, rows) = (&*self.device, &self.model, self.tensor, self.rows());
        let into = if m.gated { 2.0 } else { 1.0 };
        let attention =
            [[rows, m.d_model, (m.d_attention() + 2.0 * m.d_kv()) / t], [rows, m.d_attention() / t, m.d_model]];
        // Attention of low rank has more products than these, and fewer weights.
        let weights = m.d_model * (2.0 * m.d_attention() + 2.0 * m.d_kv());
        let [queries, attended] = attention.map(|s| product(u, s, rate) * m.attention_parameters() / weights);
        let inner = |rows: f64, width: f64| {
            if width <= 0.0 || rows <= 0.0 {
                return 0.0;
            }
            product(u, [rows, m.d_model, into * width / t], rate) + product(u, [rows, width / t, m.d_model], rate)
        };
        let of = |inner: f64| Products { queries, attended, inner, into: inner * into / (into + 1.0) };
        let Some(e) = m.experts else { return of(inner(rows, m.d_ff)) };
        // Each rank has some experts, and they the tokens of all its group.
        let here = self.experts_here().unwrap_or(1.0);
        let each = rows * e.active / here;
        let routed = here * inner(each, m.d_ff) / c.grouped_share + inner(rows, e.shared_width);
        let share = e.layers / m.layers;
        of(share * routed + (1.0 - share) * inner(rows, e.dense_width))
    }

    /// Experts of a layer that a device has.
    fn experts_here(&self) -> Option<f64> {
        self.model.experts.map(|e| (e.count / self.expert_parallel).max(1.0))
    }

    /// Bytes that norms, additions, activations and casts of a layer move forward.
    fn layer_elementwise(&self) -> f64 {
        let (m, rows) = (&self.model, self.rows());
        let (outer, inner) = match self.engine {
            TrainingEngine::Fused => PASSES_FUSED,
            TrainingEngine::Eager => PASSES_EAGER,
        };
        let split = if self.sequence_parallel { self.tensor } else { 1.0 };
        let gate = if m.gated { 1.5 } else { 1.0 };
        let width = m.active_width();
        // Tokens are copied to their experts, and back.
        let copied = if m.experts.is_some() { 4.0 * m.experts_a_token() * m.d_model } else { 0.0 };
        let mut bytes = 2.0 * rows * (outer * m.d_model / split + gate * inner * width / self.tensor + copied);
        if self.format.is_wide() {
            bytes *= 2.0;
        } else if self.format != ProductFormat::Half {
            bytes += rows * (6.0 * m.d_model + 3.0 * width / self.tensor);
        }
        bytes
    }

    /// Parameters of one device before data-parallel sharding.
    pub fn held_parameters(&self) -> f64 {
        let m = &self.model;
        let routed = m.routed_parameters();
        ((m.matrix_parameters() - routed) / self.tensor + routed / (self.expert_parallel * self.tensor).max(1.0))
            / self.pipeline
    }

    fn optimizer_bytes(&self) -> f64 {
        let shards = if self.sharding >= Sharding::Optimizer { self.data() * self.context } else { 1.0 };
        self.held_parameters() / shards * if self.pure_half { 18.0 } else { 30.0 }
    }
}

/// Seconds of a layer's products.
#[derive(Clone, Copy, Debug)]
struct Products {
    queries: f64,
    /// Of what attention gives.
    attended: f64,
    inner: f64,
    /// Of those, what goes into the activation.
    into: f64,
}

impl Products {
    fn all(&self) -> f64 {
        self.queries + self.attended + self.inner
    }

    fn again(&self, parts: Again) -> f64 {
        [(parts.queries, self.queries), (parts.inner, self.into)].iter().filter(|(is, _)| *is).map(|(_, s)| s).sum()
    }
}

/// Bytes/s of a device's network in clusters of its generation.
pub(crate) fn usual_network(architecture: &str) -> f64 {
    match architecture {
        "Volta" | "Turing" => 12.5e9,
        "Ampere" | "Ada" => 25e9,
        _ => 50e9,
    }
}
