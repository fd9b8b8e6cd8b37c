//! Every operation of the backend against the oracle at odd shapes, its kernels run by the host. The kernels have tests of their
//! own beside them; this is about what is made of them.
//!
//! Tolerance: inputs are rounded to the format beforehand, so that with f32 sums only results are rounded, by 2^-9 of themselves in
//! bf16; a result that two rounded ones are multiplied for (SwiGLU's gate, through a slope of 1.1, and its other half) is off by
//! 3.1 of these. In f32 as on the CPU, 2e-5 of the largest.

use super::super::backend::*;
use super::super::collective::alone::Alone;
use super::super::cpu::naive::Naive;
use super::super::random::Stream;
use super::super::shape::{Activation, Rope};
use super::super::{BackendKind, OptimizerKind};
use super::host::HostDevice;
use super::*;
use Category::{Activations, Gradients, KvCache, Optimizer, Statistics, Weights};
use half::bf16;

fn numbers(len: usize, stream: u64, dtype: Dtype) -> Vec<f32> {
    let mut host = vec![0.0; len];
    Stream::new(13, stream).fill_normal(&mut host, 1.0);
    if dtype == Dtype::Bf16 {
        host.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
    }
    host
}

fn filled<B: Backend>(on: &B, len: usize, category: Category, from: &[f32]) -> B::Buffer {
    let mut buffer = on.alloc(len, category).unwrap();
    on.upload(from, &mut buffer);
    buffer
}

fn host<B: Backend>(on: &B, buffer: &B::Buffer, len: usize) -> Vec<f32> {
    let mut host = vec![0.0; len];
    on.download(buffer, 0, &mut host);
    host
}

fn same(what: &str, dtype: Dtype, ours: &[f32], theirs: &[f32]) {
    let tolerance = if dtype == Dtype::Bf16 { 3.5 * 2f32.powi(-9) } else { 2e-5 };
    let scale = theirs.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!(
            (a - b).abs() <= tolerance * scale,
            "{what} {dtype}: element {i} is {a}, the oracle says {b} ({scale})"
        );
    }
}

/// Runs the same operations on both backends over the same buffers (length and category each), and compares all of them.
macro_rules! both {
    ($what:expr, [$($shape:expr),+ $(,)?], |$on:ident, [$($name:ident),+ $(,)?]| $body:block) => {
        let Some(host_device) = HostDevice::new() else { return };
        both!(Arc::new(host_device), $what, [$($shape),+], |$on, [$($name),+]| $body);
    };
    ($device:expr, $what:expr, [$($shape:expr),+ $(,)?], |$on:ident, [$($name:ident),+ $(,)?]| $body:block) => {
        let device: Arc<dyn Device> = $device;
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let cuda = Cuda::on_device(Arc::clone(&device), dtype).unwrap();
            let ours = both!(@run &cuda, dtype, [$($shape),+], |$on, [$($name),+]| $body);
            Backend::check(&cuda).unwrap();
            let theirs = both!(@run &Naive, dtype, [$($shape),+], |$on, [$($name),+]| $body);
            for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
                same(&format!("{}, buffer {i}", $what), dtype, a, b);
            }
        }
    };
    (@run $backend:expr, $dtype:expr, [$($shape:expr),+], |$on:ident, [$($name:ident),+ $(,)?]| $body:block) => {{
        let $on = $backend;
        let shapes = [$($shape),+];
        let mut all = (1..).zip(shapes).map(|(i, (len, category))| filled($on, len, category, &numbers(len, i, $dtype)));
        $(
            #[allow(unused_mut)]
            let mut $name = all.next().unwrap();
        )+
        $body
        let lengths = shapes.iter().map(|(len, _)| *len);
        [$(&$name),+].into_iter().zip(lengths).map(|(b, len)| host($on, b, len)).collect::<Vec<_>>()
    }};
}

