//! Projecting: `cargo bench --bench projection`. A million configurations of each kind, none like the one before; and cells of a
//! sweep with the search for their layouts.

use centime::internal::hardware::built_in;
use centime::internal::projection::{
    InferenceEngine, Model, ProductFormat, Recompute, Serving, Training, Unit, Weights, base, project,
};
use centime::internal::transformer::{Family, Shape, ShapeSpec};
use centime::{Calibration, Dtype, OptimizerKind, Phase, WeightFormat, Workload};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;

const ROWS: u32 = 1_000_000;

fn device() -> Arc<Unit> {
    let book = built_in().expect("our price book");
    Unit::of(book.device("h100-sxm-80gb").expect("a device")).expect("a full entry").into()
}

fn projecting(c: &mut Criterion) {
    let (u, calibration) = (device(), Calibration::built_in().expect("our constants"));
    let constants = &calibration.constants;
    let model = Model::published([32.0, 4096.0, 32.0, 8.0, 128.0, 14336.0, 128_256.0], Some(8.03e9));
    let mut group = c.benchmark_group("a million trials");
    group.throughput(Throughput::Elements(u64::from(ROWS))).sample_size(10);
    group.bench_function("training", |b| {
        let mut t = Training {
            tensor: 2.0,
            pipeline: 2.0,
            micro_batch: 1.0,
            accumulation: 8.0,
            recompute: Recompute::Full,
            ..base(model, &u, 64.0, 4096.0, ProductFormat::Half)
        };
        b.iter(|| {
            for row in 0..ROWS {
                t.seq_len = f64::from(64 + row % 8192);
                black_box(t.step(constants));
            }
        });
    });
    group.bench_function("prefill and decode", |b| {
        let s = Serving {
            model,
            device: u.clone(),
            tensor: 2.0,
            stages: 1.0,
            weight_bytes: 2.0,
            table_bytes: 2.0,
            weights: Weights::Half,
            cache_bytes: 2.0,
            engine: InferenceEngine::Compiled,
            between_steps: false,
            by_hand: false,
            by_rows: false,
            narrow_sums: false,
            library_sums: false,
            old: false,
            all_logits: false,
        };
        b.iter(|| {
            for row in 0..ROWS {
                let n = f64::from(1 + row % 4096);
                black_box((s.prefill(1.0, n, constants), s.decode_step(1.0 + n / 64.0, n, constants)));
            }
        });
    });
    group.throughput(Throughput::Elements(1000));
    group.bench_function("a thousand cells on 8 devices, layouts searched", |b| {
        let spec = ShapeSpec { n_layers: Some(24), d_model: Some(2048), n_heads: Some(16), ..ShapeSpec::default() };
        let mut w = Workload {
            shape: Shape::new(Family::Gpt2, &spec).expect("a shape"),
            phase: Phase::Train,
            batch: 64,
            seq_len: 1024,
            prompt_len: 0,
            new_tokens: 0,
            dtype: Dtype::Bf16,
            weights: WeightFormat::Dtype,
            optimizer: OptimizerKind::Adamw,
            dropout: 0.0,
            kv_cache: Default::default(),
            prefill_chunk: None,
            weights_from: None,
            levers: Default::default(),
        };
        b.iter(|| {
            for row in 0..1000 {
                w.seq_len = 64 + row;
                let _ = black_box(project(&w, &u, 8, calibration));
            }
        });
    });
}

criterion_group!(benches, projecting);
criterion_main!(benches);
