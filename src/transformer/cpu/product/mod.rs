//! Matrix products, in f32 or with bf16 factors and f32 sums.
//!
//! Operands are cut into panels (see `pack`) that lie in the caches when they are used, after Goto & van de Geijn 2008: a panel
//! of `b` in the first level, a group of panels of `a` in the second. Packing and multiplying are each split over the threads.

mod after;
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
mod onto;
mod operand;
pub(super) mod pack;
#[cfg(target_arch = "x86_64")]
mod pack_avx2;
#[cfg(test)]
mod pack_tests;
mod pairs_kernel;
pub(super) mod panels;
#[cfg(test)]
mod product_tests;
mod source;
mod target;
mod tiles;
mod weights;
mod widened;

use super::instructions::Instructions;
use super::pool::Pool;
pub(super) use after::After;
pub(super) use int4_groups::Groups;
use kernel::{Kernel, Tile};
pub(super) use onto::{Around, Onto};
use onto::{base_of, without_depth};
pub(super) use operand::View;
use operand::reach;
use pack::{Source, words};
use panels::{KBlock, Packing, Panels, k_blocks, run_all};
pub(super) use target::Target;
pub(super) use weights::{PackedLayout, PackedWeight, Stored};

/// Of the factors; sums are f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    F32,
    Bf16,
    /// Numbers of bf16 in words of f32: what [`Precision::Bf16`] is multiplied as where no instruction takes pairs of them.
    Rounded,
}

impl Precision {
    /// What operands are packed as for the instructions taken.
    pub(super) fn packed(self) -> Self {
        if self == Self::Bf16 && Instructions::taken() < Instructions::Avx512Bf16 { Self::Rounded } else { self }
    }
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

/// Words ahead of those in use that are asked for where weights are read once.
const AHEAD_OF_FEW: usize = 1024;

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
    // SAFETY: the caller's.
    unsafe { product_with(pool, to, Around { factor, ..Around::onto(onto) }, a, b, precision) };
}

