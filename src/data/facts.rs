//! What there is in prepared data.

use super::synthetic::Entropy;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Counts of a part of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Documents, or ends of them.
    pub documents: u64,
    /// Of text, in UTF-8; of a synthetic language none.
    pub bytes: u64,
    /// Tokens, those that end documents among them.
    pub tokens: u64,
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// What it is, in words.
    pub source: String,
    /// Different tokens.
    pub vocabulary: u32,
    /// The token between documents, where there is one.
    pub end_of_text: Option<u32>,
    /// What is trained on, before a share of it is taken.
    pub train: Part,
    /// What is judged by.
    pub validation: Part,
    /// How the two were told apart.
    pub split: String,
    /// What it took to read, tokenize and keep it when that was done, the training of the tokenizer included.
    pub seconds: f64,
    /// Of these, the training of the tokenizer.
    pub tokenizer_seconds: f64,
    /// Whether it was found in the cache; the seconds are then of the time before.
    #[serde(skip)]
    pub cached: bool,
    /// The file that the tokens are in, where there is one.
    #[serde(skip)]
    pub kept: Option<PathBuf>,
    /// Where the least possible loss is known, what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<Entropy>,
}

impl Facts {
    /// Tokens of both parts.
    pub fn tokens(&self) -> u64 {
        self.train.tokens + self.validation.tokens
    }

    /// Bytes of text that a token stands for: a loss in nats a token divided by it is one in nats a byte, which compares tokenizers.
    pub fn bytes_a_token(&self) -> Option<f64> {
        let bytes = self.train.bytes + self.validation.bytes;
        (bytes > 0 && self.tokens() > 0).then(|| bytes as f64 / self.tokens() as f64)
    }

    /// The least mean loss, in nats a token, over sequences of so many tokens, where that is known.
    pub fn floor(&self, seq_len: u32) -> Option<f64> {
        self.entropy.map(|e| e.floor(seq_len))
    }
}
