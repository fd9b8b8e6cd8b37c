//! Products of every layout and precision against sums in f64.

use super::super::array::Array;
use super::*;
use half::bf16;

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| (((i + seed) * 7919) % 2003) as f32 / 1001.0 - 1.0).collect()
}

/// A weight of rows that are all at hand.
pub(super) fn filled(how: PackedLayout, pool: &Pool, mut rows: &[f32]) -> PackedWeight {
    how.fill(pool, Array::zeros(how.len()).unwrap(), |to| {
        let (here, after) = rows.split_at(to.len());
        to.copy_from_slice(here);
        rows = after;
    })
}

fn rounded(x: f32, precision: Precision) -> f64 {
    match precision {
        Precision::F32 => f64::from(x),
        Precision::Bf16 | Precision::Rounded => f64::from(bf16::from_f32(x).to_f32()),
    }
}

/// `factor * a b + base` in f64 over factors rounded as the precision says.
fn plainly(a: &View, b: &View, factor: f32, base: impl Fn(usize, usize) -> f32, precision: Precision) -> Vec<f64> {
    let at = |v: &View, r: usize, c: usize| rounded(v.data[r * v.row_stride + c * v.column_stride], precision);
    let one = |r: usize, c: usize| {
        let sum: f64 = (0..a.columns).map(|k| at(a, r, k) * at(b, k, c)).sum();
        f64::from(factor) * sum + f64::from(base(r, c))
    };
    (0..a.rows).flat_map(|r| (0..b.columns).map(move |c| (r, c))).map(|(r, c)| one(r, c)).collect()
}

/// Sums of K products in f32 are off by about sqrt(K) 2^-24 of their terms' size; ten times that.
fn check(what: &str, ours: &[f32], theirs: &[f64], k: usize) {
    let bound = 10.0 * (k as f64).sqrt() * 2f64.powi(-24) * (k as f64).sqrt().max(1.0);
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((f64::from(*a) - b).abs() <= bound.max(1e-6), "{what}: element {i} is {a}, should be {b}");
    }
}

#[test]
fn products_of_every_layout_are_right_at_odd_shapes() {
    for threads in [1, 3] {
        let pool = Pool::new(threads, None).unwrap();
        for (n, k, m) in [(1, 1, 1), (3, 17, 33), (14, 64, 32), (15, 300, 70), (29, 513, 1100), (130, 31, 5), (2, 0, 3)]
        {
            let (left, right) = (numbers(n * k, 1), numbers(k * m, 5));
            let bias = numbers(m, 9);
            for precision in [Precision::F32, Precision::Bf16] {
                for transposed in 0..4 {
                    let a = if transposed & 1 == 0 {
                        View::dense(&left, n, k)
                    } else {
                        View::dense(&left, k, n).transposed()
                    };
                    let b = if transposed & 2 == 0 {
                        View::dense(&right, k, m)
                    } else {
                        View::dense(&right, m, k).transposed()
                    };
                    let what = format!("{n} {k} {m} {precision:?} transposed {transposed}, {threads} threads");
                    let mut out = vec![0.5; n * m];
                    let run = |out: &mut [f32], onto: Onto, factor: f32| {
                        let to = Target::new(out, m);
                        // SAFETY: `out` is borrowed exclusively.
                        unsafe { product(&pool, to, onto, factor, a, Right::View(b), precision) };
                    };
                    run(&mut out, Onto::Nothing, 1.0);
                    check(&what, &out, &plainly(&a, &b, 1.0, |_, _| 0.0, precision), k);
                    run(&mut out, Onto::Bias(&bias), 1.0);
                    check(&what, &out, &plainly(&a, &b, 1.0, |_, c| bias[c], precision), k);
                    out.fill(0.5);
                    run(&mut out, Onto::Target, 0.25);
                    check(&what, &out, &plainly(&a, &b, 0.25, |_, _| 0.5, precision), k);
                }
            }
        }
    }
}

