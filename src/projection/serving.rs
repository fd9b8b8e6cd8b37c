//! Inference: prefill, decoding, and a server that is kept full.

use super::constants::Constants;
use super::device::{Kind, Unit};
use super::kernels::{CPU_LAYER, WIDEN_OPERATIONS};
use super::model::Model;
use std::sync::Arc;

/// What the engine is made of; a program's name only says which of these it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InferenceEngine {
    /// Own kernels for every device, separate launches (llama.cpp, ollama).
    Portable,
    /// Compiled or captured steps at batch 1 (gpt-fast, exllamav2, FasterTransformer).
    Compiled,
    /// Continuous batching over captured steps (TensorRT-LLM, vLLM, SGLang).
    Server,
    /// Python calls operation by operation (litgpt, transformers).
    Eager,
}

/// How weights take part in products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// 16-bit.
    Half,
    /// f32, of which products take 19 bits.
    Tf32,
    /// Unpacked to 16 bits inside the kernel.
    Packed,
    /// Unpacked by calls of their own.
    Unpacked,
    /// 8-bit floats into matrix units.
    F8,
    /// 4-bit floats into matrix units.
    F4,
}

/// One inference configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Serving {
    /// What is served.
    pub model: Model,
    /// One of the devices.
    pub device: Arc<Unit>,
    /// Devices that share each layer.
    pub tensor: f64,
    /// Devices that hold different layers.
    pub stages: f64,
    /// Bytes a weight of the matrices.
    pub weight_bytes: f64,
    /// Bytes a value of embedding and head where weights are quantised.
    pub table_bytes: f64,
    /// How weights are quantised.
    pub weights: Weights,
    /// Bytes a value of the KV cache.
    pub cache_bytes: f64,
    /// The program of inference.
    pub engine: InferenceEngine,
    /// The scheduler, in Python, runs between the device's steps.
    pub between_steps: bool,
    /// Steps are not captured: each kernel is launched by hand.
    pub by_hand: bool,
    /// Sums over devices are a communication library's, not kernels of its own.
    pub library_sums: bool,
    /// Products of quantised weights are those of one row, repeated (AWQ's GEMV).
    pub by_rows: bool,
    /// Products are summed up in 16 bits, which cards with GDDR memory do twice as fast.
    pub narrow_sums: bool,
    /// Kernels of a time when the device was new to the engine.
    pub old: bool,
    /// Logits of the whole prompt are computed and kept, in f32.
    pub all_logits: bool,
}

/// Rows that a portable engine takes at a time in prefill, and chunks that flow through its stages before they drain.
const CHUNK: f64 = 512.0;
const CHUNKS_IN_FLIGHT: f64 = 4.0;
/// Operations on bytes against those on 32 bits.
const BYTE_LANES: f64 = 0.25;
/// What an eager program's layer takes more for each expert that it loops over.
const EACH_EXPERT: f64 = 0.12;
/// Calls of 8-bit weights whose outliers are multiplied apart (LLM.int8(), Dettmers 2022), over those of 4-bit weights.
const OUTLIERS_APART: f64 = 3.0;
/// What a sum by a library costs at the least over one by a kernel of the program's own.
const LIBRARY: f64 = 3.0;
/// Kernels of a layer with experts, over those of one without.
const MORE_KERNELS: f64 = 1.5;
/// Bytes/s of a device's network where nothing is said of it.
const NETWORK: f64 = 25e9;
/// Seconds for a hand-over between devices that hold different layers: a copy over PCIe with synchronisation.
const STAGE_LATENCY: f64 = 0.3e-3;
/// What a sum costs more where devices have no link of their own and meet over PCIe and the host.
const OVER_PCIE: f64 = 2.5;
/// Sharpness with which two limits meet: both are near, and a step is slower than either.
const MEET: f64 = 2.5;

/// Two limits at once: between the larger and the sum.
fn meet(a: f64, b: f64) -> f64 {
    (a.powf(MEET) + b.powf(MEET)).powf(1.0 / MEET)
}

