//! Ranks that split a model against one that has it all: logits, loss, every gradient, what some steps make of the parameters, and
//! tokens.

use super::super::backend::{Backend, ROWS_AT_A_TIME, Update};
use super::super::collective::grid::{Groups, Parallel, of_threads};
use super::super::cpu::Cpu;
use super::super::cpu::buffer::Buffer;
use super::super::cpu::naive::Naive;
use super::super::pass::activations::{Activations, Extent, Keep};
use super::super::pass::backward::Targets;
use super::super::pass::generate::Inference;
use super::super::pass::gradients::Gradients;
use super::super::pass::model::{Model, Origin, Purpose, Spec, Split};
use super::super::pass::optimizer::State;
use super::super::pass::scratch::Scratch;
use super::super::prepare::prepare;
use super::super::session::SessionOptions;
use super::super::shape::parts::Parts;
use super::super::shape::{Family, Shape, ShapeSpec, count};
use super::super::{BackendKind, CacheFormat, Dtype, OptimizerKind, Phase, WeightFormat, Workload};

const EXTENT: Extent = Extent { batch: 3, tokens: 7 };
const STEPS: u32 = 3;

/// What ranks hold of every parameter, or of its gradient, put together. What several hold is the same to the bit.
pub(super) fn together(specs: &[&[Spec]], numbers: &[&[Vec<f32>]]) -> Vec<Vec<f32>> {
    let one = |i: usize| {
        let name = &specs[0][i].name;
        let mut whole: Vec<Option<f32>> = Vec::new();
        for (spec, numbers) in specs.iter().map(|s| &s[i]).zip(numbers.iter().map(|n| &n[i])) {
            // Of a vector that is split, elements are rows; a table may have one row.
            let table = ["embedding", "head"].contains(&&**name);
            let vector = spec.rows == 1 && !table && matches!(spec.split, Split::Rows(_));
            let [rows, columns] = if vector { [spec.columns, 1] } else { [spec.rows, spec.columns] };
            let (first, width) = match spec.split {
                Split::Columns { first, whole } => (first, whole),
                Split::Whole | Split::Rows(_) => (0, columns),
            };
            let places = spec.rows_of_whole(0..rows).into_iter().flatten();
            let places = places.flat_map(|row| (0..columns).map(move |column| row * width + first + column));
            for (place, x) in places.zip(numbers) {
                whole.resize(whole.len().max(place + 1), None);
                let held = *whole[place].get_or_insert(*x);
                assert!(held.to_bits() == x.to_bits(), "{name}: every rank holds the same at {place}: {held} and {x}");
            }
        }
        whole.into_iter().map(|x| x.unwrap_or_else(|| panic!("{name}: no rank holds it all"))).collect()
    };
    (0..specs[0].len()).map(one).collect()
}

/// What ranks came to together.
pub(super) struct Came {
    pub names: Vec<String>,
    /// `[N, V]`
    pub logits: Vec<f32>,
    pub loss: f32,
    pub gradients: Vec<Vec<f32>>,
    /// After some steps.
    pub parameters: Vec<Vec<f32>>,
}

struct OfRank {
    specs: Vec<Spec>,
    words: usize,
    logits: Vec<f32>,
    loss: f32,
    gradients: Vec<Vec<f32>>,
    parameters: Vec<Vec<f32>>,
}

pub(super) fn host<B: Backend>(on: &B, buffers: &[B::Buffer], specs: &[Spec]) -> Vec<Vec<f32>> {
    let one = |(buffer, spec): (&B::Buffer, &Spec)| {
        let mut host = vec![0.0; spec.len()];
        on.download(buffer, 0, &mut host);
        host
    };
    buffers.iter().zip(specs).map(one).collect()
}

