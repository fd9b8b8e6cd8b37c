//! Attention of a stretch of a prompt over what is in the KV cache before it, and over itself.

use super::super::super::backend::{AttentionDims, CacheDims};
use super::super::cached::{Cached, KeysAndValues};
use super::super::pool::Pool;
use super::super::product::pack::Source;
use super::super::product::panels::take;
use super::super::product::{Precision, Target};
use super::strip::Cut;
use super::{Context, Head, forward_head};

/// Queries, keys and values of a stretch that begins at `position`, and the cache of what is before it.
#[derive(Clone, Copy)]
pub(in crate::transformer::cpu) struct Chunk<'a, T> {
    pub qkv: &'a [f32],
    pub cache: KeysAndValues<'a, T>,
    pub position: usize,
    pub d: AttentionDims,
    pub c: CacheDims,
}

impl<T: Cached> Chunk<'_, T> {
    /// Positions before the stretch that any of its queries sees.
    fn before(&self) -> usize {
        let kept = self.position.min(self.c.capacity);
        self.d.scores.window.map_or(kept, |w| kept.min(w - 1))
    }

    /// Keys and values that a head of them looks at, `[before + tokens, D]` each, in f32.
    fn gather(&self, batch: usize, kv: usize, keys: &mut [f32], values: &mut [f32]) {
        let (AttentionDims { head_dim: dim, heads, kv_heads, tokens, .. }, c) = (self.d, self.c);
        let (before, cache) = (self.before(), self.cache.head(batch * kv_heads + kv, c));
        let place = |s: usize| (self.position - before + s) % c.capacity;
        for (i, row) in cache.keys.chunks_exact(c.capacity).enumerate() {
            (0..before).for_each(|s| keys[s * dim + i] = row[place(s)].to_f32());
        }
        for (s, to) in values.chunks_exact_mut(dim).take(before).enumerate() {
            to.iter_mut().zip(&cache.values[place(s) * dim..]).for_each(|(to, v)| *to = v.to_f32());
        }
        if T::LARGEST.is_some() {
            for (rows, scales) in [(&mut *keys, cache.key_scales), (&mut *values, cache.value_scales)] {
                for (s, row) in rows.chunks_exact_mut(dim).take(before).enumerate() {
                    row.iter_mut().for_each(|x| *x *= scales[place(s)]);
                }
            }
        }
        let rows = self.qkv[batch * tokens * self.d.qkv_width()..].chunks_exact(self.d.qkv_width());
        for (t, row) in rows.take(tokens).enumerate() {
            let (key, at) = (&row[(heads + kv) * dim..][..dim], (before + t) * dim);
            keys[at..][..dim].copy_from_slice(key);
            values[at..][..dim].copy_from_slice(&row[(heads + kv_heads + kv) * dim..][..dim]);
        }
    }
}

/// `out [N, H*D]` of the stretch; `lse` takes what it takes of whole sequences.
pub(in crate::transformer::cpu) fn after_cache<T: Cached>(
    pool: &Pool,
    precision: Precision,
    of: Chunk<T>,
    out: &mut [f32],
    lse: &mut [f32],
) {
    let (d, before) = (of.d, of.before());
    let (count, group) = (before + d.tokens, d.heads / d.kv_heads);
    let cut = Cut::new(precision, AttentionDims { tokens: count, ..d });
    let (to, lse) = (Target::new(out, d.out_width()), Target::new(lse, d.heads));
    let tasks = d.batch * d.kv_heads;
    let parts = (2 * pool.threads).div_ceil(tasks).min(d.tokens.div_ceil(cut.strip)).max(1);
    pool.each_with(tasks * parts, 2 * count * d.head_dim + cut.forward_len(), |i, scratch| {
        let (task, part) = (i / parts, i % parts);
        let (batch, kv, dim) = (task / d.kv_heads, task % d.kv_heads, d.head_dim);
        let mut rest = scratch;
        let (keys, values) = (take(&mut rest, count * dim), take(&mut rest, count * dim));
        of.gather(batch, kv, keys, values);
        let context = Context {
            keys: Source { data: keys, item_stride: dim, depth_stride: 1 },
            values: Source { data: values, item_stride: 1, depth_stride: dim },
            count,
            before,
        };
        for head in kv * group..(kv + 1) * group {
            let head = Head { qkv: of.qkv, width: d.qkv_width(), d, batch, head };
            // SAFETY: the strips of a part of a head of a sequence are one task's alone.
            unsafe { forward_head(&cut, &head, context, (part, parts), rest, to, lse) };
        }
    });
}
