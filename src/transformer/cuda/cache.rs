//! The KV cache: where it lies, what is put into it, and what a stretch of a prompt looks at.
//!
//! It holds keys `[B, KV, capacity, D]` and values `[B, KV, capacity, D]`, in few bits behind the scales of both, `[B, KV, capacity]`; past
//! its capacity tokens take the places of the oldest. Where a pass stands in it comes from the device's memory, so that a captured step
//! serves every position.

use super::super::backend::{AttentionDims, CacheDims, CacheElement};
use super::device::{Address, Arg, Device, Real};
use super::launch::{Kernel, THREADS, at, blocks, int};
use super::sight::Context;

/// Where a layer's lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub keys: Address,
    pub values: Address,
    /// Of keys and of values, where they have scales.
    pub scales: Option<[Address; 2]>,
    pub element: CacheElement,
    pub capacity: usize,
}

impl Places {
    /// In a buffer of [`CacheDims::words`], which begins at `first`.
    pub(super) fn of(first: Address, c: CacheDims) -> Self {
        let scale = CacheElement::SCALE_SIZE;
        let keys = first + (2 * c.scales() * scale) as Address;
        let values = keys + (c.half() * c.element.size()) as Address;
        let scales = c.element.is_scaled().then(|| [first, first + (c.scales() * scale) as Address]);
        Self { keys, values, scales, element: c.element, capacity: c.capacity }
    }

    /// As a kernel takes them: keys, values, and scales where there are any.
    pub(super) fn args(&self) -> Vec<Arg> {
        [self.keys, self.values].into_iter().chain(self.scales.into_iter().flatten()).map(at).collect()
    }

    /// What tells a kernel of few bits which: a last argument.
    fn floats(&self) -> Option<Arg> {
        self.scales.map(|_| Arg::I32((self.element == CacheElement::F8).into()))
    }
}

/// Copies keys and values of `qkv` (`d.tokens` a sequence) into the cache from position `*first` on.
pub(super) fn append(on: &dyn Device, real: Real, (qkv, to, first): (Address, Places, Address), d: AttentionDims) {
    let vectors = d.rows() * 2 * d.kv_heads;
    let mut args = vec![at(qkv)];
    args.extend(to.args());
    args.extend([d.batch, d.tokens, d.heads, d.kv_heads, d.head_dim, to.capacity].map(int));
    args.push(at(first));
    args.extend(to.floats());
    let (file, name, pieces) = match to.scales {
        None => ("cache", "cache_append", vectors * d.head_dim.div_ceil(16 / real.size())),
        // A warp each.
        Some(_) => ("cache_few_bits", "cache_append_few", 32 * vectors),
    };
    Kernel { on, file, name, real }.run(blocks(on, pieces, THREADS as usize), THREADS, &args);
}

/// What [`context`] gathers from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub qkv: Address,
    pub cache: Places,
    /// Of its first token.
    pub position: usize,
}

impl Stretch {
    /// Positions before it that any of its queries sees and the cache still has.
    fn before(&self, d: &AttentionDims) -> usize {
        let kept = self.position.min(self.cache.capacity);
        d.scores.window.filter(|_| d.causal).map_or(kept, |window| kept.min(window - 1))
    }
    /// Bytes that [`context`] fills.
    pub(super) fn bytes(&self, real: Real, d: &AttentionDims) -> usize {
        context_bytes(real, self.before(d) + d.tokens, d)
    }
}

/// Bytes of keys and values of so many positions of every sequence.
pub(super) fn context_bytes(real: Real, positions: usize, d: &AttentionDims) -> usize {
    2 * d.batch * d.kv_heads * positions * d.head_dim * real.size()
}

/// Gathers keys and values that the queries of a stretch of a prompt look at, which is not in the cache yet, at `to`.
pub(super) fn context(on: &dyn Device, real: Real, s: Stretch, to: Address, d: &AttentionDims) -> Context {
    let (before, c) = (s.before(d), s.cache);
    let mut args = vec![at(s.qkv)];
    args.extend(c.args());
    args.push(at(to));
    args.extend([d.batch, d.tokens, d.heads, d.kv_heads, d.head_dim, c.capacity, s.position, before].map(int));
    args.extend(c.floats());
    let (file, name, pieces) = match c.scales {
        None => ("cache", "cache_context", s.bytes(real, d).div_ceil(16)),
        Some(_) => ("cache_few_bits", "cache_context_few", 64 * d.batch * d.kv_heads * (before + d.tokens)),
    };
    Kernel { on, file, name, real }.run(blocks(on, pieces, THREADS as usize), THREADS, &args);
    Context::gathered(to, real, before, d)
}
