//! `centime doctor`.

use super::Failure;
use super::table::{Printed, Rows};
use crate::hardware::disturbance::disturbances;
use crate::hardware::gpu::{self, Gpu, Trouble};
use crate::hardware::machine::{self, Machine, Probe};
use crate::hardware::probe::probe;
use crate::sweep::past;
use crate::transformer::cpu::Instructions;
use crate::transformer::cuda::driver::{self, Tried};
use crate::transformer::prepare::{keeps, supports};
use crate::transformer::{BackendKind, CacheFormat, Dtype, WeightFormat};
use crate::units::{Bytes, BytesPerSecond, FlopsPerSecond, Share};

/// Say what this machine has and what will be measured with which backend.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Leave out the probe of the machine's limits, which takes two seconds.
    #[arg(long)]
    no_probe: bool,
    /// Measure this machine's noise by launching a small trial for up to 16 s: its grade, and which slowdowns a check resolves
    /// in how many pairs.
    #[arg(long, conflicts_with = "no_probe")]
    noise: bool,
    #[command(flatten)]
    printed: Printed,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    if a.noise {
        return super::noise::run(a.printed.format);
    }
    let machine = machine::inspect();
    let mut rows = Said(Rows::new(&["topic", "item", "value", "note"]));
    facts(&mut rows, &machine);
    if a.no_probe {
        rows.say("limits", "", "not probed", "without --no-probe they are measured now");
    } else {
        let probed = probe(&machine);
        limits(&mut rows, &probed);
        speed(&mut rows, &machine, &probed);
    }
    gpus(&mut rows);
    backends(&mut rows);
    let found = disturbances(machine.cores);
    for d in &found {
        rows.say("warning", "", &d.what, d.remedy);
    }
    if found.is_empty() {
        rows.say(
            "disturbances",
            "",
            "none found",
            "load, governor, swap and quota were looked at, as far as the system tells",
        );
    }
    rows.0.print(a.printed.format)
}

/// Rows of text.
struct Said(Rows);

impl Said {
    fn say(&mut self, topic: &str, item: &str, value: &str, note: &str) {
        self.0.push([topic, item, value, note].map(|t| t.to_string().into()).to_vec());
    }
}

fn facts(rows: &mut Said, m: &Machine) {
    let architecture = format!("{}, {} cores for this program", m.architecture, m.cores);
    rows.say("machine", "CPU", &m.cpu_model, &architecture);
    rows.say("machine", "instruction sets", &m.instruction_sets.join(", "), "of those that kernels choose from");
    let caches: Vec<String> = m.caches.iter().map(|(name, size)| format!("{name} {}", Bytes(*size))).collect();
    rows.say("machine", "caches", &caches.join(", "), "as the first core sees them");
    let free = format!("{} are available to trials now", machine::available_memory());
    rows.say("machine", "memory", &Bytes(m.memory_bytes).to_string(), &free);
    rows.say("machine", "system", &m.os, &format!("kernel {}", m.kernel));
}

fn gpus(rows: &mut Said) {
    match gpu::inspect() {
        Ok(all) => all.iter().for_each(|g| one_gpu(rows, g)),
        Err(Trouble::NoLibrary) => rows.say("GPUs", "", "none", &Trouble::NoLibrary.to_string()),
        Err(trouble) => rows.say("GPUs", "", "not to be read", &trouble.to_string()),
    }
}

fn one_gpu(rows: &mut Said, g: &Gpu) {
    let item = format!("GPU {}", g.index);
    let told = |x: Option<String>| x.unwrap_or_else(|| "not told".into());
    let mhz = |x: Option<u32>| told(x.map(|x| format!("{x} MHz")));
    let mig = told(g.mig.map(|on| if on { "on: power is that of all its instances" } else { "off" }.to_string()));
    let driver = if g.driver.is_empty() { "not told" } else { &g.driver };
    rows.say("GPUs", &item, &g.name, &format!("driver {driver}, {}, MIG {mig}", Bytes(g.memory_bytes)));
    let clocks = format!("{} by default, {} at most", mhz(g.default_sm_mhz), mhz(g.max_sm_mhz));
    let note = format!("memory {} at most; under 75 % of the default no verdict is reached", mhz(g.max_memory_mhz));
    rows.say("GPUs", &format!("{item}, SM clock"), &clocks, &note);
    let limit = told(g.power_limit_watts.map(|w| format!("{w:.0} W")));
    rows.say(
        "GPUs",
        &format!("{item}, power limit"),
        &limit,
        "where it binds, clocks fall and rows say so; a check's verdict stands",
    );
}

