//! One trial: a point of the sweep, checked and complete.

use crate::transformer::{BackendKind, OptimizerKind, Phase, WeightFormat, Workload};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What the scenario asks for; `auto` takes a GPU where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    Auto,
    Cpu,
    /// The oracle; slow by intent.
    Naive,
    Cuda,
}

/// A complete trial. Two trials are the same exactly when their [`Trial::id`]s are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// What the reader calls the model: a preset's name, or one made from family and sizes ("gpt2 6x384").
    pub model: String,
    pub workload: Workload,
    /// Resolved: never `auto`.
    pub backend: BackendKind,
    /// Data-parallel ranks; on the CPU each has `cores_per_device` cores.
    pub devices: u32,
    pub cores_per_device: u32,
}

impl Trial {
    /// Twelve hexadecimal digits of SHA-256 over the canonical JSON of everything but the model's display name.
    pub fn id(&self) -> String {
        let canonical = serde_json::json!([
            1, // version of this form
            self.workload,
            self.backend.name(),
            self.devices,
            self.cores_per_device,
        ]);
        let digest = Sha256::digest(canonical.to_string().as_bytes());
        digest.iter().take(6).map(|b| format!("{b:02x}")).collect()
    }
}

impl Trial {
    /// Fields that the phase does not use, at fixed values: two trials that compute the same have the same id.
    pub fn canonical(mut self) -> Self {
        let w = &mut self.workload;
        match w.phase {
            Phase::Train => (w.prompt_len, w.new_tokens) = (0, 0),
            Phase::Prefill => (w.seq_len, w.new_tokens) = (0, 0),
            Phase::Decode | Phase::Generate => w.seq_len = 0,
        }
        if w.phase != Phase::Train {
            w.optimizer = OptimizerKind::Adamw;
            w.dropout = 0.0;
        } else {
            w.weights = WeightFormat::Dtype;
        }
        self
    }
}
