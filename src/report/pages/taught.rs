//! Runs whose trials were to learn something, side by side: who gets to a loss and who does not, what it took, and a table.

use crate::comparison::learning::{Learnt, Measure, Taught, learnt};
use crate::comparison::ratio::{Change, change};
use crate::cost::metric::{Estimate, Quantity};
use crate::report::compared::Comparison;
use crate::report::document::{Block, Cell, Column, Row, Span, Table, paragraph};
use crate::report::facts::Facts;
use crate::report::format::{ABSENT, bare, counted, fixed_usd, listed, percent_change};
use crate::results::run::Run;
use crate::units::Share;

/// Trials that are named one by one; of more, how many there are.
const NAMED: usize = 3;

/// What a reader has to know before any token's price: who gets there and who does not, then what it takes. Empty where no trial was to
/// learn anything.
pub(super) fn sentences(c: &Comparison) -> Vec<Span> {
    let runs: Vec<&Run> = c.runs().iter().collect();
    let all = &c.found().taught;
    let mut said = apart(c, all);
    let Some(best) = least(&runs, all) else {
        said.extend(losses(c, &runs, all));
        return said;
    };
    let against: Vec<(usize, Learnt)> =
        (0..runs.len()).filter(|r| *r != best).map(|r| (r, learnt(&runs, all, best, r))).collect();
    let known: Vec<(usize, Measure, Estimate)> =
        against.iter().filter_map(|(r, l)| l.cost().map(|(measure, e)| (*r, measure, e))).collect();
    let of = |wanted: Change| known.iter().filter(|k| change(&k.2) == wanted).map(|k| k.0).collect::<Vec<_>>();
    let (tied, unknown) = (of(Change::WithinNoise), of(Change::Unknown));
    let what = if known.iter().all(|k| k.1 == Measure::Usd) { "costs" } else { "takes" };
    if tied.is_empty() {
        said.push(Span::plain(format!("To get to its loss {what} least on ")));
        said.push(Span::strong(c.labels()[best].clone()));
    } else {
        let names: Vec<String> = tied.iter().map(|r| c.labels()[*r].clone()).collect();
        let least = known.iter().filter_map(|k| k.2.relative_half_width()).fold(0.0, f64::max);
        said.push(Span::plain(format!(
            "What it {what} to get to a loss: no difference that these runs can show between "
        )));
        said.push(Span::strong(format!("{} and {}", c.labels()[best], listed(&names))));
        said.push(Span::plain(format!("; the smallest that they could show is {}", Share(least))));
    }
    let parts: Vec<String> = known
        .iter()
        .map(|(r, measure, e)| {
            let unit = if *measure == Measure::Usd { "USD" } else { "seconds" };
            format!("{unit} {} against {}", percent_change(e), c.labels()[*r])
        })
        .collect();
    let tokens: Vec<String> = against
        .iter()
        .filter_map(|(r, l)| Some(format!("{} against {}", percent_change(&l.tokens?), c.labels()[*r])))
        .collect();
    let both = against.iter().map(|a| a.1.both).min().unwrap_or(0);
    let trials = counted(both, "trial");
    said.push(Span::plain(format!(
        ": {}, tokens {}, over {trials} whose loss is reached in all (geometric mean, 95 % CI over seeds and of two other runs). ",
        listed(&parts),
        listed(&tokens)
    )));
    if !unknown.is_empty() {
        said.push(Span::plain(
            "Under three seeds in common say too little for an interval: how much of it is chance is not known. ",
        ));
    }
    said.extend(losses(c, &runs, all));
    said
}

/// The run that gets to losses for least, over trials that all runs get to their loss in.
fn least(runs: &[&Run], all: &[Taught]) -> Option<usize> {
    // The first run has ratio 1 to itself.
    let ratio = |run: usize| match run {
        0 => Some(1.0),
        _ => Some(learnt(runs, all, run, 0).cost()?.1.value),
    };
    let known: Vec<(usize, f64)> = (0..runs.len()).map(|r| Some((r, ratio(r)?))).collect::<Option<_>>()?;
    known.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).map(|(run, _)| run)
}

