//! One GPU: its context, one stream that everything goes into in order, and memory from the stream's pool.

use super::super::device::{Address, Device, DeviceFacts, Elsewhere, Graph, KernelName, Launch, Product, Trace};
use super::cache::Cache;
use super::compiler::Compiler;
use super::fault::{DriverFault, ok};
use super::graphs::{Graphs, SWITCH};
use super::images::Images;
use super::modules::Modules;
use super::overlap::{self, Overlap};
use super::products::{Fused, Products, Room};
use super::staging::Staging;
use super::{Missing, available, version_of_driver};
use crate::transformer::error::SessionError;
use crate::transformer::memory::DeviceMemory;
use cudarc::driver::{result, sys};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The device's primary context, retained once and kept until the process ends: cuBLASLt and NCCL keep state of theirs in it, which
/// has to outlast every [`CudaGpu`], and a process that opens a device again finds it as it was.
fn primary_context(device: sys::CUdevice) -> Result<sys::CUcontext, result::DriverError> {
    static RETAINED: Mutex<BTreeMap<sys::CUdevice, usize>> = Mutex::new(BTreeMap::new());
    let mut retained = lock(&RETAINED);
    if let Some(&context) = retained.get(&device) {
        return Ok(context as sys::CUcontext);
    }
    // SAFETY: the device was given by the driver.
    let context = unsafe { result::primary_ctx::retain(device) }?;
    // A handle, not a pointer of ours: kept as a number, which threads may share.
    retained.insert(device, context as usize);
    Ok(context)
}

/// A GPU that operations are put into.
#[derive(Debug)]
pub(crate) struct CudaGpu {
    facts: DeviceFacts,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    pool: sys::CUmemoryPool,
    modules: Mutex<Modules>,
    products: Mutex<Option<Products>>,
    graphs: Mutex<Graphs>,
    staging: Mutex<Staging>,
    failure: Mutex<Option<SessionError>>,
    trace: Trace,
    /// Whether memory was taken, a kernel loaded or a product planned since the last wait, and before it.
    news: AtomicBool,
    calm: AtomicBool,
}

// SAFETY: context, stream and pool are handles that the driver lets any thread use.
unsafe impl Send for CudaGpu {}
// SAFETY: as above; what the driver does not guard is behind locks.
unsafe impl Sync for CudaGpu {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(e: impl Display) -> SessionError {
    SessionError::Device(e.to_string())
}

impl CudaGpu {
    /// The device of this number among [`available`].
    ///
    /// # Errors
    /// What is missing, or what the driver says.
    pub(crate) fn open(ordinal: usize) -> Result<Self, SessionError> {
        Self::open_with(ordinal, Cache::of_user())
    }

    /// The same with another place for compiled kernels.
    pub(super) fn open_with(ordinal: usize, cache: Cache) -> Result<Self, SessionError> {
        let all = available().map_err(|e| SessionError::NoCuda(e.to_string()))?;
        let Some(facts) = all.get(ordinal) else {
            let fewer = format!("device {ordinal} is asked for, and there are {}; use fewer devices", all.len());
            return Err(SessionError::NoCuda(fewer));
        };
        let compiler = Compiler::new(facts.capability).map_err(|e| {
            SessionError::NoCuda(Missing::Broken { library: "NVRTC", reason: e.to_string() }.to_string())
        })?;
        let overlap = std::env::var(overlap::SWITCH).ok();
        let overlap = Overlap::new(overlap.as_deref(), facts.capability, version_of_driver().map_err(broken)?)
            .map_err(SessionError::Invalid)?;
        let graphs = Graphs::new(std::env::var(SWITCH).ok().as_deref()).map_err(SessionError::Invalid)?;
        let device = result::device::get(i32::try_from(ordinal).unwrap_or(i32::MAX)).map_err(fault)?;
        let context = primary_context(device).map_err(fault)?;
        // SAFETY: retained, and never released.
        unsafe { result::ctx::set_current(context) }.map_err(fault)?;
        let mut gpu = Self {
            facts: facts.clone(),
            device,
            context,
            stream: std::ptr::null_mut(),
            pool: std::ptr::null_mut(),
            modules: Mutex::new(Modules::new(Images::new(compiler, cache), overlap)),
            products: Mutex::default(),
            graphs: Mutex::new(graphs),
            staging: Mutex::default(),
            failure: Mutex::default(),
            trace: Trace::default(),
            news: AtomicBool::new(true),
            calm: AtomicBool::new(false),
        };
        gpu.stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(fault)?;
        gpu.pool = gpu.default_pool().map_err(broken)?;
        Ok(gpu)
    }

