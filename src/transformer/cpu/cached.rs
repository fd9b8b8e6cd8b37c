//! What the KV cache holds of a number, and where in a buffer it lies.
//!
//! Numbers of few bits are those of a vector (a head's key or value of a token) over its scale, an f32 by which the largest becomes the
//! largest that there is. They are expanded where they are read: a sum over a vector's numbers is scaled once, and not each of them.

use super::super::backend::{CacheDims, LatentDims};
use super::chunks::{Perhaps, Writing, perhaps, writing};
use half::bf16;

/// An element of the cache.
///
/// # Safety
/// All of its bit patterns are elements, it takes 1, 2 or 4 bytes, and no more of alignment.
pub(super) unsafe trait Cached: Copy + Send + Sync {
    /// What a vector's largest number is stored as; `None` where numbers are stored as they are, without scales.
    const LARGEST: Option<f32>;
    /// What [`Cached::raw`] lacks, twice.
    const LIFT: f32 = 1.0;
    /// The nearest.
    fn of(x: f32) -> Self;
    /// A number over `LIFT` squared: where a sum is of products with these, one factor and the sum are multiplied by `LIFT` instead of
    /// each number by both.
    fn raw(self) -> f32;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.raw() * (Self::LIFT * Self::LIFT)
    }
}

// SAFETY: every bit pattern is a number.
unsafe impl Cached for f32 {
    const LARGEST: Option<f32> = None;
    #[inline(always)]
    fn of(x: f32) -> Self {
        x
    }
    #[inline(always)]
    fn raw(self) -> f32 {
        self
    }
}

// SAFETY: as above.
unsafe impl Cached for bf16 {
    const LARGEST: Option<f32> = None;
    #[inline(always)]
    fn of(x: f32) -> Self {
        Self::from_f32(x)
    }
    #[inline(always)]
    fn raw(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

// SAFETY: as above.
unsafe impl Cached for i8 {
    const LARGEST: Option<f32> = Some(127.0);
    #[inline(always)]
    fn of(x: f32) -> Self {
        /// Adding it rounds to a whole number, ties to even: 1.5 * 2^23.
        const ROUND: f32 = 12_582_912.0;
        ((x.clamp(-127.0, 127.0) + ROUND) - ROUND) as Self
    }
    #[inline(always)]
    fn raw(self) -> f32 {
        f32::from(self)
    }
}

/// A float of 8 bits: sign, four of the exponent (biased by 7), three of the mantissa. No infinities; of NaN there is one a sign, which is
/// never stored (Micikevicius et al. 2022, table 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct E4m3(u8);

impl E4m3 {
    /// Its byte.
    #[inline(always)]
    pub(super) fn code(self) -> u8 {
        self.0
    }
    /// Of its byte.
    #[inline(always)]
    pub(super) fn of_code(code: u8) -> Self {
        Self(code)
    }
}

// SAFETY: as above.
unsafe impl Cached for E4m3 {
    const LARGEST: Option<f32> = Some(448.0);
    /// 2^60: the exponents' biases are 127 - 7 apart, and subnormals of the one are subnormals of the other.
    const LIFT: f32 = f32::from_bits((60 + 127) << 23);
    #[inline(always)]
    fn of(x: f32) -> Self {
        /// The least with an exponent of its own, 2^-6; below it steps are of 2^-9.
        const NORMAL: f32 = 0.015_625;
        /// 2^14, whose neighbours are 2^-9 apart: adding it rounds to these steps and leaves their number in the low bits.
        const STEPS: f32 = 16_384.0;
        let sign = (x.to_bits() >> 24) as u8 & 0x80;
        let magnitude = x.abs().min(448.0);
        let bits = magnitude.to_bits();
        // To nearest, ties to even, in three bits of mantissa; then the exponent's other bias.
        let rounded = (bits + 0x7_ffff + (bits >> 20 & 1)) >> 20;
        let small = (magnitude + STEPS).to_bits() & 0xf;
        let code = if magnitude < NORMAL { small } else { rounded.wrapping_sub((127 - 7) << 3) };
        Self(sign | code as u8 & 0x7f)
    }
    #[inline(always)]
    fn raw(self) -> f32 {
        let wide = (i32::from(self.0 as i8) << 20) as u32;
        f32::from_bits(wide & 0x87ff_ffff)
    }
}

/// Runs `$run` with `$T` as the type of a [`CacheElement`](super::super::backend::CacheElement).
macro_rules! of_element {
    ($element:expr, $T:ident => $run:expr) => {
        match $element {
            $crate::transformer::backend::CacheElement::F32 => {
                type $T = f32;
                $run
            }
            $crate::transformer::backend::CacheElement::Bf16 => {
                type $T = half::bf16;
                $run
            }
            $crate::transformer::backend::CacheElement::Int8 => {
                type $T = i8;
                $run
            }
            $crate::transformer::backend::CacheElement::F8 => {
                type $T = $crate::transformer::cpu::cached::E4m3;
                $run
            }
        }
    };
}
pub(super) use of_element;

/// The memory of words as elements.
pub(super) fn elements<T: Cached>(words: &[f32]) -> &[T] {
    // SAFETY: a word is room for a whole number of elements, whose alignment is no more and of which every bit pattern is one.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words) / size_of::<T>()) }
}

/// The same, to be written.
pub(super) fn elements_mut<T: Cached>(words: &mut [f32]) -> &mut [T] {
    let len = size_of_val(words) / size_of::<T>();
    // SAFETY: as above; all that elements can be are words too, and the borrow is exclusive.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), len) }
}

/// What a vector's numbers are divided by before they are stored: 1 where they are stored as they are. A NaN among them makes all of the
/// vector NaN.
#[inline(always)]
pub(super) fn scale<T: Cached>(vector: &[f32]) -> f32 {
    let Some(largest) = T::LARGEST else { return 1.0 };
    let magnitude = vector.iter().fold(0.0f32, |m, x| if x.abs() > m || x.is_nan() { x.abs() } else { m });
    if magnitude == 0.0 { 1.0 } else { magnitude / largest }
}

/// A number as it is stored beside a scale.
#[inline(always)]
pub(super) fn stored<T: Cached>(x: f32, scale: f32) -> T {
    // Of a denormal magnitude nothing is left to divide by.
    if T::LARGEST.is_none() { T::of(x) } else { T::of(if scale == 0.0 { 0.0 } else { x / scale }) }
}

/// Keys and values of a layer, or of one head of one sequence: keys `[D, capacity]`, values `[capacity, D]`, and the scales of both by
/// position, empty where there are none.
#[derive(Clone, Copy)]
pub(super) struct KeysAndValues<'a, T> {
    pub keys: &'a [T],
    pub values: &'a [T],
    pub key_scales: &'a [f32],
    pub value_scales: &'a [f32],
}

impl<'a, T: Cached> KeysAndValues<'a, T> {
    pub(super) fn of(cache: &'a [f32], c: CacheDims) -> Self {
        let (scales, rest) = cache.split_at(2 * c.scales());
        let (key_scales, value_scales) = scales.split_at(c.scales());
        let (keys, values) = elements(rest)[..c.len()].split_at(c.half());
        Self { keys, values, key_scales, value_scales }
    }

