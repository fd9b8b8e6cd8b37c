//! The built-in transformer: what is measured.
//!
//! One definition of the model (`pass`: forward, backward, generate) over a [`backend::Backend`]; the families are
//! GPT-2, Llama and the plain block of a well-known Keras article. [`prepare::prepare`] turns a [`Workload`] into something
//! whose steps can be timed.
//!
//! The legend of shapes, used everywhere below: B batch, T tokens of a sequence, N = B*T rows, C = d_model, H query heads,
//! KV key/value heads, D head_dim, F = d_ff, V vocabulary, L layers.
//!
//! This module knows nothing of scenarios, of time or of money.

/// An enum whose values have words.
pub(crate) trait Worded: std::str::FromStr {
    /// In the order of the documentation.
    const WORDS: &'static [&'static str];
}

/// The words that people use for the values of an enum, said once: scenarios, their schema, columns and errors have them from here.
macro_rules! names {
    ($ty:ty { $($variant:ident => $name:literal),+ $(,)? }) => {
        #[allow(unreachable_pub, reason = "most of these enums are at the crate's root")]
        impl $ty {
            /// Every value, in the order of the documentation.
            #[allow(dead_code, reason = "not every enum is gone through")]
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// Their names, in the same order.
            pub const WORDS: &'static [&'static str] = &[$($name),+];
            /// The name used in scenarios, columns and reports.
            pub fn name(self) -> &'static str { match self { $(Self::$variant => $name),+ } }
        }
        impl $crate::transformer::Worded for $ty {
            const WORDS: &'static [&'static str] = Self::WORDS;
        }
        impl std::fmt::Display for $ty {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.pad(self.name()) }
        }
        impl std::str::FromStr for $ty {
            type Err = String;
            /// # Errors
            /// The names that would have been understood.
            fn from_str(s: &str) -> Result<Self, String> {
                match s { $($name => Ok(Self::$variant),)+ _ => Err(format!("`{s}` is none of {}", [$($name),+].join(", "))) }
            }
        }
    };
}
pub(crate) use names;

pub(crate) mod backend;
mod check;
pub(crate) mod checkpoint;
pub(crate) mod collective;
pub(crate) mod course;
pub(crate) mod cpu;
pub(crate) mod cuda;
pub(crate) mod error;
pub(crate) mod golden;
pub(crate) mod kv_cache;
pub(crate) mod levers;
pub(crate) mod loads;
pub(crate) mod loss_change;
pub(crate) mod memory;
mod nvtx;
mod operands;
pub(crate) mod operations;
mod pass;
pub(crate) mod prepare;
mod random;
mod ranks;
pub(crate) mod session;
pub(crate) mod shape;
pub(crate) mod trace;

use kv_cache::CacheElement;
use levers::Levers;
use serde::{Deserialize, Serialize};
use shape::Shape;
use std::path::PathBuf;

/// What one step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Forward, backward and optimizer step over `batch` sequences of `seq_len` tokens.
    Train,
    /// The prompts of `batch` sequences to their first tokens.
    Prefill,
    /// One token for each of `batch` sequences, through the KV cache.
    Decode,
    /// Prefill, then `new_tokens` tokens a sequence.
    Generate,
}

/// The number format of weights and activations. Accumulation is in f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// f32 whose products round their factors to TF32 (19 bits, of which 11 are significant), on GPUs.
    Tf32,
    /// bfloat16: 16 bits, 8 of them significant.
    Bf16,
}

/// How the matrices of an inference model are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightFormat {
    /// In the workload's dtype.
    #[default]
    Dtype,
    /// In whole numbers of 8 bits with an f32 scale for every 64 inputs; products round their other factor in the same way
    /// and add up whole numbers.
    Int8,
    /// In whole numbers of 4 bits with a scale of 16 bits for every 32 inputs, as llama.cpp's Q4_0; the other factor as with 8 bits.
    Int4,
    /// The same with a scale for every 128 inputs.
    #[serde(rename = "int4-g128")]
    Int4Group128,
    /// The same with a scale and a zero-point for every 128 inputs, as AWQ and GPTQ have them.
    #[serde(rename = "int4-g128-zp")]
    Int4Group128ZeroPoints,
    /// In floats of 8 bits, e4m3 (Micikevicius et al. 2022), with an f32 scale for each output; products take their other factor in the
    /// workload's dtype.
    F8,
}

/// How the KV cache of an inference model is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheFormat {
    /// In the workload's dtype.
    #[default]
    Dtype,
    /// In whole numbers of 8 bits with an f32 scale for each token's key and each token's value of a head.
    Int8,
    /// In floats of 8 bits, e4m3 (Micikevicius et al. 2022), with such scales.
    F8,
}

/// Where the operations run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// The fast CPU path.
    Cpu,
    /// Plain loops on the CPU: the oracle that every other backend is tested against. Slow by intent.
    Naive,
    /// NVIDIA GPUs.
    Cuda,
}

impl BackendKind {
    /// Whether two processes compute the same bits. On a GPU the algorithms of products are chosen by timing, and round in different
    /// orders.
    pub fn repeats_bits(self) -> bool {
        self != Self::Cuda
    }
}

