//! The families: names for sets of parts, with the values that their models usually have.

use super::experts::UsualMixture;
use super::parts::{NormKind, NormPlace, Parts, Positions, QkNorm, Residual};
use super::{Activation, Latent, Routing, Scoring};
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// The families that are built in. Each is a set of `Parts` and of usual values; the model is put together from the parts alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// LayerNorm, learned positions, GELU, biases, tied embeddings, causal (Radford et al. 2019).
    Gpt2,
    /// RMSNorm, rotary positions, SwiGLU, grouped-query attention, no biases, causal (Touvron et al. 2023).
    Llama,
    /// Embedding, multi-head attention without a mask, ReLU feed-forward, linear output, mean squared error:
    /// the model of a Keras article. No norms, no residuals, no positions.
    Block,
    /// Llama with a sliding window (Jiang et al. 2023).
    Mistral,
    /// Llama with biases on queries, keys and values (Yang et al. 2024).
    Qwen2,
    /// Llama with norms of queries and keys (Yang et al. 2025).
    Qwen3,
    /// RMSNorm by 1 + w, GELU-gated, scaled embeddings (Gemma Team 2024).
    Gemma,
    /// Gemma with norms after the branches too, soft-caps, and a window in every other layer (Gemma Team 2024).
    Gemma2,
    /// Gemma 2 with norms of queries and keys instead of caps, and rotary bases by layer (Gemma Team 2025).
    Gemma3,
    /// Llama with one product for queries, keys and values, and rotary positions stretched by length (Abdin et al. 2024).
    Phi3,
    /// LayerNorm, rotary positions on a part of each head, parallel branches (Black et al. 2022); Pythia's.
    #[serde(rename = "gpt-neox")]
    GptNeox,
    /// LayerNorm, rotary positions, one key and value head, parallel branches of one norm (Almazrouei et al. 2023).
    Falcon,
    /// RMSNorm after the branches, norms of queries and keys (OLMo Team 2024).
    Olmo2,
    /// LayerNorm, rotary positions, grouped-query attention, biases, a window (Lozhkov et al. 2024).
    Starcoder2,
    /// LayerNorm, learned positions, ReLU (Zhang et al. 2022).
    Opt,
    /// LayerNorm, one of the embedding too, ALiBi (Le Scao et al. 2022).
    Bloom,
    /// Mistral with 8 experts, 2 a token (Jiang et al. 2024).
    Mixtral,
    /// Qwen 3 with 128 experts, 8 a token (Yang et al. 2025).
    #[serde(rename = "qwen3-moe")]
    Qwen3Moe,
    /// Experts with biases and clamps, sinks beside the scores, a window in every other layer (OpenAI 2025).
    #[serde(rename = "gpt-oss")]
    GptOss,
    /// Llama with latent attention, shared experts and experts chosen by the softmax (DeepSeek-AI 2024).
    #[serde(rename = "deepseek-v2")]
    DeepseekV2,
    /// The same with latents of queries, and experts chosen by groups and corrected sigmoids (DeepSeek-AI 2024b).
    #[serde(rename = "deepseek-v3")]
    DeepseekV3,
}

crate::transformer::names!(Family {
    Gpt2 => "gpt2", Llama => "llama", Block => "block", Mistral => "mistral", Qwen2 => "qwen2", Qwen3 => "qwen3", Gemma => "gemma",
    Gemma2 => "gemma2", Gemma3 => "gemma3", Phi3 => "phi3", GptNeox => "gpt-neox", Falcon => "falcon", Olmo2 => "olmo2",
    Starcoder2 => "starcoder2", Opt => "opt", Bloom => "bloom", Mixtral => "mixtral", Qwen3Moe => "qwen3-moe",
    GptOss => "gpt-oss", DeepseekV2 => "deepseek-v2", DeepseekV3 => "deepseek-v3",
});

/// What the models of a family usually are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usual {
    pub n_layers: u32,
    pub d_model: u32,
    pub n_heads: u32,
    pub vocab_size: u32,
    pub context: u32,
    pub tied_embeddings: bool,
    pub qkv_bias: bool,
    pub attn_out_bias: bool,
    pub mlp_bias: bool,
    pub activation: Activation,
}

/// A small Llama's.
const LLAMA: Usual = Usual {
    n_layers: 12,
    d_model: 768,
    n_heads: 12,
    vocab_size: 32000,
    context: 2048,
    tied_embeddings: false,
    qkv_bias: false,
    attn_out_bias: false,
    mlp_bias: false,
    activation: Activation::SwiGlu,
};

/// The same with the biases of GPT-2's kin.
const BIASED: Usual = Usual {
    tied_embeddings: true,
    qkv_bias: true,
    attn_out_bias: true,
    mlp_bias: true,
    activation: Activation::GeluTanh,
    ..LLAMA
};