impl Serving {
    /// Seconds of a decode step of `batch` sequences with `context` tokens each.
    pub fn decode_step(&self, batch: f64, context: f64, c: &Constants) -> f64 {
        let (u, m) = (&*self.device, &self.model);
        let read = m.read_parameters(batch);
        let bytes = read * self.weight_bytes / self.tensor;
        let operations = match self.weights {
            Weights::F8 | Weights::F4 => 0.0,
            Weights::Half | Weights::Tf32 => WIDEN_OPERATIONS,
            // Integer products of bytes, four to a 32-bit lane, with their unpacking.
            Weights::Packed | Weights::Unpacked if u.kind == Kind::Cpu => BYTE_LANES * c.unpack_operations,
            Weights::Packed | Weights::Unpacked if u.kind == Kind::Soc => c.unpack_operations_soc,
            Weights::Packed | Weights::Unpacked => c.unpack_operations,
        };
        let portable = self.engine == InferenceEngine::Portable;
        // Kernels that are the same for every device do not keep enough in flight for the fastest memories.
        let streamed = u.cores.filter(|_| portable).map_or(f64::INFINITY, |n| n * c.stream_per_core);
        let share = if u.kind == Kind::Cpu && !u.probed { c.cpu_share } else { c.decode_share };
        let reading = bytes / (u.bytes_per_second * share).min(streamed);
        let times = if self.by_rows { batch } else { 1.0 };
        let streamed = meet(reading, times * read / self.tensor * operations / u.vector_f32);
        // Values that are not of single heads are copied to every device.
        let split = if m.attending.latent.is_some() { 1.0 } else { self.tensor.min(m.kv_heads) };
        // To grow the cache eager programs copy it, and keys and values are repeated for each head that shares them.
        let copies = if self.engine == InferenceEngine::Eager { 3.0 + 2.0 * (m.heads / m.kv_heads) } else { 1.0 };
        let cached = batch * m.seen(context) * m.cache_bytes_per_token(self.cache_bytes) / split * copies;
        let cache_share = if portable { c.cache_share_portable } else { c.cache_share };
        let products = 2.0 * m.active_parameters() * (batch - 1.0).max(0.0)
            / self.tensor
            / (self.product_rate(c) * c.decode_products);
        let hops = (self.stages - 1.0) * 0.5 * STAGE_LATENCY;
        streamed + cached / (u.bytes_per_second * cache_share) + products + self.sums(batch, c) + hops + self.fixed(c)
    }

    /// Seconds of the tensor-parallel sums over the results of `rows` tokens, all layers.
    pub(super) fn sums(&self, rows: f64, c: &Constants) -> f64 {
        let u = &*self.device;
        if self.tensor <= 1.0 {
            return 0.0;
        }
        let linked = u.link_devices > 1.0;
        // Beyond the link's devices the network sets the pace.
        let outside = linked && self.tensor > u.link_devices;
        let rate =
            if outside { u.link_bytes_per_second.min(NETWORK * u.link_devices) } else { u.link_bytes_per_second };
        let by = if self.library_sums { LIBRARY } else { 1.0 };
        let latency = c.sum_latency * if linked && !outside { by } else { OVER_PCIE * by };
        let bytes = 2.0 * rows * self.model.d_model * 2.0 * (self.tensor - 1.0) / self.tensor;
        2.0 * self.model.layers * (latency + bytes / (c.sum_share * rate))
    }

    /// Seconds of a step that its size does not change.
    pub(super) fn fixed(&self, c: &Constants) -> f64 {
        if self.device.kind == Kind::Cpu {
            return self.model.layers * CPU_LAYER;
        }
        let layer = match self.engine {
            InferenceEngine::Portable => c.layer_portable,
            _ if self.by_hand => c.layer_by_hand,
            InferenceEngine::Compiled => c.layer_compiled,
            InferenceEngine::Server => c.layer_server,
            InferenceEngine::Eager => c.layer_eager,
        };
        let unpack = match self.weights {
            Weights::Unpacked if self.weight_bytes >= 1.0 => OUTLIERS_APART * c.layer_unpack,
            Weights::Unpacked => c.layer_unpack,
            _ => 0.0,
        };
        // A router, and products of each expert.
        let routed = match self.model.experts {
            Some(e) if self.engine == InferenceEngine::Eager => 1.0 + EACH_EXPERT * e.count,
            Some(_) => MORE_KERNELS,
            None => 1.0,
        };
        let step = if self.between_steps { c.between_steps } else { 0.0 };
        self.model.layers * (layer * routed + unpack) + c.decode_fixed + step
    }

    /// The same of a prompt, whose kernels nobody captures.
    fn prefill_fixed(&self, c: &Constants) -> f64 {
        let captured = matches!(self.engine, InferenceEngine::Compiled | InferenceEngine::Server) && !self.by_hand;
        if self.device.kind == Kind::Cpu || !captured {
            return self.fixed(c);
        }
        self.fixed(c).max(self.model.layers * c.layer_by_hand + c.decode_fixed)
    }

