//! Matrix products, in f32 or with bf16 factors and f32 sums.
//!
//! Operands are cut into panels (see `pack`) that lie in the caches when they are used, after Goto & van de Geijn 2008: a panel
//! of `b` in the first level, a group of panels of `a` in the second. Packing and multiplying are each split over the threads.

mod f8_kernel;
mod f8_panels;
#[cfg(test)]
mod f8_tests;
mod floats;
pub(super) mod grouped;
mod int4_groups;
mod int4_kernel;
#[cfg(test)]
mod int4_tests;
mod int8_groups;
mod int8_kernel;
mod integers;
pub(super) mod kernel;
mod lanes;
pub(super) mod pack;
pub(super) mod panels;
#[cfg(test)]
mod product_tests;
mod tiles;
mod weights;
mod widened;

use super::instructions::Instructions;
use super::pool::Pool;
pub(super) use int4_groups::Groups;
use kernel::{Kernel, Tile};
use pack::{Source, words};
use panels::{KBlock, Packing, Panels, k_blocks, run_all};
use std::ptr::null;
pub(super) use weights::{PackedLayout, PackedWeight, Stored};

/// Of the factors; sums are f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    F32,
    Bf16,
}

/// A matrix to read: `rows x columns`, with the distance between rows and between columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a> View<'a> {
    /// A dense row-major matrix.
    pub(super) fn dense(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows of `columns` elements, `row_stride` apart.
    pub(super) fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(reach(rows, columns, row_stride) <= data.len(), "a view of {rows} x {columns} beyond its data");
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The transpose, without moving anything.
    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// One past the last element of a row-major matrix.
fn reach(rows: usize, columns: usize, row_stride: usize) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + columns }
}

/// A place to write: dense columns, rows `row_stride` apart. Raw, because threads write to interleaved parts of one buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    start: *mut f32,
    len: usize,
    pub row_stride: usize,
}

// SAFETY: a Target is only written through unsafe functions, whose callers keep the parts that threads write apart.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// Rows `row_stride` apart in `data`.
    pub(super) fn new(data: &mut [f32], row_stride: usize) -> Self {
        Self { start: data.as_mut_ptr(), len: data.len(), row_stride }
    }

    /// The same rows from `offset` elements on.
    pub(super) fn at(self, offset: usize) -> Self {
        assert!(offset <= self.len, "a target beyond its buffer");
        // SAFETY: offset is within the buffer, checked above.
        Self { start: unsafe { self.start.add(offset) }, len: self.len - offset, row_stride: self.row_stride }
    }

    /// Writes one element.
    ///
    /// # Safety
    /// No other thread touches it, and the buffer is alive.
    pub(super) unsafe fn write(self, value: f32) {
        assert!(self.len > 0, "a write beyond its buffer");
        // SAFETY: there is an element, checked above; the caller keeps others away.
        unsafe { self.start.write(value) };
    }

    /// The first element.
    pub(super) fn start(self) -> *mut f32 {
        self.start
    }

    /// Writes a factor times some elements.
    ///
    /// # Safety
    /// No other thread touches them, and the buffer is alive.
    #[inline(always)]
    pub(super) unsafe fn write_scaled(self, from: &[f32], factor: f32) {
        assert!(from.len() <= self.len, "a write beyond its buffer");
        for (i, x) in from.iter().enumerate() {
            // SAFETY: within the buffer, checked above.
            let to = unsafe { self.start.add(i) };
            // SAFETY: as above; the caller keeps others away.
            unsafe { to.write(x * factor) };
        }
    }

    /// Zeroes `len` elements.
    ///
    /// # Safety
    /// No other thread touches them, and the buffer is alive.
    pub(super) unsafe fn zero(self, len: usize) {
        assert!(len <= self.len, "zeroes beyond their buffer");
        // SAFETY: `len` elements are there, checked above; the caller keeps others away.
        unsafe { self.start.write_bytes(0, len) };
    }
}

/// What a product is added to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Onto<'a> {
    Nothing,
    /// What stands in the target.
    Target,
    /// An element for each column.
    Bias(&'a [f32]),
}

