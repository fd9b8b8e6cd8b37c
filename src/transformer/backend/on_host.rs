//! Operations that a backend without kernels for them does on the host: read back, computed in f64 as the formula reads, written. The
//! oracle has them so; for a device they are right and slow, and a workload that needs them is refused there.

use super::experts::{ExpertDims, Experts, ExpertsBackward};
use super::split::OwnHeads;
use super::{AttentionDims, Backend, QkNormDims, Store, Stretch};
use crate::transformer::shape::{Routing, Scoring};
use std::ops::Range;

pub(super) fn read<B: Backend + ?Sized>(on: &B, from: &B::Buffer, len: usize) -> Vec<f32> {
    let mut host = vec![0.0; len];
    on.download(from, 0, &mut host);
    host
}

pub(super) fn write<B: Backend + ?Sized>(on: &B, sums: Vec<f64>, to: &mut B::Buffer) {
    on.upload(&sums.into_iter().map(|s| s as f32).collect::<Vec<_>>(), to);
}

/// `x[i] = f(x[i])` for the first `len` elements.
pub(super) fn map<B: Backend + ?Sized>(on: &B, x: &mut B::Buffer, len: usize, f: impl Fn(f32) -> f32) {
    let mut host = read(on, x, len);
    host.iter_mut().for_each(|x| *x = f(*x));
    on.upload(&host, x);
}

/// `Parts::put`
pub(super) fn put<B: Backend + ?Sized>(on: &B, from: &B::Buffer, to: &mut B::Buffer, d: Stretch, into: Store) {
    let mut more = vec![0.0; d.len];
    on.download(from, d.from, &mut more);
    let mut host = read(on, to, d.to + d.len);
    let old = host[d.to..].iter_mut().zip(more);
    old.for_each(|(old, more)| *old = if into == Store::Accumulate { *old + more } else { more });
    on.upload(&host, to);
}

/// `Parts::sum_rows`, and of one row each `Parts::take_rows`
pub(super) fn sum_rows<B: Backend + ?Sized>(
    on: &B,
    from: &B::Buffer,
    to: &mut B::Buffer,
    rows: &[usize],
    (each, width): (usize, usize),
) {
    let from = read(on, from, rows.iter().max().map_or(0, |last| (last + 1) * width));
    let mut sums = vec![0.0f64; rows.len() / each * width];
    for (i, row) in rows.iter().enumerate() {
        let to = &mut sums[i / each * width..][..width];
        to.iter_mut().zip(&from[row * width..][..width]).for_each(|(to, x)| *to += f64::from(*x));
    }
    write(on, sums, to);
}

/// `Parts::squares`
pub(super) fn squares<B: Backend + ?Sized>(on: &B, of: &[(&B::Buffer, Range<usize>)], to: &mut B::Buffer) {
    let one = |(x, part): &(&B::Buffer, Range<usize>)| {
        let mut host = vec![0.0; part.len()];
        on.download(x, part.start, &mut host);
        dot(&host, &host)
    };
    let sum: f64 = of.iter().map(one).sum();
    write(on, vec![sum], to);
}

/// `Parts::qk_norm`
pub(in crate::transformer) fn qk_norm<B: Backend + ?Sized>(
    on: &B,
    qkv: &mut B::Buffer,
    gains: [&B::Buffer; 2],
    kept: Option<(&mut B::Buffer, &mut B::Buffer)>,
    d: QkNormDims,
    own: Option<OwnHeads<'_, B::Buffer>>,
) {
    let (n, width, row) = (d.of.rows(), d.width(), d.of.qkv_width());
    let gains = host_gains(on, gains, d);
    let mut host = read(on, qkv, n * row);
    let means = means(on, d, own, |r, (at, len, _)| {
        let stretch = &host[r * row + at..][..len];
        dot(stretch, stretch)
    });
    let (mut x, mut stats) = (vec![0.0f32; n * width], vec![0.0f32; n * d.count()]);
    for r in 0..n {
        x[r * width..][..width].copy_from_slice(&host[r * row..][..width]);
        for (i, (at, len, of_keys)) in d.stretches().enumerate() {
            let stretch = &mut host[r * row + at..][..len];
            let rstd = 1.0 / (means[r * d.count() + i] + f64::from(d.eps)).sqrt();
            stats[r * d.count() + i] = rstd as f32;
            let gains = &gains[usize::from(of_keys)];
            stretch.iter_mut().zip(gains).for_each(|(x, g)| *x = (f64::from(*x) * rstd * g) as f32);
        }
    }
    on.upload(&host, qkv);
    if let Some((before, of_stats)) = kept {
        on.upload(&x, before);
        on.upload(&stats, of_stats);
    }
}

