//! NCCL's functions, found at run time.
//!
//! cudarc declares them as well, and looks for `libnccl.so` alone, which is there with development packages only: what an
//! installation and NVIDIA's Python packages have is `libnccl.so.2`. So they are looked up here, all at once; the types are cudarc's.

use super::libraries::{FOLDERS, Library, NotFound};
use cudarc::driver::sys::CUstream;
use cudarc::nccl::sys;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::sync::OnceLock;

/// The oldest version with a mean among its sums: 2.10.
const OLDEST: c_int = 21_000;

type Send = *const c_void;
type Receive = *mut c_void;

macro_rules! functions {
    ($($field:ident = $symbol:literal ($($argument:ty),*)),+ $(,)?) => {
        /// The functions that are used; all but the last return a `ncclResult_t`.
        pub(crate) struct Nccl {
            $($field: unsafe extern "C" fn($($argument),*) -> c_int,)+
            error_string: unsafe extern "C" fn(c_int) -> *const c_char,
        }
        impl Nccl {
            /// Those of the library, which is open; or the name of one that it lacks.
            fn of(library: Library) -> Result<Self, &'static str> {
                // SAFETY: the types are those that nccl.h (2.x) declares the functions with.
                unsafe {
                    Ok(Self {
                        $($field: library.function(concat!($symbol, "\0").as_bytes()).ok_or($symbol)?,)+
                        error_string: library.function(b"ncclGetErrorString\0").ok_or("ncclGetErrorString")?,
                    })
                }
            }
        }
    };
}
functions! {
    version = "ncclGetVersion" (*mut c_int),
    unique_id = "ncclGetUniqueId" (*mut sys::ncclUniqueId),
    init_rank = "ncclCommInitRank" (*mut sys::ncclComm_t, c_int, sys::ncclUniqueId, c_int),
    abort = "ncclCommAbort" (sys::ncclComm_t),
    async_error = "ncclCommGetAsyncError" (sys::ncclComm_t, *mut c_int),
    group_start = "ncclGroupStart" (),
    group_end = "ncclGroupEnd" (),
    all_reduce = "ncclAllReduce" (Send, Receive, usize, c_int, c_int, sys::ncclComm_t, CUstream),
    reduce_scatter = "ncclReduceScatter" (Send, Receive, usize, c_int, c_int, sys::ncclComm_t, CUstream),
    reduce = "ncclReduce" (Send, Receive, usize, c_int, c_int, c_int, sys::ncclComm_t, CUstream),
    all_gather = "ncclAllGather" (Send, Receive, usize, c_int, sys::ncclComm_t, CUstream),
    broadcast = "ncclBroadcast" (Send, Receive, usize, c_int, c_int, sys::ncclComm_t, CUstream),
    send = "ncclSend" (Send, usize, c_int, c_int, sys::ncclComm_t, CUstream),
    receive = "ncclRecv" (Receive, usize, c_int, c_int, sys::ncclComm_t, CUstream),
}

impl fmt::Debug for Nccl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nccl")
    }
}

/// Why NCCL cannot be used, or what it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NcclFault {
    #[error(
        "several GPUs need NCCL, and {0}; install it (libnccl2; in Python, nvidia-nccl), or put the folder that has it into \
         {FOLDERS} or on LD_LIBRARY_PATH"
    )]
    Missing(NotFound),
    #[error("NCCL has no function {0}; 2.10 or newer is needed")]
    Lacks(&'static str),
    #[error("NCCL is of version {}.{}, and 2.10 or newer is needed", .0 / 10_000, .0 / 100 % 100)]
    Old(c_int),
    #[error("{what}: {said}")]
    Failed { what: &'static str, said: String },
}

/// A group of calls that NCCL does at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Sum,
    Mean,
    Max,
}

/// One call, in place: `at` is where the rank's (or, for whole buffers, the buffer's) elements begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    AllReduce {
        at: u64,
        count: usize,
        op: Op,
    },
    /// `count` elements a rank, from `at` on.
    ReduceScatter {
        at: u64,
        own: u64,
        count: usize,
        op: Op,
    },
    Reduce {
        at: u64,
        count: usize,
        op: Op,
        root: usize,
    },
    AllGather {
        at: u64,
        own: u64,
        count: usize,
    },
    Broadcast {
        at: u64,
        count: usize,
        root: usize,
    },
    /// To one rank.
    Send {
        at: u64,
        count: usize,
        to: usize,
    },
    /// From one rank.
    Receive {
        at: u64,
        count: usize,
        from: usize,
    },
}

/// A rank's place in a group, given up when dropped.
#[derive(Debug)]
pub(crate) struct Communicator {
    nccl: &'static Nccl,
    comm: sys::ncclComm_t,
}

