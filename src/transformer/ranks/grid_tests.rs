//! Ranks against one that does it all: whatever the grid, the losses, the parameters after some steps and the tokens are the same
//! within rounding, and every replica holds the same bits.

use super::super::backend::{Backend, Tokens, Update};
use super::super::collective::grid::{Groups, Parallel, Sharding, of_threads};
use super::super::collective::{Collective, Counts, Job, Ticket};
use super::super::cpu::Cpu;
use super::super::cpu::array::Array;
use super::super::cpu::buffer::Buffer;
use super::super::error::SessionError;
use super::super::pass::activations::{Activations, Extent, Keep};
use super::super::pass::backward::Targets;
use super::super::pass::forward::StepDropout;
use super::super::pass::gradients::Gradients;
use super::super::pass::model::{Index, Model, Origin, Purpose};
use super::super::pass::optimizer::State;
use super::super::pass::scratch::Scratch;
use super::super::prepare::prepare;
use super::super::session::SessionOptions;
use super::super::shape::{Family, Shape, ShapeSpec, count};
use super::super::trace::Kind;
use super::super::{BackendKind, Dtype, OptimizerKind, Phase, WeightFormat, Workload};
use super::exchange::{Exchange, layers_kept};
use super::parts_tests::together;
use super::threads::Ranks;
use std::sync::{Arc, Mutex};
use std::time::Instant;

const FAMILIES: [Family; 3] = [Family::Gpt2, Family::Llama, Family::Block];
const BATCH: usize = 12;
const TOKENS: usize = 5;
const WIDTH: usize = 48;
const VOCABULARY: u32 = 29;

/// Divides among up to four ranks; lengths of parameters do not.
fn shape(family: Family) -> Shape {
    let spec = ShapeSpec {
        n_layers: Some(3),
        d_model: Some(WIDTH as u32),
        n_heads: Some(24),
        n_kv_heads: (family == Family::Llama).then_some(12),
        d_ff: Some(60),
        vocab_size: Some(VOCABULARY),
        context: Some(17),
        mlp_bias: Some(true),
        ..ShapeSpec::default()
    };
    Shape::new(family, &spec).unwrap()
}

/// A step that is smooth where gradients are rounding errors (those of the keys' biases are), which Adam's would blow up.
fn smooth(kind: OptimizerKind) -> Update {
    Update { eps: 1e-2, learning_rate: 1e-2, ..Update::new(kind) }
}

#[derive(Clone, Copy)]
struct Run {
    family: Family,
    parallel: Parallel,
    update: Update,
    dropout: Option<StepDropout>,
    /// Whether jobs are done only when they are waited for.
    late: bool,
}

impl Run {
    fn new(family: Family, data: u32, tensor: u32) -> Self {
        let parallel = Parallel { data, tensor, ..Parallel::replicas(1) };
        Self { family, parallel, update: smooth(OptimizerKind::Adamw), dropout: None, late: false }
    }
}

/// What one rank came to: losses of its replica, and its part of the parameters.
struct Came {
    losses: Vec<f32>,
    parameters: Vec<Vec<f32>>,
}

