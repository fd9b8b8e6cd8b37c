//! NVIDIA GPUs: what they are, and what they tell of themselves while they work.
//!
//! [`Sensors`] is the seam: [`nvml`] asks the driver's own library, tests ask a script. What a GPU does not tell is `None`, never
//! 0 and never an error: virtual GPUs hide their power, instances of a partitioned one (MIG) their clocks. Deliberately absent:
//! computing on a GPU, which is `transformer::cuda`'s.

pub(crate) mod nvml;
mod visible;

pub(crate) use visible::visible;

use super::device::NumberFormat;
use serde::{Deserialize, Serialize};

/// Facts about one GPU that do not change during a run. `None`: the driver does not tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Place among the machine's GPUs, as nvidia-smi counts them.
    pub index: u32,
    /// The maker's name: "NVIDIA H100 80GB HBM3".
    pub name: String,
    /// Tells it from its like; empty where it does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uuid: String,
    /// Version of the driver: "580.65.06".
    pub driver: String,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// Clock of the multiprocessors that the maker sets by default, in MHz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_sm_mhz: Option<u32>,
    /// The highest clock of the multiprocessors, in MHz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sm_mhz: Option<u32>,
    /// The highest clock of the memory, in MHz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory_mhz: Option<u32>,
    /// The power that it is limited to, in watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_limit_watts: Option<f64>,
    /// Whether it is partitioned into instances (MIG): power and energy are then those of all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<bool>,
    /// Its limits, measured by the CUDA backend before the sweep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probed: Option<Probed>,
}

/// Limits of a GPU as measured on it, like [`super::machine::Probe`] of the processors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probed {
    /// A large matrix product by the format of its factors: ("bf16", FLOP/s), under the catalog's names of formats.
    pub flops_per_second: Vec<(String, f64)>,
    /// Bytes read and written by a large copy, a second.
    pub copy_bytes_per_second: Option<f64>,
}

impl Probed {
    /// What a product in this format reached.
    pub fn of(&self, format: NumberFormat) -> Option<f64> {
        let rate = self.flops_per_second.iter().find(|(name, _)| name == format.name())?.1;
        (rate.is_finite() && rate > 0.0).then_some(rate)
    }
}

impl Gpu {
    /// The clock that a measured one is held against, and what it is called: the default, or the highest where no default is told.
    pub fn reference_clock(&self) -> Option<(u32, &'static str)> {
        let default = self.default_sm_mhz.map(|mhz| (mhz, "default"));
        default.or(self.max_sm_mhz.map(|mhz| (mhz, "maximum"))).filter(|(mhz, _)| *mhz > 0)
    }
}

/// Why a GPU runs at the clocks that it runs at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Nothing runs.
    Idle,
    /// Clocks that somebody set.
    ApplicationClocks,
    /// Clocks that a display asks for.
    DisplayClocks,
    /// Its power limit, by software.
    PowerCap,
    /// Kept in step with other GPUs.
    SyncBoost,
    /// Heat, by software.
    ThermalSlowdown,
    /// Heat, power or current, by hardware.
    HardwareSlowdown,
    /// Heat, by hardware.
    HardwareThermalSlowdown,
    /// A signal of the power supply.
    PowerBrake,
}

impl Reason {
    /// Whether it slows down a GPU that has work: an idle one, and clocks that somebody chose, are no faults.
    pub fn throttles(self) -> bool {
        !matches!(self, Self::Idle | Self::ApplicationClocks | Self::DisplayClocks)
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::ApplicationClocks => "clocks set by the user",
            Self::DisplayClocks => "clocks of the display",
            Self::PowerCap => "power cap",
            Self::SyncBoost => "held back by another GPU",
            Self::ThermalSlowdown => "thermal slowdown",
            Self::HardwareSlowdown => "hardware slowdown",
            Self::HardwareThermalSlowdown => "hardware thermal slowdown",
            Self::PowerBrake => "power brake",
        }
    }
}

/// What a GPU tells at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    pub sm_mhz: Option<u32>,
    pub memory_mhz: Option<u32>,
    pub milliwatts: Option<u32>,
    /// Of the counter that runs since the driver was loaded.
    pub millijoules: Option<u64>,
    pub celsius: Option<u32>,
    pub reasons: Option<Vec<Reason>>,
    /// Of everybody on the GPU together.
    pub used_bytes: Option<u64>,
}

