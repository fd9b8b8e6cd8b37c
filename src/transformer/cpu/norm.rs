//! LayerNorm and RMSNorm, forward and backward, a row at a time.

use super::super::backend::NormDims;
use super::instructions::vectorised;
use super::math::{dot, squared_distance, sum};
use super::pool::{Pool, reading, writing};

pub(super) fn forward(
    pool: &Pool,
    x: &[f32],
    gain: &[f32],
    bias: Option<&[f32]>,
    out: &mut [f32],
    stats: &mut [f32],
    d: NormDims,
) {
    let rows = pool.share(d.n, 4);
    let parts = (
        writing(&mut out[..d.n * d.c], rows * d.c),
        writing(&mut stats[..2 * d.n], rows * 2),
        reading(&x[..d.n * d.c], rows * d.c),
    );
    pool.over(parts, |_, (out, stats, x)| {
        vectorised(
            #[inline(always)]
            || {
                for ((out, stats), x) in
                    out.chunks_exact_mut(d.c).zip(stats.chunks_exact_mut(2)).zip(x.chunks_exact(d.c))
                {
                    row(x, gain, bias, out, stats, &d);
                }
            },
        );
    });
}

#[inline(always)]
fn row(x: &[f32], gain: &[f32], bias: Option<&[f32]>, out: &mut [f32], stats: &mut [f32], d: &NormDims) {
    let c = d.c as f32;
    let mean = if d.rms { 0.0 } else { sum(x) / c };
    let rstd = 1.0 / (squared_distance(x, mean) / c + d.eps).sqrt();
    let gain = &gain[..x.len()];
    match bias {
        Some(bias) => {
            let bias = &bias[..x.len()];
            for (i, out) in out.iter_mut().enumerate() {
                *out = (x[i] - mean) * rstd * (gain[i] + d.gain_offset) + bias[i];
            }
        }
        None => {
            for (i, out) in out.iter_mut().enumerate() {
                *out = (x[i] - mean) * rstd * (gain[i] + d.gain_offset);
            }
        }
    }
    stats[0] = mean;
    stats[1] = rstd;
}

/// What the backward pass reads.
#[derive(Clone, Copy)]
pub(super) struct SavedNorm<'a> {
    pub x: &'a [f32],
    pub gain: &'a [f32],
    pub stats: &'a [f32],
    pub dout: &'a [f32],
}

pub(super) fn backward(
    pool: &Pool,
    s: SavedNorm,
    dx: &mut [f32],
    dgain: &mut [f32],
    dbias: Option<&mut [f32]>,
    d: NormDims,
) {
    let rows = pool.share(d.n, 4);
    let parts = d.n.div_ceil(rows);
    // Gains and biases are summed over rows: a thread sums its own, and the parts are added at the end.
    let mut sums = pool.scratch(parts * 2 * d.c);
    sums.fill(0.0);
    let all = (writing(&mut dx[..d.n * d.c], rows * d.c), writing(&mut sums, 2 * d.c));
    pool.over(all, |part, (dx, sums)| {
        let (of_gain, of_bias) = sums.split_at_mut(d.c);
        vectorised(
            #[inline(always)]
            || {
                for (i, dx) in dx.chunks_exact_mut(d.c).enumerate() {
                    backward_row(&s, part * rows + i, dx, of_gain, of_bias, &d);
                }
            },
        );
    });
    let total = |at: usize| sums.chunks_exact(2 * d.c).map(|p| p[at]).sum::<f32>();
    for (i, g) in dgain[..d.c].iter_mut().enumerate() {
        *g = total(i);
    }
    if let Some(bias) = dbias {
        for (i, b) in bias[..d.c].iter_mut().enumerate() {
            *b = total(d.c + i);
        }
    }
}

#[inline(always)]
fn backward_row(s: &SavedNorm, r: usize, dx: &mut [f32], of_gain: &mut [f32], of_bias: &mut [f32], d: &NormDims) {
    let c = d.c;
    let (x, dout, gain) = (&s.x[r * c..][..c], &s.dout[r * c..][..c], &s.gain[..c]);
    let (mean, rstd) = (s.stats[2 * r], s.stats[2 * r + 1]);
    let (of_gain, of_bias, dx) = (&mut of_gain[..c], &mut of_bias[..c], &mut dx[..c]);
    let mut weighted = 0.0;
    if !d.rms {
        weighted = (dot(dout, gain) + d.gain_offset * sum(dout)) / c as f32;
    }
    let mut along = [0.0f32; 16];
    for i in 0..c {
        let hat = (x[i] - mean) * rstd;
        of_gain[i] += dout[i] * hat;
        of_bias[i] += dout[i];
    }
    let whole = c / 16 * 16;
    for at in (0..whole).step_by(16) {
        for (lane, a) in along.iter_mut().enumerate() {
            let i = at + lane;
            *a += dout[i] * (gain[i] + d.gain_offset) * ((x[i] - mean) * rstd);
        }
    }
    let rest: f32 = (whole..c).map(|i| dout[i] * (gain[i] + d.gain_offset) * ((x[i] - mean) * rstd)).sum();
    let along = (along.iter().sum::<f32>() + rest) / c as f32;
    for i in 0..c {
        let hat = (x[i] - mean) * rstd;
        dx[i] += rstd * (dout[i] * (gain[i] + d.gain_offset) - weighted - hat * along);
    }
}
