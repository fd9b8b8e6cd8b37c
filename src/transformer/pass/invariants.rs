//! What has to hold of the whole model, whatever computes it: gradients are slopes, sequences of a batch do not see each
//! other, a token does not see what follows it, decoding through the cache is a longer prompt, and ranks change nothing.

use super::super::backend::{AttentionDims, Backend, Scores, Tokens, Update};
use super::super::collective::grid::Parallel;
use super::super::cpu::Cpu;
use super::super::cpu::array::Array;
use super::super::cpu::buffer::Buffer;
use super::super::cpu::naive::Naive;
use super::super::prepare::prepare;
use super::super::session::SessionOptions;
use super::super::shape::parts::QkNorm;
use super::super::shape::{Activation, Family, LatentSpec, Shape, ShapeSpec, count};
use super::super::{BackendKind, Dtype, OptimizerKind, Phase, WeightFormat, Workload};
use super::activations::{Activations, Extent, Keep};
use super::backward::Targets;
use super::forward::StepDropout;
use super::generate::Inference;
use super::gradients::Gradients;
use super::model::{Model, Purpose};
use super::optimizer::State;
use super::scratch::Scratch;

fn shape(family: Family) -> Shape {
    let spec = ShapeSpec {
        n_layers: Some(2),
        d_model: Some(24),
        n_heads: Some(4),
        n_kv_heads: (family == Family::Llama).then_some(2),
        vocab_size: Some(29),
        context: Some(32),
        latent: small_latents(family),
        ..ShapeSpec::default()
    };
    Shape::new(family, &spec).unwrap()
}

/// Smaller ones than DeepSeek's, with values narrower than keys.
fn small_latents(family: Family) -> LatentSpec {
    if !matches!(family, Family::DeepseekV2 | Family::DeepseekV3) {
        return LatentSpec::default();
    }
    let q_lora_rank = (family == Family::DeepseekV3).then_some(9);
    let (kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim) = (Some(10), Some(6), Some(4), Some(7));
    LatentSpec { q_lora_rank, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim, interleaved: None }
}

fn ids(n: usize) -> Vec<u32> {
    (0..n).map(|i| (i * 11 % 29) as u32).collect()
}

fn array(values: impl ExactSizeIterator<Item = f32>) -> Array {
    let mut a = Array::zeros(values.len()).unwrap();
    a.iter_mut().zip(values).for_each(|(a, v)| *a = v);
    a
}

/// Loss of the model on the oracle.
fn loss(model: &Model<Naive>, ids: &[u32], targets: &Targets<Array>, extent: Extent, d: Option<StepDropout>) -> f64 {
    let mut a = Activations::new(&Naive, &model.shape, extent, Keep::All).unwrap();
    model.forward(ids, &mut a, d);
    f64::from(model.loss(&mut a, targets))
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    // Norms of queries and keys make the loss too curved for differences of f32, and a route to experts jumps; the gradients of both
    // are held by golden files.
    let smooth = |f: &Family| f.parts().qk_norm == QkNorm::None && shape(*f).experts.is_none();
    for family in Family::ALL.iter().copied().filter(smooth) {
        for dropout in [None, Some(StepDropout { probability: 0.1, seed: 5 })] {
            // ReLU has a kink, at which a difference is no slope; its gradient is held by the golden file of the block.
            let smooth = match family {
                Family::Block | Family::Opt => Shape { activation: Activation::GeluErf, ..shape(family) },
                _ => shape(family),
            };
            let mut model = Model::new(Naive, &smooth, 3, Purpose::Training).unwrap();
            let extent = Extent { batch: 2, tokens: 5 };
            let (ids, tokens) = (ids(10), ids(11)[1..].to_vec());
            let vectors = array((0..240).map(|i| (i as f32 * 0.37).sin()));
            let targets = if family == Family::Block { Targets::Vectors(&vectors) } else { Targets::Tokens(&tokens) };
            // Larger weights than usual: slopes of every parameter stand clear of f32's rounding.
            for p in &mut model.parameters {
                p.iter_mut().enumerate().for_each(|(i, v)| *v = *v * 3.0 + 0.01 * ((i % 7) as f32 - 3.0));
            }
            let mut a = Activations::new(&Naive, &model.shape, extent, Keep::All).unwrap();
            let mut scratch = Scratch::new(&Naive, &model.shape, extent).unwrap();
            let mut gradients = Gradients::all(&Naive, &model.index).unwrap();
            model.forward(&ids, &mut a, dropout);
            model.backward(&ids, &targets, &mut a, &mut scratch, &mut gradients, dropout);
            for (p, g) in gradients.buffers().iter().enumerate() {
                // The element with the largest gradient: the one whose slope is clearest.
                let at = (0..g.len()).max_by(|a, b| g[*a].abs().total_cmp(&g[*b].abs())).unwrap();
                let before = model.parameters[p][at];
                let mut slope_over = |h: f32| {
                    let mut moved = |by: f32| {
                        model.parameters[p][at] = before + by;
                        loss(&model, &ids, &targets, extent, dropout)
                    };
                    let slope = (moved(h) - moved(-h)) / f64::from(2.0 * h);
                    model.parameters[p][at] = before;
                    slope
                };
                // Richardson's extrapolation: what is left of the curvature is of fourth order. The loss (a few units) is
                // rounded to 2e-7, which over 4e-3 is 1e-4 of slope, and its activations alike.
                let slope = (4.0 * slope_over(2e-3) - slope_over(4e-3)) / 3.0;
                let name = &model.index.specs[p].name;
                let tolerance = 5e-4 + 0.01 * slope.abs();
                assert!(
                    (slope - f64::from(g[at])).abs() < tolerance,
                    "{family:?} {name}[{at}]: slope {slope}, gradient {}",
                    g[at]
                );
            }
        }
    }
}

