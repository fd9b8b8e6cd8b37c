//! Sums over the rows of a matrix: gradients of biases.

use super::device::{Address, Arg, Device, Real};
use super::launch::{Kernel, THREADS, at, int};

/// Shares of the rows that the blocks of a tile of columns take.
fn shares(on: &dyn Device, real: Real, n: usize, m: usize) -> usize {
    // Two blocks a multiprocessor have enough loads in flight; 64 rows are 8 for each of a block's warps.
    let at_once = 2 * on.facts().multiprocessors.max(1) as usize;
    at_once.div_ceil(tiles(real, m)).min(n.div_ceil(64)).max(1)
}

fn is_wide(real: Real, m: usize) -> bool {
    m.is_multiple_of(16 / real.size())
}

fn tiles(real: Real, m: usize) -> usize {
    m.div_ceil(if is_wide(real, m) { 32 * 16 / real.size() } else { 32 })
}

/// Elements of f32 that [`column_sums`] asks for as `partial`.
pub(super) fn partial_len(on: &dyn Device, real: Real, n: usize, m: usize) -> usize {
    shares(on, real, n, m) * m
}

/// `out [m] f32 =` the column sums of `x [n, m]`; `x` is aligned to 16 bytes.
pub(super) fn column_sums(on: &dyn Device, real: Real, x: Address, partial: Address, out: Address, n: usize, m: usize) {
    let shares = shares(on, real, n, m);
    let rows = n.div_ceil(shares);
    let wide = Arg::I32(i32::from(is_wide(real, m)));
    // One share's partial sums are the sums.
    let to = if shares == 1 { out } else { partial };
    let args = [at(x), at(to), int(n), int(m), int(rows), wide];
    let grid = [tiles(real, m) as u32, shares as u32, 1];
    Kernel { on, file: "columns", name: "column_sums", real }.run_grid(grid, THREADS, &args);
    if shares > 1 {
        sum_partials(on, real, partial, out, shares, m);
    }
}

/// `out [m] =` the sums of the rows of `partial [shares, m]`, both f32, in their order.
pub(super) fn sum_partials(on: &dyn Device, real: Real, partial: Address, out: Address, shares: usize, m: usize) {
    let args = [at(partial), at(out), int(shares), int(m)];
    Kernel { on, file: "columns", name: "sum_partials", real }.run(m.div_ceil(32) as u32, 1024, &args);
}

#[cfg(test)]
mod tests {
    use super::super::host::{HostDevice, close, random, rounded};
    use super::*;

    #[test]
    fn columns_are_summed_at_any_shape() {
        let Some(on) = HostDevice::new() else { return };
        for (n, m) in [(1, 1), (3, 7), (63, 8), (65, 33), (130, 256), (257, 257), (1000, 31), (700, 264)] {
            for real in [Real::F32, Real::Bf16] {
                let x = rounded(real, random(n * m, 1));
                let from = on.put(real, &x);
                let partial = on.put(Real::F32, &random(partial_len(&on, real, n, m), 2));
                let out = on.put(Real::F32, &random(m, 3));
                column_sums(&on, real, from, partial, out, n, m);
                on.wait().unwrap();
                let want: Vec<f32> =
                    (0..m).map(|c| (0..n).map(|r| f64::from(x[r * m + c])).sum::<f64>() as f32).collect();
                close(&format!("{n} x {m} {real:?}"), Real::F32, &on.get(Real::F32, out, m), &want);
            }
        }
    }
}
