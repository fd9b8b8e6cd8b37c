//! Layers of experts: tokens are grouped by the experts that they go to, and the experts multiply their own in one pass over all
//! (`product::grouped`). No expert is padded to the fullest, and none without tokens is read.

use super::super::backend::{ExpertDims, Experts, ExpertsBackward, LinearDims};
use super::activation;
use super::buffer::Buffer;
use super::math::dot;
use super::matmul::{few_rows, is_streamed};
use super::pool::{Pool, Scratch, reading, writing};
use super::product::grouped::{self, Pair, by_columns, by_rows};
use super::product::{Onto, PackedWeight, Precision, Right, Target, View};
use super::rows;
use std::ops::Range;

/// Where the rows of each expert are, and which token and slot each row is of.
pub(super) struct Groups {
    /// Rows of expert `e`: `starts[e]..starts[e + 1]`.
    starts: Vec<usize>,
    /// `token * K + slot`, by row.
    order: Vec<usize>,
}

impl Groups {
    /// From the experts chosen, `[N, K]`, in the order of the tokens within each.
    pub(super) fn of(chosen: &[f32], d: ExpertDims) -> Self {
        let experts = || chosen[..d.rows()].iter().map(|c| (c.to_bits() as usize).min(d.experts - 1));
        let mut starts = vec![0; d.experts + 1];
        experts().for_each(|e| starts[e + 1] += 1);
        (0..d.experts).for_each(|e| starts[e + 1] += starts[e]);
        let (mut next, mut order) = (starts.clone(), vec![0; d.rows()]);
        for (place, e) in experts().enumerate() {
            order[next[e]] = place;
            next[e] += 1;
        }
        Self { starts, order }
    }

    /// Experts that have rows, with them.
    fn each(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        (0..self.starts.len() - 1).map(|e| (e, self.starts[e]..self.starts[e + 1])).filter(|(_, rows)| !rows.is_empty())
    }

    /// The row of each token and slot.
    fn places(&self) -> Vec<usize> {
        let mut places = vec![0; self.order.len()];
        self.order.iter().enumerate().for_each(|(row, place)| places[*place] = row);
        places
    }

    /// Rows of `[N, C]` for each of ours.
    fn gather<'p>(&self, pool: &'p Pool, x: &[f32], d: ExpertDims) -> Scratch<'p> {
        let mut to = pool.scratch(d.rows() * d.c);
        rows::take(pool, x, &mut to, (d.rows(), d.c), |row| self.order[row] / d.per_token);
        to
    }
}

/// Matrices `[M, K]` of all experts.
#[derive(Clone, Copy)]
pub(super) enum Matrices<'a> {
    /// `[E * M, K]`
    Plain(&'a [f32]),
    /// One each, in panels; inference alone has them.
    Packed(&'a [PackedWeight]),
}

/// Weights of all experts, and their biases `[E * M]`.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    pub w: Matrices<'a>,
    pub bias: Option<&'a [f32]>,
    pub m: usize,
    pub k: usize,
}

impl<'a> Weights<'a> {
    fn new(w: &'a Buffer, bias: Option<&'a [f32]>, m: usize, k: usize) -> Self {
        let w = match w {
            Buffer::Experts(each) => Matrices::Packed(each),
            Buffer::Packed(one) => Matrices::Packed(std::slice::from_ref(one)),
            w => Matrices::Plain(w.plain()),
        };
        Self { w, bias, m, k }
    }

    /// Of one expert, row by row.
    fn plain(&self, e: usize) -> View<'_> {
        let all = if let Matrices::Plain(all) = self.w { all } else { &[] };
        View::dense(&all[e * self.m * self.k..][..self.m * self.k], self.m, self.k)
    }
}

/// `out [rows, M] = x [rows, K] w[M, K]^T + bias` for each expert's rows and weights.
fn grouped(pool: &Pool, precision: Precision, g: &Groups, x: &[f32], w: Weights, out: &mut [f32]) {
    let Weights { k, m, .. } = w;
    let bias = |e: usize| w.bias.map(|b| &b[e * m..][..m]);
    let streamed = |rows: &Range<usize>| matches!(w.w, Matrices::Plain(_)) && is_streamed(rows.len(), precision);
    for (e, rows) in g.each().filter(|(_, rows)| streamed(rows)) {
        let (x, out) = (&x[rows.start * k..rows.end * k], &mut out[rows.start * m..rows.end * m]);
        few_rows(pool, x, w.plain(e).data, bias(e), out, false, LinearDims { n: rows.len(), k, m });
    }
    let all = Target::new(out, m);
    let pair = |(e, rows): (usize, Range<usize>)| {
        let b = match w.w {
            Matrices::Packed(each) => Right::Packed(&each[e]),
            Matrices::Plain(_) => Right::View(w.plain(e).transposed()),
        };
        let a = View::dense(&x[rows.start * k..rows.end * k], rows.len(), k);
        Pair { a, b, onto: bias(e).map_or(Onto::Nothing, Onto::Bias), to: all.at(rows.start * m) }
    };
    let pairs: Vec<Pair> = g.each().filter(|(_, rows)| !streamed(rows)).map(pair).collect();
    // SAFETY: `out` is borrowed exclusively for the call, and the experts' rows in it do not overlap.
    unsafe { by_columns(pool, precision, &pairs) };
}

