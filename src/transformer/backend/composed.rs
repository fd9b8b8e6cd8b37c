//! What a coarse operation of [`Backend`] is, in single ones: what a backend does that has nothing better, for all shapes or for some.

use super::super::shape::Activation;
use super::{AttentionDims, Backend, CachePlace, Frequencies, NormedLinear, Store};

/// The norm, where there is one; what is left is a product of its result.
fn normed<'a, B: Backend + ?Sized>(
    on: &B,
    of: NormedLinear<'a, B::Buffer>,
) -> (&'a B::Buffer, NormedLinear<'a, B::Buffer>) {
    let NormedLinear { x, norm, .. } = of;
    let rest = NormedLinear { norm: None, ..of };
    let Some(n) = norm else { return (x, rest) };
    on.norm(x, n.gain, n.bias, n.room, n.stats, n.d);
    (n.room, rest)
}

/// [`Backend::norm_linear`]
pub(in crate::transformer) fn norm_linear<B: Backend + ?Sized>(
    on: &B,
    of: NormedLinear<'_, B::Buffer>,
    out: &mut B::Buffer,
) {
    let (x, NormedLinear { w, bias, d, .. }) = normed(on, of);
    on.linear(x, w, bias, out, Store::Overwrite, d);
}

/// [`Backend::norm_linear_activation`]
pub(in crate::transformer) fn norm_linear_activation<B: Backend + ?Sized>(
    on: &B,
    kind: Activation,
    of: NormedLinear<'_, B::Buffer>,
    pre: &mut B::Buffer,
    out: &mut B::Buffer,
) {
    let (x, NormedLinear { w, bias, d, .. }) = normed(on, of);
    on.linear_activation(kind, x, w, bias, pre, out, d);
}

/// [`Backend::norm_qkv_cached`]
pub(in crate::transformer) fn norm_qkv_cached<B: Backend + ?Sized>(
    on: &B,
    of: NormedLinear<'_, B::Buffer>,
    frequencies: Option<&Frequencies>,
    qkv: &mut B::Buffer,
    cache: CachePlace<'_, B::Buffer>,
    d: AttentionDims,
) {
    let CachePlace { layer, position, dims } = cache;
    on.norm_linear(of, qkv);
    if let Some(f) = frequencies {
        on.rope(qkv, f, position, false, d);
    }
    on.cache_append(qkv, layer, position, d, dims);
}
