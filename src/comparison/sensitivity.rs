//! What the cost per token would be if one thing were different: the bars of a tornado.

use crate::cost::evaluate::Figured;
use crate::cost::metric::Context;
use crate::cost::metrics::USD_PER_MILLION;
use crate::cost::price::usd_per_million_tokens;
use crate::hardware::book::Book;
use crate::results::run::Run;
use crate::units::{Share, TokensPerSecond, UsdPerHour};

/// One thing varied: what it is at either end, and the cost there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bar {
    pub name: &'static str,
    /// Where the cost is lower, and where it is higher; `None` where there is no such end.
    pub low: Option<End>,
    pub high: Option<End>,
}

/// A value and the cost per million tokens at it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct End {
    pub value: String,
    pub cost: f64,
    /// Whether a trial was measured there; else it follows from the formula.
    pub measured: bool,
}

impl Bar {
    /// From the lowest to the highest cost, the cost as it is included.
    pub(crate) fn width(&self, cost: f64) -> f64 {
        let at = |e: &Option<End>| e.as_ref().map_or(cost, |e| e.cost);
        (at(&self.high) - at(&self.low)).abs()
    }
}

/// How far prices and utilisation are varied.
pub(crate) const STEP: f64 = 0.2;

/// Price and utilisation by a fifth either way, throughput over its interval, the batch over its neighbours in the sweep; the
/// widest first. `None` without a cost.
pub(crate) fn tornado(run: &Run, book: &Book, figures: &[Figured], record: usize) -> Option<(f64, Vec<Bar>)> {
    let context = Context::of(run, run.records.get(record)?, book);
    let cost = figures.get(record)?.get(&USD_PER_MILLION)?;
    let throughput = crate::cost::metrics::TOKENS_PER_SECOND.compute;
    let throughput = throughput(&context)?;
    let (hour, share) = (context.hour?, context.price.utilisation.get());
    let at = |hour: f64, rate: f64, share: f64| {
        Some(usd_per_million_tokens(UsdPerHour::of(hour)?, TokensPerSecond(rate), Share(share)).ok()?.get())
    };
    let end = |value: String, cost: Option<f64>| Some(End { value, cost: cost?, measured: false });
    let mut bars = Vec::new();
    let price = |factor: f64| {
        let hour = hour.get() * factor;
        end(format!("${}/h", crate::units::significant(hour, 3)), at(hour, throughput.value, share))
    };
    bars.push(Bar { name: "price", low: price(1.0 - STEP), high: price(1.0 + STEP) });
    let used = |share: f64| end(Share(share).to_string(), at(hour.get(), throughput.value, share));
    let more = (share * (1.0 + STEP)).min(1.0);
    bars.push(Bar {
        name: "utilisation",
        low: (more > share).then(|| used(more)).flatten(),
        high: used(share * (1.0 - STEP)),
    });
    if let Some((slow, fast)) = throughput.interval() {
        let rate = |rate: f64| {
            end(TokensPerSecond(rate).to_string(), at(hour.get(), rate, share)).map(|e| End { measured: true, ..e })
        };
        bars.push(Bar { name: "throughput (95 % CI)", low: rate(fast), high: rate(slow) });
    }
    bars.extend(batch(run, figures, record));
    bars.sort_by(|a, b| b.width(cost.value).total_cmp(&a.width(cost.value)));
    Some((cost.value, bars))
}

/// The same trial with the next smaller and the next larger batch, where the sweep measured them.
fn batch(run: &Run, figures: &[Figured], record: usize) -> Option<Bar> {
    let this = &run.records.get(record)?.cell.trial;
    let own = this.workload.batch;
    let mut neighbours: Vec<(u32, f64)> = run
        .records
        .iter()
        .zip(figures)
        .filter(|(r, _)| {
            let mut other = r.cell.trial.clone();
            other.workload.batch = own;
            r.cell.trial.workload.batch != own && other == *this
        })
        .filter_map(|(r, f)| Some((r.cell.trial.workload.batch, f.get(&USD_PER_MILLION)?.value)))
        .collect();
    neighbours.sort_by_key(|(batch, _)| *batch);
    let smaller = neighbours.iter().rev().find(|(b, _)| *b < own);
    let larger = neighbours.iter().find(|(b, _)| *b > own);
    let end = |n: Option<&(u32, f64)>| n.map(|(b, cost)| End { value: b.to_string(), cost: *cost, measured: true });
    let (one, other) = (end(larger), end(smaller));
    let first_is_lower = match (&one, &other) {
        (Some(a), Some(b)) => a.cost <= b.cost,
        (None, None) => return None,
        _ => true,
    };
    let (low, high) = if first_is_lower { (one, other) } else { (other, one) };
    Some(Bar { name: "batch", low, high })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::evaluate::evaluate;
    use crate::fixture;

    #[test]
    fn a_fifth_of_the_price_is_a_fifth_of_the_cost() {
        let mut run = fixture::sweep();
        run.environment.price.utilisation = Share(0.5);
        let figures = evaluate(&run, fixture::book());
        let record = run
            .records
            .iter()
            .position(|r| r.measurement.figures.is_some() && r.cell.trial.workload.batch == 4)
            .unwrap();
        let (cost, bars) = tornado(&run, fixture::book(), &figures, record).unwrap();
        let bar = |name: &str| bars.iter().find(|b| b.name == name).unwrap();
        let ends = |b: &Bar| (b.low.as_ref().unwrap().cost / cost, b.high.as_ref().unwrap().cost / cost);
        let (low, high) = ends(bar("price"));
        assert!((low - 0.8).abs() < 1e-9 && (high - 1.2).abs() < 1e-9);
        // Half used: 0.6 and 0.4.
        let (low, high) = ends(bar("utilisation"));
        assert!((low - 1.0 / 1.2).abs() < 1e-9 && (high - 1.25).abs() < 1e-9);
        assert!(bar("batch").low.as_ref().unwrap().measured);
        assert!(bars.windows(2).all(|w| w[0].width(cost) >= w[1].width(cost)));
    }

    #[test]
    fn full_use_cannot_be_bettered() {
        let run = fixture::sweep();
        let (_, bars) = tornado(&run, fixture::book(), &evaluate(&run, fixture::book()), 0).unwrap();
        assert_eq!(bars.iter().find(|b| b.name == "utilisation").unwrap().low, None);
    }
}
