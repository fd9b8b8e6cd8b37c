//! Matrix products by cuBLASLt.
//!
//! cuBLASLt reads matrices column by column, ours lie row by row: what lies as `[rows, columns]` row-major is, to it, the transposed
//! matrix `[columns, rows]`. So `to = a b` is asked for as `to^T = b^T a^T`: its A is our `b`, its B our `a`, its rows are our
//! columns m and its columns our rows n. A bias, which it adds along its rows, is then ours along a row, as it should be, and the
//! sums over our `a`'s rows are those of its B (BGRADB: over k, an element for each of its columns).
//!
//! For every new shape the library proposes a few algorithms; they are timed in rounds on the very operands, into memory of its own, and
//! the fastest is kept. A product with an epilogue is then timed against the same in steps, which is as fast or faster on some devices
//! (a GELU in the epilogue holds tensor cores up where there is no second group of warps to go on), and done in the better way. Sums are in f32; f32 factors are taken as they are, or, where TF32 is allowed, as 19 bits. A shape that it
//! proposes nothing for is remembered too.
//!
//! Of its epilogues, DGELU_BGRAD is left out: it rounds a bias's gradient to the format of the activations, and ours are f32.

use super::super::device::{Elsewhere, Epilogue, Product};
use super::aside::Aside;
use super::cublaslt as lt;
use super::described::{Key, Outputs, Plan, describe, preference, unsupported};
use super::fault::{DriverFault, ok, product_ok};
use super::race::{fastest, in_one_go};
use super::timing::Timing;
use cudarc::driver::sys;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

/// Algorithms that are tried.
const CANDIDATES: usize = 8;

/// Rows up to which a product is one of decoding, whose weights come from memory: at 16 rows a weight is read for 32 FLOPs, a tenth of
/// what would make the reading disappear behind them.
const DECODING: usize = 16;

/// How a product is done.
enum How {
    /// By this plan; of one with an epilogue, whether it has been timed against the same in steps.
    Planned { plan: Plan, settled: bool },
    /// In steps: the library does not do it, or not as fast.
    InSteps,
}

/// What there is to say of a product with an epilogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fused {
    Done,
    /// To be done in steps.
    Never,
    /// Nothing has been done: it is to be timed first.
    Unsettled,
}

/// Memory that a product is timed into.
pub(super) struct Room {
    aside: Aside,
    /// Where what the epilogue writes begins.
    beside: u64,
}

impl Room {
    pub(super) fn places(&self) -> Elsewhere {
        Elsewhere { to: self.aside.address(), beside: self.aside.address() + self.beside }
    }
}

/// The library, its workspace, and every product that it has been asked for.
pub(super) struct Products {
    handle: lt::cublasLtHandle_t,
    stream: sys::CUstream,
    workspace: u64,
    workspace_bytes: usize,
    timing: Arc<Timing>,
    plans: HashMap<Key, How>,
}

impl std::fmt::Debug for Products {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Products({} shapes)", self.plans.len())
    }
}

// SAFETY: the handles are used behind the device's lock, by one thread at a time.
unsafe impl Send for Products {}

impl Products {
    /// The library on a stream of this device's context, which is current.
    ///
    /// # Errors
    /// What the library or the driver says.
    pub(super) fn new(
        device: sys::CUdevice,
        capability: (u32, u32),
        stream: sys::CUstream,
    ) -> Result<Self, DriverFault> {
        let timing = Arc::new(Timing::new(device, stream)?);
        // What NVIDIA's manual advises: 32 MiB on Hopper and later, 4 MiB before.
        let workspace_bytes = if capability >= (9, 0) { 32 << 20 } else { 4 << 20 };
        let mut handle = std::ptr::null_mut();
        // SAFETY: points to a handle that outlives the call.
        product_ok("cublasLtCreate", unsafe { lt::cublasLtCreate(&raw mut handle) })?;
        let mut products = Self { handle, stream, workspace: 0, workspace_bytes, timing, plans: HashMap::new() };
        products.workspace = products.allocate(workspace_bytes)?;
        Ok(products)
    }

