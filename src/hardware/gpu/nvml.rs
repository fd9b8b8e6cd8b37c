//! NVML, the library that comes with NVIDIA's driver, asked through `nvml-wrapper`. Loaded when first asked for, once; on a
//! machine without a driver that is one failed look-up.
//!
//! Source: NVIDIA, NVML API Reference Guide: device queries, clocks event ("throttle") reasons.

use super::{Gpu, Reading, Reason, Sensors, Trouble};
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use std::ffi::OsStr;
use std::sync::OnceLock;

/// What the driver installs, and containers with GPUs mount.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// The library, loaded.
struct Loaded(&'static Nvml);

/// The driver's library.
///
/// # Errors
/// No driver, one that is not running, too old, or not to be read by this user.
pub(crate) fn open() -> Result<Box<dyn Sensors>, Trouble> {
    static FOUND: OnceLock<Result<Nvml, Trouble>> = OnceLock::new();
    match FOUND.get_or_init(|| load(OsStr::new(LIBRARY))) {
        Ok(nvml) => Ok(Box::new(Loaded(nvml))),
        Err(trouble) => Err(trouble.clone()),
    }
}

fn load(library: &OsStr) -> Result<Nvml, Trouble> {
    Nvml::builder().lib_path(library).init().map_err(|error| match error {
        // dlopen says "cannot open" both of a file that is not there and of one that it cannot read: the first is the rule.
        NvmlError::LibloadingError(e) if e.to_string().contains("No such file") => Trouble::NoLibrary,
        NvmlError::LibloadingError(e) => Trouble::BadLibrary(e.to_string()),
        error => trouble(&error),
    })
}

/// NVML's errors in our words.
fn trouble(error: &NvmlError) -> Trouble {
    match error {
        NvmlError::DriverNotLoaded => Trouble::NotRunning,
        NvmlError::LibRmVersionMismatch => Trouble::Mismatch,
        NvmlError::NoPermission | NvmlError::OperatingSystem => Trouble::NoPermission,
        NvmlError::LibraryNotFound => Trouble::NoLibrary,
        NvmlError::FailedToLoadSymbol(what) => Trouble::OldDriver(what.clone()),
        NvmlError::FunctionNotFound => Trouble::OldDriver("a function is missing".into()),
        NvmlError::GpuLost | NvmlError::ResetRequired => Trouble::Lost,
        NvmlError::NotFound | NvmlError::NoData => Trouble::NoGpu,
        other => Trouble::Other(other.to_string()),
    }
}

/// What one query gave: a GPU that is lost ends all queries, everything else is a figure that is not told.
fn told<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, Trouble> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if trouble(&error) == Trouble::Lost => Err(Trouble::Lost),
        Err(_) => Ok(None),
    }
}

fn reasons(bits: ThrottleReasons) -> Vec<Reason> {
    let all = [
        (ThrottleReasons::GPU_IDLE, Reason::Idle),
        (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, Reason::ApplicationClocks),
        (ThrottleReasons::DISPLAY_CLOCK_SETTING, Reason::DisplayClocks),
        (ThrottleReasons::SW_POWER_CAP, Reason::PowerCap),
        (ThrottleReasons::SYNC_BOOST, Reason::SyncBoost),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, Reason::ThermalSlowdown),
        (ThrottleReasons::HW_SLOWDOWN, Reason::HardwareSlowdown),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, Reason::HardwareThermalSlowdown),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, Reason::PowerBrake),
    ];
    all.into_iter().filter(|(bit, _)| bits.contains(*bit)).map(|(_, reason)| reason).collect()
}

impl Loaded {
    fn device(&self, index: u32) -> Result<Device<'static>, Trouble> {
        self.0.device_by_index(index).map_err(|e| trouble(&e))
    }
}

impl Sensors for Loaded {
    fn count(&self) -> Result<u32, Trouble> {
        self.0.device_count().map_err(|e| trouble(&e))
    }