/// "heads 4 reaches 3.2 on a and not on b (3.2 reached by 1 of 3 seeds)."
fn apart(c: &Comparison, all: &[Taught]) -> Vec<Span> {
    let apart: Vec<&Taught> = all.iter().filter(|t| t.is_apart()).collect();
    let mut said = Vec::new();
    for t in apart.iter().take(NAMED) {
        let (there, not): (Vec<usize>, Vec<usize>) =
            (0..c.runs().len()).filter(|r| t.outcome(*r).is_some()).partition(|r| t.is_there(*r) == Some(true));
        let labels = |runs: &[usize]| listed(&runs.iter().map(|r| c.labels()[*r].clone()).collect::<Vec<_>>());
        let why: Vec<String> = not.iter().map(|r| c.ending(t, *r)).collect();
        let does =
            t.target.map_or("learns something".to_string(), |loss| format!("reaches a validation loss of {loss}"));
        said.push(Span::strong(name(c, t)));
        said.push(Span::plain(format!(
            " {does} on {} and not on {} ({}). ",
            labels(&there),
            labels(&not),
            why.join("; ")
        )));
    }
    if apart.len() > NAMED {
        let more = counted(apart.len() - NAMED, "more trial");
        said.push(Span::plain(format!("So do {more} on one and not on another. ")));
    }
    said
}

/// Losses at the end that differ, of trials that are not to reach one or reach it nowhere.
fn losses(c: &Comparison, runs: &[&Run], all: &[Taught]) -> Vec<Span> {
    let mut said = Vec::new();
    for run in 1..runs.len() {
        let Some(loss) = learnt(runs, all, run, 0).loss else { continue };
        let word = match change(&loss) {
            Change::Higher => "higher",
            Change::Lower => "lower",
            Change::WithinNoise => "no difference that these runs can show",
            Change::Unknown => "without an interval: too few seeds in common",
        };
        said.push(Span::plain(format!(
            "Validation loss at the end, {} against {}: {} ({word}). ",
            c.labels()[run],
            c.labels()[0],
            percent_change(&loss)
        )));
    }
    said
}

fn name(c: &Comparison, t: &Taught) -> String {
    let (run, record) = t.described_in;
    c.runs().get(run).map_or(String::new(), |r| Facts::of(r, c.book()).name(record))
}

