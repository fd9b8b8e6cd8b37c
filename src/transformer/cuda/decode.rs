//! Attention of one query a sequence over the KV cache. Where a pass stands in it comes from the device's memory, and grids follow from
//! shapes alone, so that a captured step serves every position.

use super::super::backend::{AttentionDims, CacheElement};
use super::cache::Places;
use super::device::{Address, Arg, Device, Launch, Real};
use super::launch::{at, at_or_null, int};
use super::sight::of_products;

/// Positions below which a block's share of the context is not worth a block of its own.
const LEAST_SHARE: usize = 64;

/// Blocks of decoding that a multiprocessor holds at once.
const RESIDENT: usize = 3;

/// More are not: whoever adds their results up reads all of them.
const MOST_SPLITS: usize = 64;

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

/// Names of the kernels of a prefix, by lanes and by heads together.
macro_rules! kernels {
    ($prefix:literal) => {
        [
            [concat!($prefix, "_8_1"), concat!($prefix, "_8_2"), concat!($prefix, "_8_4"), concat!($prefix, "_8_8")],
            [
                concat!($prefix, "_16_1"),
                concat!($prefix, "_16_2"),
                concat!($prefix, "_16_4"),
                concat!($prefix, "_16_8"),
            ],
            [
                concat!($prefix, "_32_1"),
                concat!($prefix, "_32_2"),
                concat!($prefix, "_32_4"),
                concat!($prefix, "_32_8"),
            ],
        ]
    };
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

    /// Its file and its name.
    fn kernel(&self, element: CacheElement) -> (&'static str, &'static str) {
        let (file, all) = match element {
            CacheElement::F32 | CacheElement::Bf16 => ("decode", kernels!("decode_attention")),
            CacheElement::Int8 => ("decode_few_bits", kernels!("decode_int8")),
            CacheElement::F8 => ("decode_few_bits", kernels!("decode_f8")),
        };
        let of_lanes = all[match self.lanes {
            8 => 0,
            16 => 1,
            _ => 2,
        }];
        let name = of_lanes[match self.together {
            1 => 0,
            2 => 1,
            4 => 2,
            _ => 3,
        }];
        (file, name)
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
    pub cache: Places,
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
pub(super) fn decode_attention(on: &dyn Device, real: Real, operands: Decode, d: AttentionDims) {
    decode_by(Division::of(on, &d, operands.cache.capacity), on, real, operands, &d);
}

fn decode_by(by: Division, on: &dyn Device, real: Real, o: Decode, d: &AttentionDims) {
    let [heads, kv_heads, head_dim, capacity] = [d.heads, d.kv_heads, d.head_dim, o.cache.capacity].map(int);
    let mut args: Vec<Arg> = vec![at(o.qkv)];
    args.extend(o.cache.args());
    args.extend([
        at(o.out),
        at_or_null(o.lse),
        at(o.partial),
        at(o.counts),
        heads,
        kv_heads,
        head_dim,
        capacity,
        at(o.first),
    ]);
    args.extend(of_products(d));
    let (file, kernel) = by.kernel(o.cache.element);
    on.launch(&Launch {
        file,
        kernel,
        real,
        grid: [by.splits as u32, (d.kv_heads * by.turns) as u32, d.batch as u32],
        threads: 128,
        shared_bytes: 0,
        args: &args,
    });
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::{Backend, CacheDims, Scores};
    use super::super::super::cpu::array::Array;
    use super::super::super::cpu::naive::Naive;
    use super::super::cache::append;
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
        let (mut whole, mut want) = (array(&vec![0.0; c.len()]), array(&vec![0.0; d.batch * d.out_width()]));
        Naive.cache_append(&array(&before), &mut whole, 0, prompt, c);
        Naive.cache_append(&array(&qkv), &mut whole, length - 1, d, c);
        let mut logs = array(&vec![0.0; d.batch * d.heads]);
        Naive.attention_cached(&array(&qkv), &whole, &mut want, Some(&mut logs), length, d, c);

        // NaN past the length: what must not be read into a result.
        let [keys, values] = [(); 2].map(|()| on.put(real, &vec![f32::NAN; c.half()]));
        let cache = Places { keys, values, scales: None, element: c.element, capacity };
        let first = on.put_words(&[0]);
        let from = on.put(real, &qkv);
        if length > 1 {
            let prompt_qkv = on.put(real, &before);
            append(on, real, (prompt_qkv, cache, first), prompt);
            on.release(prompt_qkv, before.len() * real.size());
        }
        on.write(&(length as u32 - 1).to_ne_bytes(), first);
        append(on, real, (from, cache, first), d);

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
                let operands = Decode { qkv: from, cache, out, lse: Some(lse), partial, counts, first };
                decode_by(by, on, real, operands, &d);
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
