//! What a plan has to know of this machine: cores, memory, GPUs, and the processes that run every trial together.

use crate::hardware::gpu::{self, Gpu};
use crate::hardware::machine::{self, Probe};
use crate::net::world::World;
use crate::plan::{MachineFacts, Processes};
use crate::projection::calibration::Calibration;
use crate::scenario::Scenario;
use crate::transformer::BackendKind;
use crate::transformer::cuda::device::DeviceFacts;
use crate::transformer::cuda::driver;

/// The facts of this machine; probed rates make the plan's estimate of time better.
pub fn facts(
    scenario: &Scenario,
    probe: Option<&Probe>,
    calibration: Calibration,
    world: Option<&World>,
) -> MachineFacts {
    let machine = machine::inspect();
    MachineFacts {
        cores: machine.cores,
        memory: machine::available_memory(),
        gpus: gpus(scenario),
        probe: probe.cloned().unwrap_or_else(|| Probe::assumed(machine.cores)),
        calibration,
        book: scenario.book.clone(),
        processes: world.map_or(Processes::ONE, processes),
        usd_per_hour: scenario.usd_per_hour().map(|p| p.get()),
    }
}

/// The processes of a run, as its launcher tells.
fn processes(world: &World) -> Processes {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Processes {
        all: count(world.size),
        of_node: count(world.local_size),
        of_cores: if world.own_cores { 1 } else { count(world.local_size) },
    }
}

/// The GPUs that the scenario's trials see, or why there are none; looked for only where a trial wants one.
pub(crate) fn gpus(scenario: &Scenario) -> Result<Vec<Gpu>, String> {
    if scenario.cells.iter().all(|c| c.trial.backend != BackendKind::Cuda) {
        return Ok(Vec::new());
    }
    let told = gpu::inspect_visible().map_err(|trouble| trouble.to_string());
    // Some containers have CUDA without the library that tells of GPUs: then what CUDA says of them has to do.
    told.or_else(|trouble| match driver::available() {
        Ok(all) => Ok(all.iter().zip(0..).map(|(facts, index)| of_driver(index, facts)).collect()),
        Err(_) => Err(trouble),
    })
}

fn of_driver(index: u32, facts: &DeviceFacts) -> Gpu {
    Gpu { index, name: facts.name.clone(), memory_bytes: facts.memory_bytes, ..Gpu::default() }
}
