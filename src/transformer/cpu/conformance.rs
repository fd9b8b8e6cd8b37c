//! Every operation of the fast backend against the oracle, at odd shapes.
//!
//! Tolerance: an f32 sum of K products is off by at most about sqrt(K) units of 2^-24 relative to the sum of magnitudes; with
//! K <= 4096 and the few functions behind it, 2e-5 of the largest result is ten times that.

use super::super::backend::*;
use super::super::random::Stream;
use super::super::shape::{Activation, Rope};
use super::super::{BackendKind, Dtype, OptimizerKind};
use super::array::Array;
use super::buffer::Buffer;
use super::naive::Naive;
use super::{Backend, Cpu};

const TOLERANCE: f32 = 2e-5;

fn random(len: usize, stream: u64) -> Array {
    let mut a = Array::zeros(len).unwrap();
    Stream::new(11, stream).fill_normal(&mut a, 1.0);
    a
}

fn same(what: &str, fast: &[f32], naive: &[f32]) {
    let scale = naive.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    for (i, (a, b)) in fast.iter().zip(naive).enumerate() {
        assert!((a - b).abs() <= TOLERANCE * scale, "{what}: element {i} is {a}, the oracle says {b} (scale {scale})");
    }
}

/// Runs an operation on both backends over equal inputs and compares every output.
fn both(what: &str, outputs: &[usize], run: impl Fn(&dyn Operation, &mut [Array])) {
    for threads in [1, 2, 3] {
        let fast = Cpu::new(threads, None).unwrap();
        let make = || -> Vec<Array> { outputs.iter().enumerate().map(|(i, n)| random(*n, 900 + i as u64)).collect() };
        let (mut a, mut b) = (make(), make());
        run(&fast, &mut a);
        run(&Naive, &mut b);
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            same(&format!("{what}, {threads} threads, output {i}"), a, b);
        }
    }
}

/// The backends as one type: the trait itself has an associated type and a generic method.
trait Operation {
    fn linear(&self, x: &Array, w: &Array, b: Option<&Array>, out: &mut Array, s: Store, d: LinearDims);
    fn linear_dx(&self, dy: &Array, w: &Array, dx: &mut Array, s: Store, d: LinearDims);
    fn linear_dw(&self, x: &Array, dy: &Array, dw: &mut Array, db: &mut Array, d: LinearDims);
    fn norm(&self, x: &Array, g: &Array, b: Option<&Array>, o: &mut [Array], d: NormDims);
    fn activation(&self, k: Activation, pre: &mut Array, dout: &Array, out: &mut Array, n: usize, f: usize);
    fn attention(&self, qkv: &Array, dout: &Array, o: &mut [Array], d: AttentionDims);
    fn cached(&self, qkv: &Array, o: &mut [Array], length: usize, d: AttentionDims, c: CacheDims);
    fn rope(&self, qkv: &mut Array, f: &Frequencies, first: usize, inverse: bool, d: AttentionDims);
    fn cross_entropy(&self, x: &Array, w: &Array, t: &[u32], o: &mut [Array], d: LinearDims);
    fn embed(&self, ids: &[u32], tokens: usize, table: &Array, pos: &Array, o: &mut [Array], c: usize);
    fn step(&self, u: &Update, g: &Array, o: &mut [Array]);
    fn dropout(&self, x: &mut Array, d: Dropout);
    fn squares(&self, x: &Array, t: &Array, dx: &mut Array, loss: &mut Array);
    fn experts(&self, inputs: [&Array; 5], o: &mut [Array], d: ExpertDims);
}

/// Runs an operation on copies of its inputs and outputs in a backend's own buffers, and brings the outputs back.
fn on<B: Backend, const I: usize, const O: usize>(
    backend: &B,
    inputs: [&Array; I],
    outputs: [&mut Array; O],
    run: impl FnOnce([&B::Buffer; I], [&mut B::Buffer; O]),
) {
    let placed = |array: &Array| {
        let mut buffer = backend.alloc(array.len(), Category::Activations).unwrap();
        backend.upload(array, &mut buffer);
        buffer
    };
    let ins = inputs.map(placed);
    let mut outs = outputs.each_ref().map(|o| placed(o));
    run(ins.each_ref(), outs.each_mut());
    for (from, to) in outs.iter().zip(outputs) {
        backend.download(from, 0, to);
    }
}

