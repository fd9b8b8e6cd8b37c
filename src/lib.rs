//! Centime says what a token costs. The program is `centime`; what a program of your own needs stands here, at the crate's root:
//! [`load`] a scenario, [`plan()`] its trials, [`run_trial`] each, price what was measured ([`usd_per_million_tokens`], or
//! [`evaluate`] for every metric of a run), [`load_run`] and [`compare`] runs, [`publish`] a report. Nothing else can be reached.
//!
//! One direction, no way back (each arrow is a function with plain data on both sides):
//!
//! ```text
//! scenario.yaml -> Scenario -> Plan -> Measurement (per trial, in a child process) -> Results -> Cost -> Comparison -> Report
//! ```
//!
//! Inside, modules stand on floors; a module imports from lower floors only, and `tests/architecture.rs` holds it:
//! F0 `units`, `stats`, `yaml`, `files`, `net`, `amx`; F1 `data`, `hardware`, `load`, `transformer`; F2 `scenario`,
//! `projection`; F3 `plan`; F4 `runner`; F5 `results`; F6 `cost`, `sweep`; F7 `comparison`; F8 `experiment`, `report`; F9 `cli`.
//! `internal` lists what the program, its tests and its benchmarks reach; it is no part of the interface.
//!
//! # Examples
//!
//! A trial runs in a process of its own, which is this program once more with the argument `trial`:
//!
//! ```standalone_crate
//! use centime::{LoadOptions, Options, Request, facts, load, plan, run_trial, serve, this_program, usd_per_million_tokens};
//! use centime::{Calibration, TokensPerSecond};
//! use std::sync::atomic::AtomicBool;
//!
//! const SCENARIO: &str = "
//! version: 1
//! trial: { model: { n_layers: 1, d_model: 32, n_heads: 2, vocab_size: 64 }, seq_len: 16, backend: cpu }
//! measure: { min_seconds: 0.05, max_seconds: 0.5, precision: 0.2 }
//! price: { hardware: this machine, usd_per_hour: 0.10, source: an invoice }
//! ";
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     if std::env::args().nth(1).as_deref() == Some("trial") {
//!         return Ok(serve(std::io::stdin().lock(), std::io::stdout().lock())?);
//!     }
//!     let file = std::env::temp_dir().join(format!("centime-example-{}.yaml", std::process::id()));
//!     std::fs::write(&file, SCENARIO)?;
//!     let scenario = load(&file, &LoadOptions::default())?;
//!     std::fs::remove_file(&file)?;
//!
//!     let calibration = Calibration::built_in().map_err(ToString::to_string)?;
//!     let plan = plan(&scenario, &facts(&scenario, None, calibration.clone(), None))?;
//!     let options = Options { program: this_program()?, variables: Vec::new() };
//!     for t in &plan.trials {
//!         let (trial, measure) = (t.cell.trial.clone(), plan.of_launch());
//!         let request = Request { trial, measure, predicted_memory: t.memory, patience_seconds: 0.0, loss_change: false };
//!         let measured = run_trial(&request, &options, &mut |_| {}, &AtomicBool::new(false));
//!         let figures = measured.figures.ok_or(measured.reason)?;
//!         let seconds = figures.step_seconds.iter().sum::<f64>() / figures.step_seconds.len() as f64;
//!         let rate = TokensPerSecond(figures.tokens_per_step as f64 / seconds);
//!         let price = scenario.usd_per_hour().ok_or("no price")?;
//!         let cost = usd_per_million_tokens(price, rate, scenario.price.utilisation)?;
//!         println!("{}: {:.0} tokens/s, {:.6} USD per million tokens", t.cell.name(), rate.get(), cost.get());
//!         assert!(rate.get() > 0.0 && cost.get() > 0.0);
//!     }
//!     Ok(())
//! }
//! ```

#![warn(missing_debug_implementations)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod amx;
mod cli;
mod comparison;
mod cost;
mod data;
mod experiment;
mod files;
mod hardware;
mod import;
#[doc(hidden)]
pub mod internal;
mod load;
mod net;
mod plan;
mod projection;
mod report;
mod results;
mod runner;
mod scenario;
mod stats;
mod sweep;
mod transformer;
mod units;
mod yaml;

pub use comparison::runs::{RunComparison, compare};
pub use cost::evaluate::{Figured, evaluate};
pub use cost::price::{CostError, usd_per_million_tokens};
pub use hardware::book::Book;
pub use plan::{MachineFacts, Plan, PlanError, PlannedTrial, plan};
pub use projection::calibration::Calibration;
pub use report::{ReportError, Style, Summary, publish, summary};
pub use results::ResultsError;
pub use results::record::Record;
pub use results::run::{Environment, Run, load as load_run};
pub use runner::child::serve;
pub use runner::measurement::{Figures, Measurement, Status, Stop};
pub use runner::protocol::ProtocolError;
pub use runner::{Options, Progress, Request, Stage, run_trial, this_program};
pub use scenario::trial::Trial;
pub use scenario::{Cell, Limits, LoadOptions, Measure, Order, Price, Scenario, Tolerated, YamlError, load};
pub use sweep::planning::facts;
pub use transformer::loss_change::LossChange;
pub use transformer::memory::MemoryParts;
pub use transformer::{BackendKind, CacheFormat, Dtype, OptimizerKind, Phase, StoredWeights, WeightFormat, Workload};
pub use units::{
    Bytes, BytesPerSecond, Flops, FlopsPerSecond, Seconds, Share, TokensPerSecond, Usd, UsdPerHour, UsdPerMillionTokens,
};

// The fixture is shared with the tests outside the crate, which know it by its name.
#[cfg(test)]
extern crate self as centime;
#[cfg(test)]
#[path = "../tests/common/fixture.rs"]
mod fixture;
