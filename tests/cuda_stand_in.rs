//! A CUDA driver that answers and then fails, at each call in turn (tests/common/stand_in_cuda.c): the program says what happened,
//! and never panics, hangs or takes a failure for a result. What the kernels compute is checked elsewhere; this is the way there.

#![cfg(target_os = "linux")]

#[path = "common/stand_in.rs"]
mod stand_in;

use centime::internal::transformer::{Family, Levers, Parallel, Shape, ShapeSpec, Sharding};
use centime::{
    BackendKind, Dtype, Measure, Measurement, MemoryParts, OptimizerKind, Options, Order, Phase, Request, Status,
    Tolerated, Trial, WeightFormat, Workload, run_trial,
};
use stand_in::StandIn;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a failed call is told by: the driver's, NVRTC's, cuBLASLt's and NCCL's words for the error that the stand-in answers.
const WORDS: [&str; 5] = ["CUDA_ERROR_", "NVRTC_ERROR_", "CUBLAS_STATUS_", "internal error", "out of memory"];

/// Calls whose failure loses nothing that a figure rests on: giving back, what only describes a GPU, what is done in another way then.
fn may_be_silent(name: &str) -> bool {
    let gives_back = ["Destroy", "Free", "Release", "Trim", "Abort", "Unload"].iter().any(|part| name.contains(part));
    // A recording that fails is run plainly instead, and a kernel that was not loaded beforehand when it is launched.
    let has_another_way = [
        "cuStreamBeginCapture_v2",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
        "cuMemPoolGetAttribute",
        "cuModuleLoadData",
        "cuModuleGetFunction",
    ];
    // Answers no error, but a version.
    let version = name == "cublasLtGetCudartVersion";
    gives_back || has_another_way.contains(&name) || version || name.starts_with("nvml")
}

/// Whether a call was made to time algorithms of a product: one that cannot be timed is no candidate.
fn times_algorithms(calls: &[String], at: usize) -> bool {
    let bounds = ["cublasLtMatmulAlgoGetHeuristic", "cuEventDestroy_v2"];
    calls[..at].iter().rfind(|name| bounds.contains(&name.as_str())).is_some_and(|name| name == bounds[0])
}

/// The wait for the last of the work: all results are there after it, and what fails from there on is nobody's any more.
fn end_of_work(calls: &[String]) -> usize {
    let works = |name: &str| {
        let launches = ["cuLaunchKernel", "cublasLtMatmul", "cuGraphLaunch", "ncclBroadcast"].contains(&name);
        launches || name.starts_with("cuMemcpy")
    };
    let last = calls.iter().rposition(|name| works(name)).unwrap_or(0);
    let waited = calls.iter().skip(last).position(|name| name == "cuStreamSynchronize");
    waited.map_or(calls.len(), |after| last + after)
}

const DOCTOR: [&str; 4] = ["doctor", "--no-probe", "--format", "csv"];

/// A child that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(60);

/// How a child ended: its words, whether it says that all is well, and whether it ended in a way that none may.
struct Ending {
    well: bool,
    said: String,
    badly: bool,
}

