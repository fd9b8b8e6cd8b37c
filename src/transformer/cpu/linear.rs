//! Linear layers, each with what stands around it in as few passes over memory as its product allows.

use super::super::backend::{LinearDims, Store};
use super::Cpu;
use super::buffer::Buffer;
use super::matmul::{few_rows, is_streamed};
use super::product::{After, Around, Onto, Right, Target, View, product_with};

/// What a linear layer is added to.
#[derive(Clone, Copy)]
pub(super) enum Base<'a> {
    Nothing,
    /// What stands where it goes.
    There,
    /// A matrix of the result's size.
    Matrix(&'a [f32]),
}

impl From<Store> for Base<'_> {
    fn from(into: Store) -> Self {
        match into {
            Store::Overwrite => Self::Nothing,
            Store::Accumulate => Self::There,
        }
    }
}

/// A weight as a right operand.
fn right(w: &Buffer, LinearDims { k, m, .. }: LinearDims) -> Right<'_> {
    match w {
        Buffer::Packed(w) => Right::Packed(w),
        w => Right::View(View::dense(&w.plain()[..m * k], m, k).transposed()),
    }
}

/// A bias is added with the sums where nothing else is, else to the result.
fn around<'a>(base: Base<'a>, bias: Option<&'a [f32]>, d: LinearDims) -> Around<'a> {
    let onto = match base {
        Base::Nothing => return Around::onto(bias.map_or(Onto::Nothing, Onto::Bias)),
        Base::There => Onto::Target,
        Base::Matrix(plus) => Onto::Matrix(View::dense(plus, d.n, d.m)),
    };
    Around { after: bias.map_or(After::Nothing, After::Bias), ..Around::onto(onto) }
}

impl Cpu {
    /// `out = x w^T + bias + base`
    pub(super) fn linear_onto(
        &self,
        x: &[f32],
        w: &Buffer,
        bias: Option<&[f32]>,
        base: Base,
        out: &mut [f32],
        d: LinearDims,
    ) {
        let (x, out) = (&x[..d.n * d.k], &mut out[..d.n * d.m]);
        if let Some(w) = self.streamed(w, d) {
            if let Base::Matrix(plus) = base {
                out.copy_from_slice(&plus[..d.n * d.m]);
            }
            return few_rows(&self.pool, x, w, bias, out, !matches!(base, Base::Nothing), d);
        }
        self.multiply(x, w, around(base, bias, d), out, d);
    }

    /// The weight, where it is read once, as it stands, instead of being packed.
    fn streamed<'a>(&self, w: &'a Buffer, LinearDims { n, k, m }: LinearDims) -> Option<&'a [f32]> {
        match w {
            Buffer::Packed(_) => None,
            w => is_streamed(n, self.precision).then(|| &w.plain()[..m * k]),
        }
    }

    fn multiply(&self, x: &[f32], w: &Buffer, around: Around, out: &mut [f32], d: LinearDims) {
        let (to, x) = (Target::new(out, d.m), View::dense(&x[..d.n * d.k], d.n, d.k));
        // SAFETY: `out` is borrowed exclusively for the call.
        unsafe { product_with(&self.pool, to, around, x, right(w, d), self.precision) };
    }
}