// SAFETY: a communicator may be used by any one thread at a time; its owner sees to that.
unsafe impl std::marker::Send for Communicator {}
// SAFETY: as above.
unsafe impl Sync for Communicator {}

impl Nccl {
    /// The library, looked for once.
    ///
    /// # Errors
    /// That it is missing, lacks a function, or is too old.
    pub(crate) fn get() -> Result<&'static Self, NcclFault> {
        static FOUND: OnceLock<Result<Nccl, NcclFault>> = OnceLock::new();
        FOUND.get_or_init(Self::load).as_ref().map_err(Clone::clone)
    }

    fn load() -> Result<Self, NcclFault> {
        // Its versions do not follow the driver's.
        Library::Collectives.open(u32::MAX).map_err(|e| NcclFault::Missing(e.clone()))?;
        let nccl = Self::of(Library::Collectives).map_err(NcclFault::Lacks)?;
        let mut version = 0;
        // SAFETY: points to an int that outlives the call.
        nccl.said("ncclGetVersion", unsafe { (nccl.version)(&raw mut version) })?;
        if version < OLDEST { Err(NcclFault::Old(version)) } else { Ok(nccl) }
    }

    /// "2.27.3"
    ///
    /// # Errors
    /// What NCCL says.
    pub(crate) fn version_in_words(&self) -> Result<String, NcclFault> {
        let mut version = 0;
        // SAFETY: points to an int that outlives the call.
        self.said("ncclGetVersion", unsafe { (self.version)(&raw mut version) })?;
        // Since 2.9: thousands of the major version are ten.
        Ok(format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100))
    }

    fn said(&self, what: &'static str, result: c_int) -> Result<(), NcclFault> {
        if result == 0 {
            return Ok(());
        }
        // SAFETY: takes any number.
        let said = unsafe { (self.error_string)(result) };
        // SAFETY: a string of the library's own, which ends with a zero.
        let said = unsafe { CStr::from_ptr(said) }.to_string_lossy();
        // Groups meet through a socket, even those of one process.
        let alone = ["ncclGetUniqueId", "ncclCommInitRank", "ncclGroupEnd"].contains(&what) && !has_network();
        let remedy = if alone { "; no network interface but lo is up here: set NCCL_SOCKET_IFNAME=lo" } else { "" };
        Err(NcclFault::Failed { what, said: format!("{said}{remedy}") })
    }

    /// What the ranks of a new group have to know; made by one of them.
    ///
    /// # Errors
    /// What NCCL says.
    pub(crate) fn unique_id(&self) -> Result<[u8; 128], NcclFault> {
        let mut id = sys::ncclUniqueId { internal: [0; 128] };
        // SAFETY: points to an id that outlives the call.
        self.said("ncclGetUniqueId", unsafe { (self.unique_id)(&raw mut id) })?;
        Ok(id.internal.map(|c| c as u8))
    }

    /// Calls of this thread that NCCL takes together.
    ///
    /// # Errors
    /// The first failure.
    pub(crate) fn together<T>(&self, calls: impl FnOnce() -> Result<T, NcclFault>) -> Result<T, NcclFault> {
        // SAFETY: has no arguments.
        self.said("ncclGroupStart", unsafe { (self.group_start)() })?;
        let made = calls();
        // SAFETY: as above. Ended whatever came of the calls, or the thread would stay in the group.
        let ended = self.said("ncclGroupEnd", unsafe { (self.group_end)() });
        made.and_then(|made| ended.map(|()| made))
    }

    /// Joins a group of `size` for some of its ranks; `enter` makes a rank's device the current one. Returns when all ranks of the
    /// group have joined, wherever they are.
    ///
    /// # Errors
    /// What NCCL says.
    pub(crate) fn join(
        &'static self,
        id: [u8; 128],
        size: usize,
        ranks: &[usize],
        mut enter: impl FnMut(usize),
    ) -> Result<Vec<Communicator>, NcclFault> {
        let id = sys::ncclUniqueId { internal: id.map(|b| b as c_char) };
        // NCCL writes the handles when the group of calls ends, whatever came of them: their places outlast it.
        let mut made: Vec<Communicator> =
            ranks.iter().map(|_| Communicator { nccl: self, comm: std::ptr::null_mut() }).collect();
        self.together(|| {
            for (place, &rank) in made.iter_mut().zip(ranks) {
                enter(rank);
                // SAFETY: points into the list, which neither moves nor ends before the group of calls has ended.
                let joined = unsafe { (self.init_rank)(&raw mut place.comm, size as c_int, id, rank as c_int) };
                self.said("ncclCommInitRank", joined)?;
            }
            Ok(())
        })?;
        Ok(made)
    }
}

