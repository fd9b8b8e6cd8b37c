//! The innermost loop of a product: one tile of the result from two panels, in registers.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a kernel: each line is an intrinsic or a pointer's step, all under the one obligation of its function"
)]

use super::Precision;
use super::lanes::Lanes;
use super::pack::Order;
use crate::amx::{AHEAD, SIDE, TILE};
use crate::transformer::cpu::instructions::Instructions;
use std::mem::MaybeUninit;
use std::ptr::null;

/// How a tile is laid out for one instruction path.
#[derive(Clone, Copy, Debug)]
pub(in crate::transformer::cpu) struct Kernel {
    /// Rows of a tile: the width of a panel of `a`.
    pub rows: usize,
    /// Columns of a tile: the width of a panel of `b`.
    pub columns: usize,
    /// How its panels of `a` lie.
    pub left: Order,
    /// Words from which lines are asked for ahead, for each word of the inner dimension.
    pub ahead: usize,
    run: Run,
}

/// Multiplies `depth` words of both panels into the tile at `to`, whose rows are `stride` apart.
pub(super) type Run = unsafe fn(depth: usize, a: *const f32, b: *const f32, to: Tile);

/// Where a tile goes, and how.
#[derive(Clone, Copy)]
pub(in crate::transformer::cpu) struct Tile {
    pub start: *mut f32,
    pub stride: usize,
    /// How much of the tile exists.
    pub rows: usize,
    pub columns: usize,
    pub factor: f32,
    /// What is added to the product: null for nothing, else the first element of a matrix whose rows are `base_stride` apart
    /// (the tile itself to accumulate; a bias with stride 0).
    pub base: *const f32,
    pub base_stride: usize,
    /// From where cache lines are asked for, as many as the kernel says: what is read next.
    pub ahead: *const f32,
}

/// Words on a cache line.
pub(super) const LINE: usize = 16;

/// Room for the largest tile of any kernel.
pub(super) const LARGEST: usize = SIDE * SIDE;

impl Kernel {
    /// Columns of a tile: how wide the panels of `b` are.
    pub(crate) fn columns_of(instructions: Instructions) -> usize {
        if instructions >= Instructions::Avx512 { 32 } else { 16 }
    }

    /// The kernel for products of so many rows: as many of them in a tile as registers hold, all tiles alike.
    pub(crate) fn of(instructions: Instructions, precision: Precision, rows: usize) -> Self {
        let table: &[Run] = match (instructions, precision) {
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx512Bf16 | Instructions::Amx, Precision::Bf16) => &avx512_bf16::BY_ROWS,
            #[cfg(target_arch = "x86_64")]
            (Instructions::Amx | Instructions::Avx512Bf16 | Instructions::Avx512, _) => &avx512::BY_ROWS,
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx2, _) => &avx2::BY_ROWS,
            _ => &portable::BY_ROWS,
        };
        Self::from_table(table, instructions, rows)
    }

    /// The kernel for products of so many rows from those of one row, of two, and so on.
    pub(super) fn from_table(table: &[Run], instructions: Instructions, rows: usize) -> Self {
        let tiles = rows.div_ceil(table.len()).max(1);
        let rows = rows.div_ceil(tiles).max(1);
        Self { rows, columns: Self::columns_of(instructions), left: Order::ByWord, ahead: LINE, run: table[rows - 1] }
    }

    /// A kernel of tiles, which `run` multiplies.
    pub(super) fn of_tiles(run: Run) -> Self {
        Self { rows: SIDE, columns: SIDE, left: Order::InTiles, ahead: AHEAD * LINE / TILE, run }
    }

    /// Multiplies two panels. A tile of which only a part exists is made beside and copied.
    ///
    /// # Safety
    /// The panels hold `depth` words a row and column; the existing part of the tile is the caller's alone to write; the
    /// machine has the kernel's instructions.
    #[inline]
    pub(crate) unsafe fn multiply(&self, depth: usize, a: *const f32, b: *const f32, to: Tile) {
        // SAFETY: the caller's.
        unsafe { to.whole_or_beside(self.rows, self.columns, |to| (self.run)(depth, a, b, to)) };
    }
}

