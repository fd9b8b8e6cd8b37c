//! The account of a device's memory: what was predicted is what is held, and nothing is taken after the first steps.

use super::super::collective::grid::{Parallel, Sharding};
use super::super::levers::{Levers, Recompute};
use super::super::ranks::threads::Ranks;
use super::super::session::Session;
use super::super::shape::Family;
use super::super::shape::count;
use super::super::{BackendKind, Phase, Workload};
use super::ranks_tests::{session, workload};
use super::*;

fn steps(count: usize, session: &mut Ranks) {
    for _ in 0..count {
        session.step().unwrap();
    }
}

#[test]
fn a_session_takes_what_was_predicted_and_its_workspace_to_the_byte() {
    let two = Parallel { tensor: 2, ..Parallel::replicas(1) };
    let shares = Parallel { sharding: Sharding::Optimizer, ..Parallel::replicas(2) };
    let one = Parallel::replicas(1);
    let plain = Levers::default();
    let usual = [
        (Family::Gpt2, Phase::Train, Dtype::Bf16, one),
        (Family::Llama, Phase::Train, Dtype::F32, one),
        (Family::Block, Phase::Train, Dtype::Bf16, one),
        (Family::Llama, Phase::Train, Dtype::Bf16, two),
        (Family::Llama, Phase::Train, Dtype::F32, shares),
        (Family::Gpt2, Phase::Prefill, Dtype::Bf16, one),
        (Family::Llama, Phase::Decode, Dtype::Bf16, one),
        (Family::Gpt2, Phase::Generate, Dtype::F32, two),
        (Family::Mixtral, Phase::Train, Dtype::Bf16, one),
        (Family::Mixtral, Phase::Generate, Dtype::Bf16, one),
        (Family::DeepseekV3, Phase::Train, Dtype::Bf16, one),
        (Family::DeepseekV3, Phase::Generate, Dtype::Bf16, one),
    ];
    let usual = usual.map(|(family, phase, dtype, parallel)| (family, phase, dtype, parallel, plain));
    let (parts, again) = (Levers { accumulate: 2, ..plain }, Levers { recompute: Recompute::Full, ..plain });
    let levers = [
        (Family::Gpt2, Phase::Train, Dtype::Bf16, one, parts),
        (Family::Llama, Phase::Train, Dtype::F32, one, again),
        (Family::Llama, Phase::Train, Dtype::Bf16, one, Levers { clip: Some(0.1), ..plain }),
        (Family::Gpt2, Phase::Train, Dtype::F32, shares, Levers { clip: Some(0.1), ..parts }),
        (Family::Mixtral, Phase::Train, Dtype::Bf16, one, Levers { recompute: Recompute::Attention, ..parts }),
    ];
    // Two layers' gradients are kept where replicas exchange beside the pass, and layers take turns with what is gathered.
    let of_three = |sharding| Parallel { sharding, ..Parallel::replicas(3) };
    let sharded = [
        (Family::Llama, Dtype::Bf16, of_three(Sharding::None), plain),
        (Family::Gpt2, Dtype::F32, of_three(Sharding::Gradients), parts),
        (Family::Llama, Dtype::Bf16, of_three(Sharding::Gradients), Levers { clip: Some(0.1), ..plain }),
        (Family::Llama, Dtype::Bf16, of_three(Sharding::Parameters), plain),
        (Family::DeepseekV3, Dtype::F32, of_three(Sharding::Parameters), parts),
        (Family::Mixtral, Dtype::Bf16, Parallel { tensor: 2, data: 2, ..of_three(Sharding::Parameters) }, plain),
        (Family::Llama, Dtype::Bf16, Parallel { pipeline: 2, ..one }, parts),
        (Family::Gpt2, Dtype::Bf16, Parallel { pipeline: 3, data: 2, ..of_three(Sharding::Optimizer) }, parts),
        (Family::Block, Dtype::F32, Parallel { pipeline: 4, ..one }, Levers { clip: Some(0.1), ..parts }),
    ];
    let sharded = sharded.map(|(family, dtype, parallel, levers)| (family, Phase::Train, dtype, parallel, levers));
    for (family, phase, dtype, parallel, levers) in usual.into_iter().chain(levers).chain(sharded) {
        let mut w = Workload { levers, ..workload(family, phase, dtype) };
        if parallel.data * parallel.pipeline > 1 {
            (w.batch, w.shape.n_layers) = (2 * parallel.data, 4);
        }
        let what = format!("{family:?} {phase} {dtype} {parallel:?} {levers:?}");
        let Some((mut session, ranks)) = session(&w, parallel) else { return };
        steps(3, &mut session);
        let measured = session.device_memory().unwrap().peak_allocated_bytes;
        let own: u64 = ranks.iter().map(|(cuda, _)| cuda.state.bytes() as u64).sum();
        let predicted = count::memory(BackendKind::Cuda, &w, &parallel).unwrap();
        let model = predicted.total().unwrap().get() - predicted.workspace_bytes;
        assert_eq!(measured, model + own, "{what}: {predicted:?}");
        // cuBLASLt's share of the workspace, which the host has none of, is most of what is predicted.
        assert!(own <= predicted.workspace_bytes, "{what}: {own} of {predicted:?}");
    }
}

#[test]
fn nothing_is_allocated_after_the_third_step() {
    for family in [Family::Gpt2, Family::Llama, Family::Mixtral, Family::DeepseekV3] {
        for phase in [Phase::Train, Phase::Prefill, Phase::Decode, Phase::Generate] {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let w = workload(family, phase, dtype);
                let Some((mut session, ranks)) = session(&w, Parallel::replicas(1)) else { return };
                let [(_, host)] = &ranks[..] else { panic!("{} ranks", ranks.len()) };
                steps(3, &mut session);
                let (allocations, peak) = (host.allocations(), session.device_memory());
                assert!(allocations > 0 && peak.is_some());
                // More than the cache has room for: decoding starts over.
                steps(6, &mut session);
                assert_eq!(host.allocations(), allocations, "{family:?} {phase} {dtype}");
                assert_eq!(session.device_memory(), peak, "{family:?} {phase} {dtype}");
            }
        }
    }
}
