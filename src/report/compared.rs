//! Runs or machines side by side: every trial that all of them measured, the totals, and what is missing.

use super::document::{Block, Cell, Column, Row, Span, Table};
use super::facts::Facts;
use super::format::{ABSENT, bare, counted, listed, percent_change, plus_minus, signed_usd, times};
use super::sections::learning::ending;
use crate::comparison::learning::{Ending, Measure, Outcome, Taught, learnt};
use crate::comparison::ratio::{Change, change};
use crate::comparison::runs::{Entry, Pairing, RunComparison, Total, compare};
use crate::cost::metric::{Estimate, Quantity};
use crate::hardware::book::Book;
use crate::results::run::Run;
use crate::results::table::{DataColumn, DataTable, Values};
use crate::sweep::identity::check_of;
use std::collections::{HashMap, HashSet};

/// Several runs and what can be said of them together.
#[derive(Debug)]
pub(crate) struct Comparison<'a> {
    /// What each run is called: its folder.
    labels: &'a [String],
    runs: &'a [Run],
    book: &'a Book,
    found: RunComparison,
}

impl<'a> Comparison<'a> {
    /// Sets runs side by side; the first is what the others are held against. As many labels as runs.
    pub(crate) fn of(labels: &'a [String], runs: &'a [Run], book: &'a Book) -> Self {
        Self { labels, runs, book, found: compare(runs, book) }
    }

    /// Trials that every run measured.
    pub(crate) fn common(&self) -> usize {
        self.found.pairings.len()
    }

    /// Whether trials were to learn something.
    pub(crate) fn learns(&self) -> bool {
        !self.found.taught.is_empty()
    }

    /// What `run` learns worse than `against`, in words; `None` where it does not.
    pub(super) fn worse(&self, run: usize, against: usize) -> Option<String> {
        let l = learnt(&self.runs.iter().collect::<Vec<_>>(), &self.found.taught, run, against);
        if !l.worse() {
            return None;
        }
        let fewer = l.only_there.checked_sub(l.only_here).filter(|n| *n > 0);
        let fewer = fewer.map(|n| format!("{} fewer {} where they are to get", n, if n == 1 { "gets" } else { "get" }));
        let more = |e: Option<Estimate>, what: &str| e.map(|e| format!("{what} {}", percent_change(&e)));
        let parts = [fewer, more(l.tokens, "tokens to a loss"), more(l.loss, "validation loss at the end")];
        Some(listed(&parts.into_iter().flatten().collect::<Vec<_>>()))
    }

    /// How a trial that was to learn something ended in a run.
    pub(super) fn ending(&self, t: &Taught, run: usize) -> String {
        let (Some(r), Some(o)) = (self.runs.get(run), t.outcome(run)) else { return "not asked for".into() };
        match o.ending {
            Ending::Failed(status) => status.name().into(),
            Ending::There | Ending::Short { .. } => ending(&Facts::of(r, self.book), o.record),
        }
    }

