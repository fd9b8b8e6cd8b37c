//! What is the best model for the money: the scaling law of some runs, and what it says of budgets.

use super::Page;
use crate::projection::law::answers::{Answers, money};
use crate::projection::law::curves::Curves;
use crate::projection::law::draws::{Bounded, Drawn};
use crate::projection::law::judged::counted;
use crate::projection::law::{Law, Point};
use crate::report::charts::iso_cost::iso_cost;
use crate::report::charts::{self, DrawError};
use crate::report::document::{Block, Cell, Column, Document, Row, Section, Span, Table, paragraph};
use crate::units::significant;

/// What the page is made of.
pub(crate) struct Fitted<'a> {
    pub points: &'a [Point],
    pub drawn: &'a Drawn,
    pub answers: &'a Answers,
    /// What things cost, where that is known.
    pub curves: Option<&'a Curves>,
    /// Whose cost it is, as in "at the runs' own cost".
    pub cost: &'a str,
    /// Where the runs are from.
    pub source: &'a str,
}

/// The page of a scaling law.
///
/// # Errors
/// A chart that cannot be drawn.
pub(crate) fn law(f: &Fitted) -> Result<Page, DrawError> {
    let mut blocks = vec![Block::Answer(answer(f))];
    if let Some(refused) = &f.answers.refused {
        blocks.push(paragraph(format!("Not answered: {refused}.")));
    }
    if !f.answers.lacking.is_empty() {
        blocks.push(paragraph("The runs do not say enough:"));
        blocks.push(Block::List(f.answers.lacking.iter().map(|l| vec![Span::plain(l)]).collect()));
    }
    if let Some(drawn) = f.curves.and_then(|c| iso_cost(f.points, c)) {
        blocks.push(Block::Chart(charts::chart(drawn)?));
    }
    let mut sections = vec![Section { id: "answer", title: "The answer", blocks }];
    if f.answers.bought.is_some() {
        sections.push(Section { id: "tenths", title: "What each further tenth of loss costs", blocks: tenths(f) });
    }
    sections.push(Section { id: "law", title: "The law", blocks: vec![constants(f), paragraph(METHOD)] });
    let folded = Block::Folded { summary: "Every run against the law".into(), blocks: vec![runs(f)] };
    sections.push(Section { id: "runs", title: "Runs", blocks: vec![folded] });
    Ok(Page {
        name: "scaling",
        document: Document {
            title: "What is the best model for the money".into(),
            description: f.source.into(),
            sections,
            foot: "Losses of runs are measured; what the law says of others is projected, with the interval that holds a further run \
                   95 times of 100 as long as the law holds."
                .into(),
        },
    })
}

const METHOD: &str = "L(N, D) = E + A / N^alpha + B / D^beta, N parameters, D tokens (Hoffmann et al. 2022, approach 3): Huber's loss of \
                      the errors of ln L (delta 0.001) from a grid of starts. Intervals are of a bootstrap over the runs; where these are few, it gives \
                      every run the error of some other, as large as errors are of runs that took no part in the fit.";

fn of(b: &Bounded, shown: impl Fn(f64) -> String) -> String {
    format!("{} ({} .. {})", shown(b.value), shown(b.low), shown(b.high))
}

fn digits(n: usize) -> impl Fn(f64) -> String {
    move |x| significant(x, n)
}

fn answer(f: &Fitted) -> Vec<Span> {
    let a = f.answers;
    let Some(b) = &a.bought else {
        return vec![
            Span::plain(format!("From {} runs: E ", f.points.len())),
            Span::strong(of(&a.floor, digits(3))),
            Span::plain(format!(
                ", alpha {}, beta {}. Of ten times the compute the best model takes {} times the parameters.",
                of(&a.alpha, digits(2)),
                of(&a.beta, digits(2)),
                of(&a.size_power, |x| significant(10f64.powf(x), 2))
            )),
        ];
    };
    let mut said = vec![
        Span::plain(format!("For {} the best is a model of ", money(b.best.usd))),
        Span::strong(format!("{} parameters on {} tokens", counted(b.best.parameters), counted(b.best.tokens))),
        Span::plain(": loss "),
        Span::strong(of(&b.loss, digits(3))),
        Span::plain(format!(
            " {}. The best size may be {} to {}, the tokens {} to {}.",
            f.cost,
            counted(b.parameters.low),
            counted(b.parameters.high),
            counted(b.tokens.low),
            counted(b.tokens.high)
        )),
    ];
    if let Some(t) = a.tenths.first() {
        said.push(Span::plain(format!(
            " A tenth of loss less costs {} ({} .. {}), {} times as much.",
            money(t.usd.value),
            money(t.usd.low),
            money(t.usd.high),
            significant(t.times, 2)
        )));
    }
    said
}

