//! The table of results: a row for each requested trial.

use crate::cost::metric::{Context, Metric};
use crate::cost::metrics::{
    BITS_PER_BYTE, CHECKPOINT_SECONDS, DATA_WAIT, E2E, E2E_P99, EVALUATION_SECONDS, FAILED_REQUESTS, GOODPUT,
    INPUT_TOKENS_PER_SECOND, LARGEST_LOAD, LATENESS, LOST_SECONDS, MACHINE_SPEED, MBU, MFU, OUTPUT_TOKENS_PER_SECOND,
    PEAK_GPU_MEMORY, PEAK_MEMORY, REQUESTS_PER_SECOND, SECONDS_TO_LOSS, SERVER_KV_USE, SERVER_PREFIX_HITS,
    SERVER_WAITING, SLO_SHARE, STEP_P50, STEP_P99, TOKENS_PER_SECOND, TOKENS_TO_LOSS, TPOT, TPOT_P99, TTFT, TTFT_P99,
    USD_PER_MILLION, USD_PER_MILLION_INPUT, USD_PER_MILLION_OUTPUT, USD_TO_LOSS, USD_TRAINED, VALIDATION_LOSS,
};
use crate::cost::peaks::{self, Source};
use crate::report::document::{Block, Cell, Column, Row, Table};
use crate::report::facts::Facts;
use crate::report::format::{plus_minus, shown};
use crate::runner::measurement::{Figures, Status, Stop};
use crate::units::{Share, grouped};
use std::collections::BTreeMap;

/// One column of figures.
struct Shown {
    metric: &'static Metric,
    /// Followed by its interval's half width.
    with_interval: bool,
    /// Left out of the terminal, where room is scarce.
    wide_only: bool,
}

const fn column(metric: &'static Metric) -> Shown {
    Shown { metric, with_interval: false, wide_only: false }
}

const COLUMNS: &[Shown] = &[
    Shown { with_interval: true, ..column(&USD_TO_LOSS) },
    column(&TOKENS_TO_LOSS),
    column(&SECONDS_TO_LOSS),
    column(&VALIDATION_LOSS),
    Shown { wide_only: true, ..column(&BITS_PER_BYTE) },
    Shown { wide_only: true, ..column(&USD_TRAINED) },
    Shown { wide_only: true, ..column(&DATA_WAIT) },
    Shown { wide_only: true, ..column(&EVALUATION_SECONDS) },
    Shown { wide_only: true, ..column(&CHECKPOINT_SECONDS) },
    Shown { wide_only: true, ..column(&LOST_SECONDS) },
    Shown { with_interval: true, ..column(&TOKENS_PER_SECOND) },
    column(&USD_PER_MILLION),
    column(&USD_PER_MILLION_INPUT),
    column(&USD_PER_MILLION_OUTPUT),
    // Of a trial with an SLO what is asked: before the columns that a narrow terminal has no room for.
    column(&LARGEST_LOAD),
    column(&SLO_SHARE),
    column(&GOODPUT),
    column(&STEP_P50),
    Shown { wide_only: true, ..column(&STEP_P99) },
    column(&TTFT),
    column(&TPOT),
    Shown { wide_only: true, ..column(&TTFT_P99) },
    Shown { wide_only: true, ..column(&TPOT_P99) },
    column(&E2E),
    Shown { wide_only: true, ..column(&E2E_P99) },
    Shown { wide_only: true, ..column(&INPUT_TOKENS_PER_SECOND) },
    column(&OUTPUT_TOKENS_PER_SECOND),
    column(&REQUESTS_PER_SECOND),
    column(&FAILED_REQUESTS),
    Shown { wide_only: true, ..column(&LATENESS) },
    Shown { wide_only: true, ..column(&SERVER_WAITING) },
    Shown { wide_only: true, ..column(&SERVER_KV_USE) },
    Shown { wide_only: true, ..column(&SERVER_PREFIX_HITS) },
    column(&MFU),
    column(&MBU),
    column(&PEAK_MEMORY),
    column(&PEAK_GPU_MEMORY),
];

