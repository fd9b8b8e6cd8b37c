//! What storing weights in few bits does to a model's loss: on the same tokens, with these weights and with those of the workload's
//! dtype, random or read. Computed once, beside what is timed.
//!
//! Tokens are random. Of a trained model that says how far its predictions move, and not what it loses on text.

use super::collective::grid::Groups;
use super::cpu::Cpu;
use super::error::SessionError;
use super::pass::activations::{Activations, Extent, Keep};
use super::pass::model::{Model, Origin, Purpose};
use super::random::Stream;
use super::shape::count;
use super::{WeightFormat, Workload, checkpoint::Checkpoint};
use crate::units::Bytes;
use serde::{Deserialize, Serialize};

/// Sequences and their tokens: the logits of one at a time are held.
const SEQUENCES: usize = 4;
const TOKENS: usize = 64;
/// Bytes of the weights in the workload's dtype up to which it is computed: a matter of seconds on one core.
const LARGEST: Bytes = Bytes(1 << 30);
/// Stream of the tokens, apart from those of a trial.
const IDS: u64 = 1 << 43;

/// What it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossChange {
    /// Mean cross-entropy of the next token, in nats.
    Known {
        /// With the weights as they are stored.
        loss: f64,
        /// With the weights in the workload's dtype.
        unquantized: f64,
    },
    /// Why there is none.
    Unknown(String),
}

impl LossChange {
    /// Of the loss, by storing weights in few bits.
    pub fn change(&self) -> Option<f64> {
        match self {
            Self::Known { loss, unquantized } => Some(loss - unquantized),
            Self::Unknown(_) => None,
        }
    }

    /// Why there is none.
    pub fn why_not(&self) -> Option<&str> {
        match self {
            Self::Known { .. } => None,
            Self::Unknown(why) => Some(why),
        }
    }

    /// Of a workload on the CPU, with so many threads.
    pub(crate) fn of(workload: &Workload, threads: usize, seed: u64) -> Self {
        if !workload.shape.has_vocabulary_head() {
            return Self::Unknown("the model predicts no tokens".into());
        }
        let parameters = count::parameters(&workload.shape).unwrap_or(u64::MAX);
        let bytes = Bytes(parameters.saturating_mul(workload.dtype.size()));
        if bytes > LARGEST {
            let dtype = workload.dtype;
            return Self::Unknown(format!("the weights take {bytes} in {dtype}, and it is computed up to {LARGEST}"));
        }
        let of = |weights| loss(workload, weights, threads, seed);
        match of(WeightFormat::Dtype).and_then(|unquantized| Ok((of(workload.weights)?, unquantized))) {
            Ok((loss, unquantized)) if loss.is_finite() && unquantized.is_finite() => Self::Known { loss, unquantized },
            Ok(_) => Self::Unknown("the loss is not finite".into()),
            Err(e) => Self::Unknown(e.to_string()),
        }
    }
}

/// The mean loss with weights in a format.
fn loss(workload: &Workload, weights: WeightFormat, threads: usize, seed: u64) -> Result<f64, SessionError> {
    let backend = Cpu::new(threads, None)?.with_dtype(workload.dtype).with_weights(weights);
    let stored = Checkpoint::of(workload)?;
    let origin = stored.as_ref().map_or(Origin::Seed(seed), |stored| Origin::Read(stored));
    let model = Model::part(backend, &workload.shape, origin, Purpose::Inference, &Groups::alone())?;
    let extent = Extent { batch: 1, tokens: TOKENS.min(model.shape.context as usize) };
    let mut a = Activations::new(&model.backend, &model.shape, extent, Keep::OneLayer)?;
    let (mut stream, mut sum) = (Stream::new(seed, IDS), 0.0);
    for _ in 0..SEQUENCES {
        // One more, so that each has a next one.
        let ids: Vec<u32> = (0..=extent.tokens).map(|_| stream.below(model.shape.vocab_size)).collect();
        model.forward(&ids[..extent.tokens], &mut a, None);
        let (_, logits) = model.logits(&a)?;
        sum += logits.chunks_exact(model.shape.vocab_size as usize).zip(&ids[1..]).map(surprise).sum::<f64>();
    }
    Ok(sum / (SEQUENCES * extent.tokens) as f64)
}

/// `-ln softmax(logits)[next]`
fn surprise((logits, next): (&[f32], &u32)) -> f64 {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |m, x| m.max(*x));
    let sum: f64 = logits.iter().map(|x| f64::from(x - largest).exp()).sum();
    sum.ln() - f64::from(logits.get(*next as usize).copied().unwrap_or(f32::NAN) - largest)
}

#[cfg(test)]
mod tests {
    use super::super::shape::{Family, Shape, ShapeSpec};
    use super::super::{Dtype, OptimizerKind, Phase};
    use super::*;

    fn workload(spec: &ShapeSpec, weights: WeightFormat) -> Workload {
        Workload {
            shape: Shape::new(Family::Llama, spec).unwrap(),
            phase: Phase::Decode,
            batch: 1,
            seq_len: 0,
            prompt_len: 4,
            new_tokens: 4,
            dtype: Dtype::F32,
            weights,
            optimizer: OptimizerKind::Adamw,
            dropout: 0.0,
            prefill_chunk: None,
            weights_from: None,
            levers: Default::default(),
        }
    }

    #[test]
    fn fewer_bits_change_the_loss_more_and_none_do_not() {
        let small = ShapeSpec {
            n_layers: Some(2),
            d_model: Some(256),
            n_heads: Some(4),
            vocab_size: Some(101),
            ..ShapeSpec::default()
        };
        let change = |weights| LossChange::of(&workload(&small, weights), 1, 7).change().unwrap();
        assert_eq!(change(WeightFormat::Dtype), 0.0);
        let [eight, four, zero_points] =
            [WeightFormat::Int8, WeightFormat::Int4, WeightFormat::Int4Group128ZeroPoints].map(change);
        assert!(eight != 0.0 && eight.abs() < 0.01, "{eight}");
        assert!(four.abs() > eight.abs() && four.abs() < 0.3, "{four} beside {eight}");
        assert!(zero_points != 0.0 && zero_points.abs() < 0.3, "{zero_points}");
        // Random logits of a spread below 1: about ln 101 of each token.
        let LossChange::Known { loss, .. } = LossChange::of(&workload(&small, WeightFormat::Int8), 1, 7) else {
            panic!("it is known");
        };
        assert!((loss - 101f64.ln()).abs() < 0.5, "{loss}");
    }

    #[test]
    fn a_large_model_is_passed_over_and_says_so() {
        let large = ShapeSpec { n_layers: Some(40), d_model: Some(4096), n_heads: Some(32), ..ShapeSpec::default() };
        let of = LossChange::of(&workload(&large, WeightFormat::Int8), 1, 7);
        assert_eq!(of.change(), None);
        assert!(of.why_not().unwrap().contains("and it is computed up to 1.00 GiB"), "{of:?}");
    }
}
