//! The answer in a plain sentence, and the figures that carry it.

use crate::comparison::cheapest::Cheapest;
use crate::comparison::ratio::ratio;
use crate::cost::metric::{Context, Estimate, Metric, Quantity};
use crate::cost::metrics::{FLOPS_PER_SECOND, MFU, TOKENS_PER_SECOND, USD_PER_MILLION};
use crate::cost::peaks;
use crate::report::document::{Block, Cell, Column, Figure, Row, Span, Table, paragraph};
use crate::report::facts::Facts;
use crate::report::format::{ABSENT, bare, counted, listed, plus_minus, shown, with_unit};
use crate::runner::measurement::Status;
use crate::units::{Share, significant};

pub(super) fn blocks(facts: &Facts) -> Vec<Block> {
    // What was learnt does not depend on who else computed; what it took is told with who did.
    if let Some(mut blocks) = super::learning::answer(facts) {
        blocks.extend(disturbed(facts));
        return blocks;
    }
    if let Some(again) = facts.busy() {
        let what =
            "The machine was busy while every trial ran, so that there is no answer: measure again when it is quieter.";
        return vec![Block::Answer(vec![Span::plain(what)]), Block::Command(again)];
    }
    let Some(found) = facts.cheapest() else { return unpriced(facts) };
    let mut blocks = vec![Block::Answer(sentence(facts, found)), Block::Figures(figures(facts, found))];
    blocks.extend(disturbed(facts));
    blocks.extend(by_model(facts));
    blocks
}

/// "d_model 128, batch 8 makes the cheapest tokens: $0.0041 per million (95 % CI 0.0040 .. 0.0042), 3.1 times cheaper than ...", or,
/// where others cannot be told from it, "One of 3 makes the cheapest tokens: ..., within 2.1 % of one another."
fn sentence(facts: &Facts, found: &Cheapest) -> Vec<Span> {
    let mut spans = if found.tied.is_empty() {
        vec![Span::strong(facts.name(found.best)), Span::plain(" makes the cheapest tokens: ")]
    } else {
        let mut names = vec![facts.name(found.best)];
        names.extend(found.tied.iter().take(3).map(|&i| facts.name(i)));
        let more = found.tied.len() + 1 - names.len();
        let more = if more > 0 { format!(" ({more} more)") } else { String::new() };
        vec![
            Span::strong(format!("One of {}", found.tied.len() + 1)),
            Span::plain(format!(" makes the cheapest tokens, {}{more}: ", either(&names))),
        ]
    };
    let Some(cost) = facts.get(found.best, &USD_PER_MILLION) else { return spans };
    spans.push(Span::strong(format!("${} per million", bare(Quantity::UsdPerMillionTokens, cost.value))));
    spans.push(Span::plain(interval(&cost)));
    if let Some(times) = facts.get(found.dearest, &USD_PER_MILLION).and_then(|d| ratio(&d, &cost))
        && found.dearest != found.best
    {
        spans.push(Span::plain(format!(
            ". That is {} times cheaper than the dearest, {}",
            significant(times.value, 3),
            facts.name(found.dearest)
        )));
    }
    spans.push(Span::plain("."));
    let last = found.tied.last().and_then(|&i| facts.get(i, &USD_PER_MILLION));
    if let Some(last) = last {
        let apart = Share(last.value / cost.value - 1.0);
        spans.push(Span::plain(format!(
            " They are within {apart} of one another, which these launches do not tell apart."
        )));
    }
    spans
}

/// Which figures are not this machine's alone: they may be cheaper than they look.
fn disturbed(facts: &Facts) -> Option<Block> {
    let names: Vec<String> =
        facts.measured().into_iter().filter(|&i| facts.disturbed(i)).map(|i| facts.name(i)).collect();
    if names.is_empty() {
        return None;
    }
    let shown = names.len().min(3);
    let more = if names.len() > shown { format!(" and {} more", names.len() - shown) } else { String::new() };
    let some = if more.is_empty() { listed(&names) } else { names[..shown].join("; ") + &more };
    Some(paragraph(format!(
        "Others on the machine disturbed {} of {}, which may be cheaper than they look: {some}.",
        counted(names.len(), "trial"),
        facts.measured().len()
    )))
}

/// "a, b or c"; names that have commas of their own are kept apart by semicolons.
fn either(names: &[String]) -> String {
    match names {
        [first @ .., last] if !first.is_empty() && names.iter().any(|n| n.contains(',')) => {
            format!("{}; or {last}", first.join("; "))
        }
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => listed(names),
    }
}

fn interval(e: &Estimate) -> String {
    match e.interval() {
        Some((low, high)) => format!(
            " (95 % CI {} .. {})",
            bare(Quantity::UsdPerMillionTokens, low),
            bare(Quantity::UsdPerMillionTokens, high)
        ),
        None => " (no interval: too few steps)".into(),
    }
}

