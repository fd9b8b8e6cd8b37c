//! Where panels lie in a buffer, and how operands get there.

use super::super::pool::Pool;
use super::Precision;
use super::pack::{self, Order, Source, SourceTile, words};
use crate::amx::{SIDE, TILE};

/// Words along the inner dimension that are multiplied at a time: a panel of `b` of this depth fits the first-level cache beside
/// one of `a`.
pub(in crate::transformer::cpu) const K_BLOCK: usize = 256;

/// A block of the inner dimension: elements `first..first + len` of it.
#[derive(Clone, Copy)]
pub(in crate::transformer::cpu) struct KBlock {
    pub first: usize,
    pub len: usize,
    /// Words of the k-blocks before it, for each item of a panel.
    pub words_before: usize,
    /// Words of this one, for each item of a panel.
    pub words: usize,
}

impl KBlock {
    /// The same elements in the words of another precision.
    pub(crate) fn packed_as(self, precision: Precision) -> Self {
        Self { words_before: words(self.first, precision), words: words(self.len, precision), ..self }
    }
}

/// Elements of a whole k-block.
pub(in crate::transformer::cpu) fn k_block(precision: Precision) -> usize {
    if precision == Precision::Bf16 { 2 * K_BLOCK } else { K_BLOCK }
}

/// The blocks of an inner dimension of `k` elements.
pub(in crate::transformer::cpu) fn k_blocks(k: usize, precision: Precision) -> impl Iterator<Item = KBlock> {
    let step = k_block(precision);
    (0..k).step_by(step).map(move |first| {
        let len = step.min(k - first);
        KBlock { first, len, words_before: words(first, precision), words: words(len, precision) }
    })
}

/// Panels `width` wide of a matrix, one k-block after another: where each begins.
#[derive(Clone, Copy)]
pub(in crate::transformer::cpu) struct Panels {
    pub count: usize,
    pub width: usize,
}

impl Panels {
    pub(crate) fn of(items: usize, width: usize) -> Self {
        Self { count: items.div_ceil(width), width }
    }
    pub(crate) fn len(self, k: usize, precision: Precision) -> usize {
        self.count * self.width * words(k, precision)
    }
    pub(crate) fn at(self, b: KBlock, panel: usize) -> usize {
        self.width * (b.words_before * self.count + panel * b.words)
    }
}

/// A buffer into which threads pack different panels.
#[derive(Clone, Copy)]
pub(in crate::transformer::cpu) struct PackedBuffer(*mut f32, usize);
// SAFETY: threads pack different panels; see `part`.
unsafe impl Sync for PackedBuffer {}

impl PackedBuffer {
    pub(crate) fn of(buffer: &mut [f32]) -> Self {
        Self(buffer.as_mut_ptr(), buffer.len())
    }
    /// # Safety
    /// No other thread touches these words.
    pub(crate) unsafe fn part<'b>(&self, at: usize, len: usize) -> &'b mut [f32] {
        assert!(at + len <= self.1, "a panel beyond its buffer");
        // SAFETY: within the buffer, checked above.
        let start = unsafe { self.0.add(at) };
        // SAFETY: as above; the caller keeps others away.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

pub(in crate::transformer::cpu) fn source_tile(panel: usize, width: usize, items: usize, b: KBlock) -> SourceTile {
    let first_item = panel * width;
    SourceTile { first_item, items: width.min(items - first_item), first_depth: b.first, depth: b.len }
}

/// Takes the next `len` elements off.
pub(in crate::transformer::cpu) fn take<'b>(rest: &mut &'b mut [f32], len: usize) -> &'b mut [f32] {
    let (taken, after) = std::mem::take(rest).split_at_mut(len);
    *rest = after;
    taken
}

/// Packs a whole operand on this thread: `items` of a source, `depth` elements each.
pub(in crate::transformer::cpu) fn pack_all(
    to: &mut [f32],
    panels: Panels,
    items: usize,
    depth: usize,
    source: Source,
    precision: Precision,
    order: Order,
) {
    for b in k_blocks(depth, precision) {
        for panel in 0..items.div_ceil(panels.width) {
            let tile = source_tile(panel, panels.width, items, b);
            let words = &mut to[panels.at(b, panel)..][..panels.width * b.words];
            pack::pack_in(order, words, panels.width, source, tile, precision);
        }
    }
}

/// Rows of the inner dimension that a task packs of a source whose items lie side by side: it then reads whole rows, one after
/// another.
const ROWS_AT_A_TIME: usize = 64;

/// An operand on its way into panels, in tasks.
pub(in crate::transformer::cpu) struct Packing<'a> {
    to: PackedBuffer,
    panels: Panels,
    items: usize,
    source: Source<'a>,
    k_blocks: &'a [KBlock],
    precision: Precision,
    pub order: Order,
}

