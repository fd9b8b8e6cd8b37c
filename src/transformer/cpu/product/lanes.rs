//! Vectors as the product's kernel sees them: one source of the kernel, and these few operations for each instruction set.
//!
//! A panel's word is 32 bits wide whatever the precision: an f32, or a pair of bf16 that are neighbours along the inner
//! dimension, the first in the low half. Which of the two `fma` takes, the implementation says.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a kernel: each line is an intrinsic or a pointer's step, all under the one obligation of its function"
)]

/// A vector of f32 accumulators and how the product of two words of panels is added to it.
pub(in crate::transformer::cpu) trait Lanes {
    type Vector: Copy;
    /// Elements of a vector.
    const WIDTH: usize;

    /// # Safety
    /// For all: the machine has the instructions, and pointers are valid for what is read or written.
    unsafe fn zero() -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    unsafe fn splat(from: *const f32) -> Self::Vector;
    /// `sum + a b`, words being of the panel's precision.
    unsafe fn fma(a: Self::Vector, b: Self::Vector, sum: Self::Vector) -> Self::Vector;
    /// Asks for a cache line that will be read soon; any address does.
    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint, which reads nothing.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
    /// `to = factor sum + base`, a null base being nothing.
    unsafe fn store(sum: Self::Vector, factor: f32, base: *const f32, to: *mut f32);
}

/// Plain code over arrays, which the compiler turns into whatever vectors the architecture has.
pub(in crate::transformer::cpu) struct Portable;

const PLAIN: usize = 8;

#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    // Without the instruction `mul_add` is a library call.
    if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
}

impl Lanes for Portable {
    type Vector = [f32; PLAIN];
    const WIDTH: usize = PLAIN;

    #[inline(always)]
    unsafe fn zero() -> [f32; PLAIN] {
        [0.0; PLAIN]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; PLAIN] {
        // SAFETY: the caller's.
        unsafe { from.cast::<[f32; PLAIN]>().read() }
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> [f32; PLAIN] {
        // SAFETY: the caller's.
        [unsafe { *from }; PLAIN]
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; PLAIN], b: [f32; PLAIN], mut sum: [f32; PLAIN]) -> [f32; PLAIN] {
        for i in 0..PLAIN {
            sum[i] = multiply_add(a[i], b[i], sum[i]);
        }
        sum
    }
    #[inline(always)]
    unsafe fn store(sum: [f32; PLAIN], factor: f32, base: *const f32, to: *mut f32) {
        for (i, s) in sum.into_iter().enumerate() {
            // SAFETY: the caller's.
            unsafe {
                let base = if base.is_null() { 0.0 } else { *base.add(i) };
                *to.add(i) = base + factor * s;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(in crate::transformer::cpu) use x86::{Avx2, Avx512, Avx512Bf16};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    /// Eight elements.
    pub(crate) struct Avx2;
    /// Sixteen elements.
    pub(crate) struct Avx512;
    /// Sixteen elements, pairs multiplied by one instruction.
    pub(crate) struct Avx512Bf16;

    impl Lanes for Avx2 {
        type Vector = __m256;
        const WIDTH: usize = 8;

        #[inline(always)]
        unsafe fn zero() -> __m256 {
            // SAFETY: the caller's, here and below.
            unsafe { _mm256_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_set1_ps(*from) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, sum: __m256) -> __m256 {
            // SAFETY: the caller's.
            unsafe { _mm256_fmadd_ps(a, b, sum) }
        }
        #[inline(always)]
        unsafe fn store(sum: __m256, factor: f32, base: *const f32, to: *mut f32) {
            // SAFETY: the caller's.
            unsafe {
                let factor = _mm256_set1_ps(factor);
                let value = if base.is_null() {
                    _mm256_mul_ps(sum, factor)
                } else {
                    _mm256_fmadd_ps(sum, factor, _mm256_loadu_ps(base))
                };
                _mm256_storeu_ps(to, value);
            }
        }
    }

    #[inline(always)]
    unsafe fn store512(sum: __m512, factor: f32, base: *const f32, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe {
            let factor = _mm512_set1_ps(factor);
            let value = if base.is_null() {
                _mm512_mul_ps(sum, factor)
            } else {
                _mm512_fmadd_ps(sum, factor, _mm512_loadu_ps(base))
            };
            _mm512_storeu_ps(to, value);
        }
    }

    impl Lanes for Avx512 {
        type Vector = __m512;
        const WIDTH: usize = 16;

        #[inline(always)]
        unsafe fn zero() -> __m512 {
            // SAFETY: the caller's.
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            // SAFETY: the caller's.
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> __m512 {
            // SAFETY: the caller's.
            unsafe { _mm512_set1_ps(*from) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, sum: __m512) -> __m512 {
            // SAFETY: the caller's.
            unsafe { _mm512_fmadd_ps(a, b, sum) }
        }
        #[inline(always)]
        unsafe fn store(sum: __m512, factor: f32, base: *const f32, to: *mut f32) {
            // SAFETY: the caller's.
            unsafe { store512(sum, factor, base, to) }
        }
    }

    impl Lanes for Avx512Bf16 {
        type Vector = __m512;
        const WIDTH: usize = 16;

        #[inline(always)]
        unsafe fn zero() -> __m512 {
            // SAFETY: the caller's.
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            // SAFETY: the caller's.
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> __m512 {
            // SAFETY: the caller's.
            unsafe { _mm512_set1_ps(*from) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, sum: __m512) -> __m512 {
            // SAFETY: the caller's; both types are 512 bits without further meaning.
            unsafe {
                let pairs = |x: __m512| std::mem::transmute::<__m512, __m512bh>(x);
                _mm512_dpbf16_ps(sum, pairs(a), pairs(b))
            }
        }
        #[inline(always)]
        unsafe fn store(sum: __m512, factor: f32, base: *const f32, to: *mut f32) {
            // SAFETY: the caller's.
            unsafe { store512(sum, factor, base, to) }
        }
    }
}
