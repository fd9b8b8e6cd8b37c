//! A [`Device`] for tests: the kernels run on the CPU, compiled by g++ against `kernels/host/`, with every access checked.
//!
//! What it proves is the arithmetic, the launch and the bounds of each kernel; what it cannot prove is in the shim's head.
//! Addresses are aligned to 16 bytes rather than the promised 256, so that allocations end at their guard; no kernel asks for
//! more.

mod fixture;
mod library;
mod memory;
mod product;
mod recorder;
mod shim_tests;

pub(in super::super) use fixture::{array, close, close_to, ids, random, rounded, within};
pub(in super::super) use recorder::Recorder;

use super::super::error::SessionError;
use super::super::memory::DeviceMemory;
use super::device::{Address, Arg, Device, DeviceFacts, Elsewhere, Launch, Product, Real, Trace};
use library::{Library, compiler};
use memory::Memory;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The host as a device.
#[derive(Debug)]
pub(in super::super) struct HostDevice {
    facts: DeviceFacts,
    memory: Mutex<Memory>,
    failure: Mutex<Option<String>>,
    /// Whether it does products with an epilogue in one go, and how many it has done.
    fuses: bool,
    /// Whether it first does the same in steps, as a device that times both.
    races: bool,
    fused: AtomicUsize,
    trace: Trace,
    /// A kernel file and what runs in its place.
    instead: Option<(&'static str, Arc<Library>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HostDevice {
    /// `None`, having said so, where there is no g++: the test that asks is to return.
    pub(super) fn new() -> Option<Self> {
        Self::with_memory(4 << 30)
    }

    /// One that refuses every product with an epilogue.
    pub(super) fn without_epilogues() -> Option<Self> {
        Self::new().map(|host| Self { fuses: false, ..host })
    }

    /// One of another compute capability.
    pub(super) fn of_capability(capability: (u32, u32)) -> Option<Self> {
        Self::new().map(|host| Self { facts: DeviceFacts { capability, ..host.facts.clone() }, ..host })
    }

    /// One that has so many bytes of shared memory for a block.
    pub(super) fn with_shared(shared_bytes: u32) -> Option<Self> {
        Self::new().map(|host| Self { facts: DeviceFacts { shared_bytes, ..host.facts.clone() }, ..host })
    }

    /// One that runs a kernel file with errors put into it: each `(from, to)` replaced, once.
    pub(super) fn with_errors(file: &'static str, real: Real, edits: &[(&str, &str)]) -> Result<Option<Self>, String> {
        let Some(host) = Self::new() else { return Ok(None) };
        let library = Arc::new(Library::altered(file, real, edits)?);
        Ok(Some(Self { instead: Some((file, library)), ..host }))
    }

    /// One that does every product with an epilogue in steps beside, before it does it in one go.
    pub(super) fn racing() -> Option<Self> {
        Self::new().map(|host| Self { races: true, ..host })
    }

    /// Products with an epilogue that it has done in one go.
    pub(super) fn fused(&self) -> usize {
        self.fused.load(Ordering::Relaxed)
    }

    /// The same with so many bytes of memory.
    pub(super) fn with_memory(memory_bytes: u64) -> Option<Self> {
        if compiler().is_none() {
            eprintln!("skipped: no g++ to compile the CUDA kernels for the host with");
            return None;
        }
        let facts = DeviceFacts {
            name: "host".into(),
            capability: (9, 0),
            // Few, so that grids sized by them stride.
            multiprocessors: 3,
            shared_bytes: 232_448,
            memory_bytes,
        };
        let (memory, failure) = (Mutex::default(), Mutex::default());
        let (fused, trace) = (AtomicUsize::new(0), Trace::default());
        Some(Self { facts, memory, failure, fuses: true, races: false, fused, trace, instead: None })
    }

    fn fail(&self, message: String) {
        lock(&self.failure).get_or_insert(message);
    }

    /// The memory of an operation's operand, or a failure that names both.
    fn within(&self, operation: &str, at: Address, bytes: usize) -> Option<*mut u8> {
        let found = lock(&self.memory).within(at, bytes);
        if found.is_none() {
            self.fail(format!("{operation}: {bytes} bytes at {at:#x} are not within one allocation"));
        }
        found
    }

    /// Bytes allocated and not released.
    pub(super) fn in_use(&self) -> u64 {
        lock(&self.memory).in_use()
    }

    /// How often something has been allocated.
    pub(super) fn allocations(&self) -> usize {
        lock(&self.memory).allocations()
    }

    fn run(&self, launch: &Launch<'_>) -> Result<(), String> {
        if launch.shared_bytes > self.facts.shared_bytes {
            return Err(format!("kernel {} asks for {} bytes of shared memory", launch.kernel, launch.shared_bytes));
        }
        let mut values: Vec<[u8; 8]> = Vec::new();
        let mut types = String::new();
        for arg in launch.args {
            let mut value = [0u8; 8];
            let kind = match arg {
                Arg::Address(a) => {
                    value = a.to_ne_bytes();
                    'p'
                }
                Arg::I32(x) => {
                    value[..4].copy_from_slice(&x.to_ne_bytes());
                    'i'
                }
                Arg::I64(x) => {
                    value = x.to_ne_bytes();
                    'l'
                }
                Arg::U64(x) => {
                    value = x.to_ne_bytes();
                    'u'
                }
                Arg::F32(x) => {
                    value[..4].copy_from_slice(&x.to_ne_bytes());
                    'f'
                }
            };
            values.push(value);
            types.push(kind);
        }
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|v| v.as_mut_ptr().cast()).collect();
        let library = match &self.instead {
            Some((file, library)) if *file == launch.file => Arc::clone(library),
            _ => Library::of(launch.file, launch.real)?,
        };
        library.launch(launch, &mut pointers, &types).map_err(|m| lock(&self.memory).explain(m))
    }
}

