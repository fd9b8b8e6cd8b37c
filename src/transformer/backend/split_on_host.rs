//! Operations whose sums go over several ranks, on the host.

use super::on_host::{dot, read, write};
use super::split::{OwnWords, ROWS_AT_A_TIME};
use super::{Backend, IGNORED_TARGET, LinearDims, Loss};

/// `Parts::cross_entropy_split`
pub(super) fn cross_entropy<B: Backend + ?Sized>(
    on: &B,
    [x, w]: [&B::Buffer; 2],
    targets: &[u32],
    gradients: Option<(&mut B::Buffer, &mut B::Buffer)>,
    cap: Option<f32>,
    d: LinearDims,
    own: OwnWords<'_, B::Buffer>,
) -> Loss {
    let (x, w) = (read(on, x, d.n * d.k), read(on, w, d.m * d.k));
    let counted = targets.iter().filter(|t| **t != IGNORED_TARGET).count().max(1) as f64;
    let wanted = gradients.is_some();
    let of = |len: usize| vec![0.0f64; if wanted { len } else { 0 }];
    let (mut dx, mut dw, mut total) = (of(d.n * d.k), of(d.m * d.k), 0.0);
    let OwnWords { first: word, largest, sums, over_largest, over_sums } = own;
    for first in (0..d.n).step_by(ROWS_AT_A_TIME) {
        let rows = first..(first + ROWS_AT_A_TIME).min(d.n);
        let logits = |r: usize| {
            let of_word = |o: usize| dot(&x[r * d.k..][..d.k], &w[o * d.k..][..d.k]);
            let capped = |l: f64| cap.map_or(l, |cap| f64::from(cap) * (l / f64::from(cap)).tanh());
            (0..d.m).map(|o| capped(of_word(o))).collect::<Vec<f64>>()
        };
        let place = |r: usize| OwnWords::<B::Buffer>::place(word, d.m, targets[r]);
        let logits: Vec<Vec<f64>> = rows.clone().map(logits).collect();
        let most = |l: &Vec<f64>| l.iter().copied().fold(f64::NEG_INFINITY, f64::max) as f32;
        on.upload(&logits.iter().map(most).collect::<Vec<f32>>(), largest);
        over_largest(largest);
        let most = read(on, largest, rows.len());
        let exponential = |l: f64, i: usize| (l - f64::from(most[i])).exp();
        let of_row = |(i, l): (usize, &Vec<f64>)| {
            let sum = l.iter().map(|l| exponential(*l, i)).sum::<f64>() as f32;
            [sum, place(first + i).map_or(0.0, |o| l[o] as f32)]
        };
        on.upload(&logits.iter().enumerate().flat_map(of_row).collect::<Vec<f32>>(), sums);
        over_sums(sums);
        let sums = read(on, sums, 2 * rows.len());
        for (i, r) in rows.enumerate().filter(|(_, r)| targets[*r] != IGNORED_TARGET) {
            let (sum, of_target) = (f64::from(sums[2 * i]), f64::from(sums[2 * i + 1]));
            total += f64::from(most[i]) + sum.ln() - of_target;
            for (o, l) in logits[i].iter().enumerate().filter(|_| wanted) {
                let hit = if place(r) == Some(o) { 1.0 } else { 0.0 };
                let slope = cap.map_or(1.0, |cap| 1.0 - (l / f64::from(cap)).powi(2));
                let g = (exponential(*l, i) / sum - hit) / counted * slope;
                for j in 0..d.k {
                    dx[r * d.k + j] += g * f64::from(w[o * d.k + j]);
                    dw[o * d.k + j] += g * f64::from(x[r * d.k + j]);
                }
            }
        }
    }
    if let Some((to_x, to_w)) = gradients {
        write(on, dx, to_x);
        write(on, dw, to_w);
    }
    Loss::Known((total / counted) as f32)
}
