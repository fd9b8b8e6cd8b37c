//! The parameters of a model: which there are, how large, and how they start.
//!
//! Gradients and optimizer moments are lists in the same order, so that an [`Index`] finds its way in all of them.

use super::super::backend::{Backend, Category, Frequencies};
use super::super::collective::Collective;
use super::super::collective::alone::Alone;
use super::super::collective::grid::Parallel;
use super::super::error::SessionError;
use super::super::random::{Block, Normals, Stream};
use super::super::shape::{Activation, Family, Shape};
use std::ops::Range;
use std::sync::Arc;

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Normal with standard deviation 0.02, as GPT-2's.
    Normal,
    Zero,
    One,
}

/// One parameter, or a rank's part of it: `[rows, columns]`; a vector has one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub name: String,
    pub rows: usize,
    pub columns: usize,
    pub start: Start,
    pub split: Split,
}

/// How a matrix is split among the ranks of a replica; a bias goes with its rows. What is not named here, every rank has whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    Whole,
    /// By outputs, within each of so many numbers of rows that stand one below the other: queries, keys, values; gate, up. The
    /// numbers are a rank's.
    Rows([usize; 3]),
    /// By inputs.
    Columns,
}

impl Spec {
    /// Numbers in the parameter.
    pub(crate) fn len(&self) -> usize {
        self.rows * self.columns
    }

    /// The `rank`-th part of `of` of the numbers that `stream` has for the whole.
    fn numbers(&self, stream: Stream, rank: usize, of: usize) -> Normals {
        let [width, rank, of] = [self.columns, rank, of].map(|n| n as u64);
        let rows = |rows, first, stride| Block { rows, first, stride };
        let blocks = match self.split {
            Split::Whole => vec![rows(self.rows, 0, width)],
            Split::Columns => vec![rows(self.rows, rank * width, of * width)],
            Split::Rows(heights) => {
                // Of the whole, whose blocks are `of` times as high.
                let mut above = 0;
                let part = |height: usize| {
                    let first = (above + rank * height as u64) * width;
                    above += of * height as u64;
                    rows(height, first, width)
                };
                heights.map(part).to_vec()
            }
        };
        Normals::new(stream, 0.02, self.columns, blocks)
    }
}

/// Gain and bias of a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Norm {
    pub gain: usize,
    pub bias: Option<usize>,
}

/// Weight and bias of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Linear {
    pub weight: usize,
    pub bias: Option<usize>,
}

/// Where a layer's parameters stand in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerIndex {
    pub norm1: Option<Norm>,
    /// `[(H + 2 KV) * D, C]`: queries, keys, values.
    pub qkv: Linear,
    /// `[C, H * D]`
    pub out: Linear,
    pub norm2: Option<Norm>,
    /// `[F, C]`, or `[2 F, C]` (gate, up) for SwiGLU
    pub up: Linear,
    /// `[C, F]`
    pub down: Linear,
}

/// Where every parameter stands in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    pub specs: Vec<Spec>,
    /// `[V, C]`
    pub table: usize,
    /// `[P, C]`, learned positions
    pub positions: Option<usize>,
    pub layers: Vec<LayerIndex>,
    pub last_norm: Option<Norm>,
    /// `[V, C]`; the table's own index where embeddings are tied; `None` for the block
    pub head: Option<usize>,
}

#[derive(Default)]
struct Builder(Vec<Spec>);

impl Builder {
    fn push(&mut self, name: String, rows: usize, columns: usize, start: Start) -> usize {
        self.0.push(Spec { name, rows, columns, start, split: Split::Whole });
        self.0.len() - 1
    }
    fn linear(&mut self, name: &str, rows: usize, columns: usize, bias: bool, split: Split) -> Linear {
        let weight = self.push(format!("{name}.weight"), rows, columns, Start::Normal);
        self.0[weight].split = split;
        Linear { weight, bias: bias.then(|| self.push(format!("{name}.bias"), 1, rows, Start::Zero)) }
    }
    fn norm(&mut self, name: &str, s: &Shape) -> Option<Norm> {
        let c = s.d_model as usize;
        let bias = match s.family {
            Family::Gpt2 => true,
            Family::Llama => false,
            Family::Block => return None,
        };
        let gain = self.push(format!("{name}.gain"), 1, c, Start::One);
        Some(Norm { gain, bias: bias.then(|| self.push(format!("{name}.bias"), 1, c, Start::Zero)) })
    }
}

impl Index {
    /// The parameters of a shape, or of a rank's part of it ([`Parallel::part_of`]).
    pub(crate) fn new(s: &Shape) -> Self {
        let mut b = Builder::default();
        let [c, v, f] = [s.d_model, s.vocab_size, s.d_ff].map(|x| x as usize);
        let table = b.push("embedding".into(), v, c, Start::Normal);
        let positions =
            (s.family == Family::Gpt2).then(|| b.push("positions".into(), s.context as usize, c, Start::Normal));
        let qkv = (s.d_attn() + 2 * s.d_kv()) as usize;
        let (inner, gated) = if s.activation == Activation::SwiGlu { (2 * f, f) } else { (f, 0) };
        let (by_heads, by_width) =
            (Split::Rows([s.d_attn(), s.d_kv(), s.d_kv()].map(|x| x as usize)), Split::Rows([f, gated, 0]));
        let layers = (0..s.n_layers)
            .map(|l| LayerIndex {
                norm1: b.norm(&format!("layers.{l}.norm1"), s),
                qkv: b.linear(&format!("layers.{l}.qkv"), qkv, c, s.qkv_bias, by_heads),
                out: b.linear(&format!("layers.{l}.out"), c, s.d_attn() as usize, s.attn_out_bias, Split::Columns),
                norm2: b.norm(&format!("layers.{l}.norm2"), s),
                up: b.linear(&format!("layers.{l}.up"), inner, c, s.mlp_bias, by_width),
                down: b.linear(&format!("layers.{l}.down"), c, f, s.mlp_bias, Split::Columns),
            })
            .collect();
        let last_norm = b.norm("last_norm", s);
        let head = s
            .has_vocabulary_head()
            .then(|| if s.tied_embeddings { table } else { b.push("head".into(), v, c, Start::Normal) });
        Self { specs: b.0, table, positions, layers, last_norm, head }
    }

