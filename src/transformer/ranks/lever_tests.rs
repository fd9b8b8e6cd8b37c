//! However a training step is carried out, it computes what it would at once: to the bit where sums are taken in the same order, within
//! rounding where not.

use super::super::backend::{Alloc, Backend, Category, Update};
use super::super::collective::Job;
use super::super::collective::grid::{Groups, Parallel, Sharding, of_threads};
use super::super::cpu::Cpu;
use super::super::cpu::buffer::Buffer;
use super::super::levers::{Levers, Recompute};
use super::super::pass::activations::{Activations, Extent, Keep};
use super::super::pass::backward::Targets;
use super::super::pass::forward::StepDropout;
use super::super::pass::gradients::Gradients;
use super::super::pass::model::{Model, Origin, Purpose};
use super::super::pass::optimizer::State;
use super::super::pass::scratch::Scratch;
use super::super::shape::{Family, LatentSpec, Shape, ShapeSpec};
use super::super::{BackendKind, OptimizerKind};
use super::exchange::Seat;
use super::training::{Keeping, Training};

const WORDS: u32 = 29;
const WIDTH: usize = 24;
const BATCH: usize = 6;
const LENGTH: usize = 7;

fn shape(family: Family) -> Shape {
    let latent = match family {
        Family::DeepseekV2 | Family::DeepseekV3 => LatentSpec {
            q_lora_rank: (family == Family::DeepseekV3).then_some(9),
            kv_lora_rank: Some(10),
            qk_nope_head_dim: Some(6),
            qk_rope_head_dim: Some(4),
            v_head_dim: Some(7),
            interleaved: None,
        },
        _ => LatentSpec::default(),
    };
    let spec = ShapeSpec {
        latent,
        n_layers: Some(3),
        d_model: Some(WIDTH as u32),
        n_heads: Some(4),
        n_kv_heads: matches!(family, Family::Llama | Family::Mixtral).then_some(2),
        d_ff: FAMILIES.contains(&family).then_some(36),
        vocab_size: Some(WORDS),
        context: Some(17),
        mlp_bias: (family == Family::Llama).then_some(true),
        n_experts: (family == Family::Mixtral).then_some(4),
        ..ShapeSpec::default()
    };
    Shape::new(family, &spec).unwrap()
}

/// A way to carry out some steps.
#[derive(Clone, Copy, Debug)]
struct Run {
    family: Family,
    update: Update,
    levers: Levers,
    parallel: Parallel,
    dropout: Option<StepDropout>,
}

impl Run {
    fn new(family: Family, kind: OptimizerKind) -> Self {
        let parallel = Parallel::replicas(1);
        Self { family, update: Update::new(kind), levers: Levers::default(), parallel, dropout: None }
    }
}

/// Tokens and targets of a step of all ranks.
fn pairs(step: u32) -> (Vec<u32>, Vec<u32>) {
    let ids: Vec<u32> = (0..BATCH * LENGTH).map(|i| (i as u32 * 7 + step * 3) % WORDS).collect();
    let tokens = ids.iter().map(|i| (i * 5 + 1) % WORDS).collect();
    (ids, tokens)
}