fn figures(facts: &Facts, found: &Cheapest) -> Vec<Figure> {
    let largest = |metric: &Metric| {
        let known = facts.measured().into_iter().filter_map(|i| Some((i, facts.get(i, metric)?)));
        known.max_by(|a, b| a.1.value.total_cmp(&b.1.value))
    };
    let cost = facts.get(found.best, &USD_PER_MILLION);
    let mut all = vec![Figure {
        value: shown(&USD_PER_MILLION, cost).replacen("", "$", 1),
        label: "per million tokens, at the cheapest".into(),
        note: format!("{}; {}", facts.name(found.best), plus_minus(cost)),
    }];
    if let Some((i, t)) = largest(&TOKENS_PER_SECOND) {
        let value = bare(Quantity::TokensPerSecond, t.value);
        all.push(Figure { value, label: "tokens/s, at the fastest".into(), note: facts.name(i) });
    }
    if let Some((i, share)) = largest(&MFU) {
        let rate =
            facts.get(i, &FLOPS_PER_SECOND).map_or(ABSENT.into(), |f| with_unit(Quantity::FlopsPerSecond, f.value));
        all.push(Figure {
            value: with_unit(Quantity::Share, share.value),
            label: format!("of the {} peak (MFU), at the best", peak(facts, i)),
            note: format!("{}; {rate}", facts.name(i)),
        });
    }
    let (ok, all_records) = (facts.counted(Status::Ok), facts.run.environment.requested_cells);
    all.push(Figure {
        value: format!("{ok} of {all_records}"),
        label: "requested trials measured".into(),
        note: if ok == all_records as usize {
            "none failed or skipped".into()
        } else {
            "the others are listed below".into()
        },
    });
    all
}

/// "probed" or "datasheet".
fn peak(facts: &Facts, i: usize) -> &'static str {
    peaks::source(&Context::of(facts.run, &facts.records()[i], facts.book)).name()
}

/// Models of different size are different goods: the cheapest of each.
fn by_model(facts: &Facts) -> Vec<Block> {
    let key = |i: usize| {
        let trial = &facts.records()[i].cell.trial;
        (trial.model.clone(), trial.workload.phase.name())
    };
    let mut groups: Vec<((String, &str), Vec<usize>)> = Vec::new();
    for i in facts.measured() {
        match groups.iter_mut().find(|(k, _)| *k == key(i)) {
            Some((_, members)) => members.push(i),
            None => groups.push((key(i), vec![i])),
        }
    }
    if groups.len() < 2 || groups.iter().all(|(_, members)| members.len() < 2) {
        return vec![];
    }
    let mut table = Table::new(vec![
        Column::text("model"),
        Column::text("phase"),
        Column::text("cheapest configuration"),
        Column::number("$/M tokens"),
        Column::number("±"),
        Column::number("tokens/s"),
        Column::text("within noise of it"),
    ]);
    for ((model, phase), members) in &groups {
        let Some(c) = facts.cheapest_among(members) else { continue };
        let i = members[c.best];
        let tied: Vec<String> = c.tied.iter().map(|&t| facts.name(members[t])).collect();
        let (cost, rate) = (facts.get(i, &USD_PER_MILLION), facts.get(i, &TOKENS_PER_SECOND));
        table.rows.push(Row::new(vec![
            Cell::text(model),
            Cell::text(*phase),
            Cell::text(facts.name(i)),
            number(&USD_PER_MILLION, cost),
            Cell::text(plus_minus(cost)),
            number(&TOKENS_PER_SECOND, rate),
            Cell::text(if tied.is_empty() { "none".into() } else { listed(&tied) }),
        ]));
    }
    table.caption = "The cheapest of each model and phase: tokens of different models are different goods.".into();
    vec![Block::Table(table)]
}

fn number(metric: &Metric, e: Option<Estimate>) -> Cell {
    Cell { text: shown(metric, e), sort: e.map(|e| e.value) }
}

/// Without a price there is no cost, and the report says how to get one.
fn unpriced(facts: &Facts) -> Vec<Block> {
    if facts.measured().is_empty() {
        return vec![Block::Answer(vec![Span::plain(format!(
            "No trial gave figures: {} requested, and how each ended is listed below.",
            counted(facts.records().len(), "trial")
        ))])];
    }
    vec![
        Block::Answer(vec![Span::plain("What a token costs is n/a: the scenario states no price.")]),
        paragraph(
            "Give price.usd_per_hour in the scenario, or price this run without measuring again: centime report DIR --price USD_PER_HOUR.",
        ),
    ]
}

/// The end of a run's last line: "cheapest: batch 8 at $0.0041 per million tokens (95 % CI 0.0040 .. 0.0042)", or "cheapest: one of 3,
/// such as batch 8 at ...".
pub(crate) fn closing(facts: &Facts) -> String {
    let busy = facts.busy().map(|again| format!("the machine was busy: measure again ({again})"));
    if let Some(said) = super::learning::closing(facts) {
        return busy.map_or(said.clone(), |busy| format!("{said} Of what it took: {busy}"));
    }
    if let Some(busy) = busy {
        return busy;
    }
    let Some((i, cost)) = facts.cheapest().and_then(|c| Some((c.best, facts.get(c.best, &USD_PER_MILLION)?))) else {
        return if facts.measured().is_empty() { "no trial gave figures" } else { "cost n/a: no price is given" }
            .into();
    };
    let amount = with_unit(Quantity::UsdPerMillionTokens, cost.value).replace("/M tok", " per million tokens");
    let tied = facts.cheapest().map_or(0, |c| c.tied.len());
    if tied > 0 {
        return format!("cheapest: one of {}, such as {} at {amount}{}", tied + 1, facts.name(i), interval(&cost));
    }
    format!("cheapest: {} at {amount}{}", facts.name(i), interval(&cost))
}