impl<B: Backend> Operation for B {
    fn experts(&self, [x, up, down, logits, dout]: [&Array; 5], o: &mut [Array], d: ExpertDims) {
        let [out, weights, dup, ddown, dx, dweights, dlogits] = o else { unreachable!() };
        let (inputs, outputs) = ([x, up, down, logits, dout], [out, weights, dup, ddown, dx, dweights, dlogits]);
        on(self, inputs, outputs, |[x, up, down, logits, dout], [out, weights, dup, ddown, dx, dweights, dlogits]| {
            let new = |len| self.alloc(len, Category::Activations).unwrap();
            let (mut chosen, mut pre) = (new(d.rows()), new(d.rows() * d.kind.inner(d.f)));
            let mut act = new(d.rows() * d.f);
            self.route(logits, &mut chosen, weights, d);
            let of = Experts { up, down, biases: [None; 2], chosen: &chosen, weights, d };
            Parts::experts(self, x, &of, &mut pre, &mut act, out);
            let to = ExpertsBackward { pre: &mut pre, act: &mut act, dup, ddown, dbiases: None, dx, dweights };
            self.experts_backward(x, &of, dout, to);
            self.route_backward(logits, &chosen, dweights, dlogits, d);
        });
    }
    fn linear(&self, x: &Array, w: &Array, b: Option<&Array>, out: &mut Array, s: Store, d: LinearDims) {
        match b {
            Some(b) => on(self, [x, w, b], [out], |[x, w, b], [out]| Backend::linear(self, x, w, Some(b), out, s, d)),
            None => on(self, [x, w], [out], |[x, w], [out]| Backend::linear(self, x, w, None, out, s, d)),
        }
    }
    fn linear_dx(&self, dy: &Array, w: &Array, dx: &mut Array, s: Store, d: LinearDims) {
        on(self, [dy, w], [dx], |[dy, w], [dx]| Backend::linear_dx(self, dy, w, dx, s, d));
    }
    fn linear_dw(&self, x: &Array, dy: &Array, dw: &mut Array, db: &mut Array, d: LinearDims) {
        on(self, [x, dy], [dw, db], |[x, dy], [dw, db]| Backend::linear_dw(self, x, dy, dw, Some(db), d));
    }
    fn norm(&self, x: &Array, g: &Array, b: Option<&Array>, o: &mut [Array], d: NormDims) {
        let [out, stats, dx, dg, db] = o else { unreachable!() };
        let dout = random(d.n * d.c, 5);
        on(
            self,
            [x, g, b.unwrap_or(g), &dout],
            [out, stats, dx, dg, db],
            |[x, g, bias, dout], [out, stats, dx, dg, db]| {
                Backend::norm(self, x, g, b.map(|_| bias), out, stats, d);
                Backend::norm_backward(self, x, g, stats, dout, dx, dg, Some(db), d);
            },
        );
    }
    fn activation(&self, k: Activation, pre: &mut Array, dout: &Array, out: &mut Array, n: usize, f: usize) {
        on(self, [dout], [pre, out], |[dout], [pre, out]| {
            Backend::activation(self, k, pre, out, n, f);
            Backend::activation_backward(self, k, pre, dout, n, f);
        });
    }
    fn attention(&self, qkv: &Array, dout: &Array, o: &mut [Array], d: AttentionDims) {
        let [out, lse, dqkv] = o else { unreachable!() };
        on(self, [qkv, dout], [out, lse, dqkv], |[qkv, dout], [out, lse, dqkv]| {
            Backend::attention(self, qkv, out, lse, d);
            self.attention_backward(qkv, out, dout, lse, dqkv, d);
        });
    }
    fn cached(&self, qkv: &Array, o: &mut [Array], length: usize, d: AttentionDims, c: CacheDims) {
        let [out, cache] = o else { unreachable!() };
        on(self, [qkv], [out, cache], |[qkv], [out, cache]| {
            self.cache_append(qkv, cache, length - 1, d, c);
            self.attention_cached(qkv, cache, out, None, length, d, c);
        });
    }
    fn rope(&self, qkv: &mut Array, f: &Frequencies, first: usize, inverse: bool, d: AttentionDims) {
        on(self, [], [qkv], |[], [qkv]| Backend::rope(self, qkv, f, first, inverse, d));
    }
    fn cross_entropy(&self, x: &Array, w: &Array, t: &[u32], o: &mut [Array], d: LinearDims) {
        let [dx, dw, loss] = o else { unreachable!() };
        on(self, [x, w], [dx, dw], |[x, w], [dx, dw]| {
            loss[0] = self.read_loss(Backend::cross_entropy(self, x, w, t, Some((dx, dw)), None, d));
            loss[1] = self.read_loss(Backend::cross_entropy(self, x, w, t, None, None, d));
        });
    }
    fn embed(&self, ids: &[u32], tokens: usize, table: &Array, pos: &Array, o: &mut [Array], c: usize) {
        let [out, dtable, dpos] = o else { unreachable!() };
        let dout = random(ids.len() * c, 3);
        on(self, [table, pos, &dout], [out, dtable, dpos], |[table, pos, dout], [out, dtable, dpos]| {
            Backend::embed(self, ids, tokens, 0, table, Some(pos), out, c);
            self.embed_backward(ids, tokens, 0, dout, dtable, Some(dpos), c);
        });
    }
    fn step(&self, u: &Update, g: &Array, o: &mut [Array]) {
        let [p, m, v] = o else { unreachable!() };
        v.iter_mut().for_each(|v| *v = v.abs());
        let len = p.len();
        on(self, [g], [p, m, v], |[g], [p, m, v]| {
            for step in 1..=3 {
                let moments = u.kind.moments(u.momentum);
                let (first, second) = ((moments > 0).then_some(&mut *m), (moments > 1).then_some(&mut *v));
                self.update(u, step, None, Updated { part: 0..len, parameter: p, gradient: g, first, second });
            }
        });
    }
    fn dropout(&self, x: &mut Array, d: Dropout) {
        let len = x.len();
        on(self, [], [x], |[], [x]| Backend::dropout(self, x, len, d));
    }
    fn squares(&self, x: &Array, t: &Array, dx: &mut Array, loss: &mut Array) {
        let len = x.len();
        on(self, [x, t], [dx], |[x, t], [dx]| {
            loss[0] = self.read_loss(self.mean_squared_error(x, t, Some(dx), len));
        });
    }
}

