//! How far attention and its gradient may be off, number by number: the errors of `bounds` carried through the formulas.
//!
//! With q, k, v, p = softmax(q k / sqrt(D)), o = p v, g the gradient of o, δ = g o, ds = p (g v - δ) / sqrt(D):
//!
//! - a score is off by its sum, |q| |k| at most in magnitude, and by a few roundings of itself and of what is taken off before the
//!   exponential; p by that, once for itself and once for its denominator; then, where products take it, by its rounding (u);
//! - o by that over the sum of p |v|, and the sum's own error; the log of the denominator by a score's error and its sum's;
//! - δ by what the stored o is off by; ds by p's error, by u, by δ's and by those of g v;
//! - dv, dk, dq are sums of p g, ds q, ds k: each term's error, and the sum's own.

use super::super::backend::{AttentionDims, Category};
use super::bounds::{FUNCTION, Format, UNIT, dot, length, longest, sum};

/// Before storage.
pub(super) struct Errors {
    pub out: Vec<f64>,
    pub lse: Vec<f64>,
    pub dqkv: Vec<f64>,
}

/// What a share of a softmax may be off by, of itself, before it is normalised: `products` is the largest |q| |k| / sqrt(D).
pub(super) fn of_share(products: f64, dim: usize) -> f64 {
    (sum(dim) + 32.0 * UNIT) * products + 16.0 * UNIT
}

/// What becomes of a product of query and key in the head `h`, the key standing at `position`, and the slope of that.
pub(super) fn shaped(d: &AttentionDims, h: usize, product: f64, position: usize) -> (f64, f64) {
    let gain = f64::from(d.slope(h)) * position as f64;
    match d.scores.soft_cap.map(f64::from) {
        Some(cap) => {
            let t = (product * d.scale() / cap).tanh();
            (cap * t + gain, 1.0 - t * t)
        }
        None => (product * d.scale() + gain, 1.0),
    }
}

/// What that may be off by beside what the product is: a function's error of the cap, and roundings of what a key's position gains.
pub(super) fn of_shaping(d: &AttentionDims, h: usize, past: usize) -> f64 {
    let cap = d.scores.soft_cap.map_or(0.0, |cap| FUNCTION * f64::from(cap));
    cap + 4.0 * UNIT * f64::from(d.slope(h)) * past as f64
}

/// What a query's sums are off by, of what they are sums of.
struct Row {
    /// p
    share: f64,
    /// p as the gradient computes it again, rounded where products take it.
    again: f64,
    /// A sum over the keys that a query sees, and over all queries that a key is seen by.
    over_keys: f64,
    over_queries: f64,
    u: f64,
}

/// `before` is qkv and dout, `after` has out and lse at 2 and 3.
pub(super) fn errors(before: &[Vec<f32>], after: &[Vec<f32>], d: AttentionDims, format: Format) -> Errors {
    let (qkv, dout, out, lse) = (&before[0], &before[1], &after[2], &after[3]);
    let (width, out_width, dim) = (d.qkv_width(), d.out_width(), d.head_dim);
    let sharing = d.heads / d.kv_heads;
    let scale = d.scale();
    let mut e = Errors { out: vec![0.0; out.len()], lse: vec![0.0; lse.len()], dqkv: vec![0.0; qkv.len()] };
    let stored = format.stored(Category::Activations);
    let mut p: Vec<f32> = Vec::new();
    let mut dp: Vec<f32> = Vec::new();
    for (batch, h) in (0..d.batch).flat_map(|b| (0..d.heads).map(move |h| (b, h))) {
        let first = batch * d.tokens;
        let (key, value) = ((d.heads + h / sharing) * dim, (d.heads + d.kv_heads + h / sharing) * dim);
        let at = |s: usize, column: usize| &qkv[(first + s) * width + column..][..dim];
        let lengths = |column: usize| (0..d.tokens).map(|s| longest(at(s, column), dim)).fold(0.0, f64::max);
        let (longest_key, longest_value) = (lengths(key), lengths(value));
        for t in 0..d.tokens {
            let (r, seen) = (first + t, d.seen(t));
            let result = r * out_width + h * dim;
            let (q, o, g) = (at(t, h * dim), &out[result..][..dim], &dout[result..][..dim]);
            let share = of_share(length(q) * longest_key * scale, dim) + of_shaping(&d, h, seen.end);
            let log = f64::from(lse[r * d.heads + h]);
            e.lse[r * d.heads + h] = share + sum(seen.len()) + 4.0 * UNIT * log.abs();
            p.clear();
            let score = |s: usize| shaped(&d, h, f64::from(dot(q, at(s, key))), s);
            p.extend(seen.clone().map(|s| (score(s).0 - log).exp() as f32));
            let row = Row {
                share,
                again: share + e.lse[r * d.heads + h] + 16.0 * UNIT,
                over_keys: sum(seen.len()),
                over_queries: sum(d.tokens * sharing),
                u: format.on_the_way(),
            };
            let of_out = &mut e.out[result..][..dim];
            for (s, p) in seen.clone().zip(&p) {
                let by = f64::from(*p) * (2.0 * row.share + row.u + row.over_keys);
                of_out.iter_mut().zip(at(s, value)).for_each(|(e, v)| *e += by * f64::from(v.abs()));
            }
            let off_o = |i: usize| of_out[i] + stored * (f64::from(o[i].abs()) + of_out[i]);
            let delta = dot(g, o);
            let off_delta: f64 =
                (0..dim).map(|i| f64::from(g[i].abs()) * (off_o(i) + sum(dim) * f64::from(o[i].abs()))).sum();
            let off_dp = sum(dim) * length(g) * longest_value;
            dp.clear();
            dp.extend(seen.clone().map(|s| dot(g, at(s, value)) - delta));
            // The slope of a cap moves by at most twice what the capped score does, of the cap.
            let of_cap = d.scores.soft_cap.map_or(0.0, |cap| 2.0 * (share / f64::from(cap) + FUNCTION));
            for (i, s) in seen.enumerate() {
                let (p, slope, capped) = (f64::from(p[i]), f64::from(dp[i].abs()), score(s).1);
                let ds = p * slope * scale * capped;
                let off_ds = ds * (row.again + row.u + 4.0 * UNIT)
                    + p * scale * (capped * (off_dp + off_delta) + of_cap * (slope + off_dp + off_delta));
                let base = (first + s) * width;
                let mut add = |to: usize, by: f64, of: &[f32]| {
                    let to = &mut e.dqkv[to..][..dim];
                    to.iter_mut().zip(of).for_each(|(e, x)| *e += by * f64::from(x.abs()));
                };
                add(base + value, p * (row.again + row.u + row.over_queries), g);
                add(base + key, off_ds + row.over_queries * ds, q);
                add(r * width + h * dim, off_ds + row.over_keys * ds, at(s, key));
            }
        }
    }
    e
}