    /// The device's pool, told to keep what is given back to it.
    fn default_pool(&self) -> Result<sys::CUmemoryPool, DriverFault> {
        let mut pool = std::ptr::null_mut();
        // SAFETY: points to a handle that outlives the call.
        let found = unsafe { sys::cuDeviceGetDefaultMemPool(&raw mut pool, self.device) };
        ok("cuDeviceGetDefaultMemPool", found)?;
        let mut keep = u64::MAX;
        let which = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: this attribute is a 64-bit number, which outlives the call.
        let set = unsafe { sys::cuMemPoolSetAttribute(pool, which, (&raw mut keep).cast::<c_void>()) };
        ok("cuMemPoolSetAttribute", set)?;
        Ok(pool)
    }

    /// The stream that everything goes into.
    pub(in super::super) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    /// Makes the context current; costs nothing where it is.
    pub(in super::super) fn enter(&self) {
        // SAFETY: retained, and never released.
        self.note("making the context current", unsafe { result::ctx::set_current(self.context) });
    }

    fn news(&self, there_are: bool) {
        if there_are {
            self.news.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the last step took no memory, loaded no kernel and planned no product, and this one has not so far. What does may wait
    /// for everything that runs on the device: beside a collective that waits for another rank, that can be for ever.
    pub(in super::super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed) && !self.news.load(Ordering::Relaxed)
    }

    /// Waits until the stream is empty. What has failed stays remembered.
    pub(in super::super) fn drain(&self) {
        // SAFETY: the stream is our own.
        self.note("waiting", ok("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.stream) }));
    }

    /// Remembers the first failure.
    pub(in super::super) fn note<T, E: Display>(&self, what: &str, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(e) => {
                let failure = SessionError::Device(format!("{}: {what}: {e}", self.facts.name));
                lock(&self.failure).get_or_insert(failure);
                None
            }
        }
    }

    fn take(&self, bytes: usize) -> Result<Address, DriverFault> {
        let mut address = 0;
        // SAFETY: points to a number that outlives the call.
        let taken = unsafe { sys::cuMemAllocAsync(&raw mut address, bytes, self.stream) };
        ok("cuMemAllocAsync", taken).map(|()| address)
    }

    /// Calls cuBLASLt, opened at the first product.
    fn multiply<T>(&self, p: &Product, call: impl FnOnce(&mut Products) -> Result<T, DriverFault>) -> Option<T> {
        self.enter();
        let mut products = lock(&self.products);
        if products.is_none() {
            *products = self.note("cuBLASLt", Products::new(self.device, self.facts.capability, self.stream));
        }
        let products = products.as_mut()?;
        let before = products.shapes();
        let done = call(products);
        self.news(products.shapes() > before);
        match done {
            Ok(done) => Some(done),
            Err(e) => self.note(&format!("product {} x {} x {}", p.n, p.k, p.m), Err(e)),
        }
    }

    /// Times a product in one go against the same in steps, and chooses. Steps run before that, since they compile their kernels and plan
    /// products of their own. No lock is held while they do.
    fn settle(&self, p: &Product, apart: &dyn Fn(Elsewhere)) {
        let Some((room, timing)) = self.multiply(p, |products| Ok((products.room(p)?, Arc::clone(products.timing()))))
        else {
            return;
        };
        let race = |places| {
            apart(places);
            timing.race(2, false, &mut |i| {
                if i == 1 {
                    apart(places);
                    return Ok(());
                }
                lock(&self.products).as_ref().map_or(Ok(()), |products| products.run_elsewhere(p, places))
            })
        };
        let raced = room.as_ref().map(Room::places).and_then(|places| self.note("timing a product", race(places)));
        // Without memory to time in, in one go.
        let (fused, apart) = raced.map_or((0.0, f32::INFINITY), |times| (times[0], times[1]));
        self.multiply(p, |products| {
            products.settle(p, fused, apart);
            Ok(())
        });
    }

    /// Waits, and lets the pools give back to the system what nobody uses.
    fn trim(&self) {
        // SAFETY: the stream is our own.
        let _ = unsafe { sys::cuStreamSynchronize(self.stream) };
        // SAFETY: the pool is the device's own.
        let _ = unsafe { sys::cuMemPoolTrimTo(self.pool, 0) };
        self.end_of_timing();
    }

    /// What products were timed into is no longer held.
    fn end_of_timing(&self) {
        if let Some(products) = lock(&self.products).as_ref() {
            products.timing().trim();
        }
    }

    fn out_of_memory(&self, bytes: usize) -> SessionError {
        let gib = |b: u64| b as f64 / f64::from(1 << 30);
        let (free, total) = result::mem_get_info().unwrap_or((0, 0));
        let name = &self.facts.name;
        let (asked, free, total) = (gib(bytes as u64), gib(free as u64), gib(total as u64));
        SessionError::OutOfMemory(format!(
            "{name}: {asked:.2} GiB asked for, {free:.2} GiB of {total:.2} GiB free; use a smaller batch, model or sequence"
        ))
    }
}

fn fault(e: result::DriverError) -> SessionError {
    broken(DriverFault::from(e))
}

impl Device for CudaGpu {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn trace(&self) -> &Trace {
        &self.trace
    }

    fn allocate(&self, bytes: usize) -> Result<Address, SessionError> {
        self.enter();
        let bytes = bytes.max(1);
        self.news(true);
        let mut taken = self.take(bytes);
        if taken.as_ref().is_err_and(DriverFault::is_out_of_memory) {
            self.trim();
            taken = self.take(bytes);
        }
        match taken {
            Ok(address) => {
                self.zero(address, bytes);
                Ok(address)
            }
            Err(e) if e.is_out_of_memory() => Err(self.out_of_memory(bytes)),
            Err(e) => Err(broken(e)),
        }
    }

    fn release(&self, at: Address, _bytes: usize) {
        self.enter();
        // SAFETY: given by `allocate` and released once; what was asked for before is done with it by then.
        self.note("cuMemFreeAsync", ok("release", unsafe { sys::cuMemFreeAsync(at, self.stream) }));
    }

    fn high_water(&self) -> Option<DeviceMemory> {
        use sys::CUmemPool_attribute::{CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH, CU_MEMPOOL_ATTR_USED_MEM_HIGH};
        self.enter();
        let read = |which| {
            let mut bytes = 0u64;
            // SAFETY: the pool is the device's own; these attributes are 64-bit numbers, and this one outlives the call.
            let told = unsafe { sys::cuMemPoolGetAttribute(self.pool, which, (&raw mut bytes).cast::<c_void>()) };
            ok("cuMemPoolGetAttribute", told).ok().map(|()| bytes)
        };
        Some(DeviceMemory {
            peak_allocated_bytes: read(CU_MEMPOOL_ATTR_USED_MEM_HIGH)?,
            peak_reserved_bytes: read(CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)?,
        })
    }

    fn zero(&self, at: Address, bytes: usize) {
        self.enter();
        // SAFETY: the driver checks the address.
        self.note("zero", ok("cuMemsetD8Async", unsafe { sys::cuMemsetD8Async(at, 0, bytes, self.stream) }));
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) {
        self.enter();
        // SAFETY: the driver checks the addresses.
        let done = unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, self.stream) };
        self.note("copy", ok("cuMemcpyDtoDAsync", done));
    }