impl Family {
    pub(super) fn usual(self) -> Usual {
        match self {
            Self::Gpt2 => Usual { vocab_size: 50257, context: 1024, ..BIASED },
            Self::Block => Usual {
                n_layers: 1,
                d_model: 1024,
                n_heads: 8,
                vocab_size: 10000,
                context: 1024,
                tied_embeddings: false,
                activation: Activation::Relu,
                ..BIASED
            },
            Self::Llama | Self::Mistral | Self::Mixtral | Self::Qwen3 | Self::Phi3 | Self::Olmo2 | Self::Qwen3Moe => {
                LLAMA
            }
            Self::DeepseekV2 | Self::DeepseekV3 => LLAMA,
            Self::Qwen2 => Usual { qkv_bias: true, ..LLAMA },
            Self::GptOss => Usual { tied_embeddings: false, activation: Activation::ClampedSwiGlu, ..BIASED },
            Self::Gemma | Self::Gemma2 | Self::Gemma3 => {
                Usual { tied_embeddings: true, activation: Activation::GeGlu, ..LLAMA }
            }
            Self::GptNeox => Usual { tied_embeddings: false, activation: Activation::GeluErf, ..BIASED },
            Self::Falcon => Usual { tied_embeddings: true, activation: Activation::GeluErf, ..LLAMA },
            Self::Starcoder2 | Self::Bloom => BIASED,
            Self::Opt => Usual { activation: Activation::Relu, ..BIASED },
        }
    }

    /// What its mixtures have.
    pub(super) fn mixture(self) -> UsualMixture {
        let (shared, dense_layers) = self.shared_and_dense();
        let normalised = self != Self::DeepseekV2;
        UsualMixture { experts: self.experts(), shared, dense_layers, normalised, routing: self.routing() }
    }

    /// Experts a layer and a token, of families that are mixtures.
    fn experts(self) -> Option<(u32, u32)> {
        match self {
            Self::Mixtral => Some((8, 2)),
            Self::Qwen3Moe => Some((128, 8)),
            Self::GptOss => Some((32, 4)),
            Self::DeepseekV2 => Some((64, 6)),
            Self::DeepseekV3 => Some((256, 8)),
            _ => None,
        }
    }

    /// Experts that every token goes through, and layers without experts.
    fn shared_and_dense(self) -> (u32, u32) {
        match self {
            Self::DeepseekV2 => (2, 1),
            Self::DeepseekV3 => (1, 1),
            _ => (0, 0),
        }
    }

    /// By what experts are chosen.
    pub(crate) fn routing(self) -> Routing {
        match self {
            Self::DeepseekV3 => {
                Routing { scoring: Scoring::Sigmoid, groups: 8, groups_per_token: 4, scale: 2.5, corrected: true }
            }
            _ => Routing::PLAIN,
        }
    }

    /// Latents of attention.
    pub(super) fn latent(self) -> Option<Latent> {
        let v2 = Latent { q_rank: None, kv_rank: 512, nope: 128, rope: 64, value: 128, interleaved: true };
        match self {
            Self::DeepseekV2 => Some(v2),
            Self::DeepseekV3 => Some(Latent { q_rank: Some(1536), ..v2 }),
            _ => None,
        }
    }

    /// The parts that a model of the family has unless it says otherwise.
    pub fn parts(self) -> &'static Parts {
        static SETS: LazyLock<Vec<Parts>> = LazyLock::new(|| Family::ALL.iter().map(|f| f.usual_parts()).collect());
        &SETS[self as usize]
    }

    fn usual_parts(self) -> Parts {
        let gpt2 = Parts {
            norm: NormKind::Layer,
            norm_place: NormPlace::Before,
            qk_norm: QkNorm::None,
            positions: Positions::Learned,
            position_offset: 0,
            rotary_dim: None,
            residual: Residual::Sequential,
            window_pattern: Vec::new(),
            local_theta: None,
            score_scale: None,
            score_cap: None,
            logit_cap: None,
            sinks: false,
            padding_token: None,
            embedding_norm: false,
            scaled_embedding: false,
        };
        let rotary = Parts { positions: Positions::Rotary, ..gpt2.clone() };
        let llama = Parts { norm: NormKind::Rms, ..rotary.clone() };
        let gemma = Parts { norm: NormKind::RmsPlusOne, scaled_embedding: true, ..llama.clone() };
        let gemma_2 = Parts { norm_place: NormPlace::Both, ..gemma.clone() };
        match self {
            Self::Gpt2 => gpt2,
            Self::Block => Parts { norm: NormKind::None, positions: Positions::None, residual: Residual::None, ..gpt2 },
            Self::Llama | Self::Mistral | Self::Mixtral | Self::Qwen2 | Self::Phi3 => llama,
            Self::DeepseekV2 | Self::DeepseekV3 => llama,
            Self::GptOss => Parts { sinks: true, window_pattern: vec![true, false], ..llama },
            Self::Qwen3 | Self::Qwen3Moe => Parts { qk_norm: QkNorm::Head, ..llama },
            Self::Gemma => gemma,
            Self::Gemma2 => Parts { window_pattern: vec![true, false], ..gemma_2 },
            Self::Gemma3 => {
                let window_pattern = [[true; 5].as_slice(), &[false]].concat();
                Parts { qk_norm: QkNorm::Head, window_pattern, local_theta: Some(1e4), ..gemma_2 }
            }
            Self::GptNeox => Parts { residual: Residual::Parallel, ..rotary },
            Self::Falcon => Parts { residual: Residual::ParallelOneNorm, ..rotary },
            Self::Olmo2 => Parts { norm_place: NormPlace::After, qk_norm: QkNorm::Whole, ..llama },
            Self::Starcoder2 => rotary,
            Self::Opt => Parts { position_offset: 2, ..gpt2 },
            Self::Bloom => Parts { positions: Positions::Alibi, embedding_norm: true, ..gpt2 },
        }
    }
}
