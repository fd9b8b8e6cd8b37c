//! The CPU backends: [`naive::Naive`], the oracle, and [`Cpu`], the fast one, with a file per operation.

pub(crate) mod array;
pub(crate) mod buffer;
pub(crate) mod naive;
pub(in crate::transformer) mod naive_curves;
mod naive_parts;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod few_bits_tests;
#[cfg(test)]
mod linear_tests;
#[cfg(test)]
mod parts_tests;

mod activation;
mod attention;
mod cached;
mod chunks;
mod decode;
mod dropout;
mod embedding;
mod experts;
mod head;
pub(crate) mod instructions;
mod latent;
mod linear;
mod loss;
mod math;
mod matmul;
mod norm;
mod parts;
pub(in crate::transformer) mod pool;
mod product;
mod qk_norm;
mod rope;
mod routes;
mod rows;
mod scratch;
mod spans;
mod update;
mod words;

pub(crate) use instructions::Instructions;
pub(super) use scratch::{Widths, scratch_words, weight_words};

use super::backend::{
    Alloc, AttentionDims, Backend, CacheDims, Category, Clipping, Dropout, Frequencies, IGNORED_TOKEN, LinearDims,
    Loss, NormDims, Store, Update, Updated,
};
use super::error::SessionError;
use super::random::Normals;
use super::shape::Activation;
use super::{BackendKind, Dtype, WeightFormat};
use array::Slabs;
use buffer::Buffer;
use cached::{Cached, KeysAndValues, of_element};
use head::Head;
use instructions::vectorised;
use linear::Base;
use matmul::matmul;
use pool::{Pool, reading, writing};
use product::{Groups, Onto, PackedLayout, Precision, Stored, View};
use std::sync::Arc;

/// The fast CPU backend: one rank's threads.
#[derive(Clone, Debug)]
pub struct Cpu {
    pool: Arc<Pool>,
    slabs: Arc<Slabs>,
    precision: Precision,
    weights: WeightFormat,
}

impl Cpu {
    /// `threads` threads, each on its own core of `cores` where they are given.
    ///
    /// # Errors
    /// When the system starts no more threads.
    pub fn new(threads: usize, cores: Option<Vec<usize>>) -> Result<Self, SessionError> {
        let pool = Arc::new(Pool::new(threads.max(1), cores)?);
        Ok(Self { pool, slabs: Arc::default(), precision: Precision::F32, weights: WeightFormat::Dtype })
    }
}

impl Cpu {
    /// The same threads; products take their factors in this format (sums stay f32).
    pub fn with_dtype(self, dtype: Dtype) -> Self {
        Self { precision: precision(dtype), ..self }
    }

    /// The same threads; weight matrices for inference are stored in this format.
    pub fn with_weights(self, weights: WeightFormat) -> Self {
        Self { weights, ..self }
    }
}

fn precision(dtype: Dtype) -> Precision {
    match dtype {
        Dtype::F32 | Dtype::Tf32 => Precision::F32,
        Dtype::Bf16 => Precision::Bf16,
    }
}

fn stored(weights: WeightFormat, precision: Precision) -> Stored {
    match weights {
        WeightFormat::Dtype => Stored::Whole(precision),
        WeightFormat::Int8 => Stored::Int8,
        WeightFormat::F8 => Stored::F8,
        WeightFormat::Int4 => Stored::Int4(Groups::Of32),
        WeightFormat::Int4Group128 => Stored::Int4(Groups::Of128),
        WeightFormat::Int4Group128ZeroPoints => Stored::Int4(Groups::Of128ZeroPoints),
    }
}

impl Cpu {
    fn append<T: Cached>(&self, qkv: &[f32], cache: &mut [f32], position: usize, d: AttentionDims, c: CacheDims) {
        self.pool.over(cached::heads::<T>(cache, c), |i, head| {
            let place = (i / d.kv_heads, i % d.kv_heads);
            vectorised(
                #[inline(always)]
                || embedding::cache_append_head(qkv, head, place, position, d, c),
            );
        });
    }
}

fn onto<'a>(into: Store) -> Onto<'a> {
    match into {
        Store::Overwrite => Onto::Nothing,
        Store::Accumulate => Onto::Target,
    }
}

impl Alloc for Cpu {
    type Buffer = Buffer;

    fn alloc(&self, len: usize, _: Category) -> Result<Buffer, SessionError> {
        self.slabs.zeros(len).map(Buffer::Plain)
    }
}