/// Losses of three steps on one rank, and its parameters then.
fn rank(run: Run, groups: Groups<Buffer>) -> (Vec<f32>, Vec<Vec<f32>>) {
    let cpu = Cpu::new(1, None).unwrap();
    let (shape, origin) = (shape(run.family), Origin::Seed(5));
    let (mut model, shares) = match run.parallel.sharding {
        Sharding::Parameters => {
            let (model, shares) = Model::sharded(cpu, &shape, origin, &groups).unwrap();
            (model, Some(shares))
        }
        _ => (Model::part(cpu, &shape, origin, Purpose::Training, &groups).unwrap(), None),
    };
    let seat = Seat { groups, sharding: run.parallel.sharding, seed: 0, stored: None };
    let (replica, replicas) = (seat.groups.data.rank(), seat.groups.data.size());
    let extent = Extent { batch: BATCH / replicas, tokens: LENGTH };
    let keeping = Keeping::of_replica(BackendKind::Cpu, replica, &run.parallel, run.levers);
    let mut t = Training::new(&model.backend, &model.shape, &model.index, extent, &run.update, keeping).unwrap();
    t.shares = shares;
    let own = replica * extent.rows()..(replica + 1) * extent.rows();
    let width = run.levers.of_pass(extent).rows() * WIDTH;
    let first = own.start * WIDTH;
    for (number, vectors) in t.vectors().enumerate() {
        let numbers: Vec<f32> = (0..width).map(|i| ((first + number * width + i) as f32 * 0.37).sin()).collect();
        model.backend.upload(&numbers, vectors);
    }
    let mut losses = Vec::new();
    for step in 0..3 {
        let (ids, tokens) = pairs(step);
        let (ids, tokens) = (&ids[own.clone()], &tokens[own.clone()]);
        let loss = t.step(&mut model, &seat, &run.update, (ids, tokens), run.dropout);
        losses.push(model.backend.read_loss(loss));
    }
    seat.groups.data.check().unwrap();
    // What is whole at the end is what would be without shares.
    if let Some(shares) = &mut t.shares {
        let mut all = model.parameters.iter().map(|p| p.plain().to_vec()).collect::<Vec<_>>();
        for layer in 0..model.index.layers.len() {
            shares.lay(&model.backend, &mut model.parameters, &model.index, layer);
            seat.groups.data.run(Job::AllGather, &mut model.parameters[model.index.of_layer(layer)]);
            for i in model.index.of_layer(layer) {
                all[i] = model.parameters[i].plain().to_vec();
            }
        }
        return (losses, all);
    }
    (losses, model.parameters.iter().map(|p| p.plain().to_vec()).collect())
}

/// The losses of all ranks together, and the parameters of the first.
fn train(run: Run) -> (Vec<f32>, Vec<Vec<f32>>) {
    let all: Vec<_> = std::thread::scope(|scope| {
        let seats = of_threads::<Buffer>(&run.parallel, run.parallel.kv_copies(&shape(run.family))).into_iter();
        let ranks: Vec<_> = seats.map(|groups| scope.spawn(move || rank(run, groups))).collect();
        ranks.into_iter().map(|r| r.join().unwrap()).collect()
    });
    let mean = |step: usize| all.iter().map(|(losses, _)| losses[step]).sum::<f32>() / all.len() as f32;
    ((0..3).map(mean).collect(), all.into_iter().next().unwrap().1)
}

fn close(a: &[f32], b: &[f32], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 1e-5 * b.abs(), "{what}: {a} and {b}");
    }
}

/// Grids of ranks that share a model.
fn grids() -> impl Iterator<Item = Parallel> {
    let whole = Parallel::replicas(1);
    // Of four ranks each of Llama's and Mixtral's two heads of keys and values is held twice.
    let split = [Parallel { tensor: 2, ..whole }, Parallel { tensor: 4, ..whole }];
    let both = Parallel { tensor: 2, sharding: Sharding::Optimizer, ..Parallel::replicas(3) };
    [whole, Parallel::replicas(2), both].into_iter().chain(split)
}

const FAMILIES: [Family; 4] = [Family::Gpt2, Family::Llama, Family::Block, Family::Mixtral];

/// Ways to add up in passes that divide what a replica has.
fn passes(parallel: &Parallel) -> impl Iterator<Item = u32> {
    let each = BATCH as u32 / parallel.data;
    [1, 2, 3, 6].into_iter().filter(move |passes| each.is_multiple_of(*passes))
}

