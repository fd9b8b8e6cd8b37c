//! Attention's kernels, run on the host, against the oracle.
//!
//! Tolerance in bf16: every rounding moves an element, of 8 significant bits, by at most u = 2^-8 of itself. What the oracle computes is sums of products;
//! a factor that the kernels round moves such a sum by at most u times the sum of the products' magnitudes. Rounded are: P in
//! `out = P V` and `dV = P^T dO`; dS in `dK` and `dQ`; `out` in delta, which moves dS by up to P u sum |dO out|; and each result.
//! The magnitudes are computed beside the oracle. f32 sums add 2e-5 of the largest result, as elsewhere.

use super::super::super::backend::{Backend, Scores};
use super::super::super::cpu::array::Array;
use super::super::super::cpu::naive::Naive;
use super::super::host::{HostDevice, random, rounded};
use super::*;

const U: f64 = 1.0 / 256.0;

/// What the oracle says, and how far off a kernel that rounds to bf16 may be.
struct Expected {
    out: Vec<f32>,
    lse: Vec<f32>,
    dqkv: Vec<f32>,
    off_out: Vec<f64>,
    off_dqkv: Vec<f64>,
}

fn array(from: &[f32]) -> Array {
    let mut a = Array::zeros(from.len()).unwrap();
    a.copy_from_slice(from);
    a
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

fn expected(qkv: &[f32], dout: &[f32], d: AttentionDims) -> Expected {
    let (rows, width, dim) = (d.rows(), d.qkv_width(), d.head_dim);
    let (q, go) = (array(qkv), array(dout));
    let (mut out, mut lse) = (array(&vec![0.0; rows * d.out_width()]), array(&vec![0.0; rows * d.heads]));
    let mut dqkv = array(&vec![0.0; rows * width]);
    Naive.attention(&q, &mut out, &mut lse, d);
    Naive.attention_backward(&q, &out, &go, &lse, &mut dqkv, d);
    let mut off_out: Vec<f64> = out.iter().map(|x| U * f64::from(x.abs())).collect();
    let mut off_dqkv: Vec<f64> = dqkv.iter().map(|x| U * f64::from(x.abs())).collect();
    let scale = 1.0 / (dim as f64).sqrt();
    for (r, h) in (0..rows).flat_map(|r| (0..d.heads).map(move |h| (r, h))) {
        let group = h / (d.heads / d.kv_heads);
        let (k, v) = ((d.heads + group) * dim, (d.heads + d.kv_heads + group) * dim);
        let (first, t) = (r / d.tokens * d.tokens, r % d.tokens);
        let query = &qkv[r * width + h * dim..][..dim];
        let result = r * d.out_width() + h * dim;
        let (o, g) = (&out[result..][..dim], &dout[result..][..dim]);
        let delta = dot(o, g);
        let off_delta: f64 = U * o.iter().zip(g).map(|(o, g)| f64::from((o * g).abs())).sum::<f64>();
        for s in first..first + if d.causal { t + 1 } else { d.tokens } {
            let (key, value) = (&qkv[s * width + k..][..dim], &qkv[s * width + v..][..dim]);
            let p = (dot(query, key) * scale - f64::from(lse[r * d.heads + h])).exp();
            let off_ds = p * (U * (dot(g, value) - delta).abs() + off_delta) * scale;
            for i in 0..dim {
                off_out[result + i] += U * p * f64::from(value[i].abs());
                off_dqkv[s * width + v + i] += U * p * f64::from(g[i].abs());
                off_dqkv[s * width + k + i] += off_ds * f64::from(query[i].abs());
                off_dqkv[r * width + h * dim + i] += off_ds * f64::from(key[i].abs());
            }
        }
    }
    Expected { out: out.to_vec(), lse: lse.to_vec(), dqkv: dqkv.to_vec(), off_out, off_dqkv }
}

/// Whether each element is within `off`, where the format rounds, and what f32 sums may be off by.
fn near(what: &str, real: Real, got: &[f32], want: &[f32], off: &[f64]) -> Result<(), String> {
    let sums = 2e-5 * f64::from(want.iter().fold(1e-3f32, |m, x| m.max(x.abs())));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let bound = sums + if real == Real::Bf16 { off.get(i).copied().unwrap_or(0.0) } else { 0.0 };
        let apart = f64::from((g - w).abs());
        if apart.is_nan() || apart > bound {
            return Err(format!(
                "{what}: element {i} is {g}, the oracle says {w}, {apart:.1e} apart, bound {bound:.1e}"
            ));
        }
    }
    Ok(())
}

