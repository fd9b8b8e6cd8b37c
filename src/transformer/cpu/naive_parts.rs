//! What only some models are made of, by the oracle; the rest of it is computed on the host for every backend.

use super::super::backend::{AttentionDims, CacheDims, Parts};
use super::array::Array;
use super::naive::{Naive, head_offsets, probabilities};

impl Parts for Naive {
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
        let (dim, width) = (d.head_dim, d.qkv_width());
        let whole = AttentionDims { tokens: position + d.tokens, ..d };
        for (b, h, t) in
            (0..d.batch).flat_map(|b| (0..d.heads).flat_map(move |h| (0..d.tokens).map(move |t| (b, h, t))))
        {
            let (q, k, v) = head_offsets(&d, h);
            let start = (b * d.kv_heads + h / (d.heads / d.kv_heads)) * c.capacity * dim;
            let row = |s: usize, column: usize| &qkv[(b * d.tokens + s - position) * width + column..][..dim];
            let key = |s: usize| match s.checked_sub(position) {
                Some(_) => row(s, k).to_vec(),
                None => (0..dim).map(|i| cache[start + i * c.capacity + s % c.capacity]).collect(),
            };
            let value = |s: usize, i: usize| match s.checked_sub(position) {
                Some(_) => row(s, v)[i],
                None => cache[c.half() + start + s % c.capacity * dim + i],
            };
            let seen = whole.seen(position + t);
            let keys: Vec<Vec<f32>> = seen.clone().map(key).collect();
            let (p, log) = probabilities(row(position + t, q), keys.iter().map(Vec::as_slice), (seen.start, h), &d);
            lse[(b * d.tokens + t) * d.heads + h] = log as f32;
            for i in 0..dim {
                let sum: f64 = p.iter().zip(seen.clone()).map(|(p, s)| p * f64::from(value(s, i))).sum();
                out[(b * d.tokens + t) * d.out_width() + h * dim + i] = sum as f32;
            }
        }
    }
}
