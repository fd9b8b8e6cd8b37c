//! A backend of which one operation is wrong: the oracle, one number of one result moved.

use super::super::BackendKind;
use super::super::backend::{
    Alloc, AttentionDims, Backend, CacheDims, Category, Clipping, Dropout, Frequencies, LinearDims, Loss, NormDims,
    Parts, Store, Update, Updated,
};
use super::super::cpu::array::Array;
use super::super::cpu::naive::Naive;
use super::super::error::SessionError;
use super::super::shape::Activation;

/// The method that is wrong.
#[derive(Debug)]
pub(crate) struct Faulty(pub &'static str);

/// Every method that can be: those that the others are made of.
pub(crate) const METHODS: &[&str] = &[
    "fill",
    "copy",
    "add",
    "embed",
    "embed_backward",
    "norm",
    "norm_backward",
    "linear",
    "linear_dx",
    "linear_dw",
    "activation",
    "activation_backward",
    "rope",
    "attention",
    "attention_backward",
    "attention_cached",
    "attention_after",
    "sinks",
    "sinks_backward",
    "dropout",
    "cross_entropy",
    "mean_squared_error",
    "last_rows",
    "argmax",
    "update",
];

impl Faulty {
    /// Moves the middle number by a tenth: less than any of the list's results is off by as a whole, more than a number may be.
    fn damage(&self, method: &str, to: &mut [f32]) {
        let middle = to.len() / 2;
        if self.0 == method
            && let Some(x) = to.get_mut(middle)
        {
            *x += 0.1 * x.abs().max(0.5);
        }
    }
}

impl Alloc for Faulty {
    type Buffer = Array;

    fn alloc(&self, len: usize, category: Category) -> Result<Array, SessionError> {
        Naive.alloc(len, category)
    }
}

macro_rules! like_the_oracle {
    ($($name:ident($($arg:ident: $ty:ty),*) damages $out:ident;)*) => {
        $(fn $name(&self, $($arg: $ty),*) {
            Naive.$name($($arg),*);
            self.damage(stringify!($name), $out);
        })*
    };
}

impl Backend for Faulty {
    fn kind(&self) -> BackendKind {
        BackendKind::Naive
    }
    fn upload(&self, from: &[f32], to: &mut Array) {
        Naive.upload(from, to);
    }
    fn download(&self, from: &Array, offset: usize, to: &mut [f32]) {
        Naive.download(from, offset, to);
    }
    fn cache_append(&self, qkv: &Array, cache: &mut Array, position: usize, d: AttentionDims, c: CacheDims) {
        Naive.cache_append(qkv, cache, position, d, c);
    }
    like_the_oracle! {
        fill(buffer: &mut Array, value: f32) damages buffer;
        copy(from: &Array, to: &mut Array, len: usize) damages to;
        add(from: &Array, to: &mut Array, len: usize) damages to;
        norm(x: &Array, g: &Array, b: Option<&Array>, out: &mut Array, stats: &mut Array, d: NormDims) damages out;
        linear(x: &Array, w: &Array, b: Option<&Array>, out: &mut Array, into: Store, d: LinearDims) damages out;
        linear_dx(dout: &Array, w: &Array, dx: &mut Array, into: Store, d: LinearDims) damages dx;
        linear_dw(x: &Array, dout: &Array, dw: &mut Array, db: Option<&mut Array>, d: LinearDims) damages dw;
        activation(kind: Activation, pre: &Array, out: &mut Array, n: usize, f: usize) damages out;
        activation_backward(kind: Activation, pre: &mut Array, dout: &Array, n: usize, f: usize) damages pre;
        rope(qkv: &mut Array, by: &Frequencies, first: usize, inverse: bool, d: AttentionDims) damages qkv;
        attention(qkv: &Array, out: &mut Array, lse: &mut Array, d: AttentionDims) damages lse;
        dropout(x: &mut Array, len: usize, d: Dropout) damages x;
        last_rows(x: &Array, out: &mut Array, batch: usize, tokens: usize, c: usize) damages out;
    }
    fn embed(
        &self,
        ids: &[u32],
        tokens: usize,
        first: usize,
        table: &Array,
        positions: Option<&Array>,
        out: &mut Array,
        c: usize,
    ) {
        Naive.embed(ids, tokens, first, table, positions, out, c);
        self.damage("embed", out);
    }
    fn embed_backward(
        &self,
        ids: &[u32],
        tokens: usize,
        first: usize,
        dout: &Array,
        dtable: &mut Array,
        dpositions: Option<&mut Array>,
        c: usize,
    ) {
        Naive.embed_backward(ids, tokens, first, dout, dtable, dpositions, c);
        self.damage("embed_backward", dtable);
    }
    fn norm_backward(
        &self,
        x: &Array,
        gain: &Array,
        stats: &Array,
        dout: &Array,
        dx: &mut Array,
        dgain: &mut Array,
        dbias: Option<&mut Array>,
        d: NormDims,
    ) {
        Naive.norm_backward(x, gain, stats, dout, dx, dgain, dbias, d);
        self.damage("norm_backward", dgain);
    }
    fn attention_backward(
        &self,
        qkv: &Array,
        out: &Array,
        dout: &Array,
        lse: &Array,
        dqkv: &mut Array,
        d: AttentionDims,
    ) {
        Naive.attention_backward(qkv, out, dout, lse, dqkv, d);
        self.damage("attention_backward", dqkv);
    }
    fn attention_cached(
        &self,
        qkv: &Array,
        cache: &Array,
        out: &mut Array,
        lse: Option<&mut Array>,
        length: usize,
        d: AttentionDims,
        c: CacheDims,
    ) {
        Naive.attention_cached(qkv, cache, out, lse, length, d, c);
        self.damage("attention_cached", out);
    }
    fn cross_entropy(
        &self,
        x: &Array,
        w: &Array,
        targets: &[u32],
        gradients: Option<(&mut Array, &mut Array)>,
        cap: Option<f32>,
        d: LinearDims,
    ) -> Loss {
        let Some((dx, dw)) = gradients else { return Naive.cross_entropy(x, w, targets, None, cap, d) };
        let loss = Naive.cross_entropy(x, w, targets, Some((dx, dw)), cap, d);
        self.damage("cross_entropy", dw);
        loss
    }
    fn mean_squared_error(&self, x: &Array, target: &Array, dx: Option<&mut Array>, len: usize) -> Loss {
        let Loss::Known(mut loss) = Naive.mean_squared_error(x, target, dx, len) else { return Loss::OnDevice };
        self.damage("mean_squared_error", std::slice::from_mut(&mut loss));
        Loss::Known(loss)
    }
    fn argmax(&self, x: &Array, n: usize, v: usize) -> Vec<u32> {
        let mut found = Naive.argmax(x, n, v);
        found[0] += u32::from(self.0 == "argmax");
        found
    }
    fn update(&self, update: &Update, step: u32, clip: Option<Clipping<'_, Array>>, one: Updated<'_, Array>) {
        let Updated { part, parameter, gradient, first, second } = one;
        let of_naive = Updated { part, parameter: &mut *parameter, gradient, first, second };
        Naive.update(update, step, clip, of_naive);
        self.damage("update", parameter);
    }
}

impl Parts for Faulty {
    fn numbers(&self, buffer: &Array) -> usize {
        buffer.len()
    }
    fn attention_after(
        &self,
        qkv: &Array,
        cache: &Array,
        out: &mut Array,
        lse: &mut Array,
        position: usize,
        d: AttentionDims,
        c: CacheDims,
    ) {
        Naive.attention_after(qkv, cache, out, lse, position, d, c);
        self.damage("attention_after", out);
    }
    fn sinks(&self, sinks: &Array, out: &mut Array, lse: &mut Array, d: AttentionDims) {
        Naive.sinks(sinks, out, lse, d);
        self.damage("sinks", out);
    }
    fn sinks_backward(
        &self,
        sinks: &Array,
        out: &Array,
        dout: &Array,
        lse: &Array,
        dsinks: &mut Array,
        d: AttentionDims,
    ) {
        Naive.sinks_backward(sinks, out, dout, lse, dsinks, d);
        self.damage("sinks_backward", dsinks);
    }
}
