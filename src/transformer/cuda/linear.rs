//! Linear layers as products. A weight lies as `[M, K]`, so that it is transposed on the way forward and as it lies on the way back.

use super::super::backend::{LinearDims, Store};
use super::super::shape::Activation;
use super::buffer::Buffer;
use super::device::{Address, Device, Elsewhere, Epilogue, Matrix, Product, Real};
use super::state::State;
use super::{activation, columns, elementwise};

/// The first `rows x columns` elements of an array, dense.
pub(super) fn dense(address: Address, format: Real, columns: usize) -> Matrix {
    Matrix { address, format, stride: columns, transposed: false }
}

fn transposed(m: Matrix) -> Matrix {
    Matrix { transposed: true, ..m }
}

/// A product without an epilogue.
pub(super) fn plain(a: Matrix, b: Matrix, to: Matrix, [n, k, m]: [usize; 3], tf32: bool) -> Product {
    Product { n, k, m, a, b, to, bias: None, plus: None, epilogue: Epilogue::Nothing, tf32 }
}

/// Whether a product can keep or read GELU's argument beside its result: cuBLASLt has it in bf16 alone, and only where its rows
/// begin on 16 bytes.
fn keeps_pre(columns: usize, format: Real) -> bool {
    columns.is_multiple_of(8) && format == Real::Bf16
}

/// Rounding of f32 factors, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linear<'a> {
    pub on: &'a dyn Device,
    pub state: &'a State,
    pub tf32: bool,
}