fn rank<B: Backend>(on: B, shape: &Shape, extent: Extent, groups: &Groups<B::Buffer>) -> OfRank {
    let mut m = Model::part(on, shape, Origin::Seed(5), Purpose::Training, groups).unwrap();
    let specs = m.index.specs.clone();
    // Adam moves what has a gradient of rounding errors as far as anything else; this much is beyond those.
    let update = Update { eps: 1e-3, learning_rate: 1e-2, ..Update::new(OptimizerKind::Adamw) };
    let mut state = State::new(&m.backend, &m.index, &update).unwrap();
    let mut a = Activations::new(&m.backend, &m.shape, extent, Keep::All).unwrap();
    let mut scratch = Scratch::new(&m.backend, &m.shape, extent).unwrap();
    let mut gradients = Gradients::all(&m.backend, &m.index).unwrap();
    let ids: Vec<u32> = (0..extent.rows() as u32).map(|i| (i * 7 + 3) % shape.vocab_size).collect();
    // One has no target.
    let target = |(r, id): (usize, &u32)| if r == 4 { u32::MAX } else { (id * 5 + 1) % shape.vocab_size };
    let targets: Vec<u32> = ids.iter().enumerate().map(target).collect();
    let mut first = None;
    for _ in 0..STEPS {
        m.forward(&ids, &mut a, None);
        let (_, logits) = m.logits(&a).unwrap();
        let loss = m.loss(&mut a, &Targets::Tokens(&targets));
        let again = m.backward(&ids, &Targets::Tokens(&targets), &mut a, &mut scratch, &mut gradients, None);
        assert_eq!(loss.to_bits(), again.to_bits(), "with gradients and without");
        first.get_or_insert((logits, loss, host(&m.backend, gradients.buffers(), &specs)));
        state.begin_step();
        m.update(&update, gradients.buffers(), &mut state);
    }
    groups.tensor.check().unwrap();
    let (logits, loss, gradients) = first.unwrap();
    let parameters = host(&m.backend, &m.parameters, &specs);
    let words = m.shape.vocab_size as usize;
    OfRank { specs, words, logits, loss, gradients, parameters }
}

fn ranks<B: Backend>(on: impl Fn() -> B + Sync, shape: &Shape, extent: Extent, of: u32) -> Came
where
    B::Buffer: AsMut<[f32]> + Send,
{
    let parallel = Parallel { tensor: of, ..Parallel::replicas(1) };
    parallel.check(shape, 1).unwrap();
    let groups = of_threads::<B::Buffer>(&parallel, parallel.kv_copies(shape));
    let all: Vec<OfRank> = std::thread::scope(|scope| {
        let on = &on;
        let started: Vec<_> = groups.into_iter().map(|g| scope.spawn(move || rank(on(), shape, extent, &g))).collect();
        started.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(all.iter().all(|r| r.loss.to_bits() == all[0].loss.to_bits()));
    // A row's logits are one rank's after the other's.
    let row = |row: usize| {
        let own = move |r: &OfRank| r.logits[row * r.words..][..r.words].to_vec();
        all.iter().flat_map(own).collect::<Vec<f32>>()
    };
    let logits: Vec<f32> = (0..extent.rows()).flat_map(row).collect();
    assert_eq!(logits.len(), extent.rows() * shape.vocab_size as usize);
    let specs: Vec<&[Spec]> = all.iter().map(|r| &r.specs[..]).collect();
    let gradients: Vec<&[Vec<f32>]> = all.iter().map(|r| &r.gradients[..]).collect();
    let parameters: Vec<&[Vec<f32>]> = all.iter().map(|r| &r.parameters[..]).collect();
    Came {
        names: specs[0].iter().map(|s| s.name.clone()).collect(),
        logits,
        loss: all[0].loss,
        gradients: together(&specs, &gradients),
        parameters: together(&specs, &parameters),
    }
}

fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |m, x| m.max(x.abs()))
}

/// Each number within `tolerance` of a scale.
fn close(a: &[f32], b: &[f32], tolerance: f32, scale: f32, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= tolerance * scale, "{what}, element {i} of a scale of {scale}: {x} and {y}");
    }
}

/// What sums in another order may come to: they are of some hundred terms, of which rounding errors of 2^-24 each add up like a walk,
/// and a gradient goes through some twenty operations.
const ROUNDING: f32 = 2e-5;

/// What rounding errors of a gradient are relative to: its largest number. A router's is made of differences of what experts say of a token,
/// dot products of their outputs with the gradients of these, which may all but cancel; errors of a dot product are relative to the sum of its terms' magnitudes
/// (Higham 2002, section 3.1), and of all tokens together that sum is the one of the last weights' gradient by these weights.
fn scale_of(one: &Came, i: usize) -> f32 {
    let own = largest(&one.gradients[i]);
    let last = one.names[i].strip_suffix("router.weight").map(|layer| format!("{layer}down.weight"));
    let Some(down) = last.and_then(|last| one.names.iter().position(|name| *name == last)) else { return own };
    let terms = one.gradients[down].iter().zip(&one.parameters[down]).map(|(g, w)| (g * w).abs());
    own.max(terms.sum())
}

