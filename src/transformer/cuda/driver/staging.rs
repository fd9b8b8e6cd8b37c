//! Page-locked memory between host and device. From ordinary memory the driver copies through a buffer of its own, in small
//! pieces and one after another; here one half is filled while the other is on its way.
//!
//! Each piece takes the half after the last one's, whichever write it is of: the host waits only where both are on their way. A training
//! step writes tokens and targets, 128 KiB each for 32,768 rows, 5 us at 25 GB/s: neither waits for the other.

use super::fault::{DriverFault, ok};
use cudarc::driver::sys;
use std::ffi::c_void;

/// Bytes of a half.
const HALF: usize = 8 << 20;

/// Below this the driver puts the bytes into the stream itself, which is faster than waiting for a half.
const SMALL: usize = 64 << 10;

#[derive(Debug)]
struct Half {
    start: *mut c_void,
    /// When the last copy from it was done.
    free: sys::CUevent,
}

/// Two halves, made when first needed.
#[derive(Debug, Default)]
pub(super) struct Staging {
    halves: Vec<Half>,
    /// The one that the next piece takes.
    next: usize,
}

// SAFETY: the memory is owned, and used behind the device's lock.
unsafe impl Send for Staging {}

impl Staging {
    fn halves(&mut self) -> Result<&[Half], DriverFault> {
        while self.halves.len() < 2 {
            let mut start = std::ptr::null_mut();
            // SAFETY: points to a pointer that outlives the call.
            ok("cuMemHostAlloc", unsafe { sys::cuMemHostAlloc(&raw mut start, HALF, 0) })?;
            let mut free = std::ptr::null_mut();
            let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
            // SAFETY: as above.
            ok("cuEventCreate", unsafe { sys::cuEventCreate(&raw mut free, flags) })?;
            self.halves.push(Half { start, free });
        }
        Ok(&self.halves)
    }

    /// Host to device; `from` may change as soon as this returns.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn write(&mut self, from: &[u8], to: u64, stream: sys::CUstream) -> Result<(), DriverFault> {
        if from.len() <= SMALL {
            // SAFETY: the driver has copied a small piece of ordinary memory when it returns; it checks the address.
            let done = unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.as_ptr().cast(), from.len(), stream) };
            return ok("cuMemcpyHtoDAsync", done);
        }
        let next = self.next;
        self.next = (next + from.len().div_ceil(HALF)) % 2;
        let halves = self.halves()?;
        for (i, piece) in from.chunks(HALF).enumerate() {
            let half = &halves[(next + i) % halves.len()];
            // SAFETY: the event lives as long as its half.
            ok("cuEventSynchronize", unsafe { sys::cuEventSynchronize(half.free) })?;
            // SAFETY: a piece is no longer than a half, and nothing reads from it since the event.
            unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), half.start.cast(), piece.len()) };
            let to = to + (i * HALF) as u64;
            // SAFETY: the half stays until the event that is recorded next; the driver checks the address.
            let done = unsafe { sys::cuMemcpyHtoDAsync_v2(to, half.start, piece.len(), stream) };
            ok("cuMemcpyHtoDAsync", done)?;
            // SAFETY: the event is on the stream's own context.
            ok("cuEventRecord", unsafe { sys::cuEventRecord(half.free, stream) })?;
        }
        Ok(())
    }

    /// Device to host; waits for what the stream holds.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn read(&mut self, from: u64, to: &mut [u8], stream: sys::CUstream) -> Result<(), DriverFault> {
        let half = self.halves()?[0].start;
        for (i, piece) in to.chunks_mut(HALF).enumerate() {
            let from = from + (i * HALF) as u64;
            // SAFETY: a piece is no longer than a half. A write from it that is still on its way comes before in the stream.
            let done = unsafe { sys::cuMemcpyDtoHAsync_v2(half, from, piece.len(), stream) };
            ok("cuMemcpyDtoHAsync", done)?;
            // SAFETY: the stream is the device's own.
            ok("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(stream) })?;
            // SAFETY: the copy is done, and a piece is no longer than a half.
            unsafe { std::ptr::copy_nonoverlapping(half.cast(), piece.as_mut_ptr(), piece.len()) };
        }
        Ok(())
    }

    /// Gives the memory back; the context is current and the stream idle.
    pub(super) fn clear(&mut self) {
        for half in self.halves.drain(..) {
            // SAFETY: made by `halves`, freed once.
            let _ = unsafe { sys::cuEventDestroy_v2(half.free) };
            // SAFETY: as above.
            let _ = unsafe { sys::cuMemFreeHost(half.start) };
        }
    }
}
