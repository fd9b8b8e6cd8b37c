//! Routes by rules: sigmoids, corrections, groups, and weights that are multiplied.

use super::super::backend::{Backend, Category, ExpertDims};
use super::super::shape::{Activation, Routing, Scoring};
use super::Size;
use super::bounds::{FUNCTION, sum};
use super::case::{Allowed, Case, Known, by, given, normal, result, these};
use super::experts::{choice, logits, routing};
use Category::{Statistics, Weights};

pub(super) fn list<B: Backend + 'static>(_: Size, to: &mut Vec<Case<B>>) {
    let rule = |scoring, corrected, groups, groups_per_token| Routing {
        scoring,
        groups,
        groups_per_token,
        scale: 1.7,
        corrected,
    };
    let (softmax, sigmoid) = (Scoring::Softmax, Scoring::Sigmoid);
    for (n, experts, per_token, rule) in [
        (1, 8, 2, rule(sigmoid, false, 1, 1)),
        (33, 16, 4, rule(sigmoid, true, 4, 2)),
        (70, 64, 6, rule(softmax, false, 8, 3)),
        (9, 128, 8, rule(softmax, true, 1, 1)),
        // As DeepSeek-V3; more groups than lanes, each of one expert; as many as there are.
        (17, 256, 8, rule(sigmoid, true, 8, 4)),
        (5, 40, 3, rule(sigmoid, true, 40, 5)),
        (4, 512, 6, rule(softmax, true, 2, 2)),
    ] {
        for normalised in [true, false] {
            let d = ExpertDims { n, c: 1, f: 1, experts, per_token, normalised, kind: Activation::SwiGlu };
            to.extend([route_by(d, rule), route_by_backward(d, rule)]);
        }
    }
}

fn text(d: ExpertDims, by: Routing) -> String {
    let Routing { scoring, groups, groups_per_token, corrected, .. } = by;
    let correction = if corrected { ", corrected" } else { "" };
    format!("{}, {scoring:?}, {groups_per_token} of {groups} groups{correction}", routing(d))
}

/// What a row's scores may be off by, each of itself: its function and the sum of a softmax.
fn relative(d: ExpertDims) -> f64 {
    2.0 * FUNCTION + sum(d.experts)
}

/// Choices exactly; a weight is off by its score, and by what it is divided by, of itself.
fn route_by<B: Backend + 'static>(d: ExpertDims, rule: Routing) -> Case<B> {
    let of_weights = by(move |b: &Known<'_>| {
        b.after[3].iter().map(|w| (2.0 * relative(d) + sum(d.per_token)) * f64::from(*w)).collect()
    });
    let slots = vec![
        these(Statistics, logits(d)),
        given(d.experts, Weights),
        result("route_by", d.rows(), Statistics, Allowed::Exactly),
        result("route_by", d.rows(), Statistics, of_weights),
    ];
    Case::new("route_by", text(d, rule), d.n * d.experts * d.per_token, slots, move |on: &B, b| {
        if let [logits, correction, found, weights] = b {
            let mut chosen = on.alloc(d.rows(), Statistics)?;
            let correction = rule.corrected.then_some(&*correction);
            on.route_by(logits, correction, &mut chosen, weights, (d, rule));
            let numbers: Vec<f32> = on.tokens(&chosen, d.rows()).into_iter().map(|c| c as f32).collect();
            on.upload(&numbers, found);
        }
        Ok(())
    })
}

/// Of each expert of a row what its weight would be, before it is multiplied.
fn shares(logits: &[f32], own: &[u32], d: ExpertDims, rule: Routing) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let score = |l: f32| match rule.scoring {
        Scoring::Softmax => (f64::from(l) - f64::from(largest)).exp(),
        Scoring::Sigmoid => 1.0 / (1.0 + (-f64::from(l)).exp()),
    };
    let scores: Vec<f64> = logits.iter().map(|l| score(*l)).collect();
    let total = match (d.normalised, rule.scoring) {
        (true, _) => own.iter().map(|c| scores[*c as usize]).sum(),
        (false, Scoring::Softmax) => scores.iter().sum::<f64>(),
        (false, Scoring::Sigmoid) => 1.0,
    };
    scores.into_iter().map(|s| s / total).collect()
}

/// p (1 - s) (g - mean) of a sigmoid s, p (g - mean) of a softmax: p is off by its score and its sum, of itself, 1 - s by s's error, the
/// mean of p g by as much as p and by its own sum.
fn route_by_backward<B: Backend + 'static>(d: ExpertDims, rule: Routing) -> Case<B> {
    let ids = choice(d);
    let chosen = ids.clone();
    let off = by(move |b: &Known<'_>| {
        let of_row = |r: usize| {
            let own = &chosen[r * d.per_token..][..d.per_token];
            let gradient = &b.before[1][r * d.per_token..][..d.per_token];
            let p = shares(&b.before[0][r * d.experts..][..d.experts], own, d, rule);
            let magnitudes: f64 = own.iter().zip(gradient).map(|(c, g)| p[*c as usize] * f64::from(g.abs())).sum();
            let mut off = vec![magnitudes; d.experts];
            own.iter().zip(gradient).for_each(|(c, g)| off[*c as usize] += f64::from(g.abs()));
            let all = f64::from(rule.scale) * (4.0 * relative(d) + sum(d.per_token));
            off.into_iter().zip(p).map(|(off, p)| off * p * all).collect::<Vec<_>>()
        };
        (0..d.n).flat_map(of_row).collect()
    });
    let slots = vec![
        these(Statistics, normal(d.n * d.experts, 8)),
        given(d.rows(), Statistics),
        result("route_by_backward", d.n * d.experts, Statistics, off),
    ];
    Case::new("route_by_backward", text(d, rule), d.n * d.experts, slots, move |on: &B, b| {
        if let [logits, dweights, dlogits] = b {
            let mut chosen = on.alloc(d.rows(), Statistics)?;
            on.put_tokens(&ids, &mut chosen);
            on.route_by_backward(logits, &chosen, dweights, dlogits, (d, rule));
        }
        Ok(())
    })
}
