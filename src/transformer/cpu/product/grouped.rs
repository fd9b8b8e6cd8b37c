//! Many products in one pass: the layers of experts, whose products are too small one by one to keep all threads at work. Left operands
//! are packed together; then each task is a stretch of columns of one product by all of its rows, so that a weight comes from memory
//! once, to one core. Weights that do not lie in panels are packed by the task that uses them, a k-block at a time.

use super::super::pool::Pool;
use super::kernel::Tile;
use super::pack::{Order, Source};
use super::panels::{KBlock, Packing, Panels, k_blocks, run_each, take};
use super::{
    Around, Kernel, LEFT_BLOCK, Onto, Precision, ROWS, Right, Stored, TASK, Target, View, base_of, kernel_for, product,
    reach, right_source, rows_of_block, tiles,
};
use crate::amx::{SIDE, TILE};
use crate::transformer::cpu::instructions::Instructions;

/// `to = a b + onto`
#[derive(Clone, Copy)]
pub(in crate::transformer::cpu) struct Pair<'a> {
    pub a: View<'a>,
    pub b: Right<'a>,
    pub onto: Onto<'a>,
    pub to: Target,
}

/// Most panels of `b` of a task.
const ACROSS: usize = 8;
/// Tiles of rows of a task that has all columns.
const DOWN: usize = 4;
/// Rows up to which bf16 are multiplied without tiles, which would be empty for the most part.
const FEW: usize = 4;
/// The longest inner dimension of the products that are packed whole.
const DEEPEST: usize = 2048;

/// Rows that are packed at a time, with those that fill tiles up.
fn most_rows(rows: usize, pairs: usize, width: usize, longest: usize) -> usize {
    let most = (LEFT_BLOCK / width.max(1)).max(longest) + 84 + SIDE;
    (rows + pairs.min(rows) * (SIDE - 1)).min(most)
}

/// Words of scratch of [`by_columns`], of so many rows in so many products with an inner dimension of `k`.
pub(in crate::transformer::cpu) fn scratch_words(threads: usize, rows: usize, pairs: usize, k: usize) -> usize {
    most_rows(rows, pairs, k, ROWS) * k + threads * ACROSS * SIDE * super::panels::K_BLOCK
}

/// Words of scratch of [`by_rows`], of inner dimensions that are so many rows together.
pub(in crate::transformer::cpu) fn scratch_words_of_outer(rows: usize, pairs: usize, m: usize, k: usize) -> usize {
    let (m, k) = (m + SIDE, k + SIDE);
    most_rows(rows, pairs, m + k, DEEPEST) * (m + k)
}

/// The kernel of one of the products: by tiles also where each product by itself would be bound by reading its weights.
fn kernel_of(precision: Precision, rows: usize) -> Kernel {
    if Instructions::taken() == Instructions::Amx && precision == Precision::Bf16 && rows > FEW {
        Kernel::of_tiles(tiles::by_amx)
    } else {
        kernel_for(precision, rows)
    }
}

/// A product that takes part, once its left operand has a place among those of the others.
struct Placed<'a> {
    pair: Pair<'a>,
    kernel: Kernel,
    precision: Precision,
    n_columns: usize,
    /// Panels of `a`, and where they begin.
    rows: Panels,
    left: usize,
    /// Panels of `b`, and where they lie if they do.
    columns: Panels,
    right: usize,
    ready: Option<&'a [f32]>,
    k_blocks: Vec<KBlock>,
    /// Its first task.
    first: usize,
}

impl<'a> Placed<'a> {
    fn of(pair: Pair<'a>, precision: Precision, whole_tiles: bool) -> Self {
        let Pair { a, b, onto, to } = pair;
        let (depth, columns) = match b {
            Right::View(v) => (v.rows, v.columns),
            Right::Packed(w) => (w.layout.depth, w.layout.columns),
        };
        assert_eq!(a.columns, depth, "the inner dimensions of a product");
        assert!(reach(a.rows, columns, to.row_stride) <= to.len, "a product beyond its target");
        Around::onto(onto).check(a.rows, columns);
        let kernel = kernel_of(precision, a.rows);
        let mut k_blocks: Vec<KBlock> = k_blocks(a.columns, precision).collect();
        if whole_tiles && kernel.left == Order::InTiles {
            k_blocks.iter_mut().for_each(|b| b.words = b.words.next_multiple_of(TILE));
        }
        let ready = if let Right::Packed(w) = b { Some(&*w.words) } else { None };
        let (rows, panels) = (Panels::of(a.rows, kernel.rows), Panels::of(columns, kernel.columns));
        Self {
            pair,
            kernel,
            precision,
            n_columns: columns,
            rows,
            left: 0,
            columns: panels,
            right: 0,
            ready,
            k_blocks,
            first: 0,
        }
    }

    /// Words of the inner dimension.
    fn depth(&self) -> usize {
        self.k_blocks.last().map_or(0, |b| b.words_before + b.words)
    }