    pub(super) fn runs(&self) -> &'a [Run] {
        self.runs
    }

    pub(super) fn book(&self) -> &'a Book {
        self.book
    }

    pub(super) fn labels(&self) -> &'a [String] {
        self.labels
    }

    pub(super) fn found(&self) -> &RunComparison {
        &self.found
    }

    /// How a difference between two runs that they cannot show is found, if there is one.
    pub(super) fn way_to_know(&self, first: usize, second: usize) -> Vec<Span> {
        let (Some(a), Some(b)) = (self.runs.get(first), self.runs.get(second)) else { return Vec::new() };
        let [a, b] = [&a.environment, &b.environment];
        let label = |run: usize| self.labels.get(run).map_or("", String::as_str);
        let more = Span::code(format!("{} --fresh --set measure.rounds=10", b.command_line().replace(" --fresh", "")));
        if a.machine.fingerprint() != b.machine.fingerprint() {
            return vec![Span::plain("They are of two machines: more launches on each see smaller ones: "), more];
        }
        if a.program_version == b.program_version {
            return vec![Span::plain("Both are of one program: what differs is the machine. More launches: "), more];
        }
        let check = check_of(&b.command_line(), &format!("CENTIME-OF-{}", label(first)));
        let check = check.unwrap_or_else(|| "centime check SCENARIO --baseline-bin PROGRAM".into());
        vec![
            Span::plain("Both programs measured in pairs see smaller ones: "),
            Span::code(check),
            Span::plain(format!(", with the program of {} at work and that of {} named.", label(second), label(first))),
        ]
    }

    /// The table, what the runs are, the totals, and what is missing.
    pub(super) fn blocks(&self) -> Vec<Block> {
        let mut blocks = vec![Block::Table(self.table())];
        blocks.push(Block::List(self.lines().into_iter().map(|l| vec![Span::plain(l)]).collect()));
        blocks.extend(self.missing().map(Block::Table));
        blocks
    }

    fn table(&self) -> Table {
        let facts = self.runs.first().map(|run| Facts::of(run, self.book));
        let mut table = Table::new(vec![
            Column::text("trial"),
            Column::text("run"),
            Column::number("tokens/s"),
            Column::number("±"),
            Column::number("against the first"),
            Column::number("$/M tokens"),
            Column::number("change (95 % CI)"),
            Column::text("cost"),
        ]);
        for p in &self.found.pairings {
            let name = facts.as_ref().map_or(String::new(), |f| f.name(p.record));
            for (run, e) in p.entries.iter().enumerate() {
                let cost = e.cost.map_or(ABSENT.into(), |c| bare(Quantity::UsdPerMillionTokens, c.value));
                let cells = [
                    if run == 0 { name.clone() } else { String::new() },
                    self.labels.get(run).cloned().unwrap_or_default(),
                    bare(Quantity::TokensPerSecond, e.throughput.value),
                    plus_minus(Some(e.throughput)),
                    e.throughput_ratio.map_or(String::new(), |r| times(&r)),
                    cost,
                    e.cost_ratio.map_or(String::new(), |r| percent_change(&r)),
                    standing(p, run),
                ];
                let best = p.cheapest.as_ref().is_some_and(|c| c.best == run && c.tied.is_empty());
                table.rows.push(Row { cells: cells.map(Cell::text).to_vec(), highlighted: best });
            }
        }
        table
    }

    /// What the runs are, the totals, and what to think of them.
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = (0..self.runs.len()).map(|r| self.described(r)).collect();
        lines.extend(self.found.totals.iter().skip(1).map(|t| self.total(t)));
        if self.common() == 0 {
            lines.push("no trial was measured by all of them: nothing can be compared".into());
            return lines;
        }
        let wins: Vec<String> = self
            .found
            .totals
            .iter()
            .map(|t| format!("{} in {}", self.labels.get(t.run).cloned().unwrap_or_default(), t.cheapest_of))
            .collect();
        lines.push(format!(
            "cheapest, ties counted for each: {} of {}",
            listed(&wins),
            counted(self.common(), "trial")
        ));
        lines.push(
            "advisory: these runs were not interleaved; a difference may be the machine's of that hour, and intervals \
             do not hold what differs from launch to launch"
                .into(),
        );
        lines
    }

    fn described(&self, run: usize) -> String {
        let Some(r) = self.runs.get(run) else { return String::new() };
        let e = &r.environment;
        let price = e.price.usd_per_hour.map_or("no price".into(), |p| p.to_string());
        format!(
            "{}: {}, {} cores, {price} ({}), centime {}, {}",
            self.labels.get(run).cloned().unwrap_or_default(),
            e.machine.cpu_model,
            e.machine.cores,
            e.price.hardware,
            e.program_version,
            e.started_at
        )
    }

    fn total(&self, t: &Total) -> String {
        let label = |run: usize| self.labels.get(run).cloned().unwrap_or_default();
        let mut line = format!(
            "{} against {}, geometric mean over {}: throughput {}",
            label(t.run),
            label(0),
            counted(self.common(), "trial"),
            t.throughput_ratio.map_or(ABSENT.into(), |r| times(&r))
        );
        let Some(cost) = t.cost_ratio else { return line + ", cost n/a" };
        line += &format!(", cost {}: {}", percent_change(&cost), word(&cost));
        if let Some(worse) = self.worse(t.run, 0) {
            line += &format!(" by the token, and learning worse ({worse})");
        }
        if let Some(c) = &t.change {
            let parts: Vec<String> = c.parts.iter().map(|p| format!("{} {}", p.name, signed_usd(p.change))).collect();
            line += &format!(
                "; the mean change of {} per million tokens is {}",
                signed_usd(c.after - c.before),
                listed(&parts)
            );
        }
        line
    }

    fn missing(&self) -> Option<Table> {
        if self.found.missing.is_empty() {
            return None;
        }
        let mut columns = vec![Column::text("not measured by all")];
        columns.extend(self.labels.iter().map(Column::text));
        let mut table = Table::new(columns);
        for m in &self.found.missing {
            let (run, record) = m.described_in;
            let name = self.runs.get(run).map_or(String::new(), |r| Facts::of(r, self.book).name(record));
            let mut cells = vec![Cell::text(name)];
            cells.extend(m.statuses.iter().map(|s| Cell::text(s.map_or("not asked for", |s| s.name()))));
            table.rows.push(Row::new(cells));
        }
        Some(table)
    }

    /// For machines: a row for each trial and run; of trials that were to learn something also where not all have figures.
    pub(crate) fn data(&self) -> DataTable {
        let runs: Vec<&Run> = self.runs.iter().collect();
        let taught: HashMap<&str, &Taught> = self.found.taught.iter().map(|t| (t.trial_id.as_str(), t)).collect();
        let paired: HashSet<&str> = self.found.pairings.iter().map(|p| p.trial_id.as_str()).collect();
        let unpaired = self.found.taught.iter().filter(|t| !paired.contains(t.trial_id.as_str()));
        let all = self.found.pairings.iter().map(|p| (Some(p), taught.get(p.trial_id.as_str()).copied()));
        let all: Vec<(Option<&Pairing>, Option<&Taught>)> = all.chain(unpaired.map(|t| (None, Some(t)))).collect();
        let rows: Vec<Compared> = all
            .iter()
            .flat_map(|&(pairing, taught)| (0..runs.len()).map(move |run| Compared { pairing, taught, run }))
            .collect();
        let text = |name: &str, of: &dyn Fn(&Compared) -> Option<String>| DataColumn {
            name: name.into(),
            values: Values::Text(rows.iter().map(of).collect()),
        };
        let described = |c: &Compared| c.pairing.map(|p| (0, p.record)).or_else(|| Some(c.taught?.described_in));
        let mut columns = vec![
            text("trial_id", &|c| {
                Some(c.pairing.map_or_else(|| c.taught.map(|t| &t.trial_id), |p| Some(&p.trial_id))?.clone())
            }),
            text("trial", &|c| {
                let (run, record) = described(c)?;
                Some(Facts::of(self.runs.get(run)?, self.book).name(record))
            }),
            text("run", &|c| self.labels.get(c.run).cloned()),
        ];
        let mut estimates = |name: &str, of: &dyn Fn(&Compared) -> Option<Estimate>| {
            let all: Vec<Option<Estimate>> = rows.iter().map(of).collect();
            let column = |suffix: &str, part: fn(&Estimate) -> Option<f64>| DataColumn {
                name: format!("{name}{suffix}"),
                values: Values::Float(all.iter().map(|e| e.as_ref().and_then(part)).collect()),
            };
            columns.extend([column("", |e| Some(e.value)), column("_low", |e| e.low), column("_high", |e| e.high)]);
        };
        estimates("tokens_per_second", &|c| Some(c.entry()?.throughput));
        estimates("throughput_ratio", &|c| c.entry()?.throughput_ratio);
        estimates("usd_per_million_tokens", &|c| c.entry()?.cost);
        estimates("cost_ratio", &|c| c.entry()?.cost_ratio);
        if self.learns() {
            let against = |c: &Compared, measure| c.taught?.against(&runs, measure, Some(c.run).filter(|r| *r > 0)?, 0);
            estimates("validation_loss", &|c| c.outcome()?.loss);
            estimates("validation_loss_ratio", &|c| against(c, Measure::Loss));
            estimates("tokens_to_loss", &|c| c.outcome()?.tokens);
            estimates("tokens_to_loss_ratio", &|c| against(c, Measure::Tokens));
            estimates("seconds_to_loss", &|c| c.outcome()?.seconds);
            estimates("seconds_to_loss_ratio", &|c| against(c, Measure::Seconds));
            estimates("usd_to_loss", &|c| c.outcome()?.usd);
            estimates("usd_to_loss_ratio", &|c| against(c, Measure::Usd));
            columns.push(text("learning", &|c| Some(self.ending(c.taught?, c.run))));
        }
        columns.push(text("cost", &|c| Some(c.pairing.map_or(String::new(), |p| standing(p, c.run)))));
        DataTable { columns }
    }
}

