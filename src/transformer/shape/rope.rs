//! Rotary positions: their frequencies, and how they are stretched for long contexts.

use serde::{Deserialize, Serialize};

/// Frequencies of rotary positions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// Base of the frequencies (Su et al. 2021: 10,000).
    pub theta: f32,
    /// A stretch of the frequencies for contexts longer than the model was first trained on; `None` leaves them as they are.
    pub scaling: Option<RopeScaling>,
}

/// How frequencies are stretched, by Hugging Face's `rope_type`. As written, the kinds have different fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RopeScaling {
    /// Llama 3.1's: the low ones only.
    Llama3 { factor: f32, low_freq_factor: f32, high_freq_factor: f32, original_context: u32 },
    /// By parts, with hotter scores (Peng et al. 2023).
    Yarn {
        factor: f32,
        /// Turns over the original context above which a frequency stays, and below which it is divided by the factor.
        beta_fast: f32,
        beta_slow: f32,
        original_context: u32,
        /// Whether the bounds between are rounded to whole pairs.
        truncate: bool,
        /// What queries and keys are multiplied by.
        attention_factor: f32,
    },
    /// Each by a factor of its own, in contexts up to the original one and beyond it (Ding et al. 2024).
    LongRope { short: Vec<f32>, long: Vec<f32>, original_context: u32, attention_factor: f32 },
    /// All by one factor (Chen et al. 2023).
    Linear { factor: f32 },
}
