//! What an hour costs: stated, looked up in a price book, or worked out for bought hardware.

use crate::hardware::book::{Book, NoOffer, Query};
use crate::hardware::date::Date;
use crate::hardware::offer::{Offer, Term};
use crate::hardware::{price_fields, read};
use crate::units::{Share, UsdPerHour, decimal};
use crate::yaml::{Entry, Node, Sources, Value, YamlError, entries, number, text, whole};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Keys of `price`.
pub(crate) const PRICE: &[&str] = &[
    "hardware",
    "usd_per_hour",
    "per_hour",
    "currency",
    "owned",
    "devices",
    "book",
    "provider",
    "region",
    "term",
    "on",
    "source",
    "utilisation",
    "energy",
    "use_cases",
    "training_tokens",
];

/// What an hour of the hardware costs, and what is to be worked out from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// A name of the price book, or `local`.
    pub hardware: String,
    /// `None` is shown as n/a, never as 0.
    pub usd_per_hour: Option<UsdPerHour>,
    /// What the figure stands for.
    pub source: String,
    /// Share of the paid time in which tokens are produced, in (0, 1].
    pub utilisation: Share,
    /// Devices that the price pays for, rented together; `None`: it pays for whatever a trial occupies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_devices: Option<u32>,
    /// Name of the device in the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Which of its prices: on demand, spot, reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<Term>,
    /// When the price was last seen, as its book writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// What electricity costs, for own hardware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<Energy>,
    /// Kinds of requests to price; none stands for the usual ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub use_cases: Vec<UseCase>,
    /// Tokens that a model is to be trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_tokens: Option<f64>,
}

/// What power costs where the machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    pub usd_per_kwh: f64,
    /// Power of the site over power of the machine.
    pub pue: f64,
    /// Power of the machine where it cannot be measured; else the catalog's TDP is taken.
    pub watts: Option<f64>,
}

/// A mix of input and output tokens: what one request of a kind of work reads and writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UseCase {
    pub name: String,
    pub input_tokens: u64,
    pub output_tokens: u64,
}

impl Default for Price {
    fn default() -> Self {
        Self {
            hardware: LOCAL.into(),
            usd_per_hour: None,
            source: String::new(),
            utilisation: Share(1.0),
            per_devices: None,
            device: None,
            term: None,
            seen: None,
            energy: None,
            use_cases: Vec::new(),
            training_tokens: None,
        }
    }
}

const LOCAL: &str = "local";

impl Price {
    /// Whole units that so many devices occupy: instances where they are rented whole, else 1.
    pub fn units(&self, devices: u32) -> u32 {
        self.per_devices.map_or(1, |n| devices.div_ceil(n.max(1)))
    }

    /// For an hour of everything that a trial on so many devices occupies.
    pub fn for_devices(&self, devices: u32) -> Option<UsdPerHour> {
        let unit = self.usd_per_hour?;
        unit.0.checked_mul(Decimal::from(self.units(devices))).map(UsdPerHour)
    }

    /// Takes an offer of the price book for the price.
    pub fn take(&mut self, offer: &Offer) {
        self.usd_per_hour = Some(offer.usd_per_hour);
        self.hardware = offer.address();
        self.source = format!("{}; {}", offer.described(), offer.source);
        if !offer.notes.is_empty() {
            self.source += &format!("; {}", offer.notes);
        }
        self.per_devices = (offer.devices > 0).then_some(offer.devices);
        self.device.clone_from(&offer.device);
        self.term = Some(offer.term);
        self.seen = Some(offer.seen().to_string());
    }

    /// A price that somebody states, for everything that a trial occupies.
    pub fn state(&mut self, usd: UsdPerHour, source: &str) {
        self.usd_per_hour = Some(usd);
        self.source = source.into();
        (self.per_devices, self.term, self.seen) = (None, None, None);
    }

    /// How many days before `today` the price was last seen, where that is too long ago to rely on.
    pub fn stale_days(&self, today: Date) -> Option<i64> {
        let age = Date::parse(self.seen.as_deref()?)?.age_in_days(today);
        (age > crate::hardware::offer::STALE_AFTER_DAYS).then_some(age)
    }
}

