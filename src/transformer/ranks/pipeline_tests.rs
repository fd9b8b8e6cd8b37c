//! Stages against one rank that has all layers and goes through the same micro-batches: losses and parameters are the same to the bit,
//! but for a tied table, whose gradients of both ends are added up in another order.

use super::super::backend::{Backend, Update};
use super::super::collective::grid::{Groups, Parallel, Sharding, of_threads};
use super::super::collective::stage::Stage;
use super::super::cpu::Cpu;
use super::super::cpu::buffer::Buffer;
use super::super::error::SessionError;
use super::super::levers::{Levers, Recompute};
use super::super::pass::activations::Extent;
use super::super::pass::forward::StepDropout;
use super::super::pass::model::{Model, Origin, Purpose};
use super::super::prepare::prepare;
use super::super::session::SessionOptions;
use super::super::shape::{Family, Shape, ShapeSpec, count};
use super::super::trace::Kind;
use super::super::{BackendKind, CacheFormat, Dtype, OptimizerKind, Phase, WeightFormat, Workload};
use super::exchange::Seat;
use super::training::{Keeping, Training};
use std::time::{Duration, Instant};

const WORDS: u32 = 29;
const WIDTH: usize = 24;
const BATCH: usize = 12;
const LENGTH: usize = 5;
const STEPS: u32 = 3;

fn shape(family: Family, n_layers: u32, tied: bool) -> Shape {
    let spec = ShapeSpec {
        n_layers: Some(n_layers),
        d_model: Some(WIDTH as u32),
        n_heads: Some(4),
        n_kv_heads: matches!(family, Family::Llama | Family::Mixtral).then_some(2),
        d_ff: Some(36),
        vocab_size: Some(WORDS),
        context: Some(17),
        tied_embeddings: Some(tied),
        n_experts: (family == Family::Mixtral).then_some(4),
        ..ShapeSpec::default()
    };
    Shape::new(family, &spec).unwrap()
}

#[derive(Clone, Copy, Debug)]
struct Run {
    family: Family,
    n_layers: u32,
    tied: bool,
    update: Update,
    levers: Levers,
    parallel: Parallel,
    dropout: Option<StepDropout>,
}

impl Run {
    /// On one rank.
    fn new(family: Family, n_layers: u32, accumulate: u32) -> Self {
        let (levers, parallel) = (Levers { accumulate, ..Levers::default() }, Parallel::replicas(1));
        let update = Update::new(OptimizerKind::Adamw);
        Self { family, n_layers, tied: false, update, levers, parallel, dropout: None }
    }

    fn on(self, pipeline: u32, data: u32) -> Self {
        Self { parallel: Parallel { pipeline, data, ..self.parallel }, ..self }
    }

    /// Descent whose steps are as long as its gradients: what differs in those shows.
    fn descending(self) -> Self {
        Self { update: Update { learning_rate: 1.0, ..Update::new(OptimizerKind::Sgd) }, ..self }
    }
}

/// What a rank came to: losses where it is a last stage, and the parameters that it has.
struct Came {
    losses: Option<Vec<f32>>,
    parameters: Vec<Vec<f32>>,
    check: Result<(), SessionError>,
}

fn rank(run: Run, groups: Groups<Buffer>, steps: u32) -> Came {
    let (shape, cpu) = (shape(run.family, run.n_layers, run.tied), Cpu::new(1, None).unwrap());
    let stage = Stage::new(groups.stages.all.rank(), groups.stages.all.size(), run.n_layers as usize);
    let mut model = match stage.of {
        1 => Model::part(cpu, &shape, Origin::Seed(5), Purpose::Training, &groups).unwrap(),
        _ => Model::stage(cpu, &shape, Origin::Seed(5), stage).unwrap(),
    };
    let (replica, replicas) = (groups.data.rank(), groups.data.size());
    let seat = Seat { groups, sharding: run.parallel.sharding, seed: 0, stored: None };
    let extent = Extent { batch: BATCH / replicas, tokens: LENGTH };
    let keeping = Keeping::of_replica(BackendKind::Cpu, replica, &run.parallel, run.levers);
    let mut t = Training::new(&model.backend, &model.shape, &model.index, extent, &run.update, keeping).unwrap();
    let own = replica * extent.rows()..(replica + 1) * extent.rows();
    let width = run.levers.of_pass(extent).rows() * WIDTH;
    for (number, vectors) in t.vectors().enumerate() {
        let first = own.start * WIDTH + number * width;
        let numbers: Vec<f32> = (0..width).map(|i| ((first + i) as f32 * 0.37).sin()).collect();
        model.backend.upload(&numbers, vectors);
    }
    let mut losses = Vec::new();
    for step in 0..steps {
        let ids: Vec<u32> = (0..BATCH * LENGTH).map(|i| (i as u32 * 7 + step * 3) % WORDS).collect();
        let tokens: Vec<u32> = ids.iter().map(|i| (i * 5 + 1) % WORDS).collect();
        let pairs = (&ids[own.clone()], &tokens[own.clone()]);
        let loss = t.step(&mut model, &seat, &run.update, pairs, run.dropout);
        losses.push(model.backend.read_loss(loss));
    }
    let parameters = model.parameters.iter().map(|p| p.plain().to_vec()).collect();
    Came { losses: stage.is_last().then_some(losses), parameters, check: seat.groups.check() }
}

