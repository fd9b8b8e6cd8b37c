//! What DeepSeek's models are made of beside others: routes by rules, blocks of heads, attention over a cache of latents; the fast
//! backend against the oracle, whose keys and values are made of the latents one by one.

use super::super::backend::{Backend, BlockCopy, Blocks, CacheElement, Category, ExpertDims, LatentDims, Parts};
use super::super::random::Stream;
use super::super::shape::{Activation, Routing, Scoring};
use super::Cpu;
use super::naive::Naive;

/// As of `conformance.rs`.
const TOLERANCE: f32 = 2e-5;

fn random(len: usize, stream: u64) -> Vec<f32> {
    let mut a = vec![0.0; len];
    Stream::new(13, stream).fill_normal(&mut a, 1.0);
    a
}

/// What an operation makes of these inputs, in buffers of these lengths.
fn run<B: Backend>(
    on: &B,
    inputs: &[&[f32]],
    outputs: &[usize],
    operation: impl FnOnce(&[B::Buffer], &mut [B::Buffer]),
) -> Vec<Vec<f32>> {
    let buffer = |len| on.alloc(len, Category::Activations).unwrap();
    let place = |from: &&[f32]| {
        let mut to = buffer(from.len());
        on.upload(from, &mut to);
        to
    };
    let given: Vec<B::Buffer> = inputs.iter().map(place).collect();
    let mut made: Vec<B::Buffer> = outputs.iter().map(|len| buffer(*len)).collect();
    operation(&given, &mut made);
    let back = |(from, len): (&B::Buffer, &usize)| {
        let mut host = vec![0.0; *len];
        on.download(from, 0, &mut host);
        host
    };
    made.iter().zip(outputs).map(back).collect()
}

fn same(what: &str, fast: &[Vec<f32>], naive: &[Vec<f32>]) {
    for (fast, naive) in fast.iter().zip(naive) {
        let scale = naive.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
        for (i, (a, b)) in fast.iter().zip(naive).enumerate() {
            let near = (a - b).abs() <= TOLERANCE * scale || a.to_bits() == b.to_bits();
            assert!(near, "{what}: element {i} is {a}, the oracle says {b} (scale {scale})");
        }
    }
}

fn experts(n: usize, experts: usize, per_token: usize, normalised: bool) -> ExpertDims {
    ExpertDims { n, c: 1, f: 1, experts, per_token, normalised, kind: Activation::SwiGlu }
}

/// Chosen, weights, and gradients of the logits.
fn routes<B: Backend>(
    on: &B,
    d: ExpertDims,
    by: Routing,
    [logits, correction, dweights]: [&[f32]; 3],
) -> Vec<Vec<f32>> {
    run(on, &[logits, correction, dweights], &[d.rows(), d.rows(), d.n * d.experts], |given, made| {
        let [chosen, weights, dlogits] = made else { unreachable!() };
        on.route_by(&given[0], by.corrected.then_some(&given[1]), chosen, weights, (d, by));
        on.route_by_backward(&given[0], chosen, &given[2], dlogits, (d, by));
    })
}

fn rules() -> Vec<Routing> {
    let mut all = Vec::new();
    for scoring in [Scoring::Softmax, Scoring::Sigmoid] {
        for corrected in [false, true] {
            for (groups, groups_per_token) in [(1, 1), (4, 1), (4, 2), (2, 2)] {
                all.push(Routing { scoring, groups, groups_per_token, scale: 1.7, corrected });
            }
        }
    }
    all
}

#[test]
fn routes_by_every_rule_agree() {
    for by in rules() {
        for (n, count, per_token) in [(1, 8, 2), (7, 16, 4), (70, 64, 6)] {
            for normalised in [true, false] {
                let d = experts(n, count, per_token, normalised);
                let (logits, correction, dweights) = (random(n * count, 1), random(count, 2), random(d.rows(), 3));
                let inputs = [logits.as_slice(), &correction, &dweights];
                let naive = routes(&Naive, d, by, inputs);
                for threads in [1, 2] {
                    let fast = routes(&Cpu::new(threads, None).unwrap(), d, by, inputs);
                    same(&format!("{by:?} {d:?}"), &fast, &naive);
                }
            }
        }
    }
}

#[test]
fn a_correction_chooses_and_does_not_weigh_and_groups_come_first() {
    let d = experts(1, 4, 2, true);
    let by = Routing { scoring: Scoring::Sigmoid, groups: 2, groups_per_token: 1, scale: 2.0, corrected: true };
    // Expert 0 is the best of all; the two of the other group are better together.
    let logits = [2.0, -3.0, 1.0, 0.5];
    let of = |correction: [f32; 4]| {
        let made = routes(&Naive, d, by, [&logits, &correction, &[1.0, 0.0]]);
        let mut both: Vec<(u32, f32)> = made[0].iter().map(|c| c.to_bits()).zip(made[1].iter().copied()).collect();
        both.sort_by_key(|(expert, _)| *expert);
        both
    };
    let sigmoid = |l: f32| 1.0 / (1.0 + (-l).exp());
    let shares = |a: f32, b: f32| [a, b].map(|l| 2.0 * sigmoid(l) / (sigmoid(a) + sigmoid(b)));
    for (correction, expected, [first, second]) in
        [([0.0; 4], [2, 3], shares(1.0, 0.5)), ([0.0, 2.0, 0.0, 0.0], [0, 1], shares(2.0, -3.0))]
    {
        let both = of(correction);
        assert_eq!([both[0].0, both[1].0], expected);
        assert!((both[0].1 - first).abs() < 1e-6 && (both[1].1 - second).abs() < 1e-6, "{both:?}");
    }
}

