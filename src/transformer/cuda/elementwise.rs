//! Flat arrays: fill, add, scale, cap, change of format.

use super::buffer::Buffer;
use super::device::{Address, Arg, Device, Real};
use super::launch::{Kernel, THREADS, at, blocks, long};

fn run(on: &dyn Device, real: Real, name: &'static str, len: usize, args: &[Arg]) {
    if len > 0 {
        // Each thread takes 16 bytes of the wider format at a time.
        let grid = blocks(on, len.div_ceil(4), THREADS as usize);
        Kernel { on, file: "elementwise", name, real }.run(grid, THREADS, args);
    }
}

/// `to[i] = value` for the first `len`.
pub(super) fn fill(on: &dyn Device, real: Real, to: Address, value: f32, len: usize) {
    run(on, real, "fill", len, &[at(to), Arg::F32(value), long(len)]);
}

/// The same in f32, whatever `real` is.
pub(super) fn fill_f32(on: &dyn Device, to: Address, value: f32, len: usize) {
    run(on, Real::F32, "fill_f32", len, &[at(to), Arg::F32(value), long(len)]);
}

/// `to = value`, in each format that it is kept in.
pub(super) fn fill_buffer(on: &dyn Device, to: &Buffer, value: f32) {
    if let Some((wide, narrow)) = to.shadow() {
        fill_f32(on, wide, value, to.len);
        fill(on, Real::Bf16, narrow, value, to.len);
    } else {
        fill(on, to.format(), to.at(), value, to.len);
    }
}

/// `to[i] += from[i]`
pub(super) fn add(on: &dyn Device, real: Real, from: Address, to: Address, len: usize) {
    run(on, real, "add", len, &[at(from), at(to), long(len)]);
}

/// `x[i] *= factor`
pub(super) fn scale(on: &dyn Device, real: Real, x: Address, factor: f32, len: usize) {
    run(on, real, "scale", len, &[at(x), Arg::F32(factor), long(len)]);
}

/// `x[i] = cap tanh(x[i] / cap)`
pub(super) fn soft_cap(on: &dyn Device, real: Real, x: Address, cap: f32, len: usize) {
    run(on, real, "soft_cap", len, &[at(x), Arg::F32(cap), long(len)]);
}

/// f32 to `real`.
pub(super) fn narrow(on: &dyn Device, real: Real, from: Address, to: Address, len: usize) {
    run(on, real, "narrow", len, &[at(from), at(to), long(len)]);
}

/// `real` to f32.
pub(super) fn widen(on: &dyn Device, real: Real, from: Address, to: Address, len: usize) {
    run(on, real, "widen", len, &[at(from), at(to), long(len)]);
}

#[cfg(test)]
mod tests {
    use super::super::host::{HostDevice, close, random, rounded};
    use super::*;

    /// Around vectors of 4 and 8, and past the grid's 3 * 8 blocks.
    const LENGTHS: [usize; 11] = [0, 1, 3, 4, 5, 7, 8, 9, 17, 1021, 60_001];

    #[test]
    fn arrays_of_any_length_are_filled_added_and_changed() {
        let Some(on) = HostDevice::new() else { return };
        for real in [Real::F32, Real::Bf16] {
            for len in LENGTHS {
                let (a, b) = (random(len, 1), random(len, 2));
                let (from, to) = (on.put(real, &a), on.put(real, &b));
                add(&on, real, from, to, len);
                let want: Vec<f32> =
                    rounded(real, a.clone()).iter().zip(rounded(real, b)).map(|(a, b)| a + b).collect();
                close("add", real, &on.get(real, to, len), &want);

                fill(&on, real, to, 0.5, len);
                assert_eq!(on.get(real, to, len), vec![0.5; len]);
                let wide = on.put(Real::F32, &a);
                fill_f32(&on, wide, 1.5, len);
                assert_eq!(on.get(Real::F32, wide, len), vec![1.5; len]);

                on.set(Real::F32, wide, &a);
                narrow(&on, real, wide, to, len);
                assert_eq!(on.get(real, to, len), rounded(real, a.clone()));
                fill_f32(&on, wide, 0.0, len);
                widen(&on, real, to, wide, len);
                assert_eq!(on.get(Real::F32, wide, len), rounded(real, a));
                on.wait().unwrap();
            }
        }
    }

    #[test]
    fn parts_that_are_not_aligned_are_done_one_by_one() {
        let Some(on) = HostDevice::new() else { return };
        let x = on.put(Real::Bf16, &[1.0; 100]);
        fill(&on, Real::Bf16, x + 2, 2.0, 98);
        on.wait().unwrap();
        let got = on.get(Real::Bf16, x, 100);
        assert_eq!((got[0], got[1], got[98], got[99]), (1.0, 2.0, 2.0, 1.0));
    }
}