/// # Errors
/// The first field at fault; a price that is not a finite number above 0; hardware that no price book has.
pub(crate) fn read(node: Option<&Node>, books: &[PathBuf], s: &Sources) -> Result<(Price, Book), YamlError> {
    let mut price = Price::default();
    let p = "price.";
    let mut query = Query::default();
    let mut files = books.to_vec();
    let all = entries("price", node, PRICE, &[], s)?;
    let mut currency = None;
    for e in all {
        match e.key.as_str() {
            "hardware" => price.hardware = text(e, p, s)?,
            "source" => price.source = text(e, p, s)?,
            "provider" => query.provider = Some(text(e, p, s)?),
            "region" => query.region = Some(text(e, p, s)?),
            "book" => files.insert(0, s.folder().join(text(e, p, s)?)),
            "term" => query.term = Some(term(e, s)?),
            "on" => query.on = Some(price_fields::date(e, p, s)?),
            "devices" => price.per_devices = u32::try_from(whole(e, p, 1, s)?).ok(),
            "currency" => currency = Some(read_currency(&e.node, s)?),
            "energy" => price.energy = Some(energy(&e.node, s)?),
            "use_cases" => price.use_cases = use_cases(&e.node, s)?,
            "training_tokens" => {
                let wanted = "a number of tokens above 0, such as 300e9";
                price.training_tokens = Some(number(e, p, |x| (1.0..=1e18).contains(&x), wanted, s)?);
            }
            "utilisation" => {
                price.utilisation = Share(number(e, p, |x| x > 0.0 && x <= 1.0, "a share from above 0 to 1", s)?);
            }
            _ => {}
        }
    }
    let book = read::with(&files)?;
    stated(&mut price, all, currency.as_ref(), s)?;
    if price.usd_per_hour.is_none() {
        look_up(&mut price, query, &book, all, s)?;
    }
    Ok((price, book))
}

fn term(e: &Entry, s: &Sources) -> Result<Term, YamlError> {
    let written = text(e, "price.", s)?;
    Term::named(&written).ok_or_else(|| {
        let names = Term::ALL.map(Term::name).join(", ");
        s.fault(e.node.place, format!("price.term: expected one of {names}, found `{written}`"))
    })
}

/// USD for one unit, and where that comes from.
struct Currency {
    code: String,
    usd: f64,
    source: String,
}

fn read_currency(node: &Node, s: &Sources) -> Result<Currency, YamlError> {
    let mut c = Currency { code: String::new(), usd: 0.0, source: String::new() };
    let p = "price.currency.";
    for e in entries("price.currency", Some(node), &["code", "usd", "source"], &[], s)? {
        match e.key.as_str() {
            "code" => c.code = text(e, p, s)?,
            "usd" => c.usd = number(e, p, |x| x > 1e-9 && x < 1e9, "USD for one unit, above 0", s)?,
            _ => c.source = text(e, p, s)?,
        }
    }
    if c.code.is_empty() || c.usd == 0.0 || c.source.is_empty() {
        let message = "price.currency: expected code, usd (for one unit) and source: { code: EUR, usd: 1.08, source: \"central bank, 2026-07-20\" }";
        return Err(s.fault(node.place, message));
    }
    Ok(c)
}

/// A price that the scenario itself states, in one of three ways.
fn stated(price: &mut Price, all: &[Entry], currency: Option<&Currency>, s: &Sources) -> Result<(), YamlError> {
    let ways = ["usd_per_hour", "per_hour", "owned"];
    let given: Vec<&Entry> =
        all.iter().filter(|e| ways.contains(&e.key.as_str()) && e.node.value != Value::Null).collect();
    if let [_, second, ..] = given.as_slice() {
        let message = format!("price.{}: one of {} is enough; take the others out", second.key, ways.join(", "));
        return Err(s.fault(second.place, message));
    }
    let Some(e) = given.first() else { return Ok(()) };
    match e.key.as_str() {
        "owned" => {
            price.usd_per_hour = Some(price_fields::owned(&e.node, s)?);
            price.term = Some(Term::Owned);
        }
        "per_hour" => {
            let Some(c) = currency else {
                return Err(s.fault(e.place, "price.per_hour: in which currency? give price.currency, or usd_per_hour"));
            };
            let amount = price_fields::hourly(e, "price.", s)?;
            let usd = decimal(c.usd).and_then(|rate| amount.0.checked_mul(rate)).map(|usd| usd.round_dp(12));
            let usd = usd.filter(|usd| *usd > Decimal::ZERO);
            price.usd_per_hour = Some(UsdPerHour(
                usd.ok_or_else(|| s.fault(e.node.place, "price.per_hour: not a price in USD at this rate"))?,
            ));
            let remark = format!("{} {} at {} USD ({})", amount.0, c.code, c.usd, c.source);
            price.source = if price.source.is_empty() { remark } else { format!("{}; {remark}", price.source) };
        }
        _ => price.usd_per_hour = Some(price_fields::hourly(e, "price.", s)?),
    }
    Ok(())
}

