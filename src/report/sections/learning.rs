//! What it cost to reach a loss: the answer of a run whose trials were to learn something, and a row for each.

use crate::comparison::cheapest::{Cheapest, cheapest};
use crate::comparison::ratio::ratio;
use crate::cost::metric::{Estimate, Metric, Quantity};
use crate::cost::metrics::{
    ABOVE_ENTROPY, BITS_PER_BYTE, CHECKPOINT_SECONDS, DATA_WAIT, EVALUATION_SECONDS, LOST_SECONDS, SECONDS_TO_LOSS,
    TOKENS_TO_LOSS, TRAINED_TOKENS, USD_CHECKPOINTS, USD_LOST, USD_TO_LOSS, USD_TRAINED, VALIDATION_LOSS,
};
use crate::report::document::{Block, Cell, Column, Figure, Row, Span, Table};
use crate::report::facts::Facts;
use crate::report::format::{ABSENT, bare, fixed_usd, listed, shown};
use crate::runner::learning::learned::{EndedBy, Learned, checkpoints_in_words};
use crate::runner::measurement::Status;
use crate::units::{grouped, significant};

/// Records whose trials were to learn something, those without figures among them.
fn taught(facts: &Facts) -> Vec<usize> {
    (0..facts.records().len()).filter(|&i| facts.records()[i].cell.trial.learning.is_some()).collect()
}

fn learned<'a>(facts: &Facts<'a>, i: usize) -> &'a [Learned] {
    facts.records()[i].measurement.figures.as_ref().map_or(&[], |f| f.learned.as_slice())
}

/// The loss that all trials of the run were to reach, if it is one.
fn target(facts: &Facts) -> Option<f64> {
    let of = |&i: &usize| facts.records()[i].cell.trial.learning.as_ref()?.until.validation_loss;
    let all: Vec<Option<f64>> = taught(facts).iter().map(of).collect();
    let first = all.first().copied().flatten()?;
    all.iter().all(|t| *t == Some(first)).then_some(first)
}

/// The trial that gets there for least, where one does; else the one whose loss is lowest.
fn best(facts: &Facts) -> Option<(usize, &'static Metric)> {
    let all = taught(facts);
    let of = |metric: &'static Metric| least(facts, &all, metric).map(|found| (all[found.best], metric));
    let to_loss = target(facts).and_then(|_| of(&USD_TO_LOSS).or_else(|| of(&SECONDS_TO_LOSS)));
    to_loss.or_else(|| of(&VALIDATION_LOSS))
}

/// Whether a row is the one that gets there for least.
pub(super) fn is_best(facts: &Facts, i: usize) -> bool {
    taught(facts).len() > 1
        && best(facts).is_some_and(|(best, metric)| best == i && !std::ptr::eq(metric, &VALIDATION_LOSS))
}

/// The answer of a run that was to learn something; `None` for any other.
pub(super) fn answer(facts: &Facts) -> Option<Vec<Block>> {
    let spans = sentence(facts)?;
    let mut blocks = vec![Block::Answer(spans)];
    let figures = figures(facts);
    if !figures.is_empty() {
        blocks.push(Block::Figures(figures));
    }
    Some(blocks)
}

/// The same as the end of a run's last line.
pub(super) fn closing(facts: &Facts) -> Option<String> {
    let text = |span: &Span| match span {
        Span::Plain(t) | Span::Strong(t) | Span::Code(t) => t.clone(),
    };
    Some(sentence(facts)?.iter().map(text).collect())
}

/// "adamw reaches a validation loss of 3.2 for $0.0012 (95 % CI ...): 410,000 tokens in 12.3 s. That is ..."
fn sentence(facts: &Facts) -> Option<Vec<Span>> {
    let all = taught(facts);
    if all.is_empty() {
        return None;
    }
    let Some((i, metric)) = best(facts) else {
        return Some(vec![Span::plain("No trial learnt anything: see how each ended below.")]);
    };
    let name = Span::strong(facts.name(i));
    let Some(loss) = target(facts) else {
        let value = facts.get(i, &VALIDATION_LOSS)?.value;
        let usd = facts.get(i, &USD_TRAINED).map_or(String::new(), |e| format!(" for {}", fixed_usd(e.value)));
        let tokens = facts.get(i, &TRAINED_TOKENS).map_or(ABSENT.into(), |e| bare(Quantity::Count, e.value));
        let said =
            format!(" has the lowest validation loss at the end: {value:.4} nats a token after {tokens} tokens{usd}.");
        let tied = within_spread(facts, &all, metric);
        return Some(vec![name, Span::plain(said), Span::plain(tied), Span::plain(spread(facts, i))]);
    };
    if std::ptr::eq(metric, &VALIDATION_LOSS) {
        let value = facts.get(i, &VALIDATION_LOSS)?.value;
        let none = format!("No trial reaches a validation loss of {loss}. Nearest to it is ");
        let said = format!(", which ends at {value:.4}.{}", within_spread(facts, &all, metric));
        return Some(vec![Span::plain(none), name, Span::plain(said)]);
    }
    let cost = facts.get(i, metric)?;
    let amount = |x: f64| if std::ptr::eq(metric, &USD_TO_LOSS) { fixed_usd(x) } else { bare(Quantity::Seconds, x) };
    let for_or_in = if std::ptr::eq(metric, &USD_TO_LOSS) { "for" } else { "in" };
    let mut spans = vec![
        name,
        Span::plain(format!(" reaches a validation loss of {loss} {for_or_in} ")),
        Span::strong(amount(cost.value)),
    ];
    let interval = cost.interval().map(|(low, high)| format!(" (95 % CI {} .. {})", amount(low), amount(high)));
    let tokens = facts.get(i, &TOKENS_TO_LOSS).map_or(ABSENT.into(), |e| bare(Quantity::Count, e.value));
    let seconds = facts.get(i, &SECONDS_TO_LOSS).map_or(ABSENT.into(), |e| bare(Quantity::Seconds, e.value));
    spans.push(Span::plain(format!("{}: {tokens} tokens in {seconds}.", interval.unwrap_or_default())));
    spans.push(Span::plain(others(facts, &all, (i, &cost), metric)));
    spans.push(Span::plain(spread(facts, i)));
    Some(spans)
}

