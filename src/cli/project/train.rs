//! `centime project train GOAL`: the cheapest and the fastest way to train a model.

use super::super::Failure;
use super::super::table::{Format, Rows, Value};
use super::Files;
use super::devices::{On, devices, price};
use crate::hardware::book::Book;
use crate::projection::calibration::Calibration;
use crate::projection::device::Unit;
use crate::projection::goal::Goal;
use crate::projection::plans::{Priced, candidates, front};
use crate::projection::published::Quantity;
use crate::units::{Bytes, grouped, significant};
use anyhow::anyhow;

/// Said of devices that no published row speaks of.
pub(super) const FURTHER_OFF: &str = "no measurement of such a device is in the fit: its bar is wider for that";

/// Plans that are shown.
const SHOWN: usize = 8;

/// Search devices, counts and layouts for a training run: the cheapest and the fastest that reach a goal.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What is to be trained, and within what: "budget 10000 USD, 7B parameters, 140B tokens, within 30 days".
    #[arg(value_name = "GOAL")]
    goal: String,
    /// Only these devices of the catalog, each perhaps with a count; every one with a price otherwise.
    #[arg(long, value_name = "DEVICES", value_delimiter = ',')]
    on: Vec<String>,
    #[command(flatten)]
    files: Files,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    search(&a.goal, &a.on, &a.files)
}

/// For `centime project --fit GOAL` as well, its earlier name.
pub(super) fn search(goal: &str, on: &[String], files: &Files) -> Result<(), Failure> {
    let usage = |m: String| Failure::Usage(anyhow!("{m}"));
    let goal = Goal::parse(goal).map_err(|e| usage(e.to_string()))?;
    let (book, calibration) = files.read()?;
    let named = devices("--on", on, &book)?;
    let all: Vec<On> = if named.is_empty() { every(&book) } else { named };
    let mut found: Vec<Priced> = Vec::new();
    for device in &all {
        let hour = price(&book, &device.name).map(|p| p.get());
        found.extend(candidates(&goal, &device.unit, device.count, hour, &calibration));
    }
    if found.is_empty() {
        return Err(usage("no device of these has the memory for this model, with up to 8,192 of them".into()));
    }
    let best = found.iter().map(|p| p.mfu).fold(0.0, f64::max);
    found.retain(|p| p.mfu >= goal.efficiency);
    if found.is_empty() {
        return Err(usage(format!(
            "no plan reaches {:.0} % of the peak, the best {:.1} %; `efficiency {:.0} %` asks for less",
            100.0 * goal.efficiency,
            100.0 * best,
            (100.0 * best).floor()
        )));
    }
    let half = |p: &Priced| calibration.bars.half(Quantity::TrainingTokens, &p.traits).unwrap_or(0.0);
    let within = |p: &Priced| {
        goal.budget_usd.is_none_or(|b| p.usd.is_some_and(|u| u <= b)) && goal.days.is_none_or(|d| p.days <= d)
    };
    let mut good: Vec<Priced> = found.iter().filter(|p| within(p)).cloned().collect();
    good.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    let Some(cheapest) = good.first() else {
        let near = found.iter().min_by(|a, b| cost(a).total_cmp(&cost(b)));
        return Err(usage(format!("no plan is within that: {}", near.map_or(String::new(), |p| sentence(p, half(p))))));
    };
    let front = front(&good);
    let fastest = good.iter().min_by(|a, b| a.days.total_cmp(&b.days)).unwrap_or(cheapest);
    table(&shown(&good, &front), &front, &half, files.printed.format)?;
    if files.printed.format == Format::Table {
        let out = super::super::output::print_wrapped;
        out(&format!("cheapest: {}", sentence(cheapest, half(cheapest))))?;
        out(&format!("fastest:  {}", sentence(fastest, half(fastest))))?;
        out(&foot(&goal, &calibration))?;
    }
    Ok(())
}