/// What a processor with AMX multiplies by, in plain code, through the packing, blocks and ends that it has there.
#[test]
fn products_by_tiles_are_right_at_odd_shapes() {
    let precision = Precision::Bf16;
    for threads in [1, 3] {
        let pool = Pool::new(threads, None).unwrap();
        for (n, k, m) in [(1, 1, 1), (15, 300, 70), (33, 64, 32), (70, 513, 100), (32, 1056, 33), (300, 31, 40)] {
            let (left, right, bias) = (numbers(n * k, 1), numbers(k * m, 5), numbers(m, 9));
            for transposed in [false, true] {
                let a = if transposed { View::dense(&left, k, n).transposed() } else { View::dense(&left, n, k) };
                let b = View::dense(&right, k, m);
                let mut out = vec![0.5; n * m];
                for (onto, factor) in [(Onto::Bias(&bias), 1.0), (Onto::Target, 0.25)] {
                    let before = out.clone();
                    let to = Target::new(&mut out, m);
                    let kernel = Kernel::of_tiles(tiles::emulated);
                    let (b, around) = (Right::View(b), Around { factor, ..Around::onto(onto) });
                    let job = BlockedProduct {
                        pool: &pool,
                        kernel,
                        left: precision,
                        right: precision,
                        k,
                        columns: m,
                        around,
                        to,
                        b,
                    };
                    // SAFETY: `out` is borrowed exclusively.
                    unsafe { job.row_block(0, a) };
                    let base = |r: usize, c: usize| if factor == 1.0 { bias[c] } else { before[r * m + c] };
                    let want = plainly(&a, &View::dense(&right, k, m), factor, base, precision);
                    check(&format!("{n} {k} {m} transposed {transposed}, {threads} threads"), &out, &want, k);
                }
            }
        }
    }
}

#[test]
fn weights_in_panels_multiply_as_the_matrix_they_were_made_from() {
    for threads in [1, 2] {
        let pool = Pool::new(threads, None).unwrap();
        for (n, k, m) in [(1, 700, 1111), (5, 33, 31), (14, 512, 64), (40, 257, 95)] {
            let (x, w) = (numbers(n * k, 3), numbers(m * k, 4));
            for precision in [Precision::F32, Precision::Bf16] {
                let how = PackedLayout::new(m, k, Stored::Whole(precision));
                let weight = filled(how, &pool, &w);
                let mut out = vec![0.0; n * m];
                let (a, b) = (View::dense(&x, n, k), View::dense(&w, m, k).transposed());
                let to = Target::new(&mut out, m);
                // SAFETY: `out` is borrowed exclusively.
                unsafe { product(&pool, to, Onto::Nothing, 1.0, a, Right::Packed(&weight), precision) };
                check("panels", &out, &plainly(&a, &b, 1.0, |_, _| 0.0, precision), k);
                let mut row = vec![0.0; k];
                weight.row(m - 1, &mut row);
                for (a, b) in row.iter().zip(&w[(m - 1) * k..]) {
                    assert_eq!(f64::from(*a), rounded(*b, precision));
                }
            }
        }
    }
}

/// What processors without products of bf16 multiply by, on whichever processor this is: rounded numbers in words of f32 on both
/// sides, or on the left beside weights in pairs.
#[test]
fn bf16_is_multiplied_without_instructions_for_it() {
    let taken = Instructions::taken();
    let pool = Pool::new(2, None).unwrap();
    for (n, k, m) in [(1, 1, 1), (1, 700, 1111), (2, 33, 31), (3, 65, 40), (5, 512, 64), (40, 257, 95), (17, 1025, 33)]
    {
        let (x, w, bias) = (numbers(n * k, 3), numbers(m * k, 4), numbers(m, 9));
        let how = PackedLayout::new(m, k, Stored::Whole(Precision::Bf16));
        let weight = filled(how, &pool, &w);
        let (a, b) = (View::dense(&x, n, k), View::dense(&w, m, k).transposed());
        let left = Precision::Rounded;
        let forms = [
            (pairs_kernel::kernel(taken, n), Precision::Bf16, Right::Packed(&weight)),
            (Kernel::of(taken, left, n), left, Right::View(b)),
        ];
        for (kernel, right, of_right) in forms {
            let mut out = vec![0.5; n * m];
            for (onto, factor) in [(Onto::Bias(&bias), 1.0), (Onto::Target, 0.25)] {
                let before = out.clone();
                let to = Target::new(&mut out, m);
                let around = Around { factor, ..Around::onto(onto) };
                let job = BlockedProduct { pool: &pool, kernel, left, right, k, columns: m, around, to, b: of_right };
                // SAFETY: `out` is borrowed exclusively.
                unsafe { job.row_block(0, a) };
                let base = |r: usize, c: usize| if factor == 1.0 { bias[c] } else { before[r * m + c] };
                check(&format!("{n} {k} {m} {right:?}"), &out, &plainly(&a, &b, factor, base, Precision::Bf16), k);
            }
        }
    }
}

