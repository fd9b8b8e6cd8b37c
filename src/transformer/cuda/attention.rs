//! Attention over whole sequences: which kernel, on what grid.
//!
//! In bf16, tensor cores take head_dims that are multiples of 8: up to 128, and forward up to 256. Gradients beyond 128 do not fit: sums
//! of dK and dV are 2 D registers a lane for 16 keys a warp. Everything else runs in f32 arithmetic, up to
//! [`LARGEST_HEAD_DIM`]. Gradients are the same in every run.
//!
//! Most models take the plain kernels of a family. Windows, and keys before the queries, are in the f32 family's plain kernels, and in
//! kernels of their own of the others; caps and ALiBi are in kernels of their own, of the families in f32 and by mma alone.

use super::super::backend::AttentionDims;
use super::device::{Address, Arg, Device, DeviceFacts, Launch, Real};
use super::launch::{at, int};
use super::sight::{Context, bends, of_scores};

/// Beyond it there is no kernel: a workload is refused before it gets here.
pub(crate) const LARGEST_HEAD_DIM: usize = 256;

/// Which kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// bf16 products by wgmma; rows are padded to 64 or 128 elements.
    Warpgroups(usize),
    /// bf16 products by mma.sync; rows are padded to so many numbers: 32, 64, 96, 128 or (forward alone) 192 and 256.
    TensorCores(usize),
    /// f32 arithmetic; rows are padded to so many times 32 elements: 2, 4 or 8.
    Rows(usize),
    /// The same for 8 times 32 with fewer rows a block, where shared memory is scarce.
    NarrowRows,
}

impl Path {
    /// Of the forward pass.
    fn forward(facts: &DeviceFacts, real: Real, d: &AttentionDims) -> Self {
        if real == Real::Bf16 && d.head_dim.is_multiple_of(8) && d.head_dim > 128 && facts.capability >= (8, 0) {
            return Self::TensorCores(if d.head_dim <= 192 { 192 } else { 256 });
        }
        Self::backward(facts, real, d)
    }

    /// Of the backward pass, and of the forward one up to a head_dim of 128.
    fn backward(facts: &DeviceFacts, real: Real, d: &AttentionDims) -> Self {
        match Self::of(facts, real, d.head_dim) {
            // These know neither caps nor ALiBi.
            Self::Warpgroups(_) if bends(d) => Self::TensorCores(d.head_dim.next_multiple_of(32)),
            path => path,
        }
    }

    /// Whether it takes more than its plain kernels.
    fn needs_more(self, c: &Context, d: &AttentionDims) -> bool {
        match self {
            Self::Rows(_) | Self::NarrowRows => bends(d),
            Self::Warpgroups(_) | Self::TensorCores(_) => bends(d) || !c.is_plain(d),
        }
    }

    /// Where scores are products of another scale.
    fn of(facts: &DeviceFacts, real: Real, head_dim: usize) -> Self {
        let padded = head_dim.next_multiple_of(32);
        let fits = head_dim.is_multiple_of(8) && padded <= 128;
        let hopper = facts.capability == (9, 0) && facts.shared_bytes >= WARPGROUPS_MOST_SHARED_BYTES;
        if real == Real::Bf16 && fits && head_dim > 32 && hopper {
            Self::Warpgroups(head_dim.next_multiple_of(64))
        } else if real == Real::Bf16 && fits && facts.capability >= (8, 0) {
            Self::TensorCores(padded)
        } else if head_dim > 128 && rows_shared_bytes(8, 4 * 32, 2 * 32) > facts.shared_bytes {
            Self::NarrowRows
        } else {
            Self::Rows(head_dim.div_ceil(64).next_power_of_two() * 2)
        }
    }
}

/// The most shared memory that a kernel by warpgroups asks for: `attention_wgmma_dq_128`. Every Hopper has it.
const WARPGROUPS_MOST_SHARED_BYTES: u32 = (2 * 128 + 6 * 96) * 128 * 2 + 1024;

/// Of a kernel of `attention_mma.cu`: 128 queries, and two stages of keys and values.
fn forward_shared_bytes(padded: usize) -> u32 {
    let keys = match padded {
        32 | 64 | 96 => 64,
        128 => 32,
        _ => 16,
    };
    ((128 + 4 * keys) * padded * 2) as u32
}