impl Tile {
    /// Runs a kernel of `rows x columns` on a tile: beside, and copied, where only a part of it exists.
    ///
    /// # Safety
    /// The existing part of the tile is the caller's alone to write; `run` writes no more than a whole tile.
    #[inline(always)]
    pub(super) unsafe fn whole_or_beside(self, rows: usize, columns: usize, run: impl Fn(Tile)) {
        if self.rows == rows && self.columns == columns {
            return run(self);
        }
        let mut beside = MaybeUninit::<[f32; LARGEST]>::uninit();
        let whole = beside.as_mut_ptr().cast::<f32>();
        run(Self { start: whole, stride: columns, base: null(), ..self });
        for r in 0..self.rows {
            // SAFETY: the kernel wrote all of the tile; this is within the part of it that exists.
            let (row, to) = unsafe {
                (std::slice::from_raw_parts(whole.add(r * columns), self.columns), self.start.add(r * self.stride))
            };
            // Whole rows at a time, which are vectors to the compiler: what is added is apart from the tile, or the tile itself.
            let base = self.base.wrapping_add(r * self.base_stride);
            // SAFETY: as above; the row is the caller's alone.
            let to = unsafe { std::slice::from_raw_parts_mut(to, self.columns) };
            if self.base.is_null() {
                to.copy_from_slice(row);
            } else if std::ptr::eq(base, to.as_ptr()) {
                to.iter_mut().zip(row).for_each(|(to, x)| *to += x);
            } else {
                // SAFETY: the caller's: as many elements as the tile has columns.
                let base = unsafe { std::slice::from_raw_parts(base, self.columns) };
                to.iter_mut().zip(row.iter().zip(base)).for_each(|(to, (x, base))| *to = base + x);
            }
        }
    }
}

/// The one source: `ROWS x (V WIDTH)` accumulators in registers.
#[inline(always)]
unsafe fn tile<L: Lanes, const ROWS: usize, const V: usize>(depth: usize, a: *const f32, b: *const f32, to: Tile) {
    // SAFETY: the caller keeps the panels and the tile valid, and the machine has L's instructions.
    unsafe {
        let mut sums = [[L::zero(); V]; ROWS];
        let (mut a, mut b) = (a, b);
        for k in 0..depth {
            L::prefetch(to.ahead.wrapping_add(k * LINE));
            let mut right = [L::zero(); V];
            for (v, x) in right.iter_mut().enumerate() {
                *x = L::load(b.add(v * L::WIDTH));
            }
            add::<L, ROWS, V>(&mut sums, a, right);
            a = a.add(ROWS);
            b = b.add(V * L::WIDTH);
        }
        put::<L, ROWS, V>(sums, to);
    }
}

/// Adds a word of each row times a row of words.
#[inline(always)]
pub(super) unsafe fn add<L: Lanes, const ROWS: usize, const V: usize>(
    sums: &mut [[L::Vector; V]; ROWS],
    a: *const f32,
    right: [L::Vector; V],
) {
    // SAFETY: the caller's: `a` holds a word of each row, and the machine has L's instructions.
    unsafe {
        for (r, sums) in sums.iter_mut().enumerate() {
            let left = L::splat(a.add(r));
            for (s, x) in sums.iter_mut().zip(right) {
                *s = L::fma(left, x, *s);
            }
        }
    }
}

/// Puts a tile's sums where they go.
#[inline(always)]
pub(super) unsafe fn put<L: Lanes, const ROWS: usize, const V: usize>(sums: [[L::Vector; V]; ROWS], to: Tile) {
    // SAFETY: the caller's: the tile is whole.
    unsafe {
        for (r, sums) in sums.into_iter().enumerate() {
            for (v, s) in sums.into_iter().enumerate() {
                let column = v * L::WIDTH;
                let base = if to.base.is_null() { null() } else { to.base.add(r * to.base_stride + column) };
                L::store(s, to.factor, base, to.start.add(r * to.stride + column));
            }
        }
    }
}

macro_rules! kernels {
    ($($(#[$attribute:meta])* $name:ident: $lanes:ty, $vectors:literal, [$($rows:literal),+];)+) => {
        $(mod $name {
            use super::{Run, Tile, tile};
            #[allow(unused_imports, reason = "each takes one of them")]
            use crate::transformer::cpu::product::lanes::*;

            $(#[$attribute])*
            unsafe fn run<const ROWS: usize>(depth: usize, a: *const f32, b: *const f32, to: Tile) {
                // SAFETY: the caller's.
                unsafe { tile::<$lanes, ROWS, $vectors>(depth, a, b, to) }
            }

            /// The kernel of one row, of two, and so on.
            pub(super) const BY_ROWS: [Run; [$($rows),+].len()] = [$(run::<$rows>),+];
        })+
    };
}

pub(super) use kernels;

kernels! {
    portable: Portable, 2, [1, 2, 3, 4];
}
#[cfg(target_arch = "x86_64")]
kernels! {
    #[target_feature(enable = "avx2,fma")] avx2: Avx2, 2, [1, 2, 3, 4, 5, 6];
    #[target_feature(enable = "avx512f")] avx512: Avx512, 2, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];
    #[target_feature(enable = "avx512f,avx512bf16")] avx512_bf16: Avx512Bf16, 2, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];
}