pub(super) fn blocks(facts: &Facts) -> Vec<Block> {
    let mut table = table(facts);
    table.caption = caption(facts);
    vec![Block::Table(table)]
}

/// Every column that has figures.
pub(crate) fn table(facts: &Facts) -> Table {
    build(facts, true)
}

/// For the terminal.
pub(crate) fn compact(facts: &Facts) -> Table {
    build(facts, false)
}

fn build(facts: &Facts, wide: bool) -> Table {
    let told: Vec<&Shown> =
        COLUMNS.iter().filter(|c| facts.any(c.metric) && (wide || !c.wide_only) && tells(facts, c)).collect();
    let mut columns: Vec<Column> = facts.varied.iter().map(|v| heading(v.values.as_slice(), &v.label)).collect();
    if columns.is_empty() {
        columns.push(Column::text("model"));
    }
    for c in &told {
        columns.push(Column::number(c.metric.label));
        if c.with_interval {
            columns.push(Column::number("±"));
        }
    }
    let notes = notes(facts, wide);
    let noted = notes.iter().any(|n| !n.is_empty());
    if noted {
        columns.push(Column::text("note"));
    }
    let mut table = Table::new(columns);
    for (i, record) in facts.records().iter().enumerate() {
        let mut cells: Vec<Cell> = facts.varied.iter().map(|v| swept(facts.value(i, &v.path))).collect();
        if cells.is_empty() {
            cells.push(Cell::text(record.cell.trial.model.clone()));
        }
        for c in &told {
            let e = facts.get(i, c.metric);
            cells.push(Cell { text: shown(c.metric, e), sort: e.map(|e| e.value) });
            if c.with_interval {
                cells.push(Cell { text: plus_minus(e), sort: e.and_then(|e| e.relative_half_width()) });
            }
        }
        if noted {
            cells.push(Cell::text(notes[i].clone()));
        }
        table.rows.push(Row { cells, highlighted: notes[i].starts_with(CHEAPEST) });
    }
    table
}

/// In one phase the step is the token: the same figure does not need two columns.
fn tells(facts: &Facts, c: &Shown) -> bool {
    let repeats = |of: &Metric| {
        std::ptr::eq(c.metric, of)
            && facts
                .measured()
                .iter()
                .all(|&i| facts.get(i, of).map(|e| e.value) == facts.get(i, &STEP_P50).map(|e| e.value))
    };
    let same_cost = |of: &Metric| {
        std::ptr::eq(c.metric, of)
            && facts
                .measured()
                .iter()
                .all(|&i| facts.get(i, of).map(|e| e.value) == facts.get(i, &USD_PER_MILLION).map(|e| e.value))
    };
    !repeats(&TTFT) && !repeats(&TPOT) && !same_cost(&USD_PER_MILLION_INPUT) && !same_cost(&USD_PER_MILLION_OUTPUT)
}

fn heading(values: &[String], label: &str) -> Column {
    let numeric = values.iter().all(|v| v.parse::<f64>().is_ok());
    if numeric { Column::number(label) } else { Column::text(label) }
}

fn swept(value: Option<String>) -> Cell {
    let text = value.unwrap_or_else(|| "-".into());
    let sort = text.parse().ok();
    Cell { text, sort }
}

const CHEAPEST: &str = "cheapest";
const CHEAPEST_TO_LOSS: &str = "cheapest to the loss";