/// Parameter update of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent, with momentum where it is set.
    Sgd,
    /// Kingma & Ba 2015, algorithm 1.
    Adam,
    /// Kingma & Ba 2015, algorithm 2.
    Adamax,
    /// Loshchilov & Hutter 2019: decay apart from the gradient.
    Adamw,
}

names!(Phase { Train => "train", Prefill => "prefill", Decode => "decode", Generate => "generate" });
names!(Dtype { F32 => "f32", Tf32 => "tf32", Bf16 => "bf16" });
names!(WeightFormat {
    Dtype => "dtype", Int8 => "int8", Int4 => "int4", Int4Group128 => "int4-g128", Int4Group128ZeroPoints => "int4-g128-zp",
    F8 => "f8",
});
names!(CacheFormat { Dtype => "dtype", Int8 => "int8", F8 => "f8" });
names!(BackendKind { Cpu => "cpu", Naive => "naive", Cuda => "cuda" });
names!(OptimizerKind { Sgd => "sgd", Adam => "adam", Adamax => "adamax", Adamw => "adamw" });

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> u64 {
        match self {
            Self::F32 | Self::Tf32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// Everything that decides what a step computes; the same on every backend and machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// The model's sizes.
    pub shape: Shape,
    /// What a step is.
    pub phase: Phase,
    /// Sequences a step, over all devices together.
    pub batch: u32,
    /// Tokens of a training sequence.
    pub seq_len: u32,
    /// Tokens of a prompt: what `prefill` processes, and the context in the cache when `decode` starts.
    pub prompt_len: u32,
    /// Tokens that `generate` and `decode` produce for a sequence before they start over.
    pub new_tokens: u32,
    /// Of weights and activations.
    pub dtype: Dtype,
    /// Of the matrices, in prefill, decode and generate; training has them in f32.
    #[serde(default, skip_serializing_if = "Workload::is_plain")]
    pub weights: WeightFormat,
    /// Of keys and values, or of the latents that they are made of, in prefill, decode and generate.
    #[serde(default, skip_serializing_if = "Workload::caches_plainly")]
    pub kv_cache: CacheFormat,
    /// Of a training step.
    pub optimizer: OptimizerKind,
    /// Probability that dropout zeroes an activation in training; 0 leaves the operation out.
    pub dropout: f32,
    /// Tokens of a prompt that are processed at a time; `None`: all, or on a CPU, where that would be many rows, fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_chunk: Option<u32>,
    /// Where the weights are read from; `None`: they are random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_from: Option<StoredWeights>,
    /// How a training step is carried out.
    #[serde(default, skip_serializing_if = "Levers::are_plain")]
    pub levers: Levers,
}

/// Weights in a folder as Hugging Face's library saves a model: `config.json` and safetensors files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredWeights {
    /// Where it is, from the working directory.
    pub folder: PathBuf,
    /// What is in it, in twelve hexadecimal digits of SHA-256: of `config.json`, of every file's name, size and header, and of a sample
    /// of the numbers. The same weights elsewhere have the same.
    pub digest: String,
}

impl Workload {
    fn is_plain(weights: &WeightFormat) -> bool {
        *weights == WeightFormat::Dtype
    }

    fn caches_plainly(kv_cache: &CacheFormat) -> bool {
        *kv_cache == CacheFormat::Dtype
    }

    /// What a number of the KV cache is stored as.
    pub fn cache_element(&self) -> CacheElement {
        CacheElement::of(self.dtype, self.kv_cache)
    }

    /// Tokens that one step processes: B*T in training and prefill, B in decode, B*(prompt + new) in generate.
    pub fn tokens_per_step(&self) -> u64 {
        let batch = u64::from(self.batch);
        match self.phase {
            Phase::Train => batch * u64::from(self.seq_len),
            Phase::Prefill => batch * u64::from(self.prompt_len),
            Phase::Decode => batch,
            Phase::Generate => batch * (u64::from(self.prompt_len) + u64::from(self.new_tokens)),
        }
    }

    /// Tokens of each of `batch` prompts that a backend processes at a time: as stated, or so many that a CPU's activations stay small
    /// beside a large model's weights. Results are the same.
    pub fn stretch_of_prompt(&self, on: BackendKind, batch: usize) -> usize {
        /// Rows up to which a prompt is processed whole, and of a stretch where it is not: enough that weights are read seldom.
        const WHOLE: usize = 8192;
        const STRETCH: usize = 2048;
        let prompt = self.prompt_len as usize;
        match self.prefill_chunk {
            Some(chunk) => (chunk as usize).clamp(1, prompt.max(1)),
            None if on == BackendKind::Cuda || batch * prompt <= WHOLE => prompt,
            None => (STRETCH / batch.max(1)).max(64).min(prompt),
        }
    }

    /// The longest sequence that the workload ever holds: positions and KV cache are sized by it.
    pub fn longest_sequence(&self) -> u32 {
        match self.phase {
            Phase::Train => self.seq_len,
            Phase::Prefill => self.prompt_len,
            Phase::Decode | Phase::Generate => self.prompt_len.saturating_add(self.new_tokens),
        }
    }
}
