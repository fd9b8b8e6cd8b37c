//! What the CPU backend's operations work on: plain arrays, and weight matrices that are packed for products.

use super::array::Array;
use super::product::PackedWeight;

/// A buffer of the CPU backend.
#[derive(Debug)]
pub enum Buffer {
    Plain(Array),
    /// A weight matrix of inference, read by `linear` and `embed` alone.
    Packed(PackedWeight),
    /// The same of each expert of a layer, read by `experts` alone.
    Experts(Vec<PackedWeight>),
}

impl Buffer {
    /// The elements of a plain array. A packed weight has none that could be read one by one: an operation that is handed one by
    /// mistake is stopped by its slices' bounds.
    pub fn plain(&self) -> &[f32] {
        match self {
            Self::Plain(array) => array,
            Self::Packed(_) | Self::Experts(_) => &[],
        }
    }

    /// The same, to be written.
    pub fn plain_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Plain(array) => array,
            Self::Packed(_) | Self::Experts(_) => &mut [],
        }
    }
}

impl AsMut<[f32]> for Buffer {
    fn as_mut(&mut self) -> &mut [f32] {
        self.plain_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::Pool;
    use super::super::product::{PackedLayout, Stored};
    use super::*;

    #[test]
    fn nobody_takes_a_packed_weight_for_plain_elements() {
        let layout = PackedLayout::new(3, 5, Stored::Int8);
        let pool = Pool::new(1, None).unwrap();
        let mut packed = Buffer::Packed(layout.fill(&pool, Array::zeros(layout.len()).unwrap(), |rows| rows.fill(1.0)));
        assert!(packed.plain().is_empty() && packed.plain_mut().is_empty());
        assert_eq!(Buffer::Plain(Array::zeros(7).unwrap()).plain().len(), 7);
    }
}