/// How the others compare: what cannot be told from it, the dearest that gets there, and who does not.
fn others(facts: &Facts, all: &[usize], (best, cost): (usize, &Estimate), metric: &Metric) -> String {
    let mut said = within_spread(facts, all, metric);
    let dearest = least(facts, all, metric).map(|found| all[found.dearest]).filter(|dearest| *dearest != best);
    if let Some((dearest, times)) = dearest.and_then(|i| Some((i, ratio(&facts.get(i, metric)?, cost)?))) {
        said += &format!(
            " That is {} times cheaper than the dearest that gets there, {}.",
            significant(times.value, 3),
            facts.name(dearest)
        );
    }
    let short = all.iter().filter(|&&i| facts.get(i, &TOKENS_TO_LOSS).is_none()).count();
    match short {
        0 => {}
        1 => said += " One does not get there.",
        n => said += &format!(" {n} of {} do not get there.", all.len()),
    }
    said
}

/// The trial that has least of a metric, and those that its seeds do not tell from it; places in `all`.
fn least(facts: &Facts, all: &[usize], metric: &Metric) -> Option<Cheapest> {
    cheapest(&all.iter().map(|&i| facts.get(i, metric)).collect::<Vec<_>>())
}

/// Which trials cannot be told from the one that has least of a metric.
fn within_spread(facts: &Facts, all: &[usize], metric: &Metric) -> String {
    let tied = least(facts, all, metric).map(|found| found.tied).unwrap_or_default();
    let names: Vec<String> = tied.iter().map(|&place| facts.name(all[place])).collect();
    if names.is_empty() { String::new() } else { format!(" Within the spread of its seeds: {}.", listed(&names)) }
}

/// What is not known with few seeds.
fn spread(facts: &Facts, i: usize) -> String {
    match learned(facts, i).len() {
        1 => " Each ran with one seed: how much of a difference is chance is not known (sweep.repeat: { seed: [1, 2, 3] }).".into(),
        2 => " Two seeds say too little for an interval.".into(),
        _ => String::new(),
    }
}

fn figures(facts: &Facts) -> Vec<Figure> {
    let mut all = Vec::new();
    let mut figure = |i: usize, metric: &'static Metric, label: String| {
        if let Some(e) = facts.get(i, metric) {
            all.push(Figure { value: shown(metric, Some(e)), label, note: facts.name(i) });
        }
    };
    if let Some(((i, metric), loss)) =
        best(facts).zip(target(facts)).filter(|((_, m), _)| !std::ptr::eq(*m, &VALIDATION_LOSS))
    {
        figure(i, metric, format!("to a validation loss of {loss}, at the least"));
        figure(i, &TOKENS_TO_LOSS, "tokens that it took".into());
    }
    let lowest = taught(facts).into_iter().filter_map(|i| Some((i, facts.get(i, &VALIDATION_LOSS)?.value)));
    if let Some((i, _)) = lowest.min_by(|a, b| a.1.total_cmp(&b.1)) {
        figure(i, &VALIDATION_LOSS, "nats a token, the lowest validation loss at the end".into());
        figure(i, &ABOVE_ENTROPY, "nats a token above what any model can reach".into());
    }
    all
}