/// Looks the hardware up in the price books. A device that nobody offers has no price, and costs are n/a.
fn look_up(price: &mut Price, query: Query, book: &Book, all: &[Entry], s: &Sources) -> Result<(), YamlError> {
    let named = all.iter().find(|e| e.key == "hardware");
    let place = named.map_or_else(|| all.first().and_then(|e| e.place), |e| e.node.place);
    let conditions = query.provider.is_some() || query.region.is_some() || query.term.is_some() || query.on.is_some();
    if price.hardware == LOCAL {
        if conditions || book.has_own() && named.is_some() {
            let message =
                "price.hardware: which instance or device of the price book? `centime hardware list` shows them";
            return Err(s.fault(place, message));
        }
        return Ok(());
    }
    let query = Query { what: price.hardware.clone(), ..query };
    match book.find(&query) {
        Ok(offer) => {
            let (source, per_devices) = (std::mem::take(&mut price.source), price.per_devices);
            price.take(offer);
            price.per_devices = per_devices.or(price.per_devices);
            if !source.is_empty() {
                price.source = format!("{source}; {}", price.source);
            }
            Ok(())
        }
        Err(NoOffer::Unpriced { .. }) if !conditions => {
            price.device = book.device(&price.hardware).map(|d| d.name.clone());
            Ok(())
        }
        Err(e) => {
            let remedy = if matches!(e, NoOffer::Unknown { .. }) {
                "; or state usd_per_hour for a name of your own"
            } else {
                ""
            };
            Err(s.fault(place, format!("price.hardware: {e}{remedy}")))
        }
    }
}

fn energy(node: &Node, s: &Sources) -> Result<Energy, YamlError> {
    let mut found = Energy { usd_per_kwh: 0.0, pue: 1.0, watts: None };
    let p = "price.energy.";
    let mut priced = false;
    for e in entries("price.energy", Some(node), &["usd_per_kwh", "pue", "watts"], &[], s)? {
        match e.key.as_str() {
            "usd_per_kwh" => {
                found.usd_per_kwh = number(e, p, |x| x > 0.0 && x <= 1000.0, "USD above 0 for a kWh", s)?;
                priced = true;
            }
            "pue" => found.pue = number(e, p, |x| (1.0..=100.0).contains(&x), "a number from 1 to 100", s)?,
            _ => found.watts = Some(number(e, p, |x| x > 0.0 && x <= 1e9, "watts above 0", s)?),
        }
    }
    if priced { Ok(found) } else { Err(s.fault(node.place, "price.energy.usd_per_kwh: missing; add it")) }
}

fn use_cases(node: &Node, s: &Sources) -> Result<Vec<UseCase>, YamlError> {
    let wanted = "price.use_cases: expected a map of names to tokens: chat: { input: 1000, output: 500 }";
    let Value::Map(all) = &node.value else { return Err(s.fault(node.place, wanted)) };
    let mut found = Vec::new();
    for e in all {
        let at = format!("price.use_cases.{}.", e.key);
        let mut case = UseCase { name: e.key.clone(), input_tokens: 0, output_tokens: 0 };
        for f in entries("a use case", Some(&e.node), &["input", "output"], &[], s)? {
            let tokens = whole(f, &at, 0, s)?;
            if tokens > 1_000_000_000_000 {
                return Err(s.fault(f.node.place, format!("{at}{}: expected at most 1e12 tokens", f.key)));
            }
            *(if f.key == "input" { &mut case.input_tokens } else { &mut case.output_tokens }) = tokens;
        }
        if case.input_tokens + case.output_tokens == 0 {
            return Err(s.fault(e.place, wanted));
        }
        found.push(case);
    }
    Ok(found)
}
