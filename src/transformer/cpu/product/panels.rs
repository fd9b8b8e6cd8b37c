//! Where panels lie in a buffer, and how operands get there.

use super::super::pool::Pool;
use super::Precision;
use super::pack::{self, Source, Stretch, elements};

/// Elements of depth that are multiplied at a time: a panel of `b` of this depth fits the first-level cache beside one of `a`.
pub(in crate::transformer::cpu) const DEPTH: usize = 256;

/// One stretch of the inner dimension.
#[derive(Clone, Copy)]
pub(in crate::transformer::cpu) struct Depth {
    pub first: usize,
    pub numbers: usize,
    /// Elements of the panels before it, for each of their items.
    pub before: usize,
    pub elements: usize,
}

pub(in crate::transformer::cpu) fn depths(k: usize, precision: Precision) -> impl Iterator<Item = Depth> {
    let step = if precision == Precision::Bf16 { 2 * DEPTH } else { DEPTH };
    (0..k).step_by(step).map(move |first| {
        let numbers = step.min(k - first);
        Depth { first, numbers, before: elements(first, precision), elements: elements(numbers, precision) }
    })
}

/// Panels `items` wide of a matrix, one stretch after another: where each begins.
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
        self.count * self.width * elements(k, precision)
    }
    pub(crate) fn at(self, d: Depth, panel: usize) -> usize {
        self.width * (d.before * self.count + panel * d.elements)
    }
}

/// A buffer whose panels different threads fill.
#[derive(Clone, Copy)]
pub(in crate::transformer::cpu) struct Filling(*mut f32, usize);
// SAFETY: threads fill different panels; see `fill`.
unsafe impl Sync for Filling {}

impl Filling {
    pub(crate) fn of(buffer: &mut [f32]) -> Self {
        Self(buffer.as_mut_ptr(), buffer.len())
    }
    /// # Safety
    /// No other thread touches these numbers.
    pub(crate) unsafe fn part<'b>(&self, at: usize, len: usize) -> &'b mut [f32] {
        assert!(at + len <= self.1, "a panel beyond its buffer");
        // SAFETY: within the buffer, checked above; the caller keeps others away.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(at), len) }
    }
}

pub(in crate::transformer::cpu) fn stretch(panel: usize, width: usize, items: usize, d: Depth) -> Stretch {
    let first_item = panel * width;
    Stretch { first_item, items: width.min(items - first_item), first_depth: d.first, depth: d.numbers }
}

/// Packs a whole operand on this thread: `items` of a source, `depth` numbers each.
pub(in crate::transformer::cpu) fn pack_all(
    to: &mut [f32],
    panels: Panels,
    items: usize,
    depth: usize,
    source: Source,
    precision: Precision,
) {
    for d in depths(depth, precision) {
        for panel in 0..items.div_ceil(panels.width) {
            let at = panels.width * (d.before * panels.count + panel * d.elements);
            let s = stretch(panel, panels.width, items, d);
            pack::pack(&mut to[at..][..panels.width * d.elements], panels.width, source, s, precision);
        }
    }
}

/// Depth that a task packs of a source whose items lie side by side: it then reads whole rows, one after another.
const ROWS_AT_A_TIME: usize = 64;

/// An operand on its way into panels, in tasks.
pub(in crate::transformer::cpu) struct Packing<'a> {
    to: Filling,
    panels: Panels,
    items: usize,
    source: Source<'a>,
    stretches: &'a [Depth],
    precision: Precision,
}

impl<'a> Packing<'a> {
    /// Packs `items` of a source into `to`.
    pub(crate) fn new(
        to: &mut [f32],
        panels: Panels,
        items: usize,
        source: Source<'a>,
        stretches: &'a [Depth],
        precision: Precision,
    ) -> Self {
        Self { to: Filling::of(to), panels, items, source, stretches, precision }
    }

    fn by_depth(&self) -> bool {
        self.source.item_stride == 1
    }

    fn tasks(&self) -> usize {
        if self.by_depth() {
            self.stretches.iter().map(|d| d.numbers.div_ceil(ROWS_AT_A_TIME)).sum()
        } else {
            self.panels.count
        }
    }

    fn run(&self, task: usize) {
        if self.by_depth() {
            let mut left = task;
            for d in self.stretches {
                let parts = d.numbers.div_ceil(ROWS_AT_A_TIME);
                if left < parts {
                    let first = left * ROWS_AT_A_TIME;
                    let numbers = ROWS_AT_A_TIME.min(d.numbers - first);
                    return (0..self.panels.count).for_each(|p| self.part(*d, p, first, numbers));
                }
                left -= parts;
            }
        } else {
            self.stretches.iter().for_each(|d| self.part(*d, task, 0, d.numbers));
        }
    }

    /// Numbers `first..` of a panel's stretch.
    fn part(&self, d: Depth, panel: usize, first: usize, numbers: usize) {
        let width = self.panels.width;
        let at = self.panels.at(d, panel) + width * elements(first, self.precision);
        // SAFETY: each part of a panel is one task's.
        let to = unsafe { self.to.part(at, width * elements(numbers, self.precision)) };
        let s = stretch(panel, width, self.items, Depth { first: d.first + first, numbers, ..d });
        pack::pack(to, width, self.source, s, self.precision);
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
