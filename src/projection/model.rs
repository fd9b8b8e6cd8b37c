//! Sizes of a model as the projection sees them: real numbers, so that any published row fits.

use crate::transformer::shape::Shape;
use crate::transformer::shape::layers::attention_matrices;

/// Feed-forward layers of which a token passes a few (mixture of experts).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    /// Of a layer.
    pub count: f64,
    /// That a token passes.
    pub active: f64,
    /// Width of what every token passes beside them.
    pub shared_width: f64,
    /// Layers that have them; the others have one of `dense_width`.
    pub layers: f64,
    pub dense_width: f64,
}

/// Keys and values that are kept as one vector of low rank (DeepSeek-V2, 2024), and attention that looks back a window only.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Attending {
    /// Values kept of a token and layer, where they are not keys and values of each head.
    pub latent: Option<f64>,
    /// Weights of a layer's attention where it is through such a vector; those of DeepSeek's models where nothing is said.
    pub latent_weights: Option<f64>,
    /// Tokens that the windowed layers look back.
    pub window: f64,
    pub windowed_layers: f64,
}

/// A decoder's sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// Layers.
    pub layers: f64,
    /// Width of the residual stream.
    pub d_model: f64,
    /// Query heads.
    pub heads: f64,
    /// Heads of keys and values.
    pub kv_heads: f64,
    /// Width of a head.
    pub head_dim: f64,
    /// Of one expert, where there are experts.
    pub d_ff: f64,
    /// Entries of the vocabulary.
    pub vocab: f64,
    /// Three matrices in the feed-forward layer (SwiGLU) instead of two.
    pub gated: bool,
    /// The output product shares the embedding's weights.
    pub tied: bool,
    /// `None`: one feed-forward layer for all tokens.
    pub experts: Option<Experts>,
    /// How far attention looks.
    pub attending: Attending,
    /// All parameters.
    pub parameters: f64,
}

impl Model {
    /// Sizes as published: whether the feed-forward is gated and the embedding shared is what comes nearest to the stated
    /// number of parameters.
    pub fn published(sizes: [f64; 7], parameters: Option<f64>) -> Self {
        Self::with_experts(sizes, parameters, None, Attending::default())
    }

