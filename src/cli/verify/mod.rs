//! `centime verify`: golden files of other frameworks against the built-in transformer, and a backend's operations against the oracle.

mod operations;
mod weights;

use super::Failure;
use super::table::Format;
use crate::transformer::cpu::{Cpu, Instructions, naive::Naive};
use crate::transformer::cuda::{Cuda, driver, parts};
use crate::transformer::golden::{self, Golden, GoldenError, Group};
use crate::transformer::operations::{Finding, Selection, Size, check};
use crate::transformer::prepare::supports;
use crate::transformer::shape::Shape;
use crate::transformer::{BackendKind, Dtype, WeightFormat};
use anyhow::anyhow;
use std::path::{Path, PathBuf};

/// Check the built-in transformer against golden files made by other frameworks.
///
/// A golden file is a safetensors file with weights (param/...), input_ids, targets, and any of logits, loss, gradients
/// (grad/...), parameters after optimizer steps (optim/NAME/afterK/...) and greedy tokens; its metadata hold the model's
/// Hugging Face config. Prints the largest relative error of each group; exits with 1 when one is above the tolerance (f32: 1e-4).
///
/// With --operations instead of files, each operation of a backend is checked against plain loops in f64, forward and backward, at
/// shapes that reach every kernel. Prints, for each operation and the kernels that ran, the number nearest to what it may be off by,
/// which follows from the format and the length of its sums; exits with 1 when one is beyond that.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Golden files.
    #[arg(required_unless_present_any = ["operations", "weights_from"], value_name = "FILE")]
    #[arg(conflicts_with_all = ["operations", "weights_from"])]
    files: Vec<PathBuf>,
    /// Check each operation by itself instead.
    #[arg(long)]
    operations: bool,
    /// Check the weights in this folder instead, config.json and safetensors files as Hugging Face's library saves them: each backend
    /// against plain loops, on a few tokens; with --logits against another framework.
    #[arg(long, value_name = "FOLDER", conflicts_with = "operations")]
    weights_from: Option<PathBuf>,
    /// A safetensors file with tokens (input_ids [B, T]) and the logits [B, T, V] that another framework has for them.
    #[arg(long, value_name = "FILE", requires = "weights_from")]
    logits: Option<PathBuf>,
    /// How much of it: `small` reaches every kernel at few short shapes, for use under a sanitizer; `full` adds sequences of 4096
    /// tokens, wide layers and a vocabulary of 50257, and is what is taken otherwise.
    #[arg(long, value_name = "SIZE", value_parser = operations::size)]
    size: Option<Size>,
    /// Only operations with this in their name.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// A row for every operation at every shape, not for the worst of each.
    #[arg(long)]
    each: bool,
    /// How the table of operations is printed.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Check only this backend (naive, cpu, cuda); otherwise all that this machine has.
    #[arg(long, value_name = "NAME")]
    backend: Option<BackendKind>,
    /// Format of the factors of products; for bf16 and tf32 the tolerance is derived from their bits. The naive backend has f32
    /// alone, and tf32 is cuda's.
    #[arg(long, value_name = "NAME", default_value_t = Dtype::F32)]
    dtype: Dtype,
    /// How weights are stored; int8, int4, int4-g128, int4-g128-zp (cpu) and f8 (cpu, cuda) check the logits alone, with a tolerance
    /// derived from their bits.
    #[arg(long, value_name = "NAME", default_value_t = WeightFormat::Dtype)]
    weights: WeightFormat,
    /// Threads of the cpu backend; every core otherwise.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    threads: Option<u32>,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    if a.operations {
        return run_operations(a);
    }
    if a.size.is_some() || a.only.is_some() || a.each || a.format.is_some() {
        return Err(Failure::Usage(anyhow!(
            "--size, --only, --each and --format go with --operations, and not with files"
        )));
    }
    let failed = match &a.weights_from {
        Some(folder) => weights::run(a, folder)?,
        None => run_golden(a)?,
    };
    if failed > 0 {
        println!("FAILED: {failed} group(s) above the tolerance");
        return Err(Failure::Silent);
    }
    println!("ok: every group is within its tolerance");
    Ok(())
}

/// The backends to check: the one that is named, or all that are here and have the formats, but for the oracle where that is what they
/// are checked against.
fn backends(a: &Arguments) -> Result<Vec<BackendKind>, Failure> {
    let naive = |b: &BackendKind| a.operations && *b == BackendKind::Naive;
    if a.backend.as_ref().is_some_and(naive) {
        let text = "--operations --backend naive: naive is what the others are checked against; use cpu or cuda";
        return Err(Failure::Usage(anyhow!(text)));
    }
    let backends = match a.backend {
        Some(b) => vec![b],
        None if driver::available().is_ok() => vec![BackendKind::Naive, BackendKind::Cpu, BackendKind::Cuda],
        None => vec![BackendKind::Naive, BackendKind::Cpu],
    };
    let mut backends: Vec<BackendKind> = backends.into_iter().filter(|b| supports(*b, a.dtype, a.weights)).collect();
    backends.retain(|b| !naive(b));
    if backends.is_empty() {
        return Err(Failure::Usage(anyhow!(
            "--dtype {} --weights {}: no backend that is here has these; use f32 or bf16 (cpu), int8 or int4 (cpu), f8 (cpu, cuda), or tf32 (cuda)",
            a.dtype,
            a.weights
        )));
    }
    Ok(backends)
}