pub(super) fn agree(came: &Came, one: &Came, what: &str) {
    close(&came.logits, &one.logits, ROUNDING, largest(&one.logits), &format!("{what}: logits"));
    assert!((came.loss - one.loss).abs() <= 1e-6 * one.loss, "{what}: {} and {}", came.loss, one.loss);
    for (i, name) in one.names.iter().enumerate() {
        let scale = scale_of(one, i);
        close(&came.gradients[i], &one.gradients[i], ROUNDING, scale, &format!("{what}: gradient of {name}"));
        // A rounding error of a gradient moves a parameter by as much of a step, of 1e-2, over what is added to the moment's root.
        let moved = 3e-2 * (ROUNDING + ROUNDING * scale / 1e-3);
        for (a, b) in came.parameters[i].iter().zip(&one.parameters[i]) {
            assert!((a - b).abs() <= moved, "{what}: {name} after {STEPS} steps: {a} and {b}");
        }
    }
}

pub(super) fn workload(shape: &Shape, phase: Phase) -> Workload {
    Workload {
        shape: shape.clone(),
        phase,
        batch: 3,
        seq_len: 6,
        prompt_len: 7,
        new_tokens: 6,
        dtype: Dtype::F32,
        weights: WeightFormat::Dtype,
        kv_cache: CacheFormat::Dtype,
        optimizer: OptimizerKind::Adamw,
        dropout: 0.0,
        prefill_chunk: (phase == Phase::Generate).then_some(3),
        weights_from: None,
        levers: Default::default(),
    }
}

/// The losses and the checksum of some steps of a session.
fn session(shape: &Shape, phase: Phase, tensor: u32) -> (Vec<f32>, u32) {
    let w = workload(shape, phase);
    let parallel = Parallel { tensor, ..Parallel::replicas(1) };
    let options = SessionOptions { backend: BackendKind::Cpu, parallel, threads_per_rank: 1, seed: 11 };
    let mut session = prepare(&w, &options).unwrap();
    let losses = (0..6).filter_map(|_| session.step().unwrap().loss).collect();
    (losses, session.checksum())
}

/// Holds every number of ranks against one rank.
fn as_one(shape: &Shape, of: &[u32]) {
    let one = ranks(|| Cpu::new(1, None).unwrap(), shape, EXTENT, 1);
    for &of in of {
        let what = format!("{:?}, {of} ranks", shape.family);
        agree(&ranks(|| Cpu::new(1, None).unwrap(), shape, EXTENT, of), &one, &what);
        agree(&ranks(|| Cpu::new(2, None).unwrap(), shape, EXTENT, of), &one, &format!("{what} of two threads"));
        agree(&ranks(|| Naive, shape, EXTENT, of), &one, &format!("{what} of the oracle"));
        for phase in [Phase::Prefill, Phase::Decode, Phase::Generate] {
            assert_eq!(session(shape, phase, of), session(shape, phase, 1), "{what}: {phase}");
        }
    }
}

pub(super) fn spec(n_heads: u32, n_kv_heads: u32) -> ShapeSpec {
    ShapeSpec {
        n_layers: Some(2),
        d_model: Some(24),
        n_heads: Some(n_heads),
        n_kv_heads: Some(n_kv_heads),
        head_dim: Some(6),
        d_ff: Some(60),
        vocab_size: Some(29),
        context: Some(32),
        ..ShapeSpec::default()
    }
}

#[test]
fn ranks_with_copies_of_heads_of_keys_and_values_compute_as_one() {
    for (n_heads, n_kv_heads, of) in
        [(4, 1, &[2, 4][..]), (4, 2, &[4]), (6, 2, &[2, 6]), (6, 3, &[3, 6]), (12, 3, &[12])]
    {
        for biased in [false, true] {
            let spec = ShapeSpec { qkv_bias: Some(biased), mlp_bias: Some(biased), ..spec(n_heads, n_kv_heads) };
            as_one(&Shape::new(Family::Llama, &spec).unwrap(), of);
        }
    }
}