fn command(stand_in: &StandIn, arguments: &[&str], settings: &[(&str, &str)]) -> Ending {
    let mut out = tempfile::tempfile().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_centime"))
        .args(arguments)
        .envs(stand_in.variables(settings))
        .stdout(out.try_clone().unwrap())
        .stderr(out.try_clone().unwrap())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if began.elapsed() > LONGEST {
            child.kill().unwrap();
            panic!("{arguments:?} {settings:?}: no end after {LONGEST:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let mut said = String::new();
    out.rewind().unwrap();
    out.read_to_string(&mut said).unwrap();
    let badly = code.is_none_or(|c| c == 101) || said.contains("panicked");
    Ending { well: code == Some(0), said, badly }
}

fn request(phase: Phase, dtype: Dtype) -> Request {
    let spec = ShapeSpec {
        n_layers: Some(1),
        d_model: Some(64),
        n_heads: Some(1),
        vocab_size: Some(64),
        context: Some(16),
        ..ShapeSpec::default()
    };
    let workload = Workload {
        shape: Shape::new(Family::Gpt2, &spec).unwrap(),
        phase,
        batch: 1,
        seq_len: 8,
        prompt_len: 4,
        new_tokens: 4,
        dtype,
        weights: WeightFormat::Dtype,
        optimizer: OptimizerKind::Adamw,
        dropout: 0.0,
        kv_cache: Default::default(),
        prefill_chunk: None,
        weights_from: None,
        levers: Default::default(),
    };
    let trial = Trial {
        model: "tiny".into(),
        workload,
        backend: BackendKind::Cuda,
        devices: 1,
        parallel: None,
        engine: None,
        learning: None,
        cores_per_device: 1,
    };
    let measure = Measure {
        precision: 0.5,
        min_seconds: 0.0,
        max_seconds: 0.001,
        warmup_steps: Some(1),
        rounds: None,
        seed: 7,
        seeds: Vec::new(),
        order: Order::File,
        timeout_seconds: LONGEST.as_secs_f64(),
        ignore_memory: false,
        disturbed: Tolerated::default(),
    };
    Request { trial, measure, predicted_memory: MemoryParts::default(), patience_seconds: 0.0, loss_change: false }
}

fn measured(stand_in: &StandIn, request: &Request, settings: &[(&str, &str)]) -> Measurement {
    let options = Options { program: env!("CARGO_BIN_EXE_centime").into(), variables: stand_in.variables(settings) };
    run_trial(request, &options, &mut |_| {}, &AtomicBool::new(false))
}

fn trial(stand_in: &StandIn, request: &Request, settings: &[(&str, &str)]) -> Ending {
    let m = measured(stand_in, request, settings);
    // A process that panicked or was ended by a signal is a crashed row as well, and says nothing of ours.
    let unsaid = m.status != Status::Ok && m.reason.is_empty();
    let ours = !["panicked", "signal", "exit code"].iter().any(|word| m.reason.contains(word));
    let badly = unsaid || !ours || m.status == Status::Timeout;
    Ending { well: m.status == Status::Ok, said: format!("{:?}: {}", m.status, m.reason), badly }
}

/// The calls to fail, by function and which of its calls: every one, but of a function that is called over and over the first, the
/// second, the last and about [`EACH`] between.
fn places(calls: &[String]) -> Vec<(String, usize)> {
    let mut of: BTreeMap<&str, usize> = BTreeMap::new();
    calls.iter().for_each(|name| *of.entry(name).or_default() += 1);
    let some = |times: usize| {
        let apart = times.div_ceil(EACH);
        (1..=times).filter(move |k| *k <= 2 || k % apart == 0 || *k == times)
    };
    of.into_iter().flat_map(|(name, times)| some(times).map(move |k| (name.to_string(), k))).collect()
}

/// Of a function that is called more often, about so many calls are failed.
const EACH: usize = if cfg!(debug_assertions) { 6 } else { 24 };

/// Runs a child with these variables.
type Run<'a> = dyn Fn(&[(&str, &str)]) -> Ending + Sync + 'a;

/// Fails each call in turn, on as many threads as there are cores.
fn walk(stand_in: &StandIn, what: &str, run: &Run<'_>) {
    let log = stand_in.file(&format!("{what}.log"));
    let first = run(&[("STAND_IN_LOG", log.to_str().unwrap())]);
    assert!(first.well, "{what}, nothing fails: {}", first.said);
    let calls = stand_in.calls(&log);
    let places = places(&calls);
    println!("{what}: {} calls of {} functions, {} are failed", calls.len(), distinct(&calls), places.len());
    let (next, met) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while let Some((name, k)) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let log = stand_in.file(&format!("{what}-{name}-{k}.log"));
                    let fail = format!("{name}:{k}");
                    let ending = run(&[("STAND_IN_FAIL", &fail), ("STAND_IN_LOG", log.to_str().unwrap())]);
                    // How many steps there is time for is another number every time: not all come as far.
                    let Some(at) = stand_in.failed(&log) else { continue };
                    met.fetch_add(1, Ordering::Relaxed);
                    let calls = stand_in.calls(&log);
                    let told = WORDS.iter().any(|w| ending.said.contains(w)) || ending.said.contains(name.as_str());
                    let harmless = at > end_of_work(&calls) || may_be_silent(name) || times_algorithms(&calls, at);
                    // What is not told has cost nothing: the child ends as it does when nothing fails.
                    if ending.badly || !told && (!harmless || ending.well != first.well) {
                        let around = calls[at.saturating_sub(3)..calls.len().min(at + 4)].join(" ");
                        let place = format!("call {k} of {name}, the {at}th of {}, among {around}", calls.len());
                        wrong.lock().unwrap().push(format!("{place}: {}", ending.said));
                    }
                }
            });
        }
    });
    let met = met.into_inner();
    assert!(met * 2 > places.len(), "{what}: {met} of {} calls were reached", places.len());
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

fn distinct(calls: &[String]) -> usize {
    calls.iter().collect::<std::collections::HashSet<_>>().len()
}

#[test]
fn every_call_of_the_doctor_may_fail() {
    let Some(stand_in) = StandIn::build() else { return };
    let all = command(&stand_in, &DOCTOR, &[]);
    assert!(all.said.contains("stand-in for an H100") && all.said.contains("580.65.06"), "{}", all.said);
    walk(&stand_in, "doctor", &|settings| command(&stand_in, &DOCTOR, settings));
}

