//! Rows picked out of a matrix, and the largest of each row.

use super::device::{Address, Device, Real};
use super::launch::{Kernel, THREADS, at, blocks_of, blocks_over_rows, int};

/// Row `b` of `out [batch, C]` is row `b * tokens + tokens - 1` of `x [batch * tokens, C]`.
pub(super) fn last_rows(on: &dyn Device, real: Real, x: Address, out: Address, batch: usize, tokens: usize, c: usize) {
    let args = [at(x), at(out), int(batch), int(tokens), int(c)];
    Kernel { on, file: "rows", name: "last_rows", real }.run(blocks_over_rows(on, real, batch, c), THREADS, &args);
}

/// `out [n] u32`: the index of the largest number of each row of `x [n, v]`, the first of equals.
pub(super) fn argmax(on: &dyn Device, real: Real, x: Address, out: Address, n: usize, v: usize) {
    // One row is read by one block, so by as many threads as it can have.
    let threads = v.div_ceil(32).next_multiple_of(32).min(1024) as u32;
    Kernel { on, file: "rows", name: "argmax", real }.run(
        blocks_of(on, n, 1, 2),
        threads,
        &[at(x), at(out), int(n), int(v)],
    );
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
        for (n, v) in [(1, 1), (2, 3), (9, 8), (7, 65), (3, 1031), (2, 33_000)] {
            for real in [Real::F32, Real::Bf16] {
                // bf16 has many equals among so many.
                let x = rounded(real, random(n * v, 1));
                let (from, out) = (on.put(real, &x), on.put_words(&vec![9; n]));
                argmax(&on, real, from, out, n, v);
                on.wait().unwrap();
                assert_eq!(on.get_words(out, n), Naive.argmax(&array(&x), n, v), "{n} x {v} {real:?}");
            }
        }
        let same = on.put(Real::F32, &[f32::NEG_INFINITY; 100]);
        let out = on.put_words(&[9]);
        argmax(&on, Real::F32, same, out, 1, 100);
        on.wait().unwrap();
        assert_eq!(on.get_words(out, 1), [0]);
    }
}