impl Communicator {
    /// Puts a call into a stream of the communicator's device.
    ///
    /// # Errors
    /// What NCCL says.
    pub(crate) fn call(&self, call: Call, bf16: bool, stream: CUstream) -> Result<(), NcclFault> {
        let n = self.nccl;
        let format = if bf16 { sys::ncclDataType_t::ncclBfloat16 } else { sys::ncclDataType_t::ncclFloat32 } as c_int;
        let number = |op: Op| match op {
            Op::Sum => sys::ncclRedOp_t::ncclSum as c_int,
            Op::Mean => sys::ncclRedOp_t::ncclAvg as c_int,
            Op::Max => sys::ncclRedOp_t::ncclMax as c_int,
        };
        let (from, to) = (|at: u64| at as Send, |at: u64| at as Receive);
        let (what, result) = match call {
            Call::AllReduce { at, count, op } => {
                // SAFETY: address and count are of an array of the device, which outlives what is in the stream; all ranks make
                // the same calls in the same order, as `Collective` asks of them.
                let result = unsafe { (n.all_reduce)(from(at), to(at), count, format, number(op), self.comm, stream) };
                ("ncclAllReduce", result)
            }
            Call::ReduceScatter { at, own, count, op } => {
                // SAFETY: as above.
                let result =
                    unsafe { (n.reduce_scatter)(from(at), to(own), count, format, number(op), self.comm, stream) };
                ("ncclReduceScatter", result)
            }
            Call::Reduce { at, count, op, root } => {
                let root = root as c_int;
                // SAFETY: as above.
                let result =
                    unsafe { (n.reduce)(from(at), to(at), count, format, number(op), root, self.comm, stream) };
                ("ncclReduce", result)
            }
            Call::AllGather { at, own, count } => {
                // SAFETY: as above.
                let result = unsafe { (n.all_gather)(from(own), to(at), count, format, self.comm, stream) };
                ("ncclAllGather", result)
            }
            Call::Broadcast { at, count, root } => {
                // SAFETY: as above.
                let result =
                    unsafe { (n.broadcast)(from(at), to(at), count, format, root as c_int, self.comm, stream) };
                ("ncclBroadcast", result)
            }
            Call::Send { at, count, to } => {
                // SAFETY: as above; what is sent is received in the same group of calls.
                let result = unsafe { (n.send)(from(at), count, format, to as c_int, self.comm, stream) };
                ("ncclSend", result)
            }
            Call::Receive { at, count, from } => {
                // SAFETY: as above.
                let result = unsafe { (n.receive)(to(at), count, format, from as c_int, self.comm, stream) };
                ("ncclRecv", result)
            }
        };
        n.said(what, result)
    }

    /// What has gone wrong while calls ran: a link that broke, a process that is gone.
    ///
    /// # Errors
    /// What NCCL says.
    pub(crate) fn check(&self) -> Result<(), NcclFault> {
        let mut state = 0;
        // SAFETY: points to an int that outlives the call.
        let asked = unsafe { (self.nccl.async_error)(self.comm, &raw mut state) };
        self.nccl.said("ncclCommGetAsyncError", asked)?;
        self.nccl.said("a collective", state)
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        if !self.comm.is_null() {
            // Aborted and not destroyed, which would wait for ranks that may be gone.
            // SAFETY: made by `join`, given up once.
            let _ = unsafe { (self.nccl.abort)(self.comm) };
        }
    }
}

/// Whether an interface beside the machine's own loop is up; as far as the system tells.
fn has_network() -> bool {
    let Ok(interfaces) = std::fs::read_dir("/sys/class/net") else { return true };
    interfaces.filter_map(Result::ok).filter(|i| i.file_name() != "lo").any(|i| {
        // "unknown" is what interfaces without a carrier of their own say.
        std::fs::read_to_string(i.path().join("operstate")).is_ok_and(|state| state.trim() != "down")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_library_the_message_says_what_to_install() {
        let missing = NcclFault::Missing(NotFound::default()).to_string();
        assert!(missing.contains("install it (libnccl2; in Python, nvidia-nccl)"), "{missing}");
        assert_eq!(NcclFault::Old(20_804).to_string(), "NCCL is of version 2.8, and 2.10 or newer is needed");
    }

    #[test]
    fn the_library_has_what_is_called_where_it_is_installed() {
        match Nccl::get() {
            Ok(nccl) => assert!(nccl.said("nothing", 0).is_ok() && nccl.said("a call", 4).is_err()),
            Err(e @ NcclFault::Missing(_)) => println!("skipped: {e}"),
            Err(e) => panic!("{e}"),
        }
    }
}
