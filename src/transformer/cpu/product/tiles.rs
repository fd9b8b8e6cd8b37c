//! The kernel of products by tiles of bf16: a result of 32 x 32 from a panel of `a` in tiles and one of `b` as always.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a kernel: each line is an intrinsic or a pointer's step, all under the one obligation of its function"
)]

use super::super::instructions::vectorised;
use super::kernel::Tile;
use crate::amx::{self, Multiply, SIDE, Sums, TILE, pair};

/// As every kernel's `Run`, by AMX.
///
/// # Safety
/// The panels hold `depth` words a row and column, the tile is whole and the caller's alone; AMX is available.
pub(super) unsafe fn by_amx(depth: usize, a: *const f32, b: *const f32, to: Tile) {
    // SAFETY: the caller's.
    unsafe { run(amx::multiply, depth, a, b, to) };
}

/// The same in plain code, for machines without the instructions.
///
/// # Safety
/// As of [`by_amx`], but for AMX.
#[cfg(test)]
pub(super) unsafe fn emulated(depth: usize, a: *const f32, b: *const f32, to: Tile) {
    // SAFETY: the caller's.
    unsafe { run(amx::emulated, depth, a, b, to) };
}

unsafe fn run(multiply: Multiply, depth: usize, a: *const f32, b: *const f32, to: Tile) {
    let mut sums = Sums([0.0; SIDE * SIDE]);
    let whole = depth / TILE * TILE;
    // SAFETY: the caller's.
    unsafe { multiply(depth / TILE, a, b, &mut sums, to.ahead) };
    // SAFETY: the caller's.
    vectorised(|| unsafe {
        for k in whole..depth {
            one_word(a.add(k * SIDE), b.add(k * SIDE), &mut sums);
        }
        store(&sums, to);
    });
}

/// `to = factor sums + base`
#[inline(always)]
unsafe fn store(sums: &Sums, to: Tile) {
    // SAFETY: the caller's: the tile is whole.
    unsafe {
        for (r, row) in sums.0.as_chunks::<SIDE>().0.iter().enumerate() {
            let at = to.start.add(r * to.stride).cast::<[f32; SIDE]>();
            let base = if to.base.is_null() {
                [0.0; SIDE]
            } else {
                to.base.add(r * to.base_stride).cast::<[f32; SIDE]>().read_unaligned()
            };
            at.write_unaligned(std::array::from_fn(|c| base[c] + to.factor * row[c]));
        }
    }
}

/// A word of the inner dimension beyond whole tiles: 32 of each side.
#[inline(always)]
unsafe fn one_word(a: *const f32, b: *const f32, sums: &mut Sums) {
    // SAFETY: the caller's.
    let (left, right) = unsafe { (a.cast::<[f32; SIDE]>().read_unaligned(), b.cast::<[f32; SIDE]>().read_unaligned()) };
    let right = right.map(pair);
    for (row, left) in sums.0.as_chunks_mut::<SIDE>().0.iter_mut().zip(left.map(pair)) {
        for (sum, right) in row.iter_mut().zip(right) {
            *sum += left[0] * right[0];
            *sum += left[1] * right[1];
        }
    }
}