impl Backend for Cpu {
    fn kind(&self) -> BackendKind {
        BackendKind::Cpu
    }
    fn dtype(&self) -> Dtype {
        match self.precision {
            Precision::F32 => Dtype::F32,
            Precision::Bf16 | Precision::Rounded => Dtype::Bf16,
        }
    }
    fn upload(&self, from: &[f32], to: &mut Buffer) {
        to.plain_mut()[..from.len()].copy_from_slice(from);
    }
    fn download(&self, from: &Buffer, offset: usize, to: &mut [f32]) {
        to.copy_from_slice(&from.plain()[offset..offset + to.len()]);
    }
    fn fill(&self, buffer: &mut Buffer, value: f32) {
        let _span = spans::elements("fill", 1, buffer.plain().len());
        let buffer = buffer.plain_mut();
        let share = self.pool.share(buffer.len(), 1 << 14);
        self.pool.over(writing(buffer, share), |_, c| c.fill(value));
    }
    fn copy(&self, from: &Buffer, to: &mut Buffer, len: usize) {
        let _span = spans::elements("copy", 2, len);
        let share = self.pool.share(len, 1 << 14);
        let parts = (writing(&mut to.plain_mut()[..len], share), reading(&from.plain()[..len], share));
        self.pool.over(parts, |_, (t, f)| t.copy_from_slice(f));
    }
    fn add(&self, from: &Buffer, to: &mut Buffer, len: usize) {
        let _span = spans::elements("add", 3, len);
        let share = self.pool.share(len, 1 << 14);
        let parts = (writing(&mut to.plain_mut()[..len], share), reading(&from.plain()[..len], share));
        self.pool.over(parts, |_, (t, f)| t.iter_mut().zip(f).for_each(|(t, f)| *t += f));
    }

    fn weights(
        &self,
        matrices: usize,
        rows: usize,
        columns: usize,
        next: &mut dyn FnMut(&mut [f32]),
    ) -> Result<Buffer, SessionError> {
        let how = PackedLayout::new(rows, columns, stored(self.weights, self.precision));
        let mut one = || Ok(how.fill(&self.pool, self.slabs.zeros(how.len())?, &mut *next));
        if matrices == 1 {
            return one().map(Buffer::Packed);
        }
        (0..matrices).map(|_| one()).collect::<Result<_, SessionError>>().map(Buffer::Experts)
    }
    fn fill_normal(&self, to: &mut Buffer, numbers: &Normals) {
        // In place: what an allocator is given back of a copy it may keep, and a rank's would be as large as its table of words.
        numbers.fill(0, &mut to.plain_mut()[..numbers.len()]);
    }

    fn embed(
        &self,
        ids: &[u32],
        tokens: usize,
        first: usize,
        table: &Buffer,
        positions: Option<&Buffer>,
        out: &mut Buffer,
        c: usize,
    ) {
        let _span = spans::elements("embed", 2, ids.len() * c);
        let positions = positions.map(Buffer::plain);
        let share = self.pool.share(ids.len(), 16);
        let parts = (writing(&mut out.plain_mut()[..ids.len() * c], share * c), reading(ids, share));
        self.pool.over(parts, |i, (out, ids)| {
            for (r, (out, id)) in out.chunks_exact_mut(c).zip(ids).enumerate() {
                let position = first + (i * share + r) % tokens;
                match table {
                    Buffer::Packed(table) if *id != IGNORED_TOKEN => {
                        table.row(*id as usize, out);
                        embedding::add_position(position, positions, out);
                    }
                    table => embedding::row(*id, position, table.plain(), positions, out),
                }
            }
        });
    }
    fn embed_backward(
        &self,
        ids: &[u32],
        tokens: usize,
        first: usize,
        dout: &Buffer,
        dtable: &mut Buffer,
        dpositions: Option<&mut Buffer>,
        c: usize,
    ) {
        let _span = spans::elements("embed_backward", 3, ids.len() * c);
        let dpositions = dpositions.map(Buffer::plain_mut);
        embedding::backward(ids, (tokens, first), dout.plain(), dtable.plain_mut(), dpositions, c);
    }

