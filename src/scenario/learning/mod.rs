//! What a training trial is to learn: from which text, at which rates, and until when.

pub(crate) mod draft;
mod every;
mod schedule;

use crate::data::Source;
pub(crate) use every::Every;
pub(crate) use schedule::{Decay, Schedule};
use serde::{Deserialize, Serialize};

/// A training trial that leads somewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Learning {
    /// What it reads.
    pub data: Source,
    /// The rate of each step.
    pub schedule: Schedule,
    /// When it ends.
    pub until: Until,
    /// When its validation loss is looked at.
    pub eval: Eval,
    /// How often what it has come to is kept, so that it goes on from there when it is killed; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Every>,
}

/// When a trial ends: at the loss, or at the first of the bounds. Beside them nine tenths of its time-out end it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Until {
    /// The validation loss that it is to reach, in nats a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    /// Tokens that it is trained on at most; what the schedule is laid out for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Seconds of training at most, evaluations not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// When the validation loss is looked at, and over how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eval {
    /// Steps between two evaluations.
    pub every: u64,
    /// Tokens of the validation text that each reads, at least; fewer where there are fewer.
    pub tokens: u64,
}

/// How far a trial is, for its schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Steps that are done.
    pub step: u64,
    /// Seconds of training.
    pub seconds: f64,
}

impl Learning {
    /// Steps until the bound of tokens, where there is one.
    pub fn steps(&self, tokens_per_step: u64) -> Option<u64> {
        self.until.tokens.map(|tokens| tokens.div_ceil(tokens_per_step.max(1)).max(1))
    }

    /// The rate of the next step.
    pub(crate) fn rate(&self, at: Progress, tokens_per_step: u64) -> f32 {
        let s = &self.schedule;
        let warmup = u64::from(s.warmup);
        if at.step < warmup {
            return s.warming(at.step);
        }
        let share = match (self.steps(tokens_per_step), self.until.seconds) {
            (Some(planned), _) => (at.step - warmup) as f64 / planned.saturating_sub(warmup).max(1) as f64,
            // Where tokens are not counted out time is what the schedule is laid out for.
            (None, Some(seconds)) => at.seconds / seconds,
            (None, None) => 0.0,
        };
        s.after_warmup(share)
    }

    /// Sequences of so many tokens a batch, of which an evaluation takes as many as hold its tokens.
    pub(crate) fn evaluation_batches(&self, tokens_per_step: u64, available: u64) -> u64 {
        self.eval.tokens.div_ceil(tokens_per_step.max(1)).clamp(1, available.max(1))
    }
}

#[cfg(test)]
mod learning_tests;