#[test]
fn ranks_with_some_words_each_compute_as_one() {
    // Tied and not; learned positions, a padding token among the words, embeddings that are scaled, logits that are capped.
    for family in [Family::Gpt2, Family::Llama, Family::Opt, Family::Gemma2] {
        let grouped = family != Family::Gpt2 && family != Family::Opt;
        let spec = ShapeSpec {
            d_model: Some(36),
            n_kv_heads: grouped.then_some(6),
            parts: (family == Family::Opt).then(|| Parts { padding_token: Some(3), ..family.parts().clone() }),
            ..spec(6, 6)
        };
        let whole = Shape::new(family, &spec).unwrap();
        assert_eq!(
            (whole.tied_embeddings, whole.vocab_size % 2, whole.vocab_size % 3),
            (family != Family::Llama, 1, 2)
        );
        as_one(&whole, &[2, 3, 6]);
    }
    // A word each.
    let few = ShapeSpec { vocab_size: Some(6), ..spec(6, 3) };
    as_one(&Shape::new(Family::Llama, &few).unwrap(), &[6]);
}

#[test]
fn ranks_tell_one_another_of_logits_block_by_block() {
    let extent = Extent { batch: 75, tokens: 7 };
    assert!(extent.rows() > ROWS_AT_A_TIME && !extent.rows().is_multiple_of(ROWS_AT_A_TIME));
    for family in [Family::Llama, Family::Gemma2] {
        let shape = Shape::new(family, &ShapeSpec { n_layers: Some(1), ..spec(4, 2) }).unwrap();
        let one = ranks(|| Cpu::new(1, None).unwrap(), &shape, extent, 1);
        for of in [2, 4] {
            agree(&ranks(|| Cpu::new(2, None).unwrap(), &shape, extent, of), &one, &format!("{family:?}, {of} ranks"));
        }
        agree(&ranks(|| Naive, &shape, extent, 2), &one, &format!("{family:?}, 2 ranks of the oracle"));
    }
}

#[test]
fn the_first_of_equal_words_is_chosen_among_all_ranks() {
    let shape = Shape::new(Family::Llama, &spec(4, 2)).unwrap();
    let parallel = Parallel { tensor: 4, ..Parallel::replicas(1) };
    // Of 29 words: 7, 7, 7, 8. Equals of two ranks; of one; none but the last word.
    let rows: [(&[usize], u32); 3] = [(&[9, 25, 23], 9), (&[16, 15], 15), (&[28], 28)];
    let chosen: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let one = |groups: Groups<Buffer>| {
            let cpu = Cpu::new(1, None).unwrap();
            let m = Model::part(cpu, &shape, Origin::Seed(5), Purpose::Inference, &groups).unwrap();
            let mut inference = Inference::new(&m.backend, &m.shape, 3, (1, 1), 1, Dtype::F32.into()).unwrap();
            let first = m.shape.part().first_word.unwrap() as usize;
            let words = first..first + m.shape.vocab_size as usize;
            let logit = |(row, word): (usize, usize)| if rows[row].0.contains(&word) { -1.5 } else { -2.0 };
            let logits: Vec<f32> = (0..3).flat_map(|r| words.clone().map(move |w| (r, w))).map(logit).collect();
            m.backend.upload(&logits, &mut inference.logits);
            m.argmax(&mut inference);
            assert_eq!(m.chosen(&inference), m.greedy(&mut inference));
            m.chosen(&inference)
        };
        let started: Vec<_> =
            of_threads::<Buffer>(&parallel, 2).into_iter().map(|g| scope.spawn(move || one(g))).collect();
        started.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(chosen, vec![rows.map(|(_, word)| word).to_vec(); 4]);
}