#[test]
fn every_call_of_a_group_of_one_may_fail() {
    let Some(stand_in) = StandIn::build() else { return };
    walk(&stand_in, "nccl", &|settings| command(&stand_in, &["trial", "--nccl", "0"], settings));
}

#[test]
fn every_call_of_a_trial_may_fail() {
    let Some(stand_in) = StandIn::build() else { return };
    for (phase, dtype) in [(Phase::Train, Dtype::F32), (Phase::Generate, Dtype::Bf16)] {
        let request = request(phase, dtype);
        walk(&stand_in, &format!("{phase:?}"), &|settings| trial(&stand_in, &request, settings));
    }
}

/// Two ranks' calls come in another order every time: it is the k-th call of a function that fails, of whichever rank.
#[test]
fn every_function_may_fail_on_one_of_two_gpus() {
    let Some(stand_in) = StandIn::build() else { return };
    let mut two = request(Phase::Train, Dtype::Bf16);
    two.trial.devices = 2;
    two.trial.parallel = Some(Parallel::replicas(2));
    two.trial.workload.batch = 2;
    let log = stand_in.file("two");
    let both = ("STAND_IN_DEVICES", "2");
    let ending = trial(&stand_in, &two, &[both, ("STAND_IN_LOG", log.to_str().unwrap())]);
    assert!(ending.well, "{}", ending.said);
    let calls = stand_in.calls(&log);
    assert!(calls.iter().any(|name| name == "ncclAllReduce"), "{calls:?}");
    for name in calls.iter().collect::<BTreeSet<_>>() {
        for k in [1, 2, calls.iter().filter(|c| *c == name).count()] {
            let ending = trial(&stand_in, &two, &[both, ("STAND_IN_FAIL", &format!("{name}:{k}"))]);
            assert!(!ending.badly, "call {k} of {name}: {}", ending.said);
            let told = WORDS.iter().any(|w| ending.said.contains(w)) || ending.said.contains(name.as_str());
            assert!(told || ending.well, "call {k} of {name}: {}", ending.said);
        }
    }
}

/// What two devices share of a training: each way asks NCCL for other things, any of which may fail.
#[test]
fn every_function_of_nccl_may_fail_however_two_gpus_share_a_training() {
    let Some(stand_in) = StandIn::build() else { return };
    let one = Parallel::replicas(1);
    let ways = [
        (Parallel { sharding: Sharding::Gradients, ..Parallel::replicas(2) }, ["ncclReduceScatter", "ncclAllGather"]),
        (Parallel { sharding: Sharding::Parameters, ..Parallel::replicas(2) }, ["ncclReduceScatter", "ncclAllGather"]),
        (Parallel { pipeline: 2, ..one }, ["ncclBroadcast", "ncclAllReduce"]),
    ];
    for (parallel, wanted) in ways {
        let mut two = request(Phase::Train, Dtype::Bf16);
        two.trial.devices = 2;
        two.trial.parallel = Some(parallel);
        two.trial.workload.batch = 4;
        two.trial.workload.shape.n_layers = 2;
        two.trial.workload.levers = Levers { accumulate: 2, clip: Some(1.0), ..Levers::default() };
        let log = stand_in.file("shared");
        let both = ("STAND_IN_DEVICES", "2");
        let ending = trial(&stand_in, &two, &[both, ("STAND_IN_LOG", log.to_str().unwrap())]);
        assert!(ending.well, "{parallel:?}: {}", ending.said);
        let calls = stand_in.calls(&log);
        for name in wanted {
            assert!(calls.iter().any(|call| call == name), "{parallel:?}: no {name} among {calls:?}");
        }
        for name in calls.iter().filter(|name| name.starts_with("nccl")).collect::<BTreeSet<_>>() {
            let ending = trial(&stand_in, &two, &[both, ("STAND_IN_FAIL", &format!("{name}:2"))]);
            let told = WORDS.iter().any(|w| ending.said.contains(w)) || ending.said.contains(name.as_str());
            assert!(!ending.badly && (told || ending.well), "{parallel:?}, call 2 of {name}: {}", ending.said);
        }
    }
}