#[test]
fn linear_layers_and_their_ends_agree() {
    for (n, k, m) in [(1, 1, 1), (3, 48, 65), (9, 31, 40), (70, 57, 48)] {
        let d = LinearDims { n, k, m };
        let (x, out) = ((n * k, Activations), (n * m, Activations));
        for into in [Store::Overwrite, Store::Accumulate] {
            both!(format!("linear {d:?} {into:?}"), [x, (m * k, Weights), (m, Weights), out, x], |on,
                                                                                                  [
                x,
                w,
                b,
                out,
                dx,
            ]| {
                on.linear(&x, &w, Some(&b), &mut out, into, d);
                on.linear_dx(&out, &w, &mut dx, into, d);
            });
        }
        both!(
            format!("linear_plus {d:?}"),
            [x, (m * k, Weights), (m, Weights), out, out],
            |on, [x, w, b, plus, out]| {
                on.linear_plus(&x, &w, Some(&b), &plus, &mut out, d);
            }
        );
        both!(format!("linear_dw {d:?}"), [x, out, (m * k, Gradients), (m, Gradients)], |on, [x, dout, dw, db]| {
            on.linear_dw(&x, &dout, &mut dw, Some(&mut db), d);
        });
        // gpt-oss's adds 1 to a factor, which may leave nothing but its rounding: the list of operations has it, with a bound of its own.
        for kind in Activation::ALL.iter().copied().filter(|kind| *kind != Activation::ClampedSwiGlu) {
            let inner = kind.inner(m);
            let d = LinearDims { n, k, m: inner };
            both!(
                format!("{kind:?} {d:?}"),
                [x, (inner * k, Weights), (inner, Weights), (n * inner, Activations), out],
                |on, [x, w, b, pre, hidden]| {
                    on.linear_activation(kind, &x, &w, Some(&b), &mut pre, &mut hidden, d);
                }
            );
            both!(format!("{kind:?} alone {d:?}"), [(n * inner, Activations), out, out], |on, [pre, hidden, dout]| {
                on.activation(kind, &pre, &mut hidden, n, m);
                on.activation_backward(kind, &mut pre, &dout, n, m);
            });
        }
    }
}

/// In one product each where the device does that, and in several where it does not.
#[test]
fn gradients_of_linear_layers_agree_fused_and_not() {
    let (Some(fusing), Some(plain)) = (HostDevice::new(), HostDevice::without_epilogues()) else { return };
    let (fusing, plain) = (Arc::new(fusing), Arc::new(plain));
    for host in [&fusing, &plain] {
        // Widths that cuBLASLt takes an activation's argument of, and others.
        for (n, k, m) in [(1, 8, 1), (5, 48, 65), (9, 31, 40), (70, 56, 33), (3, 1, 7)] {
            let d = LinearDims { n, k, m };
            let (wide, out, weight) = ((n * k, Activations), (n * m, Activations), (m * k, Weights));
            both!(
                Arc::clone(host) as Arc<dyn Device>,
                format!("linear_dw {d:?}"),
                [wide, out, (m * k, Gradients), (m, Gradients), (m * k, Gradients)],
                |on, [x, dout, dw, db, alone]| {
                    on.linear_dw(&x, &dout, &mut dw, Some(&mut db), d);
                    on.linear_dw(&x, &dout, &mut alone, None, d);
                }
            );
            for kind in Activation::ALL.iter().copied() {
                let inner = n * kind.inner(k);
                both!(
                    Arc::clone(host) as Arc<dyn Device>,
                    format!("linear_dx_activation {kind:?} {d:?}"),
                    [out, weight, (inner, Activations), wide],
                    |on, [dout, w, pre, hidden]| {
                        on.linear_dx_activation(kind, &dout, &w, &mut pre, &mut hidden, d);
                        // Undefined afterwards, and not necessarily the same memory.
                        on.fill(&mut hidden, 0.0);
                    }
                );
            }
        }
    }
    // Weights with a bias at 5 shapes in 2 formats; GELU in bf16 at 3 widths that divide by 8.
    assert_eq!((fusing.fused(), plain.fused()), (5 * 2 + 3, 0));
}

