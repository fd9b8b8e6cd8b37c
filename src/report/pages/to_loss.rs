//! Why it costs what it does to get to a loss beside another run: sentences, and the factors.

use super::factors::{basis, table, why};
use crate::comparison::explain::{Explanation, Learning};
use crate::comparison::learning::{Ending, Taught};
use crate::comparison::ratio::{Change, change};
use crate::hardware::book::Book;
use crate::report::document::{Block, Span, paragraph};
use crate::report::facts::Facts;
use crate::report::format::{counted, fixed_usd, percent_change};
use crate::report::sections::learning::ending;
use crate::results::run::Run;

/// Trials that are named one by one; of more, how many there are.
const NAMED: usize = 3;

/// Who gets to a loss and who does not, then what it costs, before a token's price is explained.
pub(super) fn sentences(labels: [&str; 2], runs: [&Run; 2], book: &Book, e: &Explanation) -> Vec<Span> {
    let Some(learning) = &e.learning else { return Vec::new() };
    let mut said: Vec<Span> = learning.apart.iter().take(NAMED).flat_map(|t| apart(labels, runs, book, t)).collect();
    if learning.apart.len() > NAMED {
        let more = counted(learning.apart.len() - NAMED, "more trial");
        said.push(Span::plain(format!("So do {more} in one run and not in the other. ")));
    }
    let Some(paid) = &learning.to_loss else { return said };
    let what = paid.loss.map_or("what it costs to get to a loss".into(), |l| format!("a validation loss of {l}"));
    let [before, after] = [paid.before, paid.after].map(fixed_usd);
    said.push(Span::plain(format!("From {} to {}, {what} went from {before} to {after}: ", labels[0], labels[1])));
    said.push(Span::strong(format!("{:+.1} %", (paid.after / paid.before - 1.0) * 100.0)));
    said.push(Span::plain(format!("{}.{} ", why(&paid.sides, paid.before.max(paid.after)), sure(learning))));
    said
}

/// "heads 4 reaches 3.2 in a and not in b (3.2 reached by 1 of 3 seeds). "
fn apart(labels: [&str; 2], runs: [&Run; 2], book: &Book, t: &Taught) -> [Span; 2] {
    let (run, record) = t.described_in;
    let name = Facts::of(runs[run], book).name(record);
    let [there, not] = if t.is_there(0) == Some(true) { [0, 1] } else { [1, 0] };
    let how = t.outcome(not).map_or(String::new(), |o| match o.ending {
        Ending::Failed(status) => status.name().into(),
        Ending::There | Ending::Short { .. } => ending(&Facts::of(runs[not], book), o.record),
    });
    let does = t.target.map_or("learns something".to_string(), |loss| format!("reaches a validation loss of {loss}"));
    let said = format!(" {does} in {} and not in {} ({how}). ", labels[there], labels[not]);
    [Span::strong(name), Span::plain(said)]
}

/// What the runs can show of it.
fn sure(learning: &Learning) -> String {
    let Some((_, cost)) = learning.learnt.cost() else { return String::new() };
    match change(&cost) {
        Change::WithinNoise => {
            format!(" Over seeds and runs ({}) no difference that these can show.", percent_change(&cost))
        }
        Change::Unknown => " Under three seeds in common say too little for an interval.".into(),
        Change::Higher | Change::Lower => format!(" Over seeds and runs: {} (95 % CI).", percent_change(&cost)),
    }
}

/// That tokens which are cheaper are worth less, where the run that they are cheaper in learns worse.
pub(super) fn worse(labels: [&str; 2], e: &Explanation) -> Vec<Span> {
    let worse = e.after < e.before && e.learning.as_ref().is_some_and(|l| l.learnt.worse());
    if !worse {
        return Vec::new();
    }
    let said = format!("Tokens of {} are cheaper and worth less: it learns worse than {}.", labels[1], labels[0]);
    vec![Span::plain(" "), Span::strong(said)]
}

/// The factors of USD to a loss.
pub(super) fn blocks(labels: [&str; 2], runs: [&Run; 2], book: &Book, e: &Explanation) -> Vec<Block> {
    let Some(paid) = e.learning.as_ref().and_then(|l| l.to_loss.as_ref()) else { return vec![] };
    let ends = [paid.before, paid.after].map(|x| (x, fixed_usd(x)));
    vec![
        Block::Table(table(labels, &paid.sides, "part, $ to loss", ends)),
        paragraph(basis(runs, book, &paid.basis)),
        paragraph(
            "USD to a loss are the cost of a token times the tokens that it took, times what its seconds were beyond those of as many \
             median steps: slower steps and waits for data. Of several launches, which have a seed each, the median.",
        ),
    ]
}
