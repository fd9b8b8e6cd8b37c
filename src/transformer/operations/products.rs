//! Linear layers, forward and backward, with what is fused to their ends, and matrices in the form that inference reads.

use super::super::backend::{Backend, Category, LinearDims, Store};
use super::super::cpu::array::Array;
use super::super::cpu::naive::Naive;
use super::super::shape::Activation;
use super::Size;
use super::bounds::{FUNCTION, sum};
use super::case::{Allowed, Case, Known, below, by, changed, given, result, room, scaled};
use super::elementwise::{ACTIVATIONS, inner, more, steepness};
use Category::{Activations, Gradients, Weights};

/// Odd widths and widths that vectors divide, one row and many. Up to 8 rows are what decoding multiplies.
const SMALL: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (1, 8, 1),
    (3, 1, 7),
    (5, 48, 65),
    (9, 31, 40),
    (17, 64, 72),
    (33, 257, 48),
    (70, 56, 33),
    (130, 64, 200),
];

/// Widths of real layers.
const WIDE: [(usize, usize, usize); 4] = [(300, 768, 2304), (1025, 80, 96), (1024, 512, 520), (63, 1000, 129)];

/// Rows of decoding: one, few, and more than few, by widths that kernels read 16 bytes of at a time and others.
const DECODING: [(usize, usize, usize); 6] =
    [(1, 128, 96), (2, 136, 100), (4, 96, 64), (8, 128, 96), (16, 72, 48), (17, 100, 40)];

/// The same by a vocabulary.
const HEADS: [(usize, usize, usize); 4] = [(1, 768, 50257), (4, 128, 50257), (17, 129, 50257), (8, 2048, 2056)];

/// Multiply-adds of a product up to which all four activations are put behind it.
const WITH_ACTIVATIONS: usize = 64 << 20;

fn all<const N: usize>(dims: [(usize, usize, usize); N]) -> impl Iterator<Item = LinearDims> {
    dims.into_iter().map(|(n, k, m)| LinearDims { n, k, m })
}

pub(super) fn list<B: Backend + 'static>(size: Size, to: &mut Vec<Case<B>>) {
    let mut training: Vec<LinearDims> = all(SMALL).collect();
    let mut decoding: Vec<LinearDims> = all(DECODING).collect();
    if size == Size::Full {
        training.extend(all(WIDE));
        decoding.extend(all(HEADS));
    }
    for d in training {
        to.extend([linear(d), linear_plus(d), linear_dx(d), linear_dw(d)]);
        if d.n * d.k * d.m <= WITH_ACTIVATIONS {
            for kind in ACTIVATIONS {
                to.extend([linear_activation(kind, d), linear_dx_activation(kind, d)]);
            }
        }
    }
    for d in decoding {
        to.extend([linear(d), linear_plus(d), weights(d)]);
        if d.n * d.k * d.m <= WITH_ACTIVATIONS {
            to.extend(ACTIVATIONS.map(|kind| linear_activation(kind, d)));
        }
    }
}

fn text(d: LinearDims) -> String {
    format!("N {} K {} M {}", d.n, d.k, d.m)
}

/// Of products in buffer `of`: each a sum of so many terms, its bias and what lies in `onto` included.
fn added(of: usize, terms: usize, bias: Option<usize>, onto: Option<usize>) -> Allowed {
    by(move |b: &Known<'_>| {
        let columns = bias.map_or(1, |at| b.before[at].len());
        let of_bias = |i: usize| bias.map_or(0.0, |at| b.before[at][i % columns].abs());
        b.sums_before(of, terms, |i| of_bias(i) + onto.map_or(0.0, |at| b.before[at][i].abs()))
    })
}

