//! Mixtures of experts: where tokens go, and what the experts that they go to make of them.

use super::super::backend::{Backend, Category, ExpertDims, Experts, ExpertsBackward, LinearDims, Store};
use super::super::shape::Activation;
use super::Size;
use super::bounds::{FUNCTION, sum};
use super::case::{Allowed, Case, Known, below, by, changed, given, normal, result, room, scaled, these};
use super::experts_bounds::{Errors, Inputs, errors};
use Category::{Activations, Gradients, Statistics, Weights};
use std::sync::{Arc, OnceLock};

/// N, C, F, E, K; more experts than rows, rows of several tiles, widths that vectors divide and others.
const LAYERS: [(usize, usize, usize, usize, usize); 8] = [
    (1, 8, 8, 4, 2),
    (1, 136, 72, 3, 1),
    (7, 17, 9, 3, 3),
    (40, 24, 40, 2, 1),
    (33, 64, 136, 9, 2),
    (70, 13, 33, 5, 2),
    (150, 40, 24, 2, 1),
    (19, 8, 16, 70, 8),
];

/// Widths of real layers' order.
const LARGE: [(usize, usize, usize, usize, usize); 2] = [(300, 264, 200, 2, 1), (64, 512, 384, 8, 2)];

pub(super) fn list<B: Backend + 'static>(size: Size, to: &mut Vec<Case<B>>) {
    for (n, experts, per_token) in [(1, 2, 1), (3, 5, 5), (33, 8, 2), (65, 33, 4), (9, 128, 8), (4, 512, 6)] {
        for normalised in [true, false] {
            let d = ExpertDims { n, c: 1, f: 1, experts, per_token, normalised, kind: Activation::SwiGlu };
            to.extend([route(d), route_backward(d)]);
        }
    }
    for (n, k, m) in [(1, 8, 4), (33, 24, 8), (70, 40, 5)] {
        to.push(router_backward(LinearDims { n, k, m }));
    }
    let mut layers = LAYERS.to_vec();
    if size == Size::Full {
        layers.extend(LARGE);
    }
    let kinds = [Activation::SwiGlu, Activation::GeluTanh, Activation::ClampedSwiGlu, Activation::GeGlu];
    for ((n, c, f, experts, per_token), kind) in layers.into_iter().zip(kinds.into_iter().cycle()) {
        let d = ExpertDims { n, c, f, experts, per_token, normalised: true, kind };
        to.extend([layer(d, false), layer(d, true), layer_backward(d, false), layer_backward(d, true)]);
    }
}

pub(super) fn routing(d: ExpertDims) -> String {
    let ExpertDims { n, experts, per_token, normalised, .. } = d;
    format!("N {n} E {experts} K {per_token}{}", if normalised { "" } else { ", of all" })
}

/// Shares of each row's softmax, or of its chosen: and of those chosen.
fn shares(logits: &[f32], chosen: Option<&[u32]>) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f64> = logits.iter().map(|l| (f64::from(*l) - f64::from(largest)).exp()).collect();
    let total: f64 = chosen.map_or_else(|| e.iter().sum(), |chosen| chosen.iter().map(|c| e[*c as usize]).sum());
    e.into_iter().map(|e| e / total).collect()
}

/// Logits of which every second row has its largest three times.
pub(super) fn logits(d: ExpertDims) -> Vec<f32> {
    let mut logits = normal(d.n * d.experts, 7);
    for row in logits.chunks_exact_mut(d.experts).step_by(2) {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for at in [d.experts / 3, d.experts / 2, d.experts - 1] {
            row[at] = most;
        }
    }
    logits
}

/// Some experts for each token, no two the same.
pub(super) fn choice(d: ExpertDims) -> Vec<u32> {
    let (first, steps) = (below(d.n, d.experts as u32, 3), below(d.n, 7, 4));
    // From any on, by steps that go round without a place twice.
    let step = |t: usize| (1 + steps[t] as usize..).find(|s| gcd(*s, d.experts) == 1).unwrap_or(1);
    let of_slot = |t: usize, slot: usize| (first[t] as usize + slot * step(t)) % d.experts;
    (0..d.rows()).map(|i| of_slot(i / d.per_token, i % d.per_token) as u32).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Choices exactly; a weight is off by its exponential and its sum's, of itself.
fn route<B: Backend + 'static>(d: ExpertDims) -> Case<B> {
    let of_weights = by(move |b: &Known<'_>| {
        let relative = 2.0 * FUNCTION + sum(d.experts);
        b.after[2].iter().map(|w| relative * f64::from(*w)).collect()
    });
    let slots = vec![
        these(Statistics, logits(d)),
        result("route", d.rows(), Statistics, Allowed::Exactly),
        result("route", d.rows(), Statistics, of_weights),
    ];
    Case::new("route", routing(d), d.n * d.experts * d.per_token, slots, move |on: &B, b| {
        if let [logits, found, weights] = b {
            let mut chosen = on.alloc(d.rows(), Statistics)?;
            on.route(logits, &mut chosen, weights, d);
            let numbers: Vec<f32> = on.tokens(&chosen, d.rows()).into_iter().map(|c| c as f32).collect();
            on.upload(&numbers, found);
        }
        Ok(())
    })
}

