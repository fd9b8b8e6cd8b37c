//! Kernels as the driver has loaded them, by file, format and name.

use super::super::device::{Arg, KernelName, Launch};
use super::compiler::CompileError;
use super::fault::{DriverFault, ok};
use super::images::Images;
use super::overlap::{Overlap, launch_early};
use cudarc::driver::sys;
use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};

/// Why a kernel did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Driver(#[from] DriverFault),
}

#[derive(Clone, Copy, Debug)]
struct Function {
    module: sys::CUmodule,
    handle: sys::CUfunction,
    /// Dynamic shared memory that was asked for. Unasked it may have 48 KiB, less what it has of its own, which only the compiler knows.
    shared: u32,
}

/// Everything loaded so far: a module for each kernel.
#[derive(Debug)]
pub(super) struct Modules {
    images: Images,
    functions: HashMap<KernelName, Function>,
    overlap: Overlap,
    /// Whether the last launch was of a kernel that waits by itself. Only after such a one does the next begin early: weights that
    /// other kernels have just written are then there.
    waited: bool,
}

// SAFETY: modules and functions are handles of a context, which any thread that has it current may use.
unsafe impl Send for Modules {}

impl Modules {
    pub(super) fn new(images: Images, overlap: Overlap) -> Self {
        Self { images, functions: HashMap::new(), overlap, waited: false }
    }

    /// Compiles and loads these; what fails is told when it is launched.
    pub(super) fn prepare(&mut self, names: &[KernelName]) {
        self.images.get_all(names);
        for name in names {
            if !self.functions.contains_key(name)
                && let Ok(function) = self.load(*name)
            {
                self.functions.insert(*name, function);
            }
        }
    }

    /// Whether a kernel has been loaded.
    pub(super) fn knows(&self, name: &KernelName) -> bool {
        self.functions.contains_key(name)
    }

    fn load(&self, name: KernelName) -> Result<Function, LaunchError> {
        let image = self.images.get(name)?;
        // PTX is a string: the driver looks for its end.
        let code = [image.code.as_slice(), &[0]].concat();
        let mut module = std::ptr::null_mut();
        // SAFETY: the image is whole (its sum was checked) and outlives the call.
        ok("cuModuleLoadData", unsafe { sys::cuModuleLoadData(&raw mut module, code.as_ptr().cast()) })?;
        let symbol = CString::new(image.symbol.as_str()).unwrap_or_default();
        let mut handle = std::ptr::null_mut();
        // SAFETY: the module is loaded; the name outlives the call.
        let found = unsafe { sys::cuModuleGetFunction(&raw mut handle, module, symbol.as_ptr()) };
        if let Err(e) = ok("cuModuleGetFunction", found) {
            unload(module);
            return Err(e.into());
        }
        Ok(Function { module, handle, shared: 0 })
    }

    fn function(&mut self, l: &Launch<'_>) -> Result<sys::CUfunction, LaunchError> {
        let key = l.name();
        let mut function = match self.functions.get(&key) {
            Some(f) if f.shared >= l.shared_bytes => return Ok(f.handle),
            Some(f) => *f,
            None => self.load(key)?,
        };
        self.functions.insert(key, function);
        if l.shared_bytes > function.shared {
            let which = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = c_int::try_from(l.shared_bytes).unwrap_or(c_int::MAX);
            // SAFETY: the function belongs to a loaded module.
            let result = unsafe { sys::cuFuncSetAttribute(function.handle, which, bytes) };
            ok("cuFuncSetAttribute", result)?;
            function.shared = l.shared_bytes;
        }
        self.functions.insert(key, function);
        Ok(function.handle)
    }

    /// Unloads all of them; the context is current, and nothing runs.
    pub(super) fn clear(&mut self) {
        self.functions.drain().for_each(|(_, function)| unload(function.module));
    }

    /// Puts a launch into the stream.
    ///
    /// # Errors
    /// What the compiler or the driver says.
    pub(super) fn launch(&mut self, l: &Launch<'_>, stream: sys::CUstream) -> Result<(), LaunchError> {
        let function = self.function(l)?;
        let values: Vec<Word> = l.args.iter().map(|a| Word::from(*a)).collect();
        let mut pointers: Vec<*mut c_void> = values.iter().map(|v| std::ptr::from_ref(v).cast_mut().cast()).collect();
        let ([x, y, z], args) = (l.grid, pointers.as_mut_ptr());
        let waits = l.name().waits_by_itself();
        if std::mem::replace(&mut self.waited, waits) && waits && self.overlap == Overlap::Allowed {
            return Ok(launch_early(function, l, stream, args)?);
        }
        // SAFETY: the function is loaded; the driver copies the arguments before it returns, as many as the kernel declares, whose
        // launch function in this folder lists them.
        let result = unsafe {
            sys::cuLaunchKernel(function, x, y, z, l.threads, 1, 1, l.shared_bytes, stream, args, std::ptr::null_mut())
        };
        Ok(ok("cuLaunchKernel", result)?)
    }
}

fn unload(module: sys::CUmodule) {
    // SAFETY: loaded by `load`, unloaded once; its function is forgotten.
    let _ = unsafe { sys::cuModuleUnload(module) };
}

/// An argument as it lies in memory: at its start, in its C type.
#[repr(C, align(8))]
struct Word([u8; 8]);

impl From<Arg> for Word {
    fn from(arg: Arg) -> Self {
        let mut bytes = [0; 8];
        match arg {
            Arg::Address(v) | Arg::U64(v) => bytes = v.to_ne_bytes(),
            Arg::I64(v) => bytes = v.to_ne_bytes(),
            Arg::I32(v) => bytes[..4].copy_from_slice(&v.to_ne_bytes()),
            Arg::F32(v) => bytes[..4].copy_from_slice(&v.to_ne_bytes()),
        }
        Self(bytes)
    }
}
