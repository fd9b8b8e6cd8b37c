//! A training run that is wanted: what it takes on each device and count.

use super::constants::Constants;
use super::device::Unit;
use super::kernels::Format;
use super::model::Model;
use super::search::{Kept, Plan, fastest};
use super::workload::base;

/// What is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    pub parameters: f64,
    pub tokens: f64,
    pub budget_usd: Option<f64>,
    pub days: Option<f64>,
    pub seq_len: f64,
    pub kept: Kept,
}

/// One way to do it.
#[derive(Clone, Debug, PartialEq)]
pub struct Priced {
    pub device: String,
    pub devices: u32,
    pub plan: Plan,
    pub days: f64,
    /// `None` without a price.
    pub usd: Option<f64>,
    /// Model FLOPs over the peak.
    pub mfu: f64,
}

const VOCAB: f64 = 50_304.0;
const HEAD_DIM: f64 = 128.0;
/// Width over depth of GPT-3's models, 128 from 13B up and less below (Brown et al. 2020, table 2.1).
const WIDTH_PER_LAYER: f64 = 128.0;
/// Most devices that are tried.
const MOST_DEVICES: u32 = 8192;

impl Goal {
    /// A decoder of that many parameters: 12 L d^2 + V d, about 128 wide a layer.
    pub fn model(&self) -> Model {
        let ideal = (self.parameters * WIDTH_PER_LAYER / 12.0).cbrt();
        let d_model = ((ideal / 512.0).round() * 512.0).max(128.0);
        let layers = ((self.parameters - VOCAB * d_model) / (12.0 * d_model * d_model)).max(1.0);
        // Even from 8 up, so that a pipeline can share them.
        let layers = if layers >= 16.0 { (layers / 8.0).round() * 8.0 } else { layers.round() };
        let heads = (d_model / HEAD_DIM).max(1.0);
        let sizes = [layers, d_model, heads, heads, d_model / heads, 4.0 * d_model, VOCAB];
        Model { gated: false, tied: true, ..Model::published(sizes, Some(self.parameters)) }
    }

    /// Sequences of a step: 1M tokens at 1.3B parameters, 3.2M at 175B (Brown et al. 2020), a power of two.
    pub fn sequences(&self) -> f64 {
        let tokens = 1e6 * (self.parameters / 1.3e9).powf(0.25);
        2f64.powf((tokens / self.seq_len).max(1.0).log2().round())
    }
}

/// The fastest layout of each count of a device, with days and cost: counts are powers of two from one machine's part up, or
/// the one that is given.
pub fn candidates(
    goal: &Goal,
    device: &Unit,
    count: Option<u32>,
    usd_per_hour: Option<f64>,
    c: &Constants,
) -> Vec<Priced> {
    let counts: Vec<u32> =
        count.map_or_else(|| (0..14).map(|i| 2u32.pow(i)).filter(|n| *n <= MOST_DEVICES).collect(), |n| vec![n]);
    let model = goal.model();
    let of = |n: u32| {
        let devices = f64::from(n);
        let run = base(model, device, devices, goal.seq_len, Format::Half);
        let (plan, fits) = fastest(&run, step_sequences(goal.sequences(), devices), goal.kept, c)?;
        if !fits {
            return None;
        }
        let days = goal.tokens / plan.tokens_per_second / 86_400.0;
        let flops = plan.training.model_flops() / plan.training.tokens_per_step() * plan.tokens_per_second;
        Some(Priced {
            device: device.name.clone(),
            devices: n,
            days,
            usd: usd_per_hour.map(|u| u * devices * days * 24.0),
            mfu: flops / (device.peak * devices),
            plan,
        })
    };
    counts.into_iter().filter_map(of).collect()
}

/// Sequences of a step that so many devices can share: with the odd factors of the count.
fn step_sequences(sequences: f64, devices: f64) -> f64 {
    let mut odd = devices;
    while odd >= 2.0 && odd % 2.0 == 0.0 {
        odd /= 2.0;
    }
    if odd > 1.0 { 2f64.powf((sequences / odd).log2().round()) * odd } else { sequences }
}
