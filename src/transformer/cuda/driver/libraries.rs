//! NVIDIA's libraries, found at run time: the driver, NVRTC (compiles our kernels), cuBLASLt (matrix products) and NCCL (several GPUs).
//!
//! How one program serves CUDA 12 and 13: a library is looked for with the major version of CUDA that the driver is for, then with
//! older ones, and never with a newer one, which does not work with that driver. What we call exists in all of them under the same
//! names and with the same arguments; functions are looked up when first called. `libcuda.so.1` has no such version, and is opened by
//! cudarc; the others are opened here and nowhere else, since cudarc would take a `libnvrtc.so` of whatever version first, and panics
//! where there is none.
//!
//! Looked through, in this order: the folders that the user names, what the system's loader finds, toolkits that the loader has not
//! been told of, and Python's `nvidia` packages, which are all that a machine with PyTorch has.
//!
//! A library that is opened by its path is on its own: what it opens later by a bare name is found only if the loader knows it, or if
//! the library says where it lies itself. NVRTC opens `libnvrtc-builtins.so.<version>` when it first compiles, and that of PyTorch's
//! packages for CUDA 13.0 says nothing: every compilation fails. Once a library of that name is loaded, the loader answers with it;
//! so it is loaded first.

use super::python;
use cudarc::driver;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Folders with libraries, before all others; separated as in `PATH`.
pub(crate) const FOLDERS: &str = "CENTIME_CUDA_LIBRARIES";

/// Major versions of CUDA that have been tried, the newest first.
const VERSIONS: [u32; 2] = [13, 12];

/// A library of NVIDIA's beside the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    Compiler,
    Products,
    Collectives,
}

/// A library that is open, until the process ends.
#[derive(Debug)]
pub(crate) struct Open {
    library: libloading::Library,
    /// What it was asked for by: a path, or a bare name that the system's loader knows.
    file: PathBuf,
}

/// Where a library was looked for in vain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotFound {
    /// Names of its file, the best first.
    names: Vec<String>,
    folders: Vec<PathBuf>,
    /// Files that are there and cannot be loaded, with the loader's reasons.
    refused: Vec<String>,
}

/// `libnvrtc.so.13 or libnvrtc.so.12 is not found: the system's loader has none, and none lies in /a, /b`
impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names.join(" or ");
        if !self.refused.is_empty() {
            return write!(f, "{names} cannot be loaded: {}", self.refused.join("; "));
        }
        let folders: Vec<String> = self.folders.iter().map(|p| p.display().to_string()).collect();
        write!(f, "{names} is not found: the system's loader has none, and none lies in {}", folders.join(", "))
    }
}

/// Whether the driver's own library can be loaded.
pub(crate) fn driver_is_there() -> bool {
    // SAFETY: loading runs the library's initialisers; these are NVIDIA's, which ask nothing of the caller.
    unsafe { driver::sys::is_culib_present() }
}

impl Library {
    /// As in the file's name: `lib<name>.so.<version>`.
    fn name(self) -> &'static str {
        match self {
            Self::Compiler => "nvrtc",
            Self::Products => "cublasLt",
            Self::Collectives => "nccl",
        }
    }

    /// Names of its file for a driver of this major version of CUDA, the best first.
    fn names(self, driver_version: u32) -> Vec<String> {
        match self {
            Self::Collectives => vec!["libnccl.so.2".into()],
            _ => {
                let fitting = VERSIONS.iter().filter(|v| **v <= driver_version);
                fitting.map(|v| format!("lib{}.so.{v}", self.name())).collect()
            }
        }
    }

    fn slot(self) -> &'static OnceLock<Result<Open, NotFound>> {
        static SLOTS: [OnceLock<Result<Open, NotFound>>; 3] = [const { OnceLock::new() }; 3];
        &SLOTS[self as usize]
    }

    /// Opens it for a driver of this major version of CUDA. Looked for once.
    ///
    /// # Errors
    /// Where it was looked for.
    pub(crate) fn open(self, driver_version: u32) -> Result<&'static Open, &'static NotFound> {
        self.slot().get_or_init(|| search(&self.names(driver_version), &places())).as_ref()
    }

    /// A function of it; none where it is not open or has none of this name.
    ///
    /// # Safety
    /// `F` is the function's type.
    pub(super) unsafe fn function<F: Copy>(self, name: &[u8]) -> Option<F> {
        let open = self.slot().get()?.as_ref().ok()?;
        // SAFETY: the caller's; the library is never unloaded.
        unsafe { open.library.get::<F>(name) }.ok().map(|f| *f)
    }
}

