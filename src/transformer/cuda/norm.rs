//! LayerNorm and RMSNorm, alone and with the residual's addition, and their gradients.

use super::super::backend::NormDims;
use super::device::{Address, Arg, Device, Real};
use super::launch::{Kernel, THREADS, at, at_or_null, blocks, blocks_of, int, vectors};

/// The longest row that is a warp's, in elements.
const OF_WARP: usize = 1024;
/// Elements that a thread holds of a row that is a block's.
const HELD: usize = 16;
/// Threads of a block whose rows are its warps', in the backward pass.
const BACKWARD_THREADS: u32 = 128;

/// Threads of a block that takes a row: as many as hold it, 512 at most.
fn threads_of_row(c: usize) -> u32 {
    (c.div_ceil(HELD).next_multiple_of(32) as u32).clamp(64, 512)
}

/// Blocks and threads of a forward pass, and whether a row is a block's.
fn forward(on: &dyn Device, real: Real, d: NormDims) -> (u32, u32, Arg) {
    // A warp holds 1024 elements as vectors and 128 of the others; few rows get more threads each.
    let whole = vectors(real, d.c) > OF_WARP * real.size() / 16;
    if !whole {
        return (blocks(on, d.n, THREADS as usize / 32), THREADS, Arg::I32(0));
    }
    let threads = threads_of_row(d.c);
    (blocks_of(on, d.n, 1, 2048 / threads), threads, Arg::I32(1))
}

fn shape(d: NormDims) -> [Arg; 5] {
    [int(d.n), int(d.c), Arg::F32(d.eps), Arg::F32(d.gain_offset), Arg::I32(i32::from(d.rms))]
}

/// What [`norm`] reads and writes: `x` and `out [n, C]`, `gain` and `bias [C]`, `stats [n, 2] f32`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Normed {
    pub x: Address,
    pub gain: Address,
    pub bias: Option<Address>,
    pub out: Address,
    pub stats: Address,
}

/// `out = (x - mean) * rstd * (gain_offset + gain) (+ bias)`; `stats` takes mean and rstd.
pub(super) fn norm(on: &dyn Device, real: Real, o: Normed, d: NormDims) {
    let (grid, threads, whole) = forward(on, real, d);
    let mut args = vec![at(o.x), at(o.gain), at_or_null(o.bias), at(o.out), at(o.stats)];
    args.extend(shape(d));
    args.push(whole);
    Kernel { on, file: "norm", name: "norm_forward", real }.run(grid, threads, &args);
}

/// Whether a row of the backward pass is a warp's, and blocks and threads.
fn backward(on: &dyn Device, real: Real, d: NormDims) -> (bool, u32, u32) {
    if d.c <= OF_WARP && d.c.is_multiple_of(16 / real.size()) {
        // Two blocks fit a multiprocessor by their registers.
        return (true, blocks_of(on, d.n, BACKWARD_THREADS as usize / 32, 2), BACKWARD_THREADS);
    }
    let threads = threads_of_row(d.c);
    (false, blocks_of(on, d.n, 1, 512 / threads), threads)
}

/// Elements of f32 that [`norm_backward`] asks for as `partial`.
pub(super) fn partial_len(on: &dyn Device, real: Real, d: NormDims) -> usize {
    backward(on, real, d).1 as usize * 2 * d.c
}

/// What the backward pass reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct NormInputs {
    pub x: Address,
    pub gain: Address,
    pub stats: Address,
    pub dout: Address,
}

/// What the backward pass writes: `dx [n, C]` is added to, `dgain` and `dbias [C] f32` are overwritten.
#[derive(Clone, Copy, Debug)]
pub(super) struct NormGradients {
    pub dx: Address,
    pub dgain: Address,
    pub dbias: Option<Address>,
    /// Workspace, of [`partial_len`].
    pub partial: Address,
}