#[test]
fn norms_agree() {
    for (n, c) in [(1, 1), (5, 48), (7, 769)] {
        for rms in [false, true] {
            let d = NormDims { n, c, eps: 1e-5, rms, gain_offset: 0.0 };
            let x = (n * c, Activations);
            both!(format!("{d:?}"), [x, (c, Weights), (c, Weights), x, (2 * n, Statistics)], |on,
                                                                                              [
                x,
                g,
                b,
                out,
                stats,
            ]| {
                on.norm(&x, &g, (!rms).then_some(&b), &mut out, &mut stats, d);
            });
            let of = (c, Gradients);
            both!(format!("backward {d:?}"), [x, (c, Weights), x, x, of, of], |on, [x, g, dout, dx, dg, db]| {
                let (mut out, mut stats) =
                    (on.alloc(n * c, Activations).unwrap(), on.alloc(2 * n, Statistics).unwrap());
                on.norm(&x, &g, None, &mut out, &mut stats, d);
                on.norm_backward(&x, &g, &stats, &dout, &mut dx, &mut dg, (!rms).then_some(&mut db), d);
            });
        }
    }
}

#[test]
fn attention_rope_and_the_cache_agree() {
    for (batch, tokens, heads, kv_heads, head_dim) in [(2, 7, 3, 3, 8), (1, 65, 4, 2, 16), (1, 40, 2, 1, 10)] {
        let d = AttentionDims { batch, tokens, heads, kv_heads, head_dim, causal: true, scores: Scores::default() };
        let (qkv, out) = ((d.rows() * d.qkv_width(), Activations), (d.rows() * d.out_width(), Activations));
        both!(format!("{d:?}"), [qkv, out, (d.rows() * heads, Statistics)], |on, [qkv, out, lse]| {
            on.attention(&qkv, &mut out, &mut lse, d);
        });
        both!(format!("backward {d:?}"), [qkv, out, qkv], |on, [qkv, dout, dqkv]| {
            let mut out = on.alloc(d.rows() * d.out_width(), Activations).unwrap();
            let mut lse = on.alloc(d.rows() * heads, Statistics).unwrap();
            on.attention(&qkv, &mut out, &mut lse, d);
            on.attention_backward(&qkv, &out, &dout, &lse, &mut dqkv, d);
        });
        let f = Frequencies::new(&Rope { theta: 10_000.0, scaling: None }, head_dim);
        for inverse in [false, true] {
            both!(format!("rope {d:?}"), [qkv], |on, [qkv]| { on.rope(&mut qkv, &f, 100, inverse, d) });
        }
        let one = AttentionDims { tokens: 1, ..d };
        let (row, result) = ((batch * d.qkv_width(), Activations), (batch * d.out_width(), Activations));
        both!(format!("cached {d:?}"), [qkv, row, result], |on, [prompt, qkv, out]| {
            let c = CacheDims { batch, kv_heads, head_dim, capacity: tokens + 3, element: on.dtype().into() };
            let mut cache = on.alloc(c.words(), KvCache).unwrap();
            on.cache_append(&prompt, &mut cache, 0, d, c);
            on.cache_append(&qkv, &mut cache, tokens, one, c);
            on.attention_cached(&qkv, &cache, &mut out, None, tokens + 1, one, c);
        });
    }
}

#[test]
fn losses_agree_in_one_block_and_in_several() {
    for (n, k, m) in [(1, 3, 2), (5, 16, 31), (300, 8, 33)] {
        let d = LinearDims { n, k, m };
        let targets: Vec<u32> = (0..n).map(|i| if i % 4 == 3 { IGNORED_TARGET } else { (i * 7 % m) as u32 }).collect();
        let (x, w) = ((n * k, Activations), (m * k, Weights));
        both!(format!("cross entropy {d:?}"), [x, w, x, (m * k, Gradients), (2, Statistics)], |on,
                                                                                               [
            x,
            w,
            dx,
            dw,
            loss,
        ]| {
            let with = on.read_loss(on.cross_entropy(&x, &w, &targets, Some((&mut dx, &mut dw)), None, d));
            let without = on.read_loss(on.cross_entropy(&x, &w, &targets, None, None, d));
            on.upload(&[with, without], &mut loss);
        });
    }
    let x = (333, Activations);
    both!("squared error", [x, x, x, (1, Statistics)], |on, [x, t, dx, loss]| {
        let error = on.read_loss(on.mean_squared_error(&x, &t, Some(&mut dx), 333));
        on.upload(&[error], &mut loss);
    });
}

