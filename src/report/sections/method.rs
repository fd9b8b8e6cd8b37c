//! How the figures came about: the price, the measuring, and the formula of every metric.

use crate::cost::metric::{Metric, Provenance};
use crate::cost::metrics::METRICS;
use crate::hardware::date::Date;
use crate::report::document::{Block, Cell, Column, Row, Span, Table};
use crate::report::facts::Facts;
use crate::report::format::counted;
use crate::scenario::{Order, Price};
use crate::units::{Seconds, Share};

pub(super) fn blocks(facts: &Facts) -> Vec<Block> {
    vec![
        Block::List(
            [Some(price(facts)), Some(measuring(facts)), requests(facts), Some(interval(facts)), Some(order(facts))]
                .into_iter()
                .flatten()
                .collect(),
        ),
        Block::Folded {
            summary: "Every metric: formula and source".into(),
            blocks: vec![Block::Table(metrics(facts))],
        },
    ]
}

fn price(facts: &Facts) -> Vec<Span> {
    let p = &facts.run.environment.price;
    let Some(hour) = p.usd_per_hour else {
        return vec![Span::strong("Price: "), Span::plain("none is stated, so every cost is n/a.")];
    };
    let source = if p.source.is_empty() { "its source is not stated".into() } else { format!("source: {}", p.source) };
    vec![
        Span::strong("Price (quoted): "),
        Span::plain(format!(
            "{hour} for {} ({}), tokens being made in {} of the paid time; {source}.{}",
            covered(p),
            p.hardware,
            Share(p.utilisation.get()),
            stale(facts)
        )),
    ]
}

/// What the price of an hour pays for.
fn covered(p: &Price) -> String {
    match p.per_devices {
        None => "everything that a trial occupies".into(),
        Some(1) => "each device that a trial occupies".into(),
        Some(n) => format!("each instance of {n} devices, which is rented whole"),
    }
}

/// A warning where the price had not been seen for long when the run was made.
fn stale(facts: &Facts) -> String {
    let e = &facts.run.environment;
    let made = e.started_at.get(..10).and_then(Date::parse);
    match made.and_then(|day| e.price.stale_days(day)) {
        Some(days) => format!(" The price was last seen {days} days before the run: check it."),
        None => String::new(),
    }
}

fn measuring(facts: &Facts) -> Vec<Span> {
    let m = &facts.run.environment.measure;
    let of = |i: &usize| facts.records()[*i].measurement.figures.as_ref().map(|f| f.launches.len().max(1));
    let launches = facts.measured().iter().filter_map(of).max().unwrap_or(1);
    let of_launch = m.of_launch(u32::try_from(launches).unwrap_or(u32::MAX));
    let warmup = match m.warmup_steps {
        None => "warms up until the time of a step is stationary (MSER-5)".into(),
        Some(n) => format!("warms up for {n} steps"),
    };
    vec![
        Span::strong("Measuring: "),
        Span::plain(format!(
            "each launch of a trial is a process of its own; it {warmup}, then steps until the 95 % interval of the median step is \
             within {} of it, for at least {} and at most {}. {} Every step counts, none is dropped; the raw times are in \
             results.parquet and results.json.",
            Share(of_launch.precision),
            Seconds(of_launch.min_seconds),
            Seconds(of_launch.max_seconds),
            match launches {
                1 => "Each trial was launched once.".to_string(),
                n => format!(
                    "All trials were launched once a round, in {n} rounds; a figure is the median of its launches' medians."
                ),
            }
        )),
    ]
}

/// How servers were asked, where any was.
fn requests(facts: &Facts) -> Option<Vec<Span>> {
    let asked = |i: &usize| facts.records()[*i].cell.trial.engine.as_ref().is_some_and(|e| e.server.is_some());
    facts.measured().iter().any(asked).then(|| {
        let text = "a launch is one stretch of load: warm-up, a window, and load kept up until all that was due in the window has an end. \
                    Latencies are of the requests that were due in the window, from when they were due; rates are of the window's time; \
                    tokens are those that the server counts. What is above called a step is what is under way at a time, at the \
                    window's rate of tokens.";
        vec![Span::strong("Requests: "), Span::plain(text)]
    })
}

fn interval(facts: &Facts) -> Vec<Span> {
    let known = facts.run.environment.variation();
    let earlier = match known.runs {
        0 => format!(
            "what is assumed of {}, since no earlier run of this build on this machine is known",
            known.kind.words()
        ),
        n => format!("{} on this machine", counted(n as usize, "earlier run")),
    };
    vec![
        Span::strong("Intervals: "),
        Span::plain(format!(
            "95 %, for another run on this machine: what steps leave open, how launches differ, and how runs differ (standard \
             deviation {}; from {earlier}). Which trial is cheapest, and speed-ups, are judged within this run, launch by launch of \
             the same round, at 95 % for all comparisons together; a verdict on a small difference between two programs needs \
             `centime check`.",
            Share(known.spread.run)
        )),
    ]
}

fn order(facts: &Facts) -> Vec<Span> {
    let m = &facts.run.environment.measure;
    let text = match m.order {
        Order::Shuffled => format!(
            "the trials ran in an order shuffled with seed {}, so that drift of the machine does not line up with an axis; \
             each row keeps its place in it.",
            m.seed
        ),
        Order::File => "the trials ran in the order of the file; drift of the machine may line up with an axis.".into(),
    };
    vec![Span::strong("Order: "), Span::plain(text)]
}

fn metrics(facts: &Facts) -> Table {
    let mut table = Table::new(["column", "unit", "is", "formula", "source"].map(Column::text).to_vec());
    for m in METRICS.iter().filter(|m| facts.any(m)) {
        let cells = [m.name, m.unit, provenance(m), m.formula, m.source];
        table.rows.push(Row::new(cells.map(Cell::text).to_vec()));
    }
    table.caption =
        "Measured: timed or counted while the trial ran. Projected: predicted from the shape. Quoted: rests on a \
                     stated price."
            .into();
    table
}

fn provenance(m: &Metric) -> &'static str {
    match m.provenance {
        Provenance::Measured => "measured",
        Provenance::Projected => "projected",
        Provenance::Quoted => "quoted",
    }
}