#[test]
fn micro_batches_learn_as_the_whole_batch_does() {
    for family in FAMILIES {
        let run = Run::new(family, OptimizerKind::Adamw);
        let plain = train(run).0;
        for parallel in grids() {
            for accumulate in passes(&parallel) {
                let levers = Levers { accumulate, ..Levers::default() };
                let got = train(Run { levers, parallel, ..run }).0;
                close(&got, &plain, &format!("{family:?} {parallel:?}, {accumulate} passes"));
            }
        }
    }
}

#[test]
fn shares_of_gradients_and_parameters_change_no_bit() {
    for family in FAMILIES.into_iter().chain([Family::DeepseekV3, Family::Gemma3]) {
        let split = family != Family::DeepseekV3;
        for (data, tensor) in [(2, 1), (3, 1), (2, 2), (2, 4)].into_iter().filter(|(_, tensor)| *tensor == 1 || split) {
            for (kind, recompute) in [(OptimizerKind::Adamw, Recompute::None), (OptimizerKind::Sgd, Recompute::Full)] {
                let levers = Levers { recompute, ..Levers::default() };
                let of = |sharding| {
                    let parallel = Parallel { data, tensor, sharding, ..Parallel::replicas(1) };
                    let dropout = Some(StepDropout { probability: 0.1, seed: 3 });
                    train(Run { parallel, levers, dropout, ..Run::new(family, kind) })
                };
                let want = of(Sharding::Optimizer);
                for sharding in [Sharding::None, Sharding::Gradients, Sharding::Parameters] {
                    assert!(of(sharding) == want, "{family:?} {data} x {tensor}, {kind}, {recompute}, {sharding}");
                }
            }
        }
    }
}

#[test]
fn shares_of_what_passes_add_up_to_are_that_of_the_whole() {
    for family in FAMILIES {
        let run = Run::new(family, OptimizerKind::Sgd);
        let run = Run { update: Update { learning_rate: 1.0, ..run.update }, ..run };
        for (accumulate, clip) in [(3, None), (1, Some(0.02)), (3, Some(0.02))] {
            let levers = Levers { accumulate, clip, ..Levers::default() };
            let want = train(Run { levers, ..run });
            for sharding in [Sharding::Gradients, Sharding::Parameters] {
                let parallel = Parallel { sharding, ..Parallel::replicas(2) };
                let (losses, parameters) = train(Run { levers, parallel, ..run });
                let what = format!("{family:?} {sharding} {accumulate} {clip:?}");
                close(&losses, &want.0, &what);
                for (got, want) in parameters.iter().flatten().zip(want.1.iter().flatten()) {
                    // Steps are as long as gradients: of parameters of 0.02, a rounding of sums of some.
                    assert!((got - want).abs() <= 1e-6, "{what}: {got} and {want}");
                }
            }
        }
    }
}

#[test]
fn layers_that_are_run_again_change_no_bit() {
    // Families differ in what stands where: norms before and after, branches side by side, sinks, latents, experts after dense layers.
    for family in Family::ALL.iter().copied() {
        for dropout in [None, Some(StepDropout { probability: 0.2, seed: 3 })] {
            let run = Run { dropout, ..Run::new(family, OptimizerKind::Adamw) };
            let want = train(run);
            for recompute in [Recompute::Attention, Recompute::Full] {
                let levers = Levers { recompute, ..Levers::default() };
                assert!(train(Run { levers, ..run }) == want, "{family:?} {recompute}, {dropout:?}");
            }
        }
    }
    for family in FAMILIES {
        for parallel in grids() {
            let dropout = Some(StepDropout { probability: 0.2, seed: 3 });
            let all = Levers { accumulate: BATCH as u32 / parallel.data, clip: Some(0.5), ..Levers::default() };
            let run = Run { dropout, parallel, levers: all, ..Run::new(family, OptimizerKind::Adamw) };
            let want = train(run);
            for recompute in [Recompute::Attention, Recompute::Full] {
                assert!(train(Run { levers: Levers { recompute, ..all }, ..run }) == want, "{family:?} {parallel:?}");
            }
        }
    }
}

