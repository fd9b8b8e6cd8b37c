//! RMSNorm of queries and keys, of every head or of all together, where they lie in the rows of queries, keys and values.

use super::super::backend::QkNormDims;
use super::instructions::vectorised;
use super::math::squared_distance;
use super::pool::{Pool, reading, writing};

pub(super) fn forward(
    pool: &Pool,
    qkv: &mut [f32],
    gains: [&[f32]; 2],
    kept: Option<(&mut [f32], &mut [f32])>,
    d: QkNormDims,
    over: Option<OverRanks<'_>>,
) {
    let (n, row, width, count) = (d.of.rows(), d.of.qkv_width(), d.width(), d.count());
    let rows = pool.share(n, 4);
    let norm = |number: usize, row: &mut [f32], mut stats: Option<&mut [f32]>| {
        for (i, (at, len, of_keys)) in d.stretches().enumerate() {
            let square = over.map(|o| o.mean(number, of_keys, len));
            let rstd = norm_stretch(&mut row[at..at + len], &gains[usize::from(of_keys)][..len], square, &d);
            if let Some(stats) = &mut stats {
                stats[i] = rstd;
            }
        }
    };
    let qkv = writing(&mut qkv[..n * row], rows * row);
    match kept {
        None => pool.over(qkv, |part, qkv| {
            qkv.chunks_exact_mut(row).enumerate().for_each(|(r, row)| norm(part * rows + r, row, None));
        }),
        Some((x, stats)) => {
            let kept = (writing(&mut x[..n * width], rows * width), writing(&mut stats[..n * count], rows * count));
            pool.over((qkv, kept), |part, (qkv, (x, stats))| {
                let kept = x.chunks_exact_mut(width).zip(stats.chunks_exact_mut(count));
                for (r, (row, (x, stats))) in qkv.chunks_exact_mut(row).zip(kept).enumerate() {
                    x.copy_from_slice(&row[..width]);
                    norm(part * rows + r, row, Some(stats));
                }
            });
        }
    }
}

/// Sums over the heads of all ranks, `[N, 2]`.
#[derive(Clone, Copy)]
pub(super) struct OverRanks<'a> {
    pub sums: &'a [f32],
    pub ranks: usize,
}

impl OverRanks<'_> {
    /// A row's mean, of which this rank has `len` elements.
    fn mean(&self, row: usize, of_keys: bool, len: usize) -> f32 {
        self.sums[2 * row + usize::from(of_keys)] / (len * self.ranks) as f32
    }
}

/// The sums of squares of this rank's queries and of its keys, `[N, 2]`.
pub(super) fn squares(pool: &Pool, qkv: &[f32], sums: &mut [f32], d: QkNormDims) {
    let (n, row) = (d.of.rows(), d.of.qkv_width());
    let rows = pool.share(n, 4);
    pool.over((writing(&mut sums[..2 * n], 2 * rows), reading(&qkv[..n * row], rows * row)), |_, (sums, qkv)| {
        for (sums, row) in sums.chunks_exact_mut(2).zip(qkv.chunks_exact(row)) {
            for (sum, (at, len, _)) in sums.iter_mut().zip(d.stretches()) {
                let stretch = &row[at..at + len];
                *sum = vectorised(
                    #[inline(always)]
                    || squared_distance(stretch, 0.0),
                );
            }
        }
    });
}

/// The sums of gradients of what is normed, along it, of this rank's queries and of its keys, `[N, 2]`.
pub(super) fn along(pool: &Pool, s: SavedQkNorm, dqkv: &[f32], sums: &mut [f32], d: QkNormDims) {
    let (n, row, width) = (d.of.rows(), d.of.qkv_width(), d.width());
    let rows = pool.share(n, 4);
    pool.over(writing(&mut sums[..2 * n], 2 * rows), |part, sums| {
        for (r, sums) in sums.chunks_exact_mut(2).enumerate() {
            let r = part * rows + r;
            for (i, (at, len, of_keys)) in d.stretches().enumerate() {
                let (dout, x) = (&dqkv[r * row + at..][..len], &s.x[r * width + at..][..len]);
                let gain = &s.gains[usize::from(of_keys)][..len];
                sums[i] = vectorised(
                    #[inline(always)]
                    || stretch_along(x, gain, s.stats[2 * r + i], dout, d.gain_offset),
                );
            }
        }
    });
}

