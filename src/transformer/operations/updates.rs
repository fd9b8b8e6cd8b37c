//! Optimizer steps: of a whole parameter, of a part, of several at once, and what is read of the parameter afterwards.

use super::super::OptimizerKind;
use super::super::backend::{Backend, Category, Clipping, Update, Updated};
use super::Size;
use super::bounds::UNIT;
use super::case::{Case, Known, by, changed, changed_from, given, normal, result, these};
use Category::{Activations, Gradients, Optimizer, Statistics, Weights};
use std::ops::Range;

pub(super) fn list<B: Backend + 'static>(size: Size, to: &mut Vec<Case<B>>) {
    let mut parts = vec![(101, 0..101), (101, 16..77), (5000, 3..4999)];
    if size == Size::Full {
        parts.push(((1 << 21) + 5, 0..(1 << 21) + 5));
    }
    for kind in OptimizerKind::ALL {
        for (momentum, keras) in [(0.0, false), (0.9, true)] {
            let u = Update { momentum, learning_rate: 0.01, eps_before_correction: keras, ..Update::new(*kind) };
            for (len, part) in parts.clone() {
                to.extend([1, 1000].map(|step| update(u, step, len, part.clone())));
            }
            to.extend([None, Some(0.3)].map(|largest| several(u, largest)));
        }
    }
}

fn text(u: &Update, step: u32) -> String {
    let momentum = if u.momentum > 0.0 && u.kind == OptimizerKind::Sgd { ", momentum" } else { "" };
    let keras = if u.eps_before_correction && u.kind == OptimizerKind::Adam { ", as Keras" } else { "" };
    format!("{} step {step}{momentum}{keras}", u.kind)
}

/// What a parameter may be off by: roundings of itself, of what is taken off it, and what the first moment is off by, of which the
/// step is a multiple. `buffers` are the parameter's, the gradient's and the first moment's.
fn of_parameter(b: &Known<'_>, buffers: [usize; 3], moments: usize, part: &Range<usize>) -> Vec<f64> {
    let [parameter, gradient, moment] = buffers;
    let at = |all: &[Vec<f32>], buffer: usize, i: usize| f64::from(all[buffer][i]);
    let one = |i: usize| {
        if !part.contains(&i) {
            return 0.0;
        }
        let (before, after) = (at(b.before, parameter, i), at(b.after, parameter, i));
        let off = 4.0 * UNIT * (before.abs() + after.abs()) + 32.0 * UNIT * (after - before).abs();
        if moments == 0 {
            return off + 4.0 * UNIT * at(b.before, gradient, i).abs();
        }
        let (old, new) = (at(b.before, moment, i - part.start), at(b.after, moment, i - part.start));
        let of_moment = 4.0 * UNIT * (old.abs() + at(b.before, gradient, i).abs());
        off + (after - before).abs() * of_moment / new.abs().max(f64::from(f32::MIN_POSITIVE))
    };
    (0..b.before[parameter].len()).map(one).collect()
}

/// What a moment may be off by: the first is linear in the gradient, the second in its square or its magnitude.
fn of_moment(b: &Known<'_>, buffers: [usize; 2], second: bool, part: &Range<usize>) -> Vec<f64> {
    let [moment, gradient] = buffers;
    let one = |(i, old): (usize, &f32)| {
        let g = f64::from(b.before[gradient][part.start + i].abs());
        4.0 * UNIT * (f64::from(old.abs()) + g + if second { g * g + 1e-7 } else { 0.0 })
    };
    b.before[moment].iter().enumerate().map(one).collect()
}

/// Second moments are not negative.
fn squares(len: usize, stream: u64) -> Vec<f32> {
    normal(len, stream).into_iter().map(f32::abs).collect()
}

/// The parameter is looked up in afterwards, a number a row: in bf16 what is read is another copy.
fn update<B: Backend + 'static>(u: Update, step: u32, len: usize, part: Range<usize>) -> Case<B> {
    let moments = u.kind.moments(u.momentum);
    let of = || {
        let part = part.clone();
        by(move |b: &Known<'_>| of_parameter(b, [0, 1, 2], moments, &part))
    };
    let moment = |at: usize| {
        let part = part.clone();
        by(move |b: &Known<'_>| of_moment(b, [at, 1], at == 3, &part))
    };
    let slots = vec![
        changed("update", len, Weights, of()),
        given(len, Gradients),
        changed("update", part.len(), Optimizer, moment(2)),
        changed_from("update", Optimizer, squares(part.len(), 8), moment(3)),
        result("update", len, Activations, of()),
    ];
    let shape = format!("{}, {} to {} of {len}", text(&u, step), part.start, part.end);
    Case::new("update", shape, len, slots, move |on: &B, b| {
        if let [parameter, gradient, first, second, read] = b {
            let (first, second) = ((moments > 0).then_some(first), (moments > 1).then_some(second));
            let one = Updated { part: part.clone(), parameter: &mut *parameter, gradient, first, second };
            on.update(&u, step, None, one);
            let ids: Vec<u32> = (0..len as u32).collect();
            on.embed(&ids, len, 0, parameter, None, read, 1);
        }
        Ok(())
    })
}

/// Parameters of a step at once: small and large, whole and in part; gradients as they are, or scaled down from a norm of 2. Bounds are of
/// the gradients as they are: those of what is a part of them, 0.15, are below by more than the factor's roundings.
fn several<B: Backend + 'static>(u: Update, largest: Option<f32>) -> Case<B> {
    let parts = [(3usize, 0..3usize), (7001, 0..7001), (64, 16..48), (1, 0..1)];
    let moments = u.kind.moments(u.momentum);
    let mut slots = Vec::new();
    for (i, (len, part)) in parts.iter().enumerate() {
        let (base, part) = (4 * i, part.clone());
        let of_part = [part.clone(), part.clone(), part.clone()];
        let [for_parameter, for_first, for_second] = of_part;
        let of = by(move |b: &Known<'_>| of_parameter(b, [base, base + 1, base + 2], moments, &for_parameter));
        let first = by(move |b: &Known<'_>| of_moment(b, [base + 2, base + 1], false, &for_first));
        let second = by(move |b: &Known<'_>| of_moment(b, [base + 3, base + 1], true, &for_second));
        slots.extend([
            changed("update_many", *len, Weights, of),
            given(*len, Gradients),
            changed("update_many", part.len(), Optimizer, first),
            changed_from("update_many", Optimizer, squares(part.len(), 9 + i as u64), second),
        ]);
    }
    slots.push(these(Statistics, vec![4.0]));
    let clipped = largest.map_or(String::new(), |largest| format!(", clipped to {largest}"));
    Case::new("update_many", format!("{}{clipped}", text(&u, 2)), 8000, slots, move |on: &B, b| {
        let Some((squares, b)) = b.split_last_mut() else { return Ok(()) };
        let clip = largest.map(|largest| Clipping { squares: &*squares, largest });
        let mut all = Vec::new();
        for (four, (_, part)) in b.chunks_exact_mut(4).zip(&parts) {
            if let [parameter, gradient, first, second] = four {
                let (first, second) = ((moments > 0).then_some(first), (moments > 1).then_some(second));
                all.push(Updated { part: part.clone(), parameter, gradient: &*gradient, first, second });
            }
        }
        on.update_many(&u, 2, clip, all);
        Ok(())
    })
}