/// The losses of all replicas together, and all parameters; whoever has one has the same.
fn train(run: Run) -> (Vec<f32>, Vec<Vec<f32>>) {
    let ranks: Vec<Came> = std::thread::scope(|scope| {
        let seats = of_threads::<Buffer>(&run.parallel, 1).into_iter();
        let ranks: Vec<_> = seats.map(|groups| scope.spawn(move || rank(run, groups, STEPS))).collect();
        ranks.into_iter().map(|r| r.join().unwrap()).collect()
    });
    let mut all = vec![Vec::new(); ranks[0].parameters.len()];
    for came in &ranks {
        came.check.clone().unwrap();
        for (all, own) in all.iter_mut().zip(&came.parameters).filter(|(_, own)| !own.is_empty()) {
            assert!(all.is_empty() || all == own, "{run:?}: ranks hold the same");
            all.clone_from(own);
        }
    }
    let told: Vec<&Vec<f32>> = ranks.iter().filter_map(|came| came.losses.as_ref()).collect();
    assert_eq!(told.len() as u32, run.parallel.data);
    let mean = |step: usize| told.iter().map(|losses| losses[step]).sum::<f32>() / told.len() as f32;
    ((0..STEPS as usize).map(mean).collect(), all)
}

#[test]
fn stages_learn_what_one_rank_does_to_the_bit() {
    for family in [Family::Gpt2, Family::Llama, Family::Block, Family::Mixtral, Family::Gemma3] {
        for (pipeline, n_layers) in [(2, 2), (2, 3), (3, 3), (3, 5), (4, 5)] {
            for (data, accumulate) in [(1, 1), (1, 2), (1, 3), (1, 6), (1, 12), (2, 1), (2, 3)] {
                let run = Run::new(family, n_layers, accumulate);
                let run = Run { dropout: Some(StepDropout { probability: 0.1, seed: 3 }), ..run };
                let (one, staged) = (train(run.on(1, data)), train(run.on(pipeline, data)));
                assert!(
                    one == staged,
                    "{family:?}, {n_layers} layers, {data} x {pipeline}, {accumulate} micro-batches"
                );
            }
        }
    }
}

#[test]
fn layers_that_are_run_again_and_shares_of_the_optimizer_change_no_bit_of_stages() {
    for family in [Family::Gpt2, Family::Llama, Family::Gemma3, Family::Mixtral] {
        for (pipeline, data, accumulate) in [(2, 1, 3), (3, 1, 4), (2, 2, 2), (2, 2, 1)] {
            let run = Run::new(family, 5, accumulate).on(pipeline, data);
            let want = train(run);
            for recompute in [Recompute::Attention, Recompute::Full] {
                let again = Run { levers: Levers { recompute, ..run.levers }, ..run };
                assert!(train(again) == want, "{family:?} {recompute}");
            }
            let sharded = Parallel { sharding: Sharding::Optimizer, ..run.parallel };
            assert!(train(Run { parallel: sharded, ..run }) == want, "{family:?}, sharded");
        }
    }
}

/// Gradients here are sums of up to 60 numbers, of which the largest is about a tenth: another order of adding them up is another rounding
/// by some units of 2^-24 of that, and steps of descent are as long as they.
fn near(got: &(Vec<f32>, Vec<Vec<f32>>), want: &(Vec<f32>, Vec<Vec<f32>>), what: &str) {
    for (a, b) in got.0.iter().zip(&want.0) {
        assert!((a - b).abs() <= 2e-6 * b.abs(), "{what}: {a} and {b}");
    }
    for (a, b) in got.1.iter().flatten().zip(want.1.iter().flatten()) {
        assert!((a - b).abs() <= 1e-6, "{what}: {a} and {b}");
    }
}

