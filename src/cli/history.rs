//! `centime history`.

use super::Failure;
use super::output::{print, report_failure, results_failure, stdout_style};
use super::price::PriceBook;
use crate::cost::evaluate::evaluate;
use crate::cost::metrics::{PEAK_MEMORY, TOKENS_PER_SECOND, USD_PER_MILLION};
use crate::report::cell_name;
use crate::report::pages::timeline;
use crate::results::history::{Entry, append, read};
use crate::results::run::load;
use anyhow::anyhow;
use clap::Subcommand;
use std::path::PathBuf;

/// Keep runs by commit, and draw cost, throughput and memory over them with the changes marked.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(Add),
    Show(Show),
}

/// Add a run to the history; adding it again changes nothing.
#[derive(Debug, clap::Args)]
struct Add {
    /// Folder of a run.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The commit that was measured.
    #[arg(long, value_name = "SHA", env = "CENTIME_COMMIT")]
    commit: Option<String>,
    /// The history's file.
    #[arg(long, value_name = "FILE", default_value = "reports/history.parquet")]
    store: PathBuf,
    #[command(flatten)]
    prices: PriceBook,
}

/// Draw the history.
#[derive(Debug, clap::Args)]
struct Show {
    /// The history's file.
    #[arg(long, value_name = "FILE", default_value = "reports/history.parquet")]
    store: PathBuf,
    /// Where the page and its pictures go.
    #[arg(long, value_name = "DIR", default_value = "reports/history")]
    out: PathBuf,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    match &a.command {
        Command::Add(a) => add(a),
        Command::Show(a) => show(a),
    }
}

fn add(a: &Add) -> Result<(), Failure> {
    let from_ci = || ["GITHUB_SHA", "CI_COMMIT_SHA"].into_iter().find_map(|v| std::env::var(v).ok());
    let commit = a.commit.clone().or_else(from_ci).filter(|c| !c.trim().is_empty());
    let Some(commit) = commit else {
        return Err(Failure::Usage(anyhow!("which commit was measured? give --commit SHA")));
    };
    let run = load(&a.folder).map_err(results_failure)?;
    let e = &run.environment;
    let book = a.prices.load()?;
    let figures = evaluate(&run, &book);
    let entries: Vec<Entry> = run
        .records
        .iter()
        .zip(&figures)
        .enumerate()
        .filter(|(_, (r, _))| r.measurement.figures.is_some())
        .map(|(i, (r, f))| {
            let cost = f.get(&USD_PER_MILLION);
            let value = |metric| f.get(metric).map(|e| e.value);
            Entry {
                commit: commit.clone(),
                started_at: e.started_at.clone(),
                scenario: e.scenario_name.clone(),
                trial_id: r.trial_id.clone(),
                cell: cell_name(&run, &book, i),
                machine: e.machine.fingerprint(),
                program_version: e.program_version.clone(),
                tokens_per_second: value(&TOKENS_PER_SECOND),
                usd_per_million_tokens: cost.map(|c| c.value),
                usd_low: cost.and_then(|c| c.low),
                usd_high: cost.and_then(|c| c.high),
                peak_memory_bytes: value(&PEAK_MEMORY),
            }
        })
        .collect();
    let rows = append(&a.store, &entries).map_err(results_failure)?;
    print(&format!("{}: {} trials of {commit} added, {rows} rows", a.store.display(), entries.len()))
}

fn show(a: &Show) -> Result<(), Failure> {
    let entries = read(&a.store).map_err(results_failure)?;
    if entries.is_empty() {
        return Err(Failure::Usage(anyhow!(
            "{}: no runs are there; add one with `centime history add DIR --commit SHA`",
            a.store.display()
        )));
    }
    let page = timeline(&entries).map_err(|e| Failure::Internal(e.into()))?;
    let written = page.publish(&a.out).map_err(report_failure)?;
    print(&page.terminal(stdout_style()))?;
    print(&format!("\nreport: {}", written.display()))
}