    fn write(&self, from: &[u8], to: Address) {
        self.enter();
        self.note("write", lock(&self.staging).write(from, to, self.stream));
    }

    fn read(&self, from: Address, to: &mut [u8]) {
        self.enter();
        self.note("read", lock(&self.staging).read(from, to, self.stream));
    }

    fn launch(&self, launch: &Launch<'_>) {
        self.enter();
        self.trace.note(launch.kernel);
        let mut modules = lock(&self.modules);
        self.news(!modules.knows(&launch.name()));
        self.note(launch.kernel, modules.launch(launch, self.stream));
    }

    fn prepare(&self, kernels: &[KernelName]) {
        self.enter();
        lock(&self.modules).prepare(kernels);
    }

    fn product(&self, product: &Product) {
        self.trace.note_product(product);
        self.multiply(product, |products| products.run(product));
    }

    fn try_product(&self, product: &Product, apart: &dyn Fn(Elsewhere)) -> bool {
        let run = || self.multiply(product, |products| products.run_fused(product));
        let done = match run() {
            Some(Fused::Unsettled) => {
                self.settle(product, apart);
                run()
            }
            done => done,
        };
        // After a failure, which is remembered, nothing is worth another try.
        let fused = done != Some(Fused::Never);
        if fused {
            self.trace.note_product(product);
        }
        fused
    }

    fn begin_capture(&self) -> bool {
        self.enter();
        let wanted = lock(&self.graphs).wanted();
        wanted && lock(&self.failure).is_none() && Graphs::begin(self.stream).is_ok()
    }

    fn end_capture(&self) -> Option<Graph> {
        let kept = lock(&self.graphs).end(self.stream).ok();
        if kept.is_none() {
            // What could not be written down may well run.
            *lock(&self.failure) = None;
        }
        kept
    }

    fn replay(&self, graph: Graph) {
        self.enter();
        self.note("replaying a captured step", lock(&self.graphs).replay(graph, self.stream));
    }

    fn wait(&self) -> Result<(), SessionError> {
        self.enter();
        self.drain();
        self.end_of_timing();
        self.calm.store(!self.news.swap(false, Ordering::Relaxed), Ordering::Relaxed);
        lock(&self.failure).take().map_or(Ok(()), Err)
    }
}

impl Drop for CudaGpu {
    fn drop(&mut self) {
        self.enter();
        // SAFETY: the stream is our own; after it nothing uses what is given back below.
        let _ = unsafe { sys::cuStreamSynchronize(self.stream) };
        lock(&self.graphs).clear();
        lock(&self.staging).clear();
        *lock(&self.products) = None;
        lock(&self.modules).clear();
        self.trim();
        // SAFETY: made by `open`, destroyed once.
        let _ = unsafe { sys::cuStreamDestroy_v2(self.stream) };
    }
}
