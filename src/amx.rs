//! Products of tiles by Intel's AMX, which processors have since Sapphire Rapids: whether this process may use them, and the two
//! loops that are made of them. The compiler has no name for these instructions yet; they stand here as assembly, with a plain form of
//! the same arithmetic that tests hold against them and against everything else.
//!
//! Layouts: Intel's Software Developer's Manual, TDPBF16PS. A tile is 16 rows of 64 bytes. Of the left factor a row is 32 bf16
//! along the inner dimension, in 16 words; of the right one a row is a word of each of 16 columns, a word being two neighbours along the
//! inner dimension, the first in the low half.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a kernel: each line is an instruction or a pointer's step, all under the one obligation of its function"
)]

use std::ptr::from_ref;

/// Rows of a tile, and words of each of them.
pub(crate) const TILE: usize = 16;
/// Rows and columns of what [`multiply`] adds up: two tiles each way, since four results are what the tiles' registers hold.
pub(crate) const SIDE: usize = 2 * TILE;

/// `c [32, 32] = a b` over `steps` times 16 words of the inner dimension, in f32. Of each step `a` holds two tiles, of rows 0 to 15 and of
/// rows 16 to 31, and `b` 16 rows of 32 words. `ahead`: from where cache lines are asked for, [`AHEAD`] of them a step.
pub(crate) type Multiply = unsafe fn(steps: usize, a: *const f32, b: *const f32, c: *mut Sums, ahead: *const f32);

/// Cache lines that are asked for with each step: few, since more at once would stand in the way of the tiles' own.
pub(crate) const AHEAD: usize = 4;

/// What [`Multiply`] makes, row after row.
#[repr(align(64))]
pub(crate) struct Sums(pub [f32; SIDE * SIDE]);

/// Whether this process may use tiles of bf16: the processor has them, the system keeps them for a thread that is interrupted, and has
/// been asked to.
pub(crate) fn available() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        static ASKED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *ASKED.get_or_init(|| x86::present() && x86::permitted())
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}

/// Runs `units` times four products of tiles on registers alone, and says how many FLOPs a unit is: what a core can do at the most.
pub(crate) fn burst(units: u64) -> u64 {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if available() {
        // SAFETY: the tiles are there, as the line above says.
        unsafe { x86::burst(units) };
    }
    units.min(1) * 4 * 2 * (TILE * TILE * 2 * TILE) as u64
}