    /// Those of the `i`-th head of all sequences, one after the other.
    pub(super) fn head(&self, i: usize, c: CacheDims) -> Self {
        let numbers = i * c.capacity * c.head_dim..(i + 1) * c.capacity * c.head_dim;
        let scales = if self.key_scales.is_empty() { 0..0 } else { i * c.capacity..(i + 1) * c.capacity };
        Self {
            keys: &self.keys[numbers.clone()],
            values: &self.values[numbers],
            key_scales: &self.key_scales[scales.clone()],
            value_scales: &self.value_scales[scales],
        }
    }
}

/// The heads of a layer, to be written by several threads: keys, values, and the scales of both.
pub(super) type Heads<'a, T> = (Writing<'a, T>, Writing<'a, T>, Perhaps<'a, f32>, Perhaps<'a, f32>);

/// One of them.
pub(super) type HeadMut<'a, T> = (&'a mut [T], &'a mut [T], &'a mut [f32], &'a mut [f32]);

pub(super) fn heads<T: Cached>(cache: &mut [f32], c: CacheDims) -> Heads<'_, T> {
    let (scales, rest) = cache.split_at_mut(2 * c.scales());
    let (key_scales, value_scales) = scales.split_at_mut(c.scales());
    let (keys, values) = elements_mut(rest)[..c.len()].split_at_mut(c.half());
    let head = c.capacity * c.head_dim;
    (writing(keys, head), writing(values, head), perhaps(key_scales, c.capacity), perhaps(value_scales, c.capacity))
}

/// Rows of a cache of latents: of a token a latent and a rotated key, each with a scale where there are any.
#[derive(Clone, Copy)]
pub(super) struct LatentRows<'a, T> {
    rows: &'a [T],
    scales: &'a [f32],
    d: LatentDims,
}

impl<'a, T: Cached> LatentRows<'a, T> {
    pub(super) fn of(cache: &'a [f32], d: LatentDims) -> Self {
        let (scales, rest) = cache.split_at(d.scales());
        Self { rows: &elements(rest)[..d.cache_len()], scales, d }
    }

    /// Those from the `first` on, in all sequences one after the other, as they are computed with; as many as there is room for.
    #[inline(always)]
    pub(super) fn expand(&self, first: usize, to: &mut [f32]) {
        let width = self.d.width();
        to.iter_mut().zip(&self.rows[first * width..]).for_each(|(to, x)| *to = x.to_f32());
        if T::LARGEST.is_some() {
            for (row, scales) in to.chunks_exact_mut(width).zip(self.scales[2 * first..].as_chunks::<2>().0) {
                let (latent, rotated) = row.split_at_mut(self.d.rank);
                latent.iter_mut().for_each(|x| *x *= scales[0]);
                rotated.iter_mut().for_each(|x| *x *= scales[1]);
            }
        }
    }
}