/// p (g - mean), p being off by its exponential and its sum's of itself, the mean of p g by as much and its own sum.
fn route_backward<B: Backend + 'static>(d: ExpertDims) -> Case<B> {
    let ids = choice(d);
    let chosen = ids.clone();
    let off = by(move |b: &Known<'_>| {
        let relative = 2.0 * FUNCTION + sum(d.experts);
        let of_row = |r: usize| {
            let own = &chosen[r * d.per_token..][..d.per_token];
            let gradient = &b.before[1][r * d.per_token..][..d.per_token];
            let p = shares(&b.before[0][r * d.experts..][..d.experts], d.normalised.then_some(own));
            let magnitudes: f64 = own.iter().zip(gradient).map(|(c, g)| p[*c as usize] * f64::from(g.abs())).sum();
            let mut off = vec![magnitudes; d.experts];
            own.iter().zip(gradient).for_each(|(c, g)| off[*c as usize] += f64::from(g.abs()));
            let of_one = move |(e, off): (usize, f64)| p[e] * (2.0 * relative + sum(d.per_token)) * off;
            off.into_iter().enumerate().map(of_one).collect::<Vec<_>>()
        };
        (0..d.n).flat_map(of_row).collect()
    });
    let slots = vec![
        these(Statistics, normal(d.n * d.experts, 8)),
        given(d.rows(), Statistics),
        result("route_backward", d.n * d.experts, Statistics, off),
    ];
    Case::new("route_backward", routing(d), d.n * d.experts, slots, move |on: &B, b| {
        if let [logits, dweights, dlogits] = b {
            let mut chosen = on.alloc(d.rows(), Statistics)?;
            on.put_tokens(&ids, &mut chosen);
            on.route_backward(logits, &chosen, dweights, dlogits, d);
        }
        Ok(())
    })
}

/// Of products in buffer `of` with logits' gradients, which are not rounded to a factor's format beforehand.
fn of_logits(of: usize, terms: usize, onto: Option<usize>) -> Allowed {
    by(move |b: &Known<'_>| {
        let all = match onto {
            Some(at) => b.sums_before(of, terms, |i| b.before[at][i].abs()),
            None => b.sums(of, terms),
        };
        let of_factors = |off: f64| off / sum(terms) * b.format.factor();
        all.into_iter().zip(b.sums(of, terms)).map(|(all, off)| all + of_factors(off)).collect()
    })
}

/// The product that makes logits, backward.
fn router_backward<B: Backend + 'static>(d: LinearDims) -> Case<B> {
    let LinearDims { n, k, m } = d;
    let slots = vec![
        given(n * k, Activations),
        given(n * m, Statistics),
        given(m * k, Weights),
        result("linear_dw", m * k, Gradients, of_logits(3, n, None)),
        result("linear_dw", m, Gradients, Allowed::Sum(n)),
        result("linear_dw", m * k, Gradients, of_logits(5, n, None)),
        changed("linear_dx", n * k, Activations, of_logits(6, m + 1, Some(6))),
    ];
    Case::new("linear_dx", format!("of logits, N {n} K {k} M {m}"), 3 * n * k * m, slots, move |on: &B, b| {
        if let [x, dlogits, w, dw, dbias, alone, dx] = b {
            on.linear_dw(x, dlogits, dw, Some(dbias), d);
            on.linear_dw(x, dlogits, alone, None, d);
            on.linear_dx(dlogits, w, dx, Store::Accumulate, d);
        }
        Ok(())
    })
}

fn text(d: ExpertDims, biases: bool) -> String {
    let ExpertDims { n, c, f, experts, per_token, kind, .. } = d;
    format!("N {n} C {c} F {f} E {experts} K {per_token} {kind:?}{}", if biases { ", biases" } else { "" })
}

