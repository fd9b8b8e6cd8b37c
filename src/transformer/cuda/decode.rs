//! The KV cache, attention of one query a sequence over it, and what a stretch of a prompt looks at.
//!
//! The cache holds keys `[B, KV, capacity, D]` and values `[B, KV, capacity, D]`; past its capacity tokens take the places of the oldest. Where a pass stands in it comes from the
//! device's memory, and grids follow from shapes alone, so that a captured step serves every position.

use super::super::backend::AttentionDims;
use super::device::{Address, Arg, Device, Launch, Real};
use super::launch::{Kernel, THREADS, at, at_or_null, blocks, int};
use super::sight::{Context, of_products};

/// Positions below which a block's share of the context is not worth a block of its own.
const LEAST_SHARE: usize = 64;

/// Blocks of decoding that a multiprocessor holds at once.
const RESIDENT: usize = 3;

/// More are not: whoever adds their results up reads all of them.
const MOST_SPLITS: usize = 64;

/// Copies keys and values of `qkv` (`d.tokens` a sequence) into the cache from position `*first` on.
pub(super) fn cache_append(
    on: &dyn Device,
    real: Real,
    (qkv, keys, values, first): (Address, Address, Address, Address),
    d: AttentionDims,
    capacity: usize,
) {
    let pieces = d.rows() * 2 * d.kv_heads * d.head_dim.div_ceil(16 / real.size());
    let [batch, tokens, heads] = [d.batch, d.tokens, d.heads].map(int);
    let [kv_heads, head_dim, capacity] = [d.kv_heads, d.head_dim, capacity].map(int);
    let args = [at(qkv), at(keys), at(values), batch, tokens, heads, kv_heads, head_dim, capacity, at(first)];
    let grid = blocks(on, pieces, THREADS as usize);
    Kernel { on, file: "cache", name: "cache_append", real }.run(grid, THREADS, &args);
}

/// What [`context`] gathers from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub qkv: Address,
    pub keys: Address,
    pub values: Address,
    /// Of its first token.
    pub position: usize,
    pub capacity: usize,
}

impl Stretch {
    /// Positions before it that any of its queries sees and the cache still has.
    fn before(&self, d: &AttentionDims) -> usize {
        let kept = self.position.min(self.capacity);
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
    let before = s.before(d);
    let pieces = s.bytes(real, d).div_ceil(16);
    let mut args = [s.qkv, s.keys, s.values, to].map(at).to_vec();
    args.extend([d.batch, d.tokens, d.heads, d.kv_heads, d.head_dim, s.capacity, s.position, before].map(int));
    Kernel { on, file: "cache", name: "cache_context", real }.run(blocks(on, pieces, THREADS as usize), THREADS, &args);
    Context::gathered(to, real, before, d)
}

/// How decoding is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Division {
    /// Lanes that share a position: 8, 16 or 32, of 8 elements each.
    lanes: usize,
    /// Heads that share what a block reads: 1, 2, 4 or 8.
    together: usize,
    /// Blocks for all heads that share keys and values.
    turns: usize,
    /// Parts of the context.
    splits: usize,
}

impl Division {
    fn of(on: &dyn Device, d: &AttentionDims, capacity: usize) -> Self {
        let sharing = d.heads / d.kv_heads;
        let together = sharing.next_power_of_two().min(8);
        let turns = sharing.div_ceil(together);
        let groups = d.batch * d.kv_heads * turns;
        let wanted = (on.facts().multiprocessors as usize * RESIDENT).div_ceil(groups);
        let splits = wanted.min(capacity.div_ceil(LEAST_SHARE)).clamp(1, MOST_SPLITS);
        let lanes = d.head_dim.div_ceil(8).next_power_of_two().max(8);
        Self { lanes, together, turns, splits }
    }

    fn kernel(&self) -> &'static str {
        match (self.lanes, self.together) {
            (8, 1) => "decode_attention_8_1",
            (8, 2) => "decode_attention_8_2",
            (8, 4) => "decode_attention_8_4",
            (8, _) => "decode_attention_8_8",
            (16, 1) => "decode_attention_16_1",
            (16, 2) => "decode_attention_16_2",
            (16, 4) => "decode_attention_16_4",
            (16, _) => "decode_attention_16_8",
            (_, 1) => "decode_attention_32_1",
            (_, 2) => "decode_attention_32_2",
            (_, 4) => "decode_attention_32_4",
            (_, _) => "decode_attention_32_8",
        }
    }

    fn partial_bytes(&self, d: &AttentionDims) -> usize {
        d.batch * d.heads * self.splits * (self.lanes * 8 + 2) * 4
    }
}

