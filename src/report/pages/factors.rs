//! Factors of a cost on both sides of a change, as a sentence and a table say them.

use crate::comparison::explain::{Basis, Side};
use crate::cost::decomposition::Role;
use crate::cost::metric::Quantity;
use crate::hardware::book::Book;
use crate::report::document::{Cell, Column, Row, Table};
use crate::report::facts::Facts;
use crate::report::format::{bare, counted, listed, signed_usd};
use crate::results::run::Run;
use crate::units::{Flops, FlopsPerSecond, Share, significant};

/// "price: $98.3/h -> $55.0/h".
pub(super) fn described(s: &Side) -> String {
    if (s.after / s.before - 1.0).abs() < 1e-9 {
        return format!("{}: {}", s.name, value(s.name, s.before));
    }
    format!("{}: {} → {}", s.name, value(s.name, s.before), value(s.name, s.after))
}

fn value(factor: &str, x: f64) -> String {
    match factor {
        "price" => format!("${}/h", significant(x, 3)),
        "utilisation" | "MFU" => Share(x).to_string(),
        "FLOPs per token" => Flops(x as u64).to_string(),
        "peak rate" | "FLOP/s reached" => FlopsPerSecond(x).to_string(),
        "tokens to the loss" => bare(Quantity::Count, x),
        _ => significant(x, 3),
    }
}

/// "; nothing that it is made of is different", or the parts and the largest of them.
pub(super) fn why(sides: &[Side], cost: f64) -> String {
    let mut parts: Vec<&Side> = sides.iter().filter(|s| s.change.abs() > 1e-9 * cost).collect();
    parts.sort_by(|a, b| b.change.abs().total_cmp(&a.change.abs()));
    let said: Vec<String> = parts.iter().map(|s| format!("{} {}", s.name, signed_usd(s.change))).collect();
    match parts.first() {
        None => "; nothing that it is made of is different".to_string(),
        Some(first) => {
            let way = if first.after > first.before { "rose" } else { "fell" };
            format!(
                ". {}. The largest part is {}, which {way} from {} to {}",
                listed(&said),
                first.name,
                value(first.name, first.before),
                value(first.name, first.after)
            )
        }
    }
}

/// The factors on both sides with their parts; `ends`: what they multiply to, and how it is shown.
pub(super) fn table(labels: [&str; 2], sides: &[Side], part: &str, ends: [(f64, String); 2]) -> Table {
    let mut table = Table::new(vec![
        Column::text("factor"),
        Column::number(labels[0]),
        Column::number(labels[1]),
        Column::number("ratio"),
        Column::number(part),
        Column::number("alone it would be"),
    ]);
    for s in sides {
        let ratio = s.after / s.before;
        let alone = if s.role == Role::Divides { 1.0 / ratio } else { ratio };
        table.rows.push(Row::new(vec![
            Cell::text(s.name),
            Cell::number(value(s.name, s.before), s.before),
            Cell::number(value(s.name, s.after), s.after),
            Cell::number(format!("{}x", significant(ratio, 3)), ratio),
            Cell::number(signed_usd(s.change), s.change),
            Cell::number(format!("{:+.1} %", (alone - 1.0) * 100.0), alone),
        ]));
    }
    let [(before, shown_before), (after, shown_after)] = ends;
    let mut last = Row::new(vec![
        Cell::text("together"),
        Cell::number(shown_before, before),
        Cell::number(shown_after, after),
        Cell::number(format!("{}x", significant(after / before, 3)), after / before),
        Cell::number(signed_usd(after - before), after - before),
        Cell::number(format!("{:+.1} %", (after / before - 1.0) * 100.0), after / before),
    ]);
    last.highlighted = true;
    table.rows.push(last);
    table
}

/// Which trials were set against each other.
pub(super) fn basis(runs: [&Run; 2], book: &Book, basis: &Basis) -> String {
    match basis {
        Basis::Common(1) => "One trial was measured by both.".into(),
        Basis::Common(n) => {
            format!("Means over {} that both measured; the factors are geometric means.", counted(*n, "trial"))
        }
        Basis::Cheapest(a, b) => format!(
            "The runs have no trial in common, so the cheapest of each stands for it: {} against {}.",
            Facts::of(runs[0], book).name(*a),
            Facts::of(runs[1], book).name(*b)
        ),
    }
}
