//! What storing weights or the KV cache in few bits does to a model's loss: on the same tokens, with what is stored so and with all in the
//! workload's dtype, weights random or read. Computed once, beside what is timed.
//!
//! Tokens are random. Of a trained model that says how far its predictions move, and not what it loses on text. Where the cache is in few
//! bits, both losses are of tokens that went through a cache one by one, as in decoding: each is predicted from what the cache holds.

use super::backend::{Backend, CacheElement};
use super::collective::grid::Groups;
use super::cpu::Cpu;
use super::error::SessionError;
use super::pass::activations::{Activations, Extent, Keep};
use super::pass::generate::Inference;
use super::pass::model::{Model, Origin, Purpose};
use super::random::Stream;
use super::shape::count;
use super::{CacheFormat, WeightFormat, Workload, checkpoint::Checkpoint};
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
        /// With weights and cache as they are stored.
        loss: f64,
        /// With both in the workload's dtype.
        unquantized: f64,
    },
    /// Why there is none.
    Unknown(String),
}

impl LossChange {
    /// Of the loss, by storing in few bits.
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
        let whole = Workload { weights: WeightFormat::Dtype, kv_cache: CacheFormat::Dtype, ..workload.clone() };
        let through_cache = workload.kv_cache != CacheFormat::Dtype;
        let of = |workload| loss(workload, through_cache, threads, seed);
        match of(&whole).and_then(|unquantized| Ok((of(workload)?, unquantized))) {
            Ok((loss, unquantized)) if loss.is_finite() && unquantized.is_finite() => Self::Known { loss, unquantized },
            Ok(_) => Self::Unknown("the loss is not finite".into()),
            Err(e) => Self::Unknown(e.to_string()),
        }
    }
}

/// The mean loss of a workload's model, whose tokens go through a cache one by one or all at once.
fn loss(workload: &Workload, through_cache: bool, threads: usize, seed: u64) -> Result<f64, SessionError> {
    let backend = Cpu::new(threads, None)?.with_dtype(workload.dtype).with_weights(workload.weights);
    let stored = Checkpoint::of(workload)?;
    let origin = stored.as_ref().map_or(Origin::Seed(seed), |stored| Origin::Read(stored));
    let model = Model::part(backend, &workload.shape, origin, Purpose::Inference, &Groups::alone())?;
    let tokens = TOKENS.min(model.shape.context as usize);
    let mut stream = Stream::new(seed, IDS);
    // One more, so that each has a next one.
    let mut ids = || (0..=tokens).map(|_| stream.below(model.shape.vocab_size)).collect::<Vec<u32>>();
    let sequences: Vec<Vec<u32>> = (0..SEQUENCES).map(|_| ids()).collect();
    let sum = match through_cache {
        false => at_once(&model, &sequences, tokens)?,
        true => one_by_one(&model, &sequences, tokens, workload.cache_element())?,
    };
    Ok(sum / (SEQUENCES * tokens) as f64)
}

fn at_once(model: &Model<Cpu>, sequences: &[Vec<u32>], tokens: usize) -> Result<f64, SessionError> {
    let mut a = Activations::new(&model.backend, &model.shape, Extent { batch: 1, tokens }, Keep::OneLayer)?;
    let mut sum = 0.0;
    for ids in sequences {
        model.forward(&ids[..tokens], &mut a, None);
        let (_, logits) = model.logits(&a)?;
        sum += surprises(&logits, ids[1..].iter(), model);
    }
    Ok(sum)
}

/// A token of each sequence at a time.
fn one_by_one(
    model: &Model<Cpu>,
    sequences: &[Vec<u32>],
    tokens: usize,
    element: CacheElement,
) -> Result<f64, SessionError> {
    let batch = sequences.len();
    let mut inference = Inference::new(&model.backend, &model.shape, batch, (1, 1), tokens, element)?;
    let mut logits = vec![0.0; batch * model.shape.vocab_size as usize];
    let mut sum = 0.0;
    for t in 0..tokens {
        let ids: Vec<u32> = sequences.iter().map(|ids| ids[t]).collect();
        if t == 0 {
            model.prefill(&ids, &mut inference);
        } else {
            model.decode(&ids, &mut inference);
        }
        model.backend.download(&inference.logits, 0, &mut logits);
        sum += surprises(&logits, sequences.iter().map(|ids| &ids[t + 1]), model);
    }
    Ok(sum)
}

/// Over rows of logits and the token that is next of each.
fn surprises<'a>(logits: &[f32], next: impl Iterator<Item = &'a u32>, model: &Model<Cpu>) -> f64 {
    logits.chunks_exact(model.shape.vocab_size as usize).zip(next).map(surprise).sum()
}