/// Why a GPU tells nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("no NVIDIA driver is installed (libnvidia-ml.so.1 is not found)")]
    NoLibrary,
    #[error("libnvidia-ml.so.1 cannot be loaded: {0}")]
    BadLibrary(String),
    #[error(
        "the NVIDIA driver is installed and not running; load it (modprobe nvidia), or start the container with its GPUs"
    )]
    NotRunning,
    #[error("the NVIDIA driver is too old to tell ({0}); install driver 525 or newer")]
    OldDriver(String),
    #[error("the NVIDIA driver was updated and not loaded again; restart the machine")]
    Mismatch,
    #[error("the NVIDIA driver lets this user read nothing; ask the machine's owner for access to /dev/nvidia*")]
    NoPermission,
    #[error("the driver finds no GPU")]
    NoGpu,
    #[error("the GPU was lost: it fell off the bus, or needs a reset")]
    Lost,
    #[error("NVML: {0}")]
    Other(String),
}

/// Who tells of the machine's GPUs.
pub(crate) trait Sensors: Send {
    /// How many there are.
    ///
    /// # Errors
    /// [`Trouble`]: the driver's.
    fn count(&self) -> Result<u32, Trouble>;

    /// What one is.
    ///
    /// # Errors
    /// [`Trouble`]: the GPU is lost, or there is none of this number.
    fn describe(&self, index: u32) -> Result<Gpu, Trouble>;

    /// How it is now.
    ///
    /// # Errors
    /// As [`Self::describe`].
    fn read(&self, index: u32) -> Result<Reading, Trouble>;

    /// Bytes on it that belong to this process, where that is told (not from inside most containers).
    ///
    /// # Errors
    /// As [`Self::describe`].
    fn process_bytes(&self, index: u32) -> Result<Option<u64>, Trouble>;

    /// How many processes compute on it beside this one, where that is told: where this one is not among them, nobody is believed.
    ///
    /// # Errors
    /// As [`Self::describe`].
    fn other_processes(&self, index: u32) -> Result<Option<u32>, Trouble>;
}

/// Every GPU that the sensors know.
///
/// # Errors
/// None there, or one that is lost.
pub(crate) fn all(sensors: &dyn Sensors) -> Result<Vec<Gpu>, Trouble> {
    match sensors.count()? {
        0 => Err(Trouble::NoGpu),
        n => (0..n).map(|i| sensors.describe(i)).collect(),
    }
}

/// The machine's GPUs, or why there are none.
///
/// # Errors
/// `Trouble`: no driver, no GPU, or a driver that does not tell.
pub fn inspect() -> Result<Vec<Gpu>, Trouble> {
    all(nvml::open()?.as_ref())
}

/// Those that a CUDA program sees, in its order.
///
/// # Errors
/// As [`inspect`]; [`Trouble::NoGpu`] where CUDA_VISIBLE_DEVICES leaves none.
pub(crate) fn inspect_visible() -> Result<Vec<Gpu>, Trouble> {
    let all = inspect()?;
    let setting = std::env::var(visible::VARIABLE).ok();
    let seen: Vec<Gpu> = visible(&all, setting.as_deref()).into_iter().filter_map(|i| all.get(i).cloned()).collect();
    if seen.is_empty() { Err(Trouble::NoGpu) } else { Ok(seen) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_gpu_and_chosen_clocks_are_not_throttled() {
        let all = [Reason::Idle, Reason::ApplicationClocks, Reason::DisplayClocks];
        assert!(all.iter().all(|r| !r.throttles()));
        assert!(Reason::PowerCap.throttles() && Reason::HardwareThermalSlowdown.throttles());
    }

    #[test]
    fn the_default_clock_is_the_reference_and_the_highest_stands_in_for_it() {
        let gpu = Gpu { default_sm_mhz: Some(1100), max_sm_mhz: Some(1400), ..Gpu::default() };
        assert_eq!(gpu.reference_clock(), Some((1100, "default")));
        assert_eq!(Gpu { default_sm_mhz: None, ..gpu }.reference_clock(), Some((1400, "maximum")));
        assert_eq!(Gpu::default().reference_clock(), None);
    }

    #[test]
    fn looking_for_gpus_twice_is_no_slower_than_a_look_up() {
        let _ = inspect();
        let began = std::time::Instant::now();
        // On a machine without a driver the second look costs nothing at all.
        if inspect().is_err() {
            assert!(began.elapsed() < std::time::Duration::from_millis(5), "{:?}", began.elapsed());
        }
    }
}
