//! What the driver and cuBLASLt say, in words.

use super::cublaslt as lt;
use cudarc::driver::{result::DriverError, sys};

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DriverFault {
    #[error("{what}: {}", words(*error))]
    Driver { what: &'static str, error: DriverError },
    #[error("cuBLASLt: {what}: {status:?}")]
    Products { what: &'static str, status: lt::cublasStatus_t },
}

impl From<DriverError> for DriverFault {
    fn from(error: DriverError) -> Self {
        Self::Driver { what: "CUDA", error }
    }
}

impl DriverFault {
    /// Whether memory was what was missing.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Driver { error: DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY), .. })
    }

    /// Whether the library has no such product, as it says when asked for algorithms or for a description.
    pub(crate) fn is_unsupported(&self) -> bool {
        use lt::cublasStatus_t::{CUBLAS_STATUS_INVALID_VALUE as INVALID, CUBLAS_STATUS_NOT_SUPPORTED as UNSUPPORTED};
        matches!(self, Self::Products { status: INVALID | UNSUPPORTED, .. })
    }
}

/// `CUDA_ERROR_NO_DEVICE (no CUDA-capable device is detected)`
fn words(error: DriverError) -> String {
    let name = error.error_name().map_or_else(|_| format!("{:?}", error.0), |n| n.to_string_lossy().into_owned());
    match error.error_string() {
        Ok(text) => format!("{name} ({})", text.to_string_lossy()),
        Err(_) => name,
    }
}

/// The result of a driver call, with the call's name.
pub(super) fn ok(what: &'static str, result: sys::CUresult) -> Result<(), DriverFault> {
    result.result().map_err(|error| DriverFault::Driver { what, error })
}

/// The result of a call of cuBLASLt.
pub(super) fn product_ok(what: &'static str, status: lt::cublasStatus_t) -> Result<(), DriverFault> {
    match status {
        lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
        status => Err(DriverFault::Products { what, status }),
    }
}
