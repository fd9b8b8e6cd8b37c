//! Runs made in code: what tests of cost, comparison and report read instead of a measurement.

use centime::internal::hardware::{Gpu, Machine, Probe, Reason, built_in};
use centime::internal::results::SCHEMA_VERSION;
use centime::internal::runner::{GpuFigures, Telemetry};
use centime::internal::transformer::{DeviceMemory, Family, Shape, ShapeSpec, count};
use centime::{
    BackendKind, Book, Cell, Dtype, Environment, Figures, Measure, Measurement, MemoryParts, OptimizerKind, Order,
    Phase, Price, Record, Run, Share, Status, Stop, Tolerated, Trial, UsdPerHour, WeightFormat, Workload,
};
use std::sync::OnceLock;

/// A GPT-2 shape with a vocabulary of 8192.
pub(crate) fn shape(n_layers: u32, d_model: u32, n_heads: u32) -> Shape {
    let spec = ShapeSpec {
        n_layers: Some(n_layers),
        d_model: Some(d_model),
        n_heads: Some(n_heads),
        vocab_size: Some(8192),
        ..ShapeSpec::default()
    };
    Shape::new(Family::Gpt2, &spec).unwrap()
}

/// A training step of 256-token sequences.
pub(crate) fn trial(d_model: u32, n_heads: u32, batch: u32, devices: u32) -> Trial {
    Trial {
        model: format!("gpt2 6x{d_model}"),
        workload: Workload {
            shape: shape(6, d_model, n_heads),
            phase: Phase::Train,
            batch,
            seq_len: 256,
            prompt_len: 128,
            new_tokens: 33,
            dtype: Dtype::F32,
            weights: WeightFormat::Dtype,
            optimizer: OptimizerKind::Adamw,
            dropout: 0.0,
            kv_cache: Default::default(),
            prefill_chunk: None,
            weights_from: None,
            levers: Default::default(),
        },
        backend: BackendKind::Cpu,
        devices,
        parallel: None,
        engine: None,
        learning: None,
        cores_per_device: 1,
    }
}

pub(crate) fn cell(trial: Trial, coordinates: &[(&str, u32)]) -> Cell {
    Cell { trial, coordinates: coordinates.iter().map(|(path, v)| ((*path).to_owned(), v.to_string())).collect() }
}

/// Step times about `seconds`, 1.5 % up and down, as many as 4 s of measuring give (at least 12).
pub(crate) fn steps(seconds: f64) -> Vec<f64> {
    let n = ((4.0 / seconds) as usize).clamp(12, 200);
    (0..n).map(|i| seconds * (1.0 + 0.015 * ((i * 7919 % 101) as f64 / 50.0 - 1.0))).collect()
}

/// Predicted bytes of a training step: four numbers a parameter, and activations.
pub(crate) fn predicted(w: &Workload) -> MemoryParts {
    let weights = count::parameters(&w.shape).unwrap() * 4;
    let tokens = u64::from(w.batch) * u64::from(w.seq_len);
    MemoryParts {
        weights_bytes: weights,
        gradients_bytes: weights,
        optimizer_bytes: 2 * weights,
        activations_bytes: tokens * u64::from(w.shape.d_model) * u64::from(w.shape.n_layers) * 64,
        kv_cache_bytes: 0,
        workspace_bytes: 1 << 20,
    }
}

/// A trial that ran at `gflops` GFLOP/s.
pub(crate) fn measured(trial: &Trial, gflops: f64) -> Measurement {
    let w = &trial.workload;
    let seconds = count::flops_per_step(w).unwrap().get() as f64 / (gflops * 1e9);
    let memory = predicted(w);
    let total = memory.total().unwrap().get();
    let step_seconds = steps(seconds);
    let first = if w.phase == Phase::Generate { step_seconds.iter().map(|s| s * 0.25).collect() } else { vec![] };
    Measurement {
        status: Status::Ok,
        reason: String::new(),
        figures: Some(Figures {
            first_token_seconds: first,
            launches: vec![],
            warmup_steps: 5,
            tokens_per_step: w.tokens_per_step(),
            stopped_by: Stop::Precision,
            precision_reached: Some(0.004),
            peak_rss_bytes: total + total / 12 + (28 << 20),
            baseline_rss_bytes: 28 << 20,
            peak_allocated_bytes: total + total / 20,
            device_memory: None,
            expert_loads: None,
            loss: (w.phase == Phase::Train).then_some(9.01),
            checksum: 0xC0FFEE,
            quantization_loss: None,
            steal_share: Some(0.0),
            watts: None,
            telemetry: None,
            machine_rates: Vec::new(),
            disturbance: None,
            served: vec![],
            profile: None,
            learned: vec![],
            first_allocated_bytes: None,
            step_seconds,
        }),
        predicted_memory: memory,
        trial_seconds: 5.5,
    }
}