fn logits<B: Backend<Buffer = Buffer>>(model: &Model<B>, ids: &[u32], batch: usize) -> Vec<f32> {
    let mut inference = Inference::new(
        &model.backend,
        &model.shape,
        batch,
        (ids.len() / batch, ids.len() / batch),
        0,
        Dtype::F32.into(),
    )
    .unwrap();
    model.prefill(ids, &mut inference);
    inference.logits.plain().to_vec()
}

fn close(a: &[f32], b: &[f32], what: &str) {
    let scale = b.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
    assert_eq!(a.len(), b.len(), "{what}");
    for (x, y) in a.iter().zip(b) {
        assert!((x - y).abs() <= 1e-5 * scale, "{what}: {x} and {y}");
    }
}

#[test]
fn sequences_of_a_batch_do_not_see_each_other() {
    for family in [Family::Gpt2, Family::Llama] {
        let model = Model::new(Cpu::new(2, None).unwrap(), &shape(family), 1, Purpose::Training).unwrap();
        let all = logits(&model, &ids(21), 3);
        for b in 0..3 {
            close(&logits(&model, &ids(21)[7 * b..][..7], 1), &all[29 * b..][..29], "a sequence alone");
        }
    }
}

#[test]
fn a_token_does_not_see_what_follows_it() {
    for family in [Family::Gpt2, Family::Llama] {
        let model = Model::new(Cpu::new(2, None).unwrap(), &shape(family), 1, Purpose::Training).unwrap();
        let extent = Extent { batch: 1, tokens: 9 };
        let run = |ids: &[u32]| {
            let mut a = Activations::new(&model.backend, &model.shape, extent, Keep::OneLayer).unwrap();
            model.forward(ids, &mut a, None);
            a.output().plain()[..5 * 24].to_vec()
        };
        let mut padded = ids(9);
        padded[5..].fill(0);
        assert_eq!(run(&ids(9)), run(&padded), "{family:?}");
    }
}

/// Every family that predicts tokens, without a window and with one that is shorter than what is tried.
fn of_tokens() -> impl Iterator<Item = Shape> {
    let families = Family::ALL.iter().filter(|f| **f != Family::Block);
    // A window's cache holds positions in turn, which slopes by distance could not tell; one of latents is not built in.
    let none = |f: &Family| *f == Family::Bloom || shape(*f).latent.is_some();
    let windows = move |f: &Family| if none(f) { vec![None] } else { vec![None, Some(4)] };
    families.flat_map(move |f| windows(f).into_iter().map(|window| Shape { window, ..shape(*f) }))
}