/// Of a kernel of `attention_wgmma.cu`: 128 queries, two stages of keys and values, and what aligns them to 1024 bytes.
fn warpgroups_shared_bytes(padded: usize) -> u32 {
    let keys = if padded <= 64 { 64 } else { 128 };
    ((128 + 4 * keys) * padded * 2 + 1024) as u32
}

/// Of `attention_mma_dkv`, the most of all: 128 keys and values, and two stages of queries (64, or 32 of the narrow one), their
/// gradients, lse and delta.
fn key_gradients_shared_bytes(padded: usize, queries: usize) -> u32 {
    ((2 * 128 + 4 * queries) * padded * 2 + 2 * 2 * queries * 4) as u32
}

/// Of `attention_mma_dq`: 128 queries and their gradients, and two stages of keys and values; one for 128 elements.
fn query_gradients_shared_bytes(padded: usize) -> u32 {
    let (keys, stages) = match padded {
        32 | 64 => (64, 2),
        96 => (32, 2),
        _ => (32, 1),
    };
    ((2 * 128 + stages * 2 * keys) * padded * 2) as u32
}

/// Of a kernel in f32 arithmetic: `rows` rows, and 32 elements for each of `weights` rows.
fn rows_shared_bytes(chunks: usize, rows: usize, weights: usize) -> u32 {
    ((rows * (chunks * 32 + 4) + weights * 32) * 4) as u32
}

/// Whether a block of attention's kernels finds the shared memory that it needs; for f32 rows of over 128 elements it may not, on what has
/// less than the 99 KiB of all GPUs since compute capability 8.0.
///
/// # Errors
/// What is needed, what there is, and the remedy.
pub(super) fn fits(facts: &DeviceFacts, real: Real, head_dim: usize) -> Result<(), String> {
    let needed = match Path::of(facts, real, head_dim) {
        // The passes forward and backward have the same rows in shared memory, in other roles.
        Path::Rows(chunks) => rows_shared_bytes(chunks, 4 * 32, 2 * 32),
        // More forward than backward.
        Path::NarrowRows => rows_shared_bytes(8, 24 + 2 * 32, 24),
        // Taken only where they fit.
        Path::Warpgroups(_) | Path::TensorCores(_) => 0,
    };
    if needed <= facts.shared_bytes {
        return Ok(());
    }
    let (needed, there) = (needed.div_ceil(1024), facts.shared_bytes / 1024);
    Err(format!(
        "head_dim {head_dim} takes {needed} KiB of shared memory a block, and {} has {there}; use heads of 128 or fewer, or backend: cpu",
        facts.name
    ))
}

fn dims(d: &AttentionDims) -> [Arg; 5] {
    [int(d.tokens), int(d.heads), int(d.kv_heads), int(d.head_dim), Arg::I32(d.causal.into())]
}

/// A grid of blocks that have `rows` positions of one head each; why heads come first, see `attention_order.h`.
fn grid(d: &AttentionDims, rows: usize, heads: usize) -> [u32; 3] {
    [heads as u32, d.tokens.div_ceil(rows) as u32, d.batch as u32]
}

/// `out [N, H*D] = softmax(scores) V`; `lse [N, H]` in f32 takes the log of the softmax's denominator.
pub(super) fn attention(on: &dyn Device, real: Real, qkv: Address, out: Address, lse: Address, d: AttentionDims) {
    attention_over(on, real, [qkv, out, lse], Context::own(qkv, real, &d), &d);
}

/// The same over keys and values that lie elsewhere.
pub(super) fn attention_over(on: &dyn Device, real: Real, operands: [Address; 3], c: Context, d: &AttentionDims) {
    forward_by(Path::forward(on.facts(), real, d), on, real, operands, c, d);
}

