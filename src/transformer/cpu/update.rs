//! Optimizer steps, fused: each parameter, gradient and moment is touched once.

use super::super::OptimizerKind;
use super::super::backend::Update;
use super::instructions::vectorised;
use super::pool::{Pool, reading, writing};

/// Constants of one step, with the bias corrections worked in.
#[derive(Clone, Copy)]
struct Step {
    beta1: f32,
    beta2: f32,
    /// Learning rate over the first moment's correction.
    rate: f32,
    /// Factor on the root of the second moment.
    root: f32,
    eps: f32,
    /// 1 - learning rate * weight decay
    decay: f32,
    /// What gradients are multiplied by.
    factor: f32,
}

impl Step {
    fn new(u: &Update, step: u32, factor: f32) -> Self {
        let correction = |beta: f32| 1.0 - f64::from(beta).powi(step.min(i32::MAX as u32) as i32);
        let (c1, c2) = (correction(u.beta1), correction(u.beta2));
        let rate = f64::from(u.learning_rate) / c1;
        let adamw = u.kind == OptimizerKind::Adamw;
        let decay = if adamw { 1.0 - f64::from(u.learning_rate) * f64::from(u.weight_decay) } else { 1.0 };
        // Keras's form, lr sqrt(c2) / c1 * m / (sqrt(v) + eps), is the usual one with eps / sqrt(c2).
        let eps = if u.eps_before_correction { f64::from(u.eps) / c2.sqrt() } else { f64::from(u.eps) };
        Self {
            beta1: u.beta1,
            beta2: u.beta2,
            rate: rate as f32,
            root: (1.0 / c2.sqrt()) as f32,
            eps: eps as f32,
            decay: decay as f32,
            factor,
        }
    }
}

/// `factor` is what the gradient is multiplied by.
pub(super) fn update(
    pool: &Pool,
    u: &Update,
    step: u32,
    p: &mut [f32],
    (g, factor): (&[f32], f32),
    first: Option<&mut [f32]>,
    second: Option<&mut [f32]>,
) {
    let s = Step::new(u, step, factor);
    let share = pool.share(p.len(), 4096);
    let (p, g) = (writing(p, share), reading(g, share));
    let eps = u.eps;
    match (u.kind, first, second) {
        (OptimizerKind::Adam | OptimizerKind::Adamw, Some(m), Some(v)) => {
            pool.over((p, g, writing(m, share), writing(v, share)), |_, (p, g, m, v)| adam(&s, p, g, m, v));
        }
        (OptimizerKind::Adamax, Some(m), Some(v)) => {
            pool.over((p, g, writing(m, share), writing(v, share)), |_, (p, g, m, v)| adamax(&s, eps, p, g, m, v));
        }
        (_, Some(m), _) => pool.over((p, g, writing(m, share)), |_, (p, g, m)| {
            vectorised(
                #[inline(always)]
                || {
                    for ((p, g), m) in p.iter_mut().zip(g).zip(m) {
                        *m = u.momentum * *m + g * factor;
                        *p -= u.learning_rate * *m;
                    }
                },
            );
        }),
        (_, None, _) => pool.over((p, g), |_, (p, g)| {
            vectorised(
                #[inline(always)]
                || {
                    for (p, g) in p.iter_mut().zip(g) {
                        *p -= u.learning_rate * (g * factor);
                    }
                },
            );
        }),
    }
}

/// The sum of squares, in stretches of one length whatever the number of threads, so that its bits are too.
pub(super) fn squares(pool: &Pool, x: &[f32]) -> f64 {
    const STRETCH: usize = 1 << 14;
    const LANES: usize = 16;
    let mut sums = vec![0.0f64; x.len().div_ceil(STRETCH)];
    pool.over((reading(x, STRETCH), writing(&mut sums, 1)), |_, (x, sum)| {
        vectorised(
            #[inline(always)]
            || {
                let (rows, rest) = x.as_chunks::<LANES>();
                let mut lanes = [0.0f64; LANES];
                for row in rows {
                    for (lane, x) in lanes.iter_mut().zip(row) {
                        *lane += f64::from(*x) * f64::from(*x);
                    }
                }
                sum[0] = lanes.iter().sum::<f64>() + rest.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
            },
        );
    });
    sums.iter().sum()
}

fn adam(s: &Step, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let s = *s;
    vectorised(
        #[inline(always)]
        || {
            for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                let g = g * s.factor;
                *m = s.beta1 * *m + (1.0 - s.beta1) * g;
                *v = s.beta2 * *v + (1.0 - s.beta2) * g * g;
                *p = *p * s.decay - s.rate * *m / (v.sqrt() * s.root + s.eps);
            }
        },
    );
}

fn adamax(s: &Step, eps: f32, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let s = *s;
    vectorised(
        #[inline(always)]
        || {
            for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                let g = g * s.factor;
                *m = s.beta1 * *m + (1.0 - s.beta1) * g;
                let (old, new) = (s.beta2 * *v, g.abs() + eps);
                *v = if old > new { old } else { new };
                *p -= s.rate * *m / *v;
            }
        },
    );
}
