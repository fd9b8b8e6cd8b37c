//! NVIDIA's libraries, found at run time: the driver, NVRTC (compiles our kernels) and cuBLASLt (matrix products).
//!
//! How one program serves CUDA 12 and 13: cudarc looks for a library under a list of names, first without a version
//! (`libnvrtc.so`, there with development packages), then with the major version that it was declared for, then `.so.12`,
//! `.so.11` and older ones. Declared for 13.0 it therefore takes `libnvrtc.so.13` and, where there is none, `libnvrtc.so.12`
//! (declared for 12.8 it would never find `.so.13`). What we call exists in both under the same names and with the same
//! arguments; symbols are looked up when first called. The driver's library, `libcuda.so.1`, has no such version.
//!
//! A folder that the system's loader does not search (a toolkit's, a Python package's) is looked through by path; once a
//! library is loaded, the loader answers cudarc's later call by the name that the library itself carries (`libnvrtc.so.13`).
//!
//! cudarc panics when a library is missing, so every one is asked for here before anything of it is called.

use cudarc::{cublaslt, driver, nvrtc};
use std::path::PathBuf;

/// Folders with libraries, before all others; separated as in `PATH`.
pub const FOLDERS: &str = "CENTIME_CUDA_LIBRARIES";

/// Major versions of CUDA that have been tried, the newest first.
const VERSIONS: [u32; 2] = [13, 12];

/// A library of NVIDIA's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    Driver,
    Compiler,
    Products,
}

impl Library {
    /// As in the file's name: `lib<name>.so.<version>`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Driver => "cuda",
            Self::Compiler => "nvrtc",
            Self::Products => "cublasLt",
        }
    }

    /// Whether it can be loaded, for a driver of this major version of CUDA; a newer library does not work with it.
    pub fn find(self, driver_version: u32) -> bool {
        if self == Self::Driver {
            return self.loads();
        }
        let asked_for = std::env::var_os(FOLDERS).map(|v| std::env::split_paths(&v).collect::<Vec<_>>());
        let found = asked_for.is_some_and(|folders| self.load_from(&folders, driver_version));
        found && self.loads() || self.loads() || self.load_from(&toolkits(), driver_version) && self.loads()
    }

    /// Whether cudarc can load it by one of its names.
    fn loads(self) -> bool {
        // SAFETY: loading runs the library's initialisers; these are NVIDIA's, which ask nothing of the caller.
        unsafe {
            match self {
                Self::Driver => driver::sys::is_culib_present(),
                Self::Compiler => nvrtc::sys::is_culib_present(),
                Self::Products => cublaslt::sys::is_culib_present(),
            }
        }
    }

    /// Loads the newest version that the driver can work with, and keeps it loaded.
    fn load_from(self, folders: &[PathBuf], driver_version: u32) -> bool {
        let files = VERSIONS
            .iter()
            .filter(|v| **v <= driver_version)
            .flat_map(|v| folders.iter().map(move |f| f.join(format!("lib{}.so.{v}", self.name()))));
        for file in files.filter(|f| f.is_file()) {
            // SAFETY: as above.
            if let Ok(library) = unsafe { libloading::Library::new(&file) } {
                // Unloading it would undo what this is for.
                std::mem::forget(library);
                return true;
            }
        }
        false
    }
}

/// Where toolkits lie that the loader has not been told of.
pub(super) fn toolkits() -> Vec<PathBuf> {
    let named = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    named.chain([PathBuf::from("/usr/local/cuda")]).flat_map(|root| [root.join("lib64"), root.join("lib")]).collect()
}
