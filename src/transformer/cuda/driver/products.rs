//! Matrix products by cuBLASLt.
//!
//! cuBLASLt reads matrices column by column, ours lie row by row: what lies as `[rows, columns]` row-major is, to it, the turned
//! matrix `[columns, rows]`. So `to = a b` is asked for as `to^T = b^T a^T`: its A is our `b`, its B our `a`, its rows are our
//! columns m and its columns our rows n. A bias, which it adds along its rows, is then ours along a row, as it should be.
//!
//! For every new shape the library proposes a few algorithms; each is timed on the very operands, into memory of its own, and
//! the fastest is kept. Sums are in f32; f32 factors are taken as they are, or, where TF32 is allowed, as 19 bits.

use super::super::device::{Epilogue, Matrix, Product, Real};
use super::fault::{DriverFault, ok, product_ok};
use super::timing::Stopwatch;
use cudarc::cublaslt::sys as lt;
use cudarc::driver::sys;
use std::collections::HashMap;
use std::ffi::c_void;

use lt::cublasLtMatmulDescAttributes_t as Attribute;
use lt::cublasLtMatmulPreferenceAttributes_t as Preference;

/// Algorithms that are tried.
const CANDIDATES: usize = 8;

/// What decides which algorithm is best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    sizes: [usize; 3],
    /// Format, turned, stride and alignment of a, b and `to`.
    operands: [(Real, bool, usize, u32); 3],
    bias: bool,
    plus: bool,
    gelu: bool,
    tf32: bool,
}

/// A product made ready.
struct Plan {
    operation: lt::cublasLtMatmulDesc_t,
    a: Layout,
    b: Layout,
    to: Layout,
    algorithm: lt::cublasLtMatmulAlgo_t,
}

/// The library, its workspace, and every product that it has been asked for.
pub struct Products {
    handle: lt::cublasLtHandle_t,
    stream: sys::CUstream,
    workspace: u64,
    workspace_bytes: usize,
    plans: HashMap<Key, Plan>,
}

impl std::fmt::Debug for Products {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Products({} shapes)", self.plans.len())
    }
}

// SAFETY: the handles are used behind the device's lock, by one thread at a time.
unsafe impl Send for Products {}

/// Owns a matrix's description.
struct Layout(lt::cublasLtMatrixLayout_t);

impl Layout {
    /// Of a matrix that lies as `[rows, columns]`.
    fn new(m: &Matrix, rows: usize, columns: usize) -> Result<Self, DriverFault> {
        let mut layout = std::ptr::null_mut();
        let (rows, columns, stride) = (rows as u64, columns as u64, m.stride as i64);
        // SAFETY: points to a handle that outlives the call.
        let made = unsafe { lt::cublasLtMatrixLayoutCreate(&raw mut layout, format(m.format), columns, rows, stride) };
        product_ok("describing a matrix", made)?;
        Ok(Self(layout))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { lt::cublasLtMatrixLayoutDestroy(self.0) };
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: made by `plan`, destroyed once.
        let _ = unsafe { lt::cublasLtMatmulDescDestroy(self.operation) };
    }
}

fn format(real: Real) -> lt::cudaDataType {
    match real {
        Real::F32 => lt::cudaDataType::CUDA_R_32F,
        Real::Bf16 => lt::cudaDataType::CUDA_R_16BF,
    }
}

/// The largest power of two up to 256 that divides an address.
fn alignment(address: u64) -> u32 {
    1 << address.trailing_zeros().min(8)
}

/// Rows and columns as the matrix lies.
fn as_it_lies(m: &Matrix, rows: usize, columns: usize) -> (usize, usize) {
    if m.turned { (columns, rows) } else { (rows, columns) }
}

impl Key {
    fn new(p: &Product) -> Self {
        let operand = |m: &Matrix| (m.format, m.turned, m.stride, alignment(m.address));
        Self {
            sizes: [p.n, p.k, p.m],
            operands: [operand(&p.a), operand(&p.b), operand(&p.to)],
            bias: p.bias.is_some(),
            plus: p.plus.is_some(),
            gelu: p.epilogue != Epilogue::Nothing,
            tf32: p.tf32,
        }
    }

