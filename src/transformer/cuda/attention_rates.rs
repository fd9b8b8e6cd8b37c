//! How fast attention's kernels are by themselves, beside the matrix product that they are held against: in a step, norms, rotary
//! positions and products hide what they reach.

use super::super::backend::{AttentionDims, Scores};
use super::super::error::SessionError;
use super::attention::{self, Backward};
use super::buffer::Memory;
use super::device::{Device, Real};
use super::driver::CudaGpu;
use super::limits::{AMOUNT, Amount, best, fill_with_noise, products};
use serde::Serialize;
use std::sync::Arc;

/// What one GPU reaches in bf16.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct AttentionRates {
    pub device: String,
    /// FLOP/s of a large product; the better of one before and one after attention.
    pub product_flops_per_second: f64,
    pub shapes: Vec<AttentionRate>,
}

/// Attention at one shape. FLOPs are those of the pairs that are not masked: 4 D a pair forwards, 10 D backwards.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct AttentionRate {
    pub batch: usize,
    pub tokens: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub causal: bool,
    pub forward_flops_per_second: f64,
    pub backward_flops_per_second: f64,
}

/// Batch, heads, key/value heads, head_dim; a model 2048 wide with heads of 64 and of 128, and the heads of an 8B Llama.
const SHAPES: [[usize; 4]; 3] = [[4, 32, 32, 64], [4, 16, 16, 128], [4, 32, 8, 128]];
const TOKENS: usize = 4096;

/// Measures the GPU of this number. Takes a few seconds, and 1.5 GiB of its memory.
///
/// # Errors
/// What is missing, memory, or what the device says.
pub(crate) fn attention_rates(ordinal: usize) -> Result<AttentionRates, SessionError> {
    measure(&(Arc::new(CudaGpu::open(ordinal)?) as Arc<dyn Device>), AMOUNT, &SHAPES, TOKENS)
}

fn measure(
    on: &Arc<dyn Device>,
    amount: Amount,
    shapes: &[[usize; 4]],
    tokens: usize,
) -> Result<AttentionRates, SessionError> {
    let before = products(on, amount, Real::Bf16, false)?;
    let rate = |[batch, heads, kv_heads, head_dim]: [usize; 4]| {
        one(
            on,
            amount,
            AttentionDims { batch, tokens, heads, kv_heads, head_dim, causal: true, scores: Scores::default() },
        )
    };
    let shapes = shapes.iter().map(|shape| rate(*shape)).collect::<Result<_, _>>()?;
    let after = products(on, amount, Real::Bf16, false)?;
    let device = on.facts().name.clone();
    Ok(AttentionRates { device, product_flops_per_second: before.max(after), shapes })
}

/// Pairs of a query and a key that are not masked, of all heads.
fn pairs(d: &AttentionDims) -> f64 {
    let (tokens, of) = (d.tokens as f64, (d.batch * d.heads) as f64);
    of * if d.causal { tokens * (tokens + 1.0) / 2.0 } else { tokens * tokens }
}

fn one(on: &Arc<dyn Device>, amount: Amount, d: AttentionDims) -> Result<AttentionRate, SessionError> {
    let real = Real::Bf16;
    let of = |numbers: usize| Memory::new(on, d.rows() * numbers * real.size());
    let (qkv, dqkv) = (of(d.qkv_width())?, of(d.qkv_width())?);
    let (out, dout) = (of(d.out_width())?, of(d.out_width())?);
    let lse = Memory::new(on, d.rows() * d.heads * 4)?;
    let workspace = Memory::new(on, attention::backward_workspace_bytes(&d))?;
    [&qkv, &dout].into_iter().for_each(|memory| fill_with_noise(on, real, memory));
    let flops = pairs(&d) * d.head_dim as f64;
    let forward = best(on, amount, 4.0 * flops, || attention::attention(&**on, real, qkv.at, out.at, lse.at, d))?;
    let operands =
        Backward { qkv: qkv.at, out: out.at, dout: dout.at, lse: lse.at, dqkv: dqkv.at, workspace: workspace.at };
    let backward = best(on, amount, 10.0 * flops, || attention::attention_backward(&**on, real, operands, d))?;
    Ok(AttentionRate {
        batch: d.batch,
        tokens: d.tokens,
        heads: d.heads,
        kv_heads: d.kv_heads,
        head_dim: d.head_dim,
        causal: d.causal,
        forward_flops_per_second: forward,
        backward_flops_per_second: backward,
    })
}

#[cfg(test)]
mod tests {
    use super::super::host::HostDevice;
    use super::*;

    #[test]
    fn every_shape_has_a_rate_in_both_directions() {
        let Some(host) = HostDevice::new() else { return };
        let host: Arc<dyn Device> = Arc::new(host);
        let amount = Amount { size: 33, copied: 1, rounds: 1, repeats: 1 };
        let found = measure(&host, amount, &[[1, 2, 1, 64], [2, 1, 1, 128]], 65).unwrap();
        assert_eq!(found.shapes.iter().map(|s| s.head_dim).collect::<Vec<_>>(), [64, 128]);
        assert!(found.product_flops_per_second > 0.0, "{found:?}");
        for shape in &found.shapes {
            assert!(shape.forward_flops_per_second > 0.0 && shape.backward_flops_per_second > 0.0, "{shape:?}");
        }
    }

    #[test]
    fn a_masked_pair_is_not_counted() {
        let d = AttentionDims {
            batch: 2,
            tokens: 3,
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
            causal: true,
            scores: Scores::default(),
        };
        assert_eq!(pairs(&d), 8.0 * 6.0);
        assert_eq!(pairs(&AttentionDims { causal: false, ..d }), 8.0 * 9.0);
    }
}