impl Device for HostDevice {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn trace(&self) -> &Trace {
        &self.trace
    }

    fn allocate(&self, bytes: usize) -> Result<Address, SessionError> {
        let mut memory = lock(&self.memory);
        let free = self.facts.memory_bytes.saturating_sub(memory.in_use());
        if bytes as u64 > free {
            return Err(SessionError::OutOfMemory(format!("{bytes} bytes asked for, {free} free")));
        }
        memory.allocate(bytes).map_err(SessionError::OutOfMemory)
    }

    fn release(&self, at: Address, bytes: usize) {
        if let Err(message) = lock(&self.memory).release(at, bytes) {
            self.fail(message);
        }
    }

    fn high_water(&self) -> Option<DeviceMemory> {
        let peak = lock(&self.memory).peak();
        Some(DeviceMemory { peak_allocated_bytes: peak, peak_reserved_bytes: peak })
    }

    fn zero(&self, at: Address, bytes: usize) {
        if let Some(p) = self.within("zero", at, bytes) {
            // SAFETY: `within` found so many bytes in an allocation that lives as long as the device is borrowed.
            unsafe { p.write_bytes(0, bytes) };
        }
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) {
        if let (Some(f), Some(t)) = (self.within("copy from", from, bytes), self.within("copy to", to, bytes)) {
            // SAFETY: as above, for both; `copy` allows overlap.
            unsafe { t.copy_from(f, bytes) };
        }
    }

    fn write(&self, from: &[u8], to: Address) {
        if let Some(t) = self.within("write", to, from.len()) {
            // SAFETY: as above; a slice of the host is no device memory.
            unsafe { t.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        }
    }

    fn read(&self, from: Address, to: &mut [u8]) {
        if let Some(f) = self.within("read", from, to.len()) {
            // SAFETY: as above.
            unsafe { to.as_mut_ptr().copy_from_nonoverlapping(f, to.len()) };
        }
    }

    fn launch(&self, launch: &Launch<'_>) {
        self.trace.note(launch.kernel);
        if let Err(message) = self.run(launch) {
            self.fail(message);
        }
    }

    fn product(&self, product: &Product) {
        self.trace.note_product(product);
        product::run(self, product);
    }

    fn try_product(&self, product: &Product, apart: &dyn Fn(Elsewhere)) -> bool {
        if self.races {
            let (to, beside) = product.bytes_elsewhere();
            if let (Ok(to_at), Ok(beside_at)) = (self.allocate(to), self.allocate(beside)) {
                apart(Elsewhere { to: to_at, beside: beside_at });
                self.release(to_at, to);
                self.release(beside_at, beside);
            }
        }
        if self.fuses {
            self.product(product);
            self.fused.fetch_add(1, Ordering::Relaxed);
        }
        self.fuses
    }

    fn wait(&self) -> Result<(), SessionError> {
        if let Err(message) = lock(&self.memory).check() {
            self.fail(message);
        }
        lock(&self.failure).take().map_or(Ok(()), |m| Err(SessionError::Device(m)))
    }
}