#[test]
fn embeddings_rows_and_flat_operations_agree() {
    let ids = [3u32, 0, 3, 6, 1, 2];
    let (out, table, positions) = ((30, Activations), (35, Weights), (20, Weights));
    both!("embed", [table, positions, out, (30, Activations), (6, Statistics)], |on, [t, p, out, again, tokens]| {
        on.embed(&ids, 3, 1, &t, Some(&p), &mut out, 5);
        on.put_tokens(&ids, &mut tokens);
        assert_eq!(on.tokens(&tokens, 6), ids);
        on.embed_tokens(Tokens::Placed(&tokens), 6, 3, 0, &t, None, &mut again, 5);
    });
    both!("embed_backward", [out, (35, Gradients), (20, Gradients)], |on, [dout, dt, dp]| {
        on.embed_backward(&ids, 3, 0, &dout, &mut dt, Some(&mut dp), 5);
    });
    both!("last rows", [(30, Activations), (10, Activations)], |on, [x, out]| { on.last_rows(&x, &mut out, 2, 3, 5) });
    both!("argmax", [(60, Statistics), (3, Statistics)], |on, [x, tokens]| {
        on.argmax_into(&x, 3, 20, &mut tokens);
        assert_eq!(on.tokens(&tokens, 3), on.argmax(&x, 3, 20));
    });
    both!("flat", [(101, Activations), (101, Activations), (9, Weights)], |on, [a, b, c]| {
        on.copy(&a, &mut b, 40);
        on.add(&a, &mut b, 77);
        on.fill(&mut c, 0.5);
    });
    both!("change of format", [(101, Activations), (101, Statistics), (101, Activations)], |on, [a, wide, b]| {
        on.copy(&a, &mut wide, 101);
        on.copy(&wide, &mut b, 99);
    });
    both!("dropout", [(10_001, Activations)], |on, [x]| {
        on.dropout(&mut x, 10_001, Dropout { probability: 0.2, seed: 4, place: 3, part: 1 });
    });
}

#[test]
fn updates_agree_whole_and_in_part() {
    for kind in OptimizerKind::ALL {
        for momentum in [0.0, 0.9] {
            let u = Update { momentum, learning_rate: 0.01, ..Update::new(*kind) };
            for part in [0..101, 16..77] {
                let (p, g, m) = ((101, Weights), (101, Gradients), (part.len(), Optimizer));
                both!(format!("{u:?} {part:?}"), [p, g, m, m], |on, [p, g, m, v]| {
                    let mut square = host(on, &v, part.len());
                    square.iter_mut().for_each(|v| *v = v.abs());
                    on.upload(&square, &mut v);
                    for step in 1..=3 {
                        let moments = u.kind.moments(u.momentum);
                        let (first, second) = ((moments > 0).then_some(&mut m), (moments > 1).then_some(&mut v));
                        let part = part.clone();
                        on.update(&u, step, None, Updated { part, parameter: &mut p, gradient: &g, first, second });
                    }
                });
            }
        }
    }
}

#[test]
fn matrices_of_inference_come_in_pieces() {
    let Some(device) = HostDevice::new() else { return };
    let cuda = Cuda::on_device(Arc::new(device), Dtype::Bf16).unwrap();
    // Rows of 1.5 M elements: three at a time.
    let (rows, columns) = (5, 3 << 19);
    let mut next = 0u32;
    let mut write = |rows: &mut [f32]| {
        rows.iter_mut().for_each(|x| {
            *x = (next % 251) as f32;
            next += 1;
        });
    };
    let buffer = cuda.weights(1, rows, columns, &mut write).unwrap();
    let got = host(&cuda, &buffer, rows * columns);
    assert!(got.iter().enumerate().all(|(i, x)| *x == (i % 251) as f32));
    assert_eq!(cuda.kind(), BackendKind::Cuda);
    let alone: &dyn super::super::collective::Collective<Buffer> = &Alone;
    assert_eq!(alone.size(), 1);
}