fn check(on: &HostDevice, real: Real, path: Path, d: AttentionDims) {
    agreement(on, real, path, d).unwrap_or_else(|e| panic!("{path:?} {real:?} {d:?} {e}"));
}

/// Both passes against the oracle; what is apart.
pub(super) fn agreement(on: &HostDevice, real: Real, path: Path, d: AttentionDims) -> Result<(), String> {
    let (rows, width, out_width) = (d.rows(), d.qkv_width(), d.out_width());
    let qkv = rounded(real, random(rows * width, 1));
    let dout = rounded(real, random(rows * out_width, 2));
    let want = expected(&qkv, &dout, d);

    let mut all = Vec::new();
    let mut put = |real: Real, numbers: &[f32]| {
        let at = on.put(real, numbers);
        all.push((at, numbers.len() * real.size()));
        at
    };
    // NaN wherever a kernel has to write.
    let b = Backward {
        qkv: put(real, &qkv),
        out: put(real, &vec![f32::NAN; rows * out_width]),
        dout: put(real, &dout),
        lse: put(Real::F32, &vec![f32::NAN; rows * d.heads]),
        dqkv: put(real, &vec![f32::NAN; rows * width]),
        workspace: put(Real::F32, &vec![f32::NAN; backward_workspace_bytes(&d) / 4]),
    };
    forward_by(path, on, real, [b.qkv, b.out, b.lse], Context::own(b.qkv, real, &d), &d);
    // Beyond 128, tensor cores have the forward pass alone.
    backward_by(if matches!(path, Path::TensorCores(192 | 256)) { Path::Rows(8) } else { path }, on, real, b, &d);
    on.wait().map_err(|e| e.to_string())?;

    near("out", real, &on.get(real, b.out, rows * out_width), &want.out, &want.off_out)?;
    near("lse", real, &on.get(Real::F32, b.lse, rows * d.heads), &want.lse, &[])?;
    near("dqkv", real, &on.get(real, b.dqkv, rows * width), &want.dqkv, &want.off_dqkv)?;
    for (at, bytes) in all {
        on.release(at, bytes);
    }
    Ok(())
}

/// Every head_dim with one shape, and every length, grouping and batch with one head_dim; both with and without causality.
fn shapes(head_dims: &[usize]) -> Vec<AttentionDims> {
    let mut all = Vec::new();
    for causal in [true, false] {
        for &head_dim in head_dims {
            all.push(AttentionDims {
                batch: 2,
                tokens: 65,
                heads: 4,
                kv_heads: 2,
                head_dim,
                causal,
                scores: Scores::default(),
            });
            all.push(AttentionDims {
                batch: 1,
                tokens: 130,
                heads: 1,
                kv_heads: 1,
                head_dim,
                causal,
                scores: Scores::default(),
            });
        }
        for (batch, tokens, heads, kv_heads) in
            [(3, 1, 6, 1), (2, 7, 4, 2), (3, 63, 1, 1), (1, 64, 2, 2), (2, 128, 2, 1), (1, 130, 6, 1), (1, 257, 2, 1)]
        {
            all.push(AttentionDims {
                batch,
                tokens,
                heads,
                kv_heads,
                head_dim: head_dims[0],
                causal,
                scores: Scores::default(),
            });
        }
    }
    all
}

#[test]
fn attention_in_f32_arithmetic_agrees_with_the_oracle() {
    let Some(on) = HostDevice::new() else { return };
    for real in [Real::F32, Real::Bf16] {
        for d in shapes(&[16, 8, 10, 40, 64, 80, 128, 130, 256]) {
            check(&on, real, Path::Rows(d.head_dim.div_ceil(64).next_power_of_two() * 2), d);
        }
    }
}

