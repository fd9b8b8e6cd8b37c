//! Operations written down as a CUDA graph, and run again at the price of one launch.

use super::super::device::Graph;
use super::fault::{DriverFault, ok};
use super::switch::is_on;
use cudarc::driver::sys;

/// The variable that turns captures off, so that one can be timed against the other.
pub(super) const SWITCH: &str = "CENTIME_CUDA_GRAPHS";

/// The graphs of a device.
#[derive(Debug)]
pub(super) struct Graphs {
    wanted: bool,
    all: Vec<sys::CUgraphExec>,
}

// SAFETY: an executable graph may be launched from any thread, one at a time; the device keeps them behind a lock.
unsafe impl Send for Graphs {}

impl Graphs {
    /// None as yet; `switch` is the value of [`SWITCH`].
    ///
    /// # Errors
    /// A value that means nothing.
    pub(super) fn new(switch: Option<&str>) -> Result<Self, String> {
        Ok(Self { wanted: is_on(SWITCH, switch)?, all: Vec::new() })
    }

    /// Whether steps are captured.
    pub(super) fn wanted(&self) -> bool {
        self.wanted
    }

    /// From here on the stream writes down.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn begin(stream: sys::CUstream) -> Result<(), DriverFault> {
        // Other threads have streams of their own and go on as before.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is the device's own.
        ok("cuStreamBeginCapture", unsafe { sys::cuStreamBeginCapture_v2(stream, mode) })
    }

    /// Ends the writing down and keeps what was written.
    ///
    /// # Errors
    /// What the driver says: an operation that cannot be captured, or memory.
    pub(super) fn end(&mut self, stream: sys::CUstream) -> Result<Graph, DriverFault> {
        let mut graph = std::ptr::null_mut();
        // SAFETY: the stream is capturing since `begin`.
        ok("cuStreamEndCapture", unsafe { sys::cuStreamEndCapture(stream, &raw mut graph) })?;
        let mut executable = std::ptr::null_mut();
        // SAFETY: the graph was made just now.
        let made = unsafe { sys::cuGraphInstantiateWithFlags(&raw mut executable, graph, 0) };
        // SAFETY: as above; the executable does not need it any more.
        let gone = unsafe { sys::cuGraphDestroy(graph) };
        ok("cuGraphInstantiate", made)?;
        self.all.push(executable);
        ok("cuGraphDestroy", gone)?;
        Ok(self.all.len() as Graph - 1)
    }

    /// Runs a captured graph.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn replay(&self, graph: Graph, stream: sys::CUstream) -> Result<(), DriverFault> {
        let invalid = sys::CUresult::CUDA_ERROR_INVALID_HANDLE;
        let graph = usize::try_from(graph).ok().and_then(|i| self.all.get(i));
        let Some(graph) = graph else { return ok("cuGraphLaunch", invalid) };
        // SAFETY: made by `end` and destroyed with the device alone.
        ok("cuGraphLaunch", unsafe { sys::cuGraphLaunch(*graph, stream) })
    }

    /// Destroys all of them; the context is current.
    pub(super) fn clear(&mut self) {
        for graph in self.all.drain(..) {
            // SAFETY: made by `end`, destroyed once.
            let _ = unsafe { sys::cuGraphExecDestroy(graph) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_is_on_or_off_and_nothing_else() {
        let wanted = |switch| Graphs::new(switch).map(|graphs| graphs.wanted());
        assert_eq!([None, Some(""), Some("on"), Some("off")].map(wanted), [Ok(true), Ok(true), Ok(true), Ok(false)]);
        let said = wanted(Some("no")).unwrap_err();
        assert!(said.contains("CENTIME_CUDA_GRAPHS: expected on or off, found \"no\""), "{said}");
    }
}