/// What is to be said of each row: how it ended if not well, and whether it is the cheapest or a tie with it.
fn notes(facts: &Facts, wide: bool) -> Vec<String> {
    let found = facts.cheapest().filter(|_| facts.measured().len() > 1 && facts.busy().is_none());
    let precision = facts.run.environment.measure.precision;
    let note = |(i, record): (usize, &crate::results::record::Record)| {
        let m = &record.measurement;
        if m.status != Status::Ok {
            return format!("{}: {}", m.status.name(), m.reason);
        }
        let learns = record.cell.trial.learning.is_some();
        let learnt = if learns { super::learning::ending(facts, i) } else { String::new() };
        let place = match &found {
            _ if learns && super::learning::is_best(facts, i) => CHEAPEST_TO_LOSS,
            _ if learns => "",
            Some(c) if c.best == i => CHEAPEST,
            Some(c) if c.tied.contains(&i) => "within noise of the cheapest",
            _ => "",
        };
        let own = !record.cell.trial.is_imported();
        let stopped = m.figures.as_ref().filter(|_| own).is_some_and(|f| {
            // What each of several launches reached, all of them know better.
            let of_cell = |reached: f64| reached / (f.launches.len().max(1) as f64).sqrt();
            matches!(f.stopped_by, Stop::MaxSeconds | Stop::Ended)
                && f.precision_reached.is_none_or(|reached| of_cell(reached) > precision)
        });
        let short = if stopped { "time was up first" } else { "" };
        let gpus = m.figures.as_ref().and_then(|f| f.telemetry.as_ref()).map(super::gpus::note).unwrap_or_default();
        let disturbed = m.figures.as_ref().map(|f| disturbed(f, wide)).unwrap_or_default();
        let failed = m.figures.as_ref().map(failures).unwrap_or_default();
        let again = m.figures.as_ref().map(sent_again).unwrap_or_default();
        [place, learnt.as_str(), failed.as_str(), again.as_str(), disturbed.as_str(), short, gpus.as_str()]
            .into_iter()
            .filter(|t| !t.is_empty())
            .collect::<Vec<_>>()
            .join("; ")
    };
    facts.records().iter().enumerate().map(note).collect()
}

/// What "disturbed" means, where a row says it.
fn meaning_of_disturbed(facts: &Facts) -> String {
    if !facts.measured().iter().any(|&i| facts.disturbed(i)) {
        return String::new();
    }
    let bounds = facts.run.environment.measure.disturbed;
    let (lost, others) = (Share(bounds.lost), Share(bounds.others));
    format!(
        "\"Disturbed\": others took more than {lost} of the trial's time, or used more than {others} of the CPU time meanwhile (the \
         kernel's accounts): its figures are not those of this machine alone. "
    )
}

/// "disturbed: 12.0 % lost waiting for a core"; without the causes where there is little room.
fn disturbed(figures: &Figures, wide: bool) -> String {
    let Some(d) = figures.disturbance.as_ref().filter(|_| figures.disturbed()) else { return String::new() };
    match d.lost().filter(|lost| *lost > d.bounds.lost) {
        _ if wide => format!("disturbed: {}", d.in_words()),
        Some(lost) => format!("disturbed: {} lost", Share(lost)),
        None => "disturbed: others computed".into(),
    }
}

/// "12 requests failed (status 429: 10, timeout: 2)", of a load of Centime's own.
fn failures(figures: &Figures) -> String {
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    for (how, count) in figures.served.iter().flat_map(|s| &s.own).flat_map(|own| &own.failures) {
        *all.entry(how.as_str()).or_default() += count;
    }
    let total: u64 = all.values().sum();
    let each: Vec<String> = all.iter().map(|(how, count)| format!("{how}: {count}")).collect();
    let requests = if total == 1 { "1 request".into() } else { format!("{} requests", grouped(total)) };
    if total == 0 { String::new() } else { format!("{requests} failed ({})", each.join(", ")) }
}

/// "2 requests sent twice", where kept connections ended under them.
fn sent_again(figures: &Figures) -> String {
    match figures.served.iter().flat_map(|s| &s.own).map(|own| own.sent_again).sum::<u64>() {
        0 => String::new(),
        1 => "1 request sent twice (its connection had ended)".into(),
        n => format!("{} requests sent twice (their connections had ended)", grouped(n)),
    }
}

