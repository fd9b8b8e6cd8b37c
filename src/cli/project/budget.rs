//! `centime project --fit GOAL`: the cheapest and the fastest way to train a model.

use super::super::Failure;
use super::super::sizes::count as size;
use super::super::table::{Format, Rows, Value};
use super::Files;
use super::devices::{On, devices, price};
use crate::hardware::book::Book;
use crate::projection::calibration::Calibration;
use crate::projection::device::Unit;
use crate::projection::goal::{Goal, Priced, candidates};
use crate::projection::published::Quantity;
use crate::projection::search::{Kept, Settled};
use crate::units::{Bytes, grouped, significant};
use anyhow::anyhow;

/// Said of devices that no published row speaks of.
pub(super) const FURTHER_OFF: &str = "no measurement of such a device in the fit: further off than the bar";

/// Plans that are shown.
const SHOWN: usize = 8;

pub fn run(goal: &str, on: &[String], files: &Files) -> Result<(), Failure> {
    let usage = |m: String| Failure::Usage(anyhow!("--fit: {m}"));
    let goal = parse(goal).map_err(usage)?;
    let (book, calibration) = files.read()?;
    let named = devices(on, &book)?;
    let all: Vec<On> = if named.is_empty() { every(&book) } else { named };
    let half = calibration.bars.half(Quantity::TrainingTokens).unwrap_or(0.0);
    let mut found: Vec<Priced> = Vec::new();
    for device in &all {
        let hour = price(&book, &device.name).map(|p| p.get());
        found.extend(candidates(&goal, &device.unit, device.count, hour, &calibration.constants));
    }
    if found.is_empty() {
        return Err(usage("no device of these has the memory for this model, with up to 8,192 of them".into()));
    }
    let within = |p: &Priced| {
        goal.budget_usd.is_none_or(|b| p.usd.is_some_and(|u| u <= b)) && goal.days.is_none_or(|d| p.days <= d)
    };
    let mut good: Vec<&Priced> = found.iter().filter(|p| within(p)).collect();
    good.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    let Some(cheapest) = good.first().copied() else {
        let mut near: Vec<&Priced> = found.iter().collect();
        near.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
        return Err(usage(format!(
            "no plan is within that: {}",
            near.first().map_or(String::new(), |p| sentence(p, half))
        )));
    };
    let fastest = good.iter().copied().min_by(|a, b| a.days.total_cmp(&b.days)).unwrap_or(cheapest);
    table(&good, fastest, half, files.format)?;
    if files.format == Format::Table {
        let out = |text: &str| super::super::output::print(text);
        out(&format!("cheapest: {}", sentence(cheapest, half)))?;
        out(&format!("fastest:  {}", sentence(fastest, half)))?;
        out(&foot(&goal, &calibration))?;
    }
    Ok(())
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

const CLAUSES: &str = "`7B parameters`, `140B tokens`, `10000 USD`, `30 days`, `sequences of 4096`, `batch 1024`, `tensor 8`, \
                       `pipeline 8`, `full recomputation`, `no recomputation`, `engine of 2021`";

/// "budget 10000 USD, 7B parameters, 140B tokens, within 30 days, sequences of 4096".
fn parse(text: &str) -> Result<Goal, String> {
    let mut goal = Goal {
        parameters: 0.0,
        tokens: 0.0,
        budget_usd: None,
        days: None,
        seq_len: 2048.0,
        batch: None,
        settled: Settled::default(),
    };
    for clause in text.split([',', ';']).map(str::trim).filter(|c| !c.is_empty()) {
        let lower = clause.to_lowercase();
        if lower.contains("recomput") {
            goal.settled.kept = if lower.starts_with("no") { Kept::All } else { Kept::Inputs };
            continue;
        }
        if lower.contains("2021") {
            goal.settled.old_kernels = true;
            continue;
        }
        let plain = clause.replace(['$', '_'], " ");
        let words: Vec<&str> = plain.split_whitespace().collect();
        let n = words.iter().find_map(|w| size(w).ok()).ok_or(format!("`{clause}`: a number is missing"))?;
        let has = |stems: &[&str]| words.iter().any(|w| stems.iter().any(|s| w.to_lowercase().starts_with(s)));
        if has(&["param"]) {
            goal.parameters = n;
        } else if has(&["token"]) {
            goal.tokens = n;
        } else if has(&["usd", "budget", "dollar"]) || clause.contains('$') {
            goal.budget_usd = Some(n);
        } else if has(&["day"]) {
            goal.days = Some(n);
        } else if has(&["batch"]) {
            goal.batch = Some(n);
        } else if has(&["seq", "context"]) {
            goal.seq_len = n;
        } else if has(&["tensor"]) {
            goal.settled.tensor = Some(n);
        } else if has(&["pipeline"]) {
            goal.settled.pipeline = Some(n);
        } else {
            return Err(format!("`{clause}`: one of {CLAUSES}"));
        }
    }
    let within = |x: f64, low: f64, high: f64| (low..=high).contains(&x);
    if !within(goal.parameters, 1e6, 1e14) || !within(goal.tokens, 1e6, 1e16) || !within(goal.seq_len, 16.0, 1e7) {
        return Err("parameters and tokens are needed: \"budget 10000 USD, 7B parameters, 140B tokens\"".into());
    }
    Ok(goal)
}

fn range(x: f64, half: f64) -> String {
    format!("{} ({} .. {})", significant(x, 3), significant(x * (-half).exp(), 3), significant(x * half.exp(), 3))
}

fn sentence(p: &Priced, half: f64) -> String {
    let usd = p.usd.map_or("without a price".into(), |u| format!("{} USD", range(u, half)));
    let note = if p.extrapolated { format!(" ({FURTHER_OFF})") } else { String::new() };
    format!("{} {}: {} days, {usd}; {}{note}", p.devices, p.device, range(p.days, half), p.plan.described())
}

fn table(good: &[&Priced], fastest: &Priced, half: f64, format: Format) -> Result<(), Failure> {
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
        "note",
    ];
    let mut rows = Rows::new(COLUMNS);
    // The cheapest of each device first, then the fastest of all.
    let mut seen: Vec<&str> = Vec::new();
    let mut shown: Vec<&Priced> = Vec::new();
    for p in good {
        if !seen.contains(&p.device.as_str()) && shown.len() < SHOWN {
            seen.push(&p.device);
            shown.push(p);
        }
    }
    if !shown.iter().any(|p| std::ptr::eq(*p, fastest)) {
        shown.push(fastest);
    }
    for p in shown {
        let number = |x: f64| Value::from((significant(x, 3), x));
        let money = |u: Option<f64>| {
            u.map_or_else(|| String::new().into(), |u| Value::from((format!("${}", grouped(u.round() as u64)), u)))
        };
        let bytes = p.plan.footprint.total() as u64;
        rows.push(vec![
            p.device.clone().into(),
            (grouped(p.devices.into()), u64::from(p.devices)).into(),
            p.plan.described().into(),
            number(p.days),
            number(p.days * (-half).exp()),
            number(p.days * half.exp()),
            money(p.usd),
            money(p.usd.map(|u| u * (-half).exp())),
            money(p.usd.map(|u| u * half.exp())),
            (grouped(p.plan.tokens_per_second.round() as u64), p.plan.tokens_per_second).into(),
            (format!("{:.0} %", 100.0 * p.mfu), p.mfu).into(),
            (Bytes(bytes).to_string(), bytes).into(),
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
         Prices: the latest on demand of one device of an instance; `centime hardware` lists them.",
        m.layers,
        m.d_model,
        grouped(m.vocab as u64),
        grouped(goal.sequences() as u64),
        grouped(goal.seq_len as u64),
        c.fitted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_read_as_they_are_said() {
        let g = parse("budget 10000 USD, 7B parameters, 140B tokens").unwrap();
        assert_eq!((g.budget_usd, g.parameters, g.tokens, g.days), (Some(10_000.0), 7e9, 140e9, None));
        let g = parse("$5000; 1.3e9 params; 26B tokens; within 30 days; sequences of 4096").unwrap();
        assert_eq!((g.budget_usd, g.days, g.seq_len), (Some(5000.0), Some(30.0), 4096.0));
        let g =
            parse("175B parameters, 300B tokens, batch 1536, tensor 8, pipeline 8, full recomputation, engine of 2021");
        let settled = Settled { kept: Kept::Inputs, tensor: Some(8.0), pipeline: Some(8.0), old_kernels: true };
        assert_eq!((g.clone().unwrap().batch, g.unwrap().settled), (Some(1536.0), settled));
        for (bad, message) in [("7B parameters", "are needed"), ("fast", "a number is missing"), ("7 apples", "one of")]
        {
            assert!(parse(bad).unwrap_err().contains(message), "{bad}");
        }
    }
}