fn limits(rows: &mut Said, p: &Probe) {
    let rate = |x: f64| FlopsPerSecond(x).to_string();
    let one = format!("probed; one core {}", rate(p.f32_flops_per_second_one_core));
    rows.say("limits", "f32", &rate(p.f32_flops_per_second), &one);
    match p.bf16_flops_per_second {
        Some(x) => rows.say(
            "limits",
            "bf16",
            &rate(x),
            if crate::amx::available() { "probed; tiles into f32" } else { "probed; dot products into f32" },
        ),
        None => rows.say("limits", "bf16", "n/a", "this CPU has no such instruction"),
    }
    let one = format!("probed; one core {}", BytesPerSecond(p.read_bytes_per_second_one_core));
    rows.say("limits", "read", &BytesPerSecond(p.read_bytes_per_second).to_string(), &one);
    let worth = "10th to 90th percentile of equal work: smaller differences between figures may be the machine's";
    rows.say("limits", "spread", &Share(p.spread).to_string(), worth);
    let steal = p.steal_share.map_or("n/a".into(), |s| Share(s).to_string());
    rows.say("limits", "steal", &steal, "time that the hypervisor gave to others; over 2 % no verdict is reached");
}

/// How fast the machine is beside the best that runs on it found.
fn speed(rows: &mut Said, machine: &Machine, probed: &Probe) {
    let past = past::file_of(machine).map(|file| past::read(&file)).unwrap_or_default();
    match past::best_rates(&past) {
        Some(best) => {
            let now = probed.rates().of(&best);
            let value = format!("f32 {}, read {}", Share(now.f32_flops_per_second), Share(now.read_bytes_per_second));
            rows.say("limits", "speed", &value, &format!("of the best that {} runs on this machine found", past.len()));
        }
        None => rows.say("limits", "speed", "n/a", "no earlier run on this machine is known to compare with"),
    }
}

fn several_gpus(rows: &mut Said) {
    match driver::collectives() {
        Ok((version, place)) => {
            rows.say("backends", "cuda, several GPUs", &format!("NCCL {version}"), &place.display().to_string());
        }
        Err(missing) => rows.say("backends", "cuda, several GPUs", "not possible", &missing),
    }
}

/// A GPU that a kernel has been compiled for and run on just now.
fn works(rows: &mut Said, formats: &str, of: &str, tried: &Tried) {
    rows.say("backends", "cuda", formats, &format!("{of}; `backend: auto` takes it"));
    let (major, minor) = tried.version;
    let with = format!("NVRTC {major}.{minor} compiles for {}, and what it compiles runs", tried.architecture);
    let from = format!("{}; products by {}", tried.compiler.display(), tried.products.display());
    rows.say("backends", "cuda, kernels", &with, &from);
}

fn backends(rows: &mut Said) {
    let dtypes = |kind: BackendKind| {
        let known: Vec<&str> =
            Dtype::ALL.iter().filter(|d| supports(kind, **d, WeightFormat::Dtype)).map(|d| d.name()).collect();
        known.join(", ")
    };
    let auto = if driver::available().is_ok() { "" } else { "; `backend: auto` takes it" };
    let kernels = format!("kernels for {}{auto}", Instructions::taken().name());
    let few_bits = |kind: BackendKind| {
        let known = |w: &&WeightFormat| **w != WeightFormat::Dtype && supports(kind, Dtype::F32, **w);
        WeightFormat::ALL.iter().filter(known).map(|w| w.name()).collect::<Vec<_>>().join(", ")
    };
    let caches = CacheFormat::ALL.iter().filter(|c| **c != CacheFormat::Dtype && keeps(BackendKind::Cpu, **c));
    let caches: Vec<&str> = caches.map(|c| c.name()).collect();
    let (weights, caches) = (few_bits(BackendKind::Cpu), caches.join(", "));
    let cpu = format!("{}; weights in {weights}; KV cache in {caches}", dtypes(BackendKind::Cpu));
    let cuda = format!("{}; weights in {}", dtypes(BackendKind::Cuda), few_bits(BackendKind::Cuda));
    rows.say("backends", "cpu", &cpu, &kernels);
    rows.say(
        "backends",
        "naive",
        &dtypes(BackendKind::Naive),
        "the oracle that the others are tested against; slow by intent",
    );
    match driver::available() {
        Ok(devices) => {
            for (i, d) in devices.iter().enumerate() {
                let of = format!(
                    "GPU {i}: {}, compute capability {}.{}, {} multiprocessors, {}",
                    d.name,
                    d.capability.0,
                    d.capability.1,
                    d.multiprocessors,
                    Bytes(d.memory_bytes)
                );
                match driver::try_device(i) {
                    Ok(tried) => works(rows, &cuda, &of, &tried),
                    Err(e) => rows.say("backends", "cuda", "does not work", &format!("{of}: {e}")),
                }
            }
        }
        Err(missing) => return rows.say("backends", "cuda", "not here", &missing.to_string()),
    }
    several_gpus(rows);
}
