//! `centime trial --compile`: the program's own way to its compiler, on a machine that needs no GPU.

use super::Failure;
use super::table::{Format, Rows};
use crate::transformer::cuda::device::{DeviceFacts, KernelName, Real};
use crate::transformer::cuda::driver;
use crate::transformer::prepare::kernels;
use crate::transformer::shape::{Family, Shape, ShapeSpec};
use crate::transformer::{Dtype, OptimizerKind, Phase, WeightFormat, Workload};
use anyhow::anyhow;

/// What is known of GPUs by compute capability, in tenths: the most shared memory of a block, in KiB (CUDA C++ Programming Guide,
/// technical specifications).
const SHARED_KIB: &[(u32, u32)] =
    &[(80, 163), (86, 99), (87, 163), (89, 99), (90, 227), (100, 227), (103, 227), (120, 99)];

/// Compiles what training and serving models of GPT-2's and of Llama's kind takes on a GPU of this compute capability, and prints how
/// long each kernel took.
pub(super) fn run(capability: u32) -> Result<(), Failure> {
    let Some((_, kib)) = SHARED_KIB.iter().find(|(known, _)| *known == capability) else {
        let all: Vec<String> = SHARED_KIB.iter().map(|(known, _)| known.to_string()).collect();
        return Err(Failure::Usage(anyhow!("--compile {capability}: use one of {}", all.join(", "))));
    };
    let facts = DeviceFacts {
        name: format!("a GPU of compute capability {}.{}", capability / 10, capability % 10),
        capability: (capability / 10, capability % 10),
        multiprocessors: 132,
        shared_bytes: kib << 10,
        memory_bytes: 80 << 30,
    };
    let mut all: Vec<KernelName> = Vec::new();
    for workload in workloads() {
        all.extend(kernels(&workload?, &facts).into_iter().filter(|k| !all.contains(k)).collect::<Vec<_>>());
    }
    let compiled = driver::compile(facts.capability, &all).map_err(|e| Failure::Internal(anyhow!(e)))?;
    let mut rows = Rows::new(&["kernel", "file", "format", "seconds"]);
    for (name, took) in all.iter().zip(&compiled.each) {
        let format = if name.real == Real::F32 { "f32" } else { "bf16" };
        let seconds = took.as_secs_f64();
        let said = [name.kernel, name.file, format].map(|text| text.to_string().into());
        rows.push(said.into_iter().chain([(format!("{seconds:.2}"), seconds).into()]).collect());
    }
    rows.print(Format::Table)?;
    let (major, minor) = compiled.version;
    let sum: f64 = compiled.each.iter().map(std::time::Duration::as_secs_f64).sum();
    super::output::print(&format!(
        "{} kernels for {} by NVRTC {major}.{minor} ({}): {sum:.1} s one by one, {:.1} s on all cores",
        all.len(),
        compiled.architecture,
        compiled.compiler.display(),
        compiled.together.as_secs_f64()
    ))
}

/// Small models with the heads of large ones: 64 numbers, and 128 with four heads to a key.
fn workloads() -> impl Iterator<Item = Result<Workload, Failure>> {
    let heads = [(Family::Gpt2, 256, 4, 4), (Family::Llama, 512, 4, 1)];
    let phases = [Phase::Train, Phase::Generate];
    let formats = [Dtype::F32, Dtype::Bf16];
    heads.into_iter().flat_map(move |of| phases.map(|phase| formats.map(|dtype| workload(of, phase, dtype)))).flatten()
}

fn workload(
    (family, width, heads, kv_heads): (Family, u32, u32, u32),
    phase: Phase,
    dtype: Dtype,
) -> Result<Workload, Failure> {
    let spec = ShapeSpec {
        n_layers: Some(1),
        d_model: Some(width),
        n_heads: Some(heads),
        n_kv_heads: Some(kv_heads),
        vocab_size: Some(512),
        ..ShapeSpec::default()
    };
    Ok(Workload {
        shape: Shape::new(family, &spec).map_err(|e| Failure::Internal(e.into()))?,
        phase,
        batch: 1,
        seq_len: 64,
        prompt_len: 32,
        new_tokens: 4,
        dtype,
        weights: WeightFormat::Dtype,
        optimizer: OptimizerKind::Adamw,
        dropout: 0.0,
        kv_cache: Default::default(),
        prefill_chunk: None,
        weights_from: None,
        levers: Default::default(),
    })
}
