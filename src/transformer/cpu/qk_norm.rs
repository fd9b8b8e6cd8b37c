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
) {
    let (n, row, width, count) = (d.of.rows(), d.of.qkv_width(), d.width(), d.count());
    let rows = pool.share(n, 4);
    let norm = |row: &mut [f32], mut stats: Option<&mut [f32]>| {
        for (i, (at, len, of_keys)) in d.stretches().enumerate() {
            let rstd = norm_stretch(&mut row[at..at + len], &gains[usize::from(of_keys)][..len], &d);
            if let Some(stats) = &mut stats {
                stats[i] = rstd;
            }
        }
    };
    let qkv = writing(&mut qkv[..n * row], rows * row);
    match kept {
        None => pool.over(qkv, |_, qkv| qkv.chunks_exact_mut(row).for_each(|row| norm(row, None))),
        Some((x, stats)) => {
            let kept = (writing(&mut x[..n * width], rows * width), writing(&mut stats[..n * count], rows * count));
            pool.over((qkv, kept), |_, (qkv, (x, stats))| {
                let kept = x.chunks_exact_mut(width).zip(stats.chunks_exact_mut(count));
                for (row, (x, stats)) in qkv.chunks_exact_mut(row).zip(kept) {
                    x.copy_from_slice(&row[..width]);
                    norm(row, Some(stats));
                }
            });
        }
    }
}

/// Norms a stretch in place and gives the reciprocal root of its mean square.
fn norm_stretch(x: &mut [f32], gains: &[f32], d: &QkNormDims) -> f32 {
    vectorised(
        #[inline(always)]
        || {
            let rstd = 1.0 / (squared_distance(x, 0.0) / x.len() as f32 + d.eps).sqrt();
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

pub(super) fn backward(pool: &Pool, s: SavedQkNorm, dqkv: &mut [f32], dgains: [&mut [f32]; 2], d: QkNormDims) {
    let (n, row, width, count) = (d.of.rows(), d.of.qkv_width(), d.width(), d.count());
    let [of_queries, of_keys] = d.gains();
    let gains = of_queries + of_keys;
    let rows = pool.share(n, 4);
    // A thread sums its own rows' part of the gains' gradients, and the parts are added at the end.
    let mut sums = pool.scratch(n.div_ceil(rows) * gains);
    sums.fill(0.0);
    let saved = (reading(&s.x[..n * width], rows * width), reading(&s.stats[..n * count], rows * count));
    let parts = ((writing(&mut dqkv[..n * row], rows * row), writing(&mut sums, gains)), saved);
    pool.over(parts, |_, ((dqkv, sums), (x, stats))| {
        let (of_q, of_k) = sums.split_at_mut(of_queries);
        let saved = x.chunks_exact(width).zip(stats.chunks_exact(count));
        for (dout, (x, stats)) in dqkv.chunks_exact_mut(row).zip(saved) {
            for ((at, len, of_keys), rstd) in d.stretches().zip(stats) {
                let sums = if of_keys { &mut *of_k } else { &mut *of_q };
                let gain = &s.gains[usize::from(of_keys)][..len];
                stretch_backward(&x[at..at + len], gain, *rstd, &mut dout[at..at + len], sums, d.gain_offset);
            }
        }
    });
    let [of_q, of_k] = dgains;
    let total = |at: usize| sums.chunks_exact(gains).map(|part| part[at]).sum::<f32>();
    of_q[..of_queries].iter_mut().enumerate().for_each(|(i, g)| *g = total(i));
    of_k[..of_keys].iter_mut().enumerate().for_each(|(i, g)| *g = total(of_queries + i));
}

/// `dout` becomes the gradient of `x`; `sums` gains that of the gain.
fn stretch_backward(x: &[f32], gain: &[f32], rstd: f32, dout: &mut [f32], sums: &mut [f32], offset: f32) {
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
            let along = along / len as f32;
            for i in 0..len {
                dout[i] = rstd * (dout[i] * (gain[i] + offset) - x[i] * rstd * along);
            }
        },
    );
}