/// As [`Multiply`] says, by AMX.
///
/// # Safety
/// [`available`]; `a` and `b` hold `steps` times 512 words, and `c` is the caller's alone.
pub(crate) unsafe fn multiply(steps: usize, a: *const f32, b: *const f32, c: *mut Sums, ahead: *const f32) {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    // SAFETY: the caller's.
    unsafe {
        x86::multiply(steps, a, b, c, ahead);
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    // SAFETY: the caller's.
    unsafe {
        emulated(steps, a, b, c, ahead);
    }
}

/// As [`Multiply`] says, in plain code.
///
/// # Safety
/// `a` and `b` hold `steps` times 512 words, and `c` is the caller's alone.
#[cfg(any(test, not(all(target_arch = "x86_64", target_os = "linux"))))]
pub(crate) unsafe fn emulated(steps: usize, a: *const f32, b: *const f32, c: *mut Sums, _: *const f32) {
    // SAFETY: the caller's.
    let c = unsafe {
        (*c).0 = [0.0; SIDE * SIDE];
        &mut *c
    };
    for step in 0..steps {
        let at = step * SIDE * TILE;
        for row in 0..SIDE {
            for word in 0..TILE {
                // SAFETY: two tiles of a step, one of rows up to 15 and one of the others.
                let left = unsafe { *a.add(at + row / TILE * TILE * TILE + row % TILE * TILE + word) };
                let [left_low, left_high] = pair(left);
                for column in 0..SIDE {
                    // SAFETY: 16 rows of 32 words of a step.
                    let [low, high] = pair(unsafe { *b.add(at + word * SIDE + column) });
                    let sum = &mut c.0[row * SIDE + column];
                    *sum += left_low * low;
                    *sum += left_high * high;
                }
            }
        }
    }
}

/// The two bf16 of a word.
#[inline(always)]
pub(crate) fn pair(word: f32) -> [f32; 2] {
    let bits = word.to_bits();
    [f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000)]
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod x86 {
    use super::{Sums, from_ref};
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid_count, _xgetbv};
    use std::cell::Cell;

    /// Whether the processor has tiles and products of bf16 (CPUID leaf 7: EDX bits 24 and 22), and the system keeps their registers
    /// (XCR0 bits 17 and 18).
    pub(super) fn present() -> bool {
        #[target_feature(enable = "xsave")]
        fn kept() -> u64 {
            // SAFETY: the function's feature.
            unsafe { _xgetbv(0) }
        }
        const TILES_OF_BF16: u32 = 1 << 24 | 1 << 22;
        const KEPT: u64 = 1 << 17 | 1 << 18;
        // OSXSAVE, without which XCR0 cannot be read.
        let readable = __cpuid_count(1, 0).ecx & 1 << 27 != 0;
        readable
            && __cpuid_count(0, 0).eax >= 7
            && __cpuid_count(7, 0).edx & TILES_OF_BF16 == TILES_OF_BF16
            // SAFETY: OSXSAVE was seen above.
            && unsafe { kept() } & KEPT == KEPT
    }

    /// Asks Linux for the tiles' registers, which are too large to be saved for every process: arch_prctl(ARCH_REQ_XCOMP_PERM,
    /// XFEATURE_XTILEDATA). Holds for all threads of the process.
    pub(super) fn permitted() -> bool {
        const ARCH_PRCTL: i64 = 158;
        let answer: i64;
        // SAFETY: a system call that touches no memory; what it overwrites is said.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => answer,
                in("rdi") 0x1023,
                in("rsi") 18,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        answer == 0
    }

    /// The shapes of a thread's eight tiles: all whole.
    fn configure() {
        thread_local! {
            static DONE: Cell<bool> = const { Cell::new(false) };
        }
        #[repr(align(64))]
        struct Shapes([u8; 64]);
        if DONE.replace(true) {
            return;
        }
        let mut shapes = Shapes([0; 64]);
        // Palette 1; bytes of a row from byte 16 on, 16 bits each; rows from byte 48 on.
        shapes.0[0] = 1;
        for tile in 0..8 {
            shapes.0[16 + 2 * tile] = 64;
            shapes.0[48 + tile] = 16;
        }
        // SAFETY: only called where tiles are; the 64 bytes are as the instruction wants them.
        unsafe { asm!("ldtilecfg [{}]", in(reg) from_ref(&shapes), options(nostack, readonly)) };
    }

    /// # Safety
    /// Tiles are there; `a` and `b` hold `steps` times 512 words.
    pub(super) unsafe fn multiply(steps: usize, a: *const f32, b: *const f32, c: *mut Sums, ahead: *const f32) {
        configure();
        // SAFETY: the caller's; results go into `c`, row by row, 128 bytes apart; asking for a cache line touches nothing.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "test {steps}, {steps}",
                "jz 3f",
                "2:",
                "tileloadd tmm4, [{a} + {row}]",
                "tileloadd tmm6, [{b} + {row}*2]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht0 [{ahead}]",
                "tileloadd tmm7, [{b} + {row}*2 + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht0 [{ahead} + 64]",
                "tileloadd tmm5, [{a} + {row} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "prefetcht0 [{ahead} + 128]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht0 [{ahead} + 192]",
                "add {a}, 2048",
                "add {b}, 2048",
                "add {ahead}, 256",
                "dec {steps}",
                "jnz 2b",
                "3:",
                "tilestored [{c} + {row}*2], tmm0",
                "tilestored [{c} + {row}*2 + 64], tmm1",
                "tilestored [{c} + {row}*2 + 2048], tmm2",
                "tilestored [{c} + {row}*2 + 2112], tmm3",
                steps = inout(reg) steps => _,
                a = inout(reg) a => _,
                b = inout(reg) b => _,
                ahead = inout(reg) ahead => _,
                c = in(reg) c,
                row = in(reg) 64usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }

    /// # Safety
    /// Tiles are there.
    pub(super) unsafe fn burst(units: u64) {
        configure();
        // SAFETY: the caller's; registers alone.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "tilezero tmm4",
                "tilezero tmm6",
                "test {units}, {units}",
                "jz 3f",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm4, tmm6",
                "tdpbf16ps tmm3, tmm4, tmm6",
                "dec {units}",
                "jnz 2b",
                "3:",
                units = inout(reg) units => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm6") _,
                options(nostack, nomem),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against sums in f64, with rows and columns that cannot be mistaken for one another; and the instructions, where they are,
    /// against the plain form.
    #[test]
    fn tiles_are_multiplied_as_their_layout_says() {
        let bf16 = |i: usize| half::bf16::from_f32(((i * 7919) % 257) as f32 / 64.0 - 2.0);
        let word =
            |i: usize| f32::from_bits(u32::from(bf16(2 * i).to_bits()) | u32::from(bf16(2 * i + 1).to_bits()) << 16);
        for steps in [0, 1, 2, 5] {
            let len = steps * SIDE * TILE;
            let (a, b): (Vec<f32>, Vec<f32>) =
                ((0..len).map(word).collect(), (0..len).map(|i| word(3 * i + 1)).collect());
            let mut plain = Sums([7.0; SIDE * SIDE]);
            // SAFETY: as many words as steps take.
            unsafe { emulated(steps, a.as_ptr(), b.as_ptr(), &mut plain, b.as_ptr()) };
            for row in 0..SIDE {
                for column in 0..SIDE {
                    let one = |k: usize| {
                        let at = k / TILE * SIDE * TILE;
                        let left = pair(a[at + row / TILE * 256 + row % TILE * TILE + k % TILE]);
                        let right = pair(b[at + k % TILE * SIDE + column]);
                        f64::from(left[0]) * f64::from(right[0]) + f64::from(left[1]) * f64::from(right[1])
                    };
                    let want: f64 = (0..steps * TILE).map(one).sum();
                    assert!((f64::from(plain.0[row * SIDE + column]) - want).abs() < 1e-3, "{steps}: {row} {column}");
                }
            }
            if !available() {
                continue;
            }
            let mut tiles = Sums([7.0; SIDE * SIDE]);
            // SAFETY: tiles are there.
            unsafe { multiply(steps, a.as_ptr(), b.as_ptr(), &mut tiles, b.as_ptr()) };
            for (i, (got, want)) in tiles.0.iter().zip(plain.0).enumerate() {
                assert!((got - want).abs() < 1e-3, "{steps}: element {i} is {got}, plainly {want}");
            }
        }
    }

    #[test]
    fn a_unit_is_four_products_of_tiles() {
        assert_eq!(burst(3), 4 * 2 * 16 * 16 * 32);
        assert_eq!(burst(0), 0);
    }
}