/// The right operand: as it stands, or a weight matrix that was packed beforehand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Right<'a> {
    View(View<'a>),
    Packed(&'a PackedWeight),
}

/// Words of `a` that are packed at a time, and rows of it in any case: `b` is packed once for each such block.
const LEFT_BLOCK: usize = 1 << 23;
const ROWS: usize = 2016;
/// The longest inner dimension that is packed at a time; longer ones (a vocabulary) are added up in parts.
const DEEPEST: usize = 8192;
/// Most columns of `b` that are packed at a time, and most words of them: they stay in the last-level cache.
const COLUMNS: usize = 1024;
const RIGHT_BLOCK: usize = 1 << 20;
/// Panels of `a` and of `b` that a task multiplies with each other.
const TASK: (usize, usize) = (8, 4);

fn right_source(b: View) -> Source {
    Source { data: b.data, item_stride: b.column_stride, depth_stride: b.row_stride }
}

/// Rows of `a` in a block: as few blocks as fit, and all alike.
fn rows_of_block(rows: usize, k: usize) -> usize {
    let blocks = rows.div_ceil((LEFT_BLOCK / k.max(1)).max(ROWS)).max(1);
    // A multiple of the tiles' rows on every instruction path.
    rows.div_ceil(blocks).next_multiple_of(84)
}

/// Words of scratch that a product of these sizes packs its operands into.
pub(super) fn scratch_words(rows: usize, k: usize, columns: usize) -> usize {
    let k = k.min(DEEPEST);
    let right = (columns.min(COLUMNS) * k).min(RIGHT_BLOCK.max(64 * k));
    rows.min(rows_of_block(rows, k)) * k + right
}

/// `to = factor * a b + onto`, on all threads of the pool; inside one of its tasks on the task's thread.
///
/// # Safety
/// No other thread touches the `a.rows x b.columns` elements of `to`, and its buffer is alive.
pub(super) unsafe fn product(
    pool: &Pool,
    to: Target,
    onto: Onto,
    factor: f32,
    a: View,
    b: Right,
    precision: Precision,
) {
    let (k, columns) = match b {
        Right::View(v) => (v.rows, v.columns),
        Right::Packed(w) => {
            let PackedLayout { stored, depth, columns, .. } = w.layout;
            assert!(
                !matches!(stored, Stored::Whole(packed) if packed != precision),
                "weights packed in another precision"
            );
            (depth, columns)
        }
    };
    assert_eq!(a.columns, k, "the inner dimensions of a product");
    assert!(reach(a.rows, columns, to.row_stride) <= to.len, "a product beyond its target");
    if let Onto::Bias(bias) = onto {
        assert!(bias.len() >= columns, "a bias for each column");
    }
    if a.rows == 0 || columns == 0 {
        return;
    }
    if k == 0 {
        // SAFETY: the caller's.
        return unsafe { without_depth(to, onto, a.rows, columns) };
    }
    let precision = match b {
        Right::Packed(w) if widened::pays(a.rows, w.layout.stored) => Precision::Bf16,
        Right::Packed(w) if w.layout.stored == Stored::F8 => {
            // SAFETY: the caller's.
            return unsafe { floats::product(pool, to, onto, factor, a, w, precision) };
        }
        Right::Packed(w) if w.layout.stored != Stored::Whole(precision) => {
            // SAFETY: the caller's.
            return unsafe { integers::product(pool, to, onto, factor, a, w) };
        }
        _ => precision,
    };
    if let (Right::View(whole), true) = (b, k > DEEPEST) {
        for first in (0..k).step_by(DEEPEST) {
            let depth = DEEPEST.min(k - first);
            let a = View { data: &a.data[first * a.column_stride..], columns: depth, ..a };
            let b = View { data: &whole.data[first * whole.row_stride..], rows: depth, ..whole };
            let onto = if first == 0 { onto } else { Onto::Target };
            // SAFETY: the caller's.
            unsafe { product(pool, to, onto, factor, a, Right::View(b), precision) };
        }
        return;
    }
    let block = rows_of_block(a.rows, k);
    for first in (0..a.rows).step_by(block) {
        let rows = block.min(a.rows - first);
        let kernel = kernel_for(precision, rows);
        let job = BlockedProduct { pool, kernel, precision, k, columns, factor, onto, to, b };
        let part = View { data: &a.data[first * a.row_stride..], rows, ..a };
        // SAFETY: the caller's; the row blocks do not overlap.
        unsafe { job.row_block(first, part) };
    }
}

/// The kernel of a product of so many rows: by tiles where the machine has them and there are rows enough that it is not bound by
/// reading `b` anyway.
pub(super) fn kernel_for(precision: Precision, rows: usize) -> Kernel {
    let taken = Instructions::taken();
    let plain = Kernel::of(taken, precision, rows);
    let bound_by_reading = rows <= plain.rows;
    if taken == Instructions::Amx && precision == Precision::Bf16 && !bound_by_reading {
        Kernel::of_tiles(tiles::by_amx)
    } else {
        plain
    }
}

/// An empty sum is zero.
unsafe fn without_depth(to: Target, onto: Onto, rows: usize, columns: usize) {
    for r in 0..rows {
        for c in 0..columns {
            let value = match onto {
                Onto::Nothing => 0.0,
                Onto::Bias(bias) => bias[c],
                Onto::Target => continue,
            };
            // SAFETY: the caller's.
            unsafe { to.at(r * to.row_stride + c).write(value) };
        }
    }
}

/// One product.
struct BlockedProduct<'a> {
    pool: &'a Pool,
    kernel: Kernel,
    precision: Precision,
    k: usize,
    columns: usize,
    factor: f32,
    onto: Onto<'a>,
    to: Target,
    b: Right<'a>,
}

