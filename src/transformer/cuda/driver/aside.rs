//! Memory that products are timed into: a pool of its own, so that the account of the device's pool is of what a trial needs.
//!
//! A pool and not `cuMemAlloc`, which, like `cuMemFree`, waits for the whole device under locks of the driver: beside a collective that
//! waits for another rank of this process, whose thread wants such a lock, neither would ever go on.

use super::fault::{DriverFault, ok};
use cudarc::driver::sys;
use std::ffi::c_void;

/// The pool. It keeps what is given back to it until [`Pool::trim`].
#[derive(Debug)]
pub(super) struct Pool(sys::CUmemoryPool);

/// Bytes of it, until they are dropped.
pub(super) struct Aside {
    address: u64,
    stream: sys::CUstream,
}

impl Pool {
    /// # Errors
    /// What the driver says.
    pub(super) fn new(device: sys::CUdevice) -> Result<Self, DriverFault> {
        let location = sys::CUmemLocation { type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, id: device };
        let properties = sys::CUmemPoolProps {
            allocType: sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
            handleTypes: sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
            location,
            win32SecurityAttributes: std::ptr::null_mut(),
            maxSize: 0,
            usage: 0,
            reserved: [0; 54],
        };
        let mut pool = std::ptr::null_mut();
        // SAFETY: both point to what outlives the call.
        ok("cuMemPoolCreate", unsafe { sys::cuMemPoolCreate(&raw mut pool, &raw const properties) })?;
        let pool = Self(pool);
        let mut keep = u64::MAX;
        let which = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: this attribute is a 64-bit number, which outlives the call.
        let set = unsafe { sys::cuMemPoolSetAttribute(pool.0, which, (&raw mut keep).cast::<c_void>()) };
        ok("cuMemPoolSetAttribute", set)?;
        Ok(pool)
    }

    /// Bytes for what the stream does next.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn take(&self, bytes: usize, stream: sys::CUstream) -> Result<Aside, DriverFault> {
        let mut address = 0;
        // SAFETY: points to a number that outlives the call; the pool is alive.
        let taken = unsafe { sys::cuMemAllocFromPoolAsync(&raw mut address, bytes.max(1), self.0, stream) };
        ok("cuMemAllocFromPoolAsync", taken).map(|()| Aside { address, stream })
    }

    /// Gives back to the system what is not in use.
    pub(super) fn trim(&self) {
        // SAFETY: the pool is alive.
        let _ = unsafe { sys::cuMemPoolTrimTo(self.0, 0) };
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once; the driver keeps what is still in use until it is given back.
        let _ = unsafe { sys::cuMemPoolDestroy(self.0) };
    }
}

impl Aside {
    pub(super) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // SAFETY: given by `take`, released once; the stream is done with it by then.
        let _ = unsafe { sys::cuMemFreeAsync(self.address, self.stream) };
    }
}
