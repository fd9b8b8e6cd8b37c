//! Weights in floats of 8 bits on a device, the kernels run by the host: what is stored beside the CPU backend's, products and rows
//! beside the oracle's of what is stored, and whole models.

use super::super::backend::{Alloc, Backend, Category, LinearDims, Store};
use super::super::collective::grid::Parallel;
use super::super::cpu::naive::Naive;
use super::super::cpu::{Cpu, buffer::Buffer as OfCpu};
use super::super::golden::tolerance;
use super::super::kv_cache::CacheElement;
use super::super::pass::generate::Inference;
use super::super::pass::model::{Model, Purpose};
use super::super::random::{Block, Normals, Stream};
use super::super::session::Session;
use super::super::shape::{Family, Shape, ShapeSpec, count};
use super::host::{HostDevice, array, close, ids, random, rounded, within};
use super::ranks_tests::{session, workload};
use super::weights_f8::stretch;
use super::*;
use device::Real;

const DTYPES: [(Dtype, Real); 2] = [(Dtype::F32, Real::F32), (Dtype::Bf16, Real::Bf16)];

fn rank(dtype: Dtype) -> Option<(Cuda, Arc<HostDevice>)> {
    let host = Arc::new(HostDevice::new()?);
    let cuda = Cuda::on_device(Arc::clone(&host) as Arc<dyn Device>, dtype).unwrap();
    Some((cuda.with_weights(WeightFormat::F8), host))
}

/// A weight of these numbers on a backend.
fn made<B: Backend>(on: &B, columns: usize, numbers: &[f32]) -> B::Buffer {
    let mut rest = numbers;
    let mut next = |rows: &mut [f32]| {
        let (here, after) = rest.split_at(rows.len());
        rows.copy_from_slice(here);
        rest = after;
    };
    let weight = on.weights(1, numbers.len() / columns, columns, &mut next).unwrap();
    assert!(rest.is_empty());
    weight
}

fn rows_of(weight: &OfCpu, rows: usize, columns: usize) -> Vec<f32> {
    let OfCpu::Packed(weight) = weight else { panic!("a matrix is packed") };
    let mut all = vec![0.0; rows * columns];
    all.chunks_exact_mut(columns).enumerate().for_each(|(i, row)| weight.row(i, row));
    all
}

fn on_cpu() -> Cpu {
    Cpu::new(1, None).unwrap().with_weights(WeightFormat::F8)
}

/// What the CPU backend makes of them.
fn stored(columns: usize, numbers: &[f32]) -> Vec<f32> {
    rows_of(&made(&on_cpu(), columns, numbers), numbers.len() / columns, columns)
}

/// Every row of a weight, by looking all of them up.
fn looked_up(cuda: &Cuda, weight: &Buffer, rows: usize, columns: usize) -> Vec<f32> {
    let mut out = cuda.alloc(rows * columns, Category::Activations).unwrap();
    let all: Vec<u32> = (0..rows as u32).collect();
    cuda.embed(&all, rows, 0, weight, None, &mut out, columns);
    let mut host = vec![0.0; rows * columns];
    cuda.download(&out, 0, &mut host);
    host
}

#[test]
fn what_is_stored_is_what_the_cpu_stores() {
    for (dtype, real) in DTYPES {
        let Some((cuda, _)) = rank(dtype) else { return };
        for (rows, columns) in [(1, 8), (3, 7), (33, 40), (70, 257), (5, 1032)] {
            let mut numbers = random(rows * columns, 3);
            // Of many magnitudes; a row of zeros, one of subnormal numbers.
            numbers.iter_mut().enumerate().for_each(|(i, x)| *x *= 0.5f32.powi(i as i32 * 31 % 17));
            if rows > 2 {
                numbers[..columns].fill(0.0);
                numbers[columns..2 * columns].fill(1e-45);
            }
            let want = rounded(real, stored(columns, &numbers));
            let got = looked_up(&cuda, &made(&cuda, columns, &numbers), rows, columns);
            assert_eq!(got, want, "{dtype}: {rows} x {columns}");
        }
        Backend::check(&cuda).unwrap();
    }
}

