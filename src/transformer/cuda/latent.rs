//! Attention over a cache of latents, which all heads share, and blocks of heads from one layout to another.
//!
//! A few queries a sequence meet the latents themselves (`kernels/latent_decode.cu`, in bf16 and of the usual sizes `latent_mma.cu`). A
//! stretch of a prompt has so many that it is cheaper to make keys and values of the whole context, some heads at a time, and to attend
//! to them as to any others ([`Cuda::latent_stretch`]).

use super::super::backend::{AttentionDims, BlockCopy, Blocks, LatentDims, Scores};
use super::Cuda;
use super::attention;
use super::buffer::Buffer;
use super::device::{Address, Arg, Device, DeviceFacts, Launch, Matrix, Real};
use super::launch::{Kernel, THREADS, at, blocks, int, long};
use super::linear::{dense, plain};
use super::sight::Context;

/// Columns of latents that the kernels hold.
pub(super) const MOST_RANK: u32 = 2048;

/// Rows that share what is read of the weight, heads that share what is read of the cache, outputs of a block, positions of a tile, and
/// parts of a context at the most; as in the kernels.
const ROWS: usize = 8;
const GROUP: usize = 8;
const OUTPUTS: usize = 64;
const TILE: usize = 64;
const MOST_SPLITS: usize = 64;

/// Compute capability from which on there are bf16 tensor cores and asynchronous copies.
const LEAST_CAPABILITY: (u32, u32) = (8, 0);

/// Blocks of attention that a multiprocessor holds at once.
const RESIDENT: usize = 2;

/// Queries a sequence from which on keys and values are made: that is R (nope + value) multiply-adds a position and head for all queries
/// together, and each of them has 2 (P + nope) there instead of 2 R + P, by kernels that are made for many.
const STRETCH: usize = 16;

/// Bytes of keys, values and what they are made from that a stretch works on at a time, unless one head has more.
const STRETCH_BYTES: usize = 256 << 20;

/// Static shared memory of a block of any of these kernels.
const STATIC_BYTES: usize = 17 << 10;

/// Copies blocks, or adds them up over the heads.
pub(super) fn copy_blocks(on: &dyn Device, real: Real, from: Address, to: Address, d: BlockCopy) {
    let further = |base: Address, of: Blocks| base + (of.first * real.size()) as Address;
    let mut args = vec![at(further(from, d.from)), at(further(to, d.to)), int(d.n), int(d.heads), int(d.len)];
    args.extend([d.from.row, d.from.head, d.to.row, d.to.head].map(long));
    args.push(Arg::I32(d.sums().into()));
    let pieces = d.n * if d.sums() { 1 } else { d.heads } * d.len.div_ceil(16 / real.size());
    Kernel { on, file: "latent", name: "copy_blocks", real }.run(blocks(on, pieces, THREADS as usize), THREADS, &args);
}

/// Puts latents and rotated keys into the cache from position `*first` on, of `[latent, rotated, cache, first]`.
pub(super) fn append(on: &dyn Device, real: Real, operands: [Address; 4], d: LatentDims) {
    let [latent, rotated, cache, first] = operands.map(at);
    let [rows, tokens, rank, rope, capacity] = [d.rows(), d.tokens, d.rank, d.rope, d.capacity].map(int);
    let args = [latent, rotated, cache, rows, tokens, rank, rope, capacity, first];
    let grid = blocks(on, d.rows() * d.width().div_ceil(16 / real.size()), THREADS as usize);
    Kernel { on, file: "latent", name: "latent_append", real }.run(grid, THREADS, &args);
}

/// How queries attend to latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// f32 arithmetic, so many times 512 columns of latents at the most: 1 or 4.
    Plain(usize),
    /// bf16 products by mma.sync.
    TensorCores,
}

impl Path {
    fn of(facts: &DeviceFacts, real: Real, d: LatentDims) -> Self {
        let usual = (d.rank, d.rope) == (512, 64) && facts.capability >= LEAST_CAPABILITY;
        match d.rank {
            _ if real == Real::Bf16 && usual => Self::TensorCores,
            0..=512 => Self::Plain(1),
            _ => Self::Plain(4),
        }
    }

    /// File and name of the kernel, heads and threads of a block.
    fn kernel(self) -> (&'static str, &'static str, usize, u32) {
        match self {
            Self::Plain(1) => ("latent_decode", "latent_attend_1", GROUP, THREADS),
            Self::Plain(_) => ("latent_decode", "latent_attend_4", GROUP, THREADS),
            Self::TensorCores => ("latent_mma", "latent_attend_mma", 16, 128),
        }
    }

    /// Dynamic shared memory of a block: queries of its heads, and two stages of 32 positions.
    fn shared_bytes(self, d: LatentDims) -> usize {
        match self {
            Self::Plain(_) => 4 * GROUP * d.width(),
            Self::TensorCores => 2 * (16 + 2 * 32) * d.width(),
        }
    }

