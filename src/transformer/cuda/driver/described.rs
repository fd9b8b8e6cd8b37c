//! Products as cuBLASLt wants them described; see [`super::products`] for how ours are its.

use super::super::device::{Epilogue, Matrix, Product, Real};
use super::cublaslt as lt;
use super::fault::{DriverFault, product_ok};
use std::ffi::c_void;

use lt::cublasLtMatmulDescAttributes_t as Attribute;
use lt::cublasLtMatmulPreferenceAttributes_t as Preference;

/// What decides which algorithm is best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    sizes: [usize; 3],
    /// Format, transposed, stride and alignment of a, b and `to`.
    operands: [(Real, bool, usize, u32); 3],
    bias: bool,
    plus: bool,
    epilogue: EpilogueKind,
    /// Alignment of the bias and of what the epilogue works with.
    beside: [u32; 2],
    tf32: bool,
}

/// An [`Epilogue`] without its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum EpilogueKind {
    Nothing,
    Gelu,
    GeluGradient,
    RowSums,
}

/// A product made ready.
pub(super) struct Plan {
    pub operation: lt::cublasLtMatmulDesc_t,
    pub a: Layout,
    pub b: Layout,
    pub to: Layout,
    pub algorithm: lt::cublasLtMatmulAlgo_t,
}

/// Owns a matrix's description.
pub(super) struct Layout(pub lt::cublasLtMatrixLayout_t);

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
pub(super) fn alignment(address: u64) -> u32 {
    1 << address.trailing_zeros().min(8)
}

/// Rows and columns as the matrix lies.
fn as_it_lies(m: &Matrix, rows: usize, columns: usize) -> (usize, usize) {
    if m.transposed { (columns, rows) } else { (rows, columns) }
}

impl Key {
    pub(super) fn new(p: &Product) -> Self {
        let operand = |m: &Matrix| (m.format, m.transposed, m.stride, alignment(m.address));
        Self {
            sizes: [p.n, p.k, p.m],
            operands: [operand(&p.a), operand(&p.b), operand(&p.to)],
            bias: p.bias.is_some(),
            plus: p.plus.is_some(),
            epilogue: match p.epilogue {
                Epilogue::Nothing => EpilogueKind::Nothing,
                Epilogue::Gelu { .. } => EpilogueKind::Gelu,
                Epilogue::GeluGradient { .. } => EpilogueKind::GeluGradient,
                Epilogue::RowSums { .. } => EpilogueKind::RowSums,
            },
            beside: [p.bias.unwrap_or(0), Outputs::of(p).aside].map(alignment),
            tf32: p.tf32,
        }
    }

    /// `None` for a gradient with a bias, which there is no use for.
    fn epilogue(&self) -> Option<lt::cublasLtEpilogue_t> {
        use lt::cublasLtEpilogue_t as E;
        Some(match (self.epilogue, self.bias) {
            (EpilogueKind::Nothing, false) => E::CUBLASLT_EPILOGUE_DEFAULT,
            (EpilogueKind::Nothing, true) => E::CUBLASLT_EPILOGUE_BIAS,
            (EpilogueKind::Gelu, false) => E::CUBLASLT_EPILOGUE_GELU_AUX,
            (EpilogueKind::Gelu, true) => E::CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
            (EpilogueKind::GeluGradient, false) => E::CUBLASLT_EPILOGUE_DGELU,
            (EpilogueKind::RowSums, false) => E::CUBLASLT_EPILOGUE_BGRADB,
            (EpilogueKind::GeluGradient | EpilogueKind::RowSums, true) => return None,
        })
    }
}

/// Where a product's results go: to their place, or, while algorithms are timed, elsewhere.
#[derive(Clone, Copy)]
pub(super) struct Outputs {
    pub to: u64,
    pub plus: u64,
    /// Of what the epilogue reads or writes beside them; 0 without one.
    pub aside: u64,
}

pub(super) fn unsupported(what: &'static str) -> DriverFault {
    DriverFault::Products { what, status: lt::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED }
}

impl Outputs {
    /// Where they belong.
    pub(super) fn of(p: &Product) -> Self {
        let aside = match p.epilogue {
            Epilogue::Nothing => 0,
            Epilogue::Gelu { pre } | Epilogue::GeluGradient { pre } => pre,
            Epilogue::RowSums { sums } => sums,
        };
        Self { to: p.to.address, plus: p.plus.unwrap_or(p.to.address), aside }
    }
}

impl Plan {
    /// Tells the addresses that the epilogue works with.
    pub(super) fn point(&self, p: &Product, out: Outputs) -> Result<(), DriverFault> {
        if let Some(bias) = p.bias {
            set(self.operation, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
        }
        match p.epilogue {
            Epilogue::Nothing => Ok(()),
            Epilogue::Gelu { .. } | Epilogue::GeluGradient { .. } => {
                set(self.operation, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &out.aside)
            }
            Epilogue::RowSums { .. } => set(self.operation, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &out.aside),
        }
    }
}

/// A product, as yet without an algorithm.
pub(super) fn describe(p: &Product, key: &Key) -> Result<Plan, DriverFault> {
    let Some(epilogue) = key.epilogue() else { return Err(unsupported("a gradient with a bias")) };
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
    set(operation, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &i32::from(p.b.transposed))?;
    set(operation, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &i32::from(p.a.transposed))?;
    set(operation, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &(epilogue as u32))?;
    if key.epilogue == EpilogueKind::RowSums || p.bias.is_some() {
        set(operation, Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &(format(p.to.format) as i32))?;
    }
    if matches!(key.epilogue, EpilogueKind::Gelu | EpilogueKind::GeluGradient) {
        set(operation, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &(p.m as i64))?;
    }
    Ok(plan)
}

/// Owns the conditions that algorithms are asked for under.
pub(super) struct Conditions(pub lt::cublasLtMatmulPreference_t);

impl Drop for Conditions {
    fn drop(&mut self) {
        // SAFETY: made by `preference`, destroyed once.
        let _ = unsafe { lt::cublasLtMatmulPreferenceDestroy(self.0) };
    }
}

/// No more workspace than there is, operands that begin where these do, and all sums in f32.
pub(super) fn preference(p: &Product, workspace_bytes: usize) -> Result<Conditions, DriverFault> {
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
    // Left to itself, cuBLASLt may add the parts of a divided product up in the format of the result, each rounded to 8 bits.
    if p.to.format == Real::Bf16 {
        let in_f32 = lt::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        wish(Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, (&raw const in_f32).cast(), 4)?;
    }
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
