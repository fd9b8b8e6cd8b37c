//! Where the money goes: the time of a step by kind of operation.

use crate::cost::metric::Context;
use crate::cost::profile::{Spent, spent};
use crate::report::document::{Block, Cell, Column, Row, Span, Table};
use crate::report::facts::Facts;
use crate::report::format::{ABSENT, fixed_usd};
use crate::transformer::trace::Kind;
use crate::units::{BytesPerSecond, FlopsPerSecond, Seconds, Share};

/// What no operation took.
const REST: &str = "between operations";

fn name(kind: Option<Kind>) -> &'static str {
    kind.map_or(REST, Kind::name)
}

pub(super) fn blocks(facts: &Facts) -> Vec<Block> {
    let of = |i: usize| spent(&Context::of(facts.run, &facts.records()[i], facts.book));
    let all: Vec<(usize, Vec<Spent>)> = facts.measured().into_iter().filter_map(|i| Some((i, of(i)?))).collect();
    let cheapest = facts.cheapest().map(|c| c.best);
    let Some((shown, kinds)) = all.iter().find(|(i, _)| Some(*i) == cheapest).or(all.first()) else { return vec![] };
    let mut blocks = vec![Block::Paragraph(said(&facts.name(*shown), kinds)), Block::Table(one(kinds))];
    if all.len() > 1 {
        let summary = "The same of every configuration".into();
        blocks.push(Block::Folded { summary, blocks: vec![Block::Table(every(facts, &all))] });
    }
    blocks
}

/// The largest part in words.
fn said(name_of_cell: &str, kinds: &[Spent]) -> Vec<Span> {
    let most = kinds.iter().filter(|s| s.kind.is_some()).max_by(|a, b| a.share.total_cmp(&b.share));
    let Some(most) = most else { return vec![] };
    let near = most.of_limit.map_or(String::new(), |l| format!(", at {} of what the machine can do of them", Share(l)));
    vec![
        Span::plain(format!("{name_of_cell}: of its time and cost ")),
        Span::strong(format!("{} is {}", Share(most.share), name(most.kind))),
        Span::plain(format!("{near}.")),
    ]
}

fn one(kinds: &[Spent]) -> Table {
    let mut table = Table::new(vec![
        Column::text("operations"),
        Column::number("of the step"),
        Column::number("a step"),
        Column::number("$/M tokens"),
        Column::number("FLOP/s"),
        Column::number("bytes a second"),
        Column::number("of the limit"),
    ]);
    for s in kinds {
        let absent = || Cell::text(ABSENT);
        table.rows.push(Row::new(vec![
            Cell::text(name(s.kind)),
            Cell::number(Share(s.share).to_string(), s.share),
            Cell::number(Seconds(s.seconds).to_string(), s.seconds),
            s.usd.map_or_else(absent, |u| Cell::number(fixed_usd(u), u)),
            s.flops_per_second.map_or_else(absent, |x| Cell::number(FlopsPerSecond(x).to_string(), x)),
            s.bytes_per_second.map_or_else(absent, |x| Cell::number(BytesPerSecond(x).to_string(), x)),
            s.of_limit.map_or_else(absent, |x| Cell::number(Share(x).to_string(), x)),
        ]));
    }
    table.caption = "From some steps that were traced after the measured ones, whose figures they do not touch. The limit is the time that \
                     the probed rates allow an operation, for its FLOPs or its bytes, whichever takes longer; what stays in caches \
                     may be above 100 %."
        .into();
    table
}

fn every(facts: &Facts, all: &[(usize, Vec<Spent>)]) -> Table {
    let present = |kind: &Option<Kind>| all.iter().any(|(_, s)| s.iter().any(|s| s.kind == *kind));
    let kinds: Vec<Option<Kind>> =
        Kind::ALL.iter().copied().map(Some).chain(std::iter::once(None)).filter(present).collect();
    let mut columns = vec![Column::text("configuration")];
    columns.extend(kinds.iter().map(|k| Column::number(name(*k))));
    let mut table = Table::new(columns);
    for (i, spent) in all {
        let share = |kind: &Option<Kind>| spent.iter().find(|s| s.kind == *kind).map(|s| s.share);
        let mut cells = vec![Cell::text(facts.name(*i))];
        cells.extend(kinds.iter().map(share).map(|s| match s {
            Some(s) => Cell::number(Share(s).to_string(), s),
            None => Cell::text(ABSENT),
        }));
        table.rows.push(Row::new(cells));
    }
    table.caption = "Shares of a step's time, and so of its cost.".into();
    table
}