#[test]
fn linear_layers_agree_at_odd_shapes() {
    for (n, k, m) in [(1, 1, 1), (1, 33, 17), (3, 48, 65), (8, 100, 7), (9, 31, 129), (70, 257, 48), (130, 64, 200)] {
        let d = LinearDims { n, k, m };
        let (x, w, b, dy) = (random(n * k, 1), random(m * k, 2), random(m, 3), random(n * m, 4));
        for store in [Store::Overwrite, Store::Accumulate] {
            both(&format!("linear {d:?} {store:?}"), &[n * m, n * m], |o, out| {
                o.linear(&x, &w, Some(&b), &mut out[0], store, d);
                o.linear(&x, &w, None, &mut out[1], store, d);
            });
            both(&format!("linear_dx {d:?} {store:?}"), &[n * k], |o, out| o.linear_dx(&dy, &w, &mut out[0], store, d));
        }
        both(&format!("linear_dw {d:?}"), &[m * k, m], |o, out| {
            let [dw, db] = out else { unreachable!() };
            o.linear_dw(&x, &dy, dw, db, d);
        });
    }
}

#[test]
fn norms_agree_at_odd_shapes() {
    for (n, c) in [(1, 1), (3, 17), (5, 48), (33, 100), (7, 769)] {
        for rms in [false, true] {
            let d = NormDims { n, c, eps: 1e-5, rms, gain_offset: 0.0 };
            let (x, g, b) = (random(n * c, 1), random(c, 2), random(c, 3));
            both(&format!("norm {d:?}"), &[n * c, 2 * n, n * c, c, c], |o, out| {
                o.norm(&x, &g, (!rms).then_some(&b), out, d);
            });
        }
    }
}

