//! The files of the catalog and the price book: read, checked, and every fault pointed at.

use super::api::Api;
use super::book::Book;
use super::date::Date;
use super::device::{Device, Link, NumberFormat, Rates};
use super::offer::{Offer, Term};
use super::owned::{OwnedHardware, usd_per_hour};
use crate::units::{UsdPerHour, UsdPerMillionTokens};
use crate::yaml::{Entry, Node, Origin, Sources, Value, YamlError, entries, flag, number, text, whole};
use rust_decimal::Decimal;
use std::path::{Path, PathBuf};

const BUILT_IN: [(&str, &str); 3] = [
    ("hardware/devices.yaml", include_str!("../../hardware/devices.yaml")),
    ("hardware/prices.yaml", include_str!("../../hardware/prices.yaml")),
    ("hardware/apis.yaml", include_str!("../../hardware/apis.yaml")),
];

const REMEDY: &str = "give the path of a price book";
const TOP: &[&str] = &["version", "devices", "offers", "apis", "rates"];
const DEVICE: &[&str] = &[
    "name",
    "title",
    "vendor",
    "kind",
    "architecture",
    "aliases",
    "seen_as",
    "tflops",
    "achieved_tflops",
    "cores",
    "memory_gb",
    "memory_gb_per_second",
    "link",
    "pcie",
    "tdp_watts",
    "released",
    "unverified",
    "source",
    "notes",
];
const KINDS: &[&str] = &["gpu", "tpu", "accelerator", "cpu", "soc"];
const OFFER: &[&str] = &[
    "provider",
    "instance",
    "device",
    "devices",
    "cpu",
    "vcpus",
    "usd_per_hour",
    "per_hour",
    "currency",
    "owned",
    "term",
    "region",
    "from",
    "until",
    "approximate",
    "source",
    "notes",
];
const API: &[&str] = &[
    "provider",
    "model",
    "usd_per_million_input",
    "usd_per_million_output",
    "date",
    "approximate",
    "unverified",
    "source",
    "notes",
];
const OWNED: &[&str] =
    &["capex_usd", "lifetime_years", "lifetime_hours", "watts", "pue", "usd_per_kwh", "opex_usd_per_hour"];
const HOURS_PER_YEAR: f64 = 8766.0;

/// The book that this program carries.
///
/// # Errors
/// A fault in our own files, which the tests exclude.
pub fn built_in() -> Result<Book, YamlError> {
    let mut book = Book::default();
    let mut sources = Sources::default();
    for (name, text) in BUILT_IN {
        let root = sources.parse(Origin::File { path: PathBuf::from(name), place: None }, text)?;
        read(&mut book, &root, &sources)?;
    }
    Ok(book)
}

/// Ours with a user's files over it: devices of the same name are replaced, and offers go before ours.
///
/// # Errors
/// What is wrong with a file, and where.
pub(crate) fn with(files: &[PathBuf]) -> Result<Book, YamlError> {
    let mut book = built_in()?;
    if !files.is_empty() {
        book.begin_own();
    }
    for file in files {
        add(&mut book, file)?;
    }
    Ok(book)
}

/// Puts a user's file over a book.
fn add(book: &mut Book, path: &Path) -> Result<(), YamlError> {
    let mut sources = Sources::default();
    let root = sources.read(path, REMEDY)?;
    read(book, &root, &sources)
}

