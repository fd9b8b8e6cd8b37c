//! The whole model on the backend, its kernels run by the host: golden files of other frameworks, the oracle, captured steps.

use super::super::backend::{Backend, Update};
use super::super::collective::grid::Parallel;
use super::super::golden::{self, Golden};
use super::super::pass::activations::Extent;
use super::super::pass::generate::Inference;
use super::super::pass::model::{Index, Model, Purpose};
use super::super::ranks::one::inference;
use super::super::ranks::training::{Keeping, Training};
use super::super::shape::count;
use super::super::shape::parts::{Parts, Positions};
use super::super::shape::{Family, LatentSpec, Routing, Shape, ShapeSpec};
use super::super::{BackendKind, CacheFormat, OptimizerKind, Phase, WeightFormat, Workload};
use super::host::{HostDevice, Recorder, within};
use super::*;
use std::path::Path;

/// A backend on the host, or `None`, which the device has explained.
fn cuda(dtype: Dtype) -> Option<Cuda> {
    HostDevice::new().map(|host| Cuda::on_device(Arc::new(host), dtype).unwrap())
}

fn verify(name: &str, dtype: Dtype) {
    if let Some(cuda) = cuda(dtype) {
        verify_on(&cuda, name, dtype);
    }
}

fn verify_on(cuda: &Cuda, name: &str, dtype: Dtype) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let golden = Golden::open(&folder.join(name)).unwrap();
    let groups = golden::verify(&golden, cuda.clone(), WeightFormat::Dtype).unwrap();
    Backend::check(cuda).unwrap();
    let allowed = |g: &golden::Group| golden::allowed(g, &golden, dtype, WeightFormat::Dtype);
    let names: Vec<&str> = groups.iter().map(|g| g.name.as_str()).collect();
    assert!(names.contains(&"gradients") && names.iter().any(|n| n.starts_with("optimizer")), "{names:?}");
    for g in &groups {
        let (name_of, error, out, worst) = (&g.name, g.error, g.left_out, &g.worst);
        let allowed = allowed(g);
        eprintln!("{name} {dtype}: {name_of:<20} {error:.2e} of {allowed:.2e}, {out} left out, worst {worst}");
    }
    for g in &groups {
        assert!(g.passes(allowed(g)), "{name} {dtype}: {g:?}, allowed {}", allowed(g));
    }
}

#[test]
fn gpt2_agrees_with_pytorch() {
    verify("gpt2.safetensors", Dtype::F32);
    verify("gpt2.safetensors", Dtype::Tf32);
    verify("gpt2.safetensors", Dtype::Bf16);
}

/// Golden files of the families whose parts the kernels have; of experts in f32 alone, since which of them a token goes to hangs on
/// rounding in other formats.
fn families(dtype: Dtype) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families");
    let has = |path: &Path| {
        let golden = Golden::open(path).unwrap();
        parts::lacking_for(&golden.shape).is_none() && (golden.shape.experts.is_none() || dtype == Dtype::F32)
    };
    let files = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).filter(|path| has(path));
    let mut names: Vec<String> = files.map(|f| f.file_stem().unwrap().to_str().unwrap().to_string()).collect();
    names.sort();
    let plain = [
        "bloom",
        "falcon",
        "gemma2",
        "gemma3",
        "gpt-neox",
        "llama-yarn",
        "mistral-window",
        "olmo2",
        "opt",
        "phi3",
        "qwen3",
    ];
    let of_experts: &[&str] =
        if dtype == Dtype::F32 { &["deepseek-v3", "gpt-oss", "mixtral", "qwen3-moe"] } else { &[] };
    for name in plain.iter().chain(of_experts) {
        assert!(names.iter().any(|n| n == name), "{name} is not among {names:?}");
    }
    names
}

fn verify_families(dtype: Dtype, decode: Decode) {
    for name in families(dtype) {
        let Some(cuda) = cuda(dtype) else { return };
        verify_on(&Cuda { decode, ..cuda }, &format!("families/{name}.safetensors"), dtype);
    }
}

#[test]
fn families_agree_with_pytorch_in_f32() {
    verify_families(Dtype::F32, Decode::Fused);
}

#[test]
fn families_agree_with_pytorch_in_tf32() {
    verify_families(Dtype::Tf32, Decode::Fused);
}

#[test]
fn families_agree_with_pytorch_in_bf16() {
    verify_families(Dtype::Bf16, Decode::Fused);
}