#[test]
fn activations_agree() {
    for kind in Activation::ALL.iter().copied() {
        for (n, f) in [(1, 1), (3, 19), (7, 64), (20, 33)] {
            let inner = kind.inner(f);
            let dout = random(n * f, 1);
            both(&format!("{kind:?} {n} x {f}"), &[n * inner, n * f], |o, out| {
                let [pre, out] = out else { unreachable!() };
                o.activation(kind, pre, &dout, out, n, f);
            });
        }
    }
}

fn attention_dims() -> Vec<AttentionDims> {
    let mut all = Vec::new();
    for (batch, tokens, heads, kv_heads, head_dim) in
        [(1, 1, 1, 1, 2), (2, 7, 3, 3, 8), (1, 65, 4, 2, 16), (3, 130, 2, 1, 10), (1, 200, 6, 2, 64)]
    {
        for causal in [true, false] {
            all.push(AttentionDims { batch, tokens, heads, kv_heads, head_dim, causal, scores: Scores::default() });
        }
    }
    all
}

#[test]
fn attention_agrees_forward_and_backward() {
    for d in attention_dims() {
        let (qkv, dout) = (random(d.rows() * d.qkv_width(), 1), random(d.rows() * d.out_width(), 2));
        let sizes = [d.rows() * d.out_width(), d.rows() * d.heads, d.rows() * d.qkv_width()];
        both(&format!("{d:?}"), &sizes, |o, out| o.attention(&qkv, &dout, out, d));
    }
}

#[test]
fn attention_over_the_cache_agrees() {
    for d in attention_dims() {
        let capacity = d.tokens + 3;
        let c = CacheDims {
            batch: d.batch,
            kv_heads: d.kv_heads,
            head_dim: d.head_dim,
            capacity,
            element: CacheElement::F32,
        };
        let one = AttentionDims { tokens: 1, ..d };
        let qkv = random(d.batch * d.qkv_width(), 1);
        both(&format!("cached {d:?}"), &[d.batch * d.out_width(), c.len()], |o, out| {
            o.cached(&qkv, out, d.tokens, one, c);
        });
    }
}

/// Keys and values rounded to 8 bits are off by 2^-9 of themselves: values move the output by as much of the largest of them,
/// and keys move a score, so that shares move by e to twice that.
#[test]
fn attention_over_a_cache_of_16_bits_is_within_its_rounding() {
    for d in attention_dims() {
        let dims = |dtype: Dtype| CacheDims {
            batch: d.batch,
            kv_heads: d.kv_heads,
            head_dim: d.head_dim,
            capacity: d.tokens + 3,
            element: dtype.into(),
        };
        let one = AttentionDims { tokens: 1, ..d };
        let cpu = Cpu::new(2, None).unwrap().with_dtype(Dtype::Bf16);
        let zeros = |len: usize| Array::zeros(len).unwrap();
        let (mut exact, mut whole) = (zeros(d.batch * d.out_width()), zeros(dims(Dtype::F32).words()));
        let [mut rounded, mut half] =
            [d.batch * d.out_width(), dims(Dtype::Bf16).words()].map(|len| Buffer::Plain(zeros(len)));
        assert!(half.plain().len() <= whole.len().div_ceil(2));
        let mut longest = 0.0f32;
        for position in 0..d.tokens {
            let qkv = random(d.batch * d.qkv_width(), position as u64);
            Naive.cache_append(&qkv, &mut whole, position, one, dims(Dtype::F32));
            Naive.attention_cached(&qkv, &whole, &mut exact, None, position + 1, one, dims(Dtype::F32));
            let most = whole.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            // |q k| is at most the product of their lengths, which differ little between tokens of normal numbers.
            let square = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>();
            longest = qkv.chunks_exact(d.head_dim).map(square).fold(longest, f32::max);
            let score = 2f32.powi(-9) * longest / (d.head_dim as f32).sqrt();
            let bound = most * (2f32.powi(-9) + (2.0 * score).exp_m1()) + 1e-5;
            let qkv = Buffer::Plain(qkv);
            cpu.cache_append(&qkv, &mut half, position, one, dims(Dtype::Bf16));
            cpu.attention_cached(&qkv, &half, &mut rounded, None, position + 1, one, dims(Dtype::Bf16));
            for (a, b) in rounded.plain().iter().zip(exact.iter()) {
                assert!((a - b).abs() <= bound, "{d:?} at {position}: {a}, {b}, bound {bound}");
            }
        }
    }
}

