//! Weights in floats of 8 bits (`kernels/weights_f8.cu`): a matrix `[rows, columns]` is codes of e4m3, a byte each, and an f32 scale for
//! each row, as the CPU backend has them, bit for bit.
//!
//! Products of a few rows read them as they are (`matvec`). For more rows they are made rows of the activations' format, so many at a
//! time that there is room for them, and multiplied as any others are. Experts have no such kernels and are refused
//! (`parts::lacking`).

use super::super::Dtype;
use super::super::backend::LinearDims;
use super::super::error::SessionError;
use super::super::random::{Block, Normals};
use super::buffer::{self, Buffer, Coded};
use super::device::{Address, Device, Matrix, Product, Real};
use super::embedding::Rows;
use super::launch::{Kernel, THREADS, at, at_or_null, blocks, blocks_over_rows, int};
use super::linear::{Linear, dense, plain};
use super::{Cuda, random};

/// Numbers in f32 that are made codes at a time.
const STAGED: usize = 1 << 20;

/// Bytes that expanded rows take at the most, unless one row of outputs is more: beside a product that reads them from the L2 cache or
/// from memory once, writing them costs as much as reading them.
const ROOM: usize = 64 << 20;

/// Rows that are expanded at a time: a multiple of 128, so that a bias goes on at an aligned address.
fn rows_at_once(columns: usize, real: Real, room: usize) -> usize {
    (room / (columns * real.size()).max(1) / 128 * 128).max(128)
}

/// Bytes that expanding a matrix takes.
pub(in super::super) fn room(rows: usize, columns: usize, dtype: Dtype) -> u64 {
    let real = buffer::real(dtype);
    (rows.min(rows_at_once(columns, real, ROOM)) * columns * real.size()) as u64
}

/// Makes rows of f32 codes and scales, from row `first` of the matrix on.
fn quantise(on: &dyn Device, from: Address, to: Coded, first: usize, rows: usize, columns: usize) {
    let args = [at(from), at(to.codes + (first * columns) as Address), at(to.scales + 4 * first as Address)];
    let args = [&args[..], &[int(rows), int(columns)]].concat();
    let grid = blocks(on, rows, THREADS as usize / 32);
    Kernel { on, file: "weights_f8", name: "quantise_f8", real: Real::F32 }.run(grid, THREADS, &args);
}

/// Makes rows of `real`, from row `first` of the matrix on.
fn expand(on: &dyn Device, real: Real, of: Coded, (first, rows): (usize, usize), columns: usize, to: Address) {
    let args = [at(of.codes + (first * columns) as Address), at(of.scales + 4 * first as Address), at(to)];
    let args = [&args[..], &[int(rows), int(columns)]].concat();
    let grid = blocks_over_rows(on, real, rows, columns);
    Kernel { on, file: "weights_f8", name: "expand_f8", real }.run(grid, THREADS, &args);
}

/// What [`embed`] reads and writes, as of [`super::embedding::Lookup`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Lookup {
    pub ids: Address,
    pub first: Address,
    pub table: Coded,
    pub positions: Option<Address>,
    pub out: Address,
}

/// Rows of a table, as [`super::embedding::embed`].
pub(super) fn embed(on: &dyn Device, real: Real, o: Lookup, d: Rows) {
    let table = [at(o.ids), at(o.table.codes), at(o.table.scales)];
    let rest = [at_or_null(o.positions), at(o.out), int(d.n), int(d.tokens), int(d.c), at(o.first)];
    let args = [&table[..], &rest[..]].concat();
    let grid = blocks_over_rows(on, real, d.n, d.c);
    Kernel { on, file: "weights_f8", name: "embed_f8", real }.run(grid, THREADS, &args);
}

impl Cuda {
    /// A matrix of rows that `next` writes.
    pub(super) fn coded_rows(
        &self,
        rows: usize,
        columns: usize,
        next: &mut dyn FnMut(&mut [f32]),
    ) -> Result<Buffer, SessionError> {
        let mut host = Vec::new();
        self.coded(rows, columns, &mut |_, here, to| {
            host.resize(here * columns, 0.0);
            next(&mut host);
            self.on().write(&buffer::words(host.iter().map(|x| x.to_ne_bytes())), to);
        })
    }

    /// A matrix of normal numbers, made on the device.
    pub(super) fn coded_normals(&self, numbers: &Normals) -> Result<Buffer, SessionError> {
        let rows = numbers.len() / numbers.columns.max(1);
        self.coded(rows, numbers.columns, &mut |first, here, to| {
            random::fill_normal_at(self.on(), Real::F32, (Some(to), None), &stretch(numbers, first, here));
        })
    }

    /// A matrix whose rows `put` puts into memory in f32, some at a time: (first, how many, where).
    fn coded(
        &self,
        rows: usize,
        columns: usize,
        put: &mut dyn FnMut(usize, usize, Address),
    ) -> Result<Buffer, SessionError> {
        let made = Buffer::coded(&self.device, rows, columns)?;
        let at_once = (STAGED / columns.max(1)).clamp(1, rows.max(1));
        for first in (0..rows).step_by(at_once) {
            let here = at_once.min(rows - first);
            let Some(staged) = self.state.scratch(4 * here * columns) else {
                return self.state.failure().map(|()| made);
            };
            put(first, here, staged);
            if let Some(codes) = made.codes() {
                quantise(self.on(), staged, codes, first, here, columns);
            }
        }
        Ok(made)
    }
}

/// Some rows of a matrix of numbers.
pub(super) fn stretch(of: &Normals, first: usize, rows: usize) -> Normals {
    let (mut above, mut blocks) = (0, Vec::new());
    for b in &of.blocks {
        let (start, end) = (first.max(above), (first + rows).min(above + b.rows));
        if start < end {
            let draw = b.first + (start - above) as u64 * b.stride;
            blocks.push(Block { rows: end - start, first: draw, stride: b.stride });
        }
        above += b.rows;
    }
    let mut all = of.clone();
    all.blocks = blocks;
    all
}

impl Linear<'_> {
    /// [`Linear::forward`] of a weight in codes.
    pub(super) fn forward_coded(
        &self,
        x: &Buffer,
        w: Coded,
        (bias, plus): (Option<&Buffer>, Option<&Buffer>),
        out: &Buffer,
        d: LinearDims,
    ) {
        self.forward_in_parts(x, w, (bias, plus.map(Buffer::at)), out, d, ROOM);
    }

    pub(super) fn forward_in_parts(
        &self,
        x: &Buffer,
        w: Coded,
        (bias, plus): (Option<&Buffer>, Option<Address>),
        out: &Buffer,
        d: LinearDims,
        room: usize,
    ) {
        let (LinearDims { n, k, m }, real, to) = (d, x.format(), dense(out.at(), out.format(), d.m));
        let at_once = rows_at_once(k, real, room).min(m);
        let Some(expanded) = self.state.expanded(at_once * k * real.size()) else { return };
        let bias = self.bias_beside(bias, to.format, m);
        for first in (0..m).step_by(at_once) {
            let here = at_once.min(m - first);
            expand(self.on, real, w, (first, here), k, expanded);
            let further = |base: Address| base + (first * to.format.size()) as Address;
            let weight = Matrix { transposed: true, ..dense(expanded, real, k) };
            let part = Matrix { address: further(to.address), ..to };
            let product = plain(dense(x.at(), real, k), weight, part, [n, k, here], self.tf32);
            self.on.product(&Product { bias: bias.map(further), plus: plus.map(further), ..product });
        }
    }
}