    fn epilogue(&self) -> lt::cublasLtEpilogue_t {
        use lt::cublasLtEpilogue_t as E;
        match (self.gelu, self.bias) {
            (false, false) => E::CUBLASLT_EPILOGUE_DEFAULT,
            (false, true) => E::CUBLASLT_EPILOGUE_BIAS,
            (true, false) => E::CUBLASLT_EPILOGUE_GELU_AUX,
            (true, true) => E::CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
        }
    }
}

/// Where a product's results go: to their place, or, while algorithms are timed, elsewhere.
#[derive(Clone, Copy)]
struct Outputs {
    to: u64,
    plus: u64,
    pre: u64,
}

impl Products {
    /// The library on a stream of the current context.
    ///
    /// # Errors
    /// What the library or the driver says.
    pub fn new(capability: (u32, u32), stream: sys::CUstream) -> Result<Self, DriverFault> {
        // What NVIDIA's manual advises: 32 MiB on Hopper and later, 4 MiB before.
        let workspace_bytes = if capability >= (9, 0) { 32 << 20 } else { 4 << 20 };
        let mut handle = std::ptr::null_mut();
        // SAFETY: points to a handle that outlives the call.
        product_ok("cublasLtCreate", unsafe { lt::cublasLtCreate(&raw mut handle) })?;
        let mut products = Self { handle, stream, workspace: 0, workspace_bytes, plans: HashMap::new() };
        products.workspace = products.allocate(workspace_bytes)?;
        Ok(products)
    }

    fn allocate(&self, bytes: usize) -> Result<u64, DriverFault> {
        let mut address = 0;
        // SAFETY: points to a number that outlives the call.
        let taken = unsafe { sys::cuMemAllocAsync(&raw mut address, bytes.max(1), self.stream) };
        ok("cuMemAllocAsync", taken).map(|()| address)
    }

    fn release(&self, address: u64) {
        // SAFETY: given by `allocate`; what was asked for before is done with it by then.
        let _ = unsafe { sys::cuMemFreeAsync(address, self.stream) };
    }

    /// Puts a product into the stream.
    ///
    /// # Errors
    /// What the library says; that it has no algorithm for this product.
    pub fn run(&mut self, p: &Product) -> Result<(), DriverFault> {
        if p.n == 0 || p.m == 0 {
            return Ok(());
        }
        let key = Key::new(p);
        if !self.plans.contains_key(&key) {
            let plan = self.plan(p, &key)?;
            self.plans.insert(key, plan);
        }
        let Some(plan) = self.plans.get(&key) else { return Ok(()) };
        let pre = if let Epilogue::Gelu { pre } = p.epilogue { pre } else { 0 };
        self.multiply(p, plan, &plan.algorithm, Outputs { to: p.to.address, plus: p.plus.unwrap_or(p.to.address), pre })
    }

