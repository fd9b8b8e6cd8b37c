//! Kernels from source to machine code, by NVRTC.
//!
//! A device that the compiler knows gets code for its very architecture (`sm_90a` for 9.0, whose wgmma is not in `sm_90`); a newer
//! one gets PTX for the newest that the compiler knows, which the driver translates. No headers beside ours are needed.
//!
//! A compilation is of one kernel, whatever its file holds: with ONE_KERNEL defined, kernels are templates over an unused number, and
//! NVRTC makes the one instance that is named. (decode.cu's twelve take 10.8 s together, one of them 0.5 s.)

use super::super::device::{KernelName, Real};
use super::kernels::{HEADERS, source};
use super::nvrtc as sys;
use cudarc::nvrtc::sys::nvrtcProgram;
use sha2::{Digest, Sha256};
use std::ffi::{CStr, CString, c_char, c_int};

/// Why a kernel could not be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CompileError {
    #[error("there is no kernels/{0}.cu in this program")]
    NoSource(String),
    #[error("NVRTC: {operation}: {}{}", sys::words(*result), after(log))]
    Failed { operation: &'static str, result: c_int, log: String },
    #[error("{kernel} of kernels/{file}.cu does not compile for {architecture}:\n{log}")]
    Rejected { file: String, kernel: String, architecture: String, log: String },
    #[error("NVRTC {0}.{1} knows no architecture of this device's or before; use a newer one")]
    NoArchitecture(u32, u32),
}

/// Machine code, or PTX, that the driver loads, with one kernel in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// The kernel's name in it.
    pub symbol: String,
    pub code: Vec<u8>,
}

/// The compiler, for one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    pub version: (u32, u32),
    /// `sm_90a`, or `compute_100` where the driver has the last word.
    pub architecture: String,
}

/// `NVRTC_ERROR_COMPILATION`: it is the source that does not compile.
const REJECTED: c_int = 6;

fn ok(operation: &'static str, result: c_int) -> Result<(), CompileError> {
    match result {
        0 => Ok(()),
        result => Err(CompileError::Failed { operation, result, log: String::new() }),
    }
}

/// What the compiler wrote, on lines of its own.
fn after(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("; its log:\n{log}") }
}

/// The version of the library, major and minor.
///
/// # Errors
/// What NVRTC says. The library has to be there: see [`super::libraries`].
pub(crate) fn version() -> Result<(u32, u32), CompileError> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both point to an int that outlives the call.
    ok("nvrtcVersion", unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) })?;
    Ok((major.unsigned_abs(), minor.unsigned_abs()))
}

/// Architectures that the library has code for, as in 90 for 9.0, in rising order.
fn supported() -> Result<Vec<u32>, CompileError> {
    let mut count: c_int = 0;
    // SAFETY: points to an int that outlives the call.
    ok("nvrtcGetNumSupportedArchs", unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) })?;
    let mut all: Vec<c_int> = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: the library writes as many ints as it has just said.
    ok("nvrtcGetSupportedArchs", unsafe { sys::nvrtcGetSupportedArchs(all.as_mut_ptr()) })?;
    Ok(all.into_iter().map(c_int::unsigned_abs).collect())
}

impl Compiler {
    /// For a device of this compute capability.
    ///
    /// # Errors
    /// A compiler that knows neither the device nor anything before it.
    pub(crate) fn new(capability: (u32, u32)) -> Result<Self, CompileError> {
        let version = version()?;
        let wanted = capability.0 * 10 + capability.1;
        let known = supported()?;
        let architecture = match known.iter().rev().find(|a| **a <= wanted) {
            Some(90) if wanted == 90 => "sm_90a".into(),
            Some(&best) if best == wanted => format!("sm_{best}"),
            Some(best) => format!("compute_{best}"),
            None => return Err(CompileError::NoArchitecture(version.0, version.1)),
        };
        Ok(Self { version, architecture })
    }

    /// Lambdas within kernels are device functions: NVRTC 13 takes them to be, 12 wants to be told.
    fn options(&self, real: Real) -> Vec<String> {
        let define = match real {
            Real::F32 => "REAL_F32",
            Real::Bf16 => "REAL_BF16",
        };
        ["--std=c++17", "--device-as-default-execution-space", "--extra-device-vectorization"]
            .map(String::from)
            .into_iter()
            .chain([format!("--gpu-architecture={}", self.architecture), format!("-D{define}"), "-DONE_KERNEL".into()])
            .collect()
    }

