//! LayerNorm and RMSNorm.

use super::super::backend::{Backend, Category, NormDims};
use super::Size;
use super::bounds::{UNIT, sum};
use super::case::{Case, Known, by, changed, given, normal, result, these};
use Category::{Activations, Gradients, Statistics, Weights};

pub(super) fn list<B: Backend + 'static>(size: Size, to: &mut Vec<Case<B>>) {
    let mut dims = vec![(1, 1), (3, 17), (5, 48), (33, 100), (7, 769), (70, 64)];
    if size == Size::Full {
        dims.extend([(1, 4096), (17, 2048), (1025, 768), (300, 5120), (9, 12289)]);
    }
    for (n, c) in dims {
        for rms in [false, true] {
            let d = NormDims { n, c, eps: 1e-5, rms, gain_offset: 0.0 };
            to.extend([norm(d), backward(d)]);
        }
    }
}

fn text(d: NormDims) -> String {
    let gain = if d.gain_offset == 0.0 { String::new() } else { format!(" by {} + w", d.gain_offset) };
    format!("N {} C {}{}{gain}", d.n, d.c, if d.rms { " rms" } else { "" })
}

/// A row's mean, 1 / deviation, and what the two may be off by.
///
/// The mean is a sum of C numbers. The variance is a sum of squares of x - mean, each off by the mean's error too; a relative error
/// of the variance is halved by the root. A mean of squares less the square of the mean would be off by the sums' error of the
/// squares of x instead, which is taken, being the larger.
fn statistics(row: &[f32], d: NormDims) -> [(f64, f64); 2] {
    let c = d.c as f64;
    let total = |f: &dyn Fn(f64) -> f64| row.iter().map(|x| f(f64::from(*x))).sum::<f64>() / c;
    let mean = if d.rms { 0.0 } else { total(&|x| x) };
    let off_mean = if d.rms { 0.0 } else { sum(d.c) * total(&f64::abs) };
    let variance = total(&|x| (x - mean).powi(2)) + f64::from(d.eps);
    let off_variance = (sum(d.c) + 4.0 * UNIT) * (total(&|x| x * x) + f64::from(d.eps));
    let rstd = 1.0 / variance.sqrt();
    // One number has no variance, by whichever formula: it is its own mean exactly.
    let relative = if d.c == 1 && !d.rms { 4.0 * UNIT } else { off_variance / variance / 2.0 + 4.0 * UNIT };
    [(mean, off_mean), (rstd, rstd * relative)]
}

/// Normed numbers, and what each may be off by before it is stored.
pub(super) fn normed(x: &[f32], gain: &[f32], bias: Option<&[f32]>, d: NormDims) -> Vec<(f64, f64)> {
    let of_row = |row: &[f32]| {
        let [(mean, off_mean), (rstd, off_rstd)] = statistics(row, d);
        let one = |(i, x): (usize, &f32)| {
            let (gain, apart) = (f64::from(gain[i]) + f64::from(d.gain_offset), f64::from(*x) - mean);
            let bias = bias.map_or(0.0, |b| f64::from(b[i]));
            let off = gain.abs() * (off_mean * rstd + apart.abs() * (off_rstd + 4.0 * UNIT * rstd));
            (apart * rstd * gain + bias, off + 2.0 * UNIT * bias.abs())
        };
        row.iter().enumerate().map(one).collect::<Vec<_>>()
    };
    x.chunks_exact(d.c).flat_map(of_row).collect()
}

pub(super) fn norm<B: Backend + 'static>(d: NormDims) -> Case<B> {
    let NormDims { n, c, .. } = d;
    let rows = move |b: &Known<'_>| b.before[0].chunks_exact(c).map(|row| statistics(row, d)).collect::<Vec<_>>();
    let of_out = by(move |b: &Known<'_>| {
        let bias = (!d.rms).then_some(&*b.before[2]);
        normed(&b.before[0], &b.before[1], bias, d).into_iter().map(|(_, off)| off).collect()
    });
    let of_stats = by(move |b: &Known<'_>| rows(b).into_iter().flatten().map(|(_, off)| off).collect());
    let slots = vec![
        given(n * c, Activations),
        given(c, Weights),
        given(c, Weights),
        result("norm", n * c, Activations, of_out),
        result("norm", 2 * n, Statistics, of_stats),
    ];
    Case::new("norm", text(d), n * c, slots, move |on: &B, b| {
        if let [x, gain, bias, out, stats] = b {
            on.norm(x, gain, (!d.rms).then_some(bias), out, stats, d);
        }
        Ok(())
    })
}

/// Statistics are given: a mean of nearly 0 and deviations around 1, as the rows have.
pub(super) fn backward<B: Backend + 'static>(d: NormDims) -> Case<B> {
    let NormDims { n, c, .. } = d;
    let given_stats: Vec<f32> = normal(2 * n, 41)
        .chunks_exact(2)
        .flat_map(|pair| [if d.rms { 0.0 } else { 0.1 * pair[0] }, 1.0 + 0.1 * pair[1]])
        .collect();
    let hat = move |b: &Known<'_>, i: usize| {
        let (mean, rstd) = (f64::from(b.before[2][i / c * 2]), f64::from(b.before[2][i / c * 2 + 1]));
        ((f64::from(b.before[0][i]) - mean).abs() * rstd, rstd)
    };
    let of_x = by(move |b: &Known<'_>| {
        let gain = |i: usize| f64::from(b.before[1][i % c].abs()) + f64::from(d.gain_offset);
        let of_norm = |i: usize| f64::from(b.before[3][i].abs()) * gain(i);
        let mut off = Vec::with_capacity(n * c);
        for r in 0..n {
            let row = r * c..(r + 1) * c;
            let mean_g = if d.rms { 0.0 } else { row.clone().map(of_norm).sum::<f64>() / c as f64 };
            let mean_gh = row.clone().map(|i| of_norm(i) * hat(b, i).0).sum::<f64>() / c as f64;
            for i in row {
                let (hat, rstd) = hat(b, i);
                let terms = of_norm(i) * 4.0 * UNIT + (sum(c) + 8.0 * UNIT) * (mean_g + hat * mean_gh);
                off.push(rstd * terms + 2.0 * UNIT * f64::from(b.before[4][i].abs()));
            }
        }
        off
    });
    let of_columns = move |with_hat: bool| {
        by(move |b: &Known<'_>| {
            let mut off = vec![0.0; c];
            for i in 0..n * c {
                let scale = if with_hat { hat(b, i).0 } else { 1.0 };
                off[i % c] += (sum(n) + 4.0 * UNIT) * f64::from(b.before[3][i].abs()) * scale;
            }
            off
        })
    };
    let mut slots = vec![
        given(n * c, Activations),
        given(c, Weights),
        these(Statistics, given_stats),
        given(n * c, Activations),
        changed("norm_backward", n * c, Activations, of_x),
        result("norm_backward", c, Gradients, of_columns(true)),
    ];
    if !d.rms {
        slots.push(result("norm_backward", c, Gradients, of_columns(false)));
    }
    Case::new("norm_backward", text(d), n * c, slots, move |on: &B, b| {
        if let [x, gain, stats, dout, dx, dgain, dbias @ ..] = b {
            on.norm_backward(x, gain, stats, dout, dx, dgain, dbias.first_mut(), d);
        }
        Ok(())
    })
}
