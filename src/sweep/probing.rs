//! The GPUs of a run, with the limits that were measured on them before the sweep.

use crate::hardware::gpu::{Gpu, Probed};
use crate::runner::ask::ask;
use crate::runner::this_program;

/// Measures the limits of those that have none yet, each in a process of its own, so that none of their memory stays taken. One
/// that cannot be measured is held against its datasheet, and that is said.
pub(crate) fn probed(gpus: Vec<Gpu>, say: &mut dyn FnMut(String)) -> Vec<Gpu> {
    let one = |(ordinal, gpu): (usize, Gpu)| {
        if gpu.probed.is_some() {
            return gpu;
        }
        say(format!("probing GPU {ordinal} ({})", gpu.name));
        match limits(ordinal) {
            Ok(found) => Gpu { probed: Some(found), ..gpu },
            Err(why) => {
                say(format!("GPU {ordinal}: its limits cannot be probed ({why}); the datasheet's stand for them"));
                gpu
            }
        }
    };
    gpus.into_iter().enumerate().map(one).collect()
}

fn limits(ordinal: usize) -> Result<Probed, String> {
    let program = this_program().map_err(|e| e.to_string())?;
    let answer = ask(&program, &["trial", "--gpu-limits", &ordinal.to_string()]).map_err(|e| e.to_string())?;
    serde_json::from_str(&answer).map_err(|e| e.to_string())
}
