//! Ranges that a tool is shown of training steps, on the host's device and on the CPU. A process of its own has each tool.

use super::super::BackendKind;
use super::super::collective::grid::{Parallel, Sharding};
use super::super::levers::Levers;
use super::super::nvtx::nvtx_tests::{fake, ranges};
use super::super::prepare::prepare;
use super::super::session::{Session, SessionOptions};
use super::super::shape::Family;
use super::super::{Dtype, Phase, Workload};
use super::host::HostDevice;
use super::ranks_tests::workload;
use super::training_tests::session;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Runs one of the tests below under a tool; the ranges that it was shown. `None` without a C compiler, or one for the host's device.
fn shown(test: &str) -> Option<Vec<Vec<String>>> {
    let folder = tempfile::tempdir().unwrap();
    let library = fake(folder.path(), false)?;
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([name.as_str(), "--exact", "--include-ignored"]).env("NVTX_INJECTION64_PATH", &library);
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    let there = Path::new(&format!("{}.log", library.display())).exists();
    there.then(|| ranges(&library))
}

fn counted(ranges: &[Vec<String>], path: &[&str]) -> usize {
    ranges.iter().filter(|r| *r == path).count()
}

fn training(accumulate: u32) -> Workload {
    let levers = Levers { accumulate, ..Levers::default() };
    Workload { levers, ..workload(Family::Gpt2, Phase::Train, Dtype::F32) }
}

#[test]
#[ignore = "what a tool is shown by the tests below"]
fn two_steps_of_a_device() {
    for accumulate in [1, 2] {
        let Some(host) = HostDevice::new() else { return };
        let mut session = session(Arc::new(host), &training(accumulate));
        (0..2).for_each(|_| _ = session.step().unwrap());
    }
}

#[test]
#[ignore = "what a tool is shown by the tests below"]
fn two_steps_of_two_replicas() {
    let parallel = Parallel { sharding: Sharding::Optimizer, ..Parallel::replicas(2) };
    let options = SessionOptions { backend: BackendKind::Cpu, parallel, threads_per_rank: 1, seed: 4 };
    let mut session = prepare(&training(1), &options).unwrap();
    (0..2).for_each(|_| _ = session.step().unwrap());
}

#[test]
fn a_tool_is_shown_the_parts_of_a_devices_steps() {
    let Some(ranges) = shown("two_steps_of_a_device") else { return };
    // Two steps in one pass, two in two passes.
    assert_eq!(counted(&ranges, &["train"]), 4);
    assert_eq!(counted(&ranges, &["train", "batch"]), 4 + 2, "each step makes its batch, and the next one's");
    assert_eq!(counted(&ranges, &["train", "forward"]), 2 + 4);
    assert_eq!((counted(&ranges, &["train", "backward and update"]), counted(&ranges, &["train", "backward"])), (2, 4));
    assert!(counted(&ranges, &["train", "backward and update", "update"]) > 2);
    assert!(counted(&ranges, &["train", "backward", "update"]) > 2);
}

#[test]
fn a_tool_is_shown_what_replicas_exchange() {
    let Some(ranges) = shown("two_steps_of_two_replicas") else { return };
    assert_eq!(counted(&ranges, &["train"]), 4);
    for exchanged in ["gradients", "parameters"] {
        assert!(counted(&ranges, &["train", "backward and update", exchanged]) >= 4, "{exchanged}");
    }
    // On the CPU operations are ranges as well.
    assert!(ranges.iter().any(|r| r.first().is_some_and(|n| n == "train") && r.last().is_some_and(|n| n == "update")));
}