/// `Parts::qk_norm_backward`
pub(in crate::transformer) fn qk_norm_backward<B: Backend + ?Sized>(
    on: &B,
    (x, stats): (&B::Buffer, &B::Buffer),
    gains: [&B::Buffer; 2],
    dqkv: &mut B::Buffer,
    dgains: [&mut B::Buffer; 2],
    (d, own): (QkNormDims, Option<OwnHeads<'_, B::Buffer>>),
) {
    let (n, width, row) = (d.of.rows(), d.width(), d.of.qkv_width());
    let (x, stats) = (read(on, x, n * width), read(on, stats, n * d.count()));
    let gains = host_gains(on, gains, d);
    let mut host = read(on, dqkv, n * row);
    let mut of_gains = gains.each_ref().map(|g| vec![0.0f64; g.len()]);
    let hat = |r: usize, i: usize, at: usize| f64::from(x[r * width + at]) * f64::from(stats[r * d.count() + i]);
    let means = means(on, d, own, |r, (at, len, of_keys)| {
        let gains = &gains[usize::from(of_keys)];
        let i = if d.whole { usize::from(of_keys) } else { at / d.of.head_dim };
        (0..len).map(|j| f64::from(host[r * row + at + j]) * gains[j] * hat(r, i, at + j)).sum()
    });
    for r in 0..n {
        for (i, (at, len, of_keys)) in d.stretches().enumerate() {
            let rstd = f64::from(stats[r * d.count() + i]);
            let (gains, sums) = (&gains[usize::from(of_keys)], &mut of_gains[usize::from(of_keys)]);
            let dout = &mut host[r * row + at..][..len];
            let along = means[r * d.count() + i];
            for j in 0..len {
                let hat = hat(r, i, at + j);
                sums[j] += f64::from(dout[j]) * hat;
                dout[j] = (rstd * (f64::from(dout[j]) * gains[j] - hat * along)) as f32;
            }
        }
    }
    on.upload(&host, dqkv);
    for (to, sums) in dgains.into_iter().zip(of_gains) {
        write(on, sums, to);
    }
}

/// The means of what `sum` has of each row's stretches: over all ranks' heads, where each has some.
fn means<B: Backend + ?Sized>(
    on: &B,
    d: QkNormDims,
    own: Option<OwnHeads<'_, B::Buffer>>,
    sum: impl Fn(usize, (usize, usize, bool)) -> f64,
) -> Vec<f64> {
    let stretches = || (0..d.of.rows()).flat_map(|r| d.stretches().map(move |stretch| (r, stretch)));
    let sums = stretches().map(|(r, stretch)| sum(r, stretch));
    let Some(OwnHeads { ranks, sums: room, over_sums }) = own else {
        return sums.zip(stretches()).map(|(sum, (_, (_, len, _)))| sum / len as f64).collect();
    };
    on.upload(&sums.map(|s| s as f32).collect::<Vec<f32>>(), room);
    over_sums(room);
    let all = read(on, room, d.of.rows() * d.count()).into_iter();
    all.zip(stretches()).map(|(sum, (_, (_, len, _)))| f64::from(sum) / (len * ranks) as f64).collect()
}

/// The gains of queries and of keys.
fn host_gains<B: Backend + ?Sized>(on: &B, gains: [&B::Buffer; 2], d: QkNormDims) -> [Vec<f64>; 2] {
    let ([q, k], [of_q, of_k]) = (gains, d.gains());
    [(q, of_q), (k, of_k)]
        .map(|(gain, len)| read(on, gain, len).into_iter().map(|g| f64::from(g) + f64::from(d.gain_offset)).collect())
}

/// What a row of logits says of each expert.
fn scores_of(logits: &[f32], by: Routing) -> Vec<f64> {
    let logits = logits.iter().map(|l| f64::from(*l));
    match by.scoring {
        Scoring::Sigmoid => logits.map(|l| 1.0 / (1.0 + (-l).exp())).collect(),
        Scoring::Softmax => {
            let max = logits.clone().fold(f64::NEG_INFINITY, f64::max);
            let exp: Vec<f64> = logits.map(|l| (l - max).exp()).collect();
            let total: f64 = exp.iter().sum();
            exp.into_iter().map(|e| e / total).collect()
        }
    }
}

/// The first so many of all, the largest first, the first of equals.
fn largest(of: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..of.len()).collect();
    order.sort_by(|a, b| of[*b].total_cmp(&of[*a]).then(a.cmp(b)));
    order.truncate(count);
    order
}