/// `-ln softmax(logits)[next]`
fn surprise((logits, next): (&[f32], &u32)) -> f64 {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |m, x| m.max(*x));
    let sum: f64 = logits.iter().map(|x| f64::from(x - largest).exp()).sum();
    sum.ln() - f64::from(logits.get(*next as usize).copied().unwrap_or(f32::NAN) - largest)
}

#[cfg(test)]
mod tests {
    use super::super::shape::{Family, LatentSpec, Shape, ShapeSpec};
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
            kv_cache: Default::default(),
            prefill_chunk: None,
            weights_from: None,
            levers: Default::default(),
        }
    }

    fn small() -> ShapeSpec {
        ShapeSpec {
            n_layers: Some(2),
            d_model: Some(256),
            n_heads: Some(4),
            vocab_size: Some(101),
            ..ShapeSpec::default()
        }
    }

    #[test]
    fn fewer_bits_change_the_loss_more_and_none_do_not() {
        let small = small();
        let change = |weights| LossChange::of(&workload(&small, weights), 1, 7).change().unwrap();
        assert_eq!(change(WeightFormat::Dtype), 0.0);
        let [eight, four, zero_points] =
            [WeightFormat::Int8, WeightFormat::Int4, WeightFormat::Int4Group128ZeroPoints].map(change);
        assert!(eight != 0.0 && eight.abs() < 0.01, "{eight}");
        assert!(four.abs() > eight.abs() && four.abs() < 0.3, "{four} beside {eight}");
        assert!(zero_points != 0.0 && zero_points.abs() < 0.3, "{zero_points}");
        // Steps of up to an eighth of each weight, between those of 1/127 and of 1/8 of a group's largest.
        let floats = change(WeightFormat::F8);
        assert!(floats != 0.0 && floats.abs() < 0.1, "{floats}");
        // Random logits of a spread below 1: about ln 101 of each token.
        let LossChange::Known { loss, .. } = LossChange::of(&workload(&small, WeightFormat::Int8), 1, 7) else {
            panic!("it is known");
        };
        assert!((loss - 101f64.ln()).abs() < 0.5, "{loss}");
    }

    #[test]
    fn a_cache_of_few_bits_changes_the_loss_and_one_of_the_dtype_is_the_whole_pass() {
        let latent = LatentSpec { kv_lora_rank: Some(48), ..LatentSpec::default() };
        let specs =
            [small(), ShapeSpec { n_kv_heads: Some(2), window: Some(9), ..small() }, ShapeSpec { latent, ..small() }];
        for spec in specs {
            let known = |weights, kv_cache| {
                let of = Workload { kv_cache, ..workload(&spec, weights) };
                match LossChange::of(&of, 1, 7) {
                    LossChange::Known { loss, unquantized } => (loss, unquantized),
                    LossChange::Unknown(why) => panic!("{spec:?}: {why}"),
                }
            };
            let (whole, _) = known(WeightFormat::Dtype, CacheFormat::Dtype);
            let [int8, f8] = [CacheFormat::Int8, CacheFormat::F8].map(|c| known(WeightFormat::Dtype, c));
            // The pass over whole sequences and that through a cache in f32 compute the same.
            assert!((int8.1 - whole).abs() < 1e-4 && int8.1 == f8.1, "{spec:?}: {whole}, {int8:?}, {f8:?}");
            let [of_int8, of_f8] = [int8, f8].map(|(loss, unquantized)| (loss - unquantized).abs());
            // Steps of 1/127 of the largest number, and of up to 1/8 of each.
            assert!(of_int8 > 0.0 && of_int8 < 0.01 && of_f8 > 0.0 && of_f8 < 0.1, "{spec:?}: {of_int8}, {of_f8}");
            let both = known(WeightFormat::Int8, CacheFormat::Int8);
            assert!(both.1 == int8.1 && both.0 != both.1 && both.0 != int8.0, "{spec:?}: {both:?}");
        }
    }

    #[test]
    fn a_large_model_is_passed_over_and_says_so() {
        let large = ShapeSpec { n_layers: Some(40), d_model: Some(4096), n_heads: Some(32), ..ShapeSpec::default() };
        let of = LossChange::of(&workload(&large, WeightFormat::Int8), 1, 7);
        assert_eq!(of.change(), None);
        assert!(of.why_not().unwrap().contains("and it is computed up to 1.00 GiB"), "{of:?}");
    }
}
