//! `centime project SCENARIO --on DEVICES`: the cells of a sweep on devices that are not here.

use super::super::Failure;
use super::super::load::{Selection, load};
use super::super::table::{Format, Rows, Value};
use super::Files;
use super::devices::{On, devices};
use super::train::FURTHER_OFF;
use crate::cost::price::usd_per_million_tokens;
use crate::hardware::book::Book;
use crate::projection::calibration::Calibration;
use crate::projection::workload::{Projected, project};
use crate::scenario::Cell;
use crate::units::{Bytes, Seconds, Share, TokensPerSecond, UsdPerHour, UsdPerMillionTokens, grouped, significant};
use anyhow::anyhow;
use std::path::Path;

/// Most cells of a sweep that are projected.
const MOST_CELLS: u64 = 100_000;

const COLUMNS: &[&str] = &[
    "cell",
    "device",
    "devices",
    "engine",
    "layout",
    "tokens_per_second",
    "from",
    "to",
    "step_seconds",
    "memory_bytes",
    "usd_per_hour",
    "usd_per_million_tokens",
    "usd_from",
    "usd_to",
    "note",
];

pub(super) fn run(file: &Path, on: &[String], set: &[String], files: &Files) -> Result<(), Failure> {
    let selection =
        Selection { file: file.into(), set: set.to_vec(), max_cells: MOST_CELLS, prices: files.prices.clone() };
    let scenario = load(&selection)?;
    let (book, calibration) = files.read()?;
    let on = devices("--on", on, &book)?;
    let mut rows = Rows::new(COLUMNS).least(&[
        "step_seconds",
        "layout",
        "usd_per_hour",
        "memory_bytes",
        "note",
        "usd_from",
        "usd_to",
        "from",
        "to",
    ]);
    for cell in &scenario.cells {
        for device in &on {
            for row in rows_of(cell, device, &book, &calibration)? {
                rows.push(row);
            }
        }
    }
    if files.printed.format != Format::Table {
        return rows.print(files.printed.format);
    }
    let same = rows.take_constant(&["cell", "device", "devices", "engine", "layout"]);
    rows.print(files.printed.format)?;
    let same: Vec<String> = same.into_iter().map(|(heading, text)| format!("{heading} {text}")).collect();
    if !same.is_empty() {
        super::super::output::print_wrapped(&format!("in every row: {}", same.join(", ")))?;
    }
    super::super::output::print_wrapped(&foot(&calibration))
}

/// What the figures are worth.
fn foot(c: &Calibration) -> String {
    format!(
        "projected, not measured. From .. to holds 90 % of published measurements whose source the model had not seen ({}).\n\
         `good engine`: what published engines reach. `this program`: {}.",
        c.fitted,
        match c.own.first() {
            None => "as it is measured against them; `centime project calibrate --own DIR` does that".to_string(),
            Some(o) =>
                format!("as it was measured against them on {}, and elsewhere never faster than they are", o.device),
        }
    )
}

/// A row for each engine: a good one, and this program where it was measured.
fn rows_of(cell: &Cell, on: &On, book: &Book, c: &Calibration) -> Result<Vec<Vec<Value>>, Failure> {
    let w = &cell.trial.workload;
    if !cell.trial.states_model() {
        let message = "the model of the program is not stated, so nothing can be projected; give trial.model";
        return Err(Failure::Usage(anyhow!("{}: {message}", cell.name())));
    }
    let count = on.count.unwrap_or(cell.trial.devices);
    let p = match project(w, &on.unit, count, c) {
        Ok(p) => p,
        Err(e) => return Err(Failure::Usage(anyhow!("{}: {e}", cell.name()))),
    };
    let price =
        super::devices::price(book, &on.name).map(|each| UsdPerHour(each.0 * rust_decimal::Decimal::from(count)));
    let bar = c.bars.half(p.quantity, &p.traits);
    let further = !c.has_seen(&on.unit);
    let good = Engine { name: "good engine", slower: 1.0, bar };
    let own = c.own.iter().find(|o| o.quantity == p.quantity).map(|own| {
        // What is its own part of the error was measured; what devices and rows differ by stays.
        let rest = c.bars.of(p.quantity).map_or(1.0, |b| b.effects.within / b.effects.within.hypot(b.effects.between));
        let bar = bar.map(|b| (b * rest).hypot(own.spread));
        Engine { name: "this program", slower: own.time_ratio_on(&on.unit), bar }
    });
    let of = |e: Engine| row(cell, (on, count), &e, &p, price, further);
    Ok(std::iter::once(good).chain(own).map(of).collect())
}

/// Who runs the workload: how much slower than projected, and the half width of the bar on the logarithmic scale.
struct Engine {
    name: &'static str,
    slower: f64,
    bar: Option<f64>,
}

fn row(
    cell: &Cell,
    (on, count): (&On, u32),
    engine: &Engine,
    p: &Projected,
    price: Option<UsdPerHour>,
    further: bool,
) -> Vec<Value> {
    let slower = engine.slower;
    let rate = p.tokens_per_second / slower;
    let number = |x: f64| Value::from((significant(x, 3), x));
    let blank = || Value::from(String::new());
    let (from, to) = match engine.bar {
        Some(half) => (Some(rate * (-half).exp()), Some(rate * half.exp())),
        None => (None, None),
    };
    let usd = |rate: Option<f64>| -> Option<UsdPerMillionTokens> {
        usd_per_million_tokens(price?, TokensPerSecond(rate?), Share(1.0)).ok()
    };
    let money = |u: Option<UsdPerMillionTokens>| {
        u.map_or_else(blank, |u| (format!("${}", significant(u.get(), 3)), u.get()).into())
    };
    let bytes = p.footprint.total() as u64;
    let mut notes = Vec::new();
    if !p.fits {
        notes.push(format!("does not fit: {} of {}", Bytes(bytes), Bytes(on.unit.memory_bytes as u64)));
    }
    if further {
        notes.push(FURTHER_OFF.into());
    }
    let shown = |x: f64| if p.fits { number(x) } else { blank() };
    vec![
        cell.name().into(),
        on.name.clone().into(),
        (count.to_string(), u64::from(count)).into(),
        engine.name.to_string().into(),
        p.layout.clone().into(),
        if p.fits { (grouped_rate(rate), rate).into() } else { blank() },
        from.map_or_else(blank, shown),
        to.map_or_else(blank, shown),
        if p.fits {
            (Seconds(p.seconds_per_step * slower).to_string(), p.seconds_per_step * slower).into()
        } else {
            blank()
        },
        (Bytes(bytes).to_string(), bytes).into(),
        price.map_or_else(blank, |u| (format!("${}", significant(u.get(), 4)), u.get()).into()),
        money(usd(Some(rate).filter(|_| p.fits))),
        money(usd(to.filter(|_| p.fits))),
        money(usd(from.filter(|_| p.fits))),
        notes.join("; ").into(),
    ]
}

fn grouped_rate(x: f64) -> String {
    if x >= 1000.0 { grouped(x.round() as u64) } else { significant(x, 3) }
}
