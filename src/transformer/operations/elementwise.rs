//! What is done number by number: activations, dropout, sums, copies, fills.

use super::super::backend::{Backend, Category, Dropout};
use super::super::shape::Activation;
use super::Size;
use super::bounds::{FUNCTION, UNIT};
use super::case::{Allowed, Case, Known, by, changed, changed_from, given, normal, result};
use Category::{Activations, Gradients, Statistics, Weights};

pub(super) const ACTIVATIONS: [Activation; 6] = [
    Activation::GeluTanh,
    Activation::GeluErf,
    Activation::Relu,
    Activation::SwiGlu,
    Activation::GeGlu,
    Activation::ClampedSwiGlu,
];

/// Width of an activation's argument.
pub(super) fn inner(kind: Activation, f: usize) -> usize {
    kind.inner(f)
}

pub(super) fn list<B: Backend + 'static>(size: Size, to: &mut Vec<Case<B>>) {
    let mut dims = vec![(1, 1), (3, 19), (7, 64), (20, 33)];
    let mut lengths = vec![101, 10_001];
    if size == Size::Full {
        dims.push((1025, 3072));
        lengths.push((1 << 22) + 3);
    }
    for (n, f) in dims {
        to.extend(ACTIVATIONS.map(|kind| activation(kind, n, f)));
    }
    for len in lengths {
        to.extend([flat(len), dropout(len)]);
    }
}

/// How much more a gate's other half may be than its argument's magnitude.
pub(super) fn more(kind: Activation) -> f64 {
    if kind == Activation::ClampedSwiGlu { 1.0 } else { 0.0 }
}

/// What a gate is multiplied by before its sigmoid is taken, at most.
pub(super) fn steepness(kind: Activation) -> f64 {
    if kind == Activation::ClampedSwiGlu { 1.702 } else { 1.0 }
}

/// The slope of SwiGLU's and GELU's gate is below 1.13, and so is what it is computed from; errors are those of the function, of its
/// argument and of what it is multiplied by. A clamp is at the same numbers everywhere; its inputs are so far apart that some are beyond
/// it.
fn activation<B: Backend + 'static>(kind: Activation, n: usize, f: usize) -> Case<B> {
    let (wide, gated) = (inner(kind, f), kind.gated());
    let forward = by(move |b: &Known<'_>| {
        let x = |at: usize| f64::from(b.before[0][at].abs());
        let one = |i: usize| {
            if gated {
                FUNCTION * x(i / f * wide + i % f) * (x(i / f * wide + f + i % f) + more(kind))
            } else {
                FUNCTION * x(i)
            }
        };
        (0..n * f).map(one).collect()
    });
    let backward = by(move |b: &Known<'_>| {
        let x = |at: usize| f64::from(b.before[0][at].abs());
        let one = |i: usize| {
            let d = f64::from(b.before[1][i / wide * f + i % f].abs());
            let (gate, up) = if !gated {
                (i, None)
            } else if i % wide < f {
                (i, Some(i + f))
            } else {
                return FUNCTION * x(i - f) * d;
            };
            FUNCTION * (1.0 + steepness(kind) * x(gate)) * d * up.map_or(1.0, |up| x(up) + more(kind))
        };
        (0..n * wide).map(one).collect()
    });
    let spread = if kind == Activation::ClampedSwiGlu { 4.0 } else { 1.0 };
    let pre = normal(n * wide, 1).into_iter().map(|x| spread * x).collect();
    let slots = vec![
        changed_from("activation_backward", Activations, pre, backward),
        given(n * f, Activations),
        result("activation", n * f, Activations, forward),
    ];
    Case::new("activation", format!("N {n} F {f} {kind:?}"), n * f, slots, move |on: &B, b| {
        if let [pre, dout, out] = b {
            on.activation(kind, pre, out, n, f);
            on.activation_backward(kind, pre, dout, n, f);
        }
        Ok(())
    })
}

/// Copies within a format and between formats, of less than the whole; sums; fills, of a parameter too.
fn flat<B: Backend + 'static>(len: usize) -> Case<B> {
    let slots = vec![
        given(len, Activations),
        changed("copy", len, Activations, Allowed::Exactly),
        changed("copy", len, Statistics, Allowed::Exactly),
        given(len, Statistics),
        changed("copy", len, Activations, Allowed::Sum(1)),
        changed("add", len, Activations, Allowed::Sum(1)),
        changed("add", len, Gradients, Allowed::Sum(1)),
        given(len, Gradients),
        changed("fill", len, Weights, Allowed::Exactly),
        changed("fill", len, Activations, Allowed::Exactly),
    ];
    Case::new("copy", format!("{len} numbers"), len, slots, move |on: &B, b| {
        if let [a, same, wide, from_wide, narrow, sum, wide_sum, gradient, parameter, filled] = b {
            on.copy(a, same, len - 7);
            on.copy(a, wide, len);
            on.copy(from_wide, narrow, len - 5);
            on.add(a, sum, len - 3);
            on.add(gradient, wide_sum, len);
            on.fill(parameter, 0.5);
            on.fill(filled, -2.0);
        }
        Ok(())
    })
}

/// Which numbers fall is the same everywhere; those that stay are multiplied once.
fn dropout<B: Backend + 'static>(len: usize) -> Case<B> {
    let once = || by(|b: &Known<'_>| b.after[0].iter().map(|x| 2.0 * UNIT * f64::from(x.abs())).collect());
    let slots =
        vec![changed("dropout", len, Activations, once()), changed("dropout", len, Activations, Allowed::Exactly)];
    Case::new("dropout", format!("{len} numbers"), len, slots, move |on: &B, b| {
        if let [x, none] = b {
            on.dropout(x, len, Dropout { probability: 0.2, seed: 4, place: 3, part: 1 });
            on.dropout(none, len, Dropout { probability: 0.0, seed: 5, place: 0, part: 0 });
        }
        Ok(())
    })
}
