//! `centime verify`: golden files of other frameworks against the built-in transformer.

use super::Failure;
use crate::transformer::cpu::{Cpu, Instructions, naive::Naive};
use crate::transformer::cuda::{Cuda, driver};
use crate::transformer::golden::{self, Golden, GoldenError, Group};
use crate::transformer::prepare::supports;
use crate::transformer::{BackendKind, Dtype, WeightFormat};
use anyhow::anyhow;
use std::path::PathBuf;

/// Check the built-in transformer against golden files made by other frameworks.
///
/// A golden file is a safetensors file with weights (param/...), input_ids, targets, and any of logits, loss, gradients
/// (grad/...), parameters after optimizer steps (optim/NAME/afterK/...) and greedy tokens; its metadata hold the model's
/// Hugging Face config. Prints the largest relative error of each group; exits with 1 when one is above the tolerance (f32: 1e-4).
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Golden files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Check only this backend (naive, cpu, cuda); otherwise all that this machine has.
    #[arg(long, value_name = "NAME")]
    backend: Option<BackendKind>,
    /// Format of the factors of products; for bf16 and tf32 the tolerance is derived from their bits. The naive backend has f32
    /// alone, and tf32 is cuda's.
    #[arg(long, value_name = "NAME", default_value_t = Dtype::F32)]
    dtype: Dtype,
    /// How weights are stored; int8 checks the logits alone, with a tolerance derived from the 8 bits, on the cpu backend.
    #[arg(long, value_name = "NAME", default_value_t = WeightFormat::Dtype)]
    weights: WeightFormat,
    /// Threads of the cpu backend; every core otherwise.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    threads: Option<u32>,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    let threads = a.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u32));
    let backends = match a.backend {
        Some(b) => vec![b],
        None if driver::available().is_ok() => vec![BackendKind::Naive, BackendKind::Cpu, BackendKind::Cuda],
        None => vec![BackendKind::Naive, BackendKind::Cpu],
    };
    let backends: Vec<BackendKind> = backends.into_iter().filter(|b| supports(*b, a.dtype, a.weights)).collect();
    if backends.is_empty() {
        return Err(Failure::Usage(anyhow!(
            "--dtype {} --weights {}: no backend that is here has these; use f32 or bf16 (cpu), int8 (cpu), or tf32 (cuda)",
            a.dtype,
            a.weights
        )));
    }
    let mut failed = 0;
    for file in &a.files {
        let golden = Golden::open(file).map_err(failure)?;
        for &backend in &backends {
            let groups = match backend {
                BackendKind::Naive => golden::verify(&golden, Naive, a.weights),
                BackendKind::Cpu => {
                    let cpu = Cpu::new(threads as usize, None).map_err(|e| Failure::Internal(e.into()))?;
                    golden::verify(&golden, cpu.with_dtype(a.dtype).with_weights(a.weights), a.weights)
                }
                BackendKind::Cuda => {
                    let cuda = Cuda::open(0, a.dtype).map_err(|e| Failure::Usage(e.into()))?;
                    golden::verify(&golden, cuda, a.weights)
                }
            }
            .map_err(failure)?;
            let tolerance = golden::tolerance(a.dtype, a.weights, &golden.shape);
            let path = match backend {
                BackendKind::Cpu => Instructions::taken().name().to_string(),
                BackendKind::Naive => "plain loops".into(),
                BackendKind::Cuda => driver::available().map(|all| all[0].name.clone()).unwrap_or_default(),
            };
            let weights =
                if a.weights == WeightFormat::Dtype { String::new() } else { format!(", weights {}", a.weights) };
            println!("{} on {backend} ({path}), {}{weights}, tolerance {tolerance:.1e}", file.display(), a.dtype);
            failed += print(&groups, tolerance);
        }
    }
    if failed == 0 {
        println!("ok: every group is within its tolerance");
        Ok(())
    } else {
        println!("FAILED: {failed} group(s) above the tolerance");
        Err(Failure::Silent)
    }
}

/// Prints a line a group; returns how many failed.
fn print(groups: &[Group], tolerance: f64) -> usize {
    for g in groups {
        let verdict = if g.passes(tolerance) { "ok" } else { "FAILED" };
        let noise = match g.left_out {
            0 => String::new(),
            n => format!("; {n} elements left out, their gradient is rounding noise"),
        };
        println!(
            "  {:<24} {:>9.2e}  {verdict:<6}  {} compared, worst: {}{noise}",
            g.name, g.error, g.compared, g.worst
        );
    }
    groups.iter().filter(|g| !g.passes(tolerance)).count()
}

fn failure(e: GoldenError) -> Failure {
    match &e {
        GoldenError::Io { source, .. } if source.kind() != std::io::ErrorKind::NotFound => Failure::Io(e.into()),
        GoldenError::Session(_) => Failure::Internal(e.into()),
        _ => Failure::Usage(e.into()),
    }
}
