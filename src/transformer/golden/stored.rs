//! The model of a folder of weights on some tokens: against the logits that another framework has for them, or those of the oracle.

use super::comparison::{Comparison, Group};
use super::file::{GoldenError, Tensors};
use crate::transformer::backend::Backend;
use crate::transformer::checkpoint::Checkpoint;
use crate::transformer::collective::grid::Groups;
use crate::transformer::pass::activations::{Activations, Extent, Keep};
use crate::transformer::pass::model::{Model, Origin, Purpose};
use crate::transformer::random::Stream;
use crate::transformer::shape::Shape;
use crate::transformer::shape::parts::Positions;
use std::path::Path;

/// Names that a file may have for its tokens.
const IDS: [&str; 2] = ["input_ids", "ids"];

/// Tokens `[B, T]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ids {
    pub batch: usize,
    pub tokens: usize,
    pub ids: Vec<u32>,
}

impl Ids {
    /// A few tokens of a model's vocabulary, always the same.
    pub(crate) fn few(shape: &Shape) -> Self {
        let tokens = 8.min(shape.context) as usize;
        let mut stream = Stream::new(0, 0);
        Self { batch: 1, tokens, ids: (0..tokens).map(|_| stream.below(shape.vocab_size)).collect() }
    }
}

/// Tokens, and logits `[B, T, V]` for them, of a safetensors file; what else is in it is left alone.
///
/// # Errors
/// A file that is none, or does not have them for a model of this shape.
pub(crate) fn given(path: &Path, shape: &Shape) -> Result<(Ids, Vec<f32>), GoldenError> {
    let mut tensors = Tensors::open(path)?;
    let ids = IDS.iter().find_map(|name| tensors.tokens(name));
    let (batch, tokens, ids) = ids.ok_or_else(|| tensors.fault("no tensor input_ids [B, T] of i64"))?;
    if let Some(id) = ids.iter().find(|&&id| id >= shape.vocab_size) {
        return Err(tensors.fault(format!("input_ids: {id} is beyond the vocabulary of {}", shape.vocab_size)));
    }
    if shape.parts().positions == Positions::Learned && tokens > shape.context as usize {
        return Err(tensors.fault(format!("input_ids: {tokens} tokens exceed the {} learned positions", shape.context)));
    }
    let logits = tensors.floats.remove("logits").ok_or_else(|| tensors.fault("no tensor logits [B, T, V]"))?.values;
    let expected = batch * tokens * shape.vocab_size as usize;
    if logits.len() != expected || logits.is_empty() {
        let found = logits.len();
        return Err(tensors.fault(format!("logits: expected {expected} elements by the shape, found {found}")));
    }
    Ok((Ids { batch, tokens, ids }, logits))
}

/// The logits of a folder's model on a backend, its matrices in the form that inference multiplies by.
///
/// # Errors
/// Memory; a file that can no longer be read; a device that failed.
pub(crate) fn logits_of<B: Backend>(stored: &Checkpoint, backend: B, ids: &Ids) -> Result<Vec<f32>, GoldenError> {
    let model = Model::part(backend, &stored.shape, Origin::Read(stored), Purpose::Inference, &Groups::alone())?;
    let extent = Extent { batch: ids.batch, tokens: ids.tokens };
    let mut a = Activations::new(&model.backend, &model.shape, extent, Keep::OneLayer)?;
    model.forward(&ids.ids, &mut a, None);
    let (_, logits) = model.logits(&a)?;
    model.backend.check()?;
    Ok(logits)
}

/// How far apart logits are.
pub(crate) fn compare(ours: &[f32], theirs: &[f32]) -> Group {
    let mut c = Comparison::new("logits", theirs.iter().copied());
    c.add("logits", ours.iter().copied().zip(theirs.iter().copied()));
    c.group
}
