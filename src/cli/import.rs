//! `centime import`.

use super::Failure;
use super::output::{print_run, results_failure};
use super::price::Stated;
use super::run::timestamp;
use super::table::Printed;
use crate::hardware::machine::Machine;
use crate::import::{self, ImportError, Imported};
use crate::results::journal::{self, Journal};
use crate::results::lock::lock_folder;
use crate::results::record::{Record, RunKey, SCHEMA_VERSION};
use crate::results::run::{Environment, load, save_environment};
use crate::scenario::{Measure, Order, Price};
use crate::sweep::identity;
use anyhow::{Context, anyhow};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Make a run of what other tools measured, so that it is priced, reported, compared and explained as any other.
///
/// Reads llama-bench (-o json, jsonl), vllm bench serve (--save-result), guidellm (JSON), aiperf (JSON, CSV), InferenceX's aggregated
/// JSON, optimum-benchmark, and inference-perf. Files of one configuration are launches of one cell: several give an interval, one has
/// none.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Files that the tools wrote.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    price: Stated,
    /// Devices that the price pays for, where a file does not tell.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// What the run is called.
    #[arg(long, value_name = "NAME", default_value = "imported")]
    name: String,
    /// Where the run goes [default: reports/NAME].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    printed: Printed,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    let all = a.files.iter().map(|f| import::read(f)).collect::<Result<Vec<_>, _>>().map_err(failure)?;
    let book = a.price.book()?;
    let mut price = Price::default();
    a.price.put(&mut price, &book, "import")?;
    let now = timestamp::rfc3339(SystemTime::now());
    let (records, axes) = import::run::records(&all, a.devices, &now).map_err(|e| Failure::Internal(anyhow!("{e}")))?;
    let out = a.out.clone().unwrap_or_else(|| Path::new("reports").join(&a.name));
    std::fs::create_dir_all(&out)
        .with_context(|| format!("{}: cannot be made a folder for the run; choose another with --out", out.display()))
        .map_err(Failure::Io)?;
    let _lock = lock_folder(&out).map_err(results_failure)?;
    if journal::read(&out).map_err(results_failure)?.is_some() {
        return Err(Failure::Usage(anyhow!(
            "{}: a run is there already; choose another folder with --out",
            out.display()
        )));
    }
    let environment = environment(a, &all, (&records, axes), price, now)?;
    write(&out, &environment, &records)?;
    let run = load(&out).map_err(results_failure)?;
    print_run(&run, &book, &out, a.printed.format)
}

fn failure(e: ImportError) -> Failure {
    if e.system { Failure::Io(e.into()) } else { Failure::Usage(e.into()) }
}

/// The journal first: without an environment there is no run.
fn write(out: &Path, environment: &Environment, records: &[Record]) -> Result<(), Failure> {
    let key = RunKey {
        schema_version: SCHEMA_VERSION,
        program_version: environment.program_version.clone(),
        scenario_name: environment.scenario_name.clone(),
        seed: 0,
        measure: "{}".into(),
        machine: environment.machine.fingerprint(),
    };
    let (mut journal, _) = Journal::open(out, &key).map_err(results_failure)?;
    records.iter().try_for_each(|r| journal.append(r)).map_err(results_failure)?;
    save_environment(out, environment).map_err(results_failure)
}

fn environment(
    a: &Arguments,
    all: &[Imported],
    (records, axes): (&[Record], Vec<String>),
    price: Price,
    now: String,
) -> Result<Environment, Failure> {
    let first = |r: &&Record| r.round == 0;
    let trial_ids: Vec<String> = records.iter().filter(first).map(|r| r.trial_id.clone()).collect();
    let unknown = || "not known: imported".to_string();
    let machine = Machine {
        hostname: unknown(),
        cpu_model: unknown(),
        architecture: String::new(),
        cores: 1,
        memory_bytes: 0,
        os: String::new(),
        kernel: String::new(),
        instruction_sets: vec![],
        caches: vec![],
    };
    let program = identity::program_version().context("reading this program's own file").map_err(Failure::Io)?;
    Ok(Environment {
        schema_version: SCHEMA_VERSION,
        scenario_name: a.name.clone(),
        description: description(all),
        axes,
        requested_cells: trial_ids.len() as u32,
        trial_ids,
        measure: Measure { order: Order::File, ..Measure::default() },
        price,
        program_version: program,
        machine,
        probe: None,
        best_rates: None,
        variation: None,
        gpus: vec![],
        started_at: now,
        command: identity::command(std::env::args_os()),
    })
}

/// Which tools it is from, and how their conventions were reconciled.
fn description(all: &[Imported]) -> String {
    let mut tools: Vec<(&str, &str, usize)> = Vec::new();
    for i in all {
        match tools.iter_mut().find(|(name, ..)| *name == i.tool) {
            Some((.., files)) => *files += 1,
            None => tools.push((i.tool, i.convention, 1)),
        }
    }
    let one = |(tool, convention, files): &(&str, &str, usize)| {
        let s = if *files == 1 { "" } else { "s" };
        format!("{tool} ({files} file{s}; {convention})")
    };
    format!(
        "Measured by other tools and imported: {}. Tokens/s are input and output together. A configuration with one file has no interval.",
        tools.iter().map(one).collect::<Vec<_>>().join("; ")
    )
}