#[test]
fn families_agree_with_pytorch_when_decoding_goes_in_separate_steps() {
    verify_families(Dtype::F32, Decode::Separate);
    verify_families(Dtype::Bf16, Decode::Separate);
}

/// The same without products that have an epilogue, and where these are timed against their steps, which then leave no trace;
/// with them, they are what is asked for.
#[test]
fn gpt2_agrees_with_pytorch_in_single_steps_too() {
    let all = [HostDevice::new(), HostDevice::racing(), HostDevice::without_epilogues()];
    let [Some(fusing), Some(racing), Some(plain)] = all.map(|host| host.map(Arc::new)) else { return };
    for host in [&fusing, &racing, &plain] {
        let cuda = Cuda::on_device(Arc::clone(host) as Arc<dyn Device>, Dtype::Bf16).unwrap();
        verify_on(&cuda, "gpt2.safetensors", Dtype::Bf16);
    }
    assert_eq!(plain.fused(), 0);
    assert!(fusing.fused() > 0);
    assert_eq!(racing.fused(), fusing.fused());
}

#[test]
fn llama_agrees_with_pytorch() {
    verify("llama-gqa.safetensors", Dtype::F32);
    verify("llama-gqa.safetensors", Dtype::Tf32);
    verify("llama-gqa.safetensors", Dtype::Bf16);
}

#[test]
fn the_block_agrees_with_keras() {
    verify("keras-block.safetensors", Dtype::F32);
    verify("keras-block.safetensors", Dtype::Tf32);
    verify("keras-block.safetensors", Dtype::Bf16);
}

fn spec(family: Family) -> ShapeSpec {
    ShapeSpec {
        n_layers: Some(2),
        d_model: Some(32),
        n_heads: Some(4),
        n_kv_heads: (family == Family::Llama).then_some(2),
        vocab_size: Some(61),
        context: Some(32),
        ..ShapeSpec::default()
    }
}

fn shape(family: Family) -> Shape {
    Shape::new(family, &spec(family)).unwrap()
}

/// Attention through latents, a layer without experts before one with them, experts that all tokens go through and others chosen by
/// corrected sigmoids of groups.
fn through_latents() -> Shape {
    let latent = LatentSpec {
        q_lora_rank: Some(20),
        kv_lora_rank: Some(24),
        qk_nope_head_dim: Some(8),
        qk_rope_head_dim: Some(6),
        v_head_dim: Some(10),
        interleaved: None,
    };
    let spec = ShapeSpec {
        latent,
        n_experts: Some(8),
        experts_per_token: Some(3),
        n_shared_experts: Some(2),
        d_ff_expert: Some(24),
        first_dense_layers: Some(1),
        routing: Some(Routing { groups: 4, groups_per_token: 2, ..Family::DeepseekV3.routing() }),
        ..spec(Family::DeepseekV3)
    };
    Shape::new(Family::DeepseekV3, &spec).unwrap()
}

/// One whose layers keep four positions, each another place in turn.
fn windowed() -> Shape {
    Shape { window: Some(4), ..shape(Family::Llama) }
}

/// Scores of another scale, capped, falling with the distance, and logits beside them.
fn shaped() -> Shape {
    let parts = Parts {
        positions: Positions::Alibi,
        score_cap: Some(1.5),
        score_scale: Some(0.5),
        sinks: true,
        ..Family::Gpt2.parts().clone()
    };
    Shape::new(Family::Gpt2, &ShapeSpec { parts: Some(parts), ..spec(Family::Gpt2) }).unwrap()
}

/// Tokens that are decoded step by step, after the cache was full, from its middle again.
fn decoded(device: Arc<dyn Device>, shape: &Shape, dtype: Dtype) -> Vec<Vec<u32>> {
    decoded_by(Cuda::on_device(device, dtype).unwrap(), shape)
}

fn decoded_by(cuda: Cuda, shape: &Shape) -> Vec<Vec<u32>> {
    decoded_with_logits(cuda, shape).0
}