pub(crate) fn record(index: u32, run_order: u32, cell: Cell, measurement: Measurement) -> Record {
    Record {
        schema_version: SCHEMA_VERSION,
        trial_id: cell.trial.id(),
        cell_index: index,
        run_order,
        again: 0,
        round: 0,
        cell,
        measurement,
        started_at: format!("2026-11-23T10:{:02}:00Z", index % 60),
    }
}

pub(crate) fn environment(name: &str, axes: &[&str], requested_cells: u32) -> Environment {
    Environment {
        schema_version: SCHEMA_VERSION,
        scenario_name: name.into(),
        description: "Which width, batch and number of devices give the cheapest training token on two cores?".into(),
        axes: axes.iter().map(|&a| a.into()).collect(),
        requested_cells,
        trial_ids: Vec::new(),
        measure: Measure {
            precision: 0.01,
            min_seconds: 1.0,
            max_seconds: 4.0,
            warmup_steps: None,
            rounds: None,
            seed: 7,
            seeds: Vec::new(),
            order: Order::Shuffled,
            timeout_seconds: 120.0,
            ignore_memory: false,
            disturbed: Tolerated::default(),
        },
        price: Price {
            hardware: "local".into(),
            usd_per_hour: UsdPerHour::of(0.0856),
            source: "a rented instance of 2 vCPUs, on demand".into(),
            utilisation: Share(1.0),
            ..Price::default()
        },
        program_version: "0.1.0".into(),
        machine: Machine {
            hostname: "fixture".into(),
            cpu_model: "Example CPU @ 2.90GHz".into(),
            architecture: "x86_64".into(),
            cores: 2,
            memory_bytes: 8 << 30,
            os: "Linux".into(),
            kernel: "6.1.0".into(),
            instruction_sets: ["avx2", "fma", "avx512f"].map(String::from).into(),
            caches: vec![("L1d".into(), 32 << 10), ("L2".into(), 1 << 20), ("L3".into(), 32 << 20)],
        },
        variation: None,
        probe: Some(Probe {
            f32_flops_per_second_one_core: 90e9,
            f32_flops_per_second: 170e9,
            bf16_flops_per_second: None,
            read_bytes_per_second_one_core: 11e9,
            read_bytes_per_second: 18e9,
            spread: 0.013,
            steal_share: Some(0.0),
        }),
        best_rates: None,
        gpus: Vec::new(),
        started_at: "2026-11-23T10:00:00Z".into(),
        command: format!("run scenarios/{name}.yaml"),
    }
}

/// A complete run of these records.
pub(crate) fn run(mut environment: Environment, records: Vec<Record>) -> Run {
    environment.trial_ids = records.iter().map(|r| r.trial_id.clone()).collect();
    Run { environment, records }
}

/// Twelve cells over width, batch and devices: nine measured, one out of memory, one crashed, one skipped.
pub(crate) fn sweep() -> Run {
    let mut records = Vec::new();
    for d_model in [256, 384] {
        for batch in [1, 4, 8] {
            for devices in [1, 2] {
                let i = records.len() as u32;
                let trial = trial(d_model, d_model / 64, batch, devices);
                let at = [("model.d_model", d_model), ("batch", batch), ("devices", devices)];
                let memory = predicted(&trial.workload);
                let bad = |status, reason: &str| Measurement::without_figures(status, reason, memory);
                let outcome = match i {
                    1 => bad(Status::Skipped, "batch 1 cannot be split over 2 devices"),
                    7 => bad(Status::Crashed, "signal 11 (SIGSEGV)"),
                    11 => bad(Status::Oom, "the kernel killed the process at 7.2 GiB"),
                    _ => {
                        let single = 20.0 + 18.0 * f64::from(batch).log2() / 3.0 + f64::from(d_model) / 32.0;
                        measured(&trial, single * if devices == 2 { 1.72 } else { 1.0 })
                    }
                };
                records.push(record(i, (i * 5) % 12, cell(trial, &at), outcome));
            }
        }
    }
    run(environment("fixture", &["model.d_model", "batch", "devices"], 12), records)
}

