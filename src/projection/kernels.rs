//! Seconds of single operations: the larger of their products over an attainable rate and their bytes over an attainable
//! bandwidth, with what the shape costs.

use super::constants::Constants;
use super::device::{Kind, Unit};

/// Seconds that a layer's launches take at least, compiled or captured, forward: about 10 kernels of 3 us.
pub(super) const LAUNCH_LAYER: f64 = 30e-6;
/// Seconds that threads of a CPU take to meet, a layer: about 8 barriers of 2 to 3 us.
pub(super) const CPU_LAYER: f64 = 20e-6;
/// Seconds before a collective's first byte in a node: nccl-tests, small messages.
pub(super) const LINK_LATENCY: f64 = 20e-6;
/// Bytes moved a logit for the loss and its gradient, fused: bf16 logits, f32 softmax, gradient in place.
pub(super) const LOSS_FUSED: f64 = 14.0;
/// The same of eager PyTorch, counted: casts to f32, log-softmax, its gradient, casts back.
pub(super) const LOSS_EAGER: f64 = 40.0;
/// Passes over the residual stream in a layer's forward, and over the feed-forward's inner width, counted. Fused: two norms, two
/// residual additions with dropout, attention's in- and output; bias and activation in one kernel.
pub(super) const PASSES_FUSED: (f64, f64) = (8.0, 2.5);
/// The same of eager PyTorch, where each operation reads and writes on its own.
pub(super) const PASSES_EAGER: (f64, f64) = (14.0, 4.0);
/// Bandwidth that elementwise kernels reach: share of the datasheet's (BabelStream on A100 and H100: 85 to 92 %; small ones less).
const ELEMENTWISE_SHARE: f64 = 0.75;
/// Width at which a product loses about half of what it loses at its narrowest: tiles of 128 x 256 and their pipelines.
const WIDTH: f64 = 300.0;
/// Backward rate of fused attention against forward: FlashAttention-2 (Dao 2023), figures 5 and 6.
const ATTENTION_BACKWARD: f64 = 0.75;
/// f32 operations to convert, multiply and add a 16-bit weight.
pub(super) const WIDEN_OPERATIONS: f64 = 3.0;
/// Keys at which fused attention reaches half of what it loses under the mask: FlashAttention-2 (Dao 2023), A100: 130 TFLOP/s at
/// 2,048 keys, 190 at 16,384.
const ATTENTION_KEYS: f64 = 700.0;

/// Values of a head that matrix units take at once (cuBLAS: multiples of 16 bytes), and the share of the vector units' rate
/// that such products reach otherwise.
const ALIGNED: f64 = 8.0;
const UNALIGNED: f64 = 0.5;

/// Rows and columns of a block of a large product.
const TILE: (f64, f64) = (128.0, 256.0);
/// Share of a wave's idle multiprocessors that a choice among tile sizes does not win back.
const WAVE_WEIGHT: f64 = 0.5;

/// Number formats of products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductFormat {
    /// f32.
    Single,
    /// f32 values, of which products take 19 bits.
    Tf32,
    /// bf16 or f16.
    Half,
    /// f8, a scale for each tensor.
    F8,
    /// f8, a scale for each block.
    Mxf8,
    /// 4-bit floats, a scale for each block.
    F4,
}

impl ProductFormat {
    /// Whether values take 32 bits.
    pub fn is_wide(self) -> bool {
        matches!(self, Self::Single | Self::Tf32)
    }
}

/// Attainable FLOP/s of large products; `None` where the device has no such format.
pub(crate) fn product_rate(u: &Unit, format: ProductFormat, c: &Constants) -> Option<f64> {
    // Cards whose 32-bit sums are held at half the rate, as systolic arrays, wait for nothing else.
    let held = u.peak_narrow_sums > 1.5 * u.peak;
    let large = if u.kind == Kind::Tpu || held { c.systolic_share } else { c.matmul_share };
    let f8_share = if held { c.f8_share * c.systolic_share / c.matmul_share } else { c.f8_share };
    let hopper = if u.is_hopper() { c.hopper_share } else { 1.0 };
    match format {
        ProductFormat::Single => Some(u.tuned_f32 * c.matmul_share),
        // Half the 16-bit rate on every device that has it.
        ProductFormat::Tf32 if u.has_tf32() => Some(0.5 * u.tuned * c.matmul_share * hopper),
        ProductFormat::Tf32 => None,
        ProductFormat::Half => Some(u.tuned * large * hopper),
        ProductFormat::F8 => Some(u.tuned_f8? * f8_share * hopper),
        ProductFormat::Mxf8 => Some(u.tuned_f8? * c.mxf8_share * hopper),
        ProductFormat::F4 => Some(u.peak_f4? * 0.5 * c.f4_share),
    }
}

/// Attainable bytes/s of kernels that only move.
pub(crate) fn moving_rate(u: &Unit) -> f64 {
    u.bytes_per_second * ELEMENTWISE_SHARE
}

/// Share of its rate that a product m x k x n reaches: narrow ones do not fill the pipeline, and the last wave of tiles does
/// not fill the device.
fn fill(u: &Unit, [m, k, n]: [f64; 3]) -> f64 {
    let narrow = (1.0 + 0.5 * WIDTH / k) * (1.0 + 0.25 * WIDTH / n) * (1.0 + 0.25 * WIDTH / m);
    let wave = u.cores.map_or(1.0, |cores| {
        let tiles = (m / TILE.0).ceil() * (n / TILE.1).ceil();
        tiles / ((tiles / cores).ceil() * cores)
    });
    (1.0 - WAVE_WEIGHT * (1.0 - wave)) / narrow
}

