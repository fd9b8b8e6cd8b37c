//! Whether a GPU works: a small kernel compiled, loaded and run. That libraries are found says nothing of it: NVRTC, for one, opens
//! a part of itself only when it first compiles.

use super::super::device::{Arg, Device, KernelName, Launch, Real};
use super::available;
use super::cache::Cache;
use super::compiler::{Compiler, version};
use super::gpu::CudaGpu;
use super::images::Images;
use super::libraries::Library;
use super::nccl::Nccl;
use crate::transformer::error::SessionError;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What compiled the kernel that ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tried {
    /// Version of NVRTC.
    pub version: (u32, u32),
    pub architecture: String,
    /// Where NVRTC and cuBLASLt lie.
    pub compiler: PathBuf,
    pub products: PathBuf,
}

const TRIAL: KernelName = KernelName { file: "trial", kernel: "trial", real: Real::F32 };

/// What the kernel is to write.
const WORD: i32 = 0x5eed;

/// Compiles a kernel for the GPU of this number, anew, and runs it.
///
/// # Errors
/// What is missing; what the compiler or the driver says; a kernel that leaves nothing.
pub(crate) fn try_device(ordinal: usize) -> Result<Tried, SessionError> {
    let gpu = CudaGpu::open_with(ordinal, Cache::none())?;
    let at = gpu.allocate(4)?;
    let (KernelName { file, kernel, real }, args) = (TRIAL, [Arg::Address(at), Arg::I32(WORD)]);
    gpu.launch(&Launch { file, kernel, real, grid: [1; 3], threads: 32, shared_bytes: 0, args: &args });
    let mut found = [0; 4];
    gpu.read(at, &mut found);
    gpu.release(at, 4);
    gpu.wait()?;
    let found = i32::from_ne_bytes(found);
    if found != WORD {
        let name = &gpu.facts().name;
        return Err(SessionError::Device(format!("{name}: a kernel ran and left {found}, not {WORD}")));
    }
    let broken = |e: &dyn std::fmt::Display| SessionError::NoCuda(e.to_string());
    let location = |library: Library| library.open(u32::MAX).map(|open| open.location()).map_err(|e| broken(e));
    Ok(Tried {
        version: version().map_err(|e| broken(&e))?,
        architecture: Compiler::new(gpu.facts().capability).map_err(|e| broken(&e))?.architecture,
        compiler: location(Library::Compiler)?,
        products: location(Library::Products)?,
    })
}

/// Version and place of NCCL, which several GPUs need.
///
/// # Errors
/// What is missing, and the remedy.
pub(crate) fn collectives() -> Result<(String, PathBuf), String> {
    let version = Nccl::get().and_then(Nccl::version_in_words).map_err(|e| e.to_string())?;
    let open = Library::Collectives.open(u32::MAX).map_err(ToString::to_string)?;
    Ok((version, open.location()))
}

/// Whether there is a GPU that kernels can be compiled for; tried once. Costs a tenth of a second, and no context.
pub(crate) fn usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| {
        let first = available().ok().and_then(|all| all.into_iter().next());
        let compiler = first.and_then(|facts| Compiler::new(facts.capability).ok());
        compiler.is_some_and(|c| c.compile(TRIAL).is_ok())
    })
}

/// Compiles kernels for a device of this compute capability, which need not be here: each by itself, timed, and then all at once,
/// past the cache.
///
/// # Errors
/// That there is no NVRTC, or what it says.
pub(crate) fn compile(capability: (u32, u32), kernels: &[KernelName]) -> Result<Compiled, String> {
    let library = Library::Compiler.open(u32::MAX).map_err(ToString::to_string)?;
    let compiler = Compiler::new(capability).map_err(|e| e.to_string())?;
    let (version, architecture) = (compiler.version, compiler.architecture.clone());
    let images = Images::new(compiler, Cache::none());
    let each = images.timed(kernels).map_err(|e| e.to_string())?;
    let began = Instant::now();
    images.get_all(kernels);
    Ok(Compiled { version, architecture, compiler: library.location(), each, together: began.elapsed() })
}

/// What compiling took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiled {
    pub version: (u32, u32),
    pub architecture: String,
    pub compiler: PathBuf,
    /// Of each kernel, alone.
    pub each: Vec<Duration>,
    /// Of all of them, on all cores.
    pub together: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_nothing_is_usable_and_it_is_said_what_is_missing() {
        if available().is_ok() {
            return println!("skipped: there is a GPU here");
        }
        assert!(!usable());
        assert!(matches!(try_device(0), Err(SessionError::NoCuda(_))));
    }
}
