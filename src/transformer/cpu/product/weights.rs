//! Weight matrices that are kept in panels: `w [M, K]` as the right operand `w^T`, for weights that are multiplied by again and
//! again and do not change.

use super::super::array::Array;
use super::super::instructions::Instructions;
use super::super::pool::Pool;
use super::Precision;
use super::f8_panels;
use super::int4_groups::{self, Groups};
use super::int8_groups;
use super::kernel::Kernel;
use super::pack::{self, Source};
use super::panels::{PackedBuffer, Panels, k_blocks, source_tile};
use crate::amx::pair;

/// How the elements of a matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// In the format that products take their factors in.
    Whole(Precision),
    /// In 8 bits, with a scale for each group; see [`int8_groups`].
    Int8,
    /// In 4 bits; see [`int4_groups`].
    Int4(Groups),
    /// In floats of 8 bits, with a scale for each output; see [`f8_panels`].
    F8,
}

/// How a matrix lies in panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedLayout {
    /// K
    pub(in crate::transformer::cpu) depth: usize,
    /// M
    pub(in crate::transformer::cpu) columns: usize,
    pub(in crate::transformer::cpu) stored: Stored,
    /// Columns of a panel.
    pub(super) width: usize,
}

/// A weight matrix in panels.
#[derive(Debug)]
pub struct PackedWeight {
    pub(super) words: Array,
    pub(super) layout: PackedLayout,
}

impl PackedWeight {
    /// Row `row` of `w`, as it was rounded.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        self.layout.row(&self.words, row, out);
    }

    /// Words of 32 bits.
    pub(in crate::transformer::cpu) fn len(&self) -> usize {
        self.words.len()
    }
}

impl PackedLayout {
    /// The panels of `w [M, K]` for the instructions taken.
    pub(crate) fn new(columns: usize, depth: usize, stored: Stored) -> Self {
        Self { depth, columns, stored, width: Kernel::columns_of(Instructions::taken()) }
    }

    pub(super) fn panels(&self) -> Panels {
        Panels::of(self.columns, self.width)
    }

    /// Words of 32 bits.
    pub(crate) fn len(&self) -> usize {
        match self.stored {
            Stored::Whole(precision) => self.panels().len(self.depth, precision),
            Stored::Int8 | Stored::Int4(_) | Stored::F8 => self.panels().count * self.panel_words(),
        }
    }

    /// Words of a panel of few bits.
    pub(super) fn panel_words(&self) -> usize {
        match self.stored {
            Stored::Int4(groups) => groups.right_words(self.depth, self.width),
            Stored::F8 => f8_panels::right_words(self.depth, self.width),
            Stored::Int8 | Stored::Whole(_) => int8_groups::right_words(self.depth, self.width),
        }
    }

    /// Makes a matrix, in `room` of as many words, of rows that `next` writes, a few at a time and in their order.
    pub(crate) fn fill(self, pool: &Pool, room: Array, mut next: impl FnMut(&mut [f32])) -> PackedWeight {
        assert_eq!(room.len(), self.len(), "as many words as the panels have");
        let mut words = room;
        let panels = self.panels();
        // So many panels are staged in f32 at a time.
        let staged = pool.threads * 4;
        let mut rows = pool.scratch(staged * self.width * self.depth);
        for first in (0..panels.count).step_by(staged) {
            let here = staged.min(panels.count - first);
            let columns = (here * self.width).min(self.columns - first * self.width);
            next(&mut rows[..columns * self.depth]);
            let rows = &rows[..columns * self.depth];
            let to = PackedBuffer::of(&mut words);
            pool.each(here, |p| match self.stored {
                Stored::Whole(precision) => {
                    let source = Source { data: rows, item_stride: self.depth, depth_stride: 1 };
                    for b in k_blocks(self.depth, precision) {
                        // SAFETY: each panel is one task's.
                        let panel = unsafe { to.part(panels.at(b, first + p), panels.width * b.words) };
                        pack::pack(panel, panels.width, source, source_tile(p, panels.width, columns, b), precision);
                    }
                }
                Stored::Int8 | Stored::Int4(_) | Stored::F8 => {
                    let words = self.panel_words();
                    // SAFETY: each panel is one task's.
                    let panel = unsafe { to.part((first + p) * words, words) };
                    let own = &rows[p * self.width * self.depth..];
                    let own = &own[..own.len().min(self.width * self.depth)];
                    match self.stored {
                        Stored::Int4(groups) => {
                            int4_groups::quantise_right(panel, self.width, own, self.depth, groups);
                        }
                        Stored::F8 => f8_panels::quantise_right(panel, self.width, own, self.depth),
                        _ => int8_groups::quantise_right(panel, self.width, own, self.depth),
                    }
                }
            });
        }
        PackedWeight { words, layout: self }
    }

    fn row(&self, words: &[f32], row: usize, out: &mut [f32]) {
        match self.stored {
            Stored::Whole(precision) => self.whole_row(precision, words, row, out),
            Stored::Int8 | Stored::Int4(_) | Stored::F8 => {
                let len = self.panel_words();
                let (panel, column) = (&words[row / self.width * len..][..len], row % self.width);
                match self.stored {
                    Stored::Int4(groups) => int4_groups::row(panel, self.width, column, groups, out),
                    Stored::F8 => f8_panels::row(panel, self.width, column, out),
                    _ => int8_groups::row(panel, self.width, column, out),
                }
            }
        }
    }

    fn whole_row(&self, precision: Precision, words: &[f32], row: usize, out: &mut [f32]) {
        let (panels, lane) = (self.panels(), row % self.width);
        for b in k_blocks(self.depth, precision) {
            let panel = &words[panels.at(b, row / self.width)..][..self.width * b.words];
            let out = &mut out[b.first..b.first + b.len];
            match precision {
                Precision::F32 | Precision::Rounded => {
                    for (o, e) in out.iter_mut().zip(panel.chunks_exact(self.width)) {
                        *o = e[lane];
                    }
                }
                Precision::Bf16 => {
                    for (o, e) in out.chunks_mut(2).zip(panel.chunks_exact(self.width)) {
                        o.iter_mut().zip(pair(e[lane])).for_each(|(o, x)| *o = x);
                    }
                }
            }
        }
    }
}