/// A row for each trial that was to learn something.
pub(super) fn blocks(facts: &Facts) -> Vec<Block> {
    const METRICS: [&Metric; 13] = [
        &USD_TO_LOSS,
        &TOKENS_TO_LOSS,
        &SECONDS_TO_LOSS,
        &VALIDATION_LOSS,
        &BITS_PER_BYTE,
        &ABOVE_ENTROPY,
        &TRAINED_TOKENS,
        &EVALUATION_SECONDS,
        &CHECKPOINT_SECONDS,
        &USD_CHECKPOINTS,
        &LOST_SECONDS,
        &USD_LOST,
        &DATA_WAIT,
    ];
    let metrics: Vec<&Metric> = METRICS.into_iter().filter(|m| facts.any(m)).collect();
    let rows = taught(facts);
    if rows.is_empty() {
        return vec![];
    }
    let mut columns = vec![Column::text("configuration"), Column::text("how it ended")];
    columns.extend(metrics.iter().map(|m| Column::number(m.label)));
    columns.push(Column::text("95 % CI"));
    let mut table = Table::new(columns);
    for i in rows {
        let mut cells = vec![Cell::text(facts.name(i)), Cell::text(ending(facts, i))];
        cells.extend(metrics.iter().map(|m| {
            let e = facts.get(i, m);
            Cell { text: shown(m, e), sort: e.map(|e| e.value) }
        }));
        let of = if facts.get(i, &USD_TO_LOSS).is_some() { &USD_TO_LOSS } else { &VALIDATION_LOSS };
        let interval = facts.get(i, of).and_then(|e| e.interval());
        let both = interval.map(|(low, high)| [low, high].map(|x| bare(of.quantity, x)).join(" .. "));
        cells.push(Cell::text(both.unwrap_or(ABSENT.into())));
        table.rows.push(Row { cells, highlighted: is_best(facts, i) });
    }
    table.caption = "Losses are in nats a token over the validation text; of tokenizers that differ, bits a byte compare. Of several \
                     launches, which have a seed each, the median; the interval is that of the USD to the loss, or of the loss where \
                     it was not reached or none was asked for. Evaluations and checkpoints are no part of the time of training; \
                     lost work are steps that were done again after a launch was ended."
        .into();
    vec![Block::Table(table)]
}

/// "reached 3.2", "3.2 not reached: 3.41 after 2,000,000 tokens", "reached by 2 of 3 seeds".
pub(in crate::report) fn ending(facts: &Facts, i: usize) -> String {
    let record = &facts.records()[i];
    let m = &record.measurement;
    if m.status != Status::Ok {
        return format!("{}: {}", m.status.name(), m.reason);
    }
    let learned = learned(facts, i);
    let Some(last) = learned.last() else { return String::new() };
    let kept = checkpoints_in_words(learned).map_or(String::new(), |said| format!("; {said}"));
    let wanted = record.cell.trial.learning.as_ref().and_then(|l| l.until.validation_loss);
    let timeout = learned.iter().any(|l| l.ended_by == EndedBy::Timeout);
    let why = if timeout { ", ended by its time-out (measure.timeout_seconds)" } else { "" };
    let Some(target) = wanted else { return format!("{} tokens read{why}{kept}", grouped(last.end.tokens)) };
    let there = learned.iter().filter(|l| l.target.is_some()).count();
    let ended = match (there, learned.len()) {
        (there, all) if there == all => format!("reached {target}"),
        (0, 1) => format!("{target} not reached: {:.4} after {} tokens{why}", last.end.loss, grouped(last.end.tokens)),
        (0, all) => format!("{target} not reached by any of {all} seeds{why}"),
        (there, all) => format!("{target} reached by {there} of {all} seeds{why}"),
    };
    ended + &kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::learning::learning_tests::{Launch, run};
    use crate::fixture;

    fn said(target: bool, losses: &[[f64; 3]]) -> String {
        let launches = |losses: &[f64; 3]| (1..).zip(losses).map(|(seed, loss)| (seed, *loss, None)).collect();
        let trials: Vec<Vec<Launch>> = losses.iter().map(launches).collect();
        let run = run(target, &trials.iter().map(Vec::as_slice).collect::<Vec<_>>());
        closing(&Facts::of(&run, fixture::book())).unwrap()
    }

    #[test]
    fn a_lowest_loss_that_seeds_do_not_tell_from_others_is_said_beside_them() {
        let (best, near, far) = ([2.50, 2.52, 2.51], [2.49, 2.56, 2.53], [2.90, 2.91, 2.92]);
        let alone = said(false, &[far, best]);
        assert!(alone.contains("batch 2 has the lowest validation loss at the end: 2.5100"), "{alone}");
        assert!(!alone.contains("spread"), "{alone}");
        let tied = said(false, &[far, best, near]);
        assert!(tied.ends_with(" Within the spread of its seeds: batch 4."), "{tied}");
        let short = said(true, &[[3.1, 3.12, 3.11], [3.1, 3.2, 3.15], [3.9, 3.91, 3.92]]);
        assert!(short.starts_with("No trial reaches a validation loss of 3. Nearest to it is batch 1, "), "{short}");
        assert!(short.ends_with(", which ends at 3.1100. Within the spread of its seeds: batch 2."), "{short}");
    }
}