/// What a layer is given: tokens, matrices, biases (read where there are any), weights of tokens' experts, the gradient of the result.
fn inputs(d: ExpertDims) -> Vec<super::case::Slot> {
    let inner = d.kind.inner(d.f);
    vec![
        given(d.n * d.c, Activations),
        scaled(d.experts * inner * d.c, Weights, 1.0 / (d.c as f32).sqrt()),
        scaled(d.experts * d.c * d.f, Weights, 1.0 / (d.f as f32).sqrt()),
        given(d.experts * inner, Weights),
        given(d.experts * d.c, Weights),
        given(d.rows(), Statistics),
        given(d.n * d.c, Activations),
    ]
}

/// The errors that follow from [`inputs`], computed when the first result asks.
#[derive(Clone)]
struct Bounds {
    d: ExpertDims,
    biases: bool,
    known: Arc<OnceLock<Errors>>,
}

impl Bounds {
    fn new(d: ExpertDims, biases: bool) -> Self {
        Self { d, biases, known: Arc::default() }
    }

    fn of(&self, which: fn(&Errors) -> &Vec<f64>) -> Allowed {
        let (this, chosen) = (self.clone(), choice(self.d));
        by(move |b: &Known<'_>| {
            let [x, up, down, of_up, of_down, weights, dout] = std::array::from_fn(|i| b.before[i].as_slice());
            let biases = this.biases.then_some([of_up, of_down]);
            let inputs = Inputs { x, up, down, biases, chosen: &chosen, weights, dout };
            which(this.known.get_or_init(|| errors(&inputs, this.d, b.format))).clone()
        })
    }
}

fn layer<B: Backend + 'static>(d: ExpertDims, biases: bool) -> Case<B> {
    let mut slots = inputs(d);
    slots.extend([
        room(d.rows() * d.kind.inner(d.f), Activations),
        room(d.rows() * d.f, Activations),
        result("experts", d.n * d.c, Activations, Bounds::new(d, biases).of(|e| &e.out)),
    ]);
    let (ids, work) = (choice(d), 3 * d.rows() * d.c * d.f);
    Case::new("experts", text(d, biases), work, slots, move |on: &B, b| {
        if let [x, up, down, of_up, of_down, weights, _, pre, act, out] = b {
            let mut chosen = on.alloc(d.rows(), Statistics)?;
            on.put_tokens(&ids, &mut chosen);
            let biases = [&*of_up, &*of_down].map(|b| biases.then_some(b));
            on.experts(x, &Experts { up, down, biases, chosen: &chosen, weights, d }, pre, act, out);
        }
        Ok(())
    })
}

fn layer_backward<B: Backend + 'static>(d: ExpertDims, biases: bool) -> Case<B> {
    let inner = d.kind.inner(d.f);
    let bounds = Bounds::new(d, biases);
    let of = |len: usize, category: Category, which: fn(&Errors) -> &Vec<f64>| {
        result("experts_backward", len, category, bounds.of(which))
    };
    let mut slots = inputs(d);
    slots.extend([
        room(d.rows() * inner, Activations),
        room(d.rows() * d.f, Activations),
        room(d.n * d.c, Activations),
        of(d.experts * inner * d.c, Gradients, |e| &e.dup),
        of(d.experts * d.c * d.f, Gradients, |e| &e.ddown),
        of(d.n * d.c, Activations, |e| &e.dx),
        of(d.rows(), Statistics, |e| &e.dweights),
    ]);
    if biases {
        slots.extend([
            of(d.experts * inner, Gradients, |e| &e.dbiases[0]),
            of(d.experts * d.c, Gradients, |e| &e.dbiases[1]),
        ]);
    }
    let (ids, work) = (choice(d), 9 * d.rows() * d.c * d.f);
    Case::new("experts_backward", text(d, biases), work, slots, move |on: &B, b| {
        if let [x, up, down, of_up, of_down, weights, dout, pre, act, out, dup, ddown, dx, dweights, rest @ ..] = b {
            let mut chosen = on.alloc(d.rows(), Statistics)?;
            on.put_tokens(&ids, &mut chosen);
            let biases = [&*of_up, &*of_down].map(|b| biases.then_some(b));
            let of = Experts { up, down, biases, chosen: &chosen, weights, d };
            on.experts(x, &of, pre, act, out);
            let dbiases = if let [up, down] = rest { Some([up, down]) } else { None };
            on.experts_backward(x, &of, dout, ExpertsBackward { pre, act, dup, ddown, dbiases, dx, dweights });
        }
        Ok(())
    })
}
