//! What one field of a trial is.

use super::draft::Draft;
use super::trial::Trial;
use crate::yaml::Value;

/// What the schema says of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Count,
    Number,
    Flag,
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// One field of a trial.
#[derive(Debug)]
pub(crate) struct Axis {
    /// Path in the trial: `model.d_model`, `batch`.
    pub path: &'static str,
    /// Other names for the last part of the path: Hugging Face's, llama-bench's.
    pub aliases: &'static [&'static str],
    /// How tables and charts call it.
    pub label: &'static str,
    /// Unit in charts; empty for a pure number or a word.
    pub unit: &'static str,
    pub kind: Kind,
    /// Default and meaning, for the schema.
    pub doc: &'static str,
    pub set: fn(&mut Draft, &Value) -> Result<(), String>,
    /// What a finished trial has there; null where its phase does not use the field.
    pub get: fn(&Trial) -> Value,
}
