//! Products with weights of 8 or 4 bits, as `int8_groups` and `int4_groups` pack them.

use super::super::instructions::Instructions;
use super::super::pool::Pool;
use super::int4_groups::{self, CHUNK, Groups};
use super::int4_kernel;
use super::int8_groups::{self, GROUP, LEFT_ROWS, RIGHT_ROWS};
use super::int8_kernel::IntegerKernel;
use super::kernel::{LINE, Tile};
use super::panels::PackedBuffer;
use super::weights::{PackedWeight, Stored};
use super::{Onto, Target, View, base_of, rows_of_block};

/// Elements of the inner dimension that are multiplied at a time: a panel of weights of this depth stays in the first-level cache.
const DEPTH: usize = 768;
/// Tiles of rows and panels of weights that a task multiplies with each other.
const TASK: (usize, usize) = (16, 4);

/// How panels lie: in blocks of the inner dimension.
#[derive(Clone, Copy)]
struct Form {
    /// Of 4 bits; `None`: of 8.
    groups: Option<Groups>,
    /// Elements of a block.
    block: usize,
    /// Rows of a block's words, on the left and on the right.
    left_rows: usize,
    right_rows: usize,
}

impl Form {
    fn of(stored: Stored) -> Self {
        match stored {
            Stored::Int4(g) => {
                let (block, left_rows, right_rows) = (g.chunks() * CHUNK, g.left_rows(), g.right_rows());
                Self { groups: Some(g), block, left_rows, right_rows }
            }
            Stored::Int8 | Stored::F8 | Stored::Whole(_) => {
                Self { groups: None, block: GROUP, left_rows: LEFT_ROWS, right_rows: RIGHT_ROWS }
            }
        }
    }

    fn kernel(self, rows: usize) -> IntegerKernel {
        let instructions = Instructions::taken();
        self.groups.map_or_else(
            || IntegerKernel::of_8_bits(instructions, rows),
            |groups| int4_kernel::of(instructions, rows, groups),
        )
    }

    fn quantise_left(self, panel: &mut [f32], tile: usize, a: View, first: usize) {
        match self.groups {
            None => int8_groups::quantise_left(panel, tile, a, first),
            Some(groups) => int4_groups::quantise_left(panel, tile, a, first, groups),
        }
    }
}

/// `to = factor * a w^T + onto` for weights of 8 bits, or of 4 in groups.
///
/// # Safety
/// No other thread touches the `a.rows x M` elements of `to`, and its buffer is alive.
pub(super) unsafe fn product(pool: &Pool, to: Target, onto: Onto, factor: f32, a: View, weights: &PackedWeight) {
    assert_eq!(a.column_stride, 1, "rows whose elements lie side by side");
    let block = rows_of_block(a.rows, a.columns / 4);
    for first in (0..a.rows).step_by(block) {
        let rows = block.min(a.rows - first);
        let part = View { data: &a.data[first * a.row_stride..], rows, ..a };
        // SAFETY: the caller's; the row blocks do not overlap.
        unsafe { row_block(pool, to, onto, factor, first, part, weights) };
    }
}

unsafe fn row_block(pool: &Pool, to: Target, onto: Onto, factor: f32, first: usize, a: View, weights: &PackedWeight) {
    let (how, form) = (weights.layout, Form::of(weights.layout.stored));
    let kernel = form.kernel(a.rows);
    let (blocks, width) = (how.depth.div_ceil(form.block), how.width);
    let (tiles, panels) = (a.rows.div_ceil(kernel.rows), how.panels().count);
    let left_len = blocks * form.left_rows * kernel.rows;
    let right_len = blocks * form.right_rows * width;
    let mut left = pool.scratch(tiles * left_len);
    let packed = PackedBuffer::of(&mut left);
    pool.each(tiles, |tile| {
        // SAFETY: each tile's panel is one task's.
        let panel = unsafe { packed.part(tile * left_len, left_len) };
        form.quantise_left(panel, kernel.rows, a, tile * kernel.rows);
    });
    let (left, words) = (&*left, &*weights.words);
    let down = tiles.div_ceil(TASK.0);
    // Few rows: bound by reading the weights, which each thread does panel after panel.
    let share = if down == 1 { panels.div_ceil(4 * pool.threads).max(1) } else { TASK.1 };
    pool.each(down * panels.div_ceil(share), |task| {
        let (of_rows, of_columns) = (task % down, task / down);
        for from in (0..blocks).step_by(DEPTH / form.block) {
            let depth = (DEPTH / form.block).min(blocks - from);
            for panel in of_columns * share..((of_columns + 1) * share).min(panels) {
                let b = words[panel * right_len + from * form.right_rows * width..].as_ptr();
                for tile in of_rows * TASK.0..((of_rows + 1) * TASK.0).min(tiles) {
                    let l = left[tile * left_len + from * form.left_rows * kernel.rows..].as_ptr();
                    let (row, column) = (tile * kernel.rows, panel * width);
                    let start = to.at((first + row) * to.row_stride + column).start();
                    let (base, base_stride) = base_of(onto, from > 0, start, to.row_stride, (first + row, column));
                    // As in products that are not rounded to integers: the next panel comes from memory while this one is used.
                    let words = depth * form.right_rows * width;
                    let ahead = words + (tile - of_rows * TASK.0) * depth * form.right_rows * LINE;
                    let ahead = if tiles > 1 && ahead < 2 * words { b.wrapping_add(ahead) } else { b };
                    let place = Tile {
                        start,
                        stride: to.row_stride,
                        rows: kernel.rows.min(a.rows - row),
                        columns: width.min(how.columns - column),
                        factor,
                        base,
                        base_stride,
                        ahead,
                    };
                    // SAFETY: the panels are within their buffers; this tile is this task's alone.
                    unsafe { kernel.multiply(depth, l, b, place) };
                }
            }
        }
    });
}
