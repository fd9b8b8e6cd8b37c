use super::*;
use crate::transformer::collective::grid::{Parallel, Sharding};
use crate::transformer::collective::net::tests::on_loopback;
use crate::transformer::prepare::{prepare, prepare_among};
use crate::transformer::session::SessionOptions;
use crate::transformer::shape::{Family, Shape, ShapeSpec};
use crate::transformer::{BackendKind, Dtype, OptimizerKind, Phase, WeightFormat, Workload};

fn workload(phase: Phase, n_kv_heads: u32) -> Workload {
    let spec = ShapeSpec {
        n_layers: Some(2),
        d_model: Some(48),
        n_heads: Some(6),
        n_kv_heads: Some(n_kv_heads),
        d_ff: Some(96),
        vocab_size: Some(61),
        ..ShapeSpec::default()
    };
    Workload {
        shape: Shape::new(Family::Llama, &spec).unwrap(),
        phase,
        batch: 12,
        seq_len: 8,
        prompt_len: 7,
        new_tokens: 5,
        dtype: Dtype::F32,
        weights: WeightFormat::Dtype,
        optimizer: OptimizerKind::Adamw,
        dropout: 0.1,
        kv_cache: Default::default(),
        prefill_chunk: None,
        weights_from: None,
        levers: Default::default(),
    }
}

fn options(parallel: Parallel, backend: BackendKind) -> SessionOptions {
    SessionOptions { backend, parallel, threads_per_rank: 1, seed: 11 }
}

const STEPS: usize = 4;

fn led(session: &mut dyn Session) -> (u32, Vec<f32>) {
    let losses = (0..STEPS).filter_map(|_| session.step().unwrap().loss).collect();
    (session.checksum(), losses)
}

#[test]
fn several_processes_find_what_one_with_threads_finds_bit_for_bit() {
    let grid = |data, tensor, sharding| Parallel { data, tensor, sharding, ..Parallel::replicas(1) };
    let (none, optimizer) = (Sharding::None, Sharding::Optimizer);
    let phases = [Phase::Train, Phase::Prefill, Phase::Decode, Phase::Generate];
    // Of one head of keys and values, every rank of a replica holds a copy.
    for (phase, n_kv_heads) in phases.into_iter().flat_map(|phase| [(phase, 6), (phase, 1)]) {
        let w = workload(phase, n_kv_heads);
        for (processes, parallel) in [
            (2, grid(2, 1, none)),
            (2, grid(1, 2, none)),
            (2, grid(2, 2, optimizer)),
            (3, grid(3, 1, optimizer)),
            (3, grid(2, 3, none)),
            (4, grid(2, 2, none)),
            (2, Parallel { pipeline: 2, ..Parallel::replicas(1) }),
            (2, Parallel { pipeline: 2, ..grid(3, 1, optimizer) }),
            (4, Parallel { pipeline: 2, ..Parallel::replicas(2) }),
        ]
        .into_iter()
        .filter(|(_, parallel)| parallel.pipeline == 1 || phase == Phase::Train)
        {
            for backend in [BackendKind::Cpu, BackendKind::Naive] {
                let options = options(parallel, backend);
                let one = led(&mut *prepare(&w, &options).unwrap());
                let found = on_loopback(processes, |net| {
                    let leads = net.leads();
                    let mut session = prepare_among(&w, &options, net).unwrap();
                    if leads {
                        return Some(led(&mut *session));
                    }
                    assert_eq!(session.follow().unwrap().len(), STEPS);
                    None
                });
                assert_eq!(found[0].as_ref(), Some(&one), "{phase} {n_kv_heads} {backend} {parallel:?}, {processes}");
            }
        }
    }
}