    /// The same, with experts and with other attention. Every mixture of experts that was published has gated ones.
    pub fn with_experts(
        sizes: [f64; 7],
        parameters: Option<f64>,
        experts: Option<Experts>,
        attending: Attending,
    ) -> Self {
        let [layers, d_model, heads, kv_heads, head_dim, d_ff, vocab] = sizes;
        let with = |gated, tied| {
            let (experts, parameters) = (experts, 0.0);
            let m = Self {
                layers,
                d_model,
                heads,
                kv_heads,
                head_dim,
                d_ff,
                vocab,
                gated,
                tied,
                experts,
                attending,
                parameters,
            };
            Self { parameters: m.counted(), ..m }
        };
        let Some(stated) = parameters else {
            return with(experts.is_some() || d_ff < 3.9 * d_model, experts.is_none());
        };
        let off = |m: &Self| (m.parameters / stated).ln().abs();
        let all = [with(false, true), with(true, false), with(false, false), with(true, true)];
        let nearest =
            all.into_iter().filter(|m| m.gated || experts.is_none()).fold(None::<Self>, |best, m| match best {
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
        self.matrix_parameters() + if self.tied { 0.0 } else { self.table_parameters() }
    }

    /// Width of all keys, or of all values, of a token.
    pub fn d_kv(&self) -> f64 {
        self.kv_heads * self.head_dim
    }

    /// heads x head_dim
    pub fn d_attention(&self) -> f64 {
        self.heads * self.head_dim
    }

    /// vocabulary x width: the embedding, and the head.
    pub fn table_parameters(&self) -> f64 {
        self.vocab * self.d_model
    }

    /// Weights of a layer's attention.
    pub fn attention_parameters(&self) -> f64 {
        if let Some(weights) = self.attending.latent_weights {
            return weights;
        }
        match self.attending.latent {
            // Queries through a rank of 1536, keys and values through the latent, heads of 128 and 64 with positions
            // (DeepSeek-V2, table of sizes).
            Some(latent) if self.heads >= 64.0 => {
                self.d_model * (1536.0 + latent) + self.heads * (1536.0 * 192.0 + 512.0 * 256.0 + 128.0 * self.d_model)
            }
            Some(latent) => {
                self.d_model * latent + self.heads * (192.0 * self.d_model + 512.0 * 256.0 + 128.0 * self.d_model)
            }
            None => self.d_model * (2.0 * self.d_attention() + 2.0 * self.d_kv()),
        }
    }

    /// Weights of the feed-forward of all layers, where `each` experts of a layer count.
    fn inner_parameters(&self, each: f64) -> f64 {
        let matrix = self.inner_matrices() * self.d_model;
        match self.experts {
            None => self.layers * matrix * self.d_ff,
            Some(e) => {
                let router = e.count * self.d_model;
                e.layers * (matrix * (each * self.d_ff + e.shared_width) + router)
                    + (self.layers - e.layers).max(0.0) * matrix * e.dense_width
            }
        }
    }

    /// Weights of one layer's matrices, all experts counted, on average.
    pub fn layer_parameters(&self) -> f64 {
        self.attention_parameters() + self.inner_parameters(self.expert_count()) / self.layers
    }

    /// The same of what one token passes.
    pub fn layer_active_parameters(&self) -> f64 {
        self.attention_parameters() + self.inner_parameters(self.experts_a_token()) / self.layers
    }

    /// Width of the feed-forward that a token passes in a layer, on average.
    pub fn active_width(&self) -> f64 {
        self.inner_parameters(self.experts_a_token()) / (self.layers * self.inner_matrices() * self.d_model)
    }

    /// Experts of a layer; 1 where there are none.
    pub fn expert_count(&self) -> f64 {
        self.experts.map_or(1.0, |e| e.count)
    }

    /// Experts that a token passes; 1 where there are none.
    pub fn experts_a_token(&self) -> f64 {
        self.experts.map_or(1.0, |e| e.active)
    }

    /// Experts of a layer that `tokens` tokens pass together, each choosing by chance.
    pub fn distinct_experts(&self, tokens: f64) -> f64 {
        self.experts.map_or(1.0, |e| e.count * (1.0 - (1.0 - e.active / e.count).max(0.0).powf(tokens)))
    }

    /// Matrices of the feed-forward layer.
    pub fn inner_matrices(&self) -> f64 {
        if self.gated { 3.0 } else { 2.0 }
    }

    /// Weights of all products, every expert counted: everything but a table that is only looked up.
    pub fn matrix_parameters(&self) -> f64 {
        self.layers * self.layer_parameters() + self.table_parameters()
    }

    /// Those of the experts that a token chooses among.
    pub fn routed_parameters(&self) -> f64 {
        self.inner_parameters(self.expert_count()) - self.inner_parameters(0.0)
    }

    /// Weights that take part in the products of a token.
    pub fn active_parameters(&self) -> f64 {
        self.layers * self.layer_active_parameters() + self.table_parameters()
    }

    /// Weights that are read for `tokens` tokens together.
    pub fn read_parameters(&self, tokens: f64) -> f64 {
        self.layers * self.attention_parameters()
            + self.inner_parameters(self.distinct_experts(tokens))
            + self.table_parameters()
    }

    /// Values of a token and layer in the KV cache.
    pub fn cached_values(&self) -> f64 {
        self.attending.latent.unwrap_or(2.0 * self.d_kv())
    }

    /// Bytes of the KV cache a token that no window drops, at `bytes` a value.
    pub fn cache_bytes_per_token(&self, bytes: f64) -> f64 {
        self.layers * self.cached_values() * bytes
    }

    /// Tokens that attention looks at and the cache keeps, of `context`, on average over the layers.
    pub fn seen(&self, context: f64) -> f64 {
        let a = &self.attending;
        if a.windowed_layers <= 0.0 {
            return context;
        }
        let share = (a.windowed_layers / self.layers).min(1.0);
        context * (1.0 - share) + context.min(a.window) * share
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
            d_ff: f64::from(s.d_ff_expert()),
            vocab: f64::from(s.vocab_size),
            gated: s.activation.gated(),
            tied: s.tied_embeddings,
            experts: s.experts.map(|e| Experts {
                count: f64::from(e.count),
                active: f64::from(e.per_token),
                shared_width: f64::from(s.d_ff_shared()),
                layers: f64::from(s.n_layers - e.dense_layers),
                dense_width: f64::from(s.d_ff),
            }),
            attending: Attending {
                latent: s.latent.map(|l| f64::from(l.cached())),
                latent_weights: s.latent.and_then(|_| attention_matrices(s).ok()).map(|n| n as f64),
                window: s.window.map_or(0.0, f64::from),
                windowed_layers: (0..s.n_layers as usize).filter(|l| s.window_of(*l).is_some()).count() as f64,
            },
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
        assert!(Model::published([32.0, 4096.0, 32.0, 8.0, 128.0, 14336.0, 128_256.0], None).gated);
    }

    #[test]
    fn a_token_passes_a_few_experts_and_a_batch_most() {
        let experts = Experts { count: 8.0, active: 2.0, shared_width: 0.0, layers: 32.0, dense_width: 0.0 };
        let sizes = [32.0, 4096.0, 32.0, 8.0, 128.0, 14336.0, 32000.0];
        let mixtral = Model::with_experts(sizes, Some(46.7e9), Some(experts), Attending::default());
        // As its makers count: 46.7 and 12.9 billion, the table that is looked up included.
        assert!((mixtral.counted() / 46.7e9 - 1.0).abs() < 0.01, "{}", mixtral.counted());
        let active = mixtral.active_parameters() + mixtral.table_parameters();
        assert!((active / 12.9e9 - 1.0).abs() < 0.01, "{active}");
        let read = |n: f64| mixtral.read_parameters(n);
        assert!((read(1.0) / mixtral.active_parameters() - 1.0).abs() < 1e-9);
        assert!(read(2.0) > 1.5 * read(1.0) && read(64.0) > 0.999 * mixtral.matrix_parameters());
        assert!(read(2.0) < 2.0 * read(1.0));
    }

    #[test]
    fn a_latent_and_windows_keep_less() {
        let sizes = [61.0, 7168.0, 128.0, 128.0, 128.0, 2048.0, 129_280.0];
        let experts = Experts { count: 256.0, active: 8.0, shared_width: 2048.0, layers: 58.0, dense_width: 18432.0 };
        let latent = Attending { latent: Some(576.0), ..Attending::default() };
        let m = Model::with_experts(sizes, Some(671e9), Some(experts), latent);
        // DeepSeek-V3: 671 billion, 37 of them active, 70 KB of cache a token.
        assert!((m.counted() / 671e9 - 1.0).abs() < 0.02, "{}", m.counted());
        assert!(
            ((m.active_parameters() + m.table_parameters()) / 37.5e9 - 1.0).abs() < 0.03,
            "{}",
            m.active_parameters()
        );
        assert!((m.cache_bytes_per_token(2.0) / 70e3 - 1.0).abs() < 0.01);
        let windows = Attending { window: 128.0, windowed_layers: 12.0, ..Attending::default() };
        let oss = Model { layers: 24.0, attending: windows, ..m };
        assert_eq!((oss.seen(64.0), oss.seen(8192.0)), (64.0, 0.5 * 8192.0 + 64.0));
    }
}