/// Of a step by itself, what every way of carrying it out is compared with.
struct ByHand {
    model: Model<Cpu>,
    state: State<Buffer>,
    update: Update,
}

impl ByHand {
    fn new(family: Family, update: Update) -> Self {
        let model = Model::new(Cpu::new(1, None).unwrap(), &shape(family), 5, Purpose::Training).unwrap();
        let state = State::new(&model.backend, &model.index, &update).unwrap();
        Self { model, state, update }
    }

    /// The sum of the gradients of so many passes, each by itself, and the mean of their losses.
    fn gradients(
        &self,
        ids: &[u32],
        tokens: &[u32],
        passes: usize,
        dropout: Option<StepDropout>,
    ) -> (Vec<Vec<f32>>, f32) {
        let extent = Extent { batch: BATCH / passes, tokens: LENGTH };
        let m = &self.model;
        let width = extent.rows() * WIDTH;
        let (mut sum, mut losses) = (Vec::<Vec<f32>>::new(), 0.0f64);
        for (number, (ids, tokens)) in ids.chunks(extent.rows()).zip(tokens.chunks(extent.rows())).enumerate() {
            let d = dropout.map(|d| d.of_micro_batch(number));
            let mut a = Activations::new(&m.backend, &m.shape, extent, Keep::All).unwrap();
            let mut scratch = Scratch::new(&m.backend, &m.shape, extent).unwrap();
            let mut g = Gradients::all(&m.backend, &m.index).unwrap();
            m.forward(ids, &mut a, d);
            let vectors: Vec<f32> = (0..width).map(|i| ((number * width + i) as f32 * 0.37).sin()).collect();
            let vectors = self.placed(&vectors, Category::Activations);
            let targets = match m.shape.has_vocabulary_head() {
                true => Targets::Tokens(tokens),
                false => Targets::Vectors(&vectors),
            };
            losses += f64::from(m.backward(ids, &targets, &mut a, &mut scratch, &mut g, d));
            let own: Vec<Vec<f32>> = g.buffers().iter().map(|g| g.plain().to_vec()).collect();
            match sum.is_empty() {
                true => sum = own,
                false => sum.iter_mut().flatten().zip(own.iter().flatten()).for_each(|(s, g)| *s += g),
            }
        }
        (sum, (losses / passes as f64) as f32)
    }

    fn placed(&self, numbers: &[f32], category: Category) -> Buffer {
        let mut buffer = self.model.backend.alloc(numbers.len(), category).unwrap();
        self.model.backend.upload(numbers, &mut buffer);
        buffer
    }

    /// The norm of the mean of the first step's gradients.
    fn first_norm(family: Family) -> f64 {
        let (ids, tokens) = pairs(0);
        norm(&Self::new(family, Update::new(OptimizerKind::Sgd)).gradients(&ids, &tokens, 1, None).0)
    }

    fn step(&mut self, gradients: &[Vec<f32>]) {
        let placed: Vec<Buffer> = gradients.iter().map(|g| self.placed(g, Category::Gradients)).collect();
        self.model.update(&self.update, &placed, &mut self.state);
    }

    fn parameters(&self) -> Vec<Vec<f32>> {
        self.model.parameters.iter().map(|p| p.plain().to_vec()).collect()
    }
}

