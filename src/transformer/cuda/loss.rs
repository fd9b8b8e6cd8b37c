//! Losses and their gradients.

use super::device::{Address, Arg, Device, Real};
use super::launch::{Kernel, THREADS, at, at_or_null, blocks, blocks_of, int, long};

/// What [`softmax_loss`] reads and writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct SoftmaxLoss {
    pub logits: Address,
    pub targets: Address,
    pub losses: Address,
    /// Of one f32.
    pub scale: Address,
    /// Whether the logits become their gradients.
    pub gradients: bool,
    /// Logits l count as `cap tanh(l / cap)`.
    pub cap: Option<f32>,
}

/// Rows of logits: `v` elements each, `stride` elements apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogitRows {
    pub rows: usize,
    pub v: usize,
    pub stride: usize,
}

/// `losses [rows] f32 =` the cross-entropy of `softmax(logits [rows, v])` against `targets [rows] u32`; with `gradients`, the
/// logits become theirs, times the f32 at `scale`. Rows whose target is `IGNORED_TARGET` have loss 0 and gradient 0.
pub(super) fn softmax_loss(on: &dyn Device, real: Real, o: SoftmaxLoss, d: LogitRows) {
    // A row is a block's: its threads take 16 bytes each at a time.
    let threads = (d.v.div_ceil(16 / real.size()).next_multiple_of(32) as u32).min(512);
    let (gradients, scale) = (Arg::I32(i32::from(o.gradients)), at(o.scale));
    let mut args = vec![at(o.logits), at(o.targets), at(o.losses), int(d.rows), int(d.v), int(d.stride)];
    args.extend([scale, gradients, Arg::F32(o.cap.unwrap_or(0.0))]);
    let grid = blocks_of(on, d.rows, 1, 1024 / threads);
    Kernel { on, file: "loss", name: "softmax_loss", real }.run(grid, threads, &args);
}

/// `scale [1] f32 = 1 /` how many of `targets [n]` take part in a loss, of which 1 at least.
pub(super) fn mean_scale(on: &dyn Device, targets: Address, scale: Address, n: usize) {
    Kernel { on, file: "loss", name: "mean_scale", real: Real::F32 }.run(1, 1024, &[at(targets), at(scale), int(n)]);
}

/// A factor, known to the host or to the device.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    Known(f32),
    At(Address),
}

/// `to [1] f32 = scale *` the sum of `from [n] f32`.
pub(super) fn sum(on: &dyn Device, from: Address, to: Address, n: usize, scale: Scale) {
    let (place, factor) = match scale {
        Scale::Known(factor) => (0, factor),
        Scale::At(place) => (place, 0.0),
    };
    let args = [at(from), at(to), int(n), at(place), Arg::F32(factor)];
    Kernel { on, file: "loss", name: "sum", real: Real::F32 }.run(1, 1024, &args);
}

fn squares_grid(on: &dyn Device, len: usize) -> u32 {
    blocks(on, len.div_ceil(8), THREADS as usize)
}

/// Elements of f32 that [`mean_squared_error`] asks for as `partial`.
pub(super) fn squares_partial_len(on: &dyn Device, len: usize) -> usize {
    squares_grid(on, len) as usize
}

/// What [`mean_squared_error`] reads and writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct SquaredError {
    pub x: Address,
    pub target: Address,
    pub dx: Option<Address>,
    /// Workspace, of [`squares_partial_len`].
    pub partial: Address,
    pub loss: Address,
}

