//! Attention over whole sequences: which kernel, on what grid.
//!
//! In bf16, tensor cores take head_dims that are multiples of 8 up to 128; everything else runs in f32 arithmetic, up to
//! [`LARGEST_HEAD_DIM`]. Gradients are the same in every run.

use super::super::backend::AttentionDims;
use super::device::{Address, Arg, Device, Facts, Launch, Real};
use super::launch::{at, int};

/// Beyond it there is no kernel: a workload is refused before it gets here.
pub const LARGEST_HEAD_DIM: usize = 256;

/// Which kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// bf16 products by wgmma; rows are padded to 64 or 128 numbers.
    Warpgroups(usize),
    /// bf16 products by mma.sync; rows are padded to so many numbers: 32, 64, 96 or 128.
    TensorCores(usize),
    /// f32 arithmetic; rows are padded to so many times 32 numbers: 2, 4 or 8.
    Rows(usize),
}

impl Path {
    fn of(facts: &Facts, real: Real, head_dim: usize) -> Self {
        let padded = head_dim.next_multiple_of(32);
        let fits = head_dim.is_multiple_of(8) && padded <= 128 && backward_shared_bytes(padded) <= facts.shared_bytes;
        let hopper = facts.capability == (9, 0) && facts.shared_bytes >= WARPGROUPS_MOST_SHARED_BYTES;
        if real == Real::Bf16 && fits && head_dim > 32 && hopper {
            Self::Warpgroups(head_dim.next_multiple_of(64))
        } else if real == Real::Bf16 && fits && facts.capability >= (8, 0) {
            Self::TensorCores(padded)
        } else {
            Self::Rows(head_dim.div_ceil(64).next_power_of_two() * 2)
        }
    }
}

/// The most shared memory that a kernel by warpgroups asks for: `attention_wgmma_dq_128`. Every Hopper has it.
const WARPGROUPS_MOST_SHARED_BYTES: u32 = (2 * 128 + 6 * 96) * 128 * 2 + 1024;

/// Of a kernel of `attention_mma.cu`: 128 queries, and two stages of 64 keys and values.
fn forward_shared_bytes(padded: usize) -> u32 {
    ((128 + 4 * 64) * padded * 2) as u32
}

/// Of a kernel of `attention_wgmma.cu`: 128 queries, two stages of keys and values, and what aligns them to 1024 bytes.
fn warpgroups_shared_bytes(padded: usize) -> u32 {
    let keys = if padded <= 64 { 64 } else { 128 };
    ((128 + 4 * keys) * padded * 2 + 1024) as u32
}

/// Of `attention_mma_dkv`, the most of all: 128 keys and values, and two stages of 64 queries, their gradients, lse and delta.
fn backward_shared_bytes(padded: usize) -> u32 {
    ((2 * 128 + 4 * 64) * padded * 2 + 2 * 2 * 64 * 4) as u32
}

/// Of `attention_mma_dq`: 128 queries and their gradients, and two stages of keys and values.
fn query_gradients_shared_bytes(padded: usize) -> u32 {
    let keys = if padded <= 64 { 64 } else { 32 };
    ((2 * 128 + 4 * keys) * padded * 2) as u32
}

/// Of a kernel in f32 arithmetic: `rows` rows, and 32 numbers for each of `weights` rows.
fn rows_shared_bytes(chunks: usize, rows: usize, weights: usize) -> u32 {
    ((rows * (chunks * 32 + 4) + weights * 32) * 4) as u32
}

