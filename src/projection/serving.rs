//! Inference: prefill, decoding, and a server that is kept full.

use super::constants::Constants;
use super::device::{Kind, Unit};
use super::memory;
use super::model::Model;
use std::sync::Arc;

/// What the engine is made of; a program's name only says which of these it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
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
    pub model: Model,
    pub device: Arc<Unit>,
    /// Devices that share each layer.
    pub tensor: f64,
    /// Devices that hold different layers.
    pub stages: f64,
    pub weight_bytes: f64,
    /// Bytes a value of embedding and head where weights are quantised.
    pub table_bytes: f64,
    pub weights: Weights,
    pub cache_bytes: f64,
    pub engine: Engine,
}

/// Rows that a portable engine takes at a time in prefill, and chunks that flow through its stages before they drain.
const CHUNK: f64 = 512.0;
const CHUNKS_IN_FLIGHT: f64 = 4.0;
/// Most sequences that servers batch.
const MOST_SEQUENCES: f64 = 2048.0;
/// Share of free memory that servers give to the cache.
const CACHE_SHARE: f64 = 0.92;
/// What a server's workspaces take on each device.
const SERVER_BYTES: f64 = 2.5e9;
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
        let weights = m.active_parameters();
        let bytes = weights * self.weight_bytes / self.tensor;
        let operations = match self.weights {
            Weights::F8 | Weights::F4 => 0.0,
            Weights::Half | Weights::Tf32 => c.widen_operations,
            Weights::Packed | Weights::Unpacked if u.kind == Kind::Soc => c.unpack_operations_soc,
            Weights::Packed | Weights::Unpacked => c.unpack_operations,
        };
        let portable = self.engine == Engine::Portable;
        // Kernels that are the same for every device do not keep enough in flight for the fastest memories.
        let streamed = u.cores.filter(|_| portable).map_or(f64::INFINITY, |n| n * c.stream_per_core);
        let reading = bytes / (u.bytes_per_second * c.decode_share).min(streamed);
        let streamed = meet(reading, weights / self.tensor * operations / u.vector_f32);
        let split = self.tensor.min(m.kv_heads);
        let cached = batch * context * m.cache_bytes_per_token(self.cache_bytes) / split;
        let cache_share = if self.engine == Engine::Portable { c.cache_share_portable } else { c.cache_share };
        let products =
            2.0 * weights * (batch - 1.0).max(0.0) / self.tensor / (self.product_rate(c) * c.decode_products);
        let sums = if self.tensor > 1.0 {
            2.0 * m.layers * (c.sum_latency + 4.0 * batch * m.d_model / u.link_bytes_per_second)
        } else {
            0.0
        };
        let hops = (self.stages - 1.0) * 0.5 * c.stage_latency;
        streamed + cached / (u.bytes_per_second * cache_share) + products + sums + hops + self.fixed(c)
    }

    /// Seconds of a step that its size does not change.
    fn fixed(&self, c: &Constants) -> f64 {
        if self.device.kind == Kind::Cpu {
            return self.model.layers * c.cpu_layer;
        }
        let layer = match self.engine {
            Engine::Portable => c.layer_portable,
            Engine::Compiled => c.layer_compiled,
            Engine::Server => c.layer_server,
            Engine::Eager => c.layer_eager,
        };
        let unpack = if self.weights == Weights::Unpacked { c.layer_unpack } else { 0.0 };
        self.model.layers * (layer + unpack) + c.decode_fixed
    }

    /// Attainable FLOP/s of the products of a long prompt, on one device.
    fn product_rate(&self, c: &Constants) -> f64 {
        let u = &*self.device;
        let rate = match (self.weights, self.engine, u.kind) {
            (_, Engine::Portable, Kind::Soc) => u.peak * c.prefill_apple,
            (_, Engine::Portable, Kind::Datacenter) if u.is_after_ampere() => {
                u.peak_narrow_sums * c.prefill_portable * c.older_kernels
            }
            (_, Engine::Portable, _) => u.peak_narrow_sums * c.prefill_portable,
            (Weights::Tf32, ..) if u.has_tf32() => 0.5 * u.tuned * c.prefill_share,
            _ if self.weight_bytes >= 4.0 => u.tuned_f32 * c.prefill_share,
            (Weights::F8, ..) if u.tuned_f8.is_some() => u.tuned_f8.unwrap_or(u.tuned) * c.prefill_f8,
            (Weights::F4, ..) if u.peak_f4.is_some() => u.peak_f4.unwrap_or(u.tuned) * c.prefill_f4,
            _ => u.tuned * c.prefill_share,
        };
        let rate = match u.watts.filter(|_| u.kind == Kind::Card && !matches!(self.weights, Weights::F8 | Weights::F4))
        {
            Some(watts) => (rate.powi(-3) + (watts * c.power_limit).powi(-3)).powf(-1.0 / 3.0),
            None => rate,
        };
        let packed = self.engine == Engine::Portable && self.weight_bytes <= 1.01;
        if packed { rate * c.prefill_unpack } else { rate }
    }

    /// Seconds until a prompt of one sequence has been read.
    pub fn prefill(&self, prompt: f64, c: &Constants) -> f64 {
        let (u, m) = (&*self.device, &self.model);
        let rate = self.product_rate(c);
        let portable = self.engine == Engine::Portable;
        let chunk = if portable { prompt.min(CHUNK) } else { prompt };
        let count = (prompt / chunk).ceil();
        let weights = m.active_parameters();
        let one = 2.0 * weights * chunk / rate / self.tensor
            + weights * self.weight_bytes / u.bytes_per_second / self.tensor
            + self.fixed(c);
        // Scores are written and read; half of them where the kernel skips what the mask hides.
        let per_key = m.layers * m.heads * chunk / self.tensor
            * (c.score_bytes / u.bytes_per_second + 4.0 * m.head_dim / (0.6 * rate))
            * if portable { 1.0 } else { 0.5 };
        let attend = |i: f64| per_key * ((i + 1.0) * chunk).min(prompt);
        let sums = if self.tensor > 1.0 {
            2.0 * m.layers * (c.sum_latency + 3.0 * prompt * m.d_model / (0.6 * u.link_bytes_per_second))
        } else {
            0.0
        };
        let mut seconds = sums;
        let in_flight = if self.stages > 1.0 { CHUNKS_IN_FLIGHT } else { 1.0 };
        let mut begun = 0.0;
        while begun < count {
            let now = in_flight.min(count - begun);
            let mean = attend(begun + (now - 1.0) / 2.0);
            let hop = if self.stages > 1.0 { c.stage_latency } else { 0.0 };
            seconds += (now + self.stages - 1.0) * ((one + mean) / self.stages + hop);
            begun += now;
        }
        seconds
    }

    /// Sequences that fit beside the weights, of `tokens` cached tokens on average.
    pub fn most_sequences(&self, tokens: f64) -> f64 {
        let devices = self.tensor * self.stages;
        let held = memory::serving(self, 1.0, 0.0).weights;
        let free = (self.device.memory_bytes * CACHE_SHARE - held - SERVER_BYTES) * devices;
        let copies = (self.tensor / self.model.kv_heads).max(1.0);
        let each = tokens * self.model.cache_bytes_per_token(self.cache_bytes) * copies;
        (free / each).min(MOST_SEQUENCES)
    }

    /// Output tokens a second of a server that always has requests of this length waiting; `None` where not one fits.
    pub fn saturated(&self, prompt: f64, output: f64, batch: Option<f64>, c: &Constants) -> Option<f64> {
        let fit = self.most_sequences(prompt + 0.55 * output);
        if fit < 1.0 {
            return None;
        }
        let batch = batch.unwrap_or(fit).min(fit).max(1.0);
        // Stages take turns on parts of the batch: while one part passes all stages, the others follow it.
        let part = (batch / self.stages).max(1.0);
        let step = self.decode_step(part, prompt + output / 2.0, c) + batch * c.sequence_fixed + c.server_fixed;
        let m = &self.model;
        let devices = self.tensor * self.stages;
        let products = 2.0 * m.active_parameters() * prompt / (self.product_rate(c) * devices);
        let attention = 2.0 * prompt * prompt * m.d_attention() * m.layers / (0.5 * self.device.tuned * devices);
        let sums = if self.tensor > 1.0 {
            7.0 * m.layers * prompt * m.d_model / (0.6 * self.device.link_bytes_per_second)
        } else {
            0.0
        };
        Some(output / (products + attention + sums + output * step / batch))
    }
}
