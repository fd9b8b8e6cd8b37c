//! What this machine is: facts read from the system, and its limits as probed.

use crate::units::Bytes;
use serde::{Deserialize, Serialize};

/// Facts about a machine that do not change while it is up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// As the system gives it.
    pub hostname: String,
    /// The maker's name of the CPU.
    pub cpu_model: String,
    /// "x86_64", "aarch64".
    pub architecture: String,
    /// Cores that this process may use (affinity and cgroup quota respected).
    pub cores: u32,
    /// Bytes that this process may use.
    pub memory_bytes: u64,
    /// Name and version of the system.
    pub os: String,
    /// The kernel's release.
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
    /// The same on all cores together.
    pub f32_flops_per_second: f64,
    /// Products of bf16 on all cores, by tiles (AMX) or dot products; `None` where the CPU has neither instruction.
    pub bf16_flops_per_second: Option<f64>,
    /// Reading a buffer much larger than the caches, on one core and on all.
    pub read_bytes_per_second_one_core: f64,
    /// Reading memory on all cores, in bytes a second.
    pub read_bytes_per_second: f64,
    /// Relative spread (p90 - p10) / median of the short repeated probe: what a figure of this machine is worth.
    pub spread: f64,
    /// Share of the probe's time that went to somebody else, where the system tells.
    pub steal_share: Option<f64>,
}

/// What all cores gave together at some moment: see [`Canary`](super::canary::Canary).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// f32 multiply-adds.
    pub f32_flops_per_second: f64,
    /// Reading a buffer much larger than the caches.
    pub read_bytes_per_second: f64,
}

impl Rates {
    /// The mean of two moments.
    pub fn mean(&self, other: &Self) -> Self {
        self.with(other, |a, b| (a + b) / 2.0)
    }

    /// The higher of each.
    pub fn best(&self, other: &Self) -> Self {
        self.with(other, f64::max)
    }

    /// What these are of others, as shares.
    pub fn of(&self, others: &Self) -> Self {
        self.with(others, |a, b| a / b)
    }

    fn with(&self, other: &Self, f: fn(f64, f64) -> f64) -> Self {
        Self {
            f32_flops_per_second: f(self.f32_flops_per_second, other.f32_flops_per_second),
            read_bytes_per_second: f(self.read_bytes_per_second, other.read_bytes_per_second),
        }
    }

    /// The median of each over several moments; `None` without any.
    pub fn median(all: &[Self]) -> Option<Self> {
        let of = |f: fn(&Self) -> f64| crate::stats::median(&all.iter().map(f).collect::<Vec<_>>());
        Some(Self {
            f32_flops_per_second: of(|r| r.f32_flops_per_second)?,
            read_bytes_per_second: of(|r| r.read_bytes_per_second)?,
        })
    }
}

impl Probe {
    /// What it found all cores to give.
    pub fn rates(&self) -> Rates {
        Rates { f32_flops_per_second: self.f32_flops_per_second, read_bytes_per_second: self.read_bytes_per_second }
    }

    /// What stands for a machine that nobody probed, by its cores: for estimates, never for figures.
    pub fn assumed(cores: u32) -> Self {
        const FLOPS_OF_A_CORE: f64 = 1e11;
        const READ_BYTES_PER_SECOND: f64 = 3e10;
        let flops = FLOPS_OF_A_CORE * f64::from(cores);
        Self {
            f32_flops_per_second_one_core: FLOPS_OF_A_CORE,
            f32_flops_per_second: flops,
            bf16_flops_per_second: Some(2.0 * flops),
            read_bytes_per_second_one_core: READ_BYTES_PER_SECOND,
            read_bytes_per_second: READ_BYTES_PER_SECOND,
            spread: 0.0,
            steal_share: None,
        }
    }
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

/// Reads what this machine is. What the system does not tell is left empty, never guessed.
pub(crate) fn inspect() -> Machine {
    let memory = Memory::read();
    Machine {
        hostname: sysinfo::System::host_name().unwrap_or_default(),
        cpu_model: cpu_model(),
        architecture: std::env::consts::ARCH.into(),
        // Respects affinity and the cgroup's quota.
        cores: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        memory_bytes: memory.total,
        os: sysinfo::System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.into()),
        kernel: sysinfo::System::kernel_version().unwrap_or_default(),
        instruction_sets: instruction_sets(),
        caches: caches(),
    }
}

/// Bytes that trials may fill now: what the system calls available, within the cgroup's limit.
pub(crate) fn available_memory() -> Bytes {
    Bytes(Memory::read().free)
}

/// The system's memory, or the cgroup's where that is less.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    total: u64,
    free: u64,
}

impl Memory {
    fn read() -> Self {
        let Ok(mut system) = sysinfo::System::new() else { return Self::default() };
        system.refresh_memory();
        let (total, free) = (system.total_memory(), system.available_memory());
        match system.cgroup_limits().filter(|l| l.total_memory > 0) {
            Some(l) => Self { total: total.min(l.total_memory), free: free.min(l.free_memory) },
            None => Self { total, free },
        }
    }
}

fn cpu_model() -> String {
    let Ok(mut system) = sysinfo::System::new() else { return String::new() };
    system.refresh_cpu_all();
    system.cpus().first().map(|c| c.brand().trim().to_string()).unwrap_or_default()
}

fn instruction_sets() -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! look {
            ($($name:tt),+) => { $(if is_x86_feature_detected!($name) { found.push($name.into()); })+ };
        }
        look!("avx2", "fma", "avxvnni", "avx512f", "avx512bw", "avx512vnni", "avx512bf16");
        found.extend(crate::amx::available().then(|| "amx-bf16".to_string()));
    }
    #[cfg(target_arch = "aarch64")]
    {
        macro_rules! look {
            ($($name:tt),+) => { $(if std::arch::is_aarch64_feature_detected!($name) { found.push($name.into()); })+ };
        }
        look!("neon", "dotprod", "bf16", "i8mm");
    }
    found
}

/// Caches of the first core that hold data, from the kernel's tables.
fn caches() -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for index in 0..8 {
        let read = |file: &str| {
            let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}");
            std::fs::read_to_string(path).ok().map(|t| t.trim().to_string())
        };
        let (Some(level), Some(kind), Some(size)) = (read("level"), read("type"), read("size")) else { break };
        let bytes = size.strip_suffix('K').and_then(|k| k.parse::<u64>().ok()).map(|k| k << 10);
        if let (Some(bytes), true) = (bytes, kind != "Instruction") {
            all.push((format!("L{level}"), bytes));
        }
    }
    all
}

/// The system's account of processor time, for the share that went to somebody else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuTimes {
    total: u64,
    steal: u64,
}

impl CpuTimes {
    /// Now; `None` where the system keeps no such account.
    pub(crate) fn now() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/stat").ok()?;
        let fields: Vec<u64> = text.lines().next()?.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guest time is in user already.
        (fields.len() >= 8).then(|| Self { total: fields[..8].iter().sum(), steal: fields[7] })
    }

    /// Share of all processor time since then that the hypervisor gave to others.
    pub(crate) fn steal_since(&self) -> Option<f64> {
        let now = Self::now()?;
        let total = now.total.checked_sub(self.total).filter(|t| *t > 0)?;
        Some(now.steal.saturating_sub(self.steal) as f64 / total as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cores_and_memory() {
        let m = inspect();
        assert!(m.cores >= 1 && m.memory_bytes > 1 << 26, "{m:?}");
        assert!(available_memory().get() <= m.memory_bytes);
        assert!(m.fingerprint().contains(&format!("{} cores", m.cores)));
    }
}
