//! Losses and their gradients.

use super::super::backend::{Backend, Category, IGNORED_TARGET, LinearDims, Loss, OwnWords, ROWS_AT_A_TIME, Tokens};
use super::super::error::SessionError;
use super::Size;
use super::bounds::{FUNCTION, UNIT, dot, sum};
use super::case::{Case, Known, below, by, given, result, scaled};
use Category::{Activations, Gradients, Statistics, Weights};
use std::sync::{Arc, OnceLock};

pub(super) fn list<B: Backend + 'static>(size: Size, to: &mut Vec<Case<B>>) {
    // 300 rows are several blocks on the host's device, 600 on the CPU.
    let mut dims = vec![(1, 3, 2), (5, 16, 31), (300, 8, 33), (600, 8, 100)];
    let mut lengths = vec![1, 333, 5000];
    if size == Size::Full {
        dims.extend([(17, 64, 50257), (130, 100, 50257), (1025, 64, 1000)]);
        lengths.push((1 << 22) + 3);
    }
    to.extend(dims.into_iter().map(|(n, k, m)| cross_entropy(LinearDims { n, k, m }, None)));
    to.extend(lengths.into_iter().map(mean_squared_error));
}

/// What the loss and its gradients may be off by before they are stored.
#[derive(Default)]
struct Errors {
    loss: f64,
    dx: Vec<f64>,
    dw: Vec<f64>,
}

/// A logit is off by its sum, and in bf16 by its storage. Of the log of the softmax's denominator that is the mean over the
/// probabilities; a probability moves by its own logit's error and by that, which is not small enough to be linear. A logit's
/// gradient is rounded where products take it.
fn errors(b: &Known<'_>, targets: &[u32], cap: Option<f64>, d: LinearDims) -> Errors {
    let LinearDims { n, k, m: v } = d;
    let (x, w) = (&b.before[0], &b.before[1]);
    let counted = targets.iter().filter(|t| **t != IGNORED_TARGET).count().max(1) as f64;
    let mut e = Errors { dx: vec![0.0; n * k], dw: vec![0.0; v * k], ..Errors::default() };
    let magnitudes: Vec<f32> = w.iter().map(|w| w.abs()).collect();
    let (u, over_rows, over_words) = (b.format.factor(), sum(n), sum(v));
    let mut mean = 0.0;
    for (r, target) in targets.iter().enumerate().filter(|(_, t)| **t != IGNORED_TARGET) {
        let row = &x[r * k..][..k];
        let absolute: Vec<f32> = row.iter().map(|x| x.abs()).collect();
        let capped = |l: f64| cap.map_or(l, |cap| cap * (l / cap).tanh());
        let logits: Vec<f64> = w.chunks_exact(k).map(|w| capped(f64::from(dot(row, w)))).collect();
        let of_sum = |o: usize| sum(k) * f64::from(dot(&absolute, &magnitudes[o * k..][..k]));
        // A cap has a slope below 1, and a function's error.
        let of_cap = cap.map_or(0.0, |cap| FUNCTION * cap);
        let off: Vec<f64> = (0..v).map(|o| of_sum(o) + b.format.on_the_way() * logits[o].abs() + of_cap).collect();
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logits.iter().map(|l| (l - most).exp()).sum();
        let p = |o: usize| (logits[o] - most).exp() / total;
        let of_total = (0..v).map(|o| p(o) * off[o].exp_m1()).sum::<f64>() + sum(v) + FUNCTION;
        let loss = most + total.ln() - logits[*target as usize];
        mean += loss.abs() / counted;
        e.loss += (of_total + off[*target as usize] + 8.0 * UNIT * (most.abs() + loss.abs())) / counted;
        for o in 0..v {
            let p = p(o);
            let slope = if o == *target as usize { 1.0 - p } else { p } / counted;
            let range = logits[o].abs().max(most.abs());
            let off_logit = off[o];
            let off = p / counted * ((off_logit + of_total).exp_m1() + 4.0 * UNIT * range + FUNCTION)
                + (u + 4.0 * UNIT) * slope;
            // The slope of the cap moves by at most twice what the logit does, of the cap.
            let of_slope = cap.map_or(0.0, |cap| 2.0 * (off_logit / cap + FUNCTION));
            let off = off + of_slope * (slope + off);
            let weight = &w[o * k..][..k];
            let (by_x, by_w) = (off + over_words * slope, off + over_rows * slope);
            e.dx[r * k..][..k].iter_mut().zip(weight).for_each(|(e, w)| *e += by_x * f64::from(w.abs()));
            e.dw[o * k..][..k].iter_mut().zip(row).for_each(|(e, x)| *e += by_w * f64::from(x.abs()));
        }
    }
    e.loss += sum(n) * mean;
    e
}