    fn norm(
        &self,
        x: &Buffer,
        gain: &Buffer,
        bias: Option<&Buffer>,
        out: &mut Buffer,
        stats: &mut Buffer,
        d: NormDims,
    ) {
        let _span = spans::norm("norm", 2, d.n * d.c);
        let (x, gain, bias) = (x.plain(), gain.plain(), bias.map(Buffer::plain));
        norm::forward(&self.pool, x, gain, bias, out.plain_mut(), stats.plain_mut(), d);
    }
    fn norm_backward(
        &self,
        x: &Buffer,
        gain: &Buffer,
        stats: &Buffer,
        dout: &Buffer,
        dx: &mut Buffer,
        dgain: &mut Buffer,
        dbias: Option<&mut Buffer>,
        d: NormDims,
    ) {
        let _span = spans::norm("norm_backward", 4, d.n * d.c);
        let saved = norm::SavedNorm { x: x.plain(), gain: gain.plain(), stats: stats.plain(), dout: dout.plain() };
        norm::backward(&self.pool, saved, dx.plain_mut(), dgain.plain_mut(), dbias.map(Buffer::plain_mut), d);
    }

    fn linear(&self, x: &Buffer, w: &Buffer, bias: Option<&Buffer>, out: &mut Buffer, into: Store, d: LinearDims) {
        let _span = spans::linear("linear", w, d);
        let bias = bias.map(|b| &b.plain()[..d.m]);
        self.linear_onto(x.plain(), w, bias, into.into(), out.plain_mut(), d);
    }
    fn linear_plus(
        &self,
        x: &Buffer,
        w: &Buffer,
        bias: Option<&Buffer>,
        plus: &Buffer,
        out: &mut Buffer,
        d: LinearDims,
    ) {
        let _span = spans::linear("linear_plus", w, d);
        let bias = bias.map(|b| &b.plain()[..d.m]);
        self.linear_onto(x.plain(), w, bias, Base::Matrix(&plus.plain()[..d.n * d.m]), out.plain_mut(), d);
    }
    fn linear_dx(&self, dout: &Buffer, w: &Buffer, dx: &mut Buffer, into: Store, d: LinearDims) {
        let _span = spans::linear("linear_dx", w, d);
        let (dout, w) = (View::dense(dout.plain(), d.n, d.m), View::dense(w.plain(), d.m, d.k));
        matmul(&self.pool, self.precision, dx.plain_mut(), onto(into), dout, w);
    }
    fn linear_dw(&self, x: &Buffer, dout: &Buffer, dw: &mut Buffer, dbias: Option<&mut Buffer>, d: LinearDims) {
        let _span = spans::linear("linear_dw", dw, d);
        let dout = dout.plain();
        let (left, right) = (View::dense(dout, d.n, d.m).transposed(), View::dense(x.plain(), d.n, d.k));
        matmul(&self.pool, self.precision, dw.plain_mut(), Onto::Nothing, left, right);
        if let Some(bias) = dbias.map(Buffer::plain_mut) {
            let share = self.pool.share(d.m, 64);
            self.pool.over(writing(&mut bias[..d.m], share), |i, bias| {
                bias.fill(0.0);
                for row in dout[..d.n * d.m].chunks_exact(d.m) {
                    bias.iter_mut().zip(&row[i * share..]).for_each(|(b, d)| *b += d);
                }
            });
        }
    }

    fn activation(&self, kind: Activation, pre: &Buffer, out: &mut Buffer, n: usize, f: usize) {
        let _span = spans::activation("activation", 1, kind, n, f);
        activation::forward(&self.pool, kind, pre.plain(), out.plain_mut(), n, f);
    }
    fn activation_backward(&self, kind: Activation, pre: &mut Buffer, dout: &Buffer, n: usize, f: usize) {
        let _span = spans::activation("activation_backward", 2, kind, n, f);
        activation::backward(&self.pool, kind, pre.plain_mut(), dout.plain(), n, f);
    }

