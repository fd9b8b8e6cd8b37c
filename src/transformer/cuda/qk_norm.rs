//! RMSNorm of queries and keys, in place, and its gradients.

use super::super::backend::QkNormDims;
use super::device::{Address, Arg, Device, Real};
use super::launch::{Kernel, THREADS, at, at_or_null, blocks, blocks_of, int};

/// Threads and blocks: a stretch is a warp's, or a block's where it is of all heads.
fn grid(on: &dyn Device, d: QkNormDims) -> (u32, u32) {
    let stretches = d.of.rows() * d.count();
    if !d.whole {
        return (blocks(on, stretches, THREADS as usize / 32), THREADS);
    }
    // 16 elements a thread, as norms have.
    let longest = d.of.heads.max(d.of.kv_heads) * d.of.head_dim;
    let threads = (longest.div_ceil(16).next_multiple_of(32) as u32).clamp(64, 512);
    (blocks_of(on, stretches, 1, 2048 / threads), threads)
}

fn shape(d: QkNormDims) -> [Arg; 5] {
    [int(d.of.rows()), int(d.of.heads), int(d.of.kv_heads), int(d.of.head_dim), Arg::I32(i32::from(d.whole))]
}

/// `qkv` normed in place by the gains of queries and of keys; `kept` are the places of x, `[n, (H + KV) D]`, and of the reciprocal
/// roots, `[n, stretches] f32`.
pub(super) fn qk_norm(
    on: &dyn Device,
    real: Real,
    qkv: Address,
    gains: [Address; 2],
    kept: Option<(Address, Address)>,
    d: QkNormDims,
) {
    let (grid, threads) = grid(on, d);
    let mut args = vec![at(qkv), at(gains[0]), at(gains[1])];
    args.extend([at_or_null(kept.map(|(x, _)| x)), at_or_null(kept.map(|(_, stats)| stats))]);
    args.extend(shape(d));
    args.extend([Arg::F32(d.eps), Arg::F32(d.gain_offset)]);
    Kernel { on, file: "qk_norm", name: "qk_norm", real }.run(grid, threads, &args);
}

/// Shares of the rows that the blocks of a tile of columns take, and tiles: as of column sums.
fn shares(on: &dyn Device, real: Real, d: QkNormDims) -> (usize, usize) {
    let tiles = d.width().div_ceil(if is_wide(real, d) { 32 * 16 / real.size() } else { 32 });
    let at_once = 2 * on.facts().multiprocessors.max(1) as usize;
    (at_once.div_ceil(tiles).min(d.of.rows().div_ceil(64)).max(1), tiles)
}

fn is_wide(real: Real, d: QkNormDims) -> bool {
    d.of.head_dim.is_multiple_of(16 / real.size())
}

/// Elements of f32 that [`qk_norm_backward`] asks for as `partial`.
pub(super) fn partial_len(on: &dyn Device, real: Real, d: QkNormDims) -> usize {
    shares(on, real, d).0 * d.width()
}

/// What the backward pass reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct SavedQkNorm {
    pub x: Address,
    pub stats: Address,
    pub gains: [Address; 2],
}