pub(super) fn cross_entropy<B: Backend + 'static>(d: LinearDims, cap: Option<f32>) -> Case<B> {
    let LinearDims { n, k, m } = d;
    let mut targets = below(n, m as u32, 7);
    targets.iter_mut().skip(3).step_by(4).for_each(|t| *t = IGNORED_TARGET);
    let once = Arc::new(OnceLock::new());
    let known = targets.clone();
    let of = move |part: fn(&Errors) -> Vec<f64>| {
        let (once, targets) = (Arc::clone(&once), known.clone());
        by(move |b: &Known<'_>| part(once.get_or_init(|| errors(b, &targets, cap.map(f64::from), d))))
    };
    let slots = vec![
        given(n * k, Activations),
        scaled(m * k, Weights, 1.0 / (k as f32).sqrt()),
        result("cross_entropy", n * k, Activations, of(|e| e.dx.clone())),
        result("cross_entropy", m * k, Gradients, of(|e| e.dw.clone())),
        result("read_loss", 5, Statistics, of(|e| vec![e.loss; 5])),
        result("cross_entropy_tokens", n * k, Activations, of(|e| e.dx.clone())),
        result("cross_entropy_tokens", m * k, Gradients, of(|e| e.dw.clone())),
        result("cross_entropy_split", n * k, Activations, of(|e| e.dx.clone())),
        result("cross_entropy_split", m * k, Gradients, of(|e| e.dw.clone())),
    ];
    let capped = cap.map_or(String::new(), |cap| format!(" cap {cap}"));
    Case::new("cross_entropy", format!("N {n} C {k} V {m}{capped}"), 8 * n * k * m, slots, move |on: &B, b| {
        if let [x, w, dx, dw, loss, placed_dx, placed_dw, split_dx, split_dw] = b {
            let with = on.read_loss(on.cross_entropy(x, w, &targets, Some((dx, dw)), cap, d));
            let without = on.read_loss(on.cross_entropy(x, w, &targets, None, cap, d));
            let mut kept = on.alloc(n, Statistics)?;
            on.put_tokens(&targets, &mut kept);
            let placed = on.cross_entropy_tokens(x, w, Tokens::Placed(&kept), Some((placed_dx, placed_dw)), cap, d);
            let split =
                [Some((split_dx, split_dw)), None].map(|gradients| split(on, [x, w], &targets, gradients, cap, d));
            let [split, split_without] = split.map(|loss| loss.map(|loss| on.read_loss(loss)));
            on.upload(&[with, without, on.read_loss(placed), split?, split_without?], loss);
        }
        Ok(())
    })
}

/// Of a rank that has all words from the fifth on, and hears of no other.
fn split<B: Backend + 'static>(
    on: &B,
    [x, w]: [&B::Buffer; 2],
    targets: &[u32],
    gradients: Option<(&mut B::Buffer, &mut B::Buffer)>,
    cap: Option<f32>,
    d: LinearDims,
) -> Result<Loss, SessionError> {
    const FIRST: u32 = 5;
    let later = |t: &u32| if *t == IGNORED_TARGET { IGNORED_TARGET } else { FIRST + t };
    let targets: Vec<u32> = targets.iter().map(later).collect();
    let [mut largest, mut sums] =
        [on.alloc(d.n.min(ROWS_AT_A_TIME), Statistics)?, on.alloc(2 * d.n.min(ROWS_AT_A_TIME), Statistics)?];
    let alone = |_: &mut B::Buffer| ();
    let (largest, sums) = (&mut largest, &mut sums);
    let own = OwnWords { first: FIRST, largest, sums, over_largest: &alone, over_sums: &alone };
    Ok(on.cross_entropy_split(x, w, &targets, gradients, cap, d, own))
}

fn mean_squared_error<B: Backend + 'static>(len: usize) -> Case<B> {
    let apart = |b: &Known<'_>| -> Vec<f64> {
        b.before[0].iter().zip(&b.before[1]).map(|(x, t)| f64::from(x.abs()) + f64::from(t.abs())).collect()
    };
    let of_gradient = by(move |b| apart(b).into_iter().map(|x| 4.0 * UNIT * x * 2.0 / len as f64).collect());
    let of_loss = by(move |b| {
        let squares: f64 = apart(b).into_iter().map(|x| x * x).sum();
        vec![(sum(len) + 4.0 * UNIT) * squares / len as f64; 2]
    });
    let slots = vec![
        given(len, Activations),
        given(len, Activations),
        result("mean_squared_error", len, Activations, of_gradient),
        result("mean_squared_error", 2, Statistics, of_loss),
    ];
    Case::new("mean_squared_error", format!("{len} numbers"), len, slots, move |on: &B, b| {
        if let [x, target, dx, loss] = b {
            let with = on.read_loss(on.mean_squared_error(x, target, Some(dx), len));
            let without = on.read_loss(on.mean_squared_error(x, target, None, len));
            on.upload(&[with, without], loss);
        }
        Ok(())
    })
}
