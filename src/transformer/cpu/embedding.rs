//! Rows in and out of tables: embeddings, the KV cache, the largest of a row. Bound by memory; the same on both CPU backends.

use super::super::backend::{AttentionDims, CacheDims, IGNORED_TOKEN};
use super::cached::{Cached, HeadMut, put};

/// `out = table[id] (+ positions[position])`, zeros for the table's where the id is [`IGNORED_TOKEN`].
pub(super) fn row(id: u32, position: usize, table: &[f32], positions: Option<&[f32]>, out: &mut [f32]) {
    let c = out.len();
    match id {
        IGNORED_TOKEN => out.fill(0.0),
        id => out.copy_from_slice(&table[id as usize * c..][..c]),
    }
    add_position(position, positions, out);
}

/// Adds the position's row, where positions are learned.
pub(super) fn add_position(position: usize, positions: Option<&[f32]>, out: &mut [f32]) {
    let c = out.len();
    if let Some(p) = positions {
        for (o, p) in out.iter_mut().zip(&p[position * c..][..c]) {
            *o += p;
        }
    }
}

/// Scatters `dout [N, C]` into the table's gradient (added) and the positions' (overwritten).
pub(super) fn backward(
    ids: &[u32],
    (tokens, first): (usize, usize),
    dout: &[f32],
    dtable: &mut [f32],
    dpositions: Option<&mut [f32]>,
    c: usize,
) {
    let add = |to: &mut [f32], from: &[f32]| {
        for (t, f) in to.iter_mut().zip(from) {
            *t += f;
        }
    };
    for (&id, d) in ids.iter().zip(dout.chunks_exact(c)).filter(|(id, _)| **id != IGNORED_TOKEN) {
        add(&mut dtable[id as usize * c..][..c], d);
    }
    if let Some(positions) = dpositions {
        positions.fill(0.0);
        for (r, d) in dout.chunks_exact(c).take(ids.len()).enumerate() {
            add(&mut positions[(first + r % tokens) * c..][..c], d);
        }
    }
}

/// Copies the keys and values of `qkv [B * T, (H + 2 KV) * D]` into the cache from `position` on, in turn past its capacity.
pub(super) fn cache_append(qkv: &[f32], cache: &mut [f32], position: usize, d: AttentionDims, c: CacheDims) {
    let (keys, values) = cache[..c.len()].split_at_mut(c.half());
    let head = c.capacity * d.head_dim;
    for (i, (keys, values)) in keys.chunks_exact_mut(head).zip(values.chunks_exact_mut(head)).enumerate() {
        let to: HeadMut<'_, f32> = (keys, values, &mut [], &mut []);
        cache_append_head(qkv, to, (i / d.kv_heads, i % d.kv_heads), position, d, c);
    }
}

/// The same for one key-value head of one sequence.
#[inline(always)]
pub(super) fn cache_append_head<T: Cached>(
    qkv: &[f32],
    (keys, values, key_scales, value_scales): HeadMut<'_, T>,
    (batch, head): (usize, usize),
    position: usize,
    d: AttentionDims,
    c: CacheDims,
) {
    let dim = d.head_dim;
    // What would be overwritten at once is not written.
    for t in d.tokens.saturating_sub(c.capacity)..d.tokens {
        let place = (position + t) % c.capacity;
        let row = &qkv[(batch * d.tokens + t) * d.qkv_width() + d.heads * dim..][..2 * d.kv_heads * dim];
        let [key, value] = [head, d.kv_heads + head].map(|part| &row[part * dim..][..dim]);
        put(value, values[place * dim..][..dim].iter_mut(), value_scales.get_mut(place));
        put(key, keys[place..].iter_mut().step_by(c.capacity), key_scales.get_mut(place));
    }
}

/// Index of the largest; the first of equals.
pub(super) fn largest(row: &[f32]) -> u32 {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = i;
        }
    }
    best as u32
}