/// The tokens, and the bits of each step's logits.
fn decoded_with_logits(cuda: Cuda, shape: &Shape) -> (Vec<Vec<u32>>, Vec<Vec<u32>>) {
    let model = Model::new(cuda.clone(), shape, 5, Purpose::Inference).unwrap();
    let mut inference = Inference::new(&cuda, &model.shape, 2, (6, 6), 9, cuda.dtype.into()).unwrap();
    let prompts: Vec<u32> = (0..12).map(|i| i * 7 % 61).collect();
    model.prefill(&prompts, &mut inference);
    model.argmax(&mut inference);
    let (mut tokens, mut logits) = (vec![model.chosen(&inference)], Vec::new());
    for _ in 0..2 {
        while model.decode_chosen(&mut inference) {
            tokens.push(model.chosen(&inference));
            let mut numbers = vec![0.0; 2 * 61];
            cuda.download(&inference.logits, 0, &mut numbers);
            logits.push(numbers.into_iter().map(f32::to_bits).collect());
        }
        inference.cache.as_mut().unwrap().length = 6;
    }
    Backend::check(&cuda).unwrap();
    (tokens, logits)
}

#[test]
fn captured_steps_decode_the_same_tokens_at_every_position() {
    for shape in [shape(Family::Gpt2), shape(Family::Llama), windowed()] {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let (Some(plain), Some(host)) = (HostDevice::new(), HostDevice::new()) else { return };
            let recorder = Arc::new(Recorder::new(host));
            let want = decoded(Arc::new(plain), &shape, dtype);
            let got = decoded(Arc::clone(&recorder) as Arc<dyn Device>, &shape, dtype);
            assert_eq!(want, got, "{shape:?} {dtype}");
            assert_eq!(got.len(), 1 + 2 * 9);
            // All but the very first step.
            assert_eq!(recorder.replays(), 2 * 9 - 1);
            assert!(got.iter().any(|t| *t != got[0]), "one token for ever proves little");
        }
    }
}

/// A position of a table that begins at another row, norms of queries and keys, scaled embeddings, experts, shaped scores, latents: their
/// logits, since untrained models of these families say the same token over and over.
#[test]
fn captured_steps_of_models_with_more_parts_have_the_logits_of_plain_ones() {
    let families = [Family::Opt, Family::Qwen3, Family::Olmo2, Family::Gemma, Family::Falcon, Family::Mixtral];
    for shape in families.map(shape).into_iter().chain([shaped(), through_latents()]) {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let (Some(plain), Some(host)) = (cuda(dtype), HostDevice::new()) else { return };
            let recorder = Arc::new(Recorder::new(host));
            let captured = Cuda::on_device(Arc::clone(&recorder) as Arc<dyn Device>, dtype).unwrap();
            let (want, got) = (decoded_with_logits(plain, &shape), decoded_with_logits(captured, &shape));
            assert!(want == got, "{shape:?} {dtype}");
            assert_eq!((got.1.len(), recorder.replays()), (2 * 9, 2 * 9 - 1), "{shape:?} {dtype}");
            assert!(got.1.windows(2).all(|pair| pair[0] != pair[1]), "{shape:?} {dtype}: steps that are all alike");
        }
    }
}

/// The same by single operations and products of cuBLASLt, which remain for more than 8 sequences.
#[test]
fn decoding_in_separate_steps_chooses_the_same_tokens() {
    for (name, dtype) in [("gpt2.safetensors", Dtype::F32), ("llama-gqa.safetensors", Dtype::Bf16)] {
        let Some(cuda) = cuda(dtype) else { return };
        verify_on(&Cuda { decode: Decode::Separate, ..cuda.clone() }, name, dtype);
    }
    for family in [Family::Gpt2, Family::Llama] {
        let [Some(one), Some(other)] = [(); 2].map(|()| cuda(Dtype::F32)) else { return };
        let separate = decoded_by(Cuda { decode: Decode::Separate, ..one }, &shape(family));
        assert_eq!(separate, decoded_by(other, &shape(family)), "{family:?}");
    }
}