/// The experts chosen by these numbers, from the groups that are chosen first.
fn chosen_by(mut keys: Vec<f64>, d: ExpertDims, by: Routing) -> Vec<usize> {
    let each = d.experts / by.groups as usize;
    let best = |group: &[f64]| {
        let two = largest(group, if by.corrected { 2 } else { 1 });
        two.iter().map(|e| group[*e]).sum::<f64>()
    };
    let groups = largest(&keys.chunks_exact(each).map(best).collect::<Vec<_>>(), by.groups_per_token as usize);
    let out = |e: usize| !groups.contains(&(e / each));
    keys.iter_mut().enumerate().filter(|(e, _)| out(*e)).for_each(|(_, key)| *key = f64::NEG_INFINITY);
    largest(&keys, d.per_token)
}

/// `Parts::route_by`
pub(super) fn route<B: Backend + ?Sized>(
    on: &B,
    logits: &B::Buffer,
    correction: Option<&B::Buffer>,
    (chosen, weights): (&mut B::Buffer, &mut B::Buffer),
    d: ExpertDims,
    by: Routing,
) {
    let logits = read(on, logits, d.n * d.experts);
    let correction = correction.map_or(vec![0.0; d.experts], |c| read(on, c, d.experts));
    let (mut all, mut of) = (Vec::new(), Vec::new());
    for row in logits.chunks_exact(d.experts) {
        let scores = scores_of(row, by);
        // The softmax's order is that of the logits, which have fewer equals.
        let keys = match (by.scoring, by.corrected) {
            (Scoring::Softmax, false) => row.iter().map(|l| f64::from(*l)).collect(),
            _ => scores.iter().zip(&correction).map(|(s, c)| s + f64::from(*c)).collect(),
        };
        let experts = chosen_by(keys, d, by);
        let sum = if d.normalised { experts.iter().map(|e| scores[*e]).sum::<f64>() } else { 1.0 };
        of.extend(experts.iter().map(|e| (scores[*e] / sum * f64::from(by.scale)) as f32));
        all.extend(experts.iter().map(|e| *e as u32));
    }
    on.put_tokens(&all, chosen);
    on.upload(&of, weights);
}

/// `Parts::route_by_backward`, of `[logits, chosen, dweights]`.
pub(super) fn route_backward<B: Backend + ?Sized>(
    on: &B,
    [logits, chosen, dweights]: [&B::Buffer; 3],
    dlogits: &mut B::Buffer,
    d: ExpertDims,
    by: Routing,
) {
    let (logits, dweights) = (read(on, logits, d.n * d.experts), read(on, dweights, d.rows()));
    let chosen = on.tokens(chosen, d.rows());
    let mut all = vec![0.0f32; d.n * d.experts];
    for (r, to) in all.chunks_exact_mut(d.experts).enumerate() {
        let p = scores_of(&logits[r * d.experts..][..d.experts], by);
        let gradient = |i: usize| f64::from(dweights[i]) * f64::from(by.scale);
        let of_token = || (r * d.per_token..(r + 1) * d.per_token).map(|i| (chosen[i] as usize, gradient(i)));
        let sum = if d.normalised { of_token().map(|(e, _)| p[e]).sum::<f64>() } else { 1.0 };
        let mean: f64 = of_token().map(|(e, g)| p[e] / sum * g).sum();
        match (by.scoring, d.normalised) {
            // Over the chosen alone where their weights add up to 1; else what is taken from one goes to all experts.
            (Scoring::Softmax, true) => of_token().for_each(|(e, g)| to[e] = (p[e] / sum * (g - mean)) as f32),
            (Scoring::Softmax, false) => {
                to.iter_mut().zip(&p).for_each(|(to, p)| *to = (-p * mean) as f32);
                of_token().for_each(|(e, g)| to[e] = (p[e] * (g - mean)) as f32);
            }
            // Each by itself, but for what the others lose by the sum.
            (Scoring::Sigmoid, normalised) => {
                let others = if normalised { mean } else { 0.0 };
                of_token().for_each(|(e, g)| to[e] = (p[e] / sum * (1.0 - p[e]) * (g - others)) as f32);
            }
        }
    }
    on.upload(&all, dlogits);
}