/// A row for each trial and run.
pub(super) fn blocks(c: &Comparison) -> Vec<Block> {
    let all = &c.found().taught;
    if all.is_empty() {
        return vec![];
    }
    let runs: Vec<&Run> = c.runs().iter().collect();
    let mut table = Table::new(vec![
        Column::text("trial"),
        Column::text("run"),
        Column::text("how it ended"),
        Column::number("tokens to loss"),
        Column::number("time to loss"),
        Column::number("$ to loss"),
        Column::number("$ against the first"),
        Column::number("val loss"),
        Column::number("loss against the first"),
    ]);
    let number = |quantity: Quantity, e: Option<Estimate>| match e {
        Some(e) => Cell::number(bare(quantity, e.value), e.value),
        None => Cell::text(ABSENT),
    };
    for t in all {
        for run in 0..runs.len() {
            let o = t.outcome(run);
            let against = |measure: Measure| {
                let ratio = (run > 0).then(|| t.against(&runs, measure, run, 0)).flatten();
                Cell::text(ratio.map_or(String::new(), |r| percent_change(&r)))
            };
            table.rows.push(Row::new(vec![
                Cell::text(if run == 0 { name(c, t) } else { String::new() }),
                Cell::text(&c.labels()[run]),
                Cell::text(c.ending(t, run)),
                number(Quantity::Count, o.and_then(|o| o.tokens)),
                number(Quantity::Seconds, o.and_then(|o| o.seconds)),
                o.and_then(|o| o.usd).map_or(Cell::text(ABSENT), |e| Cell::number(fixed_usd(e.value), e.value)),
                against(Measure::Usd),
                number(Quantity::Loss, o.and_then(|o| o.loss)),
                against(Measure::Loss),
            ]));
        }
    }
    let how = "Medians over launches, which have a seed each. Runs that have the same seeds are held against each other seed by seed: the \
               interval is Student's t on the logarithms of the ratios, from three seeds on; that of USD holds what two runs differ by as \
               well. Where every seed reads the same tokens to its loss, only the launches' speed is left to differ.";
    vec![Block::Table(table), paragraph(how)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::explain::explain;
    use crate::comparison::learning::learning_tests::{run, seeds};
    use crate::fixture;
    use crate::report::pages::{Asked, comparison, explanation};

    fn said(runs: [Run; 2]) -> String {
        let labels = ["old".to_string(), "new".to_string()];
        comparison(&Comparison::of(&labels, &runs, fixture::book()), &Asked::default()).unwrap().markdown()
    }

    fn answer(page: &str) -> String {
        page.lines().find(|l| l.starts_with('>')).unwrap().into()
    }

    #[test]
    fn who_gets_to_a_loss_in_one_run_alone_is_named_first_and_then_what_it_costs() {
        let old = run(true, &[&seeds(1.0, 1.0), &seeds(1.0, 1.0)]);
        let page = said([old.clone(), run(true, &[&seeds(0.8, 0.8), &[]])]);
        let first = answer(&page);
        let start = "> **batch 2** reaches a validation loss of 3 on old and not on new (diverged). To get to its loss costs least on **new**";
        assert!(first.starts_with(start), "{first}");
        assert!(
            first.contains("USD -20.0 % (") && first.contains("over 1 trial whose loss is reached in all"),
            "{first}"
        );
        assert!(page.contains("## What a loss costs") && page.contains("| diverged |"), "{page}");
        let same = answer(&said([old.clone(), old]));
        assert!(
            same.starts_with("> What it costs to get to a loss: no difference that these runs can show between"),
            "{same}"
        );
    }

    #[test]
    fn a_run_whose_tokens_are_cheaper_and_that_learns_worse_is_said_to_learn_worse() {
        let old = run(true, &[&seeds(1.0, 1.0)]);
        let mut new = run(true, &[&seeds(1.5, 0.75)]);
        for f in new.records.iter_mut().filter_map(|r| r.measurement.figures.as_mut()) {
            f.step_seconds.iter_mut().for_each(|s| *s /= 2.0);
        }
        let page = said([old.clone(), new.clone()]);
        let first = answer(&page);
        assert!(first.contains("Tokens are cheapest on **new**"), "{first}");
        assert!(first.contains("**new learns worse than old**: tokens to a loss +50.0 % ("), "{first}");
        assert!(page.contains(": cheaper by the token, and learning worse (tokens to a loss +50.0 %"), "{page}");
        let found = explain(&old, &new, fixture::book()).unwrap();
        let page = explanation(["old", "new"], [&old, &new], fixture::book(), &found).unwrap().markdown();
        let first = answer(&page);
        assert!(
            first.starts_with(
                "> From old to new, a validation loss of 3 went from $0.000476 to $0.000357: **\\-25.0 %**"
            ),
            "{first}"
        );
        assert!(first.contains("tokens to the loss +$") && first.contains("cheaper and worth less"), "{first}");
        assert!(page.contains("part, $ to loss"), "{page}");
    }

    #[test]
    fn rows_for_machines_have_what_was_learnt_of_trials_that_not_every_run_measured() {
        let labels = ["old".to_string(), "new".to_string()];
        let runs = [run(true, &[&seeds(1.0, 1.0), &seeds(1.0, 1.0)]), run(true, &[&seeds(0.8, 0.8), &[]])];
        let c = Comparison::of(&labels, &runs, fixture::book());
        let data = c.data();
        assert_eq!((c.common(), data.rows()), (1, 4));
        let names: Vec<&str> = data.columns.iter().map(|c| c.name.as_str()).collect();
        for name in ["usd_to_loss_ratio_low", "tokens_to_loss", "validation_loss", "learning"] {
            assert!(names.contains(&name), "{name}");
        }
        let sweep = [fixture::sweep(), fixture::sweep()];
        assert!(Comparison::of(&labels, &sweep, fixture::book()).data().columns.iter().all(|c| c.name != "learning"));
    }
}