/// Logits after a prompt that is taken in stretches, and after a token more, beside those of the prompt as a whole.
#[test]
fn a_prompt_in_stretches_is_the_prompt() {
    let batch = 2;
    let text = |b: usize, n: usize| (0..n).map(move |i| (b * 29 + i * 7) as u32 % 61);
    let prompts = |n: usize| text(0, n).chain(text(1, n)).collect::<Vec<u32>>();
    // Over latents, stretches of many tokens and of few are different.
    let short = [1, 3, 5, 12].as_slice();
    let all = [(shape(Family::Llama), 13, short), (windowed(), 13, short), (shaped(), 13, short)];
    for (shape, length, chunks) in all.into_iter().chain([(through_latents(), 29, [1, 5, 12, 16, 25].as_slice())]) {
        let Some(cuda) = cuda(Dtype::F32) else { return };
        let model = Model::new(cuda.clone(), &shape, 5, Purpose::Inference).unwrap();
        let logits = |n: usize, chunk: usize, and: Option<usize>| {
            let mut inference = Inference::new(&cuda, &shape, batch, (n, chunk), 1, cuda.dtype.into()).unwrap();
            model.prefill(&prompts(n), &mut inference);
            if let Some(at) = and {
                let next: Vec<u32> = (0..batch).map(|b| text(b, at + 1).next_back().unwrap()).collect();
                assert!(model.decode(&next, &mut inference));
            }
            let mut numbers = vec![0.0; batch * shape.vocab_size as usize];
            cuda.download(&inference.logits, 0, &mut numbers);
            Backend::check(&cuda).unwrap();
            numbers
        };
        let (whole, longer) = (logits(length, length, None), logits(length + 1, length + 1, None));
        for &chunk in chunks {
            let what = |then: &str| format!("{chunk} at a time{then}, {shape:?}");
            within(&what(""), &logits(length, chunk, None), &whole, 1e-4, 1e-4);
            within(&what(", then a token"), &logits(length, chunk, Some(length)), &longer, 1e-4, 1e-4);
        }
    }
}

#[test]
fn a_layer_of_decoding_is_five_launches_and_a_token_three_more() {
    for (family, kernels) in [
        (Family::Gpt2, ["matvec_qkv", "decode_attention_8_1", "matvec_linear", "matvec_up", "matvec_linear"]),
        (Family::Llama, ["matvec_qkv", "decode_attention_8_2", "matvec_linear", "matvec_up", "matvec_linear"]),
    ] {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let Some(host) = HostDevice::new() else { return };
            let recorder = Arc::new(Recorder::new(host));
            decoded(Arc::clone(&recorder) as Arc<dyn Device>, &shape(family), dtype);
            let names = recorder.captured();
            let mut want = vec!["embed"];
            (0..shape(family).n_layers).for_each(|_| want.extend(kernels));
            want.extend(["matvec_linear", "argmax"]);
            assert_eq!(names, want, "{family:?} {dtype}");
        }
    }
}

#[test]
fn memory_is_predicted_to_the_byte_by_the_code_that_allocates() {
    let Some(host) = HostDevice::new() else { return };
    let host = Arc::new(host);
    let whole = CacheFormat::Dtype;
    for (phase, dtype, kv_cache) in [
        (Phase::Train, Dtype::Bf16, whole),
        (Phase::Decode, Dtype::Bf16, whole),
        (Phase::Decode, Dtype::Bf16, CacheFormat::Int8),
        (Phase::Train, Dtype::F32, whole),
    ] {
        let workload = Workload {
            shape: shape(Family::Llama),
            phase,
            batch: 2,
            seq_len: 8,
            prompt_len: 8,
            new_tokens: 4,
            dtype,
            weights: WeightFormat::Dtype,
            optimizer: OptimizerKind::Adamw,
            dropout: 0.0,
            kv_cache,
            prefill_chunk: None,
            weights_from: None,
            levers: Default::default(),
        };
        let cuda = Cuda::on_device(Arc::clone(&host) as Arc<dyn Device>, dtype).unwrap();
        let before = host.in_use();
        let index = Index::new(&workload.shape);
        let purpose = if phase == Phase::Train { Purpose::Training } else { Purpose::Inference };
        let parameters = index.initialise(&cuda, 1, purpose).unwrap();
        let extent = Extent { batch: 2, tokens: 8 };
        let predicted = count::memory(BackendKind::Cuda, &workload, &Parallel::replicas(1)).unwrap();
        let held = if phase == Phase::Train {
            let update = Update::new(OptimizerKind::Adamw);
            let keeping = Keeping::of_replica(BackendKind::Cuda, 0, &Parallel::replicas(1), workload.levers);
            let training = Training::new(&cuda, &workload.shape, &index, extent, &update, keeping).unwrap();
            let held = host.in_use() - before;
            drop(training);
            held
        } else {
            let inference = inference(&cuda, &workload, &workload.shape, 2, BackendKind::Cuda).unwrap();
            let held = host.in_use() - before;
            drop(inference);
            held
        };
        assert_eq!(
            predicted.total().unwrap().get() - predicted.workspace_bytes,
            held,
            "{phase} {dtype}: {predicted:?}"
        );
        drop(parameters);
    }
}