/// The biases of a layer's experts, zero where there are none.
fn host_biases<B: Backend + ?Sized>(on: &B, of: &Experts<'_, B::Buffer>, inner: usize) -> [Vec<f32>; 2] {
    let [up, down] = of.biases;
    let read = |bias: Option<&B::Buffer>, len: usize| bias.map_or_else(|| vec![0.0; len], |b| self::read(on, b, len));
    [read(up, of.d.experts * inner), read(down, of.d.experts * of.d.c)]
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// `Parts::experts`; rows are in the order of the tokens.
pub(super) fn experts<B: Backend + ?Sized>(
    on: &B,
    x: &B::Buffer,
    of: &Experts<'_, B::Buffer>,
    pre: &mut B::Buffer,
    act: &mut B::Buffer,
    out: &mut B::Buffer,
) {
    let (d, inner) = (of.d, of.d.kind.inner(of.d.f));
    let (x, chosen, weights) = (read(on, x, d.n * d.c), on.tokens(of.chosen, d.rows()), read(on, of.weights, d.rows()));
    let (up, down) = (read(on, of.up, d.experts * inner * d.c), read(on, of.down, d.experts * d.c * d.f));
    let [of_up, of_down] = host_biases(on, of, inner);
    let mut hidden = Vec::with_capacity(d.rows() * inner);
    for (i, e) in chosen.iter().enumerate() {
        let row = &x[i / d.per_token * d.c..][..d.c];
        let rows = up[*e as usize * inner * d.c..][..inner * d.c].chunks_exact(d.c).zip(&of_up[*e as usize * inner..]);
        hidden.extend(rows.map(|(w, b)| (dot(row, w) + f64::from(*b)) as f32));
    }
    on.upload(&hidden, pre);
    on.activation(d.kind, pre, act, d.rows(), d.f);
    let act = read(on, act, d.rows() * d.f);
    let mut sums = vec![0.0f64; d.n * d.c];
    for (i, (e, by)) in chosen.iter().zip(&weights).enumerate() {
        let rows = down[*e as usize * d.c * d.f..][..d.c * d.f].chunks_exact(d.f).zip(&of_down[*e as usize * d.c..]);
        let (act, to) = (&act[i * d.f..][..d.f], &mut sums[i / d.per_token * d.c..][..d.c]);
        to.iter_mut().zip(rows).for_each(|(to, (w, b))| *to += f64::from(*by) * (dot(act, w) + f64::from(*b)));
    }
    on.upload(&sums.into_iter().map(|s| s as f32).collect::<Vec<_>>(), out);
}

/// `Parts::experts_backward`
pub(super) fn experts_backward<B: Backend + ?Sized>(
    on: &B,
    x: &B::Buffer,
    of: &Experts<'_, B::Buffer>,
    dout: &B::Buffer,
    to: ExpertsBackward<'_, B::Buffer>,
) {
    let (d, inner) = (of.d, of.d.kind.inner(of.d.f));
    let (x, dout) = (read(on, x, d.n * d.c), read(on, dout, d.n * d.c));
    let (chosen, weights) = (on.tokens(of.chosen, d.rows()), read(on, of.weights, d.rows()));
    let (up, down) = (read(on, of.up, d.experts * inner * d.c), read(on, of.down, d.experts * d.c * d.f));
    on.activation(d.kind, to.pre, to.act, d.rows(), d.f);
    let act = read(on, to.act, d.rows() * d.f);
    let [_, of_down] = host_biases(on, of, inner);
    let (mut ddown, mut dact, mut dweights) = (vec![0.0f64; down.len()], vec![0.0f32; act.len()], Vec::new());
    let mut dbiases = [vec![0.0f64; d.experts * inner], vec![0.0f64; d.experts * d.c]];
    for (i, (e, by)) in chosen.iter().zip(&weights).enumerate() {
        let (g, act) = (&dout[i / d.per_token * d.c..][..d.c], &act[i * d.f..][..d.f]);
        let first = *e as usize * d.c * d.f;
        let along = (0..d.f)
            .map(|j| g.iter().enumerate().map(|(o, g)| f64::from(*g) * f64::from(down[first + o * d.f + j])).sum());
        let along: Vec<f64> = along.collect();
        let said = along.iter().zip(act).map(|(g, a)| g * f64::from(*a)).sum::<f64>();
        dweights.push((said + dot(g, &of_down[*e as usize * d.c..][..d.c])) as f32);
        let of_bias = &mut dbiases[1][*e as usize * d.c..][..d.c];
        of_bias.iter_mut().zip(g).for_each(|(to, g)| *to += f64::from(*by) * f64::from(*g));
        dact[i * d.f..][..d.f].iter_mut().zip(&along).for_each(|(to, g)| *to = (f64::from(*by) * g) as f32);
        for (o, g) in g.iter().enumerate() {
            let row = &mut ddown[first + o * d.f..][..d.f];
            row.iter_mut().zip(act).for_each(|(to, a)| *to += f64::from(*by) * f64::from(*g) * f64::from(*a));
        }
    }
    on.upload(&dact, to.act);
    on.activation_backward(d.kind, to.pre, to.act, d.rows(), d.f);
    let dpre = read(on, to.pre, d.rows() * inner);
    let (mut dup, mut dx) = (vec![0.0f64; up.len()], vec![0.0f64; d.n * d.c]);
    for (i, e) in chosen.iter().enumerate() {
        let (row, first) = (i / d.per_token * d.c, *e as usize * inner * d.c);
        for (o, g) in dpre[i * inner..][..inner].iter().enumerate() {
            let at = first + o * d.c;
            dbiases[0][*e as usize * inner + o] += f64::from(*g);
            for j in 0..d.c {
                dup[at + j] += f64::from(*g) * f64::from(x[row + j]);
                dx[row + j] += f64::from(*g) * f64::from(up[at + j]);
            }
        }
    }
    let of_biases = to.dbiases.into_iter().flat_map(|to| dbiases.clone().into_iter().zip(to));
    for (sums, buffer) in [(ddown, to.ddown), (dup, to.dup), (dx, to.dx)].into_iter().chain(of_biases) {
        write(on, sums, buffer);
    }
    on.upload(&dweights, to.dweights);
}

/// `Parts::sinks`
pub(super) fn sinks<B: Backend + ?Sized>(
    on: &B,
    sinks: &B::Buffer,
    out: &mut B::Buffer,
    lse: &mut B::Buffer,
    d: AttentionDims,
) {
    let (sinks, mut logs) = (read(on, sinks, d.heads), read(on, lse, d.rows() * d.heads));
    let mut host = read(on, out, d.rows() * d.out_width());
    for (i, (head, log)) in host.chunks_exact_mut(d.head_dim).zip(&mut logs).enumerate() {
        let (sink, own) = (f64::from(sinks[i % d.heads]), f64::from(*log));
        let both = own.max(sink) + (-(own - sink).abs()).exp().ln_1p();
        head.iter_mut().for_each(|x| *x = (f64::from(*x) * (own - both).exp()) as f32);
        *log = both as f32;
    }
    on.upload(&host, out);
    on.upload(&logs, lse);
}

/// `Parts::sinks_backward`, of `[sinks, out, dout, lse]`: a sink weighs exp(sink - lse), and what the
/// others say of the result grows as it shrinks.
pub(super) fn sinks_backward<B: Backend + ?Sized>(
    on: &B,
    [sinks, out, dout, lse]: [&B::Buffer; 4],
    dsinks: &mut B::Buffer,
    d: AttentionDims,
) {
    let (sinks, logs) = (read(on, sinks, d.heads), read(on, lse, d.rows() * d.heads));
    let [out, dout] = [out, dout].map(|b| read(on, b, d.rows() * d.out_width()));
    let mut sums = vec![0.0f64; d.heads];
    let heads = out.chunks_exact(d.head_dim).zip(dout.chunks_exact(d.head_dim));
    for (i, ((out, dout), log)) in heads.zip(&logs).enumerate() {
        let h = i % d.heads;
        sums[h] -= (f64::from(sinks[h]) - f64::from(*log)).exp() * dot(out, dout);
    }
    write(on, sums, dsinks);
}