impl Linear<'_> {
    /// `x w^T + bias` into `out`, as a product that may still be given an epilogue.
    fn product(&self, x: &Buffer, w: &Buffer, bias: Option<&Buffer>, out: &Buffer, d: LinearDims) -> Product {
        let LinearDims { n, k, m } = d;
        let x = dense(x.at(), x.format(), k);
        let w = transposed(dense(w.at(), w.format(), k));
        let to = dense(out.at(), out.format(), m);
        Product { bias: self.bias_beside(bias, to.format, m), ..plain(x, w, to, [n, k, m], self.tf32) }
    }

    /// A bias in the format of the result that it is added to: of bf16 factors an f32 result takes no other.
    pub(super) fn bias_beside(&self, bias: Option<&Buffer>, to: Real, m: usize) -> Option<Address> {
        let bias = bias?;
        if bias.format() == to {
            return Some(bias.at());
        }
        let wide = self.state.scratch(4 * m)?;
        elementwise::widen(self.on, bias.format(), bias.at(), wide, m);
        Some(wide)
    }

    /// `out = x w^T + bias (+ plus)`; `plus` may be `out`.
    pub(super) fn forward(
        &self,
        x: &Buffer,
        w: &Buffer,
        bias: Option<&Buffer>,
        plus: Option<&Buffer>,
        out: &Buffer,
        d: LinearDims,
    ) {
        if let Some(coded) = w.codes() {
            return self.forward_coded(x, coded, (bias, plus), out, d);
        }
        let plus = plus.map(Buffer::at);
        self.on.product(&Product { plus, ..self.product(x, w, bias, out, d) });
    }

    /// `pre = x w^T + bias`, `out = gelu_tanh(pre)` in one product, or `false`.
    pub(super) fn gelu(
        &self,
        x: &Buffer,
        w: &Buffer,
        bias: Option<&Buffer>,
        pre: &Buffer,
        out: &Buffer,
        d: LinearDims,
    ) -> bool {
        if w.codes().is_some() {
            return false;
        }
        let product = self.product(x, w, bias, out, d);
        let apart = |at: Elsewhere| {
            self.on.product(&Product { to: Matrix { address: at.beside, ..product.to }, ..product });
            activation::activation(self.on, out.format(), Activation::GeluTanh, at.beside, at.to, d.n, d.m);
        };
        let fused = Product { epilogue: Epilogue::Gelu { pre: pre.at() }, ..product };
        keeps_pre(d.m, out.format()) && self.on.try_product(&fused, &apart)
    }

    /// `dout w`, as a product that may still be given an epilogue.
    fn of_input(&self, dout: Matrix, w: &Buffer, dx: &Buffer, d: LinearDims) -> Product {
        let LinearDims { n, k, m } = d;
        let to = dense(dx.at(), dx.format(), k);
        plain(dout, dense(w.at(), w.format(), k), to, [n, m, k], self.tf32)
    }

    /// A gradient `[N, M]` in the format that the product's other factor has: logits' are f32. `None` where there is no memory for it.
    fn as_factor(&self, dout: &Buffer, other: Real, n: usize, m: usize) -> Option<Matrix> {
        if dout.format() == other {
            return Some(dense(dout.at(), other, m));
        }
        let narrow = self.state.scratch(n * m * other.size())?;
        elementwise::narrow(self.on, other, dout.at(), narrow, n * m);
        Some(dense(narrow, other, m))
    }

    /// `dx [N, K] (+)= dout w`
    pub(super) fn backward_input(&self, dout: &Buffer, w: &Buffer, dx: &Buffer, into: Store, d: LinearDims) {
        let plus = (into == Store::Accumulate).then_some(dx.at());
        let Some(dout) = self.as_factor(dout, w.format(), d.n, d.m) else { return };
        self.on.product(&Product { plus, ..self.of_input(dout, w, dx, d) });
    }

    /// `dpre [N, K] = gelu_tanh'(pre) (dout w)` in one product, or `false`. Not in place: other elements of `pre` may still be read
    /// when one is written.
    pub(super) fn backward_gelu(&self, dout: &Buffer, w: &Buffer, pre: &Buffer, dpre: &Buffer, d: LinearDims) -> bool {
        let of_dout = dense(dout.at(), dout.format(), d.m);
        let (product, real) = (self.of_input(of_dout, w, dpre, d), dpre.format());
        let apart = |at: Elsewhere| {
            self.on.product(&Product { to: Matrix { address: at.to, ..product.to }, ..product });
            activation::activation_backward(self.on, real, Activation::GeluTanh, at.beside, at.to, d.n, d.k);
        };
        let fused = Product { epilogue: Epilogue::GeluGradient { pre: pre.at() }, ..product };
        // The two change places afterwards: they are to be of one size.
        pre.len == dpre.len && keeps_pre(d.k, real) && self.on.try_product(&fused, &apart)
    }

    /// `dw [M, K] = dout^T x`, `dbias [M] =` the column sums of `dout`, both in f32: in one product where the device has it.
    pub(super) fn backward_weight(
        &self,
        x: &Buffer,
        dout: &Buffer,
        dw: &Buffer,
        dbias: Option<&Buffer>,
        d: LinearDims,
    ) {
        let LinearDims { n, k, m } = d;
        let (to, real) = (dense(dw.wide(), Real::F32, k), dout.format());
        let Some(of_dout) = self.as_factor(dout, x.format(), n, m) else { return };
        let product = plain(transposed(of_dout), dense(x.at(), x.format(), k), to, [m, n, k], self.tf32);
        let Some(dbias) = dbias else { return self.on.product(&product) };
        let apart = |at: Elsewhere| {
            self.on.product(&Product { to: Matrix { address: at.to, ..to }, ..product });
            if let Some(partial) = self.state.scratch(4 * columns::partial_len(self.on, real, n, m)) {
                columns::column_sums(self.on, real, dout.at(), partial, at.beside, n, m);
            }
        };
        let fused = Product { epilogue: Epilogue::RowSums { sums: dbias.wide() }, ..product };
        // What is narrowed lies in scratch, and the partial sums after the product may: a product's own sums of it would be timed against
        // steps that overwrite it.
        if real != x.format() || !self.on.try_product(&fused, &apart) {
            apart(Elsewhere { to: to.address, beside: dbias.wide() });
        }
    }
}