/// The name of a kernel: the plain one's, and the one's that knows of more.
type Names = [&'static str; 2];

fn forward_by(path: Path, on: &dyn Device, real: Real, operands: [Address; 3], c: Context, d: &AttentionDims) {
    let mut args: Vec<Arg> = operands.into_iter().map(at).chain(dims(d)).collect();
    args.extend(of_scores(d, c.before).into_iter().chain(c.args()));
    let more = path.needs_more(&c, d);
    let (file, names, rows, threads, shared_bytes): (_, Names, _, _, _) = match path {
        Path::Warpgroups(padded) => {
            let names = match padded {
                64 => ["attention_wgmma_64", "attention_wgmma_64_window"],
                _ => ["attention_wgmma_128", "attention_wgmma_128_window"],
            };
            ("attention_wgmma", names, 128, 256, warpgroups_shared_bytes(padded))
        }
        Path::TensorCores(padded) => {
            let names = match padded {
                32 => ["attention_mma_32", "attention_mma_32_shaped"],
                64 => ["attention_mma_64", "attention_mma_64_shaped"],
                96 => ["attention_mma_96", "attention_mma_96_shaped"],
                128 => ["attention_mma_128", "attention_mma_128_shaped"],
                192 => ["attention_mma_192", "attention_mma_192_shaped"],
                _ => ["attention_mma_256", "attention_mma_256_shaped"],
            };
            let threads = if padded <= 128 { 128 } else { 256 };
            ("attention_mma", names, 128, threads, forward_shared_bytes(padded))
        }
        Path::Rows(chunks) => {
            let names = match chunks {
                2 => ["attention_2", "attention_2_shaped"],
                4 => ["attention_4", "attention_4_shaped"],
                _ => ["attention_8", "attention_8_shaped"],
            };
            ("attention", names, 64, 256, rows_shared_bytes(chunks, 64 + 2 * 32, 64))
        }
        Path::NarrowRows => {
            let names = ["attention_8_narrow", "attention_8_narrow_shaped"];
            ("attention", names, 24, 256, rows_shared_bytes(8, 24 + 2 * 32, 24))
        }
    };
    let kernel = names[usize::from(more)];
    on.launch(&Launch { file, kernel, real, grid: grid(d, rows, d.heads), threads, shared_bytes, args: &args });
}

/// Bytes of workspace that [`attention_backward`] needs: delta `[N, H]` in f32.
pub(super) fn backward_workspace_bytes(d: &AttentionDims) -> usize {
    d.rows() * d.heads * 4
}

/// What [`attention_backward`] reads and writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backward {
    pub qkv: Address,
    pub out: Address,
    pub dout: Address,
    pub lse: Address,
    /// Overwritten, every number of it.
    pub dqkv: Address,
    /// [`backward_workspace_bytes`]; what is in it does not matter.
    pub workspace: Address,
}

/// `dqkv =` the gradient, `dout` that of `out`.
pub(super) fn attention_backward(on: &dyn Device, real: Real, b: Backward, d: AttentionDims) {
    backward_by(Path::backward(on.facts(), real, &d), on, real, b, &d);
}

/// A kernel of the backward pass: its names, its grid, its threads and its shared memory.
type OfGradient = (Names, [u32; 3], u32, u32);

fn backward_by(path: Path, on: &dyn Device, real: Real, b: Backward, d: &AttentionDims) {
    let warps = d.rows() * d.heads;
    on.launch(&Launch {
        file: "attention_backward",
        kernel: "attention_delta",
        real,
        grid: [warps.div_ceil(8) as u32, 1, 1],
        threads: 256,
        shared_bytes: 0,
        args: &[at(b.out), at(b.dout), at(b.workspace), int(d.rows()), int(d.heads), int(d.head_dim)],
    });
    let operands = [b.qkv, b.dout, b.lse, b.workspace, b.dqkv];
    let args: Vec<Arg> = operands.into_iter().map(at).chain(dims(d)).chain(of_scores(d, 0)).collect();
    let more = path.needs_more(&Context::own(b.qkv, real, d), d);
    let (file, both) = match path {
        Path::Warpgroups(padded) => ("attention_wgmma_backward", by_warpgroups(padded, d)),
        Path::TensorCores(padded) => ("attention_mma_backward", by_tensor_cores(padded, on.facts(), d)),
        Path::Rows(_) | Path::NarrowRows => ("attention_backward", by_rows(path, d)),
    };
    for (names, grid, threads, shared_bytes) in both {
        on.launch(&Launch { file, kernel: names[usize::from(more)], real, grid, threads, shared_bytes, args: &args });
    }
}