    fn left_words(&self) -> usize {
        self.rows.count * self.rows.width * self.depth()
    }

    fn packing_of_left<'p>(&'p self, to: &mut [f32]) -> Packing<'p> {
        let a = self.pair.a;
        let source = Source { data: a.data, item_stride: a.row_stride, depth_stride: a.column_stride };
        let mut packing = Packing::new(to, self.rows, a.rows, source, &self.k_blocks, self.precision);
        packing.order = self.kernel.left;
        packing
    }

    /// Where a tile of the result is.
    fn tile(&self, row: usize, panel: usize, k: KBlock, ahead: *const f32) -> Tile {
        let Pair { a, onto, to, .. } = self.pair;
        let (row, column) = (row * self.kernel.rows, panel * self.kernel.columns);
        let start = to.at(row * to.row_stride + column).start();
        let (base, base_stride) = base_of(onto, k.first > 0, start, to.row_stride, (row, column));
        Tile {
            start,
            stride: to.row_stride,
            rows: self.kernel.rows.min(a.rows - row),
            columns: self.kernel.columns.min(self.n_columns - column),
            factor: 1.0,
            base,
            base_stride,
            ahead,
        }
    }
}

/// Calls `run` with stretches of the products that are packed together: those whose words are at most a block's, or one alone.
fn batches<'a>(all: &mut [Placed<'a>], words: impl Fn(&Placed<'a>) -> usize, mut run: impl FnMut(&mut [Placed<'a>])) {
    let mut from = 0;
    while from < all.len() {
        let (mut sum, mut to) = (words(&all[from]), from + 1);
        while to < all.len() && sum + words(&all[to]) <= LEFT_BLOCK {
            sum += words(&all[to]);
            to += 1;
        }
        run(&mut all[from..to]);
        from = to;
    }
}

/// Every product of `pairs`, whose inner dimensions are alike.
///
/// # Safety
/// No other thread touches what their targets are of, which do not overlap, and their buffers are alive.
pub(in crate::transformer::cpu) unsafe fn by_columns(pool: &Pool, precision: Precision, pairs: &[Pair]) {
    let (mut all, packed) = (Vec::new(), precision.packed());
    for pair in pairs {
        let (a, stored) = (pair.a, if let Right::Packed(w) = pair.b { Some(w.layout.stored) } else { None });
        if a.columns == 0 || stored.is_some_and(|stored| stored != Stored::Whole(packed)) {
            // SAFETY: the caller's.
            unsafe { product(pool, pair.to, pair.onto, 1.0, a, pair.b, precision) };
            continue;
        }
        let block = rows_of_block(a.rows, a.columns).max(1);
        for first in (0..a.rows).step_by(block) {
            let part = View { data: &a.data[first * a.row_stride..], rows: block.min(a.rows - first), ..a };
            let to = pair.to.at(first * pair.to.row_stride);
            all.push(Placed::of(Pair { a: part, to, ..*pair }, packed, false));
        }
    }
    batches(&mut all, Placed::left_words, |here| {
        let panels: usize = here.iter().map(|p| p.columns.count).sum();
        let across = panels.div_ceil(8 * pool.threads).clamp(1, ACROSS);
        let (mut left, mut tasks) = (0, 0);
        for p in &mut *here {
            (p.left, p.first) = (left, tasks);
            left += p.left_words();
            tasks += p.columns.count.div_ceil(across);
        }
        let mut packed = pool.scratch(left);
        let mut rest = &mut *packed;
        let packings: Vec<_> = here.iter().map(|p| p.packing_of_left(take(&mut rest, p.left_words()))).collect();
        run_each(pool, &packings);
        drop(packings);
        let (here, packed) = (&*here, &*packed);
        let beside = here.iter().filter(|p| p.ready.is_none()).map(|p| across * p.columns.width * p.k_blocks[0].words);
        pool.each_with(tasks, beside.max().unwrap_or(0), |task, scratch| {
            let at = here.partition_point(|p| p.first <= task) - 1;
            let first = (task - here[at].first) * across;
            // SAFETY: the caller's; a task's columns are its own.
            unsafe { stretch(pool, &here[at], packed, scratch, (first, across), here.get(at + 1)) };
        });
    });
}