#[test]
fn several_processes_go_on_from_what_they_wrote_into_a_folder_of_all() {
    let w = workload(Phase::Train, 6);
    for (processes, data, tensor, sharding) in
        [(2, 2, 1, Sharding::None), (3, 3, 1, Sharding::Optimizer), (2, 2, 2, Sharding::Parameters)]
    {
        let options = options(Parallel { data, tensor, sharding, ..Parallel::replicas(1) }, BackendKind::Cpu);
        let (_, whole) = led(&mut *prepare(&w, &options).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let found = on_loopback(processes, |net| {
            let leads = net.leads();
            let mut session = prepare_among(&w, &options, net).unwrap();
            if !leads {
                session.follow().unwrap();
                return None;
            }
            (0..2).for_each(|_| _ = session.step().unwrap());
            let written = session.save(folder.path()).unwrap();
            let files = std::fs::read_dir(folder.path()).unwrap().count();
            assert_eq!(written.len(), files, "{written:?}");
            // What it does after that is lost.
            session.step().unwrap();
            session.restore(folder.path(), 2).unwrap();
            let nowhere = session.save(&folder.path().join("nowhere")).unwrap_err();
            assert!(nowhere.contains("nowhere/state-"), "{nowhere}");
            Some((2..STEPS).map(|_| session.step().unwrap().loss.unwrap()).collect::<Vec<f32>>())
        });
        assert_eq!(found[0].as_deref(), Some(&whole[2..]), "{processes} processes, {sharding}");
        let one = {
            let mut one = prepare(&w, &options).unwrap();
            one.restore(folder.path(), 2).unwrap();
            (2..STEPS).map(|_| one.step().unwrap().loss.unwrap()).collect::<Vec<f32>>()
        };
        assert_eq!(one, whole[2..], "files say nothing of processes");
    }
}

#[test]
fn a_process_that_leaves_ends_the_step_and_the_others() {
    let w = workload(Phase::Train, 6);
    let staged = |data| Parallel { pipeline: 2, ..Parallel::replicas(data) };
    for (processes, parallel) in [(3, Parallel::replicas(3)), (2, staged(1)), (4, staged(2))] {
        let options = options(parallel, BackendKind::Cpu);
        let found = on_loopback(processes, |net| {
            let (rank, leads) = (net.world.rank, net.leads());
            let mut session = prepare_among(&w, &options, net).unwrap();
            if leads {
                return (0..3).find_map(|_| session.step().err()).unwrap();
            }
            if rank == 1 {
                // It was ready, and takes no step.
                return SessionError::LostRank;
            }
            session.follow().unwrap_err()
        });
        assert!(found.iter().all(SessionError::is_consequence), "{parallel:?}: {found:?}");
    }
}

#[test]
fn a_process_that_cannot_take_part_is_named_by_the_one_that_leads() {
    let w = workload(Phase::Train, 6);
    let options = options(Parallel::replicas(2), BackendKind::Cpu);
    let found = on_loopback(2, |net| {
        if net.leads() {
            return prepare_among(&w, &options, net).map(drop).unwrap_err();
        }
        Together::form(Err(SessionError::OutOfMemory("4 GiB for weights".into())), net).map(drop).unwrap_err()
    });
    assert!(found[0].to_string().contains("rank 1"), "{found:?}");
    let found = on_loopback(2, |net| match net.leads() {
        true => Together::form(Err(SessionError::LostRank), net).map(drop).unwrap_err(),
        false => Together::form(Err(SessionError::OutOfMemory("4 GiB".into())), net).map(drop).unwrap_err(),
    });
    assert_eq!(found[0].to_string(), "out of memory: rank 1: 4 GiB");
}

#[test]
fn what_ranks_found_comes_back_as_it_was() {
    let outcomes = vec![
        RankOutcome { loss: Some(f32::MIN_POSITIVE), first_token_seconds: None, trace: vec![1, u32::MAX] },
        RankOutcome { loss: None, first_token_seconds: Some(1e-9), trace: vec![] },
    ];
    assert_eq!(read_done(&done(&outcomes)), Some(outcomes));
    let word = done(&[RankOutcome { loss: Some(1.0), first_token_seconds: None, trace: vec![3] }]);
    assert!((2..word.len()).all(|n| read_done(&word[..n]).is_none()), "half of it is nothing");
    assert_eq!(read_done(&failure(&SessionError::LostRank)), None);
}