    /// Parts that a context is divided into.
    fn splits(self, on: &dyn Device, d: LatentDims) -> usize {
        let (_, _, heads, _) = self.kernel();
        let groups = d.rows() * d.heads.div_ceil(heads);
        let wanted = (on.facts().multiprocessors as usize * RESIDENT).div_ceil(groups.max(1));
        wanted.min(d.capacity.div_ceil(TILE)).clamp(1, MOST_SPLITS)
    }
}

/// Bytes of absorbed queries, and of what the parts of a context come to.
fn few_bytes(splits: usize, d: LatentDims) -> usize {
    let heads = d.rows() * d.heads;
    4 * heads * (d.width() + splits * (d.rank + 2))
}

/// What the attention of a few queries reads and writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Few {
    pub queries: Address,
    pub w: Address,
    pub cache: Address,
    pub out: Address,
    /// Of [`few_bytes`].
    pub scratch: Address,
    /// Position of each sequence's first query, an `int` in the device's memory.
    pub first: Address,
}

fn attend_few(on: &dyn Device, real: Real, o: Few, (path, splits): (Path, usize), d: LatentDims) {
    let LatentDims { heads, rank, rope, nope, value, .. } = d;
    let rows = d.rows();
    let partial = o.scratch + (4 * rows * heads * d.width()) as Address;
    let launch = |(file, kernel, threads), grid: [usize; 3], shared: usize, args: &[Arg]| {
        let (grid, shared_bytes) = (grid.map(|g| u32::try_from(g).unwrap_or(u32::MAX)), shared as u32);
        on.launch(&Launch { file, kernel, real, grid, threads, shared_bytes, args });
    };
    let beside = |kernel| ("latent_decode", kernel, THREADS);
    let columns = 32 * if rank.is_multiple_of(16 / real.size()) { 16 / real.size() } else { 1 };
    let mut args = [o.queries, o.w, o.scratch].map(at).to_vec();
    args.extend([rows, heads, rank, rope, nope, value].map(int));
    args.push(Arg::F32(d.scale * std::f32::consts::LOG2_E));
    launch(beside("latent_absorb"), [rank.div_ceil(columns), heads, rows.div_ceil(ROWS)], 0, &args);

    let mut args = [o.scratch, o.cache, partial].map(at).to_vec();
    args.extend([heads, d.tokens, rank, rope, d.capacity].map(int));
    args.push(at(o.first));
    let (file, kernel, group, threads) = path.kernel();
    launch((file, kernel, threads), [rows, heads.div_ceil(group), splits], path.shared_bytes(d), &args);

    let mut args = [partial, o.w, o.out].map(at).to_vec();
    args.extend([rows, heads, rank, nope, value, splits].map(int));
    launch(beside("latent_values"), [value.div_ceil(OUTPUTS), heads, rows.div_ceil(ROWS)], 4 * ROWS * rank, &args);
}

/// What a stretch of a prompt works in, for some heads of one sequence, each part so many bytes from the start.
struct Room {
    heads: usize,
    /// Rows of queries as attention reads them, what it hands on, and the logs of the denominators.
    queries: usize,
    wide: usize,
    lse: usize,
    /// Keys without positions and values, as they are made; keys and values as attention reads them.
    made: usize,
    keys: usize,
    values: usize,
    all: usize,
}

impl Room {
    fn of(real: Real, positions: usize, d: LatentDims) -> Self {
        let (dim, size) = (d.head_dim(), real.size());
        let a_head = (positions * (d.kv_head() + 2 * dim) + d.tokens * 4 * dim) * size;
        let heads = (STRETCH_BYTES / a_head.max(1)).clamp(1, d.heads);
        let mut next = 0;
        let mut take = |bytes: usize| {
            let here = next;
            next += bytes.next_multiple_of(256);
            here
        };
        let queries = take(d.tokens * 3 * heads * dim * size);
        let wide = take(d.tokens * heads * dim * size);
        let lse = take(4 * d.tokens * heads);
        let made = take(positions * heads * d.kv_head() * size);
        let [keys, values] = [(); 2].map(|()| take(heads * positions * dim * size));
        Self { heads, queries, wide, lse, made, keys, values, all: next }
    }
}

/// Bytes of scratch that attention takes of so many queries a sequence, where the longest context has `positions`.
pub(super) fn scratch_bytes(real: Real, positions: usize, d: LatentDims) -> usize {
    if d.tokens >= STRETCH { Room::of(real, positions, d).all } else { few_bytes(1, d) }
}