fn linear<B: Backend + 'static>(d: LinearDims) -> Case<B> {
    let LinearDims { n, k, m } = d;
    let slots = vec![
        given(n * k, Activations),
        given(m * k, Weights),
        given(m, Weights),
        result("linear", n * m, Activations, added(3, k + 1, Some(2), None)),
        result("linear", n * m, Activations, Allowed::Sum(k)),
        changed("linear", n * m, Activations, added(5, k + 2, Some(2), Some(5))),
        changed("linear", n * m, Activations, added(6, k + 1, None, Some(6))),
    ];
    Case::new("linear", text(d), 8 * n * k * m, slots, move |on: &B, b| {
        if let [x, w, bias, with, without, onto, onto_without] = b {
            on.linear(x, w, Some(bias), with, Store::Overwrite, d);
            on.linear(x, w, None, without, Store::Overwrite, d);
            on.linear(x, w, Some(bias), onto, Store::Accumulate, d);
            on.linear(x, w, None, onto_without, Store::Accumulate, d);
        }
        Ok(())
    })
}

fn linear_plus<B: Backend + 'static>(d: LinearDims) -> Case<B> {
    let LinearDims { n, k, m } = d;
    let slots = vec![
        given(n * k, Activations),
        given(m * k, Weights),
        given(m, Weights),
        given(n * m, Activations),
        result("linear_plus", n * m, Activations, added(4, k + 2, Some(2), Some(3))),
        result("linear_plus", n * m, Activations, added(5, k + 1, None, Some(3))),
    ];
    Case::new("linear_plus", text(d), 4 * n * k * m, slots, move |on: &B, b| {
        if let [x, w, bias, plus, with, without] = b {
            on.linear_plus(x, w, Some(bias), plus, with, d);
            on.linear_plus(x, w, None, plus, without, d);
        }
        Ok(())
    })
}

fn linear_dx<B: Backend + 'static>(d: LinearDims) -> Case<B> {
    let LinearDims { n, k, m } = d;
    let slots = vec![
        given(n * m, Activations),
        given(m * k, Weights),
        result("linear_dx", n * k, Activations, Allowed::Sum(m)),
        changed("linear_dx", n * k, Activations, added(3, m + 1, None, Some(3))),
    ];
    Case::new("linear_dx", text(d), 4 * n * k * m, slots, move |on: &B, b| {
        if let [dout, w, dx, onto] = b {
            on.linear_dx(dout, w, dx, Store::Overwrite, d);
            on.linear_dx(dout, w, onto, Store::Accumulate, d);
        }
        Ok(())
    })
}

fn linear_dw<B: Backend + 'static>(d: LinearDims) -> Case<B> {
    let LinearDims { n, k, m } = d;
    let slots = vec![
        given(n * k, Activations),
        given(n * m, Activations),
        result("linear_dw", m * k, Gradients, Allowed::Sum(n)),
        result("linear_dw", m, Gradients, Allowed::Sum(n)),
        result("linear_dw", m * k, Gradients, Allowed::Sum(n)),
    ];
    Case::new("linear_dw", text(d), 4 * n * k * m, slots, move |on: &B, b| {
        if let [x, dout, dw, dbias, alone] = b {
            on.linear_dw(x, dout, dw, Some(dbias), d);
            on.linear_dw(x, dout, alone, None, d);
        }
        Ok(())
    })
}

/// The argument is off by its sum, and by its storage where the function is computed from what is stored; the function carries that
/// on with a slope of at most 1.13, SwiGLU to each factor times the other.
fn linear_activation<B: Backend + 'static>(kind: Activation, d: LinearDims) -> Case<B> {
    let LinearDims { n, k, m: f } = d;
    let m = inner(kind, f);
    let of_result = by(move |b: &Known<'_>| {
        let off = b.stored(3, b.sums_before(3, k + 1, |i| b.before[2][i % m]));
        let pre = |i: usize| (f64::from(b.after[3][i].abs()), off[i]);
        let one = |i: usize| {
            if !kind.gated() {
                let (x, off) = pre(i);
                return 1.13 * off + FUNCTION * x;
            }
            let ((gate, off_gate), (up, off_up)) = (pre(i / f * m + i % f), pre(i / f * m + f + i % f));
            let up = up + more(kind);
            1.13 * off_gate * (up + off_up) + gate * off_up + FUNCTION * gate * up
        };
        (0..n * f).map(one).collect()
    });
    let slots = vec![
        given(n * k, Activations),
        scaled(m * k, Weights, 1.0 / (k as f32).sqrt()),
        given(m, Weights),
        result("linear_activation", n * m, Activations, added(3, k + 1, Some(2), None)),
        result("linear_activation", n * f, Activations, of_result),
    ];
    let d = LinearDims { m, ..d };
    Case::new("linear_activation", format!("{} {kind:?}", text(d)), 2 * n * k * m, slots, move |on: &B, b| {
        if let [x, w, bias, pre, out] = b {
            on.linear_activation(kind, x, w, Some(bias), pre, out, d);
        }
        Ok(())
    })
}

