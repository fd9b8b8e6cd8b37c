//! Attention's kernels, run on the host, against the oracle.
//!
//! Tolerance in bf16: every rounding moves a number, of 8 significant bits, by at most u = 2^-8 of itself. What the oracle computes is sums of products;
//! a factor that the kernels round moves such a sum by at most u times the sum of the products' magnitudes. Rounded are: P in
//! `out = P V` and `dV = P^T dO`; dS in `dK` and `dQ`; `out` in delta, which moves dS by up to P u sum |dO out|; and each result.
//! The magnitudes are computed beside the oracle. f32 sums add 2e-5 of the largest result, as elsewhere.

use super::super::super::backend::Backend;
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

/// Each number within `off`, where the format rounds, and what f32 sums may be off by.
fn near(what: &str, real: Real, got: &[f32], want: &[f32], off: &[f64]) {
    let sums = 2e-5 * f64::from(want.iter().fold(1e-3f32, |m, x| m.max(x.abs())));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let bound = sums + if real == Real::Bf16 { off.get(i).copied().unwrap_or(0.0) } else { 0.0 };
        let apart = f64::from((g - w).abs());
        assert!(
            apart <= bound,
            "{what}: element {i} is {g}, the oracle says {w}, {apart:.1e} apart, bound {bound:.1e}"
        );
    }
}

fn check(on: &HostDevice, real: Real, path: Path, d: AttentionDims) {
    let what = format!("{path:?} {real:?} {d:?}");
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
    forward_by(path, on, real, [b.qkv, b.out, b.lse], &d);
    backward_by(path, on, real, b, &d);
    on.wait().unwrap_or_else(|e| panic!("{what}: {e}"));

    near(&format!("{what} out"), real, &on.get(real, b.out, rows * out_width), &want.out, &want.off_out);
    near(&format!("{what} lse"), real, &on.get(Real::F32, b.lse, rows * d.heads), &want.lse, &[]);
    near(&format!("{what} dqkv"), real, &on.get(real, b.dqkv, rows * width), &want.dqkv, &want.off_dqkv);
    for (at, bytes) in all {
        on.release(at, bytes);
    }
}

/// Every head_dim with one shape, and every length, grouping and batch with one head_dim; both with and without causality.
fn shapes(head_dims: &[usize]) -> Vec<AttentionDims> {
    let mut all = Vec::new();
    for causal in [true, false] {
        for &head_dim in head_dims {
            all.push(AttentionDims { batch: 2, tokens: 65, heads: 4, kv_heads: 2, head_dim, causal });
            all.push(AttentionDims { batch: 1, tokens: 130, heads: 1, kv_heads: 1, head_dim, causal });
        }
        for (batch, tokens, heads, kv_heads) in
            [(3, 1, 6, 1), (2, 7, 4, 2), (3, 63, 1, 1), (1, 64, 2, 2), (2, 128, 2, 1), (1, 130, 6, 1), (1, 257, 2, 1)]
        {
            all.push(AttentionDims { batch, tokens, heads, kv_heads, head_dim: head_dims[0], causal });
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
    check(
        &on,
        Real::Bf16,
        Path::TensorCores(128),
        AttentionDims { batch: 1, tokens: 257, heads: 2, kv_heads: 1, head_dim: 128, causal: true },
    );
}

#[test]
fn attention_by_warpgroups_agrees_with_the_oracle() {
    let Some(on) = HostDevice::new() else { return };
    for d in shapes(&[64, 40, 80, 128]) {
        check(&on, Real::Bf16, Path::Warpgroups(d.head_dim.next_multiple_of(64)), d);
    }
}

#[test]
fn kernels_are_chosen_by_format_head_dim_and_device() {
    let device = |capability, shared_bytes| Facts {
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
        (&small, Real::Bf16, 128, Path::Rows(4)),
        (&old, Real::Bf16, 64, Path::Rows(2)),
    ] {
        assert_eq!(Path::of(facts, real, head_dim), path, "{facts:?} {real:?} {head_dim}");
    }
}

#[test]
fn large_scores_neither_overflow_nor_vanish() {
    let Some(on) = HostDevice::new() else { return };
    for (real, path, head_dim) in [
        (Real::F32, Path::Rows(2), 64),
        (Real::Bf16, Path::TensorCores(64), 64),
        (Real::Bf16, Path::TensorCores(128), 128),
    ] {
        let d = AttentionDims { batch: 1, tokens: 170, heads: 1, kv_heads: 1, head_dim, causal: true };
        // Scores of several hundred: exp of them alone is past f32.
        let qkv: Vec<f32> = rounded(real, random(d.rows() * d.qkv_width(), 3)).iter().map(|x| x * 16.0).collect();
        let want = expected(&qkv, &vec![0.0; d.rows() * d.out_width()], d);
        let (from, out) = (on.put(real, &qkv), on.put(real, &vec![0.0; d.rows() * d.out_width()]));
        let lse = on.put(Real::F32, &vec![0.0; d.rows()]);
        forward_by(path, &on, real, [from, out, lse], &d);
        on.wait().unwrap();
        // Scores of up to 2^10, off by 2^-24 of that times the sqrt of 64 or 128 products: up to 7e-4 of P.
        let off: Vec<f64> = want.off_out.iter().map(|o| o + 7e-4 * 64.0).collect();
        near("out", Real::Bf16, &on.get(real, out, d.rows() * d.out_width()), &want.out, &off);
        near("lse", Real::F32, &on.get(Real::F32, lse, d.rows()), &want.lse, &[]);
    }
}
