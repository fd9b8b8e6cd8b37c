//! What this machine is: facts read from the system, and its limits as probed.

use serde::{Deserialize, Serialize};

/// Facts about a machine that do not change while it is up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub hostname: String,
    pub cpu_model: String,
    pub architecture: String,
    /// Cores that this process may use (affinity and cgroup quota respected).
    pub cores: u32,
    pub memory_bytes: u64,
    pub os: String,
    pub kernel: String,
    /// Instruction sets that kernels choose from, of those the CPU reports: "avx2", "fma", "avx512f", "avx512bf16" ...
    pub instruction_sets: Vec<String>,
    /// Caches as the system reports them, largest last: ("L3", bytes).
    pub caches: Vec<(String, u64)>,
}

/// The machine's limits, measured in a second or two before a sweep. Every peak quoted from it is labelled `probed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// f32 multiply-adds on one core, and on all of them together.
    pub f32_flops_per_second_one_core: f64,
    pub f32_flops_per_second: f64,
    /// bf16 dot products on all cores; `None` where the CPU has no such instruction.
    pub bf16_flops_per_second: Option<f64>,
    /// Reading a buffer much larger than the caches, on one core and on all.
    pub read_bytes_per_second_one_core: f64,
    pub read_bytes_per_second: f64,
    /// Relative spread (p90 - p10) / median of the short repeated probe: what a figure of this machine is worth.
    pub spread: f64,
    /// Share of the probe's time that went to somebody else, where the system tells.
    pub steal_share: Option<f64>,
}

impl Machine {
    /// What identifies the machine for resuming and comparing: CPU, cores, memory to the GiB, and instruction sets.
    pub fn fingerprint(&self) -> String {
        format!(
            "{} | {} | {} cores | {} GiB | {}",
            self.cpu_model,
            self.architecture,
            self.cores,
            (self.memory_bytes + (1 << 29)) >> 30,
            self.instruction_sets.join(",")
        )
    }
}