/// The gradient in `dqkv` becomes that of what was normed; gradients of the gains, f32, are overwritten. `partial` is of [`partial_len`].
/// All addresses but `stats` are aligned to 16 bytes.
pub(super) fn qk_norm_backward(
    on: &dyn Device,
    real: Real,
    s: SavedQkNorm,
    (dqkv, dgains, partial): (Address, [Address; 2], Address),
    d: QkNormDims,
) {
    let (shares, tiles) = shares(on, real, d);
    let kernel = |name| Kernel { on, file: "qk_norm", name, real };
    let mut args = vec![at(s.x), at(s.stats), at(dqkv), at(partial)];
    args.extend(shape(d));
    args.extend([int(d.of.rows().div_ceil(shares)), Arg::I32(i32::from(is_wide(real, d)))]);
    kernel("qk_norm_gains").run_grid([tiles as u32, shares as u32, 1], THREADS, &args);

    let [_, heads, kv_heads, head_dim, whole] = shape(d);
    let args = [at(partial), at(dgains[0]), at(dgains[1]), int(shares), heads, kv_heads, head_dim, whole];
    let longest = d.gains()[0].max(d.gains()[1]);
    kernel("qk_norm_gains_sum").run_grid([longest.div_ceil(32) as u32, 2, 1], 1024, &args);

    let (grid, threads) = grid(on, d);
    let mut args = vec![at(s.x), at(s.stats), at(s.gains[0]), at(s.gains[1]), at(dqkv)];
    args.extend(shape(d));
    args.push(Arg::F32(d.gain_offset));
    kernel("qk_norm_backward").run(grid, threads, &args);
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::{AttentionDims, Parts, Scores};
    use super::super::super::cpu::naive::Naive;
    use super::super::host::{HostDevice, array, close, random, rounded};
    use super::*;

    /// Heads of whole vectors and of others, one head and many, rows of several shares and of several rounds of blocks.
    fn dims() -> Vec<QkNormDims> {
        let shapes = [
            (1, 1, 1, 1, 1),
            (2, 3, 3, 1, 7),
            (2, 65, 4, 2, 16),
            (1, 200, 6, 6, 24),
            (3, 5, 9, 3, 128),
            (1, 9, 40, 8, 256),
        ];
        let all = |(batch, tokens, heads, kv_heads, head_dim)| {
            let scores = Scores::PLAIN;
            let of = AttentionDims { batch, tokens, heads, kv_heads, head_dim, causal: true, scores };
            [(false, 0.0), (false, 1.0), (true, 0.0)].map(|(whole, gain_offset)| QkNormDims {
                of,
                whole,
                eps: 1e-6,
                gain_offset,
            })
        };
        shapes.into_iter().flat_map(all).collect()
    }

    #[test]
    fn queries_and_keys_are_normed_and_values_are_not() {
        let Some(on) = HostDevice::new() else { return };
        for (d, real) in dims().into_iter().flat_map(|d| [(d, Real::F32), (d, Real::Bf16)]) {
            let (n, what) = (d.of.rows(), format!("{d:?} {real:?}"));
            let before = rounded(real, random(n * d.of.qkv_width(), 1));
            let [q, k] = d.gains();
            let gains = [(q, 2), (k, 3)].map(|(len, stream)| rounded(real, random(len, stream)));
            let gains_at = gains.each_ref().map(|g| on.put(real, g));
            let (x, stats) =
                (on.put(real, &vec![f32::NAN; n * d.width()]), on.put(Real::F32, &vec![f32::NAN; n * d.count()]));
            let [kept, alone] = [(); 2].map(|()| on.put(real, &before));
            qk_norm(&on, real, kept, gains_at, Some((x, stats)), d);
            qk_norm(&on, real, alone, gains_at, None, d);
            on.wait().unwrap();
            let (mut want, gains) = (array(&before), gains.map(|g| array(&g)));
            let (mut want_x, mut want_stats) = (array(&vec![0.0; n * d.width()]), array(&vec![0.0; n * d.count()]));
            Naive.qk_norm(&mut want, gains.each_ref(), Some((&mut want_x, &mut want_stats)), d, None);
            close(&what, real, &on.get(real, kept, want.len()), &want);
            assert_eq!(on.get(real, kept, want.len()), on.get(real, alone, want.len()), "{what}");
            assert_eq!(on.get(real, x, want_x.len()), want_x.to_vec(), "{what}");
            close(&format!("{what} statistics"), Real::F32, &on.get(Real::F32, stats, want_stats.len()), &want_stats);
        }
    }

    #[test]
    fn gradients_through_norms_of_queries_and_keys_agree() {
        let Some(on) = HostDevice::new() else { return };
        for (d, real) in dims().into_iter().flat_map(|d| [(d, Real::F32), (d, Real::Bf16)]) {
            let (n, what) = (d.of.rows(), format!("{d:?} {real:?}"));
            let x = rounded(real, random(n * d.width(), 1));
            let dout = rounded(real, random(n * d.of.qkv_width(), 4));
            let stats: Vec<f32> = random(n * d.count(), 5).iter().map(|x| 1.0 + 0.1 * x).collect();
            let [q, k] = d.gains();
            let gains = [(q, 2), (k, 3)].map(|(len, stream)| rounded(real, random(len, stream)));
            let saved = SavedQkNorm {
                x: on.put(real, &x),
                stats: on.put(Real::F32, &stats),
                gains: gains.each_ref().map(|g| on.put(real, g)),
            };
            let dqkv = on.put(real, &dout);
            let dgains = [q, k].map(|len| on.put(Real::F32, &vec![f32::NAN; len]));
            let partial = on.put(Real::F32, &vec![f32::NAN; partial_len(&on, real, d)]);
            qk_norm_backward(&on, real, saved, (dqkv, dgains, partial), d);
            on.wait().unwrap();
            let (mut want, gains) = (array(&dout), gains.map(|g| array(&g)));
            let [mut of_q, mut of_k] = [q, k].map(|len| array(&vec![0.0; len]));
            let of_gains = [&mut of_q, &mut of_k];
            Naive.qk_norm_backward(&array(&x), gains.each_ref(), &array(&stats), &mut want, of_gains, d, None);
            close(&what, real, &on.get(real, dqkv, want.len()), &want);
            for (at, want) in dgains.into_iter().zip([of_q, of_k]) {
                close(&format!("{what}, gains"), Real::F32, &on.get(Real::F32, at, want.len()), &want);
            }
        }
    }
}
