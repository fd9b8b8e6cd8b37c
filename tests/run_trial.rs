//! A trial's process may do whatever it likes: the parent gets one measurement that says how it ended.

use centime::internal::transformer::{Family, Shape, ShapeSpec};
use centime::{
    BackendKind, Dtype, Measure, Measurement, MemoryParts, OptimizerKind, Options, Order, Phase, Progress, Request,
    Stage, Status, Stop, Tolerated, Trial, WeightFormat, Workload, run_trial,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn request(timeout_seconds: f64) -> Request {
    let spec = ShapeSpec {
        n_layers: Some(2),
        d_model: Some(64),
        n_heads: Some(4),
        vocab_size: Some(256),
        context: Some(64),
        ..ShapeSpec::default()
    };
    let workload = Workload {
        shape: Shape::new(Family::Gpt2, &spec).unwrap(),
        phase: Phase::Train,
        batch: 2,
        seq_len: 32,
        prompt_len: 32,
        new_tokens: 8,
        dtype: Dtype::F32,
        weights: WeightFormat::Dtype,
        optimizer: OptimizerKind::Adamw,
        dropout: 0.0,
        kv_cache: Default::default(),
        prefill_chunk: None,
        weights_from: None,
        levers: Default::default(),
    };
    Request {
        trial: Trial {
            model: "gpt2 2x64".into(),
            workload,
            backend: BackendKind::Cpu,
            devices: 1,
            parallel: None,
            engine: None,
            learning: None,
            cores_per_device: 1,
        },
        measure: Measure {
            precision: 0.05,
            min_seconds: 0.2,
            max_seconds: 1.0,
            warmup_steps: None,
            rounds: None,
            seed: 7,
            seeds: Vec::new(),
            order: Order::File,
            timeout_seconds,
            ignore_memory: false,
            disturbed: Tolerated::default(),
        },
        predicted_memory: MemoryParts { weights_bytes: 123, ..MemoryParts::default() },
        patience_seconds: 0.0,
        loss_change: false,
    }
}

fn run(request: &Request, fault: &str, progress: &mut dyn FnMut(Progress), cancel: &AtomicBool) -> Measurement {
    let options = Options {
        program: env!("CARGO_BIN_EXE_centime").into(),
        variables: vec![("CENTIME_FAULT".into(), fault.into()), ("RAYON_NUM_THREADS".into(), "64".into())],
    };
    run_trial(request, &options, progress, cancel)
}

fn under(fault: &str, timeout_seconds: f64) -> Measurement {
    run(&request(timeout_seconds), fault, &mut |_| {}, &AtomicBool::new(false))
}

#[track_caller]
fn assert_ended(fault: &str, status: Status, reason: &str) {
    let m = under(fault, 20.0);
    assert_eq!(m.status, status, "{fault}: {}", m.reason);
    assert!(m.reason.contains(reason), "{fault}: {}", m.reason);
    assert_eq!(m.figures, None);
    assert_eq!(m.predicted_memory.weights_bytes, 123);
    assert!(m.trial_seconds > 0.0 && m.trial_seconds < 20.0);
}

#[test]
fn a_synthetic_trial_measures_the_step_it_is_given() {
    let m = under("synthetic:2", 20.0);
    assert_eq!((m.status, m.reason.as_str()), (Status::Ok, ""));
    let figures = m.figures.unwrap();
    let mut steps = figures.step_seconds.clone();
    steps.sort_by(f64::total_cmp);
    // Busy loops end no sooner than told; the median of many is not much later on any machine that runs at all.
    assert!(steps[0] >= 0.002);
    assert!(steps[steps.len() / 2] < 0.0025, "{}", steps[steps.len() / 2]);
    assert!(figures.step_seconds.iter().sum::<f64>() > 0.19);
    assert_eq!(figures.tokens_per_step, 64);
    assert!(figures.warmup_steps >= 1);
}

#[test]
fn the_transformer_is_measured_with_its_loss_memory_and_precision() {
    let mut stages = Vec::new();
    let m = run(&request(20.0), "", &mut |p| stages.push(p.stage), &AtomicBool::new(false));
    assert_eq!((m.status, m.reason.as_str()), (Status::Ok, ""));
    let figures = m.figures.unwrap();
    assert!(figures.step_seconds.len() > 5);
    assert!(figures.loss.unwrap() > 0.0);
    assert!(figures.peak_rss_bytes > figures.baseline_rss_bytes);
    assert!(figures.peak_allocated_bytes > 4 * 123_000, "weights alone are more: {}", figures.peak_allocated_bytes);
    assert!(figures.peak_allocated_bytes < 64 << 20, "{}", figures.peak_allocated_bytes);
    if figures.stopped_by == Stop::Precision {
        assert!(figures.precision_reached.unwrap() <= 0.05);
    }
    assert!(stages.is_sorted_by_key(|s| *s as u8), "stages come in order: {stages:?}");
    assert!(stages.contains(&Stage::Measuring));
}

#[test]
fn the_same_trial_computes_the_same_whatever_there_was_time_for() {
    let mut short = request(20.0);
    short.measure.min_seconds = 0.01;
    short.measure.max_seconds = 0.02;
    let once = run(&short, "", &mut |_| {}, &AtomicBool::new(false)).figures.unwrap();
    let again = under("", 20.0).figures.unwrap();
    assert!(again.step_seconds.len() > once.step_seconds.len());
    assert_eq!(again.checksum, once.checksum);
}

#[test]
fn first_tokens_are_timed_in_generation_step_by_step() {
    let mut asked = request(20.0);
    asked.trial.workload.phase = Phase::Generate;
    let figures = run(&asked, "", &mut |_| {}, &AtomicBool::new(false)).figures.unwrap();
    assert_eq!(figures.first_token_seconds.len(), figures.step_seconds.len());
    let sooner = figures.first_token_seconds.iter().zip(&figures.step_seconds).all(|(first, step)| first < step);
    assert!(sooner, "the first token comes before the last");
}

#[test]
fn crashes_name_their_signal_or_code() {
    assert_ended("segfault", Status::Crashed, "killed by signal 11 (SIGSEGV)");
    assert_ended("abort", Status::Crashed, "killed by signal 6 (SIGABRT)");
    assert_ended("sigkill", Status::Crashed, "killed by signal 9 (SIGKILL)");
    assert_ended("exit:3", Status::Crashed, "exited with code 3");
}

#[test]
fn a_device_that_is_lost_is_a_crash_in_its_own_words() {
    for step in [1, 3] {
        assert_ended(
            &format!("lost:{step}"),
            Status::Crashed,
            "waiting: cuStreamSynchronize: CUDA_ERROR_DEVICE_UNAVAILABLE",
        );
    }
}

#[test]
fn memory_that_runs_out_is_oom_with_the_size_that_failed() {
    assert_ended("oom:128", Status::Oom, "memory allocation of 16777216 bytes failed");
}

#[test]
fn an_end_without_a_result_is_invalid() {
    assert_ended("exit:0", Status::Invalid, "ended without a result");
}

#[test]
fn garbage_on_the_pipe_is_invalid_and_quoted() {
    assert_ended("garbage", Status::Invalid, "no message: this is no message");
    assert_ended("endless", Status::Invalid, "no message: no line ends here");
}

#[test]
fn an_unknown_fault_is_invalid_and_says_so() {
    assert_ended("segfalt", Status::Invalid, "`segfalt` is no directive");
}

#[test]
fn a_trial_that_hangs_times_out_on_time() {
    let began = Instant::now();
    let m = under("hang", 0.5);
    assert_eq!(m.status, Status::Timeout, "{}", m.reason);
    assert!(m.reason.contains("not finished after 0.5 s, while preparing"), "{}", m.reason);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_flood_on_stderr_neither_blocks_nor_spoils_the_trial() {
    let m = under("flood:64;synthetic:1", 30.0);
    assert_eq!(m.status, Status::Ok, "{}", m.reason);
}

#[test]
fn a_cancelled_trial_ends_at_once_and_its_listener_heard_time_pass() {
    let (cancel, mut beats) = (AtomicBool::new(false), 0);
    let began = Instant::now();
    let mut progress = |_| {
        beats += 1;
        if beats == 5 {
            cancel.store(true, Ordering::Relaxed);
        }
    };
    let m = run(&request(60.0), "hang", &mut progress, &cancel);
    assert_eq!((m.status, m.reason.as_str()), (Status::Cancelled, "interrupted while preparing"));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_program_that_is_not_there_is_a_row_too() {
    let options = Options { program: "/nowhere/centime".into(), variables: vec![] };
    let m = run_trial(&request(5.0), &options, &mut |_| {}, &AtomicBool::new(false));
    assert_eq!(m.status, Status::Invalid);
    assert!(m.reason.contains("/nowhere/centime"), "{}", m.reason);
}