    /// The parameters of one layer, which stand together; every layer has as many, in the same order.
    pub(crate) fn of_layer(&self, layer: usize) -> Range<usize> {
        let all = self.of_layers();
        let each = if self.layers.is_empty() { 0 } else { all.len() / self.layers.len() };
        all.start + layer * each..all.start + (layer + 1) * each
    }

    /// The parameters of all layers.
    pub(crate) fn of_layers(&self) -> Range<usize> {
        let first = |l: &LayerIndex| l.norm1.map_or(l.qkv.weight, |n| n.gain);
        let start = self.layers.first().map_or(self.specs.len(), first);
        let past = |l: &LayerIndex| l.down.bias.unwrap_or(l.down.weight) + 1;
        start..self.layers.last().map_or(start, past)
    }

    /// Whether the embedding's gradient is first written by the tied head.
    pub(crate) fn tied(&self) -> bool {
        self.head == Some(self.table)
    }

    /// Whether a parameter is a matrix that linear layers multiply by (the table is one where embeddings are tied).
    pub(crate) fn is_weight(&self, parameter: usize) -> bool {
        let spec = &self.specs[parameter];
        let lookup_only = Some(parameter) == self.positions || (parameter == self.table && !self.tied());
        spec.rows > 1 && !lookup_only
    }

    /// Parameters as they start, from a seed; the same for every backend, and the `rank`-th part of them for a rank of `of`.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn initialise<B: Backend>(
        &self,
        backend: &B,
        seed: u64,
        purpose: Purpose,
        (rank, of): (usize, usize),
    ) -> Result<Vec<B::Buffer>, SessionError> {
        let one = |(i, spec): (usize, &Spec)| {
            let numbers = || spec.numbers(Stream::new(seed, i as u64), rank, of);
            if purpose == Purpose::Inference && self.is_weight(i) {
                return backend.normal_weights(&numbers());
            }
            let category = match purpose {
                Purpose::Training => Category::Weights,
                Purpose::Inference => Category::FixedWeights,
            };
            let mut buffer = backend.alloc(spec.len(), category)?;
            match spec.start {
                Start::Zero => {}
                Start::One => backend.fill(&mut buffer, 1.0),
                Start::Normal => backend.fill_normal(&mut buffer, &numbers()),
            }
            Ok(buffer)
        };
        self.specs.iter().enumerate().map(one).collect()
    }
}

/// What a model's parameters are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// They are read and written one by one.
    Training,
    /// Matrices are in the form that the backend multiplies by fastest, and are not written any more.
    Inference,
}

/// A model on a device, or one rank's part of it.
#[derive(Debug)]
pub(crate) struct Model<B: Backend> {
    pub backend: B,
    /// Of what is on this device: heads and feed-forward widths are the rank's.
    pub shape: Shape,
    pub index: Index,
    pub parameters: Vec<B::Buffer>,
    /// Of the rotary positions, where the family has them.
    pub frequencies: Option<Frequencies>,
    /// The ranks that hold the other parts of its layers.
    pub tensor: Arc<dyn Collective<B::Buffer>>,
}

impl<B: Backend> Model<B> {
    /// A whole model with its parameters as they start.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn new(backend: B, shape: &Shape, seed: u64, purpose: Purpose) -> Result<Self, SessionError> {
        Self::part(backend, shape, seed, purpose, Arc::new(Alone))
    }

    /// One rank's part of a model, whose numbers are those of the whole; `shape` is of the whole, and divides among the ranks.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`].
    pub(crate) fn part(
        backend: B,
        shape: &Shape,
        seed: u64,
        purpose: Purpose,
        tensor: Arc<dyn Collective<B::Buffer>>,
    ) -> Result<Self, SessionError> {
        let ranks = u32::try_from(tensor.size()).unwrap_or(u32::MAX);
        let shape = Parallel { tensor: ranks, ..Parallel::replicas(1) }.part_of(shape);
        let index = Index::new(&shape);
        let parameters = index.initialise(&backend, seed, purpose, (tensor.rank(), tensor.size()))?;
        let frequencies =
            (shape.family == Family::Llama).then(|| Frequencies::new(&shape.rope, shape.head_dim as usize));
        Ok(Self { backend, shape, index, parameters, frequencies, tensor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transformer::shape::ShapeSpec;
    use crate::transformer::shape::count;

    #[test]
    fn the_list_holds_as_many_numbers_as_the_count_says() {
        for family in [Family::Gpt2, Family::Llama, Family::Block] {
            for spec in [
                ShapeSpec::default(),
                ShapeSpec { tied_embeddings: Some(true), n_layers: Some(3), ..ShapeSpec::default() },
                ShapeSpec { qkv_bias: Some(true), mlp_bias: Some(true), d_ff: Some(100), ..ShapeSpec::default() },
            ] {
                let shape = Shape::new(family, &spec).unwrap();
                let listed: usize = Index::new(&shape).specs.iter().map(Spec::len).sum();
                assert_eq!(Ok(listed as u64), count::parameters(&shape), "{shape:?}");
            }
        }
    }
}
