//! Weights in floats of 8 bits against what they were made from, and their products against sums in f64 of what is stored.

use super::super::cached::{Cached, E4m3};
use super::f8_panels::{expand, pack_left, quantise_right, right_words, row};
use super::product_tests::filled;
use super::*;
use half::bf16;

/// Of many magnitudes, so that all exponents are met.
fn weights(len: usize, seed: usize) -> Vec<f32> {
    let one = |i: usize| {
        let x = (((i + seed) * 7919) % 2003) as f32 / 1001.0 - 1.0;
        x * 0.5f32.powi(((i + seed) * 31 % 17) as i32)
    };
    (0..len).map(one).collect()
}

fn packed(pool: &Pool, (m, k): (usize, usize), numbers: &[f32]) -> PackedWeight {
    let how = PackedLayout::new(m, k, Stored::F8);
    filled(how, pool, numbers)
}

/// Every row as it is stored.
fn stored(weight: &PackedWeight, (m, k): (usize, usize)) -> Vec<f32> {
    let mut all = vec![f32::NAN; m * k];
    all.chunks_exact_mut(k).enumerate().for_each(|(i, row)| weight.row(i, row));
    all
}

/// Magnitudes of e4m3, of its definition: (1 + m/8) 2^(e - 7), and m/8 2^-6 for e = 0, without the last, which is NaN.
fn magnitudes() -> Vec<f64> {
    let one = |code: i32| match (code / 8, f64::from(code % 8) / 8.0) {
        (0, m) => m * 2f64.powi(-6),
        (e, m) => (1.0 + m) * 2f64.powi(e - 7),
    };
    (0..127).map(one).collect()
}

#[test]
fn stored_numbers_are_the_nearest_there_are_and_their_largest_is_the_largest() {
    let pool = Pool::new(2, None).unwrap();
    let magnitudes = magnitudes();
    for (m, k) in [(1, 1), (3, 7), (33, 65), (70, 200)] {
        let numbers = weights(m * k, 5);
        let stored = stored(&packed(&pool, (m, k), &numbers), (m, k));
        for (ours, theirs) in stored.chunks_exact(k).zip(numbers.chunks_exact(k)) {
            let largest = theirs.iter().fold(0.0f32, |l, x| l.max(x.abs()));
            let scale = f64::from(largest) / 448.0;
            for (ours, x) in ours.iter().zip(theirs) {
                let (off, x) = ((f64::from(*ours) - f64::from(*x)).abs(), f64::from(*x));
                let nearest = magnitudes.iter().map(|q| (q * scale - x.abs()).abs()).fold(f64::INFINITY, f64::min);
                // Scale, quotient and product are rounded in f32.
                assert!(off <= nearest + x.abs() * 2f64.powi(-21), "{m} {k}: {ours} of {x}, {nearest} would do");
                assert!(off <= (x.abs() / 16.0).max(scale / 1024.0) * 1.000_01, "{m} {k}: {ours} of {x}: half a step");
                assert!(*ours == 0.0 || (*ours < 0.0) == (x < 0.0), "{ours} of {x}");
            }
            let back = ours.iter().fold(0.0f32, |l, x| l.max(x.abs()));
            assert!((back - largest).abs() <= largest * 2f32.powi(-22), "{back} of {largest}");
        }
    }
}

/// Sums of K products in f32 are off by about sqrt(K) 2^-24 of their terms' size; ten times that.
fn bound(k: usize) -> f64 {
    (10.0 * k as f64 * 2f64.powi(-24)).max(1e-6)
}

fn rounded(x: f32, precision: Precision) -> f64 {
    f64::from(if precision == Precision::Bf16 { bf16::from_f32(x).to_f32() } else { x })
}

#[test]
fn products_are_those_of_what_is_stored() {
    let shapes = [
        (1, 1, 1),
        (1, 768, 300),
        (2, 31, 5),
        (3, 65, 33),
        (5, 64, 32),
        (8, 130, 70),
        (9, 514, 40),
        (16, 1027, 33),
        (33, 200, 70),
        (260, 515, 100),
    ];
    for (threads, precision) in [1, 2].into_iter().flat_map(|t| [Precision::F32, Precision::Bf16].map(|p| (t, p))) {
        let pool = Pool::new(threads, None).unwrap();
        for (n, k, m) in shapes {
            let what = format!("{precision:?}: {n} {k} {m}, {threads} threads");
            let left: Vec<f32> = (0..n * k).map(|i| ((i * 7919) % 2003) as f32 / 1001.0 - 1.0).collect();
            let (right, bias) = (weights(m * k, 11), weights(m, 9));
            let weight = packed(&pool, (m, k), &right);
            let stored = stored(&weight, (m, k));
            let (mut plain, mut out, mut begun) = (vec![0.5; n * m], vec![0.5; n * m], vec![0.5; n * m]);
            let all = [
                (&mut plain, Onto::Nothing, 1.0),
                (&mut out, Onto::Bias(&bias), 1.0),
                (&mut begun, Onto::Target, 0.25),
            ];
            for (out, onto, factor) in all {
                let (to, a) = (Target::new(out, m), View::dense(&left, n, k));
                // SAFETY: `out` is borrowed exclusively.
                unsafe { product(&pool, to, onto, factor, a, Right::Packed(&weight), precision) };
            }
            for (r, c) in (0..n).flat_map(|r| (0..m).map(move |c| (r, c))) {
                let (x, w) = (&left[r * k..][..k], &stored[c * k..][..k]);
                let exact: f64 = x.iter().zip(w).map(|(x, w)| rounded(*x, precision) * f64::from(*w)).sum();
                let [plain, out, begun] = [&plain, &out, &begun].map(|o| f64::from(o[r * m + c]));
                for (ours, exact) in [(plain, exact), (out, exact + f64::from(bias[c])), (begun, 0.25 * exact + 0.5)] {
                    assert!((ours - exact).abs() <= bound(k), "{what} at {r} {c}: {ours}, should be {exact}");
                }
            }
        }
    }
}

