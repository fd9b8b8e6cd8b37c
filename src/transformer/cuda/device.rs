//! What the CUDA backend asks of a machine: memory, launches, products. Two implement it: a GPU through its driver, and, in
//! tests, the host, which runs the very same kernels compiled by a C++ compiler.
//!
//! Operations are asked for in order and may run later. A failure is remembered by the device and told by [`Device::wait`], so
//! that a launch need not be checked one by one; after a failure what is computed means nothing.

use super::super::error::SessionError;
use super::super::memory::DeviceMemory;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Where something lies in the device's memory.
pub(crate) type Address = u64;

/// A sequence of operations that a device has written down; it keeps them until it is gone itself.
pub(crate) type Graph = u64;

/// Element format of activations and of the factors of products: what `real` is in the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Real {
    F32,
    Bf16,
}

impl Real {
    /// Bytes of one element.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// A kernel of `kernels/<file>.cu`, compiled for `real`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KernelName {
    pub file: &'static str,
    pub kernel: &'static str,
    pub real: Real,
}

impl KernelName {
    /// Whether it may begin before the launch before it has ended: it waits for that by itself, before it touches anything but weights.
    pub(crate) fn waits_by_itself(&self) -> bool {
        matches!(
            self.file,
            "matvec_linear"
                | "matvec_qkv"
                | "matvec_up"
                | "decode"
                | "decode_few_bits"
                | "route"
                | "experts"
                | "grouped"
                | "grouped_mma"
                | "grouped_wgmma"
        )
    }
}

/// What a device is.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceFacts {
    pub name: String,
    /// Compute capability: (9, 0) of an H100.
    pub capability: (u32, u32),
    pub multiprocessors: u32,
    /// Most bytes of shared memory that a block may ask for.
    pub shared_bytes: u32,
    pub memory_bytes: u64,
}

/// A kernel's argument, by the C type that it is declared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Arg {
    /// Any pointer; 0 is null.
    Address(Address),
    /// `int`
    I32(i32),
    /// `long long`
    I64(i64),
    /// `unsigned long long`
    U64(u64),
    /// `float`
    F32(f32),
}

/// One launch of a kernel of `kernels/<file>.cu`, compiled for `real`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch<'a> {
    pub file: &'static str,
    pub kernel: &'static str,
    pub real: Real,
    pub grid: [u32; 3],
    /// Threads of a block, all along x; a multiple of 32.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    pub args: &'a [Arg],
}

impl Launch<'_> {
    pub(crate) fn name(&self) -> KernelName {
        KernelName { file: self.file, kernel: self.kernel, real: self.real }
    }
}

/// A matrix as it lies: row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Matrix {
    pub address: Address,
    pub format: Real,
    /// Elements from the start of a row, as it lies, to the start of the next. More than a row has where rows of an odd length
    /// would start at addresses that no wide access can read.
    pub stride: usize,
    /// Whether the product takes it transposed: `rows x columns` of the product are the matrix's columns and rows.
    pub transposed: bool,
}

/// What is done to a product's result before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Epilogue {
    Nothing,
    /// `gelu_tanh(result)`; the result itself, bias included, goes to `pre`, dense.
    Gelu {
        pre: Address,
    },
    /// `gelu_tanh'(pre) result`: the gradient of `pre`, which lies dense and is only read.
    GeluGradient {
        pre: Address,
    },
    /// The result as it is; `sums [n] =` the sums over each row of `a`, in the format of `to`: a bias's gradient beside its weight's.
    RowSums {
        sums: Address,
    },
}

/// `to [n, m] = epilogue(a [n, k] b [k, m] + bias [m] + plus [n, m])`; sums in f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Product {
    pub n: usize,
    pub k: usize,
    pub m: usize,
    pub a: Matrix,
    pub b: Matrix,
    /// Never transposed; of the factors' format, or f32.
    pub to: Matrix,
    /// In the format of `to`. Gradients, [`Epilogue::GeluGradient`] and [`Epilogue::RowSums`], go without.
    pub bias: Option<Address>,
    /// In the format of `to` and with its stride; may be `to` itself.
    pub plus: Option<Address>,
    pub epilogue: Epilogue,
    /// Whether f32 factors may be rounded to 19 bits (TF32).
    pub tf32: bool,
}

