//! `centime verify --weights-from`: the model of a folder of weights against logits of another framework, or against the oracle.

use super::{Arguments, Failure, backends, failure, head, path, print, routes_hang, threads};
use crate::transformer::BackendKind;
use crate::transformer::checkpoint::Checkpoint;
use crate::transformer::cpu::{Cpu, naive::Naive};
use crate::transformer::cuda::{Cuda, parts};
use crate::transformer::golden::stored::{Ids, compare, given, logits_of};
use crate::transformer::golden::{GoldenError, tolerance};
use anyhow::anyhow;
use std::path::Path;

/// Checks the folder's model on every backend that is asked for; how many are beyond the tolerance.
pub(super) fn run(a: &Arguments, folder: &Path) -> Result<usize, Failure> {
    let usage = |e: String| Failure::Usage(anyhow!("--weights-from {e}"));
    let stored = Checkpoint::open(folder).map_err(|e| usage(e.to_string()))?;
    let by_file = a.logits.as_ref().map(|file| given(file, &stored.shape)).transpose().map_err(failure)?;
    if by_file.is_none() && a.backend == Some(BackendKind::Naive) {
        return Err(usage("--backend naive: naive is what the others are checked against; give --logits".into()));
    }
    let mut backends = backends(a)?;
    backends.retain(|b| by_file.is_some() || *b != BackendKind::Naive);
    let (ids, theirs) = match by_file {
        Some(given) => given,
        None => {
            let ids = Ids::few(&stored.shape);
            let theirs = logits_of(&stored, Naive, &ids).map_err(failure)?;
            (ids, theirs)
        }
    };
    let mut failed = 0;
    for backend in backends {
        if let Some(why) = routes_hang(a, &stored.shape) {
            println!("{} on {backend}: skipped, {why}", folder.display());
            continue;
        }
        let lacking = parts::lacking_for(&stored.shape);
        if let (BackendKind::Cuda, Some(what)) = (backend, lacking) {
            println!("{} on {backend}: skipped, {what} are not built in there", folder.display());
            continue;
        }
        let ours = logits(a, &stored, backend, &ids)?;
        let tolerance = tolerance(a.dtype, a.weights, &stored.shape);
        let against =
            if a.logits.is_some() { String::new() } else { format!(", against {}", path(BackendKind::Naive)) };
        println!("{}{against}", head(a, folder, backend));
        failed += print(&[compare(&ours, &theirs)], |_| tolerance);
    }
    Ok(failed)
}

fn logits(a: &Arguments, stored: &Checkpoint, backend: BackendKind, ids: &Ids) -> Result<Vec<f32>, Failure> {
    match backend {
        BackendKind::Naive => logits_of(stored, Naive, ids),
        BackendKind::Cpu => {
            let cpu = Cpu::new(threads(a), None).map_err(GoldenError::from).map_err(failure)?;
            logits_of(stored, cpu.with_dtype(a.dtype).with_weights(a.weights), ids)
        }
        BackendKind::Cuda => {
            let cuda = Cuda::open(0, a.dtype).map_err(|e| Failure::Usage(e.into()))?.with_weights(a.weights);
            logits_of(stored, cuda, ids)
        }
    }
    .map_err(failure)
}
