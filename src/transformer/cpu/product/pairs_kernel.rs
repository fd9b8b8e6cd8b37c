//! The kernel of products with weights in pairs of bf16 where no instruction takes pairs: the left operand is rounded numbers in words of
//! f32, and weights are expanded in registers, once for all rows of a tile, so that what is read is half of what f32 would be.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a kernel: each line is an intrinsic or a pointer's step, all under the one obligation of its function"
)]

use super::kernel::{Kernel, LINE, Run, Tile, kernels, put};
use super::lanes::Lanes;
use crate::transformer::cpu::instructions::Instructions;

/// The kernel for products of so many rows. Its depth is in words of the left operand, an element each.
pub(super) fn kernel(instructions: Instructions, rows: usize) -> Kernel {
    let table: &[Run] = match instructions {
        #[cfg(target_arch = "x86_64")]
        Instructions::Amx | Instructions::Avx512Bf16 | Instructions::Avx512 => &avx512::BY_ROWS,
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => &avx2::BY_ROWS,
        _ => &portable::BY_ROWS,
    };
    Kernel::from_table(table, instructions, rows)
}

/// The one source: a word of `a` is an f32, one of `b` a pair of bf16.
#[inline(always)]
unsafe fn tile<L: Lanes, const ROWS: usize, const V: usize>(depth: usize, a: *const f32, b: *const f32, to: Tile) {
    // SAFETY: the caller keeps the panels and the tile valid, and the machine has L's instructions.
    unsafe {
        // Few rows would wait for their own sums: those of second elements are kept apart, where registers are left.
        let apart = ROWS <= 3;
        let (mut sums, mut second) = ([[L::zero(); V]; ROWS], [[L::zero(); V]; ROWS]);
        let (mut a, mut b) = (a, b);
        let add = |sums: &mut [[L::Vector; V]; ROWS], a: *const f32, right: [L::Vector; V]| {
            for (r, sums) in sums.iter_mut().enumerate() {
                let left = L::splat(a.add(r));
                for (s, x) in sums.iter_mut().zip(right) {
                    *s = L::fma(left, x, *s);
                }
            }
        };
        for k in 0..depth / 2 {
            L::prefetch(to.ahead.wrapping_add(k * LINE));
            let words: [L::Vector; V] = std::array::from_fn(|v| L::load(b.add(v * L::WIDTH)));
            add(&mut sums, a, words.map(|w| L::first(w)));
            add(if apart { &mut second } else { &mut sums }, a.add(ROWS), words.map(|w| L::second(w)));
            a = a.add(2 * ROWS);
            b = b.add(V * L::WIDTH);
        }
        if depth % 2 == 1 {
            add(&mut sums, a, std::array::from_fn(|v| L::first(L::load(b.add(v * L::WIDTH)))));
        }
        if apart {
            for (sums, second) in sums.as_flattened_mut().iter_mut().zip(second.as_flattened()) {
                *sums = L::sum(*sums, *second);
            }
        }
        put::<L, ROWS, V>(sums, to);
    }
}

kernels! {
    portable: Portable, 2, [1, 2, 3, 4];
}
#[cfg(target_arch = "x86_64")]
kernels! {
    #[target_feature(enable = "avx2,fma")] avx2: Avx2, 2, [1, 2, 3, 4, 5, 6];
    #[target_feature(enable = "avx512f")] avx512: Avx512, 2, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];
}