/// Panels `first..first + across` of a product's right operand by all of its rows.
unsafe fn stretch(
    pool: &Pool,
    p: &Placed,
    left: &[f32],
    scratch: &mut [f32],
    (first, across): (usize, usize),
    after: Option<&Placed>,
) {
    let last = (first + across).min(p.columns.count);
    if let Right::View(b) = p.pair.b {
        let (column, width) = (first * p.columns.width, p.columns.width);
        let items = (last * width).min(p.n_columns) - column;
        let part = View { data: &b.data[column * b.column_stride..], columns: items, ..b };
        let panels = Panels { count: last - first, width };
        for k in &p.k_blocks {
            let here = [KBlock { words_before: 0, ..*k }];
            let packing = Packing::new(scratch, panels, items, right_source(part), &here, p.precision);
            run_each(pool, &[packing]);
            for panel in first..last {
                let b = scratch[panels.at(here[0], panel - first)..].as_ptr();
                // SAFETY: the caller's.
                unsafe { rows_by_panel(p, left, (0, p.rows.count), panel, *k, b, b) };
            }
        }
    }
    let Some(words) = p.ready else { return };
    // As many rows at a time as their part of the result stays in the core's cache with.
    let down = p.rows.count.div_ceil(p.rows.count.div_ceil(TASK.0));
    for top in (0..p.rows.count).step_by(down) {
        let tiles = (top, (top + down).min(p.rows.count));
        for (i, k) in p.k_blocks.iter().enumerate() {
            for panel in first..last {
                let b = words[p.columns.at(*k, panel)..].as_ptr();
                // What is read next: this stretch's next panel or k-block, the next stretch, the next product.
                let next = match p.k_blocks.get(i + 1) {
                    _ if panel + 1 < last => b.wrapping_add(p.columns.width * k.words),
                    Some(k) => words[p.columns.at(*k, first)..].as_ptr(),
                    None if tiles.1 < p.rows.count => words[p.columns.at(p.k_blocks[0], first)..].as_ptr(),
                    None if last < p.columns.count => words[p.columns.at(p.k_blocks[0], last)..].as_ptr(),
                    None => after.and_then(|a| a.ready).map_or(b, <[f32]>::as_ptr),
                };
                // SAFETY: the caller's.
                unsafe { rows_by_panel(p, left, tiles, panel, *k, b, next) };
            }
        }
    }
}

/// Tiles of rows by a panel's k-block at `b`, while what is at `next` comes from memory, a share of it with each tile.
unsafe fn rows_by_panel(
    p: &Placed,
    left: &[f32],
    (top, end): (usize, usize),
    panel: usize,
    k: KBlock,
    b: *const f32,
    next: *const f32,
) {
    let (kernel, left) = (p.kernel, &left[p.left..]);
    let (words, by_tile) = (p.columns.width * k.words, k.words * kernel.ahead);
    for tile in top..end {
        let (a, ahead) = (left[p.rows.at(k, tile)..].as_ptr(), (tile - top) * by_tile);
        let ahead = if ahead < words { next.wrapping_add(ahead) } else { b };
        // SAFETY: the panels are within their buffers; this tile is this task's alone.
        unsafe { kernel.multiply(k.words, a, b, p.tile(tile, panel, k, ahead)) };
    }
}

/// Every product of `pairs`, whose results are large and whose inner dimensions are short and differ: both operands are packed
/// before, and a task writes whole rows.
///
/// # Safety
/// As of [`by_columns`].
pub(in crate::transformer::cpu) unsafe fn by_rows(pool: &Pool, precision: Precision, pairs: &[Pair]) {
    let (mut all, as_packed) = (Vec::new(), precision.packed());
    for pair in pairs {
        if pair.a.columns == 0 || pair.a.columns > DEEPEST || matches!(pair.b, Right::Packed(_)) {
            // SAFETY: the caller's.
            unsafe { product(pool, pair.to, pair.onto, 1.0, pair.a, pair.b, precision) };
        } else {
            all.push(Placed::of(*pair, as_packed, true));
        }
    }
    let right_words = |p: &Placed| p.columns.count * p.columns.width * p.depth();
    batches(
        &mut all,
        |p| p.left_words() + right_words(p),
        |here| {
            let (mut at, mut tasks) = (0, 0);
            for p in &mut *here {
                (p.left, p.right, p.first) = (at, at + p.left_words(), tasks);
                at += p.left_words() + right_words(p);
                tasks += p.rows.count.div_ceil(DOWN);
            }
            let mut packed = pool.scratch(at);
            let (mut rest, mut packings) = (&mut *packed, Vec::new());
            for p in &*here {
                packings.push(p.packing_of_left(take(&mut rest, p.left_words())));
                let to = take(&mut rest, right_words(p));
                if let Right::View(b) = p.pair.b {
                    let source = right_source(b);
                    packings.push(Packing::new(to, p.columns, b.columns, source, &p.k_blocks, as_packed));
                }
            }
            run_each(pool, &packings);
            drop(packings);
            let (here, packed) = (&*here, &*packed);
            pool.each(tasks, |task| {
                let p = &here[here.partition_point(|p| p.first <= task) - 1];
                let first = (task - p.first) * DOWN;
                for tile in first..(first + DOWN).min(p.rows.count) {
                    for k in &p.k_blocks {
                        let a = packed[p.left + p.rows.at(*k, tile)..].as_ptr();
                        for panel in 0..p.columns.count {
                            let b = packed[p.right + p.columns.at(*k, panel)..].as_ptr();
                            // SAFETY: the panels are within their buffers; this tile is this task's alone.
                            unsafe { p.kernel.multiply(k.words, a, b, p.tile(tile, panel, *k, b)) };
                        }
                    }
                }
            });
        },
    );
}
