//! How long the device takes for something, by its own clock.

use super::fault::{DriverFault, ok};
use cudarc::driver::{result, sys};

/// Repetitions that are timed together, so that the start of one hides behind the one before.
const REPETITIONS: u16 = 5;

/// Two marks in a stream.
pub struct Stopwatch {
    stream: sys::CUstream,
    start: sys::CUevent,
    end: sys::CUevent,
}

impl Stopwatch {
    /// # Errors
    /// What the driver says.
    pub fn new(stream: sys::CUstream) -> Result<Self, DriverFault> {
        let event = || result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT);
        Ok(Self { stream, start: event()?, end: event()? })
    }

    /// Milliseconds of one run, after one that warms up.
    ///
    /// # Errors
    /// What `run` or the driver says.
    pub fn time(&self, mut run: impl FnMut() -> Result<(), DriverFault>) -> Result<f32, DriverFault> {
        run()?;
        self.mark(self.start)?;
        for _ in 0..REPETITIONS {
            run()?;
        }
        self.mark(self.end)?;
        // SAFETY: the event is our own.
        ok("cuEventSynchronize", unsafe { sys::cuEventSynchronize(self.end) })?;
        Ok(elapsed(self.start, self.end)? / f32::from(REPETITIONS))
    }

    fn mark(&self, event: sys::CUevent) -> Result<(), DriverFault> {
        // SAFETY: event and stream are of one context.
        ok("cuEventRecord", unsafe { sys::cuEventRecord(event, self.stream) })
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

impl Drop for Stopwatch {
    fn drop(&mut self) {
        for event in [self.start, self.end] {
            // SAFETY: made by `new`, destroyed once.
            let _ = unsafe { result::event::destroy(event) };
        }
    }
}
