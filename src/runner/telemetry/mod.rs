//! What the GPUs of a trial did while it was measured: clocks, power, energy, temperature, throttling, memory.
//!
//! [`sampler`] asks the sensors ten times a second on a thread of its own; [`summary`] turns what was heard into figures. A step
//! that ran while a GPU was throttled is counted as such and stays in the figures like any other. Only trials on the backend
//! `cuda` are sampled: for all others nothing is loaded and no thread started.

pub(super) mod sampler;
pub(super) mod scripted;
pub(super) mod summary;
#[cfg(test)]
mod telemetry_tests;

use crate::hardware::gpu::{Gpu, Reason};
use serde::{Deserialize, Serialize};

/// Under this share of its reference clock a GPU is not itself, whatever the driver says.
pub(crate) const LEAST_CLOCK: f64 = 0.75;

/// What a trial's GPUs told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Telemetry {
    /// In the order in which the trial uses them.
    pub gpus: Vec<GpuFigures>,
    /// Measured steps that ran, in part or whole, while one of the GPUs was throttled.
    pub throttled_steps: u64,
    /// Why figures are missing, where they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One GPU, over the measured steps. `None`: it does not tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuFigures {
    /// As nvidia-smi counts.
    pub index: u32,
    /// The maker's name.
    pub name: String,
    /// Readings within the measured steps, or next to them where they were shorter than the time between two readings.
    pub samples: u32,
    /// Mean clock of the multiprocessors, in MHz.
    pub mean_sm_mhz: Option<f64>,
    /// The clock that all but a tenth of the readings reached.
    pub p10_sm_mhz: Option<f64>,
    /// Mean clock of the memory, in MHz.
    pub mean_memory_mhz: Option<f64>,
    /// What the clock is held against: the default, or the maximum where there is no default.
    pub reference_sm_mhz: Option<f64>,
    /// The highest clock that the multiprocessors can take, in MHz.
    pub max_sm_mhz: Option<f64>,
    /// By the energy counter where there is one, else the mean of the readings of power.
    pub mean_watts: Option<f64>,
    /// By the energy counter, between the readings around the measured steps.
    pub joules: Option<f64>,
    /// Highest temperature, in degrees Celsius.
    pub max_celsius: Option<u32>,
    /// Why it was slowed down, of all that was seen.
    pub reasons: Vec<Reason>,
    /// Of the readings.
    pub throttled_share: Option<f64>,
    /// Highest bytes used on the GPU, by everybody.
    pub peak_used_bytes: Option<u64>,
    /// Highest bytes used by the trial's process.
    pub peak_process_bytes: Option<u64>,
    /// Most processes that computed on it beside the trial's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_processes: Option<u32>,
    /// Partitioned: power and energy are those of all instances, not of the trial.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mig: bool,
    /// When it was lost, in seconds from the start of the trial: its figures are of the time before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_after_seconds: Option<f64>,
}

impl GpuFigures {
    /// Mean clock over the reference.
    pub fn clock_share(&self) -> Option<f64> {
        let share = self.mean_sm_mhz? / self.reference_sm_mhz?;
        share.is_finite().then_some(share)
    }

    /// Whether the driver gave a reason for slower clocks.
    pub fn throttled(&self) -> bool {
        self.throttled_share.is_some_and(|s| s > 0.0)
    }

    /// Whether its clock was too low for figures to count.
    pub fn slow(&self) -> bool {
        self.clock_share().is_some_and(|s| s < LEAST_CLOCK)
    }

    /// "power cap, thermal slowdown".
    pub fn reasons_in_words(&self) -> String {
        self.reasons.iter().map(|r| r.name()).collect::<Vec<_>>().join(", ")
    }

    /// Peak memory of the trial on it: its process's where that is told, else everybody's.
    pub fn peak_bytes(&self) -> Option<u64> {
        self.peak_process_bytes.or(self.peak_used_bytes)
    }
}

impl Telemetry {
    /// Nothing was told, for this reason.
    pub(super) fn untold(why: impl Into<String>) -> Self {
        Self { notes: vec![why.into()], ..Self::default() }
    }

    /// Mean power of all GPUs together; `None` unless every one tells and none is shared with others.
    pub fn watts(&self) -> Option<f64> {
        if self.gpus.is_empty() || self.gpus.iter().any(|g| g.mig) {
            return None;
        }
        self.gpus.iter().map(|g| g.mean_watts).sum()
    }

    /// Highest of the GPUs' peaks: what decides whether the trial fits.
    pub fn peak_bytes(&self) -> Option<u64> {
        self.gpus.iter().filter_map(GpuFigures::peak_bytes).max()
    }

    /// Most processes beside the trial's on one of its GPUs; `None` where no GPU tells.
    pub fn other_processes(&self) -> Option<u32> {
        self.gpus.iter().filter_map(|g| g.other_processes).max()
    }

    /// Mean of the GPUs' mean clocks, in MHz.
    pub fn mean_sm_mhz(&self) -> Option<f64> {
        let all: Vec<f64> = self.gpus.iter().filter_map(|g| g.mean_sm_mhz).collect();
        (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
    }

    /// Share of the readings in which it was throttled, of the GPU that was throttled most.
    pub fn throttled_share(&self) -> Option<f64> {
        self.gpus.iter().filter_map(|g| g.throttled_share).max_by(f64::total_cmp)
    }
}

/// A GPU as it is at the start of a trial, with what is heard of it until the end.
#[derive(Clone, Debug, Default)]
struct Heard {
    gpu: Gpu,
    /// Seconds on the trial's clock, and what was told.
    readings: Vec<(f64, crate::hardware::gpu::Reading)>,
    process_bytes: Option<u64>,
    other_processes: Option<u32>,
    /// When it was lost, and how that was said.
    lost: Option<(f64, String)>,
}
