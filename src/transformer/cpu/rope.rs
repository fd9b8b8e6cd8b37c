//! Rotary positions: pairs `(i, i + R/2)` of the first R elements of queries and keys rotated by an angle that grows with the position.

use super::super::backend::{AttentionDims, Frequencies};
use super::pool::{Pool, writing};

pub(super) fn turn(pool: &Pool, qkv: &mut [f32], f: &Frequencies, first: usize, inverse: bool, d: AttentionDims) {
    let (half, width) = (f.radians.len(), d.qkv_width());
    let rotated = 2 * half;
    // The same angles serve every head and sequence: cosines and sines are made once a call.
    let mut table = pool.scratch(d.tokens * rotated);
    let (sign, by) = (if inverse { -1.0 } else { 1.0 }, f64::from(f.factor));
    for (t, row) in table.chunks_exact_mut(rotated).enumerate() {
        let (cosines, sines) = row.split_at_mut(half);
        for ((c, s), f) in cosines.iter_mut().zip(sines).zip(&f.radians) {
            // In f64: at position 100,000 an f32 angle is off by 4e-3.
            let angle = (first + t) as f64 * f64::from(*f);
            (*c, *s) = ((angle.cos() * by) as f32, (angle.sin() * sign * by) as f32);
        }
    }
    let rows = pool.share(d.rows(), 4);
    let table = &*table;
    pool.over(writing(&mut qkv[..d.rows() * width], rows * width), |part, qkv| {
        for (i, row) in qkv.chunks_exact_mut(width).enumerate() {
            let (cosines, sines) = table[((part * rows + i) % d.tokens) * rotated..][..rotated].split_at(half);
            for head in row[..(d.heads + d.kv_heads) * d.head_dim].chunks_exact_mut(d.head_dim) {
                let (low, high) = head[..rotated].split_at_mut(half);
                for (((a, b), c), s) in low.iter_mut().zip(high).zip(cosines).zip(sines) {
                    (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
                }
            }
        }
    });
}