#[test]
fn attention_on_tensor_cores_agrees_with_the_oracle() {
    let Some(on) = HostDevice::new() else { return };
    for d in shapes(&[64, 8, 16, 40, 80, 96, 128]) {
        check(&on, Real::Bf16, Path::TensorCores(d.head_dim.next_multiple_of(32)), d);
    }
    for head_dim in [128, 192, 256] {
        let d = AttentionDims {
            batch: 1,
            tokens: 257,
            heads: 2,
            kv_heads: 1,
            head_dim,
            causal: true,
            scores: Scores::default(),
        };
        check(&on, Real::Bf16, Path::TensorCores(head_dim), d);
    }
    for (head_dim, tokens, causal) in
        [(136, 65, true), (184, 130, false), (192, 1, true), (200, 130, false), (256, 1, true), (256, 63, false)]
    {
        let d = AttentionDims { batch: 2, tokens, heads: 4, kv_heads: 2, head_dim, causal, scores: Scores::default() };
        check(&on, Real::Bf16, Path::forward(on.facts(), Real::Bf16, &d), d);
    }
}

#[test]
fn attention_by_warpgroups_agrees_with_the_oracle() {
    let Some(on) = HostDevice::new() else { return };
    for d in shapes(&[64, 40, 80, 128]) {
        check(&on, Real::Bf16, Path::Warpgroups(d.head_dim.next_multiple_of(64)), d);
    }
}

const SMALL: AttentionDims =
    AttentionDims { batch: 1, tokens: 7, heads: 2, kv_heads: 1, head_dim: 64, causal: true, scores: Scores::PLAIN };

/// NaN in all keys and values before a block's tiles, and in all queries after a block of keys' windows, would be in its results.
#[test]
fn what_is_in_no_window_of_a_block_is_not_read() {
    let Some(on) = HostDevice::new() else { return };
    for (real, path, head_dim) in [
        (Real::F32, Path::Rows(2), 64),
        (Real::F32, Path::NarrowRows, 130),
        (Real::Bf16, Path::TensorCores(64), 64),
        (Real::Bf16, Path::TensorCores(128), 128),
        (Real::Bf16, Path::Warpgroups(64), 64),
        (Real::Bf16, Path::Warpgroups(128), 128),
    ] {
        let scores = Scores { window: Some(40), ..Scores::PLAIN };
        let d = AttentionDims { tokens: 768, head_dim, scores, ..SMALL };
        let (width, out_width) = (d.qkv_width(), d.out_width());
        let mut qkv = rounded(real, random(d.rows() * width, 1));
        let mut dout = rounded(real, random(d.rows() * out_width, 2));
        // The third of the tokens in the middle sees and is seen by neighbours alone.
        let far = |token: usize| !(128..640).contains(&token);
        qkv.chunks_exact_mut(width).enumerate().filter(|(t, _)| far(*t)).for_each(|(_, row)| row.fill(f32::NAN));
        dout.chunks_exact_mut(out_width).enumerate().filter(|(t, _)| far(*t)).for_each(|(_, row)| row.fill(f32::NAN));
        let b = Backward {
            qkv: on.put(real, &qkv),
            out: on.put(real, &vec![0.0; d.rows() * out_width]),
            dout: on.put(real, &dout),
            lse: on.put(Real::F32, &vec![0.0; d.rows() * d.heads]),
            dqkv: on.put(real, &vec![f32::NAN; d.rows() * width]),
            workspace: on.put(Real::F32, &vec![f32::NAN; backward_workspace_bytes(&d) / 4]),
        };
        forward_by(path, &on, real, [b.qkv, b.out, b.lse], Context::own(b.qkv, real, &d), &d);
        backward_by(path, &on, real, b, &d);
        on.wait().unwrap();
        for (what, at, width) in [("out", b.out, out_width), ("dqkv", b.dqkv, width)] {
            let all = on.get(real, at, d.rows() * width);
            let middle = &all[320 * width..448 * width];
            assert!(
                middle.iter().all(|x| x.is_finite()),
                "{path:?} {real:?}: {what} of the middle has what is far in it"
            );
            assert!(all[..128 * width].iter().any(|x| x.is_nan()), "{path:?} {real:?}: {what}");
        }
    }
}