/// Head counts at equal parameters, on one device.
pub(crate) fn heads() -> Run {
    let records = [1u32, 2, 4, 8, 16, 32].iter().enumerate().map(|(i, &n_heads)| {
        let trial = trial(512, n_heads, 4, 1);
        let outcome = measured(&trial, 60.0 - 2.0 * (f64::from(n_heads).log2() - 2.0).powi(2));
        record(i as u32, i as u32, cell(trial, &[("model.n_heads", n_heads)]), outcome)
    });
    run(environment("heads", &["model.n_heads"], 6), records.collect())
}

/// One phase over batches: latencies and, in `generate`, input and output apart.
pub(crate) fn phase(phase: Phase) -> Run {
    let records = [1u32, 2, 4, 8].iter().enumerate().map(|(i, &batch)| {
        let mut trial = trial(256, 4, batch, 1);
        trial.workload.phase = phase;
        let outcome = measured(&trial, 8.0 * f64::from(batch).sqrt());
        record(i as u32, i as u32, cell(trial, &[("batch", batch)]), outcome)
    });
    run(environment("phase", &["batch"], 4), records.collect())
}

/// What an H100 told: `throttled` of the readings under its power cap.
fn telemetry(throttled: f64, mhz: f64, steps: usize, bytes: u64) -> Telemetry {
    let gpu = GpuFigures {
        index: 0,
        name: "NVIDIA H100 80GB HBM3".into(),
        samples: 40,
        mean_sm_mhz: Some(mhz),
        p10_sm_mhz: Some(mhz - 90.0),
        mean_memory_mhz: Some(2619.0),
        reference_sm_mhz: Some(1980.0),
        max_sm_mhz: Some(1980.0),
        mean_watts: Some(640.0),
        joules: Some(2560.0),
        max_celsius: Some(63),
        reasons: if throttled > 0.0 { vec![Reason::PowerCap] } else { vec![] },
        throttled_share: Some(throttled),
        peak_used_bytes: Some(bytes + (1 << 29)),
        peak_process_bytes: Some(bytes),
        other_processes: Some(0),
        mig: false,
        lost_after_seconds: None,
    };
    let throttled_steps = (throttled * steps as f64).ceil() as u64;
    Telemetry { gpus: vec![gpu], throttled_steps, notes: vec![] }
}

/// Training on an H100 over batches: the second throttled by its power cap, the third at less than 75 % of its clock, the
/// fourth on a driver that does not tell.
pub(crate) fn gpus() -> Run {
    let records = [8u32, 16, 32, 64].iter().enumerate().map(|(i, &batch)| {
        let mut trial = trial(768, 12, batch, 1);
        trial.backend = BackendKind::Cuda;
        trial.workload.dtype = Dtype::Bf16;
        let mut outcome = measured(&trial, [310e3, 402e3, 280e3, 431e3][i]);
        let figures = outcome.figures.as_mut().unwrap();
        let (steps, bytes) = (figures.step_seconds.len(), (1 << 30) + (u64::from(batch) << 28));
        let predicted = outcome.predicted_memory.total().map_or(0, |b| b.get());
        // Of the last one, as from before there was such a figure, nothing.
        figures.device_memory = (i < 3).then(|| DeviceMemory {
            peak_allocated_bytes: predicted - predicted / 50,
            peak_reserved_bytes: predicted + predicted / 50,
        });
        figures.telemetry = Some(match i {
            0 => telemetry(0.0, 1950.0, steps, bytes),
            1 => telemetry(0.35, 1710.0, steps, bytes),
            2 => telemetry(0.0, 1310.0, steps, bytes),
            _ => Telemetry {
                notes: vec!["the driver does not tell its clock, power, throttling".into()],
                ..Telemetry::default()
            },
        });
        record(i as u32, i as u32, cell(trial, &[("batch", batch)]), outcome)
    });
    let records = records.collect();
    let gpu = Gpu {
        index: 0,
        name: "NVIDIA H100 80GB HBM3".into(),
        uuid: "GPU-00000000-0000-0000-0000-000000000000".into(),
        driver: "580.65.06".into(),
        memory_bytes: 81_559 << 20,
        default_sm_mhz: Some(1980),
        max_sm_mhz: Some(1980),
        max_memory_mhz: Some(2619),
        power_limit_watts: Some(700.0),
        mig: Some(false),
        probed: None,
    };
    let mut environment = environment("gpus", &["batch"], 4);
    environment.gpus = vec![gpu];
    environment.description = "Which batch makes the cheapest training token on one GPU?".into();
    run(environment, records)
}

/// The price book that the program carries.
pub(crate) fn book() -> &'static Book {
    static BOOK: OnceLock<Book> = OnceLock::new();
    BOOK.get_or_init(|| built_in().expect("our own price book"))
}
