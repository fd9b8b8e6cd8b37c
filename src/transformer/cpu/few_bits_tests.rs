//! What a model's weights take in each format: what is held, what the plan says, and what a decode step reads.

use super::super::collective::grid::{Groups, Parallel};
use super::super::pass::model::{Model, Origin, Purpose};
use super::super::shape::{Family, Shape, ShapeSpec, count};
use super::super::{BackendKind, CacheFormat, Dtype, OptimizerKind, Phase, WeightFormat, Workload};
use super::buffer::Buffer;
use super::product::PackedWeight;
use super::{Cpu, weight_words};

fn bytes(buffer: &Buffer) -> u64 {
    let words = match buffer {
        Buffer::Plain(array) => array.len(),
        Buffer::Packed(weight) => weight.len(),
        Buffer::Experts(all) => all.iter().map(PackedWeight::len).sum(),
    };
    4 * words as u64
}

/// Tied and untied, with experts; of widths that fill no panels, or that fill all.
fn shapes(whole: bool) -> Vec<Shape> {
    let width = |odd, even| Some(if whole { even } else { odd });
    let spec = ShapeSpec {
        n_layers: Some(2),
        d_model: width(72, 128),
        n_heads: Some(4),
        d_ff: width(100, 256),
        vocab_size: width(101, 96),
        ..ShapeSpec::default()
    };
    let grouped = ShapeSpec { n_kv_heads: Some(2), ..spec.clone() };
    let mixture = ShapeSpec { n_experts: width(5, 32), experts_per_token: Some(2), ..grouped.clone() };
    let shared = ShapeSpec { n_shared_experts: Some(2), first_dense_layers: Some(1), ..mixture.clone() };
    let all =
        [(Family::Gpt2, &spec), (Family::Llama, &grouped), (Family::Mixtral, &mixture), (Family::Mixtral, &shared)];
    all.map(|(family, spec)| Shape::new(family, spec).unwrap()).to_vec()
}

fn workload(shape: &Shape, dtype: Dtype, weights: WeightFormat) -> Workload {
    Workload {
        shape: shape.clone(),
        phase: Phase::Decode,
        // So many that every expert has a token.
        batch: 1 << 14,
        seq_len: 0,
        prompt_len: 4,
        new_tokens: 4,
        dtype,
        weights,
        optimizer: OptimizerKind::Adamw,
        dropout: 0.0,
        kv_cache: CacheFormat::Dtype,
        prefill_chunk: None,
        weights_from: None,
        levers: Default::default(),
    }
}

#[test]
fn what_is_held_is_what_was_predicted() {
    for (shape, dtype) in shapes(false).iter().flat_map(|s| [(s, Dtype::F32), (s, Dtype::Bf16)]) {
        for weights in WeightFormat::ALL {
            let on = Cpu::new(1, None).unwrap().with_dtype(dtype).with_weights(*weights);
            let model = Model::part(on, shape, Origin::Seed(3), Purpose::Inference, &Groups::alone()).unwrap();
            let held: u64 = model.parameters.iter().map(bytes).sum();
            let w = workload(shape, dtype, *weights);
            let predicted = count::memory(BackendKind::Cpu, &w, &Parallel::replicas(1)).unwrap();
            assert_eq!(predicted.weights_bytes, held, "{} {dtype} {weights}", shape.family);
        }
    }
}

/// Where panels are full, a step reads what they take: the numbers, and scales as many as the format has.
#[test]
fn a_decode_step_reads_the_matrices_as_they_are_stored() {
    for shape in shapes(true) {
        let model =
            Model::part(Cpu::new(1, None).unwrap(), &shape, Origin::Seed(3), Purpose::Inference, &Groups::alone())
                .unwrap();
        let matrices = |weights| {
            let one = |i: usize| {
                let (matrices, spec) = (model.index.matrices(i)?, &model.index.specs[i]);
                Some(4 * matrices * weight_words(spec.rows / matrices, spec.columns, Dtype::F32, weights))
            };
            (0..model.index.specs.len()).filter_map(one).sum::<usize>() as u64
        };
        let read =
            |weights| count::bytes_per_decode_step(&workload(&shape, Dtype::F32, weights)).unwrap().unwrap().get();
        for weights in [WeightFormat::Int8, WeightFormat::F8] {
            let less = matrices(WeightFormat::Dtype) - matrices(weights);
            assert_eq!(read(WeightFormat::Dtype) - read(weights), less, "{} {weights}", shape.family);
        }
    }
}