impl Open {
    /// The file, as far as the system tells; else what it was asked for by.
    pub(crate) fn location(&self) -> PathBuf {
        let name = self.file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let mut files = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
        let loaded = files.find(|f| f.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&name)));
        loaded.map_or_else(|| self.file.clone(), Path::to_path_buf)
    }
}

/// Where libraries are looked for: groups of folders, of which the first that has the library counts; `None` is the loader's own.
fn places() -> Vec<Option<Vec<PathBuf>>> {
    let named = std::env::var_os(FOLDERS).map(|v| std::env::split_paths(&v).filter(|p| *p != Path::new("")).collect());
    let python = python::Surroundings::of_process().sites().into_iter().map(|site| Some(python::libraries(&site)));
    [named, None, Some(toolkits(|name| std::env::var_os(name)))]
        .into_iter()
        .enumerate()
        .filter(|(i, place)| *i == 1 || place.is_some())
        .map(|(_, place)| place)
        .chain(python)
        .collect()
}

/// Where toolkits lie that the loader has not been told of.
fn toolkits(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let named = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable).map(PathBuf::from);
    named.chain([PathBuf::from("/usr/local/cuda")]).flat_map(|root| [root.join("lib64"), root.join("lib")]).collect()
}

/// The first of these names in the first place that has one which loads.
fn search(names: &[String], places: &[Option<Vec<PathBuf>>]) -> Result<Open, NotFound> {
    let mut missed = NotFound { names: names.to_vec(), folders: Vec::new(), refused: Vec::new() };
    for place in places {
        let files: Vec<PathBuf> = match place {
            None => names.iter().map(PathBuf::from).collect(),
            Some(folders) => {
                missed
                    .folders
                    .extend(folders.iter().filter(|f| !missed.folders.contains(f)).cloned().collect::<Vec<_>>());
                let all = names.iter().flat_map(|name| folders.iter().map(move |f| f.join(name)));
                all.filter(|file| file.is_file()).collect()
            }
        };
        for file in files {
            load_builtins(&file);
            match load(&file) {
                Ok(library) => return Ok(Open { library, file }),
                Err(e) if place.is_some() => missed.refused.push(e.to_string()),
                // The loader says the same of a file that is not there and of one that it cannot open.
                Err(_) => {}
            }
        }
    }
    Err(missed)
}

fn load(file: &Path) -> Result<libloading::Library, libloading::Error> {
    // SAFETY: loading runs the library's initialisers; these are NVIDIA's, which ask nothing of the caller.
    unsafe { libloading::Library::new(file) }
}

/// Loads what NVRTC will open by a bare name, where that lies in its folder: `libnvrtc-builtins.so.13.0` beside `libnvrtc.so.13`.
fn load_builtins(nvrtc: &Path) {
    let Some(name) = nvrtc.file_name().and_then(|n| n.to_str()) else { return };
    let (Some(version), Some(folder)) = (name.strip_prefix("libnvrtc.so."), nvrtc.parent()) else { return };
    let prefix = format!("libnvrtc-builtins.so.{version}.");
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    for file in files.filter(|f| f.file_name().to_string_lossy().starts_with(&prefix)) {
        if let Ok(library) = load(&file.path()) {
            // Unloading it would undo what this is for.
            std::mem::forget(library);
        }
    }
}

