//! A server that is kept full: as many sequences as its memory holds, or a batch that is given.

use super::constants::Constants;
use super::memory;
use super::serving::{InferenceEngine, Serving};

/// Most sequences that servers batch.
const MOST_SEQUENCES: f64 = 2048.0;
/// Share of free memory that servers give to the cache.
const CACHE_SHARE: f64 = 0.92;
/// What a server's workspaces take on each device.
const SERVER_BYTES: f64 = 2.5e9;
/// Most parts in which a batch that was given is taken to have been served one after the other.
const MOST_WAVES: f64 = 4.0;

/// Sequences that fit beside the weights, of `tokens` cached tokens on average.
pub(crate) fn most_sequences(s: &Serving, tokens: f64) -> f64 {
    let devices = s.tensor * s.stages;
    let held = memory::serving(s, 1.0, 0.0).weights;
    let free = (s.device.memory_bytes * CACHE_SHARE - held - SERVER_BYTES) * devices;
    let heads = if s.model.attending.latent.is_some() { 1.0 } else { s.model.kv_heads };
    let copies = (s.tensor / heads).max(1.0);
    let each = s.model.seen(tokens) * s.model.cache_bytes_per_token(s.cache_bytes) * copies;
    (free / each).min(MOST_SEQUENCES)
}

/// Output tokens a second where requests of this length always wait, or where `batch` of them were given at once.
pub(crate) fn saturated(s: &Serving, prompt: f64, output: f64, batch: Option<f64>, c: &Constants) -> f64 {
    let fit = most_sequences(s, prompt + 0.55 * output);
    let given = batch.is_some();
    // A static batch was run as it was given; a server's waited in part where memory is short of it.
    let batch = match batch {
        Some(n) if s.engine == InferenceEngine::Server => n.min(fit.max(n / MOST_WAVES)),
        Some(n) => n,
        None => fit,
    }
    .max(1.0);
    // Stages take turns on parts of the batch: while one part passes all stages, the others follow it.
    let part = (batch / s.stages).max(1.0);
    let scheduled = if s.engine == InferenceEngine::Server { batch * c.sequence_fixed + c.server_fixed } else { 0.0 };
    let step = s.decode_step(part, prompt + output / 2.0, c) + scheduled;
    let m = &s.model;
    let devices = s.tensor * s.stages.min(batch);
    let read = if given && s.engine != InferenceEngine::Server {
        // A static batch is read first.
        s.prefill(batch, prompt, c) / batch
    } else {
        // A full server mixes prompts into its steps.
        let products = 2.0 * (m.active_parameters() - m.table_parameters()) * prompt / (s.product_rate(c) * devices);
        let attention = 2.0 * prompt * m.seen(prompt) * m.d_attention() * m.layers / (0.5 * s.device.tuned * devices);
        let launches = if given { s.fixed(c) / batch } else { 0.0 };
        products + attention + s.sums(batch * prompt, c) / batch + launches
    };
    output / (read + output * step / batch)
}
