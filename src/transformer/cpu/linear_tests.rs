//! Linear layers with what stands around them, against the same in single passes.
//!
//! Where both do the same arithmetic, bits are equal. A bias on top of a matrix is added after the sums in the one and before them in
//! the other: each rounds twice, by at most 2^-24 of the magnitudes that are added.

use super::super::backend::*;
use super::super::random::Stream;
use super::super::{Dtype, WeightFormat};
use super::buffer::Buffer;
use super::{Backend, Cpu};

fn random(on: &Cpu, len: usize, stream: u64) -> Buffer {
    let mut buffer = zeros(on, len);
    Stream::new(7, stream).fill_normal(buffer.plain_mut(), 1.0);
    buffer
}

fn zeros(on: &Cpu, len: usize) -> Buffer {
    on.alloc(len, Category::Activations).unwrap()
}

fn equal(what: &str, fused: &Buffer, apart: &Buffer) {
    for (i, (a, b)) in fused.plain().iter().zip(apart.plain()).enumerate() {
        assert_eq!(a.to_bits(), b.to_bits(), "{what}: element {i} is {a}, of single passes {b}");
    }
}

/// As a parameter that is trained, and as the formats keep it for inference.
fn weights(on: &Cpu, m: usize, k: usize) -> Vec<(String, Cpu, Buffer)> {
    let mut all = vec![("as it stands".to_owned(), on.clone(), random(on, m * k, 2))];
    for format in WeightFormat::ALL {
        let cpu = on.clone().with_weights(*format);
        let numbers = random(on, m * k, 2);
        let mut rest = numbers.plain();
        let packed = cpu.weights(1, m, k, &mut |rows| {
            let (here, after) = rest.split_at(rows.len());
            rows.copy_from_slice(here);
            rest = after;
        });
        all.push((format!("{format:?}"), cpu, packed.unwrap()));
    }
    all
}

/// N, K, M: few rows and more, several blocks of the inner dimension, of columns and of rows, whole panels and others.
const SHAPES: [(usize, usize, usize); 8] = [
    (1, 33, 34),
    (5, 300, 128),
    (40, 64, 192),
    (64, 1, 64),
    (70, 257, 96),
    (131, 1100, 128),
    (200, 40, 2112),
    (2100, 33, 10),
];

fn everywhere(run: impl Fn(&str, &Cpu, &Buffer, LinearDims)) {
    for threads in [1, 2, 3] {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let cpu = Cpu::new(threads, None).unwrap().with_dtype(dtype);
            for (n, k, m) in SHAPES {
                for (stored, cpu, w) in weights(&cpu, m, k) {
                    run(
                        &format!("{n} {k} {m} {dtype:?} {stored}, {threads} threads"),
                        &cpu,
                        &w,
                        LinearDims { n, k, m },
                    );
                }
            }
        }
    }
}

#[test]
fn layers_onto_a_matrix_are_those_onto_its_copy() {
    everywhere(|what, cpu, w, d| {
        let LinearDims { n, k, m } = d;
        let (x, bias, plus) = (random(cpu, n * k, 1), random(cpu, m, 3), random(cpu, n * m, 4));
        let (mut fused, mut apart) = (zeros(cpu, n * m), zeros(cpu, n * m));
        cpu.linear_plus(&x, w, None, &plus, &mut fused, d);
        cpu.copy(&plus, &mut apart, n * m);
        cpu.linear(&x, w, None, &mut apart, Store::Accumulate, d);
        equal(what, &fused, &apart);

        let without = apart;
        cpu.linear_plus(&x, w, Some(&bias), &plus, &mut fused, d);
        let mut there = zeros(cpu, n * m);
        cpu.copy(&plus, &mut there, n * m);
        cpu.linear(&x, w, Some(&bias), &mut there, Store::Accumulate, d);
        for (i, without) in without.plain().iter().enumerate() {
            let (plus, bias) = (plus.plain()[i].abs(), bias.plain()[i % m]);
            let want = without + bias;
            let bound = 4.0 * 2f32.powi(-24) * (2.0 * plus + 2.0 * bias.abs() + without.abs());
            for got in [fused.plain()[i], there.plain()[i]] {
                assert!((got - want).abs() <= bound, "{what}: element {i} is {got}, should be {want} within {bound:e}");
            }
        }
    });
}