#[test]
fn rotary_positions_agree_and_turn_back() {
    for d in attention_dims() {
        let f = Frequencies::new(&Rope { theta: 10_000.0, scaling: None }, d.head_dim);
        both(&format!("rope {d:?}"), &[d.rows() * d.qkv_width()], |o, out| o.rope(&mut out[0], &f, 100, false, d));
        let before = random(d.rows() * d.qkv_width(), 900);
        both("rope and back", &[before.len()], |o, out| {
            o.rope(&mut out[0], &f, 5, false, d);
            o.rope(&mut out[0], &f, 5, true, d);
            same("rotated back", &out[0], &before);
        });
    }
}

#[test]
fn the_loss_in_blocks_agrees_with_the_loss_at_once() {
    // 300 rows are two blocks.
    for (n, k, m) in [(1, 3, 2), (5, 16, 31), (300, 8, 33)] {
        let d = LinearDims { n, k, m };
        let (x, w) = (random(n * k, 1), random(m * k, 2));
        let targets: Vec<u32> = (0..n).map(|i| if i % 4 == 3 { IGNORED_TARGET } else { (i * 7 % m) as u32 }).collect();
        both(&format!("cross entropy {d:?}"), &[n * k, m * k, 2], |o, out| o.cross_entropy(&x, &w, &targets, out, d));
    }
}

#[test]
fn embeddings_updates_dropout_and_squares_agree() {
    let ids = [3u32, 0, 3, 6, 1, 2];
    both("embedding", &[6 * 5, 7 * 5, 4 * 5], |o, out| o.embed(&ids, 3, &random(35, 1), &random(20, 2), out, 5));
    for kind in OptimizerKind::ALL {
        for momentum in [0.0, 0.9] {
            let u = Update { momentum, learning_rate: 0.01, ..Update::new(*kind) };
            both(&format!("{u:?}"), &[101, 101, 101], |o, out| o.step(&u, &random(101, 7), out));
        }
    }
    both("dropout", &[10_001], |o, out| {
        o.dropout(&mut out[0], Dropout { probability: 0.2, seed: 4, place: 3, part: 0 })
    });
    both("squared error", &[333, 1], |o, out| {
        let [dx, loss] = out else { unreachable!() };
        o.squares(&random(333, 1), &random(333, 2), dx, loss);
    });
}

#[test]
fn backends_tell_their_names() {
    assert_eq!((Cpu::new(1, None).unwrap().kind(), Naive.kind()), (BackendKind::Cpu, BackendKind::Naive));
}

/// Routes and experts, forward and backward; few tokens leave experts without any.
#[test]
fn experts_agree() {
    for (n, c, f, experts, per_token) in [(1, 8, 5, 4, 2), (7, 17, 9, 3, 3), (40, 24, 33, 8, 2), (70, 16, 12, 5, 1)] {
        for (normalised, kind) in [(true, Activation::SwiGlu), (false, Activation::GeluTanh)] {
            let d = ExpertDims { n, c, f, experts, per_token, normalised, kind };
            let inner = kind.inner(f);
            let [x, up, down] = [n * c, experts * inner * c, experts * c * f].map(|len| random(len, len as u64));
            let (logits, dout) = (random(n * experts, 77), random(n * c, 78));
            let outs = [n * c, d.rows(), experts * inner * c, experts * c * f, n * c, d.rows(), n * experts];
            both(&format!("{d:?}"), &outs, |backend, o| backend.experts([&x, &up, &down, &logits, &dout], o, d));
        }
    }
}