    /// A name for what compiling a kernel gives: of source, headers, options, architecture and version.
    ///
    /// # Errors
    /// [`CompileError::NoSource`].
    pub(crate) fn key(&self, name: KernelName) -> Result<String, CompileError> {
        let KernelName { file, kernel, real } = name;
        let text = source(file).ok_or_else(|| CompileError::NoSource(file.into()))?;
        let mut hash = Sha256::new();
        let version = format!("{}.{}", self.version.0, self.version.1);
        let parts = HEADERS.iter().flat_map(|(name, text)| [*name, *text]).chain([file, kernel, text, &version]);
        for part in parts.map(String::from).chain(self.options(real)) {
            // Lengths keep neighbouring parts apart.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Compiles a kernel.
    ///
    /// # Errors
    /// The compiler's messages.
    pub(crate) fn compile(&self, KernelName { file, kernel, real }: KernelName) -> Result<Image, CompileError> {
        let text = source(file).ok_or_else(|| CompileError::NoSource(file.into()))?;
        let program = Program::new(file, text)?;
        let instance = CString::new(format!("{kernel}<0>")).unwrap_or_default();
        // SAFETY: the program lives; the string outlives the call, which copies it.
        ok("nvrtcAddNameExpression", unsafe { sys::nvrtcAddNameExpression(program.0, instance.as_ptr()) })?;
        let options: Vec<CString> = self.options(real).into_iter().filter_map(|o| CString::new(o).ok()).collect();
        let pointers: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        // SAFETY: the program lives; as many pointers to strings that outlive the call as are said.
        let result = unsafe { sys::nvrtcCompileProgram(program.0, pointers.len() as c_int, pointers.as_ptr()) };
        match result {
            0 => {}
            REJECTED => {
                let (file, kernel, architecture) = (file.into(), kernel.into(), self.architecture.clone());
                return Err(CompileError::Rejected { file, kernel, architecture, log: program.log() });
            }
            // The log has the reason here as well: a part of the compiler that it cannot open, for one.
            result => {
                let operation = "nvrtcCompileProgram";
                return Err(CompileError::Failed { operation, result, log: program.log() });
            }
        }
        let symbol = program.symbol(&instance)?;
        let code = if self.architecture.starts_with("sm_") {
            program.take("nvrtcGetCUBIN", sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN)?
        } else {
            program.take("nvrtcGetPTX", sys::nvrtcGetPTXSize, sys::nvrtcGetPTX)?
        };
        Ok(Image { symbol, code })
    }
}

/// Owns a program of NVRTC's.
struct Program(nvrtcProgram);

type Size = unsafe fn(nvrtcProgram, *mut usize) -> c_int;
type Get = unsafe fn(nvrtcProgram, *mut c_char) -> c_int;

impl Program {
    fn new(file: &str, text: &str) -> Result<Self, CompileError> {
        let string = |s: &str| CString::new(s).unwrap_or_default();
        let (text, name) = (string(text), string(&format!("{file}.cu")));
        let headers: Vec<(CString, CString)> = HEADERS.iter().map(|(n, t)| (string(n), string(t))).collect();
        let names: Vec<*const c_char> = headers.iter().map(|(n, _)| n.as_ptr()).collect();
        let texts: Vec<*const c_char> = headers.iter().map(|(_, t)| t.as_ptr()).collect();
        let mut program = std::ptr::null_mut();
        let (count, texts, names) = (headers.len() as c_int, texts.as_ptr(), names.as_ptr());
        // SAFETY: the strings outlive the call, which copies them, and there are `count` of each.
        let result =
            unsafe { sys::nvrtcCreateProgram(&raw mut program, text.as_ptr(), name.as_ptr(), count, texts, names) };
        ok("nvrtcCreateProgram", result)?;
        Ok(Self(program))
    }

    fn take(&self, operation: &'static str, size: Size, get: Get) -> Result<Vec<u8>, CompileError> {
        let mut len = 0;
        // SAFETY: the program lives; `len` outlives the call.
        ok(operation, unsafe { size(self.0, &raw mut len) })?;
        let mut bytes = vec![0u8; len];
        // SAFETY: the library writes as many bytes as it has just said.
        ok(operation, unsafe { get(self.0, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }

    /// What an instance is called in what was compiled.
    fn symbol(&self, instance: &CStr) -> Result<String, CompileError> {
        let mut name = std::ptr::null();
        // SAFETY: the program lives; the string is the one that was added; `name` outlives the call.
        ok("nvrtcGetLoweredName", unsafe { sys::nvrtcGetLoweredName(self.0, instance.as_ptr(), &raw mut name) })?;
        // SAFETY: a string of the program's, which lives.
        Ok(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
    }

    fn log(&self) -> String {
        let log = self.take("nvrtcGetProgramLog", sys::nvrtcGetProgramLogSize, sys::nvrtcGetProgramLog);
        let text = log.map(|l| String::from_utf8_lossy(&l).into_owned()).unwrap_or_default();
        text.trim_end_matches(['\0', '\n']).into()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `new` and destroyed once.
        let _ = unsafe { sys::nvrtcDestroyProgram(&raw mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernels::FILES;
    use super::super::libraries::Library;
    use super::*;

    /// Kernels that a file's text names: all that are no macro's.
    fn exported(text: &str) -> Vec<&'static str> {
        let names = text.lines().filter_map(|line| line.strip_prefix("EXPORT(")?.strip_suffix(')'));
        names.filter(|name| !name.contains('#')).map(|name| &*String::from(name).leak()).collect()
    }

    /// All of them, and for other architectures and versions, are compiled by ci/kernels: here it is that each can be had by itself.
    #[test]
    fn every_kernel_that_a_file_names_compiles_by_itself() {
        if let Err(missing) = Library::Compiler.open(u32::MAX) {
            return eprintln!("skipped: {missing}");
        }
        let version = version().unwrap();
        eprintln!("NVRTC {}.{}", version.0, version.1);
        let compiler = Compiler { version, architecture: "compute_90a".into() };
        let all = FILES.iter().flat_map(|(file, text)| {
            exported(text).into_iter().map(|kernel| KernelName {
                file: file.trim_end_matches(".cu"),
                kernel,
                real: Real::Bf16,
            })
        });
        for name in all {
            let image = compiler.compile(name).unwrap_or_else(|e| panic!("{e}"));
            let text = String::from_utf8_lossy(&image.code).into_owned();
            assert_eq!(text.matches(".entry").count(), 1, "{name:?}");
            assert!(text.contains(&image.symbol) && image.symbol.contains(name.kernel), "{name:?}: {}", image.symbol);
        }
    }

    #[test]
    fn the_newest_architecture_that_is_not_newer_than_the_device_is_taken() {
        if let Err(missing) = Library::Compiler.open(u32::MAX) {
            return eprintln!("skipped: {missing}");
        }
        let of = |capability| Compiler::new(capability).unwrap().architecture;
        assert_eq!(of((8, 0)), "sm_80");
        assert_eq!(of((9, 0)), "sm_90a");
        assert!(of((99, 0)).starts_with("compute_"));
    }

    #[test]
    fn keys_tell_kernel_format_architecture_and_version_apart() {
        let base = Compiler { version: (12, 9), architecture: "sm_80".into() };
        let others =
            [Compiler { version: (13, 0), ..base.clone() }, Compiler { architecture: "sm_90a".into(), ..base.clone() }];
        let name = |kernel, real| KernelName { file: "elementwise", kernel, real };
        let key = base.key(name("add", Real::F32)).unwrap();
        assert_eq!(key, base.key(name("add", Real::F32)).unwrap());
        assert_ne!(key, base.key(name("add", Real::Bf16)).unwrap());
        assert_ne!(key, base.key(name("fill", Real::F32)).unwrap());
        for other in others {
            assert_ne!(key, other.key(name("add", Real::F32)).unwrap());
        }
        let nothing = KernelName { file: "nothing", ..name("add", Real::F32) };
        assert!(matches!(base.key(nothing), Err(CompileError::NoSource(_))));
    }
}
