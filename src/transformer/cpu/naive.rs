//! The oracle: every operation as its formula reads, in f64 inside, without a thought for speed. It stays.

use super::super::backend::few_bits_on_host::rows_as_kept;
use super::super::backend::{
    Alloc, AttentionDims, Backend, CacheDims, Category, Clipping, Dropout, Frequencies, IGNORED_TARGET, LinearDims,
    Loss, NormDims, Store, Update, Updated,
};
use super::super::error::SessionError;
use super::super::shape::Activation;
use super::super::{BackendKind, OptimizerKind};
use super::array::Array;
use super::naive_curves::{activate, other_half};
use super::{dropout, embedding};

/// The backend of plain loops.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Naive;

impl Alloc for Naive {
    type Buffer = Array;

    fn alloc(&self, len: usize, _: Category) -> Result<Array, SessionError> {
        Array::zeros(len)
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}

/// Where in a row of queries, keys and values head `h`'s query starts, and the key and value it shares.
pub(super) fn head_offsets(d: &AttentionDims, h: usize) -> (usize, usize, usize) {
    let group = h / (d.heads / d.kv_heads);
    (h * d.head_dim, (d.heads + group) * d.head_dim, (d.heads + d.kv_heads + group) * d.head_dim)
}

/// The softmax of the scores of the given keys, whose first stands at position `first`, for head `h`, and the log of its denominator.
pub(super) fn probabilities<'a>(
    q: &[f32],
    keys: impl Iterator<Item = &'a [f32]>,
    (first, h): (usize, usize),
    d: &AttentionDims,
) -> (Vec<f64>, f64) {
    let score = |(s, k): (usize, &[f32])| {
        let score = dot(q, k) * d.scale();
        let capped = d.scores.soft_cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh());
        capped + f64::from(d.slope(h)) * (first + s) as f64
    };
    let scores: Vec<f64> = keys.enumerate().map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
    (scores.iter().map(|s| (s - max).exp() / total).collect(), max + total.ln())
}

impl Backend for Naive {
    fn kind(&self) -> BackendKind {
        BackendKind::Naive
    }
    fn upload(&self, from: &[f32], to: &mut Array) {
        to[..from.len()].copy_from_slice(from);
    }
    fn download(&self, from: &Array, offset: usize, to: &mut [f32]) {
        to.copy_from_slice(&from[offset..offset + to.len()]);
    }
    fn fill(&self, buffer: &mut Array, value: f32) {
        buffer.fill(value);
    }
    fn copy(&self, from: &Array, to: &mut Array, len: usize) {
        to[..len].copy_from_slice(&from[..len]);
    }
    fn add(&self, from: &Array, to: &mut Array, len: usize) {
        for (t, f) in to[..len].iter_mut().zip(&from[..len]) {
            *t += f;
        }
    }

    fn embed(
        &self,
        ids: &[u32],
        tokens: usize,
        first: usize,
        table: &Array,
        positions: Option<&Array>,
        out: &mut Array,
        c: usize,
    ) {
        for (r, &id) in ids.iter().enumerate() {
            embedding::row(id, first + r % tokens, table, positions.map(|p| &**p), &mut out[r * c..][..c]);
        }
    }
    fn embed_backward(
        &self,
        ids: &[u32],
        tokens: usize,
        first: usize,
        dout: &Array,
        dtable: &mut Array,
        dpositions: Option<&mut Array>,
        c: usize,
    ) {
        embedding::backward(ids, (tokens, first), dout, dtable, dpositions.map(|p| &mut **p), c);
    }

