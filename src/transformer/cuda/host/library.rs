//! One kernel file, compiled for the host and loaded.
//!
//! Shared objects are kept under the target directory, named by a hash of everything that they are made of. Processes that
//! build the same one at once each write a file of their own and rename it: the last wins, and all are equal.

use super::super::device::{Launch, Real};
use super::lock;
use libloading::Symbol;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

/// What a test says about the compiler: which, and its version; `None` when there is none.
pub(super) fn compiler() -> Option<&'static str> {
    static VERSION: OnceLock<Option<String>> = OnceLock::new();
    let ask = || {
        let said = Command::new("g++").arg("--version").output().ok().filter(|o| o.status.success())?;
        String::from_utf8(said.stdout).ok()
    };
    VERSION.get_or_init(ask).as_deref()
}

/// Sanitizers without a runtime: what they find traps, and the shim says where.
const FLAGS: &[&str] = &[
    "-std=c++17",
    "-O2",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-shared",
    "-fPIC",
    "-DCENTIME_HOST",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-threadsafe-statics",
    "-fno-strict-aliasing",
    "-fvisibility=hidden",
    "-U_FORTIFY_SOURCE",
    "-fsanitize=alignment,bounds,integer-divide-by-zero",
    "-fsanitize-undefined-trap-on-error",
];

type Launcher =
    unsafe extern "C" fn(*const u32, u32, u32, *mut *mut c_void, *const c_char, *mut c_char, usize) -> c_int;

#[derive(Debug)]
pub(super) struct Library {
    loaded: libloading::Library,
    /// A library runs one launch at a time: shared memory and the indices of threads are its statics.
    turn: Mutex<()>,
}

fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/transformer/cuda/kernels")
}

/// `<target>/<profile>/cuda-host`, beside the `deps` that this test runs from.
fn folder() -> Result<PathBuf, String> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let profile = exe.parent().and_then(Path::parent).ok_or("the test has no folder")?;
    Ok(profile.join("cuda-host"))
}

/// Names and texts of everything that a kernel file can include.
fn headers() -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in [kernels(), kernels().join("host")] {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "h") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn build(source: &Path, real: Real) -> Result<PathBuf, String> {
    let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let define = match real {
        Real::F32 => "-DREAL_F32",
        Real::Bf16 => "-DREAL_BF16",
    };
    let mut hash = Sha256::new();
    hash.update(compiler().unwrap_or_default());
    hash.update(FLAGS.join(" "));
    hash.update(define);
    for path in headers().map_err(|e| e.to_string())?.iter().map(PathBuf::as_path).chain([source]) {
        hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?);
    }
    let key: String = hash.finalize().iter().take(12).map(|b| format!("{b:02x}")).collect();
    let folder = folder()?;
    let finished = folder.join(format!("{name}-{real:?}-{key}.so").to_lowercase());
    if finished.exists() {
        return Ok(finished);
    }
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    // Own to this process and thread, so that no one else loads half of it.
    let thread = format!("{:?}", std::thread::current().id()).replace(['(', ')'], "");
    let partial = finished.with_extension(format!("{}-{thread}", std::process::id()));
    let said = Command::new("g++")
        .args(FLAGS)
        .arg(define)
        .arg("-I")
        .arg(kernels())
        .arg("-I")
        .arg(kernels().join("host"))
        .args(["-x", "c++"])
        .arg(source)
        .arg("-o")
        .arg(&partial)
        .output()
        .map_err(|e| format!("g++: {e}"))?;
    if !said.status.success() {
        return Err(format!("g++ on {}: {}", source.display(), String::from_utf8_lossy(&said.stderr)));
    }
    fs::rename(&partial, &finished).map_err(|e| format!("{}: {e}", partial.display()))?;
    Ok(finished)
}

impl Library {
    /// `kernels/<file>.cu` for `real` with each `(from, to)` replaced in its text, where it must stand exactly once.
    pub(super) fn altered(file: &str, real: Real, edits: &[(&str, &str)]) -> Result<Self, String> {
        let mut text = fs::read_to_string(kernels().join(format!("{file}.cu"))).map_err(|e| e.to_string())?;
        for (from, to) in edits {
            if text.matches(from).count() != 1 {
                return Err(format!(
                    "`{from}` stands {} times in {file}.cu, expected once",
                    text.matches(from).count()
                ));
            }
            text = text.replace(from, to);
        }
        // Own to its content, for compilers that run at once.
        let hash = Sha256::digest(text.as_bytes());
        let key: String = hash.iter().take(8).map(|b| format!("{b:02x}")).collect();
        fs::create_dir_all(folder()?).map_err(|e| e.to_string())?;
        let source = folder()?.join(format!("{file}-{key}.cu"));
        fs::write(&source, text).map_err(|e| format!("{}: {e}", source.display()))?;
        Self::load(&build(&source, real)?)
    }

    fn load(path: &Path) -> Result<Self, String> {
        // SAFETY: made by us of our own sources; it has no initialisers.
        let loaded = unsafe { libloading::Library::new(path) }.map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self { loaded, turn: Mutex::new(()) })
    }

    /// `kernels/<file>.cu`, compiled for `real` once.
    pub(super) fn of(file: &'static str, real: Real) -> Result<Arc<Self>, String> {
        type Slot = Arc<Mutex<Option<Arc<Library>>>>;
        static ALL: OnceLock<Mutex<HashMap<(&'static str, Real), Slot>>> = OnceLock::new();
        let slot = lock(ALL.get_or_init(Mutex::default)).entry((file, real)).or_default().clone();
        // One builds, whoever wants the same one waits, and others go their way.
        let mut slot = lock(&slot);
        if let Some(library) = &*slot {
            return Ok(Arc::clone(library));
        }
        let path = build(&kernels().join(format!("{file}.cu")), real)?;
        let library = Arc::new(Self::load(&path)?);
        *slot = Some(Arc::clone(&library));
        Ok(library)
    }

    /// Runs a kernel to its end.
    pub(super) fn launch(&self, launch: &Launch<'_>, args: &mut [*mut c_void], types: &str) -> Result<(), String> {
        let missing = |e: libloading::Error| format!("{}.cu exports no {}: {e}", launch.file, launch.kernel);
        let symbol = format!("launch_{}", launch.kernel);
        // SAFETY: every symbol of this prefix is made by the shim's EXPORT, of this type.
        let launcher: Symbol<'_, Launcher> = unsafe { self.loaded.get(&symbol) }.map_err(missing)?;
        let types = CString::new(types).map_err(|e| e.to_string())?;
        let mut error = [0u8; 512];
        let _turn = lock(&self.turn);
        // SAFETY: `args` are as many values as `types` says, of these types, which the launcher compares with the kernel's
        // parameters first; the error's capacity is its length.
        let code = unsafe {
            launcher(
                launch.grid.as_ptr(),
                launch.threads,
                launch.shared_bytes,
                args.as_mut_ptr(),
                types.as_ptr(),
                error.as_mut_ptr().cast(),
                error.len(),
            )
        };
        let end = error.iter().position(|b| *b == 0).unwrap_or(error.len());
        if code == 0 { Ok(()) } else { Err(String::from_utf8_lossy(&error[..end]).into_owned()) }
    }
}
