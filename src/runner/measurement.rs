//! What came of one trial: plain data, the one form that leaves the runner.

use super::learning::learned::Learned;
use super::telemetry::Telemetry;
use super::traced::profile::Profile;
use super::watch::Disturbance;
use crate::hardware::machine::Rates;
use crate::load::served::Served;
use crate::stats::median;
use crate::transformer::loads::Loads;
use crate::transformer::loss_change::LossChange;
use crate::transformer::memory::{DeviceMemory, MemoryParts};
use serde::{Deserialize, Serialize};

/// How a trial ended. Every requested cell has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was measured.
    Ok,
    /// Memory ran out: the allocator failed, or the kernel killed the process.
    Oom,
    /// The process ended by a signal or an unexpected exit, or its device failed or was lost.
    Crashed,
    /// It had not finished when its time was up.
    Timeout,
    /// The trial cannot be run as asked, or its figures are not to be trusted (the machine was suspended).
    Invalid,
    /// What it was to learn it did not: its loss is no number, or beyond all bounds.
    Diverged,
    /// Interrupted by the user.
    Cancelled,
    /// Not run; the reason says why.
    Skipped,
}

impl Status {
    /// Every status, in the order of the documentation.
    pub const ALL: &'static [Self] = &[
        Self::Ok,
        Self::Oom,
        Self::Crashed,
        Self::Timeout,
        Self::Invalid,
        Self::Diverged,
        Self::Cancelled,
        Self::Skipped,
    ];

    /// The name used in columns and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Oom => "oom",
            Self::Crashed => "crashed",
            Self::Timeout => "timeout",
            Self::Invalid => "invalid",
            Self::Diverged => "diverged",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

/// Why the measuring loop of a trial stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The interval of the median step is as narrow as asked.
    Precision,
    /// `max_seconds` were up first.
    MaxSeconds,
    /// As many samples as a row holds were there first: a million.
    MaxSteps,
    /// The program that was measured ended first.
    Ended,
    /// What a trial was to learn it had learnt, or the bound of it was there.
    Goal,
}

/// The figures of a trial that ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Every measured step, in order, in seconds; nothing dropped.
    pub step_seconds: Vec<f64>,
    /// In `generate`: seconds to the first token of every step; empty otherwise.
    pub first_token_seconds: Vec<f64>,
    /// Of several launches: how many of the steps are each one's, in order. Empty: all are of one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub launches: Vec<u32>,
    /// Steps run and not counted, before the step time was stationary.
    pub warmup_steps: u32,
    /// Tokens of all devices together.
    pub tokens_per_step: u64,
    /// Why no further step was measured.
    pub stopped_by: Stop,
    /// Half width of the 95 % interval of the median step, relative to the median; `None` with too few steps for an interval.
    pub precision_reached: Option<f64>,
    /// Highest resident bytes of the trial's process.
    pub peak_rss_bytes: u64,
    /// Resident bytes before the model was built: what the program itself takes.
    pub baseline_rss_bytes: u64,
    /// Highest bytes that the process had allocated at one time.
    pub peak_allocated_bytes: u64,
    /// The same after the second step (or the only one): it does not depend on how many there was time for, as a cache that fills does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_allocated_bytes: Option<u64>,
    /// What the devices' allocators gave at the most, of a trial on devices with memory of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_memory: Option<DeviceMemory>,
    /// How the tokens of the last pass were spread over experts: of all layers on average in training, of the last one else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert_loads: Option<Loads>,
    /// Loss of the last step, in training.
    pub loss: Option<f64>,
    /// Checksum of what was computed.
    pub checksum: u32,
    /// Of weights or a KV cache in few bits: what that does to the loss, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization_loss: Option<LossChange>,
    /// Share of the measuring time in which the hypervisor ran somebody else, where the system tells.
    pub steal_share: Option<f64>,
    /// Mean power of the machine's processors over warm-up and measuring, where they tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watts: Option<f64>,
    /// What the GPUs told, of a trial that ran on some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Telemetry>,
    /// How fast the machine was around each launch, where a canary was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machine_rates: Vec<Rates>,
    /// Whether the trial had the machine to itself, of trials that were watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disturbance: Option<Disturbance>,
    /// Of requests to a server: what a load generator told of each launch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub served: Vec<Served>,
    /// Where the time of a step goes, of operations that tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// Of trials that are to learn something: what each launch came to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learned: Vec<Learned>,
}

impl Figures {
    /// Samples, one a step, launch by launch.
    pub fn by_launch<'a>(&self, samples: &'a [f64]) -> Vec<&'a [f64]> {
        let mut rest = samples;
        let mut next = |len: &u32| {
            let (launch, after) = rest.split_at_checked(*len as usize)?;
            rest = after;
            Some(launch)
        };
        match self.launches.iter().map(&mut next).collect::<Option<Vec<_>>>() {
            Some(all) if !all.is_empty() && rest.is_empty() => all,
            _ => vec![samples],
        }
    }

    /// The median step of each launch, in the order of rounds, in seconds.
    pub fn medians_of_launches(&self) -> Vec<f64> {
        self.by_launch(&self.step_seconds).into_iter().filter_map(median).collect()
    }

    /// Whether others took more than is allowed; of a trial that was not watched nothing is claimed.
    pub fn disturbed(&self) -> bool {
        self.disturbance.as_ref().and_then(Disturbance::disturbed) == Some(true)
    }

    /// In `generate`: the seconds of every step after its first token; `None` in other phases.
    pub fn seconds_after_first_token(&self) -> Option<Vec<f64>> {
        let paired = !self.step_seconds.is_empty() && self.step_seconds.len() == self.first_token_seconds.len();
        paired
            .then(|| self.step_seconds.iter().zip(&self.first_token_seconds).map(|(all, first)| all - first).collect())
    }
}

/// One trial's outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// How the trial ended.
    pub status: Status,
    /// What happened, for every status but `ok`; empty then.
    pub reason: String,
    /// Present exactly when the status is `ok`.
    pub figures: Option<Figures>,
    /// Predicted bytes by category.
    pub predicted_memory: MemoryParts,
    /// Wall seconds of the whole trial: start, warm-up and measuring.
    pub trial_seconds: f64,
}

impl Measurement {
    /// A measurement of a trial that gave no figures.
    pub fn without_figures(status: Status, reason: impl Into<String>, predicted_memory: MemoryParts) -> Self {
        Self { status, reason: reason.into(), figures: None, predicted_memory, trial_seconds: 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_from_before_gpus_are_read_and_those_without_say_nothing_of_them() {
        let run = crate::fixture::heads();
        let figures = run.records[0].measurement.figures.clone().unwrap();
        let json = serde_json::to_value(&figures).unwrap();
        assert!(json.get("telemetry").is_none() && json.get("device_memory").is_none(), "{json}");
        assert_eq!(serde_json::from_value::<Figures>(json).unwrap(), figures);
        let run = crate::fixture::gpus();
        for figures in run.records.iter().filter_map(|r| r.measurement.figures.as_ref()) {
            let json = serde_json::to_string(figures).unwrap();
            assert_eq!(&serde_json::from_str::<Figures>(&json).unwrap(), figures);
        }
    }
}