/// A row for machines.
struct Compared<'a> {
    pairing: Option<&'a Pairing>,
    taught: Option<&'a Taught>,
    run: usize,
}

impl<'a> Compared<'a> {
    fn entry(&self) -> Option<&'a Entry> {
        self.pairing?.entries.get(self.run)
    }

    fn outcome(&self) -> Option<&'a Outcome> {
        self.taught?.outcome(self.run)
    }
}

fn word(cost: &Estimate) -> &'static str {
    match change(cost) {
        Change::Higher => "dearer",
        Change::Lower => "cheaper",
        Change::WithinNoise => "within noise",
        Change::Unknown => "without an interval",
    }
}

/// Where a run stands among all for one trial.
fn standing(p: &Pairing, run: usize) -> String {
    match &p.cheapest {
        Some(c) if c.best == run && c.tied.is_empty() => "cheapest".into(),
        Some(c) if c.best == run || c.tied.contains(&run) => "tie for the cheapest".into(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::report::Style;
    use crate::report::pages::{Asked, comparison};
    use crate::units::UsdPerHour;

    #[test]
    fn a_dearer_machine_is_said_to_be_dearer_and_why() {
        let run = fixture::sweep();
        let mut dear = run.clone();
        dear.environment.price.usd_per_hour = UsdPerHour::of(2.0 * 0.0856);
        let labels = ["a".to_string(), "b".to_string()];
        let runs = [run, dear];
        let c = Comparison::of(&labels, &runs, fixture::book());
        let text = comparison(&c, &Asked::default()).unwrap().terminal(Style { width: None, colour: false });
        assert!(text.contains("b against a, geometric mean over 9 trials: throughput 1.00x"), "{text}");
        assert!(text.contains("cost +100.0 %") && text.contains(": dearer; the mean change of +$"), "{text}");
        assert!(text.contains("a in 9 and b in 0 of 9 trials"), "{text}");
        assert!(text.contains("not measured by all"), "{text}");
        assert_eq!(c.data().rows(), 18);
    }

    #[test]
    fn what_two_runs_cannot_show_they_say_and_how_it_is_known() {
        let labels = ["old".to_string(), "new".to_string()];
        let said = |runs: [Run; 2]| {
            let c = Comparison::of(&labels, &runs, fixture::book());
            comparison(&c, &Asked::default()).unwrap().markdown()
        };
        let run = fixture::sweep();
        let same = said([run.clone(), run.clone()]);
        assert!(same.contains("; the smallest that they could show is ") && !same.contains("show is 0.0 %"), "{same}");
        assert!(same.contains("Both are of one program") && same.contains("measure.rounds=10"), "{same}");
        let mut built = run.clone();
        built.environment.program_version = "0.2.0".into();
        let programs = said([run.clone(), built]);
        let scenario = run.environment.command.replace("run ", "");
        assert!(programs.contains(&format!("centime check {scenario} --baseline-bin CENTIME-OF-old")), "{programs}");
        let mut elsewhere = run.clone();
        elsewhere.environment.machine.cores += 1;
        assert!(said([run, elsewhere]).contains("They are of two machines"));
    }

    #[test]
    fn a_run_against_itself_is_within_noise() {
        let labels = ["a".to_string(), "again".to_string()];
        let runs = [fixture::sweep(), fixture::sweep()];
        let text = comparison(&Comparison::of(&labels, &runs, fixture::book()), &Asked::default()).unwrap().markdown();
        assert!(text.contains("cost 0.0 %") && text.contains("within noise"), "{text}");
        assert!(text.contains("tie for the cheapest"));
    }
}
