//! What all launches share: grids sized to the device, and arguments.

use super::device::{Address, Arg, Device, Launch, Real};

/// Threads of a block where nothing speaks for another number.
pub(super) const THREADS: u32 = 256;

/// Blocks of [`THREADS`] that a multiprocessor holds at once: 2048 threads since compute capability 8.0.
const RESIDENT: u32 = 8;

/// Blocks for so many pieces of work, a block doing `a_block` of them at once and striding over the rest: no more than run at
/// the same time.
pub(super) fn blocks(on: &dyn Device, pieces: usize, a_block: usize) -> u32 {
    blocks_of(on, pieces, a_block, RESIDENT)
}

/// The same where a multiprocessor holds `resident` blocks.
pub(super) fn blocks_of(on: &dyn Device, pieces: usize, a_block: usize, resident: u32) -> u32 {
    let at_once = on.facts().multiprocessors.max(1) * resident;
    u32::try_from(pieces.div_ceil(a_block)).unwrap_or(u32::MAX).clamp(1, at_once)
}

/// Blocks for a kernel that goes over `n` rows of `c` elements by `over_rows`: a warp takes 128 vectors of 16 bytes at a time.
pub(super) fn blocks_over_rows(on: &dyn Device, real: Real, n: usize, c: usize) -> u32 {
    blocks(on, n * vectors(real, c).div_ceil(128), THREADS as usize / 32)
}

/// Accesses that a row of `c` elements takes: of 16 bytes where it divides into them, else one by one.
pub(super) fn vectors(real: Real, c: usize) -> usize {
    let width = 16 / real.size();
    if c.is_multiple_of(width) { c / width } else { c }
}

/// An `int`. Dimensions are below 2^20 and rows below 2^31; products of them are computed in `long long` on the device.
pub(super) fn int(n: usize) -> Arg {
    Arg::I32(i32::try_from(n).unwrap_or(i32::MAX))
}

/// A `long long`.
pub(super) fn long(n: usize) -> Arg {
    Arg::I64(i64::try_from(n).unwrap_or(i64::MAX))
}

/// A pointer.
pub(super) fn at(address: Address) -> Arg {
    Arg::Address(address)
}

/// A pointer that may be null.
pub(super) fn at_or_null(address: Option<Address>) -> Arg {
    Arg::Address(address.unwrap_or(0))
}

/// A kernel of `kernels/<file>.cu` in one format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel<'a> {
    pub on: &'a dyn Device,
    pub file: &'static str,
    pub name: &'static str,
    pub real: Real,
}

impl Kernel<'_> {
    /// Runs on `grid` blocks of `threads` each.
    pub(super) fn run(&self, grid: u32, threads: u32, args: &[Arg]) {
        self.run_grid([grid, 1, 1], threads, args);
    }

    pub(super) fn run_grid(&self, grid: [u32; 3], threads: u32, args: &[Arg]) {
        self.run_shared(grid, threads, 0, args);
    }

    /// The same with dynamic shared memory.
    pub(super) fn run_shared(&self, grid: [u32; 3], threads: u32, shared_bytes: u32, args: &[Arg]) {
        let Self { on, file, name: kernel, real } = *self;
        on.launch(&Launch { file, kernel, real, grid, threads, shared_bytes, args });
    }
}