    fn norm(&self, x: &Array, gain: &Array, bias: Option<&Array>, out: &mut Array, stats: &mut Array, d: NormDims) {
        let c = d.c as f64;
        for r in 0..d.n {
            let row = &x[r * d.c..][..d.c];
            let mean = if d.rms { 0.0 } else { row.iter().map(|&v| f64::from(v)).sum::<f64>() / c };
            let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / c;
            let rstd = 1.0 / (variance + f64::from(d.eps)).sqrt();
            for i in 0..d.c {
                let normed = (f64::from(row[i]) - mean) * rstd * (f64::from(gain[i]) + f64::from(d.gain_offset));
                out[r * d.c + i] = (normed + bias.map_or(0.0, |b| f64::from(b[i]))) as f32;
            }
            stats[2 * r] = mean as f32;
            stats[2 * r + 1] = rstd as f32;
        }
    }
    fn norm_backward(
        &self,
        x: &Array,
        gain: &Array,
        stats: &Array,
        dout: &Array,
        dx: &mut Array,
        dgain: &mut Array,
        dbias: Option<&mut Array>,
        d: NormDims,
    ) {
        let c = d.c as f64;
        let (mut of_gain, mut of_bias) = (vec![0.0f64; d.c], vec![0.0f64; d.c]);
        for r in 0..d.n {
            let (mean, rstd) = (f64::from(stats[2 * r]), f64::from(stats[2 * r + 1]));
            let hat = |i: usize| (f64::from(x[r * d.c + i]) - mean) * rstd;
            let gain = |i: usize| f64::from(gain[i]) + f64::from(d.gain_offset);
            let g = |i: usize| f64::from(dout[r * d.c + i]) * gain(i);
            let sum_g = if d.rms { 0.0 } else { (0..d.c).map(g).sum::<f64>() / c };
            let sum_gh = (0..d.c).map(|i| g(i) * hat(i)).sum::<f64>() / c;
            for i in 0..d.c {
                dx[r * d.c + i] += (rstd * (g(i) - sum_g - hat(i) * sum_gh)) as f32;
                of_gain[i] += f64::from(dout[r * d.c + i]) * hat(i);
                of_bias[i] += f64::from(dout[r * d.c + i]);
            }
        }
        for i in 0..d.c {
            dgain[i] = of_gain[i] as f32;
        }
        if let Some(b) = dbias {
            for i in 0..d.c {
                b[i] = of_bias[i] as f32;
            }
        }
    }

    fn linear(&self, x: &Array, w: &Array, bias: Option<&Array>, out: &mut Array, into: Store, d: LinearDims) {
        for r in 0..d.n {
            for o in 0..d.m {
                let sum = dot(&x[r * d.k..][..d.k], &w[o * d.k..][..d.k]) + bias.map_or(0.0, |b| f64::from(b[o]));
                let before = if into == Store::Accumulate { f64::from(out[r * d.m + o]) } else { 0.0 };
                out[r * d.m + o] = (before + sum) as f32;
            }
        }
    }
    fn linear_dx(&self, dout: &Array, w: &Array, dx: &mut Array, into: Store, d: LinearDims) {
        for r in 0..d.n {
            for i in 0..d.k {
                let sum: f64 = (0..d.m).map(|o| f64::from(dout[r * d.m + o]) * f64::from(w[o * d.k + i])).sum();
                let before = if into == Store::Accumulate { f64::from(dx[r * d.k + i]) } else { 0.0 };
                dx[r * d.k + i] = (before + sum) as f32;
            }
        }
    }
    fn linear_dw(&self, x: &Array, dout: &Array, dw: &mut Array, dbias: Option<&mut Array>, d: LinearDims) {
        for o in 0..d.m {
            for i in 0..d.k {
                let sum: f64 = (0..d.n).map(|r| f64::from(dout[r * d.m + o]) * f64::from(x[r * d.k + i])).sum();
                dw[o * d.k + i] = sum as f32;
            }
        }
        if let Some(b) = dbias {
            for o in 0..d.m {
                b[o] = (0..d.n).map(|r| f64::from(dout[r * d.m + o])).sum::<f64>() as f32;
            }
        }
    }

