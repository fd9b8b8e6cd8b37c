//! Ranges of NVIDIA's tools (NVTX), by which Nsight Systems shows on its time line what a program is at.
//!
//! NVTX 3 is a header and no library: a tool that starts a program names a library of its own in `NVTX_INJECTION64_PATH`; the program
//! loads it and hands it, through `InitializeInjectionNvtx2`, tables of places into which the tool writes the addresses of its functions
//! (NVTX 3.1, nvtxTypes.h and nvtxInit.h). That is done here, for the two functions that are called: push and pop. A tool that knows
//! NVTX 2 alone is met by the library of older toolkits, `libnvToolsExt.so.1`. Without a tool nothing is loaded.

use std::ffi::{CString, OsStr, c_char, c_int, c_uint, c_void};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Where a tool names its library.
const INJECTION: &str = if size_of::<usize>() == 8 { "NVTX_INJECTION64_PATH" } else { "NVTX_INJECTION32_PATH" };

/// What toolkits before 12.9 have.
const OLDER: &str = "libnvToolsExt.so.1";

type Push = unsafe extern "C" fn(*const c_char) -> c_int;
type Pop = unsafe extern "C" fn() -> c_int;

/// A tool that listens.
#[derive(Debug)]
pub(super) struct Tool {
    push: Push,
    pop: Pop,
}

/// The tool that this process was started by, if one listens. Looked for once.
pub(super) fn tool() -> Option<&'static Tool> {
    static TOOL: OnceLock<Option<Tool>> = OnceLock::new();
    TOOL.get_or_init(|| attached(std::env::var_os(INJECTION).as_deref(), OsStr::new(OLDER))).as_ref()
}

impl Tool {
    /// A range of this thread begins.
    pub(super) fn push(&self, name: &str) {
        // Names are our own, without zeros.
        let name = CString::new(name).unwrap_or_default();
        // SAFETY: the tool's function of this type; the text outlives the call, which keeps a copy.
        unsafe { (self.push)(name.as_ptr()) };
    }

    /// The range of this thread that began last ends.
    pub(super) fn pop(&self) {
        // SAFETY: the tool's function of this type.
        unsafe { (self.pop)() };
    }
}

fn attached(injection: Option<&OsStr>, older: &OsStr) -> Option<Tool> {
    let injection = injection.filter(|path| !path.is_empty())?;
    injected(injection).or_else(|| linked(older))
}

/// By the protocol of NVTX 3.
fn injected(path: &OsStr) -> Option<Tool> {
    type Initialize = unsafe extern "C" fn(extern "C" fn(u32) -> *const c_void) -> c_int;
    let library = load(path)?;
    // SAFETY: by this name tools export a function of this type.
    let initialize = *unsafe { library.get::<Initialize>(b"InitializeInjectionNvtx2\0") }.ok()?;
    // It is never unloaded: the tool has threads of its own.
    std::mem::forget(library);
    // SAFETY: called once, with a function that answers as the header's does.
    if unsafe { initialize(export_table) } == 0 {
        return None;
    }
    let [push, pop] = [PUSH, POP].map(|function| modules()[CORE].slots[function].load(Ordering::Acquire));
    if push.is_null() || pop.is_null() {
        return None;
    }
    // SAFETY: what tools write into this place is a function of this type.
    let push = unsafe { std::mem::transmute::<*mut c_void, Push>(push) };
    // SAFETY: as above.
    let pop = unsafe { std::mem::transmute::<*mut c_void, Pop>(pop) };
    Some(Tool { push, pop })
}

/// By the library of NVTX 2, which finds the tool itself.
fn linked(name: &OsStr) -> Option<Tool> {
    let library = load(name)?;
    // SAFETY: the library's function of this name is of this type.
    let push = *unsafe { library.get::<Push>(b"nvtxRangePushA\0") }.ok()?;
    // SAFETY: as above.
    let pop = *unsafe { library.get::<Pop>(b"nvtxRangePop\0") }.ok()?;
    std::mem::forget(library);
    Some(Tool { push, pop })
}

fn load(path: &OsStr) -> Option<libloading::Library> {
    // SAFETY: loading runs the library's initialisers; it is the tool's or NVIDIA's, which ask nothing of the caller.
    unsafe { libloading::Library::new(path) }.ok()
}

/// The module of the functions without a domain, by its number.
const CORE: usize = 1;
/// Of `nvtxRangePushA` and `nvtxRangePop` in it.
const PUSH: usize = 9;
const POP: usize = 11;

/// Functions of each module, the first of which is none: core, CUDA, OpenCL, CUDA's runtime, core with domains, synchronisation.
const FUNCTIONS: [usize; 7] = [0, 16, 9, 15, 7, 16, 7];

/// A module's functions: places for their addresses, and where these places are.
struct Module {
    slots: &'static [AtomicPtr<c_void>],
    /// One more than functions, the first and the last of them nowhere.
    places: Box<[*mut *mut c_void]>,
}

// SAFETY: the places are those of `slots`, which are atomic; tools write to them while they are initialised.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

fn modules() -> &'static [Module; 7] {
    static MODULES: OnceLock<[Module; 7]> = OnceLock::new();
    MODULES.get_or_init(|| {
        FUNCTIONS.map(|functions| {
            let slots: Vec<AtomicPtr<c_void>> = (0..functions).map(|_| AtomicPtr::new(null_mut())).collect();
            let slots: &'static [AtomicPtr<c_void>] = slots.leak();
            let places = slots.iter().enumerate().map(|(i, s)| if i == 0 { null_mut() } else { s.as_ptr() });
            Module { slots, places: places.chain([null_mut()]).collect() }
        })
    })
}

#[repr(C)]
struct Callbacks {
    size: usize,
    of_module: extern "C" fn(c_int, *mut *const *mut *mut c_void, *mut c_uint) -> c_int,
}

#[repr(C)]
struct Version {
    size: usize,
    version: u32,
    reserved: u32,
    told: extern "C" fn(u32),
}

/// Answers a tool as the header does: 1 asks for the functions, 3 for the version.
extern "C" fn export_table(id: u32) -> *const c_void {
    static CALLBACKS: Callbacks = Callbacks { size: size_of::<Callbacks>(), of_module };
    static VERSION: Version = Version { size: size_of::<Version>(), version: 3, reserved: 0, told };
    match id {
        1 => (&raw const CALLBACKS).cast(),
        3 => (&raw const VERSION).cast(),
        _ => null(),
    }
}

/// The places of a module's functions and their number; 0 for a module that there is not.
extern "C" fn of_module(module: c_int, places: *mut *const *mut *mut c_void, functions: *mut c_uint) -> c_int {
    let found = usize::try_from(module).ok().filter(|m| *m > 0).and_then(|m| modules().get(m));
    let Some(found) = found else { return 0 };
    if !places.is_null() {
        // SAFETY: where the caller wants them, and not null.
        unsafe { *places = found.places.as_ptr() };
    }
    if !functions.is_null() {
        // SAFETY: as above.
        unsafe { *functions = found.slots.len() as c_uint };
    }
    1
}

/// The tool's version, which changes nothing.
extern "C" fn told(_: u32) {}

#[cfg(test)]
pub(super) mod nvtx_tests;