/// What is between the two, `dout w`, is off by its sum and by its storage; the slope, of at most 1.13 (SwiGLU: times the other
/// half), carries that on.
fn linear_dx_activation<B: Backend + 'static>(kind: Activation, d: LinearDims) -> Case<B> {
    let LinearDims { n, k: f, m } = d;
    let wide = inner(kind, f);
    let of_result = by(move |b: &Known<'_>| {
        let between = |dout: &[f32], w: &[f32]| {
            let mut hidden = Array::zeros(n * f)?;
            let mut inputs = [Array::zeros(dout.len())?, Array::zeros(w.len())?];
            inputs[0].copy_from_slice(dout);
            inputs[1].copy_from_slice(w);
            Naive.linear_dx(&inputs[0], &inputs[1], &mut hidden, Store::Overwrite, d);
            Ok::<_, super::super::error::SessionError>(hidden)
        };
        let magnitude = |x: &[f32]| x.iter().map(|x| x.abs()).collect::<Vec<f32>>();
        let (Ok(hidden), Ok(sums)) =
            (between(&b.before[0], &b.before[1]), between(&magnitude(&b.before[0]), &magnitude(&b.before[1])))
        else {
            return Vec::new();
        };
        let u = b.format.stored(Activations);
        let one = |i: usize| {
            let (r, c) = (i / wide, i % f);
            let (value, off) = (f64::from(hidden[r * f + c].abs()), sum(m) * f64::from(sums[r * f + c]));
            let (off, x) = (off + u * (value + off), |at: usize| f64::from(b.before[2][at].abs()));
            let other = if !kind.gated() {
                1.0
            } else if i % wide < f {
                x(i + f) + more(kind)
            } else {
                // The slope by the other half is the gate's value, below the gate itself.
                return x(i - f) * (off + FUNCTION * value);
            };
            other * (1.13 * off + FUNCTION * (1.0 + steepness(kind) * x(i)) * value)
        };
        (0..n * wide).map(one).collect()
    });
    let slots = vec![
        given(n * m, Activations),
        given(m * f, Weights),
        changed("linear_dx_activation", n * wide, Activations, of_result),
        room(n * f, Activations),
    ];
    Case::new("linear_dx_activation", format!("{} {kind:?}", text(d)), 3 * n * f * m, slots, move |on: &B, b| {
        if let [dout, w, pre, hidden] = b {
            on.linear_dx_activation(kind, dout, w, pre, hidden, d);
        }
        Ok(())
    })
}

/// A matrix is written some rows at a time, multiplied by, and looked up in.
fn weights<B: Backend + 'static>(d: LinearDims) -> Case<B> {
    let LinearDims { n, k, m } = d;
    let ids = below(n, m as u32, 3);
    let slots = vec![
        given(n * k, Activations),
        given(m * k, Weights),
        given(m, Weights),
        result("weights", n * m, Activations, added(3, k + 1, Some(2), None)),
        result("weights", n * k, Activations, Allowed::Exactly),
    ];
    Case::new("weights", text(d), 2 * n * k * m, slots, move |on: &B, b| {
        if let [x, w, bias, out, rows] = b {
            let mut host = vec![0.0; m * k];
            on.download(w, 0, &mut host);
            let mut rest = host.as_slice();
            let mut next = |rows: &mut [f32]| {
                let (here, after) = rest.split_at(rows.len());
                rows.copy_from_slice(here);
                rest = after;
            };
            let fixed = on.weights(1, m, k, &mut next)?;
            on.linear(x, &fixed, Some(bias), out, Store::Overwrite, d);
            on.embed(&ids, n, 0, &fixed, None, rows, k);
        }
        Ok(())
    })
}