    /// How many shapes it has been asked for.
    pub(super) fn shapes(&self) -> usize {
        self.plans.len()
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
    pub(super) fn run(&mut self, p: &Product) -> Result<(), DriverFault> {
        if p.n == 0 || p.m == 0 {
            return Ok(());
        }
        let key = self.prepare(p)?;
        match self.plans.get(&key) {
            Some(How::Planned { plan, .. }) => self.multiply(p, plan, &plan.algorithm, Outputs::of(p)),
            _ => Err(unsupported("no algorithm for this product")),
        }
    }

    /// The same of a product that can be had in steps as well, unless that is better or it has not been tried which is.
    ///
    /// # Errors
    /// What the driver says, or the library of a product that it does.
    pub(super) fn run_fused(&mut self, p: &Product) -> Result<Fused, DriverFault> {
        if p.n == 0 || p.m == 0 {
            return Ok(Fused::Done);
        }
        let key = self.prepare(p)?;
        let done = match self.plans.get(&key) {
            Some(How::Planned { settled: false, .. }) => return Ok(Fused::Unsettled),
            Some(How::Planned { plan, .. }) => self.multiply(p, plan, &plan.algorithm, Outputs::of(p)),
            _ => return Ok(Fused::Never),
        };
        match done {
            Err(e) if e.is_unsupported() => {
                self.plans.insert(key, How::InSteps);
                Ok(Fused::Never)
            }
            done => done.map(|()| Fused::Done),
        }
    }

    /// Finds how a product is done, unless it is known; what it is known by.
    fn prepare(&mut self, p: &Product) -> Result<Key, DriverFault> {
        let key = Key::new(p);
        if !self.plans.contains_key(&key) {
            let how = match self.plan(p, &key) {
                Ok(plan) => How::Planned { plan, settled: p.epilogue == Epilogue::Nothing },
                Err(e) if e.is_unsupported() => How::InSteps,
                Err(e) => return Err(e),
            };
            self.plans.insert(key, how);
        }
        Ok(key)
    }

    /// Runs a planned product into other memory, to be timed.
    ///
    /// # Errors
    /// What the library says.
    pub(super) fn run_elsewhere(&self, p: &Product, to: Elsewhere) -> Result<(), DriverFault> {
        match self.plans.get(&Key::new(p)) {
            Some(How::Planned { plan, .. }) => self.multiply(p, plan, &plan.algorithm, outputs(p, to)),
            _ => Err(unsupported("no algorithm for this product")),
        }
    }

    /// Chooses for good, from the times of a product in one go and in steps.
    pub(super) fn settle(&mut self, p: &Product, fused: f32, apart: f32) {
        let key = Key::new(p);
        if !in_one_go(fused, apart) {
            self.plans.insert(key, How::InSteps);
        } else if let Some(How::Planned { settled, .. }) = self.plans.get_mut(&key) {
            *settled = true;
        }
    }

    /// What times products.
    pub(super) fn timing(&self) -> &Arc<Timing> {
        &self.timing
    }

    /// Memory for a product's results beside its own; `None` where there is no more.
    ///
    /// # Errors
    /// What else the driver says.
    pub(super) fn room(&self, p: &Product) -> Result<Option<Room>, DriverFault> {
        let (to, beside) = p.bytes_elsewhere();
        let to = to.next_multiple_of(256);
        match self.timing.room(to + beside) {
            Ok(aside) => Ok(Some(Room { aside, beside: to as u64 })),
            Err(e) if e.is_out_of_memory() => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn multiply(
        &self,
        p: &Product,
        plan: &Plan,
        algorithm: &lt::cublasLtMatmulAlgo_t,
        out: Outputs,
    ) -> Result<(), DriverFault> {
        plan.point(p, out)?;
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
        // What is proposed depends on how these are aligned.
        plan.point(p, Outputs::of(p))?;
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
        if all.is_empty() { Err(unsupported("no algorithm for this product")) } else { Ok(all) }
    }

    /// The fastest of the candidates, or the first of them where there is no memory to time them in.
    fn fastest(
        &self,
        p: &Product,
        plan: &Plan,
        candidates: &[lt::cublasLtMatmulAlgo_t],
    ) -> Result<lt::cublasLtMatmulAlgo_t, DriverFault> {
        if candidates.len() == 1 {
            return Ok(candidates[0]);
        }
        let Some(room) = self.room(p)? else { return Ok(candidates[0]) };
        let out = outputs(p, room.places());
        let cold = p.n <= DECODING;
        let times = self.timing.race(candidates.len(), cold, &mut |i| self.multiply(p, plan, &candidates[i], out))?;
        fastest(&times).map(|i| candidates[i]).ok_or_else(|| unsupported("no algorithm that runs"))
    }
}

/// Where results go while they are timed. What a gradient through GELU only reads stays where it is.
fn outputs(p: &Product, Elsewhere { to, beside }: Elsewhere) -> Outputs {
    Outputs {
        to,
        plus: p.plus.map_or(to, |c| if c == p.to.address { to } else { c }),
        aside: match p.epilogue {
            Epilogue::Gelu { .. } | Epilogue::RowSums { .. } => beside,
            Epilogue::Nothing | Epilogue::GeluGradient { .. } => Outputs::of(p).aside,
        },
    }
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
    use super::super::super::device::{Matrix, Real};
    use super::super::described::alignment;
    use super::super::libraries::Library;
    use super::*;

    /// Descriptions need no device: that the library takes every attribute as long as we give it.
    #[test]
    fn products_of_every_kind_can_be_described() {
        if let Err(missing) = Library::Products.open(u32::MAX) {
            return eprintln!("skipped: {missing}");
        }
        // SAFETY: the library is there; the function takes nothing.
        eprintln!("cuBLASLt of CUDA {}", unsafe { lt::cublasLtGetCudartVersion() });
        for real in [Real::F32, Real::Bf16] {
            for (transposed, stride, bias, plus) in [(false, 64, None, None), (true, 72, Some(512), Some(256))] {
                let at = |address| Matrix { address, format: real, stride, transposed };
                let to = Matrix { transposed: false, ..at(256) };
                let epilogues = [
                    Epilogue::Nothing,
                    Epilogue::Gelu { pre: 1024 },
                    Epilogue::GeluGradient { pre: 1024 },
                    Epilogue::RowSums { sums: 1024 },
                ];
                for epilogue in epilogues {
                    let p = Product {
                        n: 64,
                        k: 64,
                        m: 64,
                        a: at(16),
                        b: at(2),
                        to,
                        bias,
                        plus,
                        epilogue,
                        tf32: transposed,
                    };
                    let described = describe(&p, &Key::new(&p)).and_then(|d| d.point(&p, Outputs::of(&p)));
                    let gradient = matches!(epilogue, Epilogue::GeluGradient { .. } | Epilogue::RowSums { .. });
                    match described {
                        Ok(()) => assert!(bias.is_none() || !gradient, "{p:?}"),
                        Err(e) => assert!(bias.is_some() && gradient && e.is_unsupported(), "{p:?}: {e}"),
                    }
                    assert!(preference(&p, 1 << 20).is_ok());
                }
            }
        }
        assert_eq!([2, 16, 24, 256, 512, 0].map(alignment), [2, 16, 8, 256, 256, 256]);
    }
}
