//! Which experts tokens go to, and sinks beside scores: a row, or a head of a row, at a time.

use super::super::backend::{AttentionDims, ExpertDims};
use super::math::{dot, exp, maximum};
use super::pool::{Pool, reading, writing};

/// The softmax of a row of logits, as e^(l - max) and their sum.
fn exponentials(logits: &[f32], to: &mut [f32]) -> f32 {
    let max = maximum(logits);
    to.iter_mut().zip(logits).for_each(|(to, l)| *to = exp(*l - max));
    to.iter().sum()
}

/// The K largest of a row, the first of equals, as bits; weights by their shares of the softmax, or of its sum over them.
pub(super) fn route(pool: &Pool, logits: &[f32], chosen: &mut [f32], weights: &mut [f32], d: ExpertDims) {
    let (share, k) = (pool.share(d.n, 16), d.per_token);
    let to = (writing(&mut chosen[..d.rows()], share * k), writing(&mut weights[..d.rows()], share * k));
    let mut scratch = pool.scratch(d.n * d.experts);
    let room = writing(&mut scratch, share * d.experts);
    pool.over(
        ((to, room), reading(&logits[..d.n * d.experts], share * d.experts)),
        |_, (((chosen, weights), room), logits)| {
            let rows =
                chosen.chunks_exact_mut(k).zip(weights.chunks_exact_mut(k)).zip(room.chunks_exact_mut(d.experts));
            for (((chosen, weights), p), logits) in rows.zip(logits.chunks_exact(d.experts)) {
                let total = exponentials(logits, p);
                for i in 0..k {
                    let taken = |e: usize| chosen[..i].iter().any(|c| c.to_bits() as usize == e);
                    let free = (0..d.experts).filter(|e| !taken(*e));
                    let best = free.reduce(|best, e| if logits[e] > logits[best] { e } else { best }).unwrap_or(0);
                    (chosen[i], weights[i]) = (f32::from_bits(best as u32), p[best]);
                }
                let sum = if d.normalised { weights.iter().sum() } else { total };
                weights.iter_mut().for_each(|w| *w /= sum);
            }
        },
    );
}

/// The gradient of the logits from that of the weights.
pub(super) fn route_backward(pool: &Pool, [logits, chosen, dweights]: [&[f32]; 3], dlogits: &mut [f32], d: ExpertDims) {
    let (share, k) = (pool.share(d.n, 16), d.per_token);
    let routed = (reading(&chosen[..d.rows()], share * k), reading(&dweights[..d.rows()], share * k));
    let logits = reading(&logits[..d.n * d.experts], share * d.experts);
    pool.over(
        (writing(&mut dlogits[..d.n * d.experts], share * d.experts), (logits, routed)),
        |_, (to, (logits, (chosen, dweights)))| {
            let rows = to.chunks_exact_mut(d.experts).zip(logits.chunks_exact(d.experts));
            for ((to, logits), (chosen, dweights)) in rows.zip(chosen.chunks_exact(k).zip(dweights.chunks_exact(k))) {
                // `to` is the softmax first; what no token was sent by keeps it only where all experts share the denominator.
                let total = exponentials(logits, to);
                let of_token = || chosen.iter().map(|c| c.to_bits() as usize).zip(dweights);
                let sum = if d.normalised { of_token().map(|(e, _)| to[e]).sum() } else { total };
                let mean: f32 = of_token().map(|(e, g)| to[e] / sum * g).sum();
                let gained: Vec<(usize, f32)> = of_token().map(|(e, g)| (e, to[e] / sum * (g - mean))).collect();
                if d.normalised {
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
