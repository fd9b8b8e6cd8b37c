//! Sizes of a model as the projection sees them: real numbers, so that any published row fits.

use crate::transformer::shape::{Activation, Shape};

/// A decoder's sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    pub layers: f64,
    pub d_model: f64,
    pub heads: f64,
    pub kv_heads: f64,
    pub head_dim: f64,
    pub d_ff: f64,
    pub vocab: f64,
    /// Three matrices in the feed-forward layer (SwiGLU) instead of two.
    pub gated: bool,
    /// The output product shares the embedding's weights.
    pub tied: bool,
    /// All parameters.
    pub parameters: f64,
}

impl Model {
    /// Sizes as published: whether the feed-forward is gated and the embedding shared is what comes nearest to the stated
    /// number of parameters.
    pub fn published(sizes: [f64; 7], parameters: Option<f64>) -> Self {
        let [layers, d_model, heads, kv_heads, head_dim, d_ff, vocab] = sizes;
        let with = |gated, tied| {
            let m = Self { layers, d_model, heads, kv_heads, head_dim, d_ff, vocab, gated, tied, parameters: 0.0 };
            Self { parameters: m.counted(), ..m }
        };
        let Some(stated) = parameters else {
            return with(d_ff < 3.9 * d_model, true);
        };
        let off = |m: &Self| (m.parameters / stated).ln().abs();
        let all = [with(false, true), with(true, false), with(false, false), with(true, true)];
        let nearest = all.into_iter().fold(None::<Self>, |best, m| match best {
            Some(b) if off(&b) <= off(&m) => Some(b),
            _ => Some(m),
        });
        Self { parameters: stated, ..nearest.unwrap_or(with(false, true)) }
    }

    /// A decoder of that many parameters, 12 L d^2 + V d, of GPT-3's proportions (Brown et al. 2020, table 2.1): about 128 wide
    /// a layer from 13B up, heads of 128.
    pub fn of_parameters(parameters: f64, vocab: f64) -> Self {
        const HEAD_DIM: f64 = 128.0;
        const WIDTH_PER_LAYER: f64 = 128.0;
        let ideal = (parameters * WIDTH_PER_LAYER / 12.0).cbrt();
        let d_model = ((ideal / 512.0).round() * 512.0).max(128.0);
        let layers = ((parameters - vocab * d_model) / (12.0 * d_model * d_model)).max(1.0);
        // Even from 8 up, so that a pipeline can share them.
        let layers = if layers >= 16.0 { (layers / 8.0).round() * 8.0 } else { layers.round() };
        let heads = (d_model / HEAD_DIM).max(1.0);
        let sizes = [layers, d_model, heads, heads, d_model / heads, 4.0 * d_model, vocab];
        Self { gated: false, tied: true, ..Self::published(sizes, Some(parameters)) }
    }

    fn counted(&self) -> f64 {
        self.layers * self.layer_parameters() + self.vocab * self.d_model * if self.tied { 1.0 } else { 2.0 }
    }

    pub fn d_kv(&self) -> f64 {
        self.kv_heads * self.head_dim
    }

    /// heads x head_dim
    pub fn d_attention(&self) -> f64 {
        self.heads * self.head_dim
    }

    /// Weights of one layer's matrices.
    pub fn layer_parameters(&self) -> f64 {
        let attention = self.d_model * (2.0 * self.d_attention() + 2.0 * self.d_kv());
        attention + self.inner_matrices() * self.d_model * self.d_ff
    }

    /// Matrices of the feed-forward layer.
    pub fn inner_matrices(&self) -> f64 {
        if self.gated { 3.0 } else { 2.0 }
    }

    /// Weights that take part in the products of a token: everything but the table that is only looked up.
    pub fn active_parameters(&self) -> f64 {
        self.layers * self.layer_parameters() + self.vocab * self.d_model
    }

    /// Bytes of the KV cache a token, at `bytes` a value.
    pub fn cache_bytes_per_token(&self, bytes: f64) -> f64 {
        2.0 * self.layers * self.d_kv() * bytes
    }
}

impl From<(&Shape, u64)> for Model {
    /// Of one of our shapes and its exact number of parameters.
    fn from((s, parameters): (&Shape, u64)) -> Self {
        Self {
            layers: f64::from(s.n_layers),
            d_model: f64::from(s.d_model),
            heads: f64::from(s.n_heads),
            kv_heads: f64::from(s.n_kv_heads),
            head_dim: f64::from(s.head_dim),
            d_ff: f64::from(s.d_ff),
            vocab: f64::from(s.vocab_size),
            gated: matches!(s.activation, Activation::SwiGlu),
            tied: s.tied_embeddings,
            parameters: parameters as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stated_parameters_tell_gated_from_plain() {
        let llama = Model::published([32.0, 4096.0, 32.0, 32.0, 128.0, 11008.0, 32000.0], Some(6.738e9));
        assert!(llama.gated && !llama.tied);
        assert!((llama.counted() / 6.738e9 - 1.0).abs() < 0.001, "{}", llama.counted());
        let gpt3 = Model::published([96.0, 12288.0, 96.0, 96.0, 128.0, 49152.0, 50257.0], Some(175e9));
        assert!(!gpt3.gated);
        // Without the number, a feed-forward narrower than four times the model is taken to be gated.
        assert!(Model::published([32.0, 4096.0, 32.0, 8.0, 128.0, 14336.0, 128256.0], None).gated);
    }
}
