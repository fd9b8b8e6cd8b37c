//! Why tokens cost what they do beside another run: a sentence, a waterfall, the factors.

use super::Page;
use crate::comparison::explain::{Basis, Explanation, Side};
use crate::comparison::ratio::{Change, change};
use crate::cost::decomposition::Role;
use crate::cost::metric::Quantity;
use crate::cost::metrics::USD_PER_MILLION;
use crate::hardware::book::Book;
use crate::report::charts::waterfall::{Step, Total, waterfall};
use crate::report::charts::{self, DrawError, tick};
use crate::report::document::{Block, Cell, Column, Document, Row, Section, Span, Table, paragraph};
use crate::report::facts::Facts;
use crate::report::format::{bare, counted, listed, percent_change, signed_usd};
use crate::results::run::Run;
use crate::units::{Flops, FlopsPerSecond, Share, significant};

/// The page of an explanation; the labels are those of the two runs.
///
/// # Errors
/// A chart that cannot be drawn.
pub(crate) fn explanation(labels: [&str; 2], runs: [&Run; 2], book: &Book, e: &Explanation) -> Result<Page, DrawError> {
    let title = format!("Why tokens cost what they do: from {} to {}", labels[0], labels[1]);
    let ends = [(labels[0], e.before), (labels[1], e.after)].map(|(label, value)| Total {
        label: label.into(),
        value,
        note: format!("${}", bare(Quantity::UsdPerMillionTokens, value)),
    });
    let steps: Vec<Step> =
        e.sides.iter().map(|s| Step { label: described(s), change: s.change, note: signed_usd(s.change) }).collect();
    let drawn = waterfall(
        format!("From {} to {}, factor by factor", labels[0], labels[1]),
        USD_PER_MILLION.unit,
        tick(&USD_PER_MILLION),
        [&ends[0], &ends[1]],
        &steps,
    );
    let blocks = vec![
        Block::Answer(disturbed(labels, runs, e).into_iter().chain(sentence(labels, e)).chain(unseen(e)).collect()),
        Block::Chart(charts::chart(drawn)?),
        Block::Table(table(labels, e)),
        paragraph(basis(runs, book, &e.basis)),
        paragraph(
            "A cost per million tokens is price * FLOPs per token * 1e6 / (3600 * devices * utilisation * peak rate * MFU). Each \
             factor's part is the logarithmic mean of both costs times the logarithm of its ratio (Ang 2005, LMDI-I), so that the \
             parts add up to the change and nothing is left over. Devices are those at work for each unit that is paid for. \
             Prices and utilisation are quoted, the rest is measured; the peak is probed. Of a program whose model the scenario does not \
             state, tokens/s of a device stand for FLOPs per token, peak rate and MFU.",
        ),
    ];
    Ok(Page {
        name: "explain",
        document: Document {
            title,
            description: String::new(),
            sections: vec![Section { id: "answer", title: "The answer", blocks }],
            foot: "Two runs made at different times are set side by side in an advisory way: a difference may be the machine's \
                   of that hour."
                .into(),
        },
    })
}

/// "price: $98.3/h -> $55.0/h".
fn described(s: &Side) -> String {
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
        _ => significant(x, 3),
    }
}

/// What others on the machine did comes before every factor: it is in them.
fn disturbed(labels: [&str; 2], runs: [&Run; 2], e: &Explanation) -> Vec<Span> {
    let Some(slower) = e.slowed_by_others() else { return Vec::new() };
    let judged = &e.disturbed[slower];
    let worst = judged.worst.as_ref().map_or(String::new(), |w| format!(" (the worst: {})", w.in_words()));
    vec![
        Span::strong(format!("{} was disturbed", labels[slower])),
        Span::plain(format!(
            ": others on the machine took from {} of its {}{worst}, and that is in every figure below; measure it again: ",
            judged.disturbed,
            counted(judged.watched, "trial")
        )),
        Span::code(runs[slower].environment.command_line()),
        Span::plain(". "),
    ]
}