/// Whether a block of these kernels finds the shared memory that it needs.
///
/// # Errors
/// What is needed, what there is, and the remedy.
pub(super) fn fits(facts: &DeviceFacts, rank: usize, rope: usize) -> Result<(), String> {
    // More than what the usual sizes take by tensor cores, 90 KiB, is there wherever these are.
    let needed = 4 * GROUP.max(ROWS) * (rank + rope) + STATIC_BYTES;
    if needed <= facts.shared_bytes as usize {
        return Ok(());
    }
    let (needed, there, name) = (needed.div_ceil(1024), facts.shared_bytes / 1024, &facts.name);
    Err(format!(
        "latents of {rank} numbers take {needed} KiB of shared memory a block, and {name} has {there}; use backend: cpu"
    ))
}

impl Cuda {
    /// `Parts::latent_attention`
    pub(super) fn attend_latents(
        &self,
        queries: &Buffer,
        w: &Buffer,
        cache: &Buffer,
        out: &Buffer,
        position: usize,
        d: LatentDims,
    ) {
        let (on, real) = (self.on(), queries.format());
        let first = self.state.position(position);
        let (queries, w, cache, out) = (queries.at(), w.at(), cache.wide(), out.at());
        if d.tokens >= STRETCH {
            let room = Room::of(real, position + d.tokens, d);
            let Some(scratch) = self.state.scratch(room.all) else { return };
            return self.latent_stretch(real, Few { queries, w, cache, out, scratch, first }, &room, position, d);
        }
        let path = Path::of(on.facts(), real, d);
        let splits = path.splits(on, d);
        let Some(scratch) = self.state.scratch(few_bytes(splits, d)) else { return };
        attend_few(on, real, Few { queries, w, cache, out, scratch, first }, (path, splits), d);
    }

    /// Keys and values of the whole context are made of the cache, for some heads at a time, and attended to as by any stretch of a prompt.
    fn latent_stretch(&self, real: Real, o: Few, room: &Room, position: usize, d: LatentDims) {
        let (on, dim, kv_head) = (self.on(), d.head_dim(), d.kv_head());
        let positions = position + d.tokens;
        let place = |offset: usize| o.scratch + offset as Address;
        let further = |base: Address, elements: usize| base + (elements * real.size()) as Address;
        let [made, keys, values, wide] = [room.made, room.keys, room.values, room.wide].map(place);
        for sequence in 0..d.batch {
            let latents = further(o.cache, sequence * d.capacity * d.width());
            for head in (0..d.heads).step_by(room.heads) {
                let heads = room.heads.min(d.heads - head);
                let copy = |from: Address, to: Address, of: BlockCopy| copy_blocks(on, real, from, to, of);
                let rows = |n: usize, len: usize, from: Blocks, to: Blocks| BlockCopy { n, heads, len, from, to };
                let block = |first: usize, row: usize, head: usize| Blocks { first, row, head };
                // [positions, heads * (nope + value)] of the latents.
                let of_cache = Matrix { stride: d.width(), ..dense(latents, real, d.rank) };
                let of_weight = dense(further(o.w, head * kv_head * d.rank), real, d.rank);
                let to = dense(made, real, heads * kv_head);
                let of_weight = Matrix { transposed: true, ..of_weight };
                on.product(&plain(of_cache, of_weight, to, [positions, d.rank, heads * kv_head], self.linears().tf32));
                // A head of queries and keys is [rotated, not rotated], one of values as wide, and zero beyond its own width.
                let as_heads = |first: usize| block(first, dim, positions * dim);
                let of_made = |first: usize| block(first, heads * kv_head, kv_head);
                copy(latents, keys, rows(positions, d.rope, block(d.rank, d.width(), 0), as_heads(0)));
                copy(made, keys, rows(positions, d.nope, of_made(0), as_heads(d.rope)));
                on.zero(values, heads * positions * dim * real.size());
                copy(made, values, rows(positions, d.value, of_made(d.nope), as_heads(0)));
                let first = sequence * d.tokens * d.heads + head;
                let (own, queries) = (block(first * dim, d.heads * dim, dim), place(room.queries));
                copy(o.queries, queries, rows(d.tokens, dim, own, block(0, 3 * heads * dim, dim)));
                let a = AttentionDims {
                    batch: 1,
                    tokens: d.tokens,
                    heads,
                    kv_heads: heads,
                    head_dim: dim,
                    causal: true,
                    scores: Scores { scale: Some(d.scale), ..Scores::PLAIN },
                };
                let strides = [dim, positions * dim, heads * positions * dim];
                let context = Context { keys, values, strides, before: position };
                attention::attention_over(on, real, [queries, wide, place(room.lse)], context, &a);
                let to = block(first * d.value, d.heads * d.value, d.value);
                copy(wide, o.out, rows(d.tokens, d.value, block(0, heads * dim, dim), to));
            }
        }
    }
}
