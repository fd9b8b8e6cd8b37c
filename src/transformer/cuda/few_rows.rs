//! Products of a few rows, as decoding has them, go to kernels that do in one launch what surrounds them (`matvec`): a layer of
//! decoding takes five.

use super::super::backend::{AttentionDims, CachePlace, Frequencies, LinearDims, NormBefore, NormedLinear};
use super::super::error::SessionError;
use super::Cuda;
use super::buffer::Buffer;
use super::cache::Places;
use super::device::Real;
use super::matvec::{CacheAt, Matvec, NormAt, takes};

/// Names the choice for tests and for whoever times both.
const VARIABLE: &str = "CENTIME_CUDA_DECODE";

/// What products of a few rows are done by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decode {
    /// Kernels of our own, with what surrounds them.
    Fused,
    /// cuBLASLt and single operations, as with many rows.
    Separate,
}

impl Decode {
    /// # Errors
    /// A value that is neither.
    pub(super) fn from_environment() -> Result<Self, SessionError> {
        let value = std::env::var_os(VARIABLE);
        Self::named(value.as_ref().map(|v| v.to_string_lossy()).as_deref())
    }

    fn named(value: Option<&str>) -> Result<Self, SessionError> {
        match value {
            None | Some("fused") => Ok(Self::Fused),
            Some("separate") => Ok(Self::Separate),
            Some(other) => Err(SessionError::Invalid(format!(
                "{VARIABLE}: expected fused or separate, found {other:?}; set one of them, or unset it for fused"
            ))),
        }
    }
}

fn norm_at(norm: &NormBefore<'_, Buffer>) -> NormAt {
    let NormBefore { gain, bias, stats, d, .. } = norm;
    NormAt {
        gain: gain.at(),
        bias: bias.map(Buffer::at),
        stats: stats.wide(),
        eps: d.eps,
        offset: d.gain_offset,
        rms: d.rms,
    }
}

impl Cuda {
    /// Such a product as one launch, where that is to be had.
    pub(super) fn few_rows(&self, of: &NormedLinear<'_, Buffer>) -> Option<Matvec> {
        let NormedLinear { x, norm, w, bias, d } = of;
        let real = x.format();
        let coded = w.codes();
        let fitting = coded.is_some() || w.format() == real;
        let fused = self.decode == Decode::Fused && fitting && takes(self.on(), real, norm.is_some(), *d);
        let norm = norm.as_ref().map(norm_at);
        let (weight, scales) = coded.map_or((w.at(), None), |c| (c.codes, Some(c.scales)));
        fused.then(|| Matvec { real, x: x.at(), w: weight, scales, bias: bias.map(Buffer::at), norm, d: *d })
    }

    /// `out = x w^T + bias (+ plus)`; `plus` may be `out`.
    pub(super) fn affine(
        &self,
        x: &Buffer,
        w: &Buffer,
        bias: Option<&Buffer>,
        plus: Option<&Buffer>,
        out: &Buffer,
        d: LinearDims,
    ) {
        match self.few_rows(&NormedLinear { x, norm: None, w, bias, d }) {
            Some(p) => p.linear(self.on(), plus.map(Buffer::at), out.at(), out.format() == Real::F32),
            None => self.linears().forward(x, w, bias, plus, out, d),
        }
    }

    /// Queries, keys and values in one launch, or `false`.
    pub(super) fn few_rows_cached(
        &self,
        of: &NormedLinear<'_, Buffer>,
        frequencies: Option<&Frequencies>,
        qkv: &Buffer,
        cache: &CachePlace<'_, Buffer>,
        d: AttentionDims,
    ) -> bool {
        let pairs = frequencies.is_none() || (d.head_dim >= 2 && d.head_dim.is_multiple_of(2));
        // A scale is of a whole vector, and the kernel's blocks have parts of them.
        let whole = !cache.dims.element.is_scaled();
        let Some(p) = self.few_rows(of).filter(|_| pairs && whole) else { return false };
        let angles = match frequencies.map(|f| self.state.angles(f)) {
            // There is no memory for them, which is told at the end of the step.
            Some(None) => return true,
            angles => angles.flatten(),
        };
        let Places { keys, values, .. } = Places::of(cache.layer.wide(), cache.dims);
        let first = self.state.position(cache.position);
        p.qkv(self.on(), qkv.at(), CacheAt { keys, values, capacity: cache.dims.capacity, first, angles }, d);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_has_two_names_and_the_others_are_told() {
        assert_eq!(Decode::named(None).unwrap(), Decode::Fused);
        assert_eq!(Decode::named(Some("fused")).unwrap(), Decode::Fused);
        assert_eq!(Decode::named(Some("separate")).unwrap(), Decode::Separate);
        let told = Decode::named(Some("both")).unwrap_err().to_string();
        assert!(told.contains("expected fused or separate, found \"both\""), "{told}");
    }
}
