//! One parameter: its size, how it starts, how ranks split it; and where those of a layer stand in the list of all.

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

    /// Where rows of the `rank`-th part of `of` stand in the whole, neighbours together; of a bias, elements are rows.
    pub(crate) fn rows_of_whole(&self, rows: Range<usize>, rank: usize, of: usize) -> Vec<Range<usize>> {
        let Split::Rows(heights) = self.split else { return vec![rows] };
        let (mut above, mut above_in_whole) = (0, 0);
        let mut stretches = Vec::new();
        for height in heights {
            let (first, end) = (rows.start.max(above), rows.end.min(above + height));
            if first < end {
                let start = above_in_whole + rank * height + first - above;
                stretches.push(start..start + end - first);
            }
            above += height;
            above_in_whole += of * height;
        }
        stretches
    }

    /// The `rank`-th part of `of` of the numbers that `stream` has for the whole.
    pub(super) fn numbers(&self, stream: Stream, rank: usize, of: usize) -> Normals {
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