#[test]
fn decoding_through_the_cache_is_a_longer_prompt() {
    for shape in of_tokens() {
        let model = Model::new(Cpu::new(2, None).unwrap(), &shape, 1, Purpose::Training).unwrap();
        let (batch, prompt, new) = (2, 6, 5);
        let text = |b: usize, n: usize| ids(40)[b * 17..][..n].to_vec();
        let mut inference =
            Inference::new(&model.backend, &model.shape, batch, (prompt, prompt), new, Dtype::F32.into()).unwrap();
        model.prefill(&[text(0, prompt), text(1, prompt)].concat(), &mut inference);
        for at in prompt..prompt + new {
            let next = [text(0, at + 1)[at], text(1, at + 1)[at]];
            assert!(model.decode(&next, &mut inference));
            let whole = logits(&model, &[text(0, at + 1), text(1, at + 1)].concat(), batch);
            close(inference.logits.plain(), &whole, &format!("a decoded token of {shape:?}"));
        }
        assert!(!model.decode(&[0, 0], &mut inference), "a full cache takes no further token");
    }
}

#[test]
fn a_prompt_in_stretches_is_the_prompt() {
    for shape in of_tokens() {
        let model = Model::new(Cpu::new(2, None).unwrap(), &shape, 1, Purpose::Training).unwrap();
        let (ids, next) = (ids(26), [3, 4]);
        let whole = logits(&model, &ids, 2);
        for chunk in [1, 3, 5, 12] {
            // A cache that is there for the stretches alone, and one that decodes on.
            for new in [0, 1] {
                let mut inference =
                    Inference::new(&model.backend, &model.shape, 2, (13, chunk), new, Dtype::F32.into()).unwrap();
                for _ in 0..2 {
                    model.prefill(&ids, &mut inference);
                    close(inference.logits.plain(), &whole, &format!("{chunk} at a time, {shape:?}"));
                }
                if new > 0 {
                    assert!(model.decode(&next, &mut inference));
                    let longer = [&ids[..13], &next[..1], &ids[13..], &next[1..]].concat();
                    close(inference.logits.plain(), &logits(&model, &longer, 2), &format!("then a token, {shape:?}"));
                }
            }
        }
    }
}

fn workload(family: Family, phase: Phase) -> Workload {
    Workload {
        shape: shape(family),
        phase,
        batch: 4,
        seq_len: 6,
        prompt_len: 3,
        new_tokens: 2,
        dtype: Dtype::F32,
        weights: WeightFormat::Dtype,
        optimizer: OptimizerKind::Adamw,
        dropout: 0.0,
        kv_cache: Default::default(),
        prefill_chunk: None,
        weights_from: None,
        levers: Default::default(),
    }
}

fn losses(family: Family, ranks: u32, backend: BackendKind, steps: usize) -> Vec<f32> {
    let workload = workload(family, Phase::Train);
    let options = SessionOptions { backend, parallel: Parallel::replicas(ranks), threads_per_rank: 1, seed: 9 };
    let mut session = prepare(&workload, &options).unwrap();
    (0..steps).map(|_| session.step().unwrap().loss.unwrap()).collect()
}

#[test]
fn two_ranks_train_as_one_that_sees_both_halves() {
    // The gradient of the mean loss over a batch is the mean of the gradients over its halves.
    for family in [Family::Gpt2, Family::Llama, Family::Block] {
        let model = Model::new(Cpu::new(1, None).unwrap(), &shape(family), 2, Purpose::Training).unwrap();
        let vectors = array((0..4 * 6 * 24).map(|i| (i as f32 * 0.11).cos()));
        let (ids, tokens) = (ids(24), ids(25)[1..].to_vec());
        let gradients = |first: usize, batch: usize| -> Gradients<Buffer> {
            let extent = Extent { batch, tokens: 6 };
            let own = Buffer::Plain(array(vectors[first * 144..][..batch * 144].iter().copied()));
            let targets = match family {
                Family::Block => Targets::Vectors(&own),
                _ => Targets::Tokens(&tokens[first * 6..][..batch * 6]),
            };
            let mut a = Activations::new(&model.backend, &model.shape, extent, Keep::All).unwrap();
            let mut scratch = Scratch::new(&model.backend, &model.shape, extent).unwrap();
            let mut g = Gradients::all(&model.backend, &model.index).unwrap();
            let ids = &ids[first * 6..][..batch * 6];
            model.forward(ids, &mut a, None);
            model.backward(ids, &targets, &mut a, &mut scratch, &mut g, None);
            g
        };
        let (whole, low, high) = (gradients(0, 4), gradients(0, 2), gradients(2, 2));
        let largest = whole.buffers().iter().flat_map(|g| g.plain()).fold(0.0f32, |m, x| m.max(x.abs()));
        for ((w, a), b) in whole.buffers().iter().zip(low.buffers()).zip(high.buffers()) {
            for ((w, a), b) in w.plain().iter().zip(a.plain()).zip(b.plain()) {
                assert!((w - 0.5 * (a + b)).abs() <= 1e-6 * largest, "{family:?}: {w}, {a}, {b}");
            }
        }
    }
}

