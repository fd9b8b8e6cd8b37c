//! Weights of 4 bits against what they were made from, and their products against sums in f64 of what is stored.

use super::int4_groups::{CHUNK, Groups};
use super::product_tests::filled;
use super::*;

const FORMS: [Groups; 3] = [Groups::Of32, Groups::Of128, Groups::Of128ZeroPoints];

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| (((i + seed) * 7919) % 2003) as f32 / 1001.0 - 0.8).collect()
}

fn packed(pool: &Pool, (m, k): (usize, usize), groups: Groups, numbers: &[f32]) -> PackedWeight {
    let how = PackedLayout::new(m, k, Stored::Int4(groups));
    filled(how, pool, numbers)
}

fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |m, x| m.max(x.abs()))
}

/// How far a stored number may be from what it was made of: half a step of its group, which a scale of 8 significant bits makes up to
/// 2^-9 of the group's range more or less; and where the range ends a step before the number (of the other sign than the largest; by
/// a zero-point that is rounded), a whole one.
fn allowed(groups: Groups, of_group: &[f32], x: f32) -> f32 {
    let (low, high) = of_group.iter().fold((0.0f32, 0.0f32), |(l, h), x| (l.min(*x), h.max(*x)));
    let (step, range) = match groups {
        Groups::Of128ZeroPoints => ((high - low) / 15.0, high - low),
        _ => (largest(of_group) / 8.0, 2.0 * largest(of_group)),
    };
    let at_the_end = match groups {
        Groups::Of128ZeroPoints => x - low < step || high - x < step,
        _ => x.abs() > 7.4 * step,
    };
    let slack = range * 2f32.powi(-8) + 1e-6;
    if at_the_end { step * 1.01 + slack } else { step / 2.0 + slack }
}

#[test]
fn stored_numbers_are_within_half_a_step_and_products_are_those_of_what_is_stored() {
    let shapes =
        [(1, 1, 1), (1, 768, 300), (3, 65, 33), (6, 64, 32), (7, 200, 40), (17, 130, 70), (40, 1000, 33), (2, 31, 5)];
    for (threads, groups) in [1, 2].into_iter().flat_map(|t| FORMS.map(|g| (t, g))) {
        let pool = Pool::new(threads, None).unwrap();
        for (n, k, m) in shapes {
            let what = format!("{groups:?}: {n} {k} {m}, {threads} threads");
            let (left, right, bias) = (numbers(n * k, 3), numbers(m * k, 11), numbers(m, 9));
            let weight = packed(&pool, (m, k), groups, &right);
            let mut stored = vec![f32::NAN; m * k];
            for (row, of_right) in stored.chunks_exact_mut(k).enumerate().map(|(i, r)| ((i, r), &right[i * k..][..k])) {
                weight.row(row.0, row.1);
                for (group, theirs) in row.1.chunks(groups.len()).zip(of_right.chunks(groups.len())) {
                    for (ours, x) in group.iter().zip(theirs) {
                        let most = allowed(groups, theirs, *x);
                        assert!((ours - x).abs() <= most, "{what}: {ours} of {x}, more than {most} off");
                    }
                }
            }
            let (mut out, mut begun) = (vec![0.5; n * m], vec![0.5; n * m]);
            for (out, onto, factor) in [(&mut out, Onto::Bias(&bias), 1.0), (&mut begun, Onto::Target, 0.5)] {
                let (to, a) = (Target::new(out, m), View::dense(&left, n, k));
                // SAFETY: `out` is borrowed exclusively.
                unsafe { product(&pool, to, onto, factor, a, Right::Packed(&weight), Precision::F32) };
            }
            for (r, c) in (0..n).flat_map(|r| (0..m).map(move |c| (r, c))) {
                let (x, w) = (&left[r * k..][..k], &stored[c * k..][..k]);
                let exact: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                // Each factor of the left side is off by at most half a step of its chunk, its largest / 127.
                let half_steps = x.chunks(CHUNK).zip(w.chunks(CHUNK)).map(|(x, w)| {
                    let step = largest(x) / 127.0;
                    w.iter().map(|w| f64::from(w.abs() * step) / 2.0).sum::<f64>()
                });
                let bound = half_steps.sum::<f64>() + 1e-4;
                let (with_bias, onto) = (f64::from(out[r * m + c]), f64::from(begun[r * m + c]));
                assert!((with_bias - exact - f64::from(bias[c])).abs() <= bound, "{what} at {r} {c}: {with_bias}");
                assert!((onto - 0.5 * exact - 0.5).abs() <= bound, "{what} at {r} {c}: {onto} onto 0.5");
            }
        }
    }
}

#[test]
fn integers_up_to_the_range_come_back_as_they_were() {
    let pool = Pool::new(1, None).unwrap();
    let (k, m) = (256, 3);
    for groups in FORMS {
        let low = if groups == Groups::Of128ZeroPoints { -3.0 } else { -8.0 };
        // Every group has the ends of the range, so that its step is 1.
        let right: Vec<f32> = (0..m * k).map(|i| low + (i % 16) as f32).collect();
        let weight = packed(&pool, (m, k), groups, &right);
        let mut row = vec![f32::NAN; k];
        weight.row(2, &mut row);
        assert_eq!(row, right[2 * k..], "{groups:?}");
        let left: Vec<f32> = (0..k).map(|i| ((i * 37) % 255) as f32 - 127.0).collect();
        let left: Vec<f32> = left.iter().enumerate().map(|(i, x)| if i % CHUNK == 0 { 127.0 } else { *x }).collect();
        let mut out = vec![0.0; m];
        // SAFETY: `out` is borrowed exclusively.
        unsafe {
            let to = Target::new(&mut out, m);
            product(&pool, to, Onto::Nothing, 1.0, View::dense(&left, 1, k), Right::Packed(&weight), Precision::F32);
        }
        for (c, ours) in out.iter().enumerate() {
            let exact: f64 = left.iter().zip(&right[c * k..]).map(|(x, w)| f64::from(x * w)).sum();
            assert!((f64::from(*ours) - exact).abs() <= 1e-6 * exact.abs().max(1e3), "{groups:?}: {ours}, {exact}");
        }
    }
}

#[test]
fn numbers_that_are_not_finite_or_nothing_come_out_of_4_bits_as_they_should() {
    let pool = Pool::new(1, None).unwrap();
    for groups in FORMS {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let weight = packed(&pool, (2, 3), groups, &[1.0, odd, 1.0, 1.0, 1.0, 1.0]);
            let mut out = vec![0.0; 2];
            let (to, left) = (Target::new(&mut out, 2), [1.0; 3]);
            // SAFETY: `out` is borrowed exclusively.
            unsafe {
                product(
                    &pool,
                    to,
                    Onto::Nothing,
                    1.0,
                    View::dense(&left, 1, 3),
                    Right::Packed(&weight),
                    Precision::F32,
                );
            }
            assert!(out[0].is_nan() && (out[1] - 3.0).abs() < 0.1, "{groups:?} {odd}: {out:?}");
        }
        let mut row = [f32::NAN; 3];
        packed(&pool, (1, 3), groups, &[0.0, 1e-45, -0.0]).row(0, &mut row);
        assert!(row.iter().all(|x| x.abs() <= 1e-44), "{groups:?}: {row:?}");
    }
}

#[test]
fn a_weight_takes_as_many_bits_as_is_said() {
    let bits = |groups| PackedLayout::new(1024, 1024, Stored::Int4(groups)).len() as f64 * 32.0 / (1024.0 * 1024.0);
    assert_eq!(FORMS.map(bits), [4.5, 4.25, 4.25]);
}