/// The kernel of few rows on each path that the machine has, and not only on the one that is taken.
#[test]
fn every_paths_kernel_multiplies_what_is_stored() {
    let instructions = Instructions::ALL.iter().copied().filter(|i| i.available());
    for instructions in instructions {
        let width = Kernel::columns_of(instructions);
        for k in [1usize, 4, 7, 130] {
            let right = weights(width * k, 3);
            let mut panel = vec![f32::NAN; right_words(k, width)];
            quantise_right(&mut panel, width, &right, k);
            let mut stored = vec![0.0; width * k];
            stored.chunks_exact_mut(k).enumerate().for_each(|(c, to)| row(&panel, width, c, to));
            for (i, run) in f8_kernel::by_rows(instructions).iter().enumerate() {
                let rows = i + 1;
                let x: Vec<f32> = (0..rows * k).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
                let depth = k.div_ceil(4);
                let mut left = vec![f32::NAN; 4 * depth * rows];
                pack_left(&mut left, View::dense(&x, rows, k), Precision::F32);
                let (mut out, base) = (vec![f32::NAN; rows * width], vec![0.25; width]);
                let start = out.as_mut_ptr();
                let whole = Tile {
                    start,
                    stride: width,
                    rows,
                    columns: width,
                    factor: 2.0,
                    base: base.as_ptr(),
                    base_stride: 0,
                    ahead: panel.as_ptr(),
                };
                // SAFETY: the panels hold as many words, the tile is whole, and the machine has the instructions.
                unsafe { run(depth, left.as_ptr(), panel.as_ptr(), whole) };
                for (r, c) in (0..rows).flat_map(|r| (0..width).map(move |c| (r, c))) {
                    let (x, w) = (&x[r * k..][..k], &stored[c * k..][..k]);
                    let exact: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                    let (ours, exact) = (f64::from(out[r * width + c]), 2.0 * exact + 0.25);
                    assert!(
                        (ours - exact).abs() <= 2.0 * bound(k),
                        "{instructions:?} {k}, {rows} rows: {ours}, {exact}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_number_is_expanded_as_it_is() {
    let width = 16;
    // Each column has all codes in another order, the two of NaN but one less.
    let code = |k: usize, c: usize| {
        let code = ((k + 16 * c) % 256) as u8;
        if code & 0x7f == 0x7f { code - 1 } else { code }
    };
    let word = |i: usize| u32::from_le_bytes(std::array::from_fn(|j| code(i / width * 4 + j, i % width)));
    let words: Vec<f32> = (0..64 * width).map(|i| f32::from_bits(word(i))).collect();
    let number = |k: usize, c: usize| E4m3::of_code(code(k, c)).to_f32();
    // One element less than whole words.
    let mut whole = vec![f32::NAN; 255 * width];
    expand(&words, width, &mut whole, Precision::F32);
    for (k, row) in whole.chunks_exact(width).enumerate() {
        assert!(row.iter().enumerate().all(|(c, x)| *x == number(k, c)), "{k}: {row:?}");
    }
    let mut pairs = vec![f32::NAN; 127 * width];
    expand(&words, width, &mut pairs, Precision::Bf16);
    for (e, row) in pairs.chunks_exact(width).enumerate() {
        for (c, pair) in row.iter().enumerate() {
            let bits = pair.to_bits();
            let [first, second] = [bits << 16, bits & 0xffff_0000].map(f32::from_bits);
            assert_eq!([first, second], [number(2 * e, c), number(2 * e + 1, c)], "{e} {c}");
        }
    }
}

#[test]
fn numbers_that_are_not_finite_or_nothing_come_out_as_they_should() {
    let pool = Pool::new(1, None).unwrap();
    // By the kernel of few rows, and by that of many.
    for n in [1, 40] {
        let left = vec![1.0; 3 * n];
        let of = |weight: &PackedWeight, left: &[f32]| {
            let mut out = vec![0.0; 2 * n];
            let (to, a) = (Target::new(&mut out, 2), View::dense(left, n, 3));
            // SAFETY: `out` is borrowed exclusively.
            unsafe { product(&pool, to, Onto::Nothing, 1.0, a, Right::Packed(weight), Precision::F32) };
            out
        };
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let out = of(&packed(&pool, (2, 3), &[1.0, odd, 1.0, 1.0, 1.0, 1.0]), &left);
            assert!(!out[0].is_finite() && (out[1] - 3.0).abs() < 1e-5, "{odd}: {out:?}");
            let mut row = left.clone();
            row[1] = odd;
            let out = of(&packed(&pool, (2, 3), &[1.0; 6]), &row);
            assert!(!out[0].is_finite() && !out[1].is_finite(), "{odd}: {out:?}");
            assert!(out[2..].iter().all(|x| (x - 3.0).abs() < 1e-5), "{odd}: {out:?}");
        }
        let nothing = packed(&pool, (2, 3), &[0.0, -0.0, 0.0, 0.0, 1e-45, -1e-45]);
        assert!(of(&nothing, &left).iter().all(|x| x.abs() <= 1e-40));
    }
}

#[test]
fn a_weight_takes_as_many_bits_as_is_said() {
    let bits = PackedLayout::new(1024, 1024, Stored::F8).len() as f64 * 32.0 / (1024.0 * 1024.0);
    assert_eq!(bits, 8.0 + 32.0 / 1024.0);
}