    fn activation(&self, kind: Activation, pre: &Array, out: &mut Array, n: usize, f: usize) {
        for r in 0..n {
            for i in 0..f {
                out[r * f + i] = if kind.gated() {
                    let row = &pre[2 * r * f..][..2 * f];
                    (activate(kind, f64::from(row[i])).0 * other_half(kind, f64::from(row[f + i])).0) as f32
                } else {
                    activate(kind, f64::from(pre[r * f + i])).0 as f32
                };
            }
        }
    }
    fn activation_backward(&self, kind: Activation, pre: &mut Array, dout: &Array, n: usize, f: usize) {
        for r in 0..n {
            for i in 0..f {
                let d = f64::from(dout[r * f + i]);
                if kind.gated() {
                    let row = &mut pre[2 * r * f..][..2 * f];
                    let (value, slope) = activate(kind, f64::from(row[i]));
                    let (other, of_other) = other_half(kind, f64::from(row[f + i]));
                    (row[i], row[f + i]) = ((d * slope * other) as f32, (d * value * of_other) as f32);
                } else {
                    pre[r * f + i] = (d * activate(kind, f64::from(pre[r * f + i])).1) as f32;
                }
            }
        }
    }

    fn rope(&self, qkv: &mut Array, frequencies: &Frequencies, first: usize, inverse: bool, d: AttentionDims) {
        let (half, by) = (frequencies.radians.len(), f64::from(frequencies.factor));
        for r in 0..d.rows() {
            for h in 0..d.heads + d.kv_heads {
                let head = &mut qkv[r * d.qkv_width() + h * d.head_dim..][..d.head_dim];
                for (i, &f) in frequencies.radians.iter().enumerate() {
                    let angle = (first + r % d.tokens) as f64 * f64::from(f) * if inverse { -1.0 } else { 1.0 };
                    let (a, b) = (by * f64::from(head[i]), by * f64::from(head[i + half]));
                    head[i] = (a * angle.cos() - b * angle.sin()) as f32;
                    head[i + half] = (b * angle.cos() + a * angle.sin()) as f32;
                }
            }
        }
    }

    fn attention(&self, qkv: &Array, out: &mut Array, lse: &mut Array, d: AttentionDims) {
        let (width, dim) = (d.qkv_width(), d.head_dim);
        for b in 0..d.batch {
            for h in 0..d.heads {
                let (q, k, v) = head_offsets(&d, h);
                for t in 0..d.tokens {
                    let r = b * d.tokens + t;
                    let seen = d.seen(t);
                    let keys = seen.clone().map(|s| &qkv[(b * d.tokens + s) * width + k..][..dim]);
                    let (p, denominator) = probabilities(&qkv[r * width + q..][..dim], keys, (seen.start, h), &d);
                    lse[r * d.heads + h] = denominator as f32;
                    for i in 0..dim {
                        let values = seen.clone().map(|s| f64::from(qkv[(b * d.tokens + s) * width + v + i]));
                        let sum: f64 = p.iter().zip(values).map(|(p, v)| p * v).sum();
                        out[r * d.out_width() + h * dim + i] = sum as f32;
                    }
                }
            }
        }
    }
    fn attention_backward(
        &self,
        qkv: &Array,
        _: &Array,
        dout: &Array,
        lse: &Array,
        dqkv: &mut Array,
        d: AttentionDims,
    ) {
        let (width, dim) = (d.qkv_width(), d.head_dim);
        let scale = d.scale();
        let mut sums = vec![0.0f64; d.rows() * width];
        for b in 0..d.batch {
            for h in 0..d.heads {
                let (q, k, v) = head_offsets(&d, h);
                for t in 0..d.tokens {
                    let r = b * d.tokens + t;
                    let seen = d.seen(t);
                    let row = |s: usize| (b * d.tokens + s) * width;
                    let query = &qkv[r * width + q..][..dim];
                    let keys = seen.clone().map(|s| &qkv[row(s) + k..][..dim]);
                    let (mut p, own) = probabilities(query, keys, (seen.start, h), &d);
                    // Where something stands beside the scores, the denominator is another one.
                    let beside = (own - f64::from(lse[r * d.heads + h])).exp();
                    if d.scores.sinks {
                        p.iter_mut().for_each(|p| *p *= beside);
                    }
                    let go = &dout[r * d.out_width() + h * dim..][..dim];
                    let dp: Vec<f64> = seen.clone().map(|s| dot(go, &qkv[row(s) + v..][..dim])).collect();
                    let mean: f64 = p.iter().zip(&dp).map(|(p, g)| p * g).sum();
                    for ((s, p), dp) in seen.zip(p).zip(dp) {
                        let uncapped = dot(query, &qkv[row(s) + k..][..dim]) * scale;
                        let slope = |cap: f32| 1.0 - (uncapped / f64::from(cap)).tanh().powi(2);
                        let ds = p * (dp - mean) * d.scores.soft_cap.map_or(1.0, slope) * scale;
                        for i in 0..dim {
                            sums[row(s) + v + i] += p * f64::from(go[i]);
                            sums[row(s) + k + i] += ds * f64::from(qkv[r * width + q + i]);
                            sums[r * width + q + i] += ds * f64::from(qkv[row(s) + k + i]);
                        }
                    }
                }
            }
        }
        for (to, from) in dqkv.iter_mut().zip(&sums) {
            *to = *from as f32;
        }
    }