#[test]
fn normal_numbers_are_made_on_the_device_as_the_host_makes_them() {
    let block = |rows, first| Block { rows, first, stride: 50 };
    let numbers = Normals::new(Stream::new(3, 9), 0.02, 24, vec![block(7, 5), block(0, 0), block(26, 1000)]);
    let mut whole = vec![0.0; 33 * 24];
    numbers.fill(0, &mut whole);
    for at_once in [1, 4, 33] {
        for first in (0..33usize).step_by(at_once) {
            let here = at_once.min(33 - first);
            let mut part = vec![f32::NAN; here * 24];
            stretch(&numbers, first, here).fill(0, &mut part);
            assert_eq!(part, whole[first * 24..][..here * 24], "{here} rows from {first}");
        }
    }
    let Some((cuda, _)) = rank(Dtype::F32) else { return };
    let weight = cuda.normal_weights(1, &numbers).unwrap();
    assert_eq!(looked_up(&cuda, &weight, 33, 24), rows_of(&on_cpu().normal_weights(1, &numbers).unwrap(), 33, 24));
}

/// `x w^T + bias (+ out)` on the device and by the oracle, weights as they are stored: in f32 for kernels that scale sums, else rounded
/// to the format that they are expanded to.
fn agrees(cuda: &Cuda, real: Real, d: LinearDims, accumulate: bool, few: bool) {
    let LinearDims { n, k, m } = d;
    let numbers: Vec<f32> = random(m * k, 2).iter().map(|x| x / (k as f32).sqrt()).collect();
    let (x, bias) = (rounded(real, random(n * k, 1)), rounded(real, random(m, 4)));
    let before = rounded(real, random(n * m, 5));
    let weight = made(cuda, k, &numbers);
    let put = |numbers: &[f32]| {
        let mut to = cuda.alloc(numbers.len(), Category::Activations).unwrap();
        cuda.upload(numbers, &mut to);
        to
    };
    let mut out = put(&before);
    let into = if accumulate { Store::Accumulate } else { Store::Overwrite };
    cuda.linear(&put(&x), &weight, Some(&put(&bias)), &mut out, into, d);
    Backend::check(cuda).unwrap();
    let mut got = vec![0.0; n * m];
    cuda.download(&out, 0, &mut got);
    let stored = stored(k, &numbers);
    let stored = if few { stored } else { rounded(real, stored) };
    let mut want = array(&before);
    Naive.linear(&array(&x), &array(&stored), Some(&array(&bias)), &mut want, into, d);
    close(&format!("{real:?} {d:?} {accumulate}"), real, &got, &want);
}

#[test]
fn products_of_a_few_rows_read_codes_and_scale_their_sums() {
    for (dtype, real) in DTYPES {
        let Some((cuda, _)) = rank(dtype) else { return };
        cuda.kernels_run();
        for (i, (k, m)) in [(8, 1), (16, 15), (72, 33), (200, 40), (520, 17), (1024, 130), (4104, 8), (8200, 3)]
            .into_iter()
            .enumerate()
        {
            for n in [1 + i % 8, 8 - i % 8] {
                agrees(&cuda, real, LinearDims { n, k, m }, n % 2 == 0, true);
            }
        }
        let ran = cuda.kernels_run();
        assert!(ran.iter().any(|name| name == "matvec_linear_f8") && !ran.iter().any(|name| name == "expand_f8"));
    }
}

