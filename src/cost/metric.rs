//! The metrics of a trial: one table from which columns, plots and gates follow.

use crate::hardware::book::Book;
use crate::hardware::gpu::Gpu;
use crate::hardware::machine::{Probe, Rates};
use crate::results::record::Record;
use crate::results::run::Run;
use crate::runner::measurement::Figures;
use crate::scenario::Price;
use crate::scenario::trial::Trial;
use crate::stats::launches::Spread;
use crate::transformer::BackendKind;
use crate::units::{Bytes, UsdPerHour};

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Higher,
    Lower,
    /// A fact, not a goal.
    Neutral,
}

/// What a figure is a quantity of: decides how it is printed, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    Seconds,
    Bytes,
    FlopsPerSecond,
    TokensPerSecond,
    UsdPerMillionTokens,
    /// An amount.
    Usd,
    TokensPerUsd,
    Share,
    Joules,
    Watts,
    Megahertz,
    /// Nats or bits.
    Loss,
    Count,
}

/// Where a figure comes from; said wherever it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// Timed or counted while the trial ran, or a formula over such figures alone.
    Measured,
    /// Predicted from the shape.
    Projected,
    /// Rests on a figure that somebody states: a price.
    Quoted,
}

/// A value and, where it is estimated from samples, its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// In the metric's unit.
    pub value: f64,
    /// Lower end of the interval.
    pub low: Option<f64>,
    /// Upper end of the interval.
    pub high: Option<f64>,
}

/// Everything a metric may be computed from.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub record: &'a Record,
    pub price: &'a Price,
    /// For an hour of everything that this trial occupies.
    pub hour: Option<UsdPerHour>,
    /// Watts of the machine where they were not measured: stated, or the TDP of its catalog entry.
    pub watts: Option<Watts<'a>>,
    pub probe: Option<&'a Probe>,
    /// How fast the machine was around the trial's launches, and the best that is known of it.
    pub rates: Option<Rates>,
    pub best_rates: Option<Rates>,
    /// GPUs that a trial on the backend `cuda` sees, in its order.
    pub gpus: &'a [Gpu],
    /// Where facts of devices are looked up that were not measured.
    pub book: &'a Book,
    /// Of the machine's processors.
    pub memory: Bytes,
    /// Cores of the machine: what the probe's figures for all cores stand for.
    pub cores: u32,
    /// How launches and runs differ on the machine.
    pub spread: Spread,
}

impl<'a> Context<'a> {
    /// One record of a run, at the run's price and with its probe.
    pub fn of(run: &'a Run, record: &'a Record, book: &'a Book) -> Self {
        let environment = &run.environment;
        let trial = &record.cell.trial;
        Self {
            record,
            price: &environment.price,
            hour: environment.price.for_devices(trial.devices),
            watts: Watts::of(&environment.price, trial, &environment.gpus, book),
            probe: environment.probe.as_ref(),
            rates: Run::rates_of(record),
            best_rates: run.best_rates(),
            gpus: &environment.gpus,
            book,
            memory: Bytes(environment.machine.memory_bytes),
            cores: environment.machine.cores,
            spread: environment.variation().spread,
        }
    }

    /// What the machine gave around the trial of what the probe before the sweep found, as shares; 1 where no canary was asked.
    pub fn since_the_probe(&self) -> Rates {
        let nothing = Rates { f32_flops_per_second: 1.0, read_bytes_per_second: 1.0 };
        self.rates.zip(self.probe).map_or(nothing, |(now, probe)| now.of(&probe.rates()))
    }

    /// What the trial measured, if it ran to its end.
    pub fn figures(&self) -> Option<&'a Figures> {
        self.record.measurement.figures.as_ref()
    }
}

/// Power that was not measured, and what it rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watts<'a> {
    pub watts: f64,
    /// `stated`, or the device whose TDP it is.
    pub source: &'a str,
}

impl<'a> Watts<'a> {
    fn of(price: &'a Price, trial: &Trial, gpus: &[Gpu], book: &'a Book) -> Option<Self> {
        if let Some(watts) = price.energy.and_then(|e| e.watts) {
            return Some(Self { watts, source: "stated" });
        }
        let priced = || Some((price.device.as_deref()?, book.device(price.device.as_deref()?)?.tdp_watts?));
        let found = || {
            let first = gpus.first().filter(|_| trial.backend == BackendKind::Cuda)?;
            let device = book.device_of_driver(&first.name)?;
            Some((device.name.as_str(), device.tdp_watts?))
        };
        let (source, tdp) = priced().or_else(found)?;
        Some(Self { watts: tdp * f64::from(trial.devices), source })
    }
}

/// One metric. The column, the plot's axis and the gate all take their name, unit and direction from here.
#[derive(Debug)]
pub struct Metric {
    /// Column name.
    pub name: &'static str,
    /// Short heading in tables.
    pub label: &'static str,
    /// Unit as printed in charts; empty for a pure number.
    pub unit: &'static str,
    pub quantity: Quantity,
    pub provenance: Provenance,
    pub direction: Direction,
    pub formula: &'static str,
    /// Where the definition comes from.
    pub source: &'static str,
    /// `None` where the metric does not apply or its inputs are missing: shown as n/a.
    pub compute: fn(&Context) -> Option<Estimate>,
}