#[test]
fn a_tied_table_stays_one_matrix_and_learns_as_one_ranks_does() {
    for family in [Family::Gpt2, Family::Llama] {
        for (pipeline, n_layers) in [(2, 3), (3, 5)] {
            for (data, accumulate) in [(1, 1), (1, 3), (1, 12), (2, 1), (2, 3)] {
                // That both ends hold the same bits, `train` asks.
                let run = Run { tied: true, ..Run::new(family, n_layers, accumulate).descending() };
                let (one, staged) = (train(run.on(1, data)), train(run.on(pipeline, data)));
                near(&staged, &one, &format!("{family:?} {data} x {pipeline}, {accumulate}"));
                let sharded = Parallel { sharding: Sharding::Optimizer, ..run.on(pipeline, data).parallel };
                assert!(train(Run { parallel: sharded, ..run }) == staged);
            }
        }
        // One whose gradients came from the head alone, or from the embedding alone, would be elsewhere by then.
        let run = Run::new(family, 3, 3).descending();
        let (tied, untied) = (train(Run { tied: true, ..run }), train(run));
        assert!((tied.0[2] - untied.0[2]).abs() > 1e-4, "{:?} and {:?}", tied.0, untied.0);
    }
}

#[test]
fn stages_clip_by_the_norm_of_all_of_them() {
    for (family, tied) in [(Family::Gpt2, true), (Family::Gpt2, false), (Family::Llama, false), (Family::Llama, true)] {
        let run = Run { tied, ..Run::new(family, 5, 1).descending() };
        let clipped = |accumulate| Levers { clip: Some(0.02), accumulate, ..Levers::default() };
        assert!((train(run).0[2] - train(Run { levers: clipped(1), ..run }).0[2]).abs() > 1e-4, "it is clipped");
        for (pipeline, data, accumulate) in [(2, 1, 1), (3, 1, 4), (2, 2, 3)] {
            let run = Run { levers: clipped(accumulate), ..run };
            let (one, staged) = (train(run.on(1, data)), train(run.on(pipeline, data)));
            near(&staged, &one, &format!("{family:?}, tied {tied}, {data} x {pipeline}, {accumulate}"));
        }
    }
}

#[test]
fn a_stage_that_is_gone_is_not_waited_for() {
    let run = Run::new(Family::Gpt2, 5, 4).on(3, 2);
    for gone in 0..6 {
        let begun = Instant::now();
        let checks: Vec<_> = std::thread::scope(|scope| {
            let seats = of_threads::<Buffer>(&run.parallel, 1).into_iter().enumerate();
            let steps = move |number: usize| if number == gone { 1 } else { STEPS };
            let ranks: Vec<_> =
                seats.map(|(number, groups)| scope.spawn(move || rank(run, groups, steps(number)).check)).collect();
            ranks.into_iter().map(|r| r.join().unwrap()).collect()
        });
        assert!(begun.elapsed() < Duration::from_secs(60));
        assert!(checks[gone].is_ok());
        let neighbours = (0..6).filter(|r| r / 3 == gone / 3 && r.abs_diff(gone) == 1);
        for neighbour in neighbours {
            let said = checks[neighbour].clone().unwrap_err().to_string();
            assert!(said.contains("a rank ended before the others"), "rank {gone} left, {neighbour}: {said}");
        }
    }
}

fn workload(family: Family, phase: Phase, accumulate: u32) -> Workload {
    Workload {
        shape: shape(family, 3, family == Family::Gpt2),
        phase,
        batch: 12,
        seq_len: 8,
        prompt_len: 7,
        new_tokens: 6,
        dtype: Dtype::F32,
        weights: WeightFormat::Dtype,
        kv_cache: CacheFormat::Dtype,
        optimizer: OptimizerKind::Adamw,
        dropout: 0.1,
        prefill_chunk: None,
        weights_from: None,
        levers: Levers { accumulate, ..Levers::default() },
    }
}

fn options(parallel: Parallel, backend: BackendKind) -> SessionOptions {
    SessionOptions { backend, parallel, threads_per_rank: 1, seed: 11 }
}

/// Losses of some steps, and the checksum over them.
fn session(w: &Workload, parallel: Parallel, backend: BackendKind) -> (Vec<f32>, u32) {
    let mut session = prepare(w, &options(parallel, backend)).unwrap();
    let losses = (0..4).map(|_| session.step().unwrap().loss.unwrap()).collect();
    (losses, session.checksum())
}