/// A product with weights of 8 bits: they are what [`PackedWeight::row`] gives back, and each factor of the left side is off by at
/// most half a step of its group, its largest / 127.
#[test]
fn products_with_weights_of_8_bits_are_within_half_a_step() {
    let pool = Pool::new(2, None).unwrap();
    for (n, k, m) in [(1, 1, 1), (1, 768, 300), (3, 65, 33), (6, 64, 32), (17, 130, 70), (130, 1000, 40)] {
        let (left, right, bias) = (numbers(n * k, 3), numbers(m * k, 11), numbers(m, 9));
        let how = PackedLayout::new(m, k, Stored::Int8);
        let weight = filled(how, &pool, &right);
        let mut stored = vec![0.0; m * k];
        for (i, row) in stored.chunks_exact_mut(k).enumerate() {
            weight.row(i, row);
            for (group, of_right) in row.chunks(int8_groups::GROUP).zip(right[i * k..][..k].chunks(int8_groups::GROUP))
            {
                let step = of_right.iter().fold(0.0f32, |s, x| s.max(x.abs())) / 127.0;
                let within = |(a, b): (&f32, &f32)| (a - b).abs() <= step * 0.5001;
                assert!(group.iter().zip(of_right).all(within), "{n} {k} {m}: a stored number is off by more");
            }
        }
        let (mut out, mut begun) = (vec![0.5; n * m], vec![0.5; n * m]);
        for (out, onto, factor) in [(&mut out, Onto::Bias(&bias), 1.0), (&mut begun, Onto::Target, 0.5)] {
            let (to, a) = (Target::new(out, m), View::dense(&left, n, k));
            // SAFETY: `out` is borrowed exclusively.
            unsafe { product(&pool, to, onto, factor, a, Right::Packed(&weight), Precision::F32) };
        }
        for r in 0..n {
            for c in 0..m {
                let (x, w) = (&left[r * k..][..k], &stored[c * k..][..k]);
                let exact: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                let half_steps = x.chunks(int8_groups::GROUP).zip(w.chunks(int8_groups::GROUP)).map(|(x, w)| {
                    let step = x.iter().fold(0.0f32, |s, x| s.max(x.abs())) / 127.0;
                    w.iter().map(|w| f64::from(w.abs() * step) / 2.0).sum::<f64>()
                });
                let bound = half_steps.sum::<f64>() + 1e-4;
                let (with_bias, onto) = (f64::from(out[r * m + c]), f64::from(begun[r * m + c]));
                assert!((with_bias - exact - f64::from(bias[c])).abs() <= bound, "{n} {k} {m} at {r} {c}: {with_bias}");
                assert!((onto - 0.5 * exact - 0.5).abs() <= bound, "{n} {k} {m} at {r} {c}: {onto} onto 0.5");
            }
        }
    }
}

#[test]
fn numbers_that_are_not_finite_come_out_of_8_bits_as_nan() {
    let pool = Pool::new(1, None).unwrap();
    let how = PackedLayout::new(2, 3, Stored::Int8);
    let weight = how.fill(&pool, Array::zeros(how.len()).unwrap(), |rows| rows.fill(1.0));
    for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut out = vec![0.0; 4];
        let left = [1.0, odd, 1.0, 1.0, 1.0, 1.0];
        let (to, a) = (Target::new(&mut out, 2), View::dense(&left, 2, 3));
        // SAFETY: `out` is borrowed exclusively.
        unsafe { product(&pool, to, Onto::Nothing, 1.0, a, Right::Packed(&weight), Precision::F32) };
        assert!(out[0].is_nan() && out[1].is_nan() && (out[2] - 3.0).abs() < 0.1, "{odd}: {out:?}");
    }
}

