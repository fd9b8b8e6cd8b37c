//! How prices fell: hardware by the hour and by the FLOP, APIs by the token, and what each had in the fall.

use super::Page;
use crate::comparison::decline::{Decline, Point};
use crate::hardware::api::Api;
use crate::report::charts::waterfall::{Step, Total, waterfall};
use crate::report::charts::{self, DrawError};
use crate::report::document::{Block, Cell, Column, Document, Row, Section, Span, Table, paragraph};
use crate::units::significant;

/// The page of the price book's history.
///
/// # Errors
/// A chart that cannot be drawn.
pub(crate) fn history(points: &[Point], apis: &[Api], decline: &Decline) -> Result<Page, DrawError> {
    let mut hardware: Vec<Block> = charts::history::hardware(points)
        .into_iter()
        .map(|d| charts::chart(d).map(Block::Chart))
        .collect::<Result<_, _>>()?;
    hardware.push(folded("Every offer with its source", offers(points)));
    let mut tokens: Vec<Block> = charts::history::apis(apis)
        .into_iter()
        .map(|d| charts::chart(d).map(Block::Chart))
        .collect::<Result<_, _>>()?;
    tokens.push(folded("Every API price with its source", asked(apis)));
    Ok(Page {
        name: "history",
        document: Document {
            title: "How the price of a token fell".into(),
            description: String::new(),
            sections: vec![
                Section { id: "answer", title: "The answer", blocks: fall(decline)? },
                Section { id: "tokens", title: "What APIs ask", blocks: tokens },
                Section { id: "hardware", title: "What hardware costs", blocks: hardware },
            ],
            foot: "Every figure is quoted: from the price book, with the source beside it.".into(),
        },
    })
}

fn folded(summary: &str, table: Table) -> Block {
    Block::Folded { summary: summary.into(), blocks: vec![Block::Table(table)] }
}

fn usd(x: f64) -> String {
    format!("${}", significant(x, 3))
}

fn fall(d: &Decline) -> Result<Vec<Block>, DrawError> {
    let (first, last) = &d.hardware;
    let times = |x: f64| format!("{}x", significant(x, 3));
    let ratio = d.after / d.before;
    let price = last.usd_per_device_hour / first.usd_per_device_hour;
    let rate = |p: &Point| p.device.peak().map_or(f64::NAN, |(_, r)| r);
    let speed = rate(last) / rate(first);
    // price * 1 / speed * rest = ratio
    let rest = ratio * speed / price;
    let answer = vec![
        Span::plain(format!(
            "From {} ({}) to {} ({}), a million tokens fell from {} to {}: to ",
            d.from.model,
            d.from.date,
            d.to.model,
            d.to.date,
            usd(d.before),
            usd(d.after)
        )),
        Span::strong(format!("1/{}", significant(1.0 / ratio, 3))),
        Span::plain(format!(
            ". An hour of the fastest device on offer costs {} ({} → {}), and does {} the FLOPs ({} → {}). What is \
             left is {}: smaller models, better use of the hardware, margins.",
            times(price),
            usd(first.usd_per_device_hour),
            usd(last.usd_per_device_hour),
            times(speed),
            first.device.name,
            last.device.name,
            if rest < 1.0 { format!("1/{}", significant(1.0 / rest, 3)) } else { times(rest) }
        )),
    ];
    let label = |name: &str| match name {
        "hardware price" => {
            format!("hardware price: {}/h → {}/h", usd(first.usd_per_device_hour), usd(last.usd_per_device_hour))
        }
        "hardware performance" => format!("speed: {} → {}", first.device.name, last.device.name),
        other => other.to_string(),
    };
    let steps: Vec<Step> = d
        .parts
        .iter()
        .zip(&d.shares)
        .map(|(p, share)| Step {
            label: label(p.name),
            change: p.change,
            note: format!(
                "{}${} ({:.0} %)",
                if p.change < 0.0 { "-" } else { "+" },
                significant(p.change.abs(), 3),
                share * 100.0
            ),
        })
        .collect();
    let end = |a: &Api, value: f64| Total { label: format!("{}, {}", a.model, a.date), value, note: usd(value) };
    let drawn = waterfall(
        format!("From {} to {}: what had which part in the fall", d.from.model, d.to.model),
        "USD per million tokens (input and output in equal parts)",
        |x| format!("${}", significant(x, 2)),
        [&end(d.from, d.before), &end(d.to, d.after)],
        &steps,
    );
    let mut table = Table::new(["what", "before", "after", "source before", "source after"].map(Column::text).to_vec());
    let sourced = |p: &Point| format!("{}; {}", p.offer.described(), p.offer.source);
    let mut row = |what: &str, before: String, after: String, a: String, b: String| {
        table.rows.push(Row::new([what.to_string(), before, after, a, b].map(Cell::text).to_vec()));
    };
    let asks = |a: &Api| format!("{} input, {} output", usd(a.input.get()), usd(a.output.get()));
    row("API, a million tokens", asks(d.from), asks(d.to), d.from.source.clone(), d.to.source.clone());
    row(
        "hour of a device",
        usd(first.usd_per_device_hour),
        usd(last.usd_per_device_hour),
        sourced(first),
        sourced(last),
    );
    let peak = |p: &Point| {
        p.device.peak().map_or(String::new(), |(f, r)| format!("{} TFLOP/s {}", significant(r / 1e12, 3), f.name()))
    };
    row("its peak", peak(first), peak(last), first.device.source.clone(), last.device.source.clone());
    Ok(vec![
        Block::Answer(answer),
        Block::Chart(charts::chart(drawn)?),
        paragraph(
            "Percentages are shares of the fall's logarithm and add up to 100. The hardware of a day is the fastest device \
             that the price book has on demand, by the datasheet's peak, at its lowest price. What is left is not measured: it is what remains of the \
             API's price once the hardware's is taken out.",
        ),
        Block::Table(table),
    ])
}

