//! What a training run takes on each device and count, and which of these plans nothing beats.

use super::calibration::Calibration;
use super::device::Unit;
use super::goal::Goal;
use super::kernels::ProductFormat;
use super::model::Model;
use super::published::Quantity;
use super::search::{Plan, fastest};
use super::traits::Traits;
use super::workload::base;
use std::sync::Arc;

/// One way to do it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Priced {
    pub device: String,
    pub devices: u32,
    pub plan: Plan,
    pub days: f64,
    /// `None` without a price.
    pub usd: Option<f64>,
    /// Model FLOPs over the peak.
    pub mfu: f64,
    /// No published row of such a device is in the fit.
    pub extrapolated: bool,
    /// What widens its bar.
    pub traits: Traits,
}

const VOCAB: f64 = 50_304.0;
/// Most devices that are tried.
const MOST_DEVICES: u32 = 8192;

impl Goal {
    /// The model that is trained.
    pub(crate) fn model(&self) -> Model {
        Model::of_parameters(self.parameters, VOCAB)
    }

    /// Sequences of a step: 1M tokens at 1.3B parameters, 3.2M at 175B (Brown et al. 2020), a power of two.
    pub(crate) fn sequences(&self) -> f64 {
        if let Some(batch) = self.batch {
            return batch;
        }
        let tokens = 1e6 * (self.parameters / 1.3e9).powf(0.25);
        2f64.powf((tokens / self.seq_len).max(1.0).log2().round())
    }
}

/// The fastest layout of each count of a device, with days and cost: counts are powers of two from one machine's part up, or
/// the one that is given.
pub(crate) fn candidates(
    goal: &Goal,
    device: &Arc<Unit>,
    count: Option<u32>,
    usd_per_hour: Option<f64>,
    c: &Calibration,
) -> Vec<Priced> {
    let counts: Vec<u32> =
        count.map_or_else(|| (0..14).map(|i| 2u32.pow(i)).filter(|n| *n <= MOST_DEVICES).collect(), |n| vec![n]);
    let model = goal.model();
    let of = |n: u32| {
        let devices = f64::from(n);
        let run = base(model, device, devices, goal.seq_len, ProductFormat::Half);
        let sequences = goal.batch.unwrap_or_else(|| step_sequences(goal.sequences(), devices));
        let (plan, fits) = fastest(&run, sequences, goal.settled, &c.constants)?;
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
            extrapolated: !c.has_seen(device),
            traits: c.traits(Quantity::TrainingTokens, device, devices, false),
            plan,
        })
    };
    counts.into_iter().filter_map(of).collect()
}

/// Plans that no other beats in both cost and days, the cheapest first.
pub(crate) fn front(plans: &[Priced]) -> Vec<&Priced> {
    let mut priced: Vec<(&Priced, f64)> = plans.iter().filter_map(|p| Some((p, p.usd?))).collect();
    priced.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.days.total_cmp(&b.0.days)));
    let mut all: Vec<&Priced> = Vec::new();
    for (plan, _) in priced {
        if all.last().is_none_or(|last| plan.days < last.days) {
            all.push(plan);
        }
    }
    all
}

/// Sequences of a step that so many devices can share: with the odd factors of the count.
fn step_sequences(sequences: f64, devices: f64) -> f64 {
    let mut odd = devices;
    while odd >= 2.0 && odd % 2.0 == 0.0 {
        odd /= 2.0;
    }
    if odd > 1.0 { 2f64.powf((sequences / odd).log2().round()) * odd } else { sequences }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::projection::goal::USUAL_EFFICIENCY;
    use crate::projection::search::{Kept, Settled};

    fn days(settled: Settled, batch: Option<f64>) -> Priced {
        let goal = Goal {
            parameters: 175e9,
            tokens: 300e9,
            budget_usd: None,
            days: None,
            seq_len: 2048.0,
            batch,
            efficiency: USUAL_EFFICIENCY,
            settled,
        };
        let device = Unit::of(fixture::book().device("a100-sxm-80gb").unwrap()).unwrap().into();
        candidates(&goal, &device, Some(1024), None, Calibration::built_in().unwrap()).remove(0)
    }

    /// Narayanan et al. 2021, section 5.1: 34 days for 175 billion parameters and 300 billion tokens on 1,024 A100, at 140
    /// TFLOP/s a device, with full recomputation and 1,536 sequences a step.
    #[test]
    fn a_175b_model_takes_34_days_on_1024_a100_as_published_in_2021() {
        let settled = Settled { kept: Kept::Inputs, tensor: Some(8.0), pipeline: Some(8.0), old_kernels: true };
        let published = days(settled, Some(1536.0));
        assert!((published.days / 34.0 - 1.0).abs() < 0.1, "{} days, {}", published.days, published.plan.described());
        // Fused attention and a choice of layouts have made it faster since.
        let today = days(Settled::default(), None);
        assert!(today.days < 0.8 * published.days && today.days > 15.0, "{}", today.days);
    }

    #[test]
    fn the_front_holds_what_nothing_beats() {
        let one = days(Settled::default(), None);
        let plan = |usd: Option<f64>, days: f64| Priced { usd, days, ..one.clone() };
        let all = [
            plan(Some(100.0), 10.0),
            plan(Some(90.0), 20.0),
            plan(Some(95.0), 30.0),
            plan(None, 1.0),
            plan(Some(200.0), 10.0),
            plan(Some(300.0), 2.0),
        ];
        let found: Vec<(Option<f64>, f64)> = front(&all).iter().map(|p| (p.usd, p.days)).collect();
        assert_eq!(found, [(Some(90.0), 20.0), (Some(100.0), 10.0), (Some(300.0), 2.0)]);
    }
}