/// Seconds of a product m x k x n of 16-bit results at the rate.
pub(crate) fn product(u: &Unit, size: [f64; 3], rate: f64) -> f64 {
    let [m, k, n] = size;
    let flops = 2.0 * m * k * n;
    let bytes = 2.0 * (m * k + k * n + m * n);
    (flops / (rate * fill(u, size))).max(bytes / moving_rate(u))
}

/// Seconds forward and backward of causal attention of `rows` queries over `context` keys, `heads` heads of `head_dim`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub rows: f64,
    pub context: f64,
    pub heads: f64,
    pub head_dim: f64,
    /// Whether the scores stay on the chip.
    pub fused: bool,
    /// Generations that the kernels are behind the device.
    pub behind: f64,
}

/// Fused attention by its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionKernels {
    /// FlashAttention of 2022, xformers.
    First,
    /// FlashAttention-2 (July 2023), which PyTorch's own function has.
    Second,
    /// The device's own: FlashAttention-3 and -4, cuDNN's, Transformer Engine's, splash attention.
    Newest,
}

impl AttentionKernels {
    /// Generations from these to the newest that was written for the device.
    pub fn behind(self, u: &Unit) -> f64 {
        let written = match u.kind {
            Kind::Tpu | Kind::Cpu => return 0.0,
            _ if u.is_after_ampere() => 3.0,
            _ => 2.0,
        };
        let these: f64 = match self {
            Self::First => 1.0,
            Self::Second => 2.0,
            Self::Newest => written,
        };
        (written - these).max(0.0)
    }
}

impl Attention {
    /// Forward and backward.
    pub(crate) fn seconds(&self, u: &Unit, c: &Constants) -> (f64, f64) {
        let width = self.heads * self.head_dim;
        if self.fused {
            // The half under the diagonal.
            let flops = 2.0 * self.rows * self.context * width;
            let rate = u.tuned * c.attention_share * c.older_kernels.powf(self.behind)
                / (1.0 + 10.0 / self.head_dim + ATTENTION_KEYS / self.context);
            return (flops / rate, 2.5 * flops / (rate * ATTENTION_BACKWARD));
        }
        let flops = 4.0 * self.rows * self.context * width;
        // Rows of 16-bit values that do not begin at 16 bytes keep the libraries of the time from the matrix units.
        let aligned = self.head_dim % ALIGNED == 0.0 || u.kind != Kind::Datacenter;
        let rate = if aligned {
            u.tuned * c.matmul_share * 0.7 * self.head_dim / (self.head_dim + 32.0)
        } else {
            UNALIGNED * u.vector_f32
        };
        let scores = self.heads * self.rows * self.context;
        let moving = moving_rate(u);
        (flops / rate + 10.0 * scores / moving, 2.0 * flops / rate + 12.0 * scores / moving)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn large_products_reach_their_rate_and_narrow_ones_do_not() {
        let u = Unit::of(fixture::book().device("a100-sxm-80gb").unwrap()).unwrap();
        let c = Constants::default();
        let rate = product_rate(&u, ProductFormat::Half, &c).unwrap();
        let share = |size: [f64; 3]| 2.0 * size.iter().product::<f64>() / product(&u, size, rate) / rate;
        assert!(share([16384.0, 16384.0, 16384.0]) > 0.95);
        assert!(share([16384.0, 128.0, 16384.0]) < 0.5);
        // One row is bound by the weights' bytes.
        let seconds = product(&u, [1.0, 4096.0, 4096.0], rate);
        assert!((seconds * moving_rate(&u) / (2.0 * 4096.0 * 4096.0) - 1.0).abs() < 0.001);
        assert_eq!(product_rate(&u, ProductFormat::F8, &c), None);
    }

    #[test]
    fn heads_that_do_not_fill_16_bytes_miss_the_matrix_units() {
        let u = Unit::of(fixture::book().device("a100-sxm-80gb").unwrap()).unwrap();
        let c = Constants::default();
        let of = |head_dim: f64, fused: bool| {
            let a = Attention { rows: 2048.0, context: 2048.0, heads: 12.0, head_dim, fused, behind: 0.0 };
            a.seconds(&u, &c).0
        };
        // 108 and 150 were tried before BLOOM was trained: their neighbours were a third faster for the whole step.
        for (head_dim, neighbour) in [(108.0, 112.0), (150.0, 152.0)] {
            assert!(of(head_dim, false) > 2.0 * of(neighbour, false), "{head_dim}");
            assert!(of(head_dim, true) < of(neighbour, true), "{head_dim}");
        }
    }

    #[test]
    fn attention_of_older_generations_is_behind_by_as_many() {
        let behind = |device: &str, kernels: AttentionKernels| {
            kernels.behind(&Unit::of(fixture::book().device(device).unwrap()).unwrap())
        };
        use AttentionKernels::{First, Newest, Second};
        assert_eq!([First, Second, Newest].map(|k| behind("a100-sxm-80gb", k)), [1.0, 0.0, 0.0]);
        assert_eq!([First, Second, Newest].map(|k| behind("h100-sxm-80gb", k)), [2.0, 1.0, 0.0]);
        assert_eq!(behind("tpu-v5e", First), 0.0);
    }
}