#[test]
fn sessions_of_stages_tell_the_losses_of_one_rank() {
    let staged = |pipeline, data| Parallel { pipeline, ..Parallel::replicas(data) };
    for backend in [BackendKind::Cpu, BackendKind::Naive] {
        for family in [Family::Llama, Family::Block] {
            for (pipeline, data, accumulate) in [(2, 1, 1), (2, 1, 4), (3, 1, 6), (2, 2, 3), (3, 2, 1)] {
                let w = workload(family, Phase::Train, accumulate);
                let one = session(&w, Parallel::replicas(data), backend);
                assert_eq!(
                    session(&w, staged(pipeline, data), backend),
                    one,
                    "{family:?} {backend} {data} x {pipeline}"
                );
            }
        }
    }
    // Numbers of 8 bits of mantissa meet on the way as they do in one rank.
    let bf16 = Workload { dtype: Dtype::Bf16, ..workload(Family::Llama, Phase::Train, 3) };
    let one = session(&bf16, Parallel::replicas(1), BackendKind::Cpu);
    assert_eq!(session(&bf16, staged(3, 1), BackendKind::Cpu), one);
    let tied = workload(Family::Gpt2, Phase::Train, 4);
    let (one, two) =
        (session(&tied, Parallel::replicas(1), BackendKind::Cpu), session(&tied, staged(2, 1), BackendKind::Cpu));
    for (a, b) in one.0.iter().zip(&two.0) {
        assert!((a - b).abs() <= 1e-5 * a, "{one:?} {two:?}");
    }
}

#[test]
fn what_cannot_be_staged_is_refused_with_a_remedy() {
    let refused = |w: &Workload, parallel: Parallel| {
        prepare(w, &options(parallel, BackendKind::Cpu)).map(drop).unwrap_err().to_string()
    };
    let two = Parallel { pipeline: 2, ..Parallel::replicas(1) };
    let w = |phase| workload(Family::Llama, phase, 1);
    for phase in [Phase::Prefill, Phase::Decode, Phase::Generate] {
        let said = refused(&w(phase), two);
        assert!(said.contains("parallel.pipeline") && said.contains("phase: train"), "{said}");
    }
    for (parallel, words) in [
        (Parallel { pipeline: 4, ..two }, "found 4; use 3 or fewer"),
        (Parallel { tensor: 2, ..two }, "use parallel.tensor: 1"),
        (Parallel { sharding: Sharding::Gradients, data: 2, ..two }, "use none or optimizer"),
        (Parallel { sharding: Sharding::Parameters, data: 2, ..two }, "use none or optimizer"),
    ] {
        let said = refused(&w(Phase::Train), parallel);
        assert!(said.contains("parallel.pipeline") && said.contains(words), "{said}");
    }
}

#[test]
fn stages_hold_what_one_rank_does_and_the_micro_batches_under_way() {
    let of = |tied, accumulate, pipeline| {
        let w = Workload { shape: shape(Family::Llama, 4, tied), ..workload(Family::Llama, Phase::Train, accumulate) };
        count::memory(BackendKind::Cpu, &w, &Parallel { pipeline, ..Parallel::replicas(1) }).unwrap()
    };
    let table = 4 * u64::from(WORDS) * WIDTH as u64;
    for pipeline in [2, 3, 4] {
        let (one, staged) = (of(false, 4, 1), of(false, 4, pipeline));
        assert_eq!((staged.weights_bytes, staged.optimizer_bytes), (one.weights_bytes, one.optimizer_bytes));
        let (one, staged) = (of(true, 4, 1), of(true, 4, pipeline));
        assert_eq!(staged.weights_bytes, one.weights_bytes + table);
        assert_eq!(staged.optimizer_bytes, one.optimizer_bytes + 2 * table);
    }
    // Of a model of two equal halves the first keeps two micro-batches and the second one.
    let activations = |accumulate, pipeline| of(false, accumulate, pipeline).activations_bytes as f64;
    let grown = activations(4, 2) / activations(4, 1);
    assert!((1.3..1.8).contains(&grown), "{grown}");
}

#[test]
fn a_traced_step_tells_what_stages_hand_to_one_another() {
    let parallel = Parallel { pipeline: 3, ..Parallel::replicas(1) };
    let w = workload(Family::Gpt2, Phase::Train, 4);
    let tracks = prepare(&w, &options(parallel, BackendKind::Cpu)).unwrap().traced_step(Instant::now()).unwrap();
    let exchanges = |rank: usize, name: &str| {
        tracks[rank].events.iter().filter(|e| e.kind == Kind::Exchange && e.name == name).count()
    };
    assert_eq!([0, 1, 2].map(|rank| exchanges(rank, "activations")), [4, 8, 4]);
    assert_eq!([0, 1, 2].map(|rank| exchanges(rank, "gradients of activations")), [4, 8, 4]);
    // The table's, of both ends.
    assert_eq!([0, 1, 2].map(|rank| exchanges(rank, "gradients")), [1, 0, 1]);
    let passes =
        |name: &str| tracks.iter().map(|t| t.events.iter().filter(|e| e.name == name).count()).collect::<Vec<_>>();
    assert_eq!((passes("forward"), passes("backward")), (vec![4; 3], vec![4; 3]));
}
