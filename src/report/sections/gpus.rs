//! The GPUs: what they are, and how they ran while the trials were measured.

use crate::cost::metric::Quantity;
use crate::cost::metrics::{GPU_CLOCK, GPU_THROTTLED, GPU_THROTTLED_STEPS, GPU_WATTS, PEAK_GPU_MEMORY};
use crate::report::document::{Block, Cell, Column, Row, Table, paragraph};
use crate::report::facts::Facts;
use crate::report::format::{ABSENT, shown, with_unit};
use crate::runner::telemetry::{GpuFigures, LEAST_CLOCK, Telemetry};
use crate::units::{Bytes, BytesPerSecond, FlopsPerSecond, Share};

/// Until `ci/gpu` has run on a GPU: readers of figures are told that nobody has checked what the backend computes there.
const NOT_YET: &str = "The CUDA backend of this program was not yet run on a GPU by its makers: check it on this one first \
                       (centime verify --backend cuda).";

pub(super) fn blocks(facts: &Facts) -> Vec<Block> {
    let told: Vec<(usize, &Telemetry)> =
        facts.measured().into_iter().filter_map(|i| Some((i, telemetry(facts, i)?))).collect();
    let mut blocks = Vec::new();
    if !told.is_empty() {
        blocks.push(paragraph(NOT_YET));
        blocks.push(paragraph(sentence(facts, &told)));
        blocks.push(Block::Table(trials(facts, &told)));
        let mut notes: Vec<&str> = told.iter().flat_map(|(_, t)| &t.notes).map(String::as_str).collect();
        notes.sort_unstable();
        notes.dedup();
        blocks.extend(notes.into_iter().map(|n| paragraph(format!("{n}."))));
    }
    if !facts.run.environment.gpus.is_empty() {
        blocks.push(Block::Table(devices(facts)));
    }
    blocks
}

fn telemetry<'a>(facts: &Facts<'a>, i: usize) -> Option<&'a Telemetry> {
    facts.records()[i].measurement.figures.as_ref()?.telemetry.as_ref()
}

/// What a row of results says of its GPUs; empty where there is nothing to be said.
pub(super) fn note(telemetry: &Telemetry) -> String {
    let throttled = telemetry.gpus.iter().filter(|g| g.throttled());
    let slow = telemetry.gpus.iter().filter(|g| g.slow() && !g.throttled());
    let parts = throttled
        .map(|g| {
            let share = Share(g.throttled_share.unwrap_or_default());
            format!("GPU {} throttled in {share} of the readings ({})", g.index, g.reasons_in_words())
        })
        .chain(slow.map(|g| format!("GPU {} at {} of its clock", g.index, Share(g.clock_share().unwrap_or_default()))));
    let lost = telemetry.gpus.iter().filter_map(|g| Some((g.index, g.lost_after_seconds?)));
    let lost = lost.map(|(index, at)| format!("GPU {index} lost {at:.1} s into the trial"));
    parts.chain(lost).collect::<Vec<_>>().join("; ")
}

/// Which rows to read with care.
fn sentence(facts: &Facts, told: &[(usize, &Telemetry)]) -> String {
    let names = |of: &dyn Fn(&GpuFigures) -> bool| {
        let named = told.iter().filter(|(_, t)| t.gpus.iter().any(of)).map(|(i, _)| facts.name(*i));
        named.collect::<Vec<_>>().join("; ")
    };
    let (throttled, slow) = (names(&GpuFigures::throttled), names(&GpuFigures::slow));
    let silent = told.iter().filter(|(_, t)| t.throttled_share().is_none()).count();
    let mut text = match (throttled.is_empty(), slow.is_empty()) {
        (true, true) if silent == told.len() => {
            "Whether GPUs were throttled is not known: the driver does not tell.".into()
        }
        (true, true) => "No trial was throttled, and clocks were near their default.".to_string(),
        (false, true) => format!("Throttled: {throttled}."),
        (true, false) => format!("Under {} of the default clock: {slow}.", Share(LEAST_CLOCK)),
        (false, false) => {
            format!("Throttled: {throttled}. Under {} of the default clock: {slow}.", Share(LEAST_CLOCK))
        }
    };
    if !(throttled.is_empty() && slow.is_empty()) {
        text += " What these rows measured is the limit of power, heat or a setting as much as the program; their steps are \
                 counted like all others.";
    }
    let lost = names(&|g| g.lost_after_seconds.is_some());
    if !lost.is_empty() {
        text += &format!(" A GPU was lost in: {lost}.");
    }
    if silent > 0 && silent < told.len() {
        text += &format!(" Of {silent} of {} trials the driver does not tell whether they were throttled.", told.len());
    }
    text
}

