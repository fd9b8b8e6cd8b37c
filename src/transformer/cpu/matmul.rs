//! Matrix products in f32: large ones by the gemm crate, products of few rows by streaming the weights once.

use super::super::backend::LinearDims;
use super::math::{dot, vectorised};
use super::pool::Pool;
use gemm::Parallelism;
use rayon::prelude::*;

/// A matrix to read: `rows x columns`, with the distance between rows and between columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a> View<'a> {
    /// A dense row-major matrix.
    pub fn dense(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows of `columns` numbers, `row_stride` apart.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(reach(rows, columns, row_stride) <= data.len(), "a view of {rows} x {columns} beyond its data");
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The transpose, without moving anything.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// One past the last number of a row-major matrix.
fn reach(rows: usize, columns: usize, row_stride: usize) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + columns }
}

/// A place to write: dense columns, rows `row_stride` apart. Raw, because threads write to interleaved parts of one buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    start: *mut f32,
    len: usize,
    pub row_stride: usize,
}

// SAFETY: a Target is only written through `product`, whose callers keep the parts that threads write apart.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// Rows `row_stride` apart in `data`.
    pub fn new(data: &mut [f32], row_stride: usize) -> Self {
        Self { start: data.as_mut_ptr(), len: data.len(), row_stride }
    }

    /// The same rows from `offset` numbers on.
    pub fn at(self, offset: usize) -> Self {
        assert!(offset <= self.len, "a target beyond its buffer");
        // SAFETY: offset is within the buffer, checked above.
        Self { start: unsafe { self.start.add(offset) }, len: self.len - offset, row_stride: self.row_stride }
    }
}

impl Target {
    /// Writes one number.
    ///
    /// # Safety
    /// No other thread touches it, and the buffer is alive.
    pub unsafe fn write(self, value: f32) {
        assert!(self.len > 0, "a write beyond its buffer");
        // SAFETY: there is a number, checked above; the caller keeps others away.
        unsafe { self.start.write(value) };
    }

    /// Zeroes `len` numbers.
    ///
    /// # Safety
    /// No other thread touches them, and the buffer is alive.
    pub unsafe fn zero(self, len: usize) {
        assert!(len <= self.len, "zeroes beyond their buffer");
        // SAFETY: `len` numbers are there, checked above; the caller keeps others away.
        unsafe { self.start.write_bytes(0, len) };
    }
}

/// `to (+)= factor * a b`, by `threads` threads of the current rayon pool.
///
/// # Safety
/// No other thread touches the `a.rows x b.columns` numbers of `to`, and its buffer is alive.
pub(super) unsafe fn product(to: Target, add: bool, factor: f32, a: View, b: View, threads: usize) {
    assert_eq!(a.columns, b.rows, "the inner dimensions of a product");
    assert!(reach(a.rows, b.columns, to.row_stride) <= to.len, "a product beyond its target");
    if a.rows == 0 || b.columns == 0 {
        return;
    }
    let parallelism = if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
    // SAFETY: the views were checked against their slices when made, the target above; the caller keeps others away.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            to.start,
            1,
            to.row_stride as isize,
            add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `to [a.rows, b.columns] (+)= a b`, dense, on the whole pool.
pub(super) fn matmul(pool: &Pool, to: &mut [f32], add: bool, a: View, b: View) {
    let target = Target::new(&mut to[..a.rows * b.columns], b.columns);
    // SAFETY: `to` is borrowed exclusively for the call.
    pool.run(|| unsafe { product(target, add, 1.0, a, b, pool.threads) });
}

/// Rows of input below which the weights are streamed once, instead of being packed for a blocked product.
pub(super) const FEW_ROWS: usize = 8;

/// `out [N, M] (+)= x [N, K] w[M, K]^T + bias` for N <= [`FEW_ROWS`]: bound by reading w.
pub(super) fn few_rows(
    pool: &Pool,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    out: &mut [f32],
    add: bool,
    d: LinearDims,
) {
    let LinearDims { n, k, m } = d;
    let share = pool.share(m, 16);
    let mut columns = pool.scratch(n * m);
    pool.run(|| {
        // Computed as [M, N], so that a thread writes one stretch; turned around after.
        columns.par_chunks_mut(share * n).zip(w.par_chunks(share * k)).for_each(|(to, weights)| {
            vectorised(
                #[inline(always)]
                || {
                    for (to, row) in to.chunks_exact_mut(n).zip(weights.chunks_exact(k)) {
                        for (to, x) in to.iter_mut().zip(x.chunks_exact(k)) {
                            *to = dot(x, row);
                        }
                    }
                },
            );
        });
    });
    for (r, out) in out.chunks_exact_mut(m).enumerate() {
        for (o, value) in out.iter_mut().enumerate() {
            let before = if add { *value } else { 0.0 };
            *value = before + columns[o * n + r] + bias.map_or(0.0, |b| b[o]);
        }
    }
}