fn tenths(f: &Fitted) -> Vec<Block> {
    let mut table = Table::new(vec![
        Column::number("loss"),
        Column::number("USD"),
        Column::text("95 % interval"),
        Column::number("times the row above"),
        Column::number("parameters"),
        Column::number("tokens"),
    ]);
    let mut blocks = Vec::new();
    let rows = f.answers.bought.iter().map(|b| (&b.best, None));
    for (t, more) in rows.chain(f.answers.tenths.iter().map(|t| (&t.training, Some(t)))) {
        table.rows.push(Row::new(vec![
            Cell::number(format!("{:.3}", t.loss), t.loss),
            Cell::number(money(t.usd), t.usd),
            Cell::text(more.map_or(String::new(), |m| format!("{} .. {}", money(m.usd.low), money(m.usd.high)))),
            more.map_or(Cell::text(""), |m| Cell::number(significant(m.times, 3), m.times)),
            Cell::number(counted(t.parameters), t.parameters),
            Cell::number(counted(t.tokens), t.tokens),
        ]));
    }
    table.caption = format!("Projected by the law, {}, each at the size that is cheapest for it.", f.cost);
    blocks.push(Block::Table(table));
    if let Some(ended) = &f.answers.ended {
        blocks.push(paragraph(format!("No further: {ended}.")));
    }
    blocks
}

fn constants(f: &Fitted) -> Block {
    let a = f.answers;
    let mut table = Table::new(vec![
        Column::text("constant"),
        Column::number("value"),
        Column::text("95 % interval"),
        Column::text("what it is"),
    ]);
    let mut row = |name: &str, b: &Bounded, what: &str| {
        table.rows.push(Row::new(vec![
            Cell::text(name),
            Cell::number(significant(b.value, 4), b.value),
            Cell::text(format!("{} .. {}", significant(b.low, 3), significant(b.high, 3))),
            Cell::text(what),
        ]));
    };
    let factor = |get: fn(&Law) -> f64| f.drawn.bounded(get(&f.drawn.law), |d| Some(get(&d.law)));
    row("E", &a.floor, "loss of a model without end on data without end");
    row("alpha", &a.alpha, "how fast loss falls with parameters");
    row("beta", &a.beta, "how fast loss falls with tokens");
    row("A", &factor(|l| l.factors().0), "of the parameters' term");
    row("B", &factor(|l| l.factors().1), "of the tokens' term");
    row("beta / (alpha + beta)", &a.size_power, "the best size goes with compute to this power");
    table.caption = format!("A run that took no part in the fit is {} % off the law.", significant(100.0 * a.noise, 2));
    Block::Table(table)
}

fn runs(f: &Fitted) -> Block {
    let priced = f.points.iter().any(|p| p.usd.is_some());
    let mut columns: Vec<Column> = ["parameters", "tokens", "loss", "of the law", "off by"].map(Column::number).into();
    columns.extend(priced.then(|| Column::number("USD")));
    let mut table = Table::new(columns);
    for p in f.points {
        let law = f.drawn.law.loss(p.parameters, p.tokens);
        let mut cells = vec![
            Cell::number(counted(p.parameters), p.parameters),
            Cell::number(counted(p.tokens), p.tokens),
            Cell::number(significant(p.loss, 4), p.loss),
            Cell::number(significant(law, 4), law),
            Cell::number(format!("{:+.2} %", 100.0 * (p.loss / law - 1.0)), p.loss / law),
        ];
        cells.extend(priced.then(|| p.usd.map_or(Cell::text(""), |u| Cell::number(money(u), u))));
        table.rows.push(Row::new(cells));
    }
    Block::Table(table)
}