/// `to = after(factor * a b + onto)`, as [`product`].
///
/// # Safety
/// As of [`product`].
pub(super) unsafe fn product_with(pool: &Pool, to: Target, around: Around, a: View, b: Right, precision: Precision) {
    let Around { onto, factor, after } = around;
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
    around.check(a.rows, columns);
    if a.rows == 0 || columns == 0 {
        return;
    }
    if k == 0 {
        // SAFETY: the caller's.
        unsafe { without_depth(to, onto, a.rows, columns) };
        // SAFETY: the caller's.
        return unsafe { after.pass(pool, to, a.rows, columns) };
    }
    let precision = match b {
        Right::Packed(w) if widened::pays(a.rows, w.layout.stored) => Precision::Bf16,
        Right::Packed(w) if w.layout.stored == Stored::F8 => {
            // SAFETY: the caller's.
            unsafe { floats::product(pool, to, onto, factor, a, w, precision.packed()) };
            // SAFETY: the caller's.
            return unsafe { after.pass(pool, to, a.rows, columns) };
        }
        Right::Packed(w) if w.layout.stored != Stored::Whole(precision) => {
            // SAFETY: the caller's.
            unsafe { integers::product(pool, to, onto, factor, a, w) };
            // SAFETY: the caller's.
            return unsafe { after.pass(pool, to, a.rows, columns) };
        }
        _ => precision,
    };
    if let (Right::View(whole), true) = (b, k > DEEPEST) {
        for first in (0..k).step_by(DEEPEST) {
            let depth = DEEPEST.min(k - first);
            let a = View { data: &a.data[first * a.column_stride..], columns: depth, ..a };
            let b = View { data: &whole.data[first * whole.row_stride..], rows: depth, ..whole };
            let onto = if first == 0 { onto } else { Onto::Target };
            let after = if first + depth == k { after } else { After::Nothing };
            // SAFETY: the caller's.
            unsafe { product_with(pool, to, Around { onto, after, ..around }, a, Right::View(b), precision) };
        }
        return;
    }
    let block = rows_of_block(a.rows, k);
    for first in (0..a.rows).step_by(block) {
        let rows = block.min(a.rows - first);
        let left = precision.packed();
        // Weights stay in pairs: expanded in registers they are half as much to read.
        let (kernel, right) = match b {
            Right::Packed(_) if left == Precision::Rounded => {
                (pairs_kernel::kernel(Instructions::taken(), rows), precision)
            }
            _ => (kernel_for(left, rows), left),
        };
        let job = BlockedProduct { pool, kernel, left, right, k, columns, around, to, b };
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

/// One product.
struct BlockedProduct<'a> {
    pool: &'a Pool,
    kernel: Kernel,
    /// What each operand is packed as.
    left: Precision,
    right: Precision,
    k: usize,
    columns: usize,
    around: Around<'a>,
    to: Target,
    b: Right<'a>,
}

impl BlockedProduct<'_> {
    /// Rows `first..` of the result.
    unsafe fn row_block(&self, first: usize, a: View) {
        let rows = Panels::of(a.rows, self.kernel.rows);
        let k_blocks: Vec<KBlock> = k_blocks(self.k, self.right).collect();
        let of_left: Vec<KBlock> = k_blocks.iter().map(|b| b.packed_as(self.left)).collect();
        let mut left = self.pool.scratch(rows.len(self.k, self.left));
        let source = Source { data: a.data, item_stride: a.row_stride, depth_stride: a.column_stride };
        let mut packing = Some(Packing::new(&mut left, rows, a.rows, source, &of_left, self.left));
        packing.iter_mut().for_each(|p| p.order = self.kernel.left);
        let width = self.kernel.columns;
        // Weights that lie as the kernel reads them.
        let ready = match self.b {
            Right::Packed(w) if w.layout.stored == Stored::Whole(self.right) => Some(&*w.words),
            _ => None,
        };
        let fitting = RIGHT_BLOCK / words(self.k, self.right) / width * width;
        let step = if ready.is_some() { self.columns } else { fitting.clamp(2 * width, COLUMNS) };
        let mut scratch = self.pool.scratch(if ready.is_none() {
            Panels::of(step.min(self.columns), width).len(self.k, self.right)
        } else {
            0
        });
        for column in (0..self.columns).step_by(step) {
            let columns = step.min(self.columns - column);
            let block = Panels::of(columns, width);
            let packing_left = packing.take();
            let packing_right = match self.b {
                Right::View(b) => {
                    let part = View { data: &b.data[column * b.column_stride..], columns, ..b };
                    Some(Packing::new(&mut scratch, block, columns, right_source(part), &k_blocks, self.right))
                }
                Right::Packed(w) => {
                    if ready.is_none() {
                        widened::widen(self.pool, w, column / width, &mut scratch, block, &k_blocks);
                    }
                    None
                }
            };
            run_all(self.pool, &[packing_left, packing_right]);
            let right = ready.unwrap_or(&scratch);
            let place = ResultBlock { row: first, rows: a.rows, column, columns };
            let packed = Operands { left: &left, rows, right, columns: block, k_blocks: [&of_left, &k_blocks] };
            if rows.count == 1 {
                // SAFETY: the caller's; both operands are packed.
                unsafe { self.few_rows(&packed, &place) };
            } else {
                // SAFETY: as above.
                unsafe { self.multiply(&packed, &place) };
            }
        }
    }

    /// Hands on a tile that has been summed up.
    unsafe fn hand_on(&self, row: usize, panel: usize, place: &ResultBlock) {
        let [first, column] = [row * self.kernel.rows, panel * self.kernel.columns];
        let rows = place.row + first..place.row + (first + self.kernel.rows).min(place.rows);
        let columns = place.column + column..place.column + (column + self.kernel.columns).min(place.columns);
        // SAFETY: the caller's: this part of the result is one task's.
        unsafe { self.around.after.part(self.to, rows, columns) };
    }

    /// A product of one tile's rows: bound by reading the weights, which each thread does in the order in which they lie.
    unsafe fn few_rows(&self, packed: &Operands, place: &ResultBlock) {
        let Operands { left, rows, right, columns: block, k_blocks } = *packed;
        let share = block.count.div_ceil(4 * self.pool.threads).max(1);
        self.pool.each(block.count.div_ceil(share), |task| {
            for (of_left, k) in k_blocks[0].iter().zip(k_blocks[1]) {
                for panel in task * share..((task + 1) * share).min(block.count) {
                    let (a, b) = (left[rows.at(*of_left, 0)..].as_ptr(), right[block.at(*k, panel)..].as_ptr());
                    let tile = self.tile(0, panel, *k, place, b.wrapping_add(AHEAD_OF_FEW));
                    // SAFETY: the panels are within their buffers; this tile is this task's alone.
                    unsafe { self.kernel.multiply(of_left.words, a, b, tile) };
                    if k.first + k.len == self.k {
                        // SAFETY: as above.
                        unsafe { self.hand_on(0, panel, place) };
                    }
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
            let panels = of_columns * TASK.1..((of_columns + 1) * TASK.1).min(block.count);
            let tiles = of_rows * TASK.0..((of_rows + 1) * TASK.0).min(rows.count);
            for (of_left, k) in k_blocks[0].iter().zip(k_blocks[1]) {
                for panel in panels.clone() {
                    let b = right[block.at(*k, panel)..].as_ptr();
                    let words = block.width * k.words;
                    let first_tile = tiles.start;
                    for row in tiles.clone() {
                        let a = left[rows.at(*of_left, row)..].as_ptr();
                        // While this panel is used, the next one comes from memory, a share of it with each tile.
                        let ahead = words + (row - first_tile) * k.words * self.kernel.ahead;
                        let ahead = if ahead < 2 * words { b.wrapping_add(ahead) } else { b };
                        if k.first == 0 {
                            // What the next tile will be added to.
                            let below = row + 1 < tiles.end;
                            let (row, panel) = if below { (row + 1, panel) } else { (first_tile, panel + 1) };
                            if panel < panels.end {
                                self.around.onto.ask_for(&self.tile(row, panel, *k, place, b));
                            }
                        }
                        // SAFETY: the panels are within their buffers; this tile is this task's alone.
                        unsafe { self.kernel.multiply(of_left.words, a, b, self.tile(row, panel, *k, place, ahead)) };
                        if k.first + k.len == self.k {
                            // SAFETY: as above.
                            unsafe { self.hand_on(row, panel, place) };
                        }
                    }
                }
            }
        });
    }

    fn tile(&self, row: usize, panel: usize, k: KBlock, place: &ResultBlock, ahead: *const f32) -> Tile {
        let (row, column) = (row * self.kernel.rows, panel * self.kernel.columns);
        let (at_row, at_column) = (place.row + row, place.column + column);
        let stride = self.to.row_stride;
        let start = self.to.at(at_row * stride + at_column).start();
        let (base, base_stride) = base_of(self.around.onto, k.first > 0, start, stride, (at_row, at_column));
        Tile {
            start,
            stride,
            rows: self.kernel.rows.min(place.rows - row),
            columns: self.kernel.columns.min(place.columns - column),
            factor: self.around.factor,
            base,
            base_stride,
            ahead,
        }
    }
}

/// A block of rows and one of columns, both packed, k-block by k-block.
struct Operands<'a> {
    left: &'a [f32],
    rows: Panels,
    right: &'a [f32],
    columns: Panels,
    /// Of the left operand and of the right one.
    k_blocks: [&'a [KBlock]; 2],
}

/// Where a block of the result stands.
struct ResultBlock {
    row: usize,
    rows: usize,
    column: usize,
    columns: usize,
}
