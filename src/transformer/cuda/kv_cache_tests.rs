//! A model that decodes over a cache of 8 bits, its kernels run by the host, beside the same on the CPU.

use super::super::CacheFormat;
use super::super::backend::{Backend, CacheElement};
use super::super::cpu::Cpu;
use super::super::pass::generate::Inference;
use super::super::pass::model::{Model, Purpose};
use super::super::shape::{Family, Shape, ShapeSpec};
use super::host::{HostDevice, within};
use super::*;

fn shape(family: Family, window: Option<u32>) -> Shape {
    let spec = ShapeSpec {
        n_layers: Some(2),
        d_model: Some(32),
        n_heads: Some(4),
        n_kv_heads: (family == Family::Llama).then_some(2),
        vocab_size: Some(61),
        context: Some(32),
        window,
        ..ShapeSpec::default()
    };
    Shape::new(family, &spec).unwrap()
}

/// Logits after a prompt of 13 tokens, so many at a time, and after each of three tokens more; the last steps may be replayed.
fn logits<B: Backend + Clone>(on: B, shape: &Shape, chunk: usize, format: CacheFormat) -> Vec<f32> {
    let model = Model::new(on.clone(), shape, 5, Purpose::Inference).unwrap();
    let element = CacheElement::of(on.dtype(), format);
    let mut inference = Inference::new(&on, &model.shape, 2, (13, chunk), 3, element).unwrap();
    let ids: Vec<u32> = (0..26).map(|i| i * 7 % 61).collect();
    model.prefill(&ids, &mut inference);
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

/// Keys and values differ by roundings of f32, by which a number in some thousands may be stored a step apart.
#[test]
fn decoding_over_a_cache_of_8_bits_is_the_cpus() {
    for (family, window) in [(Family::Gpt2, None), (Family::Llama, None), (Family::Llama, Some(4))] {
        let shape = shape(family, window);
        for chunk in [13, 5] {
            let plain = logits(Cpu::new(1, None).unwrap(), &shape, chunk, CacheFormat::Dtype);
            for format in [CacheFormat::Int8, CacheFormat::F8] {
                let Some(host) = HostDevice::new() else { return };
                let cuda = Cuda::on_device(Arc::new(host), Dtype::F32).unwrap();
                let ours = logits(cuda, &shape, chunk, format);
                let cpus = logits(Cpu::new(1, None).unwrap(), &shape, chunk, format);
                let apart = |a: &[f32]| a.iter().zip(&plain).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                let by_format = apart(&cpus);
                assert!(by_format > 0.0, "{family} {window:?} {format}: nothing is stored in few bits");
                within(&format!("{family} {window:?} {chunk} {format}"), &ours, &cpus, 1e-4, 0.2 * by_format + 1e-5);
            }
        }
    }
}

#[test]
fn caches_of_latents_are_refused_with_the_remedy() {
    use super::super::prepare::prepare;
    use super::super::session::SessionOptions;
    use super::super::shape::LatentSpec;
    let latent = LatentSpec { kv_lora_rank: Some(16), ..LatentSpec::default() };
    let shape = Shape::new(Family::Llama, &ShapeSpec { latent, ..ShapeSpec::default() }).unwrap();
    let workload = Workload {
        shape,
        phase: Phase::Decode,
        batch: 1,
        seq_len: 0,
        prompt_len: 4,
        new_tokens: 4,
        dtype: Dtype::F32,
        weights: super::super::WeightFormat::Dtype,
        kv_cache: CacheFormat::Int8,
        optimizer: super::super::OptimizerKind::Adamw,
        dropout: 0.0,
        prefill_chunk: None,
        weights_from: None,
        levers: Default::default(),
    };
    let parallel = super::super::collective::grid::Parallel::replicas(1);
    let options = SessionOptions { backend: BackendKind::Cuda, parallel, threads_per_rank: 1, seed: 0 };
    let said = prepare(&workload, &options).err().unwrap().to_string();
    assert!(said.starts_with("caches of latents in 8 bits are not built into backend cuda"), "{said}");
    assert!(said.ends_with("use backend: cpu"), "{said}");
}
