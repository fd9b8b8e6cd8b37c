//! One parameter: its size, how it starts, how ranks split it; and where those of a layer stand in the list of all.

use super::super::backend::Category;
use super::super::random::{Block, Normals, Stream};
use std::ops::Range;

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
    /// Into how many matrices, one under the other, products divide it to take each as a whole: one an expert; 0 where they read it
    /// in other pieces.
    pub matrices: usize,
    /// Whether no gradient changes it: it stays as it is made.
    pub fixed: bool,
}

/// How a matrix is split among the ranks of a replica, and what of it is this one's; a bias goes with its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    /// Every rank has all of it.
    Whole,
    /// By outputs.
    Rows(Rows),
    /// By inputs: the first of the rank's columns, and how many the whole has.
    Columns { first: usize, whole: usize },
}

/// A rank's rows: up to three stretches that stand one below the other (queries, keys, values; gate, up), the same of each of several
/// matrices (one an expert).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    held: [Held; 3],
    /// Rows of a whole matrix.
    whole: usize,
}

/// Neighbouring rows of a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    /// Where they begin in the whole.
    first: usize,
    rows: usize,
    /// Whether a rank before this one holds the same.
    copy: bool,
}

/// Which of how many equal parts of a stretch is a rank's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub number: usize,
    pub of: usize,
    /// Whether a rank before this one has the same.
    pub copy: bool,
}

impl Rows {
    /// So many rows from one on.
    pub(super) fn neighbours(first: usize, rows: usize) -> Self {
        let nothing = Held { first: 0, rows: 0, copy: false };
        Self { held: [Held { first, rows, copy: false }, nothing, nothing], whole: 0 }
    }

    /// Of stretches of which the rank has so many rows, each at its place.
    pub(super) fn new(stretches: [(usize, Place); 3]) -> Self {
        let mut whole = 0;
        let held = stretches.map(|(rows, Place { number, of, copy })| {
            let first = whole + number * rows;
            whole += of * rows;
            Held { first, rows, copy }
        });
        Self { held, whole }
    }

    /// The rank's rows of a matrix.
    fn height(&self) -> usize {
        self.held.iter().map(|h| h.rows).sum()
    }
}

impl Spec {
    /// Numbers in the parameter.
    pub(crate) fn len(&self) -> usize {
        self.rows * self.columns
    }

    /// What it is allocated as in training. What no gradient changes is in every format as exact as it was given: experts are chosen by it.
    pub(in crate::transformer) fn category(&self) -> Category {
        if self.fixed { Category::ExactWeights } else { Category::Weights }
    }

    /// Where some rows stand in the whole, neighbours together; of a bias, elements are rows.
    pub(crate) fn rows_of_whole(&self, rows: Range<usize>) -> Vec<Range<usize>> {
        let Split::Rows(of) = self.split else { return vec![rows] };
        let height = of.height().max(1);
        let mut stretches: Vec<Range<usize>> = Vec::new();
        for matrix in rows.start / height..rows.end.div_ceil(height) {
            let mut above = matrix * height;
            for Held { first, rows: height, .. } in of.held {
                let (start, end) = (rows.start.max(above), rows.end.min(above + height));
                if start < end {
                    let at = matrix * of.whole + first + start - above;
                    match stretches.last_mut().filter(|last| last.end == at) {
                        Some(last) => last.end += end - start,
                        None => stretches.push(at..at + end - start),
                    }
                }
                above += height;
            }
        }
        stretches
    }

    /// Elements that no rank before this one holds too; `first` says whether there is none before it.
    pub(crate) fn own(&self, first: bool) -> Vec<Range<usize>> {
        let of = match self.split {
            Split::Whole if !first => return Vec::new(),
            Split::Rows(of) if of.held.iter().any(|h| h.copy) => of,
            Split::Whole | Split::Rows(_) | Split::Columns { .. } => return std::iter::once(0..self.len()).collect(),
        };
        // No matrix of an expert is copied.
        let width = self.len() / of.height().max(1);
        let mut above = 0;
        let stretch = |held: &Held| {
            let start = above;
            above += held.rows * width;
            (!held.copy).then_some(start..above)
        };
        of.held.iter().filter_map(stretch).collect()
    }

    /// What is this rank's of the numbers that `stream` has for the whole.
    pub(super) fn numbers(&self, stream: Stream) -> Normals {
        let width = self.columns as u64;
        let block = |rows, first, stride| Block { rows, first, stride };
        let blocks = match self.split {
            Split::Columns { first, whole } => vec![block(self.rows, first as u64, whole as u64)],
            Split::Whole | Split::Rows(_) => {
                let all = self.rows_of_whole(0..self.rows).into_iter();
                all.map(|rows| block(rows.len(), rows.start as u64 * width, width)).collect()
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Linear {
    pub weight: usize,
    pub bias: Option<usize>,
}

/// Where a layer's parameters stand in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerIndex {
    /// Before attention.
    pub norm1: Option<Norm>,
    /// `[(H + 2 KV) * D, C]`: queries, keys, values. Where attention is latent, queries alone, `[H * D, C]` or of their latent.
    pub qkv: Linear,
    /// Where attention is latent, what makes keys and values.
    pub latent: Option<LatentIndex>,
    /// Gains of the norms of queries and keys.
    pub qk_norm: Option<[usize; 2]>,
    /// `[H]`, a logit beside each head's scores
    pub sinks: Option<usize>,
    /// `[C, H * D]`, or of the values' width where attention is latent
    pub out: Linear,
    /// After attention.
    pub norm1_after: Option<Norm>,
    /// Before the feed-forward layer; `norm1` itself where the branches share one.
    pub norm2: Option<Norm>,
    /// `[E, C]`, in layers of experts
    pub router: Option<Linear>,
    /// `[E]`, added to scores where experts are chosen, in layers that have it
    pub correction: Option<usize>,
    /// `[F, C]`, or `[2 F, C]` (gate, up) where it is gated; of every expert, one after the other, where there are experts
    pub up: Linear,
    /// `[C, F]`; of every expert
    pub down: Linear,
    /// The same two of the experts that every token goes through, which are one feed-forward layer together.
    pub shared: Option<[Linear; 2]>,
    /// After the feed-forward layer.
    pub norm2_after: Option<Norm>,
}

/// Where the parameters of a layer's latents stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LatentIndex {
    /// `[Q, C]` and the norm of its result, where queries are products of a latent
    pub queries: Option<(Linear, Norm)>,
    /// `[R, C]`
    pub down: Linear,
    pub norm: Norm,
    /// `[P, C]`, the rotated key that all heads share
    pub rotated: Linear,
    /// `[H * (nope + value), R]`, head by head
    pub up: Linear,
}