    fn cache_append(&self, qkv: &Array, cache: &mut Array, position: usize, d: AttentionDims, c: CacheDims) {
        embedding::cache_append(&rows_as_kept(qkv, d, c.element), cache, position, d, c);
    }
    fn attention_cached(
        &self,
        qkv: &Array,
        cache: &Array,
        out: &mut Array,
        mut lse: Option<&mut Array>,
        length: usize,
        d: AttentionDims,
        c: CacheDims,
    ) {
        let (dim, length) = (d.head_dim, length.min(c.capacity));
        for b in 0..d.batch {
            for h in 0..d.heads {
                let start = (b * d.kv_heads + h / (d.heads / d.kv_heads)) * c.capacity * dim;
                let query = &qkv[b * d.qkv_width() + h * dim..][..dim];
                let key = |s: usize| (0..dim).map(|i| cache[start + i * c.capacity + s]).collect::<Vec<f32>>();
                let keys: Vec<_> = (0..length).map(key).collect();
                let (p, log) = probabilities(query, keys.iter().map(Vec::as_slice), (0, h), &d);
                if let Some(lse) = lse.as_mut() {
                    lse[b * d.heads + h] = log as f32;
                }
                for i in 0..dim {
                    let sum: f64 = (0..length).map(|s| p[s] * f64::from(cache[c.half() + start + s * dim + i])).sum();
                    out[b * d.out_width() + h * dim + i] = sum as f32;
                }
            }
        }
    }

    fn dropout(&self, x: &mut Array, len: usize, d: Dropout) {
        dropout::apply(&mut x[..len], 0, &d);
    }

