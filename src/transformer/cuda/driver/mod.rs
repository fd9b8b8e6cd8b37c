//! NVIDIA GPUs through their driver: what is there, and a [`super::device::Device`] for each.
//!
//! Nothing is touched before it is asked for: [`available`] costs a failed look-up where there is no GPU.

mod aside;
mod cache;
pub(crate) mod compiler;
mod cublaslt;
mod described;
mod fault;
mod gpu;
mod graphs;
mod images;
pub(crate) mod kernels;
pub(crate) mod libraries;
mod modules;
pub(super) mod nccl;
mod nvrtc;
mod overlap;
mod products;
mod python;
mod race;
pub(super) mod side;
mod staging;
mod switch;
mod timing;
mod tried;

use super::device::DeviceFacts;
use compiler::CompileError;
use cublaslt as lt;
use cudarc::driver::{result, sys};
use fault::{DriverFault, ok};
pub(crate) use gpu::CudaGpu;
use libraries::{Library, NotFound};
use std::sync::OnceLock;
pub(crate) use tried::{Tried, collectives, compile, try_device, usable};

/// The oldest CUDA that a driver may be for: its functions are the ones we call.
const OLDEST_DRIVER: u32 = 12;

/// The oldest compute capability: bf16 on tensor cores and asynchronous copies came with 8.0 (Ampere).
const OLDEST_DEVICE: (u32, u32) = (8, 0);

/// Why no GPU can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    #[error("no NVIDIA driver: libcuda.so.1 is not found")]
    Driver,
    #[error("the NVIDIA driver is for CUDA {0}.{1}; CUDA 12.0 (driver 525) or newer is needed")]
    NewDriver(u32, u32),
    #[error("the NVIDIA driver finds no device that it can use: {0}")]
    Device(String),
    #[error(
        "{place}; a driver for CUDA {driver} needs it: install CUDA's {package}, or put the folder that has it into {} or on \
         LD_LIBRARY_PATH",
        libraries::FOLDERS
    )]
    Library { place: NotFound, package: &'static str, driver: u32 },
    #[error("{library} is of CUDA {have}, and the driver of CUDA {driver}; install CUDA {driver}'s, or a newer driver")]
    TooNew { library: &'static str, have: u32, driver: u32 },
    #[error("{library}: {reason}")]
    Broken { library: &'static str, reason: String },
    #[error("{name} has compute capability {}.{}; 8.0 (Ampere) or newer is needed", capability.0, capability.1)]
    OldDevice { name: String, capability: (u32, u32) },
}

/// The devices that can be used, as CUDA numbers them (CUDA_VISIBLE_DEVICES narrows them down). Looked for once.
///
/// # Errors
/// What is missing, and the remedy.
pub fn available() -> Result<Vec<DeviceFacts>, Missing> {
    static FOUND: OnceLock<Result<Vec<DeviceFacts>, Missing>> = OnceLock::new();
    FOUND.get_or_init(probe).clone()
}

fn probe() -> Result<Vec<DeviceFacts>, Missing> {
    let driver = driver_version()?;
    let devices = devices()?;
    library(Library::Compiler, driver)?;
    library(Library::Products, driver)?;
    Ok(devices)
}

/// The version of CUDA that the driver is for: 1000 times the major one and 10 times the minor one.
fn version_of_driver() -> Result<u32, DriverFault> {
    let mut version = 0;
    // SAFETY: points to an int that outlives the call; the library is there.
    ok("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&raw mut version) })?;
    Ok(version.unsigned_abs())
}

/// The major version of CUDA that the driver is for.
fn driver_version() -> Result<u32, Missing> {
    if !libraries::driver_is_there() {
        return Err(Missing::Driver);
    }
    let version = version_of_driver().map_err(|e| Missing::Device(e.to_string()))?;
    let (major, minor) = (version / 1000, version % 1000 / 10);
    if major < OLDEST_DRIVER { Err(Missing::NewDriver(major, minor)) } else { Ok(major) }
}

fn devices() -> Result<Vec<DeviceFacts>, Missing> {
    let broken = |e: result::DriverError| Missing::Device(DriverFault::from(e).to_string());
    result::init().map_err(broken)?;
    let count = result::device::get_count().map_err(broken)?;
    let all = (0..count).map(|i| facts(i).map_err(broken)).collect::<Result<Vec<_>, _>>()?;
    match all.iter().find(|f| f.capability < OLDEST_DEVICE) {
        _ if all.is_empty() => Err(Missing::Device("it counts none".into())),
        Some(old) => Err(Missing::OldDevice { name: old.name.clone(), capability: old.capability }),
        None => Ok(all),
    }
}

fn facts(ordinal: i32) -> Result<DeviceFacts, result::DriverError> {
    use sys::CUdevice_attribute as A;
    let device = result::device::get(ordinal)?;
    let attribute = |which: A| {
        // SAFETY: the device was given by the driver just now.
        unsafe { result::device::get_attribute(device, which) }.map(i32::unsigned_abs)
    };
    Ok(DeviceFacts {
        name: result::device::get_name(device)?,
        capability: (
            attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_bytes: attribute(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        // SAFETY: as above.
        memory_bytes: unsafe { result::device::total_mem(device) }? as u64,
    })
}

/// A library that is there and not newer than the driver.
fn library(which: Library, driver: u32) -> Result<(), Missing> {
    let (library, package) = match which {
        Library::Compiler => ("NVRTC", "NVRTC (cuda-nvrtc; in Python, nvidia-cuda-nvrtc)"),
        Library::Products => ("cuBLASLt", "cuBLAS (libcublas; in Python, nvidia-cublas)"),
        Library::Collectives => ("NCCL", "NCCL (libnccl2; in Python, nvidia-nccl)"),
    };
    which.open(driver).map_err(|place| Missing::Library { place: place.clone(), package, driver })?;
    let broken = |e: CompileError| Missing::Broken { library, reason: e.to_string() };
    let have = match which {
        Library::Compiler => compiler::version().map_err(broken)?.0,
        // SAFETY: the function takes nothing.
        Library::Products => u32::try_from(unsafe { lt::cublasLtGetCudartVersion() } / 1000).unwrap_or(u32::MAX),
        // Its versions are its own.
        Library::Collectives => driver,
    };
    if have > driver { Err(Missing::TooNew { library, have, driver }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_gpu_is_told_what_is_missing() {
        match available() {
            Ok(devices) => assert!(!devices.is_empty()),
            Err(missing) => {
                let said = missing.to_string();
                assert!(said.contains("driver") || said.contains("not found") || said.contains("compute"), "{said}");
                assert_eq!(available(), Err(missing), "the second answer is the first");
            }
        }
    }

    #[test]
    fn messages_name_the_remedy() {
        let place = NotFound::default();
        let library = Missing::Library { place, package: "NVRTC", driver: 13 }.to_string();
        let remedy = "a driver for CUDA 13 needs it: install CUDA's NVRTC, or put the folder that has it into \
                      CENTIME_CUDA_LIBRARIES or on LD_LIBRARY_PATH";
        assert!(library.ends_with(remedy), "{library}");
        let old = Missing::OldDevice { name: "Tesla T4".into(), capability: (7, 5) };
        assert_eq!(old.to_string(), "Tesla T4 has compute capability 7.5; 8.0 (Ampere) or newer is needed");
    }
}
