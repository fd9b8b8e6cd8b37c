//! Which experts tokens go to, and sinks beside scores: a row, or a head of a row, at a time.

use super::super::backend::{AttentionDims, ExpertDims};
use super::math::{dot, exp, maximum, sigmoid};
use super::pool::{Pool, reading, writing};
use crate::transformer::shape::{Routing, Scoring};

/// By what experts are chosen, and the numbers that are added to their scores then.
#[derive(Clone, Copy)]
pub(super) struct Rule<'a> {
    pub by: Routing,
    pub correction: Option<&'a [f32]>,
}

impl Rule<'_> {
    /// The largest of the softmax.
    pub(super) const PLAIN: Self = Self { by: Routing::PLAIN, correction: None };
}

/// What a row of logits says of each expert, and what the shares are of: e^(l - max) and their sum, or sigmoids.
fn scores(logits: &[f32], to: &mut [f32], by: Scoring) -> f32 {
    if by == Scoring::Sigmoid {
        to.iter_mut().zip(logits).for_each(|(to, l)| *to = sigmoid(*l));
        return 1.0;
    }
    let max = maximum(logits);
    to.iter_mut().zip(logits).for_each(|(to, l)| *to = exp(*l - max));
    to.iter().sum()
}

/// The K largest of a row, the first of equals, as bits; weights by their scores, or shares of them.
pub(super) fn route(pool: &Pool, logits: &[f32], chosen: &mut [f32], weights: &mut [f32], d: ExpertDims, rule: Rule) {
    let (share, k) = (pool.share(d.n, 16), d.per_token);
    let to = (writing(&mut chosen[..d.rows()], share * k), writing(&mut weights[..d.rows()], share * k));
    let mut scratch = pool.scratch(d.n * 2 * d.experts);
    let room = writing(&mut scratch, share * 2 * d.experts);
    pool.over(
        ((to, room), reading(&logits[..d.n * d.experts], share * d.experts)),
        |_, (((chosen, weights), room), logits)| {
            let rows =
                chosen.chunks_exact_mut(k).zip(weights.chunks_exact_mut(k)).zip(room.chunks_exact_mut(2 * d.experts));
            for (((chosen, weights), room), logits) in rows.zip(logits.chunks_exact(d.experts)) {
                let (p, keys) = room.split_at_mut(d.experts);
                let total = scores(logits, p, rule.by.scoring);
                choice_keys(logits, (p, total), keys, rule);
                for i in 0..k {
                    let taken = |e: usize| chosen[..i].iter().any(|c| c.to_bits() as usize == e);
                    let free = (0..d.experts).filter(|e| !taken(*e));
                    let best = free.reduce(|best, e| if keys[e] > keys[best] { e } else { best }).unwrap_or(0);
                    (chosen[i], weights[i]) = (f32::from_bits(best as u32), p[best]);
                }
                let sum = if d.normalised { weights.iter().sum() } else { total };
                weights.iter_mut().for_each(|w| *w *= rule.by.scale / sum);
            }
        },
    );
}

/// What a row's experts are chosen by: the softmax's order is that of the logits, which have fewer equals. Experts of groups that are
/// not chosen are out.
fn choice_keys(logits: &[f32], (p, total): (&[f32], f32), keys: &mut [f32], rule: Rule) {
    match (rule.by.scoring, rule.correction) {
        (Scoring::Softmax, None) => keys.copy_from_slice(logits),
        (_, None) => keys.copy_from_slice(p),
        (_, Some(correction)) => {
            keys.iter_mut().zip(p).zip(correction).for_each(|((key, p), c)| *key = p / total + c);
        }
    }
    let Routing { groups, groups_per_token, corrected, .. } = rule.by;
    if groups_per_token == groups {
        return;
    }
    let each = keys.len() / groups as usize;
    let best =
        |group: &[f32]| {
            let [first, second] = group.iter().fold([f32::NEG_INFINITY; 2], |[first, second], x| {
                if *x > first { [*x, first] } else { [first, second.max(*x)] }
            });
            if corrected && each > 1 { first + second } else { first }
        };
    let mut of_groups: Vec<f32> = keys.chunks_exact(each).map(best).collect();
    let mut out = vec![true; of_groups.len()];
    for _ in 0..groups_per_token {
        let left = (0..out.len()).filter(|g| out[*g]);
        let Some(next) = left.reduce(|best, g| if of_groups[g] > of_groups[best] { g } else { best }) else { break };
        (out[next], of_groups[next]) = (false, f32::NEG_INFINITY);
    }
    let groups = keys.chunks_exact_mut(each).zip(out);
    groups.filter(|(_, out)| *out).for_each(|(group, _)| group.fill(f32::NEG_INFINITY));
}

