//! Products with weights in floats of 8 bits, as `f8_panels` packs them.
//!
//! A few rows are bound by reading the weights: the kernel expands these in registers (`f8_kernel`). With more rows a task expands a
//! block of a panel into the first-level cache, multiplies it as a panel of the precision with all its rows, by whichever
//! kernel that has, and scales what it adds to the result.

use super::super::instructions::{Instructions, vectorised};
use super::super::pool::Pool;
use super::f8_panels::{self, FOUR};
use super::kernel::{LARGEST, Run, Tile};
use super::pack::Source;
use super::panels::{K_BLOCK, KBlock, Packing, Panels, k_blocks, run_all};
use super::weights::PackedWeight;
use super::{Onto, Precision, Target, View, base_of, f8_kernel, kernel_for, rows_of_block};
use crate::amx::SIDE;
use std::ptr::null;

/// Tiles of rows and panels of weights that a task multiplies with each other: a panel is expanded once for so many tiles.
const TASK: (usize, usize) = (16, 2);

/// Words that begin on a cache line: tiles of bf16 load those twice as fast.
#[repr(align(64))]
struct Lines<T>(T);

/// Where a product goes, and how: `to = factor * sums + onto`.
#[derive(Clone, Copy)]
struct Output<'a> {
    to: Target,
    onto: Onto<'a>,
    factor: f32,
}

/// `to = factor * a w^T + onto`, the left factors in `precision`.
///
/// # Safety
/// No other thread touches the `a.rows x M` elements of `to`, and its buffer is alive.
pub(super) unsafe fn product(
    pool: &Pool,
    to: Target,
    onto: Onto,
    factor: f32,
    a: View,
    weights: &PackedWeight,
    precision: Precision,
) {
    assert_eq!(a.column_stride, 1, "rows whose elements lie side by side");
    let output = Output { to, onto, factor };
    let of_few = a.rows.checked_sub(1).and_then(|i| f8_kernel::by_rows(Instructions::taken()).get(i));
    if let Some(run) = of_few {
        // SAFETY: the caller's.
        return unsafe { few_rows(pool, output, a, weights, precision, *run) };
    }
    let block = rows_of_block(a.rows, a.columns);
    for first in (0..a.rows).step_by(block) {
        let rows = block.min(a.rows - first);
        let part = View { data: &a.data[first * a.row_stride..], rows, ..a };
        // SAFETY: the caller's; the row blocks do not overlap.
        unsafe { row_block(pool, output, first, part, weights, precision) };
    }
}

/// A product of one tile's rows, which each thread does panel after panel.
unsafe fn few_rows(pool: &Pool, output: Output, a: View, weights: &PackedWeight, precision: Precision, run: Run) {
    let (how, Output { to, onto, factor }) = (weights.layout, output);
    let (depth, width) = (how.depth.div_ceil(FOUR), how.width);
    let mut left = pool.scratch(FOUR * depth * a.rows);
    f8_panels::pack_left(&mut left, a, precision);
    let (left, words) = (&*left, &*weights.words);
    let (panels, len) = (how.panels().count, f8_panels::right_words(how.depth, width));
    let share = panels.div_ceil(4 * pool.threads).max(1);
    pool.each(panels.div_ceil(share), |task| {
        for panel in task * share..((task + 1) * share).min(panels) {
            let (b, column) = (words[panel * len..][..len].as_ptr(), panel * width);
            let start = to.at(column).start();
            let (base, base_stride) = base_of(onto, false, start, to.row_stride, (0, column));
            let columns = width.min(how.columns - column);
            let tile =
                Tile { start, stride: to.row_stride, rows: a.rows, columns, factor, base, base_stride, ahead: b };
            // SAFETY: the panels are within their buffers, and the machine has the kernel's instructions.
            let multiply = |to: Tile| unsafe { run(depth, left.as_ptr(), b, to) };
            // SAFETY: this tile is this task's alone, and the kernel writes no more than it.
            unsafe { tile.whole_or_beside(a.rows, width, multiply) };
        }
    });
}

