//! The CPU backend's operations at the shapes of GPT-2 small, and whole steps of a small model: `cargo bench`, or with
//! `-- --quick` for a first look. Throughput is in FLOPs or bytes a second (elements here are FLOPs).

use centime::internal::transformer::{
    Activation, Alloc, AttentionDims, Backend, CacheDims, CacheElement, Category, Cpu, Family, Frequencies, LinearDims,
    NormDims, Parallel, Rope, Scores, SessionOptions, Shape, ShapeSpec, Store, Update, Updated, count, prepare,
};
use centime::{BackendKind, Dtype, OptimizerKind, Phase, WeightFormat, Workload};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use std::time::Instant;

type Buffer = <Cpu as Alloc>::Buffer;

/// N rows (batch 4 of 256 tokens), C = d_model, F = feed-forward width.
const N: usize = 1024;
const C: usize = 768;
const F: usize = 4 * C;
const V: usize = 16384;

struct Bench<'a> {
    cpu: Cpu,
    group: BenchmarkGroup<'a, WallTime>,
}

impl Bench<'_> {
    fn buffer(&self, len: usize) -> Buffer {
        let values: Vec<f32> = (0..len).map(|i| ((i * 2_654_435_761) % 1000) as f32 / 1000.0 - 0.5).collect();
        let mut b = self.cpu.alloc(len, Category::Workspace).expect("memory for a bench");
        self.cpu.upload(&values, &mut b);
        b
    }

    /// Times an operation where a rank would run it, without a hand-over to the pool for each call.
    fn time(&mut self, name: &str, amount: Throughput, mut operation: impl FnMut(&Cpu) + Send) {
        self.group.throughput(amount);
        let cpu = &self.cpu;
        self.group.bench_function(name, |b| {
            b.iter_custom(|n| {
                cpu.enter(|| {
                    let start = Instant::now();
                    (0..n).for_each(|_| operation(cpu));
                    start.elapsed()
                })
            });
        });
    }
}

fn flops(n: usize) -> Throughput {
    Throughput::Elements(n as u64)
}

fn bytes(floats: usize) -> Throughput {
    Throughput::Bytes(4 * floats as u64)
}

fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

fn products(b: &mut Bench) {
    for (name, n, k, m) in [("qkv", N, C, 3 * C), ("up", N, C, F), ("down", N, F, C), ("one row", 1, C, F)] {
        let d = LinearDims { n, k, m };
        let (x, w, bias, dout) = (b.buffer(n * k), b.buffer(m * k), b.buffer(m), b.buffer(n * m));
        let (mut out, mut dx, mut dw, mut db) = (b.buffer(n * m), b.buffer(n * k), b.buffer(m * k), b.buffer(m));
        let work = flops(2 * n * k * m);
        b.time(&format!("linear {name}"), work.clone(), |cpu| {
            cpu.linear(&x, &w, Some(&bias), &mut out, Store::Overwrite, d);
        });
        if n > 1 {
            b.time(&format!("gemm's {name}"), work.clone(), |_| peer(x.plain(), w.plain(), out.plain_mut(), d));
            b.time(&format!("linear_dx {name}"), work.clone(), |cpu| {
                cpu.linear_dx(&dout, &w, &mut dx, Store::Overwrite, d);
            });
            b.time(&format!("linear_dw {name}"), work, |cpu| cpu.linear_dw(&x, &dout, &mut dw, Some(&mut db), d));
        }
    }
}