#[test]
fn ranks_are_counted_by_the_words_that_they_hold() {
    let shape = Shape::new(Family::Gpt2, &ShapeSpec { vocab_size: Some(1001), ..ShapeSpec::default() }).unwrap();
    let w = |phase| Workload { shape: shape.clone(), phase, seq_len: 64, prompt_len: 64, ..workload(&shape, phase) };
    let of = |phase, tensor| {
        let parallel = Parallel { tensor, ..Parallel::replicas(1) };
        count::memory(BackendKind::Cpu, &w(phase), &parallel).unwrap()
    };
    let (one, four) = (of(Phase::Train, 1), of(Phase::Train, 4));
    // Whole on every rank: positions, norms, biases of the products that end a branch.
    let whole = 4 * (1024 * 768 + 2 * 768 + 12 * (4 * 768 + 2 * 768));
    assert_eq!(four.weights_bytes, one.weights_bytes + 3 * whole);
    assert_eq!(four.optimizer_bytes, 2 * four.weights_bytes);
    // Logits of each rank are a fourth as wide.
    let logits = 4 * 3 * 64 * 1001;
    assert!(four.workspace_bytes < 4 * (one.workspace_bytes - logits) + logits + (1 << 20), "{four:?} {one:?}");
    let [one, four] = [1, 4].map(|tensor| of(Phase::Prefill, tensor));
    assert!(four.weights_bytes < one.weights_bytes + 3 * whole + (1 << 20), "{four:?} {one:?}");
}

#[test]
fn more_ranks_than_words_are_refused() {
    let shape = Shape::new(Family::Llama, &ShapeSpec { vocab_size: Some(5), ..spec(6, 3) }).unwrap();
    let message = Parallel { tensor: 6, ..Parallel::replicas(1) }.check(&shape, 1).unwrap_err().message;
    assert_eq!(message, "6 devices would not have a word of model.vocab_size = 5 each; use 5 or fewer");
}

#[test]
fn ranks_that_split_experts_compute_as_one() {
    let with = |spec: ShapeSpec| ShapeSpec { n_experts: Some(5), experts_per_token: Some(2), ..spec };
    // Gate and up; biases and sinks as well; widths of their own, experts that all share, and a layer without.
    let shared = ShapeSpec {
        n_shared_experts: Some(2),
        first_dense_layers: Some(1),
        d_ff_expert: Some(18),
        mlp_bias: Some(true),
        ..with(spec(6, 2))
    };
    let all = [
        (Family::Mixtral, with(spec(6, 2))),
        (Family::Qwen3Moe, with(spec(6, 2))),
        (Family::GptOss, with(spec(6, 6))),
        (Family::Mixtral, shared),
        // Nothing is as wide as the layer that no expert has.
        (Family::Mixtral, ShapeSpec { d_ff: Some(61), d_ff_expert: Some(12), ..with(spec(6, 1)) }),
    ];
    for (family, spec) in all {
        as_one(&Shape::new(family, &spec).unwrap(), &[2, 6]);
    }
}

#[test]
fn ranks_that_split_normed_heads_compute_as_one() {
    // Of each head by itself, and of all heads together, which some ranks hold copies of.
    for family in [Family::Qwen3, Family::Gemma3, Family::Olmo2] {
        for (n_heads, n_kv_heads, of) in [(6, 6, &[2, 3][..]), (6, 2, &[2, 6]), (4, 1, &[2, 4])] {
            as_one(&Shape::new(family, &spec(n_heads, n_kv_heads)).unwrap(), of);
        }
    }
}

#[test]
fn widths_of_experts_that_do_not_divide_are_refused() {
    let spec = ShapeSpec { n_experts: Some(4), d_ff_expert: Some(10), first_dense_layers: Some(1), ..spec(12, 12) };
    let shape = Shape::new(Family::Mixtral, &spec).unwrap();
    let message = Parallel { tensor: 4, ..Parallel::replicas(1) }.check(&shape, 1).unwrap_err().message;
    assert_eq!(message, "4 does not divide model.d_ff_expert = 10; what divides all of this model: 1, 2");
}

#[test]
fn norms_of_all_heads_together_are_refused_on_gpus_that_split_them() {
    let w = workload(&Shape::new(Family::Olmo2, &spec(4, 2)).unwrap(), Phase::Train);
    let parallel = Parallel { tensor: 2, ..Parallel::replicas(1) };
    let options = SessionOptions { backend: BackendKind::Cuda, parallel, threads_per_rank: 1, seed: 1 };
    let error = prepare(&w, &options).err().unwrap().to_string();
    assert!(error.contains("norms of the queries of all heads together") && error.contains("backend: cpu"), "{error}");
}