fn trials(facts: &Facts, told: &[(usize, &Telemetry)]) -> Table {
    let mut table = Table::new(vec![
        Column::text("configuration"),
        Column::number("SM clock"),
        Column::number("p10"),
        Column::number("of its default"),
        Column::number("power"),
        Column::number("hottest"),
        Column::number("throttled"),
        Column::text("why"),
        Column::number("throttled steps"),
        Column::number("peak memory"),
    ]);
    for &(i, t) in told {
        let metric = |m| {
            let e = facts.get(i, m);
            Cell { text: shown(m, e), sort: e.map(|e| e.value) }
        };
        let lowest = |of: fn(&GpuFigures) -> Option<f64>| t.gpus.iter().filter_map(of).min_by(f64::total_cmp);
        let number = |x: Option<f64>, text: fn(f64) -> String| Cell { text: x.map_or(ABSENT.into(), text), sort: x };
        let why: Vec<String> = t.gpus.iter().map(GpuFigures::reasons_in_words).filter(|w| !w.is_empty()).collect();
        let hottest = t.gpus.iter().filter_map(|g| g.max_celsius).max().map(f64::from);
        table.rows.push(Row::new(vec![
            Cell::text(facts.name(i)),
            metric(&GPU_CLOCK),
            number(lowest(|g| g.p10_sm_mhz), |x| with_unit(Quantity::Megahertz, x)),
            number(lowest(GpuFigures::clock_share), |x| Share(x).to_string()),
            metric(&GPU_WATTS),
            number(hottest, |x| format!("{x:.0} °C")),
            metric(&GPU_THROTTLED),
            Cell::text(why.join("; ")),
            metric(&GPU_THROTTLED_STEPS),
            metric(&PEAK_GPU_MEMORY),
        ]));
    }
    table.caption = "Measured (NVML), ten readings a second over the measured steps; of several GPUs the lowest clock, the hottest, \
                     the one throttled most, the sum of their power. p10: the clock that all but a tenth of the \
                     readings reached. Power is by the energy counters where there are some. Where no default clock is told the \
                     maximum stands for it."
        .into();
    table
}

fn devices(facts: &Facts) -> Table {
    let headings = [
        "GPU",
        "name",
        "driver",
        "memory",
        "default clock",
        "maximum clock",
        "power limit",
        "MIG",
        "bf16",
        "memory rate",
    ];
    let mut table = Table::new(headings.map(Column::text).to_vec());
    for g in &facts.run.environment.gpus {
        let mhz = |x: Option<u32>| x.map_or(ABSENT.to_string(), |x| with_unit(Quantity::Megahertz, x.into()));
        let known = facts.book.device_of_driver(&g.name);
        let limit = |probed: Option<String>, datasheet: Option<String>| match (probed, datasheet) {
            (Some(p), Some(d)) => format!("{p} probed; {d} datasheet"),
            (Some(p), None) => format!("{p} probed"),
            (None, Some(d)) => format!("{d} datasheet"),
            (None, None) => ABSENT.into(),
        };
        let bf16 = crate::hardware::device::NumberFormat::Bf16;
        let rate = |x: f64| FlopsPerSecond(x).to_string();
        let bytes = |x: f64| BytesPerSecond(x).to_string();
        let cells = [
            g.index.to_string(),
            g.name.clone(),
            g.driver.clone(),
            Bytes(g.memory_bytes).to_string(),
            mhz(g.default_sm_mhz),
            mhz(g.max_sm_mhz),
            g.power_limit_watts.map_or(ABSENT.into(), |w| format!("{w:.0} W")),
            g.mig.map_or(ABSENT, |on| if on { "on" } else { "off" }).into(),
            limit(g.probed.as_ref().and_then(|p| p.of(bf16)).map(rate), known.and_then(|d| d.peaks.of(bf16)).map(rate)),
            limit(
                g.probed.as_ref().and_then(|p| p.copy_bytes_per_second).map(bytes),
                known.and_then(|d| d.memory_bytes_per_second).map(bytes),
            ),
        ];
        table.rows.push(Row::new(cells.map(Cell::text).to_vec()));
    }
    table.caption =
        "MFU and MBU are shares of probed limits where they were probed, else of the datasheet's, which no program \
                     reaches in full."
            .into();
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn text(run: &crate::results::run::Run) -> String {
        let blocks = blocks(&Facts::of(run, fixture::book()));
        format!("{blocks:?}")
    }

    #[test]
    fn rows_that_throttled_are_named_and_why() {
        let text = text(&fixture::gpus());
        assert!(text.contains("Throttled: batch 16. Under 75.0 % of the default clock: batch 32."), "{text}");
        assert!(text.contains("power cap") && text.contains("datasheet") && text.contains("580.65.06"));
        assert!(text.contains("Of 1 of 4 trials the driver does not tell whether they were throttled."));
    }

    #[test]
    fn the_note_of_a_row_says_how_its_gpu_ran() {
        let run = fixture::gpus();
        let of = |i: usize| note(run.records[i].measurement.figures.as_ref().unwrap().telemetry.as_ref().unwrap());
        assert_eq!(of(0), "");
        assert_eq!(of(1), "GPU 0 throttled in 35.0 % of the readings (power cap)");
        assert_eq!(of(2), "GPU 0 at 66.2 % of its clock");
        assert_eq!(of(3), "");
    }

    #[test]
    fn a_run_without_gpus_has_no_such_section() {
        assert!(blocks(&Facts::of(&fixture::sweep(), fixture::book())).is_empty());
    }
}