/// Products of so many rows each, some of none, by matrices of their own.
#[test]
fn products_in_one_pass_are_those_one_by_one() {
    use grouped::{Pair, by_columns};
    let rows = [0, 1, 3, 5, 33, 0, 130, 14, 300];
    for (threads, k, m) in [(1, 17, 33), (3, 300, 70), (2, 513, 1100), (3, 64, 31), (2, 1, 1)] {
        let pool = Pool::new(threads, None).unwrap();
        let total: usize = rows.iter().sum();
        let (left, right, bias) = (numbers(total * k, 1), numbers(rows.len() * k * m, 5), numbers(m, 9));
        for (precision, packed, transposed) in [Precision::F32, Precision::Bf16]
            .into_iter()
            .flat_map(|p| [(p, true, true), (p, false, true), (p, false, false)])
        {
            let matrix = |e: usize| {
                let own = &right[e * k * m..][..k * m];
                if transposed { View::dense(own, m, k).transposed() } else { View::dense(own, k, m) }
            };
            let weights: Vec<PackedWeight> = (0..rows.len())
                .map(|e| {
                    let (how, mut at) = (PackedLayout::new(m, k, Stored::Whole(precision)), e * k * m);
                    how.fill(&pool, Array::zeros(how.len()).unwrap(), |rows| {
                        rows.copy_from_slice(&right[at..at + rows.len()]);
                        at += rows.len();
                    })
                })
                .collect();
            let mut out = vec![0.5; total * m];
            let (to, mut pairs, mut first) = (Target::new(&mut out, m), Vec::new(), 0);
            for (e, n) in rows.into_iter().enumerate() {
                let b = if packed { Right::Packed(&weights[e]) } else { Right::View(matrix(e)) };
                let onto = if e % 2 == 0 { Onto::Bias(&bias) } else { Onto::Nothing };
                let a = View::dense(&left[first * k..][..n * k], n, k);
                pairs.push(Pair { a, b, onto, to: to.at(first * m) });
                first += n;
            }
            // SAFETY: `out` is borrowed exclusively, and the products' rows do not overlap.
            unsafe { by_columns(&pool, precision, &pairs) };
            let mut first = 0;
            for (e, Pair { a, .. }) in pairs.iter().enumerate() {
                let base = |_, c: usize| if e % 2 == 0 { bias[c] } else { 0.0 };
                let what = format!("{} {k} {m} {precision:?} {packed} {transposed}, {threads} threads", a.rows);
                let ours = &out[first * m..][..a.rows * m];
                check(&what, ours, &plainly(a, &matrix(e), 1.0, base, precision), k);
                first += a.rows;
            }
        }
    }
}

/// Results of `m x k` with inner dimensions that fill tiles, that do not, and one longer than is packed whole.
#[test]
fn products_of_short_inner_dimensions_are_those_one_by_one() {
    use grouped::{Pair, by_rows};
    let depths = [0, 1, 2, 31, 32, 33, 0, 179, 513, 2100];
    for (threads, m, k) in [(1, 33, 17), (3, 70, 130), (2, 300, 40), (2, 1, 1)] {
        let pool = Pool::new(threads, None).unwrap();
        let total: usize = depths.iter().sum();
        let (left, right) = (numbers(total * m, 1), numbers(total * k, 5));
        for precision in [Precision::F32, Precision::Bf16] {
            let mut out = vec![0.5; depths.len() * m * k];
            let (to, mut pairs, mut first) = (Target::new(&mut out, k), Vec::new(), 0);
            for (e, n) in depths.into_iter().enumerate() {
                let a = View::dense(&left[first * m..][..n * m], n, m).transposed();
                let b = View::dense(&right[first * k..][..n * k], n, k);
                pairs.push(Pair { a, b: Right::View(b), onto: Onto::Nothing, to: to.at(e * m * k) });
                first += n;
            }
            // SAFETY: `out` is borrowed exclusively, and the results do not overlap.
            unsafe { by_rows(&pool, precision, &pairs) };
            for (Pair { a, b, .. }, ours) in pairs.iter().zip(out.chunks_exact(m * k)) {
                let Right::View(b) = b else { unreachable!() };
                let what = format!("{m} {k} {} {precision:?}, {threads} threads", a.columns);
                check(&what, ours, &plainly(a, b, 1.0, |_, _| 0.0, precision), a.columns);
            }
        }
    }
}
