//! `centime hardware list`.

use crate::cli::Failure;
use crate::cli::output::print_wrapped;
use crate::cli::price::{PriceBook, today};
use crate::cli::table::{Format, Printed, Rows, Value};
use crate::hardware::book::{Book, Query};
use crate::hardware::date::Date;
use crate::hardware::device::{Device, NumberFormat};
use crate::hardware::offer::{Offer, Term};
use crate::units::{Bytes, BytesPerSecond, FlopsPerSecond, significant};
use anyhow::anyhow;

/// Every device with its figures and its cheapest current price; or every offer, or every API.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only devices of this kind: gpu, tpu, accelerator, cpu, soc.
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// The offers of the price book instead of the devices.
    #[arg(long, conflicts_with = "apis")]
    offers: bool,
    /// What APIs ask for tokens, instead of the devices.
    #[arg(long)]
    apis: bool,
    /// Prices under this term: on-demand, spot, reserved-1y, reserved-3y, owned.
    #[arg(long, value_name = "TERM", value_parser = term)]
    term: Option<Term>,
    /// Prices of this provider.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Prices of that day instead of the latest.
    #[arg(long, value_name = "DATE", value_parser = date)]
    on: Option<Date>,
    #[command(flatten)]
    prices: PriceBook,
    #[command(flatten)]
    printed: Printed,
}

pub(super) fn term(text: &str) -> Result<Term, String> {
    Term::named(text).ok_or_else(|| format!("expected one of {}", Term::ALL.map(Term::name).join(", ")))
}

pub(super) fn date(text: &str) -> Result<Date, String> {
    Date::parse(text).ok_or_else(|| "expected a date such as 2026-07-20, 2026-07 or 2026".into())
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    let book = a.prices.load()?;
    if a.apis {
        return apis(&book, a.printed.format);
    }
    if a.offers {
        return offers(&book, a);
    }
    let mut rows = Rows::new(&[
        "name",
        "kind",
        "architecture",
        "memory_bytes",
        "memory_bandwidth",
        "bf16_peak",
        "tdp_watts",
        "usd_per_device_hour",
        "of",
        "last_seen",
        "unverified",
    ])
    .least(&["unverified", "last_seen", "of", "kind", "architecture", "tdp_watts", "memory_bandwidth"]);
    let wanted = |d: &&Device| a.kind.as_ref().is_none_or(|k| *k == d.kind);
    let devices: Vec<&Device> = book.devices.iter().filter(wanted).collect();
    if devices.is_empty() {
        return Err(Failure::Usage(anyhow!(
            "--kind: no device is of this kind; known are gpu, tpu, accelerator, cpu, soc"
        )));
    }
    for d in devices {
        let query = Query { what: d.name.clone(), provider: a.provider.clone(), term: a.term, on: a.on, region: None };
        // A name that is an instance's as well is the device's here.
        let offer = book.find(&query).ok().filter(|o| o.device.as_deref() == Some(d.name.as_str()));
        rows.push(device(d, offer));
    }
    rows.print(a.printed.format)?;
    if a.printed.format == Format::Table {
        print_wrapped(&format!(
            "{} devices. Peaks are dense, of the datasheet. Prices are the lowest current ones of one device{}; `!` marks those \
             that were last seen over 90 days ago. `centime hardware show NAME` has the sources and all offers.",
            rows.len(),
            a.term.map_or(", on demand where there is such an offer".to_string(), |t| format!(", {}", t.name()))
        ))?;
    }
    Ok(())
}

fn device(d: &Device, offer: Option<&Offer>) -> Vec<Value> {
    let text = |t: &str| Value::from(t.to_string());
    let number = |x: Option<f64>, shown: fn(f64) -> String| x.map_or(text(""), |x| (shown(x), x).into());
    let peak = d.peaks.of(NumberFormat::Bf16);
    let price = offer.map(|o| {
        let stale = today().and_then(|t| o.stale_days(t)).map_or("", |_| " !");
        let usd = o.usd_per_device_hour().get();
        ((format!("{}{stale}", significant(usd, 3)), usd).into(), text(&o.address()), text(&o.seen().to_string()))
    });
    let (usd, of, seen) = price.unwrap_or((text("n/a"), text(""), text("")));
    vec![
        text(&d.name),
        text(&d.kind),
        text(&d.architecture),
        number(d.memory_bytes, |b| Bytes(b as u64).to_string()),
        number(d.memory_bytes_per_second, |b| BytesPerSecond(b).to_string()),
        number(peak, |f| FlopsPerSecond(f).to_string()),
        number(d.tdp_watts, |w| format!("{w}")),
        usd,
        of,
        seen,
        text(&d.unverified.join(", ")),
    ]
}

/// Columns of offers, also for `show`.
pub(super) const OFFERS: &[&str] = &[
    "offer",
    "device",
    "devices",
    "vcpus",
    "usd_per_hour",
    "usd_per_device_hour",
    "term",
    "region",
    "from",
    "until",
    "source",
    "notes",
];

/// Of these, what a narrow terminal does without first.
pub(super) const LEAST: &[&str] = &["notes", "source", "vcpus", "until", "device", "region", "devices", "usd_per_hour"];

pub(super) fn offer(o: &Offer) -> Vec<Value> {
    let text = |t: &str| Value::from(t.to_string());
    let count = |n: u32| if n == 0 { text("") } else { (n.to_string(), u64::from(n)).into() };
    let usd = |x: f64| Value::from((significant(x, 4), x));
    vec![
        text(&o.address()),
        text(o.device.as_deref().unwrap_or("")),
        count(o.devices),
        count(o.vcpus.unwrap_or(0)),
        usd(o.usd_per_hour.get()),
        usd(o.usd_per_device_hour().get()),
        text(o.term.name()),
        text(&o.region),
        text(&format!("{}{}", o.from, if o.approximate { " ~" } else { "" })),
        text(&o.until.map_or(String::new(), |u| u.to_string())),
        text(&o.source),
        text(&o.notes),
    ]
}

fn offers(book: &Book, a: &Arguments) -> Result<(), Failure> {
    let mut rows = Rows::new(OFFERS).least(LEAST);
    let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|w| w.eq_ignore_ascii_case(is));
    let on = |o: &Offer| a.on.is_none_or(|day| o.from.first() <= day.last() && o.seen().last() >= day.first());
    for o in
        book.offers.iter().filter(|o| a.term.is_none_or(|t| t == o.term) && same(&a.provider, &o.provider) && on(o))
    {
        rows.push(offer(o));
    }
    rows.print(a.printed.format)
}

fn apis(book: &Book, format: Format) -> Result<(), Failure> {
    let mut rows = Rows::new(&[
        "provider",
        "model",
        "usd_per_million_input",
        "usd_per_million_output",
        "date",
        "confirmed",
        "source",
        "notes",
    ])
    .least(&["notes", "source", "confirmed", "provider"]);
    for a in &book.apis {
        let text = |t: &str| Value::from(t.to_string());
        let usd = |x: f64| Value::from((significant(x, 3), x));
        let confirmed = match (a.unverified, a.approximate) {
            (true, _) => "no",
            (_, true) => "price, not date",
            _ => "yes",
        };
        rows.push(vec![
            text(&a.provider),
            text(&a.model),
            usd(a.input.get()),
            usd(a.output.get()),
            text(&a.date.to_string()),
            text(confirmed),
            text(&a.source),
            text(&a.notes),
        ]);
    }
    rows.print(format)
}