/// The same product by the gemm crate, on all cores.
fn peer(x: &[f32], w: &[f32], out: &mut [f32], d: LinearDims) {
    let LinearDims { n, k, m } = d;
    assert!(x.len() >= n * k && w.len() >= m * k && out.len() >= n * m);
    // SAFETY: the matrices are as long as the dimensions say, checked above, and `out` is borrowed exclusively.
    unsafe {
        gemm::gemm(
            n,
            m,
            k,
            out.as_mut_ptr(),
            1,
            m as isize,
            false,
            x.as_ptr(),
            1,
            k as isize,
            w.as_ptr(),
            k as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}

fn attention(b: &mut Bench) {
    let (batch, tokens, heads, head_dim) = (4, 256, 12, 64);
    let d = AttentionDims { batch, tokens, heads, kv_heads: heads, head_dim, causal: true, scores: Scores::default() };
    let rows = batch * tokens;
    let (mut qkv, dout) = (b.buffer(rows * 3 * C), b.buffer(rows * C));
    let (mut out, mut lse, mut dqkv) = (b.buffer(rows * C), b.buffer(rows * heads), b.buffer(rows * 3 * C));
    // Of the full square, as the convention counts; a kernel that skips the masked half may show more than the peak.
    let forward = 4 * batch * heads * tokens * tokens * head_dim;
    b.time("attention", flops(forward), |cpu| cpu.attention(&qkv, &mut out, &mut lse, d));
    b.time("attention_backward", flops(5 * forward / 2), |cpu| {
        cpu.attention_backward(&qkv, &out, &dout, &lse, &mut dqkv, d);
    });
    let f = Frequencies::new(&Rope { theta: 10000.0, scaling: None }, head_dim);
    b.time("rope", bytes(2 * 2 * rows * C), |cpu| cpu.rope(&mut qkv, &f, 0, false, d));
    let capacity = 512;
    let one = AttentionDims { tokens: 1, ..d };
    let q = b.buffer(batch * 3 * C);
    let mut answer = b.buffer(batch * C);
    let elements = [
        ("f32", CacheElement::F32),
        ("bf16", CacheElement::Bf16),
        ("int8", CacheElement::Int8),
        ("f8", CacheElement::F8),
    ];
    for (name, element) in elements {
        let cached = CacheDims { batch, kv_heads: heads, head_dim, capacity, element };
        let cache = b.buffer(cached.words());
        b.time(&format!("attention_cached {name}"), bytes(cached.words()), |cpu| {
            cpu.attention_cached(&q, &cache, &mut answer, None, capacity, one, cached);
        });
    }
}

fn rows(b: &mut Bench) {
    let (x, gain, bias, dout) = (b.buffer(N * C), b.buffer(C), b.buffer(C), b.buffer(N * C));
    let (mut out, mut stats, mut dx) = (b.buffer(N * C), b.buffer(2 * N), b.buffer(N * C));
    let (mut dgain, mut dbias) = (b.buffer(C), b.buffer(C));
    for rms in [false, true] {
        let d = NormDims { n: N, c: C, eps: 1e-5, rms, gain_offset: 0.0 };
        let name = if rms { "rms_norm" } else { "layer_norm" };
        b.time(name, bytes(2 * N * C), |cpu| {
            cpu.norm(&x, &gain, (!rms).then_some(&bias), &mut out, &mut stats, d);
        });
        b.time(&format!("{name}_backward"), bytes(4 * N * C), |cpu| {
            let dbias = (!rms).then_some(&mut dbias);
            cpu.norm_backward(&x, &gain, &stats, &dout, &mut dx, &mut dgain, dbias, d);
        });
    }
    for (name, kind, inputs) in [("gelu_tanh", Activation::GeluTanh, 1), ("swi_glu", Activation::SwiGlu, 2)] {
        let (mut pre, dout) = (b.buffer(inputs * N * F), b.buffer(N * F));
        let mut out = b.buffer(N * F);
        b.time(name, bytes((inputs + 1) * N * F), |cpu| cpu.activation(kind, &pre, &mut out, N, F));
        // In place: the copy keeps the inputs from decaying to denormal numbers, and counts as bytes moved.
        let fresh = b.buffer(inputs * N * F);
        b.time(&format!("{name}_backward"), bytes((4 * inputs + 1) * N * F), |cpu| {
            cpu.copy(&fresh, &mut pre, inputs * N * F);
            cpu.activation_backward(kind, &mut pre, &dout, N, F);
        });
    }
}

fn vocabulary(b: &mut Bench) {
    let ids: Vec<u32> = (0..N as u32).map(|i| i * 37 % V as u32).collect();
    let (table, positions, x) = (b.buffer(V * C), b.buffer(256 * C), b.buffer(N * C));
    let (mut out, mut dx, mut dtable) = (b.buffer(N * C), b.buffer(N * C), b.buffer(V * C));
    b.time("embed", bytes(3 * N * C), |cpu| cpu.embed(&ids, 256, 0, &table, Some(&positions), &mut out, C));
    let d = LinearDims { n: N, k: C, m: V };
    b.time("cross_entropy with gradients", flops(6 * N * C * V), |cpu| {
        cpu.cross_entropy(&x, &table, &ids, Some((&mut dx, &mut dtable)), None, d);
    });
}

fn optimizers(b: &mut Bench) {
    let len = 4 << 20;
    for kind in OptimizerKind::ALL {
        let update = Update {
            kind: *kind,
            learning_rate: 1e-4,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            momentum: 0.0,
            eps_before_correction: false,
        };
        let moments = kind.moments(0.0);
        let (mut p, g, mut m, mut v) = (b.buffer(len), b.buffer(len), b.buffer(len), b.buffer(len));
        let positive: Vec<f32> = vec![0.5; len];
        b.cpu.upload(&positive, &mut v);
        b.time(kind.name(), bytes((3 + 2 * moments) * len), |cpu| {
            let (first, second) = ((moments > 0).then_some(&mut m), (moments > 1).then_some(&mut v));
            cpu.update(&update, 3, None, Updated { part: 0..len, parameter: &mut p, gradient: &g, first, second });
        });
    }
}

fn operations(c: &mut Criterion) {
    type Part = (&'static str, fn(&mut Bench));
    let parts: [Part; 5] = [
        ("products", products),
        ("attention", attention),
        ("rows", rows),
        ("vocabulary", vocabulary),
        ("optimizers", optimizers),
    ];
    for (name, part) in parts {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            // Only products have a format of their factors.
            let of_products = matches!(name, "products" | "attention" | "vocabulary");
            if dtype == Dtype::Bf16 && !of_products {
                continue;
            }
            let cpu = Cpu::new(all_cores(), None).expect("a thread pool").with_dtype(dtype);
            let mut bench = Bench { cpu, group: c.benchmark_group(format!("{name}-{dtype}")) };
            part(&mut bench);
            bench.group.finish();
        }
    }
}

fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("steps");
    let spec = ShapeSpec {
        n_layers: Some(6),
        d_model: Some(384),
        n_heads: Some(6),
        vocab_size: Some(8192),
        ..ShapeSpec::default()
    };
    let shape = Shape::new(Family::Gpt2, &spec).expect("a shape that works");
    let dtypes = [Dtype::F32, Dtype::Bf16];
    for (phase, dtype) in [Phase::Train, Phase::Prefill, Phase::Decode].into_iter().flat_map(|p| dtypes.map(|d| (p, d)))
    {
        let workload = Workload {
            shape: shape.clone(),
            phase,
            batch: 4,
            seq_len: 256,
            prompt_len: 256,
            new_tokens: 32,
            dtype,
            weights: WeightFormat::Dtype,
            optimizer: OptimizerKind::Adamw,
            dropout: 0.0,
            kv_cache: Default::default(),
            prefill_chunk: None,
            weights_from: None,
            levers: Default::default(),
        };
        let threads = all_cores() as u32;
        let options = SessionOptions {
            backend: BackendKind::Cpu,
            parallel: Parallel::replicas(1),
            threads_per_rank: threads,
            seed: 0,
        };
        let mut session = prepare(&workload, &options).expect("a session");
        group.throughput(Throughput::Elements(count::flops_per_step(&workload).expect("FLOPs").get()));
        group.bench_function(format!("{phase} {dtype}"), |b| b.iter(|| session.step().expect("a step")));
    }
    group.finish();
}

criterion_group!(benches, operations, steps);
criterion_main!(benches);