#[test]
fn products_of_many_rows_expand_them() {
    for (dtype, real) in DTYPES {
        let Some((cuda, _)) = rank(dtype) else { return };
        cuda.kernels_run();
        // More rows than the few, or rows that no access of 16 bytes divides.
        for (n, k, m) in [(9, 40, 33), (20, 64, 300), (3, 7, 5), (70, 257, 20)] {
            agrees(&cuda, real, LinearDims { n, k, m }, n == 20, false);
        }
        let ran = cuda.kernels_run();
        assert!(ran.iter().any(|name| name == "expand_f8") && !ran.iter().any(|name| name == "matvec_linear_f8"));
    }
}

/// A weight that there is not room for at once: 300 outputs by 128.
#[test]
fn a_large_weight_is_expanded_in_parts() {
    for (dtype, real) in DTYPES {
        let Some((cuda, _)) = rank(dtype) else { return };
        let d = LinearDims { n: 11, k: 24, m: 300 };
        let (x, numbers) = (rounded(real, random(11 * 24, 1)), random(300 * 24, 2));
        let (bias, plus) = (rounded(real, random(300, 3)), rounded(real, random(11 * 300, 4)));
        let put = |numbers: &[f32]| {
            let mut to = cuda.alloc(numbers.len(), Category::Activations).unwrap();
            cuda.upload(numbers, &mut to);
            to
        };
        let (weight, out) = (made(&cuda, 24, &numbers), put(&plus));
        let codes = weight.codes().unwrap();
        let (input, of_bias) = (put(&x), put(&bias));
        cuda.linears().forward_in_parts(&input, codes, (Some(&of_bias), Some(out.at())), &out, d, 1);
        Backend::check(&cuda).unwrap();
        let (mut got, mut want) = (vec![0.0; 11 * 300], array(&plus));
        cuda.download(&out, 0, &mut got);
        let stored = rounded(real, stored(24, &numbers));
        Naive.linear(&array(&x), &array(&stored), Some(&array(&bias)), &mut want, Store::Accumulate, d);
        close(&format!("{real:?} in parts"), real, &got, &want);
    }
}

#[test]
fn rows_of_a_table_are_looked_up_with_their_positions() {
    for (dtype, real) in DTYPES {
        let Some((cuda, _)) = rank(dtype) else { return };
        for c in [7, 40] {
            let (numbers, of_positions) = (random(19 * c, 1), rounded(real, random(9 * c, 2)));
            let table = made(&cuda, c, &numbers);
            let mut positions = cuda.alloc(9 * c, Category::FixedWeights).unwrap();
            cuda.upload(&of_positions, &mut positions);
            let mut out = cuda.alloc(10 * c, Category::Activations).unwrap();
            let words = ids(10, 19, 3);
            cuda.embed(&words, 5, 2, &table, Some(&positions), &mut out, c);
            let mut got = vec![0.0; 10 * c];
            cuda.download(&out, 0, &mut got);
            let stored = stored(c, &numbers);
            let want: Vec<f32> = (0..10 * c)
                .map(|i| stored[words[i / c] as usize * c + i % c] + of_positions[(2 + i / c % 5) * c + i % c])
                .collect();
            assert_eq!(got, rounded(real, want), "{dtype} {c}");
        }
    }
}

fn shape(family: Family) -> Shape {
    let spec = ShapeSpec {
        n_layers: Some(2),
        d_model: Some(32),
        n_heads: Some(4),
        n_kv_heads: (family == Family::Llama).then_some(2),
        vocab_size: Some(61),
        context: Some(32),
        ..ShapeSpec::default()
    };
    Shape::new(family, &spec).unwrap()
}

/// Logits after a prompt of 13 tokens and after each of three more.
fn logits<B: Backend + Clone>(on: B, shape: &Shape) -> Vec<f32> {
    let model = Model::new(on.clone(), shape, 5, Purpose::Inference).unwrap();
    let mut inference = Inference::new(&on, &model.shape, 2, (13, 13), 3, CacheElement::from(on.dtype())).unwrap();
    let words: Vec<u32> = (0..26).map(|i| i * 7 % 61).collect();
    model.prefill(&words, &mut inference);
    let mut all = Vec::new();
    for next in [[3, 4], [17, 60], [0, 5]] {
        let mut numbers = vec![0.0; 2 * 61];
        on.download(&inference.logits, 0, &mut numbers);
        all.extend(numbers);
        assert!(model.decode(&next, &mut inference));
    }
    Backend::check(&on).unwrap();
    all
}