fn rank(run: Run, groups: Groups<Buffer>) -> Came {
    let whole = shape(run.family);
    let mut model =
        Model::part(Cpu::new(1, None).unwrap(), &whole, Origin::Seed(5), Purpose::Training, &groups).unwrap();
    let data = &*groups.data;
    let (replica, replicas) = (data.rank(), data.size());
    let extent = Extent { batch: BATCH / replicas, tokens: TOKENS };
    let place = if run.parallel.sharding == Sharding::Optimizer { (replica, replicas) } else { (0, 1) };
    let mut state = State::sharded(&model.backend, &model.index, &run.update, place).unwrap();
    let mut gradients = Gradients::shared_by_layers(&model.backend, &model.index, layers_kept(data)).unwrap();
    let mut a = Activations::new(&model.backend, &model.shape, extent, Keep::All).unwrap();
    let mut scratch = Scratch::new(&model.backend, &model.shape, extent).unwrap();
    let own = |len: usize| replica * len..(replica + 1) * len;
    let mut losses = Vec::new();
    for step in 0..3 {
        let ids: Vec<u32> = (0..BATCH * TOKENS).map(|i| (i as u32 * 7 + step * 3) % VOCABULARY).collect();
        let tokens: Vec<u32> = ids.iter().map(|i| (i * 5 + 1) % VOCABULARY).collect();
        let mut vectors = Array::zeros(extent.rows() * WIDTH).unwrap();
        let numbers = (0..BATCH * TOKENS * WIDTH).map(|i| ((i + step as usize) as f32 * 0.37).sin());
        vectors.iter_mut().zip(numbers.skip(own(extent.rows() * WIDTH).start)).for_each(|(v, n)| *v = n);
        let vectors = Buffer::Plain(vectors);
        let (ids, tokens) = (&ids[own(extent.rows())], &tokens[own(extent.rows())]);
        let targets = if run.family == Family::Block { Targets::Vectors(&vectors) } else { Targets::Tokens(tokens) };
        model.forward(ids, &mut a, run.dropout);
        state.begin_step();
        let mut exchange = Exchange::new(&groups, run.parallel.sharding, &run.update, &mut state);
        let loss = model.backward_by_layers(
            Tokens::Host(ids),
            &targets,
            &mut a,
            &mut scratch,
            &mut gradients,
            run.dropout,
            &mut exchange,
        );
        losses.push(model.backend.read_loss(loss));
        exchange.end(&mut model, &mut gradients);
    }
    groups.data.check().unwrap();
    groups.tensor.check().unwrap();
    Came { losses, parameters: model.parameters.iter().map(|p| p.plain().to_vec()).collect() }
}

/// Every rank's, in their order.
fn all(run: Run) -> Vec<Came> {
    let seats = of_threads::<Buffer>(&run.parallel, 1).into_iter().map(|g| match run.late {
        true => Groups { data: Arc::new(Late::new(g.data)), ..g },
        false => g,
    });
    std::thread::scope(|scope| {
        let ranks: Vec<_> = seats.map(|groups| scope.spawn(move || rank(run, groups))).collect();
        ranks.into_iter().map(|r| r.join().unwrap()).collect()
    })
}

/// The whole parameters that the ranks of one replica hold the parts of.
fn whole(family: Family, parts: &[Came]) -> Vec<Vec<f32>> {
    let specs = |rank| Index::new(&shape(family).part_of(rank, parts.len() as u32, BackendKind::Cpu)).specs;
    let specs: Vec<_> = (0..parts.len()).map(specs).collect();
    let specs: Vec<_> = specs.iter().map(|s| &s[..]).collect();
    let numbers: Vec<_> = parts.iter().map(|p| &p.parameters[..]).collect();
    together(&specs, &numbers)
}

fn close(a: &[f32], b: &[f32], tolerance: f32, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= tolerance, "{what}, element {i}: {x} and {y}");
    }
}

/// Holds a grid against one rank; returns its parameters.
fn as_one(run: Run) -> Vec<Vec<f32>> {
    let Run { parallel: Parallel { data, tensor, .. }, family, .. } = run;
    let what = format!("{family:?}, {:?}, {:?}", run.parallel, run.update.kind);
    let one = all(Run { parallel: Parallel::replicas(1), late: false, ..run });
    let ranks = all(run);
    for step in 0..3 {
        let of = |d: u32| ranks[(d * tensor) as usize].losses[step];
        let mean = (0..data).map(of).sum::<f32>() / data as f32;
        assert!((mean - one[0].losses[step]).abs() <= 2e-6 * mean.abs(), "{what}, step {step}: {mean}");
    }
    let replicas: Vec<_> = ranks.chunks(tensor as usize).map(|parts| whole(family, parts)).collect();
    assert!(replicas.iter().all(|r| *r == replicas[0]), "{what}: every replica holds the same bits");
    for ((a, b), spec) in replicas[0].iter().zip(&one[0].parameters).zip(&Index::new(&shape(family)).specs) {
        // Three steps move a parameter by up to 3e-2; rounding errors of a gradient move it by 1e-6 of that.
        close(a, b, 1e-6, &format!("{what}: {}", spec.name));
    }
    replicas.into_iter().next().unwrap()
}

