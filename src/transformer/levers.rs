//! How a training step is carried out where it is not all at once: what is given for memory, and what becomes of the gradients before
//! they are used. Tokens, targets and the loss of a step stay what they are.

use super::pass::activations::{Extent, Keep};
use serde::{Deserialize, Serialize};

/// What the backward pass runs forward again, a layer at a time, instead of having kept what it left behind (Chen et al. 2016).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// Nothing: all is kept.
    #[default]
    None,
    /// Attention up to its last product: queries, keys, values, and what attention makes of them.
    Attention,
    /// The whole layer, of which its input alone is kept.
    Full,
}

super::names!(Recompute { None => "none", Attention => "attention", Full => "full" });

/// Of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Levers {
    /// Micro-batches: the batch of a replica goes through the model in so many passes, whose gradients are added up before the one
    /// update. What a pass keeps shrinks accordingly.
    #[serde(skip_serializing_if = "Levers::at_once")]
    pub accumulate: u32,
    /// What a pass keeps less of.
    #[serde(skip_serializing_if = "Levers::keep_all")]
    pub recompute: Recompute,
    /// The largest norm of all gradients together: those of a step with a larger one are scaled down to it (Pascanu et al. 2013).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f32>,
}

impl Default for Levers {
    fn default() -> Self {
        Self { accumulate: 1, recompute: Recompute::None, clip: None }
    }
}

impl Levers {
    fn at_once(accumulate: &u32) -> bool {
        *accumulate == 1
    }

    fn keep_all(recompute: &Recompute) -> bool {
        *recompute == Recompute::None
    }

    /// What a pass keeps for the way back.
    pub(crate) fn keep(&self) -> Keep {
        match self.recompute {
            Recompute::None => Keep::All,
            Recompute::Attention => Keep::FeedForward,
            Recompute::Full => Keep::Inputs,
        }
    }

    /// Whether a step is carried out as it always was.
    pub fn are_plain(&self) -> bool {
        *self == Self::default()
    }

    /// What goes through the model at a time, of what a replica has for a step.
    pub(crate) fn of_pass(&self, step: Extent) -> Extent {
        Extent { batch: step.batch / (self.accumulate.max(1) as usize), ..step }
    }

    /// Whether the gradients of all layers are there at one time, until the update.
    pub(crate) fn keep_gradients(&self) -> bool {
        self.accumulate > 1 || self.clip.is_some()
    }
}