#[test]
fn a_model_decodes_as_on_the_cpu() {
    for family in [Family::Gpt2, Family::Llama] {
        for (dtype, _) in DTYPES {
            let Some((cuda, _)) = rank(dtype) else { return };
            cuda.kernels_run();
            let (shape, of_names) = (shape(family), cuda.clone());
            let (ours, cpus) = (logits(cuda, &shape), logits(on_cpu().with_dtype(dtype), &shape));
            let plain = logits(Cpu::new(1, None).unwrap().with_dtype(dtype), &shape);
            let largest = cpus.iter().fold(0.0f32, |l, x| l.max(x.abs()));
            let allowed = tolerance(dtype, WeightFormat::Dtype, &shape) as f32 * largest;
            within(&format!("{family} {dtype}"), &ours, &cpus, 0.0, allowed);
            assert_ne!(cpus, plain, "{family} {dtype}: nothing is stored in few bits");
            let ran = of_names.kernels_run();
            for kernel in ["embed_f8", "expand_f8", "matvec_qkv_f8", "matvec_linear_f8", "matvec_up_f8"] {
                // A table that is not tied is read by its rows alone, and stays in the dtype.
                let there = ran.iter().any(|name| name == kernel);
                assert_eq!(there, kernel != "embed_f8" || family == Family::Gpt2, "{family} {dtype}: {kernel}");
            }
        }
    }
}

#[test]
fn a_session_takes_what_was_predicted_and_two_devices_share_it() {
    let two = Parallel { tensor: 2, ..Parallel::replicas(1) };
    for (family, phase, dtype, parallel) in [
        (Family::Gpt2, Phase::Generate, Dtype::F32, Parallel::replicas(1)),
        (Family::Llama, Phase::Decode, Dtype::Bf16, Parallel::replicas(1)),
        (Family::Llama, Phase::Prefill, Dtype::Bf16, two),
    ] {
        let w = Workload { weights: WeightFormat::F8, ..workload(family, phase, dtype) };
        let Some((mut session, ranks)) = session(&w, parallel) else { return };
        (0..3).for_each(|_| {
            session.step().unwrap();
        });
        let measured = session.device_memory().unwrap().peak_allocated_bytes;
        let own: u64 = ranks.iter().map(|(cuda, _)| cuda.state.bytes() as u64).sum();
        let predicted = count::memory(BackendKind::Cuda, &w, &parallel).unwrap();
        let model = predicted.total().unwrap().get() - predicted.workspace_bytes;
        assert_eq!(measured, model + own, "{family} {phase} {dtype}: {predicted:?}");
        assert!(own <= predicted.workspace_bytes, "{family} {phase} {dtype}: {own} of {predicted:?}");
        let whole = count::memory(BackendKind::Cuda, &workload(family, phase, dtype), &parallel).unwrap();
        assert!(predicted.weights_bytes < whole.weights_bytes, "{predicted:?} {whole:?}");
    }
}

#[test]
fn weights_of_experts_are_refused_with_the_remedy() {
    let refused =
        |family, phase, weights| parts::lacking(&Workload { weights, ..workload(family, phase, Dtype::Bf16) });
    let said = Some("weights of experts in 8 bits");
    assert_eq!(refused(Family::Mixtral, Phase::Decode, WeightFormat::F8), said);
    assert_eq!(refused(Family::Mixtral, Phase::Decode, WeightFormat::Dtype), None);
    assert_eq!(refused(Family::Llama, Phase::Decode, WeightFormat::F8), None);
}
