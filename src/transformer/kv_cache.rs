//! The KV cache of a layer: what a number of it is stored as, and how large it is.

use super::{CacheFormat, Dtype};

/// What a number of the cache is stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheElement {
    /// 32 bits.
    F32,
    /// bfloat16.
    Bf16,
    /// A whole number from -127 to 127, times its vector's scale.
    Int8,
    /// e4m3, up to 448, times its vector's scale.
    F8,
}

impl From<Dtype> for CacheElement {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 | Dtype::Tf32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
        }
    }
}

impl CacheElement {
    /// Bytes of a scale: an f32 for each vector, which brings the largest of its numbers to the largest that there is.
    pub const SCALE_SIZE: usize = 4;

    /// Of a workload in this dtype.
    pub fn of(dtype: Dtype, format: CacheFormat) -> Self {
        match format {
            CacheFormat::Dtype => dtype.into(),
            CacheFormat::Int8 => Self::Int8,
            CacheFormat::F8 => Self::F8,
        }
    }

    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Int8 | Self::F8 => 1,
        }
    }

    /// Whether vectors have scales.
    pub fn is_scaled(self) -> bool {
        matches!(self, Self::Int8 | Self::F8)
    }

    /// Bytes of a vector of so many numbers, a head's key or value of a token: with its scale, where it has one.
    pub fn vector_size(self, numbers: usize) -> usize {
        numbers * self.size() + if self.is_scaled() { Self::SCALE_SIZE } else { 0 }
    }
}

/// The KV cache of one layer, in one buffer: scales of keys `[B, KV, capacity]` and of values, where they have any; then keys `[B, KV, D,
/// capacity]`, so that scores run along whole vectors of positions, then values `[B, KV, capacity, D]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheDims {
    /// B
    pub batch: usize,
    /// KV
    pub kv_heads: usize,
    /// D
    pub head_dim: usize,
    /// Positions that fit.
    pub capacity: usize,
    /// Of keys and values.
    pub element: CacheElement,
}

impl CacheDims {
    /// Keys and values in the whole buffer, number by number.
    pub fn len(&self) -> usize {
        2 * self.half()
    }
    /// Words of 32 bits that it takes.
    pub fn words(&self) -> usize {
        2 * self.scales() + (self.len() * self.element.size()).div_ceil(4)
    }
    /// Where the values begin, among keys and values.
    pub fn half(&self) -> usize {
        self.batch * self.kv_heads * self.capacity * self.head_dim
    }
    /// Scales of all keys, and as many of all values.
    pub fn scales(&self) -> usize {
        if self.element.is_scaled() { self.batch * self.kv_heads * self.capacity } else { 0 }
    }
    /// Whether nothing fits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_of_few_bits_takes_a_byte_a_number_and_a_scale_a_vector() {
        let of = |element| CacheDims { batch: 3, kv_heads: 2, head_dim: 80, capacity: 7, element }.words() * 4;
        assert_eq!([CacheElement::F32, CacheElement::Bf16].map(of), [42 * 2 * 80 * 4, 42 * 2 * 80 * 2]);
        for few in [CacheElement::Int8, CacheElement::F8] {
            assert_eq!((of(few), few.vector_size(80)), (42 * 2 * (80 + 4), 84));
        }
        // A number of bytes that fills no whole words.
        assert_eq!(
            CacheDims { batch: 1, kv_heads: 1, head_dim: 1, capacity: 3, element: CacheElement::F8 }.words(),
            6 + 2
        );
        assert_eq!(CacheElement::of(Dtype::Tf32, CacheFormat::Dtype), CacheElement::F32);
        assert_eq!(CacheElement::of(Dtype::Bf16, CacheFormat::Int8), CacheElement::Int8);
    }
}