/// `loss [1] f32 =` the mean of `(x - target)^2` over `len` elements; `dx = 2 (x - target) / len`, where wanted.
pub(super) fn mean_squared_error(on: &dyn Device, real: Real, o: SquaredError, len: usize) {
    let (grid, scale) = (squares_grid(on, len), 1.0 / len as f32);
    let args = [at(o.x), at(o.target), at_or_null(o.dx), at(o.partial), long(len), Arg::F32(scale)];
    Kernel { on, file: "loss", name: "squared_error", real }.run(grid, THREADS, &args);
    sum(on, o.partial, o.loss, grid as usize, Scale::Known(scale));
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::{Backend, IGNORED_TARGET};
    use super::super::super::cpu::naive::Naive;
    use super::super::host::{HostDevice, array, close, ids, random, rounded};
    use super::*;

    /// In f64, from the formula.
    fn oracle(logits: &[f32], targets: &[u32], v: usize, scale: f32) -> (Vec<f32>, Vec<f32>) {
        let (mut losses, mut gradients) = (Vec::new(), Vec::new());
        for (row, &target) in logits.chunks_exact(v).zip(targets) {
            if target == IGNORED_TARGET {
                losses.push(0.0);
                gradients.extend(vec![0.0; v]);
                continue;
            }
            let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let shifted = |x: f32| (f64::from(x) - f64::from(top)).exp();
            let total: f64 = row.iter().map(|x| shifted(*x)).sum();
            losses.push((f64::from(top) + total.ln() - f64::from(row[target as usize])) as f32);
            for (i, x) in row.iter().enumerate() {
                let hit = if i == target as usize { 1.0 } else { 0.0 };
                gradients.push(((shifted(*x) / total - hit) * f64::from(scale)) as f32);
            }
        }
        (losses, gradients)
    }

    #[test]
    fn cross_entropy_and_its_gradient_agree() {
        let Some(on) = HostDevice::new() else { return };
        // Odd rows start anywhere within 16 bytes; 50257 is GPT-2's.
        for (rows, v) in [(1, 1), (5, 2), (9, 7), (20, 31), (9, 256), (7, 1031), (3, 4099), (2, 50_257)] {
            for real in [Real::F32, Real::Bf16] {
                let spread: Vec<f32> = random(rows * v, 1).iter().map(|x| 4.0 * x).collect();
                let logits = rounded(real, spread);
                let mut targets = ids(rows, v as u32, 2);
                if rows > 2 {
                    targets[1] = IGNORED_TARGET;
                }
                let scale = 0.125;
                let scale_at = on.put(Real::F32, &[scale]);
                let (want_losses, want) = oracle(&logits, &targets, v, scale);
                let (at, targets) = (on.put(real, &logits), on.put_words(&targets));
                let losses = on.put(Real::F32, &vec![7.0; rows]);
                let o = SoftmaxLoss { logits: at, targets, losses, scale: scale_at, gradients: false, cap: None };
                let d = LogitRows { rows, v, stride: v };
                let what = format!("{rows} x {v} {real:?}");
                softmax_loss(&on, real, o, d);
                on.wait().unwrap();
                assert_eq!(on.get(real, at, rows * v), logits);
                close(&what, Real::F32, &on.get(Real::F32, losses, rows), &want_losses);
                softmax_loss(&on, real, SoftmaxLoss { gradients: true, ..o }, d);
                on.wait().unwrap();
                close(&what, Real::F32, &on.get(Real::F32, losses, rows), &want_losses);
                close(&what, real, &on.get(real, at, rows * v), &want);
            }
        }
    }

    #[test]
    fn a_mean_is_over_the_targets_that_count() {
        let Some(on) = HostDevice::new() else { return };
        for (n, ignored) in [(1, 0), (1, 1), (5, 2), (1024, 1024), (3001, 1)] {
            let mut targets = ids(n, 9, 1);
            targets[..ignored].fill(IGNORED_TARGET);
            let (at, scale) = (on.put_words(&targets), on.put(Real::F32, &[7.0]));
            mean_scale(&on, at, scale, n);
            on.wait().unwrap();
            assert_eq!(on.get(Real::F32, scale, 1), [1.0 / (n - ignored).max(1) as f32], "{ignored} of {n}");
        }
    }

    #[test]
    fn what_lies_between_rows_stays() {
        let Some(on) = HostDevice::new() else { return };
        for (rows, v, stride) in [(3, 5, 8), (4, 1029, 1032), (2, 16, 19)] {
            for real in [Real::F32, Real::Bf16] {
                let logits = rounded(real, random(rows * stride, 1));
                let targets = ids(rows, v as u32, 2);
                let (at, targets_at) = (on.put(real, &logits), on.put_words(&targets));
                let losses = on.put(Real::F32, &vec![7.0; rows]);
                let scale = on.put(Real::F32, &[0.5]);
                let o = SoftmaxLoss { logits: at, targets: targets_at, losses, scale, gradients: true, cap: None };
                softmax_loss(&on, real, o, LogitRows { rows, v, stride });
                on.wait().unwrap();
                let got = on.get(real, at, rows * stride);
                for (r, target) in targets.iter().enumerate() {
                    let row = r * stride..r * stride + v;
                    let (_, want) = oracle(&logits[row.clone()], &[*target], v, 0.5);
                    close(&format!("{rows} x {v} of {stride} {real:?}"), real, &got[row.clone()], &want);
                    assert_eq!(got[row.end..(r + 1) * stride], logits[row.end..(r + 1) * stride]);
                }
            }
        }
    }

    /// Logits far apart, the largest last: the running sum changes its unit over and over.
    #[test]
    fn logits_of_any_size_have_a_finite_loss() {
        let Some(on) = HostDevice::new() else { return };
        let v = 3000;
        let mut logits: Vec<f32> = (0..v).map(|i| i as f32 * 2.0 - 3000.0).collect();
        logits[5] = f32::NEG_INFINITY;
        let (at, targets) = (on.put(Real::F32, &logits), on.put_words(&[0]));
        let loss = on.put(Real::F32, &[0.0]);
        let scale = on.put(Real::F32, &[1.0]);
        let o = SoftmaxLoss { logits: at, targets, losses: loss, scale, gradients: true, cap: None };
        softmax_loss(&on, Real::F32, o, LogitRows { rows: 1, v, stride: v });
        on.wait().unwrap();
        let (want_loss, want) = oracle(&logits, &[0], v, 1.0);
        close("loss", Real::F32, &on.get(Real::F32, loss, 1), &want_loss);
        close("gradient", Real::F32, &on.get(Real::F32, at, v), &want);
    }

    #[test]
    fn squared_errors_agree() {
        let Some(on) = HostDevice::new() else { return };
        for len in [1, 7, 8, 9, 1023, 50_021] {
            for real in [Real::F32, Real::Bf16] {
                let (x, target) = (rounded(real, random(len, 1)), rounded(real, random(len, 2)));
                let (x_at, target_at) = (on.put(real, &x), on.put(real, &target));
                let dx = on.put(real, &vec![0.0; len]);
                let partial = on.put(Real::F32, &vec![9.0; squares_partial_len(&on, len)]);
                let loss = on.put(Real::F32, &[0.0]);
                let mut want = array(&vec![0.0; len]);
                let want_loss = Naive.mean_squared_error(&array(&x), &array(&target), Some(&mut want), len);
                let want_loss = Naive.read_loss(want_loss);
                for dx in [None, Some(dx)] {
                    let o = SquaredError { x: x_at, target: target_at, dx, partial, loss };
                    mean_squared_error(&on, real, o, len);
                    on.wait().unwrap();
                    close(&format!("{len} {real:?}"), Real::F32, &on.get(Real::F32, loss, 1), &[want_loss]);
                }
                close(&format!("dx {len} {real:?}"), real, &on.get(real, dx, len), &want);
            }
        }
    }
}