#[inline(always)]
fn stretch_along(x: &[f32], gain: &[f32], rstd: f32, dout: &[f32], offset: f32) -> f32 {
    let all = x.iter().zip(gain).zip(dout);
    all.map(|((x, gain), dout)| dout * (gain + offset) * (x * rstd)).sum()
}

/// Norms a stretch in place and gives the reciprocal root of its mean square, or of `square`.
fn norm_stretch(x: &mut [f32], gains: &[f32], square: Option<f32>, d: &QkNormDims) -> f32 {
    vectorised(
        #[inline(always)]
        || {
            let square = square.unwrap_or_else(|| squared_distance(x, 0.0) / x.len() as f32);
            let rstd = 1.0 / (square + d.eps).sqrt();
            x.iter_mut().zip(gains).for_each(|(x, g)| *x *= rstd * (g + d.gain_offset));
            rstd
        },
    )
}

/// What the backward pass reads.
#[derive(Clone, Copy)]
pub(super) struct SavedQkNorm<'a> {
    pub x: &'a [f32],
    pub stats: &'a [f32],
    pub gains: [&'a [f32]; 2],
}

pub(super) fn backward(
    pool: &Pool,
    s: SavedQkNorm,
    dqkv: &mut [f32],
    dgains: [&mut [f32]; 2],
    d: QkNormDims,
    over: Option<OverRanks<'_>>,
) {
    let (n, row, width, count) = (d.of.rows(), d.of.qkv_width(), d.width(), d.count());
    let [of_queries, of_keys] = d.gains();
    let gains = of_queries + of_keys;
    let rows = pool.share(n, 4);
    // A thread sums its own rows' part of the gains' gradients, and the parts are added at the end.
    let mut sums = pool.scratch(n.div_ceil(rows) * gains);
    sums.fill(0.0);
    let saved = (reading(&s.x[..n * width], rows * width), reading(&s.stats[..n * count], rows * count));
    let parts = ((writing(&mut dqkv[..n * row], rows * row), writing(&mut sums, gains)), saved);
    pool.over(parts, |part, ((dqkv, sums), (x, stats))| {
        let (of_q, of_k) = sums.split_at_mut(of_queries);
        let saved = x.chunks_exact(width).zip(stats.chunks_exact(count));
        for (r, (dout, (x, stats))) in dqkv.chunks_exact_mut(row).zip(saved).enumerate() {
            for ((at, len, of_keys), rstd) in d.stretches().zip(stats) {
                let sums = if of_keys { &mut *of_k } else { &mut *of_q };
                let gain = &s.gains[usize::from(of_keys)][..len];
                let along = over.map(|o| o.mean(part * rows + r, of_keys, len));
                stretch_backward(&x[at..at + len], gain, *rstd, (&mut dout[at..at + len], along), sums, d.gain_offset);
            }
        }
    });
    let [of_q, of_k] = dgains;
    let total = |at: usize| sums.chunks_exact(gains).map(|part| part[at]).sum::<f32>();
    of_q[..of_queries].iter_mut().enumerate().for_each(|(i, g)| *g = total(i));
    of_k[..of_keys].iter_mut().enumerate().for_each(|(i, g)| *g = total(of_queries + i));
}

/// `dout` becomes the gradient of `x`; `sums` gains that of the gain. The mean along `x` is this stretch's, or `given`.
fn stretch_backward(
    x: &[f32],
    gain: &[f32],
    rstd: f32,
    (dout, given): (&mut [f32], Option<f32>),
    sums: &mut [f32],
    offset: f32,
) {
    vectorised(
        #[inline(always)]
        || {
            let len = x.len();
            let (gain, dout, sums) = (&gain[..len], &mut dout[..len], &mut sums[..len]);
            let mut along = 0.0;
            for i in 0..len {
                let hat = x[i] * rstd;
                sums[i] += dout[i] * hat;
                along += dout[i] * (gain[i] + offset) * hat;
            }
            let along = given.unwrap_or(along / len as f32);
            for i in 0..len {
                dout[i] = rstd * (dout[i] * (gain[i] + offset) - x[i] * rstd * along);
            }
        },
    );
}