/// The front, and the cheapest plan of each device that is not on it.
fn shown<'a>(good: &'a [Priced], front: &[&'a Priced]) -> Vec<&'a Priced> {
    let mut all: Vec<&Priced> = front.to_vec();
    for p in good {
        if all.len() < SHOWN.max(front.len()) && !all.iter().any(|s| s.device == p.device) {
            all.push(p);
        }
    }
    all.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    all
}

/// Plans without a price come last.
fn cost(p: &Priced) -> f64 {
    p.usd.unwrap_or(f64::INFINITY)
}

/// Every device of the catalog that trains and has a price.
fn every(book: &Book) -> Vec<On> {
    let trains = |u: &Unit| u.memory_bytes >= 15e9 && u.peak >= 60e12;
    let units = book.devices.iter().filter_map(|d| Some((d, Unit::of(d).ok().filter(trains)?)));
    units
        .filter(|(d, _)| price(book, &d.name).is_some())
        .map(|(d, unit)| On { name: d.name.clone(), unit: unit.into(), count: None })
        .collect()
}

fn range(x: f64, half: f64) -> String {
    format!("{} ({} .. {})", significant(x, 3), significant(x * (-half).exp(), 3), significant(x * half.exp(), 3))
}

fn sentence(p: &Priced, half: f64) -> String {
    let usd = p.usd.map_or("without a price".into(), |u| format!("{} USD", range(u, half)));
    let note = if p.extrapolated { format!(" ({FURTHER_OFF})") } else { String::new() };
    format!("{} {}: {} days, {usd}; {}{note}", p.devices, p.device, range(p.days, half), p.plan.described())
}

fn table(plans: &[&Priced], front: &[&Priced], half: &impl Fn(&Priced) -> f64, format: Format) -> Result<(), Failure> {
    const COLUMNS: &[&str] = &[
        "device",
        "devices",
        "layout",
        "days",
        "days_from",
        "days_to",
        "usd",
        "usd_from",
        "usd_to",
        "tokens_per_second",
        "mfu",
        "memory_bytes",
        "front",
        "note",
    ];
    let mut rows = Rows::new(COLUMNS).least(&[
        "tokens_per_second",
        "memory_bytes",
        "note",
        "mfu",
        "usd_from",
        "usd_to",
        "days_from",
        "days_to",
    ]);
    for p in plans {
        let number = |x: f64| Value::from((significant(x, 3), x));
        let money = |u: Option<f64>| {
            u.map_or_else(|| String::new().into(), |u| Value::from((format!("${}", grouped(u.round() as u64)), u)))
        };
        let (low, high) = ((-half(p)).exp(), half(p).exp());
        let bytes = p.plan.footprint.total() as u64;
        let on_front = front.iter().any(|f| std::ptr::eq(*f, *p));
        rows.push(vec![
            p.device.clone().into(),
            (grouped(p.devices.into()), u64::from(p.devices)).into(),
            p.plan.described().into(),
            number(p.days),
            number(p.days * low),
            number(p.days * high),
            money(p.usd),
            money(p.usd.map(|u| u * low)),
            money(p.usd.map(|u| u * high)),
            (grouped(p.plan.tokens_per_second.round() as u64), p.plan.tokens_per_second).into(),
            (format!("{:.0} %", 100.0 * p.mfu), p.mfu).into(),
            (Bytes(bytes).to_string(), bytes).into(),
            (if on_front { "yes" } else { "" }).to_string().into(),
            if p.extrapolated { FURTHER_OFF.to_string().into() } else { String::new().into() },
        ]);
    }
    rows.print(format)
}

fn foot(goal: &Goal, c: &Calibration) -> String {
    let m = goal.model();
    format!(
        "projected, not measured, without failures, restarts or evaluation. The model: {} layers of {}, vocabulary {}, \
         {} sequences of {} a step.\nRanges hold 90 % of published measurements whose source the model had not seen ({}). \
         Front: no other plan is both cheaper and sooner. Plans under {:.0} % of the peak are left out (`efficiency N %`). \
         Prices: the latest on demand of one device of an instance; `centime hardware` lists them.",
        m.layers,
        m.d_model,
        grouped(m.vocab as u64),
        grouped(goal.sequences() as u64),
        grouped(goal.seq_len as u64),
        c.fitted,
        100.0 * goal.efficiency
    )
}