fn norm(gradients: &[Vec<f32>]) -> f64 {
    gradients.iter().flatten().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn gradients_of_micro_batches_are_added_up_before_the_one_update() {
    for family in [Family::Gpt2, Family::Llama, Family::Mixtral] {
        for (accumulate, probability) in [(2, 0.0), (3, 0.2), (6, 0.2)] {
            let update = Update::new(OptimizerKind::Adam);
            let dropout = (probability > 0.0).then_some(StepDropout { probability, seed: 3 });
            let levers = Levers { accumulate, ..Levers::default() };
            let (losses, got) = train(Run { levers, dropout, ..Run::new(family, OptimizerKind::Adam) });
            let mut by_hand = ByHand::new(family, update);
            for (step, loss) in losses.into_iter().enumerate() {
                let (ids, tokens) = pairs(step as u32);
                let (mut sum, want) = by_hand.gradients(&ids, &tokens, accumulate as usize, dropout);
                let share = 1.0 / accumulate as f32;
                sum.iter_mut().flatten().for_each(|g| *g *= share);
                by_hand.step(&sum);
                assert_eq!(loss, want, "{family:?}, {accumulate} passes, step {step}");
            }
            assert!(got == by_hand.parameters(), "{family:?}: {accumulate} passes with dropout {probability}");
        }
    }
}

#[test]
fn gradients_beyond_the_norm_are_scaled_down_to_it() {
    // A step of plain descent is the gradient itself.
    let update = Update { learning_rate: 0.5, ..Update::new(OptimizerKind::Sgd) };
    let quarter = |family| (family, (ByHand::first_norm(family) / 4.0) as f32);
    let bounds = [(Family::Gpt2, 0.05), (Family::Llama, 0.3), (Family::Mixtral, 1e3)];
    for (family, largest) in bounds.into_iter().chain([Family::Block, Family::Mixtral].map(quarter)) {
        for accumulate in [1, 3] {
            let levers = Levers { accumulate, clip: Some(largest), ..Levers::default() };
            let (_, got) = train(Run { update, levers, ..Run::new(family, OptimizerKind::Sgd) });
            let mut by_hand = ByHand::new(family, update);
            for step in 0..3 {
                let (ids, tokens) = pairs(step);
                let (mut g, _) = by_hand.gradients(&ids, &tokens, accumulate as usize, None);
                g.iter_mut().flatten().for_each(|g| *g *= 1.0 / accumulate as f32);
                let norm = norm(&g);
                assert_eq!(norm > f64::from(largest), largest < 1e3, "{family:?}: the norm is {norm}");
                let factor = (f64::from(largest) / (norm + 1e-6)).min(1.0) as f32;
                g.iter_mut().flatten().for_each(|g| *g *= factor);
                by_hand.step(&g);
            }
            for (got, want) in got.iter().flatten().zip(by_hand.parameters().iter().flatten()) {
                assert!((got - want).abs() <= 4.0 * f32::EPSILON * want.abs().max(0.1), "{family:?}: {got} and {want}");
            }
        }
    }
}

#[test]
fn ranks_clip_by_the_norm_of_all_of_them() {
    for family in FAMILIES {
        // Descent, whose steps are as long as its gradients.
        let run = Run::new(family, OptimizerKind::Sgd);
        let run = Run { update: Update { learning_rate: 1.0, ..run.update }, ..run };
        let plain = train(run).0;
        let largest = (ByHand::first_norm(family) / 20.0) as f32;
        let clipped = |accumulate| Levers { clip: Some(largest), accumulate, ..Levers::default() };
        let one = train(Run { levers: clipped(1), ..run }).0;
        assert!((one[2] - plain[2]).abs() > 1e-4 * plain[2], "{family:?} is clipped: {one:?} and {plain:?}");
        for parallel in grids() {
            for accumulate in passes(&parallel) {
                let got = train(Run { levers: clipped(accumulate), parallel, ..run }).0;
                close(&got, &one, &format!("{family:?} {parallel:?} {accumulate}"));
            }
        }
    }
}

#[test]
fn a_bound_that_is_not_reached_changes_no_bit() {
    for kind in [OptimizerKind::Adamw, OptimizerKind::Sgd] {
        let levers = Levers { clip: Some(1e9), ..Levers::default() };
        let run = Run { dropout: Some(StepDropout { probability: 0.1, seed: 1 }), ..Run::new(Family::Llama, kind) };
        assert!(train(run) == train(Run { levers, ..run }), "{kind}");
    }
}