/// The gradient of the logits from that of the weights.
pub(super) fn route_backward(
    pool: &Pool,
    [logits, chosen, dweights]: [&[f32]; 3],
    dlogits: &mut [f32],
    d: ExpertDims,
    by: Routing,
) {
    let (share, k) = (pool.share(d.n, 16), d.per_token);
    let routed = (reading(&chosen[..d.rows()], share * k), reading(&dweights[..d.rows()], share * k));
    let logits = reading(&logits[..d.n * d.experts], share * d.experts);
    pool.over(
        (writing(&mut dlogits[..d.n * d.experts], share * d.experts), (logits, routed)),
        |_, (to, (logits, (chosen, dweights)))| {
            let rows = to.chunks_exact_mut(d.experts).zip(logits.chunks_exact(d.experts));
            for ((to, logits), (chosen, dweights)) in rows.zip(chosen.chunks_exact(k).zip(dweights.chunks_exact(k))) {
                // `to` is the scores first; what no token was sent by keeps them only where all experts share the denominator.
                let total = scores(logits, to, by.scoring);
                let of_token =
                    || chosen.iter().map(|c| c.to_bits() as usize).zip(dweights.iter().map(|g| g * by.scale));
                let sum = if d.normalised { of_token().map(|(e, _)| to[e]).sum() } else { total };
                let mean: f32 = of_token().map(|(e, g)| to[e] / sum * g).sum();
                // Of a sigmoid's own slope, and of what the others lose by the sum.
                let (slope, others) = match (by.scoring, d.normalised) {
                    (Scoring::Softmax, _) => (0.0, mean),
                    (Scoring::Sigmoid, true) => (1.0, mean),
                    (Scoring::Sigmoid, false) => (1.0, 0.0),
                };
                let gained = of_token().map(|(e, g)| (e, to[e] / sum * (1.0 - slope * to[e]) * (g - others)));
                let gained: Vec<(usize, f32)> = gained.collect();
                if d.normalised || by.scoring == Scoring::Sigmoid {
                    to.fill(0.0);
                } else {
                    to.iter_mut().for_each(|p| *p = -*p / sum * mean);
                }
                gained.into_iter().for_each(|(e, g)| to[e] = g);
            }
        },
    );
}

/// A logit of each head joins its scores: `out` shrinks, `lse` grows.
pub(super) fn sinks(pool: &Pool, sinks: &[f32], out: &mut [f32], lse: &mut [f32], d: AttentionDims) {
    let (n, share) = (d.rows(), pool.share(d.rows(), 16));
    let parts = (
        writing(&mut out[..n * d.out_width()], share * d.out_width()),
        writing(&mut lse[..n * d.heads], share * d.heads),
    );
    pool.over(parts, |_, (out, lse)| {
        for (i, (head, log)) in out.chunks_exact_mut(d.head_dim).zip(lse).enumerate() {
            let sink = sinks[i % d.heads];
            let both = log.max(sink) + (-(*log - sink).abs()).exp().ln_1p();
            let by = (*log - both).exp();
            head.iter_mut().for_each(|x| *x *= by);
            *log = both;
        }
    });
}

/// The gradient of the logits, from `[sinks, out, dout, lse]`.
pub(super) fn sinks_backward(pool: &Pool, [sinks, out, dout, lse]: [&[f32]; 4], dsinks: &mut [f32], d: AttentionDims) {
    let (n, share) = (d.rows(), pool.share(d.rows(), 16));
    let mut sums = vec![0.0f32; n.div_ceil(share) * d.heads];
    let results = (
        reading(&out[..n * d.out_width()], share * d.out_width()),
        reading(&dout[..n * d.out_width()], share * d.out_width()),
    );
    pool.over(
        (writing(&mut sums, d.heads), (results, reading(&lse[..n * d.heads], share * d.heads))),
        |_, (sums, ((out, dout), lse))| {
            let heads = out.chunks_exact(d.head_dim).zip(dout.chunks_exact(d.head_dim));
            for (i, ((out, dout), log)) in heads.zip(lse).enumerate() {
                sums[i % d.heads] -= (sinks[i % d.heads] - log).exp() * dot(out, dout);
            }
        },
    );
    for (h, to) in dsinks[..d.heads].iter_mut().enumerate() {
        *to = sums.chunks_exact(d.heads).map(|part| part[h]).sum();
    }
}