/// Puts a latent and a rotated key into the cache as its `r`-th row, in all sequences one after the other.
pub(super) fn put_latent<T: Cached>([latent, rotated]: [&[f32]; 2], cache: &mut [f32], r: usize, d: LatentDims) {
    let (scales, rest) = cache.split_at_mut(d.scales());
    let row = &mut elements_mut::<T>(rest)[r * d.width()..][..d.width()];
    let (to_latent, to_rotated) = row.split_at_mut(d.rank);
    put(latent, to_latent.iter_mut(), scales.get_mut(2 * r));
    put(rotated, to_rotated.iter_mut(), scales.get_mut(2 * r + 1));
}

/// Stores a vector, and its scale where it has one.
#[inline(always)]
pub(super) fn put<'a, T: Cached + 'a>(vector: &[f32], to: impl Iterator<Item = &'a mut T>, to_scale: Option<&mut f32>) {
    let by = scale::<T>(vector);
    to.zip(vector).for_each(|(to, x)| *to = stored(*x, by));
    if let Some(to) = to_scale {
        *to = by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the definition: (1 + m/8) 2^(e - 7), and m/8 2^-6 for e = 0.
    fn e4m3(code: u8) -> f64 {
        let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7) / 8.0);
        let magnitude =
            if exponent == 0 { mantissa * 2f64.powi(-6) } else { (1.0 + mantissa) * 2f64.powi(exponent - 7) };
        if code & 0x80 == 0 { magnitude } else { -magnitude }
    }

    #[test]
    fn every_e4m3_is_what_its_definition_says_and_is_stored_as_itself() {
        for code in (0..=255u8).filter(|c| c & 0x7f != 0x7f) {
            let x = E4m3(code).to_f32();
            assert_eq!(f64::from(x), e4m3(code), "{code:#x}");
            assert_eq!(E4m3::of(x), E4m3(code), "{x}");
        }
    }

    #[test]
    fn numbers_between_go_to_the_nearest_and_ties_to_the_even_one() {
        for code in 0..0x7eu8 {
            let [low, high] = [code, code + 1].map(e4m3);
            let middle = (low + high) / 2.0;
            let even = if code & 1 == 0 { code } else { code + 1 };
            for (x, want) in [(middle, even), (middle * 0.9999, code), (middle * 1.0001, code + 1)] {
                assert_eq!(E4m3::of(x as f32), E4m3(want), "{x}");
                assert_eq!(E4m3::of(-x as f32), E4m3(want | 0x80), "{x}");
            }
        }
        assert_eq!([1e9, f32::INFINITY, 448.1].map(E4m3::of), [E4m3(0x7e); 3]);
        assert_eq!([0.5f32, 1.5, -2.5, 126.51, 1e9, -1e9].map(i8::of), [0, 2, -2, 127, 127, -127]);
    }

    /// A vector's largest number is stored as the largest there is, and each other is off by half a step at most.
    fn is_within_half_a_step<T: Cached + PartialEq>(half_step: impl Fn(f32) -> f32) {
        let vector: Vec<f32> = (0..193).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.013).collect();
        let by = scale::<T>(&vector);
        let largest = vector.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        assert!((by * T::LARGEST.unwrap() / largest - 1.0).abs() < 1e-6);
        for x in &vector {
            let back = stored::<T>(*x, by).to_f32() * by;
            assert!((back - x).abs() <= half_step(x / by) * by * 1.00001, "{x}: {back}");
        }
        let mut to = [T::of(1.0); 7];
        let mut of_zeros = 5.0;
        put(&[0.0; 7], to.iter_mut(), Some(&mut of_zeros));
        assert!(to.iter().all(|x| x.to_f32() * of_zeros == 0.0));
        put(&[0.0, f32::NAN, 1.0], to.iter_mut(), Some(&mut of_zeros));
        assert!(to.iter().all(|x| (x.to_f32() * of_zeros).is_nan()), "{of_zeros}");
        put(&[1e-44, -1e-44], to.iter_mut(), Some(&mut of_zeros));
        assert!(to[..2].iter().all(|x| (x.to_f32() * of_zeros).abs() < 1e-40));
    }

    #[test]
    fn what_is_stored_is_within_half_a_step() {
        is_within_half_a_step::<i8>(|_| 0.5);
        // Half of 2^-3 of the power of two below.
        is_within_half_a_step::<E4m3>(|x| 2f32.powi(x.abs().max(2f32.powi(-6)).log2().floor() as i32 - 4));
    }
}
