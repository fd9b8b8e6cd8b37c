//! Products of a few rows, as decoding has them, each with what comes before and after it in one launch (`kernels/matvec.h`, where
//! the bound that this sets is worked out): a norm; bias and residual, activation, rotary positions and the cache.
//!
//! [`takes`] is the rule. Up to [`MOST_ROWS`] rows a product is bound by reading its weight once, and what surrounds it by launches:
//! one kernel that reads the weight as fast as memory gives it is then ahead of a product for tiles of 64 rows and more and the
//! launches around it, whatever the shape, so that nothing is raced. Beyond, products are cuBLASLt's.

use super::super::backend::{AttentionDims, LinearDims};
use super::super::shape::Activation;
use super::activation;
use super::device::{Address, Arg, Device, Real};
use super::launch::{Kernel, at, at_or_null, int};
use super::rope::Angles;

/// Rows of x that the kernels take: the columns of a tensor core's product.
pub(super) const MOST_ROWS: usize = 8;

const THREADS: u32 = 256;

/// Blocks that a multiprocessor holds at once.
const RESIDENT: usize = 2;

/// Shared memory that x may take where the L2 cache would do as well: two blocks' leave an H100's L1 cache 100 KiB.
const STAGED_BYTES: usize = 64 << 10;

/// Static shared memory of a block: partial sums, and a norm's.
const STATIC_BYTES: usize = 9 << 10;

/// Compute capability from which on there are bf16 tensor cores and asynchronous copies.
const LEAST_CAPABILITY: (u32, u32) = (8, 0);

/// The norm before a product.
#[derive(Clone, Copy, Debug)]
pub(super) struct NormAt {
    pub gain: Address,
    pub bias: Option<Address>,
    /// `[n, 2]` f32: takes mean and reciprocal deviation.
    pub stats: Address,
    pub eps: f32,
    /// How much more a gain is than its parameter.
    pub offset: f32,
    /// RMSNorm: no mean is taken off.
    pub rms: bool,
}

/// `norm(x) w^T + bias`, all of format `real`, but for weights in floats of 8 bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matvec {
    pub real: Real,
    pub x: Address,
    pub w: Address,
    /// Of the rows of weights that are codes of 8 bits (`weights_f8`).
    pub scales: Option<Address>,
    pub bias: Option<Address>,
    pub norm: Option<NormAt>,
    pub d: LinearDims,
}

/// Keys and values of a layer, and which positions the rows have.
#[derive(Clone, Copy, Debug)]
pub(super) struct CacheAt {
    /// `[B, KV, capacity, D]` each.
    pub keys: Address,
    pub values: Address,
    pub capacity: usize,
    /// Position of a sequence's first row, an `int` in the device's memory.
    pub first: Address,
    /// Where queries and keys are rotated.
    pub angles: Option<Angles>,
}

/// Bytes of shared memory that x takes in a block: its rows, gain and bias behind them; 0 where it does without.
fn staged_bytes(real: Real, norm: bool, d: LinearDims) -> usize {
    let row = (d.k * real.size()).next_multiple_of(128) + 64;
    let bytes = (d.n + if norm { 2 } else { 0 }) * row;
    if norm || bytes <= STAGED_BYTES { bytes } else { 0 }
}

/// Whether these kernels do such a product: a few rows, each of whole 16-byte accesses, whose norm fits into shared memory.
pub(super) fn takes(on: &dyn Device, real: Real, norm: bool, d: LinearDims) -> bool {
    let facts = on.facts();
    (1..=MOST_ROWS).contains(&d.n)
        && d.m > 0
        && d.k > 0
        && d.k.is_multiple_of(16 / real.size())
        && facts.capability >= LEAST_CAPABILITY
        && staged_bytes(real, norm, d) + STATIC_BYTES <= facts.shared_bytes as usize
}

impl Matvec {
    /// Runs a kernel whose end takes `rest`. Pairs of rows of w are `apart`.
    fn run(&self, on: &dyn Device, [name, of_f8]: [&'static str; 2], apart: usize, rest: &[Arg]) {
        let LinearDims { n, k, m } = self.d;
        let shared = staged_bytes(self.real, self.norm.is_some(), self.d);
        // Norms are computed by every block: no more blocks than run at once.
        let fit = (on.facts().shared_bytes as usize / (shared + STATIC_BYTES)).clamp(1, RESIDENT);
        let tiles = (m.div_ceil(2 * apart) * apart).div_ceil(8);
        let grid = tiles.min(on.facts().multiprocessors.max(1) as usize * fit);
        let norm = |of: fn(&NormAt) -> Address| at_or_null(self.norm.as_ref().map(of));
        let mut args = vec![at(self.x), at(self.w)];
        args.extend(self.scales.map(at));
        args.extend([n, k, m, apart].map(int));
        args.extend([norm(|n| n.gain), at_or_null(self.norm.and_then(|n| n.bias)), norm(|n| n.stats)]);
        args.push(Arg::F32(self.norm.map_or(0.0, |n| n.eps)));
        args.push(Arg::F32(self.norm.map_or(0.0, |n| n.offset)));
        args.push(Arg::I32(self.norm.map_or(0, |n| i32::from(n.rms))));
        args.push(Arg::I32(i32::from(shared > 0)));
        args.push(at_or_null(self.bias));
        args.extend_from_slice(rest);
        let grid = [u32::try_from(grid).unwrap_or(u32::MAX), 1, 1];
        let shared = u32::try_from(shared).unwrap_or(u32::MAX);
        let kernel = if self.scales.is_some() { of_f8 } else { name };
        Kernel { on, file: name, name: kernel, real: self.real }.run_shared(grid, THREADS, shared, &args);
    }

    /// `out [n, m] = norm(x) w^T + bias + plus`; `plus` and `out`, which may be the same, are f32 where `wide`.
    pub(super) fn linear(&self, on: &dyn Device, plus: Option<Address>, out: Address, wide: bool) {
        let rest = [at_or_null(plus), at(out), Arg::I32(i32::from(wide))];
        self.run(on, ["matvec_linear", "matvec_linear_f8"], MOST_ROWS, &rest);
    }

    /// `pre [n, m] = norm(x) w^T + bias`, `out = f(pre)`: `[n, m]`, or `[n, m / 2]` where it is gated.
    pub(super) fn up(&self, on: &dyn Device, kind: Activation, pre: Address, out: Address) {
        let apart = if kind.gated() { self.d.m / 2 } else { MOST_ROWS };
        self.run(on, ["matvec_up", "matvec_up_f8"], apart, &[at(pre), at(out), activation::number(kind)]);
    }

    /// `qkv [n, (H + 2 KV) D] = norm(x) w^T + bias`, queries and keys rotated, keys and values put into the cache.
    pub(super) fn qkv(&self, on: &dyn Device, qkv: Address, cache: CacheAt, d: AttentionDims) {
        let apart = if cache.angles.is_some() { d.head_dim / 2 } else { MOST_ROWS };
        let frequencies = at_or_null(cache.angles.map(|a| a.frequencies));
        let mut rest = vec![at(qkv), at(cache.keys), at(cache.values), frequencies];
        rest.extend([Arg::F32(cache.angles.map_or(1.0, |a| a.longer)), at(cache.first)]);
        let pairs = cache.angles.map_or(0, |a| a.pairs);
        rest.extend([d.tokens, d.heads, d.kv_heads, d.head_dim, pairs, cache.capacity].map(int));
        self.run(on, ["matvec_qkv", "matvec_qkv_f8"], apart, &rest);
    }
}
