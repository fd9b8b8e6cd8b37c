//! Rotary positions: queries and keys rotated in place.

use super::super::backend::AttentionDims;
use super::device::{Address, Arg, Device, Real};
use super::launch::{Kernel, THREADS, at, blocks, int};

/// Heads that a warp turns at most; as in the kernel.
const GROUP: usize = 16;

/// The angles of the first elements of each head, on the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Angles {
    /// `[pairs]` f32.
    pub frequencies: Address,
    pub pairs: usize,
    /// What rotated elements are multiplied by.
    pub longer: f32,
}

/// Turns queries and keys of `qkv [n, (H + 2 KV) D]` by their positions, `*first + row % tokens`; `inverse` turns back.
/// `first` is one `int` of the device.
pub(super) fn rope(
    on: &dyn Device,
    real: Real,
    qkv: Address,
    by: Angles,
    first: Address,
    inverse: bool,
    d: AttentionDims,
) {
    if by.pairs == 0 {
        return;
    }
    let args = [
        at(qkv),
        at(by.frequencies),
        int(d.rows()),
        int(d.tokens),
        int(d.heads),
        int(d.kv_heads),
        int(d.head_dim),
        int(by.pairs),
        Arg::F32(by.longer),
        at(first),
        Arg::I32(i32::from(inverse)),
    ];
    let warps = d.rows() * (d.heads + d.kv_heads).div_ceil(GROUP);
    Kernel { on, file: "rope", name: "rope", real }.run(blocks(on, warps, THREADS as usize / 32), THREADS, &args);
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::{Backend, Frequencies, Scores};
    use super::super::super::cpu::naive::Naive;
    use super::super::super::shape::Rope;
    use super::super::host::{HostDevice, array, close, random, rounded, within};
    use super::*;

    fn dims() -> Vec<AttentionDims> {
        [(1, 1, 1, 1, 2), (2, 7, 3, 3, 10), (1, 5, 4, 2, 16), (2, 3, 20, 5, 64), (1, 4, 6, 2, 96), (3, 2, 33, 3, 128)]
            .into_iter()
            .map(|(batch, tokens, heads, kv_heads, head_dim)| AttentionDims {
                batch,
                tokens,
                heads,
                kv_heads,
                head_dim,
                causal: true,
                scores: Scores::default(),
            })
            .collect()
    }

    #[test]
    fn queries_and_keys_are_rotated_and_values_are_not() {
        let Some(on) = HostDevice::new() else { return };
        for d in dims() {
            for real in [Real::F32, Real::Bf16] {
                for (first, inverse) in [(0, false), (3, true), (131_000, false)] {
                    // The whole head, and the first half and less of it, longer by a factor.
                    let part = if first == 3 { (d.head_dim / 4 * 2).max(2) } else { d.head_dim };
                    let mut f = Frequencies::new(&Rope { theta: 500_000.0, scaling: None }, part);
                    f.factor = if first == 3 { 1.25 } else { 1.0 };
                    let before = rounded(real, random(d.rows() * d.qkv_width(), 1));
                    let (qkv, frequencies) = (on.put(real, &before), on.put(Real::F32, &f.radians));
                    let first_at = on.put_words(&[first as u32]);
                    let by = Angles { frequencies, pairs: f.radians.len(), longer: f.factor };
                    rope(&on, real, qkv, by, first_at, inverse, d);
                    on.wait().unwrap();
                    let mut want = array(&before);
                    Naive.rope(&mut want, &f, first, inverse, d);
                    close(&format!("{d:?} {real:?} from {first}"), real, &on.get(real, qkv, want.len()), &want);
                }
            }
        }
    }

    #[test]
    fn turning_back_restores() {
        let Some(on) = HostDevice::new() else { return };
        for d in dims() {
            let f = Frequencies::new(&Rope { theta: 10_000.0, scaling: None }, d.head_dim);
            let before = random(d.rows() * d.qkv_width(), 1);
            let (qkv, frequencies) = (on.put(Real::F32, &before), on.put(Real::F32, &f.radians));
            let first = on.put_words(&[77]);
            let by = Angles { frequencies, pairs: f.radians.len(), longer: 1.0 };
            rope(&on, Real::F32, qkv, by, first, false, d);
            rope(&on, Real::F32, qkv, by, first, true, d);
            on.wait().unwrap();
            // Two rotations of f32, each off by 3 units of 2^-24.
            within(&format!("{d:?}"), &on.get(Real::F32, qkv, before.len()), &before, 0.0, 4e-6);
        }
    }
}