    fn rope(&self, qkv: &mut Buffer, frequencies: &Frequencies, first: usize, inverse: bool, d: AttentionDims) {
        let _span = spans::elements("rope", 2, d.rows() * (d.heads + d.kv_heads) * d.head_dim);
        rope::turn(&self.pool, qkv.plain_mut(), frequencies, first, inverse, d);
    }
    fn attention(&self, qkv: &Buffer, out: &mut Buffer, lse: &mut Buffer, d: AttentionDims) {
        let _span = spans::attention("attention", 2.0, 1, d);
        attention::forward(&self.pool, self.precision, qkv.plain(), out.plain_mut(), lse.plain_mut(), d);
    }
    fn attention_backward(
        &self,
        qkv: &Buffer,
        out: &Buffer,
        dout: &Buffer,
        lse: &Buffer,
        dqkv: &mut Buffer,
        d: AttentionDims,
    ) {
        let _span = spans::attention("attention_backward", 5.0, 2, d);
        let saved =
            attention::SavedAttention { qkv: qkv.plain(), out: out.plain(), dout: dout.plain(), lse: lse.plain() };
        attention::backward(&self.pool, self.precision, saved, dqkv.plain_mut(), d);
    }
    fn cache_append(&self, qkv: &Buffer, cache: &mut Buffer, position: usize, d: AttentionDims, c: CacheDims) {
        let _span = spans::elements("cache_append", 2, 2 * d.rows() * d.kv_heads * d.head_dim);
        let (qkv, cache) = (qkv.plain(), cache.plain_mut());
        of_element!(c.element, T => self.append::<T>(qkv, cache, position, d, c));
    }
    fn attention_cached(
        &self,
        qkv: &Buffer,
        cache: &Buffer,
        out: &mut Buffer,
        lse: Option<&mut Buffer>,
        length: usize,
        d: AttentionDims,
        c: CacheDims,
    ) {
        let _span = spans::attention_cached("attention_cached", length, d, c);
        let (qkv, cache) = (qkv.plain(), cache.plain());
        let to = (out.plain_mut(), lse.map(Buffer::plain_mut));
        of_element!(c.element, T => {
            decode::attention(&self.pool, qkv, KeysAndValues::<T>::of(cache, c), to, length, d, c);
        });
    }

    fn dropout(&self, x: &mut Buffer, len: usize, d: Dropout) {
        let _span = spans::elements("dropout", 2, len);
        let share = self.pool.share(len, 1 << 12);
        self.pool.over(writing(&mut x.plain_mut()[..len], share), |i, x| dropout::apply(x, i * share, &d));
    }

    fn cross_entropy(
        &self,
        x: &Buffer,
        w: &Buffer,
        targets: &[u32],
        gradients: Option<(&mut Buffer, &mut Buffer)>,
        cap: Option<f32>,
        d: LinearDims,
    ) -> Loss {
        let _span = spans::loss(w, gradients.is_some(), d);
        let gradients = gradients.map(|(dx, dw)| (dx.plain_mut(), dw.plain_mut()));
        let head = Head { pool: &self.pool, precision: self.precision, x: x.plain(), w: w.plain(), d };
        Loss::Known(loss::cross_entropy(head, targets, gradients, cap))
    }
    fn mean_squared_error(&self, x: &Buffer, target: &Buffer, dx: Option<&mut Buffer>, len: usize) -> Loss {
        let _span = spans::elements("mean_squared_error", 2, len);
        let dx = dx.map(|d| &mut d.plain_mut()[..len]);
        Loss::Known(loss::mean_squared_error(&self.pool, &x.plain()[..len], &target.plain()[..len], dx))
    }
    fn last_rows(&self, x: &Buffer, out: &mut Buffer, batch: usize, tokens: usize, c: usize) {
        let _span = spans::elements("last_rows", 2, batch * c);
        let (x, out) = (x.plain(), &mut out.plain_mut()[..batch * c]);
        for (out, sequence) in out.chunks_exact_mut(c).zip(x.chunks_exact(tokens * c)) {
            out.copy_from_slice(&sequence[(tokens - 1) * c..]);
        }
    }
    fn argmax(&self, x: &Buffer, n: usize, v: usize) -> Vec<u32> {
        let _span = spans::elements("argmax", 1, n * v);
        let (x, mut largest) = (x.plain(), vec![0; n]);
        self.pool
            .over((writing(&mut largest, 1), reading(&x[..n * v], v)), |_, (to, row)| to[0] = embedding::largest(row));
        largest
    }

    fn update(&self, u: &Update, step: u32, clip: Option<Clipping<'_, Buffer>>, one: Updated<'_, Buffer>) {
        let _span = spans::update(
            3 + 2 * [one.first.is_some(), one.second.is_some()].iter().filter(|m| **m).count(),
            one.part.len(),
        );
        let (p, g) = (&mut one.parameter.plain_mut()[one.part.clone()], &one.gradient.plain()[one.part]);
        let (first, second) = (one.first.map(Buffer::plain_mut), one.second.map(Buffer::plain_mut));
        let factor = clip.map_or(1.0, |clip| clip.factor(clip.squares.plain()[0]));
        update::update(&self.pool, u, step, p, (g, factor), first, second);
    }

    fn enter<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.pool.enter(f)
    }
}