/// Loading a kernel may wait for the device, and compiling it takes its time: both are over when work begins.
#[test]
fn every_kernel_of_a_trial_is_loaded_before_the_first_is_launched() {
    let Some(stand_in) = StandIn::build() else { return };
    for phase in [Phase::Train, Phase::Prefill, Phase::Decode, Phase::Generate] {
        for dtype in [Dtype::F32, Dtype::Tf32, Dtype::Bf16] {
            let log = stand_in.file("calls");
            let ending = trial(&stand_in, &request(phase, dtype), &[("STAND_IN_LOG", log.to_str().unwrap())]);
            assert!(ending.well, "{}", ending.said);
            let calls = stand_in.calls(&log);
            let launched = calls.iter().position(|name| name == "cuLaunchKernel").unwrap();
            let loaded = calls.iter().rposition(|name| name == "cuModuleLoadData").unwrap();
            assert!(loaded < launched, "{phase:?} {dtype}: loaded by call {loaded}, launched by call {launched}");
        }
    }
}

#[test]
fn heads_that_a_device_has_no_shared_memory_for_are_refused_with_the_remedy() {
    let Some(stand_in) = StandIn::build() else { return };
    let mut wide = request(Phase::Train, Dtype::F32);
    wide.trial.workload.shape.head_dim = 160;
    // Less than any GPU of today has.
    let m = measured(&stand_in, &wide, &[("STAND_IN_SHARED", "65536")]);
    assert_eq!(m.status, Status::Invalid, "{}", m.reason);
    assert!(
        m.reason.contains("93 KiB of shared memory") && m.reason.contains("use heads of 128 or fewer"),
        "{}",
        m.reason
    );
    assert_eq!(measured(&stand_in, &wide, &[]).status, Status::Ok, "an H100 has it");
    // With fewer rows a block, so does an RTX 4090.
    let ada = [("STAND_IN_CAPABILITY", "89"), ("STAND_IN_SHARED", "101376")];
    assert_eq!(measured(&stand_in, &wide, &ada).status, Status::Ok);
}

#[test]
fn a_device_that_is_lost_ends_its_trial_and_memory_that_is_missing_is_its_own_status() {
    let Some(stand_in) = StandIn::build() else { return };
    let request = request(Phase::Train, Dtype::Bf16);
    let lost = [("STAND_IN_FAIL", "cuLaunchKernel:20"), ("STAND_IN_FAIL_ON", "1"), ("STAND_IN_ERROR", "700")];
    let m = measured(&stand_in, &request, &lost);
    assert_eq!(m.status, Status::Crashed, "{}", m.reason);
    assert!(m.reason.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{}", m.reason);
    let full = [("STAND_IN_MEMORY", "2000000")];
    let m = measured(&stand_in, &request, &full);
    assert_eq!(m.status, Status::Oom, "{}", m.reason);
    assert!(m.reason.contains("use a smaller batch"), "{}", m.reason);
}

#[test]
fn verify_reaches_the_end_of_every_golden_file_and_says_that_the_numbers_are_wrong() {
    let Some(stand_in) = StandIn::build() else { return };
    let files = ["gpt2", "llama-gqa", "keras-block"]
        .map(|n| format!("{}/tests/golden/{n}.safetensors", env!("CARGO_MANIFEST_DIR")));
    for dtype in ["f32", "tf32", "bf16"] {
        let mut arguments = vec!["verify", "--backend", "cuda", "--dtype", dtype];
        arguments.extend(files.iter().map(String::as_str));
        let ending = command(&stand_in, &arguments, &[]);
        assert!(!ending.well && ending.said.contains("above the tolerance"), "{}", ending.said);
        assert_eq!(ending.said.matches(" on cuda").count(), 3, "{}", ending.said);
    }
}

#[test]
fn an_old_driver_an_old_device_and_a_missing_library_are_told_with_the_remedy() {
    let Some(stand_in) = StandIn::build() else { return };
    let doctor = |settings: &[(&str, &str)]| command(&stand_in, &DOCTOR, settings).said;
    let old = doctor(&[("STAND_IN_DRIVER", "11080")]);
    assert!(old.contains("for CUDA 11.8"), "{old}");
    let old = doctor(&[("STAND_IN_CAPABILITY", "75")]);
    assert!(old.contains("compute capability 7.5"), "{old}");
    std::fs::remove_file(stand_in.file("libnvrtc.so.13")).unwrap();
    // Whatever else this machine has is not looked at: no PATH, no toolkit.
    let missing =
        doctor(&[("PATH", ""), ("CUDA_HOME", ""), ("CUDA_PATH", ""), ("VIRTUAL_ENV", ""), ("CONDA_PREFIX", "")]);
    if missing.contains("kernel") && !missing.contains("libnvrtc.so.13") {
        return println!("skipped: this machine has an NVRTC where it is usually installed");
    }
    for part in ["libnvrtc.so.13", "/usr/local/cuda/lib64", "nvidia-cuda-nvrtc", "CENTIME_CUDA_LIBRARIES"] {
        assert!(missing.replace('\n', " ").contains(part), "{part} is not in\n{missing}");
    }
}