/// `dx [rows, K] = dout [rows, M] w[M, K]` for each expert's rows and weights.
fn grouped_back(pool: &Pool, precision: Precision, g: &Groups, dout: &[f32], w: Weights, dx: &mut [f32]) {
    let Weights { k, m, .. } = w;
    let all = Target::new(dx, k);
    let pair = |(e, rows): (usize, Range<usize>)| {
        let a = View::dense(&dout[rows.start * m..rows.end * m], rows.len(), m);
        Pair { a, b: Right::View(w.plain(e)), onto: Onto::Nothing, to: all.at(rows.start * k) }
    };
    let pairs: Vec<Pair> = g.each().map(pair).collect();
    // SAFETY: `dx` is borrowed exclusively for the call, and the experts' rows in it do not overlap.
    unsafe { by_columns(pool, precision, &pairs) };
}

/// The experts chosen and their weights, `[N, K]` each.
#[derive(Clone, Copy)]
pub(super) struct Routed<'a> {
    pub chosen: &'a [f32],
    pub weights: &'a [f32],
}

/// First and second products, and routes of a layer, in host memory.
pub(super) fn parts<'a>(of: &Experts<'a, Buffer>) -> ([Weights<'a>; 2], Routed<'a>) {
    let [up, down] = of.biases.map(|b| b.map(Buffer::plain));
    let (c, f) = (of.d.c, of.d.f);
    let up = Weights::new(of.up, up, of.d.kind.inner(f), c);
    let down = Weights::new(of.down, down, c, f);
    ([up, down], Routed { chosen: of.chosen.plain(), weights: of.weights.plain() })
}

pub(super) fn forward(
    pool: &Pool,
    precision: Precision,
    x: &[f32],
    ([up, down], routed): ([Weights; 2], Routed),
    [pre, act, out]: [&mut [f32]; 3],
    d: ExpertDims,
) {
    let g = Groups::of(routed.chosen, d);
    let mut rows = g.gather(pool, x, d);
    grouped(pool, precision, &g, &rows, up, pre);
    activation::forward(pool, d.kind, pre, act, d.rows(), d.f);
    grouped(pool, precision, &g, act, down, &mut rows);
    let weights = &routed.weights[..d.rows()];
    rows::sum(pool, &rows, out, &g.places(), (d.per_token, d.c), |place| weights[place]);
}

/// What the backward pass reads.
#[derive(Clone, Copy)]
pub(super) struct SavedExperts<'a> {
    pub x: &'a [f32],
    pub of: ([Weights<'a>; 2], Routed<'a>),
    pub dout: &'a [f32],
}

/// What it writes: `pre` becomes its gradient, `act` is room.
pub(super) struct ExpertGradients<'a> {
    pub pre: &'a mut [f32],
    pub act: &'a mut [f32],
    pub dup: &'a mut [f32],
    pub ddown: &'a mut [f32],
    pub dbiases: Option<[&'a mut [f32]; 2]>,
    pub dx: &'a mut [f32],
    pub dweights: &'a mut [f32],
}

/// Buffers in host memory.
pub(super) fn gradients(to: ExpertsBackward<'_, Buffer>) -> ExpertGradients<'_> {
    let ExpertsBackward { pre, act, dup, ddown, dbiases, dx, dweights } = to;
    let dbiases = dbiases.map(|b| b.map(Buffer::plain_mut));
    let (pre, act, dx) = (pre.plain_mut(), act.plain_mut(), dx.plain_mut());
    ExpertGradients {
        pre,
        act,
        dx,
        dbiases,
        dup: dup.plain_mut(),
        ddown: ddown.plain_mut(),
        dweights: dweights.plain_mut(),
    }
}

pub(super) fn backward(pool: &Pool, precision: Precision, s: SavedExperts, to: ExpertGradients, d: ExpertDims) {
    let ExpertGradients { pre, act, dup, ddown, dbiases, dx, dweights } = to;
    let ([up, down], routed) = s.of;
    let g = Groups::of(routed.chosen, d);
    activation::forward(pool, d.kind, pre, act, d.rows(), d.f);
    let mut douts = g.gather(pool, s.dout, d);
    let mut dact = pool.scratch(d.rows() * d.f);
    grouped_back(pool, precision, &g, &douts, down, &mut dact);
    weigh(pool, &g, [&mut dact, &mut douts], act, (down.bias, routed.weights), dweights, d);
    weight_gradients(pool, precision, &g, &douts, act, ddown, (d.c, d.f));
    activation::backward(pool, d.kind, pre, &dact, d.rows(), d.f);
    if let Some([of_up, of_down]) = dbiases {
        bias_gradients(&g, pre, of_up, up.m);
        bias_gradients(&g, &douts, of_down, down.m);
    }
    let mut rows = g.gather(pool, s.x, d);
    weight_gradients(pool, precision, &g, pre, &rows, dup, (up.m, d.c));
    grouped_back(pool, precision, &g, pre, up, &mut rows);
    rows::sum(pool, &rows, dx, &g.places(), (d.per_token, d.c), |_| 1.0);
}

/// The gradient of the weights, and gradients `[dact, douts]` weighted by them: with what an expert says weighted by w, the gradient
/// of w is that of its result along it, `act dact + bias dout`, before they are weighted.
fn weigh(
    pool: &Pool,
    g: &Groups,
    [dact, douts]: [&mut [f32]; 2],
    act: &[f32],
    (bias, weights): (Option<&[f32]>, &[f32]),
    dweights: &mut [f32],
    d: ExpertDims,
) {
    let mut experts = vec![0; d.rows()];
    g.each().for_each(|(e, rows)| experts[rows].fill(e));
    let share = pool.share(d.rows(), 16);
    let mut of_weights = pool.scratch(d.rows());
    let gradients =
        (writing(&mut dact[..d.rows() * d.f], share * d.f), writing(&mut douts[..d.rows() * d.c], share * d.c));
    let parts = (gradients, (writing(&mut of_weights, share), reading(&act[..d.rows() * d.f], share * d.f)));
    pool.over(parts, |part, ((dact, douts), (of_weights, act))| {
        let rows = dact.chunks_exact_mut(d.f).zip(douts.chunks_exact_mut(d.c));
        let saved = of_weights.iter_mut().zip(act.chunks_exact(d.f));
        for (i, ((dact, dout), (of_weight, act))) in rows.zip(saved).enumerate() {
            let row = part * share + i;
            let of_bias = bias.map_or(0.0, |b| dot(&b[experts[row] * d.c..][..d.c], dout));
            *of_weight = dot(act, dact) + of_bias;
            let by = weights[g.order[row]];
            dact.iter_mut().chain(dout).for_each(|x| *x *= by);
        }
    });
    g.order.iter().zip(of_weights.iter()).for_each(|(place, g)| dweights[*place] = *g);
}

/// Column sums of each expert's rows.
fn bias_gradients(g: &Groups, dout: &[f32], to: &mut [f32], m: usize) {
    to.fill(0.0);
    for (e, rows) in g.each() {
        let to = &mut to[e * m..][..m];
        dout[rows.start * m..rows.end * m]
            .chunks_exact(m)
            .for_each(|row| to.iter_mut().zip(row).for_each(|(t, d)| *t += d));
    }
}

/// `dw[e] [M, K] = dout[e]^T x[e]` for every expert, zero where it has no rows.
fn weight_gradients(
    pool: &Pool,
    precision: Precision,
    g: &Groups,
    dout: &[f32],
    x: &[f32],
    dw: &mut [f32],
    (m, k): (usize, usize),
) {
    let ends = g.starts.windows(2).enumerate();
    ends.filter(|(_, ends)| ends[0] == ends[1]).for_each(|(e, _)| dw[e * m * k..][..m * k].fill(0.0));
    let all = Target::new(dw, k);
    let pair = |(e, rows): (usize, Range<usize>)| {
        let dout = View::dense(&dout[rows.start * m..rows.end * m], rows.len(), m);
        let x = View::dense(&x[rows.start * k..rows.end * k], rows.len(), k);
        Pair { a: dout.transposed(), b: Right::View(x), onto: Onto::Nothing, to: all.at(e * m * k) }
    };
    let pairs: Vec<Pair> = g.each().map(pair).collect();
    // SAFETY: `dw` is borrowed exclusively for the call, and each expert has its own part of it.
    unsafe { by_rows(pool, precision, &pairs) };
}

/// Elements of scratch that forward and backward passes take.
pub(super) fn scratch_len(d: ExpertDims, training: bool) -> usize {
    let forward = d.rows() * d.c;
    if training { 2 * forward + d.rows() * (d.f + 1) } else { forward }
}

/// Words of scratch that they pack the operands of their products into.
pub(super) fn packed_len(threads: usize, d: ExpertDims, training: bool) -> usize {
    let (rows, inner) = (d.rows(), d.kind.inner(d.f));
    let columns = |k: usize| grouped::scratch_words(threads, rows, d.experts, k);
    let forward = columns(d.c).max(columns(d.f));
    if !training {
        return forward;
    }
    let of_weights = |m: usize, k: usize| grouped::scratch_words_of_outer(rows, d.experts, m, k);
    [forward, columns(inner), of_weights(d.c, d.f), of_weights(inner, d.c)].into_iter().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::{Alloc, Backend, Parts, Store};
    use super::super::super::operands::Category;
    use super::super::super::random::{Normals, Stream};
    use super::super::super::shape::Activation;
    use super::super::super::{Dtype, WeightFormat};
    use super::super::Cpu;
    use super::*;

    const D: ExpertDims =
        ExpertDims { n: 7, c: 72, f: 40, experts: 3, per_token: 2, normalised: true, kind: Activation::SwiGlu };

    fn numbers(rows: usize, columns: usize, seed: u64) -> Vec<f32> {
        let mut all = vec![0.0; rows * columns];
        Normals::first(Stream::new(seed, 0), 0.3, all.len()).fill(0, &mut all);
        all
    }

    fn plain(on: &Cpu, of: &[f32]) -> Buffer {
        let mut to = on.alloc(of.len(), Category::Weights).unwrap();
        on.upload(of, &mut to);
        to
    }

    fn fed(of: &[f32], make: impl FnOnce(&mut dyn FnMut(&mut [f32]))) {
        let mut at = 0;
        make(&mut |rows| {
            rows.copy_from_slice(&of[at..at + rows.len()]);
            at += rows.len();
        });
        assert_eq!(at, of.len(), "every row was asked for once");
    }

    /// What experts say, and what their first products gave.
    fn said(on: &Cpu, up: &Buffer, down: &Buffer, x: &Buffer) -> (Vec<f32>, Vec<f32>) {
        // Expert 1 has no token, 2 one alone.
        let places = [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0u32];
        let chosen = plain(on, &places.map(f32::from_bits));
        let weights = plain(on, &[0.25; 14]);
        let inner = D.kind.inner(D.f);
        let [mut pre, mut act, mut out] =
            [D.rows() * inner, D.rows() * D.f, D.n * D.c].map(|len| on.alloc(len, Category::Activations).unwrap());
        let of = Experts { up, down, biases: [None; 2], chosen: &chosen, weights: &weights, d: D };
        on.experts(x, &of, &mut pre, &mut act, &mut out);
        (out.plain()[..D.n * D.c].to_vec(), pre.plain()[..D.rows() * inner].to_vec())
    }

    #[test]
    fn experts_in_panels_say_what_those_row_by_row_do() {
        let inner = D.kind.inner(D.f);
        let x = numbers(D.n, D.c, 1);
        let (up, down) = (numbers(D.experts * inner, D.c, 2), numbers(D.experts * D.c, D.f, 3));
        // Both round the same factors; with 8 bits the rows would not, so that there the product of one matrix alone is the measure.
        let formats = [
            (Dtype::F32, WeightFormat::Dtype, Some(2e-6)),
            (Dtype::Bf16, WeightFormat::Dtype, Some(2e-6)),
            (Dtype::F32, WeightFormat::Int8, None),
            (Dtype::F32, WeightFormat::F8, None),
            (Dtype::Bf16, WeightFormat::F8, None),
        ];
        for (dtype, weights, relative) in formats {
            let on = Cpu::new(2, None).unwrap().with_dtype(dtype).with_weights(weights);
            let packed = |of: &[f32], rows: usize, columns: usize| {
                let mut made = None;
                fed(of, |next| made = Some(on.weights(D.experts, rows, columns, next).unwrap()));
                made.unwrap()
            };
            let x = plain(&on, &x);
            let (of_panels, first) = said(&on, &packed(&up, inner, D.c), &packed(&down, D.c, D.f), &x);
            if let Some(relative) = relative {
                let (of_rows, _) = said(&on, &plain(&on, &up), &plain(&on, &down), &x);
                let largest = of_rows.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                for (p, r) in of_panels.iter().zip(&of_rows) {
                    assert!((p - r).abs() <= relative * largest, "{dtype:?}: {p} of panels, {r} of rows");
                }
            }
            // Expert 2's one row, the last: the very product of a matrix by itself.
            let mut alone = None;
            fed(&up[2 * inner * D.c..], |next| alone = Some(on.weights(1, inner, D.c, next).unwrap()));
            let mut one = on.alloc(inner, Category::Activations).unwrap();
            let row = plain(&on, &x.plain()[2 * D.c..3 * D.c]);
            on.linear(&row, &alone.unwrap(), None, &mut one, Store::Overwrite, LinearDims { n: 1, k: D.c, m: inner });
            assert_eq!(&first[13 * inner..], one.plain(), "{dtype:?} {weights:?}");
        }
    }
}