    fn multiply(
        &self,
        p: &Product,
        plan: &Plan,
        algorithm: &lt::cublasLtMatmulAlgo_t,
        out: Outputs,
    ) -> Result<(), DriverFault> {
        if let Some(bias) = p.bias {
            set(plan.operation, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
        }
        if out.pre != 0 {
            set(plan.operation, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &out.pre)?;
        }
        let one = 1.0f32;
        let onto = if p.plus.is_some() { 1.0f32 } else { 0.0 };
        let at = |address: u64| address as *const c_void;
        // SAFETY: the descriptions are the plan's and match the operands (they are in the plan's key); factors of 1 and 0 or 1 are
        // read before the call returns; the workspace is as large as is said. Operands are checked by the device alone.
        let done = unsafe {
            lt::cublasLtMatmul(
                self.handle,
                plan.operation,
                (&raw const one).cast(),
                at(p.b.address),
                plan.b.0,
                at(p.a.address),
                plan.a.0,
                (&raw const onto).cast(),
                at(out.plus),
                plan.to.0,
                at(out.to).cast_mut(),
                plan.to.0,
                algorithm,
                at(self.workspace).cast_mut(),
                self.workspace_bytes,
                self.stream.cast(),
            )
        };
        product_ok("cublasLtMatmul", done)
    }

    fn plan(&self, p: &Product, key: &Key) -> Result<Plan, DriverFault> {
        let mut plan = describe(p, key)?;
        let candidates = self.candidates(p, &plan)?;
        plan.algorithm = self.fastest(p, &plan, &candidates)?;
        Ok(plan)
    }

    /// What the library proposes, the best by its own estimate first.
    fn candidates(&self, p: &Product, plan: &Plan) -> Result<Vec<lt::cublasLtMatmulAlgo_t>, DriverFault> {
        let preference = preference(p, self.workspace_bytes)?;
        // SAFETY: plain numbers, for which zero is a value; the status of 0 is success.
        let mut found: [lt::cublasLtMatmulHeuristicResult_t; CANDIDATES] = unsafe { std::mem::zeroed() };
        let mut count = 0;
        // SAFETY: the descriptions are the plan's; the library writes at most as many results as there is room for.
        let asked = unsafe {
            lt::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                plan.operation,
                plan.b.0,
                plan.a.0,
                plan.to.0,
                plan.to.0,
                preference.0,
                CANDIDATES as i32,
                found.as_mut_ptr(),
                &raw mut count,
            )
        };
        product_ok("asking for algorithms", asked)?;
        let good = |r: &&lt::cublasLtMatmulHeuristicResult_t| r.state == lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS;
        let all: Vec<_> = found.iter().take(usize::try_from(count).unwrap_or(0)).filter(good).map(|r| r.algo).collect();
        if all.is_empty() {
            let status = lt::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED;
            return Err(DriverFault::Products { what: "no algorithm for this product", status });
        }
        Ok(all)
    }

    /// The fastest of the candidates, or the first of them where there is no memory to time them in.
    fn fastest(
        &self,
        p: &Product,
        plan: &Plan,
        candidates: &[lt::cublasLtMatmulAlgo_t],
    ) -> Result<lt::cublasLtMatmulAlgo_t, DriverFault> {
        let bytes = p.n * p.to.stride * p.to.format.size();
        // Into the second half goes what the epilogue keeps.
        let elsewhere = if candidates.len() > 1 { self.allocate(2 * bytes.next_multiple_of(256)) } else { Ok(0) };
        let Ok(elsewhere @ 1..) = elsewhere else { return Ok(candidates[0]) };
        let pre = if p.epilogue == Epilogue::Nothing { 0 } else { elsewhere + bytes.next_multiple_of(256) as u64 };
        let out = Outputs {
            to: elsewhere,
            plus: p.plus.map_or(elsewhere, |c| if c == p.to.address { elsewhere } else { c }),
            pre,
        };
        let mut best = (f32::INFINITY, candidates[0]);
        let watch = Stopwatch::new(self.stream)?;
        for algorithm in candidates {
            // One that cannot run is no candidate.
            if let Ok(seconds) = watch.time(|| self.multiply(p, plan, algorithm, out))
                && seconds < best.0
            {
                best = (seconds, *algorithm);
            }
        }
        self.release(elsewhere);
        Ok(best.1)
    }
}

/// A product, as yet without an algorithm.
fn describe(p: &Product, key: &Key) -> Result<Plan, DriverFault> {
    let compute = if p.tf32 {
        lt::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
    } else {
        lt::cublasComputeType_t::CUBLAS_COMPUTE_32F
    };
    let mut operation = std::ptr::null_mut();
    // SAFETY: points to a handle that outlives the call.
    let made = unsafe { lt::cublasLtMatmulDescCreate(&raw mut operation, compute, lt::cudaDataType::CUDA_R_32F) };
    product_ok("describing a product", made)?;
    let layout = |m: &Matrix, rows, columns| {
        let (rows, columns) = as_it_lies(m, rows, columns);
        Layout::new(m, rows, columns)
    };
    let plan = Plan {
        operation,
        a: layout(&p.a, p.n, p.k)?,
        b: layout(&p.b, p.k, p.m)?,
        to: layout(&p.to, p.n, p.m)?,
        algorithm: lt::cublasLtMatmulAlgo_t { data: [0; 8] },
    };
    // CUBLAS_OP_N is 0 and CUBLAS_OP_T 1, in a header that cuBLASLt's bindings leave out.
    set(operation, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &i32::from(p.b.turned))?;
    set(operation, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &i32::from(p.a.turned))?;
    set(operation, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &(key.epilogue() as u32))?;
    if key.bias {
        set(operation, Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &(format(p.a.format) as i32))?;
    }
    if key.gelu {
        set(operation, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &(p.m as i64))?;
    }
    Ok(plan)
}

