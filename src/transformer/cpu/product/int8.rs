//! Products with weights of 8 bits, as `int8_groups` packs them.

use super::super::instructions::Instructions;
use super::super::pool::Pool;
use super::int8_groups::{GROUP, LEFT_ROWS, RIGHT_ROWS, quantise_left, right_words};
use super::int8_kernel::Kernel8;
use super::kernel::{LINE, Tile};
use super::panels::PackedBuffer;
use super::weights::PackedWeight;
use super::{Onto, Target, View, base_of, rows_of_block};

/// Groups that are multiplied at a time: a panel of weights of this depth stays in the first-level cache.
const GROUPS: usize = 12;
/// Tiles of rows and panels of weights that a task multiplies with each other.
const TASK: (usize, usize) = (16, 4);

/// `to = factor * a w^T + onto` for weights of 8 bits.
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
    let how = weights.layout;
    let kernel = Kernel8::of(Instructions::taken(), a.rows);
    let (groups, width) = (how.depth.div_ceil(GROUP), how.width);
    let (tiles, panels) = (a.rows.div_ceil(kernel.rows), how.panels().count);
    let left_len = groups * LEFT_ROWS * kernel.rows;
    let right_len = right_words(how.depth, width);
    let mut left = pool.scratch(tiles * left_len);
    let packed = PackedBuffer::of(&mut left);
    pool.each(tiles, |tile| {
        // SAFETY: each tile's panel is one task's.
        let panel = unsafe { packed.part(tile * left_len, left_len) };
        quantise_left(panel, kernel.rows, a, tile * kernel.rows);
    });
    let (left, words) = (&*left, &*weights.words);
    let down = tiles.div_ceil(TASK.0);
    // Few rows: bound by reading the weights, which each thread does panel after panel.
    let share = if down == 1 { panels.div_ceil(4 * pool.threads).max(1) } else { TASK.1 };
    pool.each(down * panels.div_ceil(share), |task| {
        let (of_rows, of_columns) = (task % down, task / down);
        for from in (0..groups).step_by(GROUPS) {
            let depth = GROUPS.min(groups - from);
            for panel in of_columns * share..((of_columns + 1) * share).min(panels) {
                let b = words[panel * right_len + from * RIGHT_ROWS * width..].as_ptr();
                for tile in of_rows * TASK.0..((of_rows + 1) * TASK.0).min(tiles) {
                    let l = left[tile * left_len + from * LEFT_ROWS * kernel.rows..].as_ptr();
                    let (row, column) = (tile * kernel.rows, panel * width);
                    let start = to.at((first + row) * to.row_stride + column).start();
                    let (base, base_stride) = base_of(onto, from > 0, start, to.row_stride, column);
                    // As in products that are not rounded to integers: the next panel comes from memory while this one is used.
                    let words = depth * RIGHT_ROWS * width;
                    let ahead = words + (tile - of_rows * TASK.0) * depth * RIGHT_ROWS * LINE;
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
