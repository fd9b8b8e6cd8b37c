//! cuBLASLt's functions, and cudarc's types for them.

use super::libraries::{Library, functions};
pub(super) use cudarc::cublaslt::sys::*;
use std::ffi::{c_int, c_void};

use cublasStatus_t::CUBLAS_STATUS_NOT_INITIALIZED as ABSENT;

functions! { Library::Products;
    fn cublasLtGetCudartVersion() -> usize, else 0;
    fn cublasLtCreate(handle: *mut cublasLtHandle_t) -> cublasStatus_t, else ABSENT;
    fn cublasLtDestroy(handle: cublasLtHandle_t) -> cublasStatus_t, else ABSENT;
    fn cublasLtMatmul(
        handle: cublasLtHandle_t,
        operation: cublasLtMatmulDesc_t,
        alpha: *const c_void,
        a: *const c_void,
        a_layout: cublasLtMatrixLayout_t,
        b: *const c_void,
        b_layout: cublasLtMatrixLayout_t,
        beta: *const c_void,
        c: *const c_void,
        c_layout: cublasLtMatrixLayout_t,
        d: *mut c_void,
        d_layout: cublasLtMatrixLayout_t,
        algorithm: *const cublasLtMatmulAlgo_t,
        workspace: *mut c_void,
        workspace_bytes: usize,
        stream: cudaStream_t,
    ) -> cublasStatus_t, else ABSENT;
    fn cublasLtMatmulAlgoGetHeuristic(
        handle: cublasLtHandle_t,
        operation: cublasLtMatmulDesc_t,
        a: cublasLtMatrixLayout_t,
        b: cublasLtMatrixLayout_t,
        c: cublasLtMatrixLayout_t,
        d: cublasLtMatrixLayout_t,
        preference: cublasLtMatmulPreference_t,
        wanted: c_int,
        results: *mut cublasLtMatmulHeuristicResult_t,
        found: *mut c_int,
    ) -> cublasStatus_t, else ABSENT;
    fn cublasLtMatmulDescCreate(
        operation: *mut cublasLtMatmulDesc_t,
        compute: cublasComputeType_t,
        scale: cudaDataType_t,
    ) -> cublasStatus_t, else ABSENT;
    fn cublasLtMatmulDescDestroy(operation: cublasLtMatmulDesc_t) -> cublasStatus_t, else ABSENT;
    fn cublasLtMatmulDescSetAttribute(
        operation: cublasLtMatmulDesc_t,
        which: cublasLtMatmulDescAttributes_t,
        value: *const c_void,
        bytes: usize,
    ) -> cublasStatus_t, else ABSENT;
    fn cublasLtMatmulPreferenceCreate(preference: *mut cublasLtMatmulPreference_t) -> cublasStatus_t, else ABSENT;
    fn cublasLtMatmulPreferenceDestroy(preference: cublasLtMatmulPreference_t) -> cublasStatus_t, else ABSENT;
    fn cublasLtMatmulPreferenceSetAttribute(
        preference: cublasLtMatmulPreference_t,
        which: cublasLtMatmulPreferenceAttributes_t,
        value: *const c_void,
        bytes: usize,
    ) -> cublasStatus_t, else ABSENT;
    fn cublasLtMatrixLayoutCreate(
        layout: *mut cublasLtMatrixLayout_t,
        format: cudaDataType,
        rows: u64,
        columns: u64,
        stride: i64,
    ) -> cublasStatus_t, else ABSENT;
    fn cublasLtMatrixLayoutDestroy(layout: cublasLtMatrixLayout_t) -> cublasStatus_t, else ABSENT;
}