#[test]
fn sessions_repeat_and_learn_on_every_backend_and_rank_count() {
    for family in [Family::Gpt2, Family::Llama, Family::Block] {
        let once = losses(family, 1, BackendKind::Cpu, 3);
        assert_eq!(once, losses(family, 1, BackendKind::Cpu, 3), "{family:?}");
        for (a, b) in once.iter().zip(losses(family, 1, BackendKind::Naive, 3)) {
            assert!((a - b).abs() <= 1e-5 * b.abs(), "{family:?}: {a} on cpu, {b} on naive");
        }
        let two = losses(family, 2, BackendKind::Cpu, 3);
        assert_eq!(two, losses(family, 2, BackendKind::Cpu, 3), "{family:?}");
    }
}

#[test]
fn the_worked_example_of_attention_follows_the_formula() {
    let q = [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0]];
    let k = [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]];
    let v = [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 1.0]];
    let d = AttentionDims {
        batch: 1,
        tokens: 3,
        heads: 1,
        kv_heads: 1,
        head_dim: 3,
        causal: false,
        scores: Scores::default(),
    };
    let qkv = Buffer::Plain(array((0..27).map(|i| [q, k, v][i % 9 / 3][i / 9][i % 3] as f32)));
    let [mut out, mut lse] = [9, 3].map(|len| Buffer::Plain(Array::zeros(len).unwrap()));
    Cpu::new(1, None).unwrap().attention(&qkv, &mut out, &mut lse, d);
    let out = out.plain();
    for r in 0..3 {
        let weights: Vec<f64> =
            k.iter().map(|k| ((0..3).map(|i| q[r][i] * k[i]).sum::<f64>() / 3f64.sqrt()).exp()).collect();
        let total: f64 = weights.iter().sum();
        for i in 0..3 {
            let expected: f64 = (0..3).map(|s| weights[s] / total * v[s][i]).sum();
            assert!((f64::from(out[3 * r + i]) - expected).abs() < 2e-7, "row {r}, column {i}");
        }
    }
}

#[test]
fn memory_is_predicted_by_the_code_that_allocates() {
    let workload = |phase| Workload {
        shape: Shape::new(Family::Gpt2, &ShapeSpec::default()).unwrap(),
        phase,
        batch: 2,
        seq_len: 512,
        prompt_len: 512,
        new_tokens: 16,
        dtype: Dtype::F32,
        weights: WeightFormat::Dtype,
        optimizer: OptimizerKind::Adamw,
        dropout: 0.0,
        kv_cache: Default::default(),
        prefill_chunk: None,
        weights_from: None,
        levers: Default::default(),
    };
    let train = count::memory(BackendKind::Cpu, &workload(Phase::Train), &Parallel::replicas(1)).unwrap();
    let four = 4 * 124_439_808;
    // All layers share the gradients of one: 7,087,872 parameters.
    let of_one_layer = four - 11 * 4 * 7_087_872;
    assert_eq!((train.weights_bytes, train.gradients_bytes, train.optimizer_bytes), (four, of_one_layer, 2 * four));
    assert_eq!(
        count::memory(BackendKind::Cpu, &workload(Phase::Train), &Parallel::replicas(2)).unwrap().weights_bytes,
        2 * four
    );
    let decode = count::memory(BackendKind::Cpu, &workload(Phase::Decode), &Parallel::replicas(1)).unwrap();
    assert_eq!(decode.kv_cache_bytes, 2 * 2 * 12 * 528 * 768 * 4);
    assert_eq!(decode.gradients_bytes, 0);
}