    /// Attainable FLOP/s of the products of a long prompt, on one device.
    pub(super) fn product_rate(&self, c: &Constants) -> f64 {
        let u = &*self.device;
        let rate = match (self.weights, self.engine, u.kind) {
            // Products of packed integers pass the rate of 32-bit floats, and matrix units of few engines are used.
            (.., Kind::Cpu) if self.weight_bytes <= 2.0 && !u.probed => u.vector_f32 * c.cpu_products,
            (_, InferenceEngine::Portable, Kind::Soc) => u.peak * c.prefill_apple,
            (_, InferenceEngine::Portable, Kind::Datacenter) if u.is_after_ampere() => {
                u.peak_narrow_sums * c.prefill_portable * c.older_prefill
            }
            (_, InferenceEngine::Portable, _) => u.peak_narrow_sums * c.prefill_portable,
            (Weights::Tf32, ..) if u.has_tf32() => 0.5 * u.tuned * c.prefill_share,
            _ if self.weight_bytes >= 4.0 => u.tuned_f32 * c.prefill_share,
            (Weights::F8, ..) if u.tuned_f8.is_some() => u.tuned_f8.unwrap_or(u.tuned) * c.prefill_f8,
            (Weights::F4, ..) if u.peak_f4.is_some() => u.peak_f4.unwrap_or(u.tuned) * c.prefill_f4,
            _ if self.old => u.tuned * c.prefill_share * c.older_prefill,
            _ if self.narrow_sums => u.tuned * u.peak_narrow_sums / u.peak * c.prefill_share,
            _ => u.tuned * c.prefill_share,
        };
        let rate = match u.watts.filter(|_| u.kind == Kind::Card && !matches!(self.weights, Weights::F8 | Weights::F4))
        {
            Some(watts) => (rate.powi(-3) + (watts * c.power_limit).powi(-3)).powf(-1.0 / 3.0),
            None => rate,
        };
        let unpacked = match self.engine {
            InferenceEngine::Portable => self.weight_bytes <= 1.01,
            // Where it is not done beforehand, for products of a library.
            _ => self.weights == Weights::Packed && u.kind != Kind::Cpu && !self.narrow_sums,
        };
        if unpacked { rate * c.prefill_unpack } else { rate }
    }

    /// Seconds until the prompts of `batch` sequences have been read together.
    pub fn prefill(&self, batch: f64, prompt: f64, c: &Constants) -> f64 {
        let (u, m) = (&*self.device, &self.model);
        let rate = self.product_rate(c);
        let portable = self.engine == InferenceEngine::Portable;
        let rows = batch * prompt;
        // Stages work on parts of it at the same time.
        let parts = if self.stages > 1.0 { batch.min(self.stages) } else { 1.0 };
        let chunk = if portable { rows.min(CHUNK) } else { rows / parts };
        let count = (rows / chunk).ceil();
        let head = if self.all_logits { 1.0 } else { (batch / rows).min(1.0) };
        let weights = m.active_parameters() - m.table_parameters() * (1.0 - head);
        let rows_apart = if self.by_rows { weights * c.unpack_operations / u.vector_f32 } else { 0.0 };
        let one = (2.0 * weights / rate).max(rows_apart) * chunk / self.tensor
            + m.read_parameters(chunk) * self.weight_bytes / u.bytes_per_second / self.tensor
            + self.prefill_fixed(c);
        // Scores are written and read; half of them where the kernel skips what the mask hides.
        let per_key = m.layers * m.heads * chunk / self.tensor
            * (c.score_bytes / u.bytes_per_second + 4.0 * m.head_dim / (0.6 * rate))
            * if portable { 1.0 } else { 0.5 };
        // Keys that a chunk sees: those before it of its own sequence.
        let attend = |i: f64| {
            per_key
                * m.seen(if batch > 1.0 && portable {
                    0.5 * (prompt + chunk.min(prompt))
                } else {
                    ((i + 1.0) * chunk).min(prompt)
                })
        };
        let mut seconds = self.sums(rows, c);
        let in_flight = if self.stages > 1.0 { parts.max(if portable { CHUNKS_IN_FLIGHT } else { 1.0 }) } else { 1.0 };
        let mut begun = 0.0;
        while begun < count {
            let now = in_flight.min(count - begun);
            let mean = attend(begun + (now - 1.0) / 2.0);
            let hop = if self.stages > 1.0 { STAGE_LATENCY } else { 0.0 };
            seconds += (now + self.stages - 1.0) * ((one + mean) / self.stages + hop);
            begun += now;
        }
        seconds
    }
}
