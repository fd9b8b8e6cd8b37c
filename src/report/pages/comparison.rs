//! Runs or machines side by side, and what to decide from it.

use super::{Page, taught};
use crate::comparison::break_even::{BreakEven, cheapest_overall, prices};
use crate::comparison::limits::{Bounds, cheapest_within};
use crate::comparison::ratio::{Change, change};
use crate::comparison::runs::geometric;
use crate::cost::metric::{Estimate, Quantity};
use crate::cost::metrics::USD_PER_MILLION;
use crate::hardware::api::Api;
use crate::report::charts::{self, DrawError, across};
use crate::report::compared::Comparison;
use crate::report::document::{Block, Cell, Column, Document, Row, Section, Span, Table};
use crate::report::facts::Facts;
use crate::report::format::{ABSENT, bare, counted, listed, percent_change};
use crate::report::sections::{apis, sensitivity};
use crate::units::{Share, significant};

/// What is asked beside the comparison itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// APIs whose prices the machines' costs are held against.
    pub apis: Vec<Api>,
    pub bounds: Bounds,
}

/// The page of a comparison.
///
/// # Errors
/// A chart that cannot be drawn.
pub(crate) fn comparison(c: &Comparison, asked: &Asked) -> Result<Page, DrawError> {
    let facts: Vec<Facts> = c.runs().iter().map(|run| Facts::of(run, c.book())).collect();
    let even = prices(c.runs(), c.found());
    let mut sections = vec![
        Section { id: "answer", title: "The answer", blocks: answer(c, &facts, asked, &even) },
        Section { id: "trials", title: "Trial by trial", blocks: c.blocks() },
    ];
    let learning = taught::blocks(c);
    if !learning.is_empty() {
        sections.insert(1, Section { id: "learning", title: "What a loss costs", blocks: learning });
    }
    let pictures = across::figures(c.labels(), &facts).into_iter().map(|d| charts::chart(d).map(Block::Chart));
    let mut add = |id, title, blocks: Vec<Block>| {
        if !blocks.is_empty() {
            sections.push(Section { id, title, blocks });
        }
    };
    add("latency", "Cost against latency", pictures.collect::<Result<_, _>>()?);
    add("break-even", "Break-even price", break_even(c, &even)?);
    add("api", "Against APIs", apis::blocks_of(c.labels(), &facts, &asked.apis)?);
    add("sensitivity", "Sensitivity", tornado(c, &facts)?);
    Ok(Page {
        name: "compare",
        document: Document {
            title: format!("{} side by side", listed(c.labels())),
            description: String::new(),
            sections,
            foot: "Throughput and latency are measured, prices are quoted; every cost is one over the other. Runs that were not \
                   interleaved are compared in an advisory way."
                .into(),
        },
    })
}

fn label(c: &Comparison, run: usize) -> String {
    c.labels().get(run).cloned().unwrap_or_default()
}

fn answer(c: &Comparison, facts: &[Facts], asked: &Asked, even: &[BreakEven]) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut said = taught::sentences(c);
    match cheapest_overall(c.found()) {
        None if c.common() == 0 => said.push(Span::plain("No trial was measured by all of them.")),
        Some(best) => {
            let others = (0..c.runs().len()).filter(|r| *r != best);
            let against: Vec<(usize, Estimate)> =
                others.filter_map(|r| Some((r, geometric(&c.found().pairings, best, r)?))).collect();
            let tied: Vec<usize> =
                against.iter().filter(|(_, r)| change(r) == Change::WithinNoise).map(|(r, _)| *r).collect();
            let least = against.iter().filter_map(|(_, r)| r.relative_half_width()).fold(0.0, f64::max);
            if tied.is_empty() {
                said.push(Span::plain("Tokens are cheapest on "));
                said.push(Span::strong(label(c, best)));
            } else {
                said.push(Span::plain("No difference that these runs can show between "));
                let names: Vec<String> = tied.iter().map(|r| label(c, *r)).collect();
                said.push(Span::strong(format!("{} and {}", label(c, best), listed(&names))));
                said.push(Span::plain(format!("; the smallest that they could show is {}", Share(least))));
            }
            let parts: Vec<String> =
                against.iter().map(|(r, e)| format!("{} against {}", percent_change(e), label(c, *r))).collect();
            said.push(Span::plain(format!(
                ": {}, over {} (geometric mean, 95 % CI of two other runs).",
                listed(&parts),
                counted(c.common(), "common trial")
            )));
            let worse = against.iter().filter_map(|(r, _)| Some((*r, c.worse(best, *r)?)));
            for (r, what) in worse {
                said.push(Span::plain(" "));
                said.push(Span::strong(format!("{} learns worse than {}", label(c, best), label(c, r))));
                said.push(Span::plain(format!(": {what}; its tokens are worth less.")));
            }
            if let Some(other) = tied.first() {
                said.push(Span::plain(" "));
                said.extend(c.way_to_know(best.min(*other), best.max(*other)));
            }
        }
        None => said.push(Span::plain("Which is cheapest cannot be said: a run has no price. Give one with --price.")),
    }
    blocks.push(Block::Answer(said));
    let mut items: Vec<Vec<Span>> = even.iter().map(|b| vec![Span::plain(sentence(c, b))]).collect();
    if asked.bounds.any() {
        items.push(vec![Span::plain(within(c, facts, &asked.bounds))]);
    }
    if !items.is_empty() {
        blocks.push(Block::List(items));
    }
    blocks
}