    fn describe(&self, index: u32) -> Result<Gpu, Trouble> {
        let d = self.device(index)?;
        Ok(Gpu {
            index,
            name: told(d.name())?.unwrap_or_default(),
            uuid: told(d.uuid())?.unwrap_or_default(),
            driver: self.0.sys_driver_version().unwrap_or_default(),
            memory_bytes: told(d.memory_info())?.map_or(0, |m| m.total),
            default_sm_mhz: told(d.default_applications_clock(Clock::SM))?.filter(|mhz| *mhz > 0),
            max_sm_mhz: told(d.max_clock_info(Clock::SM))?.filter(|mhz| *mhz > 0),
            max_memory_mhz: told(d.max_clock_info(Clock::Memory))?.filter(|mhz| *mhz > 0),
            power_limit_watts: told(d.enforced_power_limit())?.map(|milliwatts| f64::from(milliwatts) / 1e3),
            mig: told(d.mig_mode())?.map(|mode| mode.current != 0),
            probed: None,
        })
    }

    fn read(&self, index: u32) -> Result<Reading, Trouble> {
        let d = self.device(index)?;
        Ok(Reading {
            sm_mhz: told(d.clock_info(Clock::SM))?,
            memory_mhz: told(d.clock_info(Clock::Memory))?,
            milliwatts: told(d.power_usage())?,
            millijoules: told(d.total_energy_consumption())?,
            celsius: told(d.temperature(TemperatureSensor::Gpu))?,
            reasons: told(d.current_throttle_reasons())?.map(reasons),
            used_bytes: told(d.memory_info())?.map(|m| m.used),
        })
    }

    fn process_bytes(&self, index: u32) -> Result<Option<u64>, Trouble> {
        let own = std::process::id();
        let all = told(self.device(index)?.running_compute_processes())?.unwrap_or_default();
        Ok(all.into_iter().filter(|p| p.pid == own).find_map(|p| match p.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        }))
    }

    fn other_processes(&self, index: u32) -> Result<Option<u32>, Trouble> {
        let own = std::process::id();
        let all = told(self.device(index)?.running_compute_processes())?.unwrap_or_default();
        let others = all.iter().filter(|p| p.pid != own).count();
        Ok((others < all.len()).then(|| u32::try_from(others).unwrap_or(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(library: &OsStr) -> Trouble {
        load(library).err().unwrap()
    }

    #[test]
    fn no_library_a_broken_one_and_one_without_its_functions_are_told_apart() {
        assert_eq!(refusal(OsStr::new("/nowhere/libnvidia-ml.so.1")), Trouble::NoLibrary);
        let folder = tempfile::tempdir().unwrap();
        let broken = folder.path().join("libnvidia-ml.so.1");
        std::fs::write(&broken, "no library").unwrap();
        assert!(matches!(refusal(broken.as_os_str()), Trouble::BadLibrary(_)), "{:?}", refusal(broken.as_os_str()));
        // Any library has no nvmlInit_v2, as that of a driver from before it.
        #[cfg(target_os = "linux")]
        assert!(matches!(refusal(OsStr::new("libc.so.6")), Trouble::OldDriver(_)));
    }

    #[test]
    fn what_is_not_supported_is_not_told_and_a_lost_gpu_is_an_error() {
        assert_eq!(told::<u32>(Err(NvmlError::NotSupported)), Ok(None));
        assert_eq!(told::<u32>(Err(NvmlError::NoPermission)), Ok(None));
        assert_eq!(told::<u32>(Err(NvmlError::FailedToLoadSymbol("nvmlX".into()))), Ok(None), "an old driver");
        assert_eq!(told(Ok(7)), Ok(Some(7)));
        assert_eq!(told::<u32>(Err(NvmlError::GpuLost)), Err(Trouble::Lost));
        assert_eq!(told::<u32>(Err(NvmlError::ResetRequired)), Err(Trouble::Lost));
    }

    #[test]
    fn every_bit_has_its_reason() {
        let all = ThrottleReasons::all();
        assert_eq!(reasons(all).len(), 9);
        assert_eq!(
            reasons(ThrottleReasons::SW_POWER_CAP | ThrottleReasons::GPU_IDLE),
            [Reason::Idle, Reason::PowerCap]
        );
        assert!(reasons(ThrottleReasons::NONE).is_empty());
    }

    #[test]
    fn every_trouble_says_what_to_do_or_what_is_missing() {
        let said = |e: NvmlError| trouble(&e).to_string();
        assert!(said(NvmlError::DriverNotLoaded).contains("modprobe"));
        assert!(said(NvmlError::LibRmVersionMismatch).contains("restart"));
        assert!(said(NvmlError::FunctionNotFound).contains("install driver 525"));
        assert!(Trouble::NoLibrary.to_string().contains("no NVIDIA driver"));
    }
}
