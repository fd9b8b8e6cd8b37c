//! Kernels as the driver has loaded them, by file, format and name.

use super::super::device::{Arg, Launch, Real};
use super::cache::Cache;
use super::compiler::{CompileError, Compiler};
use super::fault::{DriverFault, ok};
use cudarc::driver::sys;
use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};

/// Dynamic shared memory that a kernel may have without asking for it.
const UNASKED_SHARED: u32 = 48 << 10;

/// Why a kernel did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Driver(#[from] DriverFault),
}

#[derive(Clone, Copy, Debug)]
struct Function {
    handle: sys::CUfunction,
    /// Dynamic shared memory that it may have.
    shared: u32,
}

/// Everything loaded so far.
#[derive(Debug)]
pub struct Modules {
    compiler: Compiler,
    cache: Cache,
    modules: HashMap<(&'static str, Real), sys::CUmodule>,
    functions: HashMap<(&'static str, &'static str, Real), Function>,
}

// SAFETY: modules and functions are handles of a context, which any thread that has it current may use.
unsafe impl Send for Modules {}

impl Modules {
    pub fn new(compiler: Compiler, cache: Cache) -> Self {
        Self { compiler, cache, modules: HashMap::new(), functions: HashMap::new() }
    }

    fn module(&mut self, file: &'static str, real: Real) -> Result<sys::CUmodule, LaunchError> {
        if let Some(module) = self.modules.get(&(file, real)) {
            return Ok(*module);
        }
        let image = self.cache.get(&self.compiler.key(file, real)?, || self.compiler.compile(file, real))?;
        // PTX is a string: the driver looks for its end.
        let mut bytes = image.0;
        bytes.push(0);
        let mut module = std::ptr::null_mut();
        // SAFETY: the image is whole (its sum was checked) and outlives the call.
        ok("cuModuleLoadData", unsafe { sys::cuModuleLoadData(&raw mut module, bytes.as_ptr().cast()) })?;
        self.modules.insert((file, real), module);
        Ok(module)
    }

    fn function(&mut self, l: &Launch<'_>) -> Result<sys::CUfunction, LaunchError> {
        let key = (l.file, l.kernel, l.real);
        let mut function = match self.functions.get(&key) {
            Some(f) if f.shared >= l.shared_bytes => return Ok(f.handle),
            Some(f) => *f,
            None => {
                let module = self.module(l.file, l.real)?;
                let name = CString::new(l.kernel).unwrap_or_default();
                let mut handle = std::ptr::null_mut();
                // SAFETY: the module is loaded; the name outlives the call.
                let result = unsafe { sys::cuModuleGetFunction(&raw mut handle, module, name.as_ptr()) };
                ok("cuModuleGetFunction", result)?;
                Function { handle, shared: UNASKED_SHARED }
            }
        };
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
    pub fn clear(&mut self) {
        self.functions.clear();
        for (_, module) in self.modules.drain() {
            // SAFETY: loaded by `module`, unloaded once; its functions are forgotten.
            let _ = unsafe { sys::cuModuleUnload(module) };
        }
    }

    /// Puts a launch into the stream.
    ///
    /// # Errors
    /// What the compiler or the driver says.
    pub fn launch(&mut self, l: &Launch<'_>, stream: sys::CUstream) -> Result<(), LaunchError> {
        let function = self.function(l)?;
        let values: Vec<Word> = l.args.iter().map(|a| Word::from(*a)).collect();
        let mut pointers: Vec<*mut c_void> = values.iter().map(|v| std::ptr::from_ref(v).cast_mut().cast()).collect();
        let ([x, y, z], args) = (l.grid, pointers.as_mut_ptr());
        // SAFETY: the function is loaded; the driver copies the arguments before it returns, as many as the kernel declares, whose
        // launch function in this folder lists them.
        let result = unsafe {
            sys::cuLaunchKernel(function, x, y, z, l.threads, 1, 1, l.shared_bytes, stream, args, std::ptr::null_mut())
        };
        Ok(ok("cuLaunchKernel", result)?)
    }
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
