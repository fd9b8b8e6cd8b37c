//! Whether a GPU works: a small kernel compiled, loaded and run. That libraries are found says nothing of it: NVRTC, for one, opens
//! a part of itself only when it first compiles.

use super::super::device::{Arg, Device, Launch, Real};
use super::available;
use super::cache::Cache;
use super::compiler::{Compiler, version};
use super::gpu::Gpu;
use super::libraries::Library;
use crate::transformer::error::SessionError;
use std::path::PathBuf;
use std::sync::OnceLock;

/// What compiled the kernel that ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Version of NVRTC.
    pub version: (u32, u32),
    pub architecture: String,
    /// Where NVRTC and cuBLASLt lie.
    pub compiler: PathBuf,
    pub products: PathBuf,
}

/// What the kernel is to write.
const WORD: i32 = 0x5eed;

/// Compiles a kernel for the GPU of this number, anew, and runs it.
///
/// # Errors
/// What is missing; what the compiler or the driver says; a kernel that leaves nothing.
pub fn try_device(ordinal: usize) -> Result<Tried, SessionError> {
    let gpu = Gpu::open_with(ordinal, Cache::none())?;
    let at = gpu.allocate(4)?;
    let (real, args) = (Real::F32, [Arg::Address(at), Arg::I32(WORD)]);
    gpu.launch(&Launch {
        file: "trial",
        kernel: "trial",
        real,
        grid: [1; 3],
        threads: 32,
        shared_bytes: 0,
        args: &args,
    });
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

/// Whether there is a GPU that kernels can be compiled for; tried once. Costs a tenth of a second, and no context.
pub fn usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| {
        let first = available().ok().and_then(|all| all.into_iter().next());
        let compiler = first.and_then(|facts| Compiler::new(facts.capability).ok());
        compiler.is_some_and(|c| c.compile("trial", Real::F32).is_ok())
    })
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
