//! NVRTC's functions. Results are plain numbers, in words by [`words`]: newer versions answer some that older headers do not name.

use super::libraries::{Library, functions};
use cudarc::nvrtc::sys::nvrtcProgram;
use std::ffi::{CStr, c_char, c_int};

/// What a function answers that the library lacks; no result of NVRTC's own.
const ABSENT: c_int = -1;

functions! { Library::Compiler;
    fn nvrtcVersion(major: *mut c_int, minor: *mut c_int) -> c_int, else ABSENT;
    fn nvrtcGetNumSupportedArchs(count: *mut c_int) -> c_int, else ABSENT;
    fn nvrtcGetSupportedArchs(all: *mut c_int) -> c_int, else ABSENT;
    fn nvrtcCreateProgram(
        program: *mut nvrtcProgram,
        source: *const c_char,
        name: *const c_char,
        count: c_int,
        headers: *const *const c_char,
        names: *const *const c_char,
    ) -> c_int, else ABSENT;
    fn nvrtcAddNameExpression(program: nvrtcProgram, expression: *const c_char) -> c_int, else ABSENT;
    fn nvrtcGetLoweredName(program: nvrtcProgram, expression: *const c_char, name: *mut *const c_char) -> c_int, else ABSENT;
    fn nvrtcCompileProgram(program: nvrtcProgram, count: c_int, options: *const *const c_char) -> c_int, else ABSENT;
    fn nvrtcGetProgramLogSize(program: nvrtcProgram, bytes: *mut usize) -> c_int, else ABSENT;
    fn nvrtcGetProgramLog(program: nvrtcProgram, log: *mut c_char) -> c_int, else ABSENT;
    fn nvrtcGetCUBINSize(program: nvrtcProgram, bytes: *mut usize) -> c_int, else ABSENT;
    fn nvrtcGetCUBIN(program: nvrtcProgram, image: *mut c_char) -> c_int, else ABSENT;
    fn nvrtcGetPTXSize(program: nvrtcProgram, bytes: *mut usize) -> c_int, else ABSENT;
    fn nvrtcGetPTX(program: nvrtcProgram, image: *mut c_char) -> c_int, else ABSENT;
    fn nvrtcDestroyProgram(program: *mut nvrtcProgram) -> c_int, else ABSENT;
    fn nvrtcGetErrorString(result: c_int) -> *const c_char, else std::ptr::null();
}

/// `NVRTC_ERROR_COMPILATION`, or what is known of a result without a name.
pub(super) fn words(result: c_int) -> String {
    if result == ABSENT {
        return "this library has no such function".into();
    }
    // SAFETY: takes any number.
    let name = unsafe { nvrtcGetErrorString(result) };
    if name.is_null() {
        return format!("result {result}");
    }
    // SAFETY: a string of the library's own, which stays.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}