/// Functions of a library, each looked up when first called. One that is missing answers what stands after `else`.
macro_rules! functions {
    ($library:expr; $($(#[$doc:meta])* fn $name:ident($($arg:ident: $of:ty),* $(,)?) -> $result:ty, else $missing:expr;)+) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As NVIDIA's documentation of the function has it.
        #[expect(non_snake_case, reason = "NVIDIA's names")]
        #[allow(clippy::too_many_arguments, reason = "NVIDIA's functions")]
        pub(super) unsafe fn $name($($arg: $of),*) -> $result {
            type F = unsafe extern "C" fn($($of),*) -> $result;
            static FOUND: std::sync::OnceLock<F> = std::sync::OnceLock::new();
            let found = FOUND.get().copied().or_else(|| {
                // SAFETY: the type is that of NVIDIA's header, the same in every version that is opened.
                let function = unsafe { $library.function::<F>(concat!(stringify!($name), "\0").as_bytes()) };
                function.map(|f| *FOUND.get_or_init(|| f))
            });
            match found {
                // SAFETY: the caller's.
                Some(function) => unsafe { function($($arg),*) },
                None => $missing,
            }
        }
    )+};
}
pub(super) use functions;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|n| (*n).into()).collect()
    }

    #[test]
    fn no_library_is_newer_than_the_driver() {
        assert_eq!(Library::Compiler.names(13), names(&["libnvrtc.so.13", "libnvrtc.so.12"]));
        assert_eq!(Library::Products.names(12), names(&["libcublasLt.so.12"]));
        assert_eq!(Library::Products.names(u32::MAX), names(&["libcublasLt.so.13", "libcublasLt.so.12"]));
        assert_eq!(Library::Collectives.names(12), names(&["libnccl.so.2"]));
    }

    #[test]
    fn what_is_missing_is_told_with_every_folder_and_what_does_not_load_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        let places = [Some(vec![empty.clone()]), None, Some(vec![folder.path().into(), empty.clone()])];
        let wanted = names(&["libabsent.so.13", "libabsent.so.12"]);
        let missed = search(&wanted, &places).unwrap_err();
        assert_eq!(missed.folders, [empty.clone(), folder.path().into()], "each once, in order");
        let said = missed.to_string();
        assert!(
            said.starts_with("libabsent.so.13 or libabsent.so.12 is not found: the system's loader has none"),
            "{said}"
        );
        assert!(said.ends_with(&format!("none lies in {}, {}", empty.display(), folder.path().display())), "{said}");

        std::fs::write(folder.path().join("libabsent.so.12"), "no library").unwrap();
        let said = search(&wanted, &places).unwrap_err().to_string();
        assert!(said.contains("cannot be loaded") && said.contains("libabsent.so.12"), "{said}");
    }

    /// Libraries of the host stand in for NVIDIA's: what is tested is which file is taken.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_newest_version_of_the_first_place_is_taken() {
        let Some(libc) = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6"]
            .iter()
            .map(Path::new)
            .find(|p| p.is_file())
        else {
            return println!("skipped: no libm.so.6 where it usually is");
        };
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|n| folder.path().join(n));
        for (place, name) in [(&first, "libx.so.12"), (&second, "libx.so.12"), (&second, "libx.so.13")] {
            std::fs::create_dir_all(place).unwrap();
            std::fs::copy(libc, place.join(name)).unwrap();
        }
        let wanted = names(&["libx.so.13", "libx.so.12"]);
        let taken = |places: &[Option<Vec<PathBuf>>]| search(&wanted, places).unwrap().file;
        assert_eq!(taken(&[Some(vec![first.clone()]), Some(vec![second.clone()])]), first.join("libx.so.12"));
        assert_eq!(taken(&[Some(vec![first, second.clone()])]), second.join("libx.so.13"), "one place");
        let open = search(&names(&["libm.so.6"]), &[None]).unwrap();
        assert!(open.location().is_absolute(), "{:?}", open.location());
    }

    #[test]
    fn toolkits_are_named_or_where_they_are_installed() {
        let of = |set: &'static str| toolkits(move |name| (name == set).then(|| "/opt/cuda".into()));
        assert_eq!(of("CUDA_PATH")[..2], ["/opt/cuda/lib64", "/opt/cuda/lib"].map(PathBuf::from));
        assert_eq!(of("nothing"), ["/usr/local/cuda/lib64", "/usr/local/cuda/lib"].map(PathBuf::from));
    }
}
