//! Operations of latent attention on the host, as the formulas read: keys and values are made of the cache's latents, head by head.

use super::Backend;
use super::few_bits_on_host::as_kept;
use super::latent::{BlockCopy, LatentDims};
use super::on_host::{dot, read};

/// `Parts::copy_blocks`
pub(super) fn copy_blocks<B: Backend + ?Sized>(on: &B, from: &B::Buffer, to: &mut B::Buffer, d: BlockCopy) {
    let last = d.n.saturating_sub(1);
    let reach = |of: super::latent::Blocks| of.first + last * of.row + d.reach(of);
    let (source, mut host) = (read(on, from, reach(d.from)), read(on, to, reach(d.to)));
    for r in 0..d.n {
        for h in 0..d.heads {
            let block = &source[d.from.first + r * d.from.row + h * d.from.head..][..d.len];
            let to = &mut host[d.to.first + r * d.to.row + h * d.to.head..][..d.len];
            if d.sums() && h > 0 {
                to.iter_mut().zip(block).for_each(|(to, x)| *to += x);
            } else {
                to.copy_from_slice(block);
            }
        }
    }
    on.upload(&host, to);
}

/// `Parts::latent_append`, of `[latent, rotated]`.
pub(super) fn append<B: Backend + ?Sized>(
    on: &B,
    [latent, rotated]: [&B::Buffer; 2],
    cache: &mut B::Buffer,
    position: usize,
    d: LatentDims,
) {
    let (latent, rotated) = (read(on, latent, d.rows() * d.rank), read(on, rotated, d.rows() * d.rope));
    let mut host = read(on, cache, d.cache_len());
    let rows = latent.chunks_exact(d.rank).zip(rotated.chunks_exact(d.rope)).enumerate();
    for (r, (latent, rotated)) in rows {
        let at = (r / d.tokens * d.capacity + position + r % d.tokens) * d.width();
        host[at..at + d.rank].copy_from_slice(&as_kept(latent, d.element));
        host[at + d.rank..at + d.width()].copy_from_slice(&as_kept(rotated, d.element));
    }
    on.upload(&host, cache);
}

/// `Parts::latent_attention`, of `[queries, weight, cache]`.
pub(super) fn attention<B: Backend + ?Sized>(
    on: &B,
    [queries, w, cache]: [&B::Buffer; 3],
    out: &mut B::Buffer,
    position: usize,
    d: LatentDims,
) {
    let (w, cache) = (read(on, w, d.heads * d.kv_head() * d.rank), read(on, cache, d.cache_len()));
    let queries = read(on, queries, d.rows() * d.heads * d.head_dim());
    let mut host = vec![0.0f32; d.rows() * d.heads * d.value];
    for (i, (query, to)) in queries.chunks_exact(d.head_dim()).zip(host.chunks_exact_mut(d.value)).enumerate() {
        let (r, h) = (i / d.heads, i % d.heads);
        let seen = position + r % d.tokens + 1;
        let rows = || cache[r / d.tokens * d.capacity * d.width()..].chunks_exact(d.width()).take(seen);
        let made = |row: &[f32], part: usize| dot(&w[(h * d.kv_head() + part) * d.rank..][..d.rank], &row[..d.rank]);
        let score = |row: &[f32]| {
            let nope: f64 = (0..d.nope).map(|j| f64::from(query[d.rope + j]) * made(row, j)).sum();
            (nope + dot(&query[..d.rope], &row[d.rank..])) * f64::from(d.scale)
        };
        let scores: Vec<f64> = rows().map(score).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        for (j, to) in to.iter_mut().enumerate() {
            let weighted = scores.iter().zip(rows()).map(|(s, row)| (s - max).exp() / total * made(row, d.nope + j));
            *to = weighted.sum::<f64>() as f32;
        }
    }
    on.upload(&host, out);
}
