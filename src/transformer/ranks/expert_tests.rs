//! Experts that are spread over ranks against one rank that has them all: logits, loss, every gradient, and what some steps make of the
//! parameters; and sessions of them against whole replicas of the same sequences.

use super::super::backend::{Backend, Tokens, Update};
use super::super::collective::grid::{Groups, Parallel, Sharding, of_threads};
use super::super::collective::net::tests::on_loopback;
use super::super::cpu::Cpu;
use super::super::cpu::naive::Naive;
use super::super::error::SessionError;
use super::super::levers::{Levers, Recompute};
use super::super::pass::activations::{Activations, Extent, Keep};
use super::super::pass::backward::Targets;
use super::super::pass::gradients::Gradients;
use super::super::pass::model::{Model, Origin, Purpose, Spec};
use super::super::pass::optimizer::State;
use super::super::pass::scratch::Scratch;
use super::super::prepare::{prepare, prepare_among};
use super::super::session::{Session, SessionOptions};
use super::super::shape::{Family, LatentSpec, Routing, Shape, ShapeSpec, count};
use super::super::trace::Kind;
use super::super::{BackendKind, Dtype, OptimizerKind, Phase, WeightFormat, Workload};
use super::exchange::Exchange;
use super::parts_tests::{Came, agree, host, spec, together, workload};
use std::time::Instant;

const STEPS: u32 = 3;

struct OfRank {
    specs: Vec<Spec>,
    /// Of each parameter, whether experts have it each of their own.
    apart: Vec<bool>,
    logits: Vec<f32>,
    loss: f32,
    gradients: Vec<Vec<f32>>,
    parameters: Vec<Vec<f32>>,
    /// Experts of a layer that its tokens went to.
    distinct: f64,
}

/// A replica's part of `ids`.
fn rank<B: Backend>(on: B, shape: &Shape, extent: Extent, ids: &[u32], groups: &Groups<B::Buffer>) -> OfRank {
    let mut m = Model::part(on, shape, Origin::Seed(5), Purpose::Training, groups).unwrap();
    let specs = m.index.specs.clone();
    let layers: Vec<_> = (0..m.index.layers.len()).map(|l| m.index.of_experts(l)).collect();
    let apart = (0..specs.len()).map(|i| layers.iter().any(|some| some.contains(&i))).collect();
    let (replica, extent) = (groups.data.rank(), Extent { batch: extent.batch / groups.data.size(), ..extent });
    let ids = &ids[replica * extent.rows()..(replica + 1) * extent.rows()];
    let targets: Vec<u32> = ids.iter().map(|id| (id * 5 + 1) % shape.vocab_size).collect();
    // As in `parts_tests`: beyond rounding errors.
    let update = Update { eps: 1e-3, learning_rate: 1e-2, ..Update::new(OptimizerKind::Adamw) };
    let mut state = State::new(&m.backend, &m.index, &update).unwrap();
    let mut a = Activations::new(&m.backend, &m.shape, extent, Keep::All).unwrap();
    let mut scratch = Scratch::new(&m.backend, &m.shape, extent).unwrap();
    let mut own = Gradients::all(&m.backend, &m.index).unwrap();
    m.forward(ids, &mut a, None);
    let (_, logits) = m.logits(&a).unwrap();
    let distinct = m.loads(&a).unwrap().distinct;
    let loss = m.backward(ids, &Targets::Tokens(&targets), &mut a, &mut scratch, &mut own, None);
    let gradients = host(&m.backend, own.buffers(), &specs);
    let mut kept = Gradients::shared_by_layers(&m.backend, &m.index, 1).unwrap();
    for _ in 0..STEPS {
        m.forward(ids, &mut a, None);
        state.begin_step();
        let mut exchange = Exchange::new(groups, Sharding::None, &update, &mut state);
        let (tokens, targets) = (Tokens::Host(ids), Targets::Tokens(&targets));
        m.backward_by_layers(tokens, &targets, &mut a, &mut scratch, &mut kept, None, &mut exchange);
        exchange.end(&mut m, &mut kept);
    }
    groups.check().unwrap();
    m.check().unwrap();
    let parameters = host(&m.backend, &m.parameters, &specs);
    OfRank { specs, apart, logits, loss, gradients, parameters, distinct }
}