#[test]
fn kernels_are_chosen_by_format_head_dim_and_device() {
    let device = |capability, shared_bytes| DeviceFacts {
        name: String::new(),
        capability,
        multiprocessors: 100,
        shared_bytes,
        memory_bytes: 1 << 30,
    };
    let [hopper, blackwell] = [device((9, 0), 232_448), device((10, 0), 232_448)];
    let [ampere, small, old] = [device((8, 0), 166_912), device((8, 6), 101_376), device((7, 5), 65_536)];
    for (facts, real, head_dim, path) in [
        (&hopper, Real::F32, 64, Path::Rows(2)),
        (&hopper, Real::F32, 128, Path::Rows(4)),
        (&hopper, Real::F32, 129, Path::Rows(8)),
        (&hopper, Real::F32, 256, Path::Rows(8)),
        (&hopper, Real::Bf16, 10, Path::Rows(2)),
        (&hopper, Real::Bf16, 8, Path::TensorCores(32)),
        (&hopper, Real::Bf16, 32, Path::TensorCores(32)),
        (&hopper, Real::Bf16, 40, Path::Warpgroups(64)),
        (&hopper, Real::Bf16, 96, Path::Warpgroups(128)),
        (&hopper, Real::Bf16, 136, Path::Rows(8)),
        (&blackwell, Real::Bf16, 128, Path::TensorCores(128)),
        (&ampere, Real::Bf16, 80, Path::TensorCores(96)),
        (&ampere, Real::Bf16, 128, Path::TensorCores(128)),
        (&small, Real::Bf16, 64, Path::TensorCores(64)),
        (&small, Real::Bf16, 128, Path::TensorCores(128)),
        (&small, Real::F32, 128, Path::Rows(4)),
        (&small, Real::F32, 130, Path::NarrowRows),
        (&small, Real::Bf16, 256, Path::NarrowRows),
        (&old, Real::Bf16, 64, Path::Rows(2)),
    ] {
        assert_eq!(Path::of(facts, real, head_dim), path, "{facts:?} {real:?} {head_dim}");
    }
    for (facts, real, head_dim, path) in [
        (&hopper, Real::Bf16, 136, Path::TensorCores(192)),
        (&hopper, Real::Bf16, 200, Path::TensorCores(256)),
        (&small, Real::Bf16, 256, Path::TensorCores(256)),
        (&small, Real::Bf16, 130, Path::NarrowRows),
        (&small, Real::F32, 256, Path::NarrowRows),
        (&ampere, Real::F32, 256, Path::Rows(8)),
        (&hopper, Real::Bf16, 128, Path::Warpgroups(128)),
    ] {
        let d = AttentionDims { head_dim, ..SMALL };
        assert_eq!(Path::forward(facts, real, &d), path, "forward, {facts:?} {real:?} {head_dim}");
    }
    // Caps and ALiBi are not in the kernels by warpgroups; windows and other scales are.
    let capped = Scores { soft_cap: Some(2.0), ..Scores::PLAIN };
    let alibi = Scores { alibi: true, ..Scores::PLAIN };
    let windowed = Scores { window: Some(2), scale: Some(0.1), ..Scores::PLAIN };
    for (scores, head_dim, path) in [
        (capped, 80, Path::TensorCores(96)),
        (alibi, 64, Path::TensorCores(64)),
        (windowed, 80, Path::Warpgroups(128)),
        (capped, 136, Path::Rows(8)),
    ] {
        let d = AttentionDims { head_dim, scores, ..SMALL };
        assert_eq!(Path::backward(&hopper, Real::Bf16, &d), path, "{scores:?} {head_dim}");
    }
    assert!(forward_shared_bytes(256) <= small.shared_bytes);
}

/// On GPUs with 99 KiB of shared memory a block (8.6, 8.9, 12.0), every head_dim has kernels that it is enough for.
#[test]
fn attention_with_little_shared_memory_agrees_with_the_oracle() {
    let Some(on) = HostDevice::with_shared(99 << 10) else { return };
    for causal in [true, false] {
        for (head_dim, tokens) in [(130, 7), (256, 65), (128, 200), (96, 65), (64, 65)] {
            for real in [Real::F32, Real::Bf16] {
                let d = AttentionDims {
                    batch: 2,
                    tokens,
                    heads: 4,
                    kv_heads: 2,
                    head_dim,
                    causal,
                    scores: Scores::default(),
                };
                // Of a GPU that has no wgmma.
                let facts = DeviceFacts { capability: (8, 6), ..on.facts().clone() };
                check(&on, real, Path::of(&facts, real, head_dim), d);
            }
        }
    }
}