fn read(book: &mut Book, root: &Node, s: &Sources) -> Result<(), YamlError> {
    let mut rates = Vec::new();
    let mut version = false;
    let top = entries("a price book", Some(root), TOP, &[], s)?;
    for e in top {
        match e.key.as_str() {
            "version" if e.node.value == Value::Integer(1) => version = true,
            "version" => {
                let message = format!("version: expected 1, found {}; write 1", e.node.value);
                return Err(s.fault(e.node.place, message));
            }
            "rates" => rates = read_rates(&e.node, s)?,
            "devices" => {
                for node in list(e, s)? {
                    let mut device = device(node, s)?;
                    if let Some(old) = book.devices.iter().position(|d| d.name == device.name) {
                        // What it is called by does not change with its figures.
                        let old = book.devices.remove(old);
                        device.aliases.extend(old.aliases);
                        device.seen_as.extend(old.seen_as);
                    }
                    book.devices.push(device);
                }
            }
            _ => {}
        }
    }
    if !version {
        return Err(s.fault(root.place, "version: missing; begin the file with `version: 1`"));
    }
    for e in top {
        match e.key.as_str() {
            "offers" => {
                for node in list(e, s)? {
                    let offer = offer(node, book, &rates, s)?;
                    book.offers.push(offer);
                }
            }
            "apis" => {
                for node in list(e, s)? {
                    let api = api(node, s)?;
                    book.apis.push(api);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn list<'a>(e: &'a Entry, s: &Sources) -> Result<&'a [Node], YamlError> {
    match &e.node.value {
        Value::List(nodes) => Ok(nodes),
        Value::Null => Ok(&[]),
        other => Err(s.fault(e.node.place, format!("{}: expected a list, found {}", e.key, other.kind()))),
    }
}

fn texts(e: &Entry, section: &str, s: &Sources) -> Result<Vec<String>, YamlError> {
    let one = |n: &Node| text(&Entry { key: e.key.clone(), place: n.place, node: n.clone() }, section, s);
    list(e, s)?.iter().map(one).collect()
}

/// A field that has to be there and say something.
fn required<'a>(node: &'a Node, key: &str, section: &str, s: &Sources) -> Result<&'a Entry, YamlError> {
    let empty = |e: &&Entry| e.node.value == Value::Null || e.node.value == Value::Text(String::new());
    node.get(key).filter(|e| !empty(e)).ok_or_else(|| s.fault(node.place, format!("{section}{key}: missing; add it")))
}

/// Fields by name; a closure each keeps the readers below to a line a field.
fn words(node: &Node, key: &str, section: &str, s: &Sources) -> Result<String, YamlError> {
    node.get(key).map_or(Ok(String::new()), |e| text(e, section, s))
}

fn device(node: &Node, s: &Sources) -> Result<Device, YamlError> {
    const AT: &str = "devices.";
    entries("a device", Some(node), DEVICE, &[], s)?;
    let name = text(required(node, "name", AT, s)?, AT, s)?;
    let kind_entry = required(node, "kind", AT, s)?;
    let kind = text(kind_entry, AT, s)?;
    if !KINDS.contains(&kind.as_str()) {
        let message = format!("devices.kind: expected one of {}, found `{kind}`", KINDS.join(", "));
        return Err(s.fault(kind_entry.node.place, message));
    }
    let all = |key: &str| node.get(key).map_or(Ok(vec![]), |e| texts(e, AT, s));
    let over_zero = |key: &str, scale: f64| {
        node.get(key).map(|e| Ok(number(e, AT, |x| x > 0.0 && x < 1e12, "a number above 0", s)? * scale)).transpose()
    };
    let title = words(node, "title", AT, s)?;
    Ok(Device {
        title: if title.is_empty() { name.clone() } else { title },
        vendor: words(node, "vendor", AT, s)?,
        kind,
        architecture: words(node, "architecture", AT, s)?,
        aliases: all("aliases")?,
        seen_as: all("seen_as")?,
        peaks: rates_of(node, "tflops", s)?,
        achieved: rates_of(node, "achieved_tflops", s)?,
        cores: node.get("cores").map(|e| whole(e, AT, 1, s)).transpose()?.and_then(|n| u32::try_from(n).ok()),
        memory_bytes: over_zero("memory_gb", 1e9)?,
        memory_bytes_per_second: over_zero("memory_gb_per_second", 1e9)?,
        link: node.get("link").map(|e| link(&e.node, s)).transpose()?,
        pcie: words(node, "pcie", AT, s)?,
        tdp_watts: over_zero("tdp_watts", 1.0)?,
        released: node.get("released").map(|e| date(e, AT, s)).transpose()?,
        unverified: all("unverified")?,
        source: text(required(node, "source", AT, s)?, AT, s)?,
        notes: words(node, "notes", AT, s)?,
        name,
    })
}

fn rates_of(node: &Node, key: &str, s: &Sources) -> Result<Rates, YamlError> {
    let names = NumberFormat::ALL.map(NumberFormat::name);
    let mut rates = Vec::new();
    for e in entries(key, node.get(key).map(|e| &e.node), &names, &[], s)? {
        let rate = number(e, &format!("{key}."), |x| x > 0.0 && x < 1e9, "TFLOP/s above 0", s)?;
        rates.extend(NumberFormat::ALL.into_iter().find(|f| f.name() == e.key).map(|f| (f, rate * 1e12)));
    }
    Ok(Rates(rates))
}

fn link(node: &Node, s: &Sources) -> Result<Link, YamlError> {
    entries("a link", Some(node), &["name", "gb_per_second", "devices"], &[], s)?;
    let at = "link.";
    let rate = number(required(node, "gb_per_second", at, s)?, at, |x| x > 0.0 && x < 1e9, "GB/s above 0", s)?;
    let devices = node.get("devices").map(|e| whole(e, at, 1, s)).transpose()?;
    Ok(Link {
        name: words(node, "name", at, s)?,
        bytes_per_second: rate * 1e9,
        devices: devices.and_then(|n| u32::try_from(n).ok()),
    })
}

/// A date as exact as it is known.
///
/// # Errors
/// Anything else.
pub(crate) fn date(e: &Entry, section: &str, s: &Sources) -> Result<Date, YamlError> {
    let written = text(e, section, s)?;
    Date::parse(&written).ok_or_else(|| {
        let message = format!(
            "{section}{}: expected a date such as \"2026-07-20\", \"2026-07\" or \"2026\", found `{written}`",
            e.key
        );
        s.fault(e.node.place, message)
    })
}

/// USD for one unit of another currency.
struct Rate {
    currency: String,
    usd: f64,
    source: String,
}

fn read_rates(node: &Node, s: &Sources) -> Result<Vec<Rate>, YamlError> {
    let Value::Map(all) = &node.value else {
        return Err(s.fault(node.place, "rates: expected a map: EUR: { usd: 1.08, date: \"2026-07-20\", source: ... }"));
    };
    let mut rates = Vec::new();
    for e in all {
        entries("a rate", Some(&e.node), &["usd", "date", "source"], &[], s)?;
        let at = format!("rates.{}.", e.key);
        let usd =
            number(required(&e.node, "usd", &at, s)?, &at, |x| x > 0.0 && x < 1e9, "USD for one unit, above 0", s)?;
        let day = date(required(&e.node, "date", &at, s)?, &at, s)?;
        let source = format!("{}, {day}", text(required(&e.node, "source", &at, s)?, &at, s)?);
        rates.push(Rate { currency: e.key.clone(), usd, source });
    }
    Ok(rates)
}

/// An hourly price: above 0 and at most this.
const DEAREST: f64 = 1e9;

/// A price of the file's in USD for an hour; what is 0, negative, not a number or absurdly large is refused.
///
/// # Errors
/// Anything else than a number within the bounds.
pub(crate) fn hourly(e: &Entry, section: &str, s: &Sources) -> Result<UsdPerHour, YamlError> {
    let wanted = "a price above 0 and at most 1e9 for an hour";
    let price = number(e, section, |x| (1e-9..=DEAREST).contains(&x), wanted, s)?;
    UsdPerHour::of(price).ok_or_else(|| s.fault(e.node.place, format!("{section}{}: expected {wanted}", e.key)))
}

fn offer(node: &Node, book: &Book, rates: &[Rate], s: &Sources) -> Result<Offer, YamlError> {
    const AT: &str = "offers.";
    entries("an offer", Some(node), OFFER, &[], s)?;
    let optional = |key: &str| node.get(key).map(|e| whole(e, AT, 1, s)).transpose();
    let named = node.get("device").or_else(|| node.get("cpu"));
    let device = named.map(|e| known_device(e, book, s)).transpose()?;
    let accelerated = node.get("device").is_some();
    let devices = if accelerated { optional("devices")?.unwrap_or(1) } else { 0 };
    let term = match node.get("term") {
        None if node.get("owned").is_some() => Term::Owned,
        None => Term::OnDemand,
        Some(e) => {
            let written = text(e, AT, s)?;
            Term::named(&written).ok_or_else(|| {
                let names = Term::ALL.map(Term::name).join(", ");
                s.fault(e.node.place, format!("offers.term: expected one of {names}, found `{written}`"))
            })?
        }
    };
    let (price, remark) = offered_price(node, rates, s)?;
    let notes = words(node, "notes", AT, s)?;
    let from = date(required(node, "from", AT, s)?, AT, s)?;
    let until = node.get("until").map(|e| date(e, AT, s)).transpose()?;
    if let (Some(e), Some(u)) = (node.get("until"), until)
        && u.last() < from.first()
    {
        return Err(s.fault(e.node.place, format!("offers.until: {u} is before from = {from}; exchange the two")));
    }
    Ok(Offer {
        provider: text(required(node, "provider", AT, s)?, AT, s)?,
        instance: text(required(node, "instance", AT, s)?, AT, s)?,
        device,
        devices: u32::try_from(devices).unwrap_or(u32::MAX),
        vcpus: optional("vcpus")?.and_then(|n| u32::try_from(n).ok()),
        usd_per_hour: price,
        term,
        region: words(node, "region", AT, s)?,
        from,
        until,
        approximate: node.get("approximate").map_or(Ok(false), |e| flag(e, AT, s))?,
        source: text(required(node, "source", AT, s)?, AT, s)?,
        notes: [remark, notes].into_iter().filter(|n| !n.is_empty()).collect::<Vec<_>>().join("; "),
    })
}

fn known_device(e: &Entry, book: &Book, s: &Sources) -> Result<String, YamlError> {
    let written = text(e, "offers.", s)?;
    book.device(&written).map(|d| d.name.clone()).ok_or_else(|| {
        let message = format!(
            "offers.{}: no device is called `{written}`; {}, or describe it under `devices:`",
            e.key,
            book.hint(&written)
        );
        s.fault(e.node.place, message)
    })
}

/// The price in USD, and how it came about where it was not stated so.
fn offered_price(node: &Node, rates: &[Rate], s: &Sources) -> Result<(UsdPerHour, String), YamlError> {
    const AT: &str = "offers.";
    let given: Vec<&Entry> =
        ["usd_per_hour", "per_hour", "owned"].into_iter().filter_map(|key| node.get(key)).collect();
    let [e] = given.as_slice() else {
        let message = "offers: expected one of usd_per_hour, per_hour (with currency) and owned";
        return Err(s.fault(node.place, message));
    };
    match e.key.as_str() {
        "usd_per_hour" => Ok((hourly(e, AT, s)?, String::new())),
        "owned" => Ok((owned(&e.node, s)?, "bought: purchase, power and running costs by the hour".into())),
        _ => {
            let amount = hourly(e, AT, s)?;
            let currency = text(required(node, "currency", AT, s)?, AT, s)?;
            let rate = rates.iter().find(|r| r.currency == currency).ok_or_else(|| {
                let message = format!(
                    "offers.currency: no rate for `{currency}`; state it under `rates:`: {currency}: {{ usd: ..., date: ..., source: ... }}"
                );
                s.fault(node.place, message)
            })?;
            let usd = crate::units::decimal(rate.usd).map(|r| amount.0 * r).filter(|p| *p > Decimal::ZERO);
            let price = usd.ok_or_else(|| s.fault(e.node.place, "offers.per_hour: not a price in USD at this rate"))?;
            let remark = format!("{} {currency} at {} USD ({})", amount.0, rate.usd, rate.source);
            Ok((UsdPerHour(price.round_dp(12)), remark))
        }
    }
}

/// Bought hardware, as an hourly price.
///
/// # Errors
/// A field that is missing, unknown or out of bounds.
pub(crate) fn owned(node: &Node, s: &Sources) -> Result<UsdPerHour, YamlError> {
    const AT: &str = "owned.";
    let all = entries("owned", Some(node), OWNED, &[], s)?;
    let value = |key: &str| {
        all.iter().find(|e| e.key == key).map(|e| number(e, AT, |x| x >= 0.0, "a number from 0 up", s)).transpose()
    };
    let hours = match (value("lifetime_hours")?, value("lifetime_years")?) {
        (Some(hours), None) => hours,
        (None, Some(years)) => years * HOURS_PER_YEAR,
        _ => return Err(s.fault(node.place, "owned: expected one of lifetime_years and lifetime_hours")),
    };
    required(node, "capex_usd", AT, s)?;
    let hardware = OwnedHardware {
        capex_usd: value("capex_usd")?.unwrap_or(0.0),
        lifetime_hours: hours,
        watts: value("watts")?.unwrap_or(0.0),
        pue: value("pue")?.unwrap_or(1.0),
        usd_per_kwh: value("usd_per_kwh")?.unwrap_or(0.0),
        opex_usd_per_hour: value("opex_usd_per_hour")?.unwrap_or(0.0),
    };
    usd_per_hour(&hardware).map_err(|e| s.fault(node.place, format!("owned: {e}")))
}

fn api(node: &Node, s: &Sources) -> Result<Api, YamlError> {
    const AT: &str = "apis.";
    entries("an API's price", Some(node), API, &[], s)?;
    let price = |key: &str| {
        let e = required(node, key, AT, s)?;
        let wanted = "USD above 0 for a million tokens";
        let usd = number(e, AT, |x| x > 1e-9 && x <= DEAREST, wanted, s)?;
        UsdPerMillionTokens::of(usd).ok_or_else(|| s.fault(e.node.place, format!("{AT}{key}: expected {wanted}")))
    };
    let is = |key: &str| node.get(key).map_or(Ok(false), |e| flag(e, AT, s));
    Ok(Api {
        provider: text(required(node, "provider", AT, s)?, AT, s)?,
        model: text(required(node, "model", AT, s)?, AT, s)?,
        input: price("usd_per_million_input")?,
        output: price("usd_per_million_output")?,
        date: date(required(node, "date", AT, s)?, AT, s)?,
        approximate: is("approximate")?,
        unverified: is("unverified")?,
        source: text(required(node, "source", AT, s)?, AT, s)?,
        notes: words(node, "notes", AT, s)?,
    })
}
