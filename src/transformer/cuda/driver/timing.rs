//! How long the device takes for something, by its own clock, under the conditions that it is used in.
//!
//! A device that has been idle runs at a fraction of its clock (an H100 at 345 of 1,980 MHz) and takes some ms to rise: candidates
//! that are timed meanwhile look slow. So it is first kept busy for 20 ms, each time, since the host may have compiled kernels for
//! seconds in between: half a second for the 25 products of a GPT-2's step, once. Weights that decoding reads are never in the level
//! 2 cache, as the whole model passes through it from one token to the next: for such products it is overwritten before each run.
//!
//! Results go into memory of a pool of its own, so that the device's pool keeps account of what a trial needs. Nothing here waits for
//! the whole device, as cuMemFree does: other streams may hold NCCL's kernels, which wait for other devices.

use super::aside::{Aside, Pool};
use super::fault::{DriverFault, ok};
use super::race::least_times;
use cudarc::driver::{result, sys};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Bytes that are written before anything is timed, to keep the device busy: 20 ms of an H100, at 2.5 TB/s, 30 of an A100.
const SPIN_BYTES: usize = 50 << 30;

/// Times something on a stream.
#[derive(Debug)]
pub(super) struct Timing {
    stream: sys::CUstream,
    pool: Pool,
    /// Twice the level 2 cache: overwriting so much leaves nothing else in it.
    flood_bytes: usize,
    /// Whether the pool may hold memory.
    holds: AtomicBool,
}

// SAFETY: stream and pool are handles that the driver lets any thread use.
unsafe impl Send for Timing {}
// SAFETY: as above; what changes is atomic.
unsafe impl Sync for Timing {}

impl Timing {
    /// For a stream of the current context, which is of `device`.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn new(device: sys::CUdevice, stream: sys::CUstream) -> Result<Self, DriverFault> {
        let cache = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE;
        // SAFETY: the device was given by the driver.
        let cache = unsafe { result::device::get_attribute(device, cache) }?;
        let flood_bytes = 2 * usize::try_from(cache).unwrap_or(0).max(32 << 20);
        Ok(Self { stream, pool: Pool::new(device)?, flood_bytes, holds: AtomicBool::new(false) })
    }

    /// Memory to time into.
    ///
    /// # Errors
    /// What the driver says: that there is none.
    pub(super) fn room(&self, bytes: usize) -> Result<Aside, DriverFault> {
        self.holds.store(true, Relaxed);
        self.pool.take(bytes, self.stream)
    }

    /// Gives back to the system what nothing is being timed into. For when the stream is idle, as it is between two steps.
    pub(super) fn trim(&self) {
        if self.holds.swap(false, Relaxed) {
            self.pool.trim();
        }
    }

    /// The least milliseconds of each of `count` candidates, infinite where one is not supported; `cold` where caches hold nothing of what
    /// they read. `run` puts one into the stream.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn race(
        &self,
        count: usize,
        cold: bool,
        run: &mut dyn FnMut(usize) -> Result<(), DriverFault>,
    ) -> Result<Vec<f32>, DriverFault> {
        let flood = match self.room(self.flood_bytes) {
            Ok(aside) => Some(aside),
            // In what is left, products are timed as they come.
            Err(e) if e.is_out_of_memory() => None,
            Err(e) => return Err(e),
        };
        let flood = || {
            flood.as_ref().map_or(Ok(()), |f| {
                // SAFETY: so many bytes of memory of our own.
                let done = unsafe { sys::cuMemsetD8Async(f.address(), 1, self.flood_bytes, self.stream) };
                ok("cuMemsetD8Async", done)
            })
        };
        let mut marks = Marks(Vec::new());
        let mut able = Vec::with_capacity(count);
        for i in 0..count {
            match run(i) {
                Ok(()) => able.push(i),
                Err(e) if e.is_unsupported() => {}
                Err(e) => return Err(e),
            }
        }
        (0..SPIN_BYTES / self.flood_bytes).try_for_each(|_| flood())?;
        least_times(count, &able, |order| {
            marks.at_least(2 * order.len())?;
            // About 0.1 ms, in which the host gets ahead: no start has to wait for it.
            flood()?;
            flood()?;
            for (i, pair) in order.iter().zip(marks.0.chunks_exact(2)) {
                if cold {
                    flood()?;
                }
                self.mark(pair[0])?;
                run(*i)?;
                self.mark(pair[1])?;
            }
            self.settle()?;
            order.iter().zip(marks.0.chunks_exact(2)).map(|(_, pair)| elapsed(pair[0], pair[1])).collect()
        })
    }

    /// Waits for the stream, and for nothing else.
    fn settle(&self) -> Result<(), DriverFault> {
        // SAFETY: the stream is the device's own.
        ok("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.stream) })
    }

    fn mark(&self, event: sys::CUevent) -> Result<(), DriverFault> {
        // SAFETY: event and stream are of one context.
        ok("cuEventRecord", unsafe { sys::cuEventRecord(event, self.stream) })
    }
}

/// Marks in a stream.
struct Marks(Vec<sys::CUevent>);

impl Marks {
    fn at_least(&mut self, count: usize) -> Result<(), DriverFault> {
        while self.0.len() < count {
            self.0.push(result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)?);
        }
        Ok(())
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        for event in self.0.drain(..) {
            // SAFETY: made by `at_least`, destroyed once.
            let _ = unsafe { result::event::destroy(event) };
        }
    }
}

type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;

/// Milliseconds between two marks that have been passed. By the function's first name, which every driver has; cudarc, declared
/// for CUDA 13, calls it by its second, which drivers before 12.8 have not.
fn elapsed(start: sys::CUevent, end: sys::CUevent) -> Result<f32, DriverFault> {
    // SAFETY: the library is there, since it made the events.
    let library = unsafe { sys::culib() };
    // SAFETY: the function's type is as the driver's header declares it.
    let Ok(function) = (unsafe { library.get::<Elapsed>(b"cuEventElapsedTime\0") }) else {
        return ok("cuEventElapsedTime", sys::CUresult::CUDA_ERROR_NOT_FOUND).map(|()| 0.0);
    };
    let mut milliseconds = 0.0;
    // SAFETY: both events have been recorded; points to a number that outlives the call.
    ok("cuEventElapsedTime", unsafe { function(&raw mut milliseconds, start, end) })?;
    Ok(milliseconds)
}