fn offers(points: &[Point]) -> Table {
    let mut table = Table::new(vec![
        Column::text("device"),
        Column::text("offer"),
        Column::number("$/h of a device"),
        Column::number("$/h of a PFLOP/s"),
        Column::text("first seen"),
        Column::text("last seen"),
        Column::text("source"),
    ]);
    for p in points {
        let flops = p.usd_per_pflops_hour;
        let until = p.offer.until.map_or(String::new(), |u| u.to_string());
        let from = format!("{}{}", p.offer.from, if p.offer.approximate { " (approximate)" } else { "" });
        table.rows.push(Row::new(vec![
            Cell::text(&p.device.name),
            Cell::text(p.offer.address()),
            Cell::number(significant(p.usd_per_device_hour, 4), p.usd_per_device_hour),
            Cell { text: flops.map_or("n/a".into(), |f| significant(f, 3)), sort: flops },
            Cell { text: from, sort: Some(p.offer.from.years()) },
            Cell::text(until),
            Cell::text(&p.offer.source),
        ]));
    }
    table
}

fn asked(apis: &[Api]) -> Table {
    let mut table = Table::new(vec![
        Column::text("model"),
        Column::number("$/M input"),
        Column::number("$/M output"),
        Column::text("date"),
        Column::text("confirmed"),
        Column::text("source"),
    ]);
    let mut sorted: Vec<&Api> = apis.iter().collect();
    sorted.sort_by_key(|a| a.date);
    for a in sorted {
        let confirmed = match (a.unverified, a.approximate) {
            (true, _) => "no",
            (_, true) => "price, not date",
            _ => "yes",
        };
        table.rows.push(Row::new(vec![
            Cell::text(format!("{} {}", a.provider, a.model)),
            Cell::number(significant(a.input.get(), 3), a.input.get()),
            Cell::number(significant(a.output.get(), 3), a.output.get()),
            Cell { text: a.date.to_string(), sort: Some(a.date.years()) },
            Cell::text(confirmed),
            Cell::text(&a.source),
        ]));
    }
    table
}
