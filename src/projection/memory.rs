//! Bytes of one device by category, in training and in serving, and whether they fit.

use super::kernels::ProductFormat;
use super::serving::{InferenceEngine, Serving, Weights};
use super::training::{Again, Recompute, Sharding, Training, TrainingEngine};

/// Bytes on one device, the fullest one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Footprint {
    pub weights: f64,
    pub gradients: f64,
    pub optimizer: f64,
    pub activations: f64,
    pub cache: f64,
    /// Logits, gathered layers, workspaces.
    pub buffers: f64,
}

/// Share of a device's memory that a program may fill: the rest is the driver's, the library's and lost to fragments.
const USABLE: f64 = 0.94;
/// Workspaces of the libraries in serving.
const WORKSPACE_BYTES: f64 = 0.2e9;
/// NCCL's buffers and channels.
const COMMUNICATION_BYTES: f64 = 1.5e9;
/// What a caching allocator reserves over what is in use at the most (PyTorch's reserved against allocated: 3 to 15 %).
const FRAGMENTED: f64 = 1.07;
/// What the runtime takes before the first tensor.
const RUNTIME_BYTES: f64 = 0.6e9;

impl Footprint {
    pub fn total(&self) -> f64 {
        self.weights + self.gradients + self.optimizer + self.activations + self.cache + self.buffers
    }

    pub fn fits(&self, memory_bytes: f64) -> bool {
        self.total() + RUNTIME_BYTES <= memory_bytes * USABLE
    }

