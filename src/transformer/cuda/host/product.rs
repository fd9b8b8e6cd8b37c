//! Products in plain loops; sums in f64, rounded once.
//!
//! Where factors may be rounded to TF32 they are cut to it, the most that a tensor core does, for every sum that is made of them: a
//! bias's gradient beside its weight's too.

use super::super::device::{Address, Epilogue, Matrix, Product, Real};
use super::HostDevice;

/// `gelu_tanh`, as in `cpu::naive`.
fn gelu(x: f64) -> f64 {
    let k = (2.0 / std::f64::consts::PI).sqrt();
    0.5 * x * (1.0 + (k * (x + 0.044715 * x * x * x)).tanh())
}

/// Its derivative.
fn gelu_slope(x: f64) -> f64 {
    let k = (2.0 / std::f64::consts::PI).sqrt();
    let t = (k * (x + 0.044715 * x * x * x)).tanh();
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * k * (1.0 + 3.0 * 0.044715 * x * x)
}

/// Rows of `columns` elements that lie `stride` apart, without what is between them.
fn rows_at(on: &HostDevice, at: Address, m: &Matrix, rows: usize, columns: usize) -> Vec<f32> {
    let row = |r: usize| on.get(m.format, at + (r * m.stride * m.format.size()) as Address, columns);
    (0..rows).flat_map(row).collect()
}

/// A factor as `rows x columns` of the product.
fn factor(on: &HostDevice, matrix: &Matrix, rows: usize, columns: usize) -> Vec<f32> {
    if !matrix.transposed {
        return rows_at(on, matrix.address, matrix, rows, columns);
    }
    let flat = rows_at(on, matrix.address, matrix, columns, rows);
    (0..rows * columns).map(|i| flat[i % columns * rows + i / columns]).collect()
}

pub(super) fn run(on: &HostDevice, p: &Product) {
    let Product { n, k, m, .. } = *p;
    let formats = p.a.format == p.b.format && (p.to.format == p.a.format || p.to.format == Real::F32);
    let gradient = matches!(p.epilogue, Epilogue::GeluGradient { .. } | Epilogue::RowSums { .. });
    if !formats || p.to.transposed || (gradient && p.bias.is_some()) {
        return on.fail(format!("a product that no device does: {p:?}"));
    }
    let (mut a, mut b) = (factor(on, &p.a, n, k), factor(on, &p.b, k, m));
    if p.tf32 && p.a.format == Real::F32 {
        a.iter_mut().chain(&mut b).for_each(|x| *x = f32::from_bits(x.to_bits() & !0x1fff));
    }
    let given = |at: Option<Address>, format, len| at.map_or_else(|| vec![0.0; len], |at| on.get(format, at, len));
    let bias = given(p.bias, p.to.format, m);
    let plus = p.plus.map_or_else(|| vec![0.0; n * m], |at| rows_at(on, at, &p.to, n, m));
    let mut before = vec![0.0f32; n * m];
    for r in 0..n {
        let mut row: Vec<f64> = (0..m).map(|c| f64::from(bias[c]) + f64::from(plus[r * m + c])).collect();
        for i in 0..k {
            let x = f64::from(a[r * k + i]);
            for (to, w) in row.iter_mut().zip(&b[i * m..][..m]) {
                *to += x * f64::from(*w);
            }
        }
        for (to, x) in before[r * m..].iter_mut().zip(row) {
            *to = x as f32;
        }
    }
    let result = match p.epilogue {
        Epilogue::Nothing => before,
        Epilogue::Gelu { pre } => {
            on.set(p.to.format, pre, &before);
            before.iter().map(|x| gelu(f64::from(*x)) as f32).collect()
        }
        Epilogue::GeluGradient { pre } => {
            let pre = on.get(p.to.format, pre, n * m);
            before.iter().zip(pre).map(|(x, pre)| (f64::from(*x) * gelu_slope(f64::from(pre))) as f32).collect()
        }
        Epilogue::RowSums { sums } => {
            let sum = |row: &[f32]| row.iter().map(|x| f64::from(*x)).sum::<f64>() as f32;
            on.set(p.to.format, sums, &(0..n).map(|r| sum(&a[r * k..][..k])).collect::<Vec<_>>());
            before
        }
    };
    for (r, row) in result.chunks_exact(m).enumerate() {
        on.set(p.to.format, p.to.address + (r * p.to.stride * p.to.format.size()) as Address, row);
    }
}
