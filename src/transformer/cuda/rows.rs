//! Rows picked out of a matrix, and the largest of each row.

use super::device::{Address, Device, Real};
use super::launch::{Kernel, THREADS, at, blocks_over_rows, int};

/// Row `b` of `out [batch, C]` is row `b * tokens + tokens - 1` of `x [batch * tokens, C]`.
pub(super) fn last_rows(on: &dyn Device, real: Real, x: Address, out: Address, batch: usize, tokens: usize, c: usize) {
    let args = [at(x), at(out), int(batch), int(tokens), int(c)];
    Kernel { on, file: "rows", name: "last_rows", real }.run(blocks_over_rows(on, real, batch, c), THREADS, &args);
}

/// Elements of a row that a block has at least: a load of 16 bytes of bf16 for each of 256 threads, twice.
const LEAST_PART: usize = 2 * 8 * THREADS as usize;

/// Blocks for each row of [`argmax`]: all of the device for one row, one each for many.
fn parts(on: &dyn Device, n: usize, v: usize) -> usize {
    let wanted = (2 * on.facts().multiprocessors as usize).div_ceil(n.max(1));
    wanted.min(v.div_ceil(LEAST_PART)).max(1)
}

/// Bytes of workspace that [`argmax`] needs: the largest of each part of each row, and where it is.
pub(super) fn argmax_workspace_bytes(on: &dyn Device, n: usize, v: usize) -> usize {
    8 * n * parts(on, n, v)
}

/// `out [n] u32`: the index of the largest number of each row of `x [n, v]`, the first of equals. `counts [n]` words are zero
/// before and after; what is in `workspace`, [`argmax_workspace_bytes`], does not matter.
pub(super) fn argmax(
    on: &dyn Device,
    real: Real,
    (x, workspace, counts): (Address, Address, Address),
    out: Address,
    n: usize,
    v: usize,
) {
    let parts = parts(on, n, v);
    let indices = workspace + (4 * n * parts) as Address;
    let grid = [parts as u32, n.min(65535) as u32, 1];
    let args = [at(x), at(workspace), at(indices), at(counts), at(out), int(n), int(v)];
    Kernel { on, file: "rows", name: "argmax", real }.run_shared(grid, THREADS, 0, &args);
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::Backend;
    use super::super::super::cpu::naive::Naive;
    use super::super::host::{HostDevice, array, random, rounded};
    use super::*;

    #[test]
    fn the_last_row_of_each_sequence_is_copied() {
        let Some(on) = HostDevice::new() else { return };
        for (batch, tokens, c) in [(1, 1, 1), (3, 5, 7), (2, 4, 64), (5, 3, 1032)] {
            for real in [Real::F32, Real::Bf16] {
                let x = rounded(real, random(batch * tokens * c, 1));
                let (from, out) = (on.put(real, &x), on.put(real, &vec![0.0; batch * c]));
                last_rows(&on, real, from, out, batch, tokens, c);
                on.wait().unwrap();
                let want: Vec<f32> =
                    (0..batch).flat_map(|b| x[(b * tokens + tokens - 1) * c..][..c].to_vec()).collect();
                assert_eq!(on.get(real, out, batch * c), want);
            }
        }
    }

    #[test]
    fn the_first_of_the_largest_is_found() {
        let Some(on) = HostDevice::new() else { return };
        for (n, v) in [(1, 1), (2, 3), (9, 8), (7, 65), (3, 1031), (2, 33_000), (1, 33_000), (1, 20_483), (40, 8200)] {
            for real in [Real::F32, Real::Bf16] {
                // bf16 has many equals among so many.
                let x = rounded(real, random(n * v, 1));
                let (from, out) = (on.put(real, &x), on.put_words(&vec![9; n]));
                let workspace = on.put_words(&vec![7; argmax_workspace_bytes(&on, n, v) / 4]);
                let counts = on.put_words(&vec![0; n]);
                argmax(&on, real, (from, workspace, counts), out, n, v);
                on.wait().unwrap();
                assert_eq!(on.get_words(counts, n), vec![0; n]);
                assert_eq!(on.get_words(out, n), Naive.argmax(&array(&x), n, v), "{n} x {v} {real:?}");
            }
        }
        // Equals in every part, and elements that nothing is larger than.
        for number in [f32::NEG_INFINITY, 1.0] {
            let (n, v) = (1, 9000);
            let same = on.put(Real::F32, &vec![number; v]);
            let workspace = on.put_words(&vec![7; argmax_workspace_bytes(&on, n, v) / 4]);
            let (counts, out) = (on.put_words(&[0]), on.put_words(&[9]));
            assert!(parts(&on, n, v) > 1);
            argmax(&on, Real::F32, (same, workspace, counts), out, n, v);
            on.wait().unwrap();
            assert_eq!(on.get_words(out, 1), [0]);
        }
    }
}