    /// Categories with their names, for tables.
    pub fn parts(&self) -> [(&'static str, f64); 6] {
        [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("KV cache", self.cache),
            ("buffers", self.buffers),
        ]
    }
}

/// Bytes that a process holds of a device beside what its program allocated: the runtime, communication buffers where there are
/// more devices, and what the allocator keeps in fragments.
pub(crate) fn of_process(allocated: f64, devices: f64) -> f64 {
    let communication = if devices > 1.0 { COMMUNICATION_BYTES } else { 0.0 };
    allocated * FRAGMENTED + RUNTIME_BYTES + communication
}

/// Of a training step. States: mixed precision keeps 2 bytes of weight, 4 of gradient, 12 of master copy and Adam's moments a
/// parameter, 18 in all (Narayanan et al. 2021; 2 + 2 + 12 with PyTorch's f32 weights cast a layer at a time: 16).
pub(crate) fn training(t: &Training) -> Footprint {
    let held = t.held_parameters();
    let ranks = t.data() * t.context;
    let shared = |from: Sharding| if t.sharding >= from { ranks } else { 1.0 };
    let (weight, gradient, state): (f64, f64, f64) = match (t.pure_half, t.engine) {
        _ if t.format.is_wide() => (4.0, 4.0, 8.0),
        (true, _) => (2.0, 2.0, 4.0),
        // Gradients are summed up in 32 bits as well.
        _ if t.copies_apart => (2.0, 6.0, 12.0),
        (false, TrainingEngine::Fused) if t.format == ProductFormat::Half => (2.0, 4.0, 12.0),
        // Gradients stay in bf16 where products are in 8 or 4 bits.
        (false, TrainingEngine::Fused) => (2.0, 2.0, 12.0),
        // f32 weights are the master copy; a layer's are cast when they are gathered.
        (false, TrainingEngine::Eager) => (4.0, 4.0, 8.0),
    };
    let layers = t.model.layers / t.pipeline;
    let gathered = if t.sharding == Sharding::Weights {
        4.0 * t.model.layer_parameters() / t.tensor / t.expert_parallel.min(t.model.expert_count()).max(1.0)
    } else {
        0.0
    };
    let logits = t.micro_batch * t.seq_len / t.context * t.model.vocab / t.tensor;
    let logit_bytes = match t.engine {
        _ if t.fused_loss => 0.0,
        TrainingEngine::Eager => 8.0,
        TrainingEngine::Fused => 4.0,
    };
    let held_on_host = |bytes: f64| if t.offloaded { 0.0 } else { bytes };
    Footprint {
        weights: held * if t.offloaded { weight.min(2.0) } else { weight } / shared(Sharding::Weights),
        gradients: held * if t.offloaded { gradient.min(2.0) } else { gradient } / shared(Sharding::Gradients),
        optimizer: held_on_host(held * state / shared(Sharding::Optimizer)),
        activations: layers * layer_activations(t) * in_flight(t) + working_layer(t),
        cache: 0.0,
        buffers: gathered + if t.pipeline > 1.0 { 0.0 } else { logits * logit_bytes },
    }
}

/// Micro-batches whose activations the first stage holds: as many as there are stages, and a little more where stages hold
/// chunks in turn (Korthikanti et al. 2022, section 4.2.3).
fn in_flight(t: &Training) -> f64 {
    if t.pipeline <= 1.0 {
        return 1.0;
    }
    let more = if t.interleave > 1.0 { 1.0 + (t.pipeline - 1.0) / (t.pipeline * t.interleave) } else { 1.0 };
    (t.pipeline * more).min(t.accumulation.max(1.0) * more)
}

/// Kept bytes of a layer and micro-batch (Korthikanti et al. 2022, table 2): s b h (34 + 5 a s / h) without parallelism for
/// GPT, here from the parts, so that grouped heads and gated feed-forwards count right.
fn layer_activations(t: &Training) -> f64 {
    let m = &t.model;
    let rows = t.micro_batch * t.seq_len / t.context;
    let split = if t.sequence_parallel { t.tensor } else { 1.0 };
    let inputs = 2.0 * rows * m.d_model / split;
    if t.recompute == Recompute::Full {
        return inputs;
    }
    let whole = full_layer(t, t.recompute == Recompute::Selective);
    match t.recompute {
        Recompute::Partial => 0.6 * whole,
        Recompute::Half => 0.5 * (whole + inputs),
        Recompute::Parts(again) => (whole - dropped(t, again)).max(inputs),
        _ => whole,
    }
}

/// What is not kept of it where parts are computed again: what norms and activations give, and what is named.
fn dropped(t: &Training, again: Again) -> f64 {
    let m = &t.model;
    let rows = t.micro_batch * t.seq_len / t.context;
    let split = if t.sequence_parallel { t.tensor } else { 1.0 };
    let norms = 4.0 * rows * m.d_model / split;
    let part = |is: bool, width: f64| if is { 2.0 * rows * width / t.tensor } else { 0.0 };
    norms
        + part(true, m.active_width())
        + part(again.inner, (m.inner_matrices() - 1.0) * m.active_width())
        + part(again.queries, m.d_attention() + 2.0 * m.d_kv())
        + part(again.attention, m.d_attention())
}

fn full_layer(t: &Training, without_scores: bool) -> f64 {
    let m = &t.model;
    let rows = t.micro_batch * t.seq_len / t.context;
    let split = if t.sequence_parallel { t.tensor } else { 1.0 };
    // What products take in is kept in their format.
    let taken = if t.format == ProductFormat::Half || t.format.is_wide() { 2.0 } else { 1.0 };
    let width = if t.format.is_wide() { 2.0 } else { 1.0 };
    // Models of the time of unfused attention have dropout, a byte a value.
    let masks = if t.fused_attention { 0.0 } else { 2.0 };
    // Not split by tensor parallelism alone: inputs of two norms and of two products, and two masks.
    let outer = rows * m.d_model * (2.0 * 2.0 + 2.0 * taken + masks) / split;
    // Split: queries, keys, values, the attention's output; what goes into the activation and what comes out.
    let attention = rows * (2.0 * (m.d_attention() + 2.0 * m.d_kv()) + taken * m.d_attention());
    let inner = rows * m.active_width() * (2.0 * (m.inner_matrices() - 1.0) + taken);
    let scores = if t.fused_attention || without_scores { 0.0 } else { 5.0 * m.heads * rows * t.seq_len / t.context };
    width * (outer + (attention + inner + scores) / t.tensor)
}

/// Where something is computed again, one layer is there in whole meanwhile.
fn working_layer(t: &Training) -> f64 {
    match t.recompute {
        Recompute::None | Recompute::Selective => 0.0,
        Recompute::Full => full_layer(t, false),
        Recompute::Partial | Recompute::Half | Recompute::Parts(_) => full_layer(t, false) - layer_activations(t),
    }
}

/// Of serving `batch` sequences of `context` tokens.
pub(crate) fn serving(s: &Serving, batch: f64, context: f64) -> Footprint {
    let m = &s.model;
    let parallel = (s.tensor * s.stages).max(1.0);
    // Quantised files keep the embedding and often the head in 16 bits.
    let tables = m.table_parameters() * if m.tied { 1.0 } else { 2.0 };
    let inside = (m.parameters - tables).max(0.0);
    // A matrix that is unpacked by a call of its own is there in 16 bits meanwhile.
    let unpacked = if s.weights == Weights::Unpacked { 2.0 * m.d_model * m.d_ff } else { 0.0 };
    let table_bytes = if s.weight_bytes < 2.0 { s.table_bytes } else { s.weight_bytes };
    let split = if m.attending.latent.is_some() { 1.0 } else { s.tensor.min(m.kv_heads) };
    let logit_rows = if s.all_logits { batch * context } else { batch };
    // A growing cache of eager programs is copied when a token is added.
    let cached = batch * m.seen(context) * m.cache_bytes_per_token(s.cache_bytes) / s.stages / split;
    Footprint {
        weights: (inside * s.weight_bytes + tables * table_bytes) / parallel,
        cache: cached,
        buffers: WORKSPACE_BYTES
            + unpacked
            + if s.engine == InferenceEngine::Eager { cached / m.layers } else { 0.0 }
            + 4.0 * m.vocab * logit_rows / s.tensor
            + 8.0 * m.d_model.max(m.d_ff) * batch.max(1.0),
        ..Footprint::default()
    }
}
