//! The machine, its limits as probed, and what its figures are worth.

use crate::cost::metrics::{MACHINE_BANDWIDTH, MACHINE_SPEED};
use crate::report::document::{Block, Cell, Column, Row, Table, paragraph};
use crate::report::facts::Facts;
use crate::report::format::ABSENT;
use crate::runner::watch::judged::Judged;
use crate::stats::median;
use crate::units::{Bytes, BytesPerSecond, FlopsPerSecond, Share};

pub(super) fn blocks(facts: &Facts) -> Vec<Block> {
    let e = &facts.run.environment;
    let m = &e.machine;
    let mut table = Table::new(vec![Column::text("what"), Column::text("value")]);
    let mut say = |what: &str, value: String| {
        let value = if value.trim().is_empty() { ABSENT.into() } else { value };
        table.rows.push(Row::new(vec![Cell::text(what), Cell::text(value)]));
    };
    say("CPU", format!("{} ({}), {} cores for this program", m.cpu_model, m.architecture, m.cores));
    say("instruction sets", m.instruction_sets.join(", "));
    let caches: Vec<String> = m.caches.iter().map(|(name, bytes)| format!("{name} {}", Bytes(*bytes))).collect();
    say("caches of a core", caches.join(", "));
    say("memory", Bytes(m.memory_bytes).to_string());
    say("system", format!("{}, kernel {}", m.os, m.kernel));
    say("host", m.hostname.clone());
    if let Some(p) = &e.probe {
        let f = FlopsPerSecond;
        say(
            "f32 peak, probed",
            format!("{} (one core: {})", f(p.f32_flops_per_second), f(p.f32_flops_per_second_one_core)),
        );
        let bf16 = p.bf16_flops_per_second.map_or("no such instruction on this CPU".into(), |x| f(x).to_string());
        say("bf16 peak, probed", bf16);
        let (all, one) = (BytesPerSecond(p.read_bytes_per_second), BytesPerSecond(p.read_bytes_per_second_one_core));
        say("read bandwidth, probed", format!("{all} (one core: {one})"));
    }
    if let Some(speed) = speed(facts) {
        say("speed during the run", speed);
    }
    say("started", e.started_at.clone());
    say("program", format!("centime {}", e.program_version));
    vec![paragraph(worth(facts)), Block::Table(table)]
}

/// Shares of the best rates that are known of the machine: the median over the trials, and the lowest.
fn speed(facts: &Facts) -> Option<String> {
    let of = |metric| {
        let measured = facts.measured();
        let shares: Vec<f64> = measured.iter().filter_map(|&i| Some(facts.get(i, metric)?.value)).collect();
        Some((median(&shares)?, shares.iter().copied().fold(f64::INFINITY, f64::min)))
    };
    let ((f32, f32_least), (read, read_least)) = (of(&MACHINE_SPEED)?, of(&MACHINE_BANDWIDTH)?);
    let since = match facts.run.environment.best_rates {
        Some(_) => "earlier runs here and this one",
        None => "this run",
    };
    Some(format!(
        "f32 {} (lowest {}), reading {} (lowest {}) of the best rates that {since} found",
        Share(f32),
        Share(f32_least),
        Share(read),
        Share(read_least)
    ))
}

/// A sentence on the noise, so that a reader knows what the figures are worth.
fn worth(facts: &Facts) -> String {
    let told = |i: &usize| facts.records()[*i].measurement.figures.as_ref()?.disturbance.as_ref();
    let measured = facts.measured();
    let watched = Judged::of(measured.iter().filter_map(told));
    // Runs of older programs were not watched.
    let watched = if watched.watched > 0 { watched.in_words("trial", "trials") + " " } else { String::new() };
    watched + &probed(facts)
}

/// What the probe saw before the sweep.
fn probed(facts: &Facts) -> String {
    let Some(p) = &facts.run.environment.probe else {
        return "The machine was not probed (--no-probe): peaks, MFU and MBU are n/a, and its noise is not known."
            .into();
    };
    let stolen = p.steal_share.map_or("; whether the hypervisor took time is not known here".into(), |s| {
        format!("; the hypervisor took {} of the time", Share(s))
    });
    let judged = if p.spread < 0.03 {
        "quiet"
    } else if p.spread < 0.1 {
        "somewhat noisy"
    } else {
        "noisy"
    };
    format!(
        "When it was probed before the sweep, the machine was {judged}: equal work took times that spread by {} (10th to 90th \
         percentile){stolen}. Differences below that size between two cells may be the machine's.",
        Share(p.spread)
    )
}