/// What the runs cannot show of the throughput.
fn unseen(e: &Explanation) -> Option<Span> {
    let throughput = e.throughput.filter(|t| change(t) == Change::WithinNoise)?;
    let least = throughput.relative_half_width()?;
    Some(Span::plain(format!(
        " The throughputs ({}) do not differ by more than two runs of one program do: less than {} these cannot show.",
        percent_change(&throughput),
        Share(least)
    )))
}

fn sentence(labels: [&str; 2], e: &Explanation) -> Vec<Span> {
    let percent = (e.after / e.before - 1.0) * 100.0;
    let usd = |x| format!("${}", bare(Quantity::UsdPerMillionTokens, x));
    let mut parts: Vec<&Side> = e.sides.iter().filter(|s| s.change.abs() > 1e-9 * e.before.max(e.after)).collect();
    parts.sort_by(|a, b| b.change.abs().total_cmp(&a.change.abs()));
    let said: Vec<String> = parts.iter().map(|s| format!("{} {}", s.name, signed_usd(s.change))).collect();
    let why = match parts.first() {
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
    };
    vec![
        Span::plain(format!(
            "From {} to {}, a million tokens went from {} to {}: ",
            labels[0],
            labels[1],
            usd(e.before),
            usd(e.after)
        )),
        Span::strong(format!("{percent:+.1} %")),
        Span::plain(format!("{why}.")),
    ]
}

fn table(labels: [&str; 2], e: &Explanation) -> Table {
    let mut table = Table::new(vec![
        Column::text("factor"),
        Column::number(labels[0]),
        Column::number(labels[1]),
        Column::number("ratio"),
        Column::number("part, $/M tokens"),
        Column::number("alone it would be"),
    ]);
    for s in &e.sides {
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
    let total = e.after - e.before;
    let mut last = Row::new(vec![
        Cell::text("together"),
        Cell::number(format!("${}", bare(Quantity::UsdPerMillionTokens, e.before)), e.before),
        Cell::number(format!("${}", bare(Quantity::UsdPerMillionTokens, e.after)), e.after),
        Cell::number(format!("{}x", significant(e.after / e.before, 3)), e.after / e.before),
        Cell::number(signed_usd(total), total),
        Cell::number(format!("{:+.1} %", (e.after / e.before - 1.0) * 100.0), e.after / e.before),
    ]);
    last.highlighted = true;
    table.rows.push(last);
    table
}

fn basis(runs: [&Run; 2], book: &Book, basis: &Basis) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::explain::explain;
    use crate::fixture;
    use crate::runner::watch::Disturbance;

    #[test]
    fn others_on_the_machine_are_named_before_any_factor_and_equal_runs_say_what_they_cannot_show() {
        let quiet = fixture::sweep();
        let mut slowed = quiet.clone();
        for f in slowed.records.iter_mut().filter_map(|r| r.measurement.figures.as_mut()) {
            f.step_seconds.iter_mut().for_each(|s| *s *= 2.0);
            f.disturbance = Some(Disturbance { seconds: 1.0, waited: Some(0.4), ..Disturbance::default() });
        }
        let said = |other: &Run| {
            let found = explain(&quiet, other, fixture::book()).unwrap();
            explanation(["a", "b"], [&quiet, other], fixture::book(), &found).unwrap().markdown()
        };
        let disturbed = said(&slowed);
        let answer = disturbed.lines().find(|l| l.starts_with('>')).unwrap();
        assert!(
            answer.starts_with("> **b was disturbed**: others on the machine took from 9 of its 9 trials"),
            "{answer}"
        );
        assert!(answer.contains("(the worst: 40.0 % lost waiting for a core)") && answer.contains("MFU"), "{answer}");
        let same = said(&quiet);
        assert!(!same.contains("was disturbed") && same.contains("these cannot show"), "{same}");
    }
}