/// `dx +=` the gradient through the norm; `dgain` and `dbias` become the parameters'. All addresses but `stats` are aligned to 16
/// bytes.
pub(super) fn norm_backward(on: &dyn Device, real: Real, s: NormInputs, to: NormGradients, d: NormDims) {
    let (of_warps, grid, threads) = backward(on, real, d);
    let (offset, rms) = (Arg::F32(d.gain_offset), Arg::I32(i32::from(d.rms)));
    let mut args = vec![at(s.x), at(s.gain), at(s.stats), at(s.dout), at(to.dx), at(to.partial)];
    args.extend([int(d.n), int(d.c), offset, rms]);
    if of_warps {
        let shared = 2 * d.c as u32 * 4;
        Kernel { on, file: "norm", name: "norm_backward", real }.run_shared([grid, 1, 1], threads, shared, &args);
    } else {
        Kernel { on, file: "norm", name: "norm_backward_block", real }.run(grid, threads, &args);
    }
    let args = [at(to.partial), at(to.dgain), at_or_null(to.dbias), int(grid as usize), int(d.c)];
    let tiles = (2 * d.c).div_ceil(32) as u32;
    Kernel { on, file: "norm", name: "norm_backward_sum", real }.run(tiles, 1024, &args);
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::Backend;
    use super::super::super::cpu::naive::Naive;
    use super::super::host::{HostDevice, array, close, close_to, random, rounded};
    use super::*;

    /// Around a warp's and a block's vectors and what they hold: 128, 1024, 8192.
    const SHAPES: [(usize, usize); 14] = [
        (1, 1),
        (3, 7),
        (40, 8),
        (5, 33),
        (2, 127),
        (3, 131),
        (33, 256),
        (7, 769),
        (9, 1016),
        (5, 1024),
        (4, 1032),
        (2, 2047),
        (3, 8192),
        (2, 8264),
    ];

    fn dims() -> Vec<(NormDims, Real)> {
        let all = |(n, c)| {
            [false, true]
                .map(|rms| {
                    // Half of RMSNorm's shapes as Gemma has them.
                    let gain_offset = if rms && n % 2 == 1 { 1.0 } else { 0.0 };
                    [Real::F32, Real::Bf16].map(|real| (NormDims { n, c, eps: 1e-5, rms, gain_offset }, real))
                })
                .concat()
        };
        SHAPES.into_iter().flat_map(all).collect()
    }

    #[test]
    fn norms_agree() {
        let Some(on) = HostDevice::new() else { return };
        for (d, real) in dims() {
            let NormDims { n, c, .. } = d;
            let x = rounded(real, random(n * c, 1));
            let [gain, bias] = [3, 4].map(|s| rounded(real, random(c, s)));
            let [x_at, gain_at, bias_at] = [&x, &gain, &bias].map(|x| on.put(real, x));
            let out = on.put(real, &vec![0.0; n * c]);
            let stats = on.put(Real::F32, &vec![0.0; 2 * n]);
            let bias = (!d.rms).then_some(array(&bias));
            let bias_at = (!d.rms).then_some(bias_at);
            norm(&on, real, Normed { x: x_at, gain: gain_at, bias: bias_at, out, stats }, d);
            on.wait().unwrap();
            let (mut want, mut want_stats) = (array(&vec![0.0; n * c]), array(&vec![0.0; 2 * n]));
            Naive.norm(&array(&x), &array(&gain), bias.as_ref(), &mut want, &mut want_stats, d);
            close(&format!("{d:?} {real:?}"), real, &on.get(real, out, n * c), &want);
            close("stats", Real::F32, &on.get(Real::F32, stats, 2 * n), &want_stats);
            for at in [x_at, out] {
                on.release(at, n * c * real.size());
            }
        }
    }

    #[test]
    fn gradients_through_norms_agree() {
        let Some(on) = HostDevice::new() else { return };
        for (d, real) in dims() {
            let NormDims { n, c, .. } = d;
            let [x, dout, dx] = [1, 2, 3].map(|s| rounded(real, random(n * c, s)));
            let gain = rounded(real, random(c, 4));
            let (mut out, mut stats) = (array(&vec![0.0; n * c]), array(&vec![0.0; 2 * n]));
            Naive.norm(&array(&x), &array(&gain), None, &mut out, &mut stats, d);

            let saved = NormInputs {
                x: on.put(real, &x),
                gain: on.put(real, &gain),
                stats: on.put(Real::F32, &stats),
                dout: on.put(real, &dout),
            };
            let dx_at = on.put(real, &dx);
            let partial = on.put(Real::F32, &random(partial_len(&on, real, d), 5));
            let [dgain, dbias] = [6, 7].map(|s| on.put(Real::F32, &random(c, s)));
            let with_bias = (!d.rms).then_some(dbias);
            norm_backward(&on, real, saved, NormGradients { dx: dx_at, dgain, dbias: with_bias, partial }, d);
            on.wait().unwrap();

            let what = format!("{d:?} {real:?}");
            let (mut want, mut want_gain, mut want_bias) = (array(&dx), array(&random(c, 6)), array(&random(c, 7)));
            let of_bias = (!d.rms).then_some(&mut want_bias);
            let saved_stats = stats;
            Naive.norm_backward(
                &array(&x),
                &array(&gain),
                &saved_stats,
                &array(&dout),
                &mut want,
                &mut want_gain,
                of_bias,
                d,
            );
            close_to(&what, real, 1, &on.get(real, dx_at, n * c), &want);
            close(&format!("{what} gain"), Real::F32, &on.get(Real::F32, dgain, c), &want_gain);
            close(&format!("{what} bias"), Real::F32, &on.get(Real::F32, dbias, c), &want_bias);
        }
    }
}