#[test]
fn every_grid_trains_as_one_rank() {
    for family in FAMILIES {
        for (data, tensor) in [(2, 1), (3, 1), (4, 1), (1, 2), (1, 3), (1, 4), (2, 2), (3, 2)] {
            as_one(Run::new(family, data, tensor));
        }
    }
}

#[test]
fn shares_of_the_optimizer_change_no_bit() {
    for kind in OptimizerKind::ALL {
        for momentum in [0.0, 0.9] {
            for (data, tensor) in [(2, 1), (3, 1), (4, 1), (2, 2)] {
                let update = Update { momentum, ..smooth(*kind) };
                let run = Run { update, ..Run::new(Family::Llama, data, tensor) };
                let parallel = Parallel { sharding: Sharding::Optimizer, ..run.parallel };
                assert!(as_one(run) == as_one(Run { parallel, ..run }), "{kind} {momentum}, {data} x {tensor}");
            }
            if *kind != OptimizerKind::Sgd {
                break;
            }
        }
    }
}

#[test]
fn an_exchange_beside_the_backward_pass_changes_no_bit() {
    for family in FAMILIES {
        for sharding in [Sharding::None, Sharding::Optimizer] {
            for (data, tensor) in [(2, 1), (3, 1), (2, 2)] {
                let run = Run::new(family, data, tensor);
                let run = Run { parallel: Parallel { sharding, ..run.parallel }, ..run };
                assert!(as_one(run) == as_one(Run { late: true, ..run }), "{family:?} {sharding:?} {data} x {tensor}");
            }
        }
    }
}

#[test]
fn ranks_of_a_replica_drop_the_same_activations_as_one() {
    // The block drops the hidden activation, of which each rank has another part: its masks are not those of one rank.
    for family in [Family::Gpt2, Family::Llama] {
        for tensor in [2, 4] {
            let dropout = Some(StepDropout { probability: 0.2, seed: 3 });
            as_one(Run { dropout, ..Run::new(family, 1, tensor) });
        }
    }
}

/// Does a job only when it is waited for: what is touched too early shows.
struct Late<T> {
    inner: Arc<dyn Collective<T>>,
    queue: Mutex<(u64, Vec<Waiting<T>>)>,
}

struct Waiting<T> {
    number: u64,
    job: Job,
    start: *mut T,
    len: usize,
}

// SAFETY: a rank's own thread alone follows the pointers.
unsafe impl<T> Send for Late<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Late<T> {}

impl<T> std::fmt::Debug for Late<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Late")
    }
}

impl<T> Late<T> {
    fn new(inner: Arc<dyn Collective<T>>) -> Self {
        Self { inner, queue: Mutex::new((0, Vec::new())) }
    }
}

impl<T> Collective<T> for Late<T> {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn size(&self) -> usize {
        self.inner.size()
    }
    fn overlaps(&self) -> bool {
        true
    }
    fn start(&self, job: Job, buffers: &mut [T]) -> Ticket {
        let mut queue = self.queue.lock().unwrap();
        queue.0 += 1;
        let number = queue.0;
        queue.1.push(Waiting { number, job, start: buffers.as_mut_ptr(), len: buffers.len() });
        Ticket(number)
    }
    fn all_to_all(&self, from: &mut T, to: &mut T, counts: Counts<'_>) {
        self.inner.all_to_all(from, to, counts);
    }
    fn finish(&self, job: Ticket) {
        let mut queue = self.queue.lock().unwrap();
        while queue.1.first().is_some_and(|w| w.number <= job.0) {
            let w = queue.1.remove(0);
            // SAFETY: the buffers are left where they are until the job is finished.
            self.inner.run(w.job, unsafe { std::slice::from_raw_parts_mut(w.start, w.len) });
        }
    }
    fn check(&self) -> Result<(), SessionError> {
        self.inner.check()
    }
}