/// Whether a block of attention's kernels finds the shared memory that it needs; for f32 rows of over 128 numbers it may not.
///
/// # Errors
/// What is needed, what there is, and the remedy.
pub(super) fn fits(facts: &Facts, real: Real, head_dim: usize) -> Result<(), String> {
    let needed = match Path::of(facts, real, head_dim) {
        // The passes forward and backward have the same rows in shared memory, in other roles.
        Path::Rows(chunks) => rows_shared_bytes(chunks, 4 * 32, 2 * 32),
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

/// A grid of blocks that have `rows` positions of one head each.
fn grid(d: &AttentionDims, rows: usize, heads: usize) -> [u32; 3] {
    [d.tokens.div_ceil(rows) as u32, heads as u32, d.batch as u32]
}

/// `out [N, H*D] = softmax(Q K^T / sqrt(D)) V`; `lse [N, H]` in f32 takes the log of the softmax's denominator.
pub(super) fn attention(on: &dyn Device, real: Real, qkv: Address, out: Address, lse: Address, d: AttentionDims) {
    forward_by(Path::of(on.facts(), real, d.head_dim), on, real, [qkv, out, lse], &d);
}

fn forward_by(path: Path, on: &dyn Device, real: Real, operands: [Address; 3], d: &AttentionDims) {
    let args: Vec<Arg> = operands.into_iter().map(at).chain(dims(d)).collect();
    let (file, kernel, rows, threads, shared_bytes) = match path {
        Path::Warpgroups(padded) => {
            let kernel = if padded <= 64 { "attention_wgmma_64" } else { "attention_wgmma_128" };
            ("attention_wgmma", kernel, 128, 256, warpgroups_shared_bytes(padded))
        }
        Path::TensorCores(padded) => {
            let kernel = match padded {
                32 => "attention_mma_32",
                64 => "attention_mma_64",
                96 => "attention_mma_96",
                _ => "attention_mma_128",
            };
            ("attention_mma", kernel, 128, 128, forward_shared_bytes(padded))
        }
        Path::Rows(chunks) => {
            let kernel = match chunks {
                2 => "attention_2",
                4 => "attention_4",
                _ => "attention_8",
            };
            ("attention", kernel, 64, 256, rows_shared_bytes(chunks, 64 + 2 * 32, 64))
        }
    };
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
    backward_by(Path::of(on.facts(), real, d.head_dim), on, real, b, &d);
}

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
    let args: Vec<Arg> = operands.into_iter().map(at).chain(dims(d)).collect();
    let run = |file, kernel, grid, threads, shared_bytes| {
        on.launch(&Launch { file, kernel, real, grid, threads, shared_bytes, args: &args });
    };
    match path {
        Path::Warpgroups(padded) => {
            let file = "attention_wgmma_backward";
            // What a block holds, three stages of what it passes over, lse and delta with the queries, and an alignment.
            let shared = |rows: usize, tile: usize, beside: usize| {
                ((2 * rows + 6 * tile) * padded * 2 + 3 * beside + 1024) as u32
            };
            let (keys, queries, rows, key_tile) = match padded {
                64 => ("attention_wgmma_dkv_64", "attention_wgmma_dq_64", 192, 64),
                _ => ("attention_wgmma_dkv_128", "attention_wgmma_dq_128", 128, 96),
            };
            run(file, keys, grid(d, 128, d.kv_heads), 256, shared(128, 64, 1024));
            run(file, queries, grid(d, rows, d.heads), 2 * rows as u32, shared(rows, key_tile, 0));
        }
        Path::TensorCores(padded) => {
            let (keys, queries) = match padded {
                32 => ("attention_mma_dkv_32", "attention_mma_dq_32"),
                64 => ("attention_mma_dkv_64", "attention_mma_dq_64"),
                96 => ("attention_mma_dkv_96", "attention_mma_dq_96"),
                _ => ("attention_mma_dkv_128", "attention_mma_dq_128"),
            };
            let file = "attention_mma_backward";
            let threads = if padded <= 64 { 128 } else { 256 };
            run(file, keys, grid(d, 128, d.kv_heads), threads, backward_shared_bytes(padded));
            run(file, queries, grid(d, 128, d.heads), 128, query_gradients_shared_bytes(padded));
        }
        Path::Rows(chunks) => {
            let (keys, queries) = match chunks {
                2 => ("attention_dkv_2", "attention_dq_2"),
                4 => ("attention_dkv_4", "attention_dq_4"),
                _ => ("attention_dkv_8", "attention_dq_8"),
            };
            let file = "attention_backward";
            let shared = rows_shared_bytes(chunks, 4 * 32, 2 * 32);
            run(file, keys, grid(d, 32, d.kv_heads), 256, shared);
            run(file, queries, grid(d, 32, d.heads), 256, shared);
        }
    }
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