/// Every rank's, in their order.
fn all<B: Backend>(on: impl Fn() -> B + Sync, shape: &Shape, of: (Extent, &[u32]), parallel: &Parallel) -> Vec<OfRank>
where
    B::Buffer: AsMut<[f32]> + Send,
{
    let (extent, ids) = of;
    parallel.check(shape, extent.batch as u32).unwrap();
    std::thread::scope(|scope| {
        let on = &on;
        let start = |g| scope.spawn(move || rank(on(), shape, extent, ids, &g));
        let started: Vec<_> = of_threads::<B::Buffer>(parallel, 1).into_iter().map(start).collect();
        started.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

/// What they came to together: gradients of the mean loss of all.
fn came(all: &[OfRank], parallel: &Parallel) -> Came {
    let (ranks, spread) = (all.len(), parallel.expert as usize);
    let mean = |of: &mut dyn Iterator<Item = f32>| (of.map(f64::from).sum::<f64>() / ranks as f64) as f32;
    // What a rank's parameter has as gradient: of experts from those that have the same, of all else from everybody.
    let gradient = |rank: usize, i: usize| -> Vec<f32> {
        let apart = all[rank].apart[i];
        let same = || all.iter().enumerate().filter(move |(r, _)| !apart || r % spread == rank);
        (0..all[rank].gradients[i].len()).map(|at| mean(&mut same().map(|(_, r)| r.gradients[i][at]))).collect()
    };
    let parameters = all[0].specs.len();
    let gradients: Vec<Vec<Vec<f32>>> =
        (0..spread).map(|rank| (0..parameters).map(|i| gradient(rank, i)).collect()).collect();
    for (r, of_rank) in all.iter().enumerate() {
        assert!(of_rank.parameters == all[r % spread].parameters, "rank {r} has what those with the same experts have");
    }
    let specs: Vec<&[Spec]> = all[..spread].iter().map(|r| &r.specs[..]).collect();
    let of_ranks: Vec<&[Vec<f32>]> = gradients.iter().map(|g| &g[..]).collect();
    let parameters: Vec<&[Vec<f32>]> = all[..spread].iter().map(|r| &r.parameters[..]).collect();
    Came {
        names: specs[0].iter().map(|s| s.name.clone()).collect(),
        logits: all.iter().flat_map(|r| r.logits.iter().copied()).collect(),
        loss: mean(&mut all.iter().map(|r| r.loss)),
        gradients: together(&specs, &of_ranks),
        parameters: together(&specs, &parameters),
    }
}

fn over(expert: u32, data: u32) -> Parallel {
    Parallel { expert, ..Parallel::replicas(data) }
}

/// Holds every number of ranks against one rank of the same backend; returns those of one, the CPU's and the oracle's.
fn as_one(shape: &Shape, extent: Extent, ids: &[u32], grids: &[(u32, u32)]) -> [Came; 2] {
    let cpu = |threads| move || Cpu::new(threads, None).unwrap();
    let whole = over(1, 1);
    let one = came(&all(cpu(1), shape, (extent, ids), &whole), &whole);
    let oracle = came(&all(|| Naive, shape, (extent, ids), &whole), &whole);
    for (expert, data) in grids {
        let (of, grid) = ((extent, ids), over(*expert, *data));
        let what = format!("{:?}, experts over {expert} of {data}, {extent:?}", shape.family);
        agree(&came(&all(cpu(1), shape, of, &grid), &grid), &one, &what);
        agree(&came(&all(cpu(2), shape, of, &grid), &grid), &one, &format!("{what}, two threads each"));
        agree(&came(&all(|| Naive, shape, of, &grid), &grid), &oracle, &format!("{what}, the oracle"));
    }
    [one, oracle]
}

/// Six experts, of which a token goes to two.
fn mixture(spec: ShapeSpec) -> ShapeSpec {
    ShapeSpec { n_experts: Some(6), experts_per_token: Some(2), ..spec }
}

fn mixtral() -> Shape {
    Shape::new(Family::Mixtral, &mixture(spec(6, 2))).unwrap()
}

fn various(extent: Extent, words: u32) -> Vec<u32> {
    (0..extent.rows() as u32).map(|i| (i * i * 7 + i + 3) % words).collect()
}

#[test]
fn ranks_with_some_experts_each_compute_as_one() {
    // Widths of their own, biases, experts that all share, and a layer without; chosen by groups and corrected sigmoids.
    let shared = ShapeSpec {
        n_shared_experts: Some(2),
        first_dense_layers: Some(1),
        d_ff_expert: Some(18),
        mlp_bias: Some(true),
        ..mixture(spec(6, 2))
    };
    let latent = LatentSpec {
        q_lora_rank: Some(9),
        kv_lora_rank: Some(10),
        qk_nope_head_dim: Some(6),
        qk_rope_head_dim: Some(4),
        v_head_dim: Some(7),
        interleaved: None,
    };
    let routing = Routing { groups: 2, groups_per_token: 1, ..Family::DeepseekV3.routing() };
    let deepseek = ShapeSpec {
        n_layers: Some(2),
        d_model: Some(24),
        n_heads: Some(4),
        vocab_size: Some(29),
        context: Some(32),
        latent,
        routing: Some(routing),
        n_shared_experts: Some(1),
        first_dense_layers: Some(1),
        d_ff_expert: Some(18),
        ..mixture(ShapeSpec::default())
    };
    let all = [
        (Family::Mixtral, mixture(spec(6, 2))),
        (Family::Qwen3Moe, ShapeSpec { experts_per_token: Some(3), ..mixture(spec(6, 2)) }),
        (Family::GptOss, mixture(spec(6, 6))),
        (Family::Mixtral, shared),
        (Family::DeepseekV3, deepseek),
    ];
    for (family, spec) in all {
        let shape = Shape::new(family, &spec).unwrap();
        let extent = Extent { batch: 12, tokens: 7 };
        let [one, oracle] = as_one(&shape, extent, &various(extent, 29), &[(2, 2), (3, 3), (2, 4), (3, 6)]);
        agree(&one, &oracle, &format!("{family:?}, the CPU and the oracle"));
        // 15, 10 and 5 tokens a rank; an expert each.
        let extent = Extent { batch: 6, tokens: 5 };
        as_one(&shape, extent, &various(extent, 29), &[(2, 2), (3, 3), (6, 6)]);
    }
}

#[test]
fn experts_and_ranks_that_get_no_token_change_nothing() {
    // All tokens are the same, and first of their sequences: they go to the same two experts, and most ranks get none.
    let (shape, extent) = (mixtral(), Extent { batch: 6, tokens: 1 });
    let ids = vec![11; 6];
    as_one(&shape, extent, &ids, &[(2, 2), (3, 3), (6, 6), (3, 6)]);
    let ranks = all(|| Cpu::new(1, None).unwrap(), &shape, (extent, &ids), &over(6, 6));
    assert!(ranks.iter().all(|r| r.distinct == 2.0));
    let up = ranks[0].specs.iter().position(|s| s.name == "layers.0.up.weight").unwrap();
    let idle = ranks.iter().filter(|r| r.gradients[up].iter().all(|x| *x == 0.0)).count();
    assert_eq!(idle, 4, "ranks whose expert has no gradient");
}

fn options(parallel: Parallel, backend: BackendKind) -> SessionOptions {
    SessionOptions { backend, parallel, threads_per_rank: 1, seed: 11 }
}

/// The losses and the checksum of some steps of a session.
fn session(w: &Workload, parallel: Parallel) -> (Vec<f32>, u32) {
    led(&mut *prepare(w, &options(parallel, BackendKind::Cpu)).unwrap())
}

fn led(session: &mut dyn Session) -> (Vec<f32>, u32) {
    let losses = (0..6).filter_map(|_| session.step().unwrap().loss).collect();
    (losses, session.checksum())
}

fn of_phase(phase: Phase) -> Workload {
    Workload { batch: 24, ..workload(&mixtral(), phase) }
}

const GRIDS: [(u32, u32); 4] = [(2, 2), (3, 3), (2, 4), (6, 6)];

#[test]
fn sessions_say_the_tokens_of_whole_replicas() {
    for phase in [Phase::Prefill, Phase::Decode, Phase::Generate] {
        for (dtype, weights) in
            [(Dtype::F32, WeightFormat::Dtype), (Dtype::Bf16, WeightFormat::Dtype), (Dtype::F32, WeightFormat::Int8)]
        {
            // Weights of 8 bits: with rows so few that every machine multiplies by them as they are stored.
            let batch = if weights == WeightFormat::Dtype { 24 } else { 12 };
            let w = Workload { dtype, weights, batch, ..of_phase(phase) };
            for (expert, data) in GRIDS {
                let whole = session(&w, Parallel::replicas(data));
                assert_eq!(session(&w, over(expert, data)), whole, "{phase} {dtype} {weights}: {expert} of {data}");
            }
        }
    }
}

#[test]
fn sessions_learn_as_whole_replicas_do_however_a_step_is_carried_out() {
    let plain = Levers::default();
    let all = [
        plain,
        Levers { accumulate: 2, ..plain },
        Levers { clip: Some(0.05), ..plain },
        Levers { accumulate: 2, clip: Some(0.05), recompute: Recompute::Full },
    ];
    for levers in all {
        let w = Workload { levers, dropout: 0.1, ..of_phase(Phase::Train) };
        for (expert, data) in GRIDS {
            let (losses, sum) = session(&w, over(expert, data));
            let (whole, _) = session(&w, Parallel::replicas(data));
            for (step, (own, whole)) in losses.iter().zip(&whole).enumerate() {
                assert!(
                    (own - whole).abs() <= 1e-5 * whole,
                    "{levers:?} {expert} of {data}, step {step}: {own} {whole}"
                );
            }
            assert_eq!(session(&w, over(expert, data)).1, sum, "it repeats");
            let again = Workload { levers: Levers { recompute: Recompute::Full, ..levers }, ..w.clone() };
            assert_eq!(
                session(&again, over(expert, data)).1,
                sum,
                "{levers:?}: layers that are run again are the same"
            );
        }
    }
}

#[test]
fn several_processes_find_what_threads_do_bit_for_bit() {
    for phase in [Phase::Train, Phase::Prefill, Phase::Decode, Phase::Generate] {
        let w = of_phase(phase);
        for (processes, expert, data) in [(2, 2, 2), (2, 2, 4), (3, 3, 3), (3, 2, 6)] {
            for backend in [BackendKind::Cpu, BackendKind::Naive] {
                let options = options(over(expert, data), backend);
                let one = led(&mut *prepare(&w, &options).unwrap());
                let found = on_loopback(processes, |net| {
                    let leads = net.leads();
                    let mut session = prepare_among(&w, &options, net).unwrap();
                    if leads { Some(led(&mut *session)) } else { session.follow().map(|_| None).unwrap() }
                });
                assert_eq!(
                    found[0].as_ref(),
                    Some(&one),
                    "{phase} {backend}: {expert} of {data}, {processes} processes"
                );
            }
        }
    }
}

#[test]
fn a_process_that_leaves_ends_the_step_and_the_others() {
    let (w, options) = (of_phase(Phase::Train), options(over(3, 3), BackendKind::Cpu));
    let found = on_loopback(3, |net| {
        let (rank, leads) = (net.world.rank, net.leads());
        let mut session = prepare_among(&w, &options, net).unwrap();
        match (leads, rank) {
            (true, _) => (0..3).find_map(|_| session.step().err()).unwrap(),
            // It was ready, and takes no step.
            (_, 1) => SessionError::LostRank,
            _ => session.follow().unwrap_err(),
        }
    });
    assert!(found.iter().all(SessionError::is_consequence), "{found:?}");
}

#[test]
fn memory_is_that_of_whole_replicas_without_the_others_experts_and_with_what_is_on_its_way() {
    let spec = ShapeSpec { n_layers: Some(3), first_dense_layers: Some(1), ..mixture(spec(6, 2)) };
    let shape = Shape::new(Family::Mixtral, &spec).unwrap();
    let w = Workload { shape: shape.clone(), ..of_phase(Phase::Train) };
    let of = |parallel| count::memory(BackendKind::Cpu, &w, &parallel).unwrap();
    let [c, f, experts, k] = [24, 60, 6, 2u64];
    for (expert, data) in [(2, 2), (3, 6), (6, 6)] {
        let (whole, spread) = (of(Parallel::replicas(data)), of(over(expert, data)));
        let (data, expert) = (u64::from(data), u64::from(expert));
        // Of a layer's experts: gate, up, down.
        let others = 4 * data * (experts - experts / expert) * 3 * c * f;
        assert_eq!(whole.weights_bytes - spread.weights_bytes, 2 * others);
        assert_eq!(whole.gradients_bytes - spread.gradients_bytes, others, "of one layer at a time");
        assert_eq!(spread.optimizer_bytes, 2 * spread.weights_bytes);
        let rows = k * 24 / data * 6;
        // An eighth more than comes if every expert is sent as much, of hidden activations as well: two layers', and one of each pass.
        let room = rows + rows / 8;
        let arrived = 2 * (room * (c + 2) + experts + 2 * f * (room - rows));
        let on_its_way = rows * (c + 1) + experts + room * c + room * (c + 1) + 2 * f * (room - rows);
        assert_eq!(spread.activations_bytes - whole.activations_bytes, 4 * data * (arrived + on_its_way));
        assert_eq!(spread.workspace_bytes, whole.workspace_bytes);
    }
}

#[test]
fn what_is_told_of_a_step_has_the_exchange_of_tokens() {
    let mut session = prepare(&of_phase(Phase::Train), &options(over(3, 3), BackendKind::Cpu)).unwrap();
    let tracks = session.traced_step(Instant::now()).unwrap();
    let exchanged = |name: &str, t: &super::super::trace::Track| {
        t.events.iter().filter(|e| e.kind == Kind::Exchange && e.name == name).count()
    };
    // Of two layers: counts, rows, weights and back; gradients out, and back with those of the weights.
    assert_eq!(tracks.iter().map(|t| exchanged("tokens", t)).collect::<Vec<_>>(), [2 * (4 + 3); 3]);
    assert!(tracks.iter().all(|t| exchanged("gradients", t) > 0));
}

#[test]
fn what_experts_cannot_be_spread_with_is_refused_by_name() {
    let w = of_phase(Phase::Train);
    let said = |parallel, backend| prepare(&w, &options(parallel, backend)).err().unwrap().to_string();
    let two = over(2, 2);
    let zero = |sharding| Parallel { sharding, ..two };
    for (parallel, words) in [
        (Parallel { tensor: 2, ..two }, "parallel.tensor: 1"),
        (Parallel { pipeline: 2, ..two }, "parallel.pipeline: 1"),
        (zero(Sharding::Optimizer), "parallel.sharding: none"),
        (zero(Sharding::Parameters), "parallel.sharding: none"),
        (over(4, 4), "4 does not divide model.n_experts = 6; what does: 1, 2, 3, 6"),
        (over(2, 3), "2 does not divide the 3 replicas"),
    ] {
        let said = said(parallel, BackendKind::Cpu);
        assert!(said.contains("parallel.expert: ") && said.contains(words), "{parallel:?}: {said}");
    }
    let said = said(two, BackendKind::Cuda);
    assert!(said.contains("parallel.expert: 2 is on CPU ranks only") && said.contains("backend: cpu"), "{said}");
    let dense = Workload { shape: Shape::new(Family::Llama, &spec(6, 2)).unwrap(), ..w };
    let said = prepare(&dense, &options(two, BackendKind::Cpu)).err().unwrap().to_string();
    assert!(said.contains("found none in family llama"), "{said}");
}