fn workload(family: Family, phase: Phase) -> Workload {
    Workload {
        shape: shape(family),
        phase,
        batch: 4,
        seq_len: 8,
        prompt_len: 7,
        new_tokens: 6,
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

/// The checksum over all tokens of some steps, and the losses.
fn steps(workload: &Workload, parallel: Parallel, backend: BackendKind) -> (u32, Vec<f32>) {
    let options = SessionOptions { backend, parallel, threads_per_rank: 1, seed: 11 };
    let mut session = prepare(workload, &options).unwrap();
    let losses = (0..8).filter_map(|_| session.step().unwrap().loss).collect();
    (session.checksum(), losses)
}

#[test]
fn ranks_of_a_replica_say_the_same_tokens_as_one() {
    for family in [Family::Gpt2, Family::Llama] {
        for phase in [Phase::Prefill, Phase::Decode, Phase::Generate] {
            let w = workload(family, phase);
            for data in [1, 2] {
                let one = steps(&w, Parallel::replicas(data), BackendKind::Cpu);
                for tensor in [2, 3, 4] {
                    let grid = Parallel { tensor, ..Parallel::replicas(data) };
                    assert_eq!(steps(&w, grid, BackendKind::Cpu), one, "{family:?} {phase} {grid:?}");
                }
            }
        }
    }
    let block = workload(Family::Block, Phase::Prefill);
    steps(&block, Parallel { tensor: 2, ..Parallel::replicas(2) }, BackendKind::Cpu);
}

#[test]
fn sessions_on_a_grid_repeat_and_learn_as_one_rank_does() {
    for family in FAMILIES {
        let w = workload(family, Phase::Train);
        let one = steps(&w, Parallel::replicas(1), BackendKind::Cpu);
        let two = Parallel { tensor: 2, ..Parallel::replicas(1) };
        let naive = steps(&w, two, BackendKind::Naive).1;
        let split = steps(&w, two, BackendKind::Cpu);
        assert_eq!(split, steps(&w, two, BackendKind::Cpu), "{family:?}");
        for losses in [&split.1, &naive] {
            close(losses, &one.1, 1e-5 * one.1[0], &format!("{family:?}"));
        }
        // Factors of 8 bits, whatever the grid: the loss, of which each is a small part, hardly sees them.
        let bf16 = steps(&Workload { dtype: Dtype::Bf16, ..w.clone() }, two, BackendKind::Cpu).1;
        close(&bf16, &one.1, 2e-3 * one.1[0], &format!("{family:?} in bf16"));
        let grid = Parallel { tensor: 2, sharding: Sharding::Optimizer, ..Parallel::replicas(2) };
        assert_eq!(steps(&w, grid, BackendKind::Cpu), steps(&w, grid, BackendKind::Cpu));
    }
}

#[test]
fn a_rank_that_cannot_be_built_ends_the_session_with_its_own_reason() {
    let w = workload(Family::Gpt2, Phase::Decode);
    let parallel = Parallel { tensor: 3, ..Parallel::replicas(1) };
    let options = SessionOptions { backend: BackendKind::Cpu, parallel, threads_per_rank: 1, seed: 1 };
    // The first ranks are in the middle of their prompts by then, waiting for the last.
    let last_fails = |rank: usize| match rank {
        2 => Err(SessionError::OutOfMemory("for this test".into())),
        _ => Cpu::new(1, None),
    };
    let started = Ranks::start(&w, &options, of_threads(&parallel, 1), last_fails);
    assert!(matches!(started, Err(SessionError::OutOfMemory(_))));
}

#[test]
fn a_part_starts_with_the_numbers_of_the_whole() {
    for family in FAMILIES {
        let one = Model::new(Cpu::new(1, None).unwrap(), &shape(family), 5, Purpose::Training).unwrap();
        for tensor in [2u32, 3, 4] {
            let parts: Vec<Came> = of_threads::<Buffer>(&Parallel { tensor, ..Parallel::replicas(1) }, 1)
                .into_iter()
                .map(|g| {
                    Model::part(Cpu::new(1, None).unwrap(), &shape(family), Origin::Seed(5), Purpose::Training, &g)
                        .unwrap()
                })
                .map(|m| Came {
                    losses: Vec::new(),
                    parameters: m.parameters.iter().map(|p| p.plain().to_vec()).collect(),
                })
                .collect();
            let whole = whole(family, &parts);
            for ((a, b), spec) in whole.iter().zip(&one.parameters).zip(&one.index.specs) {
                assert!(a[..] == *b.plain(), "{family:?}, {tensor} parts: {}", spec.name);
            }
        }
    }
}

#[test]
fn memory_falls_by_what_ranks_share() {
    let mut w = workload(Family::Gpt2, Phase::Train);
    w.shape = Shape::new(Family::Gpt2, &ShapeSpec::default()).unwrap();
    let of = |parallel| count::memory(BackendKind::Cpu, &w, &parallel).unwrap();
    let (one, two) = (of(Parallel::replicas(1)), of(Parallel::replicas(2)));
    let sharded = of(Parallel { sharding: Sharding::Optimizer, ..Parallel::replicas(2) });
    assert_eq!((sharded.weights_bytes, sharded.gradients_bytes), (two.weights_bytes, two.gradients_bytes));
    // All moments once, wherever their parts lie.
    assert_eq!(sharded.optimizer_bytes, one.optimizer_bytes);
    let split = of(Parallel { tensor: 4, ..Parallel::replicas(1) });
    // Whole on every rank: positions, norms, biases of the products that end a branch.
    let whole = 4 * (1024 * 768 + 2 * 768 + 12 * (4 * 768 + 2 * 768));
    assert_eq!(split.weights_bytes, one.weights_bytes + 3 * whole);
}

#[test]
fn a_traced_step_tells_of_every_rank_and_changes_nothing() {
    let w = workload(Family::Llama, Phase::Train);
    let options = |parallel| SessionOptions { backend: BackendKind::Cpu, parallel, threads_per_rank: 1, seed: 3 };
    let one = options(Parallel::replicas(1));
    let (mut plain, mut traced) = (prepare(&w, &one).unwrap(), prepare(&w, &one).unwrap());
    plain.step().unwrap();
    let tracks = traced.traced_step(Instant::now()).unwrap();
    assert_eq!(plain.step().unwrap().loss, traced.step().unwrap().loss, "the step after it is the same");
    let events = &tracks[0].events;
    let has = |kind: Kind| events.iter().any(|e| e.kind == kind);
    let alone = Kind::ALL.iter().filter(|k| **k != Kind::Exchange);
    assert!(alone.clone().all(|k| has(*k)) && !has(Kind::Exchange), "{events:?}");
    // What single operations take fits into the step, and no operation is inside another.
    let step = events.iter().find(|e| e.name == "train").unwrap();
    let mut single: Vec<_> = events.iter().filter(|e| e.kind != Kind::Whole).collect();
    assert!(single.iter().all(|e| step.from <= e.from && e.to <= step.to));
    single.sort_by_key(|e| e.from);
    assert!(single.windows(2).all(|two| two[0].to <= two[1].from), "{single:?}");
    // Products and attention are counted as the shape's FLOPs are: three times the forward pass, but for what a mask leaves out.
    let flops: f64 = single.iter().map(|e| e.work.flops).sum();
    let counted = count::flops_per_step(&w).unwrap().get() as f64;
    assert!((0.9..1.1).contains(&(flops / counted)), "{flops} {counted}");
    let grid = Parallel { tensor: 2, sharding: Sharding::Optimizer, ..Parallel::replicas(2) };
    let tracks = prepare(&w, &options(grid)).unwrap().traced_step(Instant::now()).unwrap();
    assert_eq!(tracks.iter().map(|t| t.rank).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let exchanged =
        |name: &str| tracks.iter().all(|t| t.events.iter().any(|e| e.kind == Kind::Exchange && e.name == name));
    assert!(["gradients", "parameters", "parts"].into_iter().all(exchanged));
}
