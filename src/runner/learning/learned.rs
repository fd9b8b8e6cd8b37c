//! What a launch that was to learn something came to: plain data.

use serde::{Deserialize, Serialize};

/// A loss, and how far the training was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Steps that were done.
    pub step: u64,
    /// Tokens that they read.
    pub tokens: u64,
    /// Seconds that they took, evaluations not counted.
    pub seconds: f64,
    /// In nats a token.
    pub loss: f64,
}

/// Why a launch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// The loss was there.
    Target,
    /// As many tokens as it may read.
    Tokens,
    /// As many seconds as it may take.
    Seconds,
    /// Nine tenths of its time-out.
    Timeout,
}

/// What the text was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Text {
    /// Tokens to be trained on.
    pub train_tokens: u64,
    /// Tokens that are only evaluated.
    pub validation_tokens: u64,
    /// Bytes of text that a token stands for, where it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_token: Option<f64>,
    /// The least loss that any model can reach, in nats a token, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<f64>,
    /// Seconds that it took to be made ready.
    pub preparation_seconds: f64,
}

/// One launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// Of weights, order of the text and dropout.
    pub seed: u64,
    pub ended_by: EndedBy,
    pub text: Text,
    /// At the end: the last validation loss.
    pub end: Point,
    /// The first evaluation that was at the target or below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Point>,
    /// Training losses, neighbours averaged where there are many.
    pub curve: Vec<Point>,
    /// Validation losses; the first is that of a model that has seen nothing.
    pub evaluations: Vec<Point>,
    /// What all evaluations took.
    pub evaluation_seconds: f64,
    /// For which steps waited for their batches.
    pub waited_seconds: f64,
}
