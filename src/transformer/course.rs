//! What a training session is taught from: batches of tokens that somebody else makes, instead of random ones.

use std::fmt::Debug;
use std::sync::Arc;

/// Which sequences of a batch a replica takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// This replica, from 0.
    pub replica: u64,
    /// Replicas in all; each has as many sequences.
    pub replicas: u64,
    /// Sequences of this part.
    pub sequences: usize,
    /// Tokens of each.
    pub tokens: usize,
}

/// Tokens `[B, T]`, row by row, and the token that follows each.
pub(crate) type Pair = (Vec<u32>, Vec<u32>);

/// Where batches come from. Each is a function of its number alone, so that a session that goes on from a checkpoint sees the same.
pub trait Batches: Send + Sync + Debug {
    /// A part of the batch of a training step, from 0.
    fn training(&self, step: u64, part: Part) -> Pair;
    /// A part of a batch of the fixed set that is only evaluated, from 0.
    fn validation(&self, batch: u64, part: Part) -> Pair;
}

/// How a session is taught.
#[derive(Clone, Debug)]
pub struct Course {
    /// What it sees.
    pub batches: Arc<dyn Batches>,
    /// Decay of weights in each update, where the optimizer has one; `None`: the optimizer's usual one.
    pub weight_decay: Option<f32>,
}
