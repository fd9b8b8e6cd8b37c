//! One definition of the model, over any backend: parameters, activations, forward, backward, generation, optimizer step.

pub(super) mod activations;
mod among;
pub(super) mod backward;
mod dispatch;
mod dropout;
mod experts;
pub(super) mod forward;
pub(super) mod generate;
pub(super) mod gradients;
mod index;
#[cfg(test)]
mod invariants;
mod latent;
mod logits;
pub(super) mod model;
pub(super) mod optimizer;
mod post;
pub(super) mod scratch;
pub(super) mod shares;
mod spec;
mod words;