/// Checks golden files; how many groups are above the tolerance.
fn run_golden(a: &Arguments) -> Result<usize, Failure> {
    let (threads, backends) = (threads(a), backends(a)?);
    let mut failed = 0;
    for file in &a.files {
        let golden = Golden::open(file).map_err(failure)?;
        for &backend in &backends {
            if let Some(why) = routes_hang(a, &golden.shape) {
                println!("{} on {backend}: skipped, {why}", file.display());
                continue;
            }
            let lacking = parts::lacking_for(&golden.shape);
            if let (BackendKind::Cuda, Some(what)) = (backend, lacking) {
                println!("{} on {backend}: skipped, {what} are not built in there", file.display());
                continue;
            }
            let groups = match backend {
                BackendKind::Naive => golden::verify(&golden, Naive, a.weights),
                BackendKind::Cpu => {
                    let cpu = Cpu::new(threads, None).map_err(|e| Failure::Internal(e.into()))?;
                    golden::verify(&golden, cpu.with_dtype(a.dtype).with_weights(a.weights), a.weights)
                }
                BackendKind::Cuda => {
                    let cuda = Cuda::open(0, a.dtype).map_err(|e| Failure::Usage(e.into()))?.with_weights(a.weights);
                    Cuda::rehearse(std::slice::from_ref(&cuda), |rank| golden::verify(&golden, rank, a.weights));
                    golden::verify(&golden, cuda, a.weights)
                }
            }
            .map_err(failure)?;
            println!("{}", head(a, file, backend));
            failed += print(&groups, |g| golden::allowed(g, &golden, a.dtype, a.weights));
        }
    }
    Ok(failed)
}

/// Why a model is not compared in the formats that are asked for: an expert in another's place says something else altogether.
fn routes_hang(a: &Arguments, shape: &Shape) -> Option<String> {
    let hangs = |on: String| format!("which experts a token goes to hangs on rounding in {on}");
    shape.experts?;
    match (a.dtype, a.weights) {
        (_, weights) if weights != WeightFormat::Dtype => Some(hangs(format!("weights of {weights}"))),
        (Dtype::F32, _) => None,
        (dtype, _) => Some(hangs(dtype.to_string())),
    }
}

/// The line above a backend's groups.
fn head(a: &Arguments, file: &Path, backend: BackendKind) -> String {
    let weights = if a.weights == WeightFormat::Dtype { String::new() } else { format!(", weights {}", a.weights) };
    let path = path(backend);
    format!("{} on {backend} ({path}), {}{weights}", file.display(), a.dtype)
}

/// What a backend computes with.
fn path(backend: BackendKind) -> String {
    match backend {
        BackendKind::Cpu => Instructions::taken().name().to_string(),
        BackendKind::Naive => "plain loops".into(),
        BackendKind::Cuda => driver::available().map(|all| all[0].name.clone()).unwrap_or_default(),
    }
}

fn threads(a: &Arguments) -> usize {
    a.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), |n| n as usize)
}

fn run_operations(a: &Arguments) -> Result<(), Failure> {
    if a.weights != WeightFormat::Dtype {
        let text = "--operations checks weights in the format of --dtype; leave --weights out";
        return Err(Failure::Usage(anyhow!(text)));
    }
    let (threads, mut failed) = (threads(a), 0);
    let of = Selection { size: a.size.unwrap_or(Size::Full), only: a.only.as_deref() };
    for backend in backends(a)? {
        let began = std::time::Instant::now();
        let found: Vec<Finding> = if backend == BackendKind::Cuda {
            check(&Cuda::open(0, a.dtype).map_err(|e| Failure::Usage(e.into()))?, of, threads)
        } else {
            let cpu = Cpu::new(threads, None).map_err(|e| Failure::Internal(e.into()))?;
            check(&cpu.with_dtype(a.dtype), of, threads)
        };
        if found.is_empty() {
            let text = format!("--only {}: no operation has this in its name", a.only.as_deref().unwrap_or_default());
            return Err(Failure::Usage(anyhow!(text)));
        }
        let shown = if a.each { operations::Shown::Each } else { operations::Shown::Worst };
        let beyond = operations::print(&found, shown, a.format.unwrap_or(Format::Table))?;
        failed += beyond;
        // Beside the table, which may be a file's content.
        eprintln!(
            "{backend} ({}), {}: {} numbers of {} operations at their shapes, {beyond} of these beyond what they may be off by, {:.0} s",
            path(backend),
            a.dtype,
            found.iter().map(|f| f.compared).sum::<usize>(),
            found.len(),
            began.elapsed().as_secs_f64()
        );
    }
    verdict(failed)
}

/// Of so many operations that failed.
fn verdict(failed: usize) -> Result<(), Failure> {
    if failed > 0 {
        eprintln!("FAILED: {failed} operation(s)");
        return Err(Failure::Silent);
    }
    eprintln!("ok: every operation is within what its format and its sums allow");
    Ok(())
}

/// Prints a line a group; returns how many failed.
fn print(groups: &[Group], allowed: impl Fn(&Group) -> f64) -> usize {
    let mut failed = 0;
    for g in groups {
        let allowed = allowed(g);
        let passes = g.passes(allowed);
        failed += usize::from(!passes);
        let verdict = if passes { "ok" } else { "FAILED" };
        let noise = match g.left_out {
            0 => String::new(),
            n if g.name == "greedy" => format!("; {n} sequences end in a tie of this format"),
            n => format!("; {n} elements left out, their gradient is noise in this format"),
        };
        println!(
            "  {:<24} {:>9.2e} of {allowed:.1e}  {verdict:<6}  {} compared, worst: {}{noise}",
            g.name, g.error, g.compared, g.worst
        );
    }
    failed
}

fn failure(e: GoldenError) -> Failure {
    match &e {
        GoldenError::Io { source, .. } if source.kind() != std::io::ErrorKind::NotFound => Failure::Io(e.into()),
        GoldenError::Session(_) => Failure::Internal(e.into()),
        _ => Failure::Usage(e.into()),
    }
}