/// What MFU and MBU are shares of.
fn limits(facts: &Facts) -> &'static str {
    let sources: Vec<Source> = facts
        .measured()
        .iter()
        .map(|&i| peaks::source(&Context::of(facts.run, &facts.records()[i], facts.book)))
        .collect();
    let any = |source| sources.contains(&source);
    match (any(Source::Probed), any(Source::Datasheet)) {
        (_, false) if facts.any(&MACHINE_SPEED) => {
            "MFU is against a peak that was probed on this machine, at the speed that it had around each launch."
        }
        (_, false) => "MFU is against a peak that was probed on this machine.",
        (false, true) => "MFU and MBU are against the datasheet's peaks (the GPU was not probed).",
        (true, true) => "MFU and MBU are against peaks that were probed, or the datasheet's: see the table of GPUs.",
    }
}

fn caption(facts: &Facts) -> String {
    let price = if facts.any(&USD_PER_MILLION) { "Costs rest on the price stated under Method (quoted). " } else { "" };
    let disturbed = meaning_of_disturbed(facts);
    format!(
        "± is the half width of the 95 % interval that another run on this machine is expected in, for tokens/s and for costs alike; \
         rows of one run are compared launch by launch, which tells smaller differences apart. \
         \"Time was up first\": \
         the interval is wider than the scenario asks for. {disturbed}{price}{} n/a: the metric does not apply, or nothing was measured.",
        limits(facts)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::transformer::Phase;

    #[test]
    fn every_requested_trial_has_a_row_and_one_is_the_cheapest() {
        let run = fixture::sweep();
        let t = table(&Facts::of(&run, fixture::book()));
        assert_eq!(t.rows.len(), 12);
        assert!(t.rows.iter().all(|r| r.cells.len() == t.columns.len()));
        assert_eq!(t.rows.iter().filter(|r| r.highlighted).count(), 1);
        let last = |row: usize| t.rows[row].cells.last().unwrap().text.clone();
        assert_eq!(last(7), "crashed: signal 11 (SIGSEGV)");
        assert_eq!(last(1), "skipped: batch 1 cannot be split over 2 devices");
    }

    #[test]
    fn a_disturbed_row_says_so_and_where_all_are_none_is_the_cheapest() {
        let mut run = fixture::sweep();
        let lost = crate::runner::watch::Disturbance { waited: Some(0.2), ..Default::default() };
        let disturb = |record: &mut crate::results::record::Record| {
            record.measurement.figures.iter_mut().for_each(|f| f.disturbance = Some(lost.clone()));
        };
        disturb(&mut run.records[0]);
        let note = |t: &Table, row: usize| t.rows[row].cells.last().unwrap().text.clone();
        let facts = Facts::of(&run, fixture::book());
        assert_eq!(note(&table(&facts), 0), "disturbed: 20.0 % lost waiting for a core");
        assert_eq!(note(&compact(&facts), 0), "disturbed: 20.0 % lost");
        assert!(caption(&facts).contains("more than 2.0 % of the trial's time") && facts.busy().is_none());
        run.records.iter_mut().for_each(disturb);
        let facts = Facts::of(&run, fixture::book());
        assert!(facts.busy().unwrap().ends_with("--fresh"));
        assert!(table(&facts).rows.iter().all(|r| !r.highlighted));
    }

    #[test]
    fn a_figure_is_not_shown_twice() {
        let headings = |phase| {
            let run = fixture::phase(phase);
            table(&Facts::of(&run, fixture::book())).columns.into_iter().map(|c| c.heading).collect::<Vec<_>>()
        };
        let prefill = headings(Phase::Prefill);
        assert!(!prefill.contains(&"TTFT".to_string()) && !prefill.contains(&"$/M input".to_string()), "{prefill:?}");
        let generate = headings(Phase::Generate);
        for wanted in ["TTFT", "TPOT", "$/M input", "$/M output", "$/M tokens"] {
            assert!(generate.contains(&wanted.to_string()), "{wanted}: {generate:?}");
        }
    }
}