/// Bytes of [`Decode::partial`].
pub(super) fn partial_bytes(on: &dyn Device, d: &AttentionDims, capacity: usize) -> usize {
    Division::of(on, d, capacity).partial_bytes(d)
}

/// Bytes of [`Decode::counts`].
pub(super) fn count_bytes(on: &dyn Device, d: &AttentionDims) -> usize {
    d.batch * d.kv_heads * Division::of(on, d, 1).turns * 4
}

/// What [`decode_attention`] reads and writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decode {
    pub qkv: Address,
    pub keys: Address,
    pub values: Address,
    pub out: Address,
    /// `[B, H]` f32: takes the logs of the softmax's denominators.
    pub lse: Option<Address>,
    /// [`partial_bytes`]; what is in it does not matter.
    pub partial: Address,
    /// [`count_bytes`], zero before the first step and left zero by every step; no one else's.
    pub counts: Address,
    /// Position of the query, an `int` in the device's memory: attention is over it and all before, or as many as there are places for.
    pub first: Address,
}

/// `out [B, H*D]`: attention of the one query a sequence (`d.tokens` = 1) over the first `*first + 1` places of the cache.
pub(super) fn decode_attention(on: &dyn Device, real: Real, operands: Decode, d: AttentionDims, capacity: usize) {
    decode_by(Division::of(on, &d, capacity), on, real, operands, &d, capacity);
}

