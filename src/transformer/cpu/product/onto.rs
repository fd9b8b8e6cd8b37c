//! What stands around a product: what its sums are added to, and what becomes of its result.

use super::after::After;
use super::kernel::{LINE, Tile};
use super::{Target, View};
use std::ptr::null;

/// What a product is added to.
#[derive(Clone, Copy, Debug)]
pub(in crate::transformer::cpu) enum Onto<'a> {
    Nothing,
    /// What stands in the target.
    Target,
    /// An element for each column.
    Bias(&'a [f32]),
    /// A matrix of the result's size, its columns side by side.
    Matrix(View<'a>),
}

/// `after(factor * a b + onto)`
#[derive(Clone, Copy, Debug)]
pub(in crate::transformer::cpu) struct Around<'a> {
    pub factor: f32,
    pub onto: Onto<'a>,
    pub after: After<'a>,
}

impl<'a> Around<'a> {
    pub(in crate::transformer::cpu) fn onto(onto: Onto<'a>) -> Self {
        Self { factor: 1.0, onto, after: After::Nothing }
    }

    /// Checks what the kernels rely on.
    pub(super) fn check(&self, rows: usize, columns: usize) {
        match self.onto {
            Onto::Bias(bias) => assert!(bias.len() >= columns, "a bias for each column"),
            Onto::Matrix(plus) => {
                let enough = plus.rows >= rows && plus.columns >= columns && plus.column_stride == 1;
                assert!(enough, "a matrix of the result's size to add to");
            }
            Onto::Nothing | Onto::Target => {}
        }
        self.after.check(columns);
    }
}

impl Onto<'_> {
    /// Asks for the cache lines of a matrix that a tile will be added to: their rows lie far apart, and what fetches ahead by itself
    /// does not see them coming.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables, reason = "there is no such hint"))]
    pub(super) fn ask_for(self, tile: &Tile) {
        #[cfg(target_arch = "x86_64")]
        if let Self::Matrix(_) = self {
            for row in 0..tile.rows {
                for column in (0..tile.columns).step_by(LINE) {
                    let line = tile.base.wrapping_add(row * tile.base_stride + column);
                    // SAFETY: a hint, whatever the address.
                    unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast()) };
                }
            }
        }
    }
}

/// What a tile at `start`, in that row and column, is added to: once a part of the sum is there, to that.
pub(super) fn base_of(
    onto: Onto,
    begun: bool,
    start: *mut f32,
    stride: usize,
    (row, column): (usize, usize),
) -> (*const f32, usize) {
    match onto {
        _ if begun => (start.cast_const(), stride),
        Onto::Target => (start.cast_const(), stride),
        Onto::Bias(bias) => (bias[column..].as_ptr(), 0),
        Onto::Matrix(plus) => (plus.data[row * plus.row_stride + column..].as_ptr(), plus.row_stride),
        Onto::Nothing => (null(), 0),
    }
}

/// An empty sum is zero.
///
/// # Safety
/// No other thread touches the `rows x columns` elements of `to`, and its buffer is alive.
pub(super) unsafe fn without_depth(to: Target, onto: Onto, rows: usize, columns: usize) {
    for r in 0..rows {
        for c in 0..columns {
            let value = match onto {
                Onto::Nothing => 0.0,
                Onto::Bias(bias) => bias[c],
                Onto::Matrix(plus) => plus.data[r * plus.row_stride + c],
                Onto::Target => continue,
            };
            // SAFETY: the caller's.
            unsafe { to.at(r * to.row_stride + c).write(value) };
        }
    }
}
