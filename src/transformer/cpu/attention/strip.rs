//! How attention's operands are cut into panels and strips, and the product over them.

use super::super::instructions::{Instructions, vectorised};
use super::super::product::kernel::{Kernel, Tile};
use super::super::product::pack::{Order, Source, SourceTile, pack, words};
use super::super::product::panels::{KBlock, Panels, k_blocks, pack_all};
use super::super::product::{Precision, Target, kernel_for};
use crate::transformer::backend::AttentionDims;
use std::ops::Range;
use std::ptr::null;

/// How the operands of one call are cut up.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub precision: Precision,
    pub d: AttentionDims,
    /// Queries of a strip: the kernel's columns.
    pub strip: usize,
    /// Keys as rows of a result.
    pub by_key: (Kernel, Panels),
    /// Dimensions as rows of a result.
    pub by_dimension: (Kernel, Panels),
    /// Dimensions as columns of a result.
    pub across: Panels,
}

impl Cut {
    pub(super) fn new(precision: Precision, d: AttentionDims) -> Self {
        let (strip, precision) = (Kernel::columns_of(Instructions::taken()), precision.packed());
        let of = |rows: usize| {
            let kernel = kernel_for(precision, rows);
            (kernel, Panels::of(rows, kernel.rows))
        };
        let across = Panels::of(d.head_dim, strip);
        Self { precision, d, strip, by_key: of(d.tokens), by_dimension: of(d.head_dim), across }
    }
    /// Words of one operand in panels.
    pub(super) fn keys_len(&self) -> usize {
        self.by_key.1.len(self.d.head_dim, self.precision)
    }
    pub(super) fn dimensions_len(&self) -> usize {
        self.by_dimension.1.len(self.d.tokens, self.precision)
    }
    pub(super) fn strip_len(&self) -> usize {
        self.strip * words(self.d.head_dim, self.precision)
    }
    /// Rows of scores, whole tiles, and one more to make pairs.
    pub(super) fn scores_len(&self) -> usize {
        (self.by_key.1.count * self.by_key.1.width + 1) * self.strip
    }
    pub(super) fn output_len(&self) -> usize {
        self.by_dimension.1.count * self.by_dimension.1.width * self.strip
    }
    /// A strip's result, a row a query.
    pub(super) fn rows_len(&self) -> usize {
        self.strip * self.d.head_dim
    }
    pub(super) fn forward_len(&self) -> usize {
        let result = self.output_len() + self.rows_len();
        self.keys_len() + self.dimensions_len() + self.strip_len() + self.scores_len() + result
    }
    pub(super) fn backward_len(&self) -> usize {
        let across = 2 * self.across.len(self.strip, self.precision);
        let transposed = self.by_key.1.len(self.strip, self.precision);
        2 * self.keys_len()
            + self.dimensions_len()
            + 2 * self.strip_len()
            + 3 * self.scores_len()
            + self.output_len()
            + self.rows_len()
            + across
            + transposed
    }
}

/// A left operand in panels.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub words: &'a [f32],
    pub of: (Kernel, Panels),
    /// Elements along the inner dimension that the panels were packed for.
    pub depth: usize,
}

impl<'a> Left<'a> {
    /// Packs `items` of a source, `depth` elements each, into `words`.
    pub(super) fn pack(
        words: &'a mut [f32],
        of: (Kernel, Panels),
        items: usize,
        depth: usize,
        source: Source,
        precision: Precision,
    ) -> Self {
        pack_all(words, of.1, items, depth, source, precision, of.0.left);
        Self { words, of, depth }
    }
}

/// Packs a right operand: `items` of a source, `depth` elements each.
pub(super) fn pack_right(
    words: &mut [f32],
    panels: Panels,
    items: usize,
    depth: usize,
    source: Source,
    precision: Precision,
) {
    pack_all(words, panels, items, depth, source, precision, Order::ByWord);
}

/// Where a product goes: rows `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Destination {
    pub start: *mut f32,
    pub stride: usize,
    pub rows: usize,
    /// Rows at the beginning that are left alone, whole panels of them.
    pub skipped: usize,
    pub columns: usize,
    pub factor: f32,
    pub add: bool,
}

/// `to (+)= factor * left right` over a part of the inner dimension that begins with a k-block. Where the left operand lies in tiles and
/// the part ends within one of them, the tile is taken whole: the right operand is zero there.
///
/// # Safety
/// No other thread touches the place; it holds whole tiles where its rows or columns say so.
pub(super) unsafe fn multiply(
    left: Left,
    right: &[f32],
    across: Panels,
    depth: Range<usize>,
    precision: Precision,
    to: Destination,
) {
    let (kernel, panels) = left.of;
    let end = depth.end.next_multiple_of(kernel.left.step());
    let all: Vec<KBlock> = k_blocks(left.depth, precision).filter(|k| depth.contains(&k.first)).collect();
    for panel in to.skipped / panels.width..to.rows.div_ceil(panels.width) {
        for column in 0..across.count {
            for k in &all {
                let len = k.len.min(end - k.first);
                let a = left.words[panels.at(*k, panel)..].as_ptr();
                let b = right[across.at(*k, column)..].as_ptr();
                let (row, at) = (panel * panels.width, column * across.width);
                // SAFETY: within the place.
                let start = unsafe { to.start.add(row * to.stride + at) };
                let base = if to.add || k.first > depth.start { start.cast_const() } else { null() };
                let tile = Tile {
                    start,
                    stride: to.stride,
                    rows: panels.width.min(to.rows - row),
                    columns: across.width.min(to.columns - at),
                    factor: to.factor,
                    base,
                    base_stride: to.stride,
                    ahead: b,
                };
                // SAFETY: the place is the caller's alone; the panels hold so many words.
                unsafe { kernel.multiply(words(len, precision), a, b, tile) };
            }
        }
    }
}

/// Writes a result `[dimensions, strip]` as a row for each query, times its factor.
///
/// # Safety
/// No other thread touches these rows.
pub(super) unsafe fn write_rows(
    cut: &Cut,
    output: &[f32],
    by_query: &mut [f32],
    rows: usize,
    at: impl Fn(usize) -> Target,
    factors: &[f32; 32],
) {
    let dim = cut.d.head_dim;
    let source = Source { data: output, item_stride: cut.strip, depth_stride: 1 };
    let all = SourceTile { first_item: 0, items: dim, first_depth: 0, depth: rows };
    pack(by_query, dim, source, all, Precision::F32);
    vectorised(
        #[inline(always)]
        || {
            for (i, row) in by_query.chunks_exact(dim).take(rows).enumerate() {
                // SAFETY: the caller's.
                unsafe { at(i).write_scaled(row, factors[i]) };
            }
        },
    );
}

/// A scratch buffer of whole tiles as the place of a product.
pub(super) fn whole(to: &mut [f32], stride: usize, rows: usize, factor: f32) -> Destination {
    assert!(rows * stride <= to.len(), "a product beyond its scratch");
    Destination { start: to.as_mut_ptr(), stride, rows, skipped: 0, columns: stride, factor, add: false }
}