/// "b must fall from $0.5/h to $0.342/h (-32 %) to match a".
fn sentence(c: &Comparison, b: &BreakEven) -> String {
    let (now, then) = (significant(b.price, 3), significant(b.break_even.value, 3));
    let percent = (b.break_even.value / b.price - 1.0) * 100.0;
    let range = b
        .break_even
        .interval()
        .map_or(String::new(), |(l, h)| format!(" (95 % CI ${} .. ${})", significant(l, 3), significant(h, 3)));
    let (run, against) = (label(c, b.run), label(c, b.against));
    if percent < 0.0 {
        format!("{run} must fall from ${now}/h to ${then}/h ({percent:.0} %) to match {against}{range}")
    } else {
        format!("{run} stays cheaper than {against} up to ${then}/h (now ${now}/h, {percent:+.0} %){range}")
    }
}

fn within(c: &Comparison, facts: &[Facts], bounds: &Bounds) -> String {
    let figures: Vec<Vec<_>> = facts.iter().map(|f| f.figures().to_vec()).collect();
    match cheapest_within(c.runs(), &figures, bounds) {
        Ok(w) => format!(
            "cheapest under {}: {} on {} at ${} per million tokens; {} of {} keep the limits",
            bounds.described(),
            facts[w.best.0].name(w.best.1),
            label(c, w.best.0),
            bare(Quantity::UsdPerMillionTokens, w.cost.value),
            w.within,
            counted(w.of, "trial")
        ),
        Err(of) => format!("none of {} keeps {}", counted(of, "priced trial"), bounds.described()),
    }
}

fn break_even(c: &Comparison, even: &[BreakEven]) -> Result<Vec<Block>, DrawError> {
    let Some(drawn) = charts::break_even::break_even(c.labels(), even) else { return Ok(vec![]) };
    let mut table = Table::new(vec![
        Column::text("run"),
        Column::text("to match"),
        Column::number("$/h now"),
        Column::number("break-even $/h"),
        Column::text("95 % CI"),
        Column::number("change"),
    ]);
    for b in even {
        let interval = b.break_even.interval();
        table.rows.push(Row::new(vec![
            Cell::text(label(c, b.run)),
            Cell::text(label(c, b.against)),
            Cell::number(significant(b.price, 4), b.price),
            Cell::number(significant(b.break_even.value, 4), b.break_even.value),
            Cell::text(
                interval.map_or(ABSENT.into(), |(l, h)| format!("{} .. {}", significant(l, 3), significant(h, 3))),
            ),
            Cell::number(
                format!("{:+.1} %", (b.break_even.value / b.price - 1.0) * 100.0),
                b.break_even.value / b.price,
            ),
        ]));
    }
    table.caption =
        "The price of an hour (quoted) at which a token costs what it does on the other, throughputs being as \
                     measured: price now / ratio of the costs."
            .into();
    Ok(vec![Block::Chart(charts::chart(drawn)?), Block::Table(table)])
}

/// The tornado of the cheapest trial of all.
fn tornado(c: &Comparison, facts: &[Facts]) -> Result<Vec<Block>, DrawError> {
    let all = facts.iter().enumerate().flat_map(|(r, f)| f.measured().into_iter().map(move |i| (r, f, i)));
    let known = all.filter_map(|(r, f, i)| Some((r, f, i, f.get(i, &USD_PER_MILLION)?.value)));
    let Some((r, f, i, _)) = known.min_by(|a, b| a.3.total_cmp(&b.3)) else { return Ok(vec![]) };
    sensitivity::blocks_of(f, i, &format!("{} on {}", f.name(i), label(c, r)))
}
