//! Why tokens cost what they do beside another run: a sentence, a waterfall, the factors.

use super::factors::{basis, described, table, why};
use super::{Page, to_loss};
use crate::comparison::explain::Explanation;
use crate::comparison::ratio::{Change, change};
use crate::cost::metric::Quantity;
use crate::cost::metrics::USD_PER_MILLION;
use crate::hardware::book::Book;
use crate::report::charts::waterfall::{Step, Total, waterfall};
use crate::report::charts::{self, DrawError, tick};
use crate::report::document::{Block, Document, Section, Span, paragraph};
use crate::report::format::{bare, counted, percent_change, signed_usd};
use crate::results::run::Run;
use crate::units::Share;

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
        Block::Answer(
            disturbed(labels, runs, e)
                .into_iter()
                .chain(to_loss::sentences(labels, runs, book, e))
                .chain(sentence(labels, e))
                .chain(unseen(e))
                .chain(to_loss::worse(labels, e))
                .collect(),
        ),
        Block::Chart(charts::chart(drawn)?),
        Block::Table(table(labels, &e.sides, "part, $/M tokens", [e.before, e.after].map(per_million))),
        paragraph(basis(runs, book, &e.basis)),
        paragraph(
            "A cost per million tokens is price * FLOPs per token * 1e6 / (3600 * devices * utilisation * peak rate * MFU). Each \
             factor's part is the logarithmic mean of both costs times the logarithm of its ratio (Ang 2005, LMDI-I), so that the \
             parts add up to the change and nothing is left over. Devices are those at work for each unit that is paid for. \
             Prices and utilisation are quoted, the rest is measured; the peak is probed. Of a program whose model the scenario does not \
             state, tokens/s of a device stand for FLOPs per token, peak rate and MFU.",
        ),
    ];
    let mut sections = vec![Section { id: "answer", title: "The answer", blocks }];
    let learning = to_loss::blocks(labels, runs, book, e);
    if !learning.is_empty() {
        sections.push(Section { id: "learning", title: "What a loss costs", blocks: learning });
    }
    Ok(Page {
        name: "explain",
        document: Document {
            title,
            description: String::new(),
            sections,
            foot: "Two runs made at different times are set side by side in an advisory way: a difference may be the machine's \
                   of that hour."
                .into(),
        },
    })
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
    let [before, after] = [e.before, e.after].map(|x| per_million(x).1);
    vec![
        Span::plain(format!("From {} to {}, a million tokens went from {before} to {after}: ", labels[0], labels[1])),
        Span::strong(format!("{:+.1} %", (e.after / e.before - 1.0) * 100.0)),
        Span::plain(format!("{}.", why(&e.sides, e.before.max(e.after)))),
    ]
}

fn per_million(x: f64) -> (f64, String) {
    (x, format!("${}", bare(Quantity::UsdPerMillionTokens, x)))
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
