//! What attention's kernels are told of scores, and of keys that are not among the queries' own.

use super::super::backend::AttentionDims;
use super::device::{Address, Arg, Real};
use super::launch::{at, int, long};

/// Where keys and values of all positions lie that the queries of a pass look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    pub keys: Address,
    pub values: Address,
    /// Elements from one position, group of heads and sequence to the next.
    pub strides: [usize; 3],
    /// Positions before that of the first query.
    pub before: usize,
}

impl Context {
    /// Those of the queries themselves, in `qkv [N, (H + 2 KV) * D]`.
    pub(super) fn own(qkv: Address, real: Real, d: &AttentionDims) -> Self {
        let (width, dim) = (d.qkv_width(), d.head_dim);
        let further = |elements: usize| qkv + (elements * real.size()) as Address;
        let (keys, values) = (further(d.heads * dim), further((d.heads + d.kv_heads) * dim));
        Self { keys, values, strides: [width, dim, d.tokens * width], before: 0 }
    }

    /// Gathered at `at`: keys, then values, `[B, KV, before + tokens, D]` each.
    pub(super) fn gathered(at: Address, real: Real, before: usize, d: &AttentionDims) -> Self {
        let a_group = (before + d.tokens) * d.head_dim;
        let a_sequence = d.kv_heads * a_group;
        let values = at + (d.batch * a_sequence * real.size()) as Address;
        Self { keys: at, values, strides: [d.head_dim, a_group, a_sequence], before }
    }

    /// Whether kernels that know nothing of windows do: all queries see all keys up to their own.
    pub(super) fn is_plain(&self, d: &AttentionDims) -> bool {
        self.before == 0 && window(d, 0) == d.tokens
    }

    /// As the kernels' last arguments.
    pub(super) fn args(&self) -> [Arg; 6] {
        let [position, group, sequence] = self.strides;
        [int(self.before), at(self.keys), at(self.values), int(position), long(group), long(sequence)]
    }
}

/// Whether scores are more than products: they are capped, or fall with the distance.
pub(super) fn bends(d: &AttentionDims) -> bool {
    d.scores.soft_cap.is_some() || d.scores.alibi
}

/// Keys that a query sees at most, all of them where there is no window.
fn window(d: &AttentionDims, before: usize) -> usize {
    let all = before + d.tokens;
    d.scores.window.filter(|_| d.causal).map_or(all, |window| window.min(all))
}

/// Scale, window, cap and ALiBi, as the kernels take them.
pub(super) fn of_scores(d: &AttentionDims, before: usize) -> [Arg; 4] {
    let [scale, cap, alibi] = of_products(d);
    [scale, int(window(d, before)), cap, alibi]
}

/// The same without the window.
pub(super) fn of_products(d: &AttentionDims) -> [Arg; 3] {
    let cap = d.scores.soft_cap.unwrap_or(0.0);
    [Arg::F32(d.scale() as f32), Arg::F32(cap), Arg::I32(d.scores.alibi.into())]
}