impl BlockedProduct<'_> {
    /// Rows `first..` of the result.
    unsafe fn row_block(&self, first: usize, a: View) {
        let rows = Panels::of(a.rows, self.kernel.rows);
        let k_blocks: Vec<KBlock> = k_blocks(self.k, self.precision).collect();
        let mut left = self.pool.scratch(rows.len(self.k, self.precision));
        let source = Source { data: a.data, item_stride: a.row_stride, depth_stride: a.column_stride };
        let mut packing = Some(Packing::new(&mut left, rows, a.rows, source, &k_blocks, self.precision));
        packing.iter_mut().for_each(|p| p.order = self.kernel.left);
        let width = self.kernel.columns;
        // Weights that lie as the kernel reads them.
        let ready = match self.b {
            Right::Packed(w) if w.layout.stored == Stored::Whole(self.precision) => Some(&*w.words),
            _ => None,
        };
        let fitting = RIGHT_BLOCK / words(self.k, self.precision) / width * width;
        let step = if ready.is_some() { self.columns } else { fitting.clamp(2 * width, COLUMNS) };
        let mut scratch = self.pool.scratch(if ready.is_none() {
            Panels::of(step.min(self.columns), width).len(self.k, self.precision)
        } else {
            0
        });
        for column in (0..self.columns).step_by(step) {
            let columns = step.min(self.columns - column);
            let block = Panels::of(columns, width);
            let of_left = packing.take();
            let of_right = match self.b {
                Right::View(b) => {
                    let part = View { data: &b.data[column * b.column_stride..], columns, ..b };
                    Some(Packing::new(&mut scratch, block, columns, right_source(part), &k_blocks, self.precision))
                }
                Right::Packed(w) => {
                    if ready.is_none() {
                        widened::widen(self.pool, w, column / width, &mut scratch, block, &k_blocks);
                    }
                    None
                }
            };
            run_all(self.pool, &[of_left, of_right]);
            let right = ready.unwrap_or(&scratch);
            let place = ResultBlock { row: first, rows: a.rows, column, columns };
            let packed = Operands { left: &left, rows, right, columns: block, k_blocks: &k_blocks };
            if rows.count == 1 {
                // SAFETY: the caller's; both operands are packed.
                unsafe { self.few_rows(&packed, &place) };
            } else {
                // SAFETY: as above.
                unsafe { self.multiply(&packed, &place) };
            }
        }
    }

    /// A product of one tile's rows: bound by reading the weights, which each thread does panel after panel.
    unsafe fn few_rows(&self, packed: &Operands, place: &ResultBlock) {
        let Operands { left, rows, right, columns: block, k_blocks } = *packed;
        let share = block.count.div_ceil(4 * self.pool.threads).max(1);
        self.pool.each(block.count.div_ceil(share), |task| {
            for panel in task * share..((task + 1) * share).min(block.count) {
                for k in k_blocks {
                    let (a, b) = (left[rows.at(*k, 0)..].as_ptr(), right[block.at(*k, panel)..].as_ptr());
                    // SAFETY: the panels are within their buffers; this tile is this task's alone.
                    unsafe { self.kernel.multiply(k.words, a, b, self.tile(0, panel, *k, place, b)) };
                }
            }
        });
    }

    /// Every panel of the left block by every panel of the right one. A task's part of the result stays in its core's cache
    /// while the k-blocks are added up.
    unsafe fn multiply(&self, packed: &Operands, place: &ResultBlock) {
        let Operands { left, rows, right, columns: block, k_blocks } = *packed;
        let (down, across) = (rows.count.div_ceil(TASK.0), block.count.div_ceil(TASK.1));
        // A thread's tasks are some rows by all columns, so that it uses the left panels that it packed; within them
        // neighbours share the right panels, which are dearer to fetch.
        let span = down.div_ceil(self.pool.threads);
        self.pool.each(down * across, |task| {
            let first = task / (span * across) * span;
            let (within, here) = (task - first * across, span.min(down - first));
            let (of_rows, of_columns) = (first + within % here, within / here);
            for k in k_blocks {
                for panel in of_columns * TASK.1..((of_columns + 1) * TASK.1).min(block.count) {
                    let b = right[block.at(*k, panel)..].as_ptr();
                    let words = block.width * k.words;
                    let tiles = of_rows * TASK.0..((of_rows + 1) * TASK.0).min(rows.count);
                    let first_tile = tiles.start;
                    for row in tiles {
                        let a = left[rows.at(*k, row)..].as_ptr();
                        // While this panel is used, the next one comes from memory, a share of it with each tile.
                        let ahead = words + (row - first_tile) * k.words * self.kernel.ahead;
                        let ahead = if ahead < 2 * words { b.wrapping_add(ahead) } else { b };
                        // SAFETY: the panels are within their buffers; this tile is this task's alone.
                        unsafe { self.kernel.multiply(k.words, a, b, self.tile(row, panel, *k, place, ahead)) };
                    }
                }
            }
        });
    }

    fn tile(&self, row: usize, panel: usize, k: KBlock, place: &ResultBlock, ahead: *const f32) -> Tile {
        let (row, column) = (row * self.kernel.rows, panel * self.kernel.columns);
        let (at_row, at_column) = (place.row + row, place.column + column);
        let stride = self.to.row_stride;
        let start = self.to.at(at_row * stride + at_column).start;
        let (base, base_stride) = base_of(self.onto, k.first > 0, start, stride, at_column);
        Tile {
            start,
            stride,
            rows: self.kernel.rows.min(place.rows - row),
            columns: self.kernel.columns.min(place.columns - column),
            factor: self.factor,
            base,
            base_stride,
            ahead,
        }
    }
}

/// What a tile at `start`, in that column, is added to: once a part of the sum is there, to that.
fn base_of(onto: Onto, begun: bool, start: *mut f32, stride: usize, column: usize) -> (*const f32, usize) {
    match onto {
        _ if begun => (start.cast_const(), stride),
        Onto::Target => (start.cast_const(), stride),
        Onto::Bias(bias) => (bias[column..].as_ptr(), 0),
        Onto::Nothing => (null(), 0),
    }
}

/// A block of rows and one of columns, both packed, k-block by k-block.
struct Operands<'a> {
    left: &'a [f32],
    rows: Panels,
    right: &'a [f32],
    columns: Panels,
    k_blocks: &'a [KBlock],
}

/// Where a block of the result stands.
struct ResultBlock {
    row: usize,
    rows: usize,
    column: usize,
    columns: usize,
}
