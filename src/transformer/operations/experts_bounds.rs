//! How far a layer of experts and its gradients may be off, number by number: the errors of `bounds` carried through the formulas,
//! each number with its own.
//!
//! With r = W x + b, a = f(r), s = V a + c of an expert and p the weight that a token gives it, g the gradient of the token's result:
//!
//! - the result is the sum of p s; dp is g s; the gradient of V is that of g p a, of c that of g p; da = p V g, dr = da f'(r), and
//!   those of W, b and x follow from dr;
//! - what is made on the way is stored, or rounded as a factor, whichever the backend does: r, a, s, V g, da, p a, dr, W dr;
//! - f carries an error on with its slope, at most 1.13, and f' with its own, at most 0.86 (GELU's at 0 is 0.80, the steepest gate's 1.702
//!   / 2); both are functions of [`FUNCTION`].

use super::super::backend::{Category, ExpertDims};
use super::super::cpu::naive_curves::{activate, other_half};
use super::bounds::{FUNCTION, Format, sum};

/// A number, and what it may be off by.
#[derive(Clone, Copy, Debug, Default)]
struct Near {
    value: f64,
    off: f64,
}

impl Near {
    fn exact(x: f32) -> Self {
        Self { value: f64::from(x), off: 0.0 }
    }

    fn largest(self) -> f64 {
        self.value.abs() + self.off
    }

    fn times(self, other: Self) -> Self {
        let off = self.value.abs() * other.off + other.value.abs() * self.off + self.off * other.off;
        Self { value: self.value * other.value, off }
    }

    /// Rounded with this relative error, once more.
    fn rounded(self, u: f64) -> Self {
        Self { off: self.off + u * self.largest(), ..self }
    }
}

/// A sum in f32.
fn total(terms: impl Iterator<Item = Near>) -> Near {
    let (mut all, mut magnitudes, mut count) = (Near::default(), 0.0, 0);
    for term in terms {
        all = Near { value: all.value + term.value, off: all.off + term.off };
        magnitudes += term.largest();
        count += 1;
    }
    Near { off: all.off + sum(count) * magnitudes, ..all }
}

/// What a layer is given.
pub(super) struct Inputs<'a> {
    pub x: &'a [f32],
    pub up: &'a [f32],
    pub down: &'a [f32],
    pub biases: Option<[&'a [f32]; 2]>,
    pub chosen: &'a [u32],
    pub weights: &'a [f32],
    pub dout: &'a [f32],
}

/// What results may be off by, before they are stored.
#[derive(Default)]
pub(super) struct Errors {
    pub out: Vec<f64>,
    pub dup: Vec<f64>,
    pub ddown: Vec<f64>,
    pub dbiases: [Vec<f64>; 2],
    pub dx: Vec<f64>,
    pub dweights: Vec<f64>,
}

/// One expert's part in one token, forward and backward.
struct Slot {
    act: Vec<Near>,
    said: Vec<Near>,
    /// Of the weight, of what is before the activation, and of the token.
    dweight: Near,
    dpre: Vec<Near>,
    dx: Vec<Near>,
}

/// The layer in f64, with errors.
struct Layer<'a> {
    i: &'a Inputs<'a>,
    d: ExpertDims,
    inner: usize,
    u: f64,
}

fn row(of: &[f32], i: usize, len: usize) -> &[f32] {
    &of[i * len..(i + 1) * len]
}