/// 164 KiB of shared memory, of which each block takes 1 KiB more than it asks for.
#[test]
fn two_blocks_of_four_warps_fit_an_a100() {
    for padded in [32, 64, 96, 128] {
        assert!(2 * (forward_shared_bytes(padded) + 1024) <= 164 << 10, "forward, {padded}");
        assert!(2 * (query_gradients_shared_bytes(padded) + 1024) <= 164 << 10, "dq, {padded}");
    }
    // Eight warps from D = 96 on: one block by its registers.
    assert!(2 * (key_gradients_shared_bytes(64, 64) + 1024) <= 164 << 10);
    assert!(key_gradients_shared_bytes(128, 64) <= 163 << 10);
}

/// Steps of a causal dkv's blocks, handed out in the grid's order to 132 multiprocessors, end at about the same time.
#[test]
fn long_blocks_start_first() {
    for (batch, tokens, kv_heads) in
        [(1, 4096, 8), (1, 8192, 8), (2, 4096, 8), (4, 2048, 8), (8, 1024, 12), (1, 4096, 32)]
    {
        let d = AttentionDims {
            batch,
            tokens,
            heads: kv_heads,
            kv_heads,
            head_dim: 128,
            causal: true,
            scores: Scores::default(),
        };
        let [heads, tiles, sequences] = grid(&d, 128, d.kv_heads);
        assert_eq!([heads as usize, tiles as usize, sequences as usize], [kv_heads, tokens / 128, batch]);
        // Two query tiles fewer for each further tile of keys, and what a block takes to start and end.
        let steps = (0..sequences).flat_map(|_| (0..tiles).flat_map(|y| (0..heads).map(move |_| 2 * (tiles - y) + 2)));
        let mut busy = [0; 132];
        let mut all = 0;
        for s in steps {
            *busy.iter_mut().min().unwrap() += s;
            all += s;
        }
        let (last, even) = (f64::from(*busy.iter().max().unwrap()), f64::from(all) / 132.0);
        assert!(last < 1.05 * even, "{d:?}: {last} steps, {even:.0} if shared out evenly");
    }
}

#[test]
fn large_scores_neither_overflow_nor_vanish() {
    let Some(on) = HostDevice::new() else { return };
    for (real, path, head_dim) in [
        (Real::F32, Path::Rows(2), 64),
        (Real::Bf16, Path::TensorCores(64), 64),
        (Real::Bf16, Path::TensorCores(128), 128),
        (Real::Bf16, Path::TensorCores(192), 192),
        (Real::Bf16, Path::TensorCores(256), 256),
        (Real::Bf16, Path::Warpgroups(64), 64),
        (Real::Bf16, Path::Warpgroups(128), 128),
    ] {
        let d = AttentionDims {
            batch: 1,
            tokens: 170,
            heads: 1,
            kv_heads: 1,
            head_dim,
            causal: true,
            scores: Scores::default(),
        };
        // Scores of several hundred: exp of them alone is past f32.
        let qkv: Vec<f32> = rounded(real, random(d.rows() * d.qkv_width(), 3)).iter().map(|x| x * 16.0).collect();
        let want = expected(&qkv, &vec![0.0; d.rows() * d.out_width()], d);
        let (from, out) = (on.put(real, &qkv), on.put(real, &vec![0.0; d.rows() * d.out_width()]));
        let lse = on.put(Real::F32, &vec![0.0; d.rows()]);
        forward_by(path, &on, real, [from, out, lse], Context::own(from, real, &d), &d);
        on.wait().unwrap();
        // Scores of up to 2^10, off by 2^-24 of that times the sqrt of as many products: up to 1e-3 of P. Values are below 64.
        let of_p = (head_dim as f64).sqrt() * 2f64.powi(-14);
        let off: Vec<f64> = want.off_out.iter().map(|o| o + of_p * 64.0).collect();
        near("out", Real::Bf16, &on.get(real, out, d.rows() * d.out_width()), &want.out, &off).unwrap();
        near("lse", Real::F32, &on.get(Real::F32, lse, d.rows()), &want.lse, &[]).unwrap();
    }
}