unsafe fn row_block(pool: &Pool, output: Output, first: usize, a: View, weights: &PackedWeight, precision: Precision) {
    let (how, kernel) = (weights.layout, kernel_for(precision, a.rows));
    let (rows, blocks): (Panels, Vec<KBlock>) =
        (Panels::of(a.rows, kernel.rows), k_blocks(how.depth, precision).collect());
    let mut left = pool.scratch(rows.len(how.depth, precision));
    let source = Source { data: a.data, item_stride: a.row_stride, depth_stride: a.column_stride };
    let mut packing = Packing::new(&mut left, rows, a.rows, source, &blocks, precision);
    packing.order = kernel.left;
    run_all(pool, &[Some(packing), None]);
    let (left, words, width) = (&*left, &*weights.words, how.width);
    let (panels, len) = (how.panels().count, f8_panels::right_words(how.depth, width));
    let down = rows.count.div_ceil(TASK.0);
    pool.each(down * panels.div_ceil(TASK.1), |task| {
        let (of_rows, of_columns) = (task % down, task / down);
        let (mut expanded, mut sums) = (Lines([0.0f32; SIDE * K_BLOCK]), Lines([0.0f32; LARGEST]));
        for k in &blocks {
            let expanded = &mut expanded.0[..k.words * width];
            for panel in of_columns * TASK.1..((of_columns + 1) * TASK.1).min(panels) {
                let (codes, scales) = words[panel * len..][..len].split_at(len - width);
                let of_block = &codes[k.first / FOUR * width..][..k.len.div_ceil(FOUR) * width];
                f8_panels::expand(of_block, width, expanded, precision);
                for tile in of_rows * TASK.0..((of_rows + 1) * TASK.0).min(rows.count) {
                    let of_left = left[rows.at(*k, tile)..][..rows.width * k.words].as_ptr();
                    let b = expanded.as_ptr();
                    let whole = Tile {
                        start: sums.0.as_mut_ptr(),
                        stride: width,
                        rows: kernel.rows,
                        columns: width,
                        factor: 1.0,
                        base: null(),
                        base_stride: 0,
                        ahead: b,
                    };
                    // SAFETY: the panels are within their buffers, and the sums hold the largest tile.
                    unsafe { kernel.multiply(k.words, of_left, b, whole) };
                    let (row, column) = (tile * kernel.rows, panel * width);
                    let onto = if k.first > 0 { Onto::Target } else { output.onto };
                    let place = Place {
                        row: first + row,
                        column,
                        rows: kernel.rows.min(a.rows - row),
                        columns: width.min(how.columns - column),
                    };
                    // SAFETY: this part of the result is this task's alone.
                    unsafe { place.put(&sums.0, width, scales, Output { onto, ..output }) };
                }
            }
        }
    });
}

/// A part of a result.
struct Place {
    row: usize,
    column: usize,
    rows: usize,
    columns: usize,
}

impl Place {
    /// Puts sums there, each times its column's scale; rows of them are `width` apart.
    ///
    /// # Safety
    /// No other thread touches the place, and the result's buffer is alive.
    unsafe fn put(&self, sums: &[f32], width: usize, scales: &[f32], output: Output) {
        let Output { to, onto, factor } = output;
        vectorised(
            #[inline(always)]
            || {
                for (r, sums) in sums.chunks_exact(width).take(self.rows).enumerate() {
                    let at = to.at((self.row + r) * to.row_stride + self.column);
                    // SAFETY: within the buffer, as the product checked; the caller keeps others away.
                    let row = unsafe { std::slice::from_raw_parts_mut(at.start(), self.columns) };
                    let scaled = sums.iter().zip(scales).map(|(s, by)| factor * by * s);
                    match onto {
                        Onto::Nothing => row.iter_mut().zip(scaled).for_each(|(to, x)| *to = x),
                        Onto::Target => row.iter_mut().zip(scaled).for_each(|(to, x)| *to += x),
                        Onto::Bias(bias) => {
                            let biased = scaled.zip(&bias[self.column..]).map(|(x, b)| x + b);
                            row.iter_mut().zip(biased).for_each(|(to, x)| *to = x);
                        }
                        Onto::Matrix(plus) => {
                            let before = &plus.data[(self.row + r) * plus.row_stride + self.column..];
                            let all = scaled.zip(before).map(|(x, b)| x + b);
                            row.iter_mut().zip(all).for_each(|(to, x)| *to = x);
                        }
                    }
                }
            },
        );
    }
}