impl<'a> Packing<'a> {
    /// Packs `items` of a source into `to`.
    pub(crate) fn new(
        to: &mut [f32],
        panels: Panels,
        items: usize,
        source: Source<'a>,
        k_blocks: &'a [KBlock],
        precision: Precision,
    ) -> Self {
        Self { to: PackedBuffer::of(to), panels, items, source, k_blocks, precision, order: Order::ByWord }
    }

    fn by_depth(&self) -> bool {
        self.source.item_stride == 1
    }

    fn tasks(&self) -> usize {
        if self.by_depth() {
            self.k_blocks.iter().map(|b| b.len.div_ceil(ROWS_AT_A_TIME)).sum()
        } else {
            self.panels.count
        }
    }

    fn run(&self, task: usize) {
        if self.by_depth() {
            let mut left = task;
            for b in self.k_blocks {
                let parts = b.len.div_ceil(ROWS_AT_A_TIME);
                if left < parts {
                    let first = left * ROWS_AT_A_TIME;
                    let len = ROWS_AT_A_TIME.min(b.len - first);
                    return (0..self.panels.count).for_each(|p| self.part(*b, p, first, len));
                }
                left -= parts;
            }
        } else {
            self.k_blocks.iter().for_each(|b| self.part(*b, task, 0, b.len));
        }
    }

    /// Elements `first..first + len` of a panel's k-block; with the last of them what the block has beyond, of zeros.
    fn part(&self, b: KBlock, panel: usize, first: usize, len: usize) {
        let width = self.panels.width;
        let at = self.panels.at(b, panel) + width * words(first, self.precision);
        let (own, beyond) = (words(len, self.precision), b.words - words(b.len, self.precision));
        let filled = if first + len == b.len { own + beyond } else { own };
        // SAFETY: each part of a panel is one task's.
        let to = unsafe { self.to.part(at, width * filled) };
        let tile = source_tile(panel, width, self.items, KBlock { first: b.first + first, len, ..b });
        if filled == own {
            return pack::pack_in(self.order, to, width, self.source, tile, self.precision);
        }
        let whole = len / (2 * TILE) * (2 * TILE);
        let (to, last) = to.split_at_mut(width * words(whole, self.precision));
        pack::pack_in(self.order, to, width, self.source, SourceTile { depth: whole, ..tile }, self.precision);
        let rest = SourceTile { first_depth: tile.first_depth + whole, depth: len - whole, ..tile };
        self.last_of_tiles(last, rest);
    }

    /// What does not fill a tile of bf16, and zeros.
    fn last_of_tiles(&self, to: &mut [f32], s: SourceTile) {
        let (mut staged, source) = ([0.0; SIDE * 2 * TILE], self.source);
        for (item, row) in staged.chunks_exact_mut(2 * TILE).take(s.items).enumerate() {
            let from = (s.first_item + item) * source.item_stride + s.first_depth * source.depth_stride;
            for (k, x) in row.iter_mut().take(s.depth).enumerate() {
                *x = source.data[from + k * source.depth_stride];
            }
        }
        let source = Source { data: &staged, item_stride: 2 * TILE, depth_stride: 1 };
        let tile = SourceTile { first_item: 0, items: s.items, first_depth: 0, depth: 2 * TILE };
        pack::pack_in(self.order, to, self.panels.width, source, tile, self.precision);
    }
}

/// Packs both operands, all tasks together: each thread's share of the one, then of the other.
pub(in crate::transformer::cpu) fn run_all(pool: &Pool, all: &[Option<Packing>; 2]) {
    let counts = all.each_ref().map(|p| p.as_ref().map_or(0, Packing::tasks));
    let threads = pool.threads;
    let first = |which: usize, thread: usize| thread * counts[which] / threads;
    pool.each(counts[0] + counts[1], |task| {
        let before = |thread: usize| first(0, thread) + first(1, thread);
        let thread = (0..threads).rfind(|t| before(*t) <= task).unwrap_or(0);
        let (of_left, at) = (first(0, thread + 1) - first(0, thread), task - before(thread));
        let (which, at) = if at < of_left { (0, first(0, thread) + at) } else { (1, first(1, thread) + at - of_left) };
        if let Some(packing) = &all[which] {
            packing.run(at);
        }
    });
}

/// Packs many operands, all tasks together and in their order.
pub(in crate::transformer::cpu) fn run_each(pool: &Pool, all: &[Packing]) {
    let mut tasks = 0;
    let mut first = Vec::with_capacity(all.len());
    for p in all {
        first.push(tasks);
        tasks += p.tasks();
    }
    pool.each(tasks, |task| {
        let which = first.partition_point(|first| *first <= task) - 1;
        all[which].run(task - first[which]);
    });
}