/// Owns the conditions that algorithms are asked for under.
struct Conditions(lt::cublasLtMatmulPreference_t);

impl Drop for Conditions {
    fn drop(&mut self) {
        // SAFETY: made by `preference`, destroyed once.
        let _ = unsafe { lt::cublasLtMatmulPreferenceDestroy(self.0) };
    }
}

/// No more workspace than there is, and operands that begin where these do.
fn preference(p: &Product, workspace_bytes: usize) -> Result<Conditions, DriverFault> {
    let mut made = std::ptr::null_mut();
    // SAFETY: points to a handle that outlives the call.
    product_ok("asking for algorithms", unsafe { lt::cublasLtMatmulPreferenceCreate(&raw mut made) })?;
    let made = Conditions(made);
    let wish = |which, bytes: *const c_void, len| {
        // SAFETY: `bytes` points to `len` bytes that outlive the call, as the attribute is long.
        product_ok("asking for algorithms", unsafe {
            lt::cublasLtMatmulPreferenceSetAttribute(made.0, which, bytes, len)
        })
    };
    let space = workspace_bytes as u64;
    wish(Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (&raw const space).cast(), 8)?;
    for (which, address) in [
        (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, p.b.address),
        (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, p.a.address),
        (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, p.plus.unwrap_or(p.to.address)),
        (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, p.to.address),
    ] {
        let bytes = alignment(address);
        wish(which, (&raw const bytes).cast(), 4)?;
    }
    Ok(made)
}

/// Sets an attribute that is as long as `value`.
fn set<T: Copy>(operation: lt::cublasLtMatmulDesc_t, which: Attribute, value: &T) -> Result<(), DriverFault> {
    let (bytes, len) = (std::ptr::from_ref(value).cast(), size_of::<T>());
    // SAFETY: the operation lives; `bytes` points to `len` bytes that outlive the call.
    product_ok("describing a product", unsafe { lt::cublasLtMatmulDescSetAttribute(operation, which, bytes, len) })
}

impl Drop for Products {
    fn drop(&mut self) {
        self.plans.clear();
        self.release(self.workspace);
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { lt::cublasLtDestroy(self.handle) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::libraries::Library;
    use super::*;

    /// Descriptions need no device: that the library takes every attribute as long as we give it.
    #[test]
    fn products_of_every_kind_can_be_described() {
        if !Library::Products.find(u32::MAX) {
            eprintln!("skipped: no libcublasLt; put its folder on LD_LIBRARY_PATH or into CENTIME_CUDA_LIBRARIES");
            return;
        }
        // SAFETY: the library is there; the function takes nothing.
        eprintln!("cuBLASLt of CUDA {}", unsafe { lt::cublasLtGetCudartVersion() });
        for real in [Real::F32, Real::Bf16] {
            for (turned, stride, bias, plus) in [(false, 64, None, None), (true, 72, Some(512), Some(256))] {
                let at = |address| Matrix { address, format: real, stride, turned };
                let to = Matrix { turned: false, ..at(256) };
                for epilogue in [Epilogue::Nothing, Epilogue::Gelu { pre: 1024 }] {
                    let p =
                        Product { n: 64, k: 64, m: 64, a: at(16), b: at(2), to, bias, plus, epilogue, tf32: turned };
                    let described = describe(&p, &Key::new(&p));
                    assert!(described.is_ok(), "{p:?}: {:?}", described.err());
                    assert!(preference(&p, 1 << 20).is_ok());
                }
            }
        }
        assert_eq!([2, 16, 24, 256, 512, 0].map(alignment), [2, 16, 8, 256, 256, 256]);
    }
}
