//! Operations written down as a CUDA graph, and run again at the price of one launch.

use super::super::device::Recording;
use super::fault::{DriverFault, ok};
use cudarc::driver::sys;

/// The graphs of a device.
#[derive(Debug, Default)]
pub struct Graphs(Vec<sys::CUgraphExec>);

// SAFETY: an executable graph may be launched from any thread, one at a time; the device keeps them behind a lock.
unsafe impl Send for Graphs {}

impl Graphs {
    /// From here on the stream writes down.
    ///
    /// # Errors
    /// What the driver says.
    pub fn begin(stream: sys::CUstream) -> Result<(), DriverFault> {
        // Other threads have streams of their own and go on as before.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is the device's own.
        ok("cuStreamBeginCapture", unsafe { sys::cuStreamBeginCapture_v2(stream, mode) })
    }

    /// Ends the writing down and keeps what was written.
    ///
    /// # Errors
    /// What the driver says: an operation that cannot be captured, or memory.
    pub fn end(&mut self, stream: sys::CUstream) -> Result<Recording, DriverFault> {
        let mut graph = std::ptr::null_mut();
        // SAFETY: the stream is capturing since `begin`.
        ok("cuStreamEndCapture", unsafe { sys::cuStreamEndCapture(stream, &raw mut graph) })?;
        let mut executable = std::ptr::null_mut();
        // SAFETY: the graph was made just now.
        let made = unsafe { sys::cuGraphInstantiateWithFlags(&raw mut executable, graph, 0) };
        // SAFETY: as above; the executable does not need it any more.
        let gone = unsafe { sys::cuGraphDestroy(graph) };
        ok("cuGraphInstantiate", made)?;
        self.0.push(executable);
        ok("cuGraphDestroy", gone)?;
        Ok(self.0.len() as Recording - 1)
    }

    /// Runs a recording.
    ///
    /// # Errors
    /// What the driver says.
    pub fn replay(&self, recording: Recording, stream: sys::CUstream) -> Result<(), DriverFault> {
        let invalid = sys::CUresult::CUDA_ERROR_INVALID_HANDLE;
        let graph = usize::try_from(recording).ok().and_then(|i| self.0.get(i));
        let Some(graph) = graph else { return ok("cuGraphLaunch", invalid) };
        // SAFETY: made by `end` and destroyed with the device alone.
        ok("cuGraphLaunch", unsafe { sys::cuGraphLaunch(*graph, stream) })
    }

    /// Destroys all of them; the context is current.
    pub fn clear(&mut self) {
        for graph in self.0.drain(..) {
            // SAFETY: made by `end`, destroyed once.
            let _ = unsafe { sys::cuGraphExecDestroy(graph) };
        }
    }
}
