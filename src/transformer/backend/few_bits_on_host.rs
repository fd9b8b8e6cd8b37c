//! Keys and values of few bits on the host, as the definitions read: what is left of a vector that has been stored in them. The oracle's
//! cache holds that, as whole numbers.

use super::AttentionDims;
use crate::transformer::kv_cache::CacheElement;

/// The magnitudes that an element can have, in the order of their codes.
fn magnitudes(element: CacheElement) -> Vec<f64> {
    match element {
        CacheElement::F32 | CacheElement::Bf16 => Vec::new(),
        CacheElement::Int8 => (0..=127).map(f64::from).collect(),
        CacheElement::F8 => {
            let of = |code: i32| match (code / 8, f64::from(code % 8) / 8.0) {
                (0, mantissa) => mantissa * 2f64.powi(-6),
                (exponent, mantissa) => (1.0 + mantissa) * 2f64.powi(exponent - 7),
            };
            // The last code is NaN.
            (0..127).map(of).collect()
        }
    }
}

/// A vector that has been stored and read again: each number the nearest multiple that there is of the largest's share.
pub(in crate::transformer) fn as_kept(vector: &[f32], element: CacheElement) -> Vec<f32> {
    let all = magnitudes(element);
    let Some(most) = all.last() else { return vector.to_vec() };
    let largest = vector.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let scale = largest / *most as f32;
    if scale == 0.0 {
        return vec![0.0; vector.len()];
    }
    let nearest = |x: f32| {
        let x = f64::from(x);
        let above = all.partition_point(|m| *m < x).min(all.len() - 1);
        let below = above.saturating_sub(1);
        // Of two that are as near the one of an even code.
        let (down, up) = (x - all[below], all[above] - x);
        let code = if down < up || (down == up && below % 2 == 0) { below } else { above };
        all[code] as f32
    };
    vector.iter().map(|x| (nearest((x / scale).abs()) * scale).copysign(*x)).collect()
}

/// Rows of queries, keys and values, with keys and values as the cache keeps them.
pub(in crate::transformer) fn rows_as_kept(qkv: &[f32], d: AttentionDims, element: CacheElement) -> Vec<f32> {
    let mut rows = qkv.to_vec();
    if !element.is_scaled() {
        return rows;
    }
    for row in rows.chunks_exact_mut(d.qkv_width()) {
        for vector in row[d.out_width()..].chunks_exact_mut(d.head_dim) {
            vector.copy_from_slice(&as_kept(vector, element));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_magnitudes_are_those_of_the_formats() {
        let [whole, floats] = [CacheElement::Int8, CacheElement::F8].map(magnitudes);
        assert_eq!((whole.len(), whole[127]), (128, 127.0));
        assert_eq!((floats.len(), floats[126], floats[8], floats[1]), (127, 448.0, 2f64.powi(-6), 2f64.powi(-9)));
        assert!(floats.windows(2).all(|w| w[0] < w[1]));
    }

    #[test]
    fn a_vector_comes_back_as_multiples_of_its_scale() {
        let vector = [2.54f32, -1.0, 0.011, 0.031, 0.0];
        let kept = as_kept(&vector, CacheElement::Int8);
        let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
        assert!(kept.iter().zip([2.54, -1.0, 0.02, 0.04, 0.0]).all(|(a, b)| near(*a, b)), "{kept:?}");
        // A scale of 1; 17, 19 and 100 are ties.
        let kept = as_kept(&[448.0, 17.0, -19.0, 0.0009, 100.0], CacheElement::F8);
        assert_eq!(kept, [448.0, 16.0, -20.0, 0.0, 96.0]);
        assert_eq!(as_kept(&vector, CacheElement::F32), vector);
        assert_eq!(as_kept(&[0.0; 3], CacheElement::F8), [0.0; 3]);
    }
}