#[test]
fn updating_layer_by_layer_is_updating_after_the_whole_pass() {
    for (family, tied) in
        [(Family::Gpt2, true), (Family::Llama, false), (Family::Block, false), (Family::DeepseekV3, false)]
    {
        let spec = ShapeSpec {
            n_layers: Some(3),
            d_model: Some(24),
            n_heads: Some(2),
            head_dim: None,
            d_ff: Some(40),
            vocab_size: Some(31),
            tied_embeddings: Some(tied),
            latent: small_latents(family),
            ..ShapeSpec::default()
        };
        let shape = Shape::new(family, &spec).unwrap();
        let extent = Extent { batch: 2, tokens: 5 };
        let new = || Model::new(Cpu::new(2, None).unwrap(), &shape, 5, Purpose::Training).unwrap();
        let (mut whole, mut layered) = (new(), new());
        let update = Update::new(OptimizerKind::Adamw);
        let state = || State::new(&whole.backend, &whole.index, &update).unwrap();
        let (mut state_whole, mut state_layered) = (state(), state());
        let mut all = Gradients::all(&whole.backend, &whole.index).unwrap();
        let mut shared = Gradients::shared_by_layers(&layered.backend, &layered.index, 1).unwrap();
        let mut a = Activations::new(&whole.backend, &shape, extent, Keep::All).unwrap();
        let mut scratch = Scratch::new(&whole.backend, &shape, extent).unwrap();
        let vectors = Buffer::Plain(array((0..2 * 5 * 24).map(|i| (i as f32 * 0.11).cos())));
        let ids: Vec<u32> = (0..10).map(|i| (i * 7) % 31).collect();
        let targets = if family == Family::Block { Targets::Vectors(&vectors) } else { Targets::Tokens(&ids) };
        for _ in 0..2 {
            whole.forward(&ids, &mut a, None);
            let loss = whole.backward(&ids, &targets, &mut a, &mut scratch, &mut all, None);
            whole.update(&update, all.buffers(), &mut state_whole);
            layered.forward(&ids, &mut a, None);
            state_layered.begin_step();
            let finished =
                |m: &mut Model<Cpu>, parameters: std::ops::Range<usize>, gradients: &mut Gradients<Buffer>| {
                    let bucket = &*gradients.range(parameters.clone());
                    m.update_some(&update, parameters, (bucket, None), &mut state_layered);
                };
            let tokens = Tokens::Host(&ids[..]);
            let again = layered.backward_by_layers(tokens, &targets, &mut a, &mut scratch, &mut shared, None, finished);
            assert_eq!(loss, layered.backend.read_loss(again));
        }
        assert!(shared.buffers().len() < all.buffers().len());
        for ((a, b), spec) in whole.parameters.iter().zip(&layered.parameters).zip(&whole.index.specs) {
            assert!(a.plain() == b.plain(), "{family:?}: {} differs", spec.name);
        }
    }
}

#[test]
fn what_experts_are_chosen_by_is_not_trained_by_gradients() {
    let mut model = Model::new(Naive, &shape(Family::DeepseekV3), 3, Purpose::Training).unwrap();
    let correction = model.index.layers[1].correction.unwrap();
    assert!(model.index.layers[0].correction.is_none(), "the first layer has no experts");
    model.parameters[correction].fill(0.5);
    let before: Vec<Vec<f32>> = model.parameters.iter().map(|p| p.to_vec()).collect();
    let gradients = Gradients::all(&Naive, &model.index).unwrap();
    let update = Update { weight_decay: 0.1, ..Update::new(OptimizerKind::Adamw) };
    let mut state = State::new(&Naive, &model.index, &update).unwrap();
    model.update(&update, gradients.buffers(), &mut state);
    // Weight decay alone changes every other that is not zero.
    for (i, (before, now)) in before.iter().zip(&model.parameters).enumerate() {
        let changed = before[..] != now[..];
        let zero = before.iter().all(|x| *x == 0.0);
        assert_eq!(changed, i != correction && !zero, "{}", model.index.specs[i].name);
    }
}

#[test]
fn a_session_tells_how_full_its_experts_were() {
    let options =
        SessionOptions { backend: BackendKind::Cpu, parallel: Parallel::replicas(1), threads_per_rank: 1, seed: 9 };
    for (phase, tokens) in [(Phase::Train, 24.0), (Phase::Prefill, 12.0), (Phase::Decode, 4.0)] {
        let mut session = prepare(&workload(Family::Mixtral, phase), &options).unwrap();
        session.step().unwrap();
        let loads = session.loads().unwrap();
        // Eight experts, two a token: the fullest has all tokens at the most, which is four times the mean.
        assert!(loads.distinct >= 2.0 && loads.distinct <= f64::min(8.0, 2.0 * tokens), "{phase}: {loads:?}");
        assert!(loads.fullest_over_mean >= 1.0 && loads.fullest_over_mean <= 4.0, "{phase}: {loads:?}");
        let mut without = prepare(&workload(Family::Llama, phase), &options).unwrap();
        without.step().unwrap();
        assert_eq!(without.loads(), None);
    }
}