    fn cross_entropy(
        &self,
        x: &Array,
        w: &Array,
        targets: &[u32],
        mut gradients: Option<(&mut Array, &mut Array)>,
        cap: Option<f32>,
        d: LinearDims,
    ) -> Loss {
        let counted = targets.iter().filter(|&&t| t != IGNORED_TARGET).count().max(1) as f64;
        let mut total = 0.0;
        let mut dw = vec![0.0f64; if gradients.is_some() { d.m * d.k } else { 0 }];
        for r in 0..d.n {
            let row = &x[r * d.k..][..d.k];
            let logit = |o: usize| {
                let logit = dot(row, &w[o * d.k..][..d.k]);
                cap.map_or(logit, |cap| f64::from(cap) * (logit / f64::from(cap)).tanh())
            };
            let mut p: Vec<f64> = (0..d.m).map(logit).collect();
            let max = p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = p.iter().map(|l| (l - max).exp()).sum();
            let target = targets[r] as usize;
            let kept = targets[r] != IGNORED_TARGET;
            if kept {
                total += max + sum.ln() - p[target];
            }
            let Some((dx, _)) = gradients.as_mut() else { continue };
            for (o, l) in p.iter_mut().enumerate() {
                let hit = if o == target { 1.0 } else { 0.0 };
                let slope = cap.map_or(1.0, |cap| 1.0 - (*l / f64::from(cap)).powi(2));
                *l = if kept { ((*l - max).exp() / sum - hit) / counted * slope } else { 0.0 };
            }
            for i in 0..d.k {
                dx[r * d.k + i] = (0..d.m).map(|o| p[o] * f64::from(w[o * d.k + i])).sum::<f64>() as f32;
            }
            for o in 0..d.m {
                for i in 0..d.k {
                    dw[o * d.k + i] += p[o] * f64::from(row[i]);
                }
            }
        }
        if let Some((_, to)) = gradients {
            for (to, from) in to.iter_mut().zip(&dw) {
                *to = *from as f32;
            }
        }
        Loss::Known((total / counted) as f32)
    }
    fn mean_squared_error(&self, x: &Array, target: &Array, dx: Option<&mut Array>, len: usize) -> Loss {
        let n = len as f64;
        let difference = |i: usize| f64::from(x[i]) - f64::from(target[i]);
        if let Some(dx) = dx {
            for i in 0..len {
                dx[i] = (2.0 * difference(i) / n) as f32;
            }
        }
        Loss::Known(((0..len).map(|i| difference(i).powi(2)).sum::<f64>() / n) as f32)
    }
    fn last_rows(&self, x: &Array, out: &mut Array, batch: usize, tokens: usize, c: usize) {
        for b in 0..batch {
            out[b * c..][..c].copy_from_slice(&x[(b * tokens + tokens - 1) * c..][..c]);
        }
    }
    fn argmax(&self, x: &Array, n: usize, v: usize) -> Vec<u32> {
        (0..n).map(|r| embedding::largest(&x[r * v..][..v])).collect()
    }

    fn update(&self, u: &Update, step: u32, clip: Option<Clipping<'_, Array>>, one: Updated<'_, Array>) {
        let (parameter, gradient) = (&mut one.parameter[one.part.clone()], &one.gradient[one.part]);
        let (b1, b2) = (f64::from(u.beta1), f64::from(u.beta2));
        let (lr, eps) = (f64::from(u.learning_rate), f64::from(u.eps));
        let (c1, c2) = (1.0 - b1.powi(step as i32), 1.0 - b2.powi(step as i32));
        let factor = clip.map_or(1.0, |clip| clip.factor(clip.squares[0]));
        let (mut no_first, mut no_second) = (Array::small(0), Array::small(0));
        let (first, second) = (one.first.unwrap_or(&mut no_first), one.second.unwrap_or(&mut no_second));
        for i in 0..parameter.len() {
            let (mut p, g) = (f64::from(parameter[i]), f64::from(gradient[i] * factor));
            match u.kind {
                OptimizerKind::Sgd if u.momentum != 0.0 => {
                    first[i] = (f64::from(u.momentum) * f64::from(first[i]) + g) as f32;
                    p -= lr * f64::from(first[i]);
                }
                OptimizerKind::Sgd => p -= lr * g,
                OptimizerKind::Adam | OptimizerKind::Adamw => {
                    if u.kind == OptimizerKind::Adamw {
                        p -= lr * f64::from(u.weight_decay) * p;
                    }
                    first[i] = (b1 * f64::from(first[i]) + (1.0 - b1) * g) as f32;
                    second[i] = (b2 * f64::from(second[i]) + (1.0 - b2) * g * g) as f32;
                    let (m, v) = (f64::from(first[i]), f64::from(second[i]));
                    p -= if u.eps_before_correction {
                        lr * c2.sqrt() / c1 * m / (v.sqrt() + eps)
                    } else {
                        lr * (m / c1) / ((v / c2).sqrt() + eps)
                    };
                }
                OptimizerKind::Adamax => {
                    first[i] = (b1 * f64::from(first[i]) + (1.0 - b1) * g) as f32;
                    second[i] = (b2 * f64::from(second[i])).max(g.abs() + eps) as f32;
                    p -= lr / c1 * f64::from(first[i]) / f64::from(second[i]);
                }
            }
            parameter[i] = p as f32;
        }
    }
}