impl Layer<'_> {
    fn weight(&self, place: usize) -> Near {
        Near::exact(self.i.weights[place])
    }

    fn bias(&self, which: usize, e: usize, len: usize, o: usize) -> Near {
        self.i.biases.map_or(Near::default(), |b| Near::exact(b[which][e * len + o]))
    }

    /// Products of rows of a matrix of so many columns with `x`, each with its bias, which may be added to a product that is rounded.
    fn products(&self, w: &[f32], x: &[Near], bias: impl Fn(usize) -> Near) -> Vec<Near> {
        let one = |(o, w): (usize, &[f32])| {
            let product = total(w.iter().zip(x).map(|(w, x)| x.times(Near::exact(*w))));
            let product = if self.i.biases.is_some() { product.rounded(self.u) } else { product };
            total([product, bias(o)].into_iter()).rounded(self.u)
        };
        w.chunks_exact(x.len()).enumerate().map(one).collect()
    }

    /// Products of columns of a matrix with `g`.
    fn products_back(&self, w: &[f32], g: &[Near], columns: usize) -> Vec<Near> {
        let of_column = |j: usize| total(g.iter().enumerate().map(|(o, g)| g.times(Near::exact(w[o * columns + j]))));
        (0..columns).map(|j| of_column(j).rounded(self.u)).collect()
    }

    /// The function of the `j`-th argument, and its gradient given that of its result: of the argument, and of a gate's other half.
    fn activated(&self, pre: &[Near], j: usize, da: Near) -> (Near, [Near; 2]) {
        let (x, kind) = (pre[j], self.d.kind);
        let (value, slope) = activate(kind, x.value);
        let f = Near { value, off: 1.13 * x.off + FUNCTION * x.largest() };
        let df = Near { value: slope, off: 0.86 * x.off + FUNCTION * (1.0 + x.largest()) };
        if !kind.gated() {
            return (f.rounded(self.u), [da.times(df).rounded(self.u), Near::default()]);
        }
        let (other, of_other) = other_half(kind, pre[self.d.f + j].value);
        let other = Near { value: other, off: pre[self.d.f + j].off };
        let dother = da.times(f).times(Near { value: of_other, off: 0.0 });
        (f.times(other).rounded(self.u), [da.times(df).times(other), dother].map(|g| g.rounded(self.u)))
    }

    fn slot(&self, place: usize) -> Slot {
        let ExpertDims { c, f, per_token, .. } = self.d;
        let (token, e, p) = (place / per_token, self.i.chosen[place] as usize, self.weight(place));
        let exact = |of: &[f32]| row(of, token, c).iter().map(|x| Near::exact(*x)).collect::<Vec<_>>();
        let (x, dout) = (exact(self.i.x), exact(self.i.dout));
        let (up, down) = (row(self.i.up, e, self.inner * c), row(self.i.down, e, c * f));
        let pre = self.products(up, &x, |o| self.bias(0, e, self.inner, o));
        let along = self.products_back(down, &dout, f);
        let mut act = Vec::with_capacity(f);
        let mut dpre = vec![Near::default(); self.inner];
        for (j, along) in along.iter().enumerate() {
            let (a, [of_gate, of_other]) = self.activated(&pre, j, along.times(p).rounded(self.u));
            act.push(a);
            dpre[j] = of_gate;
            if self.d.kind.gated() {
                dpre[f + j] = of_other;
            }
        }
        let of_bias = dout.iter().enumerate().map(|(o, g)| g.times(self.bias(1, e, c, o)));
        let dweight = total(act.iter().zip(&along).map(|(a, g)| a.times(*g)).chain(of_bias));
        let said = self.products(down, &act, |o| self.bias(1, e, c, o));
        let dx = self.products_back(up, &dpre, c);
        Slot { act, said, dweight, dpre, dx }
    }

    /// What the sums over an expert's rows of products, of a factor in [0, m) and one in [0, k), are off by.
    fn by_expert(&self, m: usize, k: usize, term: impl Fn(usize, usize, usize) -> Near) -> Vec<f64> {
        let mut all = Vec::with_capacity(self.d.experts * m * k);
        for e in 0..self.d.experts as u32 {
            let places: Vec<usize> = (0..self.d.rows()).filter(|place| self.i.chosen[*place] == e).collect();
            let one = |i: usize| total(places.iter().map(|place| term(*place, i / k, i % k))).off;
            all.extend((0..m * k).map(one));
        }
        all
    }

    /// What the sums over a token's slots are off by.
    fn by_token(&self, term: impl Fn(usize, usize) -> Near) -> Vec<f64> {
        let ExpertDims { n, c, per_token, .. } = self.d;
        let one = |i: usize| total((0..per_token).map(|slot| term(i / c * per_token + slot, i % c))).off;
        (0..n * c).map(one).collect()
    }
}

/// Of all results.
pub(super) fn errors(i: &Inputs<'_>, d: ExpertDims, format: Format) -> Errors {
    let u = format.stored(Category::Activations).max(format.factor());
    let layer = Layer { i, d, inner: d.kind.inner(d.f), u };
    let slots: Vec<Slot> = (0..d.rows()).map(|place| layer.slot(place)).collect();
    let token = |of: &[f32], place: usize, column: usize| Near::exact(of[place / d.per_token * d.c + column]);
    let weighted = |place: usize, x: Near| x.times(layer.weight(place)).rounded(u);
    Errors {
        out: layer.by_token(|place, o| slots[place].said[o].times(layer.weight(place))),
        dup: layer.by_expert(layer.inner, d.c, |place, o, j| slots[place].dpre[o].times(token(i.x, place, j))),
        ddown: layer
            .by_expert(d.c, d.f, |place, o, j| weighted(place, slots[place].act[j]).times(token(i.dout, place, o))),
        dbiases: [
            layer.by_expert(layer.inner, 1, |place, o, _| slots[place].dpre[o]),
            layer.by_expert(d.c, 1, |place, o, _| weighted(place, token(i.dout, place, o))),
        ],
        dx: layer.by_token(|place, j| slots[place].dx[j]),
        dweights: slots.iter().map(|s| s.dweight.off).collect(),
    }
}