fn by_warpgroups(padded: usize, d: &AttentionDims) -> [OfGradient; 2] {
    // What a block holds, three stages of what it passes over, lse and delta with the queries, and an alignment.
    let shared =
        |rows: usize, tile: usize, beside: usize| ((2 * rows + 6 * tile) * padded * 2 + 3 * beside + 1024) as u32;
    let (keys, queries, rows, key_tile): (Names, Names, usize, usize) = match padded {
        64 => (
            ["attention_wgmma_dkv_64", "attention_wgmma_dkv_64_window"],
            ["attention_wgmma_dq_64", "attention_wgmma_dq_64_window"],
            192,
            64,
        ),
        _ => (
            ["attention_wgmma_dkv_128", "attention_wgmma_dkv_128_window"],
            ["attention_wgmma_dq_128", "attention_wgmma_dq_128_window"],
            128,
            96,
        ),
    };
    [
        (keys, grid(d, 128, d.kv_heads), 256, shared(128, 64, 1024)),
        (queries, grid(d, rows, d.heads), 2 * rows as u32, shared(rows, key_tile, 0)),
    ]
}

fn by_tensor_cores(padded: usize, facts: &DeviceFacts, d: &AttentionDims) -> [OfGradient; 2] {
    let narrow = key_gradients_shared_bytes(padded, 64) > facts.shared_bytes;
    let keys: Names = match padded {
        32 => ["attention_mma_dkv_32", "attention_mma_dkv_32_shaped"],
        64 => ["attention_mma_dkv_64", "attention_mma_dkv_64_shaped"],
        96 => ["attention_mma_dkv_96", "attention_mma_dkv_96_shaped"],
        _ if narrow => ["attention_mma_dkv_128_narrow", "attention_mma_dkv_128_narrow_shaped"],
        _ => ["attention_mma_dkv_128", "attention_mma_dkv_128_shaped"],
    };
    let queries: Names = match padded {
        32 => ["attention_mma_dq_32", "attention_mma_dq_32_shaped"],
        64 => ["attention_mma_dq_64", "attention_mma_dq_64_shaped"],
        96 => ["attention_mma_dq_96", "attention_mma_dq_96_shaped"],
        _ => ["attention_mma_dq_128", "attention_mma_dq_128_shaped"],
    };
    let threads = if padded <= 64 { 128 } else { 256 };
    let shared = key_gradients_shared_bytes(padded, if narrow { 32 } else { 64 });
    [
        (keys, grid(d, 128, d.kv_heads), threads, shared),
        (queries, grid(d, 128, d.heads), 128, query_gradients_shared_bytes(padded)),
    ]
}

fn by_rows(path: Path, d: &AttentionDims) -> [OfGradient; 2] {
    let (keys, queries, rows, shared): (Names, Names, usize, u32) = match path {
        Path::Rows(2) => (
            ["attention_dkv_2", "attention_dkv_2_shaped"],
            ["attention_dq_2", "attention_dq_2_shaped"],
            32,
            rows_shared_bytes(2, 4 * 32, 2 * 32),
        ),
        Path::Rows(4) => (
            ["attention_dkv_4", "attention_dkv_4_shaped"],
            ["attention_dq_4", "attention_dq_4_shaped"],
            32,
            rows_shared_bytes(4, 4 * 32, 2 * 32),
        ),
        Path::NarrowRows => (
            ["attention_dkv_8_narrow", "attention_dkv_8_narrow_shaped"],
            ["attention_dq_8_narrow", "attention_dq_8_narrow_shaped"],
            8,
            rows_shared_bytes(8, 2 * 8 + 2 * 32, 2 * 8),
        ),
        _ => (
            ["attention_dkv_8", "attention_dkv_8_shaped"],
            ["attention_dq_8", "attention_dq_8_shaped"],
            32,
            rows_shared_bytes(8, 4 * 32, 2 * 32),
        ),
    };
    [(keys, grid(d, rows, d.kv_heads), 256, shared), (queries, grid(d, rows, d.heads), 256, shared)]
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "attention_faults_tests.rs"]
mod faults_tests;