#[test]
fn gradients_of_routes_are_the_slopes_of_their_weights() {
    for by in rules() {
        for normalised in [true, false] {
            let d = experts(1, 8, 3, normalised);
            let by = Routing { groups_per_token: by.groups, ..by };
            let (logits, correction, dweights) = (random(8, 5), random(8, 6), random(3, 7));
            let whole = |logits: &[f32]| {
                let made = routes(&Naive, d, by, [logits, &correction, &dweights]);
                let sum: f64 = made[1].iter().zip(&dweights).map(|(w, g)| f64::from(*w) * f64::from(*g)).sum();
                (sum, made[0].clone(), made[2].clone())
            };
            let (_, chosen, gradient) = whole(&logits);
            for e in 0..8 {
                let moved = |by: f32| {
                    let mut moved = logits.clone();
                    moved[e] += by;
                    whole(&moved)
                };
                let (up, down) = (moved(1e-2), moved(-1e-2));
                // Where it chooses others there is no slope.
                if up.1 == chosen && down.1 == chosen {
                    let slope = (up.0 - down.0) / 2e-2;
                    assert!((slope - f64::from(gradient[e])).abs() < 2e-4, "{by:?} {e}: {slope}, {}", gradient[e]);
                }
            }
        }
    }
}

#[test]
fn blocks_of_heads_are_copied_there_and_summed_back() {
    for (n, heads, len) in [(1, 1, 3), (5, 4, 6), (33, 3, 16)] {
        let own = Blocks { first: 0, row: heads * len, head: len };
        let wide = Blocks { first: 2, row: 3 * heads * (len + 5), head: len + 5 };
        let shared = Blocks { first: 1, row: len + 1, head: 0 };
        for (from, to) in [(own, wide), (wide, own), (shared, wide), (wide, shared)] {
            let copy = BlockCopy { n, heads, len, from, to };
            let len_of = |of: Blocks| n * of.row + of.first;
            let source = random(len_of(from), 9);
            let of_naive = run(&Naive, &[&source], &[len_of(to)], |given, made| {
                Naive.copy_blocks(&given[0], &mut made[0], copy);
            });
            let expected: f32 = source[from.first..].iter().take(len).sum();
            if heads == 1 {
                let found: f32 = of_naive[0][to.first..].iter().take(len).sum();
                assert_eq!(found, expected);
            }
            for threads in [1, 3] {
                let cpu = Cpu::new(threads, None).unwrap();
                let fast = run(&cpu, &[&source], &[len_of(to)], |given, made| {
                    cpu.copy_blocks(&given[0], &mut made[0], copy);
                });
                same(&format!("{copy:?}"), &fast, &of_naive);
            }
        }
    }
}

fn attended<B: Backend>(on: &B, d: LatentDims, position: usize, inputs: [&[f32]; 6]) -> Vec<Vec<f32>> {
    let before = LatentDims { tokens: position, ..d };
    run(on, &inputs, &[d.words(), d.rows() * d.heads * d.value], |given, made| {
        let ([latent, rotated, next, next_rotated, queries, w], [cache, out]) = (given, made) else { unreachable!() };
        if position > 0 {
            on.latent_append(latent, rotated, cache, 0, before);
        }
        on.latent_append(next, next_rotated, cache, position, d);
        on.latent_attention(queries, w, cache, out, position, d);
    })
}

#[test]
fn attention_over_latents_agrees_with_keys_and_values_made_of_them() {
    // The last two are stretches, which have keys and values made.
    let sizes = [(1, 1, 1, 0), (3, 1, 16, 40), (2, 5, 3, 7), (9, 1, 4, 70), (1, 300, 2, 3), (2, 17, 3, 65)];
    for (batch, tokens, heads, position) in sizes {
        let (rank, rope, nope, value) = (12, 4, 7, 6);
        let capacity = position + tokens + 3;
        let element = CacheElement::F32;
        let d = LatentDims { batch, tokens, heads, rank, rope, nope, value, scale: 0.4, capacity, element };
        let lens = [batch * position * rank, batch * position * rope, d.rows() * rank, d.rows() * rope];
        let [latent, rotated, next, next_rotated] = [20, 21, 22, 23].map(|s| random(lens[s as usize - 20].max(1), s));
        let (queries, w) = (random(d.rows() * heads * (rope + nope), 24), random(heads * (nope + value) * rank, 25));
        // As bf16 has them, so that a cache of either format holds the same.
        let rounded = |x: &[f32]| x.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect::<Vec<_>>();
        let kept = [latent, rotated, next, next_rotated].map(|x| rounded(&x));
        let inputs = [kept[0].as_slice(), &kept[1], &kept[2], &kept[3], &queries, &w];
        let naive = attended(&Naive, d, position, inputs);
        for threads in [1, 2] {
            let cpu = Cpu::new(threads, None).unwrap();
            let fast = attended(&cpu, d, position, inputs);
            same(&format!("{d:?} at {position}"), &fast[1..], &naive[1..]);
            let halves = attended(&cpu, LatentDims { element: CacheElement::Bf16, ..d }, position, inputs);
            assert_eq!(halves[1], fast[1], "{d:?}: a cache of bf16");
        }
    }
}
