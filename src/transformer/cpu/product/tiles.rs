//! The kernel of products by tiles of bf16: a result of 32 x 32 from a panel of `a` in tiles and one of `b` as always.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a kernel: each line is an intrinsic or a pointer's step, all under the one obligation of its function"
)]

use super::super::instructions::{Instructions, vectorised};
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
    let mut sums = std::mem::MaybeUninit::<Sums>::uninit();
    let whole = depth / TILE * TILE;
    // SAFETY: the caller's; all of the sums are written, and only then read.
    let sums = unsafe {
        multiply(depth / TILE, a, b, sums.as_mut_ptr(), to.ahead);
        sums.assume_init_mut()
    };
    // SAFETY: the caller's.
    vectorised(|| unsafe {
        for k in whole..depth {
            one_word(a.add(k * SIDE), b.add(k * SIDE), sums);
        }
    });
    // SAFETY: the caller's.
    unsafe { store(sums, to) };
}

/// `to = factor sums + base`
unsafe fn store(sums: &Sums, to: Tile) {
    #[cfg(target_arch = "x86_64")]
    if Instructions::taken() >= Instructions::Avx512 {
        // SAFETY: the caller's; the machine has the instructions.
        return unsafe { store_avx512(sums, to) };
    }
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

/// The same, a register at a time: of arrays the compiler makes single numbers, and storing takes longer than multiplying.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn store_avx512(sums: &Sums, to: Tile) {
    use std::arch::x86_64::{
        _mm512_fmadd_ps, _mm512_load_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_storeu_ps,
    };
    let factor = _mm512_set1_ps(to.factor);
    for (r, row) in sums.0.as_chunks::<SIDE>().0.iter().enumerate() {
        for column in (0..SIDE).step_by(TILE) {
            // SAFETY: the caller's: the tile is whole; the sums are aligned to a register.
            unsafe {
                let x = _mm512_load_ps(row.as_ptr().add(column));
                let x = if to.base.is_null() {
                    _mm512_mul_ps(x, factor)
                } else {
                    _mm512_fmadd_ps(x, factor, _mm512_loadu_ps(to.base.add(r * to.base_stride + column)))
                };
                _mm512_storeu_ps(to.start.add(r * to.stride + column), x);
            }
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
