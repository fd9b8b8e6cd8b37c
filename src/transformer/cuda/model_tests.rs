//! The whole model on the backend, its kernels run by the host: golden files of other frameworks, the oracle, recorded steps.

use super::super::WeightFormat;
use super::super::golden::{self, Golden};
use super::host::HostDevice;
use super::*;
use std::path::Path;

/// A backend on the host, or `None`, which the device has explained.
fn cuda(dtype: Dtype) -> Option<Cuda> {
    HostDevice::new().map(|host| Cuda::on_device(Arc::new(host), dtype).unwrap())
}

fn verify(name: &str, dtype: Dtype) {
    let Some(cuda) = cuda(dtype) else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let golden = Golden::open(&folder.join(name)).unwrap();
    let groups = golden::verify(&golden, cuda.clone(), WeightFormat::Dtype).unwrap();
    crate::transformer::backend::Backend::check(&cuda).unwrap();
    let tolerance = golden::tolerance(dtype, WeightFormat::Dtype, &golden.shape);
    let names: Vec<&str> = groups.iter().map(|g| g.name.as_str()).collect();
    assert!(names.contains(&"gradients") && names.iter().any(|n| n.starts_with("optimizer")), "{names:?}");
    for g in &groups {
        eprintln!("{name} {dtype}: {:<20} {:.2e} of {tolerance:.2e}, worst {}", g.name, g.error, g.worst);
    }
    for g in groups {
        assert!(g.passes(tolerance), "{name} {dtype}: {g:?}, tolerance {tolerance}");
    }
}

#[test]
fn gpt2_agrees_with_pytorch() {
    verify("gpt2.safetensors", Dtype::F32);
    verify("gpt2.safetensors", Dtype::Bf16);
}

#[test]
fn llama_agrees_with_pytorch() {
    verify("llama-gqa.safetensors", Dtype::F32);
    verify("llama-gqa.safetensors", Dtype::Bf16);
}

#[test]
fn the_block_agrees_with_keras() {
    verify("keras-block.safetensors", Dtype::F32);
    verify("keras-block.safetensors", Dtype::Bf16);
}