/// Names of what a device has run, kept from the first time on that somebody asks.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    kept: AtomicBool,
    names: Mutex<BTreeSet<&'static str>>,
}

impl Trace {
    /// Something runs.
    pub(crate) fn note(&self, name: &'static str) {
        if self.kept.load(Ordering::Relaxed) {
            self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        }
    }

    /// A product runs.
    pub(crate) fn note_product(&self, product: &Product) {
        self.note(match product.epilogue {
            Epilogue::Nothing => "product",
            Epilogue::Gelu { .. } => "product+gelu",
            Epilogue::GeluGradient { .. } => "product+gelu_gradient",
            Epilogue::RowSums { .. } => "product+row_sums",
        });
    }

    /// What has run since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        self.kept.store(true, Ordering::Relaxed);
        let names = std::mem::take(&mut *self.names.lock().unwrap_or_else(PoisonError::into_inner));
        names.into_iter().map(str::to_string).collect()
    }
}

impl Product {
    /// Bytes that its result takes, and that its epilogue, or what does the same in a step of its own, writes beside it.
    pub(crate) fn bytes_elsewhere(&self) -> (usize, usize) {
        let to = self.n * self.to.stride * self.to.format.size();
        let beside = match self.epilogue {
            Epilogue::Nothing => 0,
            Epilogue::Gelu { .. } | Epilogue::GeluGradient { .. } => to,
            Epilogue::RowSums { .. } => self.n * self.to.format.size(),
        };
        (to, beside)
    }
}

/// Memory that a product is timed into, of [`Product::bytes_elsewhere`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elsewhere {
    pub to: Address,
    pub beside: Address,
}

/// A machine that kernels run on.
pub(crate) trait Device: Debug + Send + Sync {
    fn facts(&self) -> &DeviceFacts;
    fn trace(&self) -> &Trace;

    /// Zeroed memory, at least 256-byte aligned.
    ///
    /// # Errors
    /// [`SessionError::OutOfMemory`], with what was asked for and what is free.
    fn allocate(&self, bytes: usize) -> Result<Address, SessionError>;
    fn release(&self, at: Address, bytes: usize);
    /// The most that has been allocated, by whomever in this process.
    fn high_water(&self) -> Option<DeviceMemory> {
        None
    }

    fn zero(&self, at: Address, bytes: usize);
    fn copy(&self, from: Address, to: Address, bytes: usize);
    /// Host to device; `from` may be gone when this returns.
    fn write(&self, from: &[u8], to: Address);
    /// Device to host; waits for what was asked for before.
    fn read(&self, from: Address, to: &mut [u8]);

    fn launch(&self, launch: &Launch<'_>);
    /// Gets kernels ready, all at once where that takes time; one that is not among them is got ready when it is launched.
    fn prepare(&self, _kernels: &[KernelName]) {}
    fn product(&self, product: &Product);
    /// The same, unless the device does not do such a product in one go, or not as fast as in steps: then nothing has happened, and it
    /// answers `false`, the next time too. For products with an epilogue. `apart` does the same in steps, but into other memory, so
    /// that both can be timed; it may overwrite all of that.
    fn try_product(&self, product: &Product, _apart: &dyn Fn(Elsewhere)) -> bool {
        self.product(product);
        true
    }

    /// From here on, launches, products, copies and zeroing are written down instead of run, until [`Device::end_capture`].
    /// `false`: this device does not capture, and nothing has changed.
    fn begin_capture(&self) -> bool {
        false
    }
    /// What was written down, to be replayed while the memory that it works on lasts; `None` when it could not be kept, and
    /// then nothing of it has run.
    fn end_capture(&self) -> Option<Graph> {
        None
    }
    /// Runs a captured graph.
    fn replay(&self, _graph: Graph) {}

    /// Waits until everything asked for has run.
    ///
    /// # Errors
    /// The first failure since the last call, in words that name the operation.
    fn wait(&self) -> Result<(), SessionError>;
}
