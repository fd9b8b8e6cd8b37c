//! Launches that begin before their predecessor in the stream has ended (programmatic dependent launch, CUDA C++ Programming Guide):
//! what is asked for at the head of such a kernel, weights, comes while the one before still runs. The kernel itself waits before it
//! touches anything else (`wait_for_before` in `kernels/common.h`).

use super::super::device::Launch;
use super::fault::{DriverFault, ok};
use super::switch::is_on;
use cudarc::driver::sys;
use std::ffi::c_void;

/// The variable that turns it off, so that one can be timed against the other.
pub(super) const SWITCH: &str = "CENTIME_CUDA_OVERLAP";

/// The first compute capability that has it.
const LEAST_CAPABILITY: (u32, u32) = (9, 0);

/// The first driver, by the version of CUDA that it is for (12.3), that keeps it in captured steps.
const LEAST_DRIVER: u32 = 12_030;

/// Whether kernels that wait by themselves are launched early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overlap {
    Allowed,
    Never,
}

impl Overlap {
    /// `switch` is the value of [`SWITCH`]; `driver` as cuDriverGetVersion tells it.
    ///
    /// # Errors
    /// A value that means nothing.
    pub(super) fn new(switch: Option<&str>, capability: (u32, u32), driver: u32) -> Result<Self, String> {
        let able = capability >= LEAST_CAPABILITY && driver >= LEAST_DRIVER;
        Ok(if is_on(SWITCH, switch)? && able { Self::Allowed } else { Self::Never })
    }
}

/// Puts a launch of a kernel that waits by itself into the stream; `args` points to as many arguments as the kernel declares.
///
/// # Errors
/// What the driver says.
pub(super) fn launch_early(
    function: sys::CUfunction,
    l: &Launch<'_>,
    stream: sys::CUstream,
    args: *mut *mut c_void,
) -> Result<(), DriverFault> {
    let id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    let value = sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 };
    let mut early = sys::CUlaunchAttribute { id, pad: [0; 4], value };
    let [x, y, z] = l.grid;
    let config = sys::CUlaunchConfig {
        gridDimX: x,
        gridDimY: y,
        gridDimZ: z,
        blockDimX: l.threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: l.shared_bytes,
        hStream: stream,
        attrs: &raw mut early,
        numAttrs: 1,
    };
    // SAFETY: the function is loaded; configuration, attribute and arguments outlive the call, before whose end they are copied.
    ok("cuLaunchKernelEx", unsafe { sys::cuLaunchKernelEx(&raw const config, function, args, std::ptr::null_mut()) })
}

#[cfg(test)]
mod tests {
    use super::super::super::device::{KernelName, Real};
    use super::super::kernels::{FILES, HEADERS, Source};
    use super::*;

    #[test]
    fn only_devices_and_drivers_that_have_it_are_asked_for_it() {
        let of = |switch, capability, driver| Overlap::new(switch, capability, driver);
        assert_eq!(of(None, (9, 0), 13_000), Ok(Overlap::Allowed));
        assert_eq!(of(Some("on"), (12, 0), 12_030), Ok(Overlap::Allowed));
        assert_eq!(of(Some("off"), (9, 0), 13_000), Ok(Overlap::Never));
        assert_eq!(of(None, (8, 9), 13_000), Ok(Overlap::Never));
        assert_eq!(of(None, (9, 0), 12_020), Ok(Overlap::Never));
        let said = of(Some("no"), (9, 0), 13_000).unwrap_err();
        assert!(said.contains("CENTIME_CUDA_OVERLAP: expected on or off, found \"no\""), "{said}");
    }

    /// A kernel launched early that does not wait reads what is not there yet.
    #[test]
    fn kernels_launched_early_wait_and_no_others_do() {
        for (name, text) in FILES {
            let file = name.trim_end_matches(".cu");
            let waits = |text: &str| text.contains("wait_for_before()");
            let included = |(header, of_it): &Source| text.contains(&format!("#include \"{header}\"")) && waits(of_it);
            let found = waits(text) || HEADERS.iter().filter(|(name, _)| *name != "common.h").any(included);
            let early = KernelName { file, kernel: "", real: Real::Bf16 }.waits_by_itself();
            assert_eq!(found, early, "{name}");
        }
    }
}