fn decode_by(by: Division, on: &dyn Device, real: Real, o: Decode, d: &AttentionDims, capacity: usize) {
    let [heads, kv_heads, head_dim, capacity] = [d.heads, d.kv_heads, d.head_dim, capacity].map(int);
    let mut args: Vec<Arg> = [o.qkv, o.keys, o.values, o.out].map(at).to_vec();
    args.extend([at_or_null(o.lse), at(o.partial), at(o.counts), heads, kv_heads, head_dim, capacity, at(o.first)]);
    args.extend(of_products(d));
    on.launch(&Launch {
        file: "decode",
        kernel: by.kernel(),
        real,
        grid: [by.splits as u32, (d.kv_heads * by.turns) as u32, d.batch as u32],
        threads: 128,
        shared_bytes: 0,
        args: &args,
    });
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::{Backend, CacheDims, CacheElement, Scores};
    use super::super::super::cpu::array::Array;
    use super::super::super::cpu::naive::Naive;
    use super::super::host::{HostDevice, close, random, rounded};
    use super::*;

    fn array(from: &[f32]) -> Array {
        let mut a = Array::zeros(from.len()).unwrap();
        a.copy_from_slice(from);
        a
    }

    /// A prompt and one token go into the cache; the token's attention is computed with each number of splits, twice, as a
    /// replayed step would. Tolerance: sums are f32 and only the result is rounded.
    fn check(on: &HostDevice, real: Real, length: usize, splits: &[usize], d: AttentionDims) {
        let capacity = length + 3;
        let prompt = AttentionDims { tokens: length - 1, ..d };
        let c = CacheDims {
            batch: d.batch,
            kv_heads: d.kv_heads,
            head_dim: d.head_dim,
            capacity,
            element: CacheElement::F32,
        };
        let before = rounded(real, random(prompt.rows() * d.qkv_width(), 1));
        let qkv = rounded(real, random(d.batch * d.qkv_width(), 2));
        let (mut cache, mut want) = (array(&vec![0.0; c.len()]), array(&vec![0.0; d.batch * d.out_width()]));
        Naive.cache_append(&array(&before), &mut cache, 0, prompt, c);
        Naive.cache_append(&array(&qkv), &mut cache, length - 1, d, c);
        let mut logs = array(&vec![0.0; d.batch * d.heads]);
        Naive.attention_cached(&array(&qkv), &cache, &mut want, Some(&mut logs), length, d, c);

        // NaN past the length: what must not be read into a result.
        let [keys, values] = [(); 2].map(|()| on.put(real, &vec![f32::NAN; c.half()]));
        let first = on.put_words(&[0]);
        let from = on.put(real, &qkv);
        if length > 1 {
            let prompt_qkv = on.put(real, &before);
            cache_append(on, real, (prompt_qkv, keys, values, first), prompt, capacity);
            on.release(prompt_qkv, before.len() * real.size());
        }
        on.write(&(length as u32 - 1).to_ne_bytes(), first);
        cache_append(on, real, (from, keys, values, first), d, capacity);

        let out = on.put(real, &vec![f32::NAN; want.len()]);
        let lse = on.put(Real::F32, &vec![f32::NAN; logs.len()]);
        let counts = on.put_words(&vec![0; count_bytes(on, &d) / 4]);
        let own = Division::of(on, &d, capacity);
        for splits in splits.iter().copied().chain([own.splits]) {
            let by = Division { splits, ..own };
            let numbers = by.partial_bytes(&d) / 4;
            let partial = on.put(Real::F32, &vec![f32::NAN; numbers]);
            for _ in 0..2 {
                on.set(real, out, &vec![f32::NAN; want.len()]);
                on.set(Real::F32, lse, &vec![f32::NAN; logs.len()]);
                let operands = Decode { qkv: from, keys, values, out, lse: Some(lse), partial, counts, first };
                decode_by(by, on, real, operands, &d, capacity);
                let what = format!("{real:?} length {length}, {by:?}, {d:?}");
                on.wait().unwrap_or_else(|e| panic!("{what}: {e}"));
                close(&what, real, &on.get(real, out, want.len()), &want);
                close(&what, Real::F32, &on.get(Real::F32, lse, logs.len()), &logs);
            }
            on.release(partial, numbers * 4);
        }
        for (at, len) in [(keys, c.half()), (values, c.half()), (from, qkv.len()), (out, want.len())] {
            on.release(at, len * real.size());
        }
        on.release(lse, 4 * logs.len());
    }

    fn dims(batch: usize, heads: usize, kv_heads: usize, head_dim: usize) -> AttentionDims {
        AttentionDims { batch, tokens: 1, heads, kv_heads, head_dim, causal: true, scores: Scores::default() }
    }

    #[test]
    fn decoding_agrees_with_the_oracle_at_every_length_and_split() {
        let Some(on) = HostDevice::new() else { return };
        for real in [Real::F32, Real::Bf16] {
            for length in [1, 2, 31, 64, 65, 300] {
                check(&on, real, length, &[1, 2, 3, 8, 64], dims(2, 4, 2, 64));
                check(&on, real, length, &[5], dims(1, 3, 3, 128));
            }
        }
    }

    #[test]
    fn decoding_agrees_with_the_oracle_at_every_head_dim_and_grouping() {
        let Some(on) = HostDevice::new() else { return };
        for real in [Real::F32, Real::Bf16] {
            for head_dim in [8, 10, 16, 40, 64, 80, 128, 130, 256] {
                check(&on, real, 65, &[4], dims(1, 2, 2, head_dim));
                check(&on, real, 65, &[4], dims(3, 4, 2, head_dim));
                check(&on, real, 130, &[4], dims(2, 6, 1, head_dim));
            }
            for (heads, kv_heads) in [(1, 1), (3, 1), (6, 2), (8, 1), (12, 1), (32, 2)] {
                check(&on, real, 300, &[3], dims(2, heads, kv_heads, 64));
            }
        }
    }

    #[test]
    fn the_division_fills_the_device_and_follows_from_shapes_alone() {
        let Some(on) = HostDevice::new() else { return };
        // 3 multiprocessors: 12 blocks at once.
        let of = |d: AttentionDims, capacity| Division::of(&on, &d, capacity);
        assert_eq!(of(dims(1, 4, 4, 64), 4096), Division { lanes: 8, together: 1, turns: 1, splits: 3 });
        assert_eq!(of(dims(1, 32, 2, 128), 4096), Division { lanes: 16, together: 8, turns: 2, splits: 3 });
        assert_eq!(of(dims(1, 1, 1, 64), 100).splits, 2);
        assert_eq!(of(dims(64, 8, 8, 64), 4096).splits, 1);
    }
}
